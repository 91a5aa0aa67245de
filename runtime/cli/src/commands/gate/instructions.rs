//! T1: instructions of a decoded token, counted by valgrind's callgrind.
//!
//! The same program counts the same whatever else the machine does. valgrind knows no AVX-512 and no AMX, so what is counted are the
//! kernels for AVX2 (or what the processor has below it).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use brick_profiler::gate::Instructions;
use brick_runtime::fault::Fault;
use bricks::cpu::SimdLevel;

use super::arms::{Setup, Worker};
use super::worker::{COUNTED, Counted};

/// Decoded tokens that are counted together.
const TOKENS: usize = 4;

/// Compiler, target, profile: what a count belongs to.
const BUILD: &str = env!("BRICK_BUILD");

/// Counts the instructions of a token; or the reason why that is not possible here.
pub(super) fn count(setup: &Setup<'_>, fault: Option<&Fault>) -> anyhow::Result<Result<Instructions, String>> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(o) if o.status.success() => {}
        Ok(o) => return Ok(Err(format!("valgrind --version ended with {}", o.status))),
        Err(e) => return Ok(Err(format!("valgrind cannot be run ({e})"))),
    }
    let program = std::env::current_exe().context("path of this program")?;
    let directory = tempfile::tempdir().context("a directory for callgrind")?;
    let file = directory.path().join("counts");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(&program)
        .args(setup.args(fault))
        // A level above it that valgrind does show (AVX-VNNI) would give other counts on other processors.
        .env(SimdLevel::ENV, SimdLevel::Avx2.name());
    let mut worker = Worker::start(&program, command)?;
    let level = worker.hello.simd.clone();
    let Counted { counted } = worker.ask(&format!("count {TOKENS}"))?;
    worker.finish()?;
    let total = total(&file)?;
    if total == 0 {
        bail!("callgrind counted nothing in {COUNTED}: were the symbols stripped from {}?", program.display());
    }
    let per_token = total / counted.max(1);
    Ok(Ok(Instructions { per_token, level, build: BUILD.to_owned(), depth: setup.depth }))
}

/// The sum at the end of a file of callgrind's (<https://valgrind.org/docs/manual/cl-format.html>).
fn total(file: &Path) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    let line = text.lines().rev().find_map(|l| l.strip_prefix("totals: ").or_else(|| l.strip_prefix("summary: ")));
    let sum = line.and_then(|l| l.trim().parse().ok());
    sum.with_context(|| format!("{}: expected a line `totals: N`, found {line:?}", file.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_found_or_missed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "version: 1\nevents: Ir\nfn=f\n0 5\n\ntotals: 1234\n").unwrap();
        assert_eq!(total(file.path()).unwrap(), 1234);
        std::fs::write(file.path(), "version: 1\n").unwrap();
        assert!(total(file.path()).unwrap_err().to_string().contains("totals"));
    }
}
