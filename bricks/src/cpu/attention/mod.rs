//! Attention over paged keys and values, for the query heads that share a KV head.
//!
//! The context is cut at fixed positions into splits of [`SPLIT`]. Each split is a softmax of its own: scores, their maximum `m`,
//! weights `e^(score − m)` (computed as powers of 2), their sum, and the weighted sum of the values. The splits are then put together in order
//! (Milakov and Gimelshein, arXiv 1805.02867; FlashAttention, arXiv 2205.14135): everything so far times `e^(m_old − m)`, plus the
//! next split times `e^(m_next − m)`. **One arithmetic for all cases**: where the rounding happens depends on the positions
//! alone. So a tile of rows in a prompt ([`AttentionGroup::attend`]) and a row whose splits are computed by different threads
//! ([`AttentionGroup::partial`], [`AttentionGroup::merge`]) get the same bits, at every [`SimdLevel`] and for every tile.
//!
//! Lanes of a score are 16 positions, and the elements of a head are added one after the other: keys are stored transposed
//! ([`KvLayout`]). Lanes of an output are 16 elements of the head, and positions are added one after the other.

mod page;
mod tile;

use std::ops::Range;

use super::error::{KernelError, at_most, same};
use super::level::SimdLevel;
use super::simd::{LANES, dispatch};

pub use page::{KvLayout, KvType};

/// Positions per page, the unit of memory.
pub const PAGE: usize = 32;
/// Positions per split, the unit of work; a multiple of [`PAGE`].
pub const SPLIT: usize = 256;
/// Rows of the largest tile.
pub const MAX_ROWS: usize = 32;

const PAGES: usize = SPLIT / PAGE;

/// Vectors (rows times heads) of a tile with good reuse: 16 KiB of keys or values pass the registers while the scores of so
/// many vectors, 1 KiB each, stay in the second cache level.
const TILE_VECTORS: usize = 48;

/// What all calls for one layer have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionGroup {
    /// Query heads that share the KV head.
    pub heads: usize,
    /// How keys and values are stored.
    pub layout: KvLayout,
    /// Multiplies the scores.
    pub scale: f32,
    /// `cap · tanh(score / cap)` after scaling.
    pub softcap: Option<f32>,
}

/// Query rows at consecutive positions of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Position of the first row.
    pub position: usize,
    /// Number of rows, at most [`MAX_ROWS`].
    pub rows: usize,
    /// A row sees itself and the `window - 1` positions before it; `None`: all before it.
    pub window: Option<usize>,
}

impl Tile {
    /// Positions that row `row` sees.
    pub fn visible(&self, row: usize) -> Range<usize> {
        let end = self.position + row + 1;
        self.window.map_or(0, |w| end.saturating_sub(w))..end
    }

    /// Splits in which a row sees something.
    pub fn splits(&self) -> Range<usize> {
        match self.rows.checked_sub(1) {
            Some(last) if self.window != Some(0) => {
                self.visible(0).start / SPLIT..self.visible(last).end.div_ceil(SPLIT)
            }
            _ => 0..0,
        }
    }
}

/// Maximum, sum and output of every vector, over one split or several.
///
/// Maxima and sums are padded to whole registers, outputs are `[vector][stride]` with a stride of whole registers.
struct Record<'a> {
    max: &'a mut [f32],
    sum: &'a mut [f32],
    out: &'a mut [f32],
}

/// The parts of a call's scratch memory.
struct Scratch<'a> {
    q: &'a mut [f32],
    scores: &'a mut [f32],
    wide: &'a mut [f32],
    scales: &'a mut [f32],
    state: &'a mut [f32],
    next: &'a mut [f32],
}

impl AttentionGroup {
    /// Rows of a tile with good reuse of keys and values, for calls with many rows.
    pub fn tile_rows(&self) -> usize {
        (TILE_VECTORS / self.heads.max(1)).clamp(1, MAX_ROWS)
    }

    /// Elements of a query vector, in whole registers.
    fn stride(&self) -> usize {
        self.layout.head_dim().next_multiple_of(LANES)
    }

    /// Elements of the record of one split of a tile of `rows` rows, see [`partial`](Self::partial).
    pub fn record_len(&self, rows: usize) -> usize {
        let vectors = rows.saturating_mul(self.heads);
        let padded = vectors.checked_next_multiple_of(LANES).unwrap_or(usize::MAX);
        padded.saturating_mul(2).saturating_add(vectors.saturating_mul(self.stride()))
    }

    /// Elements of scratch that a call with a tile of `rows` rows needs.
    pub fn scratch_len(&self, rows: usize) -> usize {
        let dim = self.layout.head_dim();
        let vectors = rows.saturating_mul(self.heads);
        let q = vectors.saturating_mul(dim).checked_next_multiple_of(LANES).unwrap_or(usize::MAX);
        [
            q,
            vectors.saturating_mul(SPLIT),
            PAGE.saturating_mul(self.stride()),
            self.stride(),
            self.record_len(rows).saturating_mul(2),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }

    fn scratch<'a>(&self, rows: usize, rest: &'a mut [f32]) -> Result<Scratch<'a>, KernelError> {
        at_most("scratch of attention", rest.len(), self.scratch_len(rows))?;
        let vectors = rows * self.heads;
        let record = self.record_len(rows);
        let (q, rest) = rest.split_at_mut((vectors * self.layout.head_dim()).next_multiple_of(LANES));
        let (scores, rest) = rest.split_at_mut(vectors * SPLIT);
        let (wide, rest) = rest.split_at_mut(PAGE * self.stride());
        let (scales, rest) = rest.split_at_mut(self.stride());
        let (state, rest) = rest.split_at_mut(record);
        Ok(Scratch { q, scores, wide, scales, state, next: &mut rest[..record] })
    }

    fn record<'a>(&self, rows: usize, rest: &'a mut [f32]) -> Record<'a> {
        let vectors = rows * self.heads;
        let padded = vectors.next_multiple_of(LANES);
        let (max, rest) = rest.split_at_mut(padded);
        let (sum, rest) = rest.split_at_mut(padded);
        Record { max, sum, out: &mut rest[..vectors * self.stride()] }
    }

    /// `softmax(scale · q · Kᵀ) · V` for every row of a tile, over the positions it sees: `[rows][heads][head_dim]`, in `scratch`. A
    /// row that sees nothing gives zeros.
    ///
    /// * `query(r)`: queries of row `r`, `[heads][head_dim]`.
    /// * `page(i)`: positions `32 i..` of the sequence, stored as [`AttentionGroup::layout`] says; asked only for pages in which a row
    ///   sees a position. What is stored at other positions does not matter.
    /// * `scratch`: at least [`scratch_len`](Self::scratch_len) elements, of any content.
    ///
    /// # Errors
    /// The lengths contradict each other, or a page does not exist.
    pub fn attend<'a, 's>(
        &self,
        level: SimdLevel,
        tile: &Tile,
        query: impl FnMut(usize) -> &'a [f32],
        mut page: impl FnMut(usize) -> Option<&'a [u8]>,
        scratch: &'s mut [f32],
    ) -> Result<&'s [f32], KernelError> {
        at_most("rows of an attention tile", MAX_ROWS, tile.rows)?;
        let mut parts = self.scratch(tile.rows, scratch)?;
        self.pack(level, tile.rows, query, parts.q)?;
        self.clear(tile.rows, parts.state);
        let next = std::mem::take(&mut parts.next);
        for split in tile.splits() {
            self.split(level, tile, split, &mut page, &mut parts, next)?;
            self.add(level, tile.rows, next, parts.state);
        }
        Ok(self.finish(level, tile.rows, parts.state))
    }

    /// Some splits of [`attend`](Self::attend), for [`merge`](Self::merge): `record(split)` gives the place for the record of a
    /// split, [`record_len`](Self::record_len) elements. A split in which no row sees a position gives an empty record.
    ///
    /// # Errors
    /// As [`attend`](Self::attend).
    #[allow(clippy::too_many_arguments)]
    pub fn partial<'a, 'r>(
        &self,
        level: SimdLevel,
        tile: &Tile,
        splits: Range<usize>,
        query: impl FnMut(usize) -> &'a [f32],
        mut page: impl FnMut(usize) -> Option<&'a [u8]>,
        scratch: &mut [f32],
        mut record: impl FnMut(usize) -> &'r mut [f32],
    ) -> Result<(), KernelError> {
        at_most("rows of an attention tile", MAX_ROWS, tile.rows)?;
        let mut parts = self.scratch(tile.rows, scratch)?;
        self.pack(level, tile.rows, query, parts.q)?;
        for split in splits {
            let record = record(split);
            same("elements of a split's record", self.record_len(tile.rows), record.len())?;
            self.split(level, tile, split, &mut page, &mut parts, record)?;
        }
        Ok(())
    }

    /// Puts the records of all splits of a tile together, in the order of the splits: what [`attend`](Self::attend) gives.
    ///
    /// # Errors
    /// The lengths contradict each other.
    pub fn merge<'a, 's>(
        &self,
        level: SimdLevel,
        rows: usize,
        records: impl Iterator<Item = &'a [f32]>,
        scratch: &'s mut [f32],
    ) -> Result<&'s [f32], KernelError> {
        let parts = self.scratch(rows, scratch)?;
        self.clear(rows, parts.state);
        for record in records {
            same("elements of a split's record", self.record_len(rows), record.len())?;
            self.add(level, rows, record, parts.state);
        }
        Ok(self.finish(level, rows, parts.state))
    }

    fn pack<'a>(
        &self,
        level: SimdLevel,
        rows: usize,
        mut query: impl FnMut(usize) -> &'a [f32],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let size = self.heads * self.layout.head_dim();
        let mut queries: [&[f32]; MAX_ROWS] = [&[]; MAX_ROWS];
        for (row, q) in queries.iter_mut().enumerate().take(rows) {
            *q = query(row);
            same("elements of the queries", size, q.len())?;
        }
        self.run_pack(level, &queries[..rows], out);
        Ok(())
    }

    // What is generic over closures is compiled where it is called; kernels are large, and compiled here, once.

    fn run_pack(&self, level: SimdLevel, rows: &[&[f32]], out: &mut [f32]) {
        dispatch(level, tile::Pack { group: self, rows, out });
    }

    fn run_split(
        &self,
        level: SimdLevel,
        tile: &Tile,
        base: usize,
        pages: &[Option<&[u8]>; PAGES],
        scratch: &mut Scratch<'_>,
        record: &mut [f32],
    ) {
        let Scratch { q, scores, wide, scales, .. } = scratch;
        let Record { max, sum, out } = self.record(tile.rows, record);
        // The padding of the record takes part in the merge's arithmetic.
        let vectors = tile.rows * self.heads;
        max[vectors..].fill(f32::NEG_INFINITY);
        sum[vectors..].fill(0.0);
        dispatch(level, tile::Split { group: self, tile, base, pages, q, scores, wide, scales, max, sum, out });
    }

    fn split<'a>(
        &self,
        level: SimdLevel,
        tile: &Tile,
        split: usize,
        page: &mut impl FnMut(usize) -> Option<&'a [u8]>,
        scratch: &mut Scratch<'_>,
        record: &mut [f32],
    ) -> Result<(), KernelError> {
        let Some(last) = tile.rows.checked_sub(1) else { return Ok(()) };
        let base = split * SPLIT;
        let seen = tile.visible(0).start.max(base)..tile.visible(last).end.min(base + SPLIT);
        let mut pages = [None; PAGES];
        if !seen.is_empty() {
            for index in seen.start / PAGE..seen.end.div_ceil(PAGE) {
                let limit = index.saturating_sub(1);
                let found =
                    page(index).ok_or(KernelError::Limit { what: "page of the sequence", limit, found: index })?;
                same("bytes of a page", self.layout.page_bytes(), found.len())?;
                pages[index % PAGES] = Some(found);
            }
        }
        self.run_split(level, tile, base, &pages, scratch, record);
        Ok(())
    }

    fn clear(&self, rows: usize, state: &mut [f32]) {
        let state = self.record(rows, state);
        state.max.fill(f32::NEG_INFINITY);
        state.sum.fill(0.0);
        state.out.fill(0.0);
    }

    fn add(&self, level: SimdLevel, rows: usize, next: &[f32], state: &mut [f32]) {
        let padded = (rows * self.heads).next_multiple_of(LANES);
        let Record { max, sum, out } = self.record(rows, state);
        let (next_max, rest) = next.split_at(padded);
        let (next_sum, next_out) = rest.split_at(padded);
        dispatch(level, tile::Merge { stride: self.stride(), max, sum, out, next_max, next_sum, next_out });
    }

    fn finish<'s>(&self, level: SimdLevel, rows: usize, state: &'s mut [f32]) -> &'s [f32] {
        let head_dim = self.layout.head_dim();
        let Record { sum, out, .. } = self.record(rows, state);
        dispatch(level, tile::Finish { head_dim, sum, out });
        &out[..rows * self.heads * head_dim]
    }
}
