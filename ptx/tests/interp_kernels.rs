//! Correct kernels of the usual kinds: right results under every schedule, and nothing to report.

#![allow(clippy::unwrap_used)]

#[path = "interp/common.rs"]
mod common;
#[path = "interp/gemv_q4.rs"]
mod gemv_q4;

use brick_ptx::interp::{Access, Arg, Class, Counts, FaultKind, Gpu, GpuError, Launch, Limits, Schedule};

#[test]
fn block_reduce_sums_every_element_once() {
    let module = common::parse(include_str!("interp/block_reduce.ptx"));
    for (n, blocks) in [(1_usize, 1_u32), (255, 1), (256, 2), (5000, 3)] {
        // Whole numbers below 2^24 add up exactly in any order.
        let values: Vec<u32> = (0..n).map(|i| (i as f32 % 97.0).to_bits()).collect();
        let expected: f32 = (0..n).map(|i| i as f32 % 97.0).sum();
        for schedule in common::schedules() {
            let mut gpu = Gpu::new(Limits::default());
            let x = gpu.buffer("x", &common::bytes_of(&values), Access::Read).unwrap();
            let out = gpu.output("out", 4 * blocks as usize).unwrap();
            let args = [Arg::Buffer(x), Arg::Buffer(out), Arg::U32(n as u32)];
            gpu.launch(&module, "block_reduce", common::linear(blocks, 256, schedule), &args).unwrap();
            let sum: f32 = common::result(&gpu, out).into_iter().map(f32::from_bits).sum();
            assert_eq!(sum, expected, "{n} values, {schedule:?}");
        }
    }
}

fn transpose(kernel: &str, schedule: Schedule) -> Counts {
    let (rows, columns) = (64_u32, 96_u32);
    let module = common::parse(include_str!("interp/transpose.ptx"));
    let mut gpu = Gpu::new(Limits::default());
    let values = common::noise(1, (rows * columns) as usize);
    let from = gpu.buffer("from", &common::bytes_of(&values), Access::Read).unwrap();
    let to = gpu.output("to", 4 * values.len()).unwrap();
    let launch = Launch { grid: [columns / 32, rows / 32, 1], block: [32, 8, 1], ..common::linear(1, 1, schedule) };
    let args = [Arg::Buffer(from), Arg::Buffer(to), Arg::U32(rows), Arg::U32(columns)];
    let counts = gpu.launch(&module, kernel, launch, &args).unwrap();
    let out = common::result(&gpu, to);
    for (i, &value) in values.iter().enumerate() {
        let (row, column) = (i / columns as usize, i % columns as usize);
        assert_eq!(out[column * rows as usize + row], value, "row {row} column {column}");
    }
    counts
}

#[test]
fn transposes_are_right_and_their_bank_conflicts_counted() {
    for schedule in common::schedules() {
        let padded = transpose("transpose_padded", schedule);
        let conflicting = transpose("transpose_conflicting", schedule);
        // 6 tiles, 8 warps, 4 rows each.
        let requests = 6 * 8 * 4;
        assert_eq!(padded.shared_loads().requests, requests);
        assert_eq!(padded.bank_conflicts(), 0);
        assert_eq!(conflicting.shared_loads().units, 32 * requests);
        assert_eq!(conflicting.bank_conflicts(), 31 * requests);
        for counts in [&padded, &conflicting] {
            assert_eq!(counts.global_loads().units, 4 * requests, "rows of 128 bytes are four sectors");
            assert_eq!(counts.global_loads().excess(), 0);
            assert_eq!(counts.global_stores().bytes, 4 * 64 * 96);
            assert_eq!(counts.barriers(), 6 * 8);
            assert_eq!(counts.divergent_branches(), 0);
            assert_eq!(counts.lane_efficiency(), 1.0);
        }
    }
}

#[test]
fn the_last_block_to_arrive_sees_all_sums() {
    let module = common::parse(include_str!("interp/last_arriver.ptx"));
    let blocks = 13;
    let values = common::noise(2, 64 * blocks);
    let expected = values.iter().fold(0_u32, |sum, &v| sum.wrapping_add(v));
    for schedule in common::schedules() {
        let mut gpu = Gpu::new(Limits::default());
        let x = gpu.buffer("x", &common::bytes_of(&values), Access::Read).unwrap();
        let sums = gpu.scratch("sums", 4 * blocks).unwrap();
        let counter = gpu.buffer("counter", &[0; 4], Access::ReadWrite).unwrap();
        let out = gpu.output("out", 4).unwrap();
        let args = [Arg::Buffer(x), Arg::Buffer(sums), Arg::Buffer(counter), Arg::Buffer(out)];
        // Twice: the counter must have been put back.
        for _ in 0..2 {
            gpu.launch(&module, "last_arriver", common::linear(blocks as u32, 64, schedule), &args).unwrap();
            assert_eq!(common::result(&gpu, out), [expected], "{schedule:?}");
            assert_eq!(gpu.read(counter).unwrap(), [0; 4]);
        }
    }
}

#[test]
fn all_threads_of_the_last_block_see_all_values() {
    let module = common::parse(include_str!("interp/last_arriver.ptx"));
    let blocks = 11;
    let values = common::noise(6, 64 * blocks);
    let column = |c: usize| values.iter().skip(c).step_by(64).fold(0_u32, |sum, &v| sum.wrapping_add(v));
    let expected: Vec<u32> = (0..64).map(column).collect();
    for schedule in common::schedules() {
        let mut gpu = Gpu::new(Limits::default());
        let x = gpu.buffer("x", &common::bytes_of(&values), Access::Read).unwrap();
        let parts = gpu.scratch("parts", 4 * values.len()).unwrap();
        let counter = gpu.buffer("counter", &[0; 4], Access::ReadWrite).unwrap();
        let out = gpu.output("out", 256).unwrap();
        let args = [x, parts, counter, out].map(Arg::Buffer);
        let launch = common::linear(blocks as u32, 64, schedule);
        gpu.launch(&module, "last_arriver_all_threads", launch, &args).unwrap();
        assert_eq!(common::result(&gpu, out), expected, "{schedule:?}");
    }
}

/// What makes these kernels correct is what they are accused of lacking once it is gone.
#[test]
fn correct_kernels_without_their_fences_or_barriers_race() {
    let text = include_str!("interp/last_arriver.ptx");
    for (kernel, taken) in [
        ("last_arriver", "fence.acq_rel.gpu;"),
        ("last_arriver_all_threads", "membar.gl;"),
        ("last_arriver_all_threads", "bar.sync 0;"),
    ] {
        let start = text.find(&format!(".entry {kernel}(")).unwrap();
        for (nth, (at, _)) in text[start..].match_indices(taken).enumerate().take(2) {
            let mut damaged = text.to_owned();
            damaged.replace_range(start + at..start + at + taken.len(), "");
            let module = common::parse(&damaged);
            let found = common::schedules().any(|schedule| {
                let mut gpu = Gpu::new(Limits::default());
                let x = gpu.buffer("x", &[1; 256 * 5], Access::Read).unwrap();
                let parts = gpu.scratch("parts", 256 * 5).unwrap();
                let counter = gpu.buffer("counter", &[0; 4], Access::ReadWrite).unwrap();
                let out = gpu.output("out", 256).unwrap();
                let args = [x, parts, counter, out].map(Arg::Buffer);
                let outcome = gpu.launch(&module, kernel, common::linear(5, 64, schedule), &args);
                matches!(outcome, Err(GpuError::Fault(fault)) if matches!(fault.kind, FaultKind::Race { .. }))
            });
            assert!(found, "{kernel} without its {taken} number {nth}");
        }
    }
}

#[test]
fn a_double_buffered_pipeline_of_copies() {
    let module = common::parse(include_str!("interp/pipeline.ptx"));
    for words in [64, 256, 1000, 7] {
        let values = common::noise(3, words);
        let expected: Vec<u32> = (0..64)
            .map(|i| {
                let column = values.iter().skip((i + 1) % 64).step_by(64);
                column.fold(0_u32, |sum, &v| sum.wrapping_add(v))
            })
            .collect();
        for schedule in common::schedules() {
            let mut gpu = Gpu::new(Limits::default());
            let x = gpu.buffer("x", &common::bytes_of(&values), Access::Read).unwrap();
            let out = gpu.output("out", 256).unwrap();
            let args = [Arg::Buffer(x), Arg::Buffer(out), Arg::U32(words as u32)];
            gpu.launch(&module, "pipeline", common::linear(1, 64, schedule), &args).unwrap();
            assert_eq!(common::result(&gpu, out), expected, "{words} words, {schedule:?}");
        }
    }
}

#[test]
fn blocks_hand_over_by_flags() {
    let module = common::parse(include_str!("interp/handover.ptx"));
    let blocks = 6_u32;
    for kernel in ["handover_release", "handover_fences"] {
        for schedule in common::schedules() {
            let mut gpu = Gpu::new(Limits::default());
            let numbers = gpu.scratch("numbers", 4 * blocks as usize).unwrap();
            let flags = gpu.buffer("flags", &vec![0; 4 * blocks as usize], Access::ReadWrite).unwrap();
            let args = [Arg::Buffer(numbers), Arg::Buffer(flags)];
            gpu.launch(&module, kernel, common::linear(blocks, 32, schedule), &args).unwrap();
            let expected: Vec<u32> = (1..=blocks).map(|b| b * (b + 1) / 2).collect();
            assert_eq!(common::result(&gpu, numbers), expected, "{kernel}, {schedule:?}");
        }
    }
}

#[test]
fn lanes_and_warps_exchange_words() {
    let module = common::parse(include_str!("interp/warp_exchange.ptx"));
    for schedule in common::schedules() {
        let mut gpu = Gpu::new(Limits::default());
        let out = gpu.output("out", 128).unwrap();
        gpu.launch(&module, "warp_exchange", common::linear(1, 32, schedule), &[Arg::Buffer(out)]).unwrap();
        assert_eq!(common::result(&gpu, out), (0..32).map(|lane| lane ^ 1).collect::<Vec<u32>>());

        let rounds = gpu.output("rounds", 3 * 256).unwrap();
        let launch = common::linear(1, 128, schedule);
        gpu.launch(&module, "producers_consumers", launch, &[Arg::Buffer(rounds)]).unwrap();
        let expected: Vec<u32> = (0..3 * 64).map(|i| i / 64 * 100 + i % 64).collect();
        assert_eq!(common::result(&gpu, rounds), expected, "{schedule:?}");
    }
}

#[test]
fn a_histogram_by_atomics_in_dynamic_shared_memory() {
    let module = common::parse(include_str!("interp/histogram.ptx"));
    let n = 300;
    let bytes: Vec<u8> = common::noise(4, n).into_iter().map(|v| (v % 16) as u8).collect();
    let mut expected = vec![0_u32; 16];
    for &b in &bytes {
        expected[usize::from(b)] += 1;
    }
    for schedule in common::schedules() {
        let mut gpu = Gpu::new(Limits::default());
        let x = gpu.buffer("x", &bytes, Access::Read).unwrap();
        let counts = gpu.buffer("counts", &[0; 64], Access::ReadWrite).unwrap();
        let launch = Launch { dynamic_shared: 64, ..common::linear(3, 128, schedule) };
        let did = gpu.launch(&module, "histogram", launch, &[Arg::Buffer(x), Arg::Buffer(counts), Arg::U32(n as u32)]);
        assert_eq!(common::result(&gpu, counts), expected, "{schedule:?}");
        assert_eq!(did.unwrap().class(Class::Atomic), 10 + 3, "ten warps have bytes, three blocks merge");
    }
}

#[test]
fn a_product_of_four_bit_weights() {
    let module = common::parse(include_str!("interp/gemv_q4.ptx"));
    for (rows, columns) in [(4, 32), (8, 1024), (12, 2080)] {
        let problem = gemv_q4::Problem::new(rows, columns);
        for schedule in [Schedule::RoundRobin, Schedule::Seeded(1)] {
            let mut gpu = Gpu::new(Limits::default());
            let inputs = [("w", &problem.w), ("dm", &problem.dm), ("q", &problem.q), ("s", &problem.s)];
            let mut args =
                inputs.map(|(name, bytes)| Arg::Buffer(gpu.buffer(name, bytes, Access::Read).unwrap())).to_vec();
            let y = gpu.output("y", 4 * problem.rows).unwrap();
            args.extend([Arg::Buffer(y), Arg::U32(problem.blocks as u32)]);
            let counts = gpu.launch(&module, "gemv_q4", common::linear(rows as u32 / 4, 128, schedule), &args).unwrap();
            for (found, expected) in common::result(&gpu, y).into_iter().map(f32::from_bits).zip(&problem.y) {
                assert!((f64::from(found) - expected).abs() < 1e-4 * expected.abs().max(1.0), "{found} {expected}");
            }
            assert_eq!(counts.class(Class::Dot), 8 * (rows * problem.blocks.div_ceil(32)) as u64);
        }
    }
}

#[test]
fn the_report_of_a_launch() {
    let counts = transpose("transpose_conflicting", Schedule::RoundRobin);
    insta::assert_snapshot!(counts);
}
