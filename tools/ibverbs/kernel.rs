//! Structures of the kernel's, as a connection manager reads them from it, and those of this library.

use crate::abi::{ibv_ah_attr, ibv_qp_attr, ibv_qp_cap};
use crate::export::export;
use crate::object::{Object, Out};
use crate::watch::Pointed;
use core::ffi::c_int;

/// `struct ib_uverbs_ah_attr`, which is laid out as [`ibv_ah_attr`] is.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct KernelAhAttr(ibv_ah_attr);

/// `struct ib_uverbs_qp_attr`.
#[repr(C)]
pub(crate) struct KernelQpAttr {
    mask: u32,
    qp_state: u32,
    cur_qp_state: u32,
    path_mtu: u32,
    path_mig_state: u32,
    qkey: u32,
    rq_psn: u32,
    sq_psn: u32,
    dest_qp_num: u32,
    qp_access_flags: u32,
    ah_attr: KernelAhAttr32,
    alt_ah_attr: KernelAhAttr32,
    cap: ibv_qp_cap,
    pkey_index: u16,
    alt_pkey_index: u16,
    en_sqd_async_notify: u8,
    sq_draining: u8,
    max_rd_atomic: u8,
    max_dest_rd_atomic: u8,
    min_rnr_timer: u8,
    port_num: u8,
    timeout: u8,
    retry_cnt: u8,
    rnr_retry: u8,
    alt_port_num: u8,
    alt_timeout: u8,
    reserved: [u8; 5],
}

/// An address where the kernel aligns to 4 bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct KernelAhAttr32([u32; 8]);

impl KernelAhAttr32 {
    fn unaligned(&self) -> ibv_ah_attr {
        // SAFETY: the two are of one size, and hold numbers only.
        unsafe { core::ptr::from_ref(self).cast::<ibv_ah_attr>().read_unaligned() }
    }
}

/// `struct ib_user_path_rec`.
#[repr(C)]
pub(crate) struct KernelPath {
    dgid: [u8; 16],
    sgid: [u8; 16],
    dlid: u16,
    slid: u16,
    raw_traffic: u32,
    flow_label: u32,
    reversible: u32,
    mtu: u32,
    pkey: u16,
    hop_limit: u8,
    traffic_class: u8,
    numb_path: u8,
    sl: u8,
    mtu_selector: u8,
    rate_selector: u8,
    rate: u8,
    packet_life_time_selector: u8,
    packet_life_time: u8,
    preference: u8,
}

/// `struct ibv_sa_path_rec`.
#[repr(C)]
pub(crate) struct Path {
    dgid: [u64; 2],
    sgid: [u64; 2],
    dlid: u16,
    slid: u16,
    raw_traffic: c_int,
    flow_label: u32,
    hop_limit: u8,
    traffic_class: u8,
    reversible: c_int,
    numb_path: u8,
    pkey: u16,
    sl: u8,
    mtu_selector: u8,
    mtu: u32,
    rate_selector: u8,
    rate: u8,
    packet_life_time_selector: u8,
    packet_life_time: u8,
    preference: u8,
}

const _: () = assert!(size_of::<KernelAhAttr>() == 32 && size_of::<KernelAhAttr32>() == 32);
const _: () =
    assert!(size_of::<KernelQpAttr>() == 144 && size_of::<KernelPath>() == 64 && size_of::<Path>() == 72);

impl Object for KernelAhAttr {
    type C = Self;
}

impl Object for KernelQpAttr {
    type C = Self;
}

impl Object for KernelPath {
    type C = Self;
}

impl Object for Path {
    type C = Self;
}

fn words(bytes: [u8; 16]) -> [u64; 2] {
    let half = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_ne_bytes(word)
    };
    [half(0), half(8)]
}

fn bytes(words: [u64; 2]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
    bytes
}

impl Pointed for KernelAhAttr {}
impl Pointed for KernelQpAttr {}
impl Pointed for KernelPath {}
impl Pointed for Path {}

export! {
    "IBVERBS_1.1" plain fn ibv_copy_ah_attr_from_kern(to: Out<'_, ibv_ah_attr>, from: &KernelAhAttr) {
        to.put(from.0);
        Ok(())
    }

    "IBVERBS_1.0" plain fn ibv_copy_qp_attr_from_kern(to: Out<'_, ibv_qp_attr>, from: &KernelQpAttr) {
        to.put(ibv_qp_attr {
            qp_state: from.qp_state,
            cur_qp_state: from.cur_qp_state,
            path_mtu: from.path_mtu,
            path_mig_state: from.path_mig_state,
            qkey: from.qkey,
            rq_psn: from.rq_psn,
            sq_psn: from.sq_psn,
            dest_qp_num: from.dest_qp_num,
            qp_access_flags: from.qp_access_flags,
            cap: from.cap,
            ah_attr: from.ah_attr.unaligned(),
            alt_ah_attr: from.alt_ah_attr.unaligned(),
            pkey_index: from.pkey_index,
            alt_pkey_index: from.alt_pkey_index,
            en_sqd_async_notify: from.en_sqd_async_notify,
            sq_draining: from.sq_draining,
            max_rd_atomic: from.max_rd_atomic,
            max_dest_rd_atomic: from.max_dest_rd_atomic,
            min_rnr_timer: from.min_rnr_timer,
            port_num: from.port_num,
            timeout: from.timeout,
            retry_cnt: from.retry_cnt,
            rnr_retry: from.rnr_retry,
            alt_port_num: from.alt_port_num,
            alt_timeout: from.alt_timeout,
            rate_limit: 0,
        });
        Ok(())
    }

    "IBVERBS_1.0" plain fn ibv_copy_path_rec_from_kern(to: Out<'_, Path>, from: &KernelPath) {
        to.put(Path {
            dgid: words(from.dgid),
            sgid: words(from.sgid),
            dlid: from.dlid,
            slid: from.slid,
            raw_traffic: from.raw_traffic as c_int,
            flow_label: from.flow_label,
            hop_limit: from.hop_limit,
            traffic_class: from.traffic_class,
            reversible: from.reversible as c_int,
            numb_path: from.numb_path,
            pkey: from.pkey,
            sl: from.sl,
            mtu_selector: from.mtu_selector,
            mtu: from.mtu,
            rate_selector: from.rate_selector,
            rate: from.rate,
            packet_life_time_selector: from.packet_life_time_selector,
            packet_life_time: from.packet_life_time,
            preference: from.preference,
        });
        Ok(())
    }

    "IBVERBS_1.0" plain fn ibv_copy_path_rec_to_kern(to: Out<'_, KernelPath>, from: &Path) {
        to.put(KernelPath {
            dgid: bytes(from.dgid),
            sgid: bytes(from.sgid),
            dlid: from.dlid,
            slid: from.slid,
            raw_traffic: from.raw_traffic as u32,
            flow_label: from.flow_label,
            reversible: from.reversible as u32,
            mtu: from.mtu,
            pkey: from.pkey,
            hop_limit: from.hop_limit,
            traffic_class: from.traffic_class,
            numb_path: from.numb_path,
            sl: from.sl,
            mtu_selector: from.mtu_selector,
            rate_selector: from.rate_selector,
            rate: from.rate,
            packet_life_time_selector: from.packet_life_time_selector,
            packet_life_time: from.packet_life_time,
            preference: from.preference,
        });
        Ok(())
    }
}
