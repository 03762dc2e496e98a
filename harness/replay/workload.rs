//! What is replayed: the requests of a trace, made to fit a device, and where their bytes lie. Both sides hold it.
//!
//! A queue pair of the program is a *lane*: a queue pair of ours to one of the responder's. Messages of a lane leave from buffers that they go
//! round, and arrive in others, of which there are never as many: so a buffer holds bytes of the one pattern and of the other by turns, and what
//! an earlier message left is not taken for the next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::trace::Trace;
use crate::error::{Error, Result};
use crate::plan::{GRH_BYTES, MAX_DEPTH, MAX_MEMORY, Op, Plan, Transport};
use crate::session::OpenDevice;

/// Most queue pairs.
pub const MOST_LANES: usize = 256;
/// Longest message that is replayed.
pub const LONGEST: u64 = 64 << 20;
/// Memory for the messages of all lanes, on one side, as long as two messages of each fit.
const MEMORY: u64 = 256 << 20;
/// Most receives that a lane has posted.
const MOST_RECEIVES: u64 = 1023;
/// Requests of one control message.
const CHUNK: usize = 1024;
/// Most requests that a peer may announce.
const MOST_REQUESTS: u64 = 1 << 24;

/// A lane, as both sides see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Its transport.
    pub transport: Transport,
    /// Most requests outstanding.
    pub depth: u32,
    /// From one buffer to the next.
    pub stride: u64,
    /// Receives that the responder keeps posted: an odd number, or none.
    pub receives: u32,
}

impl Lane {
    /// Buffers that messages leave from: an even number.
    #[must_use]
    pub fn outgoing(&self) -> u64 {
        u64::from(self.depth).next_multiple_of(2)
    }

    /// Buffers that results of reads and atomics go to, and as many that writes go to: an odd number.
    #[must_use]
    pub fn results(&self) -> u64 {
        self.outgoing() + 1
    }

    /// Bytes that the device puts before what arrives.
    #[must_use]
    pub fn header(&self) -> u64 {
        if self.transport == Transport::Ud { GRH_BYTES as u64 } else { 0 }
    }

    /// Bytes of the initiator's memory: what leaves, then results.
    #[must_use]
    pub fn initiator_bytes(&self) -> u64 {
        (self.outgoing() + self.results()) * self.stride
    }

    /// Bytes of the responder's memory: receives, then what writes go to, then two buffers to read, then a word for atomics.
    #[must_use]
    pub fn responder_bytes(&self) -> u64 {
        (u64::from(self.receives) + self.results() + 2) * self.stride + 64
    }

    /// Where message `number` leaves from.
    #[must_use]
    pub fn leaves_from(&self, number: u64) -> u64 {
        number % self.outgoing() * self.stride
    }

    /// Where the result of operation `number` goes.
    #[must_use]
    pub fn result_at(&self, number: u64) -> u64 {
        (self.outgoing() + number % self.results()) * self.stride
    }

    /// Where receive `number` is.
    #[must_use]
    pub fn receive_at(&self, number: u64) -> u64 {
        number % u64::from(self.receives.max(1)) * self.stride
    }

    /// Where write `number` goes.
    #[must_use]
    pub fn write_at(&self, number: u64) -> u64 {
        (u64::from(self.receives) + number % self.results()) * self.stride
    }

    /// Where read `number` looks.
    #[must_use]
    pub fn read_at(&self, number: u64) -> u64 {
        (u64::from(self.receives) + self.results() + number % 2) * self.stride
    }

    /// Where the word of the atomics is.
    #[must_use]
    pub fn word_at(&self) -> u64 {
        (u64::from(self.receives) + self.results() + 2) * self.stride
    }
}

/// What the initiator says before it sends the requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// What a replay has in common with other runs: the device, what it pretends, its link, faults, cores and patience.
    pub plan: Plan,
    /// The lanes.
    pub lanes: Vec<Lane>,
    /// How many requests follow.
    pub requests: u64,
}

impl Outline {
    /// Does it make sense, whoever sent it?
    ///
    /// # Errors
    /// [`Error::Usage`] with the first rule it breaks.
    pub fn validate(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::Usage(text));
        if !(1..=MOST_LANES).contains(&self.lanes.len()) || self.requests > MOST_REQUESTS {
            return refuse(format!(
                "a replay of {} requests on {} queue pairs is over the limit of {MOST_REQUESTS} on {MOST_LANES}",
                self.requests,
                self.lanes.len()
            ));
        }
        let mut bytes = 0_u64;
        for lane in &self.lanes {
            let fits = (1..=MAX_DEPTH).contains(&lane.depth)
                && lane.receives <= MAX_DEPTH
                && (64..=LONGEST + 128).contains(&lane.stride)
                && lane.stride.is_multiple_of(64);
            if !fits {
                return refuse(format!("a queue pair of a replay that nobody can make: {lane:?}"));
            }
            bytes = bytes.saturating_add(lane.responder_bytes());
        }
        if bytes > MAX_MEMORY {
            return refuse(format!("a replay in {bytes} bytes of memory is over the limit of {MAX_MEMORY}"));
        }
        Ok(())
    }
}

/// A request, as both sides know it: its lane, its operation, its bytes.
pub type Known = (u16, Op, u32);

/// Whether a request that a peer sent belongs to one of the lanes.
#[must_use]
pub fn is_of(lanes: &[Lane], (lane, op, size): &Known) -> bool {
    lanes.get(usize::from(*lane)).is_some_and(|lane| {
        lane.transport.allows(*op)
            && u64::from(*size) + lane.header() <= lane.stride
            && (!op.is_atomic() || *size == 8)
            && (!op.consumes_receive() || lane.receives > 0)
    })
}

/// A request to be posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// What both sides know.
    pub known: Known,
    /// Which of its lane it is.
    pub number: u64,
    /// It asks for a completion.
    pub signaled: bool,
    /// It asked for one in the trace, and is measured.
    pub measured: bool,
    /// Its bytes are in the request.
    pub inline: bool,
    /// It waits for earlier reads and atomics.
    pub fence: bool,
    /// What it took in the trace.
    pub original_ns: Option<u64>,
}

/// Requests of one doorbell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// When it is due, in nanoseconds from the first one.
    pub due_ns: u64,
    /// Which of the items.
    pub items: std::ops::Range<usize>,
}

/// All that is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The lanes.
    pub lanes: Vec<Lane>,
    /// The requests, in the order of posting.
    pub items: Vec<Item>,
    /// The doorbells.
    pub posts: Vec<Post>,
    /// Requests of the trace that are not among them, by the reason.
    pub passed_over: BTreeMap<String, u64>,
    /// Requests that had their bytes in them and do not here, because the device takes fewer.
    pub not_inline: u64,
    /// Requests that ask for a completion and did not in the trace, because nothing else would free the queue or end the run.
    pub signaled_besides: u64,
}

/// What a device takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message.
    pub max_msg_sz: u32,
    /// Bytes of a datagram.
    pub mtu: u32,
    /// Bytes in a request.
    pub max_inline_data: u32,
    /// Requests in a queue.
    pub max_qp_wr: u32,
}

impl Limits {
    /// Those of a device.
    #[must_use]
    pub fn of(open: &OpenDevice) -> Self {
        let attr = open.device.query_device();
        Self {
            max_msg_sz: open.max_msg_sz,
            mtu: open.mtu,
            max_inline_data: attr.max_inline_data,
            max_qp_wr: attr.max_qp_wr,
        }
    }
}

/// What a lane is made from.
#[derive(Debug, Clone, Copy, Default)]
struct Draft {
    longest: u64,
    receives: bool,
    requests: u64,
    last: usize,
}

impl Workload {
    /// The requests of a trace that a device can do.
    ///
    /// # Errors
    /// None of them can be done.
    pub fn new(trace: &Trace, limits: &Limits) -> Result<Self> {
        let most_bytes = LONGEST.min(limits.max_msg_sz.into());
        let mut work = Self {
            lanes: Vec::new(),
            items: Vec::new(),
            posts: Vec::new(),
            passed_over: trace.passed_over.clone(),
            not_inline: 0,
            signaled_besides: 0,
        };
        let mut lane_of = vec![None; trace.queue_pairs.len()];
        let mut drafts: Vec<(Draft, usize)> = Vec::new();
        for post in &trace.posts {
            let Some(of) = trace.queue_pairs.get(post.queue_pair) else { continue };
            let first = work.items.len();
            for request in &post.requests {
                let limit = if of.transport == Transport::Ud { limits.mtu.into() } else { most_bytes };
                if request.size > limit {
                    work.pass_over(format!(
                        "over {limit} bytes, the longest message here over {}",
                        of.transport
                    ));
                    continue;
                }
                let Some(place) = lane_of.get_mut(post.queue_pair) else { continue };
                if place.is_none() && drafts.len() < MOST_LANES {
                    *place = Some(drafts.len());
                    drafts.push((Draft::default(), post.queue_pair));
                }
                let Some((at, (draft, _))) = place.and_then(|at| Some((at, drafts.get_mut(at)?))) else {
                    work.pass_over(format!("on a queue pair beyond the first {MOST_LANES}"));
                    continue;
                };
                let sends = matches!(request.op, Op::Send | Op::SendImm | Op::Write | Op::WriteImm);
                let inline = request.inline && sends && request.size <= limits.max_inline_data.into();
                work.not_inline += u64::from(request.inline && !inline);
                let number = draft.requests;
                draft.requests += 1;
                draft.longest = draft.longest.max(request.size);
                draft.receives |= request.op.consumes_receive();
                draft.last = work.items.len();
                work.items.push(Item {
                    known: (at as u16, request.op, request.size as u32),
                    number,
                    signaled: request.signaled,
                    measured: request.signaled,
                    inline,
                    fence: request.fence,
                    original_ns: request.latency_ns,
                });
            }
            if work.items.len() > first {
                work.posts.push(Post { due_ns: post.at_ns, items: first..work.items.len() });
            }
        }
        let Some(begin) = work.posts.first().map(|post| post.due_ns) else {
            return Err(Error::Usage(format!(
                "the trace has no request that can be replayed{}",
                work.why_not()
            )));
        };
        work.posts.iter_mut().for_each(|post| post.due_ns -= begin);
        let room = MEMORY / drafts.len() as u64;
        for (draft, queue_pair) in &drafts {
            let transport = trace.queue_pairs.get(*queue_pair).map_or(Transport::Rc, |of| of.transport);
            let wished = trace.queue_pairs.get(*queue_pair).map_or(1, |of| of.max_send_wr);
            let most = limits.max_qp_wr.min(MAX_DEPTH);
            let header = if transport == Transport::Ud { GRH_BYTES as u64 } else { 0 };
            let stride = (draft.longest + header).max(8).next_multiple_of(64);
            let buffers = (room / 4 / stride).max(2);
            let receives = (buffers - 1).min(MOST_RECEIVES).min(draft.requests.max(4)).min(most.into()) | 1;
            work.lanes.push(Lane {
                transport,
                depth: wished.min(most).min(buffers as u32).max(1),
                stride,
                receives: if draft.receives { receives as u32 } else { 0 },
            });
        }
        work.signal(&drafts.iter().map(|(draft, _)| draft.last).collect::<Vec<_>>());
        Ok(work)
    }

    /// Has as many requests ask for completions as it takes to go on.
    fn signal(&mut self, last: &[usize]) {
        let mut silent = vec![0_u32; self.lanes.len()];
        for (at, item) in self.items.iter_mut().enumerate() {
            let lane = usize::from(item.known.0);
            let (Some(silent), Some(depth)) =
                (silent.get_mut(lane), self.lanes.get(lane).map(|lane| lane.depth))
            else {
                continue;
            };
            if !item.signaled && (*silent + 1 >= depth || last.get(lane) == Some(&at)) {
                item.signaled = true;
                self.signaled_besides += 1;
            }
            *silent = if item.signaled { 0 } else { *silent + 1 };
        }
    }

    fn pass_over(&mut self, why: String) {
        *self.passed_over.entry(why).or_default() += 1;
    }

    fn why_not(&self) -> String {
        let reasons = self.passed_over.iter().map(|(why, count)| format!("; {count}: {why}"));
        reasons.collect()
    }

    /// What the responder is told of the requests, in pieces that fit a control message.
    pub fn chunks(&self) -> impl Iterator<Item = Vec<Known>> {
        self.items.chunks(CHUNK).map(|chunk| chunk.iter().map(|item| item.known).collect())
    }
}
