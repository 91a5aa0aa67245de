//! Text trees and paths.
//!
//! ```text
//! Layer 0
//! └── RmsNorm  50.0µs
//!     └── rmsnorm_kernel  <<<16,256,1>>>
//! ```
//!
//! One node per line, each root at the left margin, in the order in which nodes were added. After the name follow, two
//! spaces apart, the time in µs with one decimal and the launch, where there are any.

use super::graph::ExecutionGraph;
use super::node::{EdgeKind, NodeId};

impl ExecutionGraph {
    /// What a graph without nodes looks like.
    pub const EMPTY: &'static str = "(empty execution graph)\n";

    /// The graph as a text tree, every line ending in a newline.
    pub fn to_ascii_tree(&self) -> String {
        if self.nodes().is_empty() {
            return Self::EMPTY.to_owned();
        }
        let csr = self.to_csr();
        let children = |id: NodeId| {
            let range = csr.offsets[id.index()]..csr.offsets[id.index() + 1];
            let edges = csr.targets[range.clone()].iter().zip(&csr.kinds[range]);
            edges.filter(|(_, kind)| **kind != EdgeKind::Sequence).map(|(to, _)| NodeId(*to))
        };
        let mut out = String::new();
        for root in self.roots() {
            // Not recursive: depth is up to whoever opens scopes. Each entry is a node, what stands before its children,
            // and what stands before itself.
            let mut todo = vec![(root, String::new(), "")];
            while let Some((id, indent, branch)) = todo.pop() {
                out.push_str(&indent);
                out.push_str(branch);
                out.push_str(&self.nodes()[id.index()].label("  "));
                out.push('\n');
                let below = match branch {
                    "" => String::new(),
                    "├── " => indent + "│   ",
                    _ => indent + "    ",
                };
                let mut last = "└── ";
                for child in children(id).collect::<Vec<_>>().into_iter().rev() {
                    todo.push((child, below.clone(), last));
                    last = "├── ";
                }
            }
        }
        out
    }

    /// From the root to a node in one line: `Layer 0 → RmsNorm 50.0µs → rmsnorm_kernel <<<16,256,1>>>`.
    pub fn path(&self, id: NodeId) -> Option<String> {
        self.node(id)?;
        let mut labels = Vec::new();
        let mut at = Some(id);
        while let Some(node) = at {
            labels.push(self.node(node)?.label(" "));
            at = self.parent(node);
        }
        labels.reverse();
        Some(labels.join(" → "))
    }
}
