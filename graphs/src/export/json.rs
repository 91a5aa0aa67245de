//! The graph as data.
//!
//! The schema, version 1; ids are positions in the lists, so `values[3].id` is 3:
//!
//! | path | type | meaning |
//! | --- | --- | --- |
//! | `schema_version` | integer | 1; grows when a field changes its meaning or goes |
//! | `hash` | 16 hex digits | [`Graph::hash`] |
//! | `output` | value id | the logits |
//! | `extent` | `{tokens, wanted, context, pairs}` | the call that the costs are for |
//! | `total_cost` | cost | sum over `bricks` |
//! | `bricks[]` | object | in execution order |
//! | `bricks[].id`, `.name`, `.kind` | integer, string, string | `kind` is one of [`BrickKind`]'s names in snake case |
//! | `bricks[].layer` | integer or null | transformer layer |
//! | `bricks[].op` | object | `op` names the operation, the other fields are its parameters ([`Op`]) |
//! | `bricks[].inputs`, `.outputs` | value ids | by port |
//! | `bricks[].weights` | weight ids | in the order the operation states |
//! | `bricks[].stands_for` | strings | bricks that a fused one replaced |
//! | `bricks[].cost` | `{weight_bytes, read_bytes, write_bytes, int_ops, flops}` | derived from shapes |
//! | `values[]` | `{id, producer, port, type, consumers}` | `type` is `{value, dims}`, a dim is `"tokens"`, `"wanted"`, `"context"` or `{"fixed": n}` |
//! | `weights[]` | `{id, name, dtype, rows, cols, bytes}` | a tensor by name, never its data |

use bricks::{BrickKind, Cost, DType, Extent, Op, PortType};
use serde::{Deserialize, Serialize};

use crate::graph::{BrickId, Graph, ValueId, WeightId};

/// Version of the schema of [`GraphDoc`].
pub const SCHEMA_VERSION: u32 = 1;

/// A graph as data; see the fields of its parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphDoc {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// [`Graph::hash_hex`].
    pub hash: String,
    /// The logits.
    pub output: ValueId,
    /// The call that the costs are for.
    pub extent: Extent,
    /// Sum of all bricks' costs.
    pub total_cost: Cost,
    /// In execution order.
    pub bricks: Vec<BrickDoc>,
    /// By id.
    pub values: Vec<ValueDoc>,
    /// By id.
    pub weights: Vec<WeightDoc>,
}

/// A brick as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BrickDoc {
    /// Position in execution order.
    pub id: BrickId,
    /// Stable path.
    pub name: String,
    /// Category it is accounted under.
    pub kind: BrickKind,
    /// Transformer layer, if any.
    pub layer: Option<u32>,
    /// Operation and its parameters.
    pub op: Op,
    /// Values read, by port.
    pub inputs: Vec<ValueId>,
    /// Values given, by port.
    pub outputs: Vec<ValueId>,
    /// Weights read.
    pub weights: Vec<WeightId>,
    /// Bricks that it replaced.
    pub stands_for: Vec<String>,
    /// Derived from shapes.
    pub cost: Cost,
}

/// A value as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueDoc {
    /// Position in the list.
    pub id: ValueId,
    /// Brick that gives it.
    pub producer: BrickId,
    /// Output port of the producer.
    pub port: usize,
    /// Element type and symbolic shape.
    #[serde(rename = "type")]
    pub ty: PortType,
    /// Bricks that read it, each once.
    pub consumers: Vec<BrickId>,
}

/// A weight as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightDoc {
    /// Position in the list.
    pub id: WeightId,
    /// Name of the tensor.
    pub name: String,
    /// Storage type.
    pub dtype: DType,
    /// Output features (1 for a vector).
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Bytes in storage.
    pub bytes: u64,
}

/// The graph as data, with the cost of every brick in a call of the given size.
pub fn json(graph: &Graph, extent: &Extent) -> GraphDoc {
    GraphDoc {
        schema_version: SCHEMA_VERSION,
        hash: graph.hash_hex(),
        output: graph.output(),
        extent: *extent,
        total_cost: graph.total_cost(extent),
        bricks: graph
            .bricks()
            .map(|b| BrickDoc {
                id: b.id,
                name: b.name.clone(),
                kind: b.kind,
                layer: b.layer,
                op: b.op.clone(),
                inputs: b.inputs.clone(),
                outputs: b.outputs.clone(),
                weights: b.weights.clone(),
                stands_for: b.stands_for.clone(),
                cost: graph.cost(b.id, extent),
            })
            .collect(),
        values: graph
            .values()
            .iter()
            .map(|v| ValueDoc {
                id: v.id,
                producer: v.producer,
                port: v.port,
                ty: v.ty.clone(),
                consumers: v.consumers.clone(),
            })
            .collect(),
        weights: graph
            .weights()
            .iter()
            .zip(0..)
            .map(|(w, id)| WeightDoc {
                id: WeightId(id),
                name: w.name.clone(),
                dtype: w.shape.dtype,
                rows: w.shape.rows,
                cols: w.shape.cols,
                bytes: w.shape.bytes(),
            })
            .collect(),
    }
}
