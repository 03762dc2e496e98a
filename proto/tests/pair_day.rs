//! A day, and more, of virtual time: connections that are idle, and connections that do a little all the time over a link that loses
//! packets, neither drift nor overflow nor leak.

mod counting;

use std::time::Duration;

use counting::held;
use tbrdma_proto::testing::{Pair, PairSpec};
use tbrdma_proto::{Opcode, Psn, Time, WcStatus};

const HOUR: Duration = Duration::from_secs(3600);

/// Long after the clock's origin: 292 years.
const LATE: Time = Time(u64::MAX / 2);

const RECEIVES: u64 = 16;
const SLOT: u64 = 4096;

/// A pair with receives posted, over a link that loses and delays.
fn pair(seed: u64) -> Pair {
    let plan = "loss=2%,dup=1%,reorder=1%:100us,delay=50us~20us".parse().unwrap();
    let mut pair =
        Pair::new(&PairSpec { plan, seed, psn: Psn::masked(0xff_ff00), ..PairSpec::default() }).unwrap();
    for node in 0..2 {
        for receive in 0..RECEIVES {
            post_receive(&mut pair, node, receive);
        }
    }
    pair
}

fn post_receive(pair: &mut Pair, node: usize, receive: u64) {
    let sge = pair.sge(node, receive * SLOT, SLOT as u32);
    pair.post_recv(node, receive, &[sge]).unwrap();
}

/// One work request of each of some kinds, from one side, and what it was waited for.
fn work(pair: &mut Pair, number: u64) -> Duration {
    let node = (number % 2) as usize;
    let opcodes = [
        Opcode::Send,
        Opcode::RdmaWrite,
        Opcode::RdmaRead,
        Opcode::AtomicFetchAndAdd,
        Opcode::RdmaWriteWithImm,
    ];
    let opcode = opcodes[(number / 2 % 5) as usize];
    let length = if opcode.is_atomic() { 8 } else { 1 + (number * 37 % SLOT) as u32 };
    let mut wr = pair.request(node, number, opcode, 128 << 10);
    wr.compare_add = 1;
    let sge = pair.sge(node, 256 << 10, length);
    pair.post_send(node, &wr, &[sge]).unwrap();
    let begun = pair.fabric.now();
    loop {
        if let Some(wc) = pair.poll(node) {
            if wc.opcode.is_recv() {
                continue;
            }
            assert_eq!((wc.status, wc.wr_id), (WcStatus::Success, number));
            break;
        }
        assert!(pair.fabric.step().unwrap(), "request {number} never completes");
    }
    let took = pair.fabric.now().since(begun);
    // What is still on its way arrives.
    let quiet = pair.fabric.now() + Duration::from_millis(900);
    pair.fabric.run_until(quiet).unwrap();
    assert_eq!(pair.fabric.next_time(), None, "nothing is left to do");
    while let Some(wc) = pair.poll(1 - node) {
        assert_eq!(wc.status, WcStatus::Success);
        post_receive(pair, 1 - node, wc.wr_id);
    }
    took
}

/// Does a little each second for so many hours, and answers the longest that anything took in each hour, and what was held after it.
fn busy(pair: &mut Pair, hours: u32) -> Vec<(Duration, i64)> {
    let start = pair.fabric.now();
    let mut number = 0;
    (1..=hours)
        .map(|hour| {
            let mut longest = Duration::ZERO;
            while pair.fabric.now().since(start) < HOUR * hour {
                longest = longest.max(work(pair, number));
                number += 1;
            }
            (longest, held())
        })
        .collect()
}

#[test]
fn a_busy_day_ends_as_it_began() {
    let before = held();
    let mut pair = pair(3);
    pair.fabric.run_until(LATE).unwrap();
    let hours = busy(&mut pair, 24);
    assert!(hours.len() == 24 && pair.fabric.totals().packets > 200_000, "{:?}", pair.fabric.totals());
    assert!(pair.fabric.totals().lost > 3_000);
    let (_, settled) = hours[5];
    for (hour, (longest, held)) in hours.iter().enumerate() {
        assert!(*longest < Duration::from_millis(800), "hour {hour}: a request took {longest:?}");
        // Buffers of the simulation itself may still grow a little; 3000 requests an hour that leave something would show.
        assert!(
            hour < 6 || *held <= settled + 16_384,
            "hour {hour}: {held} bytes are held, {settled} after six hours"
        );
    }
    drop((pair, hours));
    assert_eq!(held(), before);
}

#[test]
fn an_idle_day_is_nothing_at_all() {
    let before = held();
    let mut pairs: Vec<Pair> = (0..20).map(pair).collect();
    for pair in &mut pairs {
        work(pair, 0);
        let (packets, bytes) = (pair.fabric.totals().packets, held());
        assert_eq!(pair.fabric.next_time(), None, "an idle connection has no timer");
        let later = pair.fabric.now() + HOUR * 24;
        pair.fabric.run_until(later).unwrap();
        assert_eq!((pair.fabric.now(), pair.fabric.totals().packets, held()), (later, packets, bytes));
        for number in 1..20 {
            work(pair, number);
        }
    }
    drop(pairs);
    assert_eq!(held(), before);
}

#[test]
fn a_day_without_the_peer_ends_the_connection_and_then_nothing_happens() {
    let mut pair = pair(5);
    work(&mut pair, 0);
    pair.fabric.set_plans(&"loss=100%".parse().unwrap());
    let wr = pair.request(0, 7, Opcode::RdmaWrite, 0);
    let sge = pair.sge(0, 0, 100);
    pair.post_send(0, &wr, &[sge]).unwrap();
    let begun = pair.fabric.now();
    pair.run(begun + HOUR).unwrap();
    assert!(
        pair.fabric.now().since(begun) < Duration::from_secs(10),
        "it took {:?}",
        pair.fabric.now().since(begun)
    );
    let ended = std::iter::from_fn(|| pair.poll(0)).find(|wc| !wc.opcode.is_recv());
    assert_eq!(ended.map(|wc| (wc.wr_id, wc.status)), Some((7, WcStatus::RetryExcErr)));
    let packets = pair.fabric.totals().packets;
    pair.fabric.run_until(begun + HOUR * 24).unwrap();
    assert_eq!(pair.fabric.totals().packets, packets);
}
