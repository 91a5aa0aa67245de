//! What a builder accepts, and what it says about the rest.

#![allow(clippy::unwrap_used)]

mod common;

use brick_graphs::{Graph, GraphBuilder, GraphError, Handle};
use bricks::{BrickKind, DType, Op, Rows};
use common::{D, attention, decoder, gain, linear, matrix, rope};

/// A builder with tokens and an embedding of width `D`.
fn start() -> (GraphBuilder, Handle) {
    let mut b = GraphBuilder::new();
    let tokens = b.push("tokens", BrickKind::Custom, None, Op::Input, &[], &[]).out();
    let table = b.weight("table", matrix(DType::F32, 10, D));
    let x = b.push("embed", BrickKind::Embed, None, Op::Embed { scale: 1.0 }, &[tokens], &[table]).out();
    (b, x)
}

fn proj(b: &mut GraphBuilder, name: &str, x: Handle, input: usize, output: usize) -> Handle {
    let w = b.weight(format!("{name}.weight"), matrix(DType::F32, output, input));
    b.push(name, BrickKind::Custom, None, linear("p", input, output), &[x], &[w]).out()
}

fn add(b: &mut GraphBuilder, name: &str, x: Handle, y: Handle) -> Handle {
    b.push(name, BrickKind::Residual, None, Op::Add, &[x, y], &[]).out()
}

fn err(r: Result<Graph, GraphError>) -> GraphError {
    r.expect_err("this composition must be refused")
}

#[test]
fn a_wrong_wire_names_both_bricks_their_ports_and_both_types() {
    let (mut b, x) = start();
    let narrow = proj(&mut b, "narrow", x, D, 32);
    let y = add(&mut b, "sum", x, narrow);
    let e = err(b.finish(y));
    assert_eq!(e.to_string(), "brick `sum` input 1: expected f32[T, 64], but brick `narrow` output 0 gives f32[T, 32]");
}

#[test]
fn tokens_are_not_activations() {
    let (mut b, x) = start();
    let tokens = b.push("more", BrickKind::Custom, None, Op::Embed { scale: 1.0 }, &[x], &[]).out();
    let e = err(b.finish(tokens));
    assert!(matches!(e, GraphError::Op { ref brick, op: "embed", .. } if brick == "more"), "{e}");

    let (mut b, _) = start();
    let w = b.weight("table", matrix(DType::F32, 10, D));
    let t = b.push("t2", BrickKind::Embed, None, Op::Embed { scale: 1.0 }, &[], &[w]);
    let x = b.push("norm", BrickKind::RmsNorm, None, Op::RmsNorm { eps: 1e-5, rows: Rows::All }, &[t.out()], &[]);
    assert!(matches!(err(b.finish(x.out())), GraphError::Op { .. }));
}

#[test]
fn a_wrong_weight_is_named_with_its_role() {
    let (mut b, x) = start();
    let w = b.weight("w", matrix(DType::Q8_0, D, 32));
    let y = b.push("p", BrickKind::Custom, None, linear("p", D, D), &[x], &[w]).out();
    assert_eq!(err(b.finish(y)).to_string(), "brick `p` weight `w` (matrix): expected [64, 64], found [64, 32] Q8_0");
}

#[test]
fn a_missing_weight_is_an_error() {
    let (mut b, x) = start();
    let y = b.push("p", BrickKind::Custom, None, linear("p", D, D), &[x], &[]).out();
    assert_eq!(err(b.finish(y)).to_string(), "brick `p` (linear): expected 1 weights, found 0");
}

#[test]
fn weights_are_registered_once_with_one_shape_and_read() {
    let (mut b, x) = start();
    let w1 = b.weight("w", matrix(DType::F32, D, D));
    let w2 = b.weight("w", matrix(DType::F32, D, D));
    assert_eq!(w1, w2);
    let y = b.push("p", BrickKind::Custom, None, linear("p", D, D), &[x], &[w1]).out();
    let y = b.push("q", BrickKind::Custom, None, linear("p", D, D), &[y], &[w2]).out();
    let g = b.finish(y).unwrap();
    assert_eq!(g.weights().len(), 2);
    assert_eq!(g.stored_weight_bytes(), (4 * (10 * D + D * D)) as u64);

    let (mut b, x) = start();
    b.weight("w", matrix(DType::F32, D, D));
    b.weight("w", matrix(DType::F16, D, D));
    assert_eq!(err(b.finish(x)).to_string(), "weight `w`: registered as F32[64, 64], then as F16[64, 64]");

    let (mut b, x) = start();
    b.weight("forgotten", gain(D));
    assert_eq!(err(b.finish(x)), GraphError::UnusedWeight { name: "forgotten".into() });

    let (mut b, x) = start();
    let norm = Op::RmsNorm { eps: 1e-5, rows: Rows::All };
    let y = b.push("n", BrickKind::RmsNorm, None, norm, &[x], &[brick_graphs::WeightId(9)]).out();
    assert_eq!(err(b.finish(y)), GraphError::UnknownWeight { brick: "n".into(), id: 9, count: 1 });
}

#[test]
fn names_are_unique() {
    let (mut b, x) = start();
    let y = add(&mut b, "sum", x, x);
    let y = add(&mut b, "sum", y, x);
    assert_eq!(err(b.finish(y)), GraphError::DuplicateName { name: "sum".into() });
}

#[test]
fn cycles_are_found_and_spelled_out() {
    let (mut b, x) = start();
    let a = b.push("a", BrickKind::Residual, None, Op::Add, &[x], &[]);
    let c = b.push("c", BrickKind::Residual, None, Op::Add, &[a.out(), x], &[]);
    let d = b.push("d", BrickKind::Residual, None, Op::Add, &[c.out(), x], &[]);
    b.wire(d.out(), a, 1);
    let after = add(&mut b, "after", d.out(), x);
    let e = err(b.finish(after));
    let GraphError::Cycle { mut bricks } = e else { panic!("{e}") };
    assert_eq!(bricks.len(), 3);
    let first = bricks.iter().position(|n| n == "a").unwrap();
    bricks.rotate_left(first);
    assert_eq!(bricks, ["a", "c", "d"]);

    let (mut b, x) = start();
    let a = b.push("selfish", BrickKind::Residual, None, Op::Add, &[x], &[]);
    b.wire(a.out(), a, 1);
    assert_eq!(err(b.finish(a.out())), GraphError::Cycle { bricks: vec!["selfish".into()] });
}

#[test]
fn forward_wires_are_put_in_order() {
    let (mut b, x) = start();
    let late = b.push("late", BrickKind::Residual, None, Op::Add, &[x, x], &[]);
    let early = add(&mut b, "early", x, x);
    b.wire(early, late, 1);
    let g = b.finish(late.out()).unwrap();
    let names: Vec<&str> = g.bricks().map(|b| b.name.as_str()).collect();
    assert_eq!(names, ["tokens", "embed", "early", "late"]);
}

#[test]
fn every_input_is_wired_to_an_output_that_exists() {
    let (mut b, x) = start();
    let sum = b.push("sum", BrickKind::Residual, None, Op::Add, &[], &[]);
    b.wire(x, sum, 1);
    assert_eq!(err(b.finish(sum.out())), GraphError::Unconnected { brick: "sum".into(), port: 0 });

    let (mut b, x) = start();
    let sum = b.push("sum", BrickKind::Residual, None, Op::Add, &[x, x], &[]);
    let y = add(&mut b, "after", sum.port(1), x);
    assert_eq!(
        err(b.finish(y)).to_string(),
        "brick `after` input 0: expected one of the 1 outputs of brick `sum`, found output 1"
    );

    let (mut b, x) = start();
    let sum = b.push("sum", BrickKind::Residual, None, Op::Add, &[x, x], &[]);
    assert!(matches!(err(b.finish(sum.port(7))), GraphError::NoSuchOutput { producer_port: 7, .. }));

    let (mut b, x) = start();
    let sum = b.push("sum", BrickKind::Residual, None, Op::Add, &[x], &[]).out();
    assert_eq!(err(b.finish(sum)).to_string(), "brick `sum` (add): expected 2 inputs, found 1");
}

#[test]
fn outputs_that_nobody_reads_are_refused_but_for_kv_caches() {
    let (mut b, x) = start();
    add(&mut b, "wasted", x, x);
    let y = add(&mut b, "sum", x, x);
    assert_eq!(
        err(b.finish(y)).to_string(),
        "brick `wasted` output 0 (f32[T, 64]): expected a reader, found none, and it is not the graph's output"
    );

    // A cache that only later calls read.
    let (mut b, x) = start();
    b.push("kv", BrickKind::KvWrite, Some(0), Op::KvWrite { n_kv_heads: 4, head_dim: 16 }, &[x, x], &[]);
    let y = add(&mut b, "sum", x, x);
    assert!(b.finish(y).is_ok());
}

#[test]
fn the_output_may_have_readers_too() {
    let (mut b, x) = start();
    let y = add(&mut b, "y", x, x);
    b.push("kv", BrickKind::KvWrite, Some(0), Op::KvWrite { n_kv_heads: 4, head_dim: 16 }, &[y, x], &[]);
    let g = b.finish(y).unwrap();
    assert_eq!(g.value(g.output()).consumers.len(), 1);
}

#[test]
fn the_output_is_activations() {
    let (mut b, x) = start();
    let kv = b.push("kv", BrickKind::KvWrite, Some(0), Op::KvWrite { n_kv_heads: 4, head_dim: 16 }, &[x, x], &[]);
    let e = err(b.finish(kv.out()));
    assert_eq!(e.to_string(), "graph output: expected activations (f32), but brick `kv` output 0 gives kv[S, 64]");
}

#[test]
fn handles_of_another_builder_are_refused_everywhere() {
    let (_, foreign) = start();
    let (mut b, x) = start();
    let y = add(&mut b, "sum", x, foreign);
    assert_eq!(err(b.finish(y)), GraphError::ForeignHandle { brick: "sum".into(), port: 1 });

    let (b, _) = start();
    assert!(matches!(err(b.finish(foreign)), GraphError::ForeignHandle { .. }));

    let (mut other, x) = start();
    let theirs = other.push("sum", BrickKind::Residual, None, Op::Add, &[x], &[]);
    let (mut b, x) = start();
    b.wire(x, theirs, 1);
    assert!(matches!(err(b.finish(x)), GraphError::ForeignHandle { .. }));
}

#[test]
fn one_batch_comes_in() {
    let (mut b, x) = start();
    let tokens = b.push("again", BrickKind::Custom, None, Op::Input, &[], &[]).out();
    let table = b.weight("table", matrix(DType::F32, 10, D));
    let z = b.push("embed2", BrickKind::Embed, None, Op::Embed { scale: 1.0 }, &[tokens], &[table]).out();
    let y = add(&mut b, "sum", x, z);
    assert_eq!(err(b.finish(y)), GraphError::SeveralInputs { first: "tokens".into(), second: "again".into() });
}

#[test]
fn a_cache_has_a_layer_and_one_writer() {
    let write = || Op::KvWrite { n_kv_heads: 4, head_dim: 16 };
    let (mut b, x) = start();
    b.push("kv", BrickKind::KvWrite, None, write(), &[x, x], &[]);
    assert_eq!(err(b.finish(x)), GraphError::KvWithoutLayer { brick: "kv".into() });

    let (mut b, x) = start();
    b.push("kv", BrickKind::KvWrite, Some(3), write(), &[x, x], &[]);
    let fused = Op::RopeKvWrite { n_heads: 4, n_kv_heads: 4, head_dim: 16, spec: rope(1e4) };
    let f = b.push("kv2", BrickKind::Rope, Some(3), fused, &[x, x, x], &[]);
    let y = b.push("attn", BrickKind::Attention, Some(3), attention(4, 4), &[f.out(), f.port(1)], &[]).out();
    let e = err(b.finish(y));
    assert_eq!(e.to_string(), "bricks `kv` and `kv2` both write the KV cache of layer 3");
}

#[test]
fn an_empty_builder_has_no_graph() {
    let (mut b, x) = start();
    assert!(b.finish(x).is_ok());
    b = GraphBuilder::default();
    assert!(b.finish(x).is_err());
}

#[test]
fn ids_are_dense_and_in_execution_order_and_agree_with_petgraph() {
    let g = decoder(2);
    assert_eq!(g.len(), 2 * 16 + 4);
    assert_eq!(g.petgraph().node_count(), g.len());
    for (i, b) in g.bricks().enumerate() {
        assert_eq!(b.id.index(), i);
        for (port, v) in b.outputs.iter().enumerate() {
            let v = g.value(*v);
            assert_eq!((v.producer, v.port), (b.id, port));
            assert!(v.consumers.iter().all(|c| *c > b.id), "{} runs before its reader", b.name);
        }
        for (to_port, v) in b.inputs.iter().enumerate() {
            let v = g.value(*v);
            assert!(v.consumers.contains(&b.id));
            let found = g
                .petgraph()
                .edges_connecting(v.producer.0.into(), b.id.0.into())
                .any(|e| *e.weight() == brick_graphs::Wire { from_port: v.port, to_port });
            assert!(found, "{} input {to_port}", b.name);
        }
    }
    assert_eq!(g.petgraph().edge_count(), g.bricks().map(|b| b.inputs.len()).sum::<usize>());
    assert!(!petgraph::algo::is_cyclic_directed(g.petgraph()));
}

#[test]
fn equal_graphs_have_equal_hashes_and_others_have_others() {
    let g = decoder(2);
    assert_eq!(g, decoder(2));
    assert_eq!(g.hash(), decoder(2).hash());
    // Fixed: the hash is stored in recordings and must not change between machines or builds.
    insta::assert_snapshot!(g.hash_hex());

    let build = |eps: f32, dtype: DType, name: &str| {
        let mut b = GraphBuilder::new();
        let tokens = b.push("tokens", BrickKind::Custom, None, Op::Input, &[], &[]).out();
        let table = b.weight("table", matrix(dtype, 10, D));
        let g = b.weight("gain", gain(D));
        let x = b.push(name, BrickKind::Embed, None, Op::Embed { scale: 1.0 }, &[tokens], &[table]).out();
        let op = Op::RmsNorm { eps, rows: Rows::All };
        let y = b.push("norm", BrickKind::RmsNorm, None, op, &[x], &[g]).out();
        b.finish(y).unwrap()
    };
    let base = build(1e-5, DType::F32, "embed");
    for other in
        [build(1.000_001e-5, DType::F32, "embed"), build(1e-5, DType::F16, "embed"), build(1e-5, DType::F32, "e")]
    {
        assert_ne!(base, other);
        assert_ne!(base.hash(), other.hash());
    }
}
