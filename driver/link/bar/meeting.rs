//! How a link finds its peer and loses it: hellos, pulses, and the end of the window.

use super::link::{BarLink, Live, MEETING, PULSELESS, Receiving, gid_of};
use crate::bar::ends::{Receiver, Sender};
use crate::bar::window::{Life, Window};
use crate::link::LinkState;
use crate::sync::Ordering;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use tbrdma_proto::Time;
use tbrdma_proto::bar_link::{ARM, HELLO, HELLO_WORDS, Hello, PULSE, Peer, TAKEN, Turn, WORD};

impl<W: Window> BarLink<W> {
    /// If somebody is at the other side, meets it: most programs open and connect in one go.
    pub(super) fn wait_for_peer(&self) {
        let begun = Instant::now();
        while begun.elapsed() < MEETING && self.window.peer() == Life::Alive && !self.port.is_up() {
            self.meet(&mut self.lock());
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Writes a hello into the peer's area, behind all that was written before, and rings.
    pub(super) fn say(&self, hello: &Hello, doorbell: Option<u16>) {
        self.window.order();
        let words = hello.to_words();
        for (offset, word) in (HELLO..).step_by(WORD).zip(words) {
            self.window.store(offset, word);
        }
        self.window.flush();
        self.ring(doorbell.unwrap_or(0));
    }

    pub(super) fn ring(&self, doorbell: u16) {
        self.counters.doorbells.fetch_add(1, Ordering::Relaxed);
        // Nobody is there to be woken, or it will look by itself.
        let _ = self.window.ring(doorbell);
    }

    /// Looks at the hello, if it is another than the last time.
    pub(super) fn meet(&self, receiving: &mut Receiving) {
        const CHECK: usize = HELLO + (HELLO_WORDS - 1) * WORD;
        let check = self.window.load(CHECK);
        if check == receiving.seen || receiving.gone.is_some() {
            return;
        }
        let mut words = [0; HELLO_WORDS];
        for (offset, word) in (HELLO..).step_by(WORD).zip(&mut words) {
            *word = self.window.load(offset);
        }
        let hello = Hello::from_words(&words);
        if hello.is_ok() {
            receiving.seen = words[HELLO_WORDS - 1];
        }
        receiving.doorbell = hello.ok().map(|hello| hello.doorbell).or(receiving.doorbell);
        let turn = receiving.session.look(hello);
        self.carry_out(receiving, turn);
    }

    pub(super) fn carry_out(&self, receiving: &mut Receiving, turn: Turn) {
        if turn.down {
            self.part();
            receiving.receiver.part();
        }
        if turn.empty {
            for number in 0..u64::from(self.geometry.slots()) {
                self.window.reset(self.geometry.slot(number), 0);
            }
            for offset in [TAKEN, ARM, PULSE] {
                self.window.reset(offset, 0);
            }
            receiving.receiver = Receiver::new(self.geometry);
            receiving.is_open = true;
        }
        if let Some(hello) = turn.say {
            self.say(&hello, receiving.doorbell);
        }
        if let Some(Peer { incarnation, geometry, doorbell }) = turn.up {
            receiving.peer = gid_of(incarnation);
            receiving.heard = (0, None);
            let live = Live { sender: Sender::new(geometry), peer: receiving.peer, doorbell };
            *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(live);
            self.counters.sessions.fetch_add(1, Ordering::Relaxed);
            self.port.set(true);
            if self.watched.load(Ordering::Relaxed) {
                receiving.receiver.arm(&self.window);
            }
        }
    }

    /// From here on nothing is written for the peer that was met.
    pub(super) fn part(&self) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.port.set(false);
    }

    /// Whether the peer is still there, and the window.
    pub(super) fn look_after(&self, receiving: &mut Receiving, now: Time) {
        if receiving.gone.is_some() {
            return;
        }
        self.window.attend();
        if let Some(gone) = self.window.probe() {
            if let Some(news) = self.window.news() {
                // It may stay readable for ever.
                let _ = self.ready.delete(news);
            }
            receiving.gone = Some(gone);
            self.part();
        }
        if receiving.gone.is_some() || !receiving.session.is_up() {
            return;
        }
        match self.window.peer() {
            Life::Alive => {}
            Life::Dead => {
                let turn = receiving.session.give_up();
                self.carry_out(receiving, turn);
            }
            Life::Unknown => {
                receiving.pulse = receiving.pulse.wrapping_add(1);
                self.window.store(PULSE, receiving.pulse);
                self.window.flush();
                let heard = self.window.load(PULSE);
                let since = receiving.heard.1.filter(|_| heard == receiving.heard.0).unwrap_or(now);
                receiving.heard = (heard, Some(since));
                self.port.set(now.since(since) < PULSELESS);
            }
        }
    }
}
