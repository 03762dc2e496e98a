//! Our stack with the lab as the wire: Ethernet frames in UDP datagrams between qemu's network device and us. No root, no tap.

pub(crate) mod faults;
pub(crate) mod frame;
mod node;

use crate::party::{Family, MEMORY, Party, Path, QKEY, Work, pattern};
use anyhow::{Context, Result, bail, ensure};
use faults::{Record, Rule};
use frame::{OUR_V4, OUR_V6};
use node::{BASE, Entry, Node, PD, flow};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tbrdma_proto::transport::{Qp, QpConfig, Receive};
use tbrdma_proto::wire::Headers;
use tbrdma_proto::{
    Access, AddressVector, AsyncEventKind, DeviceAttr, Gid, Habits, PortAttr, QpAttr, QpAttrMask, QpCap,
    QpState, QpType, Qpn, RemoteAddr, SendWr, Sge, Time, UdDestination, WorkCompletion, limits,
};

/// How long the wire's thread sleeps at most when nothing comes: how late a timer may be.
const TICK: Duration = Duration::from_millis(1);

/// The largest frame.
const FRAME: usize = 16 << 10;

/// Our side of the wire.
pub(crate) struct Wire {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    key: u32,
    next_qpn: u32,
}

struct Shared {
    node: Mutex<Node>,
    changed: Condvar,
    stop: AtomicBool,
}

impl Wire {
    /// Starts the wire on a socket that qemu sends the guest's frames to, towards where qemu takes ours.
    pub(crate) fn start(socket: UdpSocket, guest: SocketAddr) -> Result<Self> {
        socket.set_read_timeout(Some(TICK))?;
        let mut node = Node::new(socket.try_clone()?, guest, MEMORY as usize);
        let entropy = node.random() as u32;
        let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC;
        let key = node.tables.regions.insert(entropy, PD, access, BASE, u64::from(MEMORY), ())?;
        let next_qpn = 0x10_0000 | (node.random() & 0xffff) as u32;
        let shared = Arc::new(Shared {
            node: Mutex::new(node),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let thread = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || carry(&socket, &shared))
        };
        Ok(Self { shared, thread: Some(thread), key, next_qpn })
    }

    fn node(&self) -> MutexGuard<'_, Node> {
        self.shared.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this rule decides, and the record starts anew.
    pub(crate) fn set_rule(&self, rule: Option<Rule>) {
        let mut node = self.node();
        node.rule = rule;
        node.record = Record::default();
        node.events.clear();
        node.bad_icrc = 0;
        node.unknown_qpn = 0;
    }

    /// What has passed since the rule was set.
    pub(crate) fn record(&self) -> Record {
        Record(self.node().record.0.clone())
    }

    /// Packets with a wrong iCRC that came since the rule was set.
    pub(crate) fn bad_icrc(&self) -> u32 {
        self.node().bad_icrc
    }

    /// Events raised since the rule was set.
    pub(crate) fn events(&self) -> Vec<AsyncEventKind> {
        self.node().events.clone()
    }

    /// Sends a packet of the check's own making to a queue pair's peer, past the queue pair.
    pub(crate) fn inject(&self, qpn: Qpn, headers: &Headers, payload: &[u8]) -> Result<()> {
        let mut node = self.node();
        let flow = node
            .qps
            .get(&qpn.get())
            .and_then(|entry| entry.flow)
            .context("the queue pair is not connected")?;
        node.send_packet(&flow, headers, payload);
        Ok(())
    }

    /// Gives a queue pair a packet of the check's own making, as if its peer had sent it.
    pub(crate) fn forge(&self, qpn: Qpn, headers: &Headers) -> Result<()> {
        let mut node = self.node();
        let flow = node.qps.get(&qpn.get()).and_then(|entry| entry.flow);
        node.forge(&flow.context("the queue pair is not connected")?, headers)
    }

    /// Another key for a stretch of memory, with these rights.
    pub(crate) fn register(&self, access: Access, offset: u32, length: u32) -> Result<RemoteAddr> {
        let mut node = self.node();
        let (entropy, addr) = (node.random() as u32, BASE + u64::from(offset));
        let rkey = node.tables.regions.insert(entropy, PD, access, addr, u64::from(length), ())?;
        Ok(RemoteAddr { addr, rkey })
    }

    fn with_qp<T>(&self, qpn: Qpn, act: impl FnOnce(&mut Qp, Time) -> Result<T>) -> Result<T> {
        let mut node = self.node();
        let now = node.now();
        let entry = node.qps.get_mut(&qpn.get()).with_context(|| format!("there is no queue pair {qpn}"))?;
        let result = act(&mut entry.qp, now)?;
        node.advance();
        Ok(result)
    }

    fn sge(&self, offset: u32, length: u32) -> Sge {
        Sge { addr: BASE + u64::from(offset), length, lkey: self.key }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Carries frames and lets time pass until told to stop.
fn carry(socket: &UdpSocket, shared: &Shared) {
    let mut frame = vec![0; FRAME];
    while !shared.stop.load(Ordering::Relaxed) {
        let received = socket.recv(&mut frame);
        let mut node = shared.node.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(length) = received {
            node.handle_frame(frame.get(..length).unwrap_or_default());
        }
        node.advance();
        if !node.completions.is_empty() {
            shared.changed.notify_all();
        }
    }
}

impl Party for Wire {
    fn gid(&mut self, family: Family) -> Result<Gid> {
        Ok(match family {
            Family::V4 => Gid::from_ipv4_mapped(OUR_V4),
            Family::V6 => Gid::from(OUR_V6),
        })
    }

    fn memory(&mut self) -> Result<RemoteAddr> {
        Ok(RemoteAddr { addr: BASE, rkey: self.key })
    }

    fn reset(&mut self) -> Result<()> {
        let mut node = self.node();
        node.qps.clear();
        node.completions.clear();
        node.tables.shared_receives.clear();
        node.handles.clear();
        Ok(())
    }

    fn create_qp(&mut self, kind: QpType, access: Access, shared_receives: bool) -> Result<Qpn> {
        let qpn = Qpn::new(self.next_qpn).context("out of queue pair numbers")?;
        self.next_qpn += 1;
        let cap = QpCap {
            max_send_wr: 256,
            max_recv_wr: 256,
            max_send_sge: 2,
            max_recv_sge: 2,
            max_inline_data: 64,
        };
        let (device, port) = (DeviceAttr::default(), PortAttr::default());
        let habits = Habits::default();
        let mut qp =
            Qp::new(QpConfig { qpn, qp_type: kind, pd: PD, cap, shared_receives, device, port, habits });
        let attr = QpAttr {
            qp_state: QpState::Init,
            port_num: limits::PORT,
            qp_access_flags: access,
            qkey: QKEY,
            ..QpAttr::default()
        };
        let special = if kind == QpType::Ud { QpAttrMask::QKEY } else { QpAttrMask::ACCESS_FLAGS };
        let mut node = self.node();
        qp.modify(
            node.now(),
            &attr,
            QpAttrMask::STATE | QpAttrMask::PKEY_INDEX | QpAttrMask::PORT | special,
        )?;
        node.qps.insert(qpn.get(), Entry { qp, kind, flow: None });
        Ok(qpn)
    }

    fn connect(&mut self, qpn: Qpn, path: &Path) -> Result<()> {
        let kind = self.node().qps.get(&qpn.get()).context("there is no such queue pair")?.kind;
        let ah_attr = AddressVector {
            is_global: true,
            dgid: path.dgid,
            port_num: limits::PORT,
            hop_limit: 64,
            ..AddressVector::default()
        };
        let (attr, rtr, rts) = path.attributes(kind, ah_attr);
        self.with_qp(qpn, |qp, now| {
            qp.modify(now, &attr, rtr)?;
            Ok(qp.modify(now, &QpAttr { qp_state: QpState::Rts, ..attr }, rts)?)
        })?;
        let flow = flow(qpn, path.dgid)?;
        if let Some(entry) = self.node().qps.get_mut(&qpn.get()) {
            entry.flow = Some(flow);
        }
        Ok(())
    }

    fn state(&mut self, qpn: Qpn) -> Result<QpState> {
        self.with_qp(qpn, |qp, _| Ok(qp.state()))
    }

    fn post_send(&mut self, qpn: Qpn, work: &Work) -> Result<()> {
        let ud = work.to.map(|(gid, qpn)| {
            let mut node = self.node();
            let known = node.handles.iter().position(|handle| *handle == gid);
            let ah = known.unwrap_or_else(|| {
                node.handles.push(gid);
                node.handles.len() - 1
            });
            UdDestination { ah: ah as u32, qpn, qkey: QKEY }
        });
        let sges = [self.sge(work.offset, work.length)];
        let wr = SendWr {
            wr_id: work.id,
            opcode: work.opcode,
            flags: work.flags,
            imm_data: work.imm,
            remote: work.remote,
            compare_add: work.compare_add,
            swap: work.swap,
            ud,
            first_sge: 0,
            num_sge: u32::from(work.length > 0),
        };
        self.with_qp(qpn, |qp, now| Ok(qp.post_send(now, &wr, &sges, &[]).map(drop)?))
    }

    fn post_recv(&mut self, qpn: Option<Qpn>, id: u64, offset: u32, length: u32) -> Result<()> {
        let sges = [self.sge(offset, length)];
        match qpn {
            Some(qpn) => self.with_qp(qpn, |qp, now| Ok(qp.post_recv(now, id, &sges).map(drop)?)),
            None => {
                let receive = Receive { wr_id: id, wq_index: 0, sges: sges.to_vec(), pd: PD };
                self.node().tables.shared_receives.push_back(receive);
                Ok(())
            }
        }
    }

    fn poll(&mut self, limit: Duration) -> Result<Option<WorkCompletion>> {
        let until = Instant::now() + limit;
        let mut node = self.node();
        loop {
            if let Some(wc) = node.completions.pop_front() {
                return Ok(Some(wc));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                bail!("the wire's thread has ended");
            }
            let wait = left.min(Duration::from_millis(100));
            node = self.shared.changed.wait_timeout(node, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn fill(&mut self, offset: u32, length: u32, seed: u32) -> Result<()> {
        let mut node = self.node();
        let bytes = slice(&mut node.tables.memory, offset, length)?;
        for (index, byte) in (0..).zip(bytes) {
            *byte = pattern(index, seed);
        }
        Ok(())
    }

    fn matching(&mut self, offset: u32, length: u32, seed: u32) -> Result<u32> {
        let mut node = self.node();
        let bytes = slice(&mut node.tables.memory, offset, length)?;
        let same =
            (0..).zip(bytes.iter()).take_while(|(index, byte)| **byte == pattern(*index, seed)).count();
        Ok(same as u32)
    }

    fn clear(&mut self, offset: u32, length: u32) -> Result<()> {
        slice(&mut self.node().tables.memory, offset, length)?.fill(0);
        Ok(())
    }

    fn load(&mut self, offset: u32) -> Result<u64> {
        let mut node = self.node();
        let bytes = slice(&mut node.tables.memory, offset, 8)?;
        Ok(u64::from_ne_bytes((&*bytes).try_into()?))
    }

    fn store(&mut self, offset: u32, value: u64) -> Result<()> {
        slice(&mut self.node().tables.memory, offset, 8)?.copy_from_slice(&value.to_ne_bytes());
        Ok(())
    }

    fn invalidatable(&mut self, _: Qpn, offset: u32, length: u32) -> Result<RemoteAddr> {
        self.register(Access::LOCAL_WRITE | Access::REMOTE_WRITE, offset, length)
    }
}

fn slice(memory: &mut [u8], offset: u32, length: u32) -> Result<&mut [u8]> {
    let (offset, length) = (offset as usize, length as usize);
    ensure!(offset + length <= memory.len(), "{length} bytes at {offset} are not inside the memory");
    memory.get_mut(offset..offset + length).context("outside the memory")
}
