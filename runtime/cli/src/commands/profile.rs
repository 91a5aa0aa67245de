//! `brick profile MODEL`: where the time of a token goes, brick by brick, against a budget.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use brick_cuda::Launch;
use brick_profiler::budget::{BudgetFile, BudgetTable, Roofline};
use brick_profiler::exec_graph::ExecutionGraph;
use brick_profiler::profile::{DeviceStamps, ModelInfo, PromptKind, RunInfo, StepLaunch};
use brick_profiler::{BrickProfiler, Clock, Phase, Profile, ProfileInputs, ReportOptions};
use brick_runtime::engine::DeviceChoice;
use brick_runtime::{Engine, FinishReason, GenerateOptions, Model, SamplerOptions, Session};
use bricks::BudgetPolicy;

use crate::args::{GraphFormat, PolicyArg, ProfileArgs, SyncArg};
use crate::counters::HardwareCounters;
use crate::{about, exit, load, output, progress};

pub(super) fn profile(args: &ProfileArgs) -> anyhow::Result<ExitCode> {
    let source = args.source.source()?;
    let model = source.model()?;
    let prompt = match &args.prompt {
        Some(text) => super::run::prompt_ids(&model, text, None, false)?,
        None => synthetic_prompt(args.pp, model.spec.vocab),
    };
    let needed = prompt.len() + args.tg + 1;
    let mut options = load::engine_options(&args.engine, &model)?;
    options.device = args.engine.device.or_cpu();
    if args.stamps {
        can_stamp(args, options.device)?;
        options.stamps = true;
    }
    if args.engine.ctx.is_none() {
        options.context = options.context.max(needed);
    }
    if needed > options.context {
        bail!(
            "{needed} positions are needed (prompt {} + generated {} + 1), --ctx gives {}",
            prompt.len(),
            args.tg,
            options.context
        );
    }
    let policy = match args.budget_policy {
        PolicyArg::Off => BudgetPolicy::Off,
        PolicyArg::Report => BudgetPolicy::Report,
        PolicyArg::Strict => BudgetPolicy::Strict,
    };
    // Before the model is in memory and threads are running: measuring wants a quiet machine.
    let asked_gpu = matches!(options.device, DeviceChoice::Cuda(_));
    let machine = if asked_gpu { None } else { Some(super::machine::get(false)?) };
    let mut counters = HardwareCounters::open();
    let engine = model.engine(&options).context("cannot set up the engine")?;
    load::note_fallback(args.engine.device, &engine);
    let on_gpu = engine.gpu().is_some();
    if args.stamps && !on_gpu {
        bail!(NO_GPU_TO_STAMP);
    }
    // The roofline is that of this machine's processors.
    let policy = if on_gpu { BudgetPolicy::Off } else { policy };
    let steps = engine.steps().to_vec();
    let threads = engine.threads();
    let run = super::live::run_info(&engine);
    let budgets = match (policy, &machine) {
        (BudgetPolicy::Off, _) | (_, None) => None,
        (_, Some(machine)) => Some(budget_table(&args.budget, Roofline::new(machine, &steps, threads))?),
    };

    let forwards = args.repeat as usize * (args.tg + prompt.len().div_ceil(options.max_rows));
    let mut recorder = BrickProfiler::with_mode(&steps, forwards, args.sync.into());
    if !on_gpu {
        recorder = recorder.with_threads(threads);
    }
    let mut session = Session::new(engine, &model.tokenizer, model.spec.context_length)?;
    let stop = progress::interrupted();
    let generate = GenerateOptions {
        sampler: SamplerOptions::default(),
        // The first token comes from the prompt's own logits; every further one is a decode step.
        max_tokens: Some(args.tg + usize::from(args.tg > 0)),
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    for repetition in 0..=args.repeat {
        recorder.set_enabled(repetition > 0);
        if repetition == 1 {
            counters.start();
        }
        session.reset()?;
        let done = session.generate(&prompt, &generate, &mut recorder, &stop, &mut |_| {})?;
        if done.finish == FinishReason::Cancelled {
            output::error("interrupted: nothing was reported");
            return Ok(ExitCode::from(exit::INTERRUPTED));
        }
    }

    let counted = counters.read();
    let warmup = args.tg + prompt.len().div_ceil(options.max_rows);
    let mut profile = Profile::new(
        &mut recorder,
        ProfileInputs {
            model: ModelInfo {
                sha256: model.gguf.path().and_then(about::sha256),
                ..model_info(&model, &source.name())
            },
            build: about::build(),
            run: RunInfo {
                prompt: if args.prompt.is_some() { PromptKind::Text } else { PromptKind::Synthetic },
                prompt_tokens: prompt.len() as u64,
                generated_tokens: args.tg as u64,
                warmup_forwards: warmup as u64,
                timestamp: about::timestamp(),
                ..run
            },
            clock: Clock::precision(),
            // Limits of processors say nothing of a GPU.
            machine: machine.as_ref().filter(|_| !on_gpu),
            budgets: budgets.as_ref(),
            policy,
            counters: Some(counted),
            timeline: args.timeline,
            intervals: true,
        },
    );
    profile.launches = launches(session.engine_mut())?;
    if args.stamps {
        profile.stamps = Some(stamps(session.engine()).context("--stamps: no decode step was replayed")?);
    }
    if let Some(path) = &args.cuda_graph {
        write_cuda_graph(&session, path)?;
    }
    if let Some(path) = &args.output {
        output::write_atomically(path, &profile.to_json()?)?;
    }
    show(args, &profile)?;
    match profile.enforce(policy) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(violation) => {
            output::error(&violation.to_string());
            Ok(ExitCode::from(exit::VERDICT))
        }
    }
}

/// The launches of a decode step, where a GPU computes.
fn launches(engine: &mut Engine) -> anyhow::Result<Vec<StepLaunch>> {
    let names: Vec<String> = engine.steps().iter().map(|s| s.name.clone()).collect();
    let Some(gpu) = engine.gpu_mut() else { return Ok(Vec::new()) };
    let list = gpu.decode_launches()?;
    let texts: BTreeMap<&str, String> =
        gpu.kernels().iter().map(|(name, text)| (name.as_str(), about::sha256_of(text.as_bytes()))).collect();
    let launch = |(node, kernel, launch): (usize, String, Launch)| StepLaunch {
        step: names[node].clone(),
        ptx_sha256: texts.get(kernel.as_str()).cloned().unwrap_or_default(),
        kernel,
        grid: launch.dims.grid,
        block: launch.dims.block,
        shared_bytes: launch.dims.dynamic_shared,
    };
    Ok(list.into_iter().map(launch).collect())
}

const NO_GPU_TO_STAMP: &str = "--stamps: only the blocks of a GPU note when they ran; add --device cuda";

/// Refuses what leaves no stamps.
fn can_stamp(args: &ProfileArgs, device: DeviceChoice) -> anyhow::Result<()> {
    if device == DeviceChoice::Cpu {
        bail!(NO_GPU_TO_STAMP);
    }
    if !matches!(args.sync, SyncArg::Deferred) {
        bail!("--stamps: blocks note when they ran in steps that are replayed, which is --sync deferred only");
    }
    if args.tg == 0 {
        bail!("--stamps: blocks note when they ran in decode steps; --tg has to be at least 1");
    }
    Ok(())
}

/// What the blocks of the last decode steps noted.
fn stamps(engine: &Engine) -> Option<DeviceStamps> {
    let gpu = engine.gpu()?;
    let steps: Vec<_> = gpu.stamps().map(|step| step.times(&gpu.plan().info)).collect();
    DeviceStamps::new(&steps)
}

/// Writes the captured decode step as the driver shows it.
fn write_cuda_graph(session: &Session<'_>, path: &Path) -> anyhow::Result<()> {
    let gpu = session.engine().gpu().context("--cuda-graph: only a GPU captures steps; add --device cuda")?;
    let steps = gpu.captured().map(|(extent, ..)| extent).min_by_key(|e| (e.rows.rows(), e.context));
    let extent =
        steps.context("--cuda-graph: no step was captured; --sync deferred captures, and --tg has to be at least 1")?;
    let dot = gpu.dot(extent)?.context("--cuda-graph: the driver shows no graph")?;
    output::write_atomically(path, &dot)
}

/// Ids that no tokenizer would put in a row: what a prompt says makes no difference to its cost.
pub(super) fn synthetic_prompt(n: usize, vocab: usize) -> Vec<u32> {
    (0..n.max(1)).map(|i| ((i * 7919 + 101) % vocab) as u32).collect()
}

fn budget_table(name: &str, roofline: Roofline) -> anyhow::Result<BudgetTable> {
    if name == "roofline" {
        return Ok(BudgetTable::Roofline(Box::new(roofline)));
    }
    if let Some(file) = BudgetFile::builtin(name) {
        return Ok(BudgetTable::File(file));
    }
    let path = Path::new(name);
    if !path.exists() {
        let shipped: Vec<&str> = BudgetFile::BUILTIN.iter().map(|(n, _)| *n).collect();
        bail!("--budget {name}: expected roofline, {}, or a TOML file; there is no such file", shipped.join(", "));
    }
    Ok(BudgetTable::File(BudgetFile::read(path)?))
}

/// What a report says about its model; `name` where the file has none.
pub(super) fn model_info(model: &Model, name: &str) -> ModelInfo {
    let mut types: Vec<(&'static str, u64)> = Vec::new();
    for w in model.fused.weights() {
        let dtype = w.shape.dtype.name();
        match types.iter_mut().find(|(n, _)| *n == dtype) {
            Some((_, bytes)) => *bytes += w.shape.bytes(),
            None => types.push((dtype, w.shape.bytes())),
        }
    }
    types.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let types: Vec<&str> = types.into_iter().map(|(n, _)| n).filter(|n| *n != "F32").collect();
    ModelInfo {
        name: model.spec.name.clone().unwrap_or_else(|| name.to_owned()),
        architecture: Some(model.spec.architecture.clone()),
        quantization: Some(types.join(" + ")),
        file_bytes: Some(model.gguf.file_size()),
        sha256: None,
        graph_hash: Some(model.fused.hash_hex()),
    }
}

fn show(args: &ProfileArgs, profile: &Profile) -> anyhow::Result<()> {
    let phase = if profile.phase(Phase::Decode).is_some() { Phase::Decode } else { Phase::Prefill };
    if let Some(format) = args.graph {
        let graph = ExecutionGraph::from_profile(profile, phase).context("nothing was recorded")?;
        return match format {
            GraphFormat::Ascii => output::print(&graph.to_ascii_tree()),
            GraphFormat::Dot => output::print(&graph.to_dot()),
            GraphFormat::Mermaid => output::print(&graph.to_mermaid()),
            GraphFormat::Json => output::print(&graph.to_json()?),
        };
    }
    if args.json {
        return output::print(&profile.to_json()?);
    }
    let steps = if args.steps { usize::MAX } else { 0 };
    if args.markdown {
        return output::print(&profile.to_markdown(&ReportOptions { steps, ..ReportOptions::default() }));
    }
    output::print_styled(&profile.to_text(&ReportOptions { style: output::style(), steps, ..ReportOptions::default() }))
}
