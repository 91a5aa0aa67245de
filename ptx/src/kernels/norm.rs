//! RMSNorm of rows, with f32 or with 8-bit output.
//!
//! # `rms_norm`
//! `y = x / sqrt(mean(x²) + eps) · gain`. `x`, `y`: `[rows][columns]` f32, `gain`: `[columns]` f32; a row per CTA of
//! 256 threads, four columns per thread and round.
//!
//! # `rms_norm_q8`
//! The same values, bit for bit, rounded to the tiles of [`activation`] that the integer matrix kernels read: one
//! launch and one trip through memory less than two kernels. `y`: the tiles of all rows. A round of a CTA is a group of
//! 1024 columns.
//!
//! There are `T` rows per chunk, along x of the grid, and chunks along y: the rows of all chunks follow one another in `x` and in the
//! f32 `y`, tiles are those of `T` tokens, chunk after chunk.
//!
//! Each row is read twice, the second time from L1 or L2. Both kernels move a few kilobytes per row: when decoding,
//! launch latency and the two passes over one row bind them, not bandwidth. With dependent launch, the gain is fetched
//! before the row is ready.

use super::Entry;
use super::activation;
use super::launch::{Dims, ShapeError};
use super::q8::{self, GROUP, Tiles};
use super::workload::{Arg, Noise, Work, Workload, bytes_of_f32};
use crate::build::{B32, F32, KernelBuilder, LoadOptions, Ptr, Reg, SharedSpace, U32, Var};
use crate::ir::{Access, Cache, Kernel, Target, Threads};

const WARPS: u32 = 8;
const THREADS: u32 = 32 * WARPS;

/// Output of [`rms_norm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// f32 rows.
    F32,
    /// 8-bit codes with scales and sums.
    Q8,
}

impl Output {
    /// Name of the kernel.
    pub fn kernel(self) -> &'static str {
        match self {
            Self::F32 => "rms_norm",
            Self::Q8 => "rms_norm_q8",
        }
    }

    /// What `columns` is a multiple of.
    fn multiple(self) -> u32 {
        match self {
            Self::F32 => 4,
            Self::Q8 => 32,
        }
    }
}

/// `rms_norm` or `rms_norm_q8`; for [`Target::Sm90`], with dependent launch.
pub fn rms_norm(output: Output, target: Target) -> Kernel {
    let k = KernelBuilder::new(output.kernel());
    k.about(match output {
        Output::F32 => "y = x / sqrt(mean(x^2) + eps) * gain: one row of f32 per CTA.",
        Output::Q8 => {
            "x / sqrt(mean(x^2) + eps) * gain, rounded to 8-bit codes with a scale and two sums per 32: one row of f32 per CTA."
        }
    });
    k.threads(Threads::Exactly([THREADS, 1, 1]));
    let x = k.param_ptr::<F32>("x", Access::Read, 16);
    let gain = k.param_ptr::<F32>("gain", Access::Read, 16);
    let y = k.param_ptr::<B32>("y", Access::Write, 16);
    let columns = k.param_u32_multiple_of("columns", output.multiple());
    let eps = k.param_f32("eps");
    let scratch = k.shared::<F32>("scratch", WARPS);

    let first = k.shl(k.tid(), 2);
    if target >= Target::Sm90 {
        k.if_(k.lt(first, columns), || k.prefetch(Cache::L2, k.index(gain, first)));
        k.wait_for_dependencies();
        k.launch_dependents();
    }
    let row = k.mad(k.ctaid_y(), k.nctaid(), k.ctaid());
    let x = k.row(x, row, k.shl(columns, 2));
    let root = root_mean_square(&k, x, columns, eps, scratch);

    k.comment("divide by the root, times the gain");
    let normed = |i: Reg<U32>| -> [Reg<F32>; 4] {
        let x = k.ld_vec::<_, _, 4>(k.index(x, i), LoadOptions::READ_ONLY);
        let gain = k.ld_vec::<_, _, 4>(k.index(gain, i), LoadOptions::READ_ONLY);
        std::array::from_fn(|j| k.mul(k.mul(x[j], root), gain[j]))
    };
    match output {
        Output::F32 => {
            let y = k.row(y.cast::<F32>(), row, k.shl(columns, 2));
            k.for_(first, columns, 4 * THREADS, |i| k.st4(k.index(y, i), normed(i)));
        }
        Output::Q8 => {
            let tiles = Tiles::of_chunk(&k, y, columns, k.nctaid(), k.ctaid_y());
            k.for_rolled(0, columns, GROUP, |group: Reg<U32>| {
                let column = k.add(group, first);
                let y: [_; 4] = std::array::from_fn(|_| k.var(0.0));
                k.if_(k.lt(column, columns), || {
                    for (y, value) in y.iter().zip(normed(column)) {
                        k.set(*y, value);
                    }
                });
                let coded = q8::encode(&k, y.map(Var::get));
                tiles.store(&k, k.ctaid(), column, &coded);
            });
        }
    }
    k.finish()
}

/// `1 / sqrt(mean(x²) + eps)` of a row, in every thread.
fn root_mean_square(
    k: &KernelBuilder,
    x: Ptr<F32>,
    columns: Reg<U32>,
    eps: Reg<F32>,
    scratch: Ptr<F32, SharedSpace>,
) -> Reg<F32> {
    k.comment("sum of squares");
    // Four chains: a single one would wait for itself.
    let squares: [_; 4] = std::array::from_fn(|_| k.var(0.0));
    k.for_(k.shl(k.tid(), 2), columns, 4 * THREADS, |i| {
        for (square, x) in squares.iter().zip(k.ld_vec::<_, _, 4>(k.index(x, i), LoadOptions::READ_ONLY)) {
            k.fma_into(*square, x, x);
        }
    });
    let [a, b, c, d] = squares;
    let sum = k.block_reduce(k.add(k.add(a, b), k.add(c, d)), scratch, WARPS, |a, b| k.add(a, b));
    root(k, sum, columns, eps)
}

/// `1 / sqrt(mean + eps)`, of the sum of the squares of a row.
pub(super) fn root(k: &KernelBuilder, sum: Reg<F32>, columns: Reg<U32>, eps: Reg<F32>) -> Reg<F32> {
    k.rcp_rn(k.sqrt_rn(k.add(k.div_rn(sum, k.to_f32(columns)), eps)))
}

/// The launch for `rows` rows in each of `chunks` chunks.
///
/// # Errors
/// [`ShapeError`] unless there are rows, `columns` is a multiple of 4 (f32) or of 32 (8-bit codes), and there are 1 to 65535 chunks.
pub fn dims(output: Output, rows: usize, columns: usize, chunks: usize) -> Result<Dims, ShapeError> {
    let name = output.kernel();
    ShapeError::check(name, "columns", columns, output.multiple() as usize, 1 << 28)?;
    let rows = ShapeError::check(name, "rows", rows, 1, 1 << 30)?;
    let chunks = ShapeError::check(name, "chunks", chunks, 1, 65535)?;
    Ok(Dims { grid: [rows, chunks, 1], ..Dims::linear(1, THREADS) })
}

/// A launch with seeded data.
///
/// # Errors
/// As [`dims`].
pub fn workload(output: Output, rows: usize, columns: usize, eps: f32, seed: u64) -> Result<Workload, ShapeError> {
    let mut noise = Noise::new(seed);
    let values = rows * columns;
    let mut args = vec![
        Arg::read("x", bytes_of_f32(&noise.floats(values))),
        Arg::read("gain", bytes_of_f32(&noise.floats(columns))),
    ];
    let output_bytes = match output {
        Output::F32 => 4 * values,
        Output::Q8 => activation::bytes(columns, rows),
    };
    args.push(Arg::write("y", output_bytes));
    args.extend([Arg::U32(columns as u32), Arg::F32(eps)]);
    let work = Work {
        weight_bytes: 4 * columns as u64,
        activation_bytes: 4 * values as u64,
        output_bytes: output_bytes as u64,
        float_ops: 4 * values as u64,
        ..Work::default()
    };
    Ok(Workload { dims: dims(output, rows, columns, 1)?, args, work })
}

/// What ships.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |output: Output, about| Entry {
        name: output.kernel().into(),
        about,
        oldest: Target::Sm80,
        build: Box::new(move |target| rms_norm(output, target)),
        workload: workload(output, 2, 1536, 1e-6, 11)
            .expect("invariant: the shape of a workload is one that its kernel takes"),
    };
    vec![
        entry(Output::F32, "RMSNorm of f32 rows"),
        entry(Output::Q8, "RMSNorm of f32 rows, to 8-bit codes with scales and sums per 32"),
    ]
}
