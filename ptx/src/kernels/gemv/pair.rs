//! Two matrices of different formats times the same vectors, in one launch: queries and keys of one format, values of another.
//!
//! # Shapes and buffers
//! As of [`gemv`](super) with `Store`: first the planes of matrix A (parameters `a_…`), then those of B (`b_…`), `x`, `bias` (`[rows_a + rows_b]`, or
//! null), `y` (`[chunks · T][stride]`: row `r` of A is element `r`, of B element `rows_a + r`), and the numbers `rows_a`, `rows_b`, `columns`, `stride`. There is no
//! residual.
//!
//! # Who does what
//! CTAs take rows of A as long as there are any, then rows of B: no CTA has both. Results are those of a launch for each, bit for bit.

use super::epilogue::{Added, Owner, Store};
use super::reduce::Reduced;
use super::weights::Planes;
use super::{Epilogue, Gemv, MAX_CHUNKS, Matrix, Quantised, Shape, WARPS, entries};
use crate::build::{KernelBuilder, Reg, U32};
use crate::ir::{Access, Kernel, Target, Threads};
use crate::kernels::format::Format;
use crate::kernels::launch::{Dims, ShapeError};
use crate::kernels::pack::Packed;
use crate::kernels::workload::{Arg, Noise, Work, Workload};

/// Formats that there are kernels for.
pub const FORMATS: [[Format; 2]; 1] = [[Format::Q4_K, Format::Q6_K]];

/// Most tokens of a chunk: for more, [`mma`](super::mma) has a launch for each matrix that is no slower.
pub const MOST_TOKENS: u32 = 4;

/// A kernel of this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GemvPair {
    /// The kernels for each of the matrices.
    pub(super) of: [Gemv; 2],
}

impl GemvPair {
    /// The kernel for weights of a pair of [`FORMATS`] and a bucket of 1 to [`MOST_TOKENS`] tokens; there is none for others.
    pub fn new(formats: [Format; 2], tokens: usize) -> Option<Self> {
        let tokens = u32::try_from(tokens).ok().filter(|tokens| (1..=MOST_TOKENS).contains(tokens))?;
        let gemv = |format| Gemv { format, tokens, epilogue: Epilogue::Store, narrow: false };
        FORMATS.contains(&formats).then(|| Self { of: formats.map(gemv) })
    }

    /// Formats of the weights.
    pub fn formats(&self) -> [Format; 2] {
        self.of.map(|gemv| gemv.format)
    }

    /// Tokens of a chunk.
    pub fn tokens(&self) -> usize {
        self.of[0].tokens()
    }

    /// Name of the kernel: `gemv_pair_q4_k_q6_k_b1`.
    pub fn name(&self) -> String {
        self.name_in("gemv_pair")
    }

    /// Name of the kernel of a family.
    pub(super) fn name_in(&self, family: &str) -> String {
        let [a, b] = self.formats().map(Format::name);
        format!("{family}_{a}_{b}_b{}", self.tokens())
    }

    /// What is computed, and of what.
    pub(super) fn formula(&self) -> String {
        let [a, b] = self.formats().map(Format::name);
        format!("y = A x, then B x (+ bias), A in {a} planes, B in {b} planes, {} token(s)", self.tokens())
    }

    /// Rows of a CTA of so many warps.
    pub(super) fn rows_per_cta(&self, warps: u32) -> u32 {
        warps * self.of[0].rows_per_warp()
    }

    /// CTAs of so many warps that all rows ask for, where none has rows of both matrices.
    pub(super) fn ctas(&self, name: &str, rows: [usize; 2], columns: usize, warps: u32) -> Result<u32, ShapeError> {
        let mut ctas = 0;
        for (rows, format) in rows.into_iter().zip(self.formats()) {
            ctas += ShapeError::check(name, "rows", rows, 1, 1 << 24)?.div_ceil(self.rows_per_cta(warps));
            ShapeError::check(name, "columns", columns, format.column_multiple(), 1 << 24)?;
        }
        Ok(ctas)
    }

    /// The launch, for `chunks` times as many tokens as the kernel has.
    ///
    /// # Errors
    /// [`ShapeError`] unless `columns` are whole blocks of both formats, each matrix has 1 to 2^24 rows, and there are 1 to [`MAX_CHUNKS`] chunks.
    pub fn dims(&self, rows: [usize; 2], columns: usize, chunks: usize) -> Result<Dims, ShapeError> {
        let name = self.name();
        let blocks = self.ctas(&name, rows, columns, WARPS)?;
        let chunks = ShapeError::check(&name, "chunks", chunks, 1, MAX_CHUNKS)?;
        Ok(Dims { grid: [blocks, chunks, 1], ..Dims::linear(1, 32 * WARPS) })
    }

    /// The first parameters: planes of A, planes of B.
    pub(super) fn planes(&self, k: &KernelBuilder) -> [Planes; 2] {
        let [a, b] = self.formats();
        [Planes::params(k, a, "a_"), Planes::params(k, b, "b_")]
    }

    /// The kernel; for [`Target::Sm90`], with dependent launch.
    pub fn kernel(&self, target: Target) -> Kernel {
        let k = KernelBuilder::new(&self.name());
        let [gemv, _] = self.of;
        let per_warp = gemv.rows_per_warp();
        k.about(&format!(
            "{}.\n\
             A warp takes {per_warp} row(s), a lane every 32nd block of 16 bytes of each.",
            self.formula()
        ));
        k.threads(Threads::Exactly([32 * WARPS, 1, 1]));
        k.min_blocks(gemv.min_blocks());
        let planes = self.planes(&k);
        let x = k.param_ptr("x", Access::Read, 16);
        let result = PairResult::params(&k, *self);

        k.comment("which matrix, and which rows of it");
        let of_a = result.ctas(&k, 0, WARPS);
        split(&k, of_a, |i, cta| {
            let (gemv, shape) = (self.of[i], result.shape(i));
            let x = shape.tiles_of_chunk(&k, x, gemv.tokens);
            let matrix = Matrix::Quantised(Quantised { gemv, planes: planes[i], x });
            let first = k.mul(k.mad(cta, WARPS, k.warp()), per_warp);
            gemv.wait(&k, target, &matrix, first, &shape);
            k.return_if(k.ge(first, shape.rows));
            result.store(&k, i, first, &gemv.sums(&k, &matrix, first, &shape));
        });
        k.finish()
    }

    /// A launch with weights and activations that follow from a seed.
    ///
    /// # Errors
    /// As [`dims`](Self::dims).
    pub fn workload(&self, rows: [usize; 2], columns: usize, seed: u64) -> Result<Workload, ShapeError> {
        let x = |noise: &mut Noise| entries::activations(self.formats()[0], self.tokens(), columns, noise);
        Ok(self.workload_with(self.dims(rows, columns, 1)?, rows, columns, seed, x, None))
    }

    /// A launch with seeded weights and the activations that `x` makes; `last` is a parameter behind all others.
    pub(super) fn workload_with(
        &self,
        dims: Dims,
        rows: [usize; 2],
        columns: usize,
        seed: u64,
        x: impl FnOnce(&mut Noise) -> Vec<Arg>,
        last: Option<Arg>,
    ) -> Workload {
        let mut noise = Noise::new(seed);
        let (tokens, both) = (self.tokens(), rows[0] + rows[1]);
        let packed = [0, 1].map(|i| entries::matrix(self.of[i].format, rows[i], columns, &mut noise));
        let mut args: Vec<Arg> = packed.iter().flat_map(entries::planes).collect();
        let x = x(&mut noise);
        let activation_bytes = x.iter().map(Arg::bytes).sum();
        args.extend(x);
        args.extend([Arg::U64(0), Arg::write("y", 4 * tokens * both)]);
        args.extend([rows[0], rows[1], columns, both].map(|n| Arg::U32(n as u32)));
        args.extend(last);
        let work = Work {
            weight_bytes: packed.iter().map(Packed::bytes).sum::<usize>() as u64,
            activation_bytes,
            output_bytes: (4 * tokens * both) as u64,
            int_ops: (2 * both * columns * tokens) as u64,
            ..Work::default()
        };
        Workload { dims, args, work }
    }
}

/// Gives A to the first `of_a` CTAs and B to the others: `part` receives which matrix, and the CTA's number among those that have it.
pub(super) fn split(k: &KernelBuilder, of_a: Reg<U32>, part: impl Fn(usize, Reg<U32>)) {
    // All in one branch or the other, so that nothing but parameters is held for later.
    k.if_else(k.lt(k.ctaid(), of_a), || part(0, k.ctaid()), || part(1, k.sub(k.ctaid(), of_a)));
}

/// The parameters behind the activations, and what CTAs do with them.
pub(super) struct PairResult {
    pair: GemvPair,
    store: Store,
    rows: [Reg<U32>; 2],
    columns: Reg<U32>,
    stride: Reg<U32>,
}

impl PairResult {
    pub(super) fn params(k: &KernelBuilder, pair: GemvPair) -> Self {
        let multiple = pair.formats().map(|format| format.column_multiple() as u32).into_iter().max().unwrap_or(1);
        Self {
            pair,
            store: Store::biased(k, pair.of[0].tokens),
            rows: ["rows_a", "rows_b"].map(|name| k.param_u32(name)),
            columns: k.param_u32_multiple_of("columns", multiple),
            stride: k.param_u32("stride"),
        }
    }

    /// That of matrix `i`.
    pub(super) fn shape(&self, i: usize) -> Shape {
        Shape { rows: self.rows[i], columns: self.columns, stride: Some(self.stride) }
    }

    /// CTAs of so many warps that the rows of matrix `i` ask for.
    pub(super) fn ctas(&self, k: &KernelBuilder, i: usize, warps: u32) -> Reg<U32> {
        let per_cta = self.pair.rows_per_cta(warps);
        k.div(k.add(self.rows[i], per_cta - 1), per_cta)
    }

    /// What becomes of sums of matrix `i`: its rows are behind those of the other.
    fn owner(&self, k: &KernelBuilder, i: usize, first: Reg<U32>) -> Owner {
        let mut owner = Owner::of(k, self.pair.of[i], first, &self.shape(i));
        if i == 1 {
            owner.row = k.add(owner.row, self.rows[0]);
        }
        owner
    }

    /// Begins to load what is added to the sums of the rows of matrix `i` from `first` on.
    pub(super) fn load(&self, k: &KernelBuilder, i: usize, what: Added, first: Reg<U32>) {
        self.store.load(k, what, &self.owner(k, i, first), &self.shape(i));
    }

    /// Stores the sums of the rows of matrix `i` from `first` on.
    pub(super) fn store(&self, k: &KernelBuilder, i: usize, first: Reg<U32>, reduced: &Reduced) {
        self.store.write(k, &self.owner(k, i, first), &self.shape(i), reduced.sum, reduced.copies);
    }

    /// The same, and what is added is what [`load`](Self::load) has loaded.
    pub(super) fn early(self, k: &KernelBuilder) -> Self {
        Self { store: self.store.early(k), ..self }
    }
}
