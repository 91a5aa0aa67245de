//! What every kernel that ships does, counted in the interpreter, and the limit that binds it.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use brick_ptx::interp::{Checks, Class, Schedule};
use brick_ptx::kernels;
use brick_ptx::kernels::ceiling::{Ceiling, H200, Needs, Resource};

/// The kernels of matrices: what this file is about.
fn matrix_kernels() -> impl Iterator<Item = kernels::Entry> {
    kernels::all()
        .into_iter()
        .filter(|entry| ["gemv", "gemm", "quantize", "round"].iter().any(|f| entry.name.starts_with(f)))
}

#[test]
fn counts_and_ceilings() {
    let mut report = String::new();
    for entry in matrix_kernels() {
        let counts = entry.run(Schedule::RoundRobin, Checks::Full).unwrap_or_else(|e| panic!("{e}")).counts;
        let work = entry.workload.work;
        assert_eq!(counts.bank_conflicts(), 0, "{}", entry.name);
        assert_eq!(counts.float_atomics(), 0, "{}", entry.name);
        let (loads, stores) = (counts.global_loads(), counts.global_stores());
        // Loads of weights are ideal where they bind: those of prompts are not told apart from their scales. A lane takes 32 bytes of the wide activations of F16 in two loads, each of which touches
        // 16 sectors too many.
        let narrow = entry.name.ends_with("_r1");
        let bucket = entry.name.rsplit_once("_b").map(|(_, tokens)| tokens.split('_').next().unwrap());
        let tokens: u64 = bucket.map_or(0, |tokens| tokens.parse().unwrap_or(0));
        let wide = entry.name.contains("_f16_");
        let rows_per_warp = if narrow {
            1
        } else if tokens > 4 {
            4
        } else {
            2
        };
        let rows = if entry.name.contains("swiglu_q8") { 64 } else { 32 };
        let activations = if wide { 2 * tokens * (4096 / 256) * (rows / rows_per_warp) } else { 0 };
        if !entry.name.starts_with("gemm") {
            assert_eq!(loads.excess(), 16 * activations, "{}: {loads:?}", entry.name);
        }
        if !entry.name.starts_with("gem") {
            assert_eq!(stores.excess(), 0, "{}: {stores:?}", entry.name);
        }
        writeln!(
            report,
            "{}: {} instructions, {} dp4a, {} mma, {:.3} instructions/B of weights, sectors {} loaded {} stored",
            entry.name,
            counts.instructions(),
            counts.class(Class::Dot),
            counts.class(Class::Matrix),
            counts.instructions() as f64 / work.weight_bytes.max(1) as f64,
            loads.units,
            stores.units,
        )
        .unwrap();
        writeln!(report, "    {}", Ceiling::new(H200, Needs::of(&work, &counts))).unwrap();
    }
    insta::assert_snapshot!(report);
}

/// A schedule changes neither what is counted nor what is computed.
#[test]
fn schedules_change_nothing() {
    for entry in matrix_kernels().filter(|entry| !entry.name.contains("b4")) {
        let [a, b] = [Schedule::RoundRobin, Schedule::Seeded(11)].map(|s| entry.run(s, Checks::Full).unwrap());
        let result = if entry.name.contains("argmax") { "tokens" } else { "y" };
        assert_eq!(a.bytes(result).unwrap(), b.bytes(result).unwrap(), "{}", entry.name);
        // The block that arrives last is another one, but there is one.
        assert_eq!(a.counts.global_loads().bytes, b.counts.global_loads().bytes, "{}", entry.name);
    }
}

#[test]
fn a_token_of_four_bit_weights_is_bound_by_bandwidth_alone() {
    let entry = kernels::all().into_iter().find(|entry| entry.name == "gemv_q4_k_b1").unwrap();
    let counts = entry.run(Schedule::RoundRobin, Checks::MemoryOnly).unwrap().counts;
    let ceiling = Ceiling::new(H200, Needs::of(&entry.workload.work, &counts));
    assert_eq!(ceiling.bound(), Resource::Bandwidth);
    assert_eq!(ceiling.bandwidth_fraction(), 1.0);
    assert!(ceiling.seconds(Resource::Issue) < 0.5 * ceiling.seconds(Resource::Bandwidth));
    // What the assembler makes of the loop: 39.25 instructions per load of 512 bytes of codes.
    let codes = 32.0 * 4096.0 / 2.0;
    let by_machine_code = ceiling.with_instructions(39.25 * codes / 512.0);
    assert!(by_machine_code.seconds(Resource::Issue) < ceiling.seconds(Resource::Issue));
}
