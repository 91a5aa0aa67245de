//! The single entry.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use super::super::*;
use super::noise;
use crate::error::BrickError;
use crate::op::{ActKind, AttentionSpec, LinearPart, Op, OpError, Rows};
use crate::rope::{RopeScaling, RopeSpec, RopeStyle};

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 8;
const Q: usize = HEADS * HEAD_DIM;
const KV: usize = KV_HEADS * HEAD_DIM;

fn rope_spec() -> RopeSpec {
    let (style, scaling) = (RopeStyle::Interleaved, RopeScaling::None);
    RopeSpec { style, base: 1e4, dims: HEAD_DIM, scaling, freq_factors: None }
}

fn attention_spec() -> AttentionSpec {
    AttentionSpec { n_heads: HEADS, n_kv_heads: KV_HEADS, head_dim: HEAD_DIM, scale: 0.35, window: None, softcap: None }
}

fn matrix(seed: usize, rows: usize, cols: usize) -> Weight<'static> {
    Weight::from_f32(rows, cols, &noise(seed, rows * cols)).unwrap()
}

/// Every operation with inputs for two rows at positions 1 and 2, and its weights.
fn every_op() -> Vec<(Op, Vec<Vec<f32>>, Vec<Weight<'static>>)> {
    let part = |label: &str, rows, bias| LinearPart { label: label.into(), rows, bias };
    let (q, k, v) = (noise(1, 2 * Q), noise(2, 2 * KV), noise(3, 2 * KV));
    vec![
        (Op::Input, vec![], vec![]),
        (Op::Embed { scale: 2.0 }, vec![], vec![matrix(4, 5, Q)]),
        (Op::RmsNorm { eps: 1e-5, rows: Rows::All }, vec![q.clone()], vec![matrix(5, 1, Q)]),
        (Op::RmsNorm { eps: 1e-5, rows: Rows::Wanted }, vec![q.clone()], vec![matrix(5, 1, Q)]),
        (Op::AddRmsNorm { eps: 1e-5 }, vec![q.clone(), noise(6, 2 * Q)], vec![matrix(5, 1, Q)]),
        (
            Op::Linear { input: Q, parts: vec![part("q", 6, true), part("k", 3, false)], rows: Rows::All },
            vec![q.clone()],
            vec![matrix(7, 6, Q), matrix(8, 1, 6), matrix(9, 3, Q)],
        ),
        (
            Op::GatedLinear { input: Q, parts: [part("gate", 6, true), part("up", 6, false)], act: ActKind::Silu },
            vec![q.clone()],
            vec![matrix(7, 6, Q), matrix(8, 1, 6), matrix(9, 6, Q)],
        ),
        (Op::Rope { n_heads: HEADS, head_dim: HEAD_DIM, spec: rope_spec() }, vec![q.clone()], vec![]),
        (Op::KvWrite { n_kv_heads: KV_HEADS, head_dim: HEAD_DIM }, vec![k.clone(), v.clone()], vec![]),
        (
            Op::RopeKvWrite { n_heads: HEADS, n_kv_heads: KV_HEADS, head_dim: HEAD_DIM, spec: rope_spec() },
            vec![q.clone(), k.clone(), v],
            vec![],
        ),
        (Op::Attention(attention_spec()), vec![q.clone()], vec![]),
        (Op::Add, vec![q.clone(), noise(6, 2 * Q)], vec![]),
        (Op::GatedActivation { act: ActKind::GeluTanh }, vec![q.clone(), noise(6, 2 * Q)], vec![]),
    ]
}

struct State {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl State {
    /// Three positions.
    fn new() -> Self {
        Self { keys: noise(20, 3 * KV), values: noise(21, 3 * KV) }
    }

    fn context(&self) -> Context<'_> {
        Context {
            tokens: &[4, 0],
            positions: &[1, 2],
            wanted: &[1],
            keys: &self.keys,
            values: &self.values,
            arithmetic: Arithmetic::F32,
        }
    }
}

fn slices(inputs: &[Vec<f32>]) -> Vec<&[f32]> {
    inputs.iter().map(Vec::as_slice).collect()
}

/// One result per operation, computed from the functions of this module by name.
#[test]
fn every_operation_is_its_function() {
    let state = State::new();
    let c = state.context();
    let written = |k: &[f32], v: &[f32]| {
        let (mut keys, mut values) = (state.keys.clone(), state.values.clone());
        kv_write(&mut keys, KV, k, c.positions).unwrap();
        kv_write(&mut values, KV, v, c.positions).unwrap();
        (keys, values)
    };
    for (op, x, w) in every_op() {
        let expected = match &op {
            Op::Input => vec![],
            Op::Embed { scale } => vec![embed(&w[0], c.tokens, *scale).unwrap()],
            Op::RmsNorm { eps, rows } => {
                let gain = w[0].vector("", "", Q).unwrap();
                let rows = match rows {
                    Rows::All => &x[0][..],
                    Rows::Wanted => &x[0][Q..],
                };
                vec![rms_norm(rows, &gain, *eps).unwrap()]
            }
            Op::AddRmsNorm { eps } => {
                let (sum, norm) = add_rms_norm(&x[0], &x[1], &w[0].vector("", "", Q).unwrap(), *eps).unwrap();
                vec![sum, norm]
            }
            Op::Linear { .. } => {
                let bias = w[1].vector("", "", 6).unwrap();
                vec![linear_f32(&w[0], Some(&bias), &x[0]).unwrap(), linear_f32(&w[2], None, &x[0]).unwrap()]
            }
            Op::GatedLinear { act, .. } => {
                let gate = linear_f32(&w[0], Some(&w[1].vector("", "", 6).unwrap()), &x[0]).unwrap();
                vec![gated_activation(*act, &gate, &linear_f32(&w[2], None, &x[0]).unwrap()).unwrap()]
            }
            Op::Rope { spec, .. } => vec![rope(spec, HEADS, HEAD_DIM, &x[0], c.positions).unwrap()],
            Op::KvWrite { .. } => {
                let (keys, values) = written(&x[0], &x[1]);
                vec![keys, values]
            }
            Op::RopeKvWrite { spec, .. } => {
                let q = rope(spec, HEADS, HEAD_DIM, &x[0], c.positions).unwrap();
                let k = rope(spec, KV_HEADS, HEAD_DIM, &x[1], c.positions).unwrap();
                let (keys, values) = written(&k, &x[2]);
                vec![q, keys, values]
            }
            Op::Attention(s) => vec![attention(s, &x[0], c.keys, c.values, c.positions).unwrap()],
            Op::Add => vec![add(&x[0], &x[1]).unwrap()],
            Op::GatedActivation { act } => vec![gated_activation(*act, &x[0], &x[1]).unwrap()],
        };
        assert_eq!(run(&op, &slices(&x), &w, &c).unwrap(), expected, "{}", op.name());
    }
}

#[test]
fn wrong_counts_are_refused_in_the_name_of_the_operation() {
    let state = State::new();
    for (op, x, w) in every_op() {
        let mut more = slices(&x);
        more.push(&[]);
        let error = run(&op, &more, &w, &state.context()).unwrap_err();
        assert_eq!(error.brick(), op.name());
        assert!(matches!(error, BrickError::Op { source: OpError::InputCount { .. }, .. }), "{error}");
        let more = [&w[..], &[matrix(1, 1, 1)]].concat();
        let error = run(&op, &slices(&x), &more, &state.context()).unwrap_err();
        assert!(matches!(error, BrickError::Op { source: OpError::WeightCount { .. }, .. }), "{error}");
        if !x.is_empty() {
            assert!(run(&op, &slices(&x)[1..], &w, &state.context()).is_err(), "{}", op.name());
        }
        if !w.is_empty() {
            assert!(run(&op, &slices(&x), &w[1..], &state.context()).is_err(), "{}", op.name());
        }
    }
}

#[test]
fn the_context_chooses_the_arithmetic() {
    let bytes: Vec<u8> = (0..36).map(|i| (i * 5 % 60) as u8).collect();
    let w = [Weight::new(crate::DType::Q4_0, 2, 32, bytes).unwrap()];
    let part = LinearPart { label: "w".into(), rows: 2, bias: false };
    let op = Op::Linear { input: 32, parts: vec![part], rows: Rows::Wanted };
    let x = noise(9, 32);
    for arithmetic in [Arithmetic::F32, Arithmetic::Q8] {
        let found = run(&op, &[&x], &w, &Context { arithmetic, ..Context::default() }).unwrap();
        assert_eq!(found, [linear(&w[0], None, &x, arithmetic).unwrap()]);
    }
}

fn any_value() -> impl Strategy<Value = f32> {
    prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY), Just(f32::MAX), -1.0..1.0f32]
}

proptest! {
    /// Whatever the lengths, indices and values, the answer is a result or an error.
    #[test]
    fn nothing_panics(
        which in 0usize..12,
        lengths in prop::collection::vec(0usize..100, 3),
        fill in any_value(),
        tokens in prop::collection::vec(any::<u32>(), 0..4),
        positions in prop::collection::vec(prop_oneof![0u32..4, any::<u32>()], 0..4),
        wanted in prop::collection::vec(prop_oneof![0usize..4, any::<usize>()], 0..4),
        cache in 0usize..80,
    ) {
        let (op, x, w) = every_op().swap_remove(which);
        let x: Vec<Vec<f32>> = x.iter().zip(&lengths).map(|(_, &n)| vec![fill; n]).collect();
        let state = vec![fill; cache];
        let context = Context {
            tokens: &tokens, positions: &positions, wanted: &wanted,
            keys: &state, values: &state, arithmetic: Arithmetic::Q8,
        };
        let result = catch_unwind(AssertUnwindSafe(|| run(&op, &slices(&x), &w, &context).map(|_| ())));
        prop_assert!(result.is_ok(), "{} panicked", op.name());
    }
}
