//! A party to a connection: our stack, carried in one way or another, or the guest's rxe. A check is written once and run both ways.

use anyhow::{Result, bail, ensure};
use std::time::{Duration, Instant};
use tbrdma_proto::{
    Access, AddressVector, Gid, Mtu, Opcode, Psn, QpAttr, QpAttrMask, QpState, QpType, Qpn, RemoteAddr,
    SendFlags, WcStatus, WorkCompletion,
};

/// Bytes of memory a party has, registered as one region with every right.
pub(crate) const MEMORY: u32 = 4 << 20;

/// The Q_Key of datagrams, the one that `ibv_ud_pingpong` uses.
pub(crate) const QKEY: u32 = 0x1111_1111;

/// How long anything that must happen may take: emulation on a busy machine is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The version of the Internet Protocol below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }
}

/// The attributes of a connected queue pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) mtu: Mtu,
    pub(crate) family: Family,
    pub(crate) dgid: Gid,
    pub(crate) peer: Qpn,
    pub(crate) rq_psn: Psn,
    pub(crate) sq_psn: Psn,
    pub(crate) timeout: u8,
    pub(crate) retry_cnt: u8,
    pub(crate) rnr_retry: u8,
    pub(crate) min_rnr_timer: u8,
    pub(crate) max_rd_atomic: u8,
    pub(crate) max_dest_rd_atomic: u8,
}

impl Path {
    /// The attributes for RTR and RTS, with the masks of the two for this type of queue pair.
    pub(crate) fn attributes(
        &self,
        kind: QpType,
        ah_attr: AddressVector,
    ) -> (QpAttr, QpAttrMask, QpAttrMask) {
        let attr = QpAttr {
            qp_state: QpState::Rtr,
            path_mtu: self.mtu,
            dest_qp_num: self.peer,
            rq_psn: self.rq_psn,
            sq_psn: self.sq_psn,
            ah_attr,
            max_dest_rd_atomic: self.max_dest_rd_atomic,
            max_rd_atomic: self.max_rd_atomic,
            min_rnr_timer: self.min_rnr_timer,
            timeout: self.timeout,
            retry_cnt: self.retry_cnt,
            rnr_retry: self.rnr_retry,
            ..QpAttr::default()
        };
        let (mut rtr, mut rts) = (QpAttrMask::STATE, QpAttrMask::STATE | QpAttrMask::SQ_PSN);
        if kind.is_connected() {
            rtr |= QpAttrMask::AV | QpAttrMask::PATH_MTU | QpAttrMask::DEST_QPN | QpAttrMask::RQ_PSN;
        }
        if kind == QpType::Rc {
            rtr |= QpAttrMask::MAX_DEST_RD_ATOMIC | QpAttrMask::MIN_RNR_TIMER;
            rts |= QpAttrMask::TIMEOUT
                | QpAttrMask::RETRY_CNT
                | QpAttrMask::RNR_RETRY
                | QpAttrMask::MAX_QP_RD_ATOMIC;
        }
        (attr, rtr, rts)
    }
}

/// A send work request on one stretch of the party's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) id: u64,
    pub(crate) opcode: Opcode,
    pub(crate) flags: SendFlags,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) remote: RemoteAddr,
    /// Immediate data in host order, or the key to invalidate.
    pub(crate) imm: u32,
    pub(crate) compare_add: u64,
    pub(crate) swap: u64,
    /// To whom a datagram goes.
    pub(crate) to: Option<(Gid, Qpn)>,
}

impl Work {
    /// A signaled request; what it does not need is zero.
    pub(crate) fn new(opcode: Opcode, offset: u32, length: u32, remote: RemoteAddr) -> Self {
        let flags = SendFlags::SIGNALED;
        Self { id: 1, opcode, flags, offset, length, remote, imm: 0, compare_add: 0, swap: 0, to: None }
    }
}

/// One side of a connection.
pub(crate) trait Party {
    /// What its packets come from.
    fn gid(&mut self, family: Family) -> Result<Gid>;

    /// The start and the key of its memory.
    fn memory(&mut self) -> Result<RemoteAddr>;

    /// Forgets all queue pairs and completions.
    fn reset(&mut self) -> Result<()>;

    /// A queue pair in INIT that grants the peer these rights.
    fn create_qp(&mut self, kind: QpType, access: Access, shared_receives: bool) -> Result<Qpn>;

    /// Brings a queue pair to RTS.
    fn connect(&mut self, qpn: Qpn, path: &Path) -> Result<()>;

    fn state(&mut self, qpn: Qpn) -> Result<QpState>;

    fn post_send(&mut self, qpn: Qpn, work: &Work) -> Result<()>;

    /// Posts a receive to the queue pair, or to the party's shared receive queue if there is none in `qpn`.
    fn post_recv(&mut self, qpn: Option<Qpn>, id: u64, offset: u32, length: u32) -> Result<()>;

    /// The next completion of any queue pair, waited for at most so long.
    fn poll(&mut self, limit: Duration) -> Result<Option<WorkCompletion>>;

    /// Writes the pattern of `seed` into its memory.
    fn fill(&mut self, offset: u32, length: u32, seed: u32) -> Result<()>;

    /// How many bytes, from `offset` on, are those of the pattern of `seed`.
    fn matching(&mut self, offset: u32, length: u32, seed: u32) -> Result<u32>;

    /// Zeroes its memory.
    fn clear(&mut self, offset: u32, length: u32) -> Result<()>;

    fn load(&mut self, offset: u32) -> Result<u64>;

    fn store(&mut self, offset: u32, value: u64) -> Result<()>;

    /// A key, and the start of the memory behind it, that a peer's SEND may invalidate; it grants remote writing.
    fn invalidatable(&mut self, qpn: Qpn, offset: u32, length: u32) -> Result<RemoteAddr>;
}

/// Byte `index` of the pattern of `seed`: unlike its neighbours, and unlike itself 256 bytes away.
pub(crate) const fn pattern(index: u32, seed: u32) -> u8 {
    index.wrapping_mul(31).wrapping_add((index >> 8).wrapping_mul(7)).wrapping_add(seed) as u8
}

/// The next completion, which must come.
pub(crate) fn completion(party: &mut dyn Party) -> Result<WorkCompletion> {
    match party.poll(PATIENCE)? {
        Some(wc) => Ok(wc),
        None => bail!("no completion within {} s", PATIENCE.as_secs()),
    }
}

/// The next completion, which must be a success.
pub(crate) fn success(party: &mut dyn Party) -> Result<WorkCompletion> {
    let wc = completion(party)?;
    ensure!(
        wc.status == WcStatus::Success,
        "work request {} ended with {:?} instead of success",
        wc.wr_id,
        wc.status
    );
    Ok(wc)
}

/// The next completion, which must have this status.
pub(crate) fn failure(party: &mut dyn Party, status: WcStatus) -> Result<WorkCompletion> {
    let wc = completion(party)?;
    ensure!(
        wc.status == status,
        "work request {} ended with {:?} instead of {status:?}",
        wc.wr_id,
        wc.status
    );
    Ok(wc)
}

/// There must be the pattern of `seed`.
pub(crate) fn expect_pattern(
    party: &mut dyn Party,
    what: &str,
    offset: u32,
    length: u32,
    seed: u32,
) -> Result<()> {
    let same = party.matching(offset, length, seed)?;
    ensure!(same == length, "{what}: byte {same} of {length} is wrong");
    Ok(())
}

/// Waits until a party's queue pair is in this state.
pub(crate) fn expect_state(party: &mut dyn Party, qpn: Qpn, state: QpState) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let is = party.state(qpn)?;
        if is == state {
            return Ok(());
        }
        ensure!(Instant::now() < until, "the queue pair is in {is} instead of {state}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a connection between two parties is made with, apart from their addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) kind: QpType,
    pub(crate) family: Family,
    pub(crate) mtu: Mtu,
    pub(crate) access: Access,
    pub(crate) timeout: u8,
    pub(crate) retry_cnt: u8,
    pub(crate) rnr_retry: u8,
    pub(crate) min_rnr_timer: u8,
}

impl Terms {
    /// Reliable, with every right, and patient.
    pub(crate) fn new(family: Family, mtu: Mtu) -> Self {
        let access = Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC;
        // 4.096 us * 2^15 is 134 ms: longer than an emulated machine usually takes to answer.
        Self {
            kind: QpType::Rc,
            family,
            mtu,
            access,
            timeout: 15,
            retry_cnt: 7,
            rnr_retry: 7,
            min_rnr_timer: 12,
        }
    }

    /// Connects new queue pairs of the two, with packet numbers that wrap after a few packets.
    pub(crate) fn connect(&self, one: &mut dyn Party, other: &mut dyn Party) -> Result<(Qpn, Qpn)> {
        one.reset()?;
        other.reset()?;
        let (a, b) =
            (one.create_qp(self.kind, self.access, false)?, other.create_qp(self.kind, self.access, false)?);
        let (psn_a, psn_b) = (Psn::masked(0xff_fffd), Psn::masked(0xff_fffa));
        let (gid_a, gid_b) = (one.gid(self.family)?, other.gid(self.family)?);
        one.connect(a, &self.path(gid_b, b, psn_b, psn_a))?;
        other.connect(b, &self.path(gid_a, a, psn_a, psn_b))?;
        Ok((a, b))
    }

    pub(crate) const fn path(&self, dgid: Gid, peer: Qpn, rq_psn: Psn, sq_psn: Psn) -> Path {
        Path {
            mtu: self.mtu,
            family: self.family,
            dgid,
            peer,
            rq_psn,
            sq_psn,
            timeout: self.timeout,
            retry_cnt: self.retry_cnt,
            rnr_retry: self.rnr_retry,
            min_rnr_timer: self.min_rnr_timer,
            max_rd_atomic: 4,
            max_dest_rd_atomic: 4,
        }
    }
}
