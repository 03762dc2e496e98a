//! How fast a connection is that loses packets: a table over loss, round trip and bytes on their way, which every
//! change of recovery or congestion control changes visibly.
//!
//! The table is `data/goodput.txt`. After a change that is meant, `TBRDMA_UPDATE=1 cargo test -p tbrdma-proto --test
//! requester_goodput` writes it anew; look at the difference before it is committed.

use core::fmt::Write as _;
use core::time::Duration;
use std::fs;
use std::path::Path;
use tbrdma_proto::fault::FaultPlan;
use tbrdma_proto::testing::{Pair, PairSpec};
use tbrdma_proto::{Mtu, Opcode, WcStatus};

/// Bytes of one message.
const MESSAGE: u32 = 64 << 10;
/// How much is carried for one figure.
const TOTAL: u64 = 16 << 20;
const LOSSES: [&str; 5] = ["0%", "0.1%", "1%", "3%", "10%"];
const ROUND_TRIPS_US: [u64; 3] = [5, 50, 500];
/// Messages on their way at once.
const WINDOWS: [u64; 3] = [1, 4, 16];

/// Bytes a second that arrive, of WRITEs or READs over a link of 10 Gbit/s in each direction.
fn goodput(opcode: Opcode, loss: &str, round_trip_us: u64, window: u64) -> u64 {
    let one_way_ns = round_trip_us * 500;
    let plan: FaultPlan = format!("loss={loss},delay={one_way_ns}ns,rate=10Gbps").parse().unwrap();
    let mut spec = PairSpec { plan, seed: 42, ..PairSpec::default() };
    spec.connection.mtu = Mtu::B4096;
    spec.connection.timeout = 14;
    let mut pair = Pair::new(&spec).unwrap();
    let begun = pair.fabric.now();
    let messages = TOTAL / u64::from(MESSAGE);
    let (mut posted, mut done) = (0, 0);
    while done < messages {
        while posted < messages && posted - done < window {
            let request = pair.request(0, posted, opcode, 0);
            let list = [pair.sge(0, 0, MESSAGE)];
            pair.post_send(0, &request, &list).unwrap();
            posted += 1;
        }
        pair.fabric.step().unwrap();
        while let Some(wc) = pair.poll(0) {
            assert_eq!((wc.wr_id, wc.status), (done, WcStatus::Success), "{loss} lost, {round_trip_us} us");
            done += 1;
        }
        assert!(
            pair.fabric.now().since(begun) < Duration::from_secs(60),
            "{loss} lost, {round_trip_us} us: {done} done"
        );
    }
    let nanos = pair.fabric.now().since(begun).as_nanos() as u64;
    u64::try_from(u128::from(TOTAL) * 1_000_000_000 / u128::from(nanos)).unwrap()
}

#[test]
fn the_table_is_as_it_was() {
    let mut table = String::from(
        "Goodput in MB/s over a link of 10 Gbit/s, MTU 4096, messages of 64 KiB. Made by proto/tests/requester_goodput.rs.\n",
    );
    for opcode in [Opcode::RdmaWrite, Opcode::RdmaRead] {
        let name = if opcode == Opcode::RdmaWrite { "RDMA WRITE" } else { "RDMA READ" };
        write!(table, "\n{name:<28}").unwrap();
        for loss in LOSSES {
            write!(table, "{:>8}", format!("-{loss}")).unwrap();
        }
        table.push('\n');
        for round_trip in ROUND_TRIPS_US {
            for window in WINDOWS {
                let kib = window * u64::from(MESSAGE >> 10);
                write!(table, "round trip {round_trip:>3} us, {kib:>5} KiB").unwrap();
                for loss in LOSSES {
                    write!(table, "{:>8}", goodput(opcode, loss, round_trip, window) / 1_000_000).unwrap();
                }
                table.push('\n');
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/goodput.txt");
    if std::env::var_os("TBRDMA_UPDATE").is_some_and(|update| update == "1") {
        fs::write(&path, &table).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        table == committed,
        "the table has changed; if that is meant, run again with TBRDMA_UPDATE=1.\nbefore:\n{committed}\nnow:\n{table}"
    );
}

#[test]
fn one_packet_of_a_hundred_lost_costs_less_than_sixty_percent() {
    for opcode in [Opcode::RdmaWrite, Opcode::RdmaRead] {
        let (lossless, lossy) = (goodput(opcode, "0%", 50, 16), goodput(opcode, "1%", 50, 16));
        assert!(lossy * 10 > lossless * 4, "{opcode:?}: {lossy} of {lossless} bytes a second");
    }
}
