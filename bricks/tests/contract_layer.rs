//! Bricks composed by hand: a layer is its parts, and its parts are their reference.
#![allow(clippy::unwrap_used)]

use bricks::catalog::{
    ActivationQuantBrick, Activations, AttentionBrick, BudgetTable, DownBrick, EmbedBrick, FfnBrick, GateUpBrick,
    KvCache, LayerInput, LayerParts, LmHeadBrick, Normed, OProjBrick, Part, QkvBrick, ResidualBrick, RmsNormBrick,
    RopeBrick, Stream, TransformerLayerBrick,
};
use bricks::reference::{self, Arithmetic, Context, Weight};
use bricks::{
    ActKind, AttentionSpec, BrickError, BrickLine, BudgetOrigin, BudgetPolicy, ComputeBrick as _, LinearPart,
    Observation, Op, RopeScaling, RopeSpec, RopeStyle, RunBrick, TokenBudget,
};

const HIDDEN: usize = 48;
const HEADS: usize = 6;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 8;
const FFN: usize = 80;
const EPS: f32 = 1e-5;

fn noise(seed: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729 + 31) % 2003) as f32 / 4004.0 - 0.25).collect()
}

fn matrix(seed: usize, rows: usize, cols: usize) -> Weight<'static> {
    Weight::from_f32(rows, cols, &noise(seed, rows * cols)).unwrap()
}

/// The weights of a layer, by name, so that the composition and the reference use the same.
struct Weights {
    norms: [Weight<'static>; 2],
    qkv: [Weight<'static>; 3],
    biases: [Weight<'static>; 3],
    o: Weight<'static>,
    gate: Weight<'static>,
    up: Weight<'static>,
    down: Weight<'static>,
}

fn weights() -> Weights {
    let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    Weights {
        norms: [matrix(1, 1, HIDDEN), matrix(2, 1, HIDDEN)],
        qkv: [matrix(3, q, HIDDEN), matrix(4, kv, HIDDEN), matrix(5, kv, HIDDEN)],
        biases: [matrix(6, 1, q), matrix(7, 1, kv), matrix(8, 1, kv)],
        o: matrix(9, HIDDEN, q),
        gate: matrix(10, FFN, HIDDEN),
        up: matrix(11, FFN, HIDDEN),
        down: matrix(12, HIDDEN, FFN),
    }
}

fn rope_spec() -> RopeSpec {
    let (style, scaling) = (RopeStyle::SplitHalves, RopeScaling::None);
    RopeSpec { style, base: 1e6, dims: HEAD_DIM, scaling, freq_factors: None }
}

fn attention_spec() -> AttentionSpec {
    let scale = 1.0 / (HEAD_DIM as f32).sqrt();
    AttentionSpec { n_heads: HEADS, n_kv_heads: KV_HEADS, head_dim: HEAD_DIM, scale, window: None, softcap: None }
}

fn layer(w: &Weights) -> TransformerLayerBrick {
    let part = |i: usize| Part::new(w.qkv[i].clone()).with_bias(&w.biases[i]).unwrap();
    let gate_up = GateUpBrick::new([Part::new(w.gate.clone()), Part::new(w.up.clone())]).unwrap();
    let down = DownBrick::new([Part::new(w.down.clone())]).unwrap();
    let parts = LayerParts {
        attn_norm: RmsNormBrick::new(&w.norms[0], EPS).unwrap(),
        qkv: QkvBrick::new([part(0), part(1), part(2)]).unwrap(),
        rope: RopeBrick::new(HEADS, KV_HEADS, HEAD_DIM, rope_spec()).unwrap(),
        attention: AttentionBrick::new(attention_spec()).unwrap(),
        o_proj: OProjBrick::new([Part::new(w.o.clone())]).unwrap(),
        residual: ResidualBrick::new(HIDDEN).unwrap(),
        ffn_norm: RmsNormBrick::new(&w.norms[1], EPS).unwrap(),
        ffn: FfnBrick::new(gate_up, ActKind::Silu, down).unwrap(),
    };
    TransformerLayerBrick::new(3, parts)
}

fn cache() -> KvCache {
    KvCache::new(KV_HEADS, HEAD_DIM, 64).unwrap()
}

fn run(layer: &TransformerLayerBrick, x: &[f32], positions: &[u32], cache: &mut KvCache) -> Vec<f32> {
    let stream = Activations::new(HIDDEN, x.to_vec()).unwrap();
    layer.run(LayerInput { stream: &stream, positions, cache }).unwrap().output.stream.values().to_vec()
}

/// The layer as a list of operations, through the single entry of the reference.
fn by_operations(w: &Weights, x: &[f32], positions: &[u32]) -> Vec<f32> {
    let (q_dim, kv_dim) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let zeros = vec![0.0; positions.len() * kv_dim];
    let context = Context { positions, keys: &zeros, values: &zeros, ..Context::default() };
    let part = |label: &str, rows, bias| LinearPart { label: label.into(), rows, bias };
    let linear = |input: usize, parts: Vec<LinearPart>, x: &[f32], weights: &[Weight<'static>]| {
        let op = Op::Linear { input, parts, rows: bricks::Rows::All };
        reference::run(&op, &[x], weights, &context).unwrap()
    };
    let norm = Op::RmsNorm { eps: EPS, rows: bricks::Rows::All };
    let n = reference::run(&norm, &[x], &w.norms[..1], &context).unwrap().remove(0);
    let interleaved: Vec<_> = w.qkv.iter().zip(&w.biases).flat_map(|(m, b)| [m.clone(), b.clone()]).collect();
    let parts = vec![part("q", q_dim, true), part("k", kv_dim, true), part("v", kv_dim, true)];
    let qkv = linear(HIDDEN, parts, &n, &interleaved);
    let rope = Op::RopeKvWrite { n_heads: HEADS, n_kv_heads: KV_HEADS, head_dim: HEAD_DIM, spec: rope_spec() };
    let rotated = reference::run(&rope, &[&qkv[0], &qkv[1], &qkv[2]], &[], &context).unwrap();
    let context = Context { keys: &rotated[1], values: &rotated[2], ..context };
    let y = reference::run(&Op::Attention(attention_spec()), &[&rotated[0]], &[], &context).unwrap().remove(0);
    let o = linear(q_dim, vec![part("o", HIDDEN, false)], &y, std::slice::from_ref(&w.o));
    let sums = reference::run(&Op::AddRmsNorm { eps: EPS }, &[x, &o[0]], &w.norms[1..], &context).unwrap();
    let both = linear(
        HIDDEN,
        vec![part("gate", FFN, false), part("up", FFN, false)],
        &sums[1],
        &[w.gate.clone(), w.up.clone()],
    );
    let act = Op::GatedActivation { act: ActKind::Silu };
    let gated = reference::run(&act, &[&both[0], &both[1]], &[], &context).unwrap().remove(0);
    let down = linear(FFN, vec![part("down", HIDDEN, false)], &gated, std::slice::from_ref(&w.down));
    reference::run(&Op::Add, &[&sums[0], &down[0]], &[], &context).unwrap().remove(0)
}

#[test]
fn the_typed_layer_is_the_list_of_operations() {
    let w = weights();
    let (x, positions) = (noise(20, 5 * HIDDEN), [0, 1, 2, 3, 4]);
    assert_eq!(run(&layer(&w), &x, &positions, &mut cache()), by_operations(&w, &x, &positions));
}

/// Prompt at once, token by token, and in uneven pieces: the same bits.
#[test]
fn pieces_of_a_prompt_give_the_bits_of_the_whole() {
    let layer = layer(&weights());
    let x = noise(21, 7 * HIDDEN);
    let whole = run(&layer, &x, &[0, 1, 2, 3, 4, 5, 6], &mut cache());
    for pieces in [&[1usize; 7][..], &[3, 4], &[5, 1, 1]] {
        let (mut cache, mut from, mut found) = (cache(), 0, Vec::new());
        for &n in pieces {
            let positions: Vec<u32> = (from..from + n).map(|p| p as u32).collect();
            found.extend(run(&layer, &x[from * HIDDEN..][..n * HIDDEN], &positions, &mut cache));
            from += n;
        }
        assert_eq!(found, whole, "{pieces:?}");
    }
}

/// Taking tokens back and offering others gives what a fresh cache gives.
#[test]
fn a_truncated_cache_forgets() {
    let layer = layer(&weights());
    let (prompt, draft, other) = (noise(22, 3 * HIDDEN), noise(23, 2 * HIDDEN), noise(24, HIDDEN));
    let mut used = cache();
    run(&layer, &prompt, &[0, 1, 2], &mut used);
    run(&layer, &draft, &[3, 4], &mut used);
    assert_eq!(used.len(), 5);
    used.truncate(3);
    let mut fresh = cache();
    run(&layer, &prompt, &[0, 1, 2], &mut fresh);
    assert_eq!(run(&layer, &other, &[3], &mut used), run(&layer, &other, &[3], &mut fresh));
    assert_eq!(used, fresh);
}

#[test]
fn the_cache_has_no_holes_and_an_end() {
    let mut cache = KvCache::new(1, 2, 3).unwrap();
    let row = [1.0, 2.0];
    assert!(matches!(cache.write(&row, &row, &[1]), Err(BrickError::Index { index: 1, limit: 1, .. })), "a hole");
    cache.write(&[1.0, 2.0, 3.0, 4.0], &[0.0; 4], &[0, 1]).unwrap();
    cache.write(&[9.0, 9.0], &[0.0; 2], &[0]).unwrap();
    assert_eq!(cache.keys(), [9.0, 9.0, 3.0, 4.0]);
    cache.write(&row, &row, &[2]).unwrap();
    let before = cache.clone();
    assert!(matches!(cache.write(&row, &row, &[3]), Err(BrickError::Index { index: 3, limit: 3, .. })), "the end");
    assert!(cache.write(&row, &row, &[0, 1]).is_err() && cache.write(&row, &[1.0], &[0]).is_err());
    assert_eq!(cache, before, "a refused write leaves nothing behind");
}

#[test]
fn the_budget_of_a_layer_is_the_sum_of_its_parts() {
    let layer = layer(&weights());
    // 10 + 15 + 5 + 25 + 10 + 3, then 10 + (20 + 5 + 15) + 3.
    assert_eq!(layer.budget().us_per_token(), 121.0);
    assert_eq!(layer.budget().origin(), BudgetOrigin::Explicit);
    let target = layer.with_budgets(&BudgetTable::TARGET_1_5B_RTX_4090);
    assert!((target.budget().us_per_token() - 36.7).abs() < 1e-9);
    assert!((target.parts().ffn.budget().us_per_token() - 12.2).abs() < 1e-9);
}

#[test]
fn the_report_has_every_execution_and_names_the_slowest() {
    let layer = layer(&weights());
    let stream = Activations::new(HIDDEN, noise(25, 2 * HIDDEN)).unwrap();
    let result = layer.run(LayerInput { stream: &stream, positions: &[0, 1], cache: &mut cache() }).unwrap();
    let report = &result.output.report;
    let names: Vec<&str> = report.entries.iter().map(|e| e.brick.as_str()).collect();
    let expected =
        ["rms_norm", "qkv_proj", "rope", "attention", "o_proj", "residual_add", "rms_norm", "ffn", "residual_add"];
    assert_eq!(names, expected);
    assert!(report.entries.iter().all(|e| e.layer == Some(3)));
    let slowest = report.entries.iter().map(|e| e.actual_us).fold(0.0, f64::max);
    assert_eq!(result.output.bottleneck().unwrap().actual_us, slowest);
    // The clock of the whole runs around the clocks of the parts.
    assert!(report.total_us() <= result.us_per_token);
}

/// F011 on the real thing: an impossible budget on attention, and nothing after attention runs.
#[test]
fn strict_stops_inside_the_layer() {
    let w = weights();
    let LayerParts { attn_norm, qkv, rope, attention, o_proj, residual, ffn_norm, ffn } = layer(&w).parts().clone();
    // An hour for the others, so that no scheduler's pause can exceed it.
    let hour = TokenBudget::from_latency(3.6e9, BudgetOrigin::Explicit).unwrap();
    let picosecond = TokenBudget::from_latency(1e-6, BudgetOrigin::Explicit).unwrap();
    let parts = LayerParts {
        attn_norm: attn_norm.with_budget(hour),
        qkv: qkv.with_budget(hour),
        rope: rope.with_budget(hour),
        attention: attention.with_budget(picosecond),
        o_proj: o_proj.with_budget(hour),
        residual: residual.with_budget(hour),
        ffn_norm: ffn_norm.with_budget(hour),
        ffn: ffn.with_budget(hour),
    };
    let strict = TransformerLayerBrick::new(0, parts);
    let stream = Activations::new(HIDDEN, noise(26, HIDDEN)).unwrap();
    let error = strict
        .run_on_line(BudgetPolicy::Strict, LayerInput { stream: &stream, positions: &[0], cache: &mut cache() })
        .unwrap_err();
    assert!(matches!(&error, BrickError::BudgetExceeded { brick, .. } if brick == "attention"), "{error}");
    assert!(strict.run(LayerInput { stream: &stream, positions: &[0], cache: &mut cache() }).is_ok(), "report runs on");
}

/// The whole way from tokens to logits, with outputs checked after each brick (F049).
#[test]
fn a_model_of_one_layer_keeps_every_assertion() {
    let w = weights();
    let embed = EmbedBrick::new(matrix(30, 16, HIDDEN), 1.0).unwrap();
    let layer = layer(&w);
    let norm = RmsNormBrick::before_lm_head(&matrix(31, 1, HIDDEN), EPS).unwrap();
    let head = LmHeadBrick::new([Part::new(matrix(30, 16, HIDDEN))]).unwrap();
    let mut line = BrickLine::new(BudgetPolicy::Off).checking_outputs();
    let x = line.step(&embed, &[3, 1, 4, 1]).unwrap();
    let mut cache = cache();
    let out = line.step(&layer, LayerInput { stream: &x, positions: &[0, 1, 2, 3], cache: &mut cache }).unwrap();
    let normed = line.step(&norm, &out.stream.select(&[3]).unwrap()).unwrap();
    let logits = line.step(&head, &normed).unwrap();
    assert_eq!((logits.rows(), logits.width()), (1, 16));
    let report = line.finish();
    assert_eq!(report.entries.len(), 4);
    for entry in &report.entries {
        let v = entry.verification.as_ref().unwrap();
        let failed: Vec<_> = v.failures().filter(|o| o.name != "budget_met").collect();
        assert!(failed.is_empty(), "{v}");
    }
}

/// Equivalence is judged against the reference and fails beyond the tolerance.
#[test]
fn an_output_is_held_to_its_reference() {
    let w = weights();
    let brick = OProjBrick::new([Part::new(w.o.clone())]).unwrap();
    let x = noise(27, HEADS * HEAD_DIM);
    let reference = reference::linear_f32(&w.o, None, &x).unwrap();
    let verify = |output: &[f32]| {
        brick.verify(&Observation { output, shape: &[1, HIDDEN], reference: Some(&reference), actual_us: Some(0.5) })
    };
    let output = brick.run(&Activations::new(HEADS * HEAD_DIM, x).unwrap()).unwrap().output;
    assert!(verify(output.values()).passed());
    let mut wrong = reference.clone();
    wrong[7] += 1e-2;
    let v = verify(&wrong);
    assert_eq!(v.failures().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["equiv_scalar"]);
    assert!(v.to_string().contains("index 7"), "{v}");
}

#[test]
fn quantised_weights_use_the_arithmetic_that_is_asked_for() {
    let bytes: Vec<u8> = (0..HIDDEN * 2 * 20).map(|i| (i * 5 % 60) as u8).collect();
    let w = Weight::new(bricks::DType::Q4_1, HIDDEN, 64, bytes).unwrap();
    let x = noise(28, 64);
    let brick = DownBrick::new([Part::new(w.clone())]).unwrap();
    let run = |b: &DownBrick| b.run(&Activations::new(64, x.clone()).unwrap()).unwrap().output.values().to_vec();
    assert_eq!(run(&brick), reference::linear_f32(&w, None, &x).unwrap());
    assert_eq!(run(&brick.with_arithmetic(Arithmetic::Q8)), reference::linear_q8(&w, None, &x).unwrap());
}

#[test]
fn parts_must_fit_each_other() {
    let part = |rows, cols| Part::new(matrix(1, rows, cols));
    assert!(matches!(QkvBrick::new([part(4, 8), part(2, 8)]), Err(BrickError::Parameter { .. })));
    assert!(matches!(QkvBrick::new([part(4, 8), part(2, 8), part(2, 7)]), Err(BrickError::Weight { .. })));
    assert!(matches!(part(4, 8).with_bias(&matrix(1, 1, 3)), Err(BrickError::Weight { .. })));
    let gate_up = |ffn| GateUpBrick::new([part(ffn, 8), part(ffn, 8)]).unwrap();
    let down = || DownBrick::new([part(8, 6)]).unwrap();
    assert!(FfnBrick::new(gate_up(6), ActKind::Silu, down()).is_ok());
    assert!(matches!(FfnBrick::new(gate_up(5), ActKind::Silu, down()), Err(BrickError::Shape { .. })));
    let uneven = GateUpBrick::new([part(6, 8), part(5, 8)]).unwrap();
    assert!(matches!(FfnBrick::new(uneven, ActKind::Silu, down()), Err(BrickError::Shape { .. })));
}

#[test]
fn rounding_to_8_bits_stays_within_half_a_step() {
    let brick = ActivationQuantBrick::new(64).unwrap();
    let values = noise(29, 2 * 64);
    let amax = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let x = Activations::<Normed>::new(64, values).unwrap();
    let error = brick.measure_error(&x).unwrap();
    assert!(error.max > 0.0 && error.max <= f64::from(amax) / 254.0 * 1.001, "{error:?}");
    assert!(error.relative_rms > 0.0 && error.relative_rms < 0.01, "{error:?}");
    assert_eq!(brick.run(&x).unwrap().output, brick.dequantize(&brick.quantize(&x).unwrap()).unwrap());

    let zero = Activations::new(64, vec![0.0; 64]).unwrap();
    assert_eq!(brick.measure_error(&zero).unwrap().max, 0.0);
    let mut broken = vec![0.5; 64];
    broken[3] = f32::NAN;
    let error = brick.measure_error(&Activations::new(64, broken).unwrap()).unwrap();
    assert!(error.max.is_nan() && error.relative_rms.is_nan(), "{error:?}");
    assert!(ActivationQuantBrick::new(0).is_err() && ActivationQuantBrick::new(33).is_err());
}

/// A square matrix hides a transpose; these states do not.
#[test]
fn the_stream_keeps_its_width() {
    let x = Activations::<Stream>::new(3, vec![0.0; 7]);
    assert!(matches!(x, Err(BrickError::Shape { .. })));
    assert!(matches!(Activations::<Stream>::new(0, vec![]), Err(BrickError::Parameter { .. })));
    assert_eq!(Activations::<Stream>::new(3, vec![]).unwrap().rows(), 0);
}
