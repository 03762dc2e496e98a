//! The receive that the message being received goes to.

use std::collections::VecDeque;

use super::Refusal;
use crate::flags::Access;
use crate::planted::{self, Bug};
use crate::profile::Habits;
use crate::transport::{Action, Host, Receive};
use crate::work::Sge;

/// A receive taken from its queue, and how far it has been filled. Its storage stays when it is done.
#[derive(Debug, Default)]
pub(super) struct Landing {
    receive: Receive,
    held: bool,
    /// The scatter entry where the next byte goes.
    entry: usize,
    /// Bytes of that entry that are filled.
    filled: u32,
    /// Bytes of the whole receive that are filled.
    total: u32,
}

impl Landing {
    /// Holds none any more.
    pub(super) const fn forget(&mut self) {
        self.held = false;
    }

    /// Holds what `take` puts into the storage it is given, unless there is one held already. Answers whether there is one now.
    pub(super) fn hold(&mut self, take: impl FnOnce(&mut Receive) -> bool) -> bool {
        if !self.held {
            self.held = take(&mut self.receive);
            self.rewind();
        }
        self.held
    }

    /// Whether one is held.
    pub(super) const fn is_held(&self) -> bool {
        self.held
    }

    /// Forgets what was filled: the next message starts at the first byte.
    pub(super) const fn rewind(&mut self) {
        self.entry = 0;
        self.filled = 0;
        self.total = 0;
    }

    /// The receive is done: it is answered, to be told of in its completion, with how many bytes it holds.
    pub(super) const fn finish(&mut self) -> (&Receive, u32) {
        self.held = false;
        (&self.receive, self.total)
    }

    /// Whether the list names memory under this key.
    pub(super) fn uses(&self, key: u32) -> bool {
        self.receive.sges.iter().any(|sge| sge.lkey == key)
    }

    /// Whether `len` more bytes have a place, and may be written there. Changes nothing.
    ///
    /// # Errors
    /// [`Refusal::TooLong`] or [`Refusal::Protection`].
    pub(super) fn check(&self, len: u32, max_total: u64, host: &impl Host) -> Result<(), Refusal> {
        if u64::from(self.total) + u64::from(len) > max_total {
            return Err(Refusal::TooLong);
        }
        if let Some(sge) = self.single(len) {
            let addr = sge.addr.saturating_add(self.filled.into());
            let allowed =
                host.check(self.receive.pd, sge.lkey, Access::LOCAL_WRITE, addr, u64::from(len)).is_ok();
            return if allowed { Ok(()) } else { Err(Refusal::Protection) };
        }
        let mut room = 0;
        for piece in self.pieces(len) {
            room += piece.len;
        }
        if room < len {
            return Err(Refusal::TooLong);
        }
        for Piece { key, addr, len, .. } in self.pieces(len) {
            if host.check(self.receive.pd, key, Access::LOCAL_WRITE, addr, u64::from(len)).is_err() {
                return Err(Refusal::Protection);
            }
        }
        Ok(())
    }

    /// Whether a message whose last `len` bytes are still to come is one for this receive, as the device has it.
    pub(super) fn matches(&self, len: u32, habits: Habits) -> bool {
        let room = self.receive.sges.iter().map(|sge| u64::from(sge.length)).sum();
        habits.fits(u64::from(self.total) + u64::from(len), room)
    }

    /// Places the first `len` bytes of the packet's payload, which [`check`](Self::check) has allowed.
    pub(super) fn place(&mut self, len: u32, actions: &mut VecDeque<Action>) {
        if let Some(&Sge { addr, length, lkey: key }) = self.single(len) {
            let addr = addr.saturating_add(self.filled.into());
            actions.push_back(Action::Place { key, addr, offset: 0, len });
            self.filled += len;
            self.total = self.total.saturating_add(len);
            if self.filled == length {
                self.entry += 1;
                self.filled = 0;
            }
            return;
        }
        for Piece { key, addr, offset, len } in self.pieces(len) {
            actions.push_back(Action::Place { key, addr, offset, len });
        }
        self.advance(len);
    }

    /// Writes these bytes, which [`check`](Self::check) has allowed.
    pub(super) fn write<const N: usize>(&mut self, from: &[u8; N], actions: &mut VecDeque<Action>) {
        for Piece { key, addr, offset, len } in self.pieces(N as u32) {
            let mut bytes = [0; 40];
            let part = from.iter().skip(offset as usize).take(len as usize);
            for (byte, from) in bytes.iter_mut().zip(part) {
                *byte = *from;
            }
            actions.push_back(Action::Write { key, addr, bytes, len: len.min(40) as u8 });
        }
        self.advance(N as u32);
    }

    /// The one entry that the next `len` bytes go to, as with most receives.
    #[inline]
    fn single(&self, len: u32) -> Option<&Sge> {
        self.receive.sges.get(self.entry).filter(|sge| len > 0 && len <= sge.length - self.filled)
    }

    /// Where the next `len` bytes go: fewer if there is no room for all.
    fn pieces(&self, len: u32) -> Pieces<'_> {
        let rest = self.receive.sges.get(self.entry..).unwrap_or(&[]);
        Pieces { rest, filled: self.filled, offset: 0, left: len }
    }

    fn advance(&mut self, len: u32) {
        let mut pieces = self.pieces(len);
        pieces.by_ref().for_each(drop);
        let Pieces { rest, filled, .. } = pieces;
        self.entry = self.receive.sges.len() - rest.len();
        self.filled = filled;
        self.total = self.total.saturating_add(len);
    }
}

/// A run of bytes within one scatter entry.
struct Piece {
    key: u32,
    addr: u64,
    /// Where it begins in what is scattered.
    offset: u32,
    /// At least 1.
    len: u32,
}

struct Pieces<'a> {
    rest: &'a [Sge],
    filled: u32,
    offset: u32,
    left: u32,
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        while self.left > 0 {
            let (sge, behind) = self.rest.split_first()?;
            let mut len = (sge.length - self.filled).min(self.left);
            if planted::is(Bug::ScatterSplit) && len < self.left && !behind.is_empty() {
                len += 1;
            }
            // An entry that reaches the end of the address space names no memory: the last address fits no check.
            let addr = sge.addr.saturating_add(u64::from(self.filled));
            let offset = self.offset;
            self.filled += len;
            self.offset += len;
            self.left -= len;
            if self.filled >= sge.length {
                self.rest = behind;
                self.filled = 0;
            }
            if len > 0 {
                return Some(Piece { key: sge.lkey, addr, offset, len });
            }
        }
        None
    }
}
