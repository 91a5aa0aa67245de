//! Model → layer → brick → kernel, with the times of a profile.

use super::graph::ExecutionGraph;
use super::node::{Dim3, ExecNode};
use crate::profile::{LayerRow, PhaseProfile, Profile, StepLaunch, StepRow};
use crate::step::Phase;

impl ExecutionGraph {
    /// The graph of a phase, with mean times and bounds per token; `None` if no forward of the phase was recorded.
    ///
    /// Kernels show the gang's threads and the mean rows of a batch as their launch; on a GPU, grid, block and shared memory. Where steps were not timed, layers are
    /// all there is.
    pub fn from_profile(profile: &Profile, phase: Phase) -> Option<Self> {
        let p = profile.phase(phase)?;
        let mut graph = Self::new();
        let wall = p.measured.wall_us / p.measured.tokens.max(1) as f64;
        let root = ExecNode::function(format!("{} {phase}", profile.model.name));
        graph.push_scope(root.timed(ns(wall)).bounded(bound(p.steps.iter())));
        if p.steps.is_empty() {
            for row in &p.layers {
                graph.add(layer(row));
            }
        } else {
            graph.steps(p, threads(profile), &profile.launches);
        }
        graph.pop_scope().ok()?;
        Some(graph)
    }

    fn steps(&mut self, p: &PhaseProfile, threads: u32, launches: &[StepLaunch]) {
        let rows = u32::try_from(p.derived.mean_extent.tokens).unwrap_or(u32::MAX);
        let mut open: Option<u32> = None;
        let mut layers = p.layers.iter().filter(|l| l.layer.is_some());
        for step in &p.steps {
            if open.is_some() && open != step.layer {
                let _ = self.pop_scope();
                open = None;
            }
            if let Some(index) = step.layer.filter(|_| open.is_none()) {
                // Rows of layers come in the order of the plan, as steps do.
                let row = layers.by_ref().find(|l| l.layer == Some(index));
                let node = row.map_or_else(|| ExecNode::layer(index), layer);
                self.push_scope(node.bounded(bound(p.steps.iter().filter(|s| s.layer == Some(index)))));
                open = Some(index);
            }
            let time = ns(step.measured.mean_us_per_token);
            self.push_scope(ExecNode::brick(&step.name).timed(time).bounded(bound(std::iter::once(step))));
            if launches.is_empty() {
                self.record_kernel_launch(&step.kernel, threads, Dim3::from(rows), 0);
            }
            for l in launches.iter().filter(|l| l.step == step.name) {
                let dim = |[x, y, z]: [u32; 3]| Dim3(x, y, z);
                self.record_kernel_launch(&l.kernel, dim(l.grid), dim(l.block), l.shared_bytes);
            }
            let _ = self.pop_scope();
        }
        if open.is_some() {
            let _ = self.pop_scope();
        }
    }
}

/// Least time of steps together, in nanoseconds per token; `None` unless each has a bound.
fn bound<'a>(mut steps: impl Iterator<Item = &'a StepRow>) -> Option<u64> {
    let first = steps.next()?.derived.bound.as_ref()?.us_per_token;
    let us = steps.try_fold(first, |sum, s| Some(sum + s.derived.bound.as_ref()?.us_per_token))?;
    Some(ns(us))
}

fn threads(profile: &Profile) -> u32 {
    u32::try_from(profile.run.threads).unwrap_or(u32::MAX)
}

fn layer(row: &LayerRow) -> ExecNode {
    let node = row.layer.map_or_else(|| ExecNode::function("no layer"), ExecNode::layer);
    node.timed(ns(row.measured.mean_us_per_token))
}

fn ns(us: f64) -> u64 {
    (us * 1e3).round() as u64
}
