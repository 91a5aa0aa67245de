//! When each value is needed.

use std::fmt::Write as _;

use crate::graph::{BrickId, Graph, ValueId};

/// The bricks between which a value must stay intact, in execution order, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Brick that writes the value.
    pub first: BrickId,
    /// Brick that reads it last (the writer itself if none does; the last brick of the graph for the graph's output).
    pub last: BrickId,
}

impl Interval {
    /// Whether both are needed at the same time. A brick's inputs and outputs are: kernels are not asked to work in place.
    pub fn overlaps(self, other: Interval) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The interval of every value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liveness {
    intervals: Vec<Interval>,
}

impl Liveness {
    /// The interval of a value of the graph that this was made from.
    pub fn interval(&self, id: ValueId) -> Interval {
        self.intervals[id.index()]
    }

    /// The intervals of all values, by [`ValueId`].
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// A table: value, type, first and last brick.
    pub fn render(&self, graph: &Graph) -> String {
        let mut out = String::new();
        for (v, i) in graph.values().iter().zip(&self.intervals) {
            let name = super::value_name(graph, v.id);
            let (first, last) = (i.first.0, i.last.0);
            // Writing to a String cannot fail.
            let _ = writeln!(out, "%{:<4} {name:<32} {:<14} {first:>4} ..= {last}", v.id.0, v.ty.to_string());
        }
        out
    }
}

/// First and last use of every value.
pub fn liveness(graph: &Graph) -> Liveness {
    let end = BrickId(graph.len().saturating_sub(1) as u32);
    let intervals = graph
        .values()
        .iter()
        .map(|v| {
            let last = if v.id == graph.output() { end } else { v.consumers.last().copied().unwrap_or(v.producer) };
            Interval { first: v.producer, last }
        })
        .collect();
    Liveness { intervals }
}
