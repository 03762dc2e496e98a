//! A device on a memory window whose other side writes anything at any time, between any two calls.
//!
//! The case plays the peer by hand: it holds the other side of a window in a file, says a proper hello if it likes, puts packets, credits and wishes of its
//! own making there, or scribbles. It knows neither keys nor queue pair numbers beyond what it guesses, so memory with remote rights must stay as it was.

use crate::case::Case;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use tbrdma::{Access, QpInit, QpType, WorkCompletion};
use tbrdma_proto::bar_link::{ARM, Geometry, HELLO, Header, Hello, PULSE, SLOTS, TAKEN, WORD};

/// Bytes of an area: some 30 slots of the smallest packets.
const AREA: usize = 16 << 10;
/// Steps of a case.
const STEPS: usize = 64;
/// What memory holds that nobody may touch.
const GUARD: u8 = 0xa5;

/// The other side of the window.
struct Peer {
    file: File,
    sent: u64,
}

impl Peer {
    /// Writes into the device's area, which is the first half.
    fn put(&self, offset: usize, bytes: &[u8]) {
        let room = AREA.saturating_sub(offset).min(bytes.len());
        self.file.write_all_at(&bytes[..room], offset as u64).unwrap();
    }

    fn put_word(&self, offset: usize, word: u64) {
        self.put(offset, &word.to_ne_bytes());
    }

    /// Who the device says to be, in the other half.
    fn device(&self) -> u64 {
        let mut word = [0; WORD];
        self.file.read_exact_at(&mut word, (AREA + HELLO + 2 * WORD) as u64).unwrap();
        u64::from_ne_bytes(word)
    }

    fn hello(&self, hello: &Hello) {
        for (offset, word) in (HELLO..).step_by(WORD).zip(hello.to_words()) {
            self.put_word(offset, word);
        }
    }

    /// A packet behind a header that fits it, or nearly.
    fn packet(&mut self, geometry: &Geometry, number: u64, bytes: &[u8], len: u16) {
        let slot = geometry.slot(self.sent);
        self.put(slot + WORD, bytes);
        self.put_word(slot, Header::of(number, len, 0, 64).to_word());
        self.sent = self.sent.wrapping_add(1);
    }
}

/// Whatever is written into a window, the device neither falls over nor waits for ever, and no memory changes that nobody was given a key to.
pub(crate) fn window(data: &[u8]) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let folder = if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" };
    let path =
        format!("{folder}/tbrdma-window-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_len(2 * AREA as u64).unwrap();
    hold_other_side(&file);
    run(&mut Case(data), &path, Peer { file, sent: 0 });
    std::fs::remove_file(&path).unwrap();
}

fn run(case: &mut Case<'_>, path: &str, mut peer: Peer) {
    let geometry = Geometry::of_area(AREA).unwrap();
    let mut hello = Hello {
        incarnation: 77,
        answers: 0,
        is_ready: true,
        is_closing: false,
        slots: geometry.slots(),
        slot_bytes: geometry.slot_bytes(),
        doorbell: 0,
    };
    peer.hello(&hello);
    let ctx = tbrdma::open(&format!("bar:file:{path}")).unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq(64).unwrap();
    let guarded = pd.alloc(4096, Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ).unwrap();
    guarded.write(0, &[GUARD; 4096]);
    let own = pd.alloc(4096, Access::LOCAL_WRITE).unwrap();
    let qp_type = case.of(&[QpType::Rc, QpType::Uc]);
    let mut qp = pd.create_qp(QpInit::new(qp_type, &cq)).unwrap();
    hello.answers = peer.device();
    peer.hello(&hello);
    let mut address = qp.address();
    address.gid = tbrdma::Gid::from_prefix_and_interface_id(0xfe80_0000_0000_0000, hello.incarnation);
    // Where the peer is not what it says, there is nobody to connect to; the device goes on.
    let _ = qp.connect(&address);
    let mut wcs = [WorkCompletion::default(); 8];
    for _ in 0..STEPS {
        if case.is_empty() {
            break;
        }
        match case.byte() % 10 {
            0 => peer.put(usize::from(case.half()) % AREA, &case.bytes::<24>()),
            1 => peer.put_word(case.of(&[TAKEN, ARM, PULSE, SLOTS]), case.long()),
            2 => peer.put_word(case.of(&[TAKEN, ARM]), u64::from(case.byte())),
            3 => {
                let mut packet = case.bytes::<48>();
                if case.one_in(2) {
                    // At the right door: the queue pair's number and path are no secret of this peer's.
                    packet[5..8].copy_from_slice(&address.qpn.get().to_be_bytes()[1..]);
                    packet[9..12].copy_from_slice(
                        &(address.psn.get().wrapping_add(peer.sent as u32)).to_be_bytes()[1..],
                    );
                    packet[2..4].copy_from_slice(&[0xff; 2]);
                    packet[44..].fill(0);
                }
                let len = case.of(&[48, 44, 16, 0, u16::MAX, geometry.longest() as u16 + 1]);
                let number = if case.one_in(8) { case.long() } else { peer.sent };
                peer.packet(&geometry, number, &packet, len);
            }
            4 => {
                hello.incarnation = u64::from(case.byte());
                hello.is_ready = case.one_in(2);
                hello.is_closing = case.one_in(8);
                if case.one_in(4) {
                    (hello.slots, hello.slot_bytes) = (case.word(), case.word());
                }
                peer.hello(&hello);
                peer.sent = 0;
            }
            5 => _ = qp.post_recv(|rq| _ = rq.recv(own.slice(0..256))),
            6 => _ = qp.post(|wr| _ = wr.send(own.slice(256..320)).unsignaled()),
            7 => peer.put(0, &[0xff; AREA]),
            _ => {
                for _ in 0..4 {
                    assert!(cq.poll(&mut wcs).len() <= 8);
                }
            }
        }
    }
    cq.poll(&mut wcs);
    let mut bytes = vec![0; 4096];
    guarded.read(0, &mut bytes);
    assert!(bytes.iter().all(|&byte| byte == GUARD), "memory changed that nobody was given a key to");
}

/// The peer lives, as far as the device can tell: the second byte of the file is locked.
fn hold_other_side(file: &File) {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 1,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
}
