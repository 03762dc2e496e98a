//! A peer of the software NIC whose packets are made by hand: a plain UDP socket at an address of loopback's that is nobody's.
//!
//! It asks ([`Hand::ask`]) until there is an answer and serves ([`Hand::serve`]) until there is a completion, because where devices come and go at
//! an address, a datagram may be lost: a packet may come twice, and what is counted is then a bound from below.
#![allow(dead_code, reason = "each test file uses its own part")]

use crate::common::{self, Node, patience};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tbrdma::{Connection, Context, Gid, Mtu, Psn, QpAddress, QpType, Qpn, RemoteAddr, WorkCompletion};
use tbrdma_proto::wire::icrc::{self, Flow, IdentHint};
use tbrdma_proto::wire::{
    Aeth, AtomicEth, Bth, Headers, MAX_HEADER_BYTES, NakCode, Packet, PacketOpcode, ROCE_UDP_PORT, Reth,
    Syndrome,
};

/// The device that it is a peer of.
pub(crate) const DEVICE: &str = "udp:lo";
/// Bytes of a packet, so that small messages have several.
pub(crate) const MTU: usize = 256;
/// The queue pair that it says it is.
const QPN: u32 = 0x4a_11d5;
/// Its first PSN.
pub(crate) const PSN: u32 = 0xff_fffd;
/// After so long without an answer a request is asked again.
const AGAIN: Duration = Duration::from_millis(300);
/// How long it listens for what must not come.
pub(crate) const QUIET: Duration = Duration::from_millis(30);

/// A node on the software NIC, with a queue pair that is not connected yet.
pub(crate) fn node(qp_type: QpType) -> Node {
    Node::of(&tbrdma::open(DEVICE).unwrap(), qp_type, |init| init)
}

/// A counter of a device.
pub(crate) fn counter(ctx: &Context, name: &str) -> u64 {
    ctx.counters().into_iter().find(|(known, _)| *known == name).unwrap().1
}

/// A connection over which a peer is made by hand: packets are short.
pub(crate) fn connection(change: impl FnOnce(&mut Connection)) -> Connection {
    common::connection(|with| {
        with.path_mtu = Mtu::B256;
        change(with);
    })
}

/// The peer.
pub(crate) struct Hand {
    socket: UdpSocket,
    /// What the iCRC of its packets begins with, and of those it gets.
    flow: Flow,
    device: SocketAddr,
    /// The node's queue pair.
    dest_qpn: Qpn,
    service: QpType,
    /// The first PSN of the node.
    pub(crate) theirs: Psn,
}

impl Hand {
    /// Connects the queue pair of a node to a peer that does nothing of itself.
    pub(crate) fn of(node: &mut Node) -> Self {
        Self::with(node, &connection(|_| {}))
    }

    /// The same over a connection made to measure.
    pub(crate) fn with(node: &mut Node, with: &Connection) -> Self {
        // Tests run beside each other, in this process and in others.
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let [low, high] = (std::process::id() as u16).to_le_bytes();
        let free = |_| {
            let last = NEXT.fetch_add(1, Ordering::Relaxed) % 254 + 1;
            UdpSocket::bind((Ipv4Addr::new(127, high | 0x80, low, last as u8), ROCE_UDP_PORT)).ok()
        };
        let socket = (0..254).find_map(free).expect("an address of loopback's that is nobody's");
        let own = socket.local_addr().unwrap();
        let device = SocketAddr::from((Ipv4Addr::LOCALHOST, ROCE_UDP_PORT));
        let SocketAddr::V4(v4) = own else { panic!("{own} is an IPv4 address") };
        let address = QpAddress {
            gid: Gid::from_ipv4_mapped(*v4.ip()),
            lid: 0,
            qpn: Qpn::new(QPN).unwrap(),
            psn: Psn::masked(PSN),
        };
        node.qp.connect_with(&address, with).unwrap();
        Self {
            flow: Flow::new(own, device).unwrap(),
            socket,
            device,
            dest_qpn: node.qp.qp_num(),
            service: node.qp.qp_type(),
            theirs: node.qp.address().psn,
        }
    }

    /// A packet, so far without extended headers and payload. `at` counts from our first PSN in a request, and from theirs in an answer.
    pub(crate) fn packet(&self, opcode: PacketOpcode, at: i32) -> Made {
        let first =
            if opcode.is_request() || self.service != QpType::Rc { Psn::masked(PSN) } else { self.theirs };
        Made {
            headers: Headers::new(Bth::new(
                opcode,
                self.dest_qpn,
                Psn::masked(first.get().wrapping_add_signed(at)),
            )),
            payload: Vec::new(),
        }
    }

    /// An acknowledgement of their packet `at`.
    pub(crate) fn answer(&self, at: i32, syndrome: Syndrome) -> Made {
        self.packet(PacketOpcode::RcAcknowledge, at).aeth(syndrome)
    }

    /// A positive one.
    pub(crate) fn ack(&self, at: i32) -> Made {
        self.answer(at, ACK)
    }

    /// A refusal.
    pub(crate) fn nak(&self, at: i32, code: NakCode) -> Made {
        self.answer(at, Syndrome::Nak(code))
    }

    /// The place among their PSNs.
    pub(crate) fn at(&self, psn: Psn) -> i32 {
        psn.distance_from(self.theirs)
    }

    /// Sends a packet with the right iCRC.
    pub(crate) fn send(&self, made: &Made) {
        self.send_bytes(&self.seal(made));
    }

    /// The bytes of a packet, its iCRC included.
    pub(crate) fn seal(&self, made: &Made) -> Vec<u8> {
        let mut headers = [0; MAX_HEADER_BYTES];
        let len = made.headers.encode(&mut headers);
        let mut bytes = headers[..len].to_vec();
        bytes.extend(&made.payload);
        bytes.resize(bytes.len().next_multiple_of(4) + icrc::ICRC_BYTES, 0);
        self.seal_bytes(&mut bytes);
        bytes
    }

    /// Makes the last four bytes the iCRC of those before them.
    pub(crate) fn seal_bytes(&self, bytes: &mut [u8]) {
        icrc::seal(&self.flow, 0, bytes).unwrap();
    }

    /// Sends any bytes.
    pub(crate) fn send_bytes(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.device).unwrap();
    }

    /// Sends a packet until the device has counted one more of it.
    #[track_caller]
    pub(crate) fn deliver(&self, node: &Node, name: &str, bytes: &[u8]) {
        let before = counter(&node.ctx, name);
        let begun = Instant::now();
        while counter(&node.ctx, name) == before {
            assert!(begun.elapsed() < patience(), "{name}: not within {:?}", patience());
            self.send_bytes(bytes);
            let sent = Instant::now();
            while sent.elapsed() < AGAIN && counter(&node.ctx, name) == before {
                std::thread::yield_now();
            }
        }
    }

    /// Sends a packet until its queue pair has got it.
    #[track_caller]
    pub(crate) fn tell(&self, node: &Node, made: &Made) {
        self.deliver(node, "rcvd_pkts", &self.seal(made));
    }

    /// The next packet, if one comes in time.
    pub(crate) fn hear(&self, patience: Duration) -> Option<Heard> {
        let mut bytes = [0; 8192];
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let (len, from) = self.socket.recv_from(&mut bytes).ok()?;
        assert_eq!(from.ip(), self.device.ip());
        let flow = Flow::new(from, self.socket.local_addr().unwrap()).unwrap();
        icrc::verify(&flow, IdentHint::Unknown, &bytes[..len]).unwrap();
        let packet = Packet::parse(&bytes[..len]).unwrap();
        assert_eq!(packet.headers.bth.dest_qpn.get(), QPN);
        Some(Heard { headers: packet.headers, payload: packet.payload.to_vec() })
    }

    /// Fails if a packet comes within a short while.
    #[track_caller]
    pub(crate) fn hear_nothing(&self) {
        let heard = self.hear(QUIET);
        assert!(heard.is_none(), "nothing should be said: {heard:?}");
    }

    /// Sends these requests, again and again until there is an answer to the last, which is returned. The last must ask for one.
    #[track_caller]
    pub(crate) fn ask(&self, requests: &[Made]) -> Heard {
        let last = requests.last().unwrap().headers.bth.psn;
        // A later number stands for all before it.
        let is_answer = |heard: &Heard| heard.psn().distance_from(last) >= 0 || heard.is_refusal();
        while self.hear(Duration::from_micros(1)).is_some() {}
        let begun = Instant::now();
        loop {
            requests.iter().for_each(|request| self.send(request));
            let asked = Instant::now();
            while let Some(left) = AGAIN.checked_sub(asked.elapsed()).filter(|left| !left.is_zero()) {
                if let Some(heard) = self.hear(left).filter(is_answer) {
                    return heard;
                }
            }
            assert!(begun.elapsed() < patience(), "no answer within {:?}", patience());
        }
    }

    /// Answers each packet of the node's as `answer` says, until the node has a completion.
    #[track_caller]
    pub(crate) fn serve(
        &self,
        node: &Node,
        mut answer: impl FnMut(&Self, &Heard) -> Vec<Made>,
    ) -> WorkCompletion {
        let begun = Instant::now();
        let mut wcs = [WorkCompletion::default()];
        loop {
            if let [wc] = node.cq.poll(&mut wcs) {
                return *wc;
            }
            if let Some(heard) = self.hear(Duration::from_millis(1)) {
                answer(self, &heard).iter().for_each(|made| self.send(made));
            }
            assert!(begun.elapsed() < patience(), "no completion within {:?}", patience());
        }
    }
}

/// The syndrome of an acknowledgement that says nothing of credits.
pub(crate) const ACK: Syndrome = Syndrome::Ack { credits: 31 };

/// A packet to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) headers: Headers,
    pub(crate) payload: Vec<u8>,
}

impl Made {
    /// It asks to be acknowledged.
    pub(crate) fn asking(mut self) -> Self {
        self.headers.bth.ack_req = true;
        self
    }

    pub(crate) fn payload(mut self, bytes: &[u8]) -> Self {
        self.headers.bth.pad = (bytes.len().wrapping_neg() & 3) as u8;
        self.payload = bytes.to_vec();
        self
    }

    pub(crate) fn reth(mut self, remote: RemoteAddr, length: u32) -> Self {
        self.headers.reth = Some(Reth { addr: remote.addr, rkey: remote.rkey, length });
        self
    }

    pub(crate) fn atomic(mut self, remote: RemoteAddr, swap_add: u64, compare: u64) -> Self {
        self.headers.atomic_eth = Some(AtomicEth { addr: remote.addr, rkey: remote.rkey, swap_add, compare });
        self
    }

    pub(crate) fn old(mut self, value: u64) -> Self {
        self.headers.atomic_ack_eth = Some(value);
        self
    }

    pub(crate) fn aeth(mut self, syndrome: Syndrome) -> Self {
        self.headers.aeth = Some(Aeth { syndrome, msn: 0 });
        self
    }
}

/// A packet that came.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) headers: Headers,
    pub(crate) payload: Vec<u8>,
}

impl Heard {
    pub(crate) fn opcode(&self) -> PacketOpcode {
        self.headers.bth.opcode
    }

    pub(crate) fn psn(&self) -> Psn {
        self.headers.bth.psn
    }

    pub(crate) fn syndrome(&self) -> Option<Syndrome> {
        Some(self.headers.aeth?.syndrome)
    }

    /// Whether it is a positive acknowledgement, and nothing but.
    pub(crate) fn is_ack(&self) -> bool {
        self.opcode() == PacketOpcode::RcAcknowledge && matches!(self.syndrome(), Some(Syndrome::Ack { .. }))
    }

    /// Why it refuses.
    pub(crate) fn nak(&self) -> Option<NakCode> {
        match self.syndrome()? {
            Syndrome::Nak(code) => Some(code),
            _ => None,
        }
    }

    fn is_refusal(&self) -> bool {
        matches!(self.syndrome(), Some(Syndrome::Nak(_) | Syndrome::RnrNak { .. }))
    }
}
