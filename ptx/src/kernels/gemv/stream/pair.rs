//! Two matrices of different formats times the same vectors, which every block rounds for itself.
//!
//! # Shapes and buffers
//! As of [`gemv::pair`](super::super::pair), one chunk of `T` tokens, but `x` is `[T][columns]` f32; with [`Source::Norm`], `gain` is behind it and `eps` at the end.
//!
//! # Who does what
//! Blocks are divided among the matrices in proportion to their rows, A first: no block has both. Results are those of a launch of
//! [`GemvStream`] for each, bit for bit.

use super::super::entries::planes;
use super::super::epilogue::{Owner, Store};
use super::super::pair::FORMATS;
use super::entries::{activations, eps};
use super::{GemvStream, MAX_SHARED, Source, Stream, THREADS, Tiles, WARPS, check_columns, min_blocks, resident};
use crate::build::KernelBuilder;
use crate::ir::{Kernel, Target, Threads};
use crate::kernels::format::Format;
use crate::kernels::gemv::weights::Planes;
use crate::kernels::gemv::{Epilogue, Gemv, Shape};
use crate::kernels::launch::{Dims, ShapeError};
use crate::kernels::pack::Packed;
use crate::kernels::workload::{Arg, Noise, Work, Workload, random_rows};

/// Most blocks of a launch: their product with the rows has 32 bits.
const MAX_BLOCKS: u32 = 1024;

/// A kernel of this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GemvStreamPair {
    /// The kernels for each of the matrices.
    of: [Gemv; 2],
    source: Source,
}

impl GemvStreamPair {
    /// The kernel for weights of a pair of [`FORMATS`] and one of [`TOKENS`](super::TOKENS); there is none for others.
    pub fn new(formats: [Format; 2], tokens: usize, source: Source) -> Option<Self> {
        let [Some(a), Some(b)] = formats.map(|format| GemvStream::new(format, tokens, Epilogue::Store, source)) else {
            return None;
        };
        FORMATS.contains(&formats).then_some(Self { of: [a.gemv, b.gemv], source })
    }

    /// Whether activations of so many columns fit a block.
    pub fn fits(&self, columns: usize) -> bool {
        check_columns("", self.of[0].tokens, columns).is_ok()
    }

    /// Formats of the weights.
    pub fn formats(&self) -> [Format; 2] {
        self.of.map(|gemv| gemv.format)
    }

    /// Tokens of a launch.
    pub fn tokens(&self) -> usize {
        self.of[0].tokens()
    }

    /// What the activations are.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Name of the kernel: `gemv_stream_pair_q4_k_q6_k_b1`, `gemv_stream_pair_q4_k_q6_k_b1_norm`.
    pub fn name(&self) -> String {
        let [a, b] = self.formats().map(Format::name);
        format!("gemv_stream_pair_{a}_{b}_b{}{}", self.tokens(), self.source.name())
    }

    /// Rows that a block takes at a time.
    fn rows_per_block(&self) -> u32 {
        WARPS * self.of[0].rows_per_warp()
    }

    /// Blocks per multiprocessor that registers leave room for.
    fn min_blocks(&self) -> u32 {
        self.of.map(min_blocks).into_iter().min().unwrap_or(1)
    }

    /// The launch. `processors` is the number of multiprocessors.
    ///
    /// # Errors
    /// [`ShapeError`] unless `columns` are whole blocks of both formats and [fit](Self::fits), and each matrix has 1 to 2^24 rows.
    pub fn dims(&self, rows: [usize; 2], columns: usize, processors: u32) -> Result<Dims, ShapeError> {
        let name = self.name();
        let mut blocks = 0;
        for (rows, format) in rows.into_iter().zip(self.formats()) {
            blocks += ShapeError::check(&name, "rows", rows, 1, 1 << 24)?.div_ceil(self.rows_per_block());
            ShapeError::check(&name, "columns", columns, format.column_multiple(), 1 << 24)?;
        }
        let dynamic_shared = check_columns(&name, self.of[0].tokens, columns)?;
        let most = processors.saturating_mul(resident(self.min_blocks(), dynamic_shared)).clamp(2, MAX_BLOCKS);
        Ok(Dims { grid: [blocks.min(most), 1, 1], block: [THREADS, 1, 1], dynamic_shared })
    }

    /// The kernel; for [`Target::Sm90`], with dependent launch.
    pub fn kernel(&self, target: Target) -> Kernel {
        let k = KernelBuilder::new(&self.name());
        let [Gemv { tokens, .. }, _] = self.of;
        let [a, b] = self.formats().map(Format::name);
        k.about(&format!(
            "y = A x, then B x (+ bias), A in {a} planes, B in {b} planes, {tokens} token(s), {}.\n\
             A warp takes {} row(s) at a time, a lane every 32nd block of 16 bytes of each.",
            self.source.about(),
            self.of[0].rows_per_warp(),
        ));
        k.threads(Threads::Exactly([THREADS, 1, 1]));
        k.min_blocks(self.min_blocks());
        let planes = [Planes::params(&k, self.of[0].format, "a_"), Planes::params(&k, self.of[1].format, "b_")];
        let tiles = Tiles::params(&k, tokens, self.source, MAX_SHARED);
        let store = Store::biased(&k, tokens);
        let [rows_a, rows_b] = ["rows_a", "rows_b"].map(|name| k.param_u32(name));
        let multiple = self.of.iter().map(|gemv| gemv.format.column_multiple() as u32).max().unwrap_or(1);
        let columns = k.param_u32_multiple_of("columns", multiple);
        let stride = Some(k.param_u32("stride"));
        let eps = (self.source == Source::Norm).then(|| k.param_f32("eps"));

        k.comment("which matrix, and how many blocks there are for it");
        let [all_a, all_b] =
            [rows_a, rows_b].map(|rows| k.div(k.add(rows, self.rows_per_block() - 1), self.rows_per_block()));
        let ctas = k.nctaid();
        let of_a = k.div(k.mul(ctas, all_a), k.add(all_a, all_b));
        let of_a = k.min(k.max(of_a, 1), k.sub(ctas, 1));
        // All in one branch or the other, so that nothing but parameters is held for later.
        let part = |i: usize| {
            let (rows, cta, ctas) =
                if i == 0 { (rows_a, k.ctaid(), of_a) } else { (rows_b, k.sub(k.ctaid(), of_a), k.sub(ctas, of_a)) };
            let (gemv, shape) = (self.of[i], Shape { rows, columns, stride });
            let stream = Stream { k: &k, gemv, planes: planes[i], tiles: &tiles, shape: &shape, eps };
            stream.run(target, cta, ctas, |first, reduced| {
                let mut owner = Owner::of(&k, gemv, first, &shape, &reduced);
                if i == 1 {
                    owner.row = k.add(owner.row, rows_a);
                }
                store.write(&k, &owner, &shape, reduced.sum, reduced.copies);
            });
        };
        k.if_else(k.lt(k.ctaid(), of_a), || part(0), || part(1));
        k.finish()
    }

    /// A launch with weights and activations that follow from a seed, for a grid of one multiprocessor.
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
        let mut args: Vec<Arg> = packed.iter().flat_map(planes).collect();
        let x = activations(self.source, tokens, columns, &mut noise);
        let activation_bytes = x.iter().map(Arg::bytes).sum();
        args.extend(x);
        let both = rows[0] + rows[1];
        args.extend([Arg::U64(0), Arg::write("y", 4 * tokens * both)]);
        args.extend([rows[0], rows[1], columns, both].map(|n| Arg::U32(n as u32)));
        args.extend(eps(self.source));
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
