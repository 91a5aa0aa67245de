//! Models with made-up weights run like others: finite, and their logits depend on the prompt.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use brick_models::synthetic::{Synthetic, Types};
use brick_runtime::{Batch, EngineOptions, Model};

fn model(name: &str) -> Model {
    let synthetic: Synthetic = name.parse().unwrap();
    synthetic.check_memory().unwrap();
    Model::from_gguf(Arc::new(synthetic.gguf().unwrap())).unwrap()
}

/// Logits of the last of these tokens.
fn logits(model: &Model, threads: usize, tokens: &[u32]) -> Vec<f32> {
    let mut engine = model.engine(&EngineOptions { threads, context: 64, max_rows: 64, ..Default::default() }).unwrap();
    let sequence = engine.new_sequence().unwrap();
    let mut batch = Batch::default();
    batch.push_tokens(sequence, 0, tokens);
    engine.forward_quiet(&batch).unwrap();
    engine.logits().row(0).to_vec()
}

/// In nats.
fn entropy(logits: &[f32]) -> f64 {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let weights: Vec<f64> = logits.iter().map(|x| f64::from(x - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum()
}

#[test]
fn logits_are_finite_different_and_neither_flat_nor_certain() {
    for name in Types::all().map(Types::name) {
        let model = model(&format!("tiny:{name}"));
        let (a, b) = ([1, 2, 3, 4, 5, 6, 7, 8], [300, 2, 40, 4, 77, 6, 9, 500]);
        let (first, second) = (logits(&model, 2, &a), logits(&model, 1, &b));
        for row in [&first, &second] {
            assert!(row.iter().all(|x| x.is_finite()), "{name}");
            let entropy = entropy(row);
            // Even would be ln 512 = 6.24; of a normal distribution with deviation 1, half less.
            assert!((4.5..6.2).contains(&entropy), "{name}: {entropy}");
        }
        let difference = first.iter().zip(&second).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>() / 512.0;
        assert!(difference.sqrt() > 0.3, "{name}: {}", difference.sqrt());
        // Threads make nothing different, neither of the weights nor of the call.
        assert_eq!(logits(&model, 1, &a), first, "{name}");
    }
}

#[test]
fn deep_models_stay_finite() {
    let model = model("smollm2-135m:q4_k_m");
    let row = logits(&model, 2, &[5, 400, 30_000]);
    assert!(row.iter().all(|x| x.is_finite()));
    let entropy = entropy(&row);
    assert!((8.0..10.8).contains(&entropy), "{entropy}");
}

#[test]
fn weights_are_those_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    "tiny:q4_k_m".parse::<Synthetic>().unwrap().write_file(&path).unwrap();
    let tokens = [9, 8, 7];
    assert_eq!(logits(&Model::load(path).unwrap(), 2, &tokens), logits(&model("tiny:q4_k_m"), 2, &tokens));
}
