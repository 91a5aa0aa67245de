//! `brick run MODEL [PROMPT]`: one answer, streamed.

use std::fmt::Write as _;
use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Context, bail};
use brick_models::chat::Message;
use brick_models::tokenizer::EncodeOptions;
use brick_profiler::{BrickProfiler, NoRecord, TimeSource};
use brick_runtime::session::Timings;
use brick_runtime::{FinishReason, GenerateOptions, Generation, Model, Session, Speculation, SpeculationStats};
use serde_json::json;

use super::live::Watched;
use crate::args::{RunArgs, SamplingArgs};
use crate::otlp::{Exporter, Request};
use crate::{exit, load, output, progress};

pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let prompt = match args.prompt.clone() {
        Some(p) => p,
        None if std::io::stdin().is_terminal() => {
            if args.json || args.raw {
                bail!("no prompt: give it as an argument or on standard input");
            }
            return super::chat::chat(&args.model, args.system.as_deref(), &args.sampling, args.live);
        }
        None => read_stdin()?,
    };
    if prompt.is_empty() {
        bail!("the prompt is empty");
    }
    let options = generate_options(args)?;
    let started = std::time::Instant::now();
    let (model, engine) = load::model_and_engine(&args.model, options.speculation)?;
    let ids = prompt_ids(&model, &prompt, args.system.as_deref(), args.raw)?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let mut session = Session::new(engine, &model.tokenizer, model.spec.context_length)?;

    let stop = progress::interrupted();
    let mut broken = None;
    let mut stdout = std::io::stdout().lock();
    let mut show = |text: &str| {
        if args.json || broken.is_some() {
            return;
        }
        if let Err(e) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            // Nobody reads any more: stop generating.
            broken = Some(e);
            stop.store(true, Ordering::Relaxed);
        }
    };
    let exporter = args.otlp_endpoint.as_deref().map(|url| Exporter::new(url, args.otlp_sample)).transpose()?;
    let mut watched = args.live.then(|| Watched::open(session.engine(), &model, &args.model.model)).transpose()?;
    let generation = match (&exporter, &mut watched) {
        (None, None) => session.generate(&ids, &options, &mut NoRecord, &stop, &mut show)?,
        (None, Some(watched)) => watched.generate(&mut session, &ids, &options, &stop, &mut show)?,
        (Some(exporter), _) => traced(exporter, &mut session, &model, &ids, &options, &mut show)?,
    };
    if let Some(e) = broken {
        return Err(e.into());
    }
    if !args.json {
        stdout.write_all(b"\n")?;
    }
    drop(stdout);

    if args.json {
        print_report(args, &model, &prompt, &ids, &options, &generation, load_ms)?;
    } else if !args.quiet {
        output::note(&summary(&generation.timings, &generation, load_ms, &options, args.sampling.seed));
    }
    Ok(finish_code(&generation.finish))
}

/// A generation whose forward calls are sent to a collector. A collector that does not answer is a remark: the answer is there.
fn traced(
    exporter: &Exporter,
    session: &mut Session<'_>,
    model: &Model,
    ids: &[u32],
    options: &GenerateOptions,
    show: &mut dyn FnMut(&str),
) -> anyhow::Result<Generation> {
    let engine = session.engine();
    let mut recorder = BrickProfiler::new(engine.steps(), engine.kv().context());
    let begin_ns = recorder.clock().now_ns();
    let generation = session.generate(ids, options, &mut recorder, &progress::interrupted(), show)?;
    let request = Request {
        model: model.spec.name.clone().unwrap_or_default(),
        prompt_tokens: ids.len() as u64,
        generated_tokens: generation.ids.len() as u64,
        begin_ns,
        end_ns: recorder.clock().now_ns(),
    };
    match exporter.export(&mut recorder, &request) {
        Ok(spans) => tracing::info!(spans, "exported"),
        Err(e) => output::note(&format!("warning: {e:#}")),
    }
    Ok(generation)
}

/// The exit code for how a generation ended, with an explanation where it is not the usual end.
fn finish_code(finish: &FinishReason) -> ExitCode {
    match finish {
        FinishReason::ContextFull { context } => {
            output::error(&format!(
                "the context is full ({context} tokens): the answer is cut off; raise --ctx or shorten the prompt"
            ));
            ExitCode::from(exit::CONTEXT_FULL)
        }
        FinishReason::Cancelled => ExitCode::from(exit::INTERRUPTED),
        _ => ExitCode::SUCCESS,
    }
}

fn generate_options(args: &RunArgs) -> anyhow::Result<GenerateOptions> {
    Ok(GenerateOptions {
        sampler: load::sampler_options(&args.sampling)?,
        max_tokens: args.sampling.max_tokens,
        stop: args.sampling.stop.clone(),
        ignore_eos: args.ignore_eos,
        logprobs: args.logprobs,
        echo: args.echo,
        speculation: args.sampling.speculate,
    })
}

/// All of standard input as text, without the line end that `echo` adds.
fn read_stdin() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
    let mut text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        anyhow::anyhow!(
            "standard input is not UTF-8: expected text, found byte 0x{:02x} at offset {at}",
            e.as_bytes()[at]
        )
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// The tokens a prompt stands for.
pub(super) fn prompt_ids(model: &Model, prompt: &str, system: Option<&str>, raw: bool) -> anyhow::Result<Vec<u32>> {
    let t = &model.tokenizer;
    if raw {
        return Ok(t.encode(prompt, EncodeOptions { add_special: true, parse_special: true })?);
    }
    let mut messages = Vec::new();
    if let Some(s) = system {
        messages.push(Message::new("system", s));
    }
    messages.push(Message::new("user", prompt));
    chat_ids(model, &messages)
}

/// The tokens of a conversation, ready for the assistant's answer.
pub(super) fn chat_ids(model: &Model, messages: &[Message]) -> anyhow::Result<Vec<u32>> {
    let text = model.chat.render(messages, true)?;
    // The template writes BOS itself where the model wants one.
    let add_special = !model.chat.begins_with_bos(&text);
    Ok(model.tokenizer.encode(&text, EncodeOptions { add_special, parse_special: true })?)
}

/// What speculation did, for the final line. Nothing when it was off.
fn speculated(mode: Speculation, s: &SpeculationStats) -> String {
    match (s.acceptance_rate(), s.tokens_per_forward()) {
        _ if mode == Speculation::Off => String::new(),
        (Some(rate), Some(tokens)) => format!(
            " | drafted {}, accepted {} ({:.0} %), {tokens:.2} tokens per forward",
            s.drafted,
            s.accepted,
            rate * 100.0
        ),
        _ => " | drafted 0".to_owned(),
    }
}

/// The final line: tokens and speeds.
pub(super) fn summary(
    t: &Timings,
    generation: &Generation,
    load_ms: f64,
    options: &GenerateOptions,
    seed: Option<u64>,
) -> String {
    let rate = |r: Option<f64>| r.map_or_else(|| "–".to_owned(), |r| format!("{r:.1} tok/s"));
    let mut line = format!(
        "[prompt {} tokens, {} | generated {} tokens, {}{} | TTFT {:.0} ms (load {:.0} ms)]",
        t.prompt_tokens + t.cached_tokens,
        rate(t.prompt_tok_s()),
        generation.ids.len(),
        rate(t.decode_tok_s()),
        speculated(options.speculation, &generation.speculation),
        load_ms + t.first_token_ns as f64 / 1e6,
        load_ms,
    );
    if options.sampler.temperature > 0.0 && seed.is_none() {
        // Writing to a string does not fail.
        let _ = write!(line, " seed {}", options.sampler.seed);
    }
    line
}

/// The mode as `--speculate` takes it.
fn mode_name(mode: Speculation) -> serde_json::Value {
    match mode {
        Speculation::Off => "off".into(),
        Speculation::Auto => "auto".into(),
        Speculation::Fixed(n) => n.into(),
    }
}

fn print_report(
    args: &RunArgs,
    model: &Model,
    prompt: &str,
    ids: &[u32],
    options: &GenerateOptions,
    g: &Generation,
    load_ms: f64,
) -> anyhow::Result<()> {
    let t = &g.timings;
    let piece = |id: u32| model.tokenizer.token_text(id).ok().map(|s| s.to_string());
    let positions: Vec<_> = g
        .logprobs
        .iter()
        .map(|p| {
            json!({
                "position": p.position,
                "id": p.id,
                "piece": piece(p.id),
                "logprob": p.logprob,
                "top": p.top.iter().map(|c| json!({"id": c.id, "piece": piece(c.id), "logprob": c.logprob})).collect::<Vec<_>>(),
            })
        })
        .collect();
    let mut report = json!({
        "schema": "brick.run/1",
        "model": args.model.model,
        "prompt": prompt,
        "prompt_ids": ids,
        "generated_ids": g.ids,
        "text": g.text,
        "finish": g.finish,
        "sampling": options.sampler,
        "timings": {
            "load_ms": load_ms,
            "time_to_first_token_ms": load_ms + t.first_token_ns as f64 / 1e6,
            "prompt_tokens": t.prompt_tokens,
            "prompt_ms": t.prompt_ns as f64 / 1e6,
            "prompt_tok_s": t.prompt_tok_s(),
            "decode_tokens": t.decode_tokens,
            "decode_ms": t.decode_ns as f64 / 1e6,
            "decode_tok_s": t.decode_tok_s(),
        },
        "speculation": {
            "mode": mode_name(options.speculation),
            "drafted": g.speculation.drafted,
            "accepted": g.speculation.accepted,
            "acceptance_rate": g.speculation.acceptance_rate(),
            "forwards": g.speculation.forwards,
            "tokens_per_forward": g.speculation.tokens_per_forward(),
        },
    });
    if args.logprobs.is_some() {
        report["logprobs"] = positions.into();
    }
    output::print_json(&report)
}

/// Sampling options for a chat: the same, without what only `run` has.
pub(super) fn chat_options(s: &SamplingArgs) -> anyhow::Result<GenerateOptions> {
    Ok(GenerateOptions {
        sampler: load::sampler_options(s)?,
        max_tokens: s.max_tokens,
        stop: s.stop.clone(),
        speculation: s.speculate,
        ..GenerateOptions::default()
    })
}
