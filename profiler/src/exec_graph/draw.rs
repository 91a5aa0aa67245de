//! DOT and Mermaid.

use std::fmt::Write;

use super::graph::ExecutionGraph;
use super::node::{EdgeKind, ExecNode, NodeKind};

/// What the colour of a node says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Heat {
    /// Time, compared among nodes of the same kind: white for none at all, red for the most.
    #[default]
    Time,
    /// Distance from the roofline: green at the least time the machine allows, yellow at about three times that, red at
    /// ten times or more. Nodes without a bound have no colour.
    Roofline,
}

impl ExecutionGraph {
    /// The graph in Graphviz DOT, coloured by [`Heat::Time`].
    pub fn to_dot(&self) -> String {
        self.to_dot_by(Heat::Time)
    }

    /// The graph in Graphviz DOT.
    pub fn to_dot_by(&self, heat: Heat) -> String {
        let heat = self.heat(heat);
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

    /// The graph as a Mermaid flowchart, coloured by [`Heat::Time`].
    pub fn to_mermaid(&self) -> String {
        self.to_mermaid_by(Heat::Time)
    }

    /// The graph as a Mermaid flowchart.
    pub fn to_mermaid_by(&self, heat: Heat) -> String {
        let heat = self.heat(heat);
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

    /// Colours of nodes.
    fn heat(&self, heat: Heat) -> impl Fn(&ExecNode) -> Option<String> {
        let most = NodeKind::ALL
            .map(|kind| self.nodes().iter().filter(|n| n.kind == kind).filter_map(|n| n.time_ns).max().unwrap_or(0));
        move |node| match heat {
            Heat::Time => {
                let most = most[node.kind as usize].max(1);
                let share = node.time_ns? as f64 / most as f64;
                let rest = 255 - (share.clamp(0.0, 1.0) * 175.0).round() as u8;
                Some(format!("#ff{rest:02x}{rest:02x}"))
            }
            Heat::Roofline => {
                let (time, bound) = (node.time_ns?, node.bound_ns?);
                // A node faster than its bound is at it: bounds are as good as the measurement of the machine.
                (time > 0).then(|| distance_color((time as f64 / (bound as f64).max(1.0)).max(1.0).log10()))
            }
        }
    }
}

/// Green, yellow, red over one decade.
fn distance_color(decades: f64) -> String {
    const STOPS: [[f64; 3]; 3] = [[111.0, 194.0, 138.0], [255.0, 224.0, 138.0], [255.0, 80.0, 80.0]];
    let at = decades.clamp(0.0, 1.0) * 2.0;
    let from = usize::from(at >= 1.0);
    let mix = |i: usize| (STOPS[from][i] + (STOPS[from + 1][i] - STOPS[from][i]) * (at - from as f64)).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
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
