//! How well a model predicts a text.
//!
//! The method is that of llama.cpp's `perplexity` tool, so that figures can be compared: the tokens are cut into chunks of
//! `context` tokens (a rest at the end is dropped), each chunk starts from an empty cache, and of each chunk the tokens of the
//! second half are predicted and counted, so that every prediction sees at least half a chunk. A model that wants BOS gets it
//! in place of the first token of each chunk. The perplexity is `exp` of the mean negative log-likelihood; its standard error
//! is that of the mean, which takes tokens for independent.

use std::ops::Range;

use serde::Serialize;

use crate::batch::{Batch, Row};
use crate::engine::{Engine, EngineError};
use crate::kv::SequenceId;

/// Rows whose logits are wanted in one call: bounds the memory of logits (for 150,000 tokens, 0.6 MB a row).
pub const MAX_WANTED: usize = 64;

/// Shortest chunk: with fewer tokens no token of the second half has another before it that is predicted, too.
pub const MIN_CONTEXT: usize = 4;

/// A perplexity cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum PerplexityError {
    /// Chunks too short to have a second half.
    #[error("chunks of {context} tokens: expected at least {MIN_CONTEXT}")]
    Context {
        /// Asked for.
        context: usize,
    },
    /// Not one chunk.
    #[error("the text has {tokens} tokens, one chunk takes {context}: expected a longer text or a smaller context")]
    TooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a chunk.
        context: usize,
    },
    /// Logits from which no probability follows.
    #[error("the logits after token {token} of chunk {chunk} give token {id} no probability: they are not all finite")]
    Logits {
        /// Chunk, from 0.
        chunk: usize,
        /// Position in the chunk.
        token: usize,
        /// The token that follows.
        id: u32,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Negative log-likelihoods, in nats, summed up.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Score {
    /// Tokens that were predicted.
    pub tokens: u64,
    /// Sum of their negative log-likelihoods.
    pub nll: f64,
    /// Sum of the squares.
    pub nll_squared: f64,
}

impl Score {
    /// Adds a token.
    pub fn add(&mut self, nll: f64) {
        self.tokens += 1;
        self.nll += nll;
        self.nll_squared += nll * nll;
    }

    /// Adds the tokens of another score.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.nll += other.nll;
        self.nll_squared += other.nll_squared;
    }

    /// Mean negative log-likelihood of a token; `None` without tokens.
    pub fn mean(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.nll / self.tokens as f64)
    }

    /// Standard error of the mean; `None` with fewer than two tokens.
    pub fn standard_error(&self) -> Option<f64> {
        let n = self.tokens as f64;
        let mean = self.mean().filter(|_| self.tokens > 1)?;
        // Rounding may leave a variance of zero below zero.
        Some(((self.nll_squared / n - mean * mean).max(0.0) / (n - 1.0)).sqrt())
    }

    /// `exp` of the mean.
    pub fn perplexity(&self) -> Option<f64> {
        self.mean().map(f64::exp)
    }

    /// Standard error of the perplexity, to first order: that of the mean times the perplexity.
    pub fn perplexity_error(&self) -> Option<f64> {
        Some(self.standard_error()? * self.perplexity()?)
    }
}

/// Tokens cut into chunks.
#[derive(Debug, Clone)]
pub struct Chunks {
    tokens: Vec<u32>,
    context: usize,
    bos: Option<u32>,
}

impl Chunks {
    /// Cuts `tokens` into chunks of `context`; `bos` replaces the first token of each.
    ///
    /// # Errors
    /// When chunks are too short, or the text is shorter than one.
    pub fn new(tokens: Vec<u32>, context: usize, bos: Option<u32>) -> Result<Self, PerplexityError> {
        if context < MIN_CONTEXT {
            return Err(PerplexityError::Context { context });
        }
        if tokens.len() < context {
            return Err(PerplexityError::TooShort { tokens: tokens.len(), context });
        }
        Ok(Self { tokens, context, bos })
    }

    /// The tokens of the text.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Number of chunks.
    pub fn len(&self) -> usize {
        self.tokens.len() / self.context
    }

    /// Never: a text shorter than a chunk is an error.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions of a chunk whose logits predict a token that counts: the token after each.
    pub fn counted(&self) -> Range<usize> {
        self.context / 2..self.context - 1
    }

    /// Predicts the second half of chunk `chunk` and scores it. The sequence is emptied first.
    ///
    /// # Errors
    /// A chunk outside the text (by the engine: an empty batch), logits that are not finite, an engine failure.
    pub fn score(&self, chunk: usize, engine: &mut Engine, sequence: SequenceId) -> Result<Score, PerplexityError> {
        engine.kv_mut().truncate(sequence, 0).map_err(EngineError::from)?;
        let tokens = self.tokens.chunks_exact(self.context).nth(chunk).unwrap_or_default();
        let (counted, max_rows) = (self.counted(), engine.max_rows());
        let most_wanted = engine.max_wanted();
        let mut batch = Batch::with_capacity(max_rows);
        let mut score = Score::default();
        let mut position = 0;
        // The last token predicts nothing that counts.
        let end = tokens.len().saturating_sub(1);
        loop {
            let wanted = position >= counted.start;
            let limit = if wanted { end } else { counted.start };
            let rows = if wanted { max_rows.min(most_wanted) } else { max_rows };
            let next = limit.min(position + rows);
            batch.clear();
            for (i, &token) in tokens.iter().enumerate().take(next).skip(position) {
                let token = self.bos.filter(|_| i == 0).unwrap_or(token);
                batch.push(Row { token, position: i, sequence, wanted });
            }
            let logits = engine.forward_quiet(&batch)?;
            for (row, i) in (position..next).enumerate().take(logits.len()) {
                let id = tokens[i + 1];
                let nll = negative_log_likelihood(logits.row(row), id).ok_or(PerplexityError::Logits {
                    chunk,
                    token: i,
                    id,
                })?;
                score.add(nll);
            }
            position = next;
            if position >= end {
                return Ok(score);
            }
        }
    }
}

/// `-ln softmax(logits)[id]`; `None` if that is not a finite number.
fn negative_log_likelihood(logits: &[f32], id: u32) -> Option<f64> {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - max).exp()).sum();
    let nll = sum.ln() - (f64::from(*logits.get(id as usize)?) - max);
    nll.is_finite().then_some(nll)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn equal_logits_are_as_surprising_as_there_are_tokens() {
        for n in [2_usize, 7, 50_000] {
            let nll = negative_log_likelihood(&vec![-3.5; n], 1).unwrap();
            assert!((nll - (n as f64).ln()).abs() < 1e-12, "{n}: {nll}");
        }
    }

    #[test]
    fn likelihoods_sum_to_one_however_large_the_logits() {
        let logits: Vec<f32> = (0..1000).map(|i| (i * 37 % 101) as f32 * 3.0 + 8000.0).collect();
        let sum: f64 = (0..1000).map(|id| (-negative_log_likelihood(&logits, id).unwrap()).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn logits_that_are_not_finite_give_no_number() {
        assert_eq!(negative_log_likelihood(&[0.0, f32::NAN, 1.0], 0), None);
        assert_eq!(negative_log_likelihood(&[0.0, f32::INFINITY], 0), None);
        assert_eq!(negative_log_likelihood(&[f32::NEG_INFINITY; 2], 0), None);
        assert_eq!(negative_log_likelihood(&[0.0], 1), None, "outside the vocabulary");
        assert!(negative_log_likelihood(&[0.0, f32::NEG_INFINITY], 0).is_some(), "a token may be impossible");
    }

    #[test]
    fn the_standard_error_is_that_of_a_mean() {
        let mut s = Score::default();
        assert_eq!((s.perplexity(), s.standard_error()), (None, None));
        s.add(1.0);
        assert_eq!((s.mean(), s.standard_error()), (Some(1.0), None));
        let mut rest = Score::default();
        for x in [2.0, 3.0, 4.0] {
            rest.add(x);
        }
        s.merge(&rest);
        assert_eq!(s.mean(), Some(2.5));
        // Sample variance of 1..=4 is 5/3; of the mean of four, 5/12.
        assert!((s.standard_error().unwrap() - (5.0_f64 / 12.0).sqrt()).abs() < 1e-12);
        assert!((s.perplexity_error().unwrap() - (5.0_f64 / 12.0).sqrt() * 2.5_f64.exp()).abs() < 1e-9);
    }

    #[test]
    fn chunks_and_what_is_counted() {
        let chunks = Chunks::new((0..35).collect(), 8, None).unwrap();
        assert_eq!((chunks.len(), chunks.counted()), (4, 4..7));
        let odd = Chunks::new((0..35).collect(), 7, None).unwrap();
        assert_eq!((odd.len(), odd.counted()), (5, 3..6));
        assert!(matches!(Chunks::new(vec![1; 7], 8, None), Err(PerplexityError::TooShort { tokens: 7, context: 8 })));
        assert!(matches!(Chunks::new(vec![1; 7], 3, None), Err(PerplexityError::Context { context: 3 })));
    }
}
