//! Tiny synthetic models for the runtime's tests.

#![allow(dead_code)] // each test binary uses a part
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use brick_runtime::{Engine, EngineOptions, Model};

/// Models with every weight type, both tokenizers, both rotary pairings (see `falsification/reference/synthetic.py`).
pub(crate) const MODELS: [&str; 6] =
    ["qwen2-tiny", "qwen2-partial", "spm-tiny", "spm-linear", "spm-llama3", "spm-yarn"];

pub(crate) fn model(name: &str) -> Model {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../falsification/reference/synthetic");
    Model::load(path.join(format!("{name}.gguf"))).unwrap()
}

pub(crate) fn options() -> EngineOptions {
    EngineOptions { threads: 2, context: 160, sequences: 4, max_rows: 64, max_wanted: 64, ..EngineOptions::default() }
}

pub(crate) fn engine(model: &Model, options: &EngineOptions) -> Engine {
    model.engine(options).unwrap()
}

/// Tokens without meaning, different for every seed.
pub(crate) fn tokens(n: usize, vocab: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| (((i + seed * 31) * 7919 + 13 + seed) % vocab) as u32).collect()
}
