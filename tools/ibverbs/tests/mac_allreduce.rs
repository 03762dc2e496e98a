//! A program written for Macs: several ranks, each a process, cabled to each other port by port, sum up their data over `librdma.dylib`.

#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a C program has no blocks at all")]

mod common;
mod mac;

use common::process::{Child, hear, role, say};
use mac::collective::{Group, Star};
use mac::rdma::Rdma;

/// Numbers to sum up: one that fills no frame; small ones, for which everybody hears everybody; and such as take several of the largest buffers.
const LENGTHS: [usize; 5] = [1, 1024, 5000, 100_003, 400_000];

/// After so many numbers they come again: a prime, so that no buffer's worth of them is like another.
const PERIOD: usize = 10_007;

/// What a rank has at a place: small whole numbers, whose sums a float holds exactly.
fn value(rank: usize, round: usize, at: usize) -> f32 {
    ((at * 31 + rank * 17 + round * 7) % PERIOD) as f32
}

/// The devices by which a rank reaches others, as people write them in a table for their program; and where the other end of each is: with
/// whom, and which of its devices that is.
fn wires(shape: &str, rank: usize, size: usize) -> Vec<(String, (usize, usize))> {
    let device = |at: usize| format!("rdma_en{}", at + 2);
    match shape {
        "mesh" => (0..size)
            .filter(|other| *other != rank)
            .enumerate()
            .map(|(at, other)| (device(at), (other, if rank < other { rank } else { rank - 1 })))
            .collect(),
        _ => vec![(device(0), ((rank + 1) % size, 1)), (device(1), ((rank + size - 1) % size, 0))],
    }
}

/// A rank.
#[test]
fn child() {
    let Some(role) = role() else { return };
    let words: Vec<_> = role.split(' ').collect();
    let (shape, rank, size) =
        (words[0], words[1].parse().expect("a rank"), words[2].parse().expect("a number"));
    let mut star = match rank {
        0 => Star::middle(size, say),
        _ => Star::ray(rank, size, hear().parse().expect("a port")),
    };
    let rdma = Rdma::load();
    let group = Group::connect(&rdma, rank, &wires(shape, rank, size), &mut star);
    for (round, length) in LENGTHS.into_iter().enumerate() {
        let mut data: Vec<f32> = (0..length).map(|at| value(rank, round, at)).collect();
        match shape {
            "mesh" => group.mesh_all_reduce(&mut data),
            _ => group.ring_all_reduce(&mut data),
        }
        let right: Vec<f32> =
            (0..PERIOD).map(|at| (0..size).map(|rank| value(rank, round, at)).sum()).collect();
        for (at, (sum, right)) in data.iter().zip(right.iter().cycle()).enumerate() {
            assert!(sum == right, "rank {rank}, {length} numbers: at {at} is {sum}, not {right}");
        }
    }
    say("summed up");
    // Nobody goes while another still needs it.
    star.all_gather(&[1]);
}

fn all_reduce(shape: &str, size: usize) {
    let start = |rank: usize| {
        let label = std::process::id();
        let environment = mac::environment("apple-tb5", &format!("{shape}:{rank}/{size}:{label}=shm"));
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Child::start_with(&format!("{shape} {rank} {size}"), &environment)
    };
    let mut ranks: Vec<_> = (0..size).map(start).collect();
    let port = ranks[0].hear();
    for rank in &mut ranks[1..] {
        rank.say(&port);
    }
    for (number, rank) in ranks.iter().enumerate() {
        assert_eq!(rank.hear(), "summed up", "rank {number}");
    }
    for rank in ranks {
        assert!(rank.reap().success());
    }
}

#[test]
fn a_mesh_of_two() {
    all_reduce("mesh", 2);
}

#[test]
fn a_mesh_of_three() {
    all_reduce("mesh", 3);
}

#[test]
fn a_mesh_of_five() {
    all_reduce("mesh", 5);
}

#[test]
fn a_mesh_of_eight() {
    all_reduce("mesh", 8);
}

#[test]
fn a_ring_of_two() {
    all_reduce("ring", 2);
}

#[test]
fn a_ring_of_five() {
    all_reduce("ring", 5);
}
