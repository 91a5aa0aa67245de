//! Runs that `brick top` can watch: what a recording says about its run, and its socket.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use brick_profiler::budget::{BudgetTable, Roofline};
use brick_profiler::profile::RunInfo;
use brick_profiler::{Machine, StepInfo};
use brick_runtime::session::GenerateError;
use brick_runtime::{Engine, GenerateOptions, Generation, Model, Session};
use brick_top::live::{About, Live};
use brick_top::socket::Publisher;

use crate::{about, output};

/// How an engine runs one sequence, as far as the engine knows it.
pub(super) fn run_info(engine: &Engine) -> RunInfo {
    let kv = engine.kv();
    RunInfo {
        backend: engine.device(),
        threads: engine.threads(),
        sequences: 1,
        batch_rows: engine.max_rows() as u64,
        context: kv.context() as u64,
        kv_type: Some(kv.shape().layout.kind().name().to_owned()),
        ..RunInfo::default()
    }
}

/// What a live recording says about its run, against the roofline of the machine if that is known. `name` is the model's where the
/// file has none.
pub(super) fn about(engine: &Engine, model: &Model, name: &str, machine: Option<Machine>) -> About {
    let steps: &[StepInfo] = engine.steps();
    let roofline = |m: &Machine| BudgetTable::from(Roofline::new(m, steps, engine.threads()));
    About {
        model: super::profile::model_info(model, name),
        build: about::build(),
        run: RunInfo { timestamp: about::timestamp(), ..run_info(engine) },
        budgets: machine.as_ref().map(roofline),
        machine,
    }
}

/// Where runs of this user publish their sockets.
pub(super) fn directory() -> anyhow::Result<PathBuf> {
    let home = Machine::cache_path().and_then(|path| path.parent().map(|home| home.join("top")));
    home.context("there is no directory for sockets: set BRICK_HOME")
}

/// A recorder whose frames others can watch. It costs a run what `brick profile` costs it; while somebody watches, 1 % more.
pub(super) struct Watched {
    // The order of the fields is that of their end: the recorder first, then the socket.
    live: Live,
    _publisher: Publisher,
}

impl Watched {
    /// Opens the socket of this process. Limits of the machine are used where they are known, and not measured: that takes seconds.
    pub(super) fn open(engine: &Engine, model: &Model, name: &str) -> anyhow::Result<Self> {
        let about = about(engine, model, name, super::machine::known());
        if about.machine.is_none() {
            output::note("note: no budgets, since this machine has not been measured; `brick machine` does that");
        }
        let (publisher, tap) = Publisher::open(&directory()?)?;
        tracing::info!(socket = %publisher.path().display(), "brick top can watch");
        Ok(Self { live: Live::new(engine.steps(), Live::KEPT, about, tap), _publisher: publisher })
    }

    /// A generation that can be watched.
    pub(super) fn generate(
        &mut self,
        session: &mut Session<'_>,
        prompt: &[u32],
        options: &GenerateOptions,
        stop: &AtomicBool,
        show: &mut dyn FnMut(&str),
    ) -> Result<Generation, GenerateError> {
        let generation = session.generate(prompt, options, &mut self.live, stop, show)?;
        count(&mut self.live, &generation);
        self.live.flush();
        Ok(generation)
    }
}

/// Adds a generation to what a recording says about its run.
pub(super) fn count(live: &mut Live, generation: &Generation) {
    let run = live.run_mut();
    run.prompt_tokens += generation.timings.prompt_tokens as u64;
    run.generated_tokens += generation.ids.len() as u64;
}
