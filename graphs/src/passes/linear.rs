//! Fusing matrices that read the same activations.

use std::collections::HashMap;

use bricks::{BrickKind, Op, Rows};

use super::rewrite::{Fusion, apply, joined_name};
use crate::error::GraphError;
use crate::graph::{Brick, Graph, ValueId};

/// Makes the query, key and value projections of a layer one brick with three parts.
///
/// The activations are read (and quantised) once instead of three times, and one step has enough rows to share out among
/// threads where the key and value matrices alone, narrow under grouped-query attention, have not.
///
/// # Errors
/// None for a checked graph; the result is checked like any other.
pub fn fuse_qkv(graph: &Graph) -> Result<Graph, GraphError> {
    fuse_siblings(graph, BrickKind::Qkv)
}

/// Makes the gate and up projections of a feed-forward network one brick with two parts.
///
/// # Errors
/// None for a checked graph; the result is checked like any other.
pub fn fuse_gate_up(graph: &Graph) -> Result<Graph, GraphError> {
    fuse_siblings(graph, BrickKind::GateUp)
}

/// Fuses all linear bricks of one kind that read the same value in the same layer.
fn fuse_siblings(graph: &Graph, kind: BrickKind) -> Result<Graph, GraphError> {
    let mut groups: Vec<Vec<&Brick>> = Vec::new();
    let mut group_of: HashMap<(Option<u32>, Rows, ValueId), usize> = HashMap::new();
    for b in graph.bricks().filter(|b| b.kind == kind) {
        let (Op::Linear { rows, .. }, [x]) = (&b.op, b.inputs.as_slice()) else { continue };
        let group = *group_of.entry((b.layer, *rows, *x)).or_insert(groups.len());
        match groups.get_mut(group) {
            Some(g) => g.push(b),
            None => groups.push(vec![b]),
        }
    }
    let fusions: Vec<Fusion> = groups.iter().filter(|g| g.len() > 1).filter_map(|g| merge(g)).collect();
    apply(graph, &fusions)
}

fn merge(group: &[&Brick]) -> Option<Fusion> {
    let first = group.first()?;
    let Op::Linear { input, rows, .. } = first.op else { return None };
    let parts = group.iter().flat_map(|b| if let Op::Linear { parts, .. } = &b.op { parts.as_slice() } else { &[] });
    let names: Vec<&str> = group.iter().map(|b| b.name.as_str()).collect();
    Some(Fusion {
        members: group.iter().map(|b| b.id).collect(),
        name: joined_name(&names),
        kind: first.kind,
        layer: first.layer,
        op: Op::Linear { input, parts: parts.cloned().collect(), rows },
        inputs: first.inputs.clone(),
        weights: group.iter().flat_map(|b| b.weights.iter().copied()).collect(),
        outputs: group.iter().flat_map(|b| b.outputs.iter().copied()).collect(),
    })
}
