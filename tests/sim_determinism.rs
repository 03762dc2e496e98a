//! In a simulated network everything follows from one seed: completions, their times, and every byte of every packet.

mod common;

use common::capture::Capture;
use common::{Node, join, patient};
use std::time::Duration;
use tbrdma::{OpenOptions, QpType, WorkCompletion};

/// What a run was, as far as a program can tell.
#[derive(Debug, PartialEq)]
struct Story {
    /// Whose completion, what it was, and when.
    completions: Vec<(usize, WorkCompletion, Duration)>,
    counters: Vec<(&'static str, u64)>,
    packets: Vec<u8>,
}

/// Messages of many sizes in both directions over a bad wire.
fn story(network: &str, seed: u64) -> Story {
    let capture = Capture::new(&format!("sim-{network}-{seed}"));
    let open = || {
        let options = OpenOptions::new().capture(&capture.0).seed(seed);
        options.fault("loss=3%,delay=5us~3us,reorder=2%:20us,dup=1%:5us,corrupt=1%").open(network).unwrap()
    };
    let mut nodes = [(); 2].map(|()| Node::of(&open(), QpType::Rc, |init| init));
    let [a, b] = &mut nodes;
    join(a, b, &patient());
    for (node, byte) in nodes.iter_mut().zip(1..) {
        node.fill(0..65_536, byte);
        for id in 0..64 {
            node.post_recv(1000 + id, 65_536 + 8192 * id as usize..65_536 + 8192 * (id as usize + 1));
        }
    }
    let mut completions = Vec::new();
    for round in 0..64 {
        for node in &mut nodes {
            node.post_send(round, 0..(round as usize * 97) % 8192);
        }
        let end = completions.len() + 4;
        while completions.len() < end {
            for (index, node) in nodes.iter().enumerate() {
                let mut wcs = [WorkCompletion::default(); 4];
                let now = |wc: &WorkCompletion| (index, *wc, node.ctx.raw_clock());
                completions.extend(node.cq.poll(&mut wcs).iter().map(now));
            }
        }
    }
    let counters = nodes.iter().flat_map(|node| node.ctx.counters()).collect();
    drop(nodes);
    Story { completions, counters, packets: std::fs::read(&capture.0).unwrap() }
}

#[test]
fn the_same_seed_tells_the_same_story_to_the_last_bit() {
    let (first, second) = (story("sim:again", 7), story("sim:again", 7));
    assert_eq!(first.completions, second.completions);
    assert_eq!(first.counters, second.counters);
    assert!(first.packets == second.packets, "the captures differ");
    assert!(first.packets.len() > 100_000);
    let lost = first.counters.iter().find(|(name, _)| *name == "fault_dropped").unwrap();
    assert!(lost.1 > 0, "nothing went wrong: {:?}", first.counters);
}

#[test]
fn another_seed_tells_another_story() {
    let (first, second) = (story("sim:others", 7), story("sim:others", 8));
    let times = |story: &Story| story.completions.iter().map(|(_, _, time)| *time).collect::<Vec<_>>();
    assert_ne!(times(&first), times(&second));
    assert!(first.packets != second.packets);
}

#[test]
fn adapters_with_the_same_seed_do_not_have_the_same_luck() {
    let story = story("sim:luck", 9);
    let lost = story.counters.iter().filter(|(name, _)| *name == "fault_dropped");
    let sent: Vec<u64> = lost.map(|(_, count)| *count).collect();
    let numbers: Vec<_> =
        story.completions.iter().map(|(index, wc, _)| (*index, wc.qp_num.get() & 0xffff)).collect();
    let of = |index| numbers.iter().find(|(whose, _)| *whose == index).unwrap().1;
    assert_eq!(sent.len(), 2);
    assert_ne!(of(0), of(1));
}
