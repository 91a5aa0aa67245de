//! `brick bench MODEL`: tokens per second of forward calls, nothing recorded, nothing sampled.

mod measure;
mod report;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use brick_profiler::profile::BuildInfo;
use brick_runtime::engine::default_threads;
use brick_runtime::{EngineOptions, Model};

use self::measure::{Kind, Runner, Test};
use self::report::{EngineTimes, Report, Row};
use crate::args::BenchArgs;
use crate::{exit, load, output, progress};

/// Rows whose logits an engine is always ready for.
const MIN_WANTED: usize = 8;

pub(super) fn bench(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let tests = tests(args);
    if tests.is_empty() {
        bail!("nothing to measure: expected --pp or --tg above 0");
    }
    let threads: Vec<usize> = match args.threads.as_slice() {
        [] => vec![default_threads()],
        list => list.iter().copied().map(usize::from).collect(),
    };
    let path = load::resolve(&args.model)?;
    let start = Instant::now();
    let model = Model::load(path)?;
    let load_ms = ms(start);
    let options = engine_options(args, &tests, &model)?;
    if cfg!(debug_assertions) {
        output::note("note: this brick was built with debug assertions; its times say little");
    }

    let bar = progress::steps((threads.len() * tests.len()) as u64 * u64::from(args.repeat + 1));
    let stop = progress::interrupted();
    let mut report = Report {
        schema: "brick.bench/1",
        model: super::profile::model_info(&model, &args.model),
        build: BuildInfo::current(),
        backend: format!("cpu {}", options.simd.name()),
        batch: options.max_rows,
        repeat: args.repeat,
        load_ms,
        engines: Vec::new(),
        rows: Vec::new(),
    };
    for &threads in &threads {
        let start = Instant::now();
        let engine = model.engine(&EngineOptions { threads, ..options }).context("cannot set up the engine")?;
        let setup_ms = ms(start);
        let mut runner = Runner::new(engine, options.sequences, &stop)?;
        for &test in &tests {
            bar.set_message(format!("{test}, {threads} thread{}", if threads == 1 { "" } else { "s" }));
            let Some(tok_s) = runner.measure(test, args.repeat, || bar.inc(1))? else {
                output::error("interrupted: nothing was reported");
                return Ok(ExitCode::from(exit::INTERRUPTED));
            };
            report.rows.push(Row::new(test, threads, tok_s).context("a time of zero: the clock does not advance")?);
        }
        report.engines.push(EngineTimes { threads, setup_ms, first_forward_ms: runner.first_forward_ms() });
    }
    bar.finish_and_clear();
    show(args, &report)?;
    Ok(ExitCode::SUCCESS)
}

/// Every combination that was asked for; zeros leave a kind out.
fn tests(args: &BenchArgs) -> Vec<Test> {
    let kinds = [(Kind::Prefill, &args.pp), (Kind::Decode, &args.tg)];
    let mut tests = Vec::new();
    for &sequences in &args.sequences {
        for &depth in &args.depth {
            for (kind, list) in kinds {
                tests.extend(list.iter().filter(|n| **n > 0).map(|&tokens| Test {
                    kind,
                    tokens: tokens as usize,
                    depth: depth as usize,
                    sequences: usize::from(sequences),
                }));
            }
        }
    }
    tests
}

fn engine_options(args: &BenchArgs, tests: &[Test], model: &Model) -> anyhow::Result<EngineOptions> {
    let context = tests.iter().map(Test::positions).max().unwrap_or(1);
    let sequences = tests.iter().map(|t| t.sequences).max().unwrap_or(1);
    load::check_level()?;
    load::note_context("a context of", context, model);
    Ok(EngineOptions {
        context,
        sequences,
        max_rows: (args.batch as usize).min(context.saturating_mul(sequences)).max(sequences),
        max_wanted: sequences.max(MIN_WANTED),
        ..EngineOptions::default()
    })
}

fn show(args: &BenchArgs, report: &Report) -> anyhow::Result<()> {
    if args.json {
        output::print_json(report)
    } else if args.markdown {
        output::print(&report.to_markdown())
    } else {
        output::print(&report.to_text())
    }
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
