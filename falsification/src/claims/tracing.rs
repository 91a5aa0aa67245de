//! F250–F275: tracing of values. F265, F266 and F268 are not defined in the catalogue.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use brick_profiler::trace::{
    AnomalyRule, AttentionWeightTrace, ErrorSums, KvCacheStateTrace, LayerActivationTrace, LogitEvolutionTrace,
    ModelQuantizationError, ModelTracer, ModelTracerConfig, QuantizationBasis, QuantizationErrorTrace, Severity,
    TensorStats, TokenLogitEvolution, entropy, hit_rate, probability, rank,
};
use brick_runtime::trace::{TraceOptions, trace_with};
use brick_runtime::{Batch, EngineOptions, Model, Row};
use bricks::cpu::attention::KvType;

use crate::claim::{Claim, Family, Outcome, Refusal, require, require_eq, require_some};
use crate::context::Context;
use crate::noise::Noise;
use crate::runs;
use crate::synthetic::Synthetic;

macro_rules! claim {
    ($id:literal, $statement:literal, $threshold:literal, $check:ident) => {
        Claim { id: $id, statement: $statement, family: Family::Tracing, threshold: $threshold, check: $check }
    };
}

pub(super) const CLAIMS: &[Claim] = &[
    claim!("F250", "Statistics of a tensor in one pass are those of two passes", "1e-6 of the largest value", f250),
    claim!("F251", "Every NaN is found, and none reaches a mean", "recall 100 %", f251),
    claim!("F252", "An explosion is detected on both sides of zero", "abs(max) > 1e6", f252),
    claim!("F253", "The largest attention weights come first", "descending", f253),
    claim!("F254", "Traced attention weights sum to one", "1e-5 on the full row; top-k at most 1", f254),
    claim!("F255", "The entropy of even weights on n positions is ln n", "1e-10", f255),
    claim!("F256", "The logit lens after the last layer is the forward pass", "1e-4 of the largest logit", f256),
    claim!("F257", "Ranks are exact; of equal logits the lower id comes first", "exact", f257),
    claim!("F258", "A cosine is in range, with a zero vector too", "[-1, 1]", f258),
    claim!("F259", "The SNR is 10 log10 of signal over noise, and none without noise", "exact", f259),
    claim!("F260", "The traced size of the KV cache is the number of tokens in it", "exact", f260),
    claim!("F261", "Nothing is evicted: a full cache refuses and keeps what it has", "0 evictions", f261),
    claim!("F262", "A hit rate is a share", "[0, 1]", f262),
    claim!("F263", "Tracing activations, attention and KV state costs little while it is on", "< 10 % of decoding", f263),
    claim!("F264", "A trace can be read as JSON and as text", "parses", f264),
    claim!("F267", "Each anomaly rule fires on a trace made for it, and none on a clean one", "10 of 10, 0", f267),
    claim!("F269", "Tracing that is off, or was on before, leaves results unchanged", "identical bits", f269),
    claim!("F270", "A trace survives recording, export and import", "equal", f270),
    claim!("F271", "A trace says all it takes to have its KV cache again", "continues with identical bits", f271),
    claim!("F272", "Traced runs give what untraced runs give", "identical bits", f272),
    claim!("F273", "Attention that rests on the first position is detected", "detected", f273),
    claim!("F274", "A token whose rank jumps in a late layer is detected", "detected", f274),
    claim!("F275", "A poisoned weight raises an anomaly at its layer, from file to report", "first error there", f275),
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

fn options(tokens: usize, tracer: ModelTracerConfig) -> TraceOptions<'static> {
    TraceOptions { engine: runs::options(64, 64), tracer, tokens, against: None }
}

/// A trace, with the engine's own logits at every chosen token.
fn traced(model: &Model, ids: &[u32], o: &TraceOptions<'_>) -> Result<(ModelTracer, Vec<Vec<f32>>), Refusal> {
    let mut logits = Vec::new();
    let t = trace_with(model, ids, o, &AtomicBool::new(false), &mut |l| logits.push(l.to_vec()))?;
    Ok((t, logits))
}

fn f254(context: &Context) -> Outcome {
    let (mut rows, mut worst) = (0, 0.0f32);
    for s in context.synthetics()? {
        // All positions are kept, so what is kept is the row.
        let config = ModelTracerConfig { attention: true, top_k: 64, ..ModelTracerConfig::off() };
        let (t, _) = traced(&s.model, &s.golden.prompt_ids, &options(4, config))?;
        for a in &t.traces().attention {
            require_eq("weights of the row", &a.top_k_weights.len(), &a.visible())?;
            worst = worst.max((a.top_k_weights.iter().sum::<f32>() - 1.0).abs());
            rows += 1;
        }
        let config = ModelTracerConfig { attention: true, top_k: 3, ..ModelTracerConfig::off() };
        let (t, _) = traced(&s.model, &s.golden.prompt_ids, &options(2, config))?;
        let most = t.traces().attention.iter().map(|a| a.top_k_weights.iter().sum::<f32>()).fold(0.0, f32::max);
        require(most <= 1.0 + 1e-6, "three weights of at most 1", || most.to_string())?;
    }
    require(rows > 0 && worst <= 1e-5, "a sum of 1 within 1e-5", || format!("{worst:.1e} off in {rows} rows"))?;
    Ok(format!("{rows} rows of 6 models: at most {worst:.1e} from 1"))
}

fn f255(_: &Context) -> Outcome {
    for n in [1usize, 2, 3, 7, 100, 4096] {
        let e = require_some(entropy(&vec![1.0 / n as f64; n]), "an entropy")?;
        require((e - (n as f64).ln()).abs() < 1e-10, format!("ln {n}"), || e.to_string())?;
    }
    require_eq("all on one of three", &entropy(&[0.0, 1.0, 0.0]), &Some(0.0))?;
    Ok("n = 1, 2, 3, 7, 100, 4096".into())
}

fn f256(context: &Context) -> Outcome {
    let (mut compared, mut worst) = (0, 0.0f32);
    for s in context.synthetics()? {
        let config = ModelTracerConfig { logit: true, tracked: 50, ..ModelTracerConfig::off() };
        let (t, own) = traced(&s.model, &s.golden.prompt_ids, &options(4, config))?;
        require_eq("positions", &t.traces().logit.len(), &own.len())?;
        for (lens, own) in t.traces().logit.iter().zip(&own) {
            let scale = own.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            for token in &lens.tracked_tokens {
                let found = require_some(token.per_layer_logits.last().copied().flatten(), "a logit")?;
                worst = worst.max((found - own[token.token_id as usize]).abs() / scale);
                compared += 1;
            }
        }
    }
    require(compared > 0 && worst <= 1e-4, "at most 1e-4 of the largest logit", || format!("{worst:.1e}"))?;
    Ok(format!("{compared} logits of 6 models: at most {worst:.1e} of the largest"))
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

fn f260(context: &Context) -> Outcome {
    let mut calls = 0;
    for s in context.synthetics()? {
        for rows in [1, 5, 64] {
            let config = ModelTracerConfig { kv: true, ..ModelTracerConfig::off() };
            let o = TraceOptions { engine: runs::options(64, rows), ..options(4, config) };
            let (t, _) = traced(&s.model, &s.golden.prompt_ids, &o)?;
            let prompt = s.golden.prompt_ids.len();
            let decoded = (1..t.run.tokens.len() - prompt).map(|i| prompt + i);
            let expected: Vec<usize> =
                (1..=prompt.div_ceil(rows)).map(|i| (i * rows).min(prompt)).chain(decoded).collect();
            let found: Vec<usize> = t.traces().kv.iter().map(|k| k.cache_size_tokens).collect();
            require_eq("positions after each call", &found, &expected)?;
            calls += found.len();
        }
    }
    Ok(format!("{calls} calls of 6 models, prompts in calls of 1, 5 and 64 tokens"))
}

fn f261(context: &Context) -> Outcome {
    let s = context.synthetic("spm-tiny")?;
    let ids = s.golden.ids();
    let room = s.golden.prompt_ids.len() + 2;
    let config = ModelTracerConfig { kv: true, ..ModelTracerConfig::off() };
    let o = TraceOptions { engine: runs::options(room, 64), ..options(30, config) };
    let (t, _) = traced(&s.model, &s.golden.prompt_ids, &o)?;
    let last = require_some(t.traces().kv.last(), "a state of the cache")?;
    require_eq("full", &(last.cache_size_tokens, last.capacity_tokens), &(room, room))?;
    require_eq("evictions", &(last.evictions_this_step, last.total_evictions), &(0, 0))?;
    // What is in a full cache is still there after it has refused.
    let mut engine = s.model.engine(&runs::options(room, 64))?;
    let sequence = engine.new_sequence()?;
    let mut batch = Batch::with_capacity(64);
    batch.push_tokens(sequence, 0, &ids[..room]);
    engine.forward_quiet(&batch)?;
    let before = engine.kv().gather(sequence, 0, room)?;
    batch.clear();
    batch.push(Row { token: ids[0], position: room, sequence, wanted: true });
    require(engine.forward_quiet(&batch).is_err(), "a refusal", || "one position more".into())?;
    require(engine.kv().gather(sequence, 0, room)? == before, "the same keys and values", || "others".into())?;
    Ok(format!("{room} positions, the next one refused, 0 evicted"))
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

/// Nanoseconds per decoded token, the fastest of the run.
fn decode_ns(model: &Model, prompt: &[u32], n: usize, config: Option<ModelTracerConfig>) -> Result<f64, Refusal> {
    let mut at: Vec<Instant> = Vec::new();
    match config {
        Some(config) => {
            let o = TraceOptions { engine: runs::options(128, 64), ..options(n, config) };
            trace_with(model, prompt, &o, &AtomicBool::new(false), &mut |_| at.push(Instant::now()))?;
        }
        None => {
            runs::greedy(model, &runs::options(128, 64), prompt, n, |_| {
                at.push(Instant::now());
                false
            })?;
        }
    }
    let times = at.windows(2).map(|w| (w[1] - w[0]).as_nanos() as f64);
    require_some(times.reduce(f64::min), "two tokens or more")
}

fn f263(context: &Context) -> Outcome {
    let model = context.real()?;
    let prompt: Vec<u32> = (0..16).map(|i| 1000 + 37 * i).collect();
    let config = ModelTracerConfig { activation: true, attention: true, kv: true, ..ModelTracerConfig::off() };
    // In turn, and each against itself: what the machine adds is in both.
    let (mut ratios, mut control) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        let plain = decode_ns(model, &prompt, 12, None)?;
        ratios.push(decode_ns(model, &prompt, 12, Some(config.clone()))? / plain);
        control.push(decode_ns(model, &prompt, 12, None)? / plain);
    }
    ratios.sort_by(f64::total_cmp);
    control.sort_by(f64::total_cmp);
    let (ratio, same) = (ratios[3], control[3]);
    let seen = format!("{ratio:.3} [{:.3}, {:.3}] times as long", ratios[1], ratios[5]);
    if (same - 1.0).abs() > 0.05 {
        return Err(Refusal::not_testable(format!("the machine is busy: two equal runs differ by {same:.3}")));
    }
    require(ratios[1] < 1.1, "less than 1.1 times as long", || seen.clone())?;
    Ok(format!("SmolLM2, one thread, fastest of 11 tokens, 7 pairs: {seen}; without tracing twice: {same:.3}"))
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
        // A vector with a NaN and a single value has no deviation left.
        let others = found.iter().filter(|r| *r != rule && **r != AnomalyRule::Vanishing).count();
        require(found.contains(rule) && others == 0, rule.name(), || format!("{found:?}"))?;
    }
    require_eq("rules on a clean trace", &fired(|_| ()), &vec![])?;
    Ok(format!("{} of {} rules, none on a clean trace", rules.len(), AnomalyRule::ALL.len()))
}

fn same_bits(a: &[Vec<f32>], b: &[Vec<f32>]) -> bool {
    let bits = |rows: &[Vec<f32>]| rows.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
    bits(a) == bits(b)
}

/// Logits of a run without any trace, where the traced one has chosen its tokens.
fn untraced(s: &Synthetic, o: &EngineOptions, t: &ModelTracer) -> Result<Vec<Vec<f32>>, Refusal> {
    let ids: Vec<u32> = t.run.tokens.iter().map(|t| t.id).collect();
    let chosen = t.run.prompt_tokens - 1..ids.len() - 1;
    let mut rows = Vec::new();
    runs::each_logits(&s.model, o, &ids, |p| chosen.contains(&p), |_, row| rows.push(row.to_vec()))?;
    Ok(rows)
}

fn f269(context: &Context) -> Outcome {
    let mut rows = 0;
    for s in context.synthetics()? {
        let o = options(5, ModelTracerConfig::off());
        let (t, off) = traced(&s.model, &s.golden.prompt_ids, &o)?;
        let before = untraced(s, &o.engine, &t)?;
        traced(&s.model, &s.golden.prompt_ids, &options(5, ModelTracerConfig::default()))?;
        let after = untraced(s, &o.engine, &t)?;
        require(same_bits(&off, &before), format!("{}: a trace of nothing gives the same", s.name), || "others".into())?;
        require(same_bits(&before, &after), format!("{}: the same after a trace", s.name), || "others".into())?;
        rows += off.len();
    }
    Ok(format!("{rows} rows of logits of 6 models: tracing nothing, before and after tracing everything"))
}

fn f270(context: &Context) -> Outcome {
    let mut bytes = 0;
    for s in context.synthetics()? {
        let (t, _) = traced(&s.model, &s.golden.prompt_ids, &options(3, ModelTracerConfig::default()))?;
        let json = t.export_json()?;
        let back = ModelTracer::import_json("trace.json", &json)?;
        require(back == t, format!("{}: the same trace", s.name), || "another".into())?;
        require(back.export_json()? == json, format!("{}: the same JSON", s.name), || "other JSON".into())?;
        bytes += json.len();
    }
    Ok(format!("6 models, {bytes} bytes of JSON, equal after export and import"))
}

fn f271(context: &Context) -> Outcome {
    let mut tokens = 0;
    for s in context.synthetics()? {
        for kv_type in KvType::ALL {
            let engine = EngineOptions { kv_type, ..runs::options(64, 64) };
            if s.model.engine(&engine).is_err() {
                continue; // heads that codes cannot hold
            }
            let config = ModelTracerConfig { kv: true, ..ModelTracerConfig::off() };
            let long = TraceOptions { engine, ..options(8, config) };
            let (_, whole) = traced(&s.model, &s.golden.prompt_ids, &long)?;
            let (half, first) = traced(&s.model, &s.golden.prompt_ids, &TraceOptions { tokens: 4, ..long.clone() })?;
            // Nothing but the document is taken along.
            let run = ModelTracer::import_json("trace.json", &half.export_json()?)?.run;
            let kv_type = require_some(KvType::ALL.into_iter().find(|k| k.name() == run.kv_type), "a cache type")?;
            let again = EngineOptions { kv_type, ..runs::options(run.context, 64) };
            let ids: Vec<u32> = run.tokens.iter().map(|t| t.id).collect();
            let (_, rest) = traced(&s.model, &ids, &TraceOptions { engine: again, tokens: 4, ..long })?;
            let n = first.len();
            if n < 4 {
                continue; // the text ended
            }
            require(same_bits(&whole[n..], &rest), format!("{}: continues identically", s.name), || "not".into())?;
            tokens += rest.len();
        }
    }
    require(tokens > 0, "tokens to compare", || "none".into())?;
    Ok(format!("{tokens} tokens continued from the document with the bits of uninterrupted runs"))
}

fn f272(context: &Context) -> Outcome {
    let mut rows = 0;
    for s in context.synthetics()? {
        for (threads, max_rows) in [(1, 64), (3, 64), (1, 7)] {
            let engine = EngineOptions { threads, ..runs::options(64, max_rows) };
            let o = TraceOptions { engine, ..options(6, ModelTracerConfig::default()) };
            let (t, with) = traced(&s.model, &s.golden.prompt_ids, &o)?;
            let without = untraced(s, &runs::options(64, 64), &t)?;
            require(same_bits(&with, &without), format!("{}: the bits of an untraced run", s.name), || "others".into())?;
            let n = t.run.tokens.len() - t.run.prompt_tokens;
            let greedy = runs::greedy(&s.model, &runs::options(64, 64), &s.golden.prompt_ids, n, |_| false)?;
            let found: Vec<u32> = t.run.tokens[t.run.prompt_tokens..].iter().map(|t| t.id).collect();
            require_eq("tokens", &found, &greedy)?;
            rows += with.len();
        }
    }
    Ok(format!("{rows} rows of logits of 6 models with everything traced, 1 and 3 threads, prompts whole and cut"))
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

fn f275(context: &Context) -> Outcome {
    let s = context.synthetic("spm-tiny")?;
    let gguf = s.gguf()?;
    let mut cases = 0;
    for layer in 0..s.model.spec.n_layers as u32 {
        for value in [f32::NAN, f32::INFINITY] {
            let name = format!("blk.{layer}.ffn_norm.weight");
            let tensor = gguf.require(&name)?;
            let mut gain = vec![1.0f32; s.model.spec.hidden];
            gain[5] = value;
            let dims = tensor.dims.clone();
            let poisoned = s.changed(|w| {
                w.remove_tensor(&name).tensor_f32(&name, &dims, &gain);
            })?;
            let model = poisoned.map_err(|e| Refusal::falsified("a model with a poisoned weight", e))?;
            let o = options(3, ModelTracerConfig { quant: false, ..ModelTracerConfig::default() });
            let (t, _) = traced(&model, &s.golden.prompt_ids, &o)?;
            let anomalies = t.detect_anomalies();
            let first = require_some(anomalies.first(), "an anomaly")?;
            require_eq("first anomaly", &(first.severity, first.layer_idx), &(Severity::Error, Some(layer)))?;
            let text = t.to_string();
            require(text.contains("not a number"), "the report says so", || text.clone())?;
            cases += 1;
        }
    }
    let o = options(3, ModelTracerConfig { quant: false, ..ModelTracerConfig::default() });
    let (healthy, _) = traced(&s.model, &s.golden.prompt_ids, &o)?;
    let errors = healthy.detect_anomalies().iter().filter(|a| a.severity == Severity::Error).count();
    require_eq("errors of the model as it is", &errors, &0)?;
    Ok(format!("{cases} poisoned gains, each named with its layer; none in the model as it is"))
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
