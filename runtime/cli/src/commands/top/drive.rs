//! Running a model to be looked at.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use brick_profiler::profile::PromptKind;
use brick_runtime::{FinishReason, GenerateOptions, Model, SamplerOptions, Session};
use brick_top::live::{Live, Tap, channel};
use brick_top::report::SourceKind;

use super::source::Source;
use super::terminal::{self, End};
use crate::args::TopArgs;
use crate::{commands, exit, load, output, progress};

/// Tokens of a report when nothing is said.
const TOKENS: u32 = 64;

/// A prompt, then tokens: once to warm up and once recorded, then the report.
pub(super) fn report(args: &TopArgs, name: &str) -> anyhow::Result<ExitCode> {
    let tokens = args.tokens.unwrap_or(TOKENS) as usize;
    let model = load::model(name)?;
    // Nobody looks before it is over.
    let (tap, _samples) = channel(0);
    let mut run = Run::new(args, name, &model, Some(tokens), tokens, tap)?;
    let stop = progress::interrupted();
    for warm_up in [true, false] {
        run.live.set_enabled(!warm_up);
        if run.once(&stop)? == FinishReason::Cancelled {
            output::error("interrupted: nothing was reported");
            return Ok(ExitCode::from(exit::INTERRUPTED));
        }
    }
    let snapshot = run.live.into_sample(None).snapshot()?;
    super::headless::finish(args, &snapshot, SourceKind::Driven)
}

/// The same prompt and its tokens again and again, shown until the user has seen enough.
pub(super) fn view(args: &TopArgs, name: &str) -> anyhow::Result<ExitCode> {
    // Before the screen: a model may have to be pulled, and the machine to be measured.
    let model = load::model(name)?;
    let (tap, samples) = channel(1);
    let mut run = Run::new(args, name, &model, args.tokens.map(|n| n as usize), Live::KEPT, tap)?;
    // The signals' flag ends the view, and the view's end ends the run.
    let (signalled, stop) = (progress::interrupted(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Engine and gang stay on the thread that made them.
        let screen = std::thread::Builder::new().name("brick-top-screen".into()).spawn_scoped(scope, || {
            let _ended = SetAtEnd(&stop);
            terminal::show(&Source::Driven(samples), &signalled)
        });
        let screen = screen.context("cannot start a thread")?;
        let ran = run.until(&stop);
        // The recorder's end of the channel goes with the run: that tells the view of an error.
        drop(run);
        let end = screen.join().map_err(|_| anyhow::anyhow!("the view panicked; the message is above"))?;
        ran?;
        Ok(match end? {
            End::Quit | End::Source => ExitCode::SUCCESS,
            End::Interrupted => ExitCode::from(exit::INTERRUPTED),
        })
    })
}

/// Sets a flag when it goes, also in a panic: a run that nobody sees has to end.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A model that answers the same prompt whenever it is asked.
struct Run<'m> {
    session: Session<'m>,
    prompt: Vec<u32>,
    options: GenerateOptions,
    live: Live,
}

impl<'m> Run<'m> {
    /// `tokens` are decoded after the prompt, or as many as the context holds; the times of `kept` forward calls are kept.
    fn new(
        args: &TopArgs,
        name: &str,
        model: &'m Model,
        tokens: Option<usize>,
        kept: usize,
        tap: Tap,
    ) -> anyhow::Result<Self> {
        let prompt = match &args.prompt {
            Some(text) => commands::run::prompt_ids(model, text, None, false)?,
            None => commands::profile::synthetic_prompt(args.pp as usize, model.spec.vocab),
        };
        // The first token comes from the prompt's own logits; every further one is a decoded one.
        let needed = prompt.len() + tokens.unwrap_or(1) + 1;
        let mut options = load::engine_options(&args.engine, model)?;
        options.device = args.engine.device.cpu("brick top")?;
        if args.engine.ctx.is_none() {
            options.context = options.context.max(needed);
        }
        if needed > options.context {
            bail!("{needed} positions are needed (prompt, tokens, 1), --ctx gives {}", options.context);
        }
        // Before threads are running: measuring wants a quiet machine.
        let machine = commands::machine::get(false)?;
        let engine = model.engine(&options).context("cannot set up the engine")?;
        let mut about = commands::live::about(&engine, model, name, Some(machine));
        about.run.prompt = if args.prompt.is_some() { PromptKind::Text } else { PromptKind::Synthetic };
        let live = Live::new(engine.steps(), kept.max(prompt.len().div_ceil(options.max_rows)), about, tap);
        let session = Session::new(engine, &model.tokenizer, model.spec.context_length)?;
        let options = GenerateOptions {
            sampler: SamplerOptions::default(),
            max_tokens: tokens.map(|n| n + 1),
            ignore_eos: true,
            ..GenerateOptions::default()
        };
        Ok(Self { session, prompt, options, live })
    }

    /// The prompt from the beginning, and its tokens.
    fn once(&mut self, stop: &AtomicBool) -> anyhow::Result<FinishReason> {
        self.session.reset()?;
        let generation = self.session.generate(&self.prompt, &self.options, &mut self.live, stop, &mut |_| {})?;
        commands::live::count(&mut self.live, &generation);
        Ok(generation.finish)
    }

    /// Again and again.
    fn until(&mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.once(stop)?;
            self.live.flush();
        }
        Ok(())
    }
}
