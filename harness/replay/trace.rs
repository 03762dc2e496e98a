//! The trace that `tbrdma-run --trace` writes (`tools/ibverbs/watch/trace.rs`), as far as a replay needs it: queue pairs, send requests, and when
//! each was posted and had completed.
//!
//! A line is `SECONDS [THREAD] CALL(ARGUMENTS) = RESULT <SECONDS THE CALL TOOK>`; what a call was given and what it found stands below it, indented.
//! Whatever else a trace holds is passed over. Nothing that a file may hold is an error but that it has no line of a trace.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::BufRead;

use crate::plan::{Op, Transport};

/// Most requests that are taken from a trace.
const MOST_REQUESTS: usize = 1 << 24;
/// Most requests of a queue pair that may have no completion yet: more than any queue takes.
const MOST_OPEN: usize = 1 << 16;
/// Longest line that is looked at.
const MAX_LINE: u64 = 64 << 10;

/// What a trace says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// The devices that the program opened, in that order.
    pub devices: Vec<String>,
    /// Queue pairs, in the order in which they were made.
    pub queue_pairs: Vec<QueuePair>,
    /// Lists of requests, in the order of their doorbells.
    pub posts: Vec<Post>,
    /// Requests that no replay can post, by the reason.
    pub passed_over: BTreeMap<String, u64>,
    /// Lines of a trace.
    pub lines: u64,
    /// Lines of nothing that is known.
    pub strange: u64,
}

/// A queue pair of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePair {
    /// Its transport.
    pub transport: Transport,
    /// What its send queue took.
    pub max_send_wr: u32,
    /// Every request asks for a completion.
    pub sq_sig_all: bool,
}

/// Requests that were posted with one doorbell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// When the call began, in nanoseconds from the begin of the trace.
    pub at_ns: u64,
    /// Which of the queue pairs.
    pub queue_pair: usize,
    /// What was on the list.
    pub requests: Vec<Request>,
}

/// A request that can be posted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The operation.
    pub op: Op,
    /// Bytes of the message.
    pub size: u64,
    /// Whether it asked for a completion.
    pub signaled: bool,
    /// Whether its bytes were in the request.
    pub inline: bool,
    /// Whether it waited for earlier reads and atomics.
    pub fence: bool,
    /// From the begin of the call that posted it to the end of the poll that found its completion, which was a success.
    pub latency_ns: Option<u64>,
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    /// Why it cannot be read, or that it is none.
    pub fn read(mut text: impl BufRead) -> Result<Self, String> {
        let mut reader = Reader::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = std::io::Read::take(&mut text, MAX_LINE).read_until(b'\n', &mut line);
            match read.map_err(|error| error.to_string())? {
                0 => break,
                _ => reader.line(String::from_utf8_lossy(&line).trim_end()),
            }
        }
        if reader.trace.lines == 0 {
            return Err("it has no line of a trace: those are written by tbrdma-run --trace".to_owned());
        }
        Ok(reader.finish())
    }

    /// A trace in memory.
    ///
    /// # Errors
    /// That it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::read(text.as_bytes())
    }

    /// Requests that can be posted again.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.posts.iter().map(|post| post.requests.len()).sum()
    }
}

/// A call whose details are being read.
#[derive(Debug, Clone, Copy)]
enum Call {
    /// It has posted this list, with the requests below it.
    Posts(usize),
    /// It builds the list of this queue pair.
    Builds(u64),
    /// It has found completions, at this time.
    Polled(u64),
    /// Requests below it were posted in part, or not at all.
    Refused,
    /// What is below it does not matter.
    Other,
}

/// A request that may not have completed: where it is, and by what its completion is known.
#[derive(Debug, Clone, Copy)]
struct Open {
    wr_id: u64,
    at_ns: u64,
    post: usize,
    position: usize,
}

/// What a line of a request says.
enum Said {
    Known(u64, Request),
    Foreign(String),
}

#[derive(Default)]
struct Reader {
    trace: Trace,
    /// The latest queue pair with a number.
    numbers: HashMap<u64, usize>,
    /// Lists that are being built, by the number of their queue pair.
    building: HashMap<u64, Vec<Said>>,
    /// By queue pair.
    open: Vec<VecDeque<Open>>,
    /// By thread.
    calls: HashMap<u64, Call>,
    requests: usize,
}

impl Reader {
    fn line(&mut self, line: &str) {
        let Some((time_ns, thread, rest)) = stamped(line) else {
            self.trace.strange += u64::from(!line.is_empty());
            return;
        };
        self.trace.lines += 1;
        match rest.strip_prefix("    ") {
            Some(detail) => self.detail(self.calls.get(&thread).copied().unwrap_or(Call::Other), detail),
            None => {
                let call = self.call(time_ns, rest);
                self.calls.insert(thread, call);
            }
        }
    }

    fn call(&mut self, time_ns: u64, text: &str) -> Call {
        let (text, took_ns) = match text.rsplit_once(" <") {
            Some((before, took)) => (before, took.strip_suffix('>').and_then(nanoseconds).unwrap_or(0)),
            None => (text, 0),
        };
        let began_ns = time_ns.saturating_sub(took_ns);
        let Some((name, rest)) = text.split_once('(') else { return Call::Other };
        // Newer releases of the library may say ibv_ before all names.
        let name = name.trim_start_matches("ibv_");
        let has_failed = rest.contains(") failed: ");
        match name {
            "open_device" if !has_failed => {
                self.trace.devices.extend(argument(rest, "device=").map(str::to_owned));
            }
            "create_qp" | "create_qp_ex" => self.create(rest),
            "poll_cq" | "start_poll" | "next_poll" => return Call::Polled(time_ns),
            "post_send" if has_failed => return Call::Refused,
            "post_send" => return self.post(number(rest), began_ns),
            "start" => {
                self.building.insert(number(rest), Vec::new());
            }
            "complete" => {
                let number = number(rest);
                let list = self.building.remove(&number).unwrap_or_default();
                let call = if has_failed { Call::Refused } else { self.post(number, began_ns) };
                list.into_iter().for_each(|said| self.requested(call, said));
                return call;
            }
            "abort" => {
                self.building.remove(&number(rest));
            }
            _ if self.building.contains_key(&number(rest)) => return Call::Builds(number(rest)),
            _ => {}
        }
        Call::Other
    }

    /// `pd=PD 0, init={Rc, send_cq CQ 0, ..., max_send_wr 1, ...}) = QP 0x11`
    fn create(&mut self, text: &str) {
        let Some((arguments, result)) = text.rsplit_once(") = QP ") else { return };
        let transport = match argument(arguments, "init={") {
            Some("Rc") => Transport::Rc,
            Some("Uc") => Transport::Uc,
            Some("Ud") => Transport::Ud,
            _ => return,
        };
        let value = |name| argument(arguments, name).and_then(|word| word.trim_end_matches('}').parse().ok());
        let Some(number) = integer(result) else { return };
        self.numbers.insert(number, self.trace.queue_pairs.len());
        self.open.push(VecDeque::new());
        self.trace.queue_pairs.push(QueuePair {
            transport,
            max_send_wr: value("max_send_wr ").unwrap_or(1).max(1),
            sq_sig_all: value("sq_sig_all ").unwrap_or(0) != 0,
        });
    }

    fn post(&mut self, number: u64, at_ns: u64) -> Call {
        match self.numbers.get(&number) {
            Some(&queue_pair) => {
                self.trace.posts.push(Post { at_ns, queue_pair, requests: Vec::new() });
                Call::Posts(self.trace.posts.len() - 1)
            }
            None => Call::Refused,
        }
    }

    fn detail(&mut self, call: Call, text: &str) {
        match call {
            Call::Posts(_) | Call::Refused => {
                if let Some(said) = request(text) {
                    self.requested(call, said);
                }
            }
            Call::Builds(number) => {
                if let (Some(said), Some(list)) = (request(text), self.building.get_mut(&number)) {
                    list.push(said);
                }
            }
            Call::Polled(time_ns) => self.completion(time_ns, text),
            Call::Other => {}
        }
    }

    fn requested(&mut self, call: Call, said: Said) {
        let Call::Posts(at) = call else {
            return self
                .pass_over("posted in a call that failed, or on a queue pair that the trace does not make");
        };
        if self.requests == MOST_REQUESTS {
            return self.pass_over("behind the first 16777216");
        }
        let Some(post) = self.trace.posts.get_mut(at) else { return };
        let queue_pair = post.queue_pair;
        let Some(of) = self.trace.queue_pairs.get(queue_pair) else { return };
        match said {
            Said::Foreign(opcode) => self.pass_over(&format!("{opcode}, which a replay does not post")),
            Said::Known(_, request) if !of.transport.allows(request.op) => {
                let why = format!("{} over {}, which has none", request.op, of.transport);
                self.pass_over(&why);
            }
            Said::Known(wr_id, mut request) => {
                request.signaled |= of.sq_sig_all;
                let open = Open { wr_id, at_ns: post.at_ns, post: at, position: post.requests.len() };
                post.requests.push(request);
                self.requests += 1;
                if request.signaled
                    && let Some(list) = self.open.get_mut(queue_pair)
                {
                    if list.len() == MOST_OPEN {
                        list.pop_front();
                    }
                    list.push_back(open);
                }
            }
        }
    }

    /// `completion on QP 0x11: Send Success, wr_id 7, 64 bytes`
    fn completion(&mut self, time_ns: u64, text: &str) {
        let Some(rest) = text.strip_prefix("completion on QP ") else { return };
        let Some((number, rest)) = rest.split_once(": ") else { return };
        let (opcode, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let wr_id = argument(rest, "wr_id ").and_then(integer);
        let queue_pair = integer(number).and_then(|number| self.numbers.get(&number));
        let (Some(wr_id), Some(&queue_pair)) = (wr_id, queue_pair) else { return };
        let has_succeeded = rest.starts_with("Success");
        // Of a completion that failed, the operation is not known; it may be a receive's.
        if !has_succeeded || opcode.starts_with("Recv") {
            return;
        }
        let Some(list) = self.open.get_mut(queue_pair) else { return };
        let Some(at) = list.iter().position(|open| open.wr_id == wr_id) else { return };
        // Those before it have failed, or were not polled.
        let found = list.drain(..=at).next_back();
        if let Some(open) = found
            && let Some(post) = self.trace.posts.get_mut(open.post)
            && let Some(request) = post.requests.get_mut(open.position)
        {
            request.latency_ns = Some(time_ns.saturating_sub(open.at_ns));
        }
    }

    fn pass_over(&mut self, why: &str) {
        match self.trace.passed_over.get_mut(why) {
            Some(count) => *count += 1,
            None => {
                self.trace.passed_over.insert(why.to_owned(), 1);
            }
        }
    }

    fn finish(mut self) -> Trace {
        self.trace.posts.retain(|post| !post.requests.is_empty());
        // Threads write when their calls have ended.
        self.trace.posts.sort_by_key(|post| post.at_ns);
        self.trace
    }
}

/// `wr_id 7: RdmaWrite SIGNALED | INLINE, peer's 0x1000 (rkey 0x5), 8 bytes at 0x2000 (lkey 0x6)`
fn request(text: &str) -> Option<Said> {
    let (wr_id, rest) = text.strip_prefix("wr_id ")?.split_once(": ")?;
    let wr_id = wr_id.parse().ok()?;
    let head = rest.split(", ").next()?;
    let (opcode, flags) = head.split_once(' ').unwrap_or((head, ""));
    let op = match opcode {
        "Send" => Op::Send,
        "SendWithImm" => Op::SendImm,
        "RdmaWrite" => Op::Write,
        "RdmaWriteWithImm" => Op::WriteImm,
        "RdmaRead" => Op::Read,
        "AtomicCmpAndSwp" => Op::Cas,
        "AtomicFetchAndAdd" => Op::Faa,
        _ => {
            let known = opcode.chars().all(|letter| letter.is_ascii_alphanumeric()) && opcode.len() < 32;
            return Some(Said::Foreign(if known { opcode } else { "an operation" }.to_owned()));
        }
    };
    let mut size = 0_u64;
    let mut before = "";
    for word in rest.split([' ', ',']) {
        if word == "bytes" {
            size = size.saturating_add(before.parse().unwrap_or(0));
        }
        before = word;
    }
    let has = |flag| flags.split(" | ").any(|one| one == flag);
    Some(Said::Known(
        wr_id,
        Request {
            op,
            size: if op.is_atomic() { 8 } else { size },
            signaled: has("SIGNALED"),
            inline: has("INLINE") || rest.ends_with("bytes inline"),
            fence: has("FENCE"),
            latency_ns: None,
        },
    ))
}

/// Time, thread, and the rest of a line.
fn stamped(line: &str) -> Option<(u64, u64, &str)> {
    let (seconds, rest) = line.split_once(" [")?;
    let (thread, rest) = rest.split_once("] ")?;
    Some((nanoseconds(seconds)?, thread.parse().ok()?, rest))
}

/// Seconds with a fraction.
fn nanoseconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<9}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(fraction)
}

/// What follows a name, up to a comma or the end.
fn argument<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(name)?;
    rest.split([',', ')']).next().map(str::trim)
}

/// The number of a call's queue pair; 0 if it has none.
fn number(text: &str) -> u64 {
    argument(text, "qp=QP ").and_then(integer).unwrap_or(0)
}

fn integer(text: &str) -> Option<u64> {
    match text.trim().strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.trim().parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Op, Trace, Transport};

    const TRACE: &str = "\
0.000100000 [7] ibv_open_device(device=mlx5_0) = mlx5_0 <0.000050000>
0.000200000 [7] ibv_create_qp(pd=PD 0, init={Rc, send_cq CQ 0, recv_cq CQ 1, srq NULL, max_send_wr 8, max_recv_wr 2, max_send_sge 1, max_recv_sge 1, max_inline_data 0, sq_sig_all 0}) = QP 0x11 <0.000010000>
0.001005000 [7] post_send(qp=QP 0x11, first=0x1, bad=0x2) = 0 <0.000005000>
0.001006000 [7]     wr_id 3: RdmaWriteWithImm SIGNALED | FENCE, peer's 0x10 (rkey 0x5), imm 0x7, 60 bytes at 0x1 (lkey 0x2) + 4 bytes at 0x9 (lkey 0x2)
0.001007000 [8] query_port(context=mlx5_0, port=1, attr=0x1, room=52) = 0 <0.000001000>
0.001008000 [7]     wr_id 4: Send, no bytes
0.001009000 [7] poll_cq(cq=CQ 0, room=1, to=0x1) = 1 <0.000001000>
0.001010000 [7]     completion on QP 0x000011: RdmaWrite Success, wr_id 3, 64 bytes
0.002000000 [7] start(qp=QP 0x11) <0.000001000>
0.002001000 [7] rdma_read(qp=QP 0x11, rkey=1, remote_addr=2) <0.000001000>
0.002002000 [7] send_inv(qp=QP 0x11, rkey=1) <0.000001000>
0.002003000 [7]     wr_id 5: RdmaRead SIGNALED, peer's 0x10 (rkey 0x5), 8 bytes at 0x1 (lkey 0x2)
0.002005000 [7] complete(qp=QP 0x11) = 0 <0.000002000>
0.002006000 [7]     wr_id 6: SendWithInv, key 0x5, 8 bytes inline
0.003000000 [7] post_send(qp=QP 0x11, first=0x1, bad=0x2) failed: ENOMEM: no memory <0.000001000>
0.003001000 [7]     wr_id 9: Send, 8 bytes at 0x1 (lkey 0x2)
what is this
";

    #[test]
    fn requests_are_read_with_their_times_and_what_cannot_be_posted_is_counted() {
        let trace = Trace::parse(TRACE).unwrap();
        assert_eq!(trace.devices, ["mlx5_0"]);
        assert_eq!((trace.queue_pairs.len(), trace.queue_pairs[0].transport), (1, Transport::Rc));
        assert_eq!(trace.queue_pairs[0].max_send_wr, 8);
        let [first, second] = &trace.posts[..] else { panic!("{trace:?}") };
        assert_eq!((first.at_ns, second.at_ns), (1_000_000, 2_003_000));
        let what =
            |at: usize| first.requests.get(at).map(|one| (one.op, one.size, one.signaled, one.latency_ns));
        assert_eq!(what(0), Some((Op::WriteImm, 64, true, Some(9_000))));
        assert!(first.requests[0].fence);
        assert_eq!(what(1), Some((Op::Send, 0, false, None)));
        assert_eq!((second.requests.len(), second.requests[0].op), (1, Op::Read));
        assert_eq!(trace.passed_over.values().sum::<u64>(), 2, "{trace:?}");
        assert_eq!(trace.strange, 1);
    }

    #[test]
    fn a_text_that_is_no_trace_is_refused() {
        assert!(Trace::parse("").is_err() && Trace::parse("schema = 1\n").is_err());
    }
}
