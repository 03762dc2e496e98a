//! A request and its answer: served whole, and after a withdrawal in time the agent touches nothing.

use super::{Bytes, check, thread, until, words};
use crate::ring::mailbox::{MAILBOX_WORDS, Mailbox, Operands};
use crate::sync::AtomicU64;
use loom::sync::Arc;

struct Shared {
    request: [AtomicU64; MAILBOX_WORDS],
    reply: [AtomicU64; MAILBOX_WORDS],
    /// The requester's bounce buffer.
    bounce: Bytes,
}

impl Shared {
    fn new() -> Arc<Self> {
        let line = || words(MAILBOX_WORDS).try_into().ok().unwrap();
        Arc::new(Self { request: line(), reply: line(), bounce: Bytes::new() })
    }

    fn mailbox(&self) -> Mailbox<'_> {
        Mailbox::new(&self.request, &self.reply)
    }

    /// The agent's look: the request it served, if there was one.
    fn serve(&self) -> Option<u64> {
        let (number, operands) = self.mailbox().take()?;
        assert_eq!(operands, asked(operands[0]), "a mixture of two requests");
        assert_eq!(self.bounce.read(), operands[0], "another request's bytes");
        self.bounce.write(operands[0] + 100);
        // Odd ones are refused.
        self.mailbox().reply(number, (operands[0] % 2 == 0).then_some(operands[0] + 7));
        Some(operands[0])
    }

    fn ask(&self, what: u64) -> Option<u64> {
        self.mailbox().ask(&asked(what))
    }
}

/// A second look, some time after a withdrawal that came too late.
fn until_quiet(shared: &Shared, number: u64) -> bool {
    super::glance(2, || (!shared.mailbox().is_serving(number)).then_some(())).is_some()
}

fn asked(what: u64) -> Operands {
    [what, what + 1, what + 2, what + 3, what + 4, what + 5, what + 6]
}

#[test]
fn each_request_is_served_once_and_whole() {
    check(3, || {
        let shared = Shared::new();
        let agent = Arc::clone(&shared);
        let agent = thread::spawn(move || [until(|| agent.serve()), until(|| agent.serve())]);
        for (what, outcome) in [(10, Some(17)), (11, None)] {
            shared.bounce.write(what);
            let number = shared.ask(what).expect("nothing is being served");
            assert_eq!(until(|| shared.mailbox().answer(number)), outcome);
            assert_eq!(shared.bounce.read(), what + 100);
        }
        assert_eq!(agent.join().unwrap(), [10, 11]);
        assert_eq!(shared.serve(), None, "nothing is left to serve");
    });
}

#[test]
fn a_request_withdrawn_in_time_is_not_served() {
    check(3, || {
        let shared = Shared::new();
        shared.bounce.write(10);
        let number = shared.ask(10).unwrap();
        let agent = Arc::clone(&shared);
        let agent = thread::spawn(move || agent.serve());
        let quiet = shared.mailbox().withdraw();
        if quiet {
            // A race if the agent is at it.
            shared.bounce.write(1);
        }
        if !quiet && until_quiet(&shared, number) {
            shared.bounce.write(2);
        }
        let served = agent.join().unwrap();
        if quiet && shared.mailbox().answer(number).is_none() {
            assert_eq!(served, None);
        }
        assert!(shared.mailbox().withdraw(), "the agent has finished or never began");
        assert_eq!(shared.serve(), None, "a withdrawn request was served");
    });
}

#[test]
fn a_new_request_after_an_abandoned_one_is_not_mixed_with_it() {
    check(3, || {
        let shared = Shared::new();
        shared.bounce.write(10);
        let first = shared.ask(10).unwrap();
        let agent = Arc::clone(&shared);
        let agent = thread::spawn(move || {
            agent.serve();
            agent.serve();
        });
        if shared.mailbox().withdraw() {
            shared.bounce.write(20);
            // The agent may just be finding out that the first one is withdrawn.
            let second = until(|| shared.ask(20));
            assert_ne!(first, second);
            agent.join().unwrap();
            shared.serve();
            assert_eq!(shared.mailbox().answer(second), Some(Some(27)));
        } else {
            agent.join().unwrap();
            assert!(shared.mailbox().withdraw());
        }
    });
}

#[test]
fn asking_anew_withdraws_what_was_asked_before() {
    check(3, || {
        let shared = Shared::new();
        shared.ask(10).unwrap();
        let agent = Arc::clone(&shared);
        let agent = thread::spawn(move || {
            let (number, operands) = agent.mailbox().take()?;
            assert_eq!(operands, asked(operands[0]), "a mixture of two requests");
            agent.mailbox().reply(number, Some(operands[0]));
            Some(operands[0])
        });
        let second = until(|| shared.ask(20));
        let served = agent.join().unwrap();
        assert!(matches!(served, None | Some(10 | 20)));
        assert_eq!(shared.mailbox().answer(second).is_some(), served == Some(20));
    });
}
