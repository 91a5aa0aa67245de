//! The paged KV cache as the kernels see it.
//!
//! The cache of a layer is cut into *blocks* of [`BLOCK`] positions, each of which belongs to one sequence, or to
//! several that share a prefix. What a KV head keeps of a block is a *page*:
//!
//! ```text
//! kv            [kv_heads][blocks] page
//! page          keys [BLOCK][head_dim], then values [BLOCK][head_dim]; f16 or bf16
//! block_table   [sequences][table_width] u32: the block that holds positions BLOCK·i .. of a sequence
//! ```
//!
//! A key is `2 · head_dim` consecutive bytes, so a warp reads a page in whole lines. Pages start at multiples of 16
//! bytes.
//!
//! Every row of a batch has a position and a sequence, in device memory: `positions` and `sequences`, `[T]` u32. A row
//! whose position is [`INACTIVE`] takes no part: a captured graph may have more rows than there are sequences.
//! `block_table` has to hold a block for every position up to that of a row, and the cache has to hold that block: the
//! kernels trust both.

use half::{bf16, f16};

use super::launch::ShapeError;
use super::workload::Noise;
use crate::build::{B32, Bf16, F16, F32, KernelBuilder, Ptr, Reg, Source, U16, U32};

/// Positions per block.
pub const BLOCK: u32 = 32;
/// Position of a row that takes no part.
pub const INACTIVE: u32 = u32::MAX;
/// Head sizes that the kernels are written for.
pub const HEAD_DIMS: [u32; 3] = [64, 128, 256];

/// Type of the elements of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvType {
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
}

impl KvType {
    /// As part of the name of a kernel.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// The bits of a number, rounded to nearest even.
    pub fn bits(self, x: f32) -> u16 {
        match self {
            Self::F16 => f16::from_f32(x).to_bits(),
            Self::Bf16 => bf16::from_f32(x).to_bits(),
        }
    }

    /// The number that bits stand for.
    pub fn value(self, bits: u16) -> f32 {
        match self {
            Self::F16 => f16::from_bits(bits).to_f32(),
            Self::Bf16 => bf16::from_bits(bits).to_f32(),
        }
    }

    /// Two numbers from one word, the low one first.
    pub(super) fn unpack(self, k: &KernelBuilder, word: Reg<B32>) -> [Reg<F32>; 2] {
        match self {
            Self::F16 => k.f16x2_to_f32(word.as_ty()),
            Self::Bf16 => k.bf16x2_to_f32(word.as_ty()),
        }
    }

    /// Two numbers in one word, rounded to nearest even, the low one first.
    pub(super) fn pack(self, k: &KernelBuilder, low: impl Source<F32>, high: impl Source<F32>) -> Reg<B32> {
        match self {
            Self::F16 => k.to_f16x2(low, high).as_ty(),
            Self::Bf16 => k.to_bf16x2(low, high).as_ty(),
        }
    }

    /// Stores one number, rounded to nearest even.
    pub(super) fn store(self, k: &KernelBuilder, to: Ptr<U16>, value: Reg<F32>) {
        match self {
            Self::F16 => k.st(to.cast::<F16>(), k.to_f16(value)),
            Self::Bf16 => k.st(to.cast::<Bf16>(), k.to_bf16(value)),
        }
    }
}

/// Bytes of the keys of a page; those of its values are as many.
pub const fn keys_bytes(head_dim: u32) -> u32 {
    2 * BLOCK * head_dim
}

/// Bytes of a page.
pub const fn page_bytes(head_dim: u32) -> u32 {
    2 * keys_bytes(head_dim)
}

/// The page of a KV head and a block; `blocks` is the number of blocks in the cache.
pub(super) fn page(
    k: &KernelBuilder,
    kv: Ptr<B32>,
    kv_head: Reg<U32>,
    block: Reg<U32>,
    blocks: Reg<U32>,
    head_dim: u32,
) -> Ptr<B32> {
    k.index_by(kv, k.mad(kv_head, blocks, block), page_bytes(head_dim))
}

/// Refuses head sizes other than [`HEAD_DIMS`].
pub(super) fn check_head_dim(kernel: &str, head_dim: u32) -> Result<(), ShapeError> {
    if HEAD_DIMS.contains(&head_dim) {
        return Ok(());
    }
    let (kernel, expected) = (kernel.to_owned(), format!("one of {HEAD_DIMS:?}"));
    Err(ShapeError { kernel, what: "a head size", expected, found: head_dim.into() })
}

/// Where the rows of a launch are, and what the cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Position of each row.
    pub positions: Vec<u32>,
    /// Sequence of each row.
    pub sequences: Vec<u32>,
    /// Blocks of each sequence, `table_width` a sequence.
    pub block_table: Vec<u32>,
    /// Entries per sequence.
    pub table_width: u32,
    /// Blocks in the cache.
    pub blocks: u32,
}

impl Batch {
    /// One row per sequence, at these positions, in blocks that are out of order.
    pub fn new(positions: &[u32]) -> Self {
        let active = || positions.iter().filter(|&&p| p != INACTIVE);
        let table_width = active().max().map_or(1, |p| p / BLOCK + 1);
        let blocks = active().map(|p| p / BLOCK + 1).sum::<u32>() + 1;
        let mut free = blocks;
        let block_table = positions.iter().flat_map(|&p| (0..table_width).map(move |i| (p, i))).map(|(p, i)| {
            let used = p != INACTIVE && i <= p / BLOCK;
            free -= u32::from(used);
            // Entries that nobody may look at lead outside the cache.
            if used { free } else { INACTIVE }
        });
        let block_table = block_table.collect();
        let sequences = (0..positions.len() as u32).collect();
        Self { positions: positions.to_vec(), sequences, block_table, table_width, blocks }
    }

    /// One run of rows per sequence, `(first position, rows)` each.
    pub fn runs(runs: &[(u32, u32)]) -> Self {
        let last: Vec<u32> = runs.iter().map(|&(first, rows)| first + rows - 1).collect();
        let rows = || (0_u32..).zip(runs).flat_map(|(s, &(first, rows))| (first..first + rows).map(move |p| (p, s)));
        Self {
            positions: rows().map(|(p, _)| p).collect(),
            sequences: rows().map(|(_, s)| s).collect(),
            ..Self::new(&last)
        }
    }

    /// The element of a cache where the key of a position begins.
    pub fn key_at(&self, head_dim: u32, kv_head: usize, sequence: u32, position: u32) -> usize {
        let block = self.block_table[(sequence * self.table_width + position / BLOCK) as usize];
        let page = kv_head * self.blocks as usize + block as usize;
        page * (page_bytes(head_dim) / 2) as usize + (position % BLOCK * head_dim) as usize
    }

    /// A cache with seeded keys and values where a row sees them, and NaN everywhere else.
    pub fn cache(
        &self,
        kv: KvType,
        head_dim: u32,
        kv_heads: usize,
        window: Option<usize>,
        noise: &mut Noise,
    ) -> Vec<u8> {
        let mut cache = vec![0xff; kv_heads * (self.blocks * page_bytes(head_dim)) as usize];
        let values = (keys_bytes(head_dim) / 2) as usize;
        for (&last, &sequence) in self.positions.iter().zip(&self.sequences).filter(|&(&p, _)| p != INACTIVE) {
            let first = window.map_or(0, |w| (last + 1).saturating_sub(w as u32));
            for (kv_head, position) in (0..kv_heads).flat_map(|h| (first..=last).map(move |p| (h, p))) {
                let at = self.key_at(head_dim, kv_head, sequence, position);
                for i in [at, at + values].into_iter().flat_map(|at| at..at + head_dim as usize) {
                    if cache[2 * i..2 * i + 2] == [0xff; 2] {
                        cache[2 * i..2 * i + 2].copy_from_slice(&kv.bits(noise.float()).to_le_bytes());
                    }
                }
            }
        }
        cache
    }
}
