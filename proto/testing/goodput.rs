//! How much of a link's rate a reliable connection uses when packets are lost: one cell, and the table of them that is kept beside
//! the tests.

use core::fmt::Write as _;
use core::time::Duration;

use super::memory::{Violation, violation};
use super::pair::{Pair, PairSpec};
use super::setup::Connection;
use crate::fault::{Chance, FaultPlan};
use crate::qp::{Mtu, QpCap};
use crate::time::Time;
use crate::work::{Opcode, WcStatus};

/// Bits per second of the link.
const RATE: u64 = 10_000_000_000;

/// Bytes of a message.
const MESSAGE: u32 = 16 << 10;

/// How much is sent for one cell.
const TOTAL: u64 = 4 << 20;

/// The most virtual time that one cell may take.
const LONGEST: Duration = Duration::from_secs(60);

/// What one measurement is about.
#[derive(Clone, Copy, Debug)]
pub struct Goodput {
    /// What carries the bytes: an RDMA WRITE or an RDMA READ.
    pub opcode: Opcode,
    /// Packets lost, independently, in both directions.
    pub loss: Chance,
    /// Time of a packet to the peer and back, without what the rate takes.
    pub round_trip: Duration,
    /// Bytes that the application has posted at a time, a multiple of 16 KiB.
    pub window: u32,
    /// The seed of the losses.
    pub seed: u64,
}

impl Goodput {
    /// Carries 4 MiB in messages of 16 KiB at path MTU 4096 over 10 Gb/s, and answers bytes per second of virtual time.
    ///
    /// # Errors
    /// A request failed or ended out of its turn, a minute of virtual time was not enough, or what must not happen happened.
    pub fn measure(&self) -> Result<u64, Violation> {
        let depth = (self.window / MESSAGE).max(1);
        let plan = FaultPlan {
            loss: self.loss,
            delay: self.round_trip / 2,
            rate: Some(RATE),
            ..FaultPlan::default()
        };
        let cap = QpCap {
            max_send_wr: depth,
            max_recv_wr: 1,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: 0,
        };
        // What programs choose: 67 ms and all retries.
        let connection = Connection {
            mtu: Mtu::B4096,
            timeout: 14,
            retry_cnt: 7,
            // No smaller than the largest window of the table: that one is measured.
            max_rd_atomic: 64,
            max_dest_rd_atomic: 64,
            ..Connection::default()
        };
        let spec = PairSpec { plan, seed: self.seed, cap, connection, ..PairSpec::default() };
        let mut pair = Pair::new(&spec).map_err(|error| violation!("{error}"))?;
        let messages = TOTAL / u64::from(MESSAGE);
        let (mut posted, mut done) = (0, 0);
        while done < messages {
            while posted < messages && posted - done < u64::from(depth) {
                let wr = pair.request(0, posted, self.opcode, 0);
                let sge = pair.sge(0, 0, MESSAGE);
                pair.post_send(0, &wr, &[sge]).map_err(|error| violation!("{error}"))?;
                posted += 1;
            }
            if !pair.fabric.step()? {
                return Err(violation!(
                    "{done} of {messages} messages are done, and nothing happens any more"
                ));
            }
            if pair.fabric.now().since(Time::ZERO) > LONGEST {
                return Err(violation!("{done} of {messages} messages are done after {LONGEST:?}"));
            }
            while let Some(wc) = pair.poll(0) {
                if (wc.wr_id, wc.status) != (done, WcStatus::Success) {
                    return Err(violation!(
                        "message {} ended with {:?} at place {done}",
                        wc.wr_id,
                        wc.status
                    ));
                }
                done += 1;
            }
        }
        let nanos = pair.fabric.now().since(Time::ZERO).as_nanos().max(1);
        u64::try_from(u128::from(TOTAL) * 1_000_000_000 / nanos).map_err(|error| violation!("{error}"))
    }
}

/// Goodput in MB/s of WRITEs and READs by loss, round trip and window, as text.
///
/// # Errors
/// As [`Goodput::measure`].
pub fn goodput_table() -> Result<String, Violation> {
    const LOSSES: [(&str, u32); 6] = [
        ("none", 0),
        ("0.01 %", 100_000),
        ("0.1 %", 1_000_000),
        ("1 %", 10_000_000),
        ("3 %", 30_000_000),
        ("10 %", 100_000_000),
    ];
    const ROUND_TRIPS: [(&str, u64); 4] = [("10 us", 10), ("50 us", 50), ("500 us", 500), ("5 ms", 5000)];
    const WINDOWS: [u32; 3] = [64 << 10, 256 << 10, 1 << 20];
    let mut text = String::from(
        "RC goodput in MB/s of virtual time: messages of 16 KiB, path MTU 4096, a link of 10 Gb/s (1250 MB/s), losses in both directions.\n\
         Regenerate with `cargo xtask table`; a change here is a change of behaviour.\n",
    );
    for (name, opcode) in [("RDMA WRITE", Opcode::RdmaWrite), ("RDMA READ", Opcode::RdmaRead)] {
        for window in WINDOWS {
            _ = write!(text, "\n{:<24}", format!("{name}, {} KiB", window >> 10));
            for (loss, _) in LOSSES {
                _ = write!(text, "{loss:>9}");
            }
            text.push('\n');
            for (round_trip, micros) in ROUND_TRIPS {
                _ = write!(text, "{:<24}", format!("  round trip {round_trip}"));
                for (_, parts) in LOSSES {
                    let loss = Chance::from_parts(parts).unwrap_or_default();
                    let round_trip = Duration::from_micros(micros);
                    let rate = Goodput { opcode, loss, round_trip, window, seed: 1 }.measure()?;
                    _ = write!(text, "{:>9.1}", rate as f64 / 1e6);
                }
                text.push('\n');
            }
        }
    }
    Ok(text)
}
