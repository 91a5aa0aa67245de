//! Building a graph, brick by brick.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bricks::{BrickKind, Op, WeightShape};

use crate::assemble::{Draft, Source, assemble, shape_text};
use crate::error::GraphError;
use crate::graph::{Graph, WeightId, WeightInfo};

/// One output port of a brick that is being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle {
    builder: u64,
    node: usize,
    port: usize,
}

/// The output ports of a brick that is being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handles {
    builder: u64,
    node: usize,
}

impl Handles {
    /// An output port. One that the brick does not have is reported by [`GraphBuilder::finish`].
    pub fn port(self, port: usize) -> Handle {
        Handle { builder: self.builder, node: self.node, port }
    }

    /// The first output port, the only one of most bricks.
    pub fn out(self) -> Handle {
        self.port(0)
    }
}

/// Collects bricks and wires; [`GraphBuilder::finish`] checks them all at once.
///
/// Mistakes made while building are reported by `finish`, so that the calls in between need no error handling.
#[derive(Debug)]
pub struct GraphBuilder {
    /// Distinguishes the handles of this builder from those of any other in the process.
    id: u64,
    drafts: Vec<Draft>,
    weights: Vec<WeightInfo>,
    by_name: HashMap<String, WeightId>,
    /// The first mistake that only the building call itself can see.
    mistake: Option<GraphError>,
}

impl Default for GraphBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl GraphBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            drafts: Vec::new(),
            weights: Vec::new(),
            by_name: HashMap::new(),
            mistake: None,
        }
    }

    /// Registers a weight. The same name and shape again gives the same id: a tied embedding is one weight with two readers.
    pub fn weight(&mut self, name: impl Into<String>, shape: WeightShape) -> WeightId {
        let name = name.into();
        if let Some(&id) = self.by_name.get(&name) {
            let first = self.weights[id.index()].shape;
            if first != shape {
                self.note(GraphError::WeightConflict { name, first: shape_text(&first), second: shape_text(&shape) });
            }
            return id;
        }
        // A table too long for its ids is refused by `finish`.
        let id = WeightId(self.weights.len() as u32);
        self.by_name.insert(name.clone(), id);
        self.weights.push(WeightInfo { name, shape });
        id
    }

    /// Adds a brick. `weights` are in the order that the operation states.
    pub fn push(
        &mut self,
        name: impl Into<String>,
        kind: BrickKind,
        layer: Option<u32>,
        op: Op,
        inputs: &[Handle],
        weights: &[WeightId],
    ) -> Handles {
        let name = name.into();
        let node = self.drafts.len();
        let inputs = inputs.iter().enumerate().map(|(port, h)| self.resolve(*h, &name, port)).collect();
        self.drafts.push(Draft { name, kind, layer, op, inputs, weights: weights.to_vec(), stands_for: Vec::new() });
        Handles { builder: self.id, node }
    }

    /// Wires one output to one input port: to the next free one, or replacing what a port had. [`GraphBuilder::push`] is
    /// enough for most graphs; this can wire forward, and therefore in a circle, which `finish` reports.
    pub fn wire(&mut self, from: Handle, to: Handles, port: usize) {
        if to.builder != self.id {
            self.note(GraphError::ForeignHandle { brick: "(end of a wire)".into(), port });
            return;
        }
        let name = self.drafts[to.node].name.clone();
        let source = self.resolve(from, &name, port);
        let ports = &mut self.drafts[to.node].inputs;
        let next = ports.len();
        match ports.get_mut(port) {
            Some(p) => *p = source,
            None if port == next => ports.push(source),
            None => self.note(GraphError::Unconnected { brick: name, port: next }),
        }
    }

    /// Checks the whole graph and freezes it. `output` is the value that a forward call is made for.
    ///
    /// Bricks keep the order in which they were pushed as far as their wires allow.
    ///
    /// # Errors
    /// [`GraphError`] says which bricks do not fit together and why: types and shapes of ports and weights, unconnected or
    /// non-existent ports, cycles, outputs that nobody reads (other than KV caches), names used twice, weights that are
    /// unknown, unused or registered with two shapes, handles of another builder, several inputs, a KV cache written twice.
    pub fn finish(mut self, output: Handle) -> Result<Graph, GraphError> {
        let output = self.resolve(output, "graph output", 0);
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        let output = output.ok_or_else(|| GraphError::ForeignHandle { brick: "graph output".into(), port: 0 })?;
        assemble(self.drafts, self.weights, output)
    }

    fn resolve(&mut self, h: Handle, brick: &str, port: usize) -> Option<Source> {
        if h.builder != self.id {
            self.note(GraphError::ForeignHandle { brick: brick.to_owned(), port });
            return None;
        }
        Some(Source { node: h.node, port: h.port })
    }

    fn note(&mut self, e: GraphError) {
        self.mistake.get_or_insert(e);
    }
}
