//! Runs kernels that ship in the interpreter, under several schedules and with all checks.

#![allow(clippy::unwrap_used, dead_code, reason = "each test binary uses a part of this")]

use brick_ptx::compile;
use brick_ptx::interp::{Checks, Module, Schedule};
use brick_ptx::ir::{self, Kernel, Target};
use brick_ptx::kernels::workload::Arg;
use brick_ptx::kernels::{Format, Run, Workload};
use bricks::DType;
use bricks::quant::decode_row;

/// In turn, and three seeds.
pub(crate) const SCHEDULES: [Schedule; 4] =
    [Schedule::RoundRobin, Schedule::Seeded(1), Schedule::Seeded(2), Schedule::Seeded(3)];

/// The kernel, as text that was parsed again.
pub(crate) fn module(kernel: Kernel, target: Target) -> Module {
    let text = compile(&ir::Module { kernels: vec![kernel] }, target).unwrap_or_else(|e| panic!("{e}"));
    Module::parse(&text).unwrap_or_else(|e| panic!("{e}"))
}

/// Runs a workload with all checks.
pub(crate) fn run(workload: &Workload, module: &Module, name: &str, schedule: Schedule) -> Run {
    workload.run(module, name, schedule, Checks::Full).unwrap_or_else(|e| panic!("{name}, {schedule:?}: {e}"))
}

/// Runs a workload under every schedule; every run has to give what `result` sees, bit for bit. Gives the first.
pub(crate) fn run_all<R: PartialEq + std::fmt::Debug>(
    kernel: Kernel,
    workload: &Workload,
    result: impl Fn(&Run) -> R,
) -> (Run, R) {
    let name = kernel.name.clone();
    let module = module(kernel, Target::Sm80);
    let mut first: Option<(Run, R)> = None;
    for schedule in SCHEDULES {
        let run = run(workload, &module, &name, schedule);
        let found = result(&run);
        match &first {
            None => first = Some((run, found)),
            Some((_, expected)) => assert_eq!(&found, expected, "{name} depends on the schedule: {schedule:?}"),
        }
    }
    first.unwrap()
}

/// A buffer of a workload, as bytes.
pub(crate) fn contents<'a>(workload: &'a Workload, name: &str) -> &'a [u8] {
    use brick_ptx::kernels::workload::Contents;
    let found = workload.args.iter().find_map(|arg| match arg {
        Arg::Buffer { name: n, contents: Contents::Bytes(bytes), .. } if *n == name => Some(bytes),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no buffer `{name}`"))
}

/// A buffer of a workload, as floats.
pub(crate) fn floats(workload: &Workload, name: &str) -> Vec<f32> {
    contents(workload, name).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Puts other bytes into a buffer of a workload.
pub(crate) fn replace(workload: &mut Workload, name: &str, bytes: Vec<u8>) {
    use brick_ptx::kernels::workload::Contents;
    for arg in &mut workload.args {
        if let Arg::Buffer { name: n, contents, .. } = arg
            && *n == name
        {
            *contents = Contents::Bytes(bytes);
            return;
        }
    }
    panic!("no buffer `{name}`");
}

/// Every value is within `tolerance` of the expected one, absolute and relative to it, or both are NaN.
pub(crate) fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let close = (found - expected).abs() <= tolerance * (1.0 + expected.abs());
        assert!(
            close || found == expected || (found.is_nan() && expected.is_nan()),
            "{what}: {found} at {i}, expected {expected}"
        );
    }
}

/// The reference's name of a format.
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
