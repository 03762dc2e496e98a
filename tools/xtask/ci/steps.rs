//! The steps, in their order: what is quick to find out comes first. docs/checks.md has them as a table (`cargo xtask ci --list`).

/// One thing that must hold.
pub(super) struct Step {
    pub(super) name: &'static str,
    /// What is run.
    pub(super) words: &'static str,
    /// A variable of its environment.
    pub(super) variable: Option<(&'static str, &'static str)>,
    /// What goes wrong unseen without it.
    pub(super) protects: &'static str,
    /// Whether it belongs to the few minutes before each push.
    pub(super) quick: bool,
    /// What it takes on two cores, on a clean clone.
    pub(super) seconds: u32,
}

/// A step without a variable.
const fn step(
    name: &'static str,
    words: &'static str,
    protects: &'static str,
    quick: bool,
    seconds: u32,
) -> Step {
    Step { name, words, variable: None, protects, quick, seconds }
}

/// All of them.
pub(super) const STEPS: &[Step] = &[
    step("format", "cargo fmt --all --check", "one style, so that changes show what they change", true, 2),
    step(
        "rules of the repository",
        "cargo xtask tidy",
        "length and opening of files, `unsafe` in its rooms, who imports whom, links, dead files",
        true,
        2,
    ),
    step(
        "lints",
        "cargo clippy --workspace --all-targets --locked -- -D warnings",
        "warnings, and a `SAFETY` argument on each `unsafe`",
        true,
        55,
    ),
    Step {
        variable: Some(("RUSTDOCFLAGS", "-D warnings")),
        ..step(
            "docs",
            "cargo doc --workspace --no-deps --locked",
            "links in the documentation, and that there is some",
            true,
            10,
        )
    },
    step(
        "models",
        ".ci/loom",
        "the protocols of `driver/ring`, in every order of their steps (loom)",
        false,
        50,
    ),
    step(
        "the main job, as README starts it",
        "cargo run --release --locked -- pingpong --iters 100000",
        "that a newcomer's first command works",
        false,
        60,
    ),
    step(
        "instruction counts",
        "cargo xtask counts",
        "the fast paths: instructions of a message, under valgrind, against ceilings, and by `gate` and `compare` against benches/counts.json",
        false,
        60,
    ),
    step(
        "tests, as README runs them",
        "cargo test --workspace --locked",
        "behaviour of everything: the transport, devices, the C face, the harness; conformance; corpora of the fuzzer",
        true,
        330,
    ),
    step(
        "conformance through the C face",
        "cargo xtask conformance --check --device native-over-shm --device native-over-udp",
        "that every case of the suite holds on the `native` device over our own libibverbs",
        false,
        95,
    ),
    step(
        "swarm",
        "cargo xtask swarm --seeds 500",
        "the promises of the transport on 500 simulated networks",
        false,
        5,
    ),
    step(
        "planted bugs",
        "cargo xtask swarm --plant all",
        "that the swarm finds the bugs that are planted for it",
        false,
        20,
    ),
    step(
        "virtual machines",
        "cargo xtask lab",
        "interoperation with the kernel's RoCEv2; a PCI memory window between guests and a host, and its removal",
        false,
        215,
    ),
    step(
        "Debian's programs on our devices",
        "cargo xtask programs --quick",
        "that programs run unmodified on `shm` and `udp`, and leave nothing behind",
        false,
        75,
    ),
    step(
        "the part for other systems",
        "cargo xtask seam",
        "that what is not Linux's compiles for a Mac, and docs/platforms.md lists what differs",
        false,
        60,
    ),
    step(
        "fuzzing, three seconds each",
        ".ci/fuzz 3",
        "what parses or judges anything from outside, with inputs nobody thought of; but for what the harness reads",
        false,
        75,
    ),
];
