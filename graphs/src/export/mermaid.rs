//! The graph as a Mermaid flowchart, which code hosts render inside Markdown.

use std::fmt::Write as _;

use bricks::ValueType;

use super::{Group, groups, weights_text};
use crate::graph::{Brick, Graph};

/// The graph as a `flowchart`: a node per brick, a subgraph per layer, an edge per wire with its type; orderings of KV
/// caches are dotted. Fused bricks are drawn as subroutines (two vertical lines).
pub fn mermaid(graph: &Graph) -> String {
    let mut out = String::from("flowchart TD\n");
    for group in groups(graph) {
        match group {
            Group::Brick(b) => node(&mut out, graph, b, "  "),
            Group::Layer(layer, bricks) => {
                // Writing to a String cannot fail, here and below.
                let _ = writeln!(out, "  subgraph layer{layer}[\"layer {layer}\"]");
                for b in bricks {
                    node(&mut out, graph, b, "    ");
                }
                out.push_str("  end\n");
            }
        }
    }
    for b in graph.bricks() {
        for v in b.inputs.iter().map(|v| graph.value(*v)) {
            let arrow = if v.ty.value == ValueType::KvCache { "-.->" } else { "-->" };
            let _ = writeln!(out, "  b{} {arrow}|\"{}\"| b{}", v.producer.0, escaped(&v.ty.to_string()), b.id.0);
        }
    }
    out
}

fn node(out: &mut String, graph: &Graph, b: &Brick, indent: &str) {
    let mut label = format!("{}\n{} ({})", b.name, b.op.name(), b.kind);
    if !b.weights.is_empty() {
        let _ = write!(label, "\n{}", weights_text(graph, b));
    }
    let (open, close) = if b.stands_for.is_empty() { ("[", "]") } else { ("[[", "]]") };
    let _ = writeln!(out, "{indent}b{}{open}\"{}\"{close}", b.id.0, escaped(&label));
}

/// Text inside a quoted label. Everything that Mermaid, its Markdown or HTML could interpret becomes a decimal entity
/// (`#34;`), line ends become `<br/>`.
fn escaped(text: &str) -> String {
    let mut s = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => s.push_str("<br/>"),
            c if c.is_control() => s.push('\u{fffd}'),
            '"' | '#' | '&' | '<' | '>' | '`' | '\\' | '*' | ';' => {
                let _ = write!(s, "#{};", u32::from(c));
            }
            c => s.push(c),
        }
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escaped("a\"#<b>`\n\u{7}"), "a#34;#35;#60;b#62;#96;<br/>\u{fffd}");
    }
}
