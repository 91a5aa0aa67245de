//! Nodes, edges, launches.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::ptx::PtxHash;

/// What a node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// A transformer layer.
    Layer,
    /// An operation with a budget.
    Brick,
    /// What was run for it.
    Kernel,
    /// Anything that calls: a model, a phase, a host function.
    Function,
}

impl NodeKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Layer, Self::Brick, Self::Kernel, Self::Function];
}

/// What an edge says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgeKind {
    /// A scope calls a function.
    Calls,
    /// A scope contains a layer or brick.
    Contains,
    /// A scope launches a kernel.
    Launches,
    /// One child of a scope (or one root) follows another.
    Sequence,
}

impl EdgeKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Calls, Self::Contains, Self::Launches, Self::Sequence];

    /// The name used in drawings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Contains => "contains",
            Self::Launches => "launches",
            Self::Sequence => "sequence",
        }
    }

    /// The edge from a scope to a child of this kind.
    pub(super) const fn to_child(child: NodeKind) -> Self {
        match child {
            NodeKind::Layer | NodeKind::Brick => Self::Contains,
            NodeKind::Kernel => Self::Launches,
            NodeKind::Function => Self::Calls,
        }
    }
}

/// Index of a node in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u32);

impl NodeId {
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A size in up to three dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dim3(pub u32, pub u32, pub u32);

impl From<u32> for Dim3 {
    fn from(x: u32) -> Self {
        Self(x, 1, 1)
    }
}

impl From<(u32, u32, u32)> for Dim3 {
    fn from((x, y, z): (u32, u32, u32)) -> Self {
        Self(x, y, z)
    }
}

impl std::fmt::Display for Dim3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self(x, 1, 1) => write!(f, "{x}"),
            Self(x, y, 1) => write!(f, "{x}x{y}"),
            Self(x, y, z) => write!(f, "{x}x{y}x{z}"),
        }
    }
}

/// How a kernel was launched. On a GPU: blocks, threads per block, bytes of shared memory. On a CPU: threads of the gang,
/// rows of the batch, and 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Blocks, or threads of the gang.
    pub grid: Dim3,
    /// Threads per block, or rows of the batch.
    pub block: Dim3,
    /// Shared memory.
    pub shared_bytes: u32,
}

impl std::fmt::Display for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<<<{},{},{}>>>", self.grid, self.block, self.shared_bytes)
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecNode {
    /// What it stands for.
    pub kind: NodeKind,
    /// Its name.
    pub name: String,
    /// Measured nanoseconds, if it was timed.
    pub time_ns: Option<u64>,
    /// The least time the machine's limits allow, if it is known. Derived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_ns: Option<u64>,
    /// Of a kernel: how it was launched.
    pub launch: Option<Launch>,
    /// Of a kernel: its source in a [`super::PtxRegistry`].
    pub ptx: Option<PtxHash>,
}

impl ExecNode {
    /// A node without time.
    pub fn new(kind: NodeKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), time_ns: None, bound_ns: None, launch: None, ptx: None }
    }

    /// `Layer <index>`.
    pub fn layer(index: u32) -> Self {
        Self::new(NodeKind::Layer, format!("Layer {index}"))
    }

    /// A brick.
    pub fn brick(name: impl Into<String>) -> Self {
        Self::new(NodeKind::Brick, name)
    }

    /// A function.
    pub fn function(name: impl Into<String>) -> Self {
        Self::new(NodeKind::Function, name)
    }

    /// The same node with a measured time.
    #[must_use]
    pub fn timed(self, ns: u64) -> Self {
        Self { time_ns: Some(ns), ..self }
    }

    /// The same node with the least time the machine's limits allow, if it is known.
    #[must_use]
    pub fn bounded(self, ns: Option<u64>) -> Self {
        Self { bound_ns: ns, ..self }
    }

    /// Name, time and launch on one line, with `gap` between them. Times are µs with one decimal.
    pub(super) fn label(&self, gap: &str) -> String {
        let mut label = crate::report::clean(&self.name);
        if let Some(ns) = self.time_ns {
            let _ = write!(label, "{gap}{:.1}µs", ns as f64 / 1e3);
        }
        if let Some(launch) = self.launch {
            let _ = write!(label, "{gap}{launch}");
        }
        label
    }
}

/// An edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// Where it starts.
    pub from: NodeId,
    /// Where it ends.
    pub to: NodeId,
    /// What it says.
    pub kind: EdgeKind,
}
