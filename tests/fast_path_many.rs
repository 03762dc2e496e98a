//! Ten thousand connected queue pairs fit into a process, and each works.

#[path = "common/census.rs"]
mod census;
#[path = "common/process.rs"]
mod process;

use process::Child;
use std::time::Instant;
use tbrdma::{Access, QpInit, QueuePair, WorkCompletion};

const QPS: usize = 10_000;
const DEPTH: u32 = 16;
const LIMIT_KIB: u64 = 100 << 10;

#[test]
fn child() {
    if process::role().is_none() {
        return;
    }
    let ctx = tbrdma::open("shm").unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq(1024).unwrap();
    let mr = pd.alloc(4096, Access::LOCAL_WRITE | Access::REMOTE_WRITE).unwrap();
    let before = census::status_kib("VmRSS");
    let begun = Instant::now();
    let mut qps: Vec<QueuePair> = (0..QPS)
        .map(|_| {
            let init = QpInit::rc(&cq).max_send_wr(DEPTH).max_recv_wr(DEPTH);
            pd.create_qp(init).unwrap()
        })
        .collect();
    let created = begun.elapsed();
    let begun = Instant::now();
    for pair in qps.chunks_exact_mut(2) {
        let [a, b] = pair else { unreachable!() };
        a.connect(&b.address()).unwrap();
        b.connect(&a.address()).unwrap();
    }
    let connected = begun.elapsed();
    let idle = census::status_kib("VmRSS") - before;
    // Every one of them uses its whole depth once.
    let mut wcs = [WorkCompletion::default(); 64];
    let mut taken = 0;
    let mut take = |until: usize| {
        while taken < until {
            for wc in cq.poll(&mut wcs) {
                wc.ok().unwrap();
                taken += 1;
            }
        }
    };
    let mut expected = 0;
    for pair in qps.chunks_exact_mut(2) {
        let [a, b] = pair else { unreachable!() };
        for (from, to) in [(0, 1), (1, 0)] {
            let ends: [&mut QueuePair; 2] = if from < to { [&mut *a, &mut *b] } else { [&mut *b, &mut *a] };
            let [from, to] = ends;
            for _ in 0..DEPTH {
                to.post_recv(|rq| drop(rq.recv(mr.slice(64..128)))).unwrap();
            }
            from.post(|wr| (0..DEPTH).for_each(|_| drop(wr.send(mr.slice(0..64))))).unwrap();
            expected += 2 * DEPTH as usize;
        }
        take(expected);
    }
    let used = census::status_kib("VmRSS") - before;
    let begun = Instant::now();
    drop(qps);
    process::say(format!(
        "{idle} {used} {} {} {}",
        created.as_millis(),
        connected.as_millis(),
        begun.elapsed().as_millis()
    ));
}

#[test]
fn ten_thousand_connected_queue_pairs_fit_into_a_hundred_mebibytes() {
    let child = Child::start("many");
    let said = child.hear();
    let numbers: Vec<u64> = said.split(' ').map(|number| number.parse().unwrap()).collect();
    let [idle, used, created, connected, destroyed] = numbers[..] else { panic!("{said}") };
    println!("{QPS} queue pairs: {idle} KiB connected, {used} KiB with every slot used once");
    println!("created in {created} ms, connected in {connected} ms, destroyed in {destroyed} ms");
    assert!(idle < LIMIT_KIB && used < LIMIT_KIB, "{idle} KiB, {used} KiB");
    assert!(created + connected + destroyed < 30_000, "{created} + {connected} + {destroyed} ms");
    assert!(child.reap().success());
}
