//! Cases of two parties: the near one is an ordinary `Node`, the far one may be in this process or, at the end of a byte stream, on another host with
//! a device of another kind.

mod command;
mod party;
mod wire;

use crate::common::{self, Node, patient};
use command::{Answer, Bytes, Command, Operation};
use party::Party;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::OnceLock;
use tbrdma::{
    Access, AsyncEventKind, Connection, Context, Mtu, QpAddress, QpState, QpType, Qpn, RemoteAddr,
    RemoteRegion, WcStatus, WorkCompletion,
};

pub(crate) use command::Shape;
pub use wire::serve;

/// Where the far party is, if not in this process.
static ELSEWHERE: OnceLock<String> = OnceLock::new();

/// Has the far party of all cases be at this address, where [`serve`] is.
pub fn elsewhere(address: &str) {
    _ = ELSEWHERE.set(address.to_owned());
}

/// Whether it is.
pub fn is_elsewhere() -> bool {
    ELSEWHERE.get().is_some()
}

enum Link {
    Here(Box<Party>),
    There(wire::Wire),
}

/// The far end of a connection, with the methods of a [`Node`].
pub(crate) struct FarNode {
    link: RefCell<Link>,
    address: QpAddress,
    memory: RemoteRegion,
    path_mtu: Mtu,
}

/// Memory that the far party registered apart.
pub(crate) struct FarRegion {
    number: usize,
    pub(crate) remote: RemoteRegion,
}

impl FarNode {
    /// A far end, in a context of its own, or here in this one.
    fn new(qp_type: QpType, shape: Shape, ctx: Option<&Context>) -> Self {
        let mut link = match ELSEWHERE.get() {
            Some(address) => Link::There(wire::Wire::connect(address).unwrap()),
            None => Link::Here(Box::default()),
        };
        let answer = match (&mut link, ctx) {
            (Link::Here(party), Some(ctx)) => {
                party.open(Some(ctx), qp_type.raw(), |init| shape.of(init)).unwrap()
            }
            (link, _) => ask(link, Command::Open { qp_type: qp_type.raw(), shape }),
        };
        let Answer::Opened { address, path_mtu, memory } = answer else { panic!("{answer:?}") };
        Self {
            link: RefCell::new(link),
            address: address.parse().unwrap(),
            memory: memory.into(),
            path_mtu: Mtu::from_raw(path_mtu).unwrap(),
        }
    }

    #[track_caller]
    fn ask(&self, command: Command) -> Answer {
        ask(&mut self.link.borrow_mut(), command)
    }

    /// Its queue pair's address.
    pub(crate) fn address(&self) -> QpAddress {
        self.address
    }

    pub(crate) fn qp_num(&self) -> Qpn {
        self.address.qpn
    }

    /// Its memory.
    pub(crate) fn remote(&self) -> RemoteRegion {
        self.memory
    }

    #[track_caller]
    pub(crate) fn connect(&self, peer: &QpAddress, with: &Connection) {
        self.ask(Command::Connect { peer: peer.to_string(), with: with.into() });
    }

    pub(crate) fn activate_ud(&self, qkey: u32) {
        self.ask(Command::ActivateUd { qkey });
    }

    pub(crate) fn post_recv(&self, id: u64, range: Range<usize>) {
        self.post_recv_list(id, &[range]);
    }

    pub(crate) fn post_recv_list(&self, id: u64, list: &[Range<usize>]) {
        let list = list.iter().map(|range| (range.start, range.len())).collect();
        self.ask(Command::PostRecv { id, list });
    }

    pub(crate) fn post_send(&self, id: u64, range: Range<usize>) {
        self.post(id, range, Operation::Send);
    }

    pub(crate) fn post_send_with_imm(&self, id: u64, range: Range<usize>, imm_data: u32) {
        self.post(id, range, Operation::SendWithImm { imm_data });
    }

    pub(crate) fn post_write(&self, id: u64, range: Range<usize>, remote: RemoteAddr) {
        self.post(id, range, Operation::Write { remote: remote.into() });
    }

    pub(crate) fn post_read(&self, id: u64, range: Range<usize>, remote: RemoteAddr) {
        self.post(id, range, Operation::Read { remote: remote.into() });
    }

    pub(crate) fn post_fetch_and_add(&self, id: u64, range: Range<usize>, remote: RemoteAddr, add: u64) {
        self.post(id, range, Operation::FetchAndAdd { remote: remote.into(), add });
    }

    fn post(&self, id: u64, range: Range<usize>, operation: Operation) {
        self.ask(Command::Post { id, at: range.start, len: range.len(), operation });
    }

    /// The next completion, waited for.
    #[track_caller]
    pub(crate) fn one(&self) -> WorkCompletion {
        let answer = self.ask(Command::Next);
        let Answer::Completion(wc) = answer else { panic!("{answer:?}") };
        wc.into()
    }

    /// The next completion, which must be that of `id` and have ended so.
    #[track_caller]
    pub(crate) fn expect(&self, id: u64, status: WcStatus) -> WorkCompletion {
        let wc = self.one();
        assert_eq!((wc.wr_id, wc.status), (id, status), "the far party: {wc:?}");
        assert_eq!(wc.qp_num, self.qp_num());
        wc
    }

    /// Fails if anything completes there within a short while, or an event is there.
    #[track_caller]
    pub(crate) fn expect_nothing(&self) {
        let answer = self.ask(Command::Nothing);
        let Answer::Said(said) = &answer else { panic!("{answer:?}") };
        assert_eq!(said, "", "nothing should have happened at the far party");
    }

    #[track_caller]
    pub(crate) fn expect_event(&self, kind: AsyncEventKind) {
        let answer = self.ask(Command::Event);
        let Answer::Said(said) = &answer else { panic!("{answer:?}") };
        assert_eq!(*said, kind.to_string(), "the event of the far party");
    }

    pub(crate) fn bytes(&self, range: Range<usize>) -> Vec<u8> {
        self.read(None, range)
    }

    /// Bytes of a region registered apart.
    pub(crate) fn bytes_of(&self, region: &FarRegion, range: Range<usize>) -> Vec<u8> {
        self.read(Some(region.number), range)
    }

    fn read(&self, region: Option<usize>, range: Range<usize>) -> Vec<u8> {
        let answer = self.ask(Command::Read { region, at: range.start, len: range.len() });
        let Answer::Bytes(bytes) = answer else { panic!("{answer:?}") };
        bytes.0
    }

    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        self.ask(Command::Write { region: None, at, bytes: Bytes(bytes.to_vec()) });
    }

    pub(crate) fn fill(&self, range: Range<usize>, byte: u8) {
        self.ask(Command::Fill { at: range.start, len: range.len(), byte });
    }

    pub(crate) fn load_u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.bytes(at..at + 8).try_into().unwrap())
    }

    pub(crate) fn store_u64(&self, at: usize, value: u64) {
        self.write(at, &value.to_ne_bytes());
    }

    /// Registers memory apart, in the queue pair's domain or one of its own.
    pub(crate) fn register(&self, len: usize, access: Access, own_domain: bool) -> FarRegion {
        let answer = self.ask(Command::Register { len, access: access.bits(), own_domain });
        let Answer::Region { number, region } = answer else { panic!("{answer:?}") };
        FarRegion { number, remote: region.into() }
    }

    pub(crate) fn deregister(&self, region: &FarRegion) {
        self.ask(Command::Deregister { region: region.number });
    }

    pub(crate) fn state(&self) -> QpState {
        let answer = self.ask(Command::State);
        let Answer::State(state) = answer else { panic!("{answer:?}") };
        QpState::from_raw(state).unwrap()
    }

    #[track_caller]
    pub(crate) fn await_state(&self, state: QpState) {
        common::eventually("the state of the far queue pair", || self.state() == state);
    }

    pub(crate) fn to_error(&self) {
        self.ask(Command::ToError);
    }

    pub(crate) fn reset(&self) {
        self.ask(Command::Reset);
    }

    /// Ends its queue pair, and all that is with it.
    pub(crate) fn destroy(&self) {
        self.ask(Command::Destroy);
    }
}

/// Asks, and fails where it could not be done.
#[track_caller]
fn ask(link: &mut Link, command: Command) -> Answer {
    let answer = match link {
        Link::Here(party) => party.answer(command),
        Link::There(wire) => wire.ask(&command).unwrap(),
    };
    if let Answer::Failed(why) = &answer {
        panic!("the far party: {why}");
    }
    answer
}

fn kind(qp_type: &str) -> QpType {
    if qp_type == "rc" { QpType::Rc } else { QpType::Uc }
}

/// A near and a far end, of type "rc" or "uc", not connected yet.
pub(crate) fn ends(qp_type: &str, shape: Shape) -> (Node, FarNode) {
    let qp_type = kind(qp_type);
    (Node::with(qp_type, |init| shape.of(init)), FarNode::new(qp_type, shape, None))
}

/// These attributes, in packets that both ports carry.
pub(crate) fn fitting(near: &Node, far: &FarNode, with: &Connection) -> Connection {
    let mut with = *with;
    let ports = [near.ctx.query_port(1).unwrap().active_mtu, far.path_mtu];
    with.path_mtu = ports.into_iter().chain([with.path_mtu]).min_by_key(|mtu| mtu.bytes()).unwrap();
    with
}

/// Connects them, with these attributes on both sides.
#[track_caller]
pub(crate) fn join(near: &mut Node, far: &FarNode, with: &Connection) {
    let with = fitting(near, far, with);
    near.qp.connect_with(&far.address(), &with).unwrap();
    far.connect(&near.qp.address(), &with);
}

/// Two connected ends.
pub(crate) fn pair(qp_type: &str) -> (Node, FarNode) {
    pair_with(qp_type, Shape::default(), &patient())
}

/// Two connected ends whose queue pairs are made to measure.
pub(crate) fn pair_shaped(qp_type: &str, shape: Shape) -> (Node, FarNode) {
    pair_with(qp_type, shape, &patient())
}

/// Two connected ends, their queue pairs and their connection made to measure.
pub(crate) fn pair_with(qp_type: &str, shape: Shape, with: &Connection) -> (Node, FarNode) {
    let (mut near, far) = ends(qp_type, shape);
    join(&mut near, &far, with);
    (near, far)
}

/// Connected ends in every constellation there is: two contexts and, in one process, two queue pairs of one context.
pub(crate) fn pairs(qp_type: &str, shape: Shape) -> Vec<(Node, FarNode)> {
    let mut all = vec![pair_shaped(qp_type, shape)];
    if !is_elsewhere() {
        let ctx = common::open().unwrap();
        let mut near = Node::of(&ctx, kind(qp_type), |init| shape.of(init));
        let far = FarNode::new(kind(qp_type), shape, Some(&ctx));
        join(&mut near, &far, &patient());
        all.push((near, far));
    }
    all
}

/// Datagram ends with this Q_Key.
pub(crate) fn datagram_ends(qkey: u32) -> (Node, FarNode) {
    let (mut near, far) = (Node::new(QpType::Ud), FarNode::new(QpType::Ud, Shape::default(), None));
    near.qp.activate_ud(qkey).unwrap();
    far.activate_ud(qkey);
    (near, far)
}
