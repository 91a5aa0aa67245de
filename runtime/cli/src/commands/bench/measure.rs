//! Forward calls against the clock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use brick_runtime::{Batch, Engine, EngineError, Row, SequenceId};
use bricks::Extent;
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
    /// Sizes of the forward calls, if a call has at most `max_rows` rows.
    pub(super) fn calls(&self, max_rows: usize) -> Vec<Extent> {
        let n = self.sequences as u64;
        let call = |tokens: usize, context: usize| {
            let one = Extent::one_sequence(tokens as u64, context as u64, 1);
            // What sequences do, they do side by side.
            Extent { tokens: one.tokens * n, wanted: n, context: one.context * n, pairs: one.pairs * n }
        };
        match self.kind {
            Kind::Decode => (0..self.tokens).map(|i| call(1, self.depth + i + 1)).collect(),
            Kind::Prefill => {
                let rows = (max_rows / self.sequences).max(1);
                let starts = (0..self.tokens).step_by(rows);
                starts
                    .map(|from| (rows.min(self.tokens - from), from))
                    .map(|(n, from)| call(n, self.depth + from + n))
                    .collect()
            }
        }
    }

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
        let batch = Batch::with_capacity(engine.max_rows());
        Ok(Self { engine, sequences, batch, stop, first_forward_ms: None })
    }

    /// How long the engine's first forward call took, whatever it was; `None` before it.
    pub(super) fn first_forward_ms(&self) -> Option<f64> {
        self.first_forward_ms
    }

    /// Fills the context up to the depth of a test and warms up; false when interrupted.
    ///
    /// # Errors
    /// When the engine fails.
    pub(super) fn prepare(&mut self, test: Test) -> Result<bool, EngineError> {
        self.rewind(self.sequences.len(), 0)?;
        if !self.prefill(test.sequences, 0, test.depth)? {
            return Ok(false);
        }
        let warm_up = match test.kind {
            Kind::Prefill => test,
            Kind::Decode => Test { tokens: test.tokens.min(WARM_UP_STEPS), ..test },
        };
        Ok(self.once(warm_up)?.is_some())
    }

    /// Tokens per second of all sequences together, once, after [`prepare`](Self::prepare); `None` when interrupted.
    ///
    /// # Errors
    /// When the engine fails.
    pub(super) fn once(&mut self, test: Test) -> Result<Option<f64>, EngineError> {
        let start = Instant::now();
        let complete = match test.kind {
            Kind::Prefill => self.prefill(test.sequences, test.depth, test.tokens)?,
            Kind::Decode => self.decode(test.sequences, test.depth, test.tokens)?,
        };
        let seconds = start.elapsed().as_secs_f64();
        self.rewind(test.sequences, test.depth)?;
        Ok(complete.then(|| (test.tokens * test.sequences) as f64 / seconds))
    }

    /// The engine.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
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
        let max_rows = self.engine.max_rows();
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
pub(super) fn synthetic_token(position: usize, vocab: usize) -> u32 {
    ((position * 7919 + 101) % vocab) as u32
}
