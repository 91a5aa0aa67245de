//! What values a forward call computed: activations, attention weights, logits layer by layer, rounding errors, KV cache.
//!
//! A [`ModelTracer`] is filled by whoever runs a model (in brick: `brick_runtime::trace`), exported as JSON
//! (`docs/schema/trace.schema.json`), and looked through for [`Anomaly`] patterns. Nothing here is called when nothing is traced.
//!
//! **Non-finite values.** NaN and infinities are counted and left out of every mean, deviation, extreme and error; a figure of
//! which no finite value is left is `None` (`null` in JSON), never 0.
//!
//! ```
//! use brick_profiler::trace::{KvCacheStateTrace, LayerActivationTrace, ModelTracer, ModelTracerConfig, TensorStats};
//!
//! let mut tracer = ModelTracer::new(ModelTracerConfig::default());
//! let healthy = TensorStats::of([0.5, -1.0, 0.25]);
//! let broken = TensorStats::of([0.5, f32::NAN, 0.25]);
//! tracer.record_layer_activation(LayerActivationTrace {
//!     step: 0,
//!     layer_idx: 3,
//!     rows: 1,
//!     input_stats: healthy,
//!     post_norm_stats: healthy,
//!     post_attn_stats: healthy,
//!     post_ffn_stats: broken,
//!     output_stats: broken,
//!     residual_ratio: None,
//! });
//! let anomalies = tracer.detect_anomalies();
//! assert_eq!(anomalies[0].to_string(), "error: not a number: layer 3, FFN output, step 0: 1 of 3 values is NaN");
//! ```
//!
//! | module | content |
//! | --- | --- |
//! | `stats` | [`TensorStats`] in one pass |
//! | `activation` | [`LayerActivationTrace`], the residual ratio |
//! | `attention` | [`AttentionWeightTrace`], entropy |
//! | `logits` | [`LogitEvolutionTrace`], ranks, probabilities |
//! | `quant` | [`QuantizationErrorTrace`]: MSE, cosine, SNR |
//! | `kv` | [`KvCacheStateTrace`] |
//! | `tracer` | [`ModelTracer`], JSON |
//! | `anomaly` | rules, thresholds, severities (`docs/adr/0017-tracing-rules.md`) |
//! | `symptoms` | what a pattern means and where to look |
//! | `report` | all of it as tables |

mod activation;
mod anomaly;
mod attention;
mod kv;
mod logits;
mod quant;
mod report;
mod stats;
mod symptoms;
#[cfg(test)]
pub(crate) mod testing;
mod tracer;

#[cfg(test)]
mod tests;

pub use activation::{LayerActivationTrace, residual_ratio};
pub use anomaly::{Anomaly, AnomalyRule, Severity, thresholds};
pub use attention::{AttentionWeightTrace, entropy};
pub use kv::{KvCacheStateTrace, hit_rate};
pub use logits::{LogitEvolutionTrace, TokenLogitEvolution, probability, rank};
pub use quant::{ErrorSums, ModelQuantizationError, QuantizationBasis, QuantizationErrorTrace};
pub use stats::{StatsAccumulator, TensorStats};
pub use symptoms::{SYMPTOMS, Symptom, symptoms_text};
pub use tracer::{ModelTracer, ModelTracerConfig, TraceError, TraceRun, TracedToken, Traces};
