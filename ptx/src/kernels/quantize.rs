//! Activations for the matrix kernels: f32 to 8-bit codes with scales and sums, and f32 to bfloat16.
//!
//! # `quantize_q8`
//! `x`: `[tokens][columns]` f32, row-major; `y`: the tiles of [`activation`]. A warp takes 128 columns of a token, a lane four of them, so eight lanes share a block. The arithmetic is that of
//! the CPU backend, bit for bit: largest magnitude as an unsigned number, two true divisions per block, codes rounded to nearest even;
//! a block with an infinity or a NaN gets a NaN for its scale, a block below 127 times the smallest normal number is zero.
//!
//! # `round_bf16`
//! `x`: `[n]` f32; `y`: `[n]` bfloat16, rounded to nearest even, subnormal numbers to zero, as the CPU backend does. A thread takes
//! four values.
//!
//! Both move 4 bytes in and 1 to 2 out per value: launch latency binds them for the few rows of decoding, bandwidth beyond.

use super::activation::{self, GROUP, LANES, SCALES, TILE};
use super::launch::{Dims, ShapeError};
use super::workload::{Arg, Noise, Work, Workload, bytes_of_f32};
use super::{Entry, known};
use crate::build::{B32, Bf16x2, F32, KernelBuilder, Reg, S32, U32, types::Word};
use crate::ir::{Access, Dim, Kernel, Special, Target, Threads};

const WARPS: u32 = 8;
const THREADS: u32 = 32 * WARPS;
/// Values that a thread of `round_bf16` takes.
const PER_THREAD: usize = 4;

/// Magnitudes from here on are infinities and NaNs.
pub(super) const NOT_FINITE: u32 = 0x7f80_0000;
/// Scale of a block that holds one.
pub(super) const POISON: f32 = f32::from_bits(0x7fc0_0000);
/// Blocks below it are zero: their scale would be subnormal.
pub(super) const MIN_AMAX: f32 = 127.0 * f32::MIN_POSITIVE;

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
        let row = k.row(x, token, k.shl(columns, 2));
        for (value, x) in values.iter().zip(k.ld4(k.index(row, column))) {
            k.set(*value, x);
        }
    });
    let x = values.map(crate::build::Var::get);
    let magnitude = x.map(|x| k.and(k.bitcast::<F32, U32>(x), 0x7fff_ffff));
    let largest = magnitude[1..].iter().fold(magnitude[0], |m, &v| k.max(m, v));
    let largest = over_lanes(&k, largest, &[4, 2, 1], |a, b| k.max(a, b));
    let amax = k.bitcast::<U32, F32>(largest);
    let finite = k.lt(largest, NOT_FINITE);
    let coded = k.and(finite, k.ge(amax, MIN_AMAX));
    let inverse = k.select(coded, k.div_rn(127.0, amax), 0.0);
    let scale = k.select(coded, k.div_rn(amax, 127.0), k.select(finite, 0.0, POISON));

    // A product with 0 is 0 or NaN, and both become the code 0.
    let code = x.map(|x| k.to_s8(k.mul(x, inverse)));
    let pair = |low: Reg<S32>, high: Reg<S32>| k.prmt(low, high, 0x0040);
    let word = k.prmt(pair(code[0], code[1]), pair(code[2], code[3]), 0x5410);
    let sum = over_lanes(&k, k.dp4a(word.as_ty::<S32>(), 0x0101_0101, 0), &[2, 1], |a, b| k.add(a, b));
    let other = k.shfl_bfly(sum, 4);

    // All blocks of the last group are written; the grid may go on beyond it.
    let group = k.shr(column, 10);
    let end = k.shl(k.shr(k.add(columns, GROUP as u32 - 1), 10), 10);
    k.if_(k.lt(column, end), || {
        let tile = k.index_by(y, k.mad(group, tokens, token), TILE as u32);
        let block = k.and(k.shr(column, 5), 31);
        let half = k.and(k.shr(column, 4), 1);
        let codes = k.index_by(tile, k.mad(half, LANES as u32, block), 16);
        k.st(k.index(codes, k.and(k.laneid(), 3)), word);
        k.if_(k.eq(k.and(k.laneid(), 7), 0), || {
            let whole = k.add(sum, other);
            let scaled = k.mul(scale, k.to_f32(whole));
            let [scale, scaled] = [scale, scaled].map(|x| k.bitcast::<F32, B32>(x));
            let parts = [scale, scaled, k.prmt(sum, other, 0x5410), whole.as_ty()];
            k.st4(k.index_by(tile, block, 16).offset(SCALES as i32), parts);
        });
    });
    k.finish()
}

/// Combines with the lanes that are `distances` away.
fn over_lanes<T: Word>(
    k: &KernelBuilder,
    value: Reg<T>,
    distances: &[u32],
    combine: impl Fn(Reg<T>, Reg<T>) -> Reg<T>,
) -> Reg<T> {
    distances.iter().fold(value, |v, &distance| combine(v, k.shfl_bfly(v, distance)))
}

/// The launch of `quantize_q8`.
///
/// # Errors
/// [`ShapeError`] unless `columns` is a multiple of 32 and there are 1 to 65535 tokens.
pub fn quantize_q8_dims(columns: usize, tokens: usize) -> Result<Dims, ShapeError> {
    ShapeError::check("quantize_q8", "columns", columns, 32, 1 << 30)?;
    let tokens = ShapeError::check("quantize_q8", "tokens", tokens, 1, 65535)?;
    let warps = (activation::groups(columns) * (GROUP / 128)) as u32;
    Ok(Dims { grid: [warps.div_ceil(WARPS), tokens, 1], block: [THREADS, 1, 1], dynamic_shared: 0 })
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
                dims: known(quantize_q8_dims(columns, tokens)),
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
