//! What profiling costs: decode steps with and without the recorder, in turn, in one process.
//!
//! ```text
//! cargo run --release -p brick-benches --bin overhead -- MODEL
//! ```
//!
//! Three arms take turns in balanced order: the engine with [`NoRecord`], the same again as the control, and with
//! [`BrickProfiler`] as `brick profile` uses it. Every step computes the same token at the same position (the sequence is
//! cut back before each), so the arms differ in nothing but the recorder. The claim is a ratio of at most 1.02.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use brick_benches::stats::{Bootstrap, Order, Pair, Ratio, Rule, Verdict};
use brick_models::registry::Registry;
use brick_profiler::{BrickProfiler, NoRecord, Recorder};
use brick_runtime::engine::default_threads;
use brick_runtime::{Batch, Engine, EngineOptions, Model, Row, SequenceId};
use clap::Parser;
use serde::Serialize;

/// What profiling costs: paired ratio of decode steps with and without the recorder.
#[derive(Debug, Parser)]
struct Args {
    /// A known name (smollm2:135m), or a path.
    model: String,

    /// Rounds; each runs every arm once.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(6..=100_000))]
    rounds: u32,

    /// Positions in the cache before the step.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    depth: u32,

    /// Threads [default: the physical cores this process may use].
    #[arg(short, long)]
    threads: Option<usize>,

    /// Ratio that the cost of profiling must not exceed.
    #[arg(long, default_value_t = 1.02)]
    limit: f64,

    /// Everything as one JSON document, with all times.
    #[arg(long)]
    json: bool,
}

/// The document that `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    schema: &'static str,
    model: Option<&'a str>,
    threads: usize,
    simd: &'static str,
    steps: usize,
    depth: usize,
    /// Times of one step in ns per round: off, off again, on.
    rounds_ns: &'a [[f64; 3]],
    /// On / off.
    overhead: Ratio,
    /// Off again / off.
    control: Ratio,
    rule: Rule,
    verdict: Verdict,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(Verdict::Broken) => ExitCode::from(3),
        Ok(Verdict::Holds | Verdict::Inconclusive) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<Verdict> {
    ensure!(args.limit.is_finite() && args.limit > 0.0, "--limit {}: expected a positive number", args.limit);
    let model = Model::load(resolve(&args.model)?)?;
    let depth = args.depth as usize;
    let options = EngineOptions {
        threads: args.threads.unwrap_or_else(default_threads),
        context: depth + 1,
        ..EngineOptions::default()
    };
    let mut bench = Bench::new(&model, &options, depth)?;
    // The ring of a real profile: as many forwards as there are.
    let threads = bench.engine.threads();
    let mut profiler = BrickProfiler::new(bench.engine.steps(), args.rounds as usize).with_threads(threads);

    for _ in 0..10 {
        bench.step(&mut NoRecord)?;
        bench.step(&mut profiler)?;
    }
    profiler.reset();
    let mut rounds = Vec::with_capacity(args.rounds as usize);
    for order in Order::default().take(args.rounds as usize) {
        let mut times = [0.0; 3];
        for arm in order {
            times[arm] = if arm == 2 { bench.step(&mut profiler)? } else { bench.step(&mut NoRecord)? };
        }
        rounds.push(times);
    }

    let pairs = |arm: usize| rounds.iter().map(|t| Pair { base: t[0], candidate: t[arm] }).collect::<Vec<_>>();
    let control = Bootstrap::default().ratio(&pairs(1))?;
    let overhead = Bootstrap::default().ratio(&pairs(2))?;
    let rule = Rule { limit: args.limit, control_spread: 0.015 };
    let verdict = rule.verdict(&overhead, &control);
    let report = Report {
        schema: "brick.overhead/1",
        model: model.spec.name.as_deref(),
        threads: bench.engine.threads(),
        simd: bench.engine.plan()?.simd.name(),
        steps: bench.engine.steps().len(),
        depth,
        rounds_ns: &rounds,
        overhead,
        control,
        rule,
        verdict,
    };
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print_text(&report);
    }
    Ok(verdict)
}

fn print_text(r: &Report<'_>) {
    println!(
        "{} · {} · {} · {} steps per token · {} positions in the cache",
        r.model.unwrap_or("unnamed model"),
        r.simd,
        if r.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", r.threads) },
        r.steps,
        r.depth
    );
    println!(
        "decode step, median   off {:.1} µs, on {:.1} µs",
        r.overhead.base_median / 1e3,
        r.overhead.candidate_median / 1e3
    );
    println!("profiling on / off    {}", r.overhead);
    println!("control, off / off    {}", r.control);
    println!("at most {:.3}         {}", r.rule.limit, r.verdict);
    if r.control.reach() > r.rule.control_spread {
        println!("the control reaches {:.1} % from 1: the machine is too busy to judge", 100.0 * r.control.reach());
    }
}

fn resolve(name: &str) -> anyhow::Result<PathBuf> {
    let registry = Registry::open_default()?;
    Ok(registry.resolve(&registry.parse(name)?, &())?)
}

/// An engine with a filled cache that computes the same decode step over and over.
struct Bench {
    engine: Engine,
    sequence: SequenceId,
    depth: usize,
    batch: Batch,
}

impl Bench {
    fn new(model: &Model, options: &EngineOptions, depth: usize) -> anyhow::Result<Self> {
        let mut engine = model.engine(options).context("cannot set up the engine")?;
        let sequence = engine.new_sequence()?;
        let chunk = engine.max_rows();
        let prompt: Vec<u32> = (0..depth).map(|i| ((i * 7919 + 101) % engine.vocab()) as u32).collect();
        let mut batch = Batch::with_capacity(chunk);
        for (i, part) in prompt.chunks(chunk).enumerate() {
            batch.clear();
            batch.push_tokens(sequence, i * chunk, part);
            engine.forward_quiet(&batch)?;
        }
        batch.clear();
        batch.push(Row { token: 1, position: depth, sequence, wanted: true });
        Ok(Self { engine, sequence, depth, batch })
    }

    /// One decode step at position `depth`, in ns.
    fn step<R: Recorder + Send>(&mut self, recorder: &mut R) -> anyhow::Result<f64> {
        self.engine.kv_mut().truncate(self.sequence, self.depth)?;
        let start = Instant::now();
        self.engine.forward(&self.batch, recorder)?;
        Ok(start.elapsed().as_nanos() as f64)
    }
}
