//! Paged KV cache.
//!
//! Memory is cut into blocks of [`BLOCK`] positions. A block holds those positions for **every** layer, so one block table
//! per sequence serves the whole model:
//!
//! ```text
//! [layer][kv_head][block] page     keys [head_dim][position], then values [position][head_dim]; f16 or q8_0
//! ```
//!
//! A page is what [`bricks::cpu::attention::KvLayout`] says. Blocks of a KV head lie side by side: a sequence that got its
//! blocks in a row is read as one stream.
//!
//! Blocks are reference-counted: sequences that share a prefix share its blocks, and a block is copied before a sequence
//! writes into one it shares. The pool is allocated once, zeroed lazily by the system, so untouched blocks cost no memory.

use bricks::cpu::attention::{KvLayout, PAGE};

/// Positions per block.
pub const BLOCK: usize = PAGE;

/// A cache line: pages start at a multiple of it.
const ALIGN: usize = 64;

/// A sequence known to a [`KvCache`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SequenceId(pub(crate) u32);

/// The KV cache cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// A sequence would grow past the context it was given.
    #[error(
        "context is full: {wanted} positions wanted, {context} available (raise --ctx, or shorten the conversation)"
    )]
    ContextFull {
        /// Positions needed after the call.
        wanted: usize,
        /// Positions a sequence may have.
        context: usize,
    },
    /// All blocks are in use by other sequences.
    #[error("KV cache is full: all {blocks} blocks of {BLOCK} positions are in use by {sequences} sequences")]
    NoBlocks {
        /// Blocks in the pool.
        blocks: usize,
        /// Sequences alive.
        sequences: usize,
    },
    /// No such sequence (never made, or freed).
    #[error("sequence {0} does not exist")]
    UnknownSequence(u32),
    /// All sequence slots are taken.
    #[error("all {0} sequences are in use")]
    NoSequences(usize),
    /// A token was given for the wrong position.
    #[error("sequence {sequence} has {expected} tokens, so the next position is {expected}, found {found}")]
    Position {
        /// The sequence.
        sequence: u32,
        /// Its length.
        expected: usize,
        /// Position in the batch.
        found: usize,
    },
    /// The pages are on a device.
    #[error("keys and values are on the GPU, and cannot be looked at from here; use --device cpu")]
    OnDevice,
    /// The pool does not fit into memory.
    #[error("cannot allocate a KV cache of {bytes} bytes ({positions} positions); use a smaller --ctx")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: u128,
        /// Positions asked for.
        positions: usize,
    },
}

/// Shape of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Layers.
    pub layers: usize,
    /// Key/value heads per layer.
    pub n_kv_heads: usize,
    /// How a head's keys and values are stored.
    pub layout: KvLayout,
}

impl KvShape {
    /// Bytes of keys and values of one position over all layers.
    pub const fn bytes_per_position(&self) -> usize {
        self.layers * self.n_kv_heads * self.layout.position_bytes()
    }
}

#[derive(Debug, Default)]
struct Table {
    alive: bool,
    blocks: Vec<u32>,
    len: usize,
}

/// The pool of blocks and the tables of all sequences.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    context: usize,
    n_blocks: usize,
    /// Room for [`ALIGN`] bytes more than is used, to start at a cache line.
    data: Vec<u8>,
    start: usize,
    /// Copies of blocks that a device has yet to make, where pages are on a device; `None` where they are here.
    copies: Option<Vec<(u32, u32)>>,
    refs: Vec<u32>,
    free: Vec<u32>,
    tables: Vec<Table>,
}

impl KvCache {
    /// A pool with room for `sequences` sequences of `context` positions each.
    ///
    /// # Errors
    /// [`KvError::OutOfMemory`] when the pool cannot be allocated.
    pub fn new(shape: KvShape, context: usize, sequences: usize) -> Result<Self, KvError> {
        Self::with_pages(shape, context, sequences, true)
    }

    /// The same for pages that are on a device: blocks are counted here, and copies of them are noted for it.
    ///
    /// # Errors
    /// [`KvError::OutOfMemory`] when there would be more blocks than can be counted.
    pub(crate) fn on_device(shape: KvShape, context: usize, sequences: usize) -> Result<Self, KvError> {
        Self::with_pages(shape, context, sequences, false)
    }

    fn with_pages(shape: KvShape, context: usize, sequences: usize, here: bool) -> Result<Self, KvError> {
        let blocks_per_sequence = context.div_ceil(BLOCK);
        let positions = blocks_per_sequence.saturating_mul(sequences).saturating_mul(BLOCK);
        let bytes = positions as u128 * shape.bytes_per_position() as u128;
        let out_of_memory = KvError::OutOfMemory { bytes, positions };
        let n_blocks = blocks_per_sequence.checked_mul(sequences).ok_or_else(|| out_of_memory.clone())?;
        let len =
            usize::try_from(bytes).ok().and_then(|n| n.checked_add(ALIGN)).ok_or_else(|| out_of_memory.clone())?;
        if u32::try_from(n_blocks).is_err() {
            return Err(out_of_memory);
        }
        let data = zeroed(if here { len } else { ALIGN }).ok_or(out_of_memory)?;
        let copies = (!here).then(Vec::new);
        let start = data.as_ptr().align_offset(ALIGN).min(ALIGN);
        Ok(Self {
            shape,
            context,
            n_blocks,
            data,
            start,
            copies,
            refs: vec![0; n_blocks],
            free: (0..n_blocks as u32).rev().collect(),
            tables: (0..sequences)
                .map(|_| Table { alive: false, blocks: Vec::with_capacity(blocks_per_sequence), len: 0 })
                .collect(),
        })
    }

    /// Shape of the cache.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Positions a sequence may have.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Blocks in use, and blocks in the pool.
    pub fn usage(&self) -> (usize, usize) {
        (self.n_blocks - self.free.len(), self.n_blocks)
    }

    /// Starts an empty sequence.
    ///
    /// # Errors
    /// [`KvError::NoSequences`] when every slot is taken.
    pub fn create(&mut self) -> Result<SequenceId, KvError> {
        let n = self.tables.len();
        let slot = self.tables.iter().position(|t| !t.alive).ok_or(KvError::NoSequences(n))?;
        self.tables[slot].alive = true;
        Ok(SequenceId(slot as u32))
    }

    /// Starts a sequence that shares the first `len` positions of another.
    ///
    /// # Errors
    /// When `from` does not exist, is shorter than `len`, or no slot is free.
    pub fn fork(&mut self, from: SequenceId, len: usize) -> Result<SequenceId, KvError> {
        let have = self.len(from)?;
        if len > have {
            return Err(KvError::Position { sequence: from.0, expected: have, found: len });
        }
        let id = self.create()?;
        for b in 0..len.div_ceil(BLOCK) {
            let block = self.tables[from.0 as usize].blocks[b];
            self.refs[block as usize] += 1;
            self.tables[id.0 as usize].blocks.push(block);
        }
        self.tables[id.0 as usize].len = len;
        Ok(id)
    }

    /// Ends a sequence and gives its blocks back.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn release(&mut self, id: SequenceId) -> Result<(), KvError> {
        self.truncate(id, 0)?;
        self.tables[id.0 as usize].alive = false;
        Ok(())
    }

    /// Positions in a sequence.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn len(&self, id: SequenceId) -> Result<usize, KvError> {
        Ok(self.table(id)?.len)
    }

    /// Forgets all positions from `len` on (rollback of rejected drafts, or a new conversation).
    ///
    /// # Errors
    /// When the sequence does not exist. A `len` beyond the end changes nothing.
    pub fn truncate(&mut self, id: SequenceId, len: usize) -> Result<(), KvError> {
        self.table(id)?;
        let Self { tables, refs, free, .. } = self;
        let table = &mut tables[id.0 as usize];
        if len >= table.len {
            return Ok(());
        }
        table.len = len;
        while table.blocks.len() > len.div_ceil(BLOCK) {
            let block = table.blocks.pop().expect("invariant: the loop condition says it is not empty");
            drop_ref(refs, free, block);
        }
        Ok(())
    }

    /// Makes room for the position that follows the sequence's last one, and counts it. Never allocates.
    ///
    /// # Errors
    /// When the sequence does not exist, `position` is not the next one, or there is no room.
    pub fn append(&mut self, id: SequenceId, position: usize) -> Result<(), KvError> {
        let len = self.len(id)?;
        if position != len {
            return Err(KvError::Position { sequence: id.0, expected: len, found: position });
        }
        if len >= self.context {
            return Err(KvError::ContextFull { wanted: len + 1, context: self.context });
        }
        let index = len / BLOCK;
        if index == self.tables[id.0 as usize].blocks.len() {
            let block = self.take_block()?;
            self.tables[id.0 as usize].blocks.push(block);
        } else {
            let block = self.tables[id.0 as usize].blocks[index];
            if self.refs[block as usize] > 1 {
                let own = self.take_block()?;
                self.copy_block(block, own);
                self.refs[block as usize] -= 1;
                self.tables[id.0 as usize].blocks[index] = own;
            }
        }
        self.tables[id.0 as usize].len = len + 1;
        Ok(())
    }

    /// The blocks of a sequence, in order of position.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn blocks(&self, id: SequenceId) -> Result<&[u32], KvError> {
        Ok(&self.table(id)?.blocks)
    }

    /// Bytes of the pool. Blocks that were never used take no memory yet.
    pub fn bytes(&self) -> usize {
        self.n_blocks * BLOCK * self.shape.bytes_per_position()
    }

    /// Start of the page of a layer's KV head in a block, in bytes.
    pub(crate) fn page_offset(&self, layer: usize, head: usize, block: u32) -> usize {
        ((layer * self.shape.n_kv_heads + head) * self.n_blocks + block as usize) * self.shape.layout.page_bytes()
    }

    /// The whole pool; the plan's kernels index it with [`Self::page_offset`].
    pub(crate) fn data_ptr(&mut self) -> (*mut u8, usize) {
        let n = self.bytes();
        let pool = &mut self.data[self.start..][..n];
        (pool.as_mut_ptr(), pool.len())
    }

    fn page(&self, layer: usize, head: usize, block: u32) -> &[u8] {
        let at = self.start + self.page_offset(layer, head, block);
        &self.data[at..at + self.shape.layout.page_bytes()]
    }

    /// Keys and values of the first `len` positions of a sequence in one layer as f32, `[len][n_kv_heads][head_dim]` each.
    /// For checks and traces, not for the hot path.
    ///
    /// # Errors
    /// When the sequence does not exist or is shorter.
    pub fn gather(&self, id: SequenceId, layer: usize, len: usize) -> Result<(Vec<f32>, Vec<f32>), KvError> {
        self.gather_range(id, layer, 0..len)
    }

    /// [`Self::gather`] of some positions.
    ///
    /// # Errors
    /// As [`Self::gather`].
    pub fn gather_range(
        &self,
        id: SequenceId,
        layer: usize,
        positions: std::ops::Range<usize>,
    ) -> Result<(Vec<f32>, Vec<f32>), KvError> {
        let table = self.table(id)?;
        if self.copies.is_some() {
            return Err(KvError::OnDevice);
        }
        if positions.end > table.len {
            return Err(KvError::Position { sequence: id.0, expected: table.len, found: positions.end });
        }
        let KvShape { n_kv_heads, layout, .. } = self.shape;
        let dim = layout.head_dim();
        let elements = positions.len() * n_kv_heads * dim;
        let mut out = (vec![0.0; elements], vec![0.0; elements]);
        for (i, (key, value)) in out.0.chunks_exact_mut(dim).zip(out.1.chunks_exact_mut(dim)).enumerate() {
            let (p, head) = (positions.start + i / n_kv_heads, i % n_kv_heads);
            let page = self.page(layer, head, table.blocks[p / BLOCK]);
            layout.read(page, p % BLOCK, key, value).expect("invariant: a page of this layout");
        }
        Ok(out)
    }

    fn table(&self, id: SequenceId) -> Result<&Table, KvError> {
        self.tables.get(id.0 as usize).filter(|t| t.alive).ok_or(KvError::UnknownSequence(id.0))
    }

    fn take_block(&mut self) -> Result<u32, KvError> {
        let block = self.free.pop().ok_or_else(|| KvError::NoBlocks {
            blocks: self.n_blocks,
            sequences: self.tables.iter().filter(|t| t.alive).count(),
        })?;
        debug_assert_eq!(self.refs[block as usize], 0);
        self.refs[block as usize] = 1;
        Ok(block)
    }

    /// Blocks of a sequence by its number; none if there is no such sequence.
    pub(crate) fn blocks_of(&self, sequence: u32) -> &[u32] {
        self.tables.get(sequence as usize).map_or(&[], |t| &t.blocks)
    }

    /// Takes the copies of blocks that a device has yet to make, `(from, to)`, in order.
    pub(crate) fn take_copies(&mut self) -> Vec<(u32, u32)> {
        self.copies.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        if let Some(copies) = &mut self.copies {
            copies.push((from, to));
            return;
        }
        let n = self.shape.layout.page_bytes();
        for layer in 0..self.shape.layers {
            for head in 0..self.shape.n_kv_heads {
                let at = |block| self.start + self.page_offset(layer, head, block);
                let (from, to) = (at(from), at(to));
                self.data.copy_within(from..from + n, to);
            }
        }
    }
}

fn drop_ref(refs: &mut [u32], free: &mut Vec<u32>, block: u32) {
    let r = &mut refs[block as usize];
    debug_assert!(*r > 0, "block {block} released twice");
    *r -= 1;
    if *r == 0 {
        free.push(block);
    }
}

/// A zeroed vector, or `None` when memory is short. Zeroed by the system, page by page, on first touch.
fn zeroed(len: usize) -> Option<Vec<u8>> {
    // `vec![0; n]` aborts when memory is short, so ask first; the reservation is given back at once.
    let mut probe: Vec<u8> = Vec::new();
    probe.try_reserve_exact(len).ok()?;
    drop(probe);
    Some(vec![0; len])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bricks::cpu::SimdLevel;
    use bricks::cpu::attention::KvType;
    use proptest::prelude::*;

    fn shape(kind: KvType) -> KvShape {
        let head_dim = if kind == KvType::F16 { 4 } else { 32 };
        KvShape { layers: 2, n_kv_heads: 2, layout: KvLayout::new(kind, head_dim).unwrap() }
    }

    fn write(kv: &mut KvCache, id: SequenceId, position: usize, value: f32) {
        kv.append(id, position).unwrap();
        let block = kv.blocks(id).unwrap()[position / BLOCK];
        let KvShape { layers, n_kv_heads, layout } = kv.shape();
        for layer in 0..layers {
            for head in 0..n_kv_heads {
                let row = vec![value + layer as f32 * 100.0 + head as f32 * 10.0; layout.head_dim()];
                let at = kv.start + kv.page_offset(layer, head, block);
                let page = &mut kv.data[at..at + layout.page_bytes()];
                layout.write(SimdLevel::Scalar, page, position % BLOCK, &row, &row).unwrap();
            }
        }
    }

    fn read(kv: &KvCache, id: SequenceId, layer: usize) -> Vec<f32> {
        let n = kv.len(id).unwrap();
        let (k, v) = kv.gather(id, layer, n).unwrap();
        assert_eq!(k, v);
        let KvShape { n_kv_heads, layout, .. } = kv.shape();
        // A block of equal values errs only by the rounding of its scale, 2^-12: far less than the quarters that are written.
        k.chunks(n_kv_heads * layout.head_dim())
            .map(|row| row[layout.head_dim()] - 10.0 - layer as f32 * 100.0)
            .map(|x| if layout.kind() == KvType::F16 { x } else { (x * 4.0).round() / 4.0 })
            .collect()
    }

    #[test]
    fn writes_land_at_the_right_positions_with_several_sequences() {
        let mut kv = KvCache::new(shape(KvType::F16), 100, 2).unwrap();
        let (a, b) = (kv.create().unwrap(), kv.create().unwrap());
        for p in 0..70 {
            write(&mut kv, a, p, p as f32 / 2.0);
            write(&mut kv, b, p, -(p as f32) / 2.0);
        }
        for layer in 0..2 {
            assert_eq!(read(&kv, a, layer), (0..70).map(|p| p as f32 / 2.0).collect::<Vec<_>>());
            assert_eq!(read(&kv, b, layer), (0..70).map(|p| -(p as f32) / 2.0).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_fork_shares_blocks_and_copies_before_writing() {
        let mut kv = KvCache::new(shape(KvType::F16), 100, 3).unwrap();
        let a = kv.create().unwrap();
        for p in 0..40 {
            write(&mut kv, a, p, p as f32);
        }
        let used = kv.usage().0;
        let b = kv.fork(a, 35).unwrap();
        assert_eq!(kv.usage().0, used, "a fork takes no block");
        write(&mut kv, b, 35, 7.0);
        assert_eq!(kv.usage().0, used + 1, "only the written block is copied");
        assert_eq!(read(&kv, a, 0), (0..40).map(|p| p as f32).collect::<Vec<_>>());
        assert_eq!(read(&kv, b, 0), (0..35).map(|p| p as f32).chain([7.0]).collect::<Vec<_>>());
        kv.release(a).unwrap();
        assert_eq!(read(&kv, b, 1).len(), 36);
        kv.release(b).unwrap();
        assert_eq!(kv.usage().0, 0);
        assert_eq!(kv.len(a), Err(KvError::UnknownSequence(0)));
    }

    #[test]
    fn q8_takes_about_half_the_memory() {
        let bytes = |kind| {
            let layout = KvLayout::new(kind, 64).unwrap();
            let kv = KvCache::new(KvShape { layers: 3, n_kv_heads: 2, layout }, 100, 2).unwrap();
            (kv.shape().bytes_per_position(), kv.bytes())
        };
        assert_eq!(bytes(KvType::F16), (3 * 2 * 256, 256 * 3 * 2 * 256));
        assert_eq!(bytes(KvType::Q8_0), (3 * 2 * 136, 256 * 3 * 2 * 136), "34 bytes for 32 values");
    }

    #[test]
    fn limits_are_errors() {
        let mut kv = KvCache::new(shape(KvType::F16), 3, 1).unwrap();
        let a = kv.create().unwrap();
        assert_eq!(kv.create(), Err(KvError::NoSequences(1)));
        assert_eq!(kv.append(a, 1), Err(KvError::Position { sequence: 0, expected: 0, found: 1 }));
        for p in 0..3 {
            kv.append(a, p).unwrap();
        }
        assert_eq!(kv.append(a, 3), Err(KvError::ContextFull { wanted: 4, context: 3 }));
        assert!(matches!(KvCache::new(shape(KvType::F16), usize::MAX / 4, 1), Err(KvError::OutOfMemory { .. })));
        assert!(matches!(KvCache::new(shape(KvType::F16), usize::MAX, 2), Err(KvError::OutOfMemory { .. })));
    }

    proptest! {
        /// Any sequence of operations keeps contents and never leaks a block.
        #[test]
        fn random_operations_keep_contents(
            ops in proptest::collection::vec((0u8..4, 0usize..4, 0usize..100), 1..120), q8 in any::<bool>()
        ) {
            let kind = if q8 { KvType::Q8_0 } else { KvType::F16 };
            let mut kv = KvCache::new(shape(kind), 96, 4).unwrap();
            let mut model: Vec<Option<(SequenceId, Vec<f32>)>> = vec![None; 4];
            let mut stamp = 0.0f32;
            for (op, slot, arg) in ops {
                match (op, model[slot].take()) {
                    (0, None) => model[slot] = Some((kv.create().unwrap(), Vec::new())),
                    (0 | 1, Some((id, mut values))) => {
                        for _ in 0..=arg % 40 {
                            stamp = (stamp + 0.25) % 64.0;
                            if values.len() < 96 {
                                write(&mut kv, id, values.len(), stamp);
                                values.push(stamp);
                            }
                        }
                        model[slot] = Some((id, values));
                    }
                    (2, Some((id, mut values))) => {
                        let to = (slot + 1) % 4;
                        let n = arg.min(values.len());
                        if model[to].is_none() {
                            model[to] = Some((kv.fork(id, n).unwrap(), values[..n].to_vec()));
                        } else {
                            kv.truncate(id, n).unwrap();
                            values.truncate(n);
                        }
                        model[slot] = Some((id, values));
                    }
                    (3, Some((id, _))) => kv.release(id).unwrap(),
                    (_, other) => model[slot] = other,
                }
                for (id, values) in model.iter().flatten() {
                    prop_assert_eq!(&read(&kv, *id, 1), values);
                }
            }
            for (id, _) in model.into_iter().flatten() {
                kv.release(id).unwrap();
            }
            prop_assert_eq!(kv.usage().0, 0);
        }
    }
}
