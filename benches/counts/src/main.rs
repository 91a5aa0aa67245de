//! Instructions of the kernels under callgrind, against those on record.
//!
//! Exit status: 0 when counts agree (also when they cannot be counted here, which is said, or when another compiler explains the
//! difference); 3 when a kernel's count differs; 1 for errors.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use brick_counts::{CountError, Snapshot, callgrind, cases};
use bricks::cpu::SimdLevel;

const USAGE: &str = "\
cargo run --release -p brick-counts -- COMMAND

  check [--snapshot FILE] [--measured FILE]   count (or take counts from a file), and compare with the record
  record [--snapshot FILE]                    count, and write the record
  table [--snapshot FILE]                     the record as Markdown: instructions per weight, and the bounds that follow
  list                                        names of the cases
  run [NAME …]                                make the calls that callgrind counts, and print their names";

/// The highest level that valgrind shows to a program.
const LEVEL: SimdLevel = SimdLevel::Avx2;

/// Per cent that a count may differ. The same program counts the same to the instruction; this much is for what a change elsewhere in
/// the crate does to a kernel's prologue or spills.
const LIMIT_PERCENT: f64 = 0.5;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(e) => {
            // Not a failure of a kernel, and not a pass either: said in the words that scripts look for.
            if let Some(CountError::NotHere(reason)) = e.downcast_ref() {
                println!("SKIPPED: {reason}");
                return ExitCode::SUCCESS;
            }
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as recorded.
fn run(args: &[String]) -> anyhow::Result<bool> {
    let Some((command, rest)) = args.split_first() else { bail!("no command\n{USAGE}") };
    match command.as_str() {
        "check" => {
            let [snapshot, measured] = options(["--snapshot", "--measured"], rest)?;
            let recorded = read(&snapshot.unwrap_or_else(default_snapshot))?;
            let measured = measured.map_or_else(measure, |path| read(&path))?;
            Ok(report(&recorded, &measured))
        }
        "record" => {
            let [snapshot] = options(["--snapshot"], rest)?;
            let (snapshot, measured) = (snapshot.unwrap_or_else(default_snapshot), measure()?);
            std::fs::write(&snapshot, measured.to_toml()).with_context(|| snapshot.display().to_string())?;
            println!("{} cases to {}", measured.counts.len(), snapshot.display());
            Ok(true)
        }
        "table" => {
            let [snapshot] = options(["--snapshot"], rest)?;
            print!("{}", read(&snapshot.unwrap_or_else(default_snapshot))?.table());
            Ok(true)
        }
        "list" => {
            for case in cases() {
                println!("{}", case.name);
            }
            Ok(true)
        }
        "run" => make_calls(rest).map(|()| true),
        "--help" | "-h" => {
            println!("{USAGE}");
            Ok(true)
        }
        _ => bail!("no command {command:?}\n{USAGE}"),
    }
}

/// Values of options that are paths.
fn options<const N: usize>(names: [&str; N], args: &[String]) -> anyhow::Result<[Option<PathBuf>; N]> {
    let mut found = [const { None }; N];
    for pair in args.chunks(2) {
        let [name, value] = pair else { bail!("{} has no value\n{USAGE}", pair[0]) };
        let at = names.iter().position(|n| n == name).with_context(|| format!("no option {name:?}\n{USAGE}"))?;
        found[at] = Some(PathBuf::from(value));
    }
    Ok(found)
}

fn default_snapshot() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{LEVEL}.toml"))
}

fn read(path: &Path) -> anyhow::Result<Snapshot> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Snapshot::from_toml(&text).with_context(|| path.display().to_string())
}

fn measure() -> anyhow::Result<Snapshot> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err(CountError::NotHere("counts are of AVX2 under valgrind, on Linux on x86-64".to_owned()).into());
    }
    if LEVEL.usable() != LEVEL {
        return Err(CountError::NotHere(format!("this processor has no {LEVEL}")).into());
    }
    let valgrind = callgrind::valgrind_version()?;
    ensure!(brick_counts::is_release(), "counts are those of the release profile: cargo run --release …");
    let program = std::env::current_exe().context("path of this program")?;
    let counts = callgrind::count_twice(&program, &["run"])?;
    Ok(Snapshot::new(LEVEL.name(), &valgrind, LIMIT_PERCENT, &counts))
}

fn make_calls(names: &[String]) -> anyhow::Result<()> {
    // Under valgrind the processor has what valgrind can translate.
    ensure!(LEVEL.usable() == LEVEL, "valgrind shows a processor without {LEVEL}");
    let all = cases();
    for name in names {
        ensure!(all.iter().any(|case| case.name == *name), "no case {name:?} (see list)");
    }
    for case in all.iter().filter(|case| names.is_empty() || names.contains(&case.name)) {
        let mut call = case.prepare(LEVEL).with_context(|| case.name.clone())?;
        // What is asked of the processor or allocated at the first call only is not the kernel's.
        call();
        println!("{}", case.name);
        callgrind::count_here(&mut call);
    }
    Ok(())
}

/// Prints the comparison; whether it holds.
fn report(recorded: &Snapshot, measured: &Snapshot) -> bool {
    let comparison = recorded.compare(measured);
    for difference in &comparison.differences {
        println!("{difference}");
    }
    let (n, limit) = (comparison.compared, recorded.limit_percent);
    if comparison.differences.is_empty() {
        println!("{n} cases within {limit} % of the record ({}, {})", recorded.level, recorded.build);
    } else if comparison.fails() {
        println!(
            "FAILED: {} differ from the record of {n} by more than {limit} %. If that is what the change is for: `cargo run --release -p \
             brick-counts -- record`, and commit the file with the reason.",
            comparison.differences.len()
        );
    } else {
        println!(
            "ADVISORY: {} of {n} cases differ by more than {limit} %, but the record is of another build ({}; this: {})",
            comparison.differences.len(),
            recorded.build,
            measured.build
        );
    }
    !comparison.fails()
}
