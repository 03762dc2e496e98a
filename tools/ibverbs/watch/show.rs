//! Arguments and results of calls, as people read them: objects by their numbers, structures by what is in them.

use crate::abi::*;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::fmt::{Formatter, Result, Write as _};
use tbrdma_proto::{QpAttr, QpAttrMask, QpType, SendFlags, SendWr, Sge};

/// Something that C passes or is given.
pub(crate) trait Show {
    fn show(&self, f: &mut String) -> Result;
}

macro_rules! numbers {
    ($($ty:ty),+) => { $( impl Show for $ty { fn show(&self, f: &mut String) -> Result { write!(f, "{self}") } } )+ };
}

numbers!(u8, u16, u32, u64, usize, isize, c_int);

impl Show for () {
    fn show(&self, f: &mut String) -> Result {
        f.write_char('0')
    }
}

impl Show for *const c_char {
    fn show(&self, f: &mut String) -> Result {
        if self.is_null() {
            return f.write_str("NULL");
        }
        // SAFETY: a text of the program's or of ours.
        write!(f, "{:?}", unsafe { CStr::from_ptr(*self) })
    }
}

/// What pointers point to.
pub(crate) trait Pointed {
    /// Shows it; the pointer is not NULL, and what is there is good for reading.
    fn show_at(at: *const Self, f: &mut String) -> Result {
        write!(f, "{at:p}")
    }
}

impl<T: Pointed> Show for *mut T {
    fn show(&self, f: &mut String) -> Result {
        if self.is_null() { f.write_str("NULL") } else { T::show_at(*self, f) }
    }
}

/// Room for what the call fills, or structures that are told elsewhere.
macro_rules! addresses {
    ($($ty:ty),+ $(,)?) => { $( impl Pointed for $ty {} )+ };
}

addresses!(
    c_void,
    c_int,
    c_char,
    u8,
    u16,
    u32,
    ibv_gid,
    ibv_wc,
    ibv_send_wr,
    ibv_recv_wr,
    ibv_sge,
    ibv_qp_attr,
    ibv_port_attr,
    ibv_device_attr,
    ibv_device_attr_ex,
    ibv_query_device_ex_input,
    ibv_values_ex,
    ibv_gid_entry,
    ibv_async_event,
    ibv_data_buf,
    ibv_poll_cq_attr,
    ibv_td_init_attr,
    ibv_parent_domain_init_attr,
    ibv_alloc_dm_attr,
    ibv_mw_bind,
    ibv_mw_bind_info,
    ibv_td,
    ibv_dm,
    ibv_ece,
    ibv_grh,
);

impl<T> Pointed for *mut T {}

/// Objects and structures by their fields: the bodies read what the trait promises is there.
macro_rules! fields {
    ($( $ty:ty: |$at:ident, $f:ident| $body:expr; )+) => { $(
        impl Pointed for $ty {
            fn show_at(at: *const Self, $f: &mut String) -> Result {
                // SAFETY: the trait's promise, which the manual page of the call demands of its caller.
                let $at = unsafe { &*at };
                $body
            }
        }
    )+ };
}

fields! {
    ibv_device: |device, f| {
        let name = device.name.iter().take_while(|byte| **byte != 0);
        name.for_each(|byte| f.push(char::from(*byte as u8)));
        Ok(())
    };
    ibv_context: |context, f| context.device.show(f);
    ibv_pd: |pd, f| write!(f, "PD {}", pd.handle);
    ibv_mr: |mr, f| write!(f, "MR {{{} bytes at {:p}, lkey {:#x}, rkey {:#x}}}", mr.length, mr.addr, mr.lkey, mr.rkey);
    ibv_mw: |mw, f| write!(f, "MW {{type {}, rkey {:#x}}}", mw.type_, mw.rkey);
    ibv_comp_channel: |channel, f| write!(f, "channel {}", channel.fd);
    ibv_cq: |cq, f| write!(f, "CQ {}", cq.handle);
    ibv_cq_ex: |cq, f| write!(f, "CQ {}", cq.base.handle);
    ibv_srq: |srq, f| write!(f, "SRQ {}", srq.handle);
    ibv_qp: |qp, f| write!(f, "QP {:#x}", qp.qp_num);
    ibv_qp_ex: |qp, f| write!(f, "QP {:#x}", qp.base.qp_num);
    ibv_ah: |ah, f| write!(f, "AH {}", ah.handle);
    ibv_ah_attr: |attr, f| {
        write!(f, "{{dgid {}, dlid {}, port {}}}", tbrdma_proto::Gid(attr.grh.dgid.raw), attr.dlid, attr.port_num)
    };
    ibv_srq_attr: |attr, f| {
        write!(f, "{{max_wr {}, max_sge {}, srq_limit {}}}", attr.max_wr, attr.max_sge, attr.srq_limit)
    };
    ibv_srq_init_attr: |init, f| ibv_srq_attr::show_at(&init.attr, f);
    ibv_srq_init_attr_ex: |init, f| ibv_srq_attr::show_at(&init.attr, f);
    ibv_cq_init_attr_ex: |init, f| {
        write!(f, "{{cqe {}, comp_vector {}, channel ", init.cqe, init.comp_vector)?;
        init.channel.show(f)?;
        f.write_char('}')
    };
    ibv_qp_init_attr: |init, f| {
        show_qp(f, init.qp_type, (init.send_cq, init.recv_cq, init.srq), &init.cap, init.sq_sig_all)
    };
    ibv_qp_init_attr_ex: |init, f| {
        show_qp(f, init.qp_type, (init.send_cq, init.recv_cq, init.srq), &init.cap, init.sq_sig_all)
    };
}

fn show_qp(
    f: &mut String,
    qp_type: u32,
    (send_cq, recv_cq, srq): (*mut ibv_cq, *mut ibv_cq, *mut ibv_srq),
    cap: &ibv_qp_cap,
    sq_sig_all: c_int,
) -> Result {
    match QpType::from_raw(qp_type) {
        Some(known) => write!(f, "{{{known:?}, send_cq ")?,
        None => write!(f, "{{type {qp_type}, send_cq ")?,
    }
    send_cq.show(f)?;
    f.write_str(", recv_cq ")?;
    recv_cq.show(f)?;
    f.write_str(", srq ")?;
    srq.show(f)?;
    let ibv_qp_cap { max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data } = cap;
    write!(
        f,
        ", max_send_wr {max_send_wr}, max_recv_wr {max_recv_wr}, max_send_sge {max_send_sge}, \
         max_recv_sge {max_recv_sge}, max_inline_data {max_inline_data}, sq_sig_all {sq_sig_all}}}"
    )
}

/// The attributes that a mask names.
pub(crate) struct Attributes<'a>(pub(crate) &'a QpAttr, pub(crate) QpAttrMask);

impl core::fmt::Display for Attributes<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self(attr, mask) = self;
        for (position, field) in mask.iter().enumerate() {
            f.write_str(if position == 0 { "" } else { ", " })?;
            match field {
                QpAttrMask::STATE => write!(f, "to {:?}", attr.qp_state),
                QpAttrMask::CUR_STATE => write!(f, "from {:?}", attr.cur_qp_state),
                QpAttrMask::ACCESS_FLAGS => write!(f, "access {}", attr.qp_access_flags),
                QpAttrMask::PKEY_INDEX => write!(f, "pkey_index {}", attr.pkey_index),
                QpAttrMask::PORT => write!(f, "port {}", attr.port_num),
                QpAttrMask::QKEY => write!(f, "qkey {:#x}", attr.qkey),
                QpAttrMask::AV => {
                    write!(f, "dlid {}", attr.ah_attr.dlid)?;
                    if !attr.ah_attr.is_global {
                        continue;
                    }
                    write!(f, ", dgid {}, sgid_index {}", attr.ah_attr.dgid, attr.ah_attr.sgid_index)
                }
                QpAttrMask::PATH_MTU => write!(f, "path_mtu {:?}", attr.path_mtu),
                QpAttrMask::TIMEOUT => write!(f, "timeout {}", attr.timeout),
                QpAttrMask::RETRY_CNT => write!(f, "retry_cnt {}", attr.retry_cnt),
                QpAttrMask::RNR_RETRY => write!(f, "rnr_retry {}", attr.rnr_retry),
                QpAttrMask::RQ_PSN => write!(f, "rq_psn {}", attr.rq_psn),
                QpAttrMask::SQ_PSN => write!(f, "sq_psn {}", attr.sq_psn),
                QpAttrMask::MAX_QP_RD_ATOMIC => write!(f, "max_rd_atomic {}", attr.max_rd_atomic),
                QpAttrMask::MAX_DEST_RD_ATOMIC => write!(f, "max_dest_rd_atomic {}", attr.max_dest_rd_atomic),
                QpAttrMask::MIN_RNR_TIMER => write!(f, "min_rnr_timer {}", attr.min_rnr_timer),
                QpAttrMask::DEST_QPN => write!(f, "dest_qp_num {}", attr.dest_qp_num),
                other => write!(f, "{other:?}"),
            }?;
        }
        Ok(())
    }
}

/// Entries that are shown of a list.
const ENTRIES: usize = 4;

/// A list of entries.
pub(crate) struct Entries<'a>(pub(crate) &'a [Sge]);

impl core::fmt::Display for Entries<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for (position, entry) in self.0.iter().take(ENTRIES).enumerate() {
            let separator = if position == 0 { "" } else { " + " };
            write!(f, "{separator}{} bytes at {:#x} (lkey {:#x})", entry.length, entry.addr, entry.lkey)?;
        }
        match self.0.len() {
            0 => f.write_str("no bytes"),
            more if more > ENTRIES => {
                let bytes: u64 = self.0.iter().skip(ENTRIES).map(|entry| u64::from(entry.length)).sum();
                write!(f, " + {bytes} bytes in {} more entries", more - ENTRIES)
            }
            _ => Ok(()),
        }
    }
}

/// A send request, without its data.
pub(crate) struct Request<'a>(pub(crate) &'a SendWr);

impl core::fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        use tbrdma_proto::Opcode;
        let wr = self.0;
        write!(f, "wr_id {}: {:?}", wr.wr_id, wr.opcode)?;
        if wr.flags != SendFlags::empty() {
            write!(f, " {}", wr.flags)?;
        }
        match wr.opcode {
            Opcode::RdmaWrite | Opcode::RdmaWriteWithImm | Opcode::RdmaRead => {
                write!(f, ", peer's {:#x} (rkey {:#x})", wr.remote.addr, wr.remote.rkey)?;
            }
            Opcode::AtomicCmpAndSwp => {
                write!(
                    f,
                    ", {} to {} in peer's {:#x} (rkey {:#x})",
                    wr.compare_add, wr.swap, wr.remote.addr, wr.remote.rkey
                )?;
            }
            Opcode::AtomicFetchAndAdd => {
                write!(
                    f,
                    ", {} to peer's {:#x} (rkey {:#x})",
                    wr.compare_add, wr.remote.addr, wr.remote.rkey
                )?;
            }
            Opcode::SendWithInv | Opcode::LocalInv => write!(f, ", key {:#x}", wr.imm_data)?,
            _ => {}
        }
        if wr.opcode.has_imm() {
            write!(f, ", imm {:#x}", wr.imm_data)?;
        }
        match wr.ud {
            Some(to) => write!(f, ", to QP {} with qkey {:#x}", to.qpn, to.qkey),
            None => Ok(()),
        }
    }
}
