//! The thread that is there for programs that sleep in a descriptor (`epoll`, an asynchronous runtime), where nobody sees that they wait. It lets time
//! go on as fast as it really does. It is started when a descriptor is first asked for: who waits by our own calls does not need it.

use super::network::Network;
use crate::sync::{AtomicBool, Ordering};
use crate::sys::threads::OwnThread;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tbrdma_proto::Time;

/// How long it sleeps at most between two looks.
const NAP: Duration = Duration::from_millis(1);
/// Events between two chances for others: a machine that is slow must not be kept busy with catching up.
const EVENTS_IN_A_ROW: u32 = 64;

/// Whether the thread was started.
#[derive(Default)]
pub(super) struct Pump(AtomicBool);

impl Pump {
    /// Starts the thread, once.
    pub(super) fn start(&self, network: &Arc<Network>) {
        if self.0.swap(true, Ordering::Relaxed) {
            return;
        }
        let weak = Arc::downgrade(network);
        let own = OwnThread::announce();
        let started = std::thread::Builder::new().name("tbrdma-sim".to_owned()).spawn(move || {
            own.begin();
            let mut pace = (Instant::now(), Time::ZERO);
            while let Some(nap) = turn(&weak, &mut pace) {
                std::thread::sleep(nap);
            }
        });
        // Without it those who poll still make progress; the next who asks for a descriptor tries again.
        self.0.store(started.is_ok(), Ordering::Relaxed);
    }
}

/// Does what is due by real time, since both clocks stood at `pace`; how long to sleep then. `None` if the network is gone.
fn turn(network: &Weak<Network>, pace: &mut (Instant, Time)) -> Option<Duration> {
    let network = network.upgrade()?;
    let drive = network.drive();
    let until = network.now().max(pace.1 + pace.0.elapsed());
    network.settle(&drive);
    for _ in 0..EVENTS_IN_A_ROW {
        if !network.advance(&drive, until) {
            break;
        }
    }
    // If that was not enough, what is left of the time that has really passed is given up.
    *pace = (Instant::now(), network.now());
    Some(network.next_event(&drive).since(network.now()).min(NAP))
}
