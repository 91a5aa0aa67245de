//! Static cost of every brick, added up.

use bricks::{BrickKind, Cost, Extent};

use crate::graph::Graph;

/// What every brick of a graph moves and computes in a call of a given size. Derived from shapes, never measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostTable {
    /// The size of the call.
    pub extent: Extent,
    /// By [`BrickId`](crate::BrickId).
    pub bricks: Vec<Cost>,
    /// Bricks and their cost per kind, in the order of [`BrickKind::ALL`], without the kinds that do not occur.
    pub kinds: Vec<(BrickKind, usize, Cost)>,
    /// The sum.
    pub total: Cost,
}

/// The cost of every brick, per kind, and in total.
pub fn cost_table(graph: &Graph, extent: &Extent) -> CostTable {
    let bricks: Vec<Cost> = graph.bricks().map(|b| graph.cost(b.id, extent)).collect();
    let mut by_kind = [(0usize, Cost::default()); BrickKind::COUNT];
    for (b, c) in graph.bricks().zip(&bricks) {
        let (count, sum) = &mut by_kind[b.kind.index()];
        *count += 1;
        *sum += *c;
    }
    let kinds = BrickKind::ALL.into_iter().zip(by_kind).filter(|(_, (n, _))| *n > 0).map(|(k, (n, c))| (k, n, c));
    CostTable { extent: *extent, kinds: kinds.collect(), total: bricks.iter().copied().sum(), bricks }
}
