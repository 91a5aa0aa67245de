//! The threads of this machine, walking a plan together.

use std::sync::Arc;

use brick_graphs::{Graph, WeightId};
use brick_profiler::{Arrivals, Recorder};
use bricks::Op;
use bricks::cpu::gang::{Gang, GangPanic, Member};

use super::options::topology;
use super::{EngineError, EngineOptions, Observer, StepView};
use crate::arena::Arena;
use crate::batch::Batch;
use crate::exec::{Call, Tiling};
use crate::kv::{KvCache, KvShape};
use crate::plan::{LowerOptions, Plan, Slot, lower};
use crate::weights::{PackedWeights, Weights};

/// The threads of this machine, and their memory.
pub(crate) struct Cpu {
    plan: Plan,
    weights: Arc<dyn Weights>,
    packed: Arc<PackedWeights>,
    arena: Arena,
    gang: Gang,
    tiling: Tiling,
    /// Rows of logits of the last successful call.
    logits_rows: usize,
    /// The embedding table, and its rows that were read since its memory was given back.
    table: Option<WeightId>,
    table_reads: usize,
}

/// Rows of the embedding table after whose reading its memory is given back: each brings 64 KiB of the file with it, and a
/// system call in so many tokens is nothing.
const TABLE_READS: usize = 32;

impl Cpu {
    pub(super) fn new(
        graph: &Graph,
        weights: Arc<dyn Weights>,
        packed: Option<Arc<PackedWeights>>,
        options: &EngineOptions,
        kv: KvShape,
    ) -> Result<Self, EngineError> {
        let threads = options.threads.max(1);
        let max_rows = options.most_rows();
        let lower_options = LowerOptions {
            max_rows,
            max_wanted: options.most_wanted(),
            threads,
            simd: options.simd,
            keep_values: options.keep_values,
            context: options.context.max(1),
            kv_type: options.kv_type,
        };
        let plan = lower(graph, &*weights, &lower_options)?;
        let arena = Arena::new(plan.arena_bytes)?;
        let limits = plan.attention;
        let tiling = Tiling::new(limits.tile_rows, kv.n_kv_heads, limits.records, max_rows);
        let cpus = if options.pin && threads > 1 { topology().pin_to(threads) } else { Vec::new() };
        let mut gang = Gang::with_cpus(threads, &cpus).map_err(|source| EngineError::Threads { threads, source })?;
        let packed = match packed {
            Some(packed) if packed.covers(graph) => packed,
            _ => Arc::new(PackedWeights::new(graph, &*weights, &mut gang)?),
        };
        let table = graph.bricks().find(|b| matches!(b.op, Op::Embed { .. })).and_then(|b| b.weights.first().copied());
        Ok(Self { plan, weights, packed, arena, gang, tiling, logits_rows: 0, table, table_reads: 0 })
    }

    /// The plan.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The plan, to break it on purpose.
    pub(crate) fn plan_mut(&mut self) -> &mut Plan {
        &mut self.plan
    }

    /// Gives the plan working memory of `bytes` behind its own, for buffers added on purpose.
    pub(crate) fn grow_arena(&mut self, bytes: usize) -> Result<(), EngineError> {
        self.arena = Arena::new(self.plan.arena_bytes.saturating_add(bytes))?;
        self.logits_rows = 0;
        Ok(())
    }

    /// The packed weights.
    pub(super) fn packed(&self) -> &Arc<PackedWeights> {
        &self.packed
    }

    /// Threads, the caller's included.
    pub(super) fn threads(&self) -> usize {
        self.gang.size()
    }

    /// Logits of the last successful call.
    pub(super) fn logits(&self) -> &[f32] {
        let Slot { offset, width } = self.plan.logits;
        // SAFETY: no call is running (`&self`, calls take `&mut self`), so nobody writes the arena.
        unsafe { self.arena.slice::<f32>(offset, self.logits_rows * width) }
    }

    /// Runs a batch whose rows have their places in the cache: all threads walk the step list together; the leader reads the clock at the barriers.
    pub(super) fn forward<R: Recorder, O: Observer>(
        &mut self,
        batch: &Batch,
        wanted: &[usize],
        kv: &mut KvCache,
        recorder: &mut R,
        observer: &mut O,
    ) -> Result<(), GangPanic> {
        self.tiling.cut(batch.rows(), self.gang.size());
        let weights = (&*self.weights, &*self.packed);
        let call = Call::new(&self.plan, &self.arena, weights, batch.rows(), wanted, kv, &self.tiling);
        let call = &call;
        let arrivals = &recorder.arrivals();
        self.gang.run(
            |m| {
                for (i, step) in call.plan.steps.iter().enumerate() {
                    call.step(step, m);
                    arrivals.arrive(m.index(), i);
                    m.barrier();
                    recorder.step_done(i);
                    if O::ENABLED {
                        observer.after_step(i, &StepView { call });
                        // The others wait here, or they would run ahead into the buffers being looked at.
                        m.barrier();
                    }
                }
                // Here, not after the gang has come apart: the results are complete at the last barrier.
                if R::ENABLED {
                    recorder.end_forward();
                }
            },
            |m: &Member<'_>| {
                for (i, step) in call.plan.steps.iter().enumerate() {
                    call.step(step, m);
                    arrivals.arrive(m.index(), i);
                    m.barrier();
                    if O::ENABLED {
                        m.barrier();
                    }
                }
            },
        )?;
        self.logits_rows = wanted.len();
        self.count_reads(batch.len());
        Ok(())
    }

    /// Gives the embedding table's memory back once in a while.
    fn count_reads(&mut self, rows: usize) {
        self.table_reads += rows;
        if let Some(table) = self.table.filter(|_| self.table_reads >= TABLE_READS) {
            self.weights.release(table);
            self.table_reads = 0;
        }
    }
}
