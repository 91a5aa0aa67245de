//! What the tests of the kernels share.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use brick_ptx::interp::{Checks, Module, Schedule};
use brick_ptx::ir::{self, Target};
use brick_ptx::kernels::{Format, Run, Workload};
use bricks::DType;
use bricks::quant::decode_row;

/// In turn, and three seeds.
pub(crate) const SCHEDULES: [Schedule; 4] =
    [Schedule::RoundRobin, Schedule::Seeded(1), Schedule::Seeded(2), Schedule::Seeded(3)];

/// Parses the text of a kernel.
pub(crate) fn module(kernel: ir::Kernel, target: Target) -> Module {
    let text = brick_ptx::compile(&ir::Module { kernels: vec![kernel] }, target).unwrap_or_else(|e| panic!("{e}"));
    Module::parse(&text).unwrap_or_else(|e| panic!("{e}"))
}

/// Runs with all checks.
pub(crate) fn run(workload: &Workload, module: &Module, name: &str, schedule: Schedule) -> Run {
    workload.run(module, name, schedule, Checks::Full).unwrap_or_else(|e| panic!("{name}, {schedule:?}: {e}"))
}

pub(crate) fn dtype(format: Format) -> DType {
    match format {
        Format::Q4_0 => DType::Q4_0,
        Format::Q4_1 => DType::Q4_1,
        Format::Q4_K => DType::Q4_K,
        Format::Q5_K => DType::Q5_K,
        Format::Q6_K => DType::Q6_K,
        Format::Q8_0 => DType::Q8_0,
        Format::F16 => DType::F16,
        Format::BF16 => DType::BF16,
    }
}

/// Rows of a file, decoded by the reference.
pub(crate) fn decoded(format: Format, columns: usize, bytes: &[u8]) -> Vec<Vec<f32>> {
    bytes
        .chunks_exact(format.row_bytes(columns))
        .map(|row| {
            let mut values = vec![0.0; columns];
            decode_row(dtype(format), row, &mut values).unwrap();
            values
        })
        .collect()
}
