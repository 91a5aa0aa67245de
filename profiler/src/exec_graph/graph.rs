//! Building and walking an execution graph.

use serde::Serialize;

use super::node::{Dim3, Edge, EdgeKind, ExecNode, Launch, NodeId, NodeKind};
use super::ptx::PtxHash;

/// A forest of scopes, with an edge from each node to the one that followed it in the same scope.
///
/// ```
/// use brick_profiler::exec_graph::{ExecNode, ExecutionGraph};
///
/// let mut graph = ExecutionGraph::new();
/// graph.push_scope(ExecNode::layer(0));
/// graph.push_scope(ExecNode::brick("RmsNorm").timed(50_000));
/// graph.record_kernel_launch("rmsnorm_kernel", 16, 256, 1);
/// graph.pop_scope()?;
/// graph.pop_scope()?;
/// assert_eq!(
///     graph.to_ascii_tree(),
///     "Layer 0\n└── RmsNorm  50.0µs\n    └── rmsnorm_kernel  <<<16,256,1>>>\n"
/// );
/// # Ok::<(), brick_profiler::exec_graph::ExecGraphError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionGraph {
    tracking: bool,
    nodes: Vec<ExecNode>,
    edges: Vec<Edge>,
    parents: Vec<Option<NodeId>>,
    /// Open scopes. A scope opened while tracking is off is an empty entry, so that pushes and pops still pair up.
    stack: Vec<Option<NodeId>>,
    /// The last child of each node, and the last root.
    last_child: Vec<Option<NodeId>>,
    last_root: Option<NodeId>,
}

/// An execution graph was used wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExecGraphError {
    /// There is no open scope to leave.
    #[error("expected an open scope to leave, found none: more scopes were popped than pushed")]
    UnbalancedPop,
    /// There is no such node.
    #[error("expected a node below {nodes}, found {found}")]
    NoSuchNode {
        /// Number of nodes.
        nodes: usize,
        /// What was asked for.
        found: u32,
    },
}

#[derive(Serialize)]
struct Json<'a> {
    schema_version: u32,
    nodes: &'a [ExecNode],
    edges: &'a [Edge],
}

impl Default for ExecutionGraph {
    fn default() -> Self {
        Self::new()
    }
}

impl ExecutionGraph {
    /// Version of the JSON.
    pub const SCHEMA_VERSION: u32 = 1;

    /// An empty graph that tracks.
    pub fn new() -> Self {
        Self {
            tracking: true,
            nodes: vec![],
            edges: vec![],
            parents: vec![],
            stack: vec![],
            last_child: vec![],
            last_root: None,
        }
    }

    /// Whether nodes are added. While tracking is off nothing is added, and scopes still pair up.
    pub fn set_tracking(&mut self, tracking: bool) {
        self.tracking = tracking;
    }

    /// Whether nodes are added.
    pub fn is_tracking(&self) -> bool {
        self.tracking
    }

    /// Removes everything, open scopes included.
    pub fn clear(&mut self) {
        *self = Self { tracking: self.tracking, ..Self::new() };
    }

    /// Adds a node to the innermost open scope and opens it. `None` while tracking is off.
    pub fn push_scope(&mut self, node: ExecNode) -> Option<NodeId> {
        let id = self.add(node);
        self.stack.push(id);
        id
    }

    /// Leaves the innermost scope and gives its node (`None` if it was opened while tracking was off).
    ///
    /// # Errors
    /// [`ExecGraphError::UnbalancedPop`].
    pub fn pop_scope(&mut self) -> Result<Option<NodeId>, ExecGraphError> {
        self.stack.pop().ok_or(ExecGraphError::UnbalancedPop)
    }

    /// Number of open scopes.
    pub fn depth(&self) -> usize {
        self.stack.len()
    }

    /// Adds a node to the innermost open scope. `None` while tracking is off.
    pub fn add(&mut self, node: ExecNode) -> Option<NodeId> {
        if !self.tracking {
            return None;
        }
        let id = NodeId(u32::try_from(self.nodes.len()).ok()?);
        let parent = self.stack.iter().rev().find_map(|s| *s);
        let before = match parent {
            Some(p) => self.last_child[p.index()].replace(id),
            None => self.last_root.replace(id),
        };
        if let Some(from) = parent {
            self.edges.push(Edge { from, to: id, kind: EdgeKind::to_child(node.kind) });
        }
        if let Some(from) = before {
            self.edges.push(Edge { from, to: id, kind: EdgeKind::Sequence });
        }
        self.nodes.push(node);
        self.parents.push(parent);
        self.last_child.push(None);
        Some(id)
    }

    /// Adds a kernel to the innermost open scope. See [`Launch`] for what the sizes mean on a CPU.
    pub fn record_kernel_launch(
        &mut self,
        name: &str,
        grid: impl Into<Dim3>,
        block: impl Into<Dim3>,
        shared_bytes: u32,
    ) -> Option<NodeId> {
        let launch = Launch { grid: grid.into(), block: block.into(), shared_bytes };
        self.add(ExecNode { launch: Some(launch), ..ExecNode::new(NodeKind::Kernel, name) })
    }

    /// Sets the measured time of a node.
    ///
    /// # Errors
    /// [`ExecGraphError::NoSuchNode`].
    pub fn set_time(&mut self, id: NodeId, ns: u64) -> Result<(), ExecGraphError> {
        self.node_mut(id)?.time_ns = Some(ns);
        Ok(())
    }

    /// Says which registered source a kernel was made from.
    ///
    /// # Errors
    /// [`ExecGraphError::NoSuchNode`].
    pub fn set_ptx(&mut self, id: NodeId, ptx: PtxHash) -> Result<(), ExecGraphError> {
        self.node_mut(id)?.ptx = Some(ptx);
        Ok(())
    }

    fn node_mut(&mut self, id: NodeId) -> Result<&mut ExecNode, ExecGraphError> {
        let nodes = self.nodes.len();
        self.nodes.get_mut(id.index()).ok_or(ExecGraphError::NoSuchNode { nodes, found: id.0 })
    }

    /// All nodes; their ids are their positions.
    pub fn nodes(&self) -> &[ExecNode] {
        &self.nodes
    }

    /// All edges, in the order in which they came to be.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> Option<&ExecNode> {
        self.nodes.get(id.index())
    }

    /// The scope a node is in.
    pub fn parent(&self, id: NodeId) -> Option<NodeId> {
        self.parents.get(id.index()).copied().flatten()
    }

    /// Nodes that are in no scope, in order.
    pub fn roots(&self) -> impl Iterator<Item = NodeId> {
        (0..).map(NodeId).zip(&self.parents).filter(|(_, p)| p.is_none()).map(|(id, _)| id)
    }

    /// The nodes in a node's scope, in order. Looks at every edge; to walk a whole graph use [`to_csr`](Self::to_csr).
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        self.edges.iter().filter(move |e| e.from == id && e.kind != EdgeKind::Sequence).map(|e| e.to)
    }

    /// Nodes and edges as JSON, indented.
    ///
    /// # Errors
    /// Never: a graph holds nothing JSON cannot say.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&Json {
            schema_version: Self::SCHEMA_VERSION,
            nodes: &self.nodes,
            edges: &self.edges,
        })
    }
}
