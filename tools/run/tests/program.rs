//! What a program is started with, and that it is the program that is left: its process, its exit code, its signals.

mod tree;

use std::os::unix::process::ExitStatusExt;
use tree::{Tree, text};

#[test]
fn the_loader_looks_for_the_library_beside_the_program_under_both_its_names() {
    for (tree, folder) in
        [(Tree::built("both-built"), "bin/tbrdma"), (Tree::installed("both-installed"), "lib/tbrdma")]
    {
        let output = tree.run(&["--", "sh", "-c", "echo $LD_LIBRARY_PATH"]);
        let folder = tree.path(folder);
        assert_eq!(text(&output.stdout), format!("{}\n", folder.display()), "{}", text(&output.stderr));
        for name in ["libibverbs.so.1", "librdma.dylib"] {
            assert_eq!(std::fs::read_to_string(folder.join(name)).expect("it leads there"), tree::LIBRARY);
        }
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn what_the_loader_was_told_before_comes_behind() {
    let tree = Tree::built("behind");
    let folder = tree.path("bin/tbrdma").display().to_string();
    let before = format!("/a:{folder}:/b");
    let output = tree
        .command(&["sh", "-c", "echo $LD_LIBRARY_PATH"])
        .env("LD_LIBRARY_PATH", before)
        .output()
        .expect("sh");
    assert_eq!(text(&output.stdout), format!("{folder}:/a:/b\n"));
}

#[test]
fn settings_arrive_from_flags_variables_and_a_file() {
    let tree = Tree::built("settings");
    let file = tree.path("run.toml");
    std::fs::write(&file, "devices = [\"udp:lo\"]\nseed = 1\nprofile = \"rxe\"\ntrace = \"calls\"")
        .expect("a file");
    let mut command =
        tree.command(&["--config", "run.toml", "--fault", "loss=1%", "--explain", "sh", "-c", "env"]);
    let output = command.current_dir(tree.path("")).env("TBRDMA_SEED", "2").output().expect("sh");
    let said = text(&output.stdout);
    let mut ours: Vec<_> = said.lines().filter(|line| line.starts_with("TBRDMA_")).collect();
    ours.sort_unstable();
    let trace = format!("TBRDMA_TRACE={}", tree.path("calls").display());
    assert_eq!(
        ours,
        [
            "TBRDMA_DEVICES=rxe0=udp:lo",
            "TBRDMA_EXPLAIN=1",
            "TBRDMA_FAULT=loss=1%",
            "TBRDMA_PROFILE=rxe",
            "TBRDMA_SEED=2",
            &trace,
        ],
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn faults_without_a_seed_get_one_and_it_is_told() {
    let tree = Tree::built("seed");
    let run = |extra: &[&str]| {
        let mut arguments = vec!["--device", "udp:lo", "--fault", "loss=1%"];
        arguments.extend(extra);
        arguments.extend(["sh", "-c", "echo $TBRDMA_SEED"]);
        let output = tree.run(&arguments);
        (text(&output.stdout), text(&output.stderr))
    };
    let (seed, told) = run(&[]);
    assert!(told.contains(&format!("--seed {}", seed.trim())), "{told}");
    assert_eq!(run(&["--seed", seed.trim()]), (seed, String::new()));
}

#[test]
fn the_variables_can_be_had_for_a_shell() {
    let tree = Tree::built("it's a shell");
    let printed = tree.run(&["--device", "a=udp:lo", "--print-env"]);
    let script = format!("{}echo \"$TBRDMA_DEVICES $LD_LIBRARY_PATH $TBRDMA_CONFIG\"", text(&printed.stdout));
    let mut shell = std::process::Command::new("sh");
    let output = shell
        .args(["-c", &script])
        .env("TBRDMA_CONFIG", "x")
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .expect("sh");
    assert_eq!(text(&output.stdout), format!("a=udp:lo {} \n", tree.path("bin/tbrdma").display()));
}

#[test]
fn process_exit_code_and_signals_are_the_programs_own() {
    let tree = Tree::built("own");
    let mut child = tree
        .command(&["sh", "-c", "echo $$; exit 7"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sh");
    let process = child.id();
    let status = child.wait().expect("it ends");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().expect("a pipe"), &mut said).expect("text");
    assert_eq!((status.code(), said), (Some(7), format!("{process}\n")));
    let status = tree.command(&["sh", "-c", "kill -9 $$"]).status().expect("sh");
    assert_eq!(status.signal(), Some(9));
}

#[test]
fn device_files_are_pretended_only_where_that_is_asked_for() {
    let tree = Tree::built("files");
    let show = ["sh", "-c", "echo \"$LD_PRELOAD\""];
    assert_eq!(text(&tree.run(&show).stdout), "\n");
    let paths = tree.path("bin/libtbrdma_paths.so").display().to_string();
    let asked = tree.command(&["--device-files", "sh", "-c", "echo \"$LD_PRELOAD\""]).output().expect("sh");
    assert_eq!((text(&asked.stdout), asked.status.code()), (String::new(), Some(126)));
    assert!(text(&asked.stderr).contains(&format!("needs {paths}; build it")), "{}", text(&asked.stderr));
}

#[test]
fn what_cannot_be_done_is_told_with_a_way_out() {
    let tree = Tree::built("wrong");
    for (arguments, code, said) in [
        (&["--profile", "cx", "true"][..], 126, "--profile: \"cx\": profile: an unknown name"),
        (&["--config", "/nowhere/run.toml", "true"], 126, "--config: cannot read /nowhere/run.toml"),
        (&["--", "/nowhere/program"], 127, "cannot start /nowhere/program"),
        (&["--", "/"], 126, "cannot start /"),
        (&[], 2, "required"),
        (&["--print-env", "true"], 2, "cannot be used with"),
    ] {
        let output = tree.run(arguments);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(said), "{told}");
    }
    let bare = Tree::without_library("bare").run(&["true"]);
    let told = text(&bare.stderr);
    assert!(told.contains("no drop-in library") && told.contains("cargo build --release"), "{told}");
}

#[test]
fn many_at_once_make_the_links_together() {
    let tree = Tree::built("many");
    let children: Vec<_> = (0..16).map(|_| tree.command(&["true"]).spawn().expect("it starts")).collect();
    for mut child in children {
        assert!(child.wait().expect("it ends").success());
    }
    assert!(tree.run(&["true"]).status.success());
}
