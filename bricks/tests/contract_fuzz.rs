//! F006: whatever a brick is given, it returns a result or an error.
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use bricks::catalog::{
    ActivationBrick, ActivationQuantBrick, Activations, Attend, AttentionBrick, DownBrick, EmbedBrick, FfnBrick,
    GateUpBrick, KvCache, LayerInput, LayerParts, LmHeadBrick, OProjBrick, Part, QkvBrick, ResidualBrick, RmsNormBrick,
    RopeBrick, Rotate, State, Stream, Sum, TransformerLayerBrick,
};
use bricks::reference::Weight;
use bricks::{
    ActKind, AttentionSpec, BrickError, ComputeBrick as _, Extent, Observe, RopeScaling, RopeSpec, RopeStyle, RunBrick,
    TokenResult,
};
use proptest::prelude::*;

const HIDDEN: usize = 32;
const FFN: usize = 64;
const QKV: usize = 64;
const HUGE: usize = usize::MAX;

fn matrix(rows: usize, cols: usize, fill: f32) -> Weight<'static> {
    Weight::from_f32(rows, cols, &vec![fill; rows * cols]).unwrap()
}

/// A layer and all its parts, with one value in all weights.
struct Bricks {
    embed: EmbedBrick,
    layer: TransformerLayerBrick,
    gate_up: GateUpBrick,
    activation: ActivationBrick,
    down: DownBrick,
    lm_head: LmHeadBrick,
    quant: ActivationQuantBrick,
}

fn bricks(fill: f32) -> Bricks {
    let part = |rows, cols| Part::new(matrix(rows, cols, fill));
    let spec =
        RopeSpec { style: RopeStyle::Interleaved, base: 1e4, dims: 8, scaling: RopeScaling::None, freq_factors: None };
    let attention =
        AttentionSpec { n_heads: 4, n_kv_heads: 2, head_dim: 8, scale: 0.3, window: Some(2), softcap: Some(30.0) };
    let gate_up = GateUpBrick::new([part(FFN, HIDDEN), part(FFN, HIDDEN)]).unwrap();
    let down = DownBrick::new([part(HIDDEN, FFN)]).unwrap();
    let norm = RmsNormBrick::new(&matrix(1, HIDDEN, fill), 0.0).unwrap();
    let parts = LayerParts {
        attn_norm: norm.clone(),
        qkv: QkvBrick::new([part(32, HIDDEN), part(16, HIDDEN), part(16, HIDDEN)]).unwrap(),
        rope: RopeBrick::new(4, 2, 8, spec).unwrap(),
        attention: AttentionBrick::new(attention).unwrap(),
        o_proj: OProjBrick::new([part(HIDDEN, 32)]).unwrap(),
        residual: ResidualBrick::new(HIDDEN).unwrap(),
        ffn_norm: norm,
        ffn: FfnBrick::new(gate_up.clone(), ActKind::GeluTanh, down.clone()).unwrap(),
    };
    Bricks {
        embed: EmbedBrick::new(matrix(5, HIDDEN, fill), 1.0).unwrap(),
        layer: TransformerLayerBrick::new(0, parts),
        gate_up,
        activation: ActivationBrick::new(ActKind::Silu, FFN).unwrap(),
        down,
        lm_head: LmHeadBrick::new([part(7, HIDDEN)]).unwrap(),
        quant: ActivationQuantBrick::new(HIDDEN).unwrap(),
    }
}

/// Runs under a net; what comes out must be consistent. Returns whether it was a result.
fn survives<O: Observe>(name: &str, run: impl FnOnce() -> Result<TokenResult<O>, BrickError>) -> bool {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(r)) => {
            let volume: usize = r.output.shape().iter().product();
            assert_eq!(volume, r.output.values().len(), "{name}");
            assert!(r.us_per_token > 0.0 && r.us_per_token.is_finite(), "{name}");
            true
        }
        Ok(Err(e)) => {
            assert!(!e.to_string().is_empty());
            false
        }
        Err(payload) => panic!("{name} panicked: {payload:?}"),
    }
}

fn special() -> impl Strategy<Value = f32> {
    prop_oneof![
        Just(f32::NAN),
        Just(f32::INFINITY),
        Just(f32::NEG_INFINITY),
        Just(f32::MAX),
        Just(f32::from_bits(1)),
        Just(0.0),
        -1.0..1.0f32,
    ]
}

fn positions() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(prop_oneof![0u32..3, any::<u32>()], 0..4)
}

/// Rows of a state: the right width or a wrong one, no rows or a few.
fn rows<S: State>(width: usize, rows: usize, fill: f32) -> Activations<S> {
    Activations::new(width, vec![fill; width * rows]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_brick_panics(
        weight in special(),
        fill in special(),
        width in prop_oneof![Just(HIDDEN), Just(FFN), Just(QKV), Just(2 * FFN), Just(1), Just(1000)],
        n in 0usize..4,
        other in 0usize..4,
        positions in positions(),
        tokens in prop::collection::vec(prop_oneof![0u32..8, any::<u32>()], 0..4),
        capacity in 1usize..4,
    ) {
        let b = bricks(weight);
        let p = b.layer.parts();
        let mut cache = KvCache::new(2, 8, capacity).unwrap();
        survives("embed", || b.embed.run(&tokens));
        survives("rms_norm", || p.attn_norm.run(&rows(width, n, fill)));
        survives("qkv_proj", || p.qkv.run(&rows(width, n, fill)));
        survives("rope", || p.rope.run(Rotate { qkv: &rows(width, n, fill), positions: &positions }));
        let qkv = rows(width, n, fill);
        survives("attention", || p.attention.run(Attend { qkv: &qkv, positions: &positions, cache: &mut cache }));
        survives("o_proj", || p.o_proj.run(&rows(width, n, fill)));
        survives("residual", || p.residual.run(Sum { stream: &rows(width, n, fill), update: &rows(HIDDEN, other, fill) }));
        survives("ffn", || p.ffn.run(&rows(width, n, fill)));
        survives("gate_up", || b.gate_up.run(&rows(width, n, fill)));
        survives("activation", || b.activation.run(&rows(width, n, fill)));
        survives("down", || b.down.run(&rows(width, n, fill)));
        survives("lm_head", || b.lm_head.run(&rows(width, n, fill)));
        survives("activation_quant", || b.quant.run(&rows(width, n, fill)));
        let _ = b.quant.measure_error(&rows(width, n, fill));
        let stream = rows(width, n, fill);
        survives("layer", || b.layer.run(LayerInput { stream: &stream, positions: &positions, cache: &mut cache }));
        prop_assert!(cache.len() <= capacity);
    }
}

/// The net above would also hold bricks that refuse everything: with the right widths they all give results, for any values.
#[test]
fn right_shapes_give_results_whatever_the_values() {
    for weight in [0.5, f32::NAN, f32::INFINITY] {
        for fill in [0.25, f32::NAN, f32::NEG_INFINITY, f32::MAX] {
            for n in 0..3usize {
                let b = bricks(weight);
                let p = b.layer.parts();
                let at: Vec<u32> = (0..n as u32).collect();
                let mut cache = KvCache::new(2, 8, 8).unwrap();
                let qkv = rows(QKV, n, fill);
                let (stream, update) = (rows(HIDDEN, n, fill), rows(HIDDEN, n, fill));
                assert!(survives("embed", || b.embed.run(&at)));
                assert!(survives("rms_norm", || p.attn_norm.run(&stream)));
                assert!(survives("qkv_proj", || p.qkv.run(&rows(HIDDEN, n, fill))));
                assert!(survives("rope", || p.rope.run(Rotate { qkv: &rows(QKV, n, fill), positions: &at })));
                assert!(survives("attention", || p.attention.run(Attend {
                    qkv: &qkv,
                    positions: &at,
                    cache: &mut cache
                })));
                assert!(survives("o_proj", || p.o_proj.run(&rows(32, n, fill))));
                assert!(survives("residual", || p.residual.run(Sum { stream: &stream, update: &update })));
                assert!(survives("ffn", || p.ffn.run(&rows(HIDDEN, n, fill))));
                assert!(survives("gate_up", || b.gate_up.run(&rows(HIDDEN, n, fill))));
                assert!(survives("activation", || b.activation.run(&rows(2 * FFN, n, fill))));
                assert!(survives("down", || b.down.run(&rows(FFN, n, fill))));
                assert!(survives("lm_head", || b.lm_head.run(&rows(HIDDEN, n, fill))));
                assert!(survives("activation_quant", || b.quant.run(&rows(HIDDEN, n, fill))));
                let input = LayerInput { stream: &stream, positions: &at, cache: &mut KvCache::new(2, 8, 8).unwrap() };
                assert!(survives("layer", || b.layer.run(input)));
            }
        }
    }
}

/// Constructors refuse absurd sizes instead of multiplying or allocating them.
#[test]
fn huge_dimensions_are_refused() {
    let spec = |dims| RopeSpec {
        style: RopeStyle::SplitHalves,
        base: 1e4,
        dims,
        scaling: RopeScaling::None,
        freq_factors: None,
    };
    let attention = |n_heads, n_kv_heads, head_dim| {
        AttentionBrick::new(AttentionSpec { n_heads, n_kv_heads, head_dim, scale: 1.0, window: None, softcap: None })
    };
    let refused = catch_unwind(|| {
        assert!(RopeBrick::new(HUGE, 1, 8, spec(8)).is_err());
        assert!(RopeBrick::new(1, HUGE, 8, spec(8)).is_err());
        assert!(RopeBrick::new(2, 2, HUGE - 1, spec(HUGE - 1)).is_err());
        assert!(RopeBrick::new(1, 1, HUGE - 1, spec(HUGE - 1)).is_err());
        assert!(RopeBrick::new(0, 1, 8, spec(8)).is_err());
        assert!(attention(HUGE, 1, 8).is_err());
        assert!(attention(HUGE, HUGE, 1).is_err());
        assert!(attention(2, 1, HUGE / 2).is_err());
        assert!(attention(0, 0, 8).is_err());
        assert!(ActivationBrick::new(ActKind::Silu, HUGE).is_err());
        assert!(ResidualBrick::new(0).is_err() && ResidualBrick::new(HUGE).is_err());
        assert!(KvCache::new(HUGE, 2, 1).is_err());
        assert!(KvCache::new(1, 1, HUGE).is_err() || KvCache::new(1, 2, HUGE).is_err());
        assert!(QkvBrick::new([]).is_err());
        assert!(ActivationQuantBrick::new(HUGE - 31).is_err());
        assert!(Activations::<Stream>::new(HUGE, vec![0.0; 8]).is_err());
        // The widest that is accepted still has a cost.
        let widest = ResidualBrick::new(i32::MAX as usize).unwrap();
        assert!(widest.cost(&Extent::one_sequence(1 << 20, 1 << 20, 1)).bytes() > 0);
    });
    assert!(refused.is_ok());
}
