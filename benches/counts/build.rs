//! Notes how the crate is compiled: recorded instruction counts hold for one compiler and its options.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let var = |name| std::env::var(name).unwrap_or_default();
    let rustc = Command::new(var("RUSTC")).arg("--version").output();
    let version = rustc.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    println!("cargo:rustc-env=BRICK_BUILD_RUSTC={version}");
    println!("cargo:rustc-env=BRICK_BUILD_TARGET={}", var("TARGET"));
    println!("cargo:rustc-env=BRICK_BUILD_PROFILE={}/{}", var("PROFILE"), var("OPT_LEVEL"));
    // Separated by unit separators.
    println!("cargo:rustc-env=BRICK_BUILD_FLAGS={}", var("CARGO_ENCODED_RUSTFLAGS").replace('\u{1f}', " "));
}
