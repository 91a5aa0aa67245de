//! Forward calls against the clock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use brick_runtime::{Batch, Engine, EngineError, Row, SequenceId};
use serde::Serialize;

/// Decode steps before the clock starts: weights are in the caches and threads are awake.
const WARM_UP_STEPS: usize = 8;

/// What is done against the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A prompt, in calls of as many rows as the engine takes.
    Prefill,
    /// One token a call (of each sequence).
    Decode,
}

/// One line of the table, but for the threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Test {
    pub(super) kind: Kind,
    /// Tokens of each sequence.
    pub(super) tokens: usize,
    /// Positions of each sequence that are filled before the clock starts.
    pub(super) depth: usize,
    /// Sequences that are computed together.
    pub(super) sequences: usize,
}

impl Test {
    /// Positions a sequence needs.
    pub(super) fn positions(&self) -> usize {
        self.depth + self.tokens
    }
}

/// The name of the line: `pp512`, `tg128 @ 4096 x8`.
impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Prefill => "pp",
            Kind::Decode => "tg",
        };
        write!(f, "{kind}{}", self.tokens)?;
        if self.depth > 0 {
            write!(f, " @ {}", self.depth)?;
        }
        if self.sequences > 1 {
            write!(f, " x{}", self.sequences)?;
        }
        Ok(())
    }
}

/// An engine with its sequences.
pub(super) struct Runner<'s> {
    engine: Engine,
    sequences: Vec<SequenceId>,
    batch: Batch,
    stop: &'s AtomicBool,
    first_forward_ms: Option<f64>,
}

impl<'s> Runner<'s> {
    /// # Errors
    /// When the engine has no room for `sequences` sequences.
    pub(super) fn new(mut engine: Engine, sequences: usize, stop: &'s AtomicBool) -> Result<Self, EngineError> {
        let sequences = (0..sequences).map(|_| engine.new_sequence()).collect::<Result<_, _>>()?;
        let batch = Batch::with_capacity(engine.plan().max_rows);
        Ok(Self { engine, sequences, batch, stop, first_forward_ms: None })
    }

    /// How long the engine's first forward call took, whatever it was; `None` before it.
    pub(super) fn first_forward_ms(&self) -> Option<f64> {
        self.first_forward_ms
    }

    /// Tokens per second of all sequences together, `repeat` times after a warm-up; `None` when interrupted. `done` is called
    /// after each repetition, the warm-up included.
    ///
    /// # Errors
    /// When the engine fails.
    pub(super) fn measure(
        &mut self,
        test: Test,
        repeat: u32,
        mut done: impl FnMut(),
    ) -> Result<Option<Vec<f64>>, EngineError> {
        self.rewind(self.sequences.len(), 0)?;
        if !self.prefill(test.sequences, 0, test.depth)? {
            return Ok(None);
        }
        let warm_up = match test.kind {
            Kind::Prefill => test,
            Kind::Decode => Test { tokens: test.tokens.min(WARM_UP_STEPS), ..test },
        };
        let mut tok_s = Vec::with_capacity(repeat as usize);
        for repetition in 0..=repeat {
            let run = if repetition == 0 { warm_up } else { test };
            let start = Instant::now();
            let complete = match run.kind {
                Kind::Prefill => self.prefill(run.sequences, run.depth, run.tokens)?,
                Kind::Decode => self.decode(run.sequences, run.depth, run.tokens)?,
            };
            let seconds = start.elapsed().as_secs_f64();
            if !complete {
                return Ok(None);
            }
            if repetition > 0 {
                tok_s.push((run.tokens * run.sequences) as f64 / seconds);
            }
            self.rewind(run.sequences, run.depth)?;
            done();
        }
        Ok(Some(tok_s))
    }

    /// Shortens the first `n` sequences to `len`.
    fn rewind(&mut self, n: usize, len: usize) -> Result<(), EngineError> {
        for &sequence in &self.sequences[..n] {
            self.engine.kv_mut().truncate(sequence, len)?;
        }
        Ok(())
    }

    /// Adds `tokens` tokens to each of the first `n` sequences, one sequence after the other, in as few calls as possible;
    /// false when interrupted.
    fn prefill(&mut self, n: usize, from: usize, tokens: usize) -> Result<bool, EngineError> {
        let max_rows = self.engine.plan().max_rows;
        self.batch.clear();
        for s in 0..n {
            for position in from..from + tokens {
                self.push(s, position, position + 1 == from + tokens);
                if self.batch.len() == max_rows && !self.forward()? {
                    return Ok(false);
                }
            }
        }
        if self.batch.is_empty() { Ok(true) } else { self.forward() }
    }

    /// Adds `steps` tokens to each of the first `n` sequences, one token of each in a call; false when interrupted.
    fn decode(&mut self, n: usize, from: usize, steps: usize) -> Result<bool, EngineError> {
        for position in from..from + steps {
            self.batch.clear();
            for s in 0..n {
                self.push(s, position, true);
            }
            if !self.forward()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn push(&mut self, sequence: usize, position: usize, wanted: bool) {
        let token = synthetic_token(position, self.engine.vocab());
        self.batch.push(Row { token, position, sequence: self.sequences[sequence], wanted });
    }

    /// Runs the batch and empties it; false, and nothing run, when interrupted.
    fn forward(&mut self) -> Result<bool, EngineError> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let start = self.first_forward_ms.is_none().then(Instant::now);
        self.engine.forward_quiet(&self.batch)?;
        if let Some(start) = start {
            self.first_forward_ms = Some(super::ms(start));
        }
        self.batch.clear();
        Ok(true)
    }
}

/// The tokens of `brick profile`'s synthetic prompt: what a text says makes no difference to its cost.
fn synthetic_token(position: usize, vocab: usize) -> u32 {
    ((position * 7919 + 101) % vocab) as u32
}
