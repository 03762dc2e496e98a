//! Captures: a file for a test, messages of every kind, and what must be true of the packets of any device.

use super::{Node, all_access};
use std::path::{Path, PathBuf};
use std::process::Command;
use tbrdma::wire::icrc::{IdentHint, verify};
use tbrdma::wire::ip::{Datagram, IpHeader};
use tbrdma::wire::{Headers, Packet};
use tbrdma::{Context, OpenOptions, QpType, RemoteRegion, WcStatus};

/// What datagrams are let in by.
pub(crate) const QKEY: u32 = 0x1111_2222;

/// A file that is gone when the test is.
pub(crate) struct Capture(pub(crate) PathBuf);

impl Capture {
    pub(crate) fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("tbrdma-{name}-{}.pcapng", std::process::id())))
    }

    pub(crate) fn open(&self, device: &str) -> Context {
        OpenOptions::new().capture(&self.0).open(device).unwrap()
    }

    /// The IP packets in it.
    pub(crate) fn packets(&self) -> Vec<Vec<u8>> {
        let file = std::fs::read(&self.0).unwrap();
        let (mut rest, mut packets) = (file.as_slice(), Vec::new());
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
            if word(0) == 6 {
                packets.push(rest[28..28 + word(20)].to_vec());
            }
            rest = &rest[word(4)..];
        }
        packets
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Every kind of message, between two connected nodes.
pub(crate) fn every_message(a: &mut Node, b: &mut Node) {
    let remote: RemoteRegion = b.mr.remote();
    let reliable = a.qp.qp_type() == QpType::Rc;
    let (short, long) = (a.mr.slice(0..61), a.mr.slice(0..3000));
    let spare = b.pd.alloc(4096, all_access()).unwrap();
    let other = b.pd.alloc(4096, all_access()).unwrap();
    let receives = if reliable { 8 } else { 6 };
    for id in 0..receives {
        b.post_recv(id, id as usize * 4096..(id as usize + 1) * 4096);
    }
    a.qp.post(|wr| {
        wr.send(short).unsignaled();
        wr.send(long).unsignaled();
        wr.send_with_imm(short, 1).unsignaled();
        wr.send_with_imm(long, 2).unsignaled();
        wr.write(short, remote.at(65_536)).unsignaled();
        wr.write(long, remote.at(65_536)).unsignaled();
        wr.write_with_imm(short, remote.at(65_536), 3).unsignaled();
        wr.write_with_imm(long, remote.at(65_536), 4).id(100);
    })
    .unwrap();
    a.expect(100, WcStatus::Success);
    if reliable {
        let result = a.mr.slice(80_000..80_008);
        a.qp.post(|wr| {
            wr.send_with_inv(short, spare.remote().rkey).unsignaled();
            wr.send_with_inv(long, other.remote().rkey).unsignaled();
            wr.read(a.mr.slice(90_000..90_100), remote.at(0)).unsignaled();
            wr.read(a.mr.slice(90_000..93_000), remote.at(0)).unsignaled();
            wr.fetch_and_add(result, remote.at(0), 3).unsignaled();
            wr.compare_and_swap(result, remote.at(0), 1, 2).id(101);
        })
        .unwrap();
        a.expect(101, WcStatus::Success);
    }
    b.take(receives as usize);
}

/// Datagrams with and without immediate data.
pub(crate) fn every_datagram(a: &mut Node, b: &mut Node) {
    let ah = a.pd.create_ah_to(&b.qp.address()).unwrap();
    let qpn = b.qp.qp_num();
    for id in 0..2 {
        b.post_recv(id, id as usize * 4096..(id as usize + 1) * 4096);
    }
    let short = a.mr.slice(0..61);
    a.qp.post(|wr| {
        wr.send(short).to(&ah, qpn, QKEY).unsignaled();
        wr.send_with_imm(short, 9).to(&ah, qpn, QKEY).id(1);
    })
    .unwrap();
    a.expect(1, WcStatus::Success);
    b.take(2);
}

/// A packet of ours, whole and with a right iCRC: is it of IPv6, which headers has it, what does it carry?
pub(crate) fn whole(bytes: &[u8]) -> (Datagram<'_>, Headers, &[u8]) {
    let whole = Datagram::parse(bytes).unwrap();
    let ident = whole.ident().map_or(IdentHint::Unknown, IdentHint::Known);
    verify(&whole.flow().unwrap(), ident, whole.payload).unwrap();
    assert_eq!(whole.udp, whole.udp.with_checksum(&whole.ip, whole.payload), "the UDP checksum");
    assert_eq!(whole.udp.destination, 4791);
    let packet = Packet::parse(whole.payload).unwrap();
    (whole, packet.headers, packet.payload)
}

/// tshark sees the same packets, and nothing wrong with them. False if there is no tshark.
pub(crate) fn tshark_agrees(capture: &Capture) -> bool {
    if Command::new("tshark").arg("--version").output().is_err() {
        return false;
    }
    let ours = capture.packets();
    let fields = [
        "frame.protocols",
        "ip.checksum.status",
        "udp.checksum.status",
        "infiniband.bth.opcode",
        "infiniband.invariant.crc",
        "_ws.malformed",
        "frame.p2p_dir",
    ];
    let lines = tshark(&capture.0, &fields);
    assert_eq!(lines.len(), ours.len());
    for (line, bytes) in lines.iter().zip(&ours) {
        let whole = Datagram::parse(bytes).unwrap();
        let [protocols, ip, udp, opcode, icrc, malformed, _direction] = &line[..] else { panic!("{line:?}") };
        assert!(protocols.starts_with("raw:ip") && protocols.contains("udp:infiniband"), "{line:?}");
        assert!(ip == "1" || (ip.is_empty() && matches!(whole.ip, IpHeader::V6(_))), "{line:?}");
        assert_eq!(udp, "1", "{line:?}");
        assert_eq!(opcode.parse::<u8>().unwrap(), whole.payload[0]);
        let (_, stored) = whole.payload.split_last_chunk::<4>().unwrap();
        let icrc =
            u32::from_str_radix(icrc.trim_start_matches("0x"), 16).unwrap_or_else(|_| panic!("{line:?}"));
        assert_eq!(icrc.to_be_bytes(), *stored, "{line:?}");
        assert_eq!(malformed, "", "{line:?}");
    }
    true
}

/// The fields of each packet.
fn tshark(file: &Path, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.args(["-r".as_ref(), file.as_os_str()]);
    // It guesses from a payload's bytes who made it, and finds messages of NFS in our numbers.
    command.args(["--disable-protocol", "rpcordma"]);
    command.args(["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}
