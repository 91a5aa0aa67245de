//! Tracing claims that run models.

use std::cell::RefCell;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use brick_profiler::trace::{ModelTracer, ModelTracerConfig, Severity};
use brick_runtime::trace::{TraceOptions, trace_with};
use brick_runtime::{Batch, EngineOptions, Model, Row};
use bricks::cpu::attention::KvType;

use crate::claim::{Outcome, Refusal, require, require_eq, require_some};
use crate::context::Context;
use crate::runs;
use crate::synthetic::Synthetic;

fn options(tokens: usize, tracer: ModelTracerConfig) -> TraceOptions<'static> {
    TraceOptions { engine: runs::options(64, 64), tracer, tokens, against: None }
}

/// A trace, with the engine's own logits at every chosen token.
fn traced(model: &Model, ids: &[u32], o: &TraceOptions<'_>) -> Result<(ModelTracer, Vec<Vec<f32>>), Refusal> {
    let mut logits = Vec::new();
    let t = trace_with(model, ids, o, &AtomicBool::new(false), &mut |l| logits.push(l.to_vec()))?;
    Ok((t, logits))
}

pub(super) fn f254(context: &Context) -> Outcome {
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

pub(super) fn f256(context: &Context) -> Outcome {
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

pub(super) fn f260(context: &Context) -> Outcome {
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

pub(super) fn f261(context: &Context) -> Outcome {
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

/// Nanoseconds per decoded token, the fastest of the run.
fn decode_ns(model: &Model, prompt: &[u32], n: usize, config: Option<ModelTracerConfig>) -> Result<f64, Refusal> {
    let at = RefCell::new(Vec::<Instant>::new());
    match config {
        Some(config) => {
            let o = TraceOptions { engine: runs::options(128, 64), ..options(n, config) };
            trace_with(model, prompt, &o, &AtomicBool::new(false), &mut |_| at.borrow_mut().push(Instant::now()))?;
        }
        None => {
            runs::greedy(model, &runs::options(128, 64), prompt, n, |_| {
                at.borrow_mut().push(Instant::now());
                false
            })?;
        }
    }
    let at = at.into_inner();
    let times = at.windows(2).map(|w| (w[1] - w[0]).as_nanos() as f64);
    require_some(times.reduce(f64::min), "two tokens or more")
}

pub(super) fn f263(context: &Context) -> Outcome {
    let model = context.real()?;
    let prompt: Vec<u32> = (0..16).map(|i| 1000 + 37 * i).collect();
    let config = ModelTracerConfig { activation: true, kv: true, ..ModelTracerConfig::off() };
    let with_attention = ModelTracerConfig { attention: true, ..config.clone() };
    // In turn, and each against itself: what the machine adds is in both.
    let (mut ratios, mut attention, mut control) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..7 {
        let plain = decode_ns(model, &prompt, 12, None)?;
        ratios.push(decode_ns(model, &prompt, 12, Some(config.clone()))? / plain);
        attention.push(decode_ns(model, &prompt, 12, Some(with_attention.clone()))? / plain);
        control.push(decode_ns(model, &prompt, 12, None)? / plain);
    }
    for of in [&mut ratios, &mut attention, &mut control] {
        of.sort_by(f64::total_cmp);
    }
    let (ratio, same) = (ratios[3], control[3]);
    let seen = format!("{ratio:.3} [{:.3}, {:.3}] times as long", ratios[1], ratios[5]);
    if (same - 1.0).abs() > 0.05 {
        return Err(Refusal::not_testable(format!("the machine is busy: two equal runs differ by {same:.3}")));
    }
    require(ratios[1] < 1.1, "less than 1.1 times as long", || seen.clone())?;
    Ok(format!(
        "SmolLM2, one thread, fastest of 11 tokens, 7 pairs: {seen}, with attention {:.3}; without tracing twice {same:.3}",
        attention[3]
    ))
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

pub(super) fn f269(context: &Context) -> Outcome {
    let mut rows = 0;
    for s in context.synthetics()? {
        let o = options(5, ModelTracerConfig::off());
        let (t, off) = traced(&s.model, &s.golden.prompt_ids, &o)?;
        let before = untraced(s, &o.engine, &t)?;
        traced(&s.model, &s.golden.prompt_ids, &options(5, ModelTracerConfig::default()))?;
        let after = untraced(s, &o.engine, &t)?;
        require(same_bits(&off, &before), format!("{}: a trace of nothing gives the same", s.name), || {
            "others".into()
        })?;
        require(same_bits(&before, &after), format!("{}: the same after a trace", s.name), || "others".into())?;
        rows += off.len();
    }
    Ok(format!("{rows} rows of logits of 6 models: tracing nothing, before and after tracing everything"))
}

pub(super) fn f270(context: &Context) -> Outcome {
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

pub(super) fn f271(context: &Context) -> Outcome {
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

pub(super) fn f272(context: &Context) -> Outcome {
    let mut rows = 0;
    for s in context.synthetics()? {
        for (threads, max_rows) in [(1, 64), (3, 64), (1, 7)] {
            let engine = EngineOptions { threads, ..runs::options(64, max_rows) };
            let o = TraceOptions { engine, ..options(6, ModelTracerConfig::default()) };
            let (t, with) = traced(&s.model, &s.golden.prompt_ids, &o)?;
            let without = untraced(s, &runs::options(64, 64), &t)?;
            require(same_bits(&with, &without), format!("{}: the bits of an untraced run", s.name), || {
                "others".into()
            })?;
            let n = t.run.tokens.len() - t.run.prompt_tokens;
            let greedy = runs::greedy(&s.model, &runs::options(64, 64), &s.golden.prompt_ids, n, |_| false)?;
            let found: Vec<u32> = t.run.tokens[t.run.prompt_tokens..].iter().map(|t| t.id).collect();
            require_eq("tokens", &found, &greedy)?;
            rows += with.len();
        }
    }
    Ok(format!("{rows} rows of logits of 6 models with everything traced, 1 and 3 threads, prompts whole and cut"))
}

pub(super) fn f275(context: &Context) -> Outcome {
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
                w.remove_tensor(&name);
                w.tensor_f32(&name, &dims, &gain);
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
