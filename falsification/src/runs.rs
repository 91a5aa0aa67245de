//! Running models in experiments.

use brick_profiler::budget::{BudgetTable, Roofline};
use brick_profiler::profile::{BuildInfo, ModelInfo, RunInfo};
use brick_profiler::{BrickProfiler, Clock, Machine, NoRecord, Phase, Profile, ProfileInputs, Recorder};
use brick_runtime::engine::{NoObserver, Observer, default_threads};
use brick_runtime::{Batch, Engine, EngineOptions, Model, Row};
use bricks::reference::argmax;
use bricks::{BudgetPolicy, Extent};

use crate::claim::{Refusal, require_some};

/// One thread, one sequence, logits of every row.
pub fn options(context: usize, rows: usize) -> EngineOptions {
    EngineOptions { threads: 1, context, sequences: 1, max_rows: rows, max_wanted: rows, ..EngineOptions::default() }
}

/// Logits after every one of `ids`, which enter in calls of at most `options.max_rows` tokens.
///
/// # Errors
/// Falsified if the engine fails.
pub fn logits(model: &Model, options: &EngineOptions, ids: &[u32]) -> Result<Vec<Vec<f32>>, Refusal> {
    let mut out = Vec::with_capacity(ids.len());
    each_logits(model, options, ids, |_| true, |_, row| out.push(row.to_vec()))?;
    Ok(out)
}

/// [`logits`] of the graph as it was built, one brick per operation, all tokens in one call.
///
/// # Errors
/// Falsified if the engine fails.
pub fn logits_unfused(model: &Model, ids: &[u32]) -> Result<Vec<Vec<f32>>, Refusal> {
    let mut engine = Engine::new(&model.graph, model.weights(), &options(ids.len(), ids.len()))?;
    let sequence = engine.new_sequence()?;
    let mut batch = Batch::with_capacity(ids.len());
    for (position, &token) in ids.iter().enumerate() {
        batch.push(Row { token, position, sequence, wanted: true });
    }
    let logits = engine.forward_quiet(&batch)?;
    Ok((0..logits.len()).map(|i| logits.row(i).to_vec()).collect())
}

/// Hands the logits after those of `ids` at `wanted` positions to `see`, with the position.
///
/// # Errors
/// Falsified if the engine fails.
pub fn each_logits(
    model: &Model,
    options: &EngineOptions,
    ids: &[u32],
    wanted: impl Fn(usize) -> bool,
    mut see: impl FnMut(usize, &[f32]),
) -> Result<(), Refusal> {
    let mut engine = model.engine(options)?;
    let sequence = engine.new_sequence()?;
    let mut batch = Batch::with_capacity(options.max_rows);
    let mut position = 0;
    for chunk in ids.chunks(options.max_rows.min(options.max_wanted).max(1)) {
        batch.clear();
        for (i, &token) in chunk.iter().enumerate() {
            batch.push(Row { token, position: position + i, sequence, wanted: wanted(position + i) });
        }
        let logits = engine.forward_quiet(&batch)?;
        for (i, position) in (position..position + chunk.len()).filter(|p| wanted(*p)).enumerate() {
            see(position, logits.row(i));
        }
        position += chunk.len();
    }
    Ok(())
}

/// The most likely continuation of `prompt`: the prompt in one call, then token by token. Ends after `n` tokens, or with the
/// first that `is_end` says ends the text.
///
/// # Errors
/// Falsified if the engine fails.
pub fn greedy(
    model: &Model,
    options: &EngineOptions,
    prompt: &[u32],
    n: usize,
    is_end: impl Fn(u32) -> bool,
) -> Result<Vec<u32>, Refusal> {
    let mut engine = model.engine(options)?;
    let sequence = engine.new_sequence()?;
    let mut batch = Batch::with_capacity(options.max_rows);
    let mut position = 0;
    for chunk in prompt.chunks(options.max_rows.max(1)) {
        batch.clear();
        batch.push_tokens(sequence, position, chunk);
        engine.forward_quiet(&batch)?;
        position += chunk.len();
    }
    let mut out = Vec::with_capacity(n);
    while out.len() < n {
        let row = require_some(engine.logits().last(), "logits of the last token")?;
        let token = require_some(argmax(row), "a largest logit")? as u32;
        out.push(token);
        if is_end(token) || out.len() == n {
            break;
        }
        batch.clear();
        batch.push(Row { token, position, sequence, wanted: true });
        engine.forward_quiet(&batch)?;
        position += 1;
    }
    Ok(out)
}

/// Runs `ids` as one prompt and shows every step to an observer. Every value is kept.
///
/// # Errors
/// Falsified if the engine fails.
pub fn observe<O: Observer>(model: &Model, ids: &[u32], observer: &mut O) -> Result<(), Refusal> {
    let options = EngineOptions { keep_values: true, ..options(ids.len(), ids.len()) };
    let mut engine = model.engine(&options)?;
    let sequence = engine.new_sequence()?;
    let mut batch = Batch::with_capacity(ids.len());
    batch.push_tokens(sequence, 0, ids);
    engine.forward_observed(&batch, &mut NoRecord, observer)?;
    Ok(())
}

/// What a recorder was told.
#[derive(Debug, Default)]
pub struct Told {
    /// Calls that began and ended.
    pub forwards: (usize, usize),
    /// Steps, in the order in which they were done.
    pub steps: Vec<usize>,
}

impl Recorder for Told {
    const ENABLED: bool = true;
    type Arrivals = ();

    fn arrivals(&self) {}

    fn begin_forward(&mut self, _: &Extent, _: Phase) {
        self.forwards.0 += 1;
    }

    fn step_done(&mut self, step: usize) {
        self.steps.push(step);
    }

    fn end_forward(&mut self) {
        self.forwards.1 += 1;
    }
}

/// What a recorder is told in one forward call of `ids`, and the number of steps of the plan.
///
/// # Errors
/// Falsified if the engine fails.
pub fn told(model: &Model, ids: &[u32]) -> Result<(Told, usize), Refusal> {
    let mut engine: Engine = model.engine(&options(ids.len(), ids.len()))?;
    let sequence = engine.new_sequence()?;
    let mut batch = Batch::with_capacity(ids.len());
    batch.push_tokens(sequence, 0, ids);
    let mut told = Told::default();
    engine.forward_observed(&batch, &mut told, &mut NoObserver)?;
    Ok((told, engine.plan()?.steps.len()))
}

/// A profile of a model on this machine, against its roofline: a prompt of 32 tokens and 24 decoded ones, after a warm-up.
///
/// # Errors
/// Falsified if the engine fails.
pub fn profile(model: &Model, machine: &Machine) -> Result<Profile, Refusal> {
    const PROMPT: usize = 32;
    const DECODED: usize = 24;
    let mut engine: Engine =
        model.engine(&EngineOptions { threads: default_threads(), ..options(PROMPT + DECODED + 1, PROMPT) })?;
    let steps = engine.steps().to_vec();
    let mut recorder = BrickProfiler::new(&steps, DECODED).with_threads(engine.threads());
    for warm in [true, false] {
        recorder.set_enabled(!warm);
        let sequence = engine.new_sequence()?;
        let mut batch = Batch::with_capacity(PROMPT);
        for position in 0..PROMPT {
            batch.push(Row { token: position as u32 + 1, position, sequence, wanted: position + 1 == PROMPT });
        }
        engine.forward(&batch, &mut recorder)?;
        for position in PROMPT..PROMPT + DECODED {
            batch.clear();
            batch.push(Row { token: 7, position, sequence, wanted: true });
            engine.forward(&batch, &mut recorder)?;
        }
        engine.kv_mut().release(sequence)?;
    }
    let threads = engine.threads();
    let budgets = BudgetTable::Roofline(Box::new(Roofline::new(machine, &steps, threads)));
    let inputs = ProfileInputs {
        model: ModelInfo { name: "real".into(), ..ModelInfo::default() },
        build: BuildInfo::current(),
        run: RunInfo { backend: "cpu".into(), threads, sequences: 1, ..RunInfo::default() },
        clock: Clock::precision(),
        machine: Some(machine),
        budgets: Some(&budgets),
        policy: BudgetPolicy::Report,
        counters: None,
        timeline: DECODED,
        intervals: true,
    };
    Ok(Profile::new(&mut recorder, inputs))
}
