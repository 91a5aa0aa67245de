//! The claims, one module per family.

mod backend;
mod brick;
mod budget;
mod cuda;
mod execution_graph;
mod fixtures;
mod gpu;
mod live;
mod package;
mod performance;
mod profiler;
mod scoring;
mod structure;
mod tiles;
mod tracing;
mod traps;

use crate::claim::Claim;

/// Every claim, in the order of the catalogue.
pub fn registry() -> Vec<Claim> {
    [
        brick::CLAIMS,
        package::CLAIMS,
        budget::CLAIMS,
        backend::CLAIMS,
        gpu::CLAIMS,
        cuda::CLAIMS,
        profiler::CLAIMS,
        execution_graph::CLAIMS,
        tiles::CLAIMS,
        scoring::CLAIMS,
        live::CLAIMS,
        tracing::CLAIMS,
        structure::CLAIMS,
        traps::CLAIMS,
        performance::CLAIMS,
    ]
    .concat()
}
