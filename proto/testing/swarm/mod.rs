//! Whole random runs: a seed picks a network, a workload and its faults, and an oracle that knows what must become of it watches.
//!
//! | file | what is in it |
//! |---|---|
//! | `scenario` | what the seed picks |
//! | `world`, `records` | nodes, connections, buffers, and what is remembered of them |
//! | `work` | posting work requests, good ones and bad ones |
//! | `watch` | judging packets: the second opinion about segmentation, repeating, waiting |
//! | `oracle`, `shadow` | judging completions, events and memory |
//! | `run` | the loop, and the end of a run |
//! | `outcome` | what a run came to |
//!
//! What is judged: a message is delivered once, whole and in order, or a completion or an event says why not; memory is changed only
//! where it may be; READs bring what was there; an atomic is carried out once and answered with what it found; completions come in
//! order, one for each request that has one; all that was posted to a queue pair that failed is flushed; every failure has a reason;
//! nothing waits for ever; nothing happens on behalf of what is gone.

mod oracle;
mod outcome;
mod records;
mod run;
mod scenario;
mod shadow;
mod watch;
mod work;
mod world;

pub use outcome::*;
pub use scenario::*;
