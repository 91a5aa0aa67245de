//! Execution graphs seen from outside.

#![allow(clippy::unwrap_used)]

use super::{Csr, Dim3, Edge, EdgeKind, ExecGraphError, ExecNode, ExecutionGraph, Heat, NodeId, NodeKind};
use crate::record::SyncMode;
use crate::step::Phase;
use crate::testing::{profile, profile_in};

/// Two layers; the first with two bricks, one of which launches two kernels.
fn graph() -> ExecutionGraph {
    let mut g = ExecutionGraph::new();
    g.push_scope(ExecNode::layer(0));
    g.push_scope(ExecNode::brick("RmsNorm").timed(50_000));
    g.record_kernel_launch("rmsnorm_kernel", 16, 256, 1);
    g.record_kernel_launch("tail", (2, 3, 1), (8, 8, 8), 4096);
    g.pop_scope().unwrap();
    g.add(ExecNode::brick("QKV").timed(12_340));
    g.pop_scope().unwrap();
    g.add(ExecNode::layer(1));
    g
}

fn edge(from: u32, to: u32, kind: EdgeKind) -> Edge {
    Edge { from: NodeId(from), to: NodeId(to), kind }
}

#[test]
fn edges_follow_scopes_and_order() {
    use EdgeKind::{Contains, Launches, Sequence};
    let expected = [
        edge(0, 1, Contains),
        edge(1, 2, Launches),
        edge(1, 3, Launches),
        edge(2, 3, Sequence),
        edge(0, 4, Contains),
        edge(1, 4, Sequence),
        edge(0, 5, Sequence),
    ];
    assert_eq!(graph().edges(), expected);
    let g = graph();
    let launch = g.node(NodeId(3)).unwrap().launch.unwrap();
    assert_eq!((launch.grid, launch.block, launch.shared_bytes), (Dim3(2, 3, 1), Dim3(8, 8, 8), 4096));
    assert_eq!(g.roots().collect::<Vec<_>>(), [NodeId(0), NodeId(5)]);
    assert_eq!(g.children(NodeId(0)).collect::<Vec<_>>(), [NodeId(1), NodeId(4)]);
    let mut g = ExecutionGraph::new();
    g.push_scope(ExecNode::function("main"));
    g.push_scope(ExecNode::function("forward"));
    assert_eq!(g.edges(), [edge(0, 1, EdgeKind::Calls)]);
}

#[test]
fn leaving_a_scope_that_is_not_open_is_an_error() {
    let mut g = graph();
    assert_eq!((g.depth(), g.pop_scope()), (0, Err(ExecGraphError::UnbalancedPop)));
    g.push_scope(ExecNode::layer(2));
    assert_eq!(g.pop_scope(), Ok(Some(NodeId(6))));
    assert_eq!(g.pop_scope(), Err(ExecGraphError::UnbalancedPop));
    assert_eq!(g.set_time(NodeId(99), 1), Err(ExecGraphError::NoSuchNode { nodes: 7, found: 99 }));
}

#[test]
fn nothing_is_added_while_tracking_is_off_and_scopes_still_pair_up() {
    let mut g = ExecutionGraph::new();
    g.push_scope(ExecNode::layer(0));
    g.set_tracking(false);
    assert_eq!(g.push_scope(ExecNode::brick("unseen")), None);
    assert_eq!(g.record_kernel_launch("unseen", 1, 1, 0), None);
    g.set_tracking(true);
    let seen = g.record_kernel_launch("seen", 1, 1, 0);
    assert_eq!(g.pop_scope(), Ok(None), "leaves the scope that was opened unseen");
    assert_eq!(g.pop_scope(), Ok(Some(NodeId(0))));
    assert_eq!((g.nodes().len(), g.parent(seen.unwrap())), (2, Some(NodeId(0))));
}

#[test]
fn clear_leaves_nothing_but_the_switch() {
    let mut g = graph();
    g.push_scope(ExecNode::layer(9));
    g.set_tracking(false);
    g.clear();
    assert!(g.nodes().is_empty() && g.edges().is_empty() && !g.is_tracking());
    assert_eq!((g.depth(), g.to_ascii_tree().as_str()), (0, ExecutionGraph::EMPTY));
    g.set_tracking(true);
    g.add(ExecNode::layer(0));
    assert!(g.edges().is_empty(), "a new first root follows nothing");
}

#[test]
fn tree_of_several_roots() {
    assert_eq!(
        graph().to_ascii_tree(),
        "Layer 0\n\
         ├── RmsNorm  50.0µs\n\
         │   ├── rmsnorm_kernel  <<<16,256,1>>>\n\
         │   └── tail  <<<2x3,8x8x8,4096>>>\n\
         └── QKV  12.3µs\n\
         Layer 1\n"
    );
    assert_eq!(graph().path(NodeId(2)).unwrap(), "Layer 0 → RmsNorm 50.0µs → rmsnorm_kernel <<<16,256,1>>>");
    assert_eq!(graph().path(NodeId(6)), None);
}

#[test]
fn an_empty_graph_can_be_drawn() {
    let g = ExecutionGraph::new();
    assert_eq!(g.to_ascii_tree(), "(empty execution graph)\n");
    assert_eq!(g.to_csr(), Csr { offsets: vec![0], targets: vec![], kinds: vec![] });
    assert_eq!(g.to_mermaid(), "flowchart TD\n");
    assert!(g.to_dot().ends_with("}\n") && g.to_json().unwrap().contains("\"nodes\": []"));
}

#[test]
fn deeply_nested_scopes_overflow_nothing() {
    let mut g = ExecutionGraph::new();
    for _ in 0..2000 {
        g.push_scope(ExecNode::function("f"));
    }
    assert_eq!(g.to_ascii_tree().lines().count(), 2000);
}

#[test]
fn rows_hold_every_edge_once() {
    let g = graph();
    let csr = g.to_csr();
    assert_eq!(csr.offsets, [0, 3, 6, 7, 7, 7, 7]);
    assert!(csr.offsets.is_sorted() && csr.targets.len() == g.edges().len());
    let mut from_rows: Vec<Edge> = (0..g.nodes().len())
        .flat_map(|i| (csr.offsets[i]..csr.offsets[i + 1]).map(move |at| (i, at)))
        .map(|(i, at)| edge(i as u32, csr.targets[at], csr.kinds[at]))
        .collect();
    let mut edges = g.edges().to_vec();
    let key = |e: &Edge| (e.from, e.to, e.kind.name());
    from_rows.sort_by_key(key);
    edges.sort_by_key(key);
    assert_eq!(from_rows, edges);
}

/// Checks the little of DOT that is used here: statements, attribute lists, quoted strings; gives nodes and edges.
fn parse_dot(text: &str) -> (usize, usize) {
    let body = text.strip_prefix("digraph execution {\n").unwrap().strip_suffix("}\n").unwrap();
    let (mut nodes, mut edges) = (0, 0);
    for line in body.lines() {
        let mut outside = String::new();
        let (mut quoted, mut escaped) = (false, false);
        for c in line.chars() {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                c if !quoted => outside.push(c),
                _ => {}
            }
        }
        assert!(!quoted && !escaped, "a string does not end: {line}");
        assert!(outside.ends_with(';'), "{line}");
        assert_eq!(outside.matches('[').count(), outside.matches(']').count(), "{line}");
        edges += usize::from(outside.contains("->"));
        nodes += usize::from(outside.trim_start().starts_with('n') && outside.contains("shape="));
    }
    (nodes, edges)
}

#[test]
fn dot_is_whole_whatever_names_contain() {
    let g = graph();
    assert_eq!(parse_dot(&g.to_dot()), (6, 7));
    let mut g = ExecutionGraph::new();
    g.push_scope(ExecNode::brick("\"];\nn9 -> n9 [x=\"\\"));
    g.add(ExecNode::brick("back\\slash\\"));
    assert_eq!(parse_dot(&g.to_dot()), (2, 1));
    let mermaid = g.to_mermaid();
    assert_eq!(mermaid.lines().count(), 4, "{mermaid}");
    assert!(mermaid.contains("n0[\"#quot;]#59;\u{fffd}n9 -#gt; n9 [x=#quot;\\\"]"), "{mermaid}");
}

#[test]
fn the_hottest_node_of_a_kind_is_the_reddest() {
    let dot = graph().to_dot();
    let line = |n: u32| dot.lines().find(|l| l.starts_with(&format!("  n{n} ["))).unwrap();
    assert!(line(1).contains("fillcolor=\"#ff5050\""), "{}", line(1));
    assert!(line(4).contains("fillcolor=\"#ffd4d4\""), "{}", line(4));
    assert!(!line(0).contains("fillcolor"), "{}", line(0));
}

#[test]
fn distance_from_the_roofline_goes_from_green_to_red() {
    let mut g = ExecutionGraph::new();
    for (name, time, bound) in
        [("at", 100, Some(100)), ("three", 316, Some(100)), ("ten", 1000, Some(100)), ("worse", 9000, Some(100))]
    {
        g.add(ExecNode::brick(name).timed(time).bounded(bound));
    }
    g.add(ExecNode::brick("faster").timed(50).bounded(Some(100)));
    g.add(ExecNode::brick("unknown").timed(50));
    let dot = g.to_dot_by(Heat::Roofline);
    let color = |name: &str| {
        let line = dot.lines().find(|l| l.contains(&format!("label=\"{name}\\n"))).unwrap();
        line.split_once("fillcolor=\"").map(|(_, rest)| &rest[..7])
    };
    let colors = ["at", "three", "ten", "worse", "faster", "unknown"].map(color);
    let expected = ["#6fc28a", "#ffe08a", "#ff5050", "#ff5050", "#6fc28a"];
    assert_eq!(colors[..5], expected.map(Some));
    assert_eq!(colors[5], None, "without a bound there is no distance");
    let mermaid = g.to_mermaid_by(Heat::Roofline);
    assert_eq!(mermaid.lines().filter(|l| l.starts_with("  style ")).count(), 5);
    assert_eq!((g.to_dot(), g.to_mermaid()), (g.to_dot_by(Heat::Time), g.to_mermaid_by(Heat::Time)));
}

#[test]
fn bounds_of_bricks_add_up() {
    let g = ExecutionGraph::from_profile(&profile(), Phase::Decode).unwrap();
    let bound = |id: NodeId| g.node(id).unwrap().bound_ns.unwrap() as f64;
    let bricks = |within: NodeId| g.children(within).filter(|c| g.node(*c).unwrap().kind == NodeKind::Brick);
    let root = g.roots().next().unwrap();
    let mut all: f64 = bricks(root).map(bound).sum();
    for layer in g.children(root).filter(|c| g.node(*c).unwrap().kind == NodeKind::Layer) {
        let sum: f64 = bricks(layer).map(bound).sum();
        assert!((bound(layer) - sum).abs() <= 8.0, "each is rounded to a nanosecond");
        all += sum;
    }
    assert!((bound(root) - all).abs() <= 19.0);
    insta::assert_snapshot!("dot_by_roofline", g.to_dot_by(Heat::Roofline));
}

#[test]
fn json_holds_everything() {
    let value: serde_json::Value = serde_json::from_str(&graph().to_json().unwrap()).unwrap();
    let nodes: Vec<ExecNode> = serde_json::from_value(value["nodes"].clone()).unwrap();
    let edges: Vec<Edge> = serde_json::from_value(value["edges"].clone()).unwrap();
    assert_eq!((nodes.as_slice(), edges.as_slice()), (graph().nodes(), graph().edges()));
    assert_eq!(value["schema_version"], 1);
}

#[test]
fn a_profile_becomes_model_layer_brick_kernel() {
    let g = ExecutionGraph::from_profile(&profile(), Phase::Decode).unwrap();
    assert_eq!((g.depth(), g.roots().count()), (0, 1));
    insta::assert_snapshot!(g.to_ascii_tree());
    assert_eq!(g.to_ascii_tree(), ExecutionGraph::from_profile(&profile(), Phase::Decode).unwrap().to_ascii_tree());
    for (kind, expected) in
        [(NodeKind::Function, 1), (NodeKind::Layer, 2), (NodeKind::Brick, 19), (NodeKind::Kernel, 19)]
    {
        assert_eq!(g.nodes().iter().filter(|n| n.kind == kind).count(), expected, "{kind:?}");
    }
    assert_eq!(ExecutionGraph::from_profile(&profile(), Phase::Mixed), None);
}

#[test]
fn drawings_of_a_profile() {
    let g = ExecutionGraph::from_profile(&profile(), Phase::Prefill).unwrap();
    let (nodes, edges) = parse_dot(&g.to_dot());
    assert_eq!((nodes, edges), (g.nodes().len(), g.edges().len()));
    insta::assert_snapshot!("dot", g.to_dot());
    insta::assert_snapshot!("mermaid", g.to_mermaid());
}

#[test]
fn without_times_of_steps_layers_are_all_there_is() {
    let g = ExecutionGraph::from_profile(&profile_in(SyncMode::PerLayer), Phase::Decode).unwrap();
    assert_eq!(
        g.to_ascii_tree(),
        "tiny decode  522.3µs\n├── no layer  32.8µs\n├── Layer 0  169.6µs\n├── Layer 1  169.6µs\n└── no layer  150.1µs\n"
    );
}
