//! Graphs of real shapes: what they consist of, what they cost, and what a file that does not fit is told.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use brick_graphs::Graph;
use brick_graphs::export::{AsciiOptions, ascii};
use brick_graphs::passes::{MaxRows, pipeline, run_all, run_until};
use brick_models::arch::{ArchSpec, WeightNames};
use brick_models::build::{BuildError, build_graph};
use bricks::{ActKind, BrickKind, DType, Extent, Op, RopeScaling, RopeSpec, RopeStyle, WeightShape};

type Tensors = HashMap<String, WeightShape>;

const ROWS: MaxRows = MaxRows { tokens: 1, wanted: 1 };

/// SmolLM2-135M.
fn smollm2() -> ArchSpec {
    ArchSpec {
        architecture: "llama".into(),
        name: None,
        n_layers: 30,
        hidden: 576,
        n_heads: 9,
        n_kv_heads: 3,
        head_dim: 64,
        ffn: 1536,
        vocab: 49152,
        context_length: 8192,
        norm_eps: 1e-5,
        rope: RopeSpec {
            style: RopeStyle::Interleaved,
            base: 1e5,
            dims: 64,
            scaling: RopeScaling::None,
            freq_factors: None,
        },
        qkv_bias: false,
        activation: ActKind::Silu,
        tied_embeddings: true,
        embedding_scale: 1.0,
        sliding_window: None,
    }
}

/// Qwen2.5-1.5B.
fn qwen2() -> ArchSpec {
    ArchSpec {
        architecture: "qwen2".into(),
        n_layers: 28,
        hidden: 1536,
        n_heads: 12,
        n_kv_heads: 2,
        head_dim: 128,
        ffn: 8960,
        vocab: 151_936,
        context_length: 32768,
        norm_eps: 1e-6,
        rope: RopeSpec {
            style: RopeStyle::SplitHalves,
            base: 1e6,
            dims: 128,
            scaling: RopeScaling::None,
            freq_factors: None,
        },
        qkv_bias: true,
        ..smollm2()
    }
}

/// The tensors of a file with this architecture: matrices in one type, the embedding in another, vectors in F32.
fn tensors(s: &ArchSpec, matrices: DType, embedding: DType) -> Tensors {
    let mut t = Tensors::new();
    let mut add = |name: String, dtype, rows, cols| t.insert(name, WeightShape { dtype, rows, cols });
    add("token_embd.weight".into(), embedding, s.vocab, s.hidden);
    add("output_norm.weight".into(), DType::F32, 1, s.hidden);
    if !s.tied_embeddings {
        add("output.weight".into(), embedding, s.vocab, s.hidden);
    }
    let (q, kv) = (s.n_heads * s.head_dim, s.n_kv_heads * s.head_dim);
    for l in 0..s.n_layers {
        for norm in ["attn_norm", "ffn_norm"] {
            add(format!("blk.{l}.{norm}.weight"), DType::F32, 1, s.hidden);
        }
        for (name, rows, cols) in [
            ("attn_q", q, s.hidden),
            ("attn_k", kv, s.hidden),
            ("attn_v", kv, s.hidden),
            ("attn_output", s.hidden, q),
            ("ffn_gate", s.ffn, s.hidden),
            ("ffn_up", s.ffn, s.hidden),
            ("ffn_down", s.hidden, s.ffn),
        ] {
            add(format!("blk.{l}.{name}.weight"), matrices, rows, cols);
        }
        if s.qkv_bias {
            for (name, n) in [("attn_q", q), ("attn_k", kv), ("attn_v", kv)] {
                add(format!("blk.{l}.{name}.bias"), DType::F32, 1, n);
            }
        }
    }
    t
}

fn build(s: &ArchSpec, t: &Tensors) -> Result<Graph, BuildError> {
    build_graph(s, &|name| t.get(name).copied())
}

fn counts(g: &Graph) -> Vec<usize> {
    pipeline().iter().map(|p| run_until(g, p.name, ROWS).unwrap().graph.len()).collect()
}

#[test]
fn smollm2_costs_what_it_must() {
    let s = smollm2();
    let t = tensors(&s, DType::Q4_1, DType::Q8_0);
    let g = build(&s, &t).unwrap();
    // 16 per layer and tokens, embedding, final norm, head; -2, -1, -1, -2 (once less), -2 per layer.
    assert_eq!(counts(&g), [484, 424, 394, 364, 305, 245, 245, 245]);
    // Every tensor is read: 9 per layer, embedding (twice), final norm.
    assert_eq!((g.weights().len(), t.len()), (272, 272));

    let e = Extent::one_sequence(1, 256, 1);
    let matrices = 2 * 576 * 576 + 2 * 192 * 576 + 3 * 1536 * 576; // 3 538 944 values per layer
    let layer = matrices / 32 * 20 + 2 * 4 * 576; // Q4_1: 20 bytes per 32; two norms
    let head = 49_152 * 576 / 32 * 34; // Q8_0: 34 bytes per 32
    let row = 576 / 32 * 34; // one row of the embedding
    assert_eq!(layer, 2_216_448);
    for g in [&g, &run_all(&g, ROWS).unwrap().graph] {
        let cost = g.total_cost(&e);
        assert_eq!(cost.weight_bytes, 30 * layer + 4 * 576 + head + row);
        assert_eq!(cost.weight_bytes, 96_577_380);
        assert_eq!(cost.int_ops, 2 * (30 * matrices + 49_152 * 576));
        assert_eq!(g.stored_weight_bytes(), 30 * layer + 4 * 576 + head);
        // 256 positions of 3 KV heads of 64, keys and values, f16.
        let kv: u64 =
            g.bricks().filter(|b| b.kind == BrickKind::Attention).map(|b| g.cost(b.id, &e).read_bytes - 4 * 576).sum();
        assert_eq!(kv, 30 * 256 * 3 * 64 * 2 * 2);
    }
}

#[test]
fn qwen2_costs_what_it_must() {
    let s = qwen2();
    let t = tensors(&s, DType::Q4_K, DType::Q6_K);
    let g = build(&s, &t).unwrap();
    assert_eq!(counts(&g), [28 * 16 + 4, 396, 368, 340, 285, 229, 229, 229]);
    assert_eq!(g.weights().len(), 28 * 12 + 2);

    let matrices: u64 = 2 * 1536 * 1536 + 2 * 256 * 1536 + 3 * 8960 * 1536;
    assert_eq!(matrices, 46_792_704);
    let head = 151_936 * 1536 / 256 * 210; // Q6_K: 210 bytes per 256
    let biases = 28 * (1536 + 256 + 256) * 4;
    let norms = (2 * 28 + 1) * 1536 * 4;
    let row = 1536 / 256 * 210;
    let total = 28 * (matrices / 256 * 144) + head + biases + norms + row;
    assert_eq!(total, 929_005_292);
    for g in [&g, &run_all(&g, ROWS).unwrap().graph] {
        let cost = g.total_cost(&Extent::one_sequence(1, 1, 1));
        assert_eq!(cost.weight_bytes, total);
        assert_eq!(cost.int_ops, 2 * (28 * matrices + 151_936 * 1536));
    }
    let fused = run_all(&g, ROWS).unwrap().graph;
    let qkv = fused.find("blk.27.attn_qkv").unwrap();
    let weights: Vec<&str> = qkv.weights.iter().map(|w| fused.weight(*w).name.as_str()).collect();
    assert_eq!(
        weights,
        [
            "blk.27.attn_q.weight",
            "blk.27.attn_q.bias",
            "blk.27.attn_k.weight",
            "blk.27.attn_k.bias",
            "blk.27.attn_v.weight",
            "blk.27.attn_v.bias"
        ]
    );
}

#[test]
fn trees_of_real_models() {
    let options = AsciiOptions { extent: Extent::one_sequence(1, 256, 1), collapse: true };
    let s = smollm2();
    let g = build(&s, &tensors(&s, DType::Q4_1, DType::Q8_0)).unwrap();
    insta::assert_snapshot!("smollm2_unfused", ascii(&g, &options));
    insta::assert_snapshot!("smollm2_fused", ascii(&run_all(&g, ROWS).unwrap().graph, &options));
    let s = qwen2();
    let g = build(&s, &tensors(&s, DType::Q4_K, DType::Q6_K)).unwrap();
    insta::assert_snapshot!("qwen2_fused", ascii(&run_all(&g, ROWS).unwrap().graph, &options));
}

#[test]
fn the_arena_of_a_decode_step_is_exact() {
    let arena = |s: &ArchSpec, t: &Tensors| {
        let p = run_all(&build(s, t).unwrap(), MaxRows { tokens: 1, wanted: 1 }).unwrap().placement.unwrap();
        (p.arena_bytes(), p.peak_bytes())
    };
    let s = smollm2();
    // Logits, and the final norm they are made from.
    let bound = 4 * (49_152 + 576);
    assert_eq!(arena(&s, &tensors(&s, DType::Q4_1, DType::Q8_0)), (bound, bound));
}

#[test]
fn every_tensor_of_the_specification_is_read() {
    for s in [smollm2(), qwen2(), ArchSpec { tied_embeddings: false, ..qwen2() }] {
        let g = build(&s, &tensors(&s, DType::F16, DType::F16)).unwrap();
        let mut read: Vec<&str> = g.weights().iter().map(|w| w.name.as_str()).collect();
        let mut named: Vec<String> = s.weights().map(|(role, layer)| WeightNames::GGUF.name(role, layer)).collect();
        read.sort_unstable();
        named.sort_unstable();
        assert_eq!(read, named);
    }
}

#[test]
fn tied_models_read_the_embedding_twice_and_untied_ones_their_own_head() {
    let tied = smollm2();
    let untied = ArchSpec { tied_embeddings: false, ..smollm2() };
    let t = tensors(&untied, DType::Q4_1, DType::Q8_0);
    let head = |s: &ArchSpec| {
        let g = build(s, &t).unwrap();
        g.weight(g.find("output").unwrap().weights[0]).name.clone()
    };
    assert_eq!(head(&tied), "token_embd.weight");
    assert_eq!(head(&untied), "output.weight");
}

#[test]
fn parameters_reach_their_bricks() {
    let s = ArchSpec { sliding_window: Some(4096), embedding_scale: 24.0, ..smollm2() };
    let g = build(&s, &tensors(&s, DType::F16, DType::F16)).unwrap();
    let op = |name: &str| g.find(name).unwrap().op.clone();
    let Op::Attention(a) = op("blk.7.attn") else { panic!() };
    assert_eq!((a.n_heads, a.n_kv_heads, a.head_dim, a.window, a.scale), (9, 3, 64, Some(4096), 0.125));
    assert_eq!(op("token_embd"), Op::Embed { scale: 24.0 });
    assert_eq!(op("blk.7.rope_k"), Op::Rope { n_heads: 3, head_dim: 64, spec: s.rope.clone() });
    assert_eq!(op("blk.7.ffn_act"), Op::GatedActivation { act: ActKind::Silu });
    let kinds = |k: BrickKind| g.bricks().filter(|b| b.kind == k).count();
    let found: Vec<usize> = BrickKind::ALL.into_iter().map(kinds).collect();
    // Embed RmsNorm FinalNorm QKV RoPE KvWrite Attention OProj Residual GateUp Activation Down LmHead Sample Custom
    assert_eq!(found, [1, 60, 1, 90, 60, 30, 30, 30, 60, 60, 30, 30, 1, 0, 1]);
    assert!(g.bricks().all(|b| b.layer.is_some() == b.name.starts_with("blk.")));
}

#[test]
fn every_missing_tensor_is_named() {
    for s in [smollm2(), qwen2(), ArchSpec { tied_embeddings: false, ..qwen2() }] {
        let s = ArchSpec { n_layers: 2, ..s };
        let t = tensors(&s, DType::F16, DType::F16);
        for name in t.keys() {
            let mut rest = t.clone();
            rest.remove(name);
            match build(&s, &rest) {
                Err(BuildError::MissingTensor { tensor, .. }) => assert_eq!(&tensor, name),
                other => panic!("without {name}: {other:?}"),
            }
        }
    }
    let e = build(&smollm2(), &Tensors::new()).unwrap_err();
    assert_eq!(e.to_string(), "tensor `token_embd.weight` (token embedding) is missing: llama needs it");
}

#[test]
fn every_tensor_of_a_wrong_shape_is_named() {
    let s = ArchSpec { n_layers: 1, tied_embeddings: false, ..qwen2() };
    let t = tensors(&s, DType::F16, DType::F16);
    for (name, shape) in &t {
        for wrong in [WeightShape { rows: shape.rows + 1, ..*shape }, WeightShape { cols: shape.cols * 2, ..*shape }] {
            let mut changed = t.clone();
            changed.insert(name.clone(), wrong);
            let e = build(&s, &changed).expect_err(name).to_string();
            assert!(e.contains(&format!("`{name}`")), "{name}: {e}");
        }
    }
}

#[test]
fn numbers_that_make_no_sense_are_errors() {
    let t = tensors(&smollm2(), DType::F16, DType::F16);
    let base = smollm2();
    let rope = |base| RopeSpec { base, ..smollm2().rope };
    let wrong = [
        ("n_layers", ArchSpec { n_layers: 0, ..base.clone() }),
        ("n_layers", ArchSpec { n_layers: usize::MAX, ..base.clone() }),
        ("hidden", ArchSpec { hidden: 0, ..base.clone() }),
        ("n_heads", ArchSpec { n_heads: usize::MAX / 2, ..base.clone() }),
        ("head_dim", ArchSpec { head_dim: usize::MAX, ..base.clone() }),
        ("n_kv_heads", ArchSpec { n_kv_heads: 0, ..base.clone() }),
        ("n_kv_heads", ArchSpec { n_kv_heads: 2, ..base.clone() }),
        ("ffn", ArchSpec { ffn: 0, ..base.clone() }),
        ("vocab", ArchSpec { vocab: 0, ..base.clone() }),
        ("sliding_window", ArchSpec { sliding_window: Some(0), ..base.clone() }),
        ("norm_eps", ArchSpec { norm_eps: f32::NAN, ..base.clone() }),
        ("norm_eps", ArchSpec { norm_eps: 0.0, ..base.clone() }),
        ("rope.base", ArchSpec { rope: rope(f32::INFINITY), ..base.clone() }),
        ("rope.base", ArchSpec { rope: rope(-1.0), ..base.clone() }),
        ("embedding_scale", ArchSpec { embedding_scale: f32::NAN, ..base.clone() }),
    ];
    for (expected, s) in wrong {
        match build(&s, &t) {
            Err(BuildError::Spec { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    // Rotary dimensions are checked by the operation itself.
    let s = ArchSpec { rope: RopeSpec { dims: 66, ..base.rope.clone() }, ..base };
    assert!(build(&s, &t).unwrap_err().to_string().contains("`blk.0.rope_q` (rope): rotary dims"));
}
