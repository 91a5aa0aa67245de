//! Kernels with stamps: every one is valid, computes the same bits, and leaves a record per block.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::interp::{Access, Checks, Schedule};
use brick_ptx::ir::{Arch, Kernel, Module, Stmt, StmtKind, Target};
use brick_ptx::kernels::workload::Arg;
use brick_ptx::kernels::{self, Entry, Run, Workload};
use brick_ptx::ptxas::Tools;
use brick_ptx::stamp::{PARAMETER, RECORD_BYTES, Record, SUFFIX, stamped};

const RECORD: usize = RECORD_BYTES as usize;

fn with_records(workload: &Workload) -> Workload {
    let mut out = workload.clone();
    let blocks: usize = workload.dims.grid.iter().map(|&n| n as usize).product();
    out.args.push(Arg::update(PARAMETER, vec![0; RECORD * blocks]));
    out
}

fn records(run: &Run) -> Vec<Record> {
    let (records, rest) = run.bytes(PARAMETER).unwrap().as_chunks::<RECORD>();
    assert!(rest.is_empty());
    records.iter().map(Record::from_bytes).collect()
}

fn waits(kernel: &Kernel, target: Target) -> bool {
    let text = brick_ptx::compile(&Module { kernels: vec![kernel.clone()] }, target).unwrap();
    text.contains("griddepcontrol.wait")
}

/// Runs a kernel with and without stamps, and gives the records.
fn compared(entry: &Entry, target: Target, checks: Checks) -> Vec<Record> {
    let kernel = (entry.build)(target);
    let with = stamped(&kernel);
    assert_eq!(with.name, format!("{}{SUFFIX}", entry.name));
    let workload = with_records(&entry.workload);
    let run = |kernel: &Kernel, workload: &Workload| {
        let module = launches::module(kernel.clone(), target);
        let run = workload.run(&module, &kernel.name, Schedule::Seeded(5), checks);
        run.unwrap_or_else(|e| panic!("{} {target}: {e}", kernel.name))
    };
    let (plain, noted) = (run(&kernel, &entry.workload), run(&with, &workload));
    for arg in &entry.workload.args {
        if let Arg::Buffer { name, access: Access::Write | Access::ReadWrite, .. } = arg {
            // Scratch that was not written whole has no contents in either.
            assert_eq!(plain.bytes(name).ok(), noted.bytes(name).ok(), "{}: {name}", entry.name);
        }
    }
    let records = records(&noted);
    for (i, r) in records.iter().enumerate() {
        assert!(r.ran, "{} {target}: block {i}", entry.name);
        assert!(r.begin > 0 && r.begin <= r.waited && r.waited <= r.end, "{} {target}: block {i}: {r:?}", entry.name);
    }
    if waits(&kernel, target) {
        assert!(records.iter().all(|r| r.begin < r.waited), "{} {target} passes a wait", entry.name);
    } else {
        assert!(records.iter().all(|r| r.begin == r.waited), "{} {target} waits for nobody", entry.name);
    }
    records
}

#[test]
fn every_kernel_with_stamps_is_valid_for_every_target() {
    for target in Target::ALL {
        let made = kernels::all().iter().filter(|e| e.oldest <= target).map(|e| stamped(&(e.build)(target))).collect();
        brick_ptx::compile(&Module { kernels: made }, target).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn every_kernel_with_stamps_computes_the_same_and_every_block_leaves_a_record() {
    for entry in kernels::all() {
        compared(&entry, Target::Sm90, Checks::MemoryOnly);
    }
}

#[test]
fn stamps_race_with_nothing_and_need_no_newer_target() {
    for name in ["gemv_q4_k_b1", "attention_fused_norm_f16_d64_h4", "gemv_mma_q8_0_b8", "add", "advance_angles"] {
        let entry = kernels::all().into_iter().find(|e| e.name == name).unwrap_or_else(|| panic!("{name}"));
        compared(&entry, Target::Sm90, Checks::Full);
        compared(&entry, Target::Sm80, Checks::Full);
    }
}

#[test]
fn blocks_are_on_several_multiprocessors_and_in_the_order_of_the_grid() {
    let entry = kernels::all().into_iter().find(|e| e.name == "gemv_q4_k_b1").unwrap();
    let records = compared(&entry, Target::Sm80, Checks::MemoryOnly);
    // The interpreter deals blocks out in turn.
    let first = records[0].processor;
    assert!(records.iter().enumerate().all(|(i, r)| r.processor == first + i as u32), "{records:?}");
}

#[test]
fn the_text_of_a_kernel_with_stamps() {
    let entry = kernels::all().into_iter().find(|e| e.name == "add").unwrap();
    let module = Module { kernels: vec![stamped(&(entry.build)(Target::Sm90))] };
    insta::assert_snapshot!(brick_ptx::compile(&module, Target::Sm90).unwrap());
}

#[test]
fn what_is_nested_too_deep_is_left_alone() {
    let entry = kernels::all().into_iter().find(|e| e.name == "add").unwrap();
    let mut kernel = (entry.build)(Target::Sm80);
    let cond = brick_ptx::ir::RegId(0);
    for _ in 0..100 {
        let then = std::mem::take(&mut kernel.body);
        kernel.body = vec![Stmt { kind: StmtKind::If { cond, then, otherwise: Vec::new() }, source: None }];
    }
    assert_eq!(stamped(&kernel), kernel);
}

#[test]
fn the_assembler_takes_kernels_with_stamps_without_spills() {
    let Some(tools) = Tools::find_for_tests().unwrap() else { return };
    let of = |name: &str| {
        [
            "gemv_stream_q4_k",
            "gemv_stream_pair",
            "gemv_stream_swiglu_q8",
            "attention_fused",
            "gemv_mma",
            "gemv_q6_k_b1",
            "advance_angles",
            "embed_q4_k",
        ]
        .iter()
        .any(|f| name.starts_with(f))
    };
    let chosen: Vec<Entry> = kernels::all().into_iter().filter(|e| of(&e.name)).collect();
    assert!(chosen.len() > 8);
    let made: Vec<Kernel> = chosen.iter().map(|e| stamped(&(e.build)(Target::Sm90))).collect();
    let text = brick_ptx::compile(&Module { kernels: made }, Target::Sm90).unwrap();
    let assembled = tools.assemble(&text, Arch::Sm90).unwrap();
    for r in &assembled.resources {
        assert_eq!(r.spill_store_bytes + r.spill_load_bytes + r.stack_bytes, 0, "{r}");
    }
}
