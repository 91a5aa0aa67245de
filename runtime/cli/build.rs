//! Tells the program what it was built from and how: reports name commit and compiler, and instruction counts on record hold for one
//! compiler and its options. None of it is needed: an unpacked archive has no commit.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    if let Some(commit) = commit() {
        println!("cargo:rustc-env=BRICK_GIT={commit}");
    }
    let var = |name| std::env::var(name).unwrap_or_default();
    let version = output(&var("RUSTC"), &["--version"]).unwrap_or_default();
    println!("cargo:rustc-env=BRICK_RUSTC={}", version.trim_start_matches("rustc "));
    // Separated by unit separators.
    let flags = var("CARGO_ENCODED_RUSTFLAGS").replace('\u{1f}', " ");
    let flags = if flags.is_empty() { String::new() } else { format!(", {flags}") };
    let (target, profile, level) = (var("TARGET"), var("PROFILE"), var("OPT_LEVEL"));
    println!("cargo:rustc-env=BRICK_BUILD={version}, {target}, {profile} (opt-level {level}){flags}");
}

/// The commit's short hash. Whether files have changed since is not said: that would have to be looked up at every build.
fn commit() -> Option<String> {
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"])?;
    // Built again when another commit is checked out, or a commit is made on the branch.
    let mut watched = vec!["HEAD".to_owned()];
    watched.extend(output("git", &["symbolic-ref", "-q", "HEAD"]));
    for name in watched {
        if let Some(path) = output("git", &["rev-parse", "--git-path", &name]).filter(|p| Path::new(p).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    Some(commit)
}

/// Standard output of a program that succeeded, without the line's end.
fn output(program: &str, args: &[&str]) -> Option<String> {
    let done = Command::new(program).args(args).output().ok().filter(|d| d.status.success())?;
    let text = String::from_utf8(done.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
