//! Calls that use queue pairs: changing their state, posting, both ways of polling, and events.

use super::abi::*;
use super::calls::call;
use super::case::Case;
use super::make::number;
use super::world::{ARENA, Kind, Posted, Unacknowledged, World, context_of, failed, outcome, zeroed};
use core::ffi::c_int;
use core::ptr::null_mut;
use nix::errno::Errno;

/// Entries that a list has: more than any queue takes.
const ENTRIES: usize = 40;
/// Work requests of a list.
const REQUESTS: usize = 4;

/// `IBV_SEND_INLINE`.
const INLINE: u32 = 8;

impl World<'_> {
    /// Changes a queue pair: one transition, with attributes and a mask of any kind, or all that connect it.
    pub(super) fn modify(&mut self, case: &mut Case<'_>) {
        let (qp, peer) = (self.pick::<ibv_qp>(case, Kind::Qp), self.pick::<ibv_qp>(case, Kind::Qp));
        if qp.is_null() {
            assert!(!outcome(call!(self.calls.ibv_modify_qp; qp, null_mut(), 1)));
            return;
        }
        let context = self.find(qp).context;
        let mut attr = zeroed::<ibv_qp_attr>();
        attr.ah_attr = self.address(case, context);
        (attr.alt_ah_attr, attr.port_num) = (attr.ah_attr, case.of(&[1, 1, 1, 0, 2]));
        attr.path_mtu = number(case, &[3, 1, 5, 0, 6]);
        attr.qkey = number(case, &[5, 5, 6]);
        // SAFETY: alive.
        attr.dest_qp_num = if peer.is_null() { case.word() } else { unsafe { (*peer).qp_num } };
        attr.qp_access_flags = number(case, &[0xf, 0, 7, 0x80]);
        (attr.rq_psn, attr.sq_psn) = (number(case, &[7, 7, 1 << 24]), 7);
        (attr.max_rd_atomic, attr.max_dest_rd_atomic) = (case.of(&[4, 0, 255]), case.of(&[4, 0, 255]));
        (attr.timeout, attr.retry_cnt, attr.rnr_retry) =
            (case.of(&[1, 0, 32]), case.of(&[1, 0, 8]), case.of(&[0, 1, 7]));
        attr.min_rnr_timer = case.of(&[1, 0, 32]);
        attr.pkey_index = case.of(&[0, 0, 0, 1]);
        attr.cap = ibv_qp_cap { max_send_wr: case.byte().into(), ..ibv_qp_cap::default() };
        // SAFETY: alive.
        let (qp_type, state) = unsafe { ((*qp).qp_type, (*qp).state) };
        let usual = |to: u32| -> u32 {
            match (to, qp_type) {
                (1, 4) => 0x71,
                (1, _) => 0x39,
                (2, 2) => 0x0012_9181 | 1 << 15 | 1 << 17,
                (2, 3) => 0x0010_1181,
                (3, 2) => 0x0001_2e01,
                (3, _) => 0x0001_0001,
                _ => 1,
            }
        };
        if case.one_in(2) {
            for to in 1..=3 {
                attr.qp_state = to;
                attr.cur_qp_state = to - 1;
                outcome(call!(self.calls.ibv_modify_qp; qp, &mut attr, usual(to) as c_int));
            }
            return;
        }
        attr.qp_state = number(case, &[state + 1, 6, 0, 4, 3, 1, 2]);
        attr.cur_qp_state = number(case, &[state, 3]);
        let mask = number(case, &[usual(attr.qp_state), usual(attr.qp_state), 1, 2, 3]);
        let mask = if case.one_in(4) { mask ^ 1 << (case.byte() % 27) } else { mask };
        outcome(call!(self.calls.ibv_modify_qp; qp, &mut attr, mask as c_int));
    }

    /// An entry: mostly of a region, mostly inside.
    pub(super) fn entry(&self, case: &mut Case<'_>) -> ibv_sge {
        let kind = if case.one_in(16) { Kind::ImportedMr } else { Kind::Mr };
        let mr: *mut ibv_mr = self.pick(case, kind);
        if mr.is_null() {
            return ibv_sge { addr: case.long(), length: case.word(), lkey: case.word() };
        }
        // SAFETY: alive.
        let (addr, lkey) = unsafe { ((*mr).addr as u64, (*mr).lkey) };
        let length = number(case, &[8, 0, 64, 4096, 1, 100]);
        ibv_sge { addr: addr.wrapping_add(number(case, &[0, 8, 4096]).into()), length, lkey }
    }

    /// Where a request of a peer's may go: to a region, a window, or anywhere.
    pub(super) fn remote(&self, case: &mut Case<'_>) -> (u64, u32) {
        let mr: *mut ibv_mr = self.pick(case, Kind::Mr);
        let mw: *mut ibv_mw = self.pick(case, Kind::Mw);
        if mr.is_null() {
            return (case.long(), case.word());
        }
        // SAFETY: alive; so for the window.
        let (addr, rkey) = unsafe { ((*mr).addr as u64, (*mr).rkey) };
        let addr = addr.wrapping_add(number(case, &[0, 8, 1]).into());
        // SAFETY: as above.
        if mw.is_null() || case.one_in(2) { (addr, rkey) } else { (addr, unsafe { (*mw).rkey }) }
    }

    fn wr_id(&mut self) -> u64 {
        self.last_wr_id += 1;
        self.last_wr_id
    }

    /// What a window is to be bound to.
    pub(super) fn binding(&self, case: &mut Case<'_>) -> ibv_mw_bind_info {
        let mr: *mut ibv_mr = self.pick(case, Kind::Mr);
        // SAFETY: alive.
        let addr = if mr.is_null() { case.long() } else { unsafe { (*mr).addr as u64 } };
        let length = number(case, &[64, 8, 0, u32::MAX]).into();
        ibv_mw_bind_info { mr, addr, length, mw_access_flags: number(case, &[0xe, 0, 2, 0x2e, 1]) }
    }

    /// Entries that are all there, and a count that may be more than anybody takes.
    fn entries(&self, case: &mut Case<'_>, entries: &mut [ibv_sge; ENTRIES]) -> c_int {
        *entries = [self.entry(case); ENTRIES];
        (entries[1], entries[2]) = (self.entry(case), self.entry(case));
        case.of(&[1, 1, 1, 2, 0, 3, ENTRIES as c_int, -1, c_int::MIN, c_int::MAX])
    }

    pub(super) fn post_send(&mut self, case: &mut Case<'_>) {
        let qp: *mut ibv_qp = self.pick(case, Kind::Qp);
        if qp.is_null() {
            return;
        }
        let mut entries = [[ibv_sge { addr: 0, length: 0, lkey: 0 }; ENTRIES]; REQUESTS];
        let mut wrs = [const { zeroed_wr() }; REQUESTS];
        let count = usize::from(case.byte()) % (REQUESTS + 1);
        let first = self.last_wr_id + 1;
        for (wr, entries) in wrs[..count].iter_mut().zip(&mut entries) {
            wr.wr_id = self.wr_id();
            wr.num_sge = self.entries(case, entries);
            wr.sg_list = if case.one_in(16) { null_mut() } else { entries.as_mut_ptr() };
            wr.opcode = number(case, &[2, 0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
            wr.send_flags = number(case, &[2, 0, 6, 3, 2 | INLINE]);
            wr.imm_data.write(case.word());
            if wr.send_flags & INLINE != 0 {
                // These bytes are read where the program says: they are there.
                for entry in &mut *entries {
                    entry.addr = self.arena(entry.addr as usize % 64) as u64;
                    entry.length %= ARENA as u32 / 2;
                }
            }
            let (remote_addr, rkey) = self.remote(case);
            wr.wr.atomic = ibv_send_wr_atomic { remote_addr, compare_add: 1, swap: 2, rkey };
            match wr.opcode {
                0 | 1 | 4 => wr.wr.rdma = ibv_send_wr_rdma { remote_addr, rkey },
                7 | 9 => drop(wr.imm_data.write(rkey)),
                8 => {
                    let (mw, bind_info) = (self.pick(case, Kind::Mw), self.binding(case));
                    wr.more.bind_mw =
                        ibv_send_wr_bind_mw { mw, rkey: number(case, &[rkey, rkey + 1]), bind_info };
                }
                _ => {}
            }
            // SAFETY: alive.
            let (qp_type, remote_qpn) = unsafe { ((*qp).qp_type, (*qp).qp_num) };
            if qp_type == 4 {
                wr.wr.ud = ibv_send_wr_ud { ah: self.pick(case, Kind::Ah), remote_qpn, remote_qkey: 5 };
            }
        }
        let all = wrs.as_mut_ptr();
        for at in 1..count {
            wrs[at - 1].next = all.wrapping_add(at);
        }
        let mut bad = null_mut();
        let posted =
            call!(context_of(qp).ops.post_send; qp, if count == 0 { null_mut() } else { all }, &mut bad);
        let accepted = accepted(posted, all, bad, count);
        for wr_id in first..first + accepted as u64 {
            self.posted.insert(wr_id, Posted { to: qp.cast(), is_receive: false, room: 0 });
        }
    }

    pub(super) fn post_recv(&mut self, case: &mut Case<'_>) {
        let srq: *mut ibv_srq = if case.one_in(3) { self.pick(case, Kind::Srq) } else { null_mut() };
        let qp: *mut ibv_qp = self.pick(case, Kind::Qp);
        if srq.is_null() && qp.is_null() {
            return;
        }
        let mut entries = [[ibv_sge { addr: 0, length: 0, lkey: 0 }; ENTRIES]; REQUESTS];
        let mut wrs = [ibv_recv_wr { wr_id: 0, next: null_mut(), sg_list: null_mut(), num_sge: 0 }; REQUESTS];
        let count = usize::from(case.byte()) % (REQUESTS + 1);
        for (wr, entries) in wrs[..count].iter_mut().zip(&mut entries) {
            wr.wr_id = self.wr_id();
            wr.num_sge = self.entries(case, entries);
            wr.sg_list = if case.one_in(16) { null_mut() } else { entries.as_mut_ptr() };
        }
        let all = wrs.as_mut_ptr();
        for at in 1..count {
            wrs[at - 1].next = all.wrapping_add(at);
        }
        let (list, mut bad) = (if count == 0 { null_mut() } else { all }, null_mut());
        let (posted, to) = if srq.is_null() {
            (call!(context_of(qp).ops.post_recv; qp, list, &mut bad), qp.cast())
        } else {
            (call!(context_of(srq).ops.post_srq_recv; srq, list, &mut bad), srq.cast())
        };
        let accepted = accepted(posted, all, bad, count);
        for (wr, entries) in wrs[..accepted].iter().zip(&entries) {
            let room = entries[..wr.num_sge as usize].iter().map(|entry| u64::from(entry.length)).sum();
            self.posted.insert(wr.wr_id, Posted { to, is_receive: true, room });
        }
    }

    pub(super) fn bind(&mut self, case: &mut Case<'_>) {
        let (qp, mw) = (self.pick::<ibv_qp>(case, Kind::Qp), self.pick::<ibv_mw>(case, Kind::Mw));
        if qp.is_null() {
            return;
        }
        let wr_id = self.wr_id();
        let mut bind =
            ibv_mw_bind { wr_id, send_flags: number(case, &[2, 0]), bind_info: self.binding(case) };
        if outcome(call!(context_of(qp).ops.bind_mw; qp, mw, &mut bind)) {
            self.posted.insert(wr_id, Posted { to: qp.cast(), is_receive: false, room: 0 });
        }
    }

    /// A completion is of work that was posted there, once, and in its order.
    pub(super) fn completed(&mut self, wr_id: u64, qp_num: u32, cq: *mut ibv_cq, received: Option<u32>) {
        let posted = self.posted.remove(&wr_id).unwrap_or_else(|| panic!("nobody posted {wr_id}"));
        let Some(to) = self.made.iter().find(|made| made.at == posted.to) else { return };
        if to.kind == Kind::Qp {
            // SAFETY: alive.
            let qp = unsafe { &*to.at.cast::<ibv_qp>() };
            assert_eq!(qp.qp_num, qp_num);
            assert_eq!(if posted.is_receive { qp.recv_cq } else { qp.send_cq }, cq);
            let last = self.completed.insert((posted.to, posted.is_receive), wr_id).unwrap_or(0);
            assert!(last < wr_id, "{wr_id} completes after {last}");
        }
        if let (Some(bytes), true) = (received, posted.is_receive) {
            assert!(u64::from(bytes) <= posted.room);
        }
    }

    pub(super) fn poll(&mut self, case: &mut Case<'_>) {
        let cq: *mut ibv_cq = self.pick(case, Kind::Cq);
        if cq.is_null() {
            return;
        }
        if case.one_in(3) {
            return self.poll_ex(case, cq);
        }
        const MARK: u64 = 0xa5a5;
        let mut wcs = [ibv_wc { wr_id: MARK, ..zeroed() }; 9];
        let room = case.of(&[8, 8, 1, 3, 0, -1, c_int::MIN]);
        let polled = call!(context_of(cq).ops.poll_cq; cq, room, wcs.as_mut_ptr());
        assert!(polled <= room.max(0));
        let (found, rest) = wcs.split_at(polled.max(0) as usize);
        assert!(rest.iter().all(|wc| wc.wr_id == MARK));
        for wc in found {
            assert!(wc.status <= 23, "{}", wc.status);
            self.completed(wc.wr_id, wc.qp_num, cq, (wc.status == 0).then_some(wc.byte_len));
        }
    }

    fn poll_ex(&mut self, case: &mut Case<'_>, cq: *mut ibv_cq) {
        let ex = cq.cast::<ibv_cq_ex>();
        // SAFETY: alive, and each is laid out so.
        let table = unsafe { &*ex };
        let mut attr = ibv_poll_cq_attr { comp_mask: u32::from(case.one_in(16)) };
        let mut more = call!(table.start_poll.expect("offered"); ex, &mut attr);
        if more != 0 {
            return failed(more);
        }
        let mut left = case.byte() % 4;
        while more == 0 {
            // SAFETY: a completion is being read.
            let (wr_id, status) = unsafe {
                ((&raw const (*ex).wr_id).read_volatile(), (&raw const (*ex).status).read_volatile())
            };
            assert!((0..=23).contains(&status));
            call!(table.read_opcode.expect("offered"); ex);
            call!(table.read_vendor_err.expect("offered"); ex);
            call!(table.read_imm_data.expect("offered"); ex);
            call!(table.read_src_qp.expect("offered"); ex);
            call!(table.read_wc_flags.expect("offered"); ex);
            call!(table.read_slid.expect("offered"); ex);
            call!(table.read_sl.expect("offered"); ex);
            call!(table.read_dlid_path_bits.expect("offered"); ex);
            let bytes = call!(table.read_byte_len.expect("offered"); ex);
            let qp_num = call!(table.read_qp_num.expect("offered"); ex);
            self.completed(wr_id, qp_num, cq, (status == 0).then_some(bytes));
            if left == 0 {
                break;
            }
            left -= 1;
            more = call!(table.next_poll.expect("offered"); ex);
        }
        if more != 0 {
            failed(more);
        }
        call!(table.end_poll.expect("offered"); ex);
    }

    pub(super) fn completion_events(&mut self, case: &mut Case<'_>) {
        let cq: *mut ibv_cq = self.pick(case, Kind::Cq);
        if !cq.is_null() {
            assert!(outcome(call!(context_of(cq).ops.req_notify_cq; cq, case.of(&[0, 1, -1]))));
        }
        let channel: *mut ibv_comp_channel = self.pick(case, Kind::Channel);
        let (mut raised, mut cq_context) = (null_mut(), null_mut());
        if call!(self.calls.ibv_get_cq_event; channel, &mut raised, &mut cq_context) == 0 {
            assert!(self.find(raised).uses.contains(&channel.cast()));
            self.unacknowledged.push(Unacknowledged::Completion(raised));
        } else {
            failed(Errno::last_raw());
        }
        match case.byte() % 4 {
            // More acknowledgements than events: programs do that.
            0 if !cq.is_null() => call!(self.calls.ibv_ack_cq_events; cq, number(case, &[1, 0, 4])),
            1 if !cq.is_null() => self.acknowledge(cq.cast()),
            _ => {}
        }
    }

    pub(super) fn async_events(&mut self, case: &mut Case<'_>) {
        let context = self.context(case);
        let mut event = zeroed::<ibv_async_event>();
        if call!(self.calls.ibv_get_async_event; context, &mut event) != 0 {
            failed(Errno::last_raw());
            event.event_type = number(case, &[20, 17, 8, 9, u32::MAX]);
            return call!(self.calls.ibv_ack_async_event; &mut event);
        }
        assert!(event.event_type <= 19);
        if matches!(event.event_type, 8..=13 | 17 | 18) {
            return call!(self.calls.ibv_ack_async_event; &mut event);
        }
        // SAFETY: all other events have an object of some kind.
        let object = unsafe { event.element.qp.cast() };
        assert_eq!(self.find(object).context, context);
        self.unacknowledged.push(Unacknowledged::Async(event, object));
        if case.one_in(2) {
            self.acknowledge(object);
        }
    }
}

/// How many of a list were posted: all, or those before the first that was not, which the program is shown.
fn accepted<W>(posted: c_int, first: *mut W, bad: *mut W, count: usize) -> usize {
    if outcome(posted) || count == 0 {
        return count;
    }
    let accepted = (bad as usize).wrapping_sub(first as usize) / size_of::<W>();
    assert!(accepted < count, "{bad:p} is not of the list of {count} at {first:p}");
    accepted
}

/// A work request of zeroes.
const fn zeroed_wr() -> ibv_send_wr {
    // SAFETY: numbers and pointers.
    unsafe { core::mem::zeroed() }
}
