//! What values mean, and what is said of values that mean nothing.

use std::path::Path;
use tbrdma_settings::{Key, Layer, Settings, SettingsError, for_process};

fn parse(values: &[(Key, &str)]) -> Result<Settings, SettingsError> {
    let mut layer = Layer::default();
    for &(key, value) in values {
        layer.set(key, value, key.flag());
    }
    layer.parse()
}

fn refusal(values: &[(Key, &str)]) -> String {
    parse(values).expect_err("it is refused").to_string()
}

fn names(values: &[(Key, &str)]) -> Vec<String> {
    parse(values).expect("it is right").devices.iter().map(ToString::to_string).collect()
}

#[test]
fn who_says_nothing_gets_one_shm_device() {
    let settings = parse(&[]).expect("nothing is right");
    assert_eq!(names(&[]), ["shm=shm"]);
    assert_eq!(settings.profile.name, "plain");
    assert!(settings.link.is_none() && !settings.explain && !settings.device_files);
}

#[test]
fn devices_without_a_name_are_called_as_those_of_the_profile() {
    let names = |profile| names(&[(Key::Devices, "shm,a=udp:lo"), (Key::Profile, profile)]);
    assert_eq!(names("plain"), ["shm=shm", "a=udp:lo"]);
    assert_eq!(names("apple-tb5,qps=3"), ["rdma_en2=shm", "a=udp:lo"]);
    assert!(refusal(&[(Key::Devices, "shn")]).starts_with("--device: \"shn\": devices: no such kind"));
}

#[test]
fn other_values_that_make_no_sense_are_refused_with_what_would() {
    for (key, value, said) in [
        (Key::Profile, "cx5", "plain rxe connectx apple-tb5"),
        (Key::Fault, "loss=1", "loss=1%"),
        (Key::Seed, "-1", "a number from 0"),
        (Key::Link, "64", "as in 64Gbps,5us"),
        (Key::Link, "", "as in 64Gbps,5us"),
        (Key::Link, "5us~1us", "as in 64Gbps,5us"),
        (Key::Link, "5us,6us", "as in 64Gbps,5us"),
        (Key::TraceLast, "-1", "a number from 0"),
        (Key::TraceSignal, "KILL", "one of HUP, INT, QUIT"),
        (Key::Explain, "perhaps", "1 or 0"),
    ] {
        let refusal = refusal(&[(Key::Devices, "udp:lo"), (key, value)]);
        assert!(refusal.contains(key.flag()) && refusal.contains(said), "{refusal}");
    }
}

#[test]
fn a_link_and_faults_do_not_say_the_same() {
    let both = |link, fault| parse(&[(Key::Devices, "udp:lo"), (Key::Link, link), (Key::Fault, fault)]);
    both("5us", "loss=1%").expect("they say different things");
    both("1Gbps", "delay=5us").expect("they say different things");
    let refusal = both("1Gbps", "rate=2Gbps").expect_err("two rates").to_string();
    assert!(refusal.contains("--link") && refusal.contains("rate=2Gbps"), "{refusal}");
}

#[test]
fn faults_of_packets_and_of_verbs_are_one_plan() {
    let faults =
        |devices, text| parse(&[(Key::Devices, devices), (Key::Fault, text)]).map(|settings| settings.faults);
    let both = faults("udp:lo", "qp_err=7,loss=1%,wc=5:GENERAL_ERR").expect("right");
    assert_eq!(both.to_string(), "loss=1%,wc=5:GENERAL_ERR,qp_err=7");
    assert_eq!(both.wire.to_string(), "loss=1%");
    let later = faults("udp:lo", "qp_err=7,loss=1%; 2s: loss=5%,delay=1us").expect("right");
    assert_eq!(later.to_string(), "loss=1%; 2s: loss=5%,delay=1us,qp_err=7");
    assert_eq!(faults("shm", "qp_err=7").expect("verbs need no packets").to_string(), "qp_err=7");
    let unknown = refusal(&[(Key::Devices, "udp:lo"), (Key::Fault, "los=1%")]);
    assert!(unknown.contains("of verbs: wc, wc_delay, qp_err"), "{unknown}");
}

#[test]
fn what_needs_packets_needs_a_device_that_has_them() {
    let lossy = (Key::Fault, "loss=1%");
    assert!(refusal(&[lossy]).contains("--device udp:lo"));
    parse(&[(Key::Devices, "shm,udp:lo"), lossy]).expect("one device has packets");
    // Shared memory pretends to have them.
    for (key, value) in [(Key::Link, "5us"), (Key::Capture, "x.pcapng")] {
        parse(&[(key, value)]).expect("any device has that");
    }
}

#[test]
fn some_calls_are_kept_beside_a_trace_and_told_at_sigquit() {
    let kept = |values| parse(values).expect("right").kept_calls();
    assert_eq!(kept(&[]), 0);
    assert_eq!(kept(&[(Key::Trace, "calls")]), 256);
    assert_eq!(kept(&[(Key::Trace, "calls"), (Key::TraceLast, "0")]), 0);
    assert_eq!(kept(&[(Key::TraceLast, "7")]), 7);
    let signal = |text| parse(&[(Key::TraceSignal, text)]).expect("right").trace_signal.number();
    assert_eq!(parse(&[]).expect("right").trace_signal.number(), Some(3));
    assert_eq!((signal("SIGUSR1"), signal("USR2"), signal("none")), (Some(10), Some(12), None));
}

#[test]
fn a_path_can_name_the_process() {
    for (path, expected) in [
        ("/x/%p.pcapng", "/x/12.pcapng"),
        ("/x/100%%p", "/x/100%p"),
        ("/x/%q%", "/x/%q%"),
        ("/%p%p", "/1212"),
    ] {
        assert_eq!(for_process(Path::new(path), 12), Path::new(expected));
    }
}
