//! UDP sockets for RoCEv2: unconnected, at one address, with the options without which an invariant CRC cannot be right.
//!
//! Names and control messages are read and written as bytes here: their layouts are the kernel's, and so nothing but the calls
//! themselves is unsafe.

mod batch;

pub(crate) use batch::{BATCH, ReceiveBatch};

use nix::errno::Errno;
use nix::libc;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Bytes of the largest UDP datagram, or train of datagrams, that the kernel hands out at once, rounded up.
pub(crate) const MESSAGE_BYTES: usize = 65_536;

/// Bytes of a socket address of either family.
const NAME_BYTES: usize = size_of::<libc::sockaddr_in6>();

/// Room for the control messages we ask for, and some.
pub(crate) const CONTROL_BYTES: usize = 128;

/// How much we ask the kernel to queue for a socket (it grants twice that). Memory is used only for what waits there: many long messages on UC,
/// which nothing holds back, while their receiver waits for a core.
const QUEUE_BYTES: libc::c_int = 128 << 20;

/// Options that libc does not name on every target.
const UDP_NO_CHECK6_RX: libc::c_int = 102;
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;

/// One end of a UDP exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// The IP address.
    pub(crate) ip: IpAddr,
    /// The port.
    pub(crate) port: u16,
    /// The interface, for a link-local IPv6 address; else 0.
    pub(crate) scope: u32,
}

/// An address as the kernel takes it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Name {
    bytes: [u8; NAME_BYTES],
    len: u32,
}

impl Name {
    const EMPTY: Self = Self { bytes: [0; NAME_BYTES], len: NAME_BYTES as u32 };

    fn new(address: Address) -> Self {
        let mut name = Self::EMPTY;
        let (family, len) = match address.ip {
            IpAddr::V4(ip) => {
                name.bytes[4..8].copy_from_slice(&ip.octets());
                (libc::AF_INET, size_of::<libc::sockaddr_in>())
            }
            IpAddr::V6(ip) => {
                name.bytes[8..24].copy_from_slice(&ip.octets());
                name.bytes[24..28].copy_from_slice(&address.scope.to_ne_bytes());
                (libc::AF_INET6, NAME_BYTES)
            }
        };
        name.bytes[0..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
        name.bytes[2..4].copy_from_slice(&address.port.to_be_bytes());
        name.len = len as u32;
        name
    }

    fn address(&self) -> Option<Address> {
        let [f0, f1, p0, p1, a, b, c, d, ..] = self.bytes;
        let port = u16::from_be_bytes([p0, p1]);
        match libc::c_int::from(u16::from_ne_bytes([f0, f1])) {
            libc::AF_INET => Some(Address { ip: Ipv4Addr::new(a, b, c, d).into(), port, scope: 0 }),
            libc::AF_INET6 => {
                let ip: [u8; 16] = self.bytes.get(8..24)?.try_into().ok()?;
                let scope = u32::from_ne_bytes(self.bytes.get(24..28)?.try_into().ok()?);
                Some(Address { ip: Ipv6Addr::from(ip).into(), port, scope })
            }
            _ => None,
        }
    }
}

/// Opens a nonblocking socket at `address`, which other sockets of the same user may share (`SO_REUSEPORT`).
pub(crate) fn bind(address: Address) -> io::Result<OwnedFd> {
    let v6 = address.ip.is_ipv6();
    let fd = sender(v6)?;
    set(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    // The first needs a privilege, the second is cut off at net.core.rmem_max: have what we can.
    if set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, QUEUE_BYTES).is_err() {
        set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, QUEUE_BYTES)?;
    }
    if v6 {
        set(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        // RoCE senders leave the UDP checksum out, which IPv6 forbids unless the receiver agrees.
        set(&fd, libc::SOL_UDP, UDP_NO_CHECK6_RX, 1)?;
    }
    bind_to(&fd, address)?;
    Ok(fd)
}

/// Opens a socket that only sends, from a port of its own at `from` to `to`; and which port that is. It need not look for the way each time.
/// With `port` it is another one that sends from there, where the first was opened so too.
///
/// Over IPv6 only: of a connected socket's IPv4 packets nobody knows the identification.
pub(crate) fn connect(from: Ipv6Addr, port: u16, to: Address) -> io::Result<(OwnedFd, u16)> {
    let fd = sender(true)?;
    set(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    bind_to(&fd, Address { ip: from.into(), port, scope: to.scope })?;
    let name = Name::new(to);
    // SAFETY: `name` is an initialised address of `len` bytes.
    Errno::result(unsafe { libc::connect(fd.as_raw_fd(), (&raw const name.bytes).cast(), name.len) })?;
    let own = nix::sys::socket::getsockname::<nix::sys::socket::SockaddrIn6>(fd.as_raw_fd())?;
    Ok((fd, own.port()))
}

/// A nonblocking socket with what matters to packets that it sends.
fn sender(v6: bool) -> io::Result<OwnedFd> {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes integers only.
    let fd = Errno::result(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the kernel has just opened it for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    if set(&fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, QUEUE_BYTES).is_err() {
        set(&fd, libc::SOL_SOCKET, libc::SO_SNDBUF, QUEUE_BYTES)?;
    }
    if v6 {
        set(&fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)?;
    } else {
        // With "don't fragment" and no connection, Linux sends identification 0 (or a segment's number): what the iCRC counts on.
        set(&fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)?;
    }
    Ok(fd)
}

fn bind_to(fd: &OwnedFd, address: Address) -> io::Result<()> {
    let name = Name::new(address);
    // SAFETY: `name` is an initialised address of `len` bytes.
    Errno::result(unsafe { libc::bind(fd.as_raw_fd(), (&raw const name.bytes).cast(), name.len) })?;
    Ok(())
}

/// Has a socket split each longer message in datagrams of `segment` bytes, as [`Envelope::segment`] does for one message: to say it once takes
/// less of the kernel's time than to say it each time.
pub(crate) fn split(fd: BorrowedFd<'_>, segment: u16) -> io::Result<()> {
    set(fd, libc::SOL_UDP, UDP_SEGMENT, segment.into())
}

/// Lets a socket receive whole trains in one call, where the kernel can (5.0). From then on it must be received from by
/// [`ReceiveBatch::receive`]: the other ways do not tell where a packet ends.
pub(crate) fn coalesce(fd: BorrowedFd<'_>) {
    let _ = set(fd, libc::SOL_UDP, UDP_GRO, 1);
}

/// What a socket is to tell of each message. Every word of it costs time, so only what is asked for is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Telling {
    /// Nothing: [`Message::traffic_class`] and [`Message::hop_limit`] are what senders usually set.
    Nothing,
    /// The traffic class, which has the congestion marks.
    Class,
    /// The hop limit too.
    All,
}

/// Sets what a socket tells.
pub(crate) fn tell(fd: BorrowedFd<'_>, v6: bool, telling: Telling) -> io::Result<()> {
    let (level, class, hops) = match v6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, libc::IPV6_RECVHOPLIMIT),
        false => (libc::IPPROTO_IP, libc::IP_RECVTOS, libc::IP_RECVTTL),
    };
    set(fd, level, class, (telling >= Telling::Class).into())?;
    set(fd, level, hops, (telling >= Telling::All).into())
}

/// Sets an option whose value is a number.
fn set(fd: impl AsFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value is an initialised integer of `len` bytes.
    Errno::result(unsafe {
        libc::setsockopt(fd.as_fd().as_raw_fd(), level, option, (&raw const value).cast(), len)
    })?;
    Ok(())
}

/// The MTU of an interface.
pub(crate) fn interface_mtu(interface: &str) -> io::Result<u32> {
    let [a, b, c, d, ..] = ask_interface(interface, libc::SIOCGIFMTU as _)?;
    Ok(i32::from_ne_bytes([a, b, c, d]).unsigned_abs())
}

/// Whether an interface is up and its cable leads to somebody.
pub(crate) fn is_running(interface: &str) -> io::Result<bool> {
    let wanted = (libc::IFF_UP | libc::IFF_RUNNING) as u16;
    let [a, b, ..] = ask_interface(interface, libc::SIOCGIFFLAGS as _)?;
    Ok(u16::from_ne_bytes([a, b]) & wanted == wanted)
}

/// What the kernel answers to a question about an interface.
fn ask_interface(interface: &str, question: libc::Ioctl) -> io::Result<[u8; 24]> {
    // An `ifreq`: the name in 16 bytes, then the answer.
    #[repr(C, align(8))]
    struct Request {
        name: [u8; libc::IFNAMSIZ],
        value: [u8; 24],
    }
    let mut request = Request { name: [0; libc::IFNAMSIZ], value: [0; 24] };
    let name = interface.as_bytes();
    request
        .name
        .get_mut(..name.len())
        .filter(|_| name.len() < libc::IFNAMSIZ)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an interface name that is too long"))?
        .copy_from_slice(name);
    // SAFETY: the call takes integers only.
    let fd = Errno::result(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just opened it for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the request is as large as the kernel's `ifreq`, and ours alone; the questions asked are answered in one.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), question, &raw mut request) })?;
    Ok(request.value)
}

/// One instruction of a classic BPF program.
pub(crate) type Instruction = libc::sock_filter;

/// An instruction.
pub(crate) const fn instruction(code: u32, jump_true: u8, jump_false: u8, operand: u32) -> Instruction {
    Instruction { code: code as u16, jt: jump_true, jf: jump_false, k: operand }
}

/// Makes `program` choose which of the sockets that share an address gets a packet. It replaces the last one, whoever attached that. It
/// reads the UDP payload and answers with the position of a socket.
pub(crate) fn attach_steering(fd: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let len = u16::try_from(program.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a steering program that is too long"))?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions from the slice, and copies them.
    Errno::result(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// How a message leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope {
    /// Where it goes.
    pub(crate) to: Address,
    /// The socket is connected to there.
    pub(crate) connected: bool,
    /// Split it in datagrams of so many bytes; 0 leaves it whole.
    pub(crate) segment: u16,
    /// Type of service or traffic class.
    pub(crate) traffic_class: u8,
    /// Time to live or hop limit.
    pub(crate) hop_limit: u8,
}

/// Control data: what goes with a message beside its bytes.
#[repr(C, align(8))]
struct Control {
    bytes: [u8; CONTROL_BYTES],
    len: usize,
}

/// Bytes of a control message's header.
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();

impl Control {
    const EMPTY: Self = Self { bytes: [0; CONTROL_BYTES], len: 0 };

    /// Adds a message. What does not fit is left out, which the sizes here make impossible.
    fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let total = CONTROL_HEADER + data.len();
        let Some(room) = self.bytes.get_mut(self.len..self.len + total.next_multiple_of(8)) else { return };
        room[..size_of::<usize>()].copy_from_slice(&total.to_ne_bytes());
        room[CONTROL_HEADER - 8..CONTROL_HEADER - 4].copy_from_slice(&level.to_ne_bytes());
        room[CONTROL_HEADER - 4..CONTROL_HEADER].copy_from_slice(&kind.to_ne_bytes());
        room[CONTROL_HEADER..total].copy_from_slice(data);
        self.len += total.next_multiple_of(8);
    }
}

/// Calls `visit` with level, kind and data of each control message.
fn each_control(mut bytes: &[u8], mut visit: impl FnMut(libc::c_int, libc::c_int, &[u8])) {
    const WORD: usize = size_of::<usize>();
    while let Some((header, _)) = bytes.split_at_checked(CONTROL_HEADER) {
        let mut len = [0; WORD];
        len.copy_from_slice(&header[..WORD]);
        let total = usize::from_ne_bytes(len);
        let number =
            |at: usize| i32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let Some(data) = bytes.get(CONTROL_HEADER..total) else { return };
        visit(number(CONTROL_HEADER - 8), number(CONTROL_HEADER - 4), data);
        bytes = bytes.get(total.next_multiple_of(WORD)..).unwrap_or(&[]);
    }
}

/// Sends `bytes` as one message, or as the datagrams it is split in.
pub(crate) fn send(fd: BorrowedFd<'_>, envelope: &Envelope, bytes: &[u8]) -> io::Result<()> {
    let name = Name::new(envelope.to);
    let mut control = Control::EMPTY;
    if envelope.segment != 0 {
        control.push(libc::SOL_UDP, UDP_SEGMENT, &envelope.segment.to_ne_bytes());
    }
    let (level, class, hops) = match envelope.to.ip {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS, libc::IP_TTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::IPV6_HOPLIMIT),
    };
    // The sockets' own values need no saying, and cost less so.
    if envelope.traffic_class != 0 {
        control.push(level, class, &i32::from(envelope.traffic_class).to_ne_bytes());
    }
    if envelope.hop_limit != DEFAULT_HOP_LIMIT {
        control.push(level, hops, &i32::from(envelope.hop_limit).to_ne_bytes());
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let (to, to_len) = if envelope.connected {
        (std::ptr::null(), 0)
    } else {
        ((&raw const name.bytes).cast::<libc::sockaddr>(), name.len)
    };
    let mut piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    loop {
        let sent = if control.len == 0 {
            // SAFETY: the bytes are readable, the name is an initialised one or none, with the right lengths.
            unsafe { libc::sendto(fd.as_raw_fd(), piece.iov_base, piece.iov_len, flags, to, to_len) }
        } else {
            let header = libc::msghdr {
                msg_name: to.cast_mut().cast(),
                msg_namelen: to_len,
                msg_iov: &raw mut piece,
                msg_iovlen: 1,
                msg_control: (&raw mut control.bytes).cast(),
                msg_controllen: control.len,
                msg_flags: 0,
            };
            // SAFETY: the header leads to the same, and to initialised control data; the kernel only reads.
            unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, flags) }
        };
        match Errno::result(sent) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
    }
}

/// The hop limit that Linux's sockets have from the start.
pub(crate) const DEFAULT_HOP_LIMIT: u8 = 64;

/// A message that arrived: one datagram, or a train of datagrams from one sender, all but the last of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// The bytes of all its datagrams.
    pub(crate) bytes: &'a [u8],
    /// Bytes of each datagram but the last, at least 1.
    pub(crate) segment: usize,
    /// Who sent it.
    pub(crate) source: Address,
    /// Type of service or traffic class.
    pub(crate) traffic_class: u8,
    /// Time to live or hop limit.
    pub(crate) hop_limit: u8,
}

impl<'a> Message<'a> {
    /// The same for a name that lies in a longer run of bytes.
    pub(crate) fn from_parts(bytes: &'a [u8], name: &[u8], control: &[u8]) -> Option<Self> {
        let name = Name { bytes: *name.first_chunk()?, len: NAME_BYTES as u32 };
        Self::new(bytes, &name, control)
    }

    /// What a message with these bytes, this name and this control data says. `None` if it is empty or cut off.
    fn new(bytes: &'a [u8], name: &Name, control: &[u8]) -> Option<Self> {
        let source = name.address()?;
        let mut message =
            Self { bytes, segment: bytes.len(), source, traffic_class: 0, hop_limit: DEFAULT_HOP_LIMIT };
        each_control(control, |level, kind, data| {
            let first = data.first().copied().unwrap_or(0);
            let number = data.get(..4).map(|data| i32::from_ne_bytes([data[0], data[1], data[2], data[3]]));
            match (level, kind, number) {
                (libc::SOL_UDP, UDP_GRO, Some(len)) => message.segment = len.unsigned_abs() as usize,
                (libc::IPPROTO_IP, libc::IP_TOS, _) => message.traffic_class = first,
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, Some(class)) => message.traffic_class = class as u8,
                (libc::IPPROTO_IP, libc::IP_TTL, Some(hops))
                | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, Some(hops)) => message.hop_limit = hops as u8,
                _ => {}
            }
        });
        (message.segment > 0).then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::wait::wait_readable;
    use std::time::Duration;

    fn pair(ip: &str) -> Option<[(OwnedFd, Address); 2]> {
        let open = || {
            // Port 0 would be of no use for a name to send to, so one is tried that few would have.
            let port = 20_000 + (crate::sys::random::random_u32().ok()? % 10_000) as u16;
            let address = Address { ip: ip.parse().ok()?, port, scope: 0 };
            Some((bind(address).ok()?, address))
        };
        Some([open()?, open()?])
    }

    #[test]
    fn trains_and_what_is_said_of_them_arrive() {
        for ip in ["127.0.0.1", "::1"] {
            let Some([(from, here), (to, there)]) = pair(ip) else {
                crate::skip::skip(format!("no free port at {ip}"));
                continue;
            };
            let mut batch = ReceiveBatch::default();
            assert_eq!(batch.receive(to.as_fd(), 1).unwrap(), 0);
            assert!(batch.message(0).is_none());
            coalesce(to.as_fd());
            tell(to.as_fd(), ip == "::1", Telling::All).unwrap();
            let bytes: Vec<u8> = (0..250).collect();
            for (segment, most) in [(0, 1), (100, 1), (100, BATCH)] {
                let envelope =
                    Envelope { to: there, connected: false, segment, traffic_class: 0x63, hop_limit: 9 };
                send(from.as_fd(), &envelope, &bytes).unwrap();
                assert_eq!(wait_readable(&[to.as_fd()], Some(Duration::from_secs(20))).unwrap(), 1);
                let mut got = Vec::new();
                let count = batch.receive(to.as_fd(), most).unwrap();
                for index in 0..count {
                    let message = batch.message(index).unwrap();
                    assert_eq!(message.source, here);
                    assert_eq!((message.traffic_class, message.hop_limit), (0x63, 9));
                    got.extend(message.bytes.chunks(message.segment).map(<[u8]>::to_vec));
                }
                let expected: Vec<_> = bytes.chunks(if segment == 0 { 250 } else { 100 }).collect();
                assert_eq!(got, expected);
                assert!(batch.message(count).is_none());
            }
        }
    }

    #[test]
    fn a_connected_socket_sends_from_its_own_port_and_is_received_plainly() {
        let Some([_, (to, there)]) = pair("::1") else { return crate::skip::skip("no free port at ::1") };
        let (from, port) = connect(Ipv6Addr::LOCALHOST, 0, there).unwrap();
        // Another at that port, which splits what is longer without being told each time.
        let (splitting, same) = connect(Ipv6Addr::LOCALHOST, port, there).unwrap();
        assert_eq!(same, port);
        split(splitting.as_fd(), 100).unwrap();
        let mut batch = ReceiveBatch::default();
        assert_eq!(batch.receive_plain(to.as_fd()).unwrap(), 0);
        let bytes: Vec<u8> = (0..250).collect();
        for (from, segment) in [(&from, 100), (&splitting, 0)] {
            let envelope = Envelope { to: there, connected: true, segment, traffic_class: 0, hop_limit: 64 };
            send(from.as_fd(), &envelope, &bytes).unwrap();
            // A train comes apart.
            for piece in bytes.chunks(100) {
                assert_eq!(wait_readable(&[to.as_fd()], Some(Duration::from_secs(20))).unwrap(), 1);
                assert_eq!(batch.receive_plain(to.as_fd()).unwrap(), 1);
                let message = batch.message(0).unwrap();
                assert_eq!((message.bytes, message.segment), (piece, piece.len()));
                assert_eq!((message.source.ip, message.source.port), (Ipv6Addr::LOCALHOST.into(), port));
            }
        }
        assert_eq!(batch.receive_plain(to.as_fd()).unwrap(), 0);
        assert!(batch.message(0).is_none());
    }

    #[test]
    fn control_data_that_is_cut_short_says_nothing() {
        let mut control = Control::EMPTY;
        control.push(libc::SOL_UDP, UDP_GRO, &100i32.to_ne_bytes());
        let whole = &control.bytes[..control.len];
        let seen = |bytes: &[u8]| {
            let mut count = 0;
            each_control(bytes, |_, _, _| count += 1);
            count
        };
        assert_eq!(seen(whole), 1);
        for len in 0..CONTROL_HEADER + 4 {
            assert_eq!(seen(&whole[..len]), 0, "{len}");
        }
        // Lengths that would lead out of it, or nowhere on.
        for len in [0usize, 1, 200, usize::MAX] {
            let mut bytes = whole.to_vec();
            bytes[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(seen(&bytes), 0, "{len}");
        }
    }

    #[test]
    fn the_loopback_interface_has_a_mtu() {
        match interface_mtu("lo") {
            Ok(mtu) => assert!(mtu >= 1280),
            Err(error) => crate::skip::skip(error),
        }
        assert!(interface_mtu("no such interface").is_err());
        assert!(interface_mtu("nosuchinterface0").is_err() && is_running("nosuchinterface0").is_err());
        assert!(is_running("lo").is_ok());
    }
}
