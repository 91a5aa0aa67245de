//! Attention of single rows over the paged KV cache, for decoding: flash-decode.
//!
//! # Shapes
//! `T` rows, `H` query heads, `D` = `head_dim`, a group of `H / kv_heads` query heads reads one KV head:
//!
//! | buffer | layout |
//! | --- | --- |
//! | `q`, `y` | `[T][H][D]` f32 |
//! | `positions`, `sequences`, `block_table`, `kv` | see [`kv`](super::kv) |
//! | `parts` | scratch, `[T][H][splits][D]` f32 |
//! | `part_sums` | scratch, `[T][H][splits]` pairs of f32: maximum and sum |
//! | `arrivals` | `[T][H / heads]` u32, zero before the launch and after it |
//!
//! A row at position `p` sees the positions up to `p`; with a window `w`, those after `p - w`. Scores are `q·k ·
//! scale`, with a softcap `c` then `c · tanh(score / c)`.
//!
//! # Work
//! The context is cut at multiples of [`SPLIT`] positions. A CTA takes one split for [`Spec::heads`] heads of a group,
//! so a key or value is read once for all of them; it has four warps, and warp `i` takes the blocks `i` and `i + 4` of
//! the eight in the split:
//!
//! - *scores*: a lane takes a position. Keys come through shared memory (`cp.async`, rows 16 bytes longer than a key,
//!   so that lanes meet no bank conflict), queries are broadcast from there;
//! - *softmax* in base 2, online over the two blocks;
//! - *values*: a lane takes 8 elements of the head, `256 / D` positions side by side, 16 bytes a load and four loads
//!   under way, while the keys of the next block are already being copied.
//!
//! Then the warps of the CTA are combined, in order, and the splits, in order, by the CTA that arrives last. Where
//! rounding happens depends on positions alone: a row gets the same bits whatever else is in the batch, and however
//! large the grid is. The grid covers the longest context that the graph is captured for; CTAs beyond the row's
//! position leave at once, so a captured graph is replayed while contexts grow. A row whose context does not fit the
//! grid gets NaN.
//!
//! # Ceiling
//! Bandwidth: `4 · D` bytes per position and KV head. With 7 heads and `D = 128`, a warp issues about 75 instructions
//! per 512 bytes (derived from the machine code of both loops), of about 120 that a quarter of a multiprocessor can
//! issue while memory delivers them on an H200 (derived from 4.3 TB/s at 1.98 GHz). So up to 8 heads memory binds, and
//! queries and weights need not be rounded to f16 for tensor cores. A group of more than 8 heads takes several CTAs,
//! all but one of which find the cache in L2. 8 KB of keys per warp are under way at once.

mod combine;
mod launch;
pub(super) mod scalars;
mod split;

pub use launch::{SPLIT, Shape, Spec, dims, heads_per_cta, workload};
pub use split::attention;

pub(super) use launch::entries;
pub(super) use split::{LOWEST, tanh};
