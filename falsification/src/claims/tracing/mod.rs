//! F250–F275: tracing of values. F265, F266 and F268 are not defined in the catalogue.

mod run;

use brick_profiler::trace::{
    AnomalyRule, AttentionWeightTrace, ErrorSums, KvCacheStateTrace, LayerActivationTrace, LogitEvolutionTrace,
    ModelQuantizationError, ModelTracer, ModelTracerConfig, QuantizationBasis, QuantizationErrorTrace, TensorStats,
    TokenLogitEvolution, entropy, hit_rate, probability, rank,
};

use crate::claim::{Claim, Family, Outcome, require, require_eq, require_some};
use crate::context::Context;
use crate::noise::Noise;

macro_rules! claim {
    ($id:literal, $statement:literal, $threshold:literal, $check:path) => {
        Claim { id: $id, statement: $statement, family: Family::Tracing, threshold: $threshold, check: $check }
    };
}

pub(super) const CLAIMS: &[Claim] = &[
    claim!("F250", "Statistics of a tensor in one pass are those of two passes", "1e-6 of the largest value", f250),
    claim!("F251", "Every NaN is found, and none reaches a mean", "recall 100 %", f251),
    claim!("F252", "An explosion is detected on both sides of zero", "abs(max) > 1e6", f252),
    claim!("F253", "The largest attention weights come first", "descending", f253),
    claim!("F254", "Traced attention weights sum to one", "1e-5 on the full row; top-k at most 1", run::f254),
    claim!("F255", "The entropy of even weights on n positions is ln n", "1e-10", f255),
    claim!("F256", "The logit lens after the last layer is the forward pass", "1e-4 of the largest logit", run::f256),
    claim!("F257", "Ranks are exact; of equal logits the lower id comes first", "exact", f257),
    claim!("F258", "A cosine is in range, with a zero vector too", "[-1, 1]", f258),
    claim!("F259", "The SNR is 10 log10 of signal over noise, and none without noise", "exact", f259),
    claim!("F260", "The traced size of the KV cache is the number of tokens in it", "exact", run::f260),
    claim!("F261", "Nothing is evicted: a full cache refuses and keeps what it has", "0 evictions", run::f261),
    claim!("F262", "A hit rate is a share", "[0, 1]", f262),
    claim!("F263", "Tracing activations and KV state costs little while it is on", "< 10 % of decoding", run::f263),
    claim!("F264", "A trace can be read as JSON and as text", "parses", f264),
    claim!("F267", "Each anomaly rule fires on a trace made for it, and none on a clean one", "10 of 10, 0", f267),
    claim!("F269", "Tracing that is off, or was on before, leaves results unchanged", "identical bits", run::f269),
    claim!("F270", "A trace survives recording, export and import", "equal", run::f270),
    claim!("F271", "A trace says all it takes to have its KV cache again", "continues with identical bits", run::f271),
    claim!("F272", "Traced runs give what untraced runs give", "identical bits", run::f272),
    claim!("F273", "Attention that rests on the first position is detected", "detected", f273),
    claim!("F274", "A token whose rank jumps in a late layer is detected", "detected", f274),
    claim!(
        "F275",
        "A poisoned weight raises an anomaly at its layer, from file to report",
        "first error there",
        run::f275
    ),
    claim!("F-STRUCT", "The surface of tracing exists", "9 structures, 7 methods", f_struct),
];

fn f250(_: &Context) -> Outcome {
    let mut noise = Noise::new(250);
    let mut worst = 0.0f64;
    for n in 1..=400 {
        let offset = if n % 3 == 0 { 1e5 } else { 0.0 };
        let values: Vec<f32> = noise.values(n, 10.0).iter().map(|x| x + offset).collect();
        let s = TensorStats::of(values.iter().copied());
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
        let std = (values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
        let largest = f64::from(values.iter().fold(0.0f32, |m, x| m.max(x.abs())));
        let error = |found: Option<f32>, expected: f64| {
            found.map_or(f64::INFINITY, |f| (f64::from(f) - expected).abs() / largest)
        };
        worst = worst.max(error(s.mean, mean)).max(error(s.std, std));
        let extremes = (s.min, s.max, s.total_count);
        let min = values.iter().copied().reduce(f32::min);
        require_eq("extremes and count", &extremes, &(min, values.iter().copied().reduce(f32::max), n as u64))?;
    }
    require(worst <= 1e-6, "at most 1e-6 of the largest value", || format!("{worst:.1e}"))?;
    Ok(format!("400 tensors, a third of them far from zero: at most {worst:.1e} of the largest value"))
}

fn f251(_: &Context) -> Outcome {
    let mut noise = Noise::new(251);
    let mut injected = 0;
    for n in 0..100usize {
        let clean = noise.values(200, 1.0);
        let mut values = clean.clone();
        for _ in 0..n {
            values.insert(noise.below(values.len()), f32::NAN);
        }
        let (found, expected) = (TensorStats::of(values), TensorStats::of(clean));
        require_eq("NaNs", &found.nan_count, &(n as u64))?;
        require_eq("mean and deviation of the others", &(found.mean, found.std), &(expected.mean, expected.std))?;
        injected += n;
    }
    Ok(format!("{injected} of {injected} NaNs in 100 tensors; moments are those of the other values"))
}

/// A layer that works.
fn layer(layer_idx: u32) -> LayerActivationTrace {
    let s = TensorStats::of([-1.0, 0.0, 0.5, 2.0]);
    LayerActivationTrace {
        step: 0,
        layer_idx,
        rows: 4,
        input_stats: s,
        post_norm_stats: s,
        post_attn_stats: s,
        post_ffn_stats: s,
        output_stats: s,
        residual_ratio: Some(0.75),
    }
}

fn head(layer: u32, head: u32, weights: &[f64]) -> AttentionWeightTrace {
    AttentionWeightTrace::new((0, layer, head), (0, weights.len().saturating_sub(1)), weights, 5)
}

/// The lens of a token that is last of `n` until layer `at` of 8, and first from there on.
fn jump(n: usize, at: usize) -> LogitEvolutionTrace {
    let last: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let first: Vec<f32> = (0..n).map(|i| -(i as f32)).collect();
    let lens: Vec<&[f32]> = (0..8).map(|l| if l < at { &last[..] } else { &first[..] }).collect();
    LogitEvolutionTrace::new((0, 3), &(0..8).collect::<Vec<u32>>(), &lens, &first, &[0])
}

fn quantization(found: &[f32], reference: &[f32]) -> ModelQuantizationError {
    let mut sums = ErrorSums::default();
    sums.add(found, reference);
    ModelQuantizationError {
        basis: QuantizationBasis::Weights,
        against: "another file".into(),
        rows: None,
        bricks: vec![QuantizationErrorTrace::new("output".into(), None, "Q4_0 / F16".into(), &sums)],
    }
}

fn kv(hit_rate: Option<f32>) -> KvCacheStateTrace {
    KvCacheStateTrace {
        step: 0,
        cache_size_tokens: 4,
        capacity_tokens: 64,
        blocks_in_use: 1,
        blocks: 2,
        bytes_in_use: 1024,
        evictions_this_step: 0,
        total_evictions: 0,
        hit_rate,
    }
}

/// One healthy trace of every kind.
fn healthy() -> ModelTracer {
    let mut t = ModelTracer::new(ModelTracerConfig::default());
    t.record_layer_activation(layer(0));
    t.record_attention(head(0, 0, &[0.5, 0.25, 0.125, 0.125]));
    t.record_attention(head(0, 1, &[0.125, 0.125, 0.25, 0.5]));
    t.record_logit_evolution(jump(50, 3));
    t.record_quantization(quantization(&[1.0, 2.0], &[1.01, 1.99]));
    t.record_kv_state(kv(Some(0.75)));
    t
}

/// Rules that a healthy tracer fires when something is added.
fn fired(add: impl FnOnce(&mut ModelTracer)) -> Vec<AnomalyRule> {
    let mut t = healthy();
    add(&mut t);
    t.detect_anomalies().iter().map(|a| a.rule).collect()
}

fn with_output(values: [f32; 2]) -> impl FnOnce(&mut ModelTracer) {
    move |t| t.record_layer_activation(LayerActivationTrace { output_stats: TensorStats::of(values), ..layer(1) })
}

fn f252(_: &Context) -> Outcome {
    for sign in [1.0f32, -1.0] {
        require_eq("at the edge", &fired(with_output([0.0, sign * 1e6])), &vec![])?;
        let beyond = fired(with_output([0.0, sign * 1e6f32.next_up()]));
        require_eq("beyond the edge", &beyond, &vec![AnomalyRule::Explosion])?;
    }
    Ok("±1000000 does not fire, ±1000000.06 does".into())
}

fn f253(_: &Context) -> Outcome {
    let mut noise = Noise::new(253);
    for n in 1..200 {
        let raw: Vec<f64> = (0..n).map(|_| noise.unit()).collect();
        let sum: f64 = raw.iter().sum();
        let weights: Vec<f64> = raw.iter().map(|w| w / sum).collect();
        let t = head(0, 0, &weights);
        require_eq("positions kept", &t.top_k_positions.len(), &n.min(5))?;
        let falls = t.top_k_weights.windows(2).all(|w| w[0] >= w[1]);
        require(falls, "descending weights", || format!("{:?}", t.top_k_weights))?;
        let largest = weights.iter().copied().fold(0.0, f64::max) as f32;
        require_eq("the first is the largest", &t.max_weight, &Some(largest))?;
    }
    Ok("199 rows of 1 to 199 positions".into())
}

fn f255(_: &Context) -> Outcome {
    for n in [1usize, 2, 3, 7, 100, 4096] {
        let e = require_some(entropy(&vec![1.0 / n as f64; n]), "an entropy")?;
        require((e - (n as f64).ln()).abs() < 1e-10, format!("ln {n}"), || e.to_string())?;
    }
    require_eq("all on one of three", &entropy(&[0.0, 1.0, 0.0]), &Some(0.0))?;
    Ok("n = 1, 2, 3, 7, 100, 4096".into())
}

fn f257(_: &Context) -> Outcome {
    let mut noise = Noise::new(257);
    for n in 1..100 {
        // Few different values: most of them tie.
        let logits: Vec<f32> = (0..n).map(|_| noise.below(5) as f32).collect();
        let mut order: Vec<u32> = (0..n as u32).collect();
        order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
        for (i, &id) in order.iter().enumerate() {
            require_eq("rank", &rank(&logits, id), &Some(i as u32 + 1))?;
        }
    }
    require_eq("rank of what is no number", &rank(&[f32::NAN, 1.0], 0), &None)?;
    require_eq("rank beside what is no number", &rank(&[f32::NAN, 1.0], 1), &Some(1))?;
    require_eq("probability of one of two", &probability(&[2.0, 2.0], 1), &Some(0.5))?;
    Ok("99 vectors of 1 to 99 logits with many ties, as sorting them says".into())
}

fn f258(_: &Context) -> Outcome {
    let mut noise = Noise::new(258);
    let cosine = |a: &[f32], b: &[f32]| {
        let mut s = ErrorSums::default();
        s.add(a, b);
        s.cosine()
    };
    for i in 0..1000 {
        let n = 1 + noise.below(40);
        let size = 10f64.powi(i % 60 - 30);
        let (a, b) = (noise.values(n, size), noise.values(n, 1.0 / size));
        let scaled: Vec<f32> = a.iter().map(|x| x * 3.0).collect();
        for (x, y) in [(&a, &b), (&a, &scaled), (&a, &a)] {
            let c = require_some(cosine(x, y), "a cosine")?;
            require((-1.0..=1.0).contains(&c), "in [-1, 1]", || c.to_string())?;
        }
    }
    let zero = [0.0f32; 4];
    let found = (cosine(&zero, &zero), cosine(&zero, &[1.0; 4]), cosine(&[1.0; 4], &zero));
    require_eq("two zero vectors, and one", &found, &(Some(1.0), Some(0.0), Some(0.0)))?;
    Ok("3000 pairs of sizes 1e-30 to 1e30; zero vectors: 1 for two, 0 for one".into())
}

fn f259(_: &Context) -> Outcome {
    let mut noise = Noise::new(259);
    let snr = |a: &[f32], b: &[f32]| {
        let mut s = ErrorSums::default();
        s.add(a, b);
        s.snr_db()
    };
    for n in 1..200 {
        let (a, b) = (noise.values(n, 1.0), noise.values(n, 1.0));
        let signal: f64 = b.iter().map(|&x| f64::from(x).powi(2)).sum();
        let error: f64 = a.iter().zip(&b).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum();
        require_eq("SNR", &snr(&a, &b), &Some(10.0 * (signal / error).log10()))?;
    }
    require_eq("without noise, without signal", &(snr(&[1.0], &[1.0]), snr(&[1.0], &[0.0])), &(None, None))?;
    Ok("199 pairs; no figure without noise and without signal".into())
}

fn f262(_: &Context) -> Outcome {
    let mut noise = Noise::new(262);
    for _ in 0..10_000 {
        let (hits, lookups) = (noise.below(100) as u64, noise.below(50) as u64);
        if let Some(r) = hit_rate(hits, lookups) {
            require((0.0..=1.0).contains(&r), "in [0, 1]", || format!("{r} of {hits} in {lookups}"))?;
        }
    }
    require_eq("without lookups", &hit_rate(3, 0), &None)?;
    Ok("10000 pairs, also more hits than lookups; none without lookups".into())
}

fn f264(_: &Context) -> Outcome {
    let t = healthy();
    let json = t.export_json()?;
    let value: serde_json::Value = serde_json::from_str(&json)?;
    require_eq("schema", &value["schema"].as_str(), &Some("brick.trace/1"))?;
    let text = t.to_string();
    for part in ["activations", "attention", "logit lens", "quantisation", "KV cache", "no anomaly"] {
        require(text.contains(part), format!("{part:?} in the text"), || text.clone())?;
    }
    Ok(format!("{} bytes of JSON, {} lines of text", json.len(), text.lines().count()))
}

fn f267(_: &Context) -> Outcome {
    type Add = fn(&mut ModelTracer);
    let rules: &[(AnomalyRule, Add)] = &[
        (AnomalyRule::Nan, |t| with_output([1.0, f32::NAN])(t)),
        (AnomalyRule::Infinite, |t| with_output([1.0, f32::INFINITY])(t)),
        (AnomalyRule::Explosion, |t| with_output([1.0, 2e6])(t)),
        (AnomalyRule::Vanishing, |t| with_output([1.0, 1.0])(t)),
        (AnomalyRule::Bypass, |t| {
            t.record_layer_activation(LayerActivationTrace { residual_ratio: Some(0.995), ..layer(1) });
        }),
        (AnomalyRule::AttentionCollapse, |t| t.record_attention(head(1, 0, &[0.0, 0.0, 1.0, 0.0]))),
        (AnomalyRule::AttentionSink, |t| t.record_attention(head(1, 0, &[1.0, 0.0, 0.0, 0.0]))),
        (AnomalyRule::LogitRankJump, |t| t.record_logit_evolution(jump(200, 7))),
        (AnomalyRule::QuantizationDrift, |t| t.record_quantization(quantization(&[1.0, 1.0], &[1.0, 0.0]))),
        (AnomalyRule::KvThrashing, |t| t.record_kv_state(kv(Some(0.25)))),
    ];
    require_eq("rules", &rules.iter().map(|(r, _)| *r).collect::<Vec<_>>(), &AnomalyRule::ALL.to_vec())?;
    for (rule, add) in rules {
        let found = fired(*add);
        require_eq(rule.name(), &found, &vec![*rule])?;
    }
    require_eq("rules on a clean trace", &fired(|_| ()), &vec![])?;
    Ok(format!("{} of {} rules, none on a clean trace", rules.len(), AnomalyRule::ALL.len()))
}

fn f273(_: &Context) -> Outcome {
    let sink = head(1, 0, &[1.0, 0.0, 0.0, 0.0]);
    require_eq("top position", &(sink.top_k_positions[0], sink.sink_weight), &(0, Some(1.0)))?;
    require_eq("rules", &fired(|t| t.record_attention(sink)), &vec![AnomalyRule::AttentionSink])?;
    let elsewhere = fired(|t| t.record_attention(head(1, 0, &[0.3, 0.3, 0.2, 0.2])));
    require_eq("rules for even weights", &elsewhere, &vec![])?;
    Ok("all weight on position 0 is a sink, even weights are none".into())
}

fn f274(_: &Context) -> Outcome {
    require_eq("late", &fired(|t| t.record_logit_evolution(jump(500, 7))), &vec![AnomalyRule::LogitRankJump])?;
    require_eq("early", &fired(|t| t.record_logit_evolution(jump(500, 2))), &vec![])?;
    require_eq("decisive layer", &jump(500, 7).decisive_layer, &Some(7))?;
    Ok("rank 500 to 1 in the last of 8 layers is noted, in the third it is not".into())
}

fn f_struct(_: &Context) -> Outcome {
    // Named by their types: what is not there does not compile.
    let structures = [
        std::any::type_name::<TensorStats>(),
        std::any::type_name::<LayerActivationTrace>(),
        std::any::type_name::<AttentionWeightTrace>(),
        std::any::type_name::<LogitEvolutionTrace>(),
        std::any::type_name::<TokenLogitEvolution>(),
        std::any::type_name::<ModelQuantizationError>(),
        std::any::type_name::<KvCacheStateTrace>(),
        std::any::type_name::<ModelTracerConfig>(),
        std::any::type_name::<ModelTracer>(),
    ];
    let mut t = ModelTracer::new(ModelTracerConfig::default());
    t.record_layer_activation(layer(0));
    t.record_attention(head(0, 0, &[1.0]));
    t.record_logit_evolution(jump(5, 1));
    t.record_kv_state(kv(None));
    let traces = t.traces();
    let kept = (traces.activation.len(), traces.attention.len(), traces.logit.len(), traces.kv.len());
    require_eq("traces kept by four methods", &kept, &(1, 1, 1, 1))?;
    require(!t.export_json()?.is_empty(), "a document", || "none".into())?;
    require_eq("anomalies", &t.detect_anomalies().len(), &0)?;
    Ok(format!("{} structures; new, four recorders, export_json, detect_anomalies", structures.len()))
}
