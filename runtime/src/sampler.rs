//! Choosing the next token.
//!
//! The chain is data: stages run in the order of [`SamplerOptions::chain`], by default llama.cpp's
//! (penalties → top-k → top-p → min-p → temperature). With temperature 0 the choice is greedy: the highest logit after
//! penalties, the lowest id among equals.

mod pool;
#[cfg(test)]
mod tests;

pub use bricks::cpu::argmax;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};

use pool::{Pool, Scratch, first_nan};

/// One stage of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Repetition penalty over the last tokens.
    Penalties,
    /// Keep the k best.
    TopK,
    /// Keep the smallest set that reaches mass p (nucleus sampling, arXiv 1904.09751).
    TopP,
    /// Drop what is less likely than `min_p` times the best (arXiv 2407.01082).
    MinP,
    /// Divide logits by the temperature.
    Temperature,
}

/// llama.cpp's order of stages.
pub const DEFAULT_CHAIN: [Stage; 5] = [Stage::Penalties, Stage::TopK, Stage::TopP, Stage::MinP, Stage::Temperature];

/// How to choose tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplerOptions {
    /// 0 is greedy; 1 samples from the model's own distribution.
    pub temperature: f32,
    /// Keep the k best; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set with this probability mass; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this times the best; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens (CTRL, arXiv 1909.05858); 1 is off.
    pub repeat_penalty: f32,
    /// How many recent tokens the penalty looks at.
    pub repeat_last_n: usize,
    /// Seed of the random numbers: the same seed, prompt and model give the same text.
    pub seed: u64,
    /// Order of the stages.
    pub chain: Vec<Stage>,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: 0,
            chain: DEFAULT_CHAIN.to_vec(),
        }
    }
}

/// Options or logits a sampler cannot work with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplerError {
    /// An option is out of range.
    #[error("{name} must be {expected}, found {found}")]
    Option {
        /// The option.
        name: &'static str,
        /// Its range.
        expected: &'static str,
        /// The value given.
        found: f32,
    },
    /// The model produced no usable number.
    #[error(
        "logits of the last position hold NaN or no finite value (first bad token id {token}): the weights are damaged or a kernel is wrong; `brick check` finds the brick"
    )]
    NotFinite {
        /// First token id whose logit is NaN (or 0 when all are −∞).
        token: usize,
    },
}

impl SamplerOptions {
    /// Whether the choice is the largest logit as it is, so that nothing else of the logits is needed.
    pub fn is_arg_max(&self) -> bool {
        self.temperature == 0.0 && self.repeat_penalty == 1.0
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`SamplerError::Option`] names the first option out of range.
    pub fn validate(&self) -> Result<(), SamplerError> {
        let check = |ok: bool, name, expected, found| {
            if ok { Ok(()) } else { Err(SamplerError::Option { name, expected, found }) }
        };
        let t = self.temperature;
        check(t.is_finite() && t >= 0.0, "temperature", "a finite number, 0 or more", t)?;
        check(self.top_p > 0.0 && self.top_p <= 1.0, "top-p", "above 0 and at most 1", self.top_p)?;
        check((0.0..=1.0).contains(&self.min_p), "min-p", "between 0 and 1", self.min_p)?;
        let r = self.repeat_penalty;
        check(r.is_finite() && r > 0.0, "repeat-penalty", "a finite number above 0", r)
    }
}

/// A sampler with its scratch memory: sampling allocates nothing.
#[derive(Debug)]
pub struct Sampler {
    options: SamplerOptions,
    rng: ChaCha8Rng,
    scratch: Scratch,
}

impl Sampler {
    /// A sampler for a vocabulary of `vocab` tokens.
    ///
    /// # Errors
    /// When an option is out of range.
    pub fn new(options: SamplerOptions, vocab: usize) -> Result<Self, SamplerError> {
        options.validate()?;
        let rng = ChaCha8Rng::seed_from_u64(options.seed);
        Ok(Self { options, rng, scratch: Scratch::new(vocab) })
    }

    /// The options it was made with.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// Chooses a token. `recent` is the whole history; the penalty looks at its end.
    ///
    /// # Errors
    /// [`SamplerError::NotFinite`] when a logit is NaN or none is finite.
    pub fn sample(&mut self, logits: &[f32], recent: &[u32]) -> Result<u32, SamplerError> {
        if let Some(token) = first_nan(logits) {
            return Err(SamplerError::NotFinite { token });
        }
        let Self { options: o, rng, scratch } = self;
        let penalised = o.repeat_penalty != 1.0 && o.chain.contains(&Stage::Penalties) && o.repeat_last_n > 0;
        let mut pool = scratch.pool(logits);
        if o.temperature == 0.0 {
            if penalised {
                penalise(&mut pool, recent, o);
            }
            return pool.best().ok_or(SamplerError::NotFinite { token: 0 });
        }
        for stage in &o.chain {
            match stage {
                Stage::Penalties if penalised => penalise(&mut pool, recent, o),
                Stage::TopK if o.top_k > 0 => pool.keep_best(o.top_k),
                Stage::TopP if o.top_p < 1.0 => pool.keep_mass(o.top_p),
                Stage::MinP if o.min_p > 0.0 => pool.keep_likely(o.min_p),
                Stage::Temperature => pool.divide(o.temperature),
                _ => {}
            }
        }
        // 53 random bits: uniform in [0, 1).
        pool.draw(|| (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64).ok_or(SamplerError::NotFinite { token: 0 })
    }
}

fn penalise(pool: &mut Pool<'_>, recent: &[u32], o: &SamplerOptions) {
    let window = &recent[recent.len().saturating_sub(o.repeat_last_n)..];
    for (i, &id) in window.iter().enumerate() {
        // Once per token, however often it occurs.
        if !window[..i].contains(&id) {
            pool.change(id, |x| if x > 0.0 { x / o.repeat_penalty } else { x * o.repeat_penalty });
        }
    }
}

/// A token with its log-probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// Token id.
    pub id: u32,
    /// Natural logarithm of its probability at temperature 1, before any sampling stage.
    pub logprob: f32,
}

/// The `n` most likely tokens, best first, and the log-probability of `chosen`.
pub fn top_logprobs(logits: &[f32], n: usize, chosen: Option<u32>) -> (Vec<TokenLogprob>, Option<f32>) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    let log_z = f64::from(max) + sum.ln();
    let logprob = |id: u32| (f64::from(logits[id as usize]) - log_z) as f32;
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let by = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let n = n.min(ids.len());
    if n > 0 && n < ids.len() {
        ids.select_nth_unstable_by(n - 1, by);
    }
    ids.truncate(n);
    ids.sort_unstable_by(by);
    let top = ids.into_iter().map(|id| TokenLogprob { id, logprob: logprob(id) }).collect();
    (top, chosen.filter(|&c| (c as usize) < logits.len()).map(logprob))
}
