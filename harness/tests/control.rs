//! The other side is missing, another version, nonsense, silent, or dies: one line that names it, and no waiting for ever.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{PATIENCE, children, eventually, failure, finish, has_ended, program, stderr};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A server that says `lines` to its first client and then keeps the connection until the client closes it.
fn fake_server(lines: &'static [&'static str]) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for line in lines {
            let _ = writeln!(stream, "{line}");
        }
        let mut heard = String::new();
        let mut reader = BufReader::new(stream);
        while reader.read_line(&mut heard).is_ok_and(|read| read > 0) {}
        heard
    });
    (address, served)
}

#[test]
fn a_missing_server_is_told_with_what_to_do() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let start = Instant::now();
    let (code, line) = failure(&["pingpong", "--connect", &address, "--timeout", "5s"]);
    assert_eq!(code, Some(1));
    assert!(line.contains(&address) && line.contains("refused") && line.contains("--server"), "{line}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn another_version_is_refused() {
    let (address, served) = fake_server(&[
        r#"{"type":"hello","protocol":"tbrdma-bench control","version":77,"release":"7.7.0"}"#,
    ]);
    let (code, line) = failure(&["pingpong", "--connect", &address]);
    assert_eq!(code, Some(1));
    assert!(
        line.contains("version 77") && line.contains("7.7.0") && line.contains("same tbrdma-bench"),
        "{line}"
    );
    let heard = served.join().unwrap();
    assert!(
        heard.contains(r#""type":"hello""#) && heard.contains(r#""type":"fail""#),
        "the peer hears why: {heard}"
    );
}

#[test]
fn a_peer_that_is_something_else_is_quoted() {
    let (address, _served) = fake_server(&["220 mail.example ESMTP"]);
    let (code, line) = failure(&["pingpong", "--connect", &address]);
    assert_eq!(code, Some(1));
    assert!(
        line.contains("does not speak the control protocol") && line.contains("220 mail.example"),
        "{line}"
    );
}

#[test]
fn a_silent_peer_is_waited_for_no_longer_than_asked() {
    let (address, _served) = fake_server(&[]);
    let start = Instant::now();
    let (code, line) = failure(&["pingpong", "--connect", &address, "--timeout", "300ms"]);
    assert_eq!(code, Some(1));
    assert!(line.contains("within 0.3 s") && line.contains(&address), "{line}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_server_refuses_a_client_of_another_kind() {
    let mut server =
        program().args(["pingpong", "--server", "127.0.0.1:0", "--timeout", "60s"]).spawn().unwrap();
    let address = announced(&mut server);
    let mut client = TcpStream::connect(&address).unwrap();
    writeln!(client, "GET / HTTP/1.1\r\n\r").unwrap();
    let output = finish(server, &["--server"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("does not speak the control protocol"), "{}", stderr(&output));
}

#[test]
fn a_server_refuses_a_plan_that_cannot_be() {
    let mut server = program().args(["pingpong", "--server", "127.0.0.1:0"]).spawn().unwrap();
    let address = announced(&mut server);
    let client = TcpStream::connect(&address).unwrap();
    let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
    let hello = lines.next().unwrap().unwrap();
    writeln!(&client, "{hello}").unwrap();
    writeln!(
        &client,
        r#"{{"type":"plan","benchmark":"bw","op":"send","transport":"rc","size":1073741824,"wait":"poll","inline":false,"depth":16384,"post_list":1,"signal_every":1,"device":"shm","pin_responder":null,"timeout_ms":1000}}"#
    )
    .unwrap();
    let answer = lines.next().unwrap().unwrap();
    assert!(answer.contains(r#""type":"fail""#) && answer.contains("over the limit"), "{answer}");
    assert_ne!(finish(server, &["--server"]).status.code(), Some(0));
}

/// The address which a server says it listens on.
fn announced(server: &mut std::process::Child) -> String {
    let mut stderr = BufReader::new(server.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let address = line.split(' ').find(|word| word.starts_with("127.0.0.1:")).expect("an address").to_owned();
    server.stderr = Some(stderr.into_inner());
    address
}

#[test]
fn two_programs_measure_over_tcp() {
    let mut server = program().args(["pingpong", "--server", "127.0.0.1:0"]).spawn().unwrap();
    let address = announced(&mut server);
    let client = program()
        .args([
            "pingpong",
            "--connect",
            &address,
            "--iters",
            "200",
            "--warmup",
            "50",
            "--quiet",
            "--timeout",
            "60s",
        ])
        .spawn()
        .unwrap();
    let output = finish(client, &["--connect"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = finish(server, &["--server"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = common::stdout(&output);
    assert!(text.contains("0 errors") && text.contains("served pingpong of send x 64 bytes"), "{text}");
}

/// Starts a long run and returns it with its second process, once both are measuring.
fn long_run(arguments: &[&str]) -> (std::process::Child, u32) {
    let parent = program().args(arguments).args(["--duration", "100s", "--quiet"]).spawn().unwrap();
    let mut second = None;
    eventually("the second process is there", PATIENCE, || {
        second = children(parent.id()).first().copied();
        second.is_some()
    });
    // Long enough to be past the set-up, usually; the test holds at any moment.
    std::thread::sleep(Duration::from_millis(700));
    (parent, second.unwrap())
}

fn signal(name: &str, pid: u32) {
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .stdout(Stdio::null())
        .status()
        .expect("sh is there");
    assert!(status.success());
}

#[test]
fn ctrl_c_ends_both_processes_and_leaves_nothing() {
    for arguments in [
        &["pingpong"][..],
        &["pingpong", "--op", "write"],
        &["pingpong", "--wait", "event"],
        &["bw"],
        &["rate", "--op", "send"],
    ] {
        let before = shared_memory_names();
        let (parent, second) = long_run(arguments);
        let start = Instant::now();
        signal("INT", parent.id());
        let output = finish(parent, arguments);
        assert_eq!(output.status.code(), Some(130), "{arguments:?}: {}", stderr(&output));
        assert!(start.elapsed() < Duration::from_secs(20));
        eventually("the second process has ended", Duration::from_secs(20), || has_ended(second));
        assert_eq!(shared_memory_names(), before, "{arguments:?} leaves nothing in /dev/shm");
    }
}

#[test]
fn a_peer_that_dies_is_named_within_seconds() {
    for arguments in [&["pingpong"][..], &["pingpong", "--op", "write"], &["bw", "--op", "send"], &["rate"]] {
        let (parent, second) = long_run(arguments);
        let start = Instant::now();
        signal("KILL", second);
        let output = finish(parent, arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains(&format!("the responder (process {second}")) && text.contains("signal: 9"),
            "{text}"
        );
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }
}

#[test]
fn an_initiator_that_dies_takes_its_second_process_along() {
    let (mut parent, second) = long_run(&["pingpong", "--op", "write"]);
    signal("KILL", parent.id());
    parent.wait().unwrap();
    eventually("the second process has ended", Duration::from_secs(20), || has_ended(second));
}

/// What is in /dev/shm of ours; other tests' libraries may come and go.
fn shared_memory_names() -> usize {
    let names = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().contains("tbrdma")).count()
}
