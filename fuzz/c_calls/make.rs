//! Calls that make objects, with values that make sense and values that do not.

use super::abi::*;
use super::calls::call;
use super::case::Case;
use super::world::{ARENA, Kind, PAGE, World, at_least_zero, context_of, failed, outcome, verbs, zeroed};
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use nix::errno::Errno;

/// Mostly one of these, at times anything.
pub(super) fn number(case: &mut Case<'_>, usual: &[u32]) -> u32 {
    let byte = case.byte();
    if byte < 0xe0 { usual[usize::from(byte) % usual.len()] } else { case.word() }
}

/// Rights: mostly those of local and remote access.
fn access(case: &mut Case<'_>) -> u32 {
    number(case, &[0xf, 0x1f, 0x1, 0x0, 0x2, 0x7, 0x2f, 0x4f, 0x10_000f])
}

impl World<'_> {
    /// Memory to register: mostly of the arena; also what is not mapped, goes beyond the end, or is nothing.
    pub(super) fn memory(&self, case: &mut Case<'_>) -> (*mut c_void, usize) {
        let length = number(case, &[PAGE as u32, 64, 1, 8192, ARENA as u32, 0, 100]) as usize;
        let offset = case.of(&[0, PAGE, 8, 2 * PAGE + 1, ARENA - PAGE, ARENA - 1, ARENA / 2]);
        match case.byte() {
            0xf0 => (null_mut(), length),
            0xf1 => (16 as *mut c_void, length),
            0xf2 => (usize::MAX as *mut c_void, length),
            0xf3 => ((1_usize << 47) as *mut c_void, length),
            // The page behind the arena is there, and nobody may touch it.
            0xf4.. => (self.arena(ARENA - PAGE), 2 * PAGE),
            _ => (self.arena(offset), length.min(ARENA - offset)),
        }
    }

    pub(super) fn reg_mr(&mut self, case: &mut Case<'_>) {
        if !self.has_room(Kind::Mr) {
            return;
        }
        let pd = self.domain(case);
        let ((addr, length), access) = (self.memory(case), access(case));
        let mr = match case.byte() % 4 {
            0 => call!(self.calls.ibv_reg_mr_iova2; pd, addr, length, case.long(), access),
            1 if case.one_in(16) => {
                let refused = call!(self.calls.ibv_reg_dmabuf_mr; pd, 0, length, 0, -1, access as c_int);
                assert!(refused.is_null());
                return failed(Errno::last_raw());
            }
            _ => call!(self.calls.ibv_reg_mr; pd, addr, length, access as c_int),
        };
        self.keep_of(Kind::Mr, mr, pd, &[pd.cast()]);
    }

    pub(super) fn rereg_mr(&mut self, case: &mut Case<'_>) {
        let mr: *mut ibv_mr = self.pick(case, Kind::Mr);
        let (pd, (addr, length)) = (self.domain(case), self.memory(case));
        let flags = number(case, &[1, 2, 4, 3, 5, 7, 0]) as c_int;
        let access = access(case) as c_int;
        let code = call!(self.calls.ibv_rereg_mr; mr, flags, pd, addr, length, access);
        assert!((-6..=0).contains(&code) || mr.is_null() && code == 0, "{code}");
        if code == 0 && flags & 2 != 0 && !mr.is_null() {
            let made = self.made.iter_mut().find(|made| made.at == mr.cast()).expect("alive");
            made.uses[0] = pd.cast();
        }
    }

    pub(super) fn memory_window(&mut self, case: &mut Case<'_>) {
        let pd = self.domain(case);
        let kind = number(case, &[1, 2, 0, 3]) as c_int;
        if pd.is_null() || !self.has_room(Kind::Mw) {
            return;
        }
        let mw = call!(context_of(pd).ops.alloc_mw; pd, kind);
        self.keep_of(Kind::Mw, mw, pd, &[pd.cast()]);
    }

    pub(super) fn device_memory(&mut self, case: &mut Case<'_>) {
        let context = self.context(case);
        let table = verbs(context);
        let dm: *mut ibv_dm = self.pick(case, Kind::Dm);
        if dm.is_null() || case.one_in(4) {
            if self.has_room(Kind::Dm) {
                let mut attr = ibv_alloc_dm_attr {
                    length: number(case, &[64, 4096, 0, 1 << 20, (1 << 20) + 1]) as usize,
                    log_align_req: number(case, &[0, 12, 13]),
                    comp_mask: u32::from(case.one_in(16)),
                };
                let dm = call!(table.alloc_dm.expect("offered"); context, &mut attr);
                self.keep(Kind::Dm, dm, context, &[]);
            }
            return;
        }
        let offset = number(case, &[0, 4, 60, 64, 1, u32::MAX]).into();
        let length = number(case, &[4, 60, 64, 0, 4096, 3, u32::MAX]) as usize;
        // SAFETY: alive, and these slots hold these functions.
        let (to, from) = unsafe {
            type To = unsafe extern "C" fn(*mut ibv_dm, u64, *mut c_void, usize) -> c_int;
            type From = unsafe extern "C" fn(*mut c_void, *mut ibv_dm, u64, usize) -> c_int;
            (
                core::mem::transmute::<Slot, To>((*dm).memcpy_to_dm),
                core::mem::transmute::<Slot, From>((*dm).memcpy_from_dm),
            )
        };
        // The program's side of a copy is there.
        let copied = length.min(ARENA);
        match case.byte() % 3 {
            0 => drop(outcome(call!(to; dm, offset, self.arena(0), copied))),
            1 => drop(outcome(call!(from; self.arena(0), dm, offset, copied))),
            _ if !self.has_room(Kind::Mr) => {}
            _ => {
                let pd = self.domain(case);
                let access = access(case) | if case.one_in(8) { 0 } else { 1 << 5 };
                let mr = call!(table.reg_dm_mr.expect("offered"); pd, dm, offset, length, access);
                self.keep_of(Kind::Mr, mr, pd, &[pd.cast(), dm.cast()]);
            }
        }
    }

    /// A domain of any kind, or NULL.
    pub(super) fn domain(&self, case: &mut Case<'_>) -> *mut ibv_pd {
        let kind = if case.one_in(8) { Kind::ImportedPd } else { Kind::Pd };
        self.pick(case, kind)
    }

    /// Keeps what was made in a domain.
    fn keep_of<T>(&mut self, kind: Kind, at: *mut T, pd: *mut ibv_pd, uses: &[*mut c_void]) {
        if !at.is_null() {
            assert!(!pd.is_null());
        }
        let context = if at.is_null() { null_mut() } else { self.find(pd).context };
        self.keep(kind, at, context, uses);
    }

    pub(super) fn pd(&mut self, case: &mut Case<'_>) {
        let context = self.context(case);
        let table = verbs(context);
        match case.byte() % 8 {
            0 if self.has_room(Kind::Td) => {
                let mut attr = ibv_td_init_attr { comp_mask: u32::from(case.one_in(8)) };
                let td = call!(table.alloc_td.expect("offered"); context, &mut attr);
                self.keep(Kind::Td, td, context, &[]);
            }
            1 if self.has_room(Kind::Pd) => {
                let mut attr = zeroed::<ibv_parent_domain_init_attr>();
                (attr.pd, attr.td) = (self.domain(case), self.pick(case, Kind::Td));
                attr.comp_mask = number(case, &[0, 1, 2, 3, 4]);
                let pd = call!(table.alloc_parent_domain.expect("offered"); context, &mut attr);
                self.keep(Kind::Pd, pd, context, &[attr.pd.cast(), attr.td.cast()]);
            }
            _ if self.has_room(Kind::Pd) => {
                let pd = call!(self.calls.ibv_alloc_pd; context);
                self.keep(Kind::Pd, pd, context, &[]);
            }
            _ => {}
        }
    }

    pub(super) fn import(&mut self, case: &mut Case<'_>) {
        let context = self.context(case);
        match case.byte() % 4 {
            0 if self.contexts.len() < 6 => {
                // SAFETY: open.
                let own = unsafe { (*context).cmd_fd };
                let fd = if case.one_in(4) { case.of(&[-1, 0, 1 << 20]) } else { own };
                let imported = call!(self.calls.ibv_import_device; fd);
                if imported.is_null() {
                    failed(Errno::last_raw());
                } else {
                    assert_eq!(fd, own);
                    self.opened(imported);
                }
            }
            1 if self.has_room(Kind::ImportedPd) => {
                let other: *mut ibv_pd = self.pick(case, Kind::Pd);
                // SAFETY: alive.
                let handle = if other.is_null() { case.word() } else { unsafe { (*other).handle } };
                let pd = call!(self.calls.ibv_import_pd; context, handle);
                self.keep(Kind::ImportedPd, pd, context, &[]);
            }
            2 if self.has_room(Kind::ImportedMr) => {
                let (pd, other) = (self.domain(case), self.pick::<ibv_mr>(case, Kind::Mr));
                // SAFETY: alive.
                let handle = if other.is_null() { case.word() } else { unsafe { (*other).handle } };
                let mr = call!(self.calls.ibv_import_mr; pd, handle);
                self.keep_of(Kind::ImportedMr, mr, pd, &[]);
            }
            _ => {}
        }
    }

    pub(super) fn channel_or_cq(&mut self, case: &mut Case<'_>) {
        let context = self.context(case);
        if case.one_in(4) && self.has_room(Kind::Channel) {
            let channel = call!(self.calls.ibv_create_comp_channel; context);
            assert!(!channel.is_null());
            // SAFETY: just made.
            super::world::set_nonblocking(unsafe { (*channel).fd });
            return self.keep(Kind::Channel, channel, context, &[]);
        }
        if !self.has_room(Kind::Cq) {
            return;
        }
        let channel: *mut ibv_comp_channel = self.pick(case, Kind::Channel);
        let cqe = number(case, &[16, 1, 64, 0, 1 << 22, u32::MAX]);
        let vector = number(case, &[0, 0, 0, 1, u32::MAX]);
        let cq = if case.one_in(3) {
            let mut attr = zeroed::<ibv_cq_init_attr_ex>();
            (attr.cqe, attr.channel, attr.comp_vector) = (cqe, channel, vector);
            attr.wc_flags = number(case, &[0x7f, 0, 1, 0x80]).into();
            (attr.comp_mask, attr.flags) = (number(case, &[0, 1, 2, 3]), number(case, &[0, 1, 2]));
            attr.parent_domain = self.domain(case);
            call!(verbs(context).create_cq_ex.expect("offered"); context, &mut attr).cast()
        } else {
            call!(self.calls.ibv_create_cq; context, cqe as c_int, null_mut(), channel, vector as c_int)
        };
        if !cq.is_null() {
            // SAFETY: just made.
            assert!(i64::from(unsafe { (*cq).cqe }) >= i64::from(cqe));
        }
        self.keep(Kind::Cq, cq, context, &[channel.cast()]);
    }

    pub(super) fn resize_cq(&mut self, case: &mut Case<'_>) {
        let cq: *mut ibv_cq = self.pick(case, Kind::Cq);
        outcome(call!(self.calls.ibv_resize_cq; cq, number(case, &[1, 64, 0, 1 << 22, u32::MAX]) as c_int));
    }

    pub(super) fn srq(&mut self, case: &mut Case<'_>) {
        let srq: *mut ibv_srq = self.pick(case, Kind::Srq);
        let attr = &mut ibv_srq_attr {
            max_wr: number(case, &[16, 1, 0, 1 << 20]),
            max_sge: number(case, &[1, 4, 0, 33]),
            srq_limit: number(case, &[0, 1, 17]),
        };
        if !srq.is_null() && case.one_in(2) {
            let mask = number(case, &[2, 1, 3, 4]) as c_int;
            outcome(call!(self.calls.ibv_modify_srq; srq, attr, mask));
            assert!(outcome(call!(self.calls.ibv_query_srq; srq, attr)));
            return;
        }
        if !self.has_room(Kind::Srq) {
            return;
        }
        let pd = self.domain(case);
        let asked = *attr;
        let srq = if case.one_in(3) {
            let context = self.context(case);
            let mut init = zeroed::<ibv_srq_init_attr_ex>();
            (init.attr, init.pd) = (asked, pd);
            (init.comp_mask, init.srq_type) = (number(case, &[3, 2, 1, 0, 7]), number(case, &[0, 1, 2]));
            call!(verbs(context).create_srq_ex.expect("offered"); context, &mut init)
        } else {
            let mut init = ibv_srq_init_attr { srq_context: null_mut(), attr: asked };
            let srq = call!(self.calls.ibv_create_srq; pd, &mut init);
            assert!(srq.is_null() || init.attr.max_wr >= asked.max_wr && init.attr.max_sge >= asked.max_sge);
            srq
        };
        self.keep_of(Kind::Srq, srq, pd, &[pd.cast()]);
    }

    pub(super) fn qp(&mut self, case: &mut Case<'_>) {
        if !self.has_room(Kind::Qp) {
            return;
        }
        let (pd, send_cq, mut recv_cq) =
            (self.domain(case), self.pick(case, Kind::Cq), self.pick(case, Kind::Cq));
        if case.one_in(2) {
            recv_cq = send_cq;
        }
        let srq = if case.one_in(3) { self.pick(case, Kind::Srq) } else { null_mut() };
        let cap = ibv_qp_cap {
            max_send_wr: number(case, &[16, 8, 1, 0, 1 << 20]),
            max_recv_wr: number(case, &[16, 8, 1, 0, 1 << 20]),
            max_send_sge: number(case, &[2, 1, 0, 4, 100]),
            max_recv_sge: number(case, &[2, 1, 0, 4, 100]),
            max_inline_data: number(case, &[64, 0, 1 << 16]),
        };
        let qp_type = number(case, &[2, 2, 3, 4, 2, 4, 8, 0, 9]);
        let sq_sig_all = c_int::from(case.one_in(4));
        let (qp, granted) = if case.one_in(3) {
            let context = self.context(case);
            let mut init = zeroed::<ibv_qp_init_attr_ex>();
            (init.send_cq, init.recv_cq, init.srq) = (send_cq, recv_cq, srq);
            (init.cap, init.qp_type, init.sq_sig_all, init.pd) = (cap, qp_type, sq_sig_all, pd);
            init.comp_mask = number(case, &[0x41, 0x45, 1, 0, 2]);
            init.create_flags = u32::from(case.one_in(8));
            init.send_ops_flags = number(case, &[0x3ff, 0x7f, 0xf, 0xc, 4, 1, 0x7ff]).into();
            let qp = call!(verbs(context).create_qp_ex.expect("offered"); context, &mut init);
            (qp, init.cap)
        } else {
            let mut init =
                ibv_qp_init_attr { qp_context: null_mut(), send_cq, recv_cq, srq, cap, qp_type, sq_sig_all };
            let qp = call!(self.calls.ibv_create_qp; pd, &mut init);
            (qp, init.cap)
        };
        if !qp.is_null() {
            assert!(granted.max_send_wr >= cap.max_send_wr && granted.max_inline_data >= cap.max_inline_data);
            assert!(!self.made.iter().any(|made| {
                // SAFETY: alive.
                made.kind == Kind::Qp
                    && unsafe { (*made.at.cast::<ibv_qp>()).qp_num == (*qp).qp_num }
                    && core::ptr::eq(context_of(made.at).device, context_of(qp).device)
            }));
        }
        self.keep_of(Kind::Qp, qp, pd, &[pd.cast(), send_cq.cast(), recv_cq.cast(), srq.cast()]);
    }

    /// An address: mostly our own, of this device.
    pub(super) fn address(&self, case: &mut Case<'_>, context: *mut ibv_context) -> ibv_ah_attr {
        let mut port = zeroed::<ibv_port_attr>();
        let mut attr = ibv_ah_attr { is_global: 1, port_num: 1, ..ibv_ah_attr::default() };
        let query = verbs(context).query_port.expect("offered");
        assert!(outcome(call!(query; context, 1, &mut port, size_of::<ibv_port_attr>())));
        assert_eq!(call!(self.calls.ibv_query_gid; context, 1, 0, &mut attr.grh.dgid), 0);
        attr.dlid = port.lid;
        match case.byte() {
            0xf8 => attr.is_global = 0,
            0xf9 => attr.grh.dgid = ibv_gid::default(),
            0xfa => attr.grh.dgid.raw[0] ^= 0xff,
            0xfb => attr.port_num = case.byte(),
            0xfc => attr.grh.sgid_index = case.byte(),
            0xfd => (attr.sl, attr.grh.hop_limit) = (case.byte(), 0),
            0xfe => attr.grh.flow_label = case.word(),
            _ => {}
        }
        attr
    }

    pub(super) fn ah(&mut self, case: &mut Case<'_>) {
        let (pd, context) = (self.domain(case), self.context(case));
        let ah = if case.one_in(3) {
            let mut wc = zeroed::<ibv_wc>();
            wc.wc_flags = number(case, &[1, 0, 3]);
            (wc.sl, wc.slid) = (case.byte(), u16::from(case.byte()));
            let mut grh: ibv_grh = zeroed();
            let mut attr = self.address(case, context);
            grh.version_tclass_flow = number(case, &[6 << 4, 0x45]);
            (grh.sgid, grh.dgid) = (attr.grh.dgid, attr.grh.dgid);
            let grh = if case.one_in(8) { null_mut() } else { &raw mut grh };
            let port = case.of(&[1, 0, 2]);
            at_least_zero(call!(self.calls.ibv_init_ah_from_wc; context, port, &mut wc, grh, &mut attr));
            call!(self.calls.ibv_create_ah_from_wc; pd, &mut wc, grh, port)
        } else {
            let mut attr = self.address(case, context);
            call!(self.calls.ibv_create_ah; pd, &mut attr)
        };
        if self.has_room(Kind::Ah) || ah.is_null() {
            self.keep_of(Kind::Ah, ah, pd, &[pd.cast()]);
        } else {
            assert!(outcome(call!(self.calls.ibv_destroy_ah; ah)));
        }
    }
}
