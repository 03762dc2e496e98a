//! How many objects of a device there are. The device is one for all contexts of this process that opened it under one name, as a port is for
//! all who open it; with a ledger it is one for all programs of the user.

use super::ledger::{Counts, Entry, Page};
use crate::error::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tbrdma_proto::{LedgerMode, QpCapError, Switches};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    QueuePair,
    MemoryRegion,
    ProtectionDomain,
    CompletionQueue,
}

impl Kind {
    /// The call that makes one, and what it makes.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::QueuePair => ("create_qp", "queue pairs"),
            Self::MemoryRegion => ("register memory", "memory regions"),
            Self::ProtectionDomain => ("alloc_pd", "protection domains"),
            Self::CompletionQueue => ("create_cq", "completion queues"),
        }
    }

    const fn limit(self, switches: &Switches) -> u32 {
        match self {
            Self::QueuePair => switches.qps,
            Self::MemoryRegion => switches.mrs,
            Self::ProtectionDomain => switches.pds,
            Self::CompletionQueue => switches.cqs,
        }
    }
}

/// The account of one device.
pub(super) struct Account {
    device: String,
    counts: Mutex<Counts>,
    /// The line of the ledger that is ours.
    ledger: Option<Entry>,
}

/// One object, until it is dropped.
pub(super) struct Held {
    account: Arc<Account>,
    kind: Kind,
}

static ACCOUNTS: Mutex<Vec<Weak<Account>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Account {
    /// The account of the device that is open under this name, or a new one; none if nothing is to be counted.
    pub(super) fn of(device: &str, switches: &Switches) -> Result<Option<Arc<Self>>> {
        let most = Switches::default();
        let counts = [
            (switches.qps, most.qps),
            (switches.mrs, most.mrs),
            (switches.pds, most.pds),
            (switches.cqs, most.cqs),
        ];
        let with_ledger = switches.ledger == LedgerMode::On;
        if !with_ledger && counts.iter().all(|(few, all)| few == all) {
            return Ok(None);
        }
        let mut accounts = lock(&ACCOUNTS);
        accounts.retain(|account| account.strong_count() > 0);
        let known = accounts.iter().filter_map(Weak::upgrade);
        if let Some(account) =
            { known }.find(|known| known.device == device && known.ledger.is_some() == with_ledger)
        {
            return Ok(Some(account));
        }
        let ledger = if with_ledger { Some(Entry::open(device)?) } else { None };
        let account = Arc::new(Self { device: device.to_owned(), counts: Mutex::default(), ledger });
        accounts.push(Arc::downgrade(&account));
        Ok(Some(account))
    }

    /// One more, if there may be one.
    pub(super) fn take(self: &Arc<Self>, kind: Kind, switches: &Switches) -> Result<Held> {
        let limit = kind.limit(switches);
        let mut counts = lock(&self.counts);
        let mut page = self.ledger.as_ref().map(Entry::turn_to).transpose()?;
        let elsewhere = page.as_ref().map_or_else(Counts::default, Page::elsewhere);
        let (here, elsewhere) = (counts.0[kind as usize], elsewhere.0[kind as usize]);
        if here.saturating_add(elsewhere) >= limit {
            return Err(self.too_many(kind, switches, here, elsewhere));
        }
        counts.0[kind as usize] += 1;
        if let Some(page) = &mut page {
            page.record(&counts)?;
        }
        Ok(Held { account: Arc::clone(self), kind })
    }

    fn too_many(&self, kind: Kind, switches: &Switches, here: u32, elsewhere: u32) -> Error {
        let (call, what) = kind.names();
        let limit = kind.limit(switches);
        let others = match elsewhere {
            0 => String::new(),
            _ => format!(
                ", {elsewhere} of them by other programs, also such as were killed; tbrdma-bench ledger shows them and --clear \
                 gives back what is left of the dead"
            ),
        };
        if kind == Kind::QueuePair && switches.qp_error == QpCapError::Busy {
            let reason = format!(
                "device {} has {limit} queue pairs and all are taken ({here} here{others}); destroy some",
                self.device
            );
            return Error::Busy { call, reason };
        }
        if elsewhere == 0 {
            return Error::LimitReached { call, what, limit: limit.into() };
        }
        let reason = format!("device {} has {limit} {what} and all are taken{others}", self.device);
        Error::Exhausted { call, reason }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = lock(&self.account.counts);
        let count = &mut counts.0[self.kind as usize];
        *count = count.saturating_sub(1);
        if let Some(ledger) = &self.account.ledger {
            // Nobody is left to tell; the next change writes it again.
            let _ = ledger.turn_to().and_then(|mut page| page.record(&counts));
        }
    }
}
