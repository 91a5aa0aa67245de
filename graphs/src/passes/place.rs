//! One arena for all values: where each of them lies.

use std::fmt::Write as _;

use bricks::{Dim, ValueType};

use super::liveness::Liveness;
use crate::error::GraphError;
use crate::graph::{Graph, Value, ValueId};

/// Every row starts at a multiple of this: a cache line, and the width of a 512-bit vector.
pub const ALIGN: usize = 64;

/// The largest batch that an arena must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxRows {
    /// Rows of the batch, `T`.
    pub tokens: usize,
    /// Rows whose logits are wanted, `L`.
    pub wanted: usize,
}

impl std::fmt::Display for MaxRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "T = {}, L = {}", self.tokens, self.wanted)
    }
}

/// Where a value lies in the arena. Row `r` starts at `offset + r · row_stride`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Byte offset of the first row, a multiple of [`ALIGN`].
    pub offset: usize,
    /// Bytes from row to row, a multiple of [`ALIGN`] (token ids are one row).
    pub row_stride: usize,
    /// Rows at most.
    pub rows: usize,
    /// Bytes in all, `rows · row_stride`.
    pub bytes: usize,
}

impl Slot {
    /// Whether two slots share a byte.
    pub fn overlaps(&self, other: &Slot) -> bool {
        self.bytes > 0
            && other.bytes > 0
            && self.offset < other.offset + other.bytes
            && other.offset < self.offset + self.bytes
    }
}

/// The place of every value in one arena.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    slots: Vec<Option<Slot>>,
    max_rows: MaxRows,
    arena_bytes: usize,
    peak_bytes: usize,
}

impl Placement {
    /// The slot of a value of the graph that this was made from; `None` for KV caches, which lie in their own pages.
    pub fn slot(&self, id: ValueId) -> Option<Slot> {
        self.slots[id.index()]
    }

    /// The slots of all values, by [`ValueId`].
    pub fn slots(&self) -> &[Option<Slot>] {
        &self.slots
    }

    /// The batch that the arena was made for.
    pub fn max_rows(&self) -> MaxRows {
        self.max_rows
    }

    /// Size of the arena.
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Bytes of the values that live at the same time, at most over all bricks: no arena can be smaller.
    pub fn peak_bytes(&self) -> usize {
        self.peak_bytes
    }

    /// A table: value, offset, bytes; then the size of the arena and the bound below it.
    pub fn render(&self, graph: &Graph) -> String {
        let mut out = String::new();
        for (i, slot) in self.slots.iter().enumerate() {
            let Some(s) = slot else { continue };
            let name = super::value_name(graph, ValueId(i as u32));
            // Writing to a String cannot fail.
            let _ = writeln!(out, "%{i:<4} {name:<32} {:>10} + {:>10} B", s.offset, s.bytes);
        }
        let _ =
            writeln!(out, "arena {} B for {} (live at most {} B)", self.arena_bytes, self.max_rows, self.peak_bytes);
        out
    }
}

/// Places all values in one arena such that values needed at the same time share no byte. See [`pack`].
///
/// # Errors
/// [`GraphError::Unplaceable`] when a size overflows or a value's size does not follow from the batch.
pub fn place(graph: &Graph, live: &Liveness, max_rows: MaxRows) -> Result<Placement, GraphError> {
    let mut slots = sizes(graph, max_rows)?;
    let buffers: Vec<Buffer> = slots
        .iter()
        .zip(live.intervals())
        .map(|(slot, i)| Buffer { bytes: slot.map_or(0, |s| s.bytes), first: i.first.index(), last: i.last.index() })
        .collect();
    let packing = pack(&buffers).ok_or_else(|| unplaceable(graph, graph.output().index(), max_rows))?;
    for (slot, offset) in slots.iter_mut().zip(&packing.offsets) {
        if let Some(s) = slot {
            s.offset = *offset;
        }
    }
    finish(graph, live, max_rows, slots)
}

/// Something to be placed: a value of a graph, or working memory of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Size; rounded up to [`ALIGN`].
    pub bytes: usize,
    /// The first step that touches it.
    pub first: usize,
    /// The last step that touches it.
    pub last: usize,
}

/// Where buffers lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packing {
    /// Byte offset of each buffer, a multiple of [`ALIGN`].
    pub offsets: Vec<usize>,
    /// Bytes in all.
    pub bytes: usize,
}

/// Packs buffers so that those which live at the same time share no byte; `None` when sizes overflow.
///
/// Largest first, each into the smallest gap that fits among those it overlaps in time (greedy by size with best fit;
/// Pisarchyk and Lee, arXiv 2001.03288). Deterministic.
pub fn pack(buffers: &[Buffer]) -> Option<Packing> {
    let sizes: Vec<usize> =
        buffers.iter().map(|b| b.bytes.checked_next_multiple_of(ALIGN)).collect::<Option<Vec<usize>>>()?;
    let mut by_size: Vec<usize> = (0..sizes.len()).filter(|i| sizes[*i] > 0).collect();
    by_size.sort_by_key(|i| (std::cmp::Reverse(sizes[*i]), *i));

    let mut offsets = vec![0usize; sizes.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(by_size.len());
    let mut bytes = 0;
    for i in by_size {
        let together = |p: &usize| buffers[*p].first <= buffers[i].last && buffers[i].first <= buffers[*p].last;
        let mut busy: Vec<(usize, usize)> =
            placed.iter().copied().filter(together).map(|p| (offsets[p], offsets[p] + sizes[p])).collect();
        busy.sort_unstable();
        offsets[i] = best_gap(&busy, sizes[i]);
        bytes = bytes.max(offsets[i].checked_add(sizes[i])?);
        placed.push(i);
    }
    Some(Packing { offsets, bytes })
}

/// Gives every value bytes of its own. For checking: a kernel that writes where it must not shows up as a difference
/// between a run with and one without reuse.
///
/// # Errors
/// As [`place`].
pub fn place_without_reuse(graph: &Graph, live: &Liveness, max_rows: MaxRows) -> Result<Placement, GraphError> {
    let mut slots = sizes(graph, max_rows)?;
    let mut end = 0usize;
    for (i, slot) in slots.iter_mut().enumerate() {
        if let Some(s) = slot {
            s.offset = end;
            end = end.checked_add(s.bytes).ok_or_else(|| unplaceable(graph, i, max_rows))?;
        }
    }
    finish(graph, live, max_rows, slots)
}

/// The smallest gap between busy ranges (sorted by start) that holds `bytes`, else the end.
fn best_gap(busy: &[(usize, usize)], bytes: usize) -> usize {
    let mut best: Option<(usize, usize)> = None; // (gap, offset)
    let mut end = 0;
    for &(from, to) in busy {
        if from >= end && from - end >= bytes && best.is_none_or(|(gap, _)| from - end < gap) {
            best = Some((from - end, end));
        }
        end = end.max(to);
    }
    best.map_or(end, |(_, offset)| offset)
}

fn finish(
    graph: &Graph,
    live: &Liveness,
    max_rows: MaxRows,
    slots: Vec<Option<Slot>>,
) -> Result<Placement, GraphError> {
    // What begins to live, and what ceased to, at each brick.
    let mut change = vec![(0usize, 0usize); graph.len() + 1];
    for (slot, i) in slots.iter().zip(live.intervals()) {
        let bytes = slot.map_or(0, |s| s.bytes);
        for (at, which) in [(i.first.index(), 0), (i.last.index() + 1, 1)] {
            let c = &mut change[at];
            let sum = if which == 0 { &mut c.0 } else { &mut c.1 };
            *sum = sum.checked_add(bytes).ok_or_else(|| unplaceable(graph, 0, max_rows))?;
        }
    }
    let (mut now, mut peak_bytes) = (0usize, 0usize);
    for (born, dead) in change {
        now = (now - dead).checked_add(born).ok_or_else(|| unplaceable(graph, 0, max_rows))?;
        peak_bytes = peak_bytes.max(now);
    }
    let arena_bytes = slots.iter().flatten().map(|s| s.offset + s.bytes).max().unwrap_or(0);
    Ok(Placement { slots, max_rows, arena_bytes, peak_bytes })
}

/// Slots at offset 0 with their sizes.
fn sizes(graph: &Graph, max_rows: MaxRows) -> Result<Vec<Option<Slot>>, GraphError> {
    graph
        .values()
        .iter()
        .map(|v| match v.ty.value {
            ValueType::KvCache | ValueType::KvCacheQ8 => Ok(None),
            ValueType::F32 | ValueType::TokenId => {
                size(v, max_rows).map(Some).ok_or_else(|| unplaceable(graph, v.id.index(), max_rows))
            }
        })
        .collect()
}

fn size(v: &Value, max_rows: MaxRows) -> Option<Slot> {
    let count = |d: &Dim| match d {
        Dim::Fixed(n) => Some(*n),
        Dim::Tokens => Some(max_rows.tokens),
        Dim::Wanted => Some(max_rows.wanted),
        Dim::Context => None,
    };
    let (width, rows) = v.ty.dims.split_last()?;
    let rows = rows.iter().try_fold(1usize, |n, d| n.checked_mul(count(d)?))?;
    // Both element types have four bytes.
    let row_stride = count(width)?.checked_mul(4)?.checked_next_multiple_of(ALIGN)?;
    Some(Slot { offset: 0, row_stride, rows, bytes: rows.checked_mul(row_stride)? })
}

fn unplaceable(graph: &Graph, value: usize, max_rows: MaxRows) -> GraphError {
    let v = graph.value(ValueId(value as u32));
    GraphError::Unplaceable {
        brick: graph.brick(v.producer).name.clone(),
        port: v.port,
        ty: v.ty.to_string(),
        rows: max_rows.to_string(),
    }
}
