//! Rows that move: heads without their padding, and the rows that are wanted.
//!
//! # `compact_heads`
//! `y[t][h · to + i] = x[t][h · from + i]` for `i < to`. Attention is written for few head sizes; a model with another one has its heads
//! padded with zeros, and what comes behind attention takes them without. `x`: `[rows][heads][from]` f32, `y`: `[rows][heads][to]` f32.
//! A thread takes an element, rows along y.
//!
//! # `gather_rows`
//! `y[i] = x[index[i]]`. `x`: `[..][columns]` f32, `index`: `[rows]` u32, `y`: `[rows][columns]` f32; a row of index [`NO_ROW`] is zeros.
//! Which rows are wanted is in device memory, for a captured graph. A thread takes four columns, rows along y.
//!
//! Both move some kilobytes per row: launch latency binds them when decoding, bandwidth when prefilling.

use super::launch::{Dims, ShapeError};
use super::workload::{Arg, Noise, Work, Workload, bytes_of_f32, bytes_of_u32};
use super::{Entry, known};
use crate::build::{F32, KernelBuilder, LoadOptions, U32};
use crate::ir::{Access, Kernel, Target, Threads};

const THREADS: u32 = 256;
const COMPACT: &str = "compact_heads";
const GATHER: &str = "gather_rows";
/// Index of a row that is not there.
pub const NO_ROW: u32 = u32::MAX;

/// `compact_heads`; for [`Target::Sm90`], with dependent launch.
pub fn compact_heads(target: Target) -> Kernel {
    let k = KernelBuilder::new(COMPACT);
    k.about(
        "y[t][h * to + i] = x[t][h * from + i] for i < to: heads without their padding. A thread takes an element.",
    );
    k.threads(Threads::UpTo(THREADS));
    let x = k.param_ptr::<F32>("x", Access::Read, 4);
    let y = k.param_ptr::<F32>("y", Access::Write, 4);
    let [heads, from, to] = ["heads", "from", "to"].map(|name| k.param_u32(name));
    let (row, i) = (k.ctaid_y(), k.mad(k.ctaid(), k.ntid(), k.tid()));
    let width = k.mul(heads, to);
    k.return_if(k.ge(i, width));
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }
    let head = k.div(i, to);
    let place = k.mad(head, from, k.sub(i, k.mul(head, to)));
    let x = k.index(k.row(x, row, k.mul(heads, k.shl(from, 2))), place);
    k.st(k.index(k.row(y, row, k.shl(width, 2)), i), k.ld_with(x, LoadOptions::READ_ONLY));
    k.finish()
}

/// The launch of `compact_heads`: `to` is the size of a head without padding.
///
/// # Errors
/// [`ShapeError`] for no heads or empty ones, or rows outside 1 to 65535.
pub fn compact_heads_dims(rows: usize, heads: usize, to: usize) -> Result<Dims, ShapeError> {
    let rows = ShapeError::check(COMPACT, "rows", rows, 1, 65535)?;
    let heads = ShapeError::check(COMPACT, "heads", heads, 1, 1 << 12)?;
    let to = ShapeError::check(COMPACT, "elements of a head", to, 1, 1 << 12)?;
    Ok(Dims { grid: [(heads * to).div_ceil(THREADS), rows, 1], ..Dims::linear(1, THREADS) })
}

/// `gather_rows`; for [`Target::Sm90`], with dependent launch.
pub fn gather_rows(target: Target) -> Kernel {
    let k = KernelBuilder::new(GATHER);
    k.about("y[i] = x[index[i]], zeros where index[i] is 0xffffffff. A thread takes four columns of a row.");
    k.threads(Threads::UpTo(THREADS));
    let x = k.param_ptr::<F32>("x", Access::Read, 16);
    let index = k.param_ptr::<U32>("index", Access::Read, 4);
    let y = k.param_ptr::<F32>("y", Access::Write, 16);
    let columns = k.param_u32_multiple_of("columns", 4);
    let column = k.shl(k.mad(k.ctaid(), k.ntid(), k.tid()), 2);
    k.return_if(k.ge(column, columns));
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }
    let row_bytes = k.shl(columns, 2);
    let from = k.ld_with(k.index(index, k.ctaid_y()), LoadOptions::READ_ONLY);
    let to = k.index(k.row(y, k.ctaid_y(), row_bytes), column);
    k.if_else(
        k.ne(from, NO_ROW),
        || {
            let x = k.ld_vec::<_, _, 4>(k.index(k.row(x, from, row_bytes), column), LoadOptions::READ_ONLY);
            k.st4(to, x);
        },
        || k.st4(to, [0.0; 4]),
    );
    k.finish()
}

/// The launch of `gather_rows`.
///
/// # Errors
/// [`ShapeError`] unless `columns` is a multiple of 4 and there are 1 to 65535 rows.
pub fn gather_rows_dims(rows: usize, columns: usize) -> Result<Dims, ShapeError> {
    let rows = ShapeError::check(GATHER, "rows", rows, 1, 65535)?;
    let columns = ShapeError::check(GATHER, "columns", columns, 4, 1 << 28)?;
    Ok(Dims { grid: [columns.div_ceil(4 * THREADS), rows, 1], ..Dims::linear(1, THREADS) })
}

/// A launch of `compact_heads` with seeded heads, from `from` elements to `to`.
///
/// # Errors
/// As [`compact_heads_dims`], and for `to` above `from`.
pub fn compact_heads_workload(
    rows: usize,
    heads: usize,
    (from, to): (usize, usize),
    seed: u64,
) -> Result<Workload, ShapeError> {
    let dims = compact_heads_dims(rows, heads, to)?;
    ShapeError::check(COMPACT, "elements of a head", to, 1, from as u32)?;
    let args = vec![
        Arg::read("x", bytes_of_f32(&Noise::new(seed).floats(rows * heads * from))),
        Arg::write("y", 4 * rows * heads * to),
        Arg::U32(heads as u32),
        Arg::U32(from as u32),
        Arg::U32(to as u32),
    ];
    let bytes = 4 * (rows * heads * to) as u64;
    Ok(Workload { dims, args, work: Work { activation_bytes: bytes, output_bytes: bytes, ..Work::default() } })
}

/// A launch of `gather_rows` that takes rows `index` of `rows` seeded ones.
///
/// # Errors
/// As [`gather_rows_dims`].
pub fn gather_rows_workload(rows: usize, index: &[u32], columns: usize, seed: u64) -> Result<Workload, ShapeError> {
    let dims = gather_rows_dims(index.len(), columns)?;
    let args = vec![
        Arg::read("x", bytes_of_f32(&Noise::new(seed).floats(rows * columns))),
        Arg::read("index", bytes_of_u32(index)),
        Arg::write("y", 4 * index.len() * columns),
        Arg::U32(columns as u32),
    ];
    let there = index.iter().filter(|&&row| row != NO_ROW).count();
    let work = Work {
        activation_bytes: 4 * (there * columns + index.len()) as u64,
        output_bytes: 4 * (index.len() * columns) as u64,
        ..Work::default()
    };
    Ok(Workload { dims, args, work })
}

/// What ships.
pub(super) fn entries() -> Vec<Entry> {
    vec![
        Entry {
            name: COMPACT.into(),
            about: "heads without their padding",
            oldest: Target::Sm80,
            build: Box::new(compact_heads),
            workload: known(compact_heads_workload(2, 6, (64, 48), 26)),
        },
        Entry {
            name: GATHER.into(),
            about: "the rows whose logits are wanted",
            oldest: Target::Sm80,
            build: Box::new(gather_rows),
            workload: known(gather_rows_workload(5, &[4, 1, NO_ROW], 1536, 27)),
        },
    ]
}
