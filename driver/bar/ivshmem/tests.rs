//! Clients of a server, and of what pretends to be one.

use super::Client;
use super::server::Server;
use crate::bar::refusal::{Gone, Refusal};
use crate::bar::slot::{self, Slot};
use crate::sync::{Ordering, fence};
use crate::sys::eventfd::EventFd;
use crate::sys::wait::wait_readable;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::ftruncate;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));
const BYTES: u64 = 1 << 20;

/// A name for a socket that nobody else uses; nothing of it is left behind.
struct Name(PathBuf);

impl Name {
    fn new(what: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tbrdma-{what}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn window(&self) -> Arc<dyn Slot> {
        slot::open(&format!("ivshmem:{}", self.0.display()), BYTES).unwrap()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Attends to the window until that is so.
fn until(window: &dyn Slot, mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        let ready = wait_readable(&[window.news().unwrap()], PATIENCE).unwrap();
        assert_eq!(ready, 1, "nothing was heard of the server");
        window.attend();
    }
}

/// Rings the other until it hears that: who has just come is not known to all yet.
fn reach(from: &dyn Slot, to: &dyn Slot) {
    let begun = Instant::now();
    loop {
        from.attend();
        from.ring(to.own_id().unwrap());
        if wait_readable(&[to.interrupt().unwrap()], Some(Duration::from_millis(10))).unwrap() != 0 {
            return to.drain();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody is reached");
    }
}

#[test]
fn two_peers_share_memory_and_ring_each_other() {
    let name = Name::new("two");
    let server = Server::start(&name.0, BYTES, 4).unwrap();
    let (a, b) = (name.window(), name.window());
    let (from, to) = (a.own_id().unwrap(), b.own_id().unwrap());
    assert!(from != to && a.memory().len() == BYTES as usize && !a.is_write_combining());
    assert!(b.describe().contains(&format!("peer {to} ")), "{}", b.describe());
    // Whoever was there first hears of the other by and by; what is rung before nobody hears.
    for round in 0_u32..1000 {
        a.memory().sub(4096, 4).unwrap().write_from(&round.to_le_bytes());
        reach(&*a, &*b);
        let mut bytes = [0; 4];
        b.memory().sub(4096, 4).unwrap().read_into(&mut bytes);
        assert_eq!(u32::from_le_bytes(bytes), round);
        b.ring(from);
        assert_eq!(wait_readable(&[a.interrupt().unwrap()], PATIENCE).unwrap(), 1, "nobody rang");
        a.drain();
        // Taken is taken.
        assert_eq!(wait_readable(&[a.interrupt().unwrap()], Some(Duration::ZERO)).unwrap(), 0);
    }
    let mut bytes = [0; 4];
    server.memory().read_exact_at(&mut bytes, 4096).unwrap();
    assert_eq!(u32::from_le_bytes(bytes), 999);
    assert_eq!((a.gone(), a.probe(), b.probe()), (None, None, None));
}

#[test]
fn those_who_come_and_go_are_told_of() {
    let name = Name::new("come");
    let server = Server::start(&name.0, BYTES, 1).unwrap();
    let a = name.window();
    let first = {
        let b = name.window();
        let id = b.own_id().unwrap();
        assert!(!a.has_left(id));
        id
    };
    until(&*a, || a.has_left(first));
    a.ring(first);
    let b = name.window();
    let second = b.own_id().unwrap();
    assert!(second != first && !a.has_left(second));
    reach(&*a, &*b);
    drop(server);
    until(&*a, || a.gone().is_some());
    assert_eq!((a.gone(), b.probe()), (Some(Gone::Server), Some(Gone::Server)));
    // The memory is let go of, and whoever still uses it goes on.
    a.memory().write_from(&[7; 64]);
    let mut bytes = [0; 64];
    b.memory().read_into(&mut bytes);
    assert_eq!(bytes, [0; 64]);
    a.ring(second);
}

#[test]
fn memory_that_is_cut_short_is_gone_and_not_the_process() {
    let name = Name::new("cut");
    let server = Server::start(&name.0, BYTES, 1).unwrap();
    let a = name.window();
    server.memory().set_len(4096).unwrap();
    let mut bytes = [1; 8];
    a.memory().sub(8, 8).unwrap().read_into(&mut bytes);
    assert_eq!((bytes, a.gone()), ([0; 8], None));
    a.memory().sub(64 * 1024, 8).unwrap().write_from(&bytes);
    assert_eq!((a.gone(), a.probe()), (Some(Gone::Pages), Some(Gone::Pages)));
}

#[test]
fn refusals_say_what_is_missing() {
    let name = Name::new("none");
    let connect = |least| Client::connect(&name.0, least).map(|_| ()).unwrap_err();
    let why = connect(1);
    assert!(matches!(why, Refusal::NoServer { .. }), "{why}");
    let error = why.about("open_device", "bar:ivshmem:x");
    assert_eq!(error.errno(), nix::libc::ENOENT);
    assert!(error.to_string().contains("no ivshmem server answers at"), "{error}");
    let _server = Server::start(&name.0, 4096, 1).unwrap();
    let why = connect(BYTES);
    assert!(matches!(why, Refusal::Small { bytes: 4096, least: BYTES, .. }), "{why}");
    assert!(connect(4097).to_string().contains("start the server with more"));
    assert!(Client::connect(&name.0, 4096).is_ok());
}

/// What a server does that is none: messages, some with a descriptor.
type Script = Vec<(Vec<u8>, Option<OwnedFd>)>;

fn number(number: i64) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

fn memory(bytes: i64) -> Option<OwnedFd> {
    let fd = memfd_create("tbrdma-test", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&fd, bytes).unwrap();
    Some(fd)
}

fn bell() -> Option<OwnedFd> {
    Some(EventFd::new().unwrap().into())
}

fn send(socket: &UnixStream, bytes: &[u8], descriptors: &[&OwnedFd]) {
    let raw: Vec<_> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    // Who listens may have heard enough.
    let _ = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None);
}

/// Connects to a server that says this and hangs up, unless `then` goes on.
fn told<T>(path: &Path, script: Script, then: impl FnOnce(UnixStream, Result<Client, Refusal>) -> T) -> T {
    let listener = UnixListener::bind(path).unwrap();
    let talk = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        script.iter().for_each(|(bytes, fd)| send(&socket, bytes, &Vec::from_iter(fd)));
        if script.len() < 4 {
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
        socket
    });
    let client = Client::connect(path, 4096);
    let socket = talk.join().unwrap();
    let answer = then(socket, client);
    std::fs::remove_file(path).unwrap();
    answer
}

#[test]
fn what_pretends_to_be_a_server_is_refused() {
    let name = Name::new("pretends");
    let why = |script: Script| told(&name.0, script, |_, client| client.unwrap_err().to_string());
    let is = |why: String, what: &str| assert!(why.contains(what), "{why}");
    is(why(vec![]), "ended the connection");
    is(why(vec![(number(1), None)]), "another version");
    is(why(vec![(b"HTTP/1.1".to_vec(), None)]), "another version");
    is(why(vec![(number(0), None), (number(70_000), None)]), "none of 16 bits");
    is(why(vec![(number(0), None), (number(3), None), (number(3), bell())]), "does not begin");
    let start = |memory| vec![(number(0), None), (number(3), None), (number(-1), memory)];
    is(why(start(memory(1 << 20))), "ended the connection");
    let with = |memory, bell| start(memory).into_iter().chain([(number(3), bell)]).collect::<Script>();
    // Neither of these is memory of that size, nor an event counter, and nothing is done with them.
    let null = || Some(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
    is(why(with(memory(100), bell())), "100 bytes");
    is(why(with(bell(), bell())), "0 bytes");
    is(why(with(memory(1 << 20), null())), "no event counter");
    let pipe = nix::unistd::pipe().unwrap().1;
    is(why(with(memory(1 << 20), Some(pipe))), "no event counter");
    // More peers than anybody has.
    let mut crowd = start(memory(1 << 20));
    crowd.extend((10..200).map(|id| (number(id), bell())));
    is(why(crowd), "more than 64 peers");
}

#[test]
fn a_server_that_turns_mad_is_gone_and_so_is_its_memory() {
    let name = Name::new("mad");
    let whole =
        || vec![(number(0), None), (number(3), None), (number(-1), memory(1 << 20)), (number(3), bell())];
    let mad: [&dyn Fn(&UnixStream); 5] = [
        &|socket| send(socket, &number(-1), &[]),
        &|socket| send(socket, &number(3), &[]),
        &|socket| send(socket, &number(1 << 40), &[&bell().unwrap()]),
        &|socket| send(socket, &number(4), &[&memory(8).unwrap()]),
        &|socket| send(socket, &number(5), &[&bell().unwrap(), &bell().unwrap()]),
    ];
    for (index, do_it) in mad.into_iter().enumerate() {
        told(&name.0, whole(), |socket, client| {
            let client = client.unwrap();
            // Messages in pieces are whole in the end, and what is sane is no end.
            for byte in number(9) {
                send(&socket, &[byte], &[]);
            }
            until(&client, || client.has_left(9));
            assert_eq!((client.own_id(), client.gone()), (Some(3), None));
            do_it(&socket);
            until(&client, || client.gone().is_some());
            assert_eq!(client.gone(), Some(Gone::Server), "{index}");
        });
    }
}

/// For a machine that has such a window: `TBRDMA_TEST_WINDOW=0000:00:04.0 cargo test -p tbrdma --lib -- --ignored a_window_of_this_machine`.
#[test]
#[ignore = "it needs a PCI window, named by TBRDMA_TEST_WINDOW, which nobody uses"]
fn a_window_of_this_machine() {
    let name = std::env::var("TBRDMA_TEST_WINDOW").expect("TBRDMA_TEST_WINDOW names a window");
    let window = slot::open(&name, 4096).unwrap_or_else(|error| panic!("{error}"));
    println!("{}", window.describe());
    let last = window.memory().len() - 64;
    let place = window.memory().sub(last, 8).unwrap();
    place.write_from(b"a window");
    fence(Ordering::SeqCst);
    let mut bytes = [0; 8];
    place.read_into(&mut bytes);
    assert_eq!((&bytes, window.gone(), window.probe()), (b"a window", None, None));
    if let (Some(own), Some(interrupt)) = (window.own_id(), window.interrupt()) {
        for _ in 0..100 {
            // Nobody forbids to ring oneself.
            window.ring(own);
            assert_eq!(wait_readable(&[interrupt.as_fd()], PATIENCE).unwrap(), 1);
            window.drain();
        }
        println!("100 rings of our own, as peer {own}");
    }
    if let Some(news) = window.news() {
        assert_eq!(wait_readable(&[news], Some(Duration::ZERO)).unwrap(), 0);
    }
    let error = slot::open(&name, window.memory().len() as u64 + 1).unwrap_err();
    assert!(error.to_string().contains("needs"), "{error}");
}

/// For root on the same machine, which must do without the window afterwards: through VFIO its driver is told to let go of it, through sysfs it is removed.
#[test]
#[ignore = "it needs a PCI window, named by TBRDMA_TEST_WINDOW, and takes it away"]
fn a_pci_window_that_is_taken_away() {
    let name = std::env::var("TBRDMA_TEST_WINDOW").expect("TBRDMA_TEST_WINDOW names a window");
    let window = slot::open(&name, 4096).unwrap_or_else(|error| panic!("{error}"));
    println!("{}", window.describe());
    let address = name.split(',').next().unwrap().to_owned();
    let (file, word) = match window.news() {
        Some(_) => ("/sys/bus/pci/drivers/vfio-pci/unbind".to_owned(), address),
        None => (format!("/sys/bus/pci/devices/{address}/remove"), "1".to_owned()),
    };
    let begun = Instant::now();
    let taken = std::thread::spawn(move || std::fs::write(file, word));
    let mut bytes = [0; 4096];
    let mut reads = 0_u64;
    let why = loop {
        window.memory().write_from(b"still here");
        window.memory().read_into(&mut bytes);
        window.ring(window.own_id().unwrap_or_default());
        reads += 1;
        if reads.is_multiple_of(100) {
            window.attend();
        }
        // Of one that is used through sysfs nobody says that it was removed.
        let asked = if window.news().is_none() && reads.is_multiple_of(100) { window.probe() } else { None };
        match window.gone().or(asked) {
            Some(why) => break why,
            None => assert!(begun.elapsed() < Duration::from_secs(60), "nothing was heard of its end"),
        }
    };
    // Who waits for us to let go waits no longer, though the window is still in use.
    taken.join().unwrap().unwrap();
    println!("{why}; after {reads} reads, {:?}", begun.elapsed());
    assert_eq!(why, if window.news().is_some() { Gone::Asked } else { Gone::Ones });
    for _ in 0..1000 {
        window.memory().write_from(&bytes);
        window.ring(1);
        window.memory().read_into(&mut bytes);
    }
    assert_eq!((window.probe(), window.gone()), (Some(why), Some(why)));
    // What VFIO let go of is still there, without a driver.
    match slot::open(&name, 4096) {
        Ok(again) => println!("again {}", again.describe()),
        Err(error) => println!("{error}"),
    }
}
