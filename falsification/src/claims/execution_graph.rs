//! F111-G–F127-G: the execution graph.

use brick_profiler::exec_graph::{
    Dim3, EdgeKind, ExecGraphError, ExecNode, ExecutionGraph, Launch, NodeId, NodeKind, PtxHash, PtxRegistry,
};

use crate::claim::{Claim, Family, Outcome, Refusal, require, require_eq, require_some};
use crate::context::Context;
use crate::noise::Noise;

macro_rules! claim {
    ($id:literal, $statement:literal, $threshold:literal, $check:ident) => {
        Claim { id: $id, statement: $statement, family: Family::ExecutionGraph, threshold: $threshold, check: $check }
    };
}

pub(super) const CLAIMS: &[Claim] = &[
    claim!("F111-G", "There are four kinds of nodes: layer, brick, kernel, function", "4", f111),
    claim!("F112-G", "There are four kinds of edges: calls, contains, launches, sequence", "4", f112),
    claim!("F113-G", "Scopes nest; leaving one that was never entered is an error, not a panic", "exact", f113),
    claim!("F114-G", "What is added in a scope gets an edge from it", "exact", f114),
    claim!("F115-G", "A kernel launch is an edge to a node with grid, block and shared memory", "exact", f115),
    claim!("F116-G", "Siblings are linked in the order of their calls", "exact", f116),
    claim!("F117-G", "The CSR form holds every edge once, rows in order", "exact", f117),
    claim!("F118-G", "The PTX registry maps hash to source and back", "exact", f118),
    claim!("F119-G", "The DOT form has all nodes and edges, with labels escaped", "valid", f119),
    claim!("F120-G", "Clearing empties the graph; nothing is added while tracking is off", "0", f120),
    claim!("F121-G", "The text tree shows layer, brick and kernel one below the other", "layout", f121),
    claim!("F122-G", "Several roots are drawn in their order", "layout", f122),
    claim!("F123-G", "An empty graph is drawn without a panic", "defined text", f123),
    claim!("F124-G", "The text tree is the same in every run", "byte-identical", f124),
    claim!("F125-G", "The text tree shows times of bricks and launches of kernels", "present", f125),
    claim!("F126-G", "The text tree needs no feature flag", "no features in the manifest", f126),
    claim!("F127-G", "The tree is drawn on a canvas without a terminal", "no panic", f127),
];

/// A decoder's forward call: a function, and in it layers of bricks, each with a kernel.
fn example(layers: u32) -> Result<ExecutionGraph, Refusal> {
    let mut g = ExecutionGraph::new();
    g.push_scope(ExecNode::function("decode"));
    for l in 0..layers {
        g.push_scope(ExecNode::layer(l));
        for (brick, kernel, us) in [("RmsNorm", "rms_norm_avx2", 2), ("QKV", "linear_q4_k_avx2", 48)] {
            g.push_scope(ExecNode::brick(brick).timed(us * 1000 + 250 * u64::from(l)));
            g.record_kernel_launch(kernel, 2, (1, 1, 1), 0);
            g.pop_scope()?;
        }
        g.pop_scope()?;
    }
    g.pop_scope()?;
    Ok(g)
}

fn f111(_: &Context) -> Outcome {
    // No wildcard: a fifth kind would not compile.
    let name = |k: NodeKind| match k {
        NodeKind::Layer => "layer",
        NodeKind::Brick => "brick",
        NodeKind::Kernel => "kernel",
        NodeKind::Function => "function",
    };
    let mut names = NodeKind::ALL.map(name).to_vec();
    names.dedup();
    require_eq("kinds", &names, &vec!["layer", "brick", "kernel", "function"])?;
    Ok(names.join(", "))
}

fn f112(_: &Context) -> Outcome {
    let name = |k: EdgeKind| match k {
        EdgeKind::Calls => "calls",
        EdgeKind::Contains => "contains",
        EdgeKind::Launches => "launches",
        EdgeKind::Sequence => "sequence",
    };
    let names = EdgeKind::ALL.map(name).to_vec();
    require_eq("kinds", &names, &vec!["calls", "contains", "launches", "sequence"])?;
    Ok(names.join(", "))
}

fn f113(_: &Context) -> Outcome {
    let mut g = ExecutionGraph::new();
    require_eq("leaving nothing", &g.pop_scope(), &Err(ExecGraphError::UnbalancedPop))?;
    let mut noise = Noise::new(113);
    let mut open: Vec<Option<NodeId>> = vec![];
    let (mut pushes, mut errors) = (0, 0);
    for i in 0..2000 {
        if noise.below(2) == 0 {
            open.push(g.push_scope(ExecNode::function(format!("f{i}"))));
            pushes += 1;
        } else {
            let expected = open.pop().ok_or(ExecGraphError::UnbalancedPop);
            errors += usize::from(expected.is_err());
            require_eq("scope that is left", &g.pop_scope(), &expected)?;
        }
        require_eq("open scopes", &g.depth(), &open.len())?;
    }
    require_eq("nodes", &g.nodes().len(), &pushes)?;
    Ok(format!("{pushes} scopes entered in random order, {errors} exits too many, each an error"))
}

fn f114(_: &Context) -> Outcome {
    let mut g = ExecutionGraph::new();
    let parent = require_some(g.push_scope(ExecNode::layer(3)), "a node")?;
    let brick = require_some(g.add(ExecNode::brick("QKV")), "a node")?;
    let function = require_some(g.add(ExecNode::function("callback")), "a node")?;
    g.pop_scope()?;
    let outside = require_some(g.add(ExecNode::brick("LmHead")), "a node")?;
    let edge = |to| {
        g.edges()
            .iter()
            .filter(|e| e.to == to && e.kind != EdgeKind::Sequence)
            .map(|e| (e.from, e.kind))
            .collect::<Vec<_>>()
    };
    require_eq("edges to the brick", &edge(brick), &vec![(parent, EdgeKind::Contains)])?;
    require_eq("edges to the function", &edge(function), &vec![(parent, EdgeKind::Calls)])?;
    require_eq("edges to what is outside", &edge(outside), &vec![])?;
    require_eq("parents", &[brick, function, outside].map(|n| g.parent(n)), &[Some(parent), Some(parent), None])?;
    Ok("contains a brick, calls a function, nothing to what is outside".into())
}

fn f115(_: &Context) -> Outcome {
    let mut g = ExecutionGraph::new();
    let brick = require_some(g.push_scope(ExecNode::brick("Attention")), "a node")?;
    let kernel = require_some(g.record_kernel_launch("flash", (16, 2, 1), 256, 49_152), "a node")?;
    let node = require_some(g.node(kernel), "the kernel's node")?;
    let launch = Launch { grid: Dim3(16, 2, 1), block: Dim3(256, 1, 1), shared_bytes: 49_152 };
    require_eq("(kind, launch)", &(node.kind, node.launch), &(NodeKind::Kernel, Some(launch)))?;
    let edges: Vec<_> = g.edges().iter().map(|e| (e.from, e.to, e.kind)).collect();
    require_eq("edges", &edges, &vec![(brick, kernel, EdgeKind::Launches)])?;
    Ok(format!("{} {launch}", node.name))
}

fn f116(_: &Context) -> Outcome {
    let g = example(3)?;
    let mut links = 0;
    let parents: Vec<Option<NodeId>> =
        std::iter::once(None).chain((0..g.nodes().len() as u32).map(|i| Some(NodeId(i)))).collect();
    for parent in parents {
        let siblings: Vec<NodeId> = match parent {
            None => g.roots().collect(),
            Some(p) => g.children(p).collect(),
        };
        let expected: Vec<(NodeId, NodeId)> = siblings.windows(2).map(|w| (w[0], w[1])).collect();
        let found: Vec<(NodeId, NodeId)> = g
            .edges()
            .iter()
            .filter(|e| e.kind == EdgeKind::Sequence && g.parent(e.from) == parent && siblings.contains(&e.from))
            .map(|e| (e.from, e.to))
            .collect();
        require_eq("links among siblings", &found, &expected)?;
        links += found.len();
    }
    require_eq("links in all: 2 among layers, 1 in each layer", &links, &5)?;
    Ok(format!("{links} links"))
}

fn f117(_: &Context) -> Outcome {
    let g = example(4)?;
    let csr = g.to_csr();
    require_eq("rows", &csr.offsets.len(), &(g.nodes().len() + 1))?;
    require(csr.offsets.is_sorted(), "offsets that do not fall", || format!("{:?}", csr.offsets))?;
    require_eq("(first, last offset)", &(csr.offsets[0], csr.offsets.last().copied()), &(0, Some(g.edges().len())))?;
    let mut back: Vec<_> = (0..g.nodes().len())
        .flat_map(|i| (csr.offsets[i]..csr.offsets[i + 1]).map(move |e| (i as u32, e)))
        .map(|(i, e)| (i, csr.targets[e], csr.kinds[e].name()))
        .collect();
    let mut edges: Vec<_> = g.edges().iter().map(|e| (e.from.0, e.to.0, e.kind.name())).collect();
    back.sort_unstable();
    edges.sort_unstable();
    require_eq("edges", &back, &edges)?;
    require_eq("rows of an empty graph", &ExecutionGraph::new().to_csr().offsets, &vec![0])?;
    Ok(format!("{} nodes, {} edges there and back", g.nodes().len(), edges.len()))
}

fn f118(_: &Context) -> Outcome {
    let mut registry = PtxRegistry::new();
    let sources: Vec<String> = (0..500).map(|i| format!(".version 8.0\n.target sm_{}\n// {i}", 70 + i % 20)).collect();
    let hashes: Vec<PtxHash> = sources.iter().map(|s| registry.register(s)).collect();
    for (source, hash) in sources.iter().zip(&hashes) {
        require_eq("source", &registry.source(*hash), &Some(source.as_str()))?;
        require_eq("hash", &registry.hash(source), &Some(*hash))?;
        require_eq("hash when registered again", &registry.register(source), hash)?;
    }
    require_eq("sources", &registry.len(), &500)?;
    require_eq("an unknown source", &registry.hash("unknown"), &None)?;
    Ok("500 sources both ways".into())
}

/// Reads what DOT says of nodes and edges: `n<i> [… label="…" …];` and `n<a> -> n<b> […];`, labels with `\"` and `\\` escapes.
fn read_dot(dot: &str) -> Result<(Vec<String>, usize), Refusal> {
    let bad = |line: &str| Refusal::falsified("a statement of DOT", line);
    require(dot.starts_with("digraph ") && dot.trim_end().ends_with('}'), "a digraph", || {
        dot.lines().next().unwrap_or("").into()
    })?;
    let (mut labels, mut edges) = (vec![], 0);
    for line in
        dot.lines().map(str::trim).filter(|l| l.starts_with('n') && l[1..].starts_with(|c: char| c.is_ascii_digit()))
    {
        let label = line.split_once("label=\"").ok_or_else(|| bad(line))?.1;
        let (mut text, mut chars) = (String::new(), label.chars());
        loop {
            match chars.next().ok_or_else(|| bad(line))? {
                '"' => break,
                '\\' => match chars.next().ok_or_else(|| bad(line))? {
                    'n' => text.push('\n'),
                    c @ ('"' | '\\') => text.push(c),
                    _ => return Err(bad(line)),
                },
                c => text.push(c),
            }
        }
        require(chars.as_str().ends_with("];"), "an end after the label", || line.into())?;
        if line.split("label").next().is_some_and(|l| l.contains("->")) {
            edges += 1;
        } else {
            require_eq("number of the node", &line.split(' ').next(), &Some(format!("n{}", labels.len()).as_str()))?;
            labels.push(text);
        }
    }
    Ok((labels, edges))
}

fn f119(_: &Context) -> Outcome {
    let mut g = example(2)?;
    let names = ["a \"quoted\" brick", "back\\slash", "ends with \\", "a -> b; }", "[label=\"x\"]"];
    for name in names {
        g.add(ExecNode::brick(name));
    }
    let (labels, edges) = read_dot(&g.to_dot())?;
    require_eq("nodes", &labels.len(), &g.nodes().len())?;
    require_eq("edges", &edges, &g.edges().len())?;
    for (label, node) in labels.iter().zip(g.nodes()) {
        require_eq("name in the label", &label.lines().next(), &Some(node.name.as_str()))?;
    }
    Ok(format!("{} nodes and {edges} edges read back, {} with awkward names", labels.len(), names.len()))
}

fn f120(_: &Context) -> Outcome {
    let mut g = example(2)?;
    let before = g.clone();
    g.set_tracking(false);
    require_eq("node added while off", &g.push_scope(ExecNode::layer(9)), &None)?;
    require_eq("kernel added while off", &g.record_kernel_launch("k", 1, 1, 0), &None)?;
    g.pop_scope()?;
    g.set_tracking(true);
    require(g == before, "the graph as before", || format!("{} nodes", g.nodes().len()))?;
    g.push_scope(ExecNode::layer(1));
    g.clear();
    require_eq("(nodes, edges, open scopes)", &(g.nodes().len(), g.edges().len(), g.depth()), &(0, 0, 0))?;
    Ok(format!("{} nodes, then 0; off: 0 added", before.nodes().len()))
}

const TREE: &str = "\
decode
├── Layer 0
│   ├── RmsNorm  2.0µs
│   │   └── rms_norm_avx2  <<<2,1,0>>>
│   └── QKV  48.0µs
│       └── linear_q4_k_avx2  <<<2,1,0>>>
└── Layer 1
    ├── RmsNorm  2.2µs
    │   └── rms_norm_avx2  <<<2,1,0>>>
    └── QKV  48.2µs
        └── linear_q4_k_avx2  <<<2,1,0>>>
";

fn f121(_: &Context) -> Outcome {
    let tree = example(2)?.to_ascii_tree();
    require_eq("tree", &tree.as_str(), &TREE)?;
    Ok("layer, brick, kernel, each one step further in".into())
}

fn f122(_: &Context) -> Outcome {
    let mut g = ExecutionGraph::new();
    for name in ["first", "second", "third"] {
        g.push_scope(ExecNode::function(name));
        g.add(ExecNode::brick(format!("of {name}")));
        g.pop_scope()?;
    }
    let expected = "first\n└── of first\nsecond\n└── of second\nthird\n└── of third\n";
    require_eq("tree", &g.to_ascii_tree().as_str(), &expected)?;
    require_eq("roots", &g.roots().count(), &3)?;
    Ok("3 roots in order".into())
}

fn f123(_: &Context) -> Outcome {
    let g = ExecutionGraph::new();
    require_eq("text", &g.to_ascii_tree().as_str(), &ExecutionGraph::EMPTY)?;
    let (labels, edges) = read_dot(&g.to_dot())?;
    require_eq("DOT", &(labels.len(), edges), &(0, 0))?;
    require(g.to_json().is_ok(), "JSON", || "an error".into())?;
    Ok(format!("{:?}", ExecutionGraph::EMPTY.trim_end()))
}

fn f124(_: &Context) -> Outcome {
    let trees = [example(5)?, example(5)?].map(|g| (g.to_ascii_tree(), g.to_dot(), g.to_mermaid()));
    require(trees[0] == trees[1], "the same bytes", || "different bytes".into())?;
    require(trees[0].0 != example(6)?.to_ascii_tree(), "other bytes for another graph", || "the same".into())?;
    Ok(format!("{} bytes of text, DOT and Mermaid, twice", trees[0].0.len() + trees[0].1.len() + trees[0].2.len()))
}

fn f125(_: &Context) -> Outcome {
    let g = example(1)?;
    let tree = g.to_ascii_tree();
    for part in ["RmsNorm  2.0µs", "QKV  48.0µs", "rms_norm_avx2  <<<2,1,0>>>"] {
        require(tree.contains(part), format!("{part:?} in the tree"), || tree.clone())?;
    }
    require_eq(
        "path",
        &g.path(NodeId(3)).as_deref(),
        &Some("decode → Layer 0 → RmsNorm 2.0µs → rms_norm_avx2 <<<2,1,0>>>"),
    )?;
    Ok("RmsNorm 2.0µs → rms_norm_avx2 <<<2,1,0>>>".into())
}

fn f126(_: &Context) -> Outcome {
    const MANIFEST: &str = include_str!("../../../profiler/Cargo.toml");
    require(MANIFEST.contains("name = \"brick-profiler\""), "the profiler's manifest", || "another".into())?;
    require(!MANIFEST.contains("[features]"), "no features", || "a table of features".into())?;
    require(!example(1)?.to_ascii_tree().is_empty(), "a tree", || "nothing".into())?;
    Ok("the crate has no feature flags, and this program draws the tree".into())
}

fn f127(_: &Context) -> Outcome {
    Err(Refusal::not_testable("needs the terminal user interface, which does not exist yet"))
}
