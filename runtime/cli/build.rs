//! Notes how the program is compiled: instruction counts on record hold for one compiler and its options.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let var = |name| std::env::var(name).unwrap_or_default();
    let rustc = Command::new(var("RUSTC")).arg("--version").output();
    let version = rustc.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    // Separated by unit separators.
    let flags = var("CARGO_ENCODED_RUSTFLAGS").replace('\u{1f}', " ");
    let flags = if flags.is_empty() { String::new() } else { format!(", {flags}") };
    let (target, profile, level) = (var("TARGET"), var("PROFILE"), var("OPT_LEVEL"));
    println!("cargo:rustc-env=BRICK_BUILD={version}, {target}, {profile} (opt-level {level}){flags}");
}
