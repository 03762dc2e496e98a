//! Events of one channel come in the order of what they tell of: that a message was acknowledged, before that it was answered. Programs that sleep on
//! one channel for sends and receives (perftest does) count on it, as it is so on hardware.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

#[path = "common/patient.rs"]
mod patient;

use patient::patient;
use std::time::Duration;
use tbrdma::{
    Access, CompletionChannel, CompletionQueue, Context, MemoryRegion, QpInit, QueuePair, WorkCompletion,
};

const ROUNDS: u64 = 2_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// One side: a queue pair whose two completion queues share a channel.
struct Side {
    ctx: Context,
    channel: CompletionChannel,
    sends: CompletionQueue,
    receives: CompletionQueue,
    qp: QueuePair,
    mr: MemoryRegion,
}

impl Side {
    fn new() -> Self {
        let ctx = tbrdma::open("udp:lo").unwrap();
        let pd = ctx.alloc_pd().unwrap();
        let channel = ctx.create_comp_channel().unwrap();
        let (sends, receives) =
            (ctx.create_cq_on(8, &channel).unwrap(), ctx.create_cq_on(8, &channel).unwrap());
        let qp = pd.create_qp(QpInit::rc(&sends).recv_cq(&receives).sq_sig_all(true)).unwrap();
        let mr = pd.alloc(4096, Access::LOCAL_WRITE).unwrap();
        for cq in [&sends, &receives] {
            cq.req_notify(false).unwrap();
        }
        Self { ctx, channel, sends, receives, qp, mr }
    }

    fn post_recv(&mut self) {
        let slice = self.mr.slice(0..64);
        self.qp.post_recv(|rq| drop(rq.recv(slice))).unwrap();
    }

    fn post_send(&mut self) {
        let slice = self.mr.slice(64..128);
        self.qp.post(|wr| drop(wr.send(slice))).unwrap();
    }

    /// Sleeps until there is an event, which must be of this queue and have a completion behind it.
    fn sleep(&self, what: &str, round: u64, of: impl Fn(&Self) -> &CompletionQueue) {
        let cq =
            self.channel.wait(Some(PATIENCE)).unwrap().unwrap_or_else(|| panic!("no event in round {round}"));
        assert_eq!(&cq, of(self), "round {round} of {}: another event than of a {what}", self.ctx.name());
        cq.req_notify(false).unwrap();
        let mut wcs = [WorkCompletion::default()];
        let polled = cq.poll(&mut wcs);
        assert_eq!(polled.len(), 1, "round {round}: an event of a {what} and no completion");
        polled[0].ok().unwrap();
    }
}

#[test]
fn an_acknowledgement_is_told_before_the_answer() {
    let (mut here, mut there) = (Side::new(), Side::new());
    here.qp.connect_with(&there.qp.address(), &patient()).unwrap();
    there.qp.connect_with(&here.qp.address(), &patient()).unwrap();
    there.post_recv();
    here.post_recv();
    let other = std::thread::spawn(move || {
        for round in 0..ROUNDS {
            there.sleep("receive", round, |side| &side.receives);
            there.post_recv();
            there.post_send();
            there.sleep("send", round, |side| &side.sends);
        }
    });
    for round in 0..ROUNDS {
        here.post_send();
        here.sleep("send", round, |side| &side.sends);
        here.sleep("receive", round, |side| &side.receives);
        here.post_recv();
    }
    other.join().unwrap();
}
