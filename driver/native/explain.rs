//! What usually stands behind a refusal. Adapters answer with a bare number; what it may mean depends on the step, and on the state of the port and of
//! the address that was chosen, which are looked at here, after the failure. The meanings on Macs are what their users have met.

use super::device::Core;
use super::fault::refused_for;
use super::gid::{GidType, Kind, kind};
use super::neighbour::is_unresolved;
use super::platform::MAC;
use crate::device::QpRequest;
use crate::error::Error;
use nix::libc;
use std::io;
use tbrdma_proto::{
    AddressVector, Gid, LinkLayer, Mtu, PortState, Profile, QpAttr, QpAttrMask, QpState, QpType, Qpn,
};

/// The address a connection was to come from.
#[derive(Clone, Copy, Debug)]
struct Source {
    index: u8,
    /// None if the entry is empty, or there is no such entry.
    entry: Option<(Gid, GidType)>,
}

/// What can be seen of the port.
#[derive(Clone, Copy, Debug)]
struct Seen {
    state: PortState,
    link: LinkLayer,
    active_mtu: Mtu,
    source: Option<Source>,
}

fn look(core: &Core, to: Option<&AddressVector>) -> Seen {
    let port = core.handle.query_port().unwrap_or(core.profile.port);
    let source = to.map(|to| {
        let table = core.handle.gids();
        let entry = table.iter().find(|entry| entry.index == u32::from(to.sgid_index));
        Source { index: to.sgid_index, entry: entry.map(|entry| (entry.gid, entry.gid_type)) }
    });
    Seen { state: port.state, link: port.link_layer, active_mtu: port.active_mtu, source }
}

/// What is wrong with what was seen, whatever the error.
fn findings(seen: &Seen, to: Option<&AddressVector>, path_mtu: Option<Mtu>) -> Vec<String> {
    let mut all = Vec::new();
    if seen.state != PortState::Active {
        let remedy = if MAC {
            "RDMA must be on at both ends (rdma_ctl enable, in Recovery) and the cable in"
        } else {
            "check the cable and that the interface is up (ip link)"
        };
        all.push(format!("port 1 is {:?}: {remedy}", seen.state));
    }
    if let Some(mtu) = path_mtu
        && mtu.bytes() > seen.active_mtu.bytes()
    {
        all.push(format!("path_mtu is {mtu}, but the port's active MTU is {}: use that", seen.active_mtu));
    }
    let (Some(to), Some(Source { index, entry })) = (to, seen.source) else { return all };
    let by_ip = seen.link != LinkLayer::InfiniBand;
    if by_ip && !to.is_global {
        all.push("on this port peers are named by GID, and none was given (is_global)".to_owned());
        return all;
    }
    match entry {
        _ if !by_ip => {}
        None if MAC => all.push(format!(
            "GID {index} is empty: GID 1 is there while the interface has an IPv4 address (169.254.x.y will do), and the Thunderbolt bridge is off"
        )),
        None => all.push(format!(
            "GID {index} is empty: give its interface an address, or choose another sgid_index (show_gids, or ls /sys/class/infiniband/*/ports/1/gids)"
        )),
        Some((gid, _)) if kind(&gid) != kind(&to.dgid) => {
            let words = |gid: &Gid| match kind(gid) {
                Kind::Ipv4Mapped => "an IPv4 address",
                Kind::LinkLocal => "a link-local address",
                Kind::Global => "an IPv6 address",
            };
            all.push(format!(
                "GID {index} is {}, but the peer's is {}: choose an sgid_index of the peer's kind",
                words(&gid),
                words(&to.dgid)
            ));
        }
        Some((_, GidType::IbOrRoceV1)) if seen.link == LinkLayer::Ethernet => all.push(format!(
            "GID {index} is for RoCE v1, which is not routed and which few peers speak: choose one for RoCE v2"
        )),
        Some(_) => {}
    }
    all
}

/// What an error number means when a queue pair is modified.
fn meaning(errno: i32, next: QpState, to: Option<&AddressVector>) -> Option<String> {
    let leads = matches!(next, QpState::Rtr) && to.is_some();
    let text = match errno {
        libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH if leads => {
            let peer = to.map(|to| to.dgid.to_string()).unwrap_or_default();
            format!("nobody answers at {peer}: ping it, check that sgid_index is on the peer's network, and the firewall")
        }
        libc::EINVAL if MAC && leads => {
            "usual causes: the Thunderbolt bridge (bridge0) still has the interface, or the wrong GID".to_owned()
        }
        libc::EINVAL => "an attribute is not one that this device takes in this step".to_owned(),
        libc::EBUSY if MAC => {
            "the port's kernel state is stale, as after a program that was killed: close other users, or restart".to_owned()
        }
        libc::EFAULT if MAC => {
            "the memory that may be registered between two restarts is used up: register less, or restart".to_owned()
        }
        libc::ENODATA if MAC => {
            "the connection or its address was lost after a long idle time: exchange addresses and connect anew".to_owned()
        }
        libc::ENOMEM => "the device or its driver has no room left: close what is not used".to_owned(),
        libc::EPERM | libc::EACCES => "this needs a right that the process lacks".to_owned(),
        libc::ENODEV | libc::EIO | libc::ENXIO => "the device is gone: open it again".to_owned(),
        _ => return None,
    };
    Some(text)
}

/// A queue pair could not be modified.
pub(super) fn modification(
    core: &Core,
    qp_num: Qpn,
    next: QpState,
    attr: &QpAttr,
    mask: QpAttrMask,
    source: io::Error,
) -> Error {
    let to = mask.contains(QpAttrMask::AV).then_some(&attr.ah_attr);
    let path_mtu = mask.contains(QpAttrMask::PATH_MTU).then_some(attr.path_mtu);
    let mut said = vec![format!("QP {qp_num} was to go to {next:?}")];
    let found = findings(&look(core, to), to, path_mtu);
    let errno = source.raw_os_error().unwrap_or(0);
    // What can be seen is likelier than what can be guessed; that nobody answers is seen.
    if found.is_empty() || is_unresolved(&source) {
        said.extend(meaning(errno, next, to));
    }
    said.extend(found);
    refused_for("modify_qp", &core.handle.name, source, said.join("; "))
}

/// A datagram destination could not be made.
pub(super) fn address(error: Error, core: &Core, to: &AddressVector) -> Error {
    let Error::Refused { call, device, source, .. } = error else { return error };
    let mut said = findings(&look(core, Some(to)), Some(to), None);
    if said.is_empty() || is_unresolved(&source) {
        said.extend(meaning(source.raw_os_error().unwrap_or(0), QpState::Rtr, Some(to)));
    }
    refused_for(call, &device, source, said.join("; "))
}

/// A shared receive queue could not be made.
pub(super) fn shared_queue(error: Error, profile: &Profile, max_wr: u32, max_sge: u32) -> Error {
    let (most_wr, most_sge) = (profile.device.max_srq_wr, profile.device.max_srq_sge);
    match error {
        Error::Refused { call, device, .. } if max_wr == 0 || max_wr > most_wr || max_sge > most_sge => {
            let reason = format!(
                "max_wr = {max_wr} with max_sge = {max_sge}, device {device} takes 1 to {most_wr} with at most {most_sge}"
            );
            Error::InvalidArgument { call, reason }
        }
        error => error,
    }
}

/// A queue pair could not be made.
pub(super) fn creation(error: Error, profile: &Profile, request: &QpRequest) -> Error {
    let Error::Refused { call, device, source, .. } = error else { return error };
    let errno = source.raw_os_error().unwrap_or(0);
    if errno == libc::EOPNOTSUPP {
        let what = match request.qp_type {
            QpType::Rc => "RC queue pairs",
            QpType::Uc => "UC queue pairs",
            QpType::Ud => "UD queue pairs",
        };
        return Error::NotSupported { call, device: device.into(), what };
    }
    let (asked, has) = (&request.cap, &profile.device);
    let mut sizes = vec![
        ("max_send_wr", asked.max_send_wr, has.max_qp_wr),
        ("max_send_sge", asked.max_send_sge, has.max_sge),
        ("max_inline_data", asked.max_inline_data, has.max_inline_data),
    ];
    if request.srq.is_none() {
        sizes.push(("max_recv_wr", asked.max_recv_wr, has.max_qp_wr));
        sizes.push(("max_recv_sge", asked.max_recv_sge, has.max_sge));
    }
    if let Some((what, asked, most)) = sizes.into_iter().find(|(_, asked, most)| asked > most) {
        let reason = format!("{what} = {asked}, device {device} has at most {most}");
        return Error::InvalidArgument { call, reason };
    }
    let said = match errno {
        libc::EBUSY => format!(
            "all {} queue pairs of the device are taken, perhaps by programs that were killed",
            has.max_qp
        ),
        libc::ENOMEM => {
            "no queue pair is left, or no memory may be locked for it: destroy some, ask for smaller queues, or raise RLIMIT_MEMLOCK".to_owned()
        }
        libc::EINVAL => {
            "the device does not have this kind of queue pair, or not with these sizes together".to_owned()
        }
        _ => String::new(),
    };
    refused_for(call, &device, source, said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn gid(text: &str) -> Gid {
        text.parse::<Ipv6Addr>().unwrap().into()
    }

    fn seen(entry: Option<(Gid, GidType)>) -> Seen {
        Seen {
            state: PortState::Active,
            link: LinkLayer::Ethernet,
            active_mtu: Mtu::B1024,
            source: Some(Source { index: 3, entry }),
        }
    }

    fn to(peer: &str) -> AddressVector {
        AddressVector { is_global: true, dgid: gid(peer), sgid_index: 3, ..AddressVector::default() }
    }

    fn found(seen: &Seen, to: &AddressVector, mtu: Mtu) -> String {
        findings(seen, Some(to), Some(mtu)).join("; ")
    }

    #[test]
    fn each_usual_cause_is_named() {
        let peer = to("::ffff:10.0.0.2");
        let good = seen(Some((gid("::ffff:10.0.0.1"), GidType::RoceV2)));
        assert_eq!(found(&good, &peer, Mtu::B1024), "");
        let down = Seen { state: PortState::Down, ..good };
        assert!(found(&down, &peer, Mtu::B1024).contains("port 1 is Down"));
        assert!(
            found(&good, &peer, Mtu::B4096).contains("path_mtu is 4096, but the port's active MTU is 1024")
        );
        assert!(found(&seen(None), &peer, Mtu::B1024).contains("GID 3 is empty"));
        let link_local = seen(Some((gid("fe80::1"), GidType::RoceV2)));
        assert!(
            found(&link_local, &peer, Mtu::B1024).contains("a link-local address, but the peer's is an IPv4")
        );
        let old = seen(Some((gid("::ffff:10.0.0.1"), GidType::IbOrRoceV1)));
        assert!(found(&old, &peer, Mtu::B1024).contains("RoCE v1"));
        let nameless = AddressVector { is_global: false, ..peer };
        assert!(found(&good, &nameless, Mtu::B1024).contains("is_global"));
        let infiniband = Seen { link: LinkLayer::InfiniBand, ..seen(None) };
        assert_eq!(found(&infiniband, &nameless, Mtu::B1024), "", "there a LID is enough");
    }

    #[test]
    fn a_silent_peer_is_told_from_a_wrong_attribute() {
        let peer = to("::ffff:10.0.0.2");
        let said = |errno, next| meaning(errno, next, Some(&peer)).unwrap_or_default();
        assert!(said(libc::ETIMEDOUT, QpState::Rtr).contains("nobody answers at ::ffff:10.0.0.2"));
        assert!(said(libc::EINVAL, QpState::Rts).contains("attribute"));
        assert_eq!(meaning(libc::ETIMEDOUT, QpState::Rts, None), None);
    }
}
