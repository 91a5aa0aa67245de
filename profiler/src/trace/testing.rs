//! Fixed traces for tests: four positions, two layers, two heads.

use super::{
    AttentionWeightTrace, ErrorSums, KvCacheStateTrace, LayerActivationTrace, LogitEvolutionTrace,
    ModelQuantizationError, ModelTracer, ModelTracerConfig, QuantizationBasis, QuantizationErrorTrace, TensorStats,
    TraceRun, TracedToken,
};

/// A tensor whose values differ.
pub(crate) fn stats(scale: f32) -> TensorStats {
    TensorStats::of([-1.0, 0.0, 0.5, 2.0].map(|x| x * scale))
}

/// A layer that works.
pub(crate) fn activation(step: usize, layer_idx: u32) -> LayerActivationTrace {
    let scale = 1.0 + layer_idx as f32;
    LayerActivationTrace {
        step,
        layer_idx,
        rows: 4,
        input_stats: stats(scale),
        post_norm_stats: stats(0.5),
        post_attn_stats: stats(0.25),
        post_ffn_stats: stats(0.75),
        output_stats: stats(scale + 1.0),
        residual_ratio: Some(0.75),
    }
}

/// A head with these weights on positions from 0 on.
pub(crate) fn attention(layer: u32, head: u32, weights: &[f64]) -> AttentionWeightTrace {
    AttentionWeightTrace::new((0, layer, head), (0, weights.len() - 1), weights, 3)
}

/// The lens of tokens 0 to 3 over four layers; token 2 wins from layer 2 on.
pub(crate) fn logits() -> LogitEvolutionTrace {
    let lens: [&[f32]; 4] =
        [&[1.0, 3.0, 2.0, 0.0], &[1.0, 3.0, 2.5, 0.0], &[1.0, 2.0, 4.0, 0.0], &[1.0, 2.0, 5.0, 0.0]];
    LogitEvolutionTrace::new((0, 3), &[0, 1, 2, 3], &lens, lens[3], &[2, 1])
}

/// Errors of three bricks, one of them exact.
pub(crate) fn quantization(basis: QuantizationBasis) -> ModelQuantizationError {
    let brick = |name: &str, layer, error: f32| {
        let reference = [1.0f32, -2.0, 3.0, -4.0];
        let mut sums = ErrorSums::default();
        sums.add(&reference.map(|x| x + error), &reference);
        QuantizationErrorTrace::new(name.into(), layer, "linear_q8_0_scalar".into(), &sums)
    };
    ModelQuantizationError {
        basis,
        against: if basis == QuantizationBasis::Weights { "other.gguf".into() } else { "f32 reference".into() },
        rows: (basis == QuantizationBasis::Arithmetic).then_some(4),
        bricks: vec![
            brick("blk.0.attn_qkv", Some(0), 0.01),
            brick("blk.1.attn_qkv", Some(1), 0.02),
            brick("output", None, 0.0),
        ],
    }
}

pub(crate) fn kv(step: usize) -> KvCacheStateTrace {
    KvCacheStateTrace {
        step,
        cache_size_tokens: 4 + step,
        capacity_tokens: 64,
        blocks_in_use: 1,
        blocks: 2,
        bytes_in_use: 8192,
        evictions_this_step: 0,
        total_evictions: 0,
        hit_rate: None,
    }
}

/// A tracer with one healthy trace of every kind.
pub(crate) fn healthy() -> ModelTracer {
    filled(ModelTracerConfig::default())
}

pub(crate) fn filled(config: ModelTracerConfig) -> ModelTracer {
    let mut t = ModelTracer::new(config);
    let token = |id: u32, text: &str| TracedToken { id, text: text.into() };
    t.run = TraceRun {
        model: "tiny".into(),
        architecture: Some("llama".into()),
        quantization: Some("Q8_0".into()),
        backend: "cpu scalar".into(),
        threads: 1,
        kv_type: "f16".into(),
        context: 64,
        layers: 2,
        prompt_tokens: 4,
        tokens: vec![token(7, "The"), token(8, " sky"), token(9, " is"), token(10, "\n"), token(2, " blue")],
        finish: "as many tokens as asked for".into(),
    };
    for layer in 0..2 {
        t.record_layer_activation(activation(0, layer));
        t.record_attention(attention(layer, 0, &[0.5, 0.25, 0.125, 0.125]));
        t.record_attention(attention(layer, 1, &[0.125, 0.125, 0.25, 0.5]));
    }
    t.record_logit_evolution(logits());
    t.record_quantization(quantization(QuantizationBasis::Arithmetic));
    t.record_kv_state(kv(0));
    t.record_kv_state(kv(1));
    t
}
