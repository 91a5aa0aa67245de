//! The graph as a tree: model, layer, brick.

use std::fmt::Write as _;

use bricks::{Cost, Extent};

use super::{Group, groups, outputs_text, weights_text};
use crate::graph::{Brick, Graph};

/// What the tree shows.
#[derive(Debug, Clone, Copy)]
pub struct AsciiOptions {
    /// The call whose cost is shown.
    pub extent: Extent,
    /// Shows a run of layers that differ in nothing but their number once.
    pub collapse: bool,
}

/// The graph as a tree, one brick per line: name, kind, operation, output types, cost, weights. Costs are derived.
///
/// Columns are as wide as their widest entry. `moves` is all bytes read and
/// written, weights included; `iop` are integer operations, a multiply-add counts as two.
pub fn ascii(graph: &Graph, options: &AsciiOptions) -> String {
    let e = &options.extent;
    let groups = groups(graph);
    let columns = Columns::of(graph, e);
    let mut out = format!(
        "model  {}, {} of {}; derived for T = {}, L = {}, S = {}: {}\n",
        count(graph.len(), "brick"),
        count(graph.weights().len(), "weight"),
        bytes(graph.stored_weight_bytes()),
        e.tokens,
        e.wanted,
        e.context,
        cost_text(&graph.total_cost(e)),
    );
    let mut i = 0;
    while let Some(group) = groups.get(i) {
        let like = if options.collapse { run_of_equals(graph, &groups[i..], e) } else { 1 };
        i += like;
        let last = i == groups.len();
        match group {
            Group::Brick(b) => columns.line(&mut out, graph, b, if last { "└── " } else { "├── " }, e),
            Group::Layer(layer, bricks) => {
                let total: Cost = bricks.iter().map(|b| graph.cost(b.id, e)).sum();
                let (branch, indent) =
                    if last && like == 1 { ("└── ", "    ") } else { ("├── ", "│   ") };
                // Writing to a String cannot fail, here and below.
                let _ = writeln!(out, "{branch}layer {layer}  {}: {}", count(bricks.len(), "brick"), cost_text(&total));
                for (n, b) in bricks.iter().enumerate() {
                    let branch = if n + 1 == bricks.len() { "└── " } else { "├── " };
                    columns.line(&mut out, graph, b, &format!("{indent}{branch}"), e);
                }
                if let Some(Group::Layer(end, _)) = groups.get(i - 1)
                    && like > 1
                {
                    let branch = if last { "└── " } else { "├── " };
                    let _ = match like {
                        2 => writeln!(out, "{branch}layer {end} like {layer}"),
                        _ => writeln!(out, "{branch}layers {}–{end} like {layer}", u64::from(*layer) + 1),
                    };
                }
            }
        }
    }
    out
}

/// Widths of the columns that are padded.
struct Columns {
    name: usize,
    op: usize,
    outputs: usize,
    cost: usize,
}

impl Columns {
    fn of(graph: &Graph, e: &Extent) -> Self {
        let widest = |f: &dyn Fn(&Brick) -> usize| graph.bricks().map(f).max().unwrap_or(0);
        let indent = |b: &Brick| if b.layer.is_some() { 8 } else { 4 };
        Self {
            name: widest(&|b| indent(b) + printable(&b.name).chars().count()),
            op: widest(&|b| b.op.name().len()),
            outputs: widest(&|b| outputs_text(graph, b).len()),
            cost: widest(&|b| cost_text(&graph.cost(b.id, e)).len()),
        }
    }

    fn line(&self, out: &mut String, graph: &Graph, b: &Brick, lead: &str, e: &Extent) {
        let name = format!("{lead}{}", printable(&b.name));
        let line = format!(
            "{name:<0$}  {1:<10}  {2:<3$}  {4:<5$}  {6:<7$}  {8}",
            self.name,
            b.kind,
            b.op.name(),
            self.op,
            outputs_text(graph, b),
            self.outputs,
            cost_text(&graph.cost(b.id, e)),
            self.cost,
            weights_text(graph, b),
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// How many layers from the start of `groups` on differ from the first in nothing but their number (at least 1).
fn run_of_equals(graph: &Graph, groups: &[Group<'_>], e: &Extent) -> usize {
    let Some(Group::Layer(first, bricks)) = groups.first() else { return 1 };
    let shape = |bricks: &[&Brick], layer: u32| -> Vec<String> {
        let own = format!("blk.{layer}.");
        bricks
            .iter()
            .map(|b| {
                let cost = graph.cost(b.id, e);
                let name = b.name.strip_prefix(&own).unwrap_or(&b.name);
                format!("{name} {} {:?} {} {} {cost:?}", b.kind, b.op, outputs_text(graph, b), weights_text(graph, b))
            })
            .collect()
    };
    let wanted = shape(bricks, *first);
    let same = groups.iter().zip(u64::from(*first)..).take_while(
        |(g, number)| matches!(g, Group::Layer(l, bricks) if u64::from(*l) == *number && shape(bricks, *l) == wanted),
    );
    same.count().max(1)
}

fn cost_text(c: &Cost) -> String {
    let mut s = format!("moves {}", bytes(c.bytes()));
    for (n, unit) in [(c.int_ops, "iop"), (c.flops, "flop")] {
        if n > 0 {
            let _ = write!(s, ", {}", scaled(n, unit));
        }
    }
    s
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn bytes(n: u64) -> String {
    scaled(n, "B")
}

/// Decimal prefixes, three digits: `2.21 MB`. Below 1000 exactly.
fn scaled(n: u64, unit: &str) -> String {
    let mut x = n as f64;
    let mut prefix = "";
    for p in ["k", "M", "G", "T", "P", "E"] {
        if x < 999.5 {
            break;
        }
        x /= 1000.0;
        prefix = p;
    }
    match (prefix, x) {
        ("", _) => format!("{n} {unit}"),
        (_, x) if x < 9.995 => format!("{x:.2} {prefix}{unit}"),
        (_, x) if x < 99.95 => format!("{x:.1} {prefix}{unit}"),
        _ => format!("{x:.0} {prefix}{unit}"),
    }
}

/// The name with control characters written out, so that it stays on its line.
fn printable(name: &str) -> String {
    let mut s = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_control() {
            s.extend(c.escape_unicode());
        } else {
            s.push(c);
        }
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_keep_three_digits() {
        for (n, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (9994, "9.99 kB"),
            (9996, "10.0 kB"),
            (99_960, "100 kB"),
            (999_600, "1.00 MB"),
            (30_081_024, "30.1 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn control_characters_stay_on_their_line() {
        assert_eq!(printable("a\nb\u{1b}[31mé"), "a\\u{a}b\\u{1b}[31mé");
    }
}
