//! `apple-tb5`: a Thunderbolt 5 port of a Mac, as Apple's technical note and its users describe it.
//!
//! Apple documents the device in one note, TN3205 ("Low-latency communication with RDMA over Thunderbolt", March 2026, macOS 26.2 and later); the
//! rest is known from those who measured it. Each fact is a value or a switch here, with its source. Where sources contradict each
//! other, or where a fact is a trap that corrupts silently, the default is the side that a program survives, and the switch has the other.
//!
//! | fact | as a value or switch | source |
//! |---|---|---|
//! | unreliable connections only; creating RC or UD fails with EOPNOTSUPP (102 there) | `transports=uc` | TN3205; tmc/apple rdmaperf README, 2026-07-17 |
//! | SENDs and receives only; a WRITE completes, and remote memory is unchanged | `write=lost` (`refused`: posting fails, to find them) | TN3205; hellas-ai/thunderbolt-ibverbs bench/results/8845HS |
//! | remote keys are 0 | `rkey=zero` | tmc/apple rdmaperf README |
//! | a SEND is not processed before the peer has a receive | `flow=hold` | TN3205; ml-explore/mlx JACCL relies on it |
//! | a send completion says that it was sent, not that it arrived | no switch: so it is on UC | TN3205; hellas-ai bench/results/8845HS |
//! | depth counts frames of 4 KiB, and bounds the message | `depth=frames` | TN3205 |
//! | depths are adjusted: 256 asked, 1023 granted, as `ibv_query_qp` tells | `rounding=up` | TN3205; SQCU/mesh. JACCL asks for 32 and posts 256 frames |
//! | another build: 64 asked, 63 usable | `rounding=off` | hellas-ai/thunderbolt-ibverbs#35, #41 |
//! | around a real port: what it granted, as it says | `rounding=device` | the guards, see `Profile::on_device` |
//! | past the depth posting fails with ENOMEM | `overrun=loud` (default: seen at once) | hellas-ai/thunderbolt-ibverbs#35, #41 |
//! | past the depth posting succeeds, and data is damaged | `overrun=silent`: what does not fit is lost | SQCU/mesh RDMA-FIRST.md (8193 receives in 4095) |
//! | at most 4095 work requests, messages up to 16,773,120 bytes | `max_qp_wr`, `max_msg_sz` | TN3205 |
//! | both sides post equally many frames, else the receive has a local length error | `match=frames` | TN3205; SQCU/mesh (113k such errors) |
//! | a SEND without bytes is lost | `empty-send=lost`; one report, so not the default | ashhart/MCDMA link code |
//! | 11 queue pairs reported, 10 can be had, then EBUSY | `max_qp`, `qps=10`, `qp-error=ebusy` | mlx#4209; mlx#3162 |
//! | 3 queue pairs a device on macOS 27 | `qps=3`; one unconfirmed report | [unconfirmed] |
//! | 100 memory regions, then NULL | `max_mr`, `mrs=100` | mlx#3162 |
//! | 11 protection domains, 11 completion queues | `pds=11`, `cqs=11` | Anemll/mlx-rdma TEST_IBV.md; mlx#3207 |
//! | one scatter/gather entry, no inline data, no shared receive queues, no READs | `max_sge` and so on | Anemll TEST_IBV.md; every known user sets inline 0 |
//! | regions up to 16,384,000 bytes | `mr-size=enforced` (default: what the device says of itself) | Anemll TEST_IBV.md |
//! | larger regions are in use | `mr-size=reported` | SQCU/mesh (1 GiB pieces) |
//! | GID 1 is IPv4-mapped, and there only while the interface has an IPv4 address | `ipv4=on`, `ipv4=off` | Anemll TEST_IBV.md; mlx#3467 |
//! | a LID that is not 0 | `lids=ipv4` (shared memory has LIDs anyway) | hellas-ai sees 1; `ibv_uc_pingpong`, which Apple ships, ends without one |
//! | active MTU 4096, link layer 100, transport 100, vendor and part 0 | attributes | Anemll TEST_IBV.md |
//! | receives may be posted in INIT | `early-recv=allowed` (default: `ibv_uc_pingpong`, which Apple ships, does so) | ashhart/MCDMA |
//! | receives only after RTS, else EFAULT | `early-recv=refused` | llama.cpp; Anemll |
//! | register with LOCAL_WRITE alone | `local-only-mr=allowed` (default) | TN3205; hellas; SQCU |
//! | LOCAL_WRITE alone is refused | `local-only-mr=refused` | a comment in llama.cpp |
//! | only the low 32 bits of an entry's address reach the device | `alias-4gib=on` (`refused`: posting fails, to find them) | SQCU/mesh |
//! | a killed program's resources stay taken until a reboot | `ledger=on` | exo#1712, exo#1847; mlx#3207; SQCU RDMA-RULES.md |
//!
//! What the port does when something breaks (a pulled cable, an idle connection that dies, RTR that fails with one of its errors) is not
//! a profile's business but a fault plan's.

use super::Profile;
use super::switches::{
    Alias, DepthRounding, DepthUnit, FlowMode, Lids, Match, MrSize, Overrun, Presence, QpCapError, Rkey,
    Switches, Transports, WriteMode,
};
use crate::limits::{AtomicCap, DeviceAttr, LinkLayer, OdpCaps, PortAttr};
use crate::qp::Mtu;

/// Bytes of a frame, by which depth is counted and messages are matched with receives.
pub const FRAME_BYTES: u32 = 4096;
/// The most frames of a queue, and so of a message.
pub const MAX_FRAMES: u32 = 4095;
/// Depths are granted in so many frames, less one for the whole queue: a 16 KiB page of descriptors of 16 bytes.
const FRAMES_OF_A_STEP: u32 = 1024;

/// How many frames a work request of so many bytes takes.
#[inline]
pub(crate) const fn frames(bytes: u64) -> u64 {
    if bytes == 0 { 1 } else { bytes.div_ceil(FRAME_BYTES as u64) }
}

/// The depth in frames that is granted to who asks for this many, at most [`MAX_FRAMES`].
pub(super) fn granted_frames(asked: u32, rounding: DepthRounding) -> u32 {
    match rounding {
        DepthRounding::Up => {
            asked.saturating_add(1).div_ceil(FRAMES_OF_A_STEP).saturating_mul(FRAMES_OF_A_STEP) - 1
        }
        DepthRounding::Off => asked.saturating_sub(1).max(1),
        DepthRounding::Device => asked,
    }
    .min(MAX_FRAMES)
}

impl Profile {
    /// Whether it is `apple-tb5`, with whatever switches.
    pub fn is_apples(&self) -> bool {
        self.name == Self::NAMES[3]
    }

    /// What this profile is for a real device, which says this of itself. Of a plain profile only the switches are left. `apple-tb5` becomes a guard:
    /// limits are the lower ones of both, and what the port would do in silence (lose a WRITE, take more than the depth, follow an address to 4 GiB
    /// lower) is refused. What the port does by itself is not done twice.
    pub fn on_device(&self, device: DeviceAttr, port: PortAttr) -> Self {
        let mut real = Self { name: self.name, device, port, switches: self.switches };
        if !self.is_apples() {
            return real;
        }
        let (ours, theirs) = (&self.device, &mut real.device);
        // A port that does not say how many has as many as are known.
        let fewer =
            |theirs: &mut u32, ours: u32| *theirs = if *theirs == 0 { ours } else { ours.min(*theirs) };
        fewer(&mut theirs.max_qp, ours.max_qp);
        fewer(&mut theirs.max_qp_wr, ours.max_qp_wr);
        fewer(&mut theirs.max_cq, ours.max_cq);
        fewer(&mut theirs.max_cqe, ours.max_cqe);
        fewer(&mut theirs.max_mr, ours.max_mr);
        fewer(&mut theirs.max_pd, ours.max_pd);
        fewer(&mut theirs.max_sge, ours.max_sge);
        theirs.max_inline_data = theirs.max_inline_data.min(ours.max_inline_data);
        (theirs.max_srq, theirs.max_srq_wr, theirs.max_srq_sge) = (0, 0, 0);
        (theirs.max_mw, theirs.max_ah) = (0, 0);
        (theirs.max_qp_rd_atom, theirs.max_qp_init_rd_atom) = (0, 0);
        theirs.atomic_cap = AtomicCap::None;
        fewer(&mut real.port.max_msg_sz, self.port.max_msg_sz);
        real.switches = Switches {
            rounding: DepthRounding::Device,
            overrun: Overrun::Loud,
            write: WriteMode::Refused,
            alias: Alias::Refused,
            mr_size: MrSize::Reported,
            rkey: Rkey::Real,
            lids: Lids::None,
            ..self.switches
        };
        real
    }

    /// A Thunderbolt 5 port of a Mac with macOS 26.2 or later. The facts and their sources are the table at the head of
    /// `proto/profile/apple.rs`.
    pub fn apple_tb5() -> Self {
        let device = DeviceAttr {
            max_mr_size: 16_384_000,
            vendor_id: 0,
            vendor_part_id: 0,
            max_qp: 11,
            max_qp_wr: MAX_FRAMES,
            device_cap_flags: 0,
            max_sge: 1,
            max_sge_rd: 0,
            max_cq: 11,
            // Not reported by anybody: enough for both queues of a queue pair.
            max_cqe: 2 * (MAX_FRAMES + 1),
            max_mr: 100,
            max_mw: 0,
            odp_caps: OdpCaps::NONE,
            max_pd: 11,
            max_qp_rd_atom: 0,
            max_qp_init_rd_atom: 0,
            atomic_cap: AtomicCap::None,
            max_ah: 0,
            max_srq: 0,
            max_srq_wr: 0,
            max_srq_sge: 0,
            max_inline_data: 0,
            ..DeviceAttr::default()
        };
        let port = PortAttr {
            max_mtu: Mtu::B4096,
            active_mtu: Mtu::B4096,
            max_msg_sz: MAX_FRAMES * FRAME_BYTES,
            link_layer: LinkLayer::Thunderbolt,
            ..PortAttr::default()
        };
        let switches = Switches {
            transports: Transports { rc: false, uc: true, ud: false },
            flow: FlowMode::HoldUc,
            depth: DepthUnit::Frames,
            matching: Match::Frames,
            write: WriteMode::Lost,
            rkey: Rkey::Zero,
            ipv4: Presence::On,
            lids: Lids::Ipv4,
            qps: 10,
            qp_error: QpCapError::Busy,
            mrs: 100,
            pds: 11,
            cqs: 11,
            ..Switches::default()
        };
        Self { name: Self::NAMES[3], device, port, switches }
    }
}
