//! The process that measures: `brick gate-worker`, one line of JSON per request.
//!
//! The first line it writes is a [`Hello`]. Then it answers each line of standard input with one of its own, until there are no
//! more:
//!
//! | request | answer |
//! | --- | --- |
//! | `call ROWS CALLS` | [`Times`]: the least time of each step in CALLS forward calls of ROWS rows, after one that warms up |
//! | `count CALLS` | [`Counted`]: CALLS decoded tokens went through the function that callgrind looks for |
//!
//! Every call starts at the same depth and computes the same tokens. The least of a few calls in a row is what the processor takes
//! when nothing gets in its way; the ratio of such minima is far steadier than that of single calls.
//!
//! The protocol is versioned because base and candidate are different programs by intent.

use std::io::{BufRead, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use brick_profiler::{BrickProfiler, NoRecord, Recorder};
use brick_runtime::{Batch, Engine, EngineOptions, Row, SequenceId, facts};
use serde::{Deserialize, Serialize};

use crate::args::GateWorkerArgs;
use crate::load::Source;

/// Version of the protocol.
pub(super) const PROTOCOL: u32 = 1;

/// Most calls of a request; the profiler has room for as many.
pub(super) const MOST_CALLS: usize = 256;

/// What a worker is. Fields that a later version adds are ignored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) protocol: u32,
    pub(super) version: String,
    pub(super) simd: String,
    pub(super) steps: Vec<StepName>,
}

/// A step of its plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StepName {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) layer: Option<u32>,
}

/// Times of a request, in nanoseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Times {
    pub(super) wall_ns: u64,
    pub(super) steps_ns: Vec<u64>,
}

/// Answer to `count`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) counted: u64,
}

pub(in crate::commands) fn worker(args: &GateWorkerArgs) -> anyhow::Result<ExitCode> {
    let model = Source::parse(&args.model)?.model()?;
    let options = EngineOptions {
        threads: args.threads,
        context: args.context,
        max_rows: args.batch,
        kv_type: args.kv_type.into(),
        ..EngineOptions::default()
    };
    let (engine, _) = facts::engine(&model, &options, args.inject.as_ref())?;
    let mut out = std::io::stdout().lock();
    let hello = Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        simd: engine.plan()?.simd.name().to_owned(),
        steps: engine
            .steps()
            .iter()
            .map(|s| StepName { name: s.name.clone(), kind: s.kind.name().to_owned(), layer: s.layer })
            .collect(),
    };
    let mut bench = Bench::new(engine, args.depth)?;
    answer(&mut out, &hello)?;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("standard input")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["call", rows, calls] => {
                let rows = number(rows, args.batch)?;
                let calls = number(calls, MOST_CALLS)?;
                answer(&mut out, &bench.times(rows, calls)?)?;
            }
            ["count", calls] => {
                let calls = number(calls, MOST_CALLS)?;
                bench.batch(1);
                gate_counted_calls(&mut bench, calls)?;
                answer(&mut out, &Counted { counted: calls as u64 })?;
            }
            _ => bail!("expected `call ROWS CALLS` or `count CALLS`, found {line:?}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn number(word: &str, most: usize) -> anyhow::Result<usize> {
    word.parse()
        .ok()
        .filter(|n| (1..=most).contains(n))
        .with_context(|| format!("expected 1 to {most}, found {word:?}"))
}

fn answer<T: Serialize>(out: &mut impl Write, value: &T) -> anyhow::Result<()> {
    writeln!(out, "{}", serde_json::to_string(value)?)?;
    Ok(out.flush()?)
}

/// An engine whose cache is filled to a depth, that computes the same rows again and again.
struct Bench {
    engine: Engine,
    sequence: SequenceId,
    depth: usize,
    batch: Batch,
    profiler: BrickProfiler,
}

impl Bench {
    fn new(mut engine: Engine, depth: usize) -> anyhow::Result<Self> {
        let sequence = engine.new_sequence()?;
        let mut batch = Batch::with_capacity(engine.max_rows());
        facts::fill(&mut engine, &mut batch, sequence, depth, &mut NoRecord)?;
        let profiler = BrickProfiler::new(engine.steps(), MOST_CALLS);
        Ok(Self { engine, sequence, depth, batch, profiler })
    }

    fn batch(&mut self, rows: usize) {
        self.batch.clear();
        let (vocab, sequence) = (self.engine.vocab(), self.sequence);
        for position in self.depth..self.depth + rows {
            let token = facts::synthetic_token(position, vocab);
            self.batch.push(Row { token, position, sequence, wanted: position + 1 == self.depth + rows });
        }
    }

    fn call<R: Recorder + Send>(
        engine: &mut Engine,
        sequence: SequenceId,
        depth: usize,
        batch: &Batch,
        recorder: &mut R,
    ) -> anyhow::Result<()> {
        engine.kv_mut().truncate(sequence, depth)?;
        engine.forward(batch, recorder)?;
        Ok(())
    }

    fn times(&mut self, rows: usize, calls: usize) -> anyhow::Result<Times> {
        self.batch(rows);
        let Self { engine, sequence, depth, batch, profiler } = self;
        Self::call(engine, *sequence, *depth, batch, &mut NoRecord)?;
        profiler.reset();
        for _ in 0..calls {
            Self::call(engine, *sequence, *depth, batch, profiler)?;
        }
        let steps = profiler.steps().len();
        let samples = || brick_profiler::Phase::ALL.into_iter().flat_map(|phase| profiler.samples(phase));
        let least = |step| samples().filter_map(|s| s.slot_ns(step)).min().unwrap_or(0);
        Ok(Times {
            wall_ns: samples().map(|s| s.wall_ns()).min().unwrap_or(0),
            steps_ns: (0..steps).map(least).collect(),
        })
    }
}

/// What callgrind counts. By this name, so it must stay a function of its own.
#[inline(never)]
fn gate_counted_calls(bench: &mut Bench, calls: usize) -> anyhow::Result<()> {
    let Bench { engine, sequence, depth, batch, .. } = bench;
    for _ in 0..calls {
        Bench::call(engine, *sequence, *depth, batch, &mut NoRecord)?;
    }
    // Not a tail call: callgrind would never see this function return.
    std::hint::black_box(bench);
    Ok(())
}

/// The function's name, as callgrind is told it.
pub(super) const COUNTED: &str = "*gate_counted_calls*";
