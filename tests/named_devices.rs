//! Devices by names of the program's choice, and cables between them.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use nix::libc;
use tbrdma::{Error, OpenOptions, QpType, WcStatus};

mod common;
use common::{Node, join};

fn node(options: &OpenOptions, name: &str) -> Node {
    Node::of(&options.open(name).unwrap(), QpType::Uc, |init| init)
}

#[test]
fn a_device_has_the_name_it_is_opened_by() {
    let listed = OpenOptions::new().devices("mlx5_0=shm,mlx5_1=udp:lo");
    for (name, backend) in [("mlx5_0", "shm"), ("mlx5_1", "udp:lo")] {
        assert_eq!(listed.open(name).unwrap().name(), name);
        // Its own form works as ever, and so does a name of the moment.
        assert_eq!(listed.open(backend).unwrap().name(), backend);
        assert_eq!(OpenOptions::new().open(&format!("x={backend}")).unwrap().name(), "x");
    }
    for wrong in ["mlx5_2", "x=", "mesh:0/3=shm", "shm,udp:lo", "a=shm,b=shm"] {
        assert!(matches!(listed.open(wrong).unwrap_err(), Error::NoSuchDevice { .. }), "{wrong}");
    }
    let wrong = OpenOptions::new().devices("a=shm,a=shm").open("a").unwrap_err();
    assert_eq!(wrong.errno(), libc::EINVAL, "{wrong}");
}

#[test]
fn a_name_changes_nothing_else() {
    let options = OpenOptions::new().devices("left=shm,right=shm");
    let (mut a, mut b) = (node(&options, "left"), node(&options, "right"));
    join(&mut a, &mut b, &common::patient());
    b.post_recv(1, 0..64);
    a.post_send(2, 0..64);
    a.expect(2, WcStatus::Success);
    b.expect(1, WcStatus::Success);
    assert_eq!(a.ctx.profile().to_string(), "plain");
}

#[test]
fn a_cable_joins_its_two_ends_and_nothing_else() {
    let options = OpenOptions::new().devices("a0=shm@names.a:0,a1=shm@names.a:1,b1=shm@names.b:1,none=shm");
    let [a0, a1, b1, none] = ["a0", "a1", "b1", "none"].map(|name| node(&options, name));
    let mut again = node(&options, "a0");
    let mut ends = [a0, a1];
    // Not to the other end of another cable, to what is at no cable, to the same end, to itself.
    for other in [&b1, &none, &again] {
        let error = ends[0].qp.connect(&other.qp.address()).unwrap_err();
        assert_eq!(error.errno(), libc::ETIMEDOUT, "{error}");
        assert!(error.to_string().contains("cable"), "{error}");
        ends[0].qp.reset().unwrap();
    }
    let itself = again.qp.address();
    assert_eq!(again.qp.connect(&itself).unwrap_err().errno(), libc::ETIMEDOUT);
    let mut none = none;
    assert_eq!(none.qp.connect(&ends[0].qp.address()).unwrap_err().errno(), libc::ETIMEDOUT);
    let [a, b] = &mut ends;
    join(a, b, &common::patient());
    b.post_recv(1, 0..64);
    a.post_send(2, 0..64);
    b.expect(1, WcStatus::Success);
}

#[test]
fn ranks_of_a_mesh_reach_each_other_over_a_device_each() {
    let ranks = [0, 1, 2].map(|rank| {
        let options = OpenOptions::new().profile("apple-tb5").devices(format!("mesh:{rank}/3:names=shm"));
        ["rdma_en2", "rdma_en3"].map(|name| node(&options, name))
    });
    let [mut zero, mut one, mut two] = ranks;
    let [zero_to_one, zero_to_two] = &mut zero;
    let [one_to_zero, one_to_two] = &mut one;
    let [two_to_zero, two_to_one] = &mut two;
    for (a, b) in [(zero_to_one, one_to_zero), (zero_to_two, two_to_zero), (one_to_two, two_to_one)] {
        join(a, b, &common::patient());
        a.post_send(1, 0..4096);
        b.post_recv(2, 0..4096);
        b.expect(2, WcStatus::Success);
        a.expect(1, WcStatus::Success);
    }
}
