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
//! - *scores*: a lane takes a position. Keys come through shared memory (`cp.async`; the 16 bytes at column `c` of
//!   position `p` lie at column `c ^ p % 8`, so that lanes meet no bank conflict), queries are broadcast from there;
//! - *softmax* in base 2, online over the two blocks;
//! - *values*: a lane takes 8 elements of the head, `256 / D` positions side by side. Up to `D = 128` they come through
//!   shared memory, all of a block under way beside its keys; larger ones would leave no GPU of compute capability 8.6
//!   a CTA, and are loaded from the cache, 16 bytes a load and eight loads under way. The keys of the next block are
//!   copied meanwhile.
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
//! all but one of which find the cache in L2. 16 KB of keys and values per warp are under way at once, and three CTAs
//! fit a multiprocessor of an H100.
//!
//! # What is read before the kernel before has ended
//! With dependent launch, a kernel of a captured step may begin before the one before it has ended, but not before the
//! one before that has: every kernel waits for its predecessor before it lets its successor begin. So what is written
//! two kernels back or earlier may be read before the wait:
//!
//! | kernel | before the wait | so the kernel right before it may not write |
//! | --- | --- | --- |
//! | `attention_…` | `positions`, `sequences`, `block_table` | these; it may write pages |
//! | `attention_fused_…` | these, and the pages of positions before the row's | these, and pages |
//!
//! `step::advance`, copies of pages and writes of the host are therefore at least two kernels before attention. The row's
//! own queries, key and value and the angles are read behind the wait. CTAs that have nothing to do wait as well, or else
//! the end of the kernel would not say that those before it have ended.
//!
//! # Fused
//! [`attention_fused`] does the work of [`rope_kv`](super::rope_kv), too, with the same bits, for one row per sequence and groups of
//! at most 8 heads, so that a CTA has all heads of its KV head:
//!
//! | buffer | layout |
//! | --- | --- |
//! | `qkv` | `[T][H + 2·KV][D]` f32, in place of `q`: bias is added |
//! | `angles` | `[T][pairs]` cosine and sine, behind `qkv` |
//!
//! `pairs` is the last parameter. Every CTA rotates its queries; that of the split with the row's own position
//! writes key and value to the cache and keeps them in shared memory, so that nothing is read back. For a row whose
//! context does not fit the grid, nothing is written there.
//!
//! A context of one split takes one round trip behind the wait: the row's queries, key, value and angles, under way together. Then the CTA
//! writes `y` itself, without parts, fence or atomic.

mod combine;
mod fused;
mod launch;
pub(super) mod scalars;
mod split;

pub use fused::{Fused, attention_fused};
pub use launch::{SPLIT, Shape, Spec, dims, fused_workload, heads_per_cta, workload};
pub use split::attention;

pub(super) use launch::entries;
pub(super) use split::{LOWEST, tanh};
