//! The library itself as a party: a device of crate `tbrdma`, opened by its name as any program would.

use crate::party::{Family, MEMORY, Party, Path, QKEY, Work, pattern};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tbrdma::{
    AddressHandle, CompletionQueue, Context, MemoryRegion, OpenOptions, ProtectionDomain, QpInit, QueuePair,
    SharedReceiveQueue,
};
use tbrdma_proto::{
    Access, AddressVector, Gid, Opcode, QpAttr, QpAttrMask, QpState, QpType, Qpn, RemoteAddr, SendFlags,
    WorkCompletion, limits,
};

/// A device with one protection domain, one completion queue and one region.
// Fields are dropped in this order: what depends on others first.
pub(crate) struct Device {
    qps: BTreeMap<u32, QueuePair>,
    handles: BTreeMap<Gid, AddressHandle>,
    shared: SharedReceiveQueue,
    memory: MemoryRegion,
    /// A stretch of memory with a key of its own, and its place among the rest.
    window: Option<(u32, MemoryRegion)>,
    cq: CompletionQueue,
    pd: ProtectionDomain,
    context: Context,
    gids: Vec<Gid>,
}

impl Device {
    /// Opens the device of this name.
    pub(crate) fn open(name: &str, options: &OpenOptions) -> Result<Self> {
        let context = options.open(name)?;
        let pd = context.alloc_pd()?;
        let cq = context.create_cq(1024)?;
        let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC;
        let memory = pd.alloc(MEMORY as usize, access)?;
        let shared = pd.create_srq(256, 2)?;
        let count = context.query_port(limits::PORT)?.gid_tbl_len;
        let gids = (0..count).map_while(|index| context.query_gid(limits::PORT, index).ok()).collect();
        let (qps, handles) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { qps, handles, shared, memory, window: None, cq, pd, context, gids })
    }

    /// What the device has counted under this name.
    pub(crate) fn counter(&self, name: &str) -> Option<u64> {
        self.context.counters().into_iter().find(|(known, _)| *known == name).map(|(_, count)| count)
    }

    fn gid_index(&self, family: Family) -> Result<u8> {
        let fits = |gid: &Gid| match family {
            Family::V4 => gid.0.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
            Family::V6 => gid.0.first() == Some(&0xfd),
        };
        let index = self.gids.iter().position(fits);
        index.map(|index| index as u8).with_context(|| {
            format!("device {} has no {family:?} address among {:?}", self.context.name(), self.gids)
        })
    }

    fn qp(&mut self, qpn: Qpn) -> Result<&mut QueuePair> {
        self.qps.get_mut(&qpn.get()).with_context(|| format!("there is no queue pair {qpn}"))
    }

    /// The address handle of a GID, made when it is first needed.
    fn handle(&mut self, gid: Gid) -> Result<()> {
        if !self.handles.contains_key(&gid) {
            let family = if gid.0.first() == Some(&0) { Family::V4 } else { Family::V6 };
            let ah = self.pd.create_ah(&self.way_to(gid, family)?)?;
            self.handles.insert(gid, ah);
        }
        Ok(())
    }

    fn way_to(&self, dgid: Gid, family: Family) -> Result<AddressVector> {
        Ok(AddressVector {
            is_global: true,
            dgid,
            sgid_index: self.gid_index(family)?,
            hop_limit: 64,
            port_num: limits::PORT,
            ..AddressVector::default()
        })
    }

    /// The region that holds what is at `offset`, and where in it.
    fn place(&self, offset: u32) -> (&MemoryRegion, usize) {
        match &self.window {
            Some((start, window)) if (*start..*start + window.len() as u32).contains(&offset) => {
                (window, (offset - start) as usize)
            }
            _ => (&self.memory, offset as usize),
        }
    }

    fn write(&self, offset: u32, bytes: &[u8]) -> Result<()> {
        let (region, at) = self.place(offset);
        ensure!(
            region.write(at, bytes) == bytes.len(),
            "{} bytes at {offset} are not inside the memory",
            bytes.len()
        );
        Ok(())
    }

    fn read(&self, offset: u32, bytes: &mut [u8]) -> Result<()> {
        let (region, at) = self.place(offset);
        ensure!(
            region.read(at, bytes) == bytes.len(),
            "{} bytes at {offset} are not inside the memory",
            bytes.len()
        );
        Ok(())
    }
}

impl Party for Device {
    fn gid(&mut self, family: Family) -> Result<Gid> {
        let index = self.gid_index(family)?;
        self.gids.get(usize::from(index)).copied().context("no such GID")
    }

    fn memory(&mut self) -> Result<RemoteAddr> {
        Ok(RemoteAddr { addr: self.memory.addr(), rkey: self.memory.rkey() })
    }

    fn reset(&mut self) -> Result<()> {
        self.qps.clear();
        self.handles.clear();
        self.window = None;
        self.shared = self.pd.create_srq(256, 2)?;
        while self.poll(Duration::ZERO)?.is_some() {}
        Ok(())
    }

    fn create_qp(&mut self, kind: QpType, access: Access, shared_receives: bool) -> Result<Qpn> {
        let init =
            QpInit::new(kind, &self.cq).max_send_wr(256).max_recv_wr(256).max_send_sge(2).max_recv_sge(2);
        let init = if shared_receives { init.srq(&self.shared) } else { init };
        let mut qp = self.pd.create_qp(init)?;
        let attr = QpAttr {
            qp_state: QpState::Init,
            port_num: limits::PORT,
            qp_access_flags: access,
            qkey: QKEY,
            ..QpAttr::default()
        };
        let special = if kind == QpType::Ud { QpAttrMask::QKEY } else { QpAttrMask::ACCESS_FLAGS };
        qp.modify(&attr, QpAttrMask::STATE | QpAttrMask::PKEY_INDEX | QpAttrMask::PORT | special)?;
        let qpn = qp.qp_num();
        self.qps.insert(qpn.get(), qp);
        Ok(qpn)
    }

    fn connect(&mut self, qpn: Qpn, path: &Path) -> Result<()> {
        let ah_attr = self.way_to(path.dgid, path.family)?;
        let qp = self.qp(qpn)?;
        let (attr, rtr, rts) = path.attributes(qp.qp_type(), ah_attr);
        qp.modify(&attr, rtr)?;
        qp.modify(&QpAttr { qp_state: QpState::Rts, ..attr }, rts)?;
        Ok(())
    }

    fn state(&mut self, qpn: Qpn) -> Result<QpState> {
        Ok(self.qp(qpn)?.state())
    }

    fn post_send(&mut self, qpn: Qpn, work: &Work) -> Result<()> {
        if let Some((gid, _)) = work.to {
            self.handle(gid)?;
        }
        let Self { qps, handles, memory, .. } = self;
        let qp = qps.get_mut(&qpn.get()).with_context(|| format!("there is no queue pair {qpn}"))?;
        let Work { id, opcode, flags, offset, length, remote, imm, compare_add, swap, to } = *work;
        let part = memory.slice(offset as usize..(offset + length) as usize);
        let list = if length > 0 { vec![part] } else { Vec::new() };
        ensure!(flags == SendFlags::SIGNALED, "the lab posts signaled work requests only");
        let mut known = true;
        qp.post(|wrs| {
            let wr = match opcode {
                Opcode::Send => wrs.send(list),
                Opcode::SendWithImm => wrs.send_with_imm(list, imm),
                Opcode::SendWithInv => wrs.send_with_inv(list, imm),
                Opcode::RdmaWrite => wrs.write(list, remote),
                Opcode::RdmaWriteWithImm => wrs.write_with_imm(list, remote, imm),
                Opcode::RdmaRead => wrs.read(list, remote),
                Opcode::AtomicCmpAndSwp => wrs.compare_and_swap(part, remote, compare_add, swap),
                Opcode::AtomicFetchAndAdd => wrs.fetch_and_add(part, remote, compare_add),
                Opcode::LocalInv | Opcode::BindMw => {
                    known = false;
                    return;
                }
            };
            let wr = wr.id(id).signaled();
            if let Some((ah, peer)) = to.and_then(|(gid, peer)| Some((handles.get(&gid)?, peer))) {
                drop(wr.to(ah, peer, QKEY));
            }
        })?;
        ensure!(known, "the lab posts no {opcode:?}");
        Ok(())
    }

    fn post_recv(&mut self, qpn: Option<Qpn>, id: u64, offset: u32, length: u32) -> Result<()> {
        let part = self.memory.slice(offset as usize..(offset + length) as usize);
        let list = if length > 0 { vec![part] } else { Vec::new() };
        match qpn {
            Some(qpn) => self.qp(qpn)?.post_recv(|wrs| drop(wrs.recv(list).id(id)))?,
            None => self.shared.post_recv(|wrs| drop(wrs.recv(list).id(id)))?,
        }
        Ok(())
    }

    fn poll(&mut self, limit: Duration) -> Result<Option<WorkCompletion>> {
        let until = Instant::now() + limit;
        let mut out = [WorkCompletion::default()];
        loop {
            if let [wc] = self.cq.poll(&mut out) {
                return Ok(Some(*wc));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            // The guest needs a core too.
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn fill(&mut self, offset: u32, length: u32, seed: u32) -> Result<()> {
        let bytes: Vec<u8> = (0..length).map(|index| pattern(index, seed)).collect();
        self.write(offset, &bytes)
    }

    fn matching(&mut self, offset: u32, length: u32, seed: u32) -> Result<u32> {
        let mut bytes = vec![0; length as usize];
        self.read(offset, &mut bytes)?;
        Ok((0..).zip(&bytes).take_while(|(index, byte)| **byte == pattern(*index, seed)).count() as u32)
    }

    fn clear(&mut self, offset: u32, length: u32) -> Result<()> {
        self.write(offset, &vec![0; length as usize])
    }

    fn load(&mut self, offset: u32) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn store(&mut self, offset: u32, value: u64) -> Result<()> {
        self.write(offset, &value.to_ne_bytes())
    }

    fn invalidatable(&mut self, qpn: Qpn, offset: u32, length: u32) -> Result<RemoteAddr> {
        if !self.qps.contains_key(&qpn.get()) {
            bail!("there is no queue pair {qpn}");
        }
        let window = self.pd.alloc(length as usize, Access::LOCAL_WRITE | Access::REMOTE_WRITE)?;
        let remote = RemoteAddr { addr: window.addr(), rkey: window.rkey() };
        self.window = Some((offset, window));
        Ok(remote)
    }
}
