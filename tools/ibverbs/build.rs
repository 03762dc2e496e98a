//! How the library is linked: with the versions that rdma-core's has.
//!
//! A program asks the loader for `ibv_post_send@IBVERBS_1.1`. So the library must define the version nodes, and each function must be in its
//! node. rustc hands the linker a version script of its own, without a name, which says what is exported; the nodes come in a second
//! script, empty, and each function names its node with `.symver` (see `export.rs`). LLVM's linker, which rustc uses on x86-64 Linux,
//! takes both; GNU's does not. Where another linker is asked for, the library is built without versions: programs load it all the same,
//! but the loader complains on stderr, and `dlvsym` finds nothing.

use std::env;
use std::fs;
use std::path::Path;

/// The public nodes, each after the one it grew from, then the private ones of the releases that programs' other libraries come from.
const PUBLIC: [&str; 15] = [
    "1.0", "1.1", "1.5", "1.6", "1.7", "1.8", "1.9", "1.10", "1.11", "1.12", "1.13", "1.14", "1.15", "1.16",
    "1.17",
];
const PRIVATE: [&str; 5] = ["25", "34", "57", "59", "64"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(versioned)");
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("OS") != "linux" || target("ENV") != "gnu" {
        return;
    }
    if env::var_os("CARGO_CFG_FUZZING").is_some() {
        // A fuzzer has the library linked in, and there are no versions in a program.
        return;
    }
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libibverbs.so.1");
    // Our threads must outlive the last dlclose.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    if let Some(reason) = other_linker(&target("ARCH")) {
        println!("cargo::warning=libibverbs.so is linked without symbol versions: {reason}");
        return;
    }
    let mut nodes = String::new();
    let mut earlier = String::new();
    for version in PUBLIC {
        nodes += &format!("IBVERBS_{version} {{ }}{earlier};\n");
        earlier = format!(" IBVERBS_{version}");
    }
    for version in PRIVATE {
        nodes += &format!("IBVERBS_PRIVATE_{version} {{ }};\n");
    }
    let script = Path::new(&env::var("OUT_DIR").expect("Cargo sets it")).join("nodes.map");
    fs::write(&script, nodes).expect("the output folder is there to be written");
    println!("cargo::rustc-cdylib-link-arg=-Wl,--version-script={}", script.display());
    println!("cargo::rustc-cfg=versioned");
}

/// Why the linker is another than the one that rustc brings, as far as can be seen from here.
fn other_linker(arch: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    if arch != "x86_64" {
        return Some(format!("on {arch}, rustc uses the system's linker"));
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        return Some(format!("the linker is {linker}"));
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let other = |flag: &&str| {
        flag.contains("linker=")
            || flag.contains("linker-features=-lld")
            || flag.contains("link-self-contained=n")
            || flag.contains("fuse-ld=") && !flag.contains("fuse-ld=lld")
    };
    flags.split('\u{1f}').find(other).map(|flag| format!("RUSTFLAGS have {flag}"))
}
