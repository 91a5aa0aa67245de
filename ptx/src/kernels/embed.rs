//! Rows of the embedding table.
//!
//! `y[t] = table[tokens[t]] · scale`. `tokens`: `[T]` u32; `y`: `[T][columns]` f32. The table is in the planes of
//! [`pack`](super::pack), so that one copy of a matrix serves as embedding and, where a model ties them, as LM head.
//! Values are those of the file's format, to the bit, before they are multiplied by `scale`. A token that the table has
//! no row for gives a row of NaN.
//!
//! A thread takes four columns; CTAs of 128 threads, rows along y. Each row is some kilobytes: launch latency binds it.

use super::Entry;
use super::format::Format;
use super::launch::{Dims, ShapeError};
use super::pack::{BLOCK, PackError, Packed, SUPER};
use super::workload::{Arg, Noise, Work, Workload, bytes_of_u32, random_rows};
use crate::build::{B32, B64, F16, F32, KernelBuilder, LoadOptions, Ptr, Reg, S8, S32, U32};
use crate::ir::{Access, Kernel, Target, Threads};

const THREADS: u32 = 128;

/// Name of the kernel for a format.
pub fn kernel_name(format: Format) -> String {
    format!("embed_{}", format.name())
}

/// Planes of the table, as parameters. Those that the format does not have are none.
pub(super) struct Planes {
    codes: Ptr<B32>,
    high: Option<Ptr<B32>>,
    scales: Option<Ptr<B32>>,
    supers: Option<Ptr<B32>>,
}

/// A row of the table.
pub(super) struct Row<'a> {
    k: &'a KernelBuilder,
    codes: Ptr<B32>,
    high: Option<Ptr<B32>>,
    scales: Option<Ptr<B32>>,
    supers: Option<Ptr<B32>>,
    token: Reg<U32>,
    columns: Reg<U32>,
}

impl Planes {
    pub(super) fn params(k: &KernelBuilder, format: Format) -> Self {
        let codes = k.param_ptr::<B32>("codes", Access::Read, 16);
        let [high, scales, supers] = planes(format);
        let plane = |name: &str, has: bool| has.then(|| k.param_ptr::<B32>(name, Access::Read, 16));
        Self { codes, high: plane("high", high), scales: plane("scales", scales), supers: plane("supers", supers) }
    }

    /// The row of a token.
    pub(super) fn row<'a>(&self, k: &'a KernelBuilder, token: Reg<U32>, columns: Reg<U32>) -> Row<'a> {
        let &Self { codes, high, scales, supers } = self;
        Row { k, codes, high, scales, supers, token, columns }
    }
}

/// Planes that a format has besides the codes: high bits, scales, scales of super-blocks.
fn planes(format: Format) -> [bool; 3] {
    match format {
        Format::F16 | Format::BF16 => [false; 3],
        Format::Q4_0 | Format::Q4_1 | Format::Q8_0 | Format::Q4_K => [false, true, false],
        Format::Q5_K => [true, true, false],
        Format::Q6_K => [true; 3],
    }
}

/// `embed_…`; for [`Target::Sm90`], with dependent launch.
pub fn embed(format: Format, target: Target) -> Kernel {
    let builder = KernelBuilder::new(&kernel_name(format));
    let k = &builder;
    k.about("y[t] = table[tokens[t]] * scale, the table in planes. A thread takes four columns of a row.");
    k.threads(Threads::UpTo(THREADS));
    let planes = Planes::params(k, format);
    let tokens = k.param_ptr::<U32>("tokens", Access::Read, 4);
    let y = k.param_ptr::<F32>("y", Access::Write, 16);
    let rows = k.param_u32("rows");
    let columns = k.param_u32_multiple_of("columns", format.column_multiple().min(1 << 8) as u32);
    let scale = k.param_f32("scale");

    let column = k.shl(k.mad(k.ctaid(), k.ntid(), k.tid()), 2);
    k.return_if(k.ge(column, columns));
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }
    let token = k.ld_with(k.index(tokens, k.ctaid_y()), LoadOptions::READ_ONLY);
    let out = k.index(k.row(y, k.ctaid_y(), k.shl(columns, 2)), column);
    k.if_else(
        k.lt(token, rows),
        || {
            let row = planes.row(k, token, columns);
            k.st4(out, row.values(format, column).map(|x| k.mul(x, scale)));
        },
        || k.st4(out, [f32::NAN; 4]),
    );
    builder.finish()
}

impl Row<'_> {
    /// Four columns of the row.
    pub(super) fn values(&self, format: Format, column: Reg<U32>) -> [Reg<F32>; 4] {
        let k = self.k;
        match format {
            Format::F16 | Format::BF16 => {
                let row = k.row(self.codes, self.token, k.shl(self.columns, 1));
                let [a, b] = k.ld_vec(k.index_by(row, column, 2), LoadOptions::STREAM);
                let [[a, b], [c, d]] = [a, b].map(|word: Reg<B32>| match format {
                    Format::F16 => k.f16x2_to_f32(word.as_ty()),
                    _ => k.bf16x2_to_f32(word.as_ty()),
                });
                [a, b, c, d]
            }
            Format::Q8_0 => {
                let block = self.block(column);
                // First the lower halves of all blocks of the row, then the upper.
                let half = k.mul(k.and(k.shr(column, 4), 1), k.shr(self.columns, 1));
                let row = k.row(self.codes, self.token, self.columns);
                let at = k.mad(k.shr(column, 5), 16, k.add(half, k.and(column, 12)));
                let word = k.ld_with(k.index_by(row, at, 1), LoadOptions::STREAM);
                let code = |j: u32| k.to_f32(k.bfe(word.as_ty::<S32>(), 8 * j, 8));
                let scale = self.half(self.scales, block, 0, 2);
                std::array::from_fn(|j| k.mul(scale, code(j as u32)))
            }
            Format::Q4_0 => {
                let (scale, low) = (self.half(self.scales, self.block(column), 0, 2), self.low(column));
                low.map(|code| k.mul(scale, k.to_f32(k.sub(code.as_ty::<S32>(), 8))))
            }
            Format::Q4_1 => {
                let block = self.block(column);
                let (scale, min) = (self.half(self.scales, block, 0, 4), self.half(self.scales, block, 1, 4));
                self.low(column).map(|code| k.add(k.mul(scale, k.to_f32(code)), min))
            }
            Format::Q4_K | Format::Q5_K => {
                let [scale, min] = self.fields(column);
                let low = self.low(column);
                let high = (format == Format::Q5_K).then(|| self.fifth(column));
                std::array::from_fn(|j| {
                    let code = high.map_or(low[j], |high| k.or(low[j], high[j]));
                    k.sub(k.mul(scale, k.to_f32(code)), min)
                })
            }
            Format::Q6_K => {
                let block = self.block(column);
                let d = self.half(self.supers, k.shr(block, 3), 0, 2);
                let scales = k.index_by(pointer(self.scales), k.mad(block, 2, k.and(k.shr(column, 4), 1)), 1);
                let sub = k.ld_with(scales.cast::<S8>(), LoadOptions::READ_ONLY);
                let scale = k.mul(d, k.to_f32(sub));
                let (low, high) = (self.low(column), self.two_bits(column));
                std::array::from_fn(|j| {
                    let code = k.or(low[j], high[j]).as_ty::<S32>();
                    k.mul(scale, k.to_f32(k.sub(code, 32)))
                })
            }
        }
    }

    /// Block of a column, counted from the start of the table.
    fn block(&self, column: Reg<U32>) -> Reg<U32> {
        let k = self.k;
        k.mad(self.token, k.shr(self.columns, 5), k.shr(column, 5))
    }

    /// The f16 number `which` of element `index` of a plane, whose elements have `stride` bytes.
    fn half(&self, plane: Option<Ptr<B32>>, index: Reg<U32>, which: i32, stride: u32) -> Reg<F32> {
        let k = self.k;
        let at = k.index_by(pointer(plane), index, stride).cast::<F16>().at(which);
        k.f16_to_f32(k.ld_with(at, LoadOptions::READ_ONLY))
    }

    /// Low four bits of four columns: byte `j` of a block holds columns `j` and `j + 16`.
    fn low(&self, column: Reg<U32>) -> [Reg<U32>; 4] {
        let k = self.k;
        let word = k.index_by(k.index_by(self.codes, self.block(column), 16), k.and(column, 12), 1);
        let word = k.ld_with(word, LoadOptions::STREAM).as_ty::<U32>();
        let word = k.shr(word, k.shr(k.and(column, 16), 2));
        std::array::from_fn(|j| k.bfe(word, 8 * j as u32, 4))
    }

    /// Bit 4 of four columns of Q5_K: byte `j`, bit `4h + t`, of column `16h + 4t + j`.
    fn fifth(&self, column: Reg<U32>) -> [Reg<U32>; 4] {
        let k = self.k;
        let word = k.index_by(pointer(self.high), self.block(column), 4);
        let word = k.ld_with(word, LoadOptions::STREAM).as_ty::<U32>();
        let word = k.shr(word, k.and(k.shr(column, 2), 7));
        std::array::from_fn(|j| k.shl(k.bfe(word, 8 * j as u32, 1), 4))
    }

    /// Bits 4 and 5 of four columns of Q6_K: byte `4h + j`, bits `2t` and `2t + 1`, of column `16h + 4t + j`.
    fn two_bits(&self, column: Reg<U32>) -> [Reg<U32>; 4] {
        let k = self.k;
        let word = k.index_by(pointer(self.high), k.mad(self.block(column), 2, k.and(k.shr(column, 4), 1)), 4);
        let word = k.ld_with(word, LoadOptions::STREAM).as_ty::<U32>();
        let word = k.shr(word, k.and(k.shr(column, 1), 6));
        std::array::from_fn(|j| k.shl(k.bfe(word, 8 * j as u32, 2), 4))
    }

    /// Scale and minimum of a column of Q4_K or Q5_K: 12 bits per block behind the two f16 of a super-block.
    fn fields(&self, column: Reg<U32>) -> [Reg<F32>; 2] {
        let k = self.k;
        let block = self.block(column);
        let [first, second, third, fourth]: [Reg<B32>; 4] =
            k.ld_vec(k.index_by(pointer(self.scales), k.shr(block, 3), 16), LoadOptions::READ_ONLY);
        let [d, dmin] = k.f16x2_to_f32(first.as_ty());
        // Fields 0 to 4 begin in the first 64 of the 96 bits, the others in the last 64, 32 bits further.
        let place = k.and(block, 7);
        let late = k.ge(place, 5);
        let low = k.pack32::<B64>(k.select(late, third, second), k.select(late, fourth, third));
        let at = k.sub(k.mul(place, 12), k.select(late, 32, 0));
        let [pair, _] = k.unpack32(k.shr(low, at));
        let field = |at: u32| k.to_f32(k.bfe(pair.as_ty::<U32>(), at, 6));
        [k.mul(d, field(0)), k.mul(dmin, field(6))]
    }
}

/// A plane that the format has.
fn pointer(plane: Option<Ptr<B32>>) -> Ptr<B32> {
    plane.expect("invariant: `planes` says which planes a format has")
}

/// The launch for `tokens` tokens.
///
/// # Errors
/// [`ShapeError`] for columns that are not whole blocks of the format, or tokens outside 1 to 65535.
pub fn dims(format: Format, columns: usize, tokens: usize) -> Result<Dims, ShapeError> {
    let name = kernel_name(format);
    let columns = ShapeError::check(&name, "columns", columns, format.column_multiple(), 1 << 24)?;
    let tokens = ShapeError::check(&name, "tokens", tokens, 1, 65535)?;
    Ok(Dims { grid: [columns.div_ceil(4 * THREADS), tokens, 1], block: [THREADS, 1, 1], dynamic_shared: 0 })
}

/// A launch over a table in planes.
///
/// # Errors
/// As [`dims`].
pub fn workload(table: &Packed, tokens: &[u32], scale: f32) -> Result<Workload, ShapeError> {
    let (format, columns) = (table.format, table.columns);
    let dims = dims(format, columns, tokens.len())?;
    let mut args = super::gemv::planes(table);
    args.extend([
        Arg::read("tokens", bytes_of_u32(tokens)),
        Arg::write("y", 4 * columns * tokens.len()),
        Arg::U32(table.rows as u32),
        Arg::U32(columns as u32),
        Arg::F32(scale),
    ]);
    let values = (columns * tokens.len()) as u64;
    let work = Work {
        weight_bytes: (format.row_bytes(columns) * tokens.len()) as u64,
        activation_bytes: 4 * tokens.len() as u64,
        output_bytes: 4 * values,
        float_ops: if format.is_float() { values } else { 3 * values },
        ..Work::default()
    };
    Ok(Workload { dims, args, work })
}

/// A table of seeded rows.
///
/// # Errors
/// [`PackError`] for columns that are not whole blocks.
pub fn random_table(format: Format, rows: usize, columns: usize, seed: u64) -> Result<Packed, PackError> {
    Packed::matrix(format, columns, &random_rows(format, rows, columns, &mut Noise::new(seed)))
}

/// What ships.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |format: Format| Entry {
        name: kernel_name(format),
        about: "rows of the embedding table",
        oldest: Target::Sm80,
        build: Box::new(move |target| embed(format, target)),
        workload: workload(
            &random_table(format, 5, 768, 16).expect("invariant: 768 columns are whole blocks of every format"),
            &[3, 0],
            1.0,
        )
        .expect("invariant: the shape of a workload is one that its kernel takes"),
    };
    Format::ALL.into_iter().map(entry).collect()
}

const _: () = assert!(BLOCK == 32 && SUPER == 256, "shifts by 5 and 3 count blocks and super-blocks");
