//! Posting with `ibv_wr_start` and `ibv_wr_complete`: a list that is made call by call, whole or abandoned, in the right order or not.

use super::abi::*;
use super::calls::call;
use super::case::Case;
use super::make::number;
use super::world::{Kind, Posted, World, outcome};
use core::ptr::null_mut;

impl World<'_> {
    pub(super) fn list(&mut self, case: &mut Case<'_>) {
        let qp: *mut ibv_qp = self.pick(case, Kind::Qp);
        let ex = call!(self.calls.ibv_qp_to_qp_ex; qp);
        if ex.is_null() {
            return;
        }
        // SAFETY: alive.
        let table = unsafe { &*ex };
        if !case.one_in(16) {
            call!(table.wr_start.expect("offered"); ex);
        }
        let first = self.last_wr_id + 1;
        for _ in 0..case.byte() % 6 {
            self.builder(case, ex, table);
        }
        if case.one_in(4) {
            return call!(table.wr_abort.expect("offered"); ex);
        }
        if outcome(call!(table.wr_complete.expect("offered"); ex)) {
            for wr_id in first..=self.last_wr_id {
                self.posted.insert(wr_id, Posted { to: qp.cast(), is_receive: false, room: 0 });
            }
        }
    }

    /// One call between the start of a list and its end.
    fn builder(&mut self, case: &mut Case<'_>, ex: *mut ibv_qp_ex, table: &ibv_qp_ex) {
        let which = case.byte() % 20;
        let (addr, rkey) = self.remote(case);
        if which < 11 {
            self.last_wr_id += 1;
            // SAFETY: the program writes these fields.
            unsafe { (&raw mut (*ex).wr_id).write(self.last_wr_id) };
            // SAFETY: as above.
            unsafe { (&raw mut (*ex).wr_flags).write(number(case, &[2, 0, 6, 8])) };
        }
        // An operation that the queue pair was not created with has no function.
        let known = match which {
            0 | 1 => table.wr_send.map(|wr| call!(wr; ex)),
            2 => table.wr_send_imm.map(|wr| call!(wr; ex, 1)),
            3 => table.wr_send_inv.map(|wr| call!(wr; ex, rkey)),
            4 => table.wr_rdma_write.map(|wr| call!(wr; ex, rkey, addr)),
            5 => table.wr_rdma_write_imm.map(|wr| call!(wr; ex, rkey, addr, 1)),
            6 => table.wr_rdma_read.map(|wr| call!(wr; ex, rkey, addr)),
            7 => table.wr_atomic_cmp_swp.map(|wr| call!(wr; ex, rkey, addr, 1, 2)),
            8 => table.wr_atomic_fetch_add.map(|wr| call!(wr; ex, rkey, addr, 1)),
            9 => table.wr_local_inv.map(|wr| call!(wr; ex, rkey)),
            10 => table.wr_bind_mw.map(|wr| {
                let (mw, mut info) = (self.pick(case, Kind::Mw), self.binding(case));
                call!(wr; ex, mw, rkey, &mut info)
            }),
            _ => {
                self.setter(case, which, ex, table);
                Some(())
            }
        };
        if known.is_none() {
            self.last_wr_id -= 1;
        }
    }

    /// Says what the current request of a list sends, and where to.
    fn setter(&mut self, case: &mut Case<'_>, which: u8, ex: *mut ibv_qp_ex, table: &ibv_qp_ex) {
        let mut entries = [self.entry(case), self.entry(case)];
        match which {
            11..=13 => {
                call!(table.wr_set_sge.expect("offered"); ex, entries[0].lkey, entries[0].addr, entries[0].length)
            }
            14 => {
                let list = if case.one_in(8) { null_mut() } else { entries.as_mut_ptr() };
                call!(table.wr_set_sge_list.expect("offered"); ex, case.of(&[1, 2, 0, usize::MAX]), list)
            }
            15 => {
                let length = number(case, &[8, 0, 64, 65, 4096]) as usize;
                call!(table.wr_set_inline_data.expect("offered"); ex, self.arena(0), length % 8192)
            }
            16 => {
                let mut list = [ibv_data_buf { addr: self.arena(0), length: usize::from(case.byte()) }; 2];
                call!(table.wr_set_inline_data_list.expect("offered"); ex, case.of(&[1, 2, 0]), list.as_mut_ptr())
            }
            17 => {
                // SAFETY: alive.
                let own = unsafe { (*ex).base.qp_num };
                if let Some(set) = table.wr_set_ud_addr {
                    call!(set; ex, self.pick(case, Kind::Ah), own, 5)
                }
            }
            18 => {
                let mut room: [ibv_wc; 1] = super::world::zeroed();
                // SAFETY: alive.
                let cq = unsafe { (*ex).base.send_cq };
                if call!(super::world::context_of(cq).ops.poll_cq; cq, 1, room.as_mut_ptr()) == 1 {
                    self.completed(room[0].wr_id, room[0].qp_num, cq, None);
                }
            }
            _ => {
                let mut attr: ibv_qp_attr = super::world::zeroed();
                attr.qp_state = case.of(&[6, 0]);
                outcome(call!(self.calls.ibv_modify_qp; ex.cast(), &mut attr, 1));
            }
        }
    }
}
