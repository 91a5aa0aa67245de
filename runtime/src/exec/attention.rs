//! Attention of a batch, cut into pieces of work, and the KV cache as the steps see it.
//!
//! Rows at consecutive positions of one sequence form tiles, which read keys and values once for all their rows. A tile with much
//! context (in decoding a single row) is cut further at split edges, so that all threads have work: each part leaves the records of
//! its splits, and the thread that finishes last puts them together, in order. How a batch is cut changes no bit of the
//! result ([`bricks::cpu::attention`]).

use std::sync::atomic::{AtomicU32, Ordering};

use bricks::AttentionSpec;
use bricks::cpu::attention::{AttentionGroup, KvLayout, MAX_ROWS, PAGE, SPLIT, Tile};
use bricks::cpu::gang::Member;

use super::{Call, ok};
use crate::batch::Row;
use crate::kv::BLOCK;
use crate::plan::{Q8Slot, Slot};

const _: () = assert!(BLOCK == PAGE, "blocks of the cache are pages of the kernels");

/// Pieces of work per thread: enough to balance, few enough to be worth taking.
const PIECES: usize = 8;
/// Most memory for the records of splits that wait to be put together.
const RECORD_BYTES: usize = 32 << 20;
/// Rows of long context for which there is room for records (a draft being verified, a few sequences being decoded).
const RECORD_ROWS: usize = 8;

/// Attention of the query heads that share a KV head.
pub(crate) fn group_attention(spec: &AttentionSpec, layout: KvLayout) -> AttentionGroup {
    AttentionGroup { heads: spec.n_heads / spec.n_kv_heads, layout, scale: spec.scale, softcap: spec.softcap }
}

/// How many splits of rows may wait to be put together: `rows × splits` of all tiles that are cut.
pub(crate) fn record_capacity(
    group: &AttentionGroup,
    n_kv_heads: usize,
    threads: usize,
    rows: usize,
    context: usize,
) -> usize {
    let splits = context.div_ceil(SPLIT);
    if threads == 1 || splits == 1 {
        return 0;
    }
    let bytes = group.record_len(1).saturating_mul(n_kv_heads.max(1)).saturating_mul(4).max(1);
    splits.saturating_mul(rows.min(RECORD_ROWS)).min(RECORD_BYTES / bytes).max(splits)
}

/// Rows of one sequence at consecutive positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    /// First row of the batch.
    row: usize,
    rows: usize,
    /// Position of the first row.
    position: usize,
    /// Splits of the whole context (a window leaves some of them without work).
    splits: usize,
    /// Splits per part; all of them if the piece is not cut.
    per_part: usize,
    /// Parts of the pieces before this one.
    first_part: usize,
    /// `rows × splits` of the pieces before this one that are cut.
    first_record: usize,
}

impl Piece {
    fn parts(&self) -> usize {
        self.splits.div_ceil(self.per_part)
    }
}

/// The pieces of the current batch. Made once per forward call, for all layers; allocates nothing.
#[derive(Debug)]
pub(crate) struct Tiling {
    tile_rows: usize,
    n_kv_heads: usize,
    /// Most `rows × splits` that may be cut.
    capacity: usize,
    pieces: Vec<Piece>,
    parts: usize,
    /// Finished parts per piece and KV head; back at 0 when a step ends.
    done: Vec<AtomicU32>,
}

impl Tiling {
    /// For batches of at most `max_rows` rows.
    pub(crate) fn new(tile_rows: usize, n_kv_heads: usize, capacity: usize, max_rows: usize) -> Self {
        let counters = if capacity == 0 { 0 } else { max_rows.saturating_mul(n_kv_heads) };
        Self {
            tile_rows: tile_rows.clamp(1, MAX_ROWS),
            n_kv_heads,
            capacity,
            pieces: Vec::with_capacity(max_rows),
            parts: 0,
            done: (0..counters).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Cuts a batch into pieces.
    pub(crate) fn cut(&mut self, rows: &[Row], threads: usize) {
        self.pieces.clear();
        let mut work = 0;
        for (i, row) in rows.iter().enumerate() {
            let splits = (row.position + 1).div_ceil(SPLIT);
            match self.pieces.last_mut() {
                Some(p)
                    if p.rows < self.tile_rows
                        && p.position + p.rows == row.position
                        && rows[p.row].sequence == row.sequence =>
                {
                    p.rows += 1;
                    p.splits = splits;
                }
                _ => self.pieces.push(Piece {
                    row: i,
                    rows: 1,
                    position: row.position,
                    splits,
                    per_part: splits,
                    first_part: 0,
                    first_record: 0,
                }),
            }
            work += splits;
        }
        let target = (work * self.n_kv_heads).div_ceil(threads * PIECES).max(1);
        let (mut parts, mut records) = (0, 0);
        for p in &mut self.pieces {
            p.per_part = p.splits;
            (p.first_part, p.first_record) = (parts, records);
            let size = p.rows * p.splits;
            if threads > 1 && p.splits > 1 && size > target && records + size <= self.capacity {
                p.per_part = (target / p.rows).clamp(1, p.splits);
                if p.per_part < p.splits {
                    records += size;
                }
            }
            parts += p.parts();
        }
        self.parts = parts;
        // Clean even after a call that a panic ended.
        for counter in &mut self.done {
            *counter.get_mut() = 0;
        }
    }

    /// Number of work items.
    fn items(&self) -> usize {
        self.parts * self.n_kv_heads
    }

    /// Piece, part and KV head of a work item; the pieces with the longest context come first.
    fn item(&self, item: usize) -> (usize, usize, usize) {
        let item = self.items() - 1 - item;
        let (part, head) = (item / self.n_kv_heads, item % self.n_kv_heads);
        let piece = self.pieces.partition_point(|p| p.first_part <= part) - 1;
        (piece, part - self.pieces[piece].first_part, head)
    }
}

/// An attention step.
pub(super) struct Attention<'a> {
    pub(super) layer: usize,
    pub(super) q: Slot,
    pub(super) spec: &'a AttentionSpec,
    pub(super) dst: Slot,
    pub(super) q8: Option<&'a Q8Slot>,
    /// Byte offset of the records.
    pub(super) records: usize,
}

impl Call<'_> {
    /// Runs an attention step on this thread.
    pub(super) fn attention(&self, a: &Attention<'_>, m: &Member<'_>) {
        let group = group_attention(a.spec, self.kv.shape().layout);
        while let Some(items) = m.take(self.tiling.items(), 1) {
            for item in items {
                self.attend(a, &group, item, m);
            }
        }
    }

    fn attend(&self, a: &Attention<'_>, group: &AttentionGroup, item: usize, m: &Member<'_>) {
        let (index, part, head) = self.tiling.item(item);
        let piece = &self.tiling.pieces[index];
        let n_kv_heads = a.spec.n_kv_heads;
        let width = group.heads * a.spec.head_dim;
        // SAFETY: the scratch area of this member is used by this thread only.
        let scratch = unsafe { self.arena.slice_mut::<f32>(self.scratch(m), self.plan.scratch.1) };
        let tile = Tile { position: piece.position, rows: piece.rows, window: a.spec.window };
        let query = |r: usize| &self.row(a.q, piece.row + r)[head * width..(head + 1) * width];
        let blocks = self.kv.blocks(self.rows[piece.row].sequence).expect("invariant: the batch was checked");
        let page = |i: usize| Some(self.page(a.layer, head, *blocks.get(i)?));
        let out = if piece.parts() == 1 {
            ok(group.attend(self.simd(), &tile, query, page, scratch))
        } else {
            let seen = tile.splits();
            let splits = part * piece.per_part..((part + 1) * piece.per_part).min(piece.splits);
            let splits = splits.start.max(seen.start)..splits.end.min(seen.end);
            let row_len = group.record_len(1);
            let at = |split: usize| {
                let row = piece.first_record * n_kv_heads + (head * piece.splits + split) * piece.rows;
                debug_assert!(row + piece.rows <= self.tiling.capacity * n_kv_heads);
                a.records + 4 * row * row_len
            };
            let len = group.record_len(piece.rows);
            debug_assert!(len <= piece.rows * row_len);
            // SAFETY: the record of a split is written by the thread that took the part, and read only after every part of
            // the piece is counted as done. Records of different splits, heads and pieces do not overlap.
            let record = |split| unsafe { self.arena.slice_mut::<f32>(at(split), len) };
            ok(group.partial(self.simd(), &tile, splits, query, page, scratch, record));
            let done = &self.tiling.done[index * n_kv_heads + head];
            // Release: this part's records; acquire: those of all others, for the last one.
            if done.fetch_add(1, Ordering::AcqRel) as usize + 1 < piece.parts() {
                return;
            }
            done.store(0, Ordering::Relaxed);
            // SAFETY: all parts are done, and so are their writes.
            let records = seen.map(|split| unsafe { self.arena.slice::<f32>(at(split), len) });
            ok(group.merge(self.simd(), piece.rows, records, scratch))
        };
        for (r, out) in out.chunks_exact(width).enumerate() {
            let t = piece.row + r;
            // SAFETY: only the thread that finishes (piece, head) gets here; these columns of its rows are written by nobody
            // else.
            let dst =
                unsafe { self.arena.slice_mut::<f32>(a.dst.offset + 4 * (t * a.dst.width + head * width), width) };
            dst.copy_from_slice(out);
            self.quantize(a.q8, t, head * width, dst);
        }
    }

    fn page(&self, layer: usize, head: usize, block: u32) -> &[u8] {
        let at = self.kv.page_offset(layer, head, block);
        let len = self.kv.shape().layout.page_bytes();
        assert!(at + len <= self.kv_memory.len, "invariant: a page lies inside the pool");
        // SAFETY: in bounds (asserted); what the kernel makes use of was written before the last barrier, everything was
        // initialised, and no thread writes the cache during attention.
        unsafe { std::slice::from_raw_parts(self.kv_memory.ptr.add(at), len) }
    }

    /// Stores one row's key and value of a KV head at its position.
    pub(super) fn write_kv(&self, layer: usize, t: usize, head: usize, k: &[f32], v: &[f32]) {
        let row = &self.rows[t];
        let layout = self.kv.shape().layout;
        let block = self.kv.blocks(row.sequence).expect("invariant: the batch was checked")[row.position / BLOCK];
        let at = self.kv.page_offset(layer, head, block);
        assert!(at + layout.page_bytes() <= self.kv_memory.len, "invariant: a page lies inside the pool");
        // SAFETY: in bounds (asserted); this position of this head and sequence is written by the thread that took it and by
        // nobody else, the page is this sequence's own, and it is read only after the next barrier.
        ok(unsafe {
            let page = self.kv_memory.ptr.add(at);
            layout.write_shared(self.simd(), page, row.position % BLOCK, k, v)
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::kv::SequenceId;

    /// Every row's every split is in exactly one part, in order, and cut pieces have room for their records.
    fn check(rows: &[(u32, usize)], threads: usize, capacity: usize) -> Tiling {
        let rows: Vec<Row> = rows
            .iter()
            .map(|&(s, position)| Row { token: 0, position, sequence: SequenceId(s), wanted: false })
            .collect();
        let mut t = Tiling::new(16, 3, capacity, rows.len());
        t.cut(&rows, threads);
        let mut seen = vec![0; rows.len()];
        let mut records = 0;
        for p in &t.pieces {
            for r in 0..p.rows {
                assert_eq!(rows[p.row + r].position, p.position + r);
                assert_eq!(rows[p.row + r].sequence, rows[p.row].sequence);
                seen[p.row + r] += 1;
            }
            assert_eq!(p.splits, (p.position + p.rows).div_ceil(SPLIT));
            if p.parts() > 1 {
                assert_eq!(p.first_record, records);
                records += p.rows * p.splits;
            }
        }
        assert!(records <= capacity);
        assert_eq!(seen, vec![1; rows.len()]);
        let mut items: Vec<_> = (0..t.items()).map(|i| t.item(i)).collect();
        items.sort_unstable();
        let all = t.pieces.iter().enumerate().flat_map(|(i, p)| (0..p.parts()).map(move |part| (i, part)));
        let all: Vec<_> = all.flat_map(|(i, part)| (0..3).map(move |h| (i, part, h))).collect();
        assert_eq!(items, all);
        t
    }

    #[test]
    fn a_long_context_is_shared_out_and_a_prompt_is_tiled() {
        let t = check(&[(0, 4000)], 2, 16);
        assert_eq!(
            (t.pieces.len(), t.parts),
            (1, 6),
            "16 splits of 3 heads: 16 pieces for 2 threads are 3 splits each"
        );
        let t = check(&[(0, 100)], 2, 16);
        assert_eq!(t.parts, 1, "one split cannot be cut");
        let t = check(&[(0, 4000)], 1, 0);
        assert_eq!(t.parts, 1, "one thread");
        let prompt: Vec<_> = (0..512).map(|p| (0, p)).collect();
        let t = check(&prompt, 2, 128);
        assert_eq!((t.pieces.len(), t.parts), (32, 32), "enough tiles: none is cut");
    }

    #[test]
    fn sequences_and_gaps_do_not_share_a_tile_and_room_is_respected() {
        let t = check(&[(0, 5), (0, 6), (1, 7), (0, 7), (0, 8), (2, 0)], 2, 16);
        assert_eq!(t.pieces.iter().map(|p| p.rows).collect::<Vec<_>>(), [2, 1, 2, 1]);
        let t = check(&[(0, 4000), (1, 4000), (2, 4000)], 4, 32);
        assert_eq!(t.pieces.iter().map(|p| p.parts() > 1).collect::<Vec<_>>(), [true, true, false]);
        let draft: Vec<_> = (1000..1008).map(|p| (0, p)).collect();
        let t = check(&draft, 2, 40);
        assert_eq!((t.pieces.len(), t.parts), (1, 4));
    }
}
