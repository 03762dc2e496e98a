//! Questions: about devices, ports and objects, and names of numbers.

use super::abi::*;
use super::calls::call;
use super::case::Case;
use super::make::number;
use super::world::{Kind, World, at_least_zero, outcome, verbs, zeroed};
use core::ffi::{CStr, c_char, c_int};
use core::ptr::null_mut;

/// Room for an answer, more than the longest: what lies behind it must stay as it is.
struct Room([u8; 1024]);

impl Room {
    const MARK: u8 = 0x5a;

    fn new() -> Self {
        Self([Self::MARK; 1024])
    }

    fn at<T>(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }

    fn check(&self, said: usize) {
        assert!(self.0[said..].iter().all(|byte| *byte == Self::MARK), "more than {said} bytes were written");
    }
}

/// A program's idea of how long a structure is: up to half of the room.
fn size(case: &mut Case<'_>, real: usize) -> usize {
    case.of(&[real, real, real, 0, 1, real - 1, real + 4, 512])
}

impl World<'_> {
    pub(super) fn ask(&self, case: &mut Case<'_>) {
        let context = self.context(case);
        let (port, index) = (case.of(&[1, 1, 1, 0, 2, 255]), number(case, &[0, 1, u32::MAX, 1 << 16]));
        let calls = self.calls;
        let mut room = Room::new();
        match case.byte() % 12 {
            0 => {
                assert!(outcome(call!(calls.ibv_query_device; context, room.at())));
                room.check(size_of::<ibv_device_attr>());
            }
            1 => {
                let said = size(case, size_of::<ibv_device_attr_ex>());
                let mut input = ibv_query_device_ex_input { comp_mask: u32::from(case.one_in(8)) };
                let input = if case.one_in(2) { null_mut() } else { &raw mut input };
                outcome(
                    call!(verbs(context).query_device_ex.expect("offered"); context, input, room.at(), said),
                );
                room.check(said);
            }
            2 => {
                let said = size(case, size_of::<ibv_port_attr>());
                outcome(call!(verbs(context).query_port.expect("offered"); context, port, room.at(), said));
                room.check(said);
            }
            3 => {
                outcome(call!(calls.ibv_query_port; context, port, room.at()));
                room.check(core::mem::offset_of!(ibv_port_attr, port_cap_flags2));
            }
            4 => {
                at_least_zero(call!(calls.ibv_query_gid; context, port, index as c_int, room.at()));
                room.check(size_of::<ibv_gid>());
                at_least_zero(call!(calls.ibv_query_gid_type; context, port, index, room.at()));
                room.check(size_of::<ibv_gid>());
            }
            5 => {
                let said = size(case, size_of::<ibv_gid_entry>());
                let port = number(case, &[1, 0, 257]);
                let flags = u32::from(case.one_in(8));
                outcome(call!(calls._ibv_query_gid_ex; context, port, index, room.at(), flags, said));
                room.check(said);
            }
            6 => {
                let said = case.of(&[32, 32, 0, 16, 64]);
                let count = case.of(&[8, 0, 1]);
                let found = call!(calls._ibv_query_gid_table; context, room.at(), count, 0, said);
                assert!(found <= count as isize && found > -4096, "{found}");
                room.check(count * said);
            }
            7 => {
                at_least_zero(call!(calls.ibv_query_pkey; context, port, index as c_int, room.at()));
                room.check(2);
                at_least_zero(call!(calls.ibv_get_pkey_index; context, port, index as u16));
            }
            8 => {
                let qp: *mut ibv_qp = self.pick(case, Kind::Qp);
                let (mut attr, mut init) = (zeroed::<ibv_qp_attr>(), zeroed::<ibv_qp_init_attr>());
                let init = if case.one_in(4) { null_mut() } else { &raw mut init };
                let asked = outcome(call!(calls.ibv_query_qp; qp, &mut attr, case.word() as c_int, init));
                assert!(asked || qp.is_null());
                assert!(attr.qp_state <= 6);
                outcome(call!(calls.ibv_query_ece; qp, room.at()));
                call!(calls.ibv_query_qp_data_in_order; qp, index, 0);
                outcome(call!(calls.ibv_attach_mcast; qp, room.at(), 1));
            }
            9 => {
                let said = case.of(&[64, 0, 1, 2]);
                let folder = case.of(&[c"/proc/self", c"/nowhere", c"/proc"]);
                let file = case.of(&[c"comm", c"stat", c""]);
                let read = call!(calls.ibv_read_sysfs_file; folder.as_ptr(), file.as_ptr(), room.at(), said);
                at_least_zero(read);
                room.check(said);
            }
            10 => self.names(number(case, &[0, 1, 4, 23, 24, u32::MAX]) as c_int),
            _ => self.advise(case),
        }
    }

    fn names(&self, number: c_int) {
        let calls = self.calls;
        let text = |name: *const c_char| {
            // SAFETY: a name, not NULL, that stays.
            assert!(!name.is_null() && !unsafe { CStr::from_ptr(name) }.is_empty());
        };
        text(call!(calls.ibv_wc_status_str; number));
        text(call!(calls.ibv_event_type_str; number));
        text(call!(calls.ibv_node_type_str; number));
        text(call!(calls.ibv_port_state_str; number));
        assert!(call!(calls.ibv_rate_to_mult; number) >= -1);
        assert!(call!(calls.mult_to_ibv_rate; number) >= 0);
        assert!(call!(calls.ibv_rate_to_mbps; number) >= -1);
        assert!(call!(calls.mbps_to_ibv_rate; number) >= 0);
    }

    fn advise(&self, case: &mut Case<'_>) {
        let (context, pd) = (self.context(case), self.domain(case));
        let mut list = [self.entry(case), self.entry(case)];
        let list = if case.one_in(8) { null_mut() } else { list.as_mut_ptr() };
        let (advice, flags) = (number(case, &[0, 1, 2, 3]) as c_int, number(case, &[0, 1, 2]));
        // No more than are there, or more than anybody could mean.
        let count = case.of(&[1, 2, 0, u32::MAX, 1 << 20]);
        outcome(call!(verbs(context).advise_mr.expect("offered"); pd, advice, flags, list, count));
    }
}
