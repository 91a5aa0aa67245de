//! Tracing changes nothing, and what it shows is what the engine computed.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use brick_profiler::NoRecord;
use brick_profiler::trace::{
    AttentionWeightTrace, ModelTracer, ModelTracerConfig, QuantizationBasis, StatsAccumulator, TraceRun,
};
use brick_runtime::engine::{NoObserver, Observer, StepView};
use brick_runtime::plan::StepKind;
use brick_runtime::trace::{TraceError, TraceOptions, head_weights, trace, trace_with};
use brick_runtime::{Batch, Engine, EngineOptions, GenerateOptions, Model, Row, Session};
use bricks::cpu::attention::KvType;
use common::{MODELS, model, options, tokens};

fn tracing(config: ModelTracerConfig, tokens: usize) -> TraceOptions<'static> {
    TraceOptions { engine: EngineOptions { sequences: 1, ..options() }, tracer: config, tokens, against: None }
}

fn traced(m: &Model, ids: &[u32], config: ModelTracerConfig, n: usize) -> ModelTracer {
    trace(m, ids, &tracing(config, n), &AtomicBool::new(false)).unwrap()
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn tokens_and_logits_are_those_of_an_untraced_run() {
    for name in MODELS {
        let m = model(name);
        let ids = tokens(9, m.spec.vocab, 1);
        for (kv_type, max_rows) in [(KvType::F16, 64), (KvType::F16, 4), (KvType::Q8_0, 64)] {
            let o = EngineOptions { kv_type, max_rows, sequences: 1, ..options() };
            let Ok(plain) = m.engine(&o) else {
                assert_eq!(kv_type, KvType::Q8_0, "only heads that codes cannot hold");
                continue;
            };
            let mut session = Session::new(plain, &m.tokenizer, m.spec.context_length).unwrap();
            let generate = GenerateOptions { max_tokens: Some(6), ..GenerateOptions::default() };
            let never = AtomicBool::new(false);
            let expected = session.generate(&ids, &generate, &mut NoRecord, &never, &mut |_| ()).unwrap();

            let mut traced_logits = Vec::new();
            let with = TraceOptions { engine: o, ..tracing(ModelTracerConfig::default(), 6) };
            let t = trace_with(&m, &ids, &with, &never, &mut |l| traced_logits.push(bits(l))).unwrap();
            let found: Vec<u32> = t.run.tokens[t.run.prompt_tokens..].iter().map(|t| t.id).collect();
            assert_eq!(found, expected.ids, "{name}");
            assert_eq!(t.run.prompt_tokens, ids.len());

            // The same logits, bit by bit, as a plain engine gives.
            let mut e = m.engine(&o).unwrap();
            let s = e.new_sequence().unwrap();
            let mut batch = Batch::default();
            for (start, chunk) in ids.chunks(max_rows).enumerate() {
                batch.clear();
                batch.push_tokens(s, start * max_rows, chunk);
                e.forward_observed(&batch, &mut NoRecord, &mut NoObserver).unwrap();
            }
            for (i, logits) in traced_logits.iter().enumerate() {
                assert!(*logits == bits(e.logits().last().unwrap()), "{name}: token {i}");
                if i + 1 < found.len() {
                    batch.clear();
                    batch.push(Row { token: found[i], position: ids.len() + i, sequence: s, wanted: true });
                    e.forward_quiet(&batch).unwrap();
                }
            }
            assert_eq!(traced_logits.len(), found.len());
        }
    }
}

/// Values of the graph as it was built, by the name of the brick that gives them.
#[derive(Default)]
struct Values(HashMap<String, Vec<f32>>);

impl Observer for Values {
    const ENABLED: bool = true;

    fn after_step(&mut self, step: usize, view: &StepView<'_>) {
        let plan = view.plan();
        let slot = match &plan.steps[step].kind {
            StepKind::Embed { dst, .. } | StepKind::RmsNorm { dst, .. } | StepKind::Add { dst, .. } => *dst,
            StepKind::Linear { matrices, .. } => matrices[0].dst,
            _ => return,
        };
        let rows = view.rows().len();
        let values = (0..rows).flat_map(|t| view.row(slot, t).iter().copied()).collect();
        self.0.insert(plan.info[step].name.clone(), values);
    }
}

#[test]
fn activations_are_those_of_the_graph_before_any_fusion() {
    for name in MODELS {
        let m = model(name);
        let ids = tokens(11, m.spec.vocab, 2);
        let mut e = Engine::new(&m.graph, m.weights(), &options()).unwrap();
        let s = e.new_sequence().unwrap();
        let mut batch = Batch::default();
        batch.push_tokens(s, 0, &ids);
        let mut values = Values::default();
        e.forward_observed(&batch, &mut NoRecord, &mut values).unwrap();
        let stats = |brick: String| {
            let mut all = StatsAccumulator::default();
            values.0[&brick].chunks(m.spec.hidden).for_each(|row| all.extend(row));
            all.finish()
        };

        let t = traced(&m, &ids, ModelTracerConfig { activation: true, ..ModelTracerConfig::off() }, 1);
        assert_eq!(t.traces().activation.len(), m.spec.n_layers);
        for (layer, a) in t.traces().activation.iter().enumerate() {
            assert_eq!((a.step, a.layer_idx as usize, a.rows), (0, layer, 11));
            let input = if layer == 0 { "token_embd".into() } else { format!("blk.{}.ffn_residual", layer - 1) };
            assert_eq!(a.input_stats, stats(input), "{name}: input of {layer}");
            assert_eq!(a.post_norm_stats, stats(format!("blk.{layer}.attn_norm")), "{name}: norm of {layer}");
            assert_eq!(a.post_attn_stats, stats(format!("blk.{layer}.attn_output")), "{name}: attention of {layer}");
            assert_eq!(a.post_ffn_stats, stats(format!("blk.{layer}.ffn_down")), "{name}: FFN of {layer}");
            assert_eq!(a.output_stats, stats(format!("blk.{layer}.ffn_residual")), "{name}: output of {layer}");
            assert!((0.0..=1.0).contains(&a.residual_ratio.unwrap()));
        }
        assert!(t.traces().attention.is_empty() && t.traces().kv.is_empty());
    }
}

/// How far attention outputs are from those of the weights computed again.
#[derive(Default)]
struct AttentionError {
    sums: f64,
    error2: f64,
    norm2: f64,
    heads: usize,
}

impl Observer for AttentionError {
    const ENABLED: bool = true;

    fn after_step(&mut self, step: usize, view: &StepView<'_>) {
        let StepKind::Attention { layer, q, spec, dst, .. } = &view.plan().steps[step].kind else { return };
        for (t, row) in view.rows().iter().enumerate() {
            let (keys, values) = view.kv().gather(row.sequence, *layer, row.position + 1).unwrap();
            for head in 0..spec.n_heads {
                let w = head_weights(spec, view.row(*q, t), &keys, head, row.position);
                self.sums = self.sums.max((w.weights.iter().sum::<f64>() - 1.0).abs());
                let found = &view.row(*dst, t)[head * spec.head_dim..][..spec.head_dim];
                for (&f, e) in found.iter().zip(w.output(spec, &values, head)) {
                    self.error2 += f64::from(f - e).powi(2);
                    self.norm2 += f64::from(e).powi(2);
                }
                self.heads += 1;
            }
        }
    }
}

#[test]
fn attention_weights_give_what_the_engine_gave() {
    for name in MODELS {
        let m = model(name);
        for kv_type in KvType::ALL {
            let Ok(mut e) = m.engine(&EngineOptions { kv_type, ..options() }) else { continue };
            let s = e.new_sequence().unwrap();
            let mut batch = Batch::default();
            batch.push_tokens(s, 0, &tokens(40, m.spec.vocab, 3));
            let mut error = AttentionError::default();
            e.forward_observed(&batch, &mut NoRecord, &mut error).unwrap();
            assert!(error.heads >= 40 * m.spec.n_layers && error.sums < 1e-9, "{name}: {}", error.sums);
            // The tolerance of `brick check`: the vectorised exponential, and the order of additions.
            let relative = (error.error2 / error.norm2).sqrt();
            assert!(relative < 1e-4, "{name} {kv_type}: {relative}");
        }
    }
}

#[test]
fn attention_is_traced_where_tokens_are_chosen() {
    let m = model("qwen2-tiny");
    let ids = tokens(7, m.spec.vocab, 4);
    let config = ModelTracerConfig { attention: true, ..ModelTracerConfig::off() };
    let t = traced(&m, &ids, config.clone(), 3);
    let n = t.run.tokens.len() - ids.len();
    assert_eq!(t.traces().attention.len(), n * m.spec.n_layers * m.spec.n_heads);
    for a in &t.traces().attention {
        assert_eq!(a.query_pos, ids.len() - 1 + a.step);
        assert!(a.top_k_weights.iter().sum::<f32>() <= 1.0 + 1e-5 && a.max_weight == Some(a.top_k_weights[0]));
        assert!(a.entropy.unwrap() <= (a.visible() as f32).ln() + 1e-5);
    }
    let some = ModelTracerConfig { layers: Some(vec![1]), heads: Some(vec![0, 2]), ..config };
    let chosen: Vec<AttentionWeightTrace> = traced(&m, &ids, some, 3).traces().attention.clone();
    let expected: Vec<_> =
        t.traces().attention.iter().filter(|a| a.layer_idx == 1 && [0, 2].contains(&a.head_idx)).cloned().collect();
    assert_eq!(chosen, expected);
}

#[test]
fn the_lens_of_the_last_layer_is_the_models_own_logits() {
    for name in MODELS {
        let m = model(name);
        let ids = tokens(8, m.spec.vocab, 5);
        let config = ModelTracerConfig { logit: true, tracked: 20, ..ModelTracerConfig::off() };
        let mut own: Vec<Vec<f32>> = Vec::new();
        let never = AtomicBool::new(false);
        let t = trace_with(&m, &ids, &tracing(config, 4), &never, &mut |l| own.push(l.to_vec())).unwrap();
        assert_eq!(t.traces().logit.len(), own.len());
        for (i, (lens, own)) in t.traces().logit.iter().zip(&own).enumerate() {
            assert_eq!(lens.layers, (0..m.spec.n_layers as u32).collect::<Vec<_>>());
            assert_eq!((lens.step, lens.position), (i, ids.len() - 1 + i));
            assert_eq!(lens.chosen().unwrap().token_id, t.run.tokens[lens.position + 1].id);
            assert_eq!(lens.tracked_tokens.len(), 20);
            let scale = own.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            for token in &lens.tracked_tokens {
                let (found, expected) = (token.per_layer_logits.last().unwrap().unwrap(), own[token.token_id as usize]);
                assert!((found - expected).abs() < 1e-4 * scale, "{name}: {found}, {expected}");
                let p = (token.per_layer_probs.last().unwrap().unwrap() - token.final_prob.unwrap()).abs();
                assert!(p < 1e-3, "{name}: {p}");
            }
            // The chosen token is the largest of the engine's logits; a tie of the lens's last bits may say otherwise.
            let first = lens.chosen().unwrap().per_layer_ranks.last().unwrap().unwrap();
            assert!(first <= 2, "{name}: rank {first}");
            assert!(lens.tracked_tokens.iter().skip(1).all(|o| o.final_prob <= lens.chosen().unwrap().final_prob));
        }
    }
}

#[test]
fn a_lens_of_some_layers_has_the_last_one_as_well() {
    let m = model("spm-tiny");
    let ids = tokens(5, m.spec.vocab, 6);
    let config = ModelTracerConfig { logit: true, activation: true, layers: Some(vec![0]), ..ModelTracerConfig::off() };
    let t = traced(&m, &ids, config, 1);
    assert_eq!(t.traces().logit[0].layers, [0, m.spec.n_layers as u32 - 1]);
    assert!(t.traces().activation.iter().all(|a| a.layer_idx == 0));
}

#[test]
fn rounding_is_measured_where_something_is_rounded() {
    let m = model("qwen2-tiny");
    let ids = tokens(9, m.spec.vocab, 7);
    let config = ModelTracerConfig { quant: true, ..ModelTracerConfig::off() };
    let t = traced(&m, &ids, config.clone(), 1);
    let [q] = &t.traces().quant[..] else { panic!("one measurement") };
    assert_eq!((q.basis, q.rows), (QuantizationBasis::Arithmetic, Some(4)));
    let writes: Vec<_> = q.bricks.iter().filter(|b| b.format == "kv_f16").collect();
    assert_eq!(writes.len(), m.spec.n_layers);
    assert!(q.bricks.len() > writes.len(), "matrices are there, too: {q:?}");
    for b in &q.bricks {
        assert!(b.cosine_similarity.unwrap() > 0.999 && b.nonfinite == 0 && !b.is_exact(), "{b:?}");
        // Eight bits, in blocks of 32, give some 40 dB; f16 some 70.
        assert!((30.0..100.0).contains(&b.snr_db.unwrap()), "{b:?}");
    }
    // The prompt's last call is the one; how it was cut changes only which rows there are.
    let cut = TraceOptions { engine: EngineOptions { max_rows: 4, ..options() }, ..tracing(config, 1) };
    let t = trace(&m, &ids, &cut, &AtomicBool::new(false)).unwrap();
    assert_eq!(t.traces().quant[0].rows, Some(1));
}

#[test]
fn weights_are_compared_by_name_and_are_exact_against_themselves() {
    let (m, other) = (model("qwen2-tiny"), model("qwen2-partial"));
    let ids = tokens(3, m.spec.vocab, 8);
    let config = ModelTracerConfig { quant: true, ..ModelTracerConfig::off() };
    let against = |gguf| TraceOptions { against: Some((gguf, "other.gguf")), ..tracing(config.clone(), 1) };
    let t = trace(&m, &ids, &against(&*m.gguf), &AtomicBool::new(false)).unwrap();
    let q = &t.traces().quant[0];
    assert_eq!(
        (q.basis, &*q.against, q.bricks.len()),
        (QuantizationBasis::Weights, "other.gguf", m.fused.weights().len())
    );
    assert!(q.bricks.iter().all(|b| b.is_exact() && b.cosine_similarity.unwrap() > 0.999_999 && b.snr_db.is_none()));
    let e = trace(&m, &ids, &against(&*other.gguf), &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(
        e.starts_with("other.gguf: tensor ") && e.contains("expected [") && e.contains("no file of the same"),
        "{e}"
    );
}

#[test]
fn the_cache_is_counted_call_by_call() {
    let m = model("spm-tiny");
    let ids = tokens(40, m.spec.vocab, 9);
    let config = ModelTracerConfig { kv: true, ..ModelTracerConfig::off() };
    let o = TraceOptions { engine: EngineOptions { max_rows: 16, context: 42, ..options() }, ..tracing(config, 20) };
    let t = trace(&m, &ids, &o, &AtomicBool::new(false)).unwrap();
    let sizes: Vec<usize> = t.traces().kv.iter().map(|k| k.cache_size_tokens).collect();
    let blocks: Vec<usize> = t.traces().kv.iter().map(|k| k.blocks_in_use).collect();
    assert_eq!(sizes[..4], [16, 32, 40, 41]);
    assert_eq!(blocks[..4], [1, 1, 2, 2]);
    assert!(t.run.finish.contains("42 positions is full") || t.run.finish == "end of text", "{}", t.run.finish);
    for (i, k) in t.traces().kv.iter().enumerate() {
        assert_eq!((k.step, k.capacity_tokens, k.total_evictions, k.hit_rate), (i, 42, 0, None));
        assert!(k.bytes_in_use > 0 && k.cache_size_tokens <= 42);
    }
}

#[test]
fn requests_that_cannot_be_met_are_errors() {
    let m = model("spm-tiny");
    let ids = tokens(4, m.spec.vocab, 1);
    let run = |ids: &[u32], o: &TraceOptions<'_>| trace(&m, ids, o, &AtomicBool::new(false)).unwrap_err();
    let plain = tracing(ModelTracerConfig::default(), 1);
    assert!(matches!(run(&[], &plain), TraceError::EmptyPrompt));
    let small = TraceOptions { engine: EngineOptions { context: 3, ..options() }, ..plain };
    assert!(matches!(run(&ids, &small), TraceError::PromptTooLong { tokens: 4, context: 3 }));
    let layers = tracing(ModelTracerConfig { layers: Some(vec![0, 9]), ..ModelTracerConfig::default() }, 1);
    assert_eq!(run(&ids, &layers).to_string(), format!("there is no layer 9: expected 0 to {}", m.spec.n_layers - 1));
    let heads = tracing(ModelTracerConfig { heads: Some(vec![99]), ..ModelTracerConfig::default() }, 1);
    assert!(matches!(run(&ids, &heads), TraceError::NoSuch { what: "head", found: 99, .. }));
    let stop = AtomicBool::new(true);
    let t = trace(&m, &ids, &tracing(ModelTracerConfig::default(), 5), &stop).unwrap();
    assert_eq!((&*t.run.finish, t.run.tokens.len()), ("interrupted", 4));
    assert!(t.run != TraceRun::default() && t.traces().logit.is_empty());
}
