//! Two matrices of different formats times the same vectors, in one launch: queries and keys of one format, values of another.
//!
//! # Shapes and buffers
//! As of [`gemv`](super) with `Store`: first the planes of matrix A (parameters `a_…`), then those of B (`b_…`), `x`, `bias` (`[rows_a + rows_b]`, or
//! null), `y` (`[chunks · T][stride]`: row `r` of A is element `r`, of B element `rows_a + r`), and the numbers `rows_a`, `rows_b`, `columns`, `stride`. There is no
//! residual.
//!
//! # Who does what
//! CTAs take rows of A as long as there are any, then rows of B: no CTA has both. Results are those of a launch for each, bit for bit.

use super::epilogue::{Owner, Store};
use super::weights::Planes;
use super::{Epilogue, Gemv, MAX_CHUNKS, MAX_TOKENS, Matrix, Quantised, Shape, WARPS, entries, reduce, rows_at};
use crate::build::{F32, KernelBuilder, Var};
use crate::ir::{Access, Kernel, Target, Threads};
use crate::kernels::activation;
use crate::kernels::format::Format;
use crate::kernels::known;
use crate::kernels::launch::{Dims, ShapeError};
use crate::kernels::pack::Packed;
use crate::kernels::workload::{Arg, Noise, Work, Workload, random_rows};

/// Formats that there are kernels for.
pub const FORMATS: [[Format; 2]; 1] = [[Format::Q4_K, Format::Q6_K]];

/// A kernel of this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GemvPair {
    /// The kernels for each of the matrices.
    of: [Gemv; 2],
}

impl GemvPair {
    /// The kernel for weights of a pair of [`FORMATS`] and a bucket of 1 to [`MAX_TOKENS`] tokens; there is none for others.
    pub fn new(formats: [Format; 2], tokens: usize) -> Option<Self> {
        let tokens = u32::try_from(tokens).ok().filter(|tokens| (1..=MAX_TOKENS).contains(tokens))?;
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
        let [a, b] = self.formats().map(Format::name);
        format!("gemv_pair_{a}_{b}_b{}", self.tokens())
    }

    /// Rows of a CTA.
    fn rows_per_cta(&self) -> u32 {
        WARPS * self.of[0].rows_per_warp()
    }

    /// The launch, for `chunks` times as many tokens as the kernel has.
    ///
    /// # Errors
    /// [`ShapeError`] unless `columns` are whole blocks of both formats, each matrix has 1 to 2^24 rows, and there are 1 to [`MAX_CHUNKS`] chunks.
    pub fn dims(&self, rows: [usize; 2], columns: usize, chunks: usize) -> Result<Dims, ShapeError> {
        let name = self.name();
        let mut blocks = 0;
        for (rows, format) in rows.into_iter().zip(self.formats()) {
            blocks += ShapeError::check(&name, "rows", rows, 1, 1 << 24)?.div_ceil(self.rows_per_cta());
            ShapeError::check(&name, "columns", columns, format.column_multiple(), 1 << 24)?;
        }
        let chunks = ShapeError::check(&name, "chunks", chunks, 1, MAX_CHUNKS)?;
        Ok(Dims { grid: [blocks, chunks, 1], ..Dims::linear(1, 32 * WARPS) })
    }

    /// The kernel; for [`Target::Sm90`], with dependent launch.
    pub fn kernel(&self, target: Target) -> Kernel {
        let k = KernelBuilder::new(&self.name());
        let [gemv, _] = self.of;
        let (tokens, per_warp, [a, b]) = (gemv.tokens, gemv.rows_per_warp(), self.formats().map(Format::name));
        k.about(&format!(
            "y = A x, then B x (+ bias), A in {a} planes, B in {b} planes, {tokens} token(s).\n\
             A warp takes {per_warp} row(s), a lane every 32nd block of 16 bytes of each.",
        ));
        k.threads(Threads::Exactly([32 * WARPS, 1, 1]));
        k.min_blocks(gemv.min_blocks());
        let planes = [Planes::params(&k, self.of[0].format, "a_"), Planes::params(&k, self.of[1].format, "b_")];
        let x = k.param_ptr("x", Access::Read, 16);
        let store = Store::biased(&k, tokens);
        let [rows_a, rows_b] = ["rows_a", "rows_b"].map(|name| k.param_u32(name));
        let multiple = self.of.iter().map(|gemv| gemv.format.column_multiple() as u32).max().unwrap_or(1);
        let columns = k.param_u32_multiple_of("columns", multiple);
        let stride = Some(k.param_u32("stride"));

        k.comment("which matrix, and which rows of it");
        let of_a = k.div(k.add(rows_a, self.rows_per_cta() - 1), self.rows_per_cta());
        // All in one branch or the other, so that nothing but parameters is held for later.
        let part = |i: usize| {
            let (gemv, planes) = (self.of[i], planes[i]);
            let (rows, cta) = if i == 0 { (rows_a, k.ctaid()) } else { (rows_b, k.sub(k.ctaid(), of_a)) };
            let shape = Shape { rows, columns, stride };
            let x = shape.tiles_of_chunk(&k, x, tokens);
            let matrix = Quantised { gemv, planes, x };
            let first = k.mul(k.mad(cta, WARPS, k.warp()), per_warp);
            if target >= Target::Sm90 {
                k.comment("weights do not depend on the kernel before; activations do");
                for row in rows_at(&k, k.min(first, k.sub(rows, 1)), per_warp, &shape) {
                    Matrix::Quantised(matrix).prefetch(&k, row, &shape);
                }
                k.wait_for_dependencies();
                k.launch_dependents();
            }
            k.return_if(k.ge(first, rows));
            let acc: Vec<Var<F32>> = (0..tokens * per_warp).map(|_| k.var(0.0)).collect();
            matrix.multiply(&k, &rows_at(&k, first, per_warp, &shape), &shape, &acc);
            let reduced = reduce::over_lanes(&k, acc.iter().map(|a| a.get()).collect());
            let mut owner = Owner::of(&k, gemv, first, &shape, &reduced);
            if i == 1 {
                owner.row = k.add(owner.row, rows_a);
            }
            store.write(&k, &owner, &shape, reduced.sum, reduced.copies);
        };
        k.if_else(k.lt(k.ctaid(), of_a), || part(0), || part(1));
        k.finish()
    }

    /// A launch with weights and activations that follow from a seed.
    ///
    /// # Errors
    /// As [`dims`](Self::dims).
    pub fn workload(&self, rows: [usize; 2], columns: usize, seed: u64) -> Result<Workload, ShapeError> {
        let dims = self.dims(rows, columns, 1)?;
        let mut noise = Noise::new(seed);
        let tokens = self.tokens();
        let packed = [0, 1].map(|i| {
            let format = self.of[i].format;
            Packed::matrix(format, columns, &random_rows(format, rows[i], columns, &mut noise))
                .expect("invariant: `dims` takes whole blocks only, and random rows have the size of their format")
        });
        let mut args: Vec<Arg> = packed.iter().flat_map(entries::planes).collect();
        let x = Arg::read("x", known(activation::encode(&noise.floats(tokens * columns), columns)));
        let activation_bytes = x.bytes();
        args.push(x);
        let both = rows[0] + rows[1];
        args.extend([Arg::U64(0), Arg::write("y", 4 * tokens * both)]);
        args.extend([rows[0], rows[1], columns, both].map(|n| Arg::U32(n as u32)));
        let work = Work {
            weight_bytes: packed.iter().map(Packed::bytes).sum::<usize>() as u64,
            activation_bytes,
            output_bytes: (4 * tokens * both) as u64,
            int_ops: (2 * both * columns * tokens) as u64,
            ..Work::default()
        };
        Ok(Workload { dims, args, work })
    }
}
