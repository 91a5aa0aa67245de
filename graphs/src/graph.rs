//! The finished graph and what it is made of.

use bricks::{BrickKind, Cost, Extent, Op, PortType, WeightShape};
use petgraph::graph::{DiGraph, NodeIndex};
use serde::{Deserialize, Serialize};

use crate::assemble::{Draft, Source, assemble};
use crate::error::GraphError;

/// A brick of a graph: dense, and in execution order (`BrickId(0)` runs first).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BrickId(pub u32);

/// A value of a graph: dense, ordered by the brick that produces it, then by port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ValueId(pub u32);

/// A weight of a graph: dense, in order of registration. Passes keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WeightId(pub u32);

macro_rules! dense_id {
    ($($id:ident),*) => {$(
        impl $id {
            /// The id as an index of a dense table.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}
dense_id!(BrickId, ValueId, WeightId);

/// A weight, by reference: the name of a tensor and its shape, never data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightInfo {
    /// Name of the tensor in the model file.
    pub name: String,
    /// Storage type and shape.
    pub shape: WeightShape,
}

/// One operation of a graph with its parameters, ports and weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Brick {
    /// Position in execution order.
    pub id: BrickId,
    /// Stable path, unique in the graph, e.g. `blk.3.attn_q`.
    pub name: String,
    /// The category it is accounted under.
    pub kind: BrickKind,
    /// Transformer layer, if it belongs to one.
    pub layer: Option<u32>,
    /// What it computes.
    pub op: Op,
    /// What it reads, by input port.
    pub inputs: Vec<ValueId>,
    /// What it gives, by output port.
    pub outputs: Vec<ValueId>,
    /// Weights in the order its operation states.
    pub weights: Vec<WeightId>,
    /// Names of the bricks that this one replaced when it was fused; empty for a brick that was never fused.
    pub stands_for: Vec<String>,
}

/// What flows from one brick to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Position in the table of values.
    pub id: ValueId,
    /// Brick that gives it.
    pub producer: BrickId,
    /// Output port of the producer.
    pub port: usize,
    /// Element type and symbolic shape.
    pub ty: PortType,
    /// Bricks that read it, each once, in execution order.
    pub consumers: Vec<BrickId>,
}

/// An edge of the underlying graph: output port to input port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wire {
    /// Output port of the producer.
    pub from_port: usize,
    /// Input port of the consumer.
    pub to_port: usize,
}

/// A typed static graph. Only [`GraphBuilder::finish`](crate::GraphBuilder::finish) and the passes make one, so that
/// every graph there is has been checked: ports agree, ids are dense and in execution order, every weight is read.
///
/// The accessors that take an id panic when it is not of this graph, as an index out of bounds does.
#[derive(Debug, Clone)]
pub struct Graph {
    /// Node index = [`BrickId`].
    pub(crate) topology: DiGraph<Brick, Wire>,
    pub(crate) values: Vec<Value>,
    pub(crate) weights: Vec<WeightInfo>,
    pub(crate) output: ValueId,
}

impl Graph {
    /// Bricks in execution order.
    pub fn bricks(&self) -> impl ExactSizeIterator<Item = &Brick> + DoubleEndedIterator {
        self.topology.raw_nodes().iter().map(|n| &n.weight)
    }

    /// Number of bricks.
    pub fn len(&self) -> usize {
        self.topology.node_count()
    }

    /// Whether there are no bricks (never true of a finished graph).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A brick by id.
    pub fn brick(&self, id: BrickId) -> &Brick {
        &self.topology[NodeIndex::new(id.index())]
    }

    /// A brick by name.
    pub fn find(&self, name: &str) -> Option<&Brick> {
        self.bricks().find(|b| b.name == name)
    }

    /// Every value, by id.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// A value by id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// Every weight, by id.
    pub fn weights(&self) -> &[WeightInfo] {
        &self.weights
    }

    /// A weight by id.
    pub fn weight(&self, id: WeightId) -> &WeightInfo {
        &self.weights[id.index()]
    }

    /// The value that a forward call is made for: the logits.
    pub fn output(&self) -> ValueId {
        self.output
    }

    /// Types of a brick's inputs, by port.
    pub fn input_types(&self, id: BrickId) -> Vec<PortType> {
        self.brick(id).inputs.iter().map(|v| self.value(*v).ty.clone()).collect()
    }

    /// Shapes of a brick's weights, in its own order.
    pub fn weight_shapes(&self, id: BrickId) -> Vec<WeightShape> {
        self.brick(id).weights.iter().map(|w| self.weight(*w).shape).collect()
    }

    /// What a brick moves and computes in a call of the given size. Derived from shapes.
    pub fn cost(&self, id: BrickId, extent: &Extent) -> Cost {
        self.brick(id).op.cost(&self.input_types(id), &self.weight_shapes(id), extent)
    }

    /// The sum of [`Graph::cost`] over all bricks.
    pub fn total_cost(&self, extent: &Extent) -> Cost {
        self.bricks().map(|b| self.cost(b.id, extent)).sum()
    }

    /// Bytes of all weights in storage, each counted once (a tied embedding is one weight).
    pub fn stored_weight_bytes(&self) -> u64 {
        self.weights.iter().map(|w| w.shape.bytes()).sum()
    }

    /// The underlying petgraph: node index = [`BrickId`], edges carry ports.
    pub fn petgraph(&self) -> &DiGraph<Brick, Wire> {
        &self.topology
    }

    /// A stable fingerprint of the structure: names, operations with their parameters, wiring, weights with their shapes.
    /// Equal for equal graphs on every machine; it says nothing about the weights' data.
    pub fn hash(&self) -> u64 {
        let mut h = Fnv::new();
        for w in &self.weights {
            h.field(&w.name);
            h.field(&format!("{:?}", w.shape));
        }
        for b in self.bricks() {
            h.field(&b.name);
            // Debug of floats is their shortest exact decimal, so different parameters give different text.
            h.field(&format!("{:?}{:?}{:?}", b.kind, b.layer, b.op));
            h.field(&format!("{:?}{:?}{:?}", b.inputs, b.outputs, b.weights));
            for s in &b.stands_for {
                h.field(s);
            }
        }
        h.field(&format!("{:?}", self.output));
        h.0
    }

    /// [`Graph::hash`] in 16 hexadecimal digits.
    pub fn hash_hex(&self) -> String {
        format!("{:016x}", self.hash())
    }

    /// The graph as the builder would have described it, for checking again or for rewriting.
    pub(crate) fn drafts(&self) -> Vec<Draft> {
        self.bricks()
            .map(|b| Draft {
                name: b.name.clone(),
                kind: b.kind,
                layer: b.layer,
                op: b.op.clone(),
                inputs: b.inputs.iter().map(|v| Some(self.source(*v))).collect(),
                weights: b.weights.clone(),
                stands_for: b.stands_for.clone(),
            })
            .collect()
    }

    /// Where a value comes from, in terms of [`Graph::drafts`].
    pub(crate) fn source(&self, id: ValueId) -> Source {
        let v = self.value(id);
        Source { node: v.producer.index(), port: v.port }
    }

    /// Checks everything again, as if the graph had just been built.
    pub(crate) fn recheck(&self) -> Result<Graph, GraphError> {
        assemble(self.drafts(), self.weights.clone(), self.source(self.output))
    }
}

impl PartialEq for Graph {
    fn eq(&self, other: &Self) -> bool {
        // Wires follow from the bricks' inputs, so they need no comparison of their own.
        self.output == other.output
            && self.weights == other.weights
            && self.values == other.values
            && self.bricks().eq(other.bricks())
    }
}

/// FNV-1a, 64 bits. The standard library's hasher promises no stable result across releases.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Hashes a string and its end, so that `("ab", "c")` and `("a", "bc")` differ.
    fn field(&mut self, s: &str) {
        for b in s.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
