//! Attention of runs of rows over the paged KV cache, for prompts: flash-attention on tensor cores.
//!
//! # Shapes
//! As in [`attention`](super::attention), but rows come in *tiles*: up to [`TILE`] rows of the batch, one after the
//! other, at consecutive positions of one sequence. `tiles`: `[grid.x]` of four u32, `{first row, rows, sequence,
//! position of the first row}`; a tile of no rows takes no part, so a captured graph may have more tiles than there
//! are. Keys and values of the tile's own rows are in the cache before the launch.
//!
//! # Work
//! A CTA takes a tile for one query head: four warps, 16 rows each. The context passes in blocks of 32 positions, two
//! of which are in shared memory: one is computed with while the next is copied (`cp.async`), 16-byte columns XORed
//! with the row's number so that neither copies nor `ldmatrix` meet bank conflicts. Per block and warp, with `D = 128`:
//!
//! - scores: `Q·Kᵀ`, 32 `mma` m16n8k16; queries stay in registers as fragments, or in shared memory for `D = 256`;
//! - online softmax in base 2: a row's 32 scores lie in four lanes;
//! - output: weights become fragments where they are, `P·V`, 32 `mma`.
//!
//! Blocks in which no row of the tile sees anything are skipped; only blocks at the edge of what rows see are masked.
//! Queries and weights are rounded to the type of the cache, sums are f32. Blocks begin at fixed positions, and one
//! that a row does not see leaves its bits alone: a row gets the same bits in any tile. They are not the bits of
//! [`attention`](super::attention), which rounds neither queries nor weights. Only numbers are left alone: an infinity
//! or a NaN among the values of a tile's own rows reaches its earlier rows.
//!
//! # Ceiling
//! Tensor cores: `4 · D` operations per pair of row and position. A CTA reads a block once for 64 rows; heads of a
//! group read it again, from L2.

mod block;
mod launch;

pub use block::attention_prefill;
pub use launch::{Shape, Spec, TILE, Tile, dims, workload};

pub(super) use launch::entries;
