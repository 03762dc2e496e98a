//! What a memory window is to those who use it: words and bytes that can be written at the peer, words and bytes that the peer has written here, a doorbell
//! each way.
//!
//! There is no method that reads across. A load from the far side of a PCIe bus waits for the answer, a microsecond and more, and on some bridges it is
//! forbidden; so the peer writes what this side has to know into memory that is near.
//!
//! **Order.** Posted writes of one requester arrive in order, but what the processor does before they are posted is its own affair: memory that combines
//! writes (WC) collects them in buffers that leave in any order, partly filled, and late. So there are two calls: [`Words::order`] keeps what is written before
//! it before what is written after it, and [`Words::flush`] sends it off. Interrupts and doorbells are posted writes too, and overtake nothing that was written
//! on the same way before.
//!
//! **Coherence.** Where both sides are processors over one memory ([`Words::meets`]), a full fence between a store and a load settles who sees whom. Over a
//! bus nothing does, for a store has left when nobody knows whether it has arrived; see `link/bar/link.rs` on sleeping.

use std::io;
use std::os::fd::BorrowedFd;

/// The words of a window: what the protocol needs, and the model checker gives.
pub(crate) trait Words {
    /// Stores a word at this offset, a multiple of 8, of the peer's area. What is outside is not stored.
    fn store(&self, offset: usize, word: u64);

    /// What was stored before is seen before what is stored from here on, and what was loaded before was loaded by then.
    fn order(&self);

    /// What was stored leaves: it does not linger in a buffer of this processor.
    fn flush(&self);

    /// Loads a word at this offset, a multiple of 8, of the own area; what the peer wrote before it is seen from here on. All ones if it is outside, as from
    /// a device that is not there.
    fn load(&self, offset: usize) -> u64;

    /// Stores a word into the own area, where the peer is known to write nothing.
    fn reset(&self, offset: usize, word: u64);

    /// Where stores and loads of both sides meet in one coherent memory: puts all stores until here before all loads from here on, and says so. False where
    /// it cannot be known when a store has arrived.
    fn meets(&self) -> bool;
}

/// A memory window with one peer.
pub(crate) trait Window: Words + Send + Sync {
    /// What it is, in a few words, for people.
    fn describe(&self) -> String;

    /// Bytes of the peer's area, all of which can be written.
    fn outbound_bytes(&self) -> usize;

    /// Bytes of the own area.
    fn inbound_bytes(&self) -> usize;

    /// Copies bytes into the peer's area. Those that would be outside are not copied.
    fn write(&self, offset: usize, bytes: &[u8]);

    /// Copies bytes out of the own area. They may change meanwhile: what arrives is old, new or a mixture. Bytes that would be from outside stay as they are.
    fn read(&self, offset: usize, bytes: &mut [u8]);

    /// By which number the peer rings here, where doorbells have numbers.
    fn doorbell(&self) -> Option<u16> {
        None
    }

    /// Wakes the peer, which may be asleep in its descriptor. `doorbell` is the number that it has told.
    ///
    /// # Errors
    /// Nobody is there to be woken, or the system refuses.
    fn ring(&self, doorbell: u16) -> io::Result<()>;

    /// Readable when the peer has rung, until [`quiet`](Self::quiet). `None` where nobody can ring: then it must be looked.
    fn interrupt(&self) -> Option<BorrowedFd<'_>>;

    /// Takes the interrupts that have come.
    fn quiet(&self);

    /// Readable when something has become of the window itself, until it is [attended to](Self::attend).
    fn news(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Takes such news, and shows others that this side lives. To be called every now and then.
    fn attend(&self) {}

    /// Whether the peer's process is alive, as far as anybody but itself can tell. It may be a system call.
    fn peer(&self) -> Life;

    /// Why the window is no more: whatever is written now goes nowhere, and what is read means nothing. It stays so. Cheap.
    fn gone(&self) -> Option<Gone>;

    /// The same, looked for where that costs something: called now and then, and when something read looks as if nothing were there.
    fn probe(&self) -> Option<Gone> {
        self.gone()
    }
}

/// What is known of the peer's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Somebody holds the other side.
    Alive,
    /// Nobody does.
    Dead,
    /// There is nobody to ask: a pulse tells.
    Unknown,
}

/// Why a window is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Gone {
    /// The device, or the memory of the file.
    #[cfg(all(tbrdma_linux, not(loom)))]
    #[error("{0}")]
    Device(super::refusal::Gone),
    /// Who opened it later took us for dead.
    #[error(
        "its side was taken by a program that found no sign of life here for a second; open the device again"
    )]
    Ousted,
}
