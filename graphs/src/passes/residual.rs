//! Fusing a residual addition with the norm that follows it.

use std::collections::HashSet;

use bricks::{Op, Rows};

use super::rewrite::{Fusion, apply};
use crate::error::GraphError;
use crate::graph::{Brick, BrickId, Graph};

/// Makes `sum = a + b; y = norm(sum)` one brick with two outputs, where the sum is needed elsewhere too (the residual
/// stream of a decoder: always, but for the end). The sum is not read back for the norm: a fifth of the bytes saved.
///
/// The new brick is accounted under the norm's kind and layer. A norm that gathers wanted rows stays as it is, because the
/// sum has all rows.
///
/// # Errors
/// None for a checked graph; the result is checked like any other.
pub fn fuse_residual_norm(graph: &Graph) -> Result<Graph, GraphError> {
    let mut taken: HashSet<BrickId> = HashSet::new();
    let mut fusions = Vec::new();
    for norm in graph.bricks() {
        if let Some(f) = candidate(graph, norm)
            && f.members.iter().all(|m| !taken.contains(m))
        {
            taken.extend(&f.members);
            fusions.push(f);
        }
    }
    apply(graph, &fusions)
}

fn candidate(graph: &Graph, norm: &Brick) -> Option<Fusion> {
    let (Op::RmsNorm { eps, rows: Rows::All }, [sum], [y]) =
        (&norm.op, norm.inputs.as_slice(), norm.outputs.as_slice())
    else {
        return None;
    };
    let sum = graph.value(*sum);
    let add = graph.brick(sum.producer);
    let needed_elsewhere = sum.consumers.iter().any(|c| *c != norm.id) || graph.output() == sum.id;
    if add.op != Op::Add || !needed_elsewhere {
        return None;
    }
    Some(Fusion {
        members: vec![add.id, norm.id],
        name: prefixed("add_", &norm.name),
        kind: norm.kind,
        layer: norm.layer,
        op: Op::AddRmsNorm { eps: *eps },
        inputs: add.inputs.clone(),
        weights: norm.weights.clone(),
        outputs: vec![sum.id, *y],
    })
}

/// `blk.3.ffn_norm` → `blk.3.add_ffn_norm`. Named after the norm alone, since the addition may belong to the layer before.
fn prefixed(prefix: &str, name: &str) -> String {
    let (path, last) = name.rfind('.').map_or(("", name), |dot| name.split_at(dot + 1));
    format!("{path}{prefix}{last}")
}
