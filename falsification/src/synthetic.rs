//! Tiny models with seeded random weights, and what an independent forward pass in f64 says about them.
//!
//! Files and figures come from `falsification/reference/synthetic.py`, which shares nothing with brick.

use std::sync::Arc;

use brick_models::format::gguf::{Gguf, GgufWriter, TensorInfo};
use brick_runtime::Model;
use bricks::{DType, quant};
use serde::Deserialize;

use crate::claim::{Outcome, Refusal};

macro_rules! files {
    ($($name:literal),*) => {
        /// Name, GGUF file, figures.
        const FILES: &[(&str, &[u8], &str)] = &[$((
            $name,
            include_bytes!(concat!("../reference/synthetic/", $name, ".gguf")),
            include_str!(concat!("../reference/synthetic/", $name, ".json")),
        )),*];

        /// Names of all synthetic models.
        pub const NAMES: &[&str] = &[$($name),*];
    };
}

files!("qwen2-tiny", "qwen2-partial", "spm-tiny", "spm-linear", "spm-llama3", "spm-yarn");

/// A synthetic model and its figures.
#[derive(Debug)]
pub struct Synthetic {
    /// Its name.
    pub name: &'static str,
    /// The bytes of its file.
    pub file: &'static [u8],
    /// What the independent forward pass says.
    pub golden: Golden,
    /// The model as brick loads it.
    pub model: Model,
}

/// Figures of the independent forward pass.
#[derive(Debug, Clone, Deserialize)]
pub struct Golden {
    /// Where they come from.
    pub provenance: Provenance,
    /// Texts and their ids, special tokens parsed.
    pub tokenize: Vec<Tokenized>,
    /// The prompt.
    pub prompt: String,
    /// Its ids.
    pub prompt_ids: Vec<u32>,
    /// The most likely continuation.
    pub greedy_ids: Vec<u32>,
    /// By how much each of its tokens beats the second best logit.
    pub greedy_margins: Vec<f64>,
    /// What the feed-forward network of layer 0 adds to the stream at the first positions.
    pub ffn_out_0: Vec<Vec<f32>>,
    /// Logits at every position of prompt and continuation.
    pub logits: Vec<Vec<f64>>,
}

/// Where figures come from.
#[derive(Debug, Clone, Deserialize)]
pub struct Provenance {
    /// Hash of the model file they belong to.
    pub file_sha256: String,
    /// Sizes of the model.
    pub spec: serde_json::Value,
}

/// A text and its ids.
#[derive(Debug, Clone, Deserialize)]
pub struct Tokenized {
    /// The text.
    pub text: String,
    /// The ids.
    pub ids: Vec<u32>,
}

impl Golden {
    /// Prompt and continuation.
    pub fn ids(&self) -> Vec<u32> {
        [self.prompt_ids.as_slice(), &self.greedy_ids].concat()
    }

    /// Standard deviation of all logits.
    pub fn deviation(&self) -> f64 {
        let n = self.logits.iter().map(Vec::len).sum::<usize>().max(1) as f64;
        let mean = self.logits.iter().flatten().sum::<f64>() / n;
        (self.logits.iter().flatten().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n).sqrt()
    }

    /// How far logits, one row per position, are from these.
    ///
    /// # Errors
    /// Falsified if they have another shape.
    pub fn compare(&self, logits: &[Vec<f32>]) -> Result<LogitError, Refusal> {
        let shape = |rows: usize, width: Option<usize>| format!("{rows} rows of {} logits", width.unwrap_or(0));
        let expected = shape(self.logits.len(), self.logits.first().map(Vec::len));
        if logits.len() != self.logits.len() || logits.iter().zip(&self.logits).any(|(a, b)| a.len() != b.len()) {
            return Err(Refusal::falsified(expected, shape(logits.len(), logits.first().map(Vec::len))));
        }
        let (mut squares, mut largest, mut n) = (0.0, 0.0f64, 0usize);
        for (found, expected) in logits.iter().zip(&self.logits) {
            for (&f, &e) in found.iter().zip(expected) {
                let d = (f64::from(f) - e).abs();
                let d = if d.is_nan() { f64::INFINITY } else { d };
                squares += d * d;
                largest = largest.max(d);
                n += 1;
            }
        }
        let deviation = self.deviation();
        Ok(LogitError { mean: (squares / n.max(1) as f64).sqrt() / deviation, largest: largest / deviation })
    }
}

/// Differences of logits in units of the standard deviation of all logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitError {
    /// Root mean square.
    pub mean: f64,
    /// Largest absolute value.
    pub largest: f64,
}

impl std::fmt::Display for LogitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rms {:.1e}, largest {:.1e} deviations", self.mean, self.largest)
    }
}

impl Synthetic {
    /// Loads a synthetic model.
    ///
    /// # Errors
    /// Falsified if the model is unknown or cannot be loaded.
    pub fn load(name: &str) -> Result<Self, Refusal> {
        let unknown = || Refusal::falsified(format!("one of {NAMES:?}"), name);
        let (name, file, golden) = FILES.iter().find(|(n, ..)| *n == name).copied().ok_or_else(unknown)?;
        let model = Model::from_gguf(Arc::new(Gguf::from_bytes(file)?))?;
        Ok(Self { name, file, golden: serde_json::from_str(golden)?, model })
    }

    /// The file, opened anew.
    ///
    /// # Errors
    /// Falsified if it cannot be read.
    pub fn gguf(&self) -> Result<Gguf, Refusal> {
        Ok(Gguf::from_bytes(self.file)?)
    }

    /// The same model with exactly the same weights, all in F32.
    ///
    /// # Errors
    /// Falsified if it cannot be made or loaded.
    pub fn widened(&self) -> Result<Model, Refusal> {
        let gguf = self.gguf()?;
        let mut w = copy(&gguf, |_| true)?;
        for t in gguf.tensors() {
            let shape = t.shape()?;
            let mut values = vec![0.0; shape.rows * shape.cols];
            let data = gguf.bytes(t)?;
            for (src, dst) in data.chunks(data.len() / shape.rows).zip(values.chunks_mut(shape.cols)) {
                quant::decode_row(shape.dtype, src, dst)?;
            }
            w.remove_tensor(&t.name);
            w.tensor_f32(&t.name, &t.dims, &values);
        }
        load(&w)
    }

    /// What loading a changed copy of the file comes to: the model, or the reason why not.
    ///
    /// # Errors
    /// Falsified if the copy cannot be written.
    pub fn changed(&self, change: impl FnOnce(&mut GgufWriter<'_>)) -> Result<Result<Model, String>, Refusal> {
        let gguf = self.gguf()?;
        let mut w = copy(&gguf, |_| true)?;
        change(&mut w);
        let bytes = w.to_bytes()?;
        let load = || {
            Model::from_gguf(Arc::new(Gguf::from_bytes(bytes).map_err(|e| e.to_string())?)).map_err(|e| e.to_string())
        };
        Ok(load())
    }

    /// The claim that a changed copy does not load, and that the message says why.
    ///
    /// # Errors
    /// Falsified if it loads, or the message lacks one of `parts`.
    pub fn refuses(&self, what: &str, parts: &[&str], change: impl FnOnce(&mut GgufWriter<'_>)) -> Outcome {
        match self.changed(change)? {
            Ok(_) => Err(Refusal::falsified(format!("{what}: a refusal"), "a model that loads")),
            Err(message) => match parts.iter().find(|p| !message.contains(**p)) {
                Some(part) => Err(Refusal::falsified(format!("{what}: {part:?} in the message"), message)),
                None => Ok(message),
            },
        }
    }
}

/// A writer with the metadata of a file, and those of its tensors that are wanted.
///
/// # Errors
/// Falsified if a tensor cannot be read.
pub fn copy(gguf: &Gguf, wanted: impl Fn(&TensorInfo) -> bool) -> Result<GgufWriter<'_>, Refusal> {
    let mut w = GgufWriter::new();
    for (key, value) in gguf.metadata().iter() {
        w.set(key, value);
    }
    for t in gguf.tensors().iter().filter(|t| wanted(t)) {
        let dtype: DType = t.shape()?.dtype;
        w.tensor(&t.name, &t.dims, dtype, gguf.bytes(t)?);
    }
    Ok(w)
}

/// Loads what a writer holds.
///
/// # Errors
/// Falsified if it cannot be written or loaded.
pub fn load(w: &GgufWriter<'_>) -> Result<Model, Refusal> {
    Ok(Model::from_gguf(Arc::new(Gguf::from_bytes(w.to_bytes()?)?))?)
}
