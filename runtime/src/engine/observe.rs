//! Looking at the values of a running call.

use brick_graphs::WeightId;

use crate::exec::Call;
use crate::kv::KvCache;
use crate::plan::Plan;

/// Sees the values of a forward call after every step. For checks and traces; [`NoObserver`] compiles to nothing.
pub trait Observer {
    /// Whether anything is observed at all.
    const ENABLED: bool;
    /// Step `step` has finished on all threads.
    fn after_step(&mut self, step: usize, view: &StepView<'_>);
}

/// Observes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    const ENABLED: bool = false;
    #[inline(always)]
    fn after_step(&mut self, _: usize, _: &StepView<'_>) {}
}

/// Read access to a running call, between two steps.
pub struct StepView<'a> {
    pub(crate) call: &'a Call<'a>,
}

impl StepView<'_> {
    /// The plan that runs.
    pub fn plan(&self) -> &Plan {
        self.call.plan
    }

    /// The batch.
    pub fn rows(&self) -> &[crate::batch::Row] {
        self.call.rows
    }

    /// Rows whose logits are wanted.
    pub fn wanted(&self) -> &[usize] {
        self.call.wanted
    }

    /// Row `t` of a buffer. Meaningful for inputs and outputs of the step just done (and for all earlier ones in an engine
    /// made with `keep_values`).
    pub fn row(&self, slot: crate::plan::Slot, t: usize) -> &[f32] {
        self.call.row(slot, t)
    }

    /// The KV cache.
    pub fn kv(&self) -> &KvCache {
        self.call.kv()
    }

    /// Bytes of a weight.
    pub fn weight(&self, id: WeightId) -> &[u8] {
        self.call.weights.bytes(id)
    }
}
