//! Completion channels and the descriptors of events: nobody sleeps through what it asked for.

use crate::case::cases;
use crate::common;
use crate::common::{Node, join, lost, patience, quiet};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Duration;
use tbrdma::{
    CompletionChannel, CompletionQueue, Context, Error, QpInit, QpType, QueuePair, WcStatus, WorkCompletion,
};

cases! {
    Completions by "ibv_req_notify_cq(3), ibv_get_cq_event(3)" {
        an_armed_queue_raises_one_event_for_the_next_completion:
            "An armed queue raises one event, for the next completion, and none for those that were there", needs [Rc];
        sends_raise_events_as_receives_do: "Completions of sends raise events as those of receives do", needs [Rc];
        the_descriptor_is_readable_when_there_is_an_event:
            "The channel's descriptor is readable exactly while there is an event", needs [Rc];
        the_descriptor_of_asynchronous_events_is_readable_while_there_are_any:
            "The context's descriptor is readable exactly while there is an asynchronous event", by "ibv_get_async_event(3)", needs [Rc];
        solicited_events_skip_ordinary_messages:
            "A queue armed for solicited completions is not woken by others, and a request for any is not narrowed", needs [Rc];
        an_error_counts_as_solicited: "A completion in error wakes who waits for solicited ones", needs [Rc];
        waits_end_at_their_timeout_and_not_before: "A wait without an event ends at its timeout, and not before", by "poll(2) on the channel", needs [Rc];
        a_queue_without_a_channel_cannot_be_armed: "A queue without a channel cannot be armed, nor be made on another context's", needs [Rc];
        no_wake_up_is_lost_between_two_contexts: "Who arms, polls once more and then waits sleeps through nothing", needs [Rc];
        no_wake_up_is_lost_within_one_context: "The same where both ends are of one context", needs [Rc];
        no_solicited_wake_up_is_lost: "The same for solicited completions", needs [Rc];
        a_channel_tells_which_of_its_queues_has_an_event: "An event names the completion queue that raised it", needs [Rc];
        a_busy_queue_does_not_hide_the_others_of_its_channel: "Events of several queues are all told, however busy one is", needs [Rc];
        a_dropped_queue_leaves_its_channel_working: "A queue that is destroyed takes its events along, and no others", by "ibv_destroy_cq(3)", needs [Rc];
        shared_receive_queues_and_datagrams_raise_events_too:
            "Receives of shared queues and datagrams raise events as all others do", needs [Rc, Ud, Srq] as unacknowledged;
        an_answer_comes_after_the_completion_of_what_it_answers:
            "Where an answer is here, the completion of the send that it answers is here too", needs [Rc];
    }
}

/// A node whose queue has a channel, with a peer of another context.
fn listening() -> (Node, CompletionChannel, Node) {
    let mut a = Node::new(QpType::Rc);
    let channel = a.ctx.create_comp_channel().unwrap();
    a.cq = a.ctx.create_cq_on(64, &channel).unwrap();
    a.qp = a.pd.create_qp(QpInit::rc(&a.cq)).unwrap();
    let mut b = Node::new(QpType::Rc);
    join(&mut a, &mut b, &common::patient());
    (a, channel, b)
}

fn is_readable(fd: &impl AsFd, timeout: Duration) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(timeout).unwrap()).unwrap() == 1
}

#[track_caller]
fn expect_event(channel: &CompletionChannel, cq: &CompletionQueue) {
    let raised = channel.wait(Some(patience())).unwrap().expect("a completion event");
    assert_eq!(raised, *cq);
}

#[track_caller]
fn expect_no_event(channel: &CompletionChannel) {
    assert_eq!(channel.wait(Some(quiet())).unwrap(), None);
}

fn an_armed_queue_raises_one_event_for_the_next_completion() {
    let (mut a, channel, mut b) = listening();
    for id in 0..6 {
        a.post_recv(id, 0..8);
    }
    b.post_send(0, 0..8);
    a.expect(0, WcStatus::Success);
    expect_no_event(&channel);
    a.cq.req_notify(false).unwrap();
    expect_no_event(&channel);
    b.post_send(1, 0..8);
    expect_event(&channel, &a.cq);
    a.expect(1, WcStatus::Success);
    // Once armed, one event.
    b.post_send(2, 0..8);
    expect_no_event(&channel);
    // Arming does not tell of what is there already: that is what the poll after arming is for.
    a.cq.req_notify(false).unwrap();
    a.expect(2, WcStatus::Success);
    b.post_send(3, 0..8);
    b.post_send(4, 0..8);
    expect_event(&channel, &a.cq);
    expect_no_event(&channel);
    a.expect(3, WcStatus::Success);
    a.expect(4, WcStatus::Success);
}

fn sends_raise_events_as_receives_do() {
    let (mut a, channel, mut b) = listening();
    b.post_recv(1, 0..8);
    a.cq.req_notify(false).unwrap();
    let slice = a.mr.slice(0..8);
    let remote = b.mr.remote().at(0);
    a.qp.post(|wr| _ = wr.write(slice, remote).unsignaled()).unwrap();
    expect_no_event(&channel);
    a.post_send(2, 0..8);
    expect_event(&channel, &a.cq);
    a.expect(2, WcStatus::Success);
}

fn the_descriptor_is_readable_when_there_is_an_event() {
    let (mut a, channel, mut b) = listening();
    a.post_recv(1, 0..8);
    a.cq.req_notify(false).unwrap();
    assert!(!is_readable(&channel, quiet()));
    b.post_send(1, 0..8);
    assert!(is_readable(&channel, patience()));
    assert!(is_readable(&channel, Duration::ZERO), "readable until the event is taken");
    assert_eq!(channel.try_next(), Some(a.cq.clone()));
    assert_eq!(channel.try_next(), None);
    assert!(!is_readable(&channel, Duration::ZERO));
}

fn the_descriptor_of_asynchronous_events_is_readable_while_there_are_any() {
    let (mut a, b) = common::pair("rc");
    let events = b.ctx.async_events();
    assert!(!is_readable(&events, Duration::ZERO));
    let (slice, mut remote) = (a.mr.slice(0..8), b.mr.remote().at(0));
    remote.rkey ^= 1;
    a.qp.post(|wr| _ = wr.write(slice, remote)).unwrap();
    assert!(is_readable(&events, patience()));
    assert!(events.try_next().is_some());
    assert!(!is_readable(&events, Duration::ZERO));
}

fn solicited_events_skip_ordinary_messages() {
    let (mut a, channel, mut b) = listening();
    for id in 0..4 {
        a.post_recv(id, 0..8);
    }
    a.cq.req_notify(true).unwrap();
    b.post_send(0, 0..8);
    b.post_send(1, 0..8);
    expect_no_event(&channel);
    let slice = b.mr.slice(0..8);
    b.qp.post(|wr| _ = wr.send(slice).solicited()).unwrap();
    expect_event(&channel, &a.cq);
    for id in 0..3 {
        a.expect(id, WcStatus::Success);
    }
    // A request for any completion is not narrowed by a later one for solicited ones.
    a.cq.req_notify(false).unwrap();
    a.cq.req_notify(true).unwrap();
    b.post_send(3, 0..8);
    expect_event(&channel, &a.cq);
}

fn an_error_counts_as_solicited() {
    let (mut a, channel, mut b) = listening();
    a.post_recv(0, 0..4);
    a.cq.req_notify(true).unwrap();
    b.post_send(0, 0..8);
    expect_event(&channel, &a.cq);
    a.expect(0, WcStatus::LocLenErr);

    let (mut a, channel, mut b) = listening();
    b.post_recv(0, 0..8);
    a.cq.req_notify(true).unwrap();
    let beyond = a.mr.slice(common::MEMORY..common::MEMORY + 8);
    a.qp.post(|wr| _ = wr.send(beyond).id(1)).unwrap();
    expect_event(&channel, &a.cq);
    a.expect(1, WcStatus::LocProtErr);

    let (mut a, channel, _b) = listening();
    a.post_recv(2, 0..8);
    a.cq.req_notify(true).unwrap();
    a.qp.to_error().unwrap();
    expect_event(&channel, &a.cq);
    a.expect(2, WcStatus::WrFlushErr);
}

fn waits_end_at_their_timeout_and_not_before() {
    let (_a, channel, _b) = listening();
    assert_eq!(channel.wait(Some(Duration::ZERO)).unwrap(), None);
    let begun = common::Moment::now();
    assert_eq!(channel.wait(Some(Duration::from_millis(30))).unwrap(), None);
    assert!(begun.elapsed() >= Duration::from_millis(30));
}

fn a_queue_without_a_channel_cannot_be_armed() {
    let a = Node::new(QpType::Rc);
    let error = a.cq.req_notify(false).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { call: "req_notify_cq", .. }), "{error}");
    let other = common::open().unwrap();
    let channel = other.create_comp_channel().unwrap();
    let error = a.ctx.create_cq_on(16, &channel).unwrap_err();
    assert!(error.to_string().contains("another context"), "{error}");
}

/// Sleeps until a completion arrives, the way every program does: arm, poll once more, wait.
fn sleep_until_completion(
    channel: &CompletionChannel,
    cq: &CompletionQueue,
    solicited: bool,
) -> WorkCompletion {
    let mut wcs = [WorkCompletion::default()];
    loop {
        if let [wc] = cq.poll(&mut wcs) {
            return *wc;
        }
        cq.req_notify(solicited).unwrap();
        if let [wc] = cq.poll(&mut wcs) {
            return *wc;
        }
        assert!(channel.wait(Some(patience())).unwrap().is_some(), "slept through a completion");
    }
}

/// One thread sends whenever it is told to, the other sleeps for the message: thousands of times, the two racing.
fn race(same_context: bool, solicited: bool) {
    const ROUNDS: u64 = 5000;
    let ctx = common::open().unwrap();
    let other = if same_context { ctx.clone() } else { common::open().unwrap() };
    let (mut a, mut b) = (Node::of(&ctx, QpType::Rc, |init| init), Node::of(&other, QpType::Rc, |init| init));
    let channel = ctx.create_comp_channel().unwrap();
    a.cq = ctx.create_cq_on(64, &channel).unwrap();
    a.qp = a.pd.create_qp(QpInit::rc(&a.cq)).unwrap();
    join(&mut a, &mut b, &common::patient());
    let (go, told) = mpsc::channel::<u64>();
    let sender = std::thread::spawn(move || {
        let slice = b.mr.slice(0..8);
        for round in told {
            for _ in 0..round % 97 {
                std::hint::spin_loop();
            }
            b.mr.store_u64(0, round);
            b.qp.post(|wr| _ = wr.send(slice).id(round).solicited()).unwrap();
            b.expect(round, WcStatus::Success);
        }
    });
    for round in 0..ROUNDS {
        a.post_recv(round, 0..8);
        go.send(round).unwrap();
        for _ in 0..round % 31 {
            std::hint::spin_loop();
        }
        let wc = sleep_until_completion(&channel, &a.cq, solicited);
        assert_eq!((wc.wr_id, wc.status), (round, WcStatus::Success));
        assert_eq!(a.mr.load_u64(0), round);
    }
    drop(go);
    sender.join().unwrap();
}

fn no_wake_up_is_lost_between_two_contexts() {
    race(false, false);
}

fn no_wake_up_is_lost_within_one_context() {
    race(true, false);
}

fn no_solicited_wake_up_is_lost() {
    race(false, true);
}

/// Queue pairs on queues of their own, all of one channel.
fn several(
    ctx: &Context,
    count: usize,
) -> (CompletionChannel, Vec<CompletionQueue>, Vec<QueuePair>, Vec<Node>) {
    let channel = ctx.create_comp_channel().unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let (mut cqs, mut qps, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let cq = ctx.create_cq_on(16, &channel).unwrap();
        let mut qp = pd.create_qp(QpInit::rc(&cq)).unwrap();
        let mut peer = Node::new(QpType::Rc);
        qp.connect_with(&peer.qp.address(), &common::patient()).unwrap();
        peer.qp.connect_with(&qp.address(), &common::patient()).unwrap();
        cqs.push(cq);
        qps.push(qp);
        peers.push(peer);
    }
    (channel, cqs, qps, peers)
}

fn a_channel_tells_which_of_its_queues_has_an_event() {
    let ctx = common::open().unwrap();
    let (channel, cqs, mut qps, mut peers) = several(&ctx, 4);
    for cq in &cqs {
        cq.req_notify(false).unwrap();
    }
    for qp in &mut qps {
        qp.post_recv(|rq| _ = rq.recv_nothing()).unwrap();
    }
    expect_no_event(&channel);
    for at in [2, 0] {
        peers[at].post_send(1, 0..0);
    }
    let mut raised: Vec<_> =
        (0..2).map(|_| channel.wait(Some(patience())).unwrap().unwrap().number()).collect();
    raised.sort_unstable();
    let mut expected = [cqs[0].number(), cqs[2].number()];
    expected.sort_unstable();
    assert_eq!(raised, expected);
    expect_no_event(&channel);
}

fn a_busy_queue_does_not_hide_the_others_of_its_channel() {
    let ctx = common::open().unwrap();
    let (channel, cqs, mut qps, mut peers) = several(&ctx, 3);
    for qp in &mut qps {
        qp.post_recv(|rq| _ = rq.recv_nothing()).unwrap();
    }
    for cq in &cqs {
        cq.req_notify(false).unwrap();
    }
    peers[1].post_send(1, 0..0);
    peers[0].post_send(1, 0..0);
    let mut wcs = [WorkCompletion::default(); 4];
    for turn in 0.. {
        assert!(turn < 10, "never told of the second queue");
        let cq = channel.wait(Some(patience())).unwrap().unwrap();
        assert_eq!(cq.poll(&mut wcs).len(), 1);
        if cq == cqs[1] {
            break;
        }
        // The first one is busy: its next event is there before anybody looks again.
        qps[0].post_recv(|rq| _ = rq.recv_nothing()).unwrap();
        cqs[0].req_notify(false).unwrap();
        peers[0].post_send(1, 0..0);
        peers[0].expect(1, WcStatus::Success);
    }
}

fn a_dropped_queue_leaves_its_channel_working() {
    let ctx = common::open().unwrap();
    let (channel, mut cqs, mut qps, mut peers) = several(&ctx, 2);
    for cq in &cqs {
        cq.req_notify(false).unwrap();
    }
    for qp in &mut qps {
        qp.post_recv(|rq| _ = rq.recv_nothing()).unwrap();
    }
    peers[0].post_send(1, 0..0);
    peers[0].expect(1, WcStatus::Success);
    drop((qps.remove(0), cqs.remove(0)));
    expect_no_event(&channel);
    peers[1].post_send(1, 0..0);
    expect_event(&channel, &cqs[0]);
}

fn shared_receive_queues_and_datagrams_raise_events_too() {
    let mut a = Node::new(QpType::Ud);
    let channel = a.ctx.create_comp_channel().unwrap();
    a.cq = a.ctx.create_cq_on(64, &channel).unwrap();
    a.qp = a.pd.create_qp(QpInit::ud(&a.cq)).unwrap();
    a.qp.activate_ud(1).unwrap();
    let mut sender = Node::new(QpType::Ud);
    sender.qp.activate_ud(1).unwrap();
    let ah = sender.pd.create_ah_to(&a.qp.address()).unwrap();
    let mut srq = a.pd.create_srq(16, 1).unwrap();
    let mut member = a.pd.create_qp(QpInit::rc(&a.cq).srq(&srq)).unwrap();
    let mut peer = Node::new(QpType::Rc);
    member.connect_with(&peer.qp.address(), &common::patient()).unwrap();
    peer.qp.connect_with(&member.address(), &common::patient()).unwrap();
    let qpn = a.qp.qp_num();
    for round in 0..300 {
        a.cq.req_notify(false).unwrap();
        if round % 2 == 0 {
            a.post_recv(round, 0..64);
            let mut send = || {
                sender
                    .qp
                    .post(|wr| _ = wr.send_inline(b"x").to(&ah, qpn, 1).unsignaled().solicited())
                    .unwrap();
                sender.qp.post(|wr| _ = wr.send_inline(b"x").to(&ah, qpn, 2)).unwrap();
                sender.expect(0, WcStatus::Success);
            };
            send();
            while !common::on_shm() && !is_readable(&channel, lost()) {
                send();
            }
        } else {
            srq.post_recv(|rq| _ = rq.recv_nothing().id(round)).unwrap();
            peer.post_send(round, 0..0);
            peer.expect(round, WcStatus::Success);
        }
        expect_event(&channel, &a.cq);
        assert_eq!(a.one().wr_id, round);
    }
}

/// A side of a ping-pong whose sends and receives complete in queues of their own, both of one channel, with a send queue of one.
struct Side {
    node: Node,
    channel: CompletionChannel,
    sends: CompletionQueue,
    receives: CompletionQueue,
}

impl Side {
    fn new() -> Self {
        let mut node = Node::new(QpType::Rc);
        let channel = node.ctx.create_comp_channel().unwrap();
        let sends = node.ctx.create_cq_on(4, &channel).unwrap();
        let receives = node.ctx.create_cq_on(4, &channel).unwrap();
        let init = QpInit::rc(&sends).recv_cq(&receives).max_send_wr(1);
        node.qp = node.pd.create_qp(init).unwrap();
        Self { node, channel, sends, receives }
    }

    /// Waits for the event of a receive, and takes it.
    fn receive(&mut self, id: u64) {
        while self.channel.wait(Some(patience())).unwrap().expect("an event") != self.receives {}
        assert_eq!(self.receives.poll(&mut [WorkCompletion::default(); 2]).len(), 1);
        self.node.post_recv(id, 0..8);
        self.receives.req_notify(false).unwrap();
    }

    /// Packets that came by way of another process, or were sent again: while devices come to an address and leave it, packets overtake each
    /// other and get lost.
    fn detours(&self) -> u64 {
        let counters = self.node.ctx.counters().into_iter();
        counters
            .filter(|(name, _)| ["udp_forwarded_here", "retransmitted_pkts"].contains(name))
            .map(|(_, count)| count)
            .sum()
    }
}

fn an_answer_comes_after_the_completion_of_what_it_answers() {
    const ROUNDS: u64 = 300;
    let (mut a, mut b) = (Side::new(), Side::new());
    join(&mut a.node, &mut b.node, &common::patient());
    for side in [&mut a, &mut b] {
        side.node.post_recv(0, 0..8);
        side.receives.req_notify(false).unwrap();
    }
    let answering = std::thread::spawn(move || {
        for round in 0..ROUNDS {
            b.receive(round);
            // A look that finds nothing takes in what the network has, beside the thread that does so otherwise.
            while b.sends.poll(&mut [WorkCompletion::default()]).is_empty() && round > 0 {}
            b.node.post_send(round, 0..8);
        }
        b
    });
    for round in 0..ROUNDS {
        let detours = a.detours();
        a.node.post_send(round, 0..8);
        a.receive(round);
        if !a.sends.poll(&mut [WorkCompletion::default(); 2]).is_empty() {
            continue;
        }
        let asked = common::Moment::now();
        while a.sends.poll(&mut [WorkCompletion::default()]).is_empty() {
            assert!(asked.elapsed() < patience(), "the send of round {round} does not complete");
        }
        assert!(
            a.detours() > detours,
            "the send of round {round} had not completed when its answer was here"
        );
    }
    drop(answering.join().unwrap());
}
