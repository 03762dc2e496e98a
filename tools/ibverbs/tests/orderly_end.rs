//! A native device with Apple's rules ends in the order that its driver needs, whatever ends the program: the library behind it is our own, which
//! writes down each call, and pretends a Mac's port.

mod common;
#[path = "common/program.rs"]
mod program;

use common::process::{role, say};
use nix::sys::signal::{Signal, raise};
use nix::unistd::alarm;
use program::Program;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use tbrdma::{
    Access, CompletionQueue, Context, ForeignMemory, MemoryRegion, OpenOptions, ProtectionDomain, QpInit,
    QueuePair,
};

/// What a program has of a device.
struct Held {
    mr: MemoryRegion,
    lent: MemoryRegion,
    cq: CompletionQueue,
    pd: ProtectionDomain,
    qp: QueuePair,
    context: Context,
}

/// Objects of each kind, with receives posted; two regions, of which one is memory that was only lent.
fn hold() -> Held {
    let context = OpenOptions::new().profile("apple-tb5").open("native:rdma_en2").expect("it opens");
    let pd = context.alloc_pd().expect("a PD");
    let cq = context.create_cq(64).expect("a CQ");
    let mut qp = pd.create_qp(QpInit::uc(&cq)).expect("a QP");
    qp.connect(&qp.address()).expect("it connects");
    let mr = pd.alloc(8192, Access::LOCAL_WRITE).expect("an MR");
    let bytes: &'static mut [u8] = vec![0_u8; 4096].leak();
    // SAFETY: nobody else knows the bytes, and they live as long as the program.
    let lent = unsafe { ForeignMemory::from_raw(bytes.as_mut_ptr(), bytes.len()) };
    let lent = pd.register_foreign(lent, Access::LOCAL_WRITE).expect("an MR");
    qp.post_recv(|rq| {
        rq.recv(mr.slice(0..4096));
        rq.recv(lent.slice(0..4096));
    })
    .expect("receives");
    Held { mr, lent, cq, pd, qp, context }
}

#[test]
fn child() {
    let Some(role) = role() else { return };
    program::signals_are_as_usual();
    // A test that fails must not leave this behind.
    alarm::set(60);
    let mut held = hold();
    match role.as_str() {
        // The opposite of what is wanted.
        "drop" => {
            let Held { mr, lent, cq, pd, qp, context } = held;
            drop((context, pd, cq, mr));
            drop(qp);
            drop(lent);
        }
        "panic" => {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _held = held;
                panic!("in the middle");
            }));
            assert!(caught.is_err());
        }
        "exit" => std::process::exit(3),
        "handled" => {
            // SAFETY: the handler does nothing.
            let _ = unsafe {
                nix::sys::signal::signal(Signal::SIGTERM, nix::sys::signal::SigHandler::Handler(nothing))
            };
            raise(Signal::SIGTERM).expect("a signal");
            drop(held.qp);
        }
        // One thread posts and another polls when the signal comes.
        "busy" | "busy_without" => {
            let Held { cq, mr, ref mut qp, .. } = held;
            std::thread::spawn(move || {
                let mut wcs = [tbrdma::WorkCompletion::default(); 4];
                loop {
                    cq.poll(&mut wcs);
                }
            });
            say("busy");
            loop {
                let _ = qp.post(|wr| {
                    wr.send(mr.slice(0..4096));
                });
            }
        }
        other => panic!("{other}"),
    }
}

extern "C" fn nothing(_: i32) {}

/// Runs a role, perhaps to a signal: the calls that ended something, in order, with the QP's way to ERR, and how it ended.
fn ends_of(role: &str, signal: Option<Signal>, more: &[(&str, &str)]) -> (Vec<String>, ExitStatus) {
    let trace = std::env::temp_dir().join(format!("tbrdma-orderly-{}-{role}-{signal:?}", std::process::id()));
    let library = common::library();
    let mut env = vec![
        ("TBRDMA_VERBS_LIBRARY", library.to_str().expect("UTF-8")),
        ("TBRDMA_DEVICES", "rdma_en2=shm"),
        ("TBRDMA_PROFILE", "apple-tb5"),
        ("TBRDMA_TRACE", trace.to_str().expect("UTF-8")),
    ];
    env.extend(more);
    let mut program = Program::start(role, &env);
    if let Some(signal) = signal {
        program.until_said("busy");
        program.signal(signal);
    }
    let (_, told, status) = program.end();
    let text = std::fs::read_to_string(&trace).unwrap_or_else(|error| panic!("no trace: {error}; {told}"));
    let _ = std::fs::remove_file(&trace);
    let words =
        ["to Err", "ibv_destroy_qp", "ibv_destroy_cq", "ibv_dereg_mr", "ibv_dealloc_pd", "ibv_close_device"];
    // Opening tries what can be sent inline, with objects of its own.
    let begun = text.lines().skip_while(|line| !line.contains("ibv_reg_mr"));
    let found = begun.filter_map(|line| words.iter().find(|word| line.contains(**word)));
    (found.map(ToString::to_string).collect(), status)
}

const IN_ORDER: [&str; 7] = [
    "to Err",
    "ibv_destroy_qp",
    "ibv_destroy_cq",
    "ibv_dereg_mr",
    "ibv_dereg_mr",
    "ibv_dealloc_pd",
    "ibv_close_device",
];

#[test]
fn a_signal_that_ends_the_program_waits_for_an_end_in_order() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (ends, status) = ends_of("busy", Some(signal), &[]);
        assert_eq!(ends, IN_ORDER, "{signal}");
        assert_eq!(status.signal(), Some(signal as i32), "the signal does what it would have done");
    }
}

#[test]
fn a_panic_ends_in_order() {
    let (ends, status) = ends_of("panic", None, &[]);
    assert!(status.success());
    // Memory that was only lent may be freed next, so it is let go when it is dropped.
    let lent_first: Vec<_> = ends.iter().filter(|end| *end != "ibv_dereg_mr").collect();
    assert_eq!(
        lent_first,
        ["to Err", "ibv_destroy_qp", "ibv_destroy_cq", "ibv_dealloc_pd", "ibv_close_device"]
    );
    let at = |what: &str| ends.iter().rposition(|end| end == what).expect("it ends");
    assert!(
        at("ibv_destroy_cq") < at("ibv_dereg_mr") && at("ibv_dereg_mr") < at("ibv_dealloc_pd"),
        "{ends:?}"
    );
}

#[test]
fn objects_that_are_dropped_in_any_order_end_in_one() {
    let (ends, status) = ends_of("drop", None, &[]);
    assert!(status.success());
    assert_eq!(ends, IN_ORDER);
}

#[test]
fn exit_ends_in_order() {
    let (ends, status) = ends_of("exit", None, &[]);
    assert_eq!(status.code(), Some(3));
    assert_eq!(ends, IN_ORDER);
}

#[test]
fn a_program_that_handles_the_signal_keeps_it() {
    let (ends, status) = ends_of("handled", None, &[]);
    assert!(status.success(), "{status}");
    assert_eq!(ends[..2], IN_ORDER[..2]);
    assert_eq!(ends.iter().filter(|end| *end == "ibv_close_device").count(), 1, "{ends:?}");
}

#[test]
fn it_can_be_done_without() {
    let (ends, status) = ends_of("busy_without", Some(Signal::SIGTERM), &[("TBRDMA_TEARDOWN", "off")]);
    assert_eq!(ends, [""; 0]);
    assert_eq!(status.signal(), Some(Signal::SIGTERM as i32));
}
