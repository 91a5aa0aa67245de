//! Fusing the gated activation into the projections before it.

use bricks::{LinearPart, Op, Rows};

use super::rewrite::{Fusion, apply};
use crate::error::GraphError;
use crate::graph::{Brick, Graph};

/// Makes gate and up projections (already one brick, see [`fuse_gate_up`](super::fuse_gate_up)) and the activation of their
/// outputs one brick. Gate and up stay in the caches of the thread that computed them, and one barrier per layer disappears.
///
/// Nobody but the activation may read them. Accounted under the kind, layer and name of the projections.
///
/// # Errors
/// None for a checked graph; the result is checked like any other.
pub fn fuse_gated(graph: &Graph) -> Result<Graph, GraphError> {
    let fusions: Vec<Fusion> = graph.bricks().filter_map(|act| candidate(graph, act)).collect();
    apply(graph, &fusions)
}

fn candidate(graph: &Graph, activation: &Brick) -> Option<Fusion> {
    let (Op::GatedActivation { act }, [gate, up]) = (&activation.op, activation.inputs.as_slice()) else { return None };
    let linear = graph.brick(graph.value(*gate).producer);
    let Op::Linear { input, parts, rows: Rows::All } = &linear.op else { return None };
    let parts: [LinearPart; 2] = parts.clone().try_into().ok()?;
    let private = |v| graph.value(v).consumers == [activation.id] && graph.output() != v;
    if linear.outputs != [*gate, *up] || gate == up || !private(*gate) || !private(*up) {
        return None;
    }
    Some(Fusion {
        members: vec![linear.id, activation.id],
        name: linear.name.clone(),
        kind: linear.kind,
        layer: linear.layer,
        op: Op::GatedLinear { input: *input, parts, act: *act },
        inputs: linear.inputs.clone(),
        weights: linear.weights.clone(),
        outputs: activation.outputs.clone(),
    })
}
