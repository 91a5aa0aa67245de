//! `brick bench MODEL`: tokens per second of forward calls, nothing recorded, nothing sampled; alone, or in turn with another program.

mod limits;
mod llama_bench;
mod measure;
mod report;
mod vs;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use brick_profiler::Machine;
use brick_runtime::engine::default_threads;
use brick_runtime::{EngineOptions, Model};

use self::limits::Load;
use self::measure::{Kind, Runner, Test};
use self::report::{EngineTimes, Report, Row};
use self::vs::Peer;
use crate::args::BenchArgs;
use crate::load::Source;
use crate::{about, exit, load, output, progress};

/// Rows whose logits an engine is always ready for.
const MIN_WANTED: usize = 8;
/// Repetitions that a test gets however long they take: fewer say nothing about their spread.
const MIN_REPEAT: u32 = 5;

pub(super) fn bench(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let tests = tests(args);
    if tests.is_empty() {
        bail!("nothing to measure: expected --pp or --tg above 0");
    }
    let threads: Vec<usize> = match args.threads.as_slice() {
        [] => vec![default_threads()],
        list => list.iter().copied().map(usize::from).collect(),
    };
    let source = args.source.source()?;
    if let Source::Named(name) = &source {
        // Pulled before the clock starts.
        load::resolve(name)?;
    }
    let start = Instant::now();
    let model = source.model()?;
    let load_ms = ms(start);
    let options = engine_options(args, &tests, &model)?;
    if cfg!(debug_assertions) {
        output::note("note: this brick was built with debug assertions; its times say little");
    }

    let mut peer = Peer::new(args.vs_cmd.as_deref(), args.vs.as_deref(), args.vs_model.as_deref())?;
    let machine = super::machine::known();
    let bar = progress::steps((threads.len() * tests.len()) as u64 * u64::from(args.repeat));
    let stop = progress::interrupted();
    let mut report = Report {
        schema: "brick.bench/2",
        model: super::profile::model_info(&model, &source.name()),
        build: about::build(),
        timestamp: about::timestamp(),
        backend: format!("cpu {}", options.simd.name()),
        batch: options.max_rows,
        repeat: args.repeat,
        load_ms,
        peer: peer.as_ref().map(Peer::about),
        disturbance: None,
        engines: Vec::new(),
        rows: Vec::new(),
    };
    let before = Load::now();
    for &threads in &threads {
        let start = Instant::now();
        let engine = model.engine(&EngineOptions { threads, ..options }).context("cannot set up the engine")?;
        let setup_ms = ms(start);
        load::note_fallback(args.device, &engine);
        report.backend = engine.device();
        let mut runner = Runner::new(engine, options.sequences, &stop)?;
        for &test in &tests {
            bar.set_message(format!("{test}, {threads} thread{}", if threads == 1 { "" } else { "s" }));
            let Some(samples) = rounds(args, &mut runner, test, threads, peer.as_mut(), &bar)? else {
                output::error("interrupted: nothing was reported");
                return Ok(ExitCode::from(exit::INTERRUPTED));
            };
            report.rows.push(row(&runner, machine.as_ref(), test, threads, samples)?);
        }
        report.engines.push(EngineTimes { threads, setup_ms, first_forward_ms: runner.first_forward_ms() });
    }
    bar.finish_and_clear();
    report.disturbance = before.zip(Load::now()).and_then(|(then, now)| now.since(&then));
    show(args, &report)?;
    Ok(ExitCode::SUCCESS)
}

/// Tokens per second of both sides, round by round; the second list is empty without another program.
type Samples = (Vec<f64>, Vec<f64>);

/// All repetitions of a test, in turn with the other program if there is one; `None` when interrupted.
fn rounds(
    args: &BenchArgs,
    runner: &mut Runner<'_>,
    test: Test,
    threads: usize,
    mut peer: Option<&mut Peer>,
    bar: &indicatif::ProgressBar,
) -> anyhow::Result<Option<Samples>> {
    let start = Instant::now();
    let limit = Duration::from_secs(args.seconds);
    let vocab = runner.engine().vocab();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    if !runner.prepare(test)? {
        return Ok(None);
    }
    for round in 0..args.repeat {
        if round >= MIN_REPEAT && start.elapsed() > limit {
            bar.inc(u64::from(args.repeat - round));
            break;
        }
        // Whoever comes second finds the caches as the first left them: so they take turns at that, too.
        let first = round % 2 == 0;
        for turn in [first, !first] {
            if turn {
                let Some(tok_s) = runner.once(test)? else { return Ok(None) };
                ours.push(tok_s);
            } else if let Some(peer) = &mut peer {
                theirs.push(peer.once(&test, threads, round, vocab)?);
            }
        }
        bar.inc(1);
    }
    Ok(Some((ours, theirs)))
}

/// The line of a test, with the ceiling that the machine's limits set.
fn row(
    runner: &Runner<'_>,
    machine: Option<&Machine>,
    test: Test,
    threads: usize,
    (ours, theirs): Samples,
) -> anyhow::Result<Row> {
    // The machine's limits are those of its processors: a GPU has no plan of theirs.
    let plan = runner.engine().plan().ok();
    let ceiling = machine.zip(plan).and_then(|(m, plan)| limits::ceiling(m, plan, threads, &test));
    Row::new(test, threads, ours, theirs, ceiling).context("a time of zero: the clock does not advance")
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
        device: args.device.choice(),
        uploaded: Some(crate::progress::uploaded),
        ..EngineOptions::default()
    })
}

fn show(args: &BenchArgs, report: &Report) -> anyhow::Result<()> {
    if let Some(form) = args.llama_bench {
        output::print(&llama_bench::render(report, form)?)
    } else if args.json {
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
