//! DOT and Mermaid.

use std::fmt::Write;

use super::graph::ExecutionGraph;
use super::node::{EdgeKind, ExecNode, NodeKind};

impl ExecutionGraph {
    /// The graph in Graphviz DOT. The hotter a node, the redder: times are compared among nodes of the same kind.
    pub fn to_dot(&self) -> String {
        let heat = self.heat();
        let mut out = String::from(
            "digraph execution {\n  rankdir=TB;\n  node [style=filled, fillcolor=\"#ffffff\", fontname=\"sans-serif\"];\n",
        );
        for (i, node) in self.nodes().iter().enumerate() {
            let shape = match node.kind {
                NodeKind::Layer => "folder",
                NodeKind::Brick => "box",
                NodeKind::Kernel => "component",
                NodeKind::Function => "ellipse",
            };
            let _ = write!(out, "  n{i} [shape={shape}, label=\"{}\"", escape_dot(node));
            if let Some(color) = heat(node) {
                let _ = write!(out, ", fillcolor=\"{color}\"");
            }
            out.push_str("];\n");
        }
        for e in self.edges() {
            let style = match e.kind {
                EdgeKind::Sequence => "style=dashed, constraint=false",
                EdgeKind::Launches => "style=bold",
                EdgeKind::Calls | EdgeKind::Contains => "style=solid",
            };
            let _ = writeln!(out, "  n{} -> n{} [label=\"{}\", {style}];", e.from.0, e.to.0, e.kind.name());
        }
        out.push_str("}\n");
        out
    }

    /// The graph as a Mermaid flowchart, coloured like [`to_dot`](Self::to_dot).
    pub fn to_mermaid(&self) -> String {
        let heat = self.heat();
        let mut out = String::from("flowchart TD\n");
        for (i, node) in self.nodes().iter().enumerate() {
            let (open, close) = match node.kind {
                NodeKind::Layer => ("[[", "]]"),
                NodeKind::Brick => ("[", "]"),
                NodeKind::Kernel => ("{{", "}}"),
                NodeKind::Function => ("([", "])"),
            };
            let _ = writeln!(out, "  n{i}{open}\"{}\"{close}", escape_mermaid(node));
            if let Some(color) = heat(node) {
                let _ = writeln!(out, "  style n{i} fill:{color}");
            }
        }
        for e in self.edges() {
            let arrow = match e.kind {
                EdgeKind::Sequence => "-.->",
                EdgeKind::Launches => "==>",
                EdgeKind::Calls | EdgeKind::Contains => "-->",
            };
            let _ = writeln!(out, "  n{} {arrow}|{}| n{}", e.from.0, e.kind.name(), e.to.0);
        }
        out
    }

    /// Colour of a timed node: white for no time at all, red for the most of any node of its kind.
    fn heat(&self) -> impl Fn(&ExecNode) -> Option<String> {
        let most = NodeKind::ALL
            .map(|kind| self.nodes().iter().filter(|n| n.kind == kind).filter_map(|n| n.time_ns).max().unwrap_or(0));
        move |node| {
            let most = most[node.kind as usize].max(1);
            let share = node.time_ns? as f64 / most as f64;
            let rest = 255 - (share.clamp(0.0, 1.0) * 175.0).round() as u8;
            Some(format!("#ff{rest:02x}{rest:02x}"))
        }
    }
}

/// A label between double quotes. Names are free of control characters already.
fn escape_dot(node: &ExecNode) -> String {
    node.label("\n").replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A label between double quotes, where Mermaid reads HTML and entities written `#name;`.
fn escape_mermaid(node: &ExecNode) -> String {
    let mut out = String::new();
    for c in node.label("\n").chars() {
        match c {
            '#' => out.push_str("#35;"),
            '"' => out.push_str("#quot;"),
            '&' => out.push_str("#amp;"),
            '<' => out.push_str("#lt;"),
            '>' => out.push_str("#gt;"),
            '`' => out.push_str("#96;"),
            ';' => out.push_str("#59;"),
            '\n' => out.push_str("<br/>"),
            c => out.push(c),
        }
    }
    out
}
