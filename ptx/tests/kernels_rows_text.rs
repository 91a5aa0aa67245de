//! Text and counts of the kernels that work on rows and on the KV cache, compared exactly.

#![allow(clippy::unwrap_used)]

mod launches;

use std::fmt::Write as _;

use brick_ptx::interp::{Access, Checks, Class, Counts, Schedule};
use brick_ptx::ir::Target;
use brick_ptx::kernels::workload::Arg;
use brick_ptx::kernels::{self, Entry};

/// One per family.
const TEXTS: [&str; 12] = [
    "add",
    "advance",
    "advance_angles",
    "argmax",
    "attention_f16_d64_h1",
    "attention_fused_norm_f16_d64_h4",
    "attention_prefill_f16_d64",
    "embed_q4_k",
    "rms_norm_q8",
    "rope_angles",
    "rope_kv_neox_bias_f16_d128",
    "softmax",
];

fn entries(select: impl Fn(&str) -> bool) -> Vec<Entry> {
    // Matrix kernels and what feeds them have tests of their own.
    let others = |name: &str| ["gemv", "gemm", "quantize", "round"].iter().any(|family| name.starts_with(family));
    kernels::all().into_iter().filter(|entry| !others(&entry.name) && select(&entry.name)).collect()
}

#[test]
fn texts_are_what_they_were() {
    let found = entries(|name| TEXTS.contains(&name));
    assert_eq!(found.len(), TEXTS.len());
    for entry in found {
        insta::assert_snapshot!(entry.name.clone(), entry.text().unwrap());
    }
}

/// Instructions, sectors against the least possible, and bank conflicts of every workload.
#[test]
fn counts_are_what_they_were() {
    let mut report = String::new();
    for entry in entries(|_| true) {
        let run = entry.run(Schedule::RoundRobin, Checks::Full).unwrap_or_else(|e| panic!("{}: {e}", entry.name));
        writeln!(report, "{} {}", entry.name, line(&run.counts)).unwrap();
        assert_eq!(run.counts.bank_conflicts(), 0, "{}", entry.name);
        assert_eq!(run.counts.float_atomics(), 0, "{} depends on the order of blocks", entry.name);
    }
    insta::assert_snapshot!("counts", report);
}

fn line(counts: &Counts) -> String {
    let (loads, stores) = (counts.global_loads(), counts.global_stores());
    format!(
        "instructions {} (matrix {}, barriers {}) load sectors {} of {} store sectors {} of {}",
        counts.instructions(),
        counts.class(Class::Matrix),
        counts.barriers(),
        loads.units,
        loads.ideal,
        stores.units,
        stores.ideal,
    )
}

/// Keys and values, and everything else that is read once, come in whole sectors.
#[test]
fn streams_are_read_in_whole_sectors() {
    for entry in entries(|name| {
        ["attention_f16_d128_h4", "attention_prefill_f16_d128", "argmax", "add", "rms_norm", "softmax"].contains(&name)
    }) {
        let loads = entry.run(Schedule::RoundRobin, Checks::Full).unwrap().counts.global_loads();
        let excess = loads.units as f64 / loads.ideal as f64 - 1.0;
        assert!(excess <= 0.05, "{} reads {:.1} % more sectors than it needs", entry.name, 100.0 * excess);
    }
}

/// Text for dependent launch computes the same.
#[test]
fn dependent_launch_changes_no_result() {
    for entry in entries(|_| true) {
        let run = |target| {
            let module = launches::module((entry.build)(target), target);
            entry.workload.run(&module, &entry.name, Schedule::Seeded(4), Checks::Full).unwrap()
        };
        let [plain, dependent] = Target::ALL.map(run);
        for arg in &entry.workload.args {
            if let Arg::Buffer { name, access: Access::Write | Access::ReadWrite, .. } = arg {
                // Scratch need not be written wholly.
                let [plain, dependent] = [&plain, &dependent].map(|run| run.bytes(name).ok().map(<[u8]>::to_vec));
                assert!(plain == dependent, "{}: {name}", entry.name);
            }
        }
    }
}
