//! Every anomaly rule on a trace made for it, JSON, and the reports as snapshots.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::testing::{activation, attention, filled, healthy, kv, logits, quantization, stats};
use super::*;
use crate::report::Style;

/// Rules and severities of a tracer filled by `f` beside the healthy traces.
fn detected(f: impl FnOnce(&mut ModelTracer)) -> Vec<(AnomalyRule, Severity)> {
    let mut t = healthy();
    f(&mut t);
    t.detect_anomalies().iter().map(|a| (a.rule, a.severity)).collect()
}

#[test]
fn a_clean_trace_fires_nothing() {
    assert_eq!(healthy().detect_anomalies(), []);
    assert_eq!(ModelTracer::new(ModelTracerConfig::default()).detect_anomalies(), []);
}

#[test]
fn what_is_no_number_is_an_error_and_comes_first() {
    let broken = detected(|t| {
        t.record_attention(attention(2, 0, &[0.97, 0.01, 0.01, 0.01]));
        let output_stats = TensorStats::of([1.0, f32::NAN, f32::INFINITY]);
        t.record_layer_activation(LayerActivationTrace { output_stats, ..activation(0, 2) });
    });
    assert_eq!(
        broken,
        [
            (AnomalyRule::Nan, Severity::Error),
            (AnomalyRule::Infinite, Severity::Error),
            (AnomalyRule::AttentionSink, Severity::Note)
        ]
    );
}

#[test]
fn the_first_error_is_where_it_began() {
    let mut t = healthy();
    let nan = TensorStats::of([f32::NAN; 4]);
    t.record_layer_activation(LayerActivationTrace { post_ffn_stats: nan, output_stats: nan, ..activation(0, 2) });
    let next =
        LayerActivationTrace { input_stats: nan, post_norm_stats: nan, residual_ratio: None, ..activation(0, 3) };
    t.record_layer_activation(next);
    let places: Vec<String> = t.detect_anomalies().iter().map(Anomaly::location).collect();
    // The input of layer 3 is the output of layer 2, and is not said twice.
    assert_eq!(places, ["layer 2, FFN output, step 0", "layer 2, output, step 0", "layer 3, normed input, step 0"]);
}

#[test]
fn explosions_have_an_edge_on_both_sides() {
    let fires = |x: f32| {
        let rules = detected(|t| {
            let post_attn_stats = TensorStats::of([0.0, x]);
            t.record_layer_activation(LayerActivationTrace { post_attn_stats, ..activation(0, 2) });
        });
        rules == [(AnomalyRule::Explosion, Severity::Warning)]
    };
    for sign in [1.0, -1.0] {
        assert!(!fires(sign * 1e6));
        assert!(fires(sign * 1e6f32.next_up()));
    }
}

#[test]
fn tensors_without_differences_vanish() {
    let fires = |post_norm_stats: TensorStats| {
        detected(|t| t.record_layer_activation(LayerActivationTrace { post_norm_stats, ..activation(0, 2) }))
    };
    assert_eq!(fires(TensorStats::of([0.25; 8])), [(AnomalyRule::Vanishing, Severity::Warning)]);
    assert_eq!(fires(stats(9e-7)), [(AnomalyRule::Vanishing, Severity::Warning)]);
    assert_eq!(fires(stats(1e-5)), []);
}

#[test]
fn a_layer_that_adds_nothing_is_bypassed() {
    let fires = |ratio: f32| {
        detected(|t| {
            t.record_layer_activation(LayerActivationTrace { residual_ratio: Some(ratio), ..activation(0, 2) });
        })
    };
    assert_eq!(fires(0.99), []);
    assert_eq!(fires(0.9901), [(AnomalyRule::Bypass, Severity::Warning)]);
}

#[test]
fn heads_that_look_at_one_position_collapse() {
    let sharp = [0.001, 0.99, 0.008, 0.001];
    let even = [0.25; 4];
    let one = detected(|t| {
        t.record_attention(attention(2, 0, &sharp));
        t.record_attention(attention(2, 1, &even));
    });
    assert_eq!(one, [(AnomalyRule::AttentionCollapse, Severity::Note)], "one head may");
    let all = detected(|t| {
        t.record_attention(attention(2, 0, &sharp));
        t.record_attention(attention(2, 1, &sharp));
    });
    assert_eq!(all, [(AnomalyRule::AttentionCollapse, Severity::Warning)], "a whole layer does not");
    let short = detected(|t| t.record_attention(attention(2, 0, &[0.0, 1.0, 0.0])));
    assert_eq!(short, [], "three positions are not judged");
}

#[test]
fn all_weight_on_the_first_position_is_a_sink_and_no_collapse() {
    let rules = detected(|t| {
        t.record_attention(attention(2, 0, &[1.0, 0.0, 0.0, 0.0]));
        t.record_attention(attention(2, 1, &[1.0, 0.0, 0.0, 0.0]));
    });
    assert_eq!(rules, [(AnomalyRule::AttentionSink, Severity::Note)]);
    let mut t = healthy();
    t.record_attention(attention(2, 1, &[1.0, 0.0, 0.0, 0.0]));
    assert_eq!(
        t.detect_anomalies()[0].to_string(),
        "note: attention sink: layer 2, position 3, step 0: 1 of 1 heads (1) put more than 0.9 of their weight on position 0"
    );
}

#[test]
fn attention_and_logits_that_are_no_numbers() {
    let rules = detected(|t| t.record_attention(attention(2, 0, &[f64::NAN; 2])));
    assert_eq!(rules, [(AnomalyRule::Nan, Severity::Error)]);
    let nan = [f32::NAN; 4];
    let rules = detected(|t| {
        t.record_logit_evolution(LogitEvolutionTrace::new((0, 4), &[0], &[&nan], &nan, &[1]));
    });
    assert_eq!(rules, [(AnomalyRule::Nan, Severity::Error)]);
}

#[test]
fn ranks_that_jump_late_are_noted() {
    // Token 0 among 200: last for seven layers, then first.
    let last: Vec<f32> = (0..200).map(|i| i as f32).collect();
    let first: Vec<f32> = (0..200).map(|i| -(i as f32)).collect();
    let layers: Vec<u32> = (0..8).collect();
    let jump = |at: usize| {
        let lens: Vec<&[f32]> = (0..8).map(|l| if l < at { &last[..] } else { &first[..] }).collect();
        detected(|t| {
            t.record_logit_evolution(LogitEvolutionTrace::new((0, 4), &layers, &lens, &first, &[0]));
        })
    };
    assert_eq!(jump(7), [(AnomalyRule::LogitRankJump, Severity::Note)]);
    assert_eq!(jump(3), [], "early layers have not decided anything yet");
    // Token 199 leads until the last layer, and is not chosen.
    let lens: Vec<&[f32]> = (0..8).map(|l| if l < 7 { &last[..] } else { &first[..] }).collect();
    let mut t = healthy();
    t.record_logit_evolution(LogitEvolutionTrace::new((0, 4), &layers, &lens, &first, &[0, 199]));
    let found: Vec<String> = t.detect_anomalies().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "note: rank jump: layer 7, token 0 after position 4, step 0: jumps: rank 200 after layer 6, rank 1 after layer 7",
            "note: rank jump: layer 7, token 199 after position 4, step 0: led and is overtaken: rank 1 after layer 6, rank \
             200 after layer 7",
        ]
    );
}

#[test]
fn rounding_that_turns_a_vector_is_drift() {
    let with = |found: [f32; 2]| {
        let mut sums = ErrorSums::default();
        sums.add(&found, &[1.0, 0.0]);
        let bricks = vec![QuantizationErrorTrace::new("output".into(), None, "f".into(), &sums)];
        detected(|t| {
            t.record_quantization(ModelQuantizationError { bricks, ..quantization(QuantizationBasis::Weights) });
        })
    };
    assert_eq!(with([1.0, 0.1]), []);
    assert_eq!(with([1.0, 0.2]), [(AnomalyRule::QuantizationDrift, Severity::Warning)]);
    assert_eq!(with([f32::NAN, 0.0]), [(AnomalyRule::Nan, Severity::Error)]);
}

#[test]
fn a_cache_that_misses_most_of_the_time_thrashes() {
    let with = |rate: Option<f32>| detected(|t| t.record_kv_state(KvCacheStateTrace { hit_rate: rate, ..kv(2) }));
    assert_eq!(with(Some(0.49)), [(AnomalyRule::KvThrashing, Severity::Warning)]);
    assert_eq!(with(Some(0.5)), []);
    assert_eq!(with(None), []);
}

#[test]
fn what_is_not_traced_is_not_kept() {
    let t = filled(ModelTracerConfig::off());
    assert_eq!(t.traces(), &Traces::default());
    let t = filled(ModelTracerConfig { layers: Some(vec![1]), heads: Some(vec![0]), ..ModelTracerConfig::default() });
    let layers: Vec<u32> = t.traces().activation.iter().map(|a| a.layer_idx).collect();
    let heads: Vec<(u32, u32)> = t.traces().attention.iter().map(|a| (a.layer_idx, a.head_idx)).collect();
    assert_eq!((layers, heads), (vec![1], vec![(1, 0)]));
}

fn schema() -> jsonschema::Validator {
    jsonschema::validator_for(&serde_json::from_str::<Value>(ModelTracer::JSON_SCHEMA).unwrap()).unwrap()
}

/// A tracer with anomalies and with figures that are not there.
fn sick() -> ModelTracer {
    let mut t = healthy();
    let nan = TensorStats::of([f32::NAN; 3]);
    t.record_layer_activation(LayerActivationTrace { output_stats: nan, residual_ratio: None, ..activation(1, 0) });
    t.record_attention(attention(1, 0, &[f64::NAN; 2]));
    let logits = [f32::NAN; 4];
    t.record_logit_evolution(LogitEvolutionTrace::new((1, 4), &[0, 1], &[&logits, &logits], &logits, &[0]));
    t.record_quantization(quantization(QuantizationBasis::Weights));
    t.record_kv_state(KvCacheStateTrace { hit_rate: Some(0.25), ..kv(2) });
    t
}

#[test]
fn the_schema_accepts_every_trace() {
    let schema = schema();
    let empty = ModelTracer::new(ModelTracerConfig { layers: Some(vec![0]), ..ModelTracerConfig::off() });
    for t in [healthy(), sick(), empty] {
        let value: Value = serde_json::from_str(&t.export_json().unwrap()).unwrap();
        let errors: Vec<String> = schema.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }
}

#[test]
fn the_schema_refuses_what_is_no_trace() {
    type Break = fn(&mut Value);
    let schema = schema();
    let good: Value = serde_json::from_str(&sick().export_json().unwrap()).unwrap();
    let broken: [(&str, Break); 8] = [
        ("unknown key", |v| v["extra"] = json!(1)),
        ("missing key", |v| drop(v.as_object_mut().unwrap().remove("traces"))),
        ("other version", |v| v["schema"] = json!("brick.trace/2")),
        ("negative count", |v| v["traces"]["activation"][0]["input_stats"]["nan_count"] = json!(-1)),
        ("share above 1", |v| v["traces"]["activation"][0]["residual_ratio"] = json!(1.5)),
        ("unknown rule", |v| v["anomalies"][0]["rule"] = json!("odd")),
        ("cosine above 1", |v| v["traces"]["quant"][0]["bricks"][0]["cosine_similarity"] = json!(1.01)),
        ("rank 0", |v| v["traces"]["logit"][0]["tracked_tokens"][0]["per_layer_ranks"][0] = json!(0)),
    ];
    for (what, f) in broken {
        let mut value = good.clone();
        f(&mut value);
        assert!(!schema.is_valid(&value), "{what}");
    }
}

#[test]
fn json_comes_back_as_it_was() {
    for t in [healthy(), sick()] {
        let text = t.export_json().unwrap();
        let back = ModelTracer::import_json("t.json", &text).unwrap();
        assert_eq!(back, t);
        assert_eq!(back.export_json().unwrap(), text);
        assert_eq!(back.detect_anomalies(), t.detect_anomalies());
    }
}

#[test]
fn other_json_is_refused_with_file_and_line() {
    let good = healthy().export_json().unwrap();
    let error = |text: &str| ModelTracer::import_json("t.json", text).unwrap_err();
    assert!(matches!(error("{\n  x"), TraceError::Json { line: 2, .. }));
    assert!(error("{}").to_string().contains("t.json: expected schema \"brick.trace/1\", found none"));
    assert!(matches!(error(&good.replacen("trace/1", "trace/7", 1)), TraceError::Schema { .. }));
    let extra = good.replacen("\"run\": {", "\"run\": {\n\"speed\": 1,", 1);
    let message = error(&extra).to_string();
    assert!(message.starts_with("t.json, line ") && message.contains("unknown field `speed`"), "{message}");
}

#[test]
fn text_of_a_healthy_trace() {
    insta::assert_snapshot!(healthy().to_text(Style::PLAIN));
}

#[test]
fn text_of_a_sick_trace_of_one_layer_in_ascii() {
    let mut t = filled(ModelTracerConfig { layers: Some(vec![1]), ..ModelTracerConfig::default() });
    let nan = TensorStats::of([f32::NAN, 1.0]);
    t.record_layer_activation(LayerActivationTrace { output_stats: nan, residual_ratio: None, ..activation(1, 1) });
    t.record_quantization(quantization(QuantizationBasis::Weights));
    let text = t.to_text(Style::ASCII);
    assert!(text.is_ascii(), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn text_of_symptoms() {
    insta::assert_snapshot!(symptoms_text(Style::PLAIN));
    // The table speaks of every rule by its name, or of what it is called there.
    let text = symptoms_text(Style::PLAIN);
    for rule in AnomalyRule::ALL {
        assert!(text.contains(&format!("`{}`", rule.name())), "{}", rule.name());
    }
}

#[test]
fn colours_only_when_asked_for_and_hostile_text_stays_on_its_line() {
    let mut t = sick();
    t.run.model = "x\u{1b}]0;owned\u{7}\ny".into();
    t.run.tokens[0].text = "\u{1b}[2J\n".into();
    let text = t.to_text(Style::PLAIN);
    assert!(!text.contains('\u{1b}') && !text.contains("\ny"), "{text}");
    assert!(t.to_text(Style::COLOR).contains("\u{1b}[31m"));
    assert_eq!(t.to_string(), text);
    assert_eq!(logits().decisive_layer, Some(2));
}
