//! Wrong flags, impossible plans and limits: one clear line and exit code 2.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{failure, finish, program, run, scratch, stderr, stdout};

#[test]
fn wrong_flags_are_one_line_and_exit_code_2() {
    let wrong: [(&[&str], &str); 29] = [
        (&["nonsense"], "nonsense"),
        (&["pingpong", "--nonsense"], "--nonsense"),
        (&["pingpong", "--op", "shout"], "write-imm"),
        (&["pingpong", "--transport", "xrc"], "rc, uc, ud"),
        (&["pingpong", "--size", "12q"], "q is no unit of size"),
        (&["pingpong", "--size=-1"], "--size"),
        (&["pingpong", "--iters", "0"], "--iters"),
        (&["pingpong", "--iters", "5", "--duration", "1s"], "--duration"),
        (&["pingpong", "--duration", "1 fortnight"], "--duration"),
        (&["pingpong", "--pin", "0,0"], "one core twice"),
        (&["pingpong", "--rate", "many"], "20k"),
        (&["pingpong", "--json", "-", "--csv", "-"], "--json and --csv cannot all go to standard output"),
        (&["bw", "--hgrm", "x.hgrm"], "bw measures none"),
        (&["pingpong", "--rate", "1"], "raise --timeout"),
        (&["pingpong", "--arrivals", "poisson"], "--rate"),
        (&["pingpong", "--pin", "4000"], "not a core that this process may use"),
        (&["pingpong", "--op", "read", "--transport", "uc"], "does not exist on --transport uc"),
        (&["pingpong", "--op", "write", "--transport", "ud"], "does not exist on --transport ud"),
        (&["pingpong", "--op", "cas", "--size", "16"], "exactly 8 bytes"),
        (&["pingpong", "--op", "write", "--wait", "event"], "no completion"),
        (&["pingpong", "--profile", "apple-tb4"], "apple-tb5"),
        (&["mixed"], "<PLAN>"),
        (&["mixed", "/dev/null"], "it has 0 [[class]]es"),
        (&["idle", "--gaps", "1ms,1fortnight"], "no unit of a gap"),
        (&["idle", "--gaps", "6s"], "raise --timeout"),
        (&["pingpong", "--threads", "65"], "outside 1..=64"),
        (&["rate", "--qps", "0"], "--qps 0 is outside"),
        (&["bw", "--threads", "2", "--pin", "0"], "--pin names the cores of one thread"),
        (&["rate", "--depth", "16", "--signal-every", "32"], "--signal-every 32 is outside 1..=16"),
    ];
    for (arguments, part) in wrong {
        let (code, line) = failure(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {line}");
        assert!(line.contains(part), "{arguments:?} names {part}: {line}");
    }
}

#[test]
fn a_size_over_the_limit_is_told_with_the_limit() {
    for (arguments, part) in [
        (&["pingpong", "--size", "3G"][..], "2147483648"),
        (&["pingpong", "--transport", "ud", "--size", "8k"], "the path MTU"),
        (&["pingpong", "--inline", "--size", "64k"], "--inline"),
        (&["bw", "--size", "2G", "--depth", "1000"], "lower --depth or --size"),
        (&["rate", "--depth", "16384", "--op", "send"], "--depth"),
    ] {
        let (code, line) = failure(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {line}");
        assert!(line.contains("limit") && line.contains(part), "{line}");
    }
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let (code, line) = failure(&["pingpong", "--device", "mlx5_77"]);
    assert_eq!(code, Some(1));
    assert!(line.contains("mlx5_77"), "{line}");
    let (code, line) = failure(&["devices", "--device", "mlx5_77"]);
    assert_eq!(code, Some(2));
    assert!(line.contains("mlx5_77") && line.contains("shm"), "{line}");
}

#[test]
fn a_json_file_that_cannot_be_is_told_before_the_run() {
    let (code, line) = failure(&["pingpong", "--json", "/no/such/directory/x.json"]);
    assert_eq!(code, Some(1));
    assert!(line.contains("/no/such/directory/x.json"), "{line}");
}

#[test]
fn help_and_devices_are_no_errors() {
    for arguments in [&["--help"][..], &["pingpong", "--help"], &["--version"]] {
        let output = run(arguments);
        assert!(output.status.success());
        assert!(stdout(&output).contains("tbrdma-bench"), "{arguments:?}");
    }
    let output = run(&["devices"]);
    assert!(output.status.success());
    let text = stdout(&output);
    for part in ["hca_id:\tshm", "node_guid:", "max_qp_wr:", "active_mtu:", "GID[  0]:", "PORT_ACTIVE"] {
        let part = if part == "PORT_ACTIVE" { "Active (4)" } else { part };
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_profile_refuses_what_its_device_has_not() {
    let (code, line) = failure(&["pingpong", "--profile", "apple-tb5"]);
    assert_eq!(code, Some(1));
    assert!(line.contains("RC queue pairs"), "{line}");
    let (code, line) = failure(&["pingpong", "--profile", "apple-tb5", "--transport", "uc", "--inline"]);
    assert_eq!(code, Some(2));
    assert!(line.contains("--inline"), "{line}");
}

#[test]
fn devices_are_listed_as_their_profile_has_them() {
    let listed = run(&["devices", "--device", "shm", "--profile", "connectx"]);
    assert_eq!(listed.status.code(), Some(0));
    let text = stdout(&listed);
    assert!(text.contains("connectx") && text.contains("4119") && text.contains("0x02c9"), "{text}");
}

/// The subcommands that people see, as `--help` lists them.
fn subcommands() -> Vec<String> {
    let help = stdout(&run(&["--help"]));
    let list = help.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let named = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<String> =
        named.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert!(names.len() > 12 && names.contains(&"replay".to_owned()), "{help}");
    names
}

#[test]
fn help_has_examples_and_is_as_wide_as_asked() {
    let commands = subcommands();
    let all = [vec![]].into_iter().chain(commands.iter().map(|name| vec![name.as_str()]));
    for words in all.filter(|words| *words != ["help"]) {
        let child = program().args(&words).arg("--help").env("COLUMNS", "80").spawn().unwrap();
        let output = finish(child, &words);
        let help = stdout(&output);
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{words:?}");
        assert!(help.contains("\nExamples:\n  "), "{words:?} has no examples:\n{help}");
        let wide: Vec<&str> = help.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{words:?}: wider than 80 columns: {wide:#?}");
        assert!(!help.contains('\u{1b}'), "{words:?}: colours, though nobody looks");
    }
}

#[test]
fn completions_and_manual_pages_know_every_subcommand() {
    let commands = subcommands();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = stdout(&run(&["completions", shell]));
        for name in &commands {
            assert!(text.contains(name.as_str()), "{shell} lacks {name}");
        }
        assert!(text.contains("signal-every"), "{shell} has the flags");
    }
    let page = stdout(&run(&["man"]));
    let folder = scratch("man");
    std::fs::create_dir(&folder).unwrap();
    let output = run(&["man", "-o", folder.to_str().unwrap()]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    for name in commands.iter().filter(|name| *name != "help") {
        assert!(page.contains(name.as_str()), "{name} in the page of the program");
        let page = std::fs::read_to_string(folder.join(format!("tbrdma-bench-{name}.1"))).expect(name);
        assert!(page.contains("Examples:"), "{name}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    let output = run(&["man", "-o", folder.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("mkdir -p"), "{}", stderr(&output));
}
