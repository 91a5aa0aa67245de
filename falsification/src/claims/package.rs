//! F002-X: what is published.

use std::path::Path;
use std::process::Command;

use crate::claim::{Claim, Family, Outcome, Refusal, require};
use crate::context::Context;

pub(super) const CLAIMS: &[Claim] = &[Claim {
    id: "F002-X",
    statement: "The package of the crate `bricks` really contains the brick module",
    family: Family::Brick,
    threshold: "its files are in the package's list",
    check: f002_x,
}];

fn f002_x(_: &Context) -> Outcome {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let manifest = root.join("bricks").join("Cargo.toml");
    if !manifest.is_file() {
        return Err(Refusal::not_testable("needs the source tree that this program was built from"));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .args(["package", "--list", "--allow-dirty", "--offline", "--manifest-path"])
        .arg(&manifest)
        .output()
        .map_err(|e| Refusal::not_testable(format!("cargo cannot be started: {e}")))?;
    if !out.status.success() {
        let error = String::from_utf8_lossy(&out.stderr);
        let last = error.lines().last().unwrap_or("without a message").to_owned();
        return Err(Refusal::not_testable(format!("`cargo package --list` failed: {last}")));
    }
    let list = String::from_utf8_lossy(&out.stdout).replace('\\', "/");
    let files: Vec<&str> = list.lines().collect();
    for file in ["Cargo.toml", "src/lib.rs", "src/brick.rs", "src/catalog/mod.rs", "src/reference/mod.rs"] {
        require(files.contains(&file), format!("{file} in the package"), || format!("{} other files", files.len()))?;
    }
    let lib = std::fs::read_to_string(manifest.with_file_name("src").join("lib.rs"))?;
    require(lib.lines().any(|l| l.trim() == "pub mod brick;"), "`pub mod brick;` in src/lib.rs", || {
        "no such line".into()
    })?;
    Ok(format!("{} files in the package, src/brick.rs among them", files.len()))
}
