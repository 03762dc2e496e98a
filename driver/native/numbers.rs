//! Which work requests have ended, for those who ask by number: buffers that are lent, depth that is counted in frames.
//!
//! An adapter's completion tells a queue pair and the 64 bits that the program chose, and nothing else. Plain work is left at that: it has no
//! numbers, and its completions are passed on as they are, for one look at a counter that says that nothing is numbered. Work that is numbered is posted
//! under a ticket, 64 bits drawn at random, in place of the program's; the completion with that ticket gets the program's bits back. Programs choose
//! small numbers and pointers, so they do not hit a ticket by accident.

use super::lock;
use crate::error::{Error, Result};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::sys::random::random_u64;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use tbrdma_proto::{WcOpcode, WcStatus, WorkCompletion};

/// Tables that tickets are spread over, so that queue pairs seldom meet at a lock.
const TABLES: u64 = 16;

/// A work request with a number.
struct Ticket {
    wr_id: u64,
    number: u32,
    account: Arc<Account>,
    bound: Option<Bound>,
}

/// A window that gets a key when its binding has been carried out.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    /// Any key it had.
    pub(super) window: u32,
    pub(super) key: u32,
    /// The local key of the region that it is bound to.
    pub(super) region: u32,
}

/// The numbered work of a context.
pub(super) struct Tickets {
    outstanding: AtomicU32,
    drawn: AtomicU64,
    tables: [Mutex<HashMap<u64, Ticket>>; TABLES as usize],
}

impl Tickets {
    pub(super) fn new() -> Result<Self> {
        let drawn = random_u64().map_err(Error::os("open_device", "random numbers"))?;
        let tables = std::array::from_fn(|_| Mutex::default());
        Ok(Self { outstanding: AtomicU32::new(0), drawn: AtomicU64::new(drawn), tables })
    }

    fn table(&self, ticket: u64) -> &Mutex<HashMap<u64, Ticket>> {
        &self.tables[(ticket % TABLES) as usize]
    }

    /// A ticket for a work request, to be posted in place of the program's bits.
    pub(super) fn issue(&self, account: &Arc<Account>, number: u32, wr_id: u64, bound: Option<Bound>) -> u64 {
        self.outstanding.fetch_add(1, Ordering::AcqRel);
        account.issued(number);
        loop {
            let ticket = mixed(self.drawn.fetch_add(1, Ordering::Relaxed)) / TABLES * TABLES + account.table;
            let entry = Ticket { wr_id, number, account: Arc::clone(account), bound };
            let mut table = lock(self.table(ticket));
            if let std::collections::hash_map::Entry::Vacant(vacant) = table.entry(ticket) {
                vacant.insert(entry);
                return ticket;
            }
        }
    }

    fn take(&self, ticket: u64) -> Option<Ticket> {
        let taken = lock(self.table(ticket)).remove(&ticket);
        if taken.is_some() {
            self.outstanding.fetch_sub(1, Ordering::AcqRel);
        }
        taken
    }

    /// What the work request with this ticket binds, where that is known only once it has been posted.
    pub(super) fn binds(&self, ticket: u64, bound: Bound) {
        if let Some(ticket) = lock(self.table(ticket)).get_mut(&ticket) {
            ticket.bound = Some(bound);
        }
    }

    /// A work request that was not posted after all.
    pub(super) fn revoke(&self, ticket: u64) {
        if let Some(ticket) = self.take(ticket) {
            ticket.account.ended(ticket.number);
        }
    }

    /// Everything of a queue that has been reset or destroyed.
    pub(super) fn forget(&self, account: &Arc<Account>) {
        let mut table = lock(&self.tables[account.table as usize]);
        let before = table.len();
        table.retain(|_, ticket| !Arc::ptr_eq(&ticket.account, account));
        self.outstanding.fetch_sub((before - table.len()) as u32, Ordering::AcqRel);
        drop(table);
        lock(&account.outstanding).clear();
    }

    /// How much numbered work has not been polled.
    #[inline(always)]
    pub(super) fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Acquire)
    }

    /// Gives the completions of numbered work their numbers and the program's bits.
    #[inline]
    pub(super) fn settle(&self, completions: &mut [WorkCompletion], carried_out: impl FnMut(Bound)) {
        if self.outstanding() != 0 {
            self.settle_each(completions, carried_out);
        }
    }

    #[cold]
    fn settle_each(&self, completions: &mut [WorkCompletion], mut carried_out: impl FnMut(Bound)) {
        for wc in completions {
            let Some(ticket) = self.take(wc.wr_id) else { continue };
            wc.wr_id = ticket.wr_id;
            wc.wq_index = ticket.number;
            // Of a failure a device need not tell which operation it was.
            if wc.opcode.is_recv() != ticket.account.receives {
                wc.opcode = if ticket.account.receives { WcOpcode::Recv } else { WcOpcode::Send };
            }
            ticket.account.ended(ticket.number);
            if wc.status == WcStatus::Success
                && let Some(bound) = ticket.bound
            {
                carried_out(bound);
            }
        }
    }
}

/// The numbers of one work queue. 0 is no number: completions of plain work have it.
pub(super) struct Account {
    receives: bool,
    table: u64,
    next: AtomicU32,
    /// Sends with smaller numbers have ended: they end in order.
    retired: AtomicU32,
    /// Receives that have not: those of a shared queue end in any order.
    outstanding: Mutex<HashSet<u32>>,
}

impl Account {
    pub(super) fn new(receives: bool) -> Arc<Self> {
        static TURN: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            receives,
            table: TURN.fetch_add(1, Ordering::Relaxed) % TABLES,
            next: AtomicU32::new(1),
            retired: AtomicU32::new(1),
            outstanding: Mutex::default(),
        })
    }

    /// Numbers for a list: the first of them. One thread at a time posts.
    pub(super) fn number(&self, count: usize) -> u32 {
        let count = count as u32;
        let first = match self.next.load(Ordering::Relaxed) {
            first if first.checked_add(count).is_none() => 1,
            first => first,
        };
        self.next.store(first + count, Ordering::Relaxed);
        first
    }

    fn issued(&self, number: u32) {
        if self.receives {
            lock(&self.outstanding).insert(number);
        }
    }

    fn ended(&self, number: u32) {
        if self.receives {
            lock(&self.outstanding).remove(&number);
        } else {
            self.retired.store(number.wrapping_add(1), Ordering::Release);
        }
    }

    /// Sends with smaller numbers have ended and been polled.
    pub(super) fn retired(&self) -> u32 {
        self.retired.load(Ordering::Acquire)
    }

    /// Whether a receive that had a number has ended and been polled.
    pub(super) fn has_ended(&self, number: u32) -> bool {
        !lock(&self.outstanding).contains(&number)
    }
}

/// A number that looks random, another for each (the last step of SplitMix64).
const fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(wr_id: u64) -> WorkCompletion {
        WorkCompletion { wr_id, ..WorkCompletion::default() }
    }

    #[test]
    fn numbered_work_gets_its_own_bits_back_and_plain_work_stays_as_it_is() {
        let tickets = Tickets::new().unwrap();
        let (sends, receives) = (Account::new(false), Account::new(true));
        let (a, b) = (sends.number(1), receives.number(1));
        let send = tickets.issue(&sends, a, 77, None);
        let receive = tickets.issue(&receives, b, 77, None);
        assert!(sends.retired() <= a && !receives.has_ended(b));
        let mut polled = [completion(5), completion(receive), completion(send)];
        tickets.settle(&mut polled, |_| unreachable!("nothing was bound"));
        assert_eq!(polled.map(|wc| (wc.wr_id, wc.wq_index)), [(5, 0), (77, b), (77, a)]);
        assert!(polled[1].opcode.is_recv() && !polled[2].opcode.is_recv());
        assert!(sends.retired() > a && receives.has_ended(b));
        assert_eq!(tickets.outstanding.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_queue_that_is_reset_leaves_nothing() {
        let tickets = Tickets::new().unwrap();
        let (gone, stays) = (Account::new(true), Account::new(true));
        let first = gone.number(3);
        for number in first..first + 3 {
            tickets.issue(&gone, number, 1, None);
        }
        let kept = stays.number(1);
        let ticket = tickets.issue(&stays, kept, 2, None);
        tickets.forget(&gone);
        assert!(gone.has_ended(first) && !stays.has_ended(kept));
        assert_eq!(tickets.outstanding.load(Ordering::Relaxed), 1);
        tickets.revoke(ticket);
        assert!(stays.has_ended(kept));
        assert_eq!(tickets.outstanding.load(Ordering::Relaxed), 0);
    }
}
