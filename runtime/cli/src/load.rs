//! From a name on the command line to a model in memory and an engine.

use std::path::PathBuf;

use anyhow::Context;
use brick_models::arch::ArchSpec;
use brick_models::format::gguf::Gguf;
use brick_models::registry::Registry;
use brick_runtime::engine::default_threads;
use brick_runtime::{Engine, EngineOptions, Model, SamplerOptions, Speculation};
use bricks::cpu::SimdLevel;

use crate::args::{EngineArgs, ModelArgs, SamplingArgs};
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
    tracing::debug!(
        threads = engine.threads(),
        context = engine.kv().context(),
        max_rows = engine.plan().max_rows,
        simd = engine.plan().simd.name(),
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
