//! Replacing several bricks by one.

use std::collections::{HashMap, HashSet};

use bricks::{BrickKind, Op};

use crate::assemble::{Draft, Source, assemble};
use crate::error::GraphError;
use crate::graph::{BrickId, Graph, ValueId, WeightId};

/// Bricks that become one.
#[derive(Debug, Clone)]
pub(super) struct Fusion {
    /// What goes, in execution order.
    pub(super) members: Vec<BrickId>,
    /// Name of the new brick; made unique if another brick has it.
    pub(super) name: String,
    pub(super) kind: BrickKind,
    pub(super) layer: Option<u32>,
    pub(super) op: Op,
    /// What it reads, values of the old graph.
    pub(super) inputs: Vec<ValueId>,
    pub(super) weights: Vec<WeightId>,
    /// The value of the old graph that each output port gives.
    pub(super) outputs: Vec<ValueId>,
}

/// Applies fusions that share no bricks. A fusion that would make bricks wait for each other is left out.
pub(super) fn apply(graph: &Graph, fusions: &[Fusion]) -> Result<Graph, GraphError> {
    let convex: Vec<&Fusion> = fusions.iter().filter(|f| is_convex(graph, &f.members)).collect();
    match rebuild(graph, &convex) {
        // Each alone is possible, but two of them wait for each other: keep as many as possible, first come first served.
        Err(GraphError::Cycle { .. }) => {
            let mut kept: Vec<&Fusion> = Vec::new();
            for f in convex {
                kept.push(f);
                if matches!(rebuild(graph, &kept), Err(GraphError::Cycle { .. })) {
                    kept.pop();
                }
            }
            rebuild(graph, &kept)
        }
        result => result,
    }
}

/// Whether no path leaves the members and comes back: then one brick can stand in their place.
fn is_convex(graph: &Graph, members: &[BrickId]) -> bool {
    let Some(last) = members.iter().max() else { return true };
    let readers = |b: BrickId| graph.brick(b).outputs.iter().flat_map(|v| &graph.value(*v).consumers).copied();
    let mut seen: HashSet<BrickId> = members.iter().copied().collect();
    let mut open: Vec<BrickId> = members.iter().flat_map(|m| readers(*m)).filter(|b| !members.contains(b)).collect();
    while let Some(b) = open.pop() {
        if members.contains(&b) {
            return false;
        }
        // Ids are in execution order: nothing behind the last member leads back to one.
        if b < *last && seen.insert(b) {
            open.extend(readers(b));
        }
    }
    true
}

fn rebuild(graph: &Graph, fusions: &[&Fusion]) -> Result<Graph, GraphError> {
    let fusion_of: HashMap<BrickId, &Fusion> =
        fusions.iter().flat_map(|f| f.members.iter().map(move |m| (*m, *f))).collect();
    let starts = |f: &Fusion, b: BrickId| f.members.iter().min() == Some(&b);

    // First the places: a fused brick stands where its first member stood.
    let mut source_of: Vec<Option<Source>> = vec![None; graph.values().len()];
    let mut node = 0;
    for b in graph.bricks() {
        let outputs = match fusion_of.get(&b.id) {
            None => &b.outputs,
            Some(f) if starts(f, b.id) => &f.outputs,
            Some(_) => continue,
        };
        for (port, v) in outputs.iter().enumerate() {
            source_of[v.index()] = Some(Source { node, port });
        }
        node += 1;
    }

    let mut names: HashSet<String> =
        graph.bricks().filter(|b| !fusion_of.contains_key(&b.id)).map(|b| b.name.clone()).collect();
    let mut drafts = Vec::with_capacity(node);
    for (b, old) in graph.bricks().zip(graph.drafts()) {
        match fusion_of.get(&b.id) {
            None => {
                let inputs = b.inputs.iter().map(|v| source_of[v.index()]).collect();
                drafts.push(Draft { inputs, ..old });
            }
            Some(f) if starts(f, b.id) => drafts.push(Draft {
                name: unique(&mut names, &f.name),
                kind: f.kind,
                layer: f.layer,
                op: f.op.clone(),
                inputs: f.inputs.iter().map(|v| source_of[v.index()]).collect(),
                weights: f.weights.clone(),
                stands_for: f.members.iter().flat_map(|m| originals(graph, *m)).collect(),
            }),
            Some(_) => {}
        }
    }
    let output = source_of[graph.output().index()]
        .ok_or_else(|| GraphError::Unconnected { brick: "graph output".into(), port: 0 })?;
    assemble(drafts, graph.weights().to_vec(), output)
}

/// The bricks of the unfused graph that a brick stands for.
fn originals(graph: &Graph, id: BrickId) -> Vec<String> {
    let b = graph.brick(id);
    if b.stands_for.is_empty() { vec![b.name.clone()] } else { b.stands_for.clone() }
}

fn unique(taken: &mut HashSet<String>, name: &str) -> String {
    let mut candidate = name.to_owned();
    let mut n = 1u32;
    while !taken.insert(candidate.clone()) {
        n += 1;
        candidate = format!("{name}.{n}");
    }
    candidate
}

/// One name for several bricks: the path they share, then what differs (`blk.0.attn_q`, `…_k`, `…_v` → `blk.0.attn_qkv`;
/// `blk.0.ffn_gate`, `blk.0.ffn_up` → `blk.0.ffn_gate_up`).
pub(super) fn joined_name(names: &[&str]) -> String {
    let Some((first, rest)) = names.split_first() else { return String::new() };
    let shared = rest
        .iter()
        .fold(first.len(), |n, name| first.bytes().zip(name.bytes()).take(n).take_while(|(a, b)| a == b).count());
    // Only whole path components are shared: `rope_k`, `rope_q` share `rope_`, but `gate`, `glu` share nothing.
    let cut = first.as_bytes()[..shared].iter().rposition(|b| matches!(b, b'.' | b'_')).map_or(0, |i| i + 1);
    let tails: Vec<&str> = names.iter().map(|n| &n[cut..]).collect();
    let glue = if tails.iter().all(|t| t.len() == 1) { "" } else { "_" };
    format!("{}{}", &first[..cut], tails.join(glue))
}
