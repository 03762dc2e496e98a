//! What the memory that a connection writes to must hold.

use crate::testing::Violation;
use crate::testing::memory::violation;

/// A write that was posted and may or may not have been carried out.
#[derive(Clone, Debug)]
struct Write {
    wr_id: u64,
    offset: usize,
    bytes: Vec<u8>,
}

/// The memory that one end of a connection writes to at the other, as it must be.
///
/// Writes of a reliable connection are carried out in the order of posting, once. So a byte is what the completed ones made it, or
/// what a later one may have made it already. On an unreliable connection any write may be lost, whole or in part, for ever.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    done: Vec<u8>,
    open: Vec<Write>,
    reliable: bool,
}

impl Shadow {
    /// `len` zero bytes.
    pub(super) fn new(len: usize, reliable: bool) -> Self {
        Self { done: vec![0; len], open: Vec::new(), reliable }
    }

    /// A write was posted.
    pub(super) fn post(&mut self, wr_id: u64, offset: usize, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.open.push(Write { wr_id, offset, bytes });
        }
    }

    /// A write that was posted succeeded, or a later request did: now it has been carried out.
    pub(super) fn succeeded(&mut self, wr_id: u64, memory: &[u8]) -> Result<(), Violation> {
        if !self.reliable {
            return Ok(());
        }
        let Some(position) = self.open.iter().position(|write| write.wr_id == wr_id) else { return Ok(()) };
        let write = self.open.remove(position);
        let range = write.offset..write.offset + write.bytes.len();
        self.done[range.clone()].copy_from_slice(&write.bytes);
        self.check(memory, range.start, &memory[range], "after a write that succeeded")
    }

    /// Whether `bytes`, found in or read from `memory` at `offset`, may be there.
    pub(super) fn check(
        &self,
        memory: &[u8],
        offset: usize,
        bytes: &[u8],
        when: &str,
    ) -> Result<(), Violation> {
        debug_assert_eq!(memory.len(), self.done.len());
        if bytes == &self.done[offset..offset + bytes.len()] {
            return Ok(());
        }
        for (index, &byte) in bytes.iter().enumerate() {
            let at = offset + index;
            let could_be = |write: &Write| {
                at.checked_sub(write.offset).and_then(|inside| write.bytes.get(inside)) == Some(&byte)
            };
            if byte != self.done[at] && !self.open.iter().any(could_be) {
                return Err(violation!(
                    "{when}: byte {at} of a target is {byte:#04x}, but was made {:#04x}, and none of {} open writes makes it so",
                    self.done[at],
                    self.open.len()
                ));
            }
        }
        Ok(())
    }

    /// Whether a message with immediate data is in memory whole, as far as no other open write reaches into it.
    pub(super) fn check_message(&self, wr_id: u64, memory: &[u8]) -> Result<(), Violation> {
        let Some(position) = self.open.iter().position(|write| write.wr_id == wr_id) else { return Ok(()) };
        let write = &self.open[position];
        let end = write.offset + write.bytes.len();
        let others = if self.reliable { &self.open[position + 1..] } else { &self.open[..] };
        for (index, &byte) in write.bytes.iter().enumerate() {
            let at = write.offset + index;
            let covers = |other: &&Write| {
                other.wr_id != wr_id && (other.offset..other.offset + other.bytes.len()).contains(&at)
            };
            if memory[at] != byte && !others.iter().any(|other| covers(&other)) {
                return Err(violation!(
                    "wr {wr_id} was delivered, but byte {at} of its {}..{end} is {:#04x} and not {byte:#04x}",
                    write.offset,
                    memory[at]
                ));
            }
        }
        Ok(())
    }

    /// The connection ended: what is there now may be there, and stays.
    pub(super) fn ended(&mut self, memory: &[u8]) -> Result<(), Violation> {
        self.check(memory, 0, memory, "after the end of a connection")?;
        self.done.copy_from_slice(memory);
        if self.reliable {
            self.open.clear();
        }
        Ok(())
    }
}
