//! The check can fail, and says which kernel; what it is compared with has every case.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::{Command, Output};

use brick_counts::{Snapshot, cases};
use bricks::cpu::SimdLevel;

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/avx2.toml");

fn record() -> Snapshot {
    Snapshot::from_toml(&std::fs::read_to_string(RECORD).unwrap()).unwrap()
}

/// The check of counts that `alter` has changed, instead of counting.
fn check(name: &str, alter: impl FnOnce(&mut Snapshot)) -> (Option<i32>, String) {
    let mut measured = record();
    alter(&mut measured);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
    std::fs::write(&path, measured.to_toml()).unwrap();
    let output = program(&["check", "--snapshot", RECORD, "--measured", path.to_str().unwrap()]);
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

fn program(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kernel_counts")).args(args).output().unwrap()
}

#[test]
fn recorded_counts_pass() {
    let (code, text) = check("same", |_| {});
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with(&format!("{} cases within 0.5 % of the record", cases().len())), "{text}");
}

#[test]
fn a_kernel_with_more_instructions_fails_by_name() {
    let (code, text) = check("more", |s| {
        let entry = s.counts.get_mut("linear/Q4_K/32").unwrap();
        entry.instructions += entry.instructions / 100;
    });
    assert_eq!(code, Some(3), "{text}");
    assert!(text.starts_with("linear/Q4_K/32: ") && text.contains(": +1.00 % ("), "{text}");
    assert!(text.contains("FAILED: 1 differ from the record") && text.lines().count() == 2, "{text}");
}

#[test]
fn fewer_instructions_are_recorded_too() {
    let (code, text) = check("fewer", |s| s.counts.get_mut("rms-norm").unwrap().instructions /= 2);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.starts_with("rms-norm: ") && text.contains(": -50.00 % ("), "{text}");
}

#[test]
fn another_compiler_makes_it_advice() {
    let (code, text) = check("compiler", |s| {
        s.counts.get_mut("linear/Q4_K/32").unwrap().instructions *= 2;
        "rustc 9.9.9, elsewhere".clone_into(&mut s.build);
    });
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("linear/Q4_K/32: ") && text.contains("ADVISORY: 1 of"), "{text}");
}

#[test]
fn without_valgrind_it_says_that_it_skips() {
    let output = Command::new(env!("CARGO_BIN_EXE_kernel_counts")).arg("check").env("PATH", "").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("SKIPPED: "), "{text}");
}

#[test]
fn errors_are_neither_a_pass_nor_a_failure_of_a_kernel() {
    for args in [&[][..], &["chekc"], &["check", "--snapshot"], &["check", "--limit", "5"], &["run", "no/such/case"]] {
        let output = program(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(!output.stderr.is_empty());
    }
    assert_eq!(program(&["table", "--snapshot", "/nowhere"]).status.code(), Some(1));
}

#[test]
fn every_case_is_recorded_and_runs() {
    let record = record();
    let names: Vec<String> = cases().into_iter().map(|case| case.name).collect();
    assert_eq!(record.counts.len(), names.len());
    for case in cases() {
        let entry = record.counts.get(&case.name).unwrap_or_else(|| panic!("{} is not recorded", case.name));
        assert_eq!((entry.work, entry.unit.as_str()), (case.work, case.unit), "{}", case.name);
        // Twice: a call leaves everything ready for the next.
        let mut call = case.prepare(SimdLevel::detect()).unwrap();
        call();
        call();
    }
    let output = program(&["list"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(), names);
}
