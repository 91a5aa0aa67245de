//! Choosing the next token.
//!
//! The chain is data: stages run in the order of [`SamplerOptions::chain`], by default llama.cpp's
//! (penalties → top-k → top-p → min-p → temperature). With temperature 0 the choice is greedy: the highest logit after
//! penalties, the lowest id among equals.

pub use bricks::cpu::argmax;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};

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

#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    logit: f32,
}

/// A sampler with its scratch memory: sampling allocates nothing.
#[derive(Debug)]
pub struct Sampler {
    options: SamplerOptions,
    rng: ChaCha8Rng,
    candidates: Vec<Candidate>,
    weights: Vec<f32>,
}

impl Sampler {
    /// A sampler for a vocabulary of `vocab` tokens.
    ///
    /// # Errors
    /// When an option is out of range.
    pub fn new(options: SamplerOptions, vocab: usize) -> Result<Self, SamplerError> {
        options.validate()?;
        let rng = ChaCha8Rng::seed_from_u64(options.seed);
        Ok(Self { options, rng, candidates: Vec::with_capacity(vocab), weights: Vec::with_capacity(vocab) })
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
        let o = &self.options;
        let penalised = o.repeat_penalty != 1.0 && o.chain.contains(&Stage::Penalties) && o.repeat_last_n > 0;
        if o.temperature == 0.0 && !penalised {
            return argmax(logits).ok_or(SamplerError::NotFinite { token: 0 });
        }
        self.candidates.clear();
        self.candidates.extend(logits.iter().enumerate().map(|(id, &logit)| Candidate { id: id as u32, logit }));
        if o.temperature == 0.0 {
            penalise(&mut self.candidates, recent, o);
            let best = self.candidates.iter().copied().reduce(|a, b| if b.logit > a.logit { b } else { a });
            return best
                .filter(|c| c.logit > f32::NEG_INFINITY)
                .map(|c| c.id)
                .ok_or(SamplerError::NotFinite { token: 0 });
        }
        for stage in &o.chain {
            let (c, w) = (&mut self.candidates, &mut self.weights);
            match stage {
                Stage::Penalties if penalised => penalise(c, recent, o),
                Stage::TopK if o.top_k > 0 && o.top_k < c.len() => {
                    c.select_nth_unstable_by(o.top_k - 1, order);
                    c.truncate(o.top_k);
                }
                Stage::TopP if o.top_p < 1.0 => top_p(c, w, o.top_p),
                Stage::MinP if o.min_p > 0.0 => min_p(c, o.min_p),
                Stage::Temperature => c.iter_mut().for_each(|c| c.logit /= o.temperature),
                _ => {}
            }
        }
        self.draw()
    }

    /// Draws from the softmax of what is left.
    fn draw(&mut self) -> Result<u32, SamplerError> {
        // A fixed order, so that the same random number means the same token whatever a selection left in place.
        self.candidates.sort_unstable_by(order);
        let total = softmax_weights(&self.candidates, &mut self.weights);
        if !(total.is_finite() && total > 0.0) {
            return Err(SamplerError::NotFinite { token: 0 });
        }
        // 53 random bits: uniform in [0, 1).
        let u = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = u * total;
        for (c, &w) in self.candidates.iter().zip(&self.weights) {
            left -= f64::from(w);
            if left < 0.0 {
                return Ok(c.id);
            }
        }
        // Rounding: the last candidate that has any weight.
        let last = self.candidates.iter().zip(&self.weights).rev().find(|(_, w)| **w > 0.0);
        Ok(last.expect("invariant: the total is positive").0.id)
    }
}

/// Best first; the lower id first among equals.
#[allow(clippy::trivially_copy_pass_by_ref)] // the form that sorting takes
fn order(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Unnormalised probabilities (best = 1) of candidates sorted best first; their sum.
fn softmax_weights(candidates: &[Candidate], weights: &mut Vec<f32>) -> f64 {
    weights.clear();
    let best = candidates.first().map_or(0.0, |c| c.logit);
    weights.extend(candidates.iter().map(|c| (c.logit - best).exp()));
    weights.iter().map(|&w| f64::from(w)).sum()
}

fn penalise(candidates: &mut [Candidate], recent: &[u32], o: &SamplerOptions) {
    let window = &recent[recent.len().saturating_sub(o.repeat_last_n)..];
    for (i, &id) in window.iter().enumerate() {
        // Once per token, however often it occurs.
        if window[..i].contains(&id) {
            continue;
        }
        if let Some(c) = candidates.get_mut(id as usize) {
            c.logit = if c.logit > 0.0 { c.logit / o.repeat_penalty } else { c.logit * o.repeat_penalty };
        }
    }
}

fn top_p(candidates: &mut Vec<Candidate>, weights: &mut Vec<f32>, p: f32) {
    candidates.sort_unstable_by(order);
    let total = softmax_weights(candidates, weights);
    let mut mass = 0.0;
    for (i, &w) in weights.iter().enumerate() {
        mass += f64::from(w);
        if mass >= f64::from(p) * total {
            candidates.truncate(i + 1);
            break;
        }
    }
}

fn min_p(candidates: &mut Vec<Candidate>, p: f32) {
    let best = candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
    let floor = best + p.ln();
    candidates.retain(|c| c.logit >= floor);
}

/// Values that are looked at together: independent lanes, which compilers turn into vectors.
const TOGETHER: usize = 32;

fn first_nan(logits: &[f32]) -> Option<usize> {
    let (blocks, rest) = logits.as_chunks::<TOGETHER>();
    let block = blocks.iter().position(|block| block.iter().fold(false, |nan, x| nan | x.is_nan()));
    let (from, part) = block.map_or((blocks.len() * TOGETHER, rest), |i| (i * TOGETHER, &blocks[i]));
    part.iter().position(|x| x.is_nan()).map(|i| from + i)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sampler(f: impl FnOnce(&mut SamplerOptions)) -> Sampler {
        let mut o = SamplerOptions { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerOptions::default() };
        f(&mut o);
        Sampler::new(o, 8).unwrap()
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        let mut s = sampler(|o| o.temperature = 0.0);
        assert_eq!(s.sample(&[0.0, 3.0, 3.0, 1.0], &[]), Ok(1));
        assert_eq!(s.sample(&[f32::NEG_INFINITY, -1.0], &[]), Ok(1));
    }

    #[test]
    fn bad_logits_are_errors() {
        for t in [0.0, 1.0] {
            let mut s = sampler(|o| o.temperature = t);
            assert_eq!(s.sample(&[0.0, f32::NAN], &[]), Err(SamplerError::NotFinite { token: 1 }));
            assert_eq!(s.sample(&[f32::NEG_INFINITY; 2], &[]), Err(SamplerError::NotFinite { token: 0 }));
        }
    }

    #[test]
    fn options_out_of_range_are_named() {
        for (f, name) in [
            ((|o| o.temperature = -1.0) as fn(&mut SamplerOptions), "temperature"),
            (|o| o.temperature = f32::NAN, "temperature"),
            (|o| o.top_p = 0.0, "top-p"),
            (|o| o.min_p = 1.5, "min-p"),
            (|o| o.repeat_penalty = 0.0, "repeat-penalty"),
        ] {
            let mut o = SamplerOptions::default();
            f(&mut o);
            let err = o.validate().unwrap_err();
            assert!(err.to_string().starts_with(name), "{err}");
        }
    }

    #[test]
    fn the_penalty_moves_a_recent_token_down_once() {
        let mut s = sampler(|o| {
            o.temperature = 0.0;
            o.repeat_penalty = 2.0;
            o.repeat_last_n = 2;
        });
        assert_eq!(s.sample(&[1.0, 3.0, 2.0], &[1, 1]), Ok(2), "3.0 / 2 once, not twice");
        assert_eq!(s.sample(&[1.4, 3.0, 1.0], &[1, 1]), Ok(1));
        assert_eq!(s.sample(&[1.0, 3.0, 2.0], &[1, 0, 0]), Ok(1), "outside the window");
        assert_eq!(s.sample(&[-1.0, -1.5], &[0, 0]), Ok(1), "negative logits are multiplied");
    }

    #[test]
    fn top_k_top_p_and_min_p_keep_what_they_say() {
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.15f32.ln(), 0.05f32.ln()];
        let kinds = |s: &mut Sampler| {
            let mut seen: Vec<u32> = (0..500).map(|_| s.sample(&logits, &[]).unwrap()).collect();
            seen.sort_unstable();
            seen.dedup();
            seen
        };
        assert_eq!(kinds(&mut sampler(|_| {})), [0, 1, 2, 3]);
        assert_eq!(kinds(&mut sampler(|o| o.top_k = 2)), [0, 1]);
        assert_eq!(kinds(&mut sampler(|o| o.top_p = 0.7)), [0, 1]);
        assert_eq!(kinds(&mut sampler(|o| o.min_p = 0.2)), [0, 1, 2]);
        assert_eq!(kinds(&mut sampler(|o| o.temperature = 0.01)), [0]);
    }

    #[test]
    fn samples_follow_the_distribution_and_the_seed() {
        let logits = [0.7f32.ln(), 0.2f32.ln(), 0.1f32.ln()];
        let draw = |seed| {
            let mut s = sampler(|o| o.seed = seed);
            (0..4000).map(|_| s.sample(&logits, &[]).unwrap()).collect::<Vec<_>>()
        };
        let a = draw(1);
        assert_eq!(a, draw(1));
        assert_ne!(a, draw(2));
        let share = a.iter().filter(|&&x| x == 0).count() as f64 / 4000.0;
        assert!((share - 0.7).abs() < 0.04, "{share}");
    }

    #[test]
    fn logprobs_are_a_distribution() {
        let (top, chosen) = top_logprobs(&[0.0, 1.0, 2.0, -50.0], 3, Some(0));
        assert_eq!(top.iter().map(|t| t.id).collect::<Vec<_>>(), [2, 1, 0]);
        assert!((top.iter().map(|t| t.logprob.exp()).sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(chosen, Some(top[2].logprob));
        assert_eq!(top_logprobs(&[1.0], 5, Some(7)).1, None);
    }

    proptest! {
        #[test]
        fn the_highest_logit_is_found_in_any_lane(
            logits in proptest::collection::vec(
                prop_oneof![4 => (-3i8..3).prop_map(f32::from), 1 => Just(f32::NAN), 1 => Just(f32::NEG_INFINITY)],
                0..150,
            ),
        ) {
            let expected = bricks::reference::argmax(&logits).filter(|&i| logits[i] > f32::NEG_INFINITY);
            prop_assert_eq!(argmax(&logits), expected.map(|i| i as u32));
            prop_assert_eq!(first_nan(&logits), logits.iter().position(|x| x.is_nan()));
        }

        #[test]
        fn always_a_legal_token(logits in proptest::collection::vec(-1e4f32..1e4, 1..200), seed: u64, k in 0usize..50,
                                p in 0.01f32..=1.0, m in 0.0f32..=1.0, t in 0.01f32..5.0) {
            let o = SamplerOptions { temperature: t, top_k: k, top_p: p, min_p: m, seed, ..SamplerOptions::default() };
            let mut s = Sampler::new(o, logits.len()).unwrap();
            let id = s.sample(&logits, &[0]).unwrap();
            prop_assert!((id as usize) < logits.len());
        }
    }
}
