//! Running the steps of a plan on the gang.
//!
//! Every function here runs on all threads of the gang at once. Work is cut so that a piece of memory is written by one
//! thread only, and results never depend on the cut: each output is computed whole, in one fixed order, by one thread.

mod attention;

use bricks::Rows;
use bricks::cpu::gang::Member;
use bricks::cpu::linear::{Acts, Matrix, Q8Acts, RawOut};
use bricks::cpu::{self, SimdLevel};
use bricks::quant::q8::Q8RowMut;

use crate::arena::Arena;
use crate::batch::Row;
use crate::kv::{BLOCK, KvCache};
use crate::plan::{LinearInput, LinearMatrix, Plan, Q8Slot, Slot, Step, StepKind};
use crate::weights::{PackedWeights, Weights};
use attention::Attention;
pub(crate) use attention::{Tiling, group_attention, record_capacity};

/// Columns of an elementwise step that one thread takes at least; a multiple of a Q8 block.
const COLUMNS: usize = 512;

/// Raw memory of the KV cache; steps write disjoint rows of it.
#[derive(Clone, Copy)]
struct KvMemory {
    ptr: *mut u8,
    len: usize,
}

/// Columns of a gated linear step that a thread computes at a time: gate and up of a whole batch fit in the second-level cache.
/// A multiple of a Q8 block.
pub(crate) const GATED_COLUMNS: usize = 64;

/// What all threads share during one forward call.
pub(crate) struct Call<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) arena: &'a Arena,
    pub(crate) weights: &'a dyn Weights,
    packed: &'a PackedWeights,
    pub(crate) rows: &'a [Row],
    /// Batch rows whose logits are wanted, in order.
    pub(crate) wanted: &'a [usize],
    kv: &'a KvCache,
    kv_memory: KvMemory,
    tiling: &'a Tiling,
}

// SAFETY: the raw pointer is the KV cache's own memory, exclusively borrowed for the call by `Call::new`; threads write
// disjoint parts of it (one row of the batch each) and read only what earlier steps wrote, with a barrier between.
unsafe impl Sync for Call<'_> {}

impl<'a> Call<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        arena: &'a Arena,
        (weights, packed): (&'a dyn Weights, &'a PackedWeights),
        rows: &'a [Row],
        wanted: &'a [usize],
        kv: &'a mut KvCache,
        tiling: &'a Tiling,
    ) -> Self {
        let (ptr, len) = kv.data_ptr();
        Self { plan, arena, weights, packed, rows, wanted, kv, kv_memory: KvMemory { ptr, len }, tiling }
    }

    /// The KV cache, for reading after a step's barrier.
    pub(crate) fn kv(&self) -> &KvCache {
        self.kv
    }

    fn count(&self, rows: Rows) -> usize {
        match rows {
            Rows::All => self.rows.len(),
            Rows::Wanted => self.wanted.len(),
        }
    }

    fn simd(&self) -> SimdLevel {
        self.plan.simd
    }

    /// Runs one step on this thread; the caller passes the barrier that ends it.
    pub(crate) fn step(&self, step: &Step, m: &Member<'_>) {
        match &step.kind {
            StepKind::Input => self.input(m),
            StepKind::Embed { table, dtype, scale, dst } => {
                let bytes = self.weights.bytes(*table);
                each_row(m, self.rows.len(), |t| {
                    let token = self.rows[t].token as usize;
                    ok(cpu::embed_row(*dtype, bytes, token, *scale, self.row_mut(*dst, t)));
                });
            }
            StepKind::RmsNorm { src, gain, eps, rows, dst, q8 } => {
                each_row(m, self.count(*rows), |t| {
                    let from = if *rows == Rows::Wanted { self.wanted[t] } else { t };
                    let out = self.row_mut(*dst, t);
                    ok(cpu::rms_norm_row(self.simd(), self.row(*src, from), gain, *eps, out));
                    self.quantize(q8.as_ref(), t, 0, out);
                });
            }
            StepKind::AddRmsNorm { a, b, gain, eps, sum, dst, q8 } => {
                each_row(m, self.rows.len(), |t| {
                    let s = self.row_mut(*sum, t);
                    ok(cpu::add_row(self.simd(), self.row(*a, t), self.row(*b, t), s));
                    let out = self.row_mut(*dst, t);
                    ok(cpu::rms_norm_row(self.simd(), s, gain, *eps, out));
                    self.quantize(q8.as_ref(), t, 0, out);
                });
            }
            StepKind::Quantize { src, rows, q8 } => {
                each_row(m, self.count(*rows), |t| self.quantize(Some(q8), t, 0, self.row(*src, t)));
            }
            StepKind::Linear { matrices, rows, .. } => self.linear(m, matrices, self.count(*rows)),
            StepKind::GatedLinear { matrices, act, dst, keep, q8, .. } => {
                self.gated(m, matrices, *act, *dst, *keep, q8.as_ref());
            }
            StepKind::Rope { src, dst, head_dim, style, table } => {
                each_row(m, self.rows.len(), |t| {
                    let out = self.row_mut(*dst, t);
                    out.copy_from_slice(self.row(*src, t));
                    let (cos, sin) = self.rotation(*table, t);
                    ok(cpu::rope_row(self.simd(), *style, out, *head_dim, cos, sin));
                });
            }
            StepKind::KvWrite { layer, k, v, n_kv_heads, head_dim, rope } => {
                let (heads, dim) = (*n_kv_heads, *head_dim);
                // Threads that write neighbouring positions would pass cache lines to and fro. A few rows are shared out head by
                // head: what takes time is waiting for the lines of a page, one for each element of a key.
                let rows = self.rows.len();
                let at_least = if rows >= 2 * BLOCK * m.size() { BLOCK * heads } else { 1 };
                each_rows(m, rows * heads, at_least, |item| {
                    let (t, head) = (item / heads, item % heads);
                    let part = head * dim..(head + 1) * dim;
                    // SAFETY: the scratch area of this member is used by this thread only.
                    let key = unsafe { self.arena.slice_mut::<f32>(self.scratch(m), dim) };
                    key.copy_from_slice(&self.row(*k, t)[part.clone()]);
                    if let Some(r) = rope {
                        let (cos, sin) = self.rotation(r.table, t);
                        ok(cpu::rope_row(self.simd(), r.style, key, dim, cos, sin));
                        let all = r.q.width / dim;
                        let part = head * all / heads * dim..(head + 1) * all / heads * dim;
                        // SAFETY: these columns of row `t` belong to this item, and so to this thread until the next barrier.
                        let q = unsafe {
                            let offset = r.q_out.offset + 4 * (t * r.q_out.width + part.start);
                            self.arena.slice_mut::<f32>(offset, part.len())
                        };
                        q.copy_from_slice(&self.row(r.q, t)[part]);
                        ok(cpu::rope_row(self.simd(), r.style, q, dim, cos, sin));
                    }
                    self.write_kv(*layer, t, head, key, &self.row(*v, t)[part]);
                });
            }
            StepKind::Attention { layer, q, spec, dst, q8, records } => {
                let (layer, q, dst, records) = (*layer, *q, *dst, *records);
                self.attention(&Attention { layer, q, spec, dst, q8: q8.as_ref(), records }, m);
            }
            StepKind::Add { a, b, dst } => {
                each_row(m, self.rows.len(), |t| {
                    ok(cpu::add_row(self.simd(), self.row(*a, t), self.row(*b, t), self.row_mut(*dst, t)));
                });
            }
            StepKind::GatedActivation { gate, up, act, dst, q8 } => {
                let per_row = dst.width.div_ceil(COLUMNS);
                let items = self.rows.len() * per_row;
                while let Some(range) = m.take(items, chunk(items, m.size(), 1)) {
                    for item in range {
                        let (t, from) = (item / per_row, item % per_row * COLUMNS);
                        let n = COLUMNS.min(dst.width - from);
                        // SAFETY: item (t, from) belongs to this thread; its columns are written by nobody else.
                        let out = unsafe { self.arena.slice_mut::<f32>(dst.offset + 4 * (t * dst.width + from), n) };
                        let (g, u) = (&self.row(*gate, t)[from..from + n], &self.row(*up, t)[from..from + n]);
                        ok(cpu::gated_activation(self.simd(), *act, g, u, out));
                        self.quantize(q8.as_ref(), t, from, out);
                    }
                }
            }
        }
    }

    /// Cosines and sines of every row's position, for every rotary table.
    fn input(&self, m: &Member<'_>) {
        each_row(m, self.rows.len(), |t| {
            for table in &self.plan.rope_tables {
                let position = self.rows[t].position as u32;
                table.frequencies.cos_sin(position, self.row_mut(table.cos, t), self.row_mut(table.sin, t));
            }
        });
    }

    fn rotation(&self, table: usize, t: usize) -> (&[f32], &[f32]) {
        let table = &self.plan.rope_tables[table];
        (self.row(table.cos, t), self.row(table.sin, t))
    }

    /// Byte offset of this member's scratch memory.
    fn scratch(&self, m: &Member<'_>) -> usize {
        debug_assert!(m.index() < self.plan.threads);
        self.plan.scratch.0 + 4 * self.plan.scratch.1 * m.index()
    }

    /// Row `t` of a buffer that an earlier step has written.
    pub(crate) fn row(&self, slot: Slot, t: usize) -> &[f32] {
        // SAFETY: placement keeps buffers that live at the same time apart, so no thread writes this buffer in the current
        // step; the barrier behind the step that wrote it orders the accesses.
        unsafe { self.arena.slice::<f32>(slot.offset + 4 * t * slot.width, slot.width) }
    }

    /// Row `t` of an output of the current step.
    #[allow(clippy::mut_from_ref)] // disjointness is proved below
    fn row_mut(&self, slot: Slot, t: usize) -> &mut [f32] {
        // SAFETY: called for rows this thread has taken, of buffers only the current step writes; nobody else touches them
        // before the next barrier.
        unsafe { self.arena.slice_mut::<f32>(slot.offset + 4 * t * slot.width, slot.width) }
    }

    /// Rounds `values`, which stand at column `from` of row `t`, to Q8 if the step must.
    fn quantize(&self, q8: Option<&Q8Slot>, t: usize, from: usize, values: &[f32]) {
        let Some(q) = q8 else { return };
        debug_assert!(from.is_multiple_of(32) && values.len().is_multiple_of(32));
        let (blocks, n) = (q.width / 32, values.len() / 32);
        let block = t * blocks + from / 32;
        // SAFETY: these columns of row `t` belong to this thread (as `values` does); the planes are written by this step only.
        let (codes, scales, sums) = unsafe {
            (
                self.arena.slice_mut::<i8>(q.codes + t * q.width + from, values.len()),
                self.arena.slice_mut::<f32>(q.scales + 4 * block, n),
                self.arena.slice_mut::<[i16; 2]>(q.sums + 4 * block, n),
            )
        };
        let mut row = Q8RowMut::new(codes, scales, sums).expect("invariant: planes of one width");
        ok(cpu::quantize_row(self.simd(), values, &mut row));
    }

    fn linear(&self, m: &Member<'_>, matrices: &[LinearMatrix], rows: usize) {
        if rows == 0 {
            return;
        }
        let total: usize = matrices.iter().map(|x| x.rows).sum();
        while let Some(range) = m.take(total, chunk(total, m.size(), 16)) {
            // A chunk may reach over the edge between two matrices.
            let mut base = 0;
            for x in matrices {
                let (from, to) = (range.start.max(base), range.end.min(base + x.rows));
                if from < to {
                    let out = RawOut { ptr: self.arena.ptr::<f32>(x.dst.offset), stride: x.dst.width };
                    // SAFETY: these output columns of the batch's rows belong to this thread until the next barrier, and the
                    // slot has room for `max_rows` rows of `stride` outputs.
                    unsafe { self.matrix(x, from - base..to - base, rows, out) };
                }
                base += x.rows;
            }
        }
    }

    /// Gate and up to scratch memory, a few columns at a time, and their activation to the output.
    fn gated(
        &self,
        m: &Member<'_>,
        matrices: &[LinearMatrix; 2],
        act: bricks::ActKind,
        dst: Slot,
        keep: bool,
        q8: Option<&Q8Slot>,
    ) {
        let (rows, width) = (self.rows.len(), dst.width);
        // What scratch memory has room for; whole Q8 blocks, so that a thread rounds what it computed.
        let most = self.plan.scratch.1 / (2 * rows) / 32 * 32;
        debug_assert!(most > 0);
        // SAFETY: the scratch area of this member is used by this thread only.
        let scratch = unsafe { self.arena.slice_mut::<f32>(self.scratch(m), 2 * rows * most) };
        let (gate, up) = scratch.split_at_mut(rows * most);
        while let Some(taken) = m.take(width, chunk(width, m.size(), 32)) {
            for from in taken.clone().step_by(most) {
                let range = from..taken.end.min(from + most);
                let n = range.len();
                for (matrix, out) in matrices.iter().zip([&mut *gate, &mut *up]) {
                    // The kernel adds the range's own numbers to the address.
                    let out = RawOut { ptr: out.as_mut_ptr().wrapping_sub(from), stride: n };
                    // SAFETY: `out` has `n` columns for each row, exclusively borrowed.
                    unsafe { self.matrix(matrix, range.clone(), rows, out) };
                }
                for (t, (gate, up)) in gate.chunks_exact_mut(n).zip(up.chunks_exact(n)).enumerate().take(rows) {
                    if keep {
                        // SAFETY: columns `range` of every row belong to this thread until the next barrier.
                        let out = unsafe { self.arena.slice_mut::<f32>(dst.offset + 4 * (t * width + from), n) };
                        ok(cpu::gated_activation(self.simd(), act, gate, up, out));
                        self.quantize(q8, t, from, out);
                    } else {
                        ok(cpu::gated_activation_in_place(self.simd(), act, gate, up));
                        self.quantize(q8, t, from, gate);
                    }
                }
            }
        }
    }

    /// Computes `outputs` of a matrix for all rows.
    ///
    /// # Safety
    /// `out` is valid for these outputs of every row, and this thread's alone.
    unsafe fn matrix(&self, x: &LinearMatrix, outputs: std::ops::Range<usize>, rows: usize, out: RawOut) {
        let acts = match x.src {
            LinearInput::Q8(q) => {
                let blocks = q.width / 32;
                // SAFETY: written by an earlier step, read-only in this one.
                let acts = unsafe {
                    Q8Acts::new(
                        q.width,
                        self.arena.slice::<i8>(q.codes, rows * q.width),
                        self.arena.slice::<f32>(q.scales, rows * blocks),
                        self.arena.slice::<[i16; 2]>(q.sums, rows * blocks),
                    )
                };
                Acts::Q8(acts.expect("invariant: planes of one width"))
            }
            // SAFETY: written by an earlier step, read-only in this one.
            LinearInput::F32(s) => Acts::F32(unsafe { self.arena.slice::<f32>(s.offset, rows * s.width) }),
        };
        let matrix = Matrix { weight: self.packed.matrix(x.weight), bias: x.bias.as_deref() };
        // SAFETY: as the caller promises.
        ok(unsafe { x.kernel.rows(&matrix, outputs, acts, out) });
    }
}

/// Kernels check what they are given; lowering and placement see to it that they never object. A violation is a bug, and
/// ends the call (see [`bricks::cpu::gang`]).
fn ok<T>(result: Result<T, cpu::KernelError>) -> T {
    match result {
        Ok(x) => x,
        Err(e) => panic!("invariant: the plan's buffers have the shapes its kernels want: {e}"),
    }
}

/// Shares rows out one by one (large batches: a few at a time).
fn each_row(m: &Member<'_>, rows: usize, f: impl Fn(usize)) {
    each_rows(m, rows, 1, f);
}

/// Shares rows out in multiples of `at_least`.
fn each_rows(m: &Member<'_>, rows: usize, at_least: usize, f: impl Fn(usize)) {
    while let Some(range) = m.take(rows, chunk(rows, m.size(), at_least)) {
        range.for_each(&f);
    }
}

/// Size of the pieces in which `total` items are shared out: small enough to balance, large enough to be worth taking.
fn chunk(total: usize, threads: usize, at_least: usize) -> usize {
    if threads == 1 {
        return total.max(1);
    }
    (total / (threads * 8)).next_multiple_of(at_least).max(at_least)
}
