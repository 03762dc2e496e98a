//! The loop of a run, and its end.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::BinaryHeap;

use super::records::Life;
use super::scenario::Scenario;
use super::world::World;
use crate::fault::{Chance, FaultPlan};
use crate::flags::SendFlags;
use crate::qp::{QpState, QpType, ack_timeout};
use crate::testing::memory::violation;
use crate::testing::{Happening, Violation};
use crate::time::Time;
use crate::transport::Half;
use crate::work::WcStatus;

/// How much virtual time a run may take after the last thing its applications did.
const PATIENCE: Duration = Duration::from_secs(600);

/// How many steps a run may take.
const MAX_STEPS: u64 = 4_000_000;

/// How many things an operation may be, most of them the posting of work.
const WHATS: u64 = 48;

/// Something to do at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Todo {
    /// The next of the applications' operations.
    Operate,
    /// Post receives at an end.
    Replenish(usize),
    /// Take a connection to RESET.
    Reset(usize),
    /// Connect it anew.
    Connect(usize),
    /// Take an end to RTS.
    ReadyToSend(usize),
    /// End the draining of an end.
    Resume(usize),
    /// End the starvation of an end.
    Feed(usize),
    /// All links are whole again.
    Heal,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) world: World,
    todo: BinaryHeap<Reverse<(Time, u64, Todo)>>,
    numbered: u64,
    operations: u32,
    /// Connections that will be reset.
    resetting: Vec<bool>,
    seen: Vec<(Time, usize, Happening)>,
    pub(super) statuses: [[u64; 24]; 2],
    finishing: bool,
    /// What the applications do, if it is not left to chance.
    script: Option<std::vec::IntoIter<u8>>,
}

impl Run {
    pub(super) fn new(scenario: Scenario, script: Option<Vec<u8>>) -> Result<Self, Violation> {
        let connections = scenario.connections.len();
        let mut run = Self {
            operations: scenario.operations,
            world: World::new(scenario)?,
            todo: BinaryHeap::new(),
            numbered: 0,
            resetting: vec![false; connections],
            seen: Vec::new(),
            statuses: [[0; 24]; 2],
            finishing: false,
            script: script.map(Vec::into_iter),
        };
        for connection in 0..connections {
            run.connect(connection)?;
        }
        run.later(Duration::ZERO, Todo::Operate);
        Ok(run)
    }

    fn later(&mut self, after: Duration, what: Todo) {
        self.numbered += 1;
        self.todo.push(Reverse((self.world.fabric.now() + after, self.numbered, what)));
    }

    /// A time up to `most`.
    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.world.random.below(most.as_nanos() as u64 + 1))
    }

    pub(super) fn go_to_the_end(&mut self) -> Result<(), Violation> {
        self.until_nothing_is_left(Time::NEVER)?;
        self.finishing = true;
        // Some runs end at once, with packets on their way.
        if self.world.random.one_in(4) {
            return self.tear_down();
        }
        for side in 0..self.world.sides.len() {
            let World { sides, .. } = &self.world;
            if sides[side].life == Life::Up && sides[side].sends.len() < sides[side].send_depth as usize {
                self.world.post(side, true)?;
                self.digest()?;
            }
        }
        let until = self.world.fabric.now() + PATIENCE;
        self.until_nothing_is_left(until)?;
        self.check_quiet()?;
        self.world.check_memory()?;
        self.tear_down()
    }

    /// Goes on until nothing happens by itself and nothing is to be done.
    fn until_nothing_is_left(&mut self, until: Time) -> Result<(), Violation> {
        loop {
            let by_itself = self.world.fabric.next_time();
            let to_do = self.todo.peek().map(|Reverse((at, ..))| *at);
            let next = match (by_itself, to_do) {
                (Some(one), Some(other)) => one.min(other),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => return Ok(()),
            };
            // When the applications are done, what still happens is the end of the run.
            if to_do.is_none() && !self.finishing {
                return Ok(());
            }
            if next > until {
                let waiting = self.world.sides.iter().find(|side| !side.sends.is_empty());
                let who = waiting.map_or_else(String::new, |side| {
                    format!(": {} has sends that do not complete", side.qpn)
                });
                return Err(violation!("the run does not come to an end{who}"));
            }
            if self.world.fabric.totals().steps > MAX_STEPS {
                return Err(violation!("the run takes more than {MAX_STEPS} steps"));
            }
            if to_do.is_some_and(|at| by_itself.is_none_or(|by_itself| at < by_itself)) {
                self.world.fabric.run_until(next)?;
                if let Some(Reverse((.., what))) = self.todo.pop() {
                    self.carry_out(what)?;
                }
            } else {
                self.world.fabric.step()?;
            }
            self.digest()?;
        }
    }

    /// Judges what happened.
    fn digest(&mut self) -> Result<(), Violation> {
        let mut seen = core::mem::take(&mut self.seen);
        self.world.fabric.take_seen(&mut seen);
        for (now, node, happening) in &seen {
            self.world.judge(*now, *node, happening)?;
            if let Happening::Completed { half, wc, .. } = happening {
                if let Some(count) = self.statuses[*half as usize].get_mut(wc.status.raw() as usize) {
                    *count += 1;
                }
                if *half == Half::Receive
                    && let Some(side) = self.world.sides.iter().position(|side| side.qpn == wc.qp_num)
                    && wc.status != WcStatus::WrFlushErr
                {
                    let most = if self.world.scenario.troubles.starvation { 30_000 } else { 300 };
                    let after = Duration::from_nanos(self.world.random.below(most));
                    self.later(after, Todo::Replenish(side));
                }
            }
        }
        self.seen = seen;
        self.world.check_causes()?;
        // Nobody looks into the completion queues but the oracle.
        for node in 0..self.world.fabric.len() {
            self.world.fabric.node_mut(node).cqs.iter_mut().for_each(|cq| cq.entries.clear());
        }
        for connection in 0..self.resetting.len() {
            let ends = [connection * 2, connection * 2 + 1];
            let failed = ends.iter().any(|&end| self.world.sides[end].life == Life::Failed);
            if failed && !self.resetting[connection] && !self.finishing {
                self.resetting[connection] = true;
                let after = self.up_to(Duration::from_millis(3));
                self.later(after, Todo::Reset(connection));
            }
        }
        if let Some(violation) = self.world.fabric.broken() {
            return Err(violation.clone());
        }
        Ok(())
    }

    fn carry_out(&mut self, what: Todo) -> Result<(), Violation> {
        match what {
            Todo::Operate if self.operations == 0 => {}
            Todo::Operate => {
                let after = match self.scripted() {
                    Some([what, side, count, after]) => {
                        let side = usize::from(side) % self.world.sides.len();
                        self.operate(side, u64::from(what) % WHATS, u64::from(count % 8) + 1)?;
                        Duration::from_nanos(u64::from(after & 15) << (after >> 4))
                    }
                    None => {
                        let side = self.world.random.index(self.world.sides.len());
                        let (what, count) = (self.world.random.below(WHATS), self.world.random.within(1, 8));
                        self.operate(side, what, count)?;
                        self.up_to(self.world.scenario.gap)
                    }
                };
                self.operations -= 1;
                if self.operations > 0 {
                    self.later(after, Todo::Operate);
                }
            }
            Todo::Replenish(side) => self.world.replenish(side)?,
            Todo::Reset(connection) if self.recovered(connection)? => self.resetting[connection] = false,
            Todo::Reset(connection) => {
                self.world.reset(connection)?;
                let after = self.up_to(Duration::from_millis(1));
                self.later(after, Todo::Connect(connection));
            }
            Todo::Connect(connection) => self.connect(connection)?,
            Todo::ReadyToSend(side) => self.world.ready_to_send(side)?,
            Todo::Resume(side) => self.resume(side)?,
            Todo::Feed(side) => {
                self.world.sides[side].starved = false;
                self.world.replenish(side)?;
            }
            Todo::Heal => {
                self.world.cut = false;
                let plan = self.world.scenario.plan.clone();
                self.world.fabric.set_plans(&plan);
                if self.world.scenario.delivers {
                    self.world.fabric.paths_are_back();
                }
            }
        }
        Ok(())
    }

    /// Sometimes goes on where only the send queues of unreliable queue pairs have failed.
    fn recovered(&mut self, connection: usize) -> Result<bool, Violation> {
        let ends = [connection * 2, connection * 2 + 1];
        let well = |run: &Self, end: usize| {
            let side = &run.world.sides[end];
            side.life == Life::Up || run.world.fabric.state(side.node, side.qpn) == QpState::Sqe
        };
        if !ends.iter().all(|&end| well(self, end)) || self.world.random.one_in(3) {
            return Ok(false);
        }
        let [one, other] = ends;
        Ok(self.world.recover(one)? | self.world.recover(other)?)
    }

    fn connect(&mut self, connection: usize) -> Result<(), Violation> {
        self.resetting[connection] = false;
        self.world.connect(connection)?;
        let after = self.up_to(Duration::from_micros(20));
        self.later(after, Todo::ReadyToSend(connection * 2 + 1));
        Ok(())
    }

    /// The next four bytes of the script, if there is one.
    fn scripted(&mut self) -> Option<[u8; 4]> {
        let script = self.script.as_mut()?;
        let mut next = || script.next();
        Some([next()?, next()?, next()?, next()?])
    }

    /// One operation of the applications, at an end.
    fn operate(&mut self, side: usize, what: u64, count: u64) -> Result<(), Violation> {
        let troubles = self.world.scenario.troubles;
        let life = self.world.sides[side].life;
        let timeout = ack_timeout(self.world.sides[side].attributes.timeout).unwrap_or_default();
        match what {
            0..=2 if troubles.resets && life == Life::Up => self.fail(side),
            3..=6 if troubles.drains && life == Life::Up => self.drain(side, timeout),
            7 if troubles.restarts => self.restart(self.world.sides[side].node, timeout),
            8 if troubles.cuts && !self.world.cut => {
                self.world.cut = true;
                let (a, b) =
                    (self.world.sides[side].node, self.world.sides[self.world.sides[side].peer].node);
                let cut = FaultPlan { loss: Chance::ALWAYS, ..self.world.scenario.plan.clone() };
                self.world.fabric.set_plan(a, b, &cut);
                if self.world.random.one_in(2) {
                    self.world.fabric.set_plan(b, a, &cut);
                }
                let after = self.up_to(timeout * 12);
                self.later(after, Todo::Heal);
                Ok(())
            }
            9..=12 if troubles.starvation && !self.world.sides[side].starved => {
                self.world.sides[side].starved = true;
                let after = self.up_to(Duration::from_millis(8));
                self.later(after, Todo::Feed(side));
                Ok(())
            }
            // What is posted to a queue pair that has failed is only flushed.
            _ if life == Life::Failed && !self.world.random.one_in(6) => Ok(()),
            _ => self.world.post_some(side, count),
        }
    }

    /// An application takes an end to ERR, or its connection to RESET at once.
    fn fail(&mut self, side: usize) -> Result<(), Violation> {
        let (node, qpn, connection) = {
            let side = &self.world.sides[side];
            (side.node, side.qpn, side.connection)
        };
        if self.world.random.one_in(3) && !self.resetting[connection] {
            self.resetting[connection] = true;
            self.later(Duration::ZERO, Todo::Reset(connection));
            return Ok(());
        }
        self.world.failed(side, "the application");
        self.world
            .fabric
            .to_state(node, qpn, QpState::Err)
            .map_err(|error| violation!("{qpn} cannot go to ERR: {error}"))?;
        self.digest()?;
        self.world.check_flushed(side)
    }

    fn drain(&mut self, side: usize, timeout: Duration) -> Result<(), Violation> {
        let (node, qpn) = (self.world.sides[side].node, self.world.sides[side].qpn);
        self.world.sides[side].life = Life::Draining;
        self.world
            .fabric
            .to_state(node, qpn, QpState::Sqd)
            .map_err(|error| violation!("{qpn} cannot go to SQD: {error}"))?;
        let after = self.up_to(timeout);
        self.later(after, Todo::Resume(side));
        Ok(())
    }

    /// Takes an end back to RTS if it has drained, and waits for that if not.
    fn resume(&mut self, number: usize) -> Result<(), Violation> {
        let side = &mut self.world.sides[number];
        let (node, qpn) = (side.node, side.qpn);
        if side.life != Life::Draining {
            return Ok(());
        }
        let draining =
            self.world.fabric.node(node).qps.get(&qpn).is_some_and(|slot| slot.qp.query().sq_draining);
        let side = &mut self.world.sides[number];
        if !draining && !side.watch.drained {
            return Err(violation!("{qpn} is drained, and nobody was told"));
        }
        if draining {
            if side.watch.drained {
                return Err(violation!("{qpn} drains although it said it was drained"));
            }
            self.later(Duration::from_millis(1), Todo::Resume(number));
            return Ok(());
        }
        side.life = Life::Up;
        side.watch.drained = false;
        self.world
            .fabric
            .to_state(node, qpn, QpState::Rts)
            .map_err(|error| violation!("{qpn} cannot go back to RTS: {error}"))
    }

    /// A node loses everything; its connections are made anew some time later.
    fn restart(&mut self, node: usize, timeout: Duration) -> Result<(), Violation> {
        self.world.restart(node)?;
        for connection in 0..self.resetting.len() {
            let ends = [connection * 2, connection * 2 + 1];
            if ends.iter().any(|&end| self.world.sides[end].node == node) && !self.resetting[connection] {
                self.resetting[connection] = true;
                let after = self.up_to(timeout * 16);
                self.later(after, Todo::Reset(connection));
            }
        }
        Ok(())
    }

    /// Nothing happens any more: is everything done that was to be done?
    fn check_quiet(&mut self) -> Result<(), Violation> {
        for number in 0..self.world.sides.len() {
            let side = &self.world.sides[number];
            if self.world.fabric.state(side.node, side.qpn) == QpState::Err {
                self.world.check_flushed(number)?;
            } else if let Some(send) = side.sends.iter().find(|send| send.flags.contains(SendFlags::SIGNALED))
            {
                return Err(violation!("{} waits for ever with send {}", side.qpn, send.wr_id));
            }
        }
        Ok(())
    }

    /// Ends everything: what was posted is flushed, and then nothing happens any more, whatever is still on its way.
    fn tear_down(&mut self) -> Result<(), Violation> {
        self.finishing = true;
        self.todo.clear();
        for number in 0..self.world.sides.len() {
            let side = &self.world.sides[number];
            let (node, qpn, life, qp_type) = (side.node, side.qpn, side.life, side.qp_type);
            if life == Life::Down {
                continue;
            }
            self.world.failed(number, "the end");
            self.world
                .fabric
                .to_state(node, qpn, QpState::Err)
                .map_err(|error| violation!("{qpn} cannot go to ERR: {error}"))?;
            self.digest()?;
            self.world.check_flushed(number)?;
            let side = &self.world.sides[number];
            if side.shared && !side.last_reached && qp_type != QpType::Ud {
                return Err(violation!("{qpn} did not say that it will take no more from its shared queue"));
            }
        }
        for number in 0..self.world.sides.len() {
            let side = &mut self.world.sides[number];
            side.life = Life::Down;
            let (node, qpn) = (side.node, side.qpn);
            self.world.fabric.destroy_qp(node, qpn);
        }
        let until = self.world.fabric.now() + PATIENCE;
        self.until_nothing_is_left(until)?;
        (0..self.world.fabric.len()).try_for_each(|node| self.world.fabric.node(node).memory.check_guards())
    }
}
