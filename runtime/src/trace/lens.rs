//! The logit lens: the residual stream of every layer through the final norm and the LM head.

use std::sync::Arc;

use brick_graphs::{Brick, Graph};
use brick_profiler::trace::LogitEvolutionTrace;
use bricks::reference::{self, Arithmetic, Weight};
use bricks::{BrickError, BrickKind, Op};

use super::TraceError;
use crate::sampler::top_logprobs;
use crate::weights::Weights;

/// A position whose token is known.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Forward call.
    pub(super) step: usize,
    /// Position.
    pub(super) position: usize,
    /// Residual stream after each of the layers, `[layers, hidden]`.
    pub(super) residuals: Vec<f32>,
    /// The engine's own logits.
    pub(super) own: Vec<f32>,
    /// The token that was chosen, or one whose logit is not a number.
    pub(super) token: u32,
}

/// Final norm and LM head in reference arithmetic, rounded as the kernels round: after the last layer it gives the engine's own
/// logits, up to the order of additions.
pub(super) struct Lens<'g> {
    graph: &'g Graph,
    weights: Arc<dyn Weights>,
    norm: &'g Brick,
    head: &'g Brick,
}

impl<'g> Lens<'g> {
    pub(super) fn new(graph: &'g Graph, weights: Arc<dyn Weights>) -> Result<Self, TraceError> {
        let of = |kind: BrickKind| graph.bricks().find(|b| b.kind == kind && b.layer.is_none());
        let end = graph.bricks().filter_map(|b| b.layer).max().unwrap_or(0);
        let fail = |expected| TraceError::Graph { layer: end, expected };
        let norm = of(BrickKind::FinalNorm).ok_or_else(|| fail("a final norm after the last layer"))?;
        let head = of(BrickKind::LmHead).ok_or_else(|| fail("an LM head after the last layer"))?;
        Ok(Self { graph, weights, norm, head })
    }

    fn weights_of(&self, brick: &Brick) -> Result<Vec<Weight<'_>>, BrickError> {
        let one = |&w: &brick_graphs::WeightId| {
            let shape = self.graph.weight(w).shape;
            Weight::new(shape.dtype, shape.rows, shape.cols, self.weights.bytes(w))
        };
        brick.weights.iter().map(one).collect()
    }

    /// Logits of rows of the residual stream: `[n, hidden]` to `[n, vocab]`.
    fn logits(&self, residuals: &[f32]) -> Result<Vec<f32>, BrickError> {
        let norm = match &self.norm.op {
            // The rows are wanted, all of them.
            Op::RmsNorm { eps, .. } => Op::RmsNorm { eps: *eps, rows: bricks::Rows::All },
            op => op.clone(),
        };
        let context = reference::Context { arithmetic: Arithmetic::Q8, ..reference::Context::default() };
        let normed = reference::run(&norm, &[residuals], &self.weights_of(self.norm)?, &context)?.concat();
        Ok(reference::run(&self.head.op, &[&normed], &self.weights_of(self.head)?, &context)?.concat())
    }

    fn evolution(&self, seen: &Seen, layers: &[u32], tracked: usize) -> Result<LogitEvolutionTrace, TraceError> {
        let source = |source| TraceError::Reference { brick: self.head.name.clone(), source: Box::new(source) };
        let logits = self.logits(&seen.residuals).map_err(source)?;
        let rows: Vec<&[f32]> = logits.chunks_exact(seen.own.len().max(1)).collect();
        let (best, _) = top_logprobs(&seen.own, tracked, None);
        let others = best.iter().map(|t| t.id).filter(|id| *id != seen.token);
        let tokens: Vec<u32> = std::iter::once(seen.token).chain(others).take(tracked.max(1)).collect();
        Ok(LogitEvolutionTrace::new((seen.step, seen.position), layers, &rows, &seen.own, &tokens))
    }

    /// The lens at every position, in order. Positions are shared out to `threads`: the reference is slow on purpose.
    pub(super) fn all(
        &self,
        seen: &[Seen],
        layers: &[u32],
        tracked: usize,
        threads: usize,
    ) -> Result<Vec<LogitEvolutionTrace>, TraceError> {
        let share = seen.len().div_ceil(threads.max(1)).max(1);
        let of = |part: &[Seen]| -> Result<Vec<_>, TraceError> {
            part.iter().map(|s| self.evolution(s, layers, tracked)).collect()
        };
        let parts: Vec<Result<Vec<_>, TraceError>> = std::thread::scope(|scope| {
            let workers: Vec<_> = seen.chunks(share).map(|part| scope.spawn(move || of(part))).collect();
            workers.into_iter().map(|w| w.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
        });
        Ok(parts.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }
}
