//! The execution graph: what called, contained and launched what, and how long it took.
//!
//! Built while something runs (scopes and launches) or from a [`crate::Profile`]; drawn as a text tree, DOT, Mermaid, JSON
//! or compressed sparse rows.
//!
//! | module | content |
//! | --- | --- |
//! | `node` | nodes, edges, launches |
//! | `graph` | building and walking |
//! | `tree` | text tree and paths |
//! | `draw` | DOT and Mermaid |
//! | `csr` | compressed sparse rows |
//! | `from_profile` | model → layer → brick → kernel with times |
//! | `ptx` | sources of launched kernels |

mod csr;
mod draw;
mod from_profile;
mod graph;
mod node;
mod ptx;
mod tree;

#[cfg(test)]
mod tests;

pub use csr::Csr;
pub use draw::Heat;
pub use graph::{ExecGraphError, ExecutionGraph};
pub use node::{Dim3, Edge, EdgeKind, ExecNode, Launch, NodeId, NodeKind};
pub use ptx::{PtxHash, PtxRegistry};
