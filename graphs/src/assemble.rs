//! From a list of drafts to a checked graph: names, weights, order, types, readers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use bricks::{BrickKind, Op, OpError, PortType, ValueType, WeightShape};
use petgraph::graph::{DiGraph, NodeIndex};

use crate::error::GraphError;
use crate::graph::{Brick, BrickId, Graph, Value, ValueId, WeightId, WeightInfo, Wire};

/// A brick before it is checked. Its index in the list of drafts decides its place where wires leave a choice.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) kind: BrickKind,
    pub(crate) layer: Option<u32>,
    pub(crate) op: Op,
    /// By input port; `None` where nothing is wired.
    pub(crate) inputs: Vec<Option<Source>>,
    pub(crate) weights: Vec<WeightId>,
    pub(crate) stands_for: Vec<String>,
}

/// An output port of a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source {
    pub(crate) node: usize,
    pub(crate) port: usize,
}

/// Number of output ports of an operation.
pub(crate) fn output_count(op: &Op) -> usize {
    match op {
        Op::Linear { parts, .. } => parts.len(),
        Op::AddRmsNorm { .. } | Op::RopeKvWrite { .. } => 2,
        Op::Input
        | Op::Embed { .. }
        | Op::RmsNorm { .. }
        | Op::Rope { .. }
        | Op::KvWrite { .. }
        | Op::Attention(_)
        | Op::Add
        | Op::GatedLinear { .. }
        | Op::GatedActivation { .. } => 1,
    }
}

/// A weight's shape in messages and exports, e.g. `Q4_1[576, 1536]`.
pub(crate) fn shape_text(s: &WeightShape) -> String {
    format!("{}[{}, {}]", s.dtype, s.rows, s.cols)
}

/// Checks drafts and makes the graph. See [`GraphBuilder::finish`](crate::GraphBuilder::finish) for what is checked.
pub(crate) fn assemble(drafts: Vec<Draft>, weights: Vec<WeightInfo>, output: Source) -> Result<Graph, GraphError> {
    check_sizes(&drafts, &weights)?;
    check_names(&drafts)?;
    check_weights(&drafts, &weights)?;
    let sources = check_wires(&drafts, output)?;
    let order = execution_order(&drafts, &sources)?;
    check_roles(&drafts, &order)?;
    let types = infer_types(&drafts, &sources, &weights, &order)?;
    let graph = freeze(drafts, &sources, weights, output, &order, types);
    check_readers(&graph)?;
    Ok(graph)
}

fn check_sizes(drafts: &[Draft], weights: &[WeightInfo]) -> Result<(), GraphError> {
    let limit = |what, found: usize| {
        if u32::try_from(found).is_ok_and(|n| n < u32::MAX) {
            Ok(())
        } else {
            Err(GraphError::TooLarge { what, found })
        }
    };
    limit("bricks", drafts.len())?;
    limit("weights", weights.len())?;
    limit("values", drafts.iter().map(|d| output_count(&d.op)).sum())
}

fn check_names(drafts: &[Draft]) -> Result<(), GraphError> {
    let mut seen = HashSet::new();
    match drafts.iter().find(|d| !seen.insert(d.name.as_str())) {
        Some(d) => Err(GraphError::DuplicateName { name: d.name.clone() }),
        None => Ok(()),
    }
}

fn check_weights(drafts: &[Draft], weights: &[WeightInfo]) -> Result<(), GraphError> {
    let mut read = vec![false; weights.len()];
    for d in drafts {
        for w in &d.weights {
            let Some(seen) = read.get_mut(w.index()) else {
                return Err(GraphError::UnknownWeight { brick: d.name.clone(), id: w.0, count: weights.len() });
            };
            *seen = true;
        }
    }
    match read.iter().position(|r| !r) {
        Some(i) => Err(GraphError::UnusedWeight { name: weights[i].name.clone() }),
        None => Ok(()),
    }
}

/// Every input port wired, and to an output that exists. Gives the wires without holes.
fn check_wires(drafts: &[Draft], output: Source) -> Result<Vec<Vec<Source>>, GraphError> {
    let exists = |s: Source, consumer: &str, consumer_port: usize| {
        let producer = drafts.get(s.node);
        let outputs = producer.map_or(0, |p| output_count(&p.op));
        if s.port < outputs {
            return Ok(s);
        }
        Err(GraphError::NoSuchOutput {
            producer: producer.map_or_else(|| "(unknown)".into(), |p| p.name.clone()),
            producer_port: s.port,
            outputs,
            consumer: consumer.to_owned(),
            consumer_port,
        })
    };
    exists(output, "graph output", 0)?;
    drafts
        .iter()
        .map(|d| {
            d.inputs
                .iter()
                .enumerate()
                .map(|(port, s)| {
                    let s = s.ok_or_else(|| GraphError::Unconnected { brick: d.name.clone(), port })?;
                    exists(s, &d.name, port)
                })
                .collect()
        })
        .collect()
}

/// Topological order (Kahn 1962); where several bricks could be next, the one with the smallest draft index is.
fn execution_order(drafts: &[Draft], sources: &[Vec<Source>]) -> Result<Vec<usize>, GraphError> {
    let mut waiting: Vec<usize> = sources.iter().map(Vec::len).collect();
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); drafts.len()];
    for (to, wires) in sources.iter().enumerate() {
        for s in wires {
            readers[s.node].push(to);
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> =
        waiting.iter().enumerate().filter(|(_, n)| **n == 0).map(|(i, _)| Reverse(i)).collect();
    let mut order = Vec::with_capacity(drafts.len());
    while let Some(Reverse(i)) = ready.pop() {
        order.push(i);
        for &r in &readers[i] {
            waiting[r] -= 1;
            if waiting[r] == 0 {
                ready.push(Reverse(r));
            }
        }
    }
    if order.len() == drafts.len() {
        return Ok(order);
    }
    Err(GraphError::Cycle { bricks: find_cycle(drafts, sources, &waiting) })
}

/// Walks backwards from a brick that never became ready, always to a producer that did not either, until one repeats.
fn find_cycle(drafts: &[Draft], sources: &[Vec<Source>], waiting: &[usize]) -> Vec<String> {
    let mut path: Vec<usize> = waiting.iter().position(|n| *n > 0).into_iter().collect();
    while let Some(next) = path.last().and_then(|i| sources[*i].iter().map(|s| s.node).find(|n| waiting[*n] > 0)) {
        if let Some(start) = path.iter().position(|i| *i == next) {
            return path[start..].iter().rev().map(|i| drafts[*i].name.clone()).collect();
        }
        path.push(next);
    }
    path.into_iter().map(|i| drafts[i].name.clone()).collect()
}

/// One input brick; every KV cache has a layer and one writer.
fn check_roles(drafts: &[Draft], order: &[usize]) -> Result<(), GraphError> {
    let mut input: Option<&str> = None;
    let mut writers: HashMap<u32, &str> = HashMap::new();
    for d in order.iter().map(|i| &drafts[*i]) {
        match d.op {
            Op::Input => {
                if let Some(first) = input.replace(&d.name) {
                    return Err(GraphError::SeveralInputs { first: first.to_owned(), second: d.name.clone() });
                }
            }
            Op::KvWrite { .. } | Op::RopeKvWrite { .. } => {
                let layer = d.layer.ok_or_else(|| GraphError::KvWithoutLayer { brick: d.name.clone() })?;
                if let Some(first) = writers.insert(layer, &d.name) {
                    return Err(GraphError::KvWrittenTwice { first: first.to_owned(), second: d.name.clone(), layer });
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Output types of every draft, from the operations themselves.
fn infer_types(
    drafts: &[Draft],
    sources: &[Vec<Source>],
    weights: &[WeightInfo],
    order: &[usize],
) -> Result<Vec<Vec<PortType>>, GraphError> {
    let mut types: Vec<Vec<PortType>> = vec![Vec::new(); drafts.len()];
    for &i in order {
        let d = &drafts[i];
        let inputs: Vec<PortType> = sources[i].iter().map(|s| types[s.node][s.port].clone()).collect();
        let shapes: Vec<WeightShape> = d.weights.iter().map(|w| weights[w.index()].shape).collect();
        let outputs = d.op.outputs(&inputs, &shapes).map_err(|e| explain(d, &sources[i], drafts, weights, e))?;
        debug_assert_eq!(outputs.len(), output_count(&d.op), "{}", d.op.name());
        types[i] = outputs;
    }
    Ok(types)
}

/// Adds to an operation's complaint what only the graph knows: who is at the other end.
fn explain(d: &Draft, sources: &[Source], drafts: &[Draft], weights: &[WeightInfo], e: OpError) -> GraphError {
    match e {
        OpError::Input { port, expected, found } if port < sources.len() => GraphError::Wire {
            producer: drafts[sources[port].node].name.clone(),
            producer_port: sources[port].port,
            consumer: d.name.clone(),
            consumer_port: port,
            expected,
            found,
        },
        OpError::Weight { index, role, expected, found } if index < d.weights.len() => GraphError::Weight {
            brick: d.name.clone(),
            weight: weights[d.weights[index].index()].name.clone(),
            role,
            expected,
            found,
        },
        source => GraphError::Op { brick: d.name.clone(), op: d.op.name(), source },
    }
}

fn freeze(
    drafts: Vec<Draft>,
    sources: &[Vec<Source>],
    weights: Vec<WeightInfo>,
    output: Source,
    order: &[usize],
    mut types: Vec<Vec<PortType>>,
) -> Graph {
    // Ids fit: `check_sizes` counted them.
    let mut first_value = vec![0u32; drafts.len()];
    let mut values: Vec<Value> = Vec::new();
    for (position, &i) in order.iter().enumerate() {
        first_value[i] = values.len() as u32;
        for (port, ty) in std::mem::take(&mut types[i]).into_iter().enumerate() {
            let id = ValueId(values.len() as u32);
            values.push(Value { id, producer: BrickId(position as u32), port, ty, consumers: Vec::new() });
        }
    }
    let value_of = |s: Source| ValueId(first_value[s.node] + s.port as u32);
    let mut drafts: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
    let mut topology = DiGraph::with_capacity(order.len(), values.len());
    for (position, &i) in order.iter().enumerate() {
        let Some(d) = drafts[i].take() else { continue }; // the order names every draft once
        let id = BrickId(position as u32);
        let inputs: Vec<ValueId> = sources[i].iter().map(|s| value_of(*s)).collect();
        for v in &inputs {
            let readers = &mut values[v.index()].consumers;
            if readers.last() != Some(&id) {
                readers.push(id);
            }
        }
        let first = first_value[i];
        let outputs = (first..first + output_count(&d.op) as u32).map(ValueId).collect();
        let wires: Vec<(usize, Wire)> = inputs
            .iter()
            .enumerate()
            .map(|(to_port, v)| {
                let v = &values[v.index()];
                (v.producer.index(), Wire { from_port: v.port, to_port })
            })
            .collect();
        let Draft { name, kind, layer, op, weights, stands_for, .. } = d;
        let node = topology.add_node(Brick { id, name, kind, layer, op, inputs, outputs, weights, stands_for });
        for (from, wire) in wires {
            topology.add_edge(NodeIndex::new(from), node, wire);
        }
    }
    Graph { topology, values, weights, output: value_of(output) }
}

/// The output is activations, and nothing else is computed in vain.
fn check_readers(graph: &Graph) -> Result<(), GraphError> {
    let output = graph.value(graph.output());
    let name = |v: &Value| graph.brick(v.producer).name.clone();
    if output.ty.value != ValueType::F32 {
        return Err(GraphError::NotAnOutput { brick: name(output), port: output.port, found: output.ty.to_string() });
    }
    // A KV cache outlives the call: later calls read what this one wrote.
    let dangling =
        graph.values().iter().find(|v| v.consumers.is_empty() && v.id != output.id && v.ty.value != ValueType::KvCache);
    match dangling {
        Some(v) => Err(GraphError::Dangling { brick: name(v), port: v.port, ty: v.ty.to_string() }),
        None => Ok(()),
    }
}
