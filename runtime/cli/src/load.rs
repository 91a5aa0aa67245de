//! From a name on the command line to a model in memory and an engine.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use brick_models::arch::ArchSpec;
use brick_models::format::gguf::Gguf;
use brick_models::registry::Registry;
use brick_models::synthetic::{self, Synthetic};
use brick_runtime::engine::default_threads;
use brick_runtime::{Engine, EngineOptions, Model, SamplerOptions, Speculation};
use bricks::cpu::SimdLevel;

use crate::args::{DeviceArgs, EngineArgs, ModelArgs, SamplingArgs, SourceArgs};
use crate::progress::PullProgress;

/// Context length when neither the user nor the model asks for less: enough for a long chat, small enough for any machine.
const DEFAULT_CONTEXT: usize = 4096;

/// The file of a model, pulled first if need be.
pub(crate) fn resolve(name: &str) -> anyhow::Result<PathBuf> {
    let registry = Registry::open_default()?;
    let reference = registry.parse(name)?;
    let path = registry.resolve(&reference, &PullProgress::new(false))?;
    tracing::info!(model = name, path = %path.display(), "resolved");
    Ok(path)
}

/// Where weights come from: a file, or nowhere.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// What a model is called, or its path.
    Named(String),
    /// Random numbers.
    Synthetic(Synthetic),
}

impl Source {
    /// The source that a report or a gate's file names, [`Source::name`] of which it is.
    pub(crate) fn parse(name: &str) -> anyhow::Result<Self> {
        if name.starts_with(synthetic::PREFIX) {
            return Ok(Self::Synthetic(name.parse()?));
        }
        Ok(Self::Named(name.to_owned()))
    }

    /// One of two arguments that exclude each other.
    pub(crate) fn either(model: Option<&str>, synthetic: Option<Synthetic>) -> Option<anyhow::Result<Self>> {
        match synthetic {
            Some(synthetic) => Some(Ok(Self::Synthetic(synthetic))),
            None => model.map(Self::parse),
        }
    }

    /// What reports call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Named(name) => name.clone(),
            Self::Synthetic(synthetic) => synthetic.to_string(),
        }
    }

    /// The same for another process, which need not look for the file again.
    pub(crate) fn argument(&self) -> anyhow::Result<OsString> {
        match self {
            Self::Named(name) => Ok(resolve(name)?.into()),
            Self::Synthetic(synthetic) => Ok(synthetic.to_string().into()),
        }
    }

    /// The opened file.
    pub(crate) fn gguf(&self) -> anyhow::Result<Gguf> {
        match self {
            Self::Named(name) => gguf(name),
            Self::Synthetic(synthetic) => Ok(synthetic.gguf()?),
        }
    }

    /// The model, ready to run.
    pub(crate) fn model(&self) -> anyhow::Result<Model> {
        match self {
            Self::Named(name) => model(name),
            Self::Synthetic(synthetic) => {
                synthetic.check_memory()?;
                Ok(Model::from_gguf(Arc::new(synthetic.gguf()?))?)
            }
        }
    }
}

impl SourceArgs {
    /// What was asked for.
    pub(crate) fn source(&self) -> anyhow::Result<Source> {
        Source::either(self.model.as_deref(), self.synthetic).expect("invariant: clap requires one of both")
    }
}

/// The opened file of a model.
pub(crate) fn gguf(name: &str) -> anyhow::Result<Gguf> {
    Ok(Gguf::open(resolve(name)?)?)
}

/// A model ready to run.
pub(crate) fn model(name: &str) -> anyhow::Result<Model> {
    Ok(Model::load(resolve(name)?)?)
}

/// Engine options from the command line.
pub(crate) fn engine_options(args: &EngineArgs, model: &Model) -> anyhow::Result<EngineOptions> {
    check_level()?;
    let options = options_for(args, &model.spec);
    note_context("--ctx", options.context, model);
    Ok(options)
}

fn options_for(args: &EngineArgs, spec: &ArchSpec) -> EngineOptions {
    let context = args.ctx.map_or_else(|| spec.context_length.min(DEFAULT_CONTEXT), |c| c as usize);
    EngineOptions {
        threads: args.threads.map_or_else(default_threads, usize::from),
        pin: !args.no_pin,
        context,
        max_rows: (args.batch as usize).min(context),
        kv_type: args.kv_type.into(),
        device: args.device.choice(),
        uploaded: Some(crate::progress::uploaded),
        ..EngineOptions::default()
    }
}

/// Remarks on positions that the model was not trained for.
pub(crate) fn note_context(what: &str, context: usize, model: &Model) {
    if context > model.spec.context_length {
        crate::output::note(&format!(
            "note: {what} {context} is longer than the {} tokens the model was trained for",
            model.spec.context_length
        ));
    }
}

/// Remarks that the CPU computes instead of a GPU, and why.
pub(crate) fn note_fallback(args: DeviceArgs, engine: &Engine) {
    if let Some(reason) = engine.fallback().filter(|_| args.tells_fallback()) {
        crate::output::note(&format!("note: running on the CPU: {reason}"));
    }
}

/// Refuses a SIMD level in the environment that does not exist.
pub(crate) fn check_level() -> anyhow::Result<()> {
    if let Err(e) = SimdLevel::requested() {
        anyhow::bail!("{}: {e}", SimdLevel::ENV);
    }
    Ok(())
}

/// A model and an engine as the command line wants it, with logits for a draft and the token before it.
pub(crate) fn model_and_engine(args: &ModelArgs, speculation: Speculation) -> anyhow::Result<(Model, Engine)> {
    check_level()?;
    let (model, engine) = Model::load_with_engine(resolve(&args.model)?, |spec| {
        let options = options_for(&args.engine, spec);
        EngineOptions { max_wanted: options.max_wanted.max(speculation.max_draft() + 1), ..options }
    })?;
    let engine = engine.context("cannot set up the engine")?;
    note_context("--ctx", engine.kv().context(), &model);
    note_fallback(args.engine.device, &engine);
    tracing::debug!(
        device = engine.device(),
        threads = engine.threads(),
        context = engine.kv().context(),
        max_rows = engine.max_rows(),
        kv_type = engine.kv().shape().layout.kind().name(),
        kv_bytes = engine.kv().bytes(),
        "engine"
    );
    Ok((model, engine))
}

/// Sampler options from the command line; a missing seed is drawn from the clock, so that sampling differs from run to run.
pub(crate) fn sampler_options(args: &SamplingArgs) -> anyhow::Result<SamplerOptions> {
    let options = SamplerOptions {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repeat_penalty: args.repeat_penalty,
        repeat_last_n: args.repeat_last_n,
        seed: args.seed.unwrap_or_else(random_seed),
        ..SamplerOptions::default()
    };
    options.validate().context("sampling options")?;
    Ok(options)
}

fn random_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // Short enough to be typed again.
    (now.as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(20)) % 1_000_000_007
}
