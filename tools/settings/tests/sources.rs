//! Where settings come from, which of them holds, and that they arrive as they were sent.

use std::ffi::OsString;
use std::path::Path;
use tbrdma_settings::{CONFIG_VARIABLE, Key, Layer, Settings};

const FILE: &str = r#"
devices = ["mlx5_0=udp:lo", "shm"]
profile = "connectx"
fault = "loss=1%"
seed = "18446744073709551615"
link = "64Gbps,5us"
capture = "packets-%p.pcapng"
trace = "/var/calls"
trace_last = 9
trace_signal = "USR1"
explain = true
"#;

/// A folder with a file of settings.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str, text: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("run.toml"), text).expect("a file");
        Self(folder)
    }

    fn layer(&self) -> Layer {
        Layer::from_file(&self.0.join("run.toml"), "--config").expect("it can be read")
    }

    fn refusal(&self) -> String {
        Layer::from_file(&self.0.join("run.toml"), "--config").expect_err("it is refused").to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn variables(of: &[(&'static str, &str)]) -> Layer {
    Layer::from_variables(|name| of.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
}

#[test]
fn a_file_says_everything() {
    let folder = Folder::new("everything", FILE);
    let settings = folder.layer().parse().expect("it is right");
    assert_eq!(settings.devices[0].to_string(), "mlx5_0=udp:lo");
    assert_eq!(settings.devices[1].to_string(), "mlx5_1=shm");
    assert_eq!(settings.seed, Some(u64::MAX));
    assert_eq!(settings.faults.to_string(), "loss=1%");
    assert_eq!(settings.link.expect("a link").to_string(), "64Gbps,5us");
    assert_eq!(
        settings.capture,
        Some(folder.0.join("packets-%p.pcapng")),
        "it counts from the file's folder"
    );
    assert_eq!(settings.trace.as_deref(), Some(Path::new("/var/calls")));
    assert!(settings.explain);
}

#[test]
fn a_flag_is_stronger_than_a_variable_and_that_than_the_file() {
    let file = Folder::new("layers", FILE).layer();
    let variables = variables(&[("TBRDMA_SEED", "2"), ("TBRDMA_PROFILE", "rxe"), ("TBRDMA_EXPLAIN", "0")]);
    let mut flags = Layer::default();
    flags.set(Key::Seed, "3", "--seed");
    let settings = flags.over(variables.over(file)).parse().expect("it is right");
    assert_eq!(settings.seed, Some(3));
    assert_eq!(settings.profile.name, "rxe");
    assert!(!settings.explain, "what is off above is off");
    assert_eq!(settings.devices[0].name, "mlx5_0");
}

#[test]
fn an_empty_variable_is_none_and_a_wrong_one_without_effect_is_no_error() {
    let lower = variables(&[("TBRDMA_SEED", "x"), ("TBRDMA_PROFILE", "")]);
    assert!(lower.parse().expect_err("no number").to_string().starts_with("TBRDMA_SEED"));
    let mut flags = Layer::default();
    flags.set(Key::Seed, "3", "--seed");
    assert_eq!(flags.over(lower).parse().expect("it is right").profile.name, "plain");
}

#[test]
fn variables_carry_settings_to_another_process_as_they_are() {
    let settings = Folder::new("carried", FILE).layer().parse().expect("it is right");
    let carried = settings.variables();
    assert!(carried.contains(&(CONFIG_VARIABLE, None)), "the file is said already");
    let there = Layer::from_variables(|name| -> Option<OsString> {
        carried.iter().find(|(known, _)| *known == name).and_then(|(_, value)| value.clone())
    });
    assert_eq!(there.parse().expect("it is right"), settings);

    let nothing: Settings = Layer::default().parse().expect("it is right");
    let said = nothing.variables();
    let said: Vec<_> =
        said.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?.to_str()?))).collect();
    assert_eq!(said, [("TBRDMA_DEVICES", "shm=shm"), ("TBRDMA_PROFILE", "plain")]);
}

#[test]
fn a_file_that_makes_no_sense_is_refused_with_the_place() {
    for (text, said) in [
        ("profiles = \"rxe\"", "unknown field `profiles`"),
        ("explain = 1", "line 1"),
        ("seed = -1", "a number"),
        ("devices = \"shm\"", "line 1"),
        ("profile", "line 1"),
    ] {
        let refusal = Folder::new("refused", text).refusal();
        assert!(refusal.contains("run.toml") && refusal.contains(said), "{refusal}");
    }
    let value = Folder::new("value", "profile = \"cx\"").layer().parse().expect_err("no profile").to_string();
    assert!(value.contains("run.toml: profile: \"cx\""), "{value}");
    let missing =
        Layer::from_file(Path::new("/nowhere/run.toml"), "--config").expect_err("no file").to_string();
    assert!(missing.starts_with("--config: cannot read /nowhere/run.toml"), "{missing}");
}
