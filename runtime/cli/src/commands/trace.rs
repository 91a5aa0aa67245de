//! `brick trace MODEL`: the values of forward calls.

use std::process::ExitCode;

use brick_models::tokenizer::EncodeOptions;
use brick_profiler::trace::{ModelTracer, ModelTracerConfig, Severity, symptoms_text};
use brick_runtime::EngineOptions;
use brick_runtime::trace::{TraceOptions, trace as run_trace};

use crate::args::{TraceArgs, TraceKind};
use crate::{exit, load, output, progress};

/// What is continued when nothing else is said: short, since the reference is slow on purpose, with one right answer.
const TEXT: &str = "The capital of France is";

pub(super) fn trace(args: &TraceArgs) -> anyhow::Result<ExitCode> {
    let other = args.against.as_deref().map(|name| load::gguf(name).map(|g| (g, name))).transpose()?;
    let model = load::model(&args.model.model)?;
    let text = args.prompt.as_deref().unwrap_or(TEXT);
    let tokens = model.tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: true })?;
    let options = TraceOptions {
        engine: EngineOptions {
            device: args.model.engine.device.cpu("brick trace")?,
            ..load::engine_options(&args.model.engine, &model)?
        },
        tracer: config(args),
        tokens: args.tokens as usize,
        against: other.as_ref().map(|(gguf, name)| (gguf, *name)),
    };
    if options.against.is_some() && !options.tracer.quant {
        anyhow::bail!("--against compares weights, which --trace leaves out: expected quant or all among its kinds");
    }
    let stop = progress::interrupted();
    let mut tracer = run_trace(&model, &tokens, &options, &stop)?;
    let info = super::profile::model_info(&model, &args.model.model);
    tracer.run.model = info.name;
    tracer.run.quantization = info.quantization;
    if let Some(path) = &args.output {
        output::write_atomically(path, &tracer.export_json()?)?;
    }
    show(args, &tracer)?;
    if stop.load(std::sync::atomic::Ordering::Relaxed) {
        return Ok(ExitCode::from(exit::INTERRUPTED));
    }
    let bad: Vec<_> = tracer.detect_anomalies().into_iter().filter(|a| a.severity > Severity::Note).collect();
    match bad.first() {
        Some(first) if args.fail_on_anomaly => {
            let n = bad.len();
            output::error(&format!("{n} {}, the first: {first}", if n == 1 { "anomaly" } else { "anomalies" }));
            Ok(ExitCode::from(exit::VERDICT))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn config(args: &TraceArgs) -> ModelTracerConfig {
    let wants = |kind| args.trace.contains(&kind) || args.trace.contains(&TraceKind::All);
    ModelTracerConfig {
        activation: wants(TraceKind::Activation),
        attention: wants(TraceKind::Attention),
        logit: wants(TraceKind::Logit),
        quant: wants(TraceKind::Quant),
        kv: wants(TraceKind::Kv),
        layers: args.layers.as_ref().map(|s| s.0.clone()),
        heads: args.heads.as_ref().map(|s| s.0.clone()),
        top_k: args.top_k,
        ..ModelTracerConfig::default()
    }
}

fn show(args: &TraceArgs, tracer: &ModelTracer) -> anyhow::Result<()> {
    if args.json {
        return output::print(&tracer.export_json()?);
    }
    let mut text = tracer.to_text(output::style());
    if args.explain {
        text.push('\n');
        text.push_str(&symptoms_text(output::style()));
    }
    output::print_styled(&text)
}
