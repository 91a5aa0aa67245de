//! Activations for the matrix kernels: f32 to 8-bit codes with scales and sums, and f32 to bfloat16.
//!
//! # `quantize_q8`
//! `x`: `[chunks][tokens][columns]` f32, row-major; `y`: the tiles of [`activation`], chunk after chunk. A warp takes 128 columns of a token, a lane four of them, so eight lanes share a block. The arithmetic is that of
//! the CPU backend, bit for bit: largest magnitude as an unsigned number, two true divisions per block, codes rounded to nearest even;
//! a block with an infinity or a NaN gets a NaN for its scale, a block below 127 times the smallest normal number is zero.
//!
//! # `round_bf16`
//! `x`: `[n]` f32; `y`: `[n]` bfloat16, rounded to nearest even, subnormal numbers to zero, as the CPU backend does. A thread takes
//! four values.
//!
//! Both move 4 bytes in and 1 to 2 out per value: launch latency binds them for the few rows of decoding, bandwidth beyond.

use super::activation::{self, GROUP};
use super::launch::{Dims, ShapeError};
use super::q8::{self, Tiles};
use super::workload::{Arg, Noise, Work, Workload, bytes_of_f32};
use super::{Entry, known};
use crate::build::{B32, Bf16x2, F32, KernelBuilder, Var};
use crate::ir::{Access, Dim, Kernel, Special, Target, Threads};

const WARPS: u32 = 8;
const THREADS: u32 = 32 * WARPS;
/// Values that a thread of `round_bf16` takes.
const PER_THREAD: usize = 4;

/// `quantize_q8`; for [`Target::Sm90`], with dependent launch.
pub fn quantize_q8(target: Target) -> Kernel {
    let k = KernelBuilder::new("quantize_q8");
    k.about(
        "Blocks of 32 floats to signed bytes: scale = max|x| / 127, code = round(x * (127 / max|x|)), and the sum of the codes of\n\
         each half. A warp takes four blocks: eight lanes and four floats per lane each.",
    );
    k.threads(Threads::Exactly([THREADS, 1, 1]));
    let x = k.param_ptr::<F32>("x", Access::Read, 16);
    let y = k.param_ptr::<B32>("y", Access::Write, 16);
    let columns = k.param_u32_multiple_of("columns", 32);
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }

    let (token, tokens) = (k.ctaid_y(), k.special(Special::Nctaid(Dim::Y)));
    let column = k.add(k.shl(k.mad(k.ctaid(), WARPS, k.warp()), 7), k.shl(k.laneid(), 2));
    let values: [_; 4] = std::array::from_fn(|_| k.var(0.0));
    k.if_(k.lt(column, columns), || {
        let row = k.row(x, k.mad(k.ctaid_z(), tokens, token), k.shl(columns, 2));
        for (value, x) in values.iter().zip(k.ld4(k.index(row, column))) {
            k.set(*value, x);
        }
    });
    let coded = q8::encode(&k, values.map(Var::get));

    // All blocks of the last group are written; the grid may go on beyond it.
    let end = k.shl(k.shr(k.add(columns, GROUP as u32 - 1), 10), 10);
    let tiles = Tiles::of_chunk(&k, y, columns, tokens, k.ctaid_z());
    k.if_(k.lt(column, end), || tiles.store(&k, token, column, &coded));
    k.finish()
}

/// The launch of `quantize_q8` for `tokens` tokens in each of `chunks` chunks.
///
/// # Errors
/// [`ShapeError`] unless `columns` is a multiple of 32 and there are 1 to 65535 tokens, and as many chunks.
pub fn quantize_q8_dims(columns: usize, tokens: usize, chunks: usize) -> Result<Dims, ShapeError> {
    ShapeError::check("quantize_q8", "columns", columns, 32, 1 << 30)?;
    let tokens = ShapeError::check("quantize_q8", "tokens", tokens, 1, 65535)?;
    let chunks = ShapeError::check("quantize_q8", "chunks", chunks, 1, 65535)?;
    let warps = (activation::groups(columns) * (GROUP / 128)) as u32;
    Ok(Dims { grid: [warps.div_ceil(WARPS), tokens, chunks], block: [THREADS, 1, 1], dynamic_shared: 0 })
}

/// `round_bf16`; for [`Target::Sm90`], with dependent launch.
pub fn round_bf16(target: Target) -> Kernel {
    let k = KernelBuilder::new("round_bf16");
    k.about(
        "y[i] = x[i] rounded to bfloat16, subnormal numbers to zero. A thread takes four values; n is a multiple of 4.",
    );
    k.threads(Threads::UpTo(THREADS));
    let x = k.param_ptr::<F32>("x", Access::Read, 16);
    let y = k.param_ptr::<Bf16x2>("y", Access::Write, 16);
    let n = k.param_u32_multiple_of("n", PER_THREAD as u32);
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }
    let i = k.shl(k.mad(k.ctaid(), k.ntid(), k.tid()), 2);
    k.return_if(k.ge(i, n));
    let x = k.ld4(k.index(x, i)).map(|x| k.select(k.lt(k.abs(x), f32::MIN_POSITIVE), k.mul(x, 0.0), x));
    k.st2(k.index_by(y, i, 2), [k.to_bf16x2(x[0], x[1]), k.to_bf16x2(x[2], x[3])]);
    k.finish()
}

/// The launch of `round_bf16` for `n` values.
///
/// # Errors
/// [`ShapeError`] unless `n` is a multiple of 4.
pub fn round_bf16_dims(n: usize) -> Result<Dims, ShapeError> {
    let n = ShapeError::check("round_bf16", "values", n, PER_THREAD, 1 << 31)?;
    Ok(Dims::linear(n.div_ceil(PER_THREAD as u32 * THREADS), THREADS))
}

/// What ships.
pub(super) fn entries() -> Vec<Entry> {
    let (columns, tokens) = (1056, 2);
    let values = columns * tokens;
    let x = bytes_of_f32(&Noise::new(1).floats(values));
    let tiles = activation::bytes(columns, tokens);
    vec![
        Entry {
            name: "quantize_q8".into(),
            about: "f32 activations to 8-bit codes with scales and sums per 32",
            oldest: Target::Sm80,
            build: Box::new(quantize_q8),
            workload: Workload {
                dims: known(quantize_q8_dims(columns, tokens, 1)),
                args: vec![Arg::read("x", x.clone()), Arg::write("y", tiles), Arg::U32(columns as u32)],
                work: Work {
                    activation_bytes: 4 * values as u64,
                    output_bytes: tiles as u64,
                    float_ops: 2 * values as u64,
                    int_ops: values as u64,
                    ..Work::default()
                },
            },
        },
        Entry {
            name: "round_bf16".into(),
            about: "f32 activations to bfloat16",
            oldest: Target::Sm80,
            build: Box::new(round_bf16),
            workload: Workload {
                dims: known(round_bf16_dims(values)),
                args: vec![Arg::read("x", x), Arg::write("y", 2 * values), Arg::U32(values as u32)],
                work: Work {
                    activation_bytes: 4 * values as u64,
                    output_bytes: 2 * values as u64,
                    float_ops: values as u64,
                    ..Work::default()
                },
            },
        },
    ]
}
