//! A conversation with a model: tokens in, text out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use brick_models::tokenizer::{DecodeOptions, StreamDecoder, Tokenizer, UnknownToken};
use brick_profiler::Recorder;
use bricks::BrickKind;
use serde::Serialize;

use crate::batch::{Batch, Row};
use crate::engine::{Engine, EngineError};
use crate::kv::SequenceId;
use crate::sampler::{Sampler, SamplerError, SamplerOptions, TokenLogprob, top_logprobs};
use crate::speculate::{Speculation, SpeculationStats, Speculator};
use crate::stop::{StopFilter, StopOutcome};

/// When to stop, how to choose, what to report.
#[derive(Debug, Clone, Default)]
pub struct GenerateOptions {
    /// How tokens are chosen.
    pub sampler: SamplerOptions,
    /// Tokens to generate at most; `None` goes on until the model or the context ends.
    pub max_tokens: Option<usize>,
    /// Text that ends the answer (and is not part of it).
    pub stop: Vec<String>,
    /// Goes on when the model says it is done (for measuring).
    pub ignore_eos: bool,
    /// Report this many most likely tokens at every generated position.
    pub logprobs: Option<usize>,
    /// Report them for the positions of the prompt as well.
    pub echo: bool,
    /// Whether the text so far proposes how it goes on. Changes the speed, never the answer.
    pub speculation: Speculation,
}

/// Why generation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason", content = "detail")]
pub enum FinishReason {
    /// The model produced this end-of-generation token.
    EndOfText(u32),
    /// This stop string appeared.
    Stop(String),
    /// As many tokens as asked for.
    MaxTokens,
    /// The context is full: the text is cut off.
    ContextFull {
        /// Positions there are.
        context: usize,
    },
    /// The caller asked to stop.
    Cancelled,
}

/// Times of one generation, in nanoseconds of wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Timings {
    /// Prompt tokens that were computed (not found in the cache).
    pub prompt_tokens: usize,
    /// Prompt tokens that were in the cache already.
    pub cached_tokens: usize,
    /// Computing the prompt, until its last logits.
    pub prompt_ns: u64,
    /// From the call to the first generated token.
    pub first_token_ns: u64,
    /// Tokens generated after the first.
    pub decode_tokens: usize,
    /// Time for these.
    pub decode_ns: u64,
}

impl Timings {
    /// Prompt tokens per second.
    pub fn prompt_tok_s(&self) -> Option<f64> {
        rate(self.prompt_tokens, self.prompt_ns)
    }

    /// Generated tokens per second, the first not counted.
    pub fn decode_tok_s(&self) -> Option<f64> {
        rate(self.decode_tokens, self.decode_ns)
    }
}

fn rate(n: usize, ns: u64) -> Option<f64> {
    (n > 0 && ns > 0).then(|| n as f64 * 1e9 / ns as f64)
}

/// The most likely tokens at one position, and the token that stands there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PositionLogprobs {
    /// Position in the sequence of the token that is predicted.
    pub position: usize,
    /// The token that stands there (of the prompt, or chosen).
    pub id: u32,
    /// Its log-probability, given everything before it.
    pub logprob: Option<f32>,
    /// The most likely tokens, best first.
    pub top: Vec<TokenLogprob>,
}

/// What a generation produced.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generation {
    /// Generated ids, an end-of-generation token included.
    pub ids: Vec<u32>,
    /// Their text, without special tokens and without a stop string.
    pub text: String,
    /// Why it ended.
    pub finish: FinishReason,
    /// Times.
    pub timings: Timings,
    /// Log-probabilities, if asked for.
    pub logprobs: Vec<PositionLogprobs>,
    /// What speculation did.
    pub speculation: SpeculationStats,
}

/// Generation failed.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Nothing to start from.
    #[error("the prompt is empty: a model needs at least one token to continue from")]
    EmptyPrompt,
    /// The prompt does not fit.
    #[error(
        "the prompt has {tokens} tokens, the context holds {context}; raise --ctx (the model was trained for {trained}) or shorten the prompt"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Positions of the context.
        context: usize,
        /// Context length of the model.
        trained: usize,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The sampler failed.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// A generated token has no text: model and tokenizer do not belong together.
    #[error(transparent)]
    Tokenizer(#[from] UnknownToken),
}

/// An engine, a tokenizer, and one sequence with its history.
#[derive(Debug)]
pub struct Session<'m> {
    engine: Engine,
    tokenizer: &'m Tokenizer,
    sequence: SequenceId,
    /// Tokens in the KV cache.
    tokens: Vec<u32>,
    batch: Batch,
    trained_context: usize,
    /// Of the last generation, if it speculated: costs, and an index of the text.
    speculator: Option<Speculator>,
}

impl<'m> Session<'m> {
    /// A session with an empty history. `trained_context` is the model's context length, for messages.
    ///
    /// # Errors
    /// When the engine has no free sequence.
    pub fn new(mut engine: Engine, tokenizer: &'m Tokenizer, trained_context: usize) -> Result<Self, EngineError> {
        let sequence = engine.new_sequence()?;
        let batch = Batch::with_capacity(engine.max_rows());
        let tokens = Vec::with_capacity(engine.kv().context());
        Ok(Self { engine, tokenizer, sequence, tokens, batch, trained_context, speculator: None })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine, to ask it what takes some doing. Sequences are the session's.
    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Tokens in the KV cache.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Forgets the history.
    ///
    /// # Errors
    /// When the sequence is gone, which only a bug can cause.
    pub fn reset(&mut self) -> Result<(), EngineError> {
        self.rewind(0)
    }

    fn rewind(&mut self, len: usize) -> Result<(), EngineError> {
        self.engine.kv_mut().truncate(self.sequence, len)?;
        self.tokens.truncate(len);
        Ok(())
    }

    /// Continues `prompt`, which is the **whole** conversation so far: what is already in the cache is not computed again.
    ///
    /// `on_text` gets the text as it is complete; `cancel` is looked at between tokens.
    ///
    /// # Errors
    /// An empty prompt, one that does not fit, logits that are not finite, or an engine failure. A context that fills up
    /// *during* generation is no error here but [`FinishReason::ContextFull`], so that the text so far is not lost.
    pub fn generate<R: Recorder>(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        recorder: &mut R,
        cancel: &AtomicBool,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Generation, GenerateError> {
        let start = Instant::now();
        let context = self.engine.kv().context();
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if prompt.len() > context {
            return Err(GenerateError::PromptTooLong { tokens: prompt.len(), context, trained: self.trained_context });
        }
        let sampler = Sampler::new(options.sampler.clone(), self.engine.vocab())?;
        let mut out = Output::new(self.tokenizer, options, on_text);

        // At least the last token is computed again: its logits are needed.
        let echo = options.echo && options.logprobs.is_some();
        let shared = self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count().min(prompt.len() - 1);
        let cached = if echo { 0 } else { shared };
        self.rewind(cached)?;
        if let Some(reason) = self.prefill(prompt, cached, echo, options, recorder, cancel, &mut out)? {
            let timings = Timings { cached_tokens: cached, ..Timings::default() };
            return Ok(out.finish(reason, timings));
        }
        let prompt_done = start.elapsed();
        let timings = Timings {
            prompt_tokens: prompt.len() - cached,
            cached_tokens: cached,
            prompt_ns: ns(prompt_done),
            ..Timings::default()
        };
        let mut speculator = self.take_speculator(options.speculation);
        if let Some(s) = &mut speculator {
            s.start(prompt, timings.prompt_tokens, timings.prompt_ns);
        }
        let mut run = Decoding {
            start,
            history: prompt.to_vec(),
            sampler,
            speculator,
            stats: SpeculationStats::default(),
            timings,
        };
        let reason = self.decode(&mut run, options, recorder, cancel, &mut out);
        self.speculator = run.speculator;
        // What was computed for drafted tokens after the last one of the answer.
        self.engine.kv_mut().truncate(self.sequence, self.tokens.len()).map_err(EngineError::from)?;
        out.speculation = run.stats;
        Ok(out.finish(reason?, run.timings))
    }

    /// The speculator of the last generation, or a new one.
    fn take_speculator(&mut self, mode: Speculation) -> Option<Speculator> {
        let max_draft = mode.max_draft().min(self.engine.max_wanted().min(self.engine.max_rows()) - 1);
        let old = self.speculator.take().filter(|s| s.mode() == mode);
        // The last token of an answer is not in the KV cache: one more than that holds.
        (max_draft > 0).then(|| old.unwrap_or_else(|| Speculator::new(mode, self.engine.kv().context() + 1, max_draft)))
    }

    /// Generates from the logits of the last forward call on.
    fn decode<R: Recorder>(
        &mut self,
        run: &mut Decoding,
        options: &GenerateOptions,
        recorder: &mut R,
        cancel: &AtomicBool,
        out: &mut Output<'_>,
    ) -> Result<FinishReason, GenerateError> {
        let context = self.engine.kv().context();
        let limit = options.max_tokens.unwrap_or(usize::MAX);
        let arg_max = run.sampler.options().is_arg_max() && options.logprobs.is_none();
        if !R::ENABLED && self.engine.gpu().is_some() && run.speculator.is_none() && arg_max {
            return self.decode_on_device(run, limit, cancel, out);
        }
        let mut first: Option<Instant> = None;
        // The row of the last call's logits that comes next, and how many drafted tokens that call had: row i is after the
        // i-th of them.
        let (mut row, mut drafted) = (self.engine.logits().len() - 1, 0);
        let mut forward_ns = 0;
        loop {
            if out.ids.len() >= limit {
                return Ok(FinishReason::MaxTokens);
            }
            let clock = R::ENABLED.then(Instant::now);
            let logits = self.engine.logits().row(row);
            let token = run.sampler.sample(logits, &run.history)?;
            if let Some(n) = options.logprobs {
                let (top, logprob) = top_logprobs(logits, n, Some(token));
                out.logprobs.push(PositionLogprobs { position: run.history.len(), id: token, logprob, top });
            }
            if let Some(clock) = clock {
                recorder.record_external(BrickKind::Sample, ns(clock.elapsed()));
            }
            match first {
                None => {
                    first = Some(Instant::now());
                    run.timings.first_token_ns = ns(run.start.elapsed());
                }
                Some(t) => {
                    run.timings.decode_tokens += 1;
                    run.timings.decode_ns = ns(t.elapsed());
                    run.stats.tokens += 1;
                }
            }
            run.history.push(token);
            let mut right = false;
            if let Some(s) = &mut run.speculator {
                s.observe(token);
                right = row < drafted && s.drafted()[row] == token;
                run.stats.accepted += usize::from(right);
            }
            if let Some(reason) = out.token(token)? {
                return Ok(reason);
            }
            if out.ids.len() >= limit {
                return Ok(FinishReason::MaxTokens);
            }
            if cancel.load(Ordering::Relaxed) {
                return Ok(FinishReason::Cancelled);
            }
            if right {
                // Its row is in the KV cache, and the logits after it are there.
                self.tokens.push(token);
                row += 1;
                continue;
            }
            let position = self.tokens.len();
            self.engine.kv_mut().truncate(self.sequence, position).map_err(EngineError::from)?;
            if position >= context {
                return Ok(FinishReason::ContextFull { context });
            }
            self.batch.clear();
            self.batch.push(Row { token, position, sequence: self.sequence, wanted: true });
            if let Some(s) = &mut run.speculator {
                if forward_ns > 0 {
                    s.forwarded(forward_ns, row + 1);
                }
                // No further than the context, and not for tokens that nobody wants.
                let draft = s.draft((context - position - 1).min(limit - out.ids.len() - 1));
                drafted = draft.len();
                for (i, &token) in draft.iter().enumerate() {
                    self.batch.push(Row { token, position: position + 1 + i, sequence: self.sequence, wanted: true });
                }
            }
            let clock = run.speculator.is_some().then(Instant::now);
            self.engine.forward_observed(&self.batch, recorder, &mut crate::engine::NoObserver)?;
            forward_ns = clock.map_or(0, |c| ns(c.elapsed()).max(1));
            run.stats.drafted += drafted;
            run.stats.forwards += 1;
            self.tokens.push(token);
            row = 0;
        }
    }

    /// Generates greedily with every token going into the next step on the device: the host reads tokens some steps later.
    fn decode_on_device(
        &mut self,
        run: &mut Decoding,
        limit: usize,
        cancel: &AtomicBool,
        out: &mut Output<'_>,
    ) -> Result<FinishReason, GenerateError> {
        if limit == 0 {
            return Ok(FinishReason::MaxTokens);
        }
        let context = self.engine.kv().context();
        let logits = self.engine.logits();
        let first = run.sampler.sample(logits.row(logits.len() - 1), &run.history)?;
        let began = Instant::now();
        run.timings.first_token_ns = ns(run.start.elapsed());
        let mut finish = out.token(first)?;
        run.history.push(first);
        // The last token is never computed: it is told, and nothing follows from it.
        let steps = (context - self.tokens.len()).min(limit - 1);
        if finish.is_none() && steps > 0 {
            let mut failed = None;
            let before = self.tokens.len();
            let tokens = &mut self.tokens;
            let mut last = first;
            let done = self.engine.decode_greedy(&[(self.sequence, first)], steps, &mut |found| {
                tokens.push(std::mem::replace(&mut last, found[0]));
                run.history.push(found[0]);
                run.timings.decode_tokens += 1;
                run.timings.decode_ns = ns(began.elapsed());
                run.stats.tokens += 1;
                run.stats.forwards += 1;
                match out.token(found[0]) {
                    Ok(reason) => finish = reason,
                    Err(e) => failed = Some(e),
                }
                if finish.is_none() && cancel.load(Ordering::Relaxed) {
                    finish = Some(FinishReason::Cancelled);
                }
                finish.is_none() && failed.is_none()
            });
            if let Err(e) = done {
                // The sequence is as it was before.
                self.tokens.truncate(before);
                return Err(e.into());
            }
            if let Some(e) = failed {
                return Err(e);
            }
        }
        let full = FinishReason::ContextFull { context };
        Ok(finish.unwrap_or(if out.ids.len() >= limit { FinishReason::MaxTokens } else { full }))
    }

    /// Computes the prompt from `cached` on, in chunks. `Some` when cancelled.
    #[allow(clippy::too_many_arguments)]
    fn prefill<R: Recorder>(
        &mut self,
        prompt: &[u32],
        cached: usize,
        echo: bool,
        options: &GenerateOptions,
        recorder: &mut R,
        cancel: &AtomicBool,
        out: &mut Output<'_>,
    ) -> Result<Option<FinishReason>, GenerateError> {
        let chunk = if echo { self.engine.max_wanted() } else { self.engine.max_rows() };
        let mut at = cached;
        while at < prompt.len() {
            if cancel.load(Ordering::Relaxed) {
                return Ok(Some(FinishReason::Cancelled));
            }
            let end = (at + chunk).min(prompt.len());
            self.batch.clear();
            for (i, &token) in prompt[at..end].iter().enumerate() {
                let position = at + i;
                let wanted = echo || position + 1 == prompt.len();
                self.batch.push(Row { token, position, sequence: self.sequence, wanted });
            }
            let logits = self.engine.forward_observed(&self.batch, recorder, &mut crate::engine::NoObserver)?;
            if echo {
                for i in 0..logits.len() {
                    // Logits after position p speak about position p + 1; those after the last belong to the first
                    // generated token.
                    let position = at + i + 1;
                    if let Some(&id) = prompt.get(position) {
                        let (top, logprob) = top_logprobs(logits.row(i), options.logprobs.unwrap_or(0), Some(id));
                        out.logprobs.push(PositionLogprobs { position, id, logprob, top });
                    }
                }
            }
            self.tokens.extend_from_slice(&prompt[at..end]);
            at = end;
        }
        Ok(None)
    }
}

/// One generation after its prompt.
struct Decoding {
    start: Instant,
    /// Prompt and answer.
    history: Vec<u32>,
    sampler: Sampler,
    speculator: Option<Speculator>,
    stats: SpeculationStats,
    timings: Timings,
}

/// Collects tokens, text and log-probabilities.
struct Output<'a> {
    tokenizer: &'a Tokenizer,
    decoder: StreamDecoder<&'a Tokenizer>,
    filter: StopFilter,
    ignore_eos: bool,
    on_text: &'a mut dyn FnMut(&str),
    ids: Vec<u32>,
    text: String,
    logprobs: Vec<PositionLogprobs>,
    speculation: SpeculationStats,
}

impl<'a> Output<'a> {
    fn new(tokenizer: &'a Tokenizer, options: &GenerateOptions, on_text: &'a mut dyn FnMut(&str)) -> Self {
        Self {
            tokenizer,
            decoder: StreamDecoder::new(tokenizer, DecodeOptions { skip_special: true, keep_space_prefix: true }),
            filter: StopFilter::new(&options.stop),
            ignore_eos: options.ignore_eos,
            on_text,
            ids: Vec::new(),
            text: String::new(),
            logprobs: Vec::new(),
            speculation: SpeculationStats::default(),
        }
    }

    /// Takes a token; `Some` when it ends the generation.
    fn token(&mut self, token: u32) -> Result<Option<FinishReason>, GenerateError> {
        self.ids.push(token);
        if self.tokenizer.is_end_of_generation(token) {
            return Ok(if self.ignore_eos { None } else { Some(FinishReason::EndOfText(token)) });
        }
        let Some(text) = self.decoder.push(token)? else { return Ok(None) };
        match self.filter.push(text) {
            StopOutcome::Text(t) => {
                self.emit(&t);
                Ok(None)
            }
            StopOutcome::Stopped(t, stop) => {
                self.emit(&t);
                Ok(Some(FinishReason::Stop(stop)))
            }
        }
    }

    fn emit(&mut self, text: &str) {
        if !text.is_empty() {
            self.text.push_str(text);
            (self.on_text)(text);
        }
    }

    fn finish(mut self, finish: FinishReason, timings: Timings) -> Generation {
        if !matches!(finish, FinishReason::Stop(_)) {
            // Bytes of an unfinished character, then text that could have become a stop string.
            let tail = self.decoder.finish().map(str::to_owned);
            if let Some(tail) = tail {
                match self.filter.push(&tail) {
                    StopOutcome::Text(t) | StopOutcome::Stopped(t, _) => self.emit(&t),
                }
            }
            let held = self.filter.finish();
            self.emit(&held);
        }
        let Self { ids, text, logprobs, speculation, .. } = self;
        Generation { ids, text, finish, timings, logprobs, speculation }
    }
}

fn ns(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
