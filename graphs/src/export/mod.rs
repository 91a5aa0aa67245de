//! Graphs for people and for other programs: ASCII tree, DOT, Mermaid, JSON.
//!
//! All of them are deterministic: equal graphs give equal text, on every machine. Names are escaped for each format, so a
//! brick or weight called `"a\n<b>` cannot break out of its label.

mod ascii;
mod dot;
mod json;
mod mermaid;

pub use ascii::{AsciiOptions, ascii};
pub use dot::dot;
pub use json::{BrickDoc, GraphDoc, SCHEMA_VERSION, ValueDoc, WeightDoc, json};
pub use mermaid::mermaid;

use crate::assemble::shape_text;
use crate::graph::{Brick, Graph};

/// Bricks by layer, in the order in which each layer first appears; bricks without a layer stand alone.
enum Group<'a> {
    Brick(&'a Brick),
    Layer(u32, Vec<&'a Brick>),
}

fn groups(graph: &Graph) -> Vec<Group<'_>> {
    let mut at = std::collections::HashMap::new();
    let mut groups: Vec<Group<'_>> = Vec::new();
    for b in graph.bricks() {
        let Some(layer) = b.layer else {
            groups.push(Group::Brick(b));
            continue;
        };
        let i = *at.entry(layer).or_insert(groups.len());
        match groups.get_mut(i) {
            Some(Group::Layer(_, bricks)) => bricks.push(b),
            _ => groups.push(Group::Layer(layer, vec![b])),
        }
    }
    groups
}

/// Output types of a brick, e.g. `f32[T, 576], f32[T, 192]`.
fn outputs_text(graph: &Graph, b: &Brick) -> String {
    let types: Vec<String> = b.outputs.iter().map(|v| graph.value(*v).ty.to_string()).collect();
    types.join(", ")
}

/// Storage types and shapes of a brick's weights, e.g. `Q4_1[576, 576], F32[1, 576]`.
fn weights_text(graph: &Graph, b: &Brick) -> String {
    let shapes: Vec<String> = b.weights.iter().map(|w| shape_text(&graph.weight(*w).shape)).collect();
    shapes.join(", ")
}
