//! What collects traces, and its JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Anomaly, AttentionWeightTrace, KvCacheStateTrace, LayerActivationTrace, LogitEvolutionTrace,
    ModelQuantizationError, anomaly,
};
use crate::report::Style;

/// What is traced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own
pub struct ModelTracerConfig {
    /// Activations of layers.
    pub activation: bool,
    /// Attention weights.
    pub attention: bool,
    /// The logit lens.
    pub logit: bool,
    /// Rounding errors.
    pub quant: bool,
    /// State of the KV cache.
    pub kv: bool,
    /// Layers that are traced; `None` is all.
    pub layers: Option<Vec<u32>>,
    /// Query heads that are traced; `None` is all.
    pub heads: Option<Vec<u32>>,
    /// Positions that are kept of each attention row.
    pub top_k: usize,
    /// Tokens that the logit lens follows at each position, the chosen one included.
    pub tracked: usize,
}

impl Default for ModelTracerConfig {
    fn default() -> Self {
        Self {
            activation: true,
            attention: true,
            logit: true,
            quant: true,
            kv: true,
            layers: None,
            heads: None,
            top_k: 5,
            tracked: 3,
        }
    }
}

impl ModelTracerConfig {
    /// Traces nothing.
    pub fn off() -> Self {
        Self { activation: false, attention: false, logit: false, quant: false, kv: false, ..Self::default() }
    }

    /// Whether a layer is traced.
    pub fn has_layer(&self, layer: u32) -> bool {
        self.layers.as_ref().is_none_or(|l| l.contains(&layer))
    }

    /// Whether a query head is traced.
    pub fn has_head(&self, head: u32) -> bool {
        self.heads.as_ref().is_none_or(|h| h.contains(&head))
    }
}

/// What ran.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRun {
    /// Name of the model.
    pub model: String,
    /// Its architecture.
    pub architecture: Option<String>,
    /// Its storage types.
    pub quantization: Option<String>,
    /// Backend, e.g. `cpu avx512`.
    pub backend: String,
    /// Threads.
    pub threads: usize,
    /// Type of the KV cache.
    pub kv_type: String,
    /// Positions of the context.
    pub context: usize,
    /// Layers of the model.
    pub layers: u32,
    /// Positions that are prompt; the rest was generated.
    pub prompt_tokens: usize,
    /// Prompt and answer, by position. Whoever feeds these to an engine of this model, cache type and context has the KV cache
    /// of the run again.
    pub tokens: Vec<TracedToken>,
    /// Why it ended.
    pub finish: String,
}

/// A token at its position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracedToken {
    /// Id.
    pub id: u32,
    /// Its text; bytes that are no text by themselves are replaced.
    pub text: String,
}

/// The traces, one list per kind, each in the order of recording.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// Activations.
    pub activation: Vec<LayerActivationTrace>,
    /// Attention.
    pub attention: Vec<AttentionWeightTrace>,
    /// Logit lens.
    pub logit: Vec<LogitEvolutionTrace>,
    /// Rounding errors.
    pub quant: Vec<ModelQuantizationError>,
    /// KV cache.
    pub kv: Vec<KvCacheStateTrace>,
}

/// Collects traces.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelTracer {
    config: ModelTracerConfig,
    /// What ran, for reports.
    pub run: TraceRun,
    traces: Traces,
}

/// The documented JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<S, R, C, T> {
    schema: S,
    run: R,
    config: C,
    traces: T,
    /// Computed from the traces when written; not read back.
    anomalies: Vec<Anomaly>,
}

/// A text is not a trace this version can read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Not JSON, or JSON of another shape.
    #[error("{file}, line {line}, column {column}: expected a trace (docs/schema/trace.schema.json), found {found}")]
    Json {
        /// Name of the file.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1.
        column: usize,
        /// What is wrong.
        found: String,
    },
    /// Another document, or a trace of another version.
    #[error("{file}: expected schema {expected:?}, found {found}")]
    Schema {
        /// Name of the file.
        file: String,
        /// [`ModelTracer::SCHEMA`].
        expected: &'static str,
        /// What the file says.
        found: String,
    },
}

impl ModelTracer {
    /// Name and version of the JSON document.
    pub const SCHEMA: &'static str = "brick.trace/1";

    /// The JSON Schema of the document.
    pub const JSON_SCHEMA: &'static str = include_str!("../../../docs/schema/trace.schema.json");

    /// An empty tracer.
    pub fn new(config: ModelTracerConfig) -> Self {
        Self { config, run: TraceRun::default(), traces: Traces::default() }
    }

    /// What is traced.
    pub fn config(&self) -> &ModelTracerConfig {
        &self.config
    }

    /// What was recorded.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Takes the activations of a layer, if they are traced.
    pub fn record_layer_activation(&mut self, trace: LayerActivationTrace) {
        if self.config.activation && self.config.has_layer(trace.layer_idx) {
            self.traces.activation.push(trace);
        }
    }

    /// Takes the attention weights of a head, if they are traced.
    pub fn record_attention(&mut self, trace: AttentionWeightTrace) {
        if self.config.attention && self.config.has_layer(trace.layer_idx) && self.config.has_head(trace.head_idx) {
            self.traces.attention.push(trace);
        }
    }

    /// Takes the logit lens of a position, if it is traced.
    pub fn record_logit_evolution(&mut self, trace: LogitEvolutionTrace) {
        if self.config.logit {
            self.traces.logit.push(trace);
        }
    }

    /// Takes rounding errors, if they are traced.
    pub fn record_quantization(&mut self, trace: ModelQuantizationError) {
        if self.config.quant {
            self.traces.quant.push(trace);
        }
    }

    /// Takes the state of the KV cache, if it is traced.
    pub fn record_kv_state(&mut self, trace: KvCacheStateTrace) {
        if self.config.kv {
            self.traces.kv.push(trace);
        }
    }

    /// Patterns that should not be there, and patterns worth knowing: errors first, then warnings, then notes; each in order
    /// of appearance.
    pub fn detect_anomalies(&self) -> Vec<Anomaly> {
        anomaly::detect(&self.traces)
    }

    /// The documented JSON, indented.
    ///
    /// # Errors
    /// Never with a tracer filled by brick: all figures are finite or absent.
    pub fn export_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&Document {
            schema: Self::SCHEMA,
            run: &self.run,
            config: &self.config,
            traces: &self.traces,
            anomalies: self.detect_anomalies(),
        })
    }

    /// Reads what [`export_json`](Self::export_json) wrote; `file` is its name in errors.
    ///
    /// # Errors
    /// [`TraceError`].
    pub fn import_json(file: &str, text: &str) -> Result<Self, TraceError> {
        let error = |e: &serde_json::Error| TraceError::Json {
            file: file.to_owned(),
            line: e.line(),
            column: e.column(),
            found: e.to_string(),
        };
        // The version first: another version may have other fields.
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| error(&e))?;
        let schema = value.get("schema");
        if schema.and_then(serde_json::Value::as_str) != Some(Self::SCHEMA) {
            let found = schema.map_or_else(|| "none".to_owned(), ToString::to_string);
            return Err(TraceError::Schema { file: file.to_owned(), expected: Self::SCHEMA, found });
        }
        let document: Document<String, TraceRun, ModelTracerConfig, Traces> =
            serde_json::from_str(text).map_err(|e| error(&e))?;
        let Document { run, config, traces, .. } = document;
        Ok(Self { config, run, traces })
    }
}

impl fmt::Display for ModelTracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text(Style::PLAIN))
    }
}
