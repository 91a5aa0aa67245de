//! Where in a plan the values of a layer are: fusions move them, so the graph is asked who reads what.

use brick_graphs::{Brick, Graph, ValueId};
use bricks::{BrickKind, Op};

use super::TraceError;
use crate::check::ports;
use crate::plan::{Plan, Slot, StepKind};

/// A value of a layer. In the order in which the values of one step are to be looked at: a step that ends a layer and begins the
/// next one gives the output of the first before the input of the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Output,
    Input,
    Normed,
    Attention,
    Ffn,
}

/// A value to look at after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) layer: u32,
    pub(super) place: Place,
    pub(super) slot: Slot,
}

/// What to look at after each step of a plan.
#[derive(Debug)]
pub(super) struct Wiring {
    /// By step.
    probes: Vec<Vec<Probe>>,
    /// Number of layers.
    pub(super) layers: u32,
}

impl Wiring {
    pub(super) fn new(graph: &Graph, plan: &Plan) -> Result<Self, TraceError> {
        let slots = Slots::new(graph, plan);
        let mut probes: Vec<Vec<Probe>> = vec![Vec::new(); plan.steps.len()];
        let layers = graph.bricks().filter_map(|b| b.layer).max().map_or(0, |l| l + 1);
        for layer in 0..layers {
            for (place, value) in layer_values(graph, layer)? {
                let expected = "a step that gives every value of the layer";
                let (step, slot) = slots.find(value).ok_or(TraceError::Graph { layer, expected })?;
                probes[step].push(Probe { layer, place, slot });
            }
        }
        for of_step in &mut probes {
            of_step.sort_by_key(|p| p.place);
        }
        Ok(Self { probes, layers })
    }

    /// What to look at after a step.
    pub(super) fn after(&self, step: usize) -> &[Probe] {
        &self.probes[step]
    }
}

/// The five values of a layer.
fn layer_values(graph: &Graph, layer: u32) -> Result<[(Place, ValueId); 5], TraceError> {
    let fail = |expected| TraceError::Graph { layer, expected };
    let of = |kind: BrickKind, expected| {
        graph.bricks().find(|b| b.layer == Some(layer) && b.kind == kind).ok_or_else(|| fail(expected))
    };
    // The norm that the query projection reads.
    let qkv = of(BrickKind::Qkv, "a QKV brick")?;
    let norm = graph.brick(graph.value(qkv.inputs[0]).producer);
    let (input, normed) = match norm.op {
        Op::RmsNorm { .. } => (norm.inputs[0], norm.outputs[0]),
        Op::AddRmsNorm { .. } => (norm.outputs[0], norm.outputs[1]),
        _ => return Err(fail("a norm before the QKV brick")),
    };
    let attention = of(BrickKind::OProj, "an output projection of attention")?;
    let ffn = of(BrickKind::Down, "a down projection")?;
    let adds = |b: &&Brick| matches!(b.op, Op::Add | Op::AddRmsNorm { .. });
    let consumers = &graph.value(ffn.outputs[0]).consumers;
    let residual = consumers
        .iter()
        .map(|&c| graph.brick(c))
        .find(adds)
        .ok_or_else(|| fail("a residual after the down projection"))?;
    Ok([
        (Place::Input, input),
        (Place::Normed, normed),
        (Place::Attention, attention.outputs[0]),
        (Place::Ffn, ffn.outputs[0]),
        (Place::Output, residual.outputs[0]),
    ])
}

/// Where each value of a graph is written.
struct Slots {
    /// By value.
    at: Vec<Option<(usize, Slot)>>,
}

impl Slots {
    fn new(graph: &Graph, plan: &Plan) -> Self {
        let mut at = vec![None; graph.values().len()];
        for (i, step) in plan.steps.iter().enumerate() {
            if matches!(step.kind, StepKind::Quantize { .. }) {
                continue;
            }
            for (&value, slot) in graph.brick(step.brick).outputs.iter().zip(ports(step).outputs) {
                at[value.index()] = Some((i, slot));
            }
        }
        Self { at }
    }

    fn find(&self, value: ValueId) -> Option<(usize, Slot)> {
        self.at[value.index()]
    }
}
