//! What ships of this family, with workloads.

use super::mma::{self, GemvMma};
use super::pair::{self, GemvPair};
use super::{Epilogue, Gemv, MAX_TOKENS, stream};
use crate::ir::Target;
use crate::kernels::activation;
use crate::kernels::format::Format;
use crate::kernels::launch::{Dims, ShapeError};
use crate::kernels::pack::Packed;
use crate::kernels::workload::{Arg, Noise, Work, Workload, bytes_of_f32, random_rows};
use crate::kernels::{Entry, known};

/// Buckets of tokens that ship.
const TOKENS: [u32; 4] = [1, 2, 4, 8];

/// What ships.
pub(in crate::kernels) fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    let gemv = |format, tokens, epilogue| Gemv { format, tokens, epilogue, narrow: false };
    for epilogue in [Epilogue::Store, Epilogue::SwiGlu, Epilogue::ArgMax] {
        for format in Format::ALL {
            entries.extend(TOKENS.map(|tokens| entry(gemv(format, tokens, epilogue))));
        }
    }
    entries.extend(Format::ALL.map(|format| entry(gemv(format, 1, Epilogue::Store).narrow())));
    for gated in [false, true] {
        for tokens in mma::TOKENS {
            let kernels = mma::FORMATS.into_iter().filter_map(|format| GemvMma::new(format, tokens, gated));
            entries.extend(kernels.clone().map(mma_entry));
            let narrow = kernels.filter(|wide| wide.narrow() != *wide).map(GemvMma::narrow);
            entries.extend(narrow.map(mma_entry));
        }
    }
    for formats in pair::FORMATS {
        let pairs = TOKENS.into_iter().filter_map(|tokens| GemvPair::new(formats, tokens as usize));
        entries.extend(pairs.map(pair_entry));
    }
    entries.extend(stream::entries());
    entries
}

fn pair_entry(pair: GemvPair) -> Entry {
    Entry {
        name: pair.name(),
        about: "two matrices of different formats times vectors, with bias if there is one",
        oldest: Target::Sm80,
        build: Box::new(move |target| pair.kernel(target)),
        workload: known(pair.workload([24, 8], 4096, 1)),
    }
}

/// Rows of a workload: 32, or what makes a block.
pub(super) fn workload_rows(epilogue: Epilogue) -> usize {
    epilogue.row_multiple().next_multiple_of(32) as usize
}

fn mma_entry(gemv: GemvMma) -> Entry {
    Entry {
        name: gemv.name(),
        about: match gemv.epilogue() {
            Epilogue::SwiGlu => "gate and up matrices times vectors on tensor cores, and the gated activation",
            _ => "matrix times vectors on tensor cores, with bias and residual if there are such",
        },
        oldest: gemv.oldest(),
        build: Box::new(move |target| gemv.kernel(target)),
        workload: known(gemv.workload(workload_rows(gemv.epilogue()), 4096, 1)),
    }
}

fn entry(gemv: Gemv) -> Entry {
    Entry {
        name: gemv.name(),
        about: match gemv.epilogue {
            Epilogue::SwiGlu => "gate and up matrices times vectors, and the gated activation",
            Epilogue::ArgMax => "matrix times vectors, and the row of the largest value",
            _ => "matrix times vectors, with bias and residual if there are such",
        },
        oldest: Target::Sm80,
        build: Box::new(move |target| gemv.kernel(target)),
        workload: known(gemv.workload(workload_rows(gemv.epilogue()), 4096, 1)),
    }
}

/// A matrix with seeded weights.
pub(super) fn matrix(format: Format, rows: usize, columns: usize, noise: &mut Noise) -> Packed {
    Packed::matrix(format, columns, &random_rows(format, rows, columns, noise))
        .expect("invariant: `dims` takes whole blocks only, and random rows have the size of their format")
}

/// A launch with seeded weights and the activations that `x` makes; `last` is a parameter behind all others.
pub(super) fn workload(
    gemv: Gemv,
    dims: Dims,
    [rows, columns]: [usize; 2],
    seed: u64,
    x: impl FnOnce(&mut Noise) -> Vec<Arg>,
    last: Option<Arg>,
) -> Workload {
    let mut noise = Noise::new(seed);
    let packed = matrix(gemv.format, rows, columns, &mut noise);
    let tokens = gemv.tokens();
    let mut args = planes(&packed);
    let x = x(&mut noise);
    let activation_bytes = x.iter().map(Arg::bytes).sum();
    args.extend(x);
    let blocks = dims.grid[0] as usize;
    let output_bytes = match gemv.epilogue {
        Epilogue::SwiGlu => {
            args.push(Arg::write("y", 2 * tokens * rows));
            2 * tokens * rows
        }
        Epilogue::ArgMax => {
            args.extend([
                Arg::scratch("best", 8 * tokens * blocks),
                Arg::update("arrivals", vec![0; 4]),
                Arg::write("tokens", 4 * tokens),
            ]);
            4 * tokens
        }
        Epilogue::SwiGluQ8 => {
            let (y, tiles) = (2 * tokens * rows, activation::bytes(rows / 2, tokens));
            args.extend([Arg::write("y", y), Arg::write("tiles", tiles)]);
            y + tiles
        }
        Epilogue::Store => {
            args.extend([Arg::U64(0), Arg::U64(0), Arg::write("y", 4 * tokens * rows)]);
            4 * tokens * rows
        }
    };
    args.extend([Arg::U32(rows as u32), Arg::U32(columns as u32)]);
    if gemv.epilogue == Epilogue::Store {
        args.push(Arg::U32(rows as u32));
    }
    args.extend(last);
    let products = (rows * columns * tokens) as u64;
    let work = Work {
        weight_bytes: packed.bytes() as u64,
        activation_bytes,
        output_bytes: output_bytes as u64,
        int_ops: if gemv.format.is_float() { 0 } else { 2 * products },
        float_ops: if gemv.format.is_float() { 2 * products } else { 0 },
    };
    Workload { dims, args, work }
}

/// The planes of a matrix, as arguments: those that its format has.
pub(in crate::kernels) fn planes(packed: &Packed) -> Vec<Arg> {
    [("codes", &packed.codes), ("high", &packed.high), ("scales", &packed.scales), ("supers", &packed.supers)]
        .into_iter()
        .filter(|(_, plane)| !plane.is_empty())
        .map(|(name, plane)| Arg::read(name, plane.clone()))
        .collect()
}

/// Activations of `tokens` rows that follow from a seed, in the form that weights of a format are multiplied with.
pub(super) fn activations(format: Format, tokens: usize, columns: usize, noise: &mut Noise) -> Vec<Arg> {
    let x = noise.floats(tokens * columns);
    let bytes = match format {
        Format::F16 => bytes_of_f32(&x),
        Format::BF16 => x.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
        _ => known(activation::encode(&x, columns)),
    };
    vec![Arg::read("x", bytes)]
}

/// The launch of a kernel with the results of `gemv`.
fn of_gemv(gemv: Gemv, dims: Dims, rows: usize, columns: usize, seed: u64) -> Workload {
    let x = |noise: &mut Noise| activations(gemv.format, gemv.tokens(), columns, noise);
    workload(gemv, dims, [rows, columns], seed, x, None)
}

impl Gemv {
    /// A launch with weights and activations that follow from a seed, for a grid as small as the shape allows.
    ///
    /// # Errors
    /// As [`dims`](Self::dims).
    pub fn workload(&self, rows: usize, columns: usize, seed: u64) -> Result<Workload, ShapeError> {
        Ok(of_gemv(*self, self.dims(rows, columns, 1, 1)?, rows, columns, seed))
    }
}

impl GemvMma {
    /// The same as [`Gemv::workload`], with the same numbers for the first eight tokens.
    ///
    /// # Errors
    /// As [`dims`](Self::dims).
    pub fn workload(&self, rows: usize, columns: usize, seed: u64) -> Result<Workload, ShapeError> {
        let chunks = self.tokens() / MAX_TOKENS as usize;
        let (format, epilogue) = (self.format(), self.epilogue());
        let gemv = Gemv { format, tokens: self.tokens() as u32, epilogue, narrow: false };
        let x = |noise: &mut Noise| {
            let chunk = |_| known(activation::encode(&noise.floats(MAX_TOKENS as usize * columns), columns));
            vec![Arg::read("x", (0..chunks).flat_map(chunk).collect())]
        };
        Ok(workload(gemv, self.dims(rows, columns, chunks)?, [rows, columns], seed, x, None))
    }
}
