//! The graph in the DOT language (graphviz.org/doc/info/lang.html).

use std::fmt::Write as _;

use bricks::ValueType;

use super::{Group, groups, weights_text};
use crate::graph::{Brick, Graph};

/// The graph as a `digraph`: a node per brick, a cluster per layer, an edge per wire with its type; orderings of KV caches
/// are dashed. Fused bricks have two borders.
pub fn dot(graph: &Graph) -> String {
    let mut out = String::from("digraph brick {\n  rankdir=TB;\n  node [shape=box, fontname=\"monospace\"];\n");
    out.push_str("  edge [fontname=\"monospace\", fontsize=10];\n");
    for group in groups(graph) {
        match group {
            Group::Brick(b) => node(&mut out, graph, b, "  "),
            Group::Layer(layer, bricks) => {
                // Writing to a String cannot fail, here and below.
                let _ = writeln!(out, "  subgraph cluster_layer_{layer} {{\n    label=\"layer {layer}\";");
                for b in bricks {
                    node(&mut out, graph, b, "    ");
                }
                out.push_str("  }\n");
            }
        }
    }
    for b in graph.bricks() {
        for v in b.inputs.iter().map(|v| graph.value(*v)) {
            let style = if v.ty.value == ValueType::KvCache { ", style=dashed" } else { "" };
            let label = quoted(&v.ty.to_string());
            let _ = writeln!(out, "  b{} -> b{} [label={label}{style}];", v.producer.0, b.id.0);
        }
    }
    out.push_str("}\n");
    out
}

fn node(out: &mut String, graph: &Graph, b: &Brick, indent: &str) {
    let mut label = format!("{}\n{} ({})", b.name, b.op.name(), b.kind);
    if !b.weights.is_empty() {
        let _ = write!(label, "\n{}", weights_text(graph, b));
    }
    let fused = if b.stands_for.is_empty() { "" } else { ", peripheries=2" };
    let _ = writeln!(out, "{indent}b{} [label={}{fused}];", b.id.0, quoted(&label));
}

/// A double-quoted string of the language. Backslashes are doubled because labels interpret them (`\n`, `\N`, …).
fn quoted(text: &str) -> String {
    let mut s = String::with_capacity(text.len() + 2);
    s.push('"');
    for c in text.chars() {
        match c {
            '"' => s.push_str("\\\""),
            '\\' => s.push_str("\\\\"),
            '\n' => s.push_str("\\n"),
            c if c.is_control() => s.push('\u{fffd}'),
            // Labels interpret character entities such as `&lt;`.
            '&' => s.push_str("&amp;"),
            c => s.push(c),
        }
    }
    s.push('"');
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(quoted("a\"b\\N\n&lt;\0"), "\"a\\\"b\\\\N\\n&amp;lt;\u{fffd}\"");
    }
}
