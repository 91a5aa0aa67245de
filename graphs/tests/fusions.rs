//! Fusions: what they do to a decoder, and that they never change what a graph means.

#![allow(clippy::unwrap_used)]

mod common;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use brick_graphs::meaning::Terms;
use brick_graphs::passes::{
    self, MaxRows, fuse_all, fuse_gate_up, fuse_gated, fuse_qkv, fuse_residual_norm, fuse_rope_kv, pipeline, run_all,
    run_until, validate,
};
use brick_graphs::{Graph, GraphBuilder, GraphError};
use bricks::{ActKind, BrickKind, DType, Extent, LinearPart, Op, Rows};
use common::{D, acts, attention, decoder, gain, grow, matrix, rope};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

const ROWS: MaxRows = MaxRows { tokens: 4, wanted: 1 };

type Fuse = fn(&Graph) -> Result<Graph, GraphError>;
const FUSIONS: [(&str, Fuse); 5] = [
    ("fuse_qkv", fuse_qkv),
    ("fuse_gate_up", fuse_gate_up),
    ("fuse_gated", fuse_gated),
    ("fuse_residual_norm", fuse_residual_norm),
    ("fuse_rope_kv", fuse_rope_kv),
];

fn names(g: &Graph) -> Vec<&str> {
    g.bricks().map(|b| b.name.as_str()).collect()
}

#[test]
fn bricks_of_a_decoder_after_each_pass() {
    let g = decoder(3);
    let counts: Vec<(&str, usize)> =
        pipeline().iter().map(|p| (p.name, run_until(&g, p.name, ROWS).unwrap().graph.len())).collect();
    // 16 per layer and 4 around them; each pass: -2, -1, -2 (but one, at the end), -2 per layer.
    assert_eq!(
        counts,
        [
            ("validate", 52),
            ("fuse-qkv", 46),
            ("fuse-gate-up", 43),
            ("fuse-gated", 40),
            ("fuse-residual-norm", 35),
            ("fuse-rope-kv", 29),
            ("liveness", 29),
            ("place", 29),
        ]
    );
}

#[test]
fn a_fused_layer_has_eight_bricks_with_stable_names() {
    let g = run_all(&decoder(2), ROWS).unwrap().graph;
    assert_eq!(
        names(&g),
        [
            "tokens",
            "token_embd",
            "blk.0.attn_norm",
            "blk.0.attn_qkv",
            "blk.0.rope_qk_kv_write",
            "blk.0.attn",
            "blk.0.attn_output",
            "blk.0.add_ffn_norm",
            "blk.0.ffn_gate_up",
            "blk.0.ffn_down",
            "blk.1.add_attn_norm",
            "blk.1.attn_qkv",
            "blk.1.rope_qk_kv_write",
            "blk.1.attn",
            "blk.1.attn_output",
            "blk.1.add_ffn_norm",
            "blk.1.ffn_gate_up",
            "blk.1.ffn_down",
            "blk.1.ffn_residual",
            "output_norm",
            "output",
        ]
    );
    let stands_for = |name: &str| g.find(name).unwrap().stands_for.clone();
    assert_eq!(stands_for("blk.1.attn_qkv"), ["blk.1.attn_q", "blk.1.attn_k", "blk.1.attn_v"]);
    assert_eq!(stands_for("blk.1.add_attn_norm"), ["blk.0.ffn_residual", "blk.1.attn_norm"]);
    assert_eq!(stands_for("blk.1.ffn_gate_up"), ["blk.1.ffn_gate", "blk.1.ffn_up", "blk.1.ffn_act"]);
    assert!(stands_for("blk.1.attn").is_empty());
    assert_eq!(g.find("blk.1.add_attn_norm").unwrap().layer, Some(1));
}

#[test]
fn nothing_is_lost_every_original_brick_is_still_stood_for() {
    let g = decoder(3);
    let fused = run_all(&g, ROWS).unwrap().graph;
    let mut stood_for: Vec<String> = fused
        .bricks()
        .flat_map(|b| if b.stands_for.is_empty() { vec![b.name.clone()] } else { b.stands_for.clone() })
        .collect();
    let mut all: Vec<String> = g.bricks().map(|b| b.name.clone()).collect();
    stood_for.sort();
    all.sort();
    assert_eq!(stood_for, all);
}

#[test]
fn parts_keep_their_weights_and_readers() {
    let g = fuse_qkv(&decoder(1)).unwrap();
    let qkv = g.find("blk.0.attn_qkv").unwrap();
    let Op::Linear { parts, .. } = &qkv.op else { panic!("{:?}", qkv.op) };
    let reader = |port: usize| {
        let readers = &g.value(qkv.outputs[port]).consumers;
        assert_eq!(readers.len(), 1);
        g.brick(readers[0]).name.as_str()
    };
    let weight = |i: usize| g.weight(qkv.weights[i]).name.as_str();
    let found: Vec<(&str, usize, &str, &str)> =
        parts.iter().enumerate().map(|(i, p)| (p.label.as_str(), p.rows, weight(i), reader(i))).collect();
    assert_eq!(
        found,
        [
            ("attn_q", 64, "blk.0.attn_q.weight", "blk.0.rope_q"),
            ("attn_k", 32, "blk.0.attn_k.weight", "blk.0.rope_k"),
            ("attn_v", 32, "blk.0.attn_v.weight", "blk.0.kv_write"),
        ]
    );
}

/// Gate and up stay two outputs where somebody else reads one of them.
#[test]
fn an_activation_is_fused_only_if_nobody_else_reads_gate_or_up() {
    let fused = |g: &Graph| fuse_gated(&fuse_gate_up(g).unwrap()).unwrap();
    let g = fused(&decoder(1));
    let brick = g.find("blk.0.ffn_gate_up").unwrap();
    assert!(matches!(brick.op, Op::GatedLinear { act: ActKind::Silu, .. }), "{:?}", brick.op);
    assert_eq!(g.value(brick.outputs[0]).consumers, [g.find("blk.0.ffn_down").unwrap().id]);
    assert!(g.find("blk.0.ffn_act").is_none());
    // Without the fusion before it there is nothing to fuse with.
    let apart = fuse_gated(&decoder(1)).unwrap();
    assert!(apart.find("blk.0.ffn_act").is_some());
    let shared = graph(|b, x| {
        let w = ["gate", "up"].map(|name| b.weight(name, matrix(DType::F32, D, D)));
        let part = |label: &str| LinearPart { label: label.into(), rows: D, bias: false };
        let op = Op::Linear { input: D, parts: vec![part("gate"), part("up")], rows: Rows::All };
        let both = b.push("gate_up", BrickKind::GateUp, Some(0), op, &[x], &w);
        let act = Op::GatedActivation { act: ActKind::Silu };
        let y = b.push("act", BrickKind::Activation, Some(0), act, &[both.port(0), both.port(1)], &[]);
        b.push("sum", BrickKind::Residual, Some(0), Op::Add, &[y.out(), both.port(0)], &[]).out()
    });
    assert!(fuse_gated(&shared).unwrap().find("act").is_some());
}

/// Tokens and an embedding; the closure makes the rest and gives the output.
fn graph(f: impl FnOnce(&mut GraphBuilder, brick_graphs::Handle) -> brick_graphs::Handle) -> Graph {
    let mut b = GraphBuilder::new();
    let tokens = b.push("tokens", BrickKind::Custom, None, Op::Input, &[], &[]).out();
    let table = b.weight("table", matrix(DType::F32, 10, D));
    let x = b.push("embed", BrickKind::Embed, None, Op::Embed { scale: 1.0 }, &[tokens], &[table]).out();
    let y = f(&mut b, x);
    b.finish(y).unwrap()
}

#[test]
fn a_sum_that_only_the_norm_reads_stays_two_bricks() {
    let g = graph(|b, x| {
        let w = b.weight("g", gain(D));
        let sum = b.push("sum", BrickKind::Residual, None, Op::Add, &[x, x], &[]).out();
        b.push("norm", BrickKind::RmsNorm, None, Op::RmsNorm { eps: 1e-5, rows: Rows::All }, &[sum], &[w]).out()
    });
    assert_eq!(fuse_residual_norm(&g).unwrap(), g);
}

#[test]
fn of_two_norms_on_one_sum_the_first_is_fused_and_the_other_reads_its_sum() {
    let norm = || Op::RmsNorm { eps: 1e-5, rows: Rows::All };
    let g = graph(|b, x| {
        let w = b.weight("g", gain(D));
        let sum = b.push("sum", BrickKind::Residual, None, Op::Add, &[x, x], &[]).out();
        let n1 = b.push("n1", BrickKind::RmsNorm, None, norm(), &[sum], &[w]).out();
        let n2 = b.push("n2", BrickKind::RmsNorm, None, norm(), &[sum], &[w]).out();
        b.push("y", BrickKind::Residual, None, Op::Add, &[n1, n2], &[]).out()
    });
    let f = fuse_residual_norm(&g).unwrap();
    assert_eq!(names(&f), ["tokens", "embed", "add_n1", "n2", "y"]);
    let fused = f.find("add_n1").unwrap();
    assert_eq!(f.find("n2").unwrap().inputs, [fused.outputs[0]]);
    assert_eq!(f.find("y").unwrap().inputs[0], fused.outputs[1]);
}

#[test]
fn a_name_that_is_taken_is_not_taken_twice() {
    let g = graph(|b, x| {
        let w = b.weight("g", gain(D));
        let taken = b.push("add_norm", BrickKind::Residual, None, Op::Add, &[x, x], &[]).out();
        let sum = b.push("sum", BrickKind::Residual, None, Op::Add, &[x, taken], &[]).out();
        let n = b.push("norm", BrickKind::RmsNorm, None, Op::RmsNorm { eps: 1e-5, rows: Rows::All }, &[sum], &[w]);
        b.push("y", BrickKind::Residual, None, Op::Add, &[sum, n.out()], &[]).out()
    });
    assert_eq!(names(&fuse_residual_norm(&g).unwrap()), ["tokens", "embed", "add_norm", "add_norm.2", "y"]);
}

/// Rotations and a cache write on `layer`; gives the rotated queries and the cache.
fn rope_op(base: f32) -> Op {
    Op::Rope { n_heads: 4, head_dim: 16, spec: rope(base) }
}

const WRITE: Op = Op::KvWrite { n_kv_heads: 4, head_dim: 16 };

#[test]
fn rotations_that_differ_or_are_read_elsewhere_are_not_fused() {
    for (k_base, k_layer, shared, keys_as_values) in
        [(1e6, 0, false, false), (1e4, 1, false, false), (1e4, 0, true, false), (1e4, 0, false, true)]
    {
        let g = graph(|b, x| {
            let q = b.push("rq", BrickKind::Rope, Some(0), rope_op(1e4), &[x], &[]).out();
            let k = b.push("rk", BrickKind::Rope, Some(k_layer), rope_op(k_base), &[x], &[]).out();
            let v = if keys_as_values { k } else { x };
            let kv = b.push("w", BrickKind::KvWrite, Some(0), WRITE, &[k, v], &[]).out();
            let y = b.push("a", BrickKind::Attention, Some(0), attention(4, 4), &[q, kv], &[]).out();
            let other = if shared { k } else { x };
            b.push("y", BrickKind::Residual, None, Op::Add, &[y, other], &[]).out()
        });
        assert_eq!(fuse_rope_kv(&g).unwrap(), g, "{k_base} {k_layer} {shared} {keys_as_values}");
    }
}

#[test]
fn values_made_from_rotated_queries_cannot_be_fused_with_their_rotation() {
    // rq -> v -> w: one brick in place of rq, rk and w would wait for itself.
    let g = graph(|b, x| {
        let q = b.push("rq", BrickKind::Rope, Some(0), rope_op(1e4), &[x], &[]).out();
        let k = b.push("rk", BrickKind::Rope, Some(0), rope_op(1e4), &[x], &[]).out();
        let v = b.push("v", BrickKind::Residual, None, Op::Add, &[q, x], &[]).out();
        let kv = b.push("w", BrickKind::KvWrite, Some(0), WRITE, &[k, v], &[]).out();
        b.push("a", BrickKind::Attention, Some(0), attention(4, 4), &[q, kv], &[]).out()
    });
    assert_eq!(fuse_rope_kv(&g).unwrap(), g);
}

#[test]
fn of_two_fusions_that_would_wait_for_each_other_the_first_is_kept() {
    let g = graph(|b, x| {
        let qa = b.push("qa", BrickKind::Rope, Some(0), rope_op(1e4), &[x], &[]).out();
        let qb = b.push("qb", BrickKind::Rope, Some(1), rope_op(1e4), &[x], &[]).out();
        let ka = b.push("ka", BrickKind::Rope, Some(0), rope_op(1e4), &[qb], &[]).out();
        let kb = b.push("kb", BrickKind::Rope, Some(1), rope_op(1e4), &[qa], &[]).out();
        let wa = b.push("wa", BrickKind::KvWrite, Some(0), WRITE, &[ka, x], &[]).out();
        let wb = b.push("wb", BrickKind::KvWrite, Some(1), WRITE, &[kb, x], &[]).out();
        let ya = b.push("ya", BrickKind::Attention, Some(0), attention(4, 4), &[qa, wa], &[]).out();
        let yb = b.push("yb", BrickKind::Attention, Some(1), attention(4, 4), &[qb, wb], &[]).out();
        b.push("y", BrickKind::Residual, None, Op::Add, &[ya, yb], &[]).out()
    });
    let f = fuse_rope_kv(&g).unwrap();
    let fused: Vec<&[String]> = f.bricks().map(|b| b.stands_for.as_slice()).filter(|s| !s.is_empty()).collect();
    assert_eq!(fused, [["qa", "ka", "wa"]]);
}

#[test]
fn fusions_keep_the_meaning_of_random_graphs_and_never_cost_more() {
    let fused: [Cell<u32>; 5] = Default::default();
    let terms = RefCell::new(Terms::new());
    // The same graphs every time, so that the counts at the end cannot flake.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    runner
        .run(&acts(), |acts| {
            let before = grow(&acts);
            assert_eq!(validate(&before).unwrap(), before);
            for (i, (name, fuse)) in FUSIONS.iter().enumerate() {
                // Only what an earlier fusion made one brick can be fused with its activation.
                let base = if *name == "fuse_gated" { fuse_gate_up(&before).unwrap() } else { before.clone() };
                let after = fuse(&base).unwrap();
                fused[i].set(fused[i].get() + u32::from(after.len() < base.len()));
                check(&mut terms.borrow_mut(), name, &before, &after);
                assert_eq!(fuse(&after).unwrap(), after, "{name} again");
            }
            let all = FUSIONS.iter().fold(before.clone(), |g, (_, f)| f(&g).unwrap());
            check(&mut terms.borrow_mut(), "all", &before, &all);
            assert_eq!(fuse_all(&before).unwrap(), all);
            Ok(())
        })
        .unwrap();
    for (n, (name, _)) in fused.iter().zip(FUSIONS) {
        assert!(n.get() >= 30, "{name} found something to fuse in only {} of 400 graphs", n.get());
    }
}

fn check(terms: &mut Terms, pass: &str, before: &Graph, after: &Graph) {
    assert_eq!(terms.meaning(before).difference(&terms.meaning(after)), None, "{pass}");
    assert_eq!(before.weights(), after.weights(), "{pass}");

    // Every brick that is still there reads what it read.
    let (old, new) = (terms.values(before), terms.values(after));
    let by_name: HashMap<&str, &brick_graphs::Brick> = before.bricks().map(|b| (b.name.as_str(), b)).collect();
    for b in after.bricks().filter(|b| b.stands_for.is_empty()) {
        let was = by_name[b.name.as_str()];
        assert_eq!((&was.op, was.kind, was.layer, &was.weights), (&b.op, b.kind, b.layer, &b.weights), "{pass}");
        let read = |g: &brick_graphs::Brick, t: &[brick_graphs::meaning::Term]| {
            g.inputs.iter().map(|v| t[v.index()]).collect::<Vec<_>>()
        };
        assert_eq!(read(was, &old), read(b, &new), "{pass}: {}", b.name);
    }
    // And every fused brick replaced bricks that are gone.
    for b in after.bricks().flat_map(|b| &b.stands_for) {
        assert!(by_name.contains_key(b.as_str()) && after.find(b).is_none(), "{pass}: {b}");
    }

    for extent in [Extent::one_sequence(1, 100, 1), Extent::one_sequence(17, 40, 3)] {
        let (a, b) = (before.total_cost(&extent), after.total_cost(&extent));
        assert!(b.bytes() <= a.bytes(), "{pass}: {} > {}", b.bytes(), a.bytes());
        assert!(after.len() == before.len() || b.bytes() < a.bytes(), "{pass}: fused for nothing");
        assert_eq!((a.int_ops, a.flops, a.weight_bytes), (b.int_ops, b.flops, b.weight_bytes), "{pass}");
    }
}

#[test]
fn the_meaning_check_sees_swapped_wires_other_parameters_and_other_weights() {
    let build = |swap: bool, eps: f32, weight: &str, layer: u32| {
        graph(|b, x| {
            let w = b.weight(weight, gain(D));
            let n = b.push("n", BrickKind::RmsNorm, None, Op::RmsNorm { eps, rows: Rows::All }, &[x], &[w]).out();
            let (k, v) = if swap { (n, x) } else { (x, n) };
            let kv = b.push("w", BrickKind::KvWrite, Some(layer), WRITE, &[k, v], &[]).out();
            b.push("a", BrickKind::Attention, Some(layer), attention(4, 4), &[x, kv], &[]).out()
        })
    };
    let mut terms = Terms::new();
    let base = terms.meaning(&build(false, 1e-5, "g", 0));
    assert_eq!(base.difference(&terms.meaning(&build(false, 1e-5, "g", 0))), None);
    for other in
        [build(true, 1e-5, "g", 0), build(false, 1e-6, "g", 0), build(false, 1e-5, "h", 0), build(false, 1e-5, "g", 1)]
    {
        assert_eq!(base.difference(&terms.meaning(&other)).as_deref(), Some("the output"));
    }

    // A cache that the output does not depend on counts too.
    let cache_only = |swap: bool| {
        graph(|b, x| {
            let y = b.push("y", BrickKind::Residual, None, Op::Add, &[x, x], &[]).out();
            let inputs = if swap { [y, x] } else { [x, y] };
            b.push("w", BrickKind::KvWrite, Some(5), WRITE, &inputs, &[]);
            y
        })
    };
    let (a, b) = (terms.meaning(&cache_only(false)), terms.meaning(&cache_only(true)));
    assert_eq!(a.difference(&b).as_deref(), Some("the KV cache of layer 5"));
}

#[test]
fn an_unknown_pass_is_an_error_that_lists_the_known_ones() {
    let e = run_until(&decoder(1), "fuse", ROWS).unwrap_err();
    assert_eq!(
        e.to_string(),
        "no pass is named `fuse`; there are validate, fuse-qkv, fuse-gate-up, fuse-gated, fuse-residual-norm, fuse-rope-kv, \
         liveness, place"
    );
}

#[test]
fn annotations_appear_with_their_passes() {
    let g = decoder(1);
    let at = |name: &str| run_until(&g, name, ROWS).unwrap();
    assert!(at("fuse-rope-kv").liveness.is_none());
    assert!(at("liveness").liveness.is_some() && at("liveness").placement.is_none());
    assert!(at("place").placement.is_some());
}

#[test]
fn the_cost_table_adds_up() {
    let g = decoder(2);
    let e = Extent::one_sequence(3, 10, 2);
    let table = passes::cost_table(&g, &e);
    assert_eq!(table.total, g.total_cost(&e));
    assert_eq!(table.total, table.kinds.iter().map(|(_, _, c)| *c).sum());
    assert_eq!(table.kinds.iter().map(|(_, n, _)| n).sum::<usize>(), g.len());
    let (_, n, qkv) = table.kinds.iter().find(|(k, ..)| *k == BrickKind::Qkv).unwrap();
    // Per layer: 128 rows of 64 values, two blocks of 20 bytes each.
    assert_eq!((*n, qkv.weight_bytes, qkv.int_ops), (6, 2 * 128 * 40, 2 * 3 * 2 * 128 * 64));
}
