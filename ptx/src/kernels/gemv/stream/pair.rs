//! Two matrices of different formats times the same vectors, which every block rounds for itself.
//!
//! # Shapes and buffers
//! As of [`gemv::pair`](super::super::pair), one chunk of `T` tokens, but `x` is `[T][columns]` f32; with [`Source::Norm`], `gain` is behind it and `eps` at the end.
//!
//! # Who does what
//! Blocks are divided among the matrices in proportion to their rows, A first: no block has both. Results are those of a launch of
//! [`GemvStream`](super::GemvStream) for each, bit for bit.

use super::super::pair::{GemvPair, PairResult, split};
use super::entries::{activations, eps};
use super::{MAX_SHARED, Source, Stream, THREADS, TOKENS, Tiles, WARPS, check_columns, min_blocks, resident};
use crate::build::KernelBuilder;
use crate::ir::{Kernel, Target, Threads};
use crate::kernels::format::Format;
use crate::kernels::launch::{Dims, ShapeError};
use crate::kernels::workload::{Noise, Workload};

/// Most blocks of a launch: their product with the rows has 32 bits.
const MAX_BLOCKS: u32 = 1024;

/// A kernel of this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GemvStreamPair {
    /// The kernel that has the same results.
    pair: GemvPair,
    source: Source,
}

impl GemvStreamPair {
    /// The kernel for weights of a pair of [`FORMATS`](super::super::pair::FORMATS) and one of [`TOKENS`]; there is none for others.
    pub fn new(formats: [Format; 2], tokens: usize, source: Source) -> Option<Self> {
        let pair = GemvPair::new(formats, tokens)?;
        TOKENS.contains(&pair.of[0].tokens).then_some(Self { pair, source })
    }

    /// Whether activations of so many columns fit a block.
    pub fn fits(&self, columns: usize) -> bool {
        check_columns("", self.pair.of[0].tokens, columns).is_ok()
    }

    /// Formats of the weights.
    pub fn formats(&self) -> [Format; 2] {
        self.pair.formats()
    }

    /// Tokens of a launch.
    pub fn tokens(&self) -> usize {
        self.pair.tokens()
    }

    /// What the activations are.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Name of the kernel: `gemv_stream_pair_q4_k_q6_k_b1`, `gemv_stream_pair_q4_k_q6_k_b1_norm`.
    pub fn name(&self) -> String {
        self.pair.name_in("gemv_stream_pair") + self.source.name()
    }

    /// Blocks per multiprocessor that registers leave room for.
    fn min_blocks(&self) -> u32 {
        self.pair.of.map(min_blocks).into_iter().min().unwrap_or(1)
    }

    /// The launch. `processors` is the number of multiprocessors.
    ///
    /// # Errors
    /// [`ShapeError`] unless `columns` are whole blocks of both formats and [fit](Self::fits), and each matrix has 1 to 2^24 rows.
    pub fn dims(&self, rows: [usize; 2], columns: usize, processors: u32) -> Result<Dims, ShapeError> {
        let name = self.name();
        let blocks = self.pair.ctas(&name, rows, columns, WARPS)?;
        let dynamic_shared = check_columns(&name, self.pair.of[0].tokens, columns)?;
        let most = processors.saturating_mul(resident(self.min_blocks(), dynamic_shared)).clamp(2, MAX_BLOCKS);
        Ok(Dims { grid: [blocks.min(most), 1, 1], block: [THREADS, 1, 1], dynamic_shared })
    }

    /// The kernel; for [`Target::Sm90`], with dependent launch.
    pub fn kernel(&self, target: Target) -> Kernel {
        let k = KernelBuilder::new(&self.name());
        let [gemv, _] = self.pair.of;
        k.about(&format!(
            "{}, {}.\n\
             A warp takes {} row(s) at a time, a lane every 32nd block of 16 bytes of each.",
            self.pair.formula(),
            self.source.about(),
            gemv.rows_per_warp(),
        ));
        k.threads(Threads::Exactly([THREADS, 1, 1]));
        k.min_blocks(self.min_blocks());
        let planes = self.pair.planes(&k);
        let tiles = Tiles::params(&k, gemv.tokens, self.source, MAX_SHARED);
        let result = PairResult::params(&k, self.pair).early(&k);
        let eps = (self.source == Source::Norm).then(|| k.param_f32("eps"));

        k.comment("which matrix, and how many blocks there are for it");
        let [all_a, all_b] = [0, 1].map(|i| result.ctas(&k, i, WARPS));
        let ctas = k.nctaid();
        let of_a = k.div(k.mul(ctas, all_a), k.add(all_a, all_b));
        let of_a = k.min(k.max(of_a, 1), k.sub(ctas, 1));
        split(&k, of_a, |i, cta| {
            let ctas = if i == 0 { of_a } else { k.sub(ctas, of_a) };
            let (gemv, shape) = (self.pair.of[i], result.shape(i));
            let stream = Stream { k: &k, gemv, planes: planes[i], tiles: &tiles, shape: &shape, eps };
            let added = |what, first| result.load(&k, i, what, first);
            stream.run(target, cta, ctas, added, |first, reduced| result.store(&k, i, first, &reduced));
        });
        k.finish()
    }

    /// A launch with weights and activations that follow from a seed, for a grid of one multiprocessor.
    ///
    /// # Errors
    /// As [`dims`](Self::dims).
    pub fn workload(&self, rows: [usize; 2], columns: usize, seed: u64) -> Result<Workload, ShapeError> {
        let x = |noise: &mut Noise| activations(self.source, self.tokens(), columns, noise);
        Ok(self.pair.workload_with(self.dims(rows, columns, 1)?, rows, columns, seed, x, eps(self.source)))
    }
}
