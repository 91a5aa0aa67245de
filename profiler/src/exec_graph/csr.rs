//! Compressed sparse rows, for tools that take graphs as arrays.

use serde::{Deserialize, Serialize};

use super::graph::ExecutionGraph;
use super::node::EdgeKind;

/// The edges sorted by their first node: those of node `i` are at `offsets[i]..offsets[i + 1]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Csr {
    /// One more than there are nodes.
    pub offsets: Vec<usize>,
    /// Where each edge ends.
    pub targets: Vec<u32>,
    /// What each edge says.
    pub kinds: Vec<EdgeKind>,
}

impl ExecutionGraph {
    /// All edges in compressed sparse rows. Edges of one node keep their order.
    pub fn to_csr(&self) -> Csr {
        let mut offsets = vec![0usize; self.nodes().len() + 1];
        for e in self.edges() {
            offsets[e.from.index() + 1] += 1;
        }
        for i in 1..offsets.len() {
            offsets[i] += offsets[i - 1];
        }
        let mut next = offsets.clone();
        let mut targets = vec![0; self.edges().len()];
        let mut kinds = vec![EdgeKind::Sequence; self.edges().len()];
        for e in self.edges() {
            let at = &mut next[e.from.index()];
            targets[*at] = e.to.0;
            kinds[*at] = e.kind;
            *at += 1;
        }
        Csr { offsets, targets, kinds }
    }
}
