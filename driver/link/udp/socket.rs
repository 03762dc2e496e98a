//! The socket of one GID, those that only send beside it, and what its failure to open means.

use super::super::ROCE_PORT;
use super::interfaces::Interface;
use super::steering::Steering;
use crate::error::{Error, Result};
use crate::sync::{AtomicBool, Ordering};
use crate::sys::udp::{self, Address, Telling};
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tbrdma_proto::Gid;

/// The most peers that a GID has a connected socket for.
const MAX_SENDERS: usize = 64;

/// From so many bytes on packets are long, and more of the same length will come.
const LONG: u16 = 1024;

/// A GID's socket.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    /// Our own address, for probes.
    pub(super) address: Address,
    steering: Mutex<Steering>,
    /// It hands out trains, and [`Telling`] may be more than nothing; else each message is one packet.
    coalesces: AtomicBool,
    /// To the peers that will get many packets, filled from the front. They stay until the device is closed.
    senders: Vec<OnceLock<Sender>>,
    /// Held while one is opened.
    connecting: Mutex<()>,
}

/// A socket connected to a peer.
#[derive(Debug)]
pub(super) struct Sender {
    to: Gid,
    port: u16,
    pub(super) fd: OwnedFd,
    /// Another at the same port, for trains of packets of one length.
    splitting: OnceLock<Option<Splitting>>,
}

/// A socket that splits what it is given.
#[derive(Debug)]
struct Splitting {
    fd: OwnedFd,
    segment: u16,
}

impl Sender {
    /// The socket for trains of packets of `segment` bytes, if this is the length that it splits them in: it is that of the first long ones.
    #[inline]
    pub(super) fn splitting(
        &self,
        from: Address,
        segment: u16,
        interface_index: u32,
    ) -> Option<BorrowedFd<'_>> {
        if segment < LONG {
            return None;
        }
        let open = || {
            let IpAddr::V6(from) = from.ip else { return None };
            let (fd, _) = udp::connect(from, self.port, address(self.to, interface_index)).ok()?;
            udp::split(fd.as_fd(), segment).ok()?;
            Some(Splitting { fd, segment })
        };
        let known = self.splitting.get_or_init(open).as_ref();
        known.filter(|known| known.segment == segment).map(|known| known.fd.as_fd())
    }
}

impl Socket {
    /// Opens the socket of a GID, for the slot `own`.
    pub(super) fn open(interface: &Interface, gid: Gid, own: u8) -> Result<Self> {
        let address = address(gid, interface.index);
        let fd = udp::bind(address).map_err(|source| refused(interface, address.ip, source))?;
        Ok(Self {
            fd,
            address,
            steering: Mutex::new(Steering::new(own)),
            coalesces: AtomicBool::new(false),
            senders: (0..MAX_SENDERS).map(|_| OnceLock::new()).collect(),
            connecting: Mutex::new(()),
        })
    }

    /// Whether it hands out trains.
    #[inline]
    pub(super) fn coalesces(&self) -> bool {
        self.coalesces.load(Ordering::Relaxed)
    }

    /// Has it hand out trains from now on. To receive one packet a call is quicker for those that come singly, and slower for all others.
    pub(super) fn coalesce(&self) {
        // In this order: who does not know yet must not be handed one.
        if !self.coalesces.swap(true, Ordering::SeqCst) {
            udp::coalesce(self.fd.as_fd());
        }
    }

    /// The port of a socket that is connected to a peer; 4791, that of this one, if there can be none.
    pub(super) fn source_port(&self, to: Gid, interface_index: u32) -> u16 {
        let IpAddr::V6(from) = self.address.ip else { return ROCE_PORT };
        let connecting = self.connecting.lock().unwrap_or_else(PoisonError::into_inner);
        for place in &self.senders {
            match place.get() {
                Some(sender) if sender.to == to => return sender.port,
                Some(_) => {}
                None => {
                    let Ok((fd, port)) = udp::connect(from, 0, address(to, interface_index)) else { break };
                    // Nobody else sets it while we hold the lock.
                    let _ = place.set(Sender { to, port, fd, splitting: OnceLock::new() });
                    return port;
                }
            }
        }
        drop(connecting);
        ROCE_PORT
    }

    /// The connected socket whose packets leave from a port; none if it is this one's own, which is not connected.
    #[inline]
    pub(super) fn sender(&self, port: u16) -> Option<&Sender> {
        if port == ROCE_PORT {
            return None;
        }
        self.senders.iter().map_while(OnceLock::get).find(|sender| sender.port == port)
    }

    /// Sets what it tells of each message.
    pub(super) fn tell(&self, telling: Telling) {
        // What is not told has a usual value.
        let _ = udp::tell(self.fd.as_fd(), self.address.ip.is_ipv6(), telling);
    }

    /// What is known of the sockets at this address.
    pub(super) fn steering(&self) -> MutexGuard<'_, Steering> {
        // Who panicked with the lock held has at worst spoilt one search, which ends by itself.
        self.steering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The UDP end that a GID stands for.
pub(super) fn address(gid: Gid, interface_index: u32) -> Address {
    let v6 = Ipv6Addr::from(gid);
    match v6.to_ipv4_mapped() {
        Some(v4) => Address { ip: v4.into(), port: ROCE_PORT, scope: 0 },
        None => {
            let scope = if v6.is_unicast_link_local() { interface_index } else { 0 };
            Address { ip: v6.into(), port: ROCE_PORT, scope }
        }
    }
}

/// The GID that an address is.
pub(super) fn gid(address: &Address) -> Gid {
    match address.ip {
        IpAddr::V4(ip) => Gid::from_ipv4_mapped(ip),
        IpAddr::V6(ip) => Gid::from(ip),
    }
}

/// Why a socket could not be opened, and what helps.
fn refused(interface: &Interface, ip: IpAddr, source: io::Error) -> Error {
    let what = "open a UDP socket for RoCE";
    let reason = match source.kind() {
        ErrorKind::AddrInUse => {
            let holder = holder(ip).map_or_else(
                || "somebody who does not share it".to_owned(),
                |user| format!("a process of user {user}"),
            );
            let kernel = if Path::new("/sys/module/rdma_rxe").exists() {
                "; the kernel's rdma_rxe is loaded, and takes that port in its network namespace: unload it, or use another namespace"
            } else {
                "; processes of one user share it, others need another address or network namespace"
            };
            format!("UDP port {ROCE_PORT} at {ip} is held by {holder}{kernel}")
        }
        ErrorKind::AddrNotAvailable => format!(
            "{ip} is not an address of this host now: it has gone from {}, or is still being checked for duplicates",
            interface.name
        ),
        _ => return Error::Os { call: "open_gid", what, source },
    };
    Error::Busy { call: "open_gid", reason }
}

/// The user whose socket is at port 4791 of an address, or of every address.
fn holder(ip: IpAddr) -> Option<u32> {
    let (file, any) = match ip {
        IpAddr::V4(_) => ("/proc/net/udp", hex(Ipv4Addr::UNSPECIFIED.into())),
        IpAddr::V6(_) => ("/proc/net/udp6", hex(Ipv6Addr::UNSPECIFIED.into())),
    };
    let ours = hex(ip);
    let table = fs::read_to_string(file).ok()?;
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let (address, port) = columns.nth(1)?.split_once(':')?;
        let here = port == format!("{ROCE_PORT:04X}") && (address == ours || address == any);
        // The columns between: the peer, the state, the queues, the timer, the retransmissions.
        here.then(|| columns.nth(5)?.parse().ok())?
    })
}

/// An address as the tables of `/proc/net` write it: words of 32 bits in the machine's order.
fn hex(ip: IpAddr) -> String {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = octets.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    words.map(|word| format!("{word:08X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gids_are_addresses() {
        let v4 = Gid::from_ipv4_mapped(Ipv4Addr::new(192, 0, 2, 2));
        assert_eq!(address(v4, 7), Address { ip: Ipv4Addr::new(192, 0, 2, 2).into(), port: 4791, scope: 0 });
        let local: Gid = "fe80::1".parse().unwrap();
        assert_eq!(address(local, 7).scope, 7);
        let global: Gid = "2001:db8::1".parse().unwrap();
        assert_eq!(address(global, 7).scope, 0);
        for one in [v4, local, global] {
            assert_eq!(gid(&address(one, 7)), one);
        }
    }

    #[test]
    fn a_held_port_is_explained() {
        let ip = IpAddr::from(Ipv4Addr::new(127, 4, 7, 91));
        let _holder = match std::net::UdpSocket::bind((ip, ROCE_PORT)) {
            Ok(socket) => socket,
            Err(error) => return crate::skip::skip(format!("cannot bind {ip}: {error}")),
        };
        let interface = Interface {
            name: "lo".to_owned(),
            index: 1,
            is_loopback: true,
            mtu: tbrdma_proto::Mtu::B1024,
            gids: Vec::new(),
        };
        let IpAddr::V4(v4) = ip else { return };
        let error = Socket::open(&interface, Gid::from_ipv4_mapped(v4), 1).unwrap_err().to_string();
        assert!(error.contains("127.4.7.91"), "{error}");
        assert!(error.contains(&format!("user {}", crate::sys::process::effective_user_id())), "{error}");
    }
}
