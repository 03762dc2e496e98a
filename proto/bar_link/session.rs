//! How two sides meet, part and meet again, each by what the other has written into its area.
//!
//! A side may write packets when the other's area is empty for the two of them and nothing of earlier days can arrive there any more. So each side, told who
//! the other is, **answers**: it names the other's incarnation, behind everything it wrote for an earlier one. Who finds itself answered knows that the old is
//! over, **empties** its area, and says that it is **ready**. Who finds the other ready may write.
//!
//! ```text
//! A: opens                 says  A
//! B: opens, finds A        says  B answers A
//! A: is answered, empties  says  A answers B, ready
//! B: is answered, empties  says  B answers A, ready      and writes
//! A:                                                      writes
//! ```
//!
//! A side that starts again has another incarnation, so what it finds of old in its area answers somebody else. All of this needs is that what one side writes
//! arrives in the order in which it was written.

use super::hello::{Hello, HelloError};
use super::layout::Geometry;
use crate::Mtu;

/// The other side, once packets can go both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its incarnation, which is its GUID.
    pub incarnation: u64,
    /// How its area is cut: it fits the window.
    pub geometry: Geometry,
    /// By which number its doorbell is rung.
    pub doorbell: u16,
}

/// What is to be done after a look at the peer's hello, in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The session is over: nothing may be written for it any more.
    pub down: bool,
    /// Empty the own area: headers, and what the peer has said of packets taken.
    pub empty: bool,
    /// Write this hello, behind everything else, and ring.
    pub say: Option<Hello>,
    /// Packets may be written from now on.
    pub up: Option<Peer>,
}

/// One side's view.
#[derive(Clone, Debug)]
pub struct Session {
    own: Hello,
    mtu: Mtu,
    /// Bytes of the peer's area that can be written.
    outbound: usize,
    /// Whose hello the last look has found; `None` before the first, and after it has left.
    peer: Option<u64>,
    /// The area was emptied for this peer.
    is_empty: bool,
    is_up: bool,
    /// The session with this peer has ended, whatever its hello says.
    is_spoiled: bool,
    /// Why nobody is met although somebody is there.
    refused: Option<HelloError>,
}

impl Session {
    /// A side that opens, with an incarnation that nobody had before, not 0; the cut of its own area; the number of its doorbell; and the bytes that it can
    /// write of the peer's.
    pub fn new(incarnation: u64, geometry: Geometry, doorbell: u16, outbound: usize) -> Self {
        let own = Hello {
            incarnation,
            answers: 0,
            is_ready: false,
            is_closing: false,
            slots: geometry.slots(),
            slot_bytes: geometry.slot_bytes(),
            doorbell,
        };
        let mtu = geometry.mtu();
        Self {
            own,
            mtu,
            outbound,
            peer: None,
            is_empty: false,
            is_up: false,
            is_spoiled: false,
            refused: None,
        }
    }

    /// What is to be written before anything else.
    pub const fn opening(&self) -> Hello {
        self.own
    }

    /// What is to be written last.
    pub const fn closing(&self) -> Hello {
        Hello { is_closing: true, ..self.own }
    }

    /// Whether packets may be written.
    pub const fn is_up(&self) -> bool {
        self.is_up
    }

    /// Why somebody is there and no session comes about.
    pub const fn refused(&self) -> Option<HelloError> {
        self.refused
    }

    /// The session cannot go on: the peer broke its rules, or is dead. Only another incarnation of it is met again.
    pub fn give_up(&mut self) -> Turn {
        self.is_spoiled = true;
        Turn { down: std::mem::take(&mut self.is_up), ..Turn::default() }
    }

    /// Looks at the hello in the own area. The same words again change nothing.
    pub fn look(&mut self, found: Result<Hello, HelloError>) -> Turn {
        let mut turn = Turn::default();
        let hello = match found {
            Ok(hello) => hello,
            Err(HelloError::Nothing) => return turn,
            Err(refused) => {
                self.refused = Some(refused);
                turn.down = self.forget();
                return turn;
            }
        };
        if hello.is_closing {
            if self.peer == Some(hello.incarnation) {
                turn.down = self.forget();
            }
            return turn;
        }
        let geometry = match hello.geometry(self.mtu, self.outbound) {
            Ok(geometry) => geometry,
            Err(refused) => {
                self.refused = Some(refused);
                turn.down = self.forget();
                return turn;
            }
        };
        self.refused = None;
        if self.peer != Some(hello.incarnation) {
            turn.down = self.forget();
            self.peer = Some(hello.incarnation);
            self.own.answers = hello.incarnation;
            self.own.is_ready = false;
            turn.say = Some(self.own);
        }
        if hello.answers != self.own.incarnation {
            return turn;
        }
        if !self.is_empty {
            self.is_empty = true;
            self.own.is_ready = true;
            turn.empty = true;
            turn.say = Some(self.own);
        }
        if hello.is_ready && !self.is_up && !self.is_spoiled {
            self.is_up = true;
            turn.up = Some(Peer { incarnation: hello.incarnation, geometry, doorbell: hello.doorbell });
        }
        turn
    }

    /// Nobody is met; whether somebody was.
    fn forget(&mut self) -> bool {
        self.peer = None;
        self.is_empty = false;
        self.is_spoiled = false;
        std::mem::take(&mut self.is_up)
    }
}
