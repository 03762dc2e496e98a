//! Sets `tbrdma_linux`, the one condition by which the sources tell Linux from other systems. The whole seam is listed in docs/platforms.md.
//!
//! `RUSTFLAGS="--cfg tbrdma_portable"` leaves it out on Linux as well: what is built then is what another system gets.

use std::env;

fn main() {
    // It looks at nothing else; when its own source changes Cargo knows.
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    println!("cargo::rustc-check-cfg=cfg(tbrdma_linux)");
    let is_linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    if is_linux && env::var_os("CARGO_CFG_TBRDMA_PORTABLE").is_none() {
        println!("cargo::rustc-cfg=tbrdma_linux");
    }
}
