//! Tracing the values of forward calls: what a [`ModelTracer`] is filled with.
//!
//! [`trace`] continues a prompt greedily, as `brick run` does at temperature 0, and looks at the buffers between the steps through
//! the [`Observer`](crate::engine::Observer) of the engine. Nothing is changed by looking: tokens and logits are, bit by bit, those
//! of a run without a trace; without a trace the observer is not compiled in.
//!
//! | what | when | how |
//! | --- | --- | --- |
//! | activations | every call, all rows | five values of each layer, found in the plan through the graph |
//! | attention | rows whose logits are wanted | softmax over the keys in the cache, in plain code |
//! | logit lens | the same | residual stream through final norm and LM head in reference arithmetic, after the run |
//! | rounding | the prompt's last call, its last 4 rows | bricks against the f32 reference on the same input; or weights against a file |
//! | KV cache | after every call | its own count |
//!
//! | module | content |
//! | --- | --- |
//! | `wiring` | where in a plan the values of a layer are |
//! | `tap` | the observer |
//! | `attention` | attention weights of one head |
//! | `lens` | the logit lens |
//! | `quant` | rounding errors |

mod attention;
mod lens;
mod quant;
mod tap;
mod wiring;

use std::sync::atomic::{AtomicBool, Ordering};

use brick_models::format::gguf::Gguf;
use brick_profiler::NoRecord;
use brick_profiler::trace::{
    KvCacheStateTrace, ModelQuantizationError, ModelTracer, ModelTracerConfig, TraceRun, TracedToken,
};
use bricks::BrickError;

pub use attention::{HeadWeights, head_weights};
pub use quant::weight_errors;

use crate::batch::{Batch, Row};
use crate::engine::{Engine, EngineError, EngineOptions};
use crate::kv::{BLOCK, KvError, SequenceId};
use crate::model::Model;
use crate::sampler::{Sampler, SamplerError, SamplerOptions};
use lens::{Lens, Seen};
use quant::ArithmeticError;
use tap::Tap;
use wiring::Wiring;

/// What is traced, and how the model is run.
#[derive(Debug, Clone)]
pub struct TraceOptions<'a> {
    /// The engine. One sequence is used; values are kept where the trace needs it.
    pub engine: EngineOptions,
    /// What is traced.
    pub tracer: ModelTracerConfig,
    /// Tokens to generate at most.
    pub tokens: usize,
    /// Another file of the same model and its name: rounding errors are then those of the weights.
    pub against: Option<(&'a Gguf, &'a str)>,
}

/// A trace could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The KV cache refused.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The sampler refused.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// Nothing to run.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt has no room.
    #[error("the prompt has {tokens} tokens, the context holds {context}: use a shorter prompt or a larger --ctx")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Positions of the context.
        context: usize,
    },
    /// A layer or head that the model lacks.
    #[error("there is no {what} {found}: expected 0 to {last}")]
    NoSuch {
        /// `layer` or `head`.
        what: &'static str,
        /// What was asked for.
        found: u32,
        /// The last one there is.
        last: usize,
    },
    /// A graph of another form than that of a decoder.
    #[error("layer {layer}: expected {expected}, found none: this graph cannot be traced")]
    Graph {
        /// The layer.
        layer: u32,
        /// What was looked for.
        expected: &'static str,
    },
    /// The reference refused: shapes that do not fit, a bug in the plan.
    #[error("{brick}: the reference cannot be computed: {source}")]
    Reference {
        /// The brick or tensor.
        brick: String,
        /// Why not.
        source: Box<BrickError>,
    },
    /// The file to compare with is not one of the same model.
    #[error("{file}: tensor {tensor}: expected {expected}, found {found}: it is no file of the same model")]
    OtherModel {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What the traced model has.
        expected: String,
        /// What the file has.
        found: String,
    },
}

/// Continues `prompt` greedily and traces it. `cancel` is looked at between calls; what was traced until then is returned.
///
/// Logits that are not numbers end the run, and are no error: the trace shows where they came from.
///
/// # Errors
/// [`TraceError`].
pub fn trace(
    model: &Model,
    prompt: &[u32],
    options: &TraceOptions<'_>,
    cancel: &AtomicBool,
) -> Result<ModelTracer, TraceError> {
    trace_with(model, prompt, options, cancel, &mut |_| ())
}

/// [`trace`], which hands the engine's own logits to `on_logits`, each time a token is chosen from them.
///
/// # Errors
/// [`TraceError`].
pub fn trace_with(
    model: &Model,
    prompt: &[u32],
    options: &TraceOptions<'_>,
    cancel: &AtomicBool,
    on_logits: &mut dyn FnMut(&[f32]),
) -> Result<ModelTracer, TraceError> {
    let config = &options.tracer;
    let context = options.engine.context;
    if prompt.is_empty() {
        return Err(TraceError::EmptyPrompt);
    }
    if prompt.len() > context {
        return Err(TraceError::PromptTooLong { tokens: prompt.len(), context });
    }
    for (what, asked, n) in
        [("layer", &config.layers, model.spec.n_layers), ("head", &config.heads, model.spec.n_heads)]
    {
        if let Some(&found) = asked.iter().flatten().find(|&&i| i as usize >= n) {
            return Err(TraceError::NoSuch { what, found, last: n.saturating_sub(1) });
        }
    }
    // Before anything runs: the file may be one of another model.
    let weights = match options.against.filter(|_| config.quant) {
        Some(other) => Some(weight_errors(&model.fused, &*model.weights(), other, config)?),
        None => None,
    };
    let arithmetic = config.quant && weights.is_none();
    let engine = model.engine(&EngineOptions {
        sequences: 1,
        max_rows: options.engine.max_rows.clamp(1, prompt.len()),
        max_wanted: 1,
        keep_values: arithmetic || options.engine.keep_values,
        ..options.engine
    })?;
    let mut run = Run::new(model, engine, config)?;
    if arithmetic {
        run.quant = Some(ArithmeticError::new(&model.fused, run.engine.plan()?, config));
    }
    let finish = run.generate(prompt, options.tokens, cancel, on_logits)?;
    run.finish(prompt, weights, finish)
}

/// A run that is being traced.
struct Run<'m> {
    model: &'m Model,
    engine: Engine,
    sequence: SequenceId,
    wiring: Wiring,
    tracer: ModelTracer,
    batch: Batch,
    /// Layers of the logit lens: the traced ones and the last, whose logits are the model's own.
    lens_layers: Vec<u32>,
    /// Keys in the cache, as the tap has decoded them.
    keys: Vec<Vec<f32>>,
    /// Forward calls so far.
    step: usize,
    quant: Option<ArithmeticError>,
    seen: Vec<Seen>,
    generated: Vec<u32>,
}

impl<'m> Run<'m> {
    fn new(model: &'m Model, mut engine: Engine, config: &ModelTracerConfig) -> Result<Self, TraceError> {
        let wiring = Wiring::new(&model.fused, engine.plan()?)?;
        let last = wiring.layers.saturating_sub(1);
        let lens_layers = if config.logit {
            (0..wiring.layers).filter(|&l| l == last || config.has_layer(l)).collect()
        } else {
            vec![]
        };
        let sequence = engine.new_sequence()?;
        let batch = Batch::with_capacity(engine.max_rows());
        Ok(Self {
            model,
            engine,
            sequence,
            wiring,
            tracer: ModelTracer::new(config.clone()),
            batch,
            lens_layers,
            keys: Vec::new(),
            step: 0,
            quant: None,
            seen: Vec::new(),
            generated: Vec::new(),
        })
    }

    /// Prompt and answer; why it ended.
    fn generate(
        &mut self,
        prompt: &[u32],
        tokens: usize,
        cancel: &AtomicBool,
        on_logits: &mut dyn FnMut(&[f32]),
    ) -> Result<String, TraceError> {
        let context = self.engine.kv().context();
        let chunk = self.engine.max_rows();
        let mut position = 0;
        for rows in prompt.chunks(chunk) {
            self.batch.clear();
            for &token in rows {
                let wanted = position + 1 == prompt.len();
                self.batch.push(Row { token, position, sequence: self.sequence, wanted });
                position += 1;
            }
            self.forward(position == prompt.len())?;
            if cancel.load(Ordering::Relaxed) {
                return Ok("interrupted".into());
            }
        }
        let mut sampler = Sampler::new(SamplerOptions::default(), self.engine.vocab())?;
        loop {
            if self.generated.len() >= tokens {
                return Ok("as many tokens as asked for".into());
            }
            let own = self.engine.logits().last().unwrap_or_default();
            on_logits(own);
            let token = match sampler.sample(own, &[]) {
                Ok(token) => token,
                Err(SamplerError::NotFinite { token }) => {
                    self.see(position - 1, token as u32);
                    return Ok(format!("the logit of token {token} is not a number"));
                }
                Err(e) => return Err(e.into()),
            };
            self.see(position - 1, token);
            self.generated.push(token);
            if self.model.tokenizer.is_end_of_generation(token) {
                return Ok("end of text".into());
            }
            if self.generated.len() >= tokens {
                continue;
            }
            if cancel.load(Ordering::Relaxed) {
                return Ok("interrupted".into());
            }
            if position >= context {
                return Ok(format!("the context of {context} positions is full"));
            }
            self.batch.clear();
            self.batch.push(Row { token, position, sequence: self.sequence, wanted: true });
            position += 1;
            self.forward(false)?;
        }
    }

    /// One forward call under observation. Rounding errors are measured in one of them.
    fn forward(&mut self, measure: bool) -> Result<(), TraceError> {
        let quant = self.quant.as_mut().filter(|_| measure);
        let (lens, keys) = (&self.lens_layers, &mut self.keys);
        let mut tap = Tap::new(&self.wiring, &mut self.tracer, self.step, lens, keys, quant);
        self.engine.forward_observed(&self.batch, &mut NoRecord, &mut tap)?;
        let Tap { residuals, error, .. } = tap;
        if let Some(e) = error {
            return Err(e);
        }
        if !residuals.is_empty() {
            // The token follows when it is chosen.
            self.seen.push(Seen { step: self.step, position: 0, residuals, own: Vec::new(), token: 0 });
        }
        let kv = self.engine.kv();
        let (blocks_in_use, blocks) = kv.usage();
        self.tracer.record_kv_state(KvCacheStateTrace {
            step: self.step,
            cache_size_tokens: kv.len(self.sequence)?,
            capacity_tokens: kv.context(),
            blocks_in_use,
            blocks,
            bytes_in_use: (blocks_in_use * BLOCK * kv.shape().bytes_per_position()) as u64,
            evictions_this_step: 0,
            total_evictions: 0,
            hit_rate: None,
        });
        self.step += 1;
        Ok(())
    }

    /// Notes what was chosen after `position`.
    fn see(&mut self, position: usize, token: u32) {
        let own = self.engine.logits().last().unwrap_or_default();
        if let Some(seen) = self.seen.last_mut() {
            (seen.position, seen.token) = (position, token);
            seen.own = own.to_vec();
        }
    }

    /// What can be computed after the run.
    fn finish(
        self,
        prompt: &[u32],
        weights: Option<ModelQuantizationError>,
        finish: String,
    ) -> Result<ModelTracer, TraceError> {
        let Self { model, engine, mut tracer, lens_layers, quant, mut seen, generated, .. } = self;
        // Where nothing was chosen any more.
        seen.retain(|s| !s.own.is_empty());
        let config = tracer.config().clone();
        if config.logit {
            let lens = Lens::new(&model.fused, model.weights())?;
            for t in lens.all(&seen, &lens_layers, config.tracked, engine.threads())? {
                tracer.record_logit_evolution(t);
            }
        }
        if let Some(errors) = weights.or(quant.map(ArithmeticError::finish)) {
            tracer.record_quantization(errors);
        }
        let text = |id: u32| model.tokenizer.token_to_piece(id).map(std::borrow::Cow::into_owned).unwrap_or_default();
        tracer.run = TraceRun {
            model: model.spec.name.clone().unwrap_or_default(),
            architecture: Some(model.spec.architecture.clone()),
            quantization: None,
            backend: engine.device(),
            threads: engine.threads(),
            kv_type: engine.kv().shape().layout.kind().name().to_owned(),
            context: engine.kv().context(),
            layers: model.spec.n_layers as u32,
            prompt_tokens: prompt.len(),
            tokens: prompt.iter().chain(&generated).map(|&id| TracedToken { id, text: text(id) }).collect(),
            finish,
        };
        Ok(tracer)
    }
}
