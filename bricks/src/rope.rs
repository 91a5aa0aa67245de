//! Rotary position embedding: parameters and the frequencies they stand for.
//!
//! Su et al., `RoFormer` (arXiv 2104.09864); scaling: linear interpolation (Chen et al., arXiv 2306.15595), Llama-3
//! (frequency-dependent, as in the published configuration of Llama 3.1) and `YaRN` (Peng et al., arXiv 2309.00071).
//!
//! Pair `i` of a head at position `p` turns by the angle `p · inv_freq[i]`, where `inv_freq[i] = base^(-2i/dims)` before
//! scaling. All scaling methods are a change of `inv_freq`; `YaRN` also multiplies the rotated values by a magnitude.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

/// Which elements of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeStyle {
    /// Pairs `(2i, 2i + 1)`: llama files in GGUF.
    Interleaved,
    /// Pairs `(i, i + dims/2)`: qwen2, phi3, gemma and others ("NEOX").
    SplitHalves,
}

/// How frequencies are changed for contexts longer than the model was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    None,
    /// Positions divided by `factor`.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama-3: low frequencies divided by `factor`, high ones kept, a ramp between.
    /// (Files converted by llama.cpp carry the result as a tensor `rope_freqs.weight` instead; see [`RopeSpec::freq_factors`].)
    Llama3 {
        /// Divisor of low frequencies.
        factor: f32,
        /// `low_freq_factor`.
        low: f32,
        /// `high_freq_factor`.
        high: f32,
        /// Context length of training.
        original_context: u32,
    },
    /// `YaRN`: interpolation by parts, with attention temperature.
    Yarn {
        /// Divisor of low frequencies.
        factor: f32,
        /// Context length of training.
        original_context: u32,
        /// Multiplies the attention temperature (`yarn_attn_factor`), 1 by default.
        attn_factor: f32,
        /// Rotations above which a dimension is not interpolated, 32 by default.
        beta_fast: f32,
        /// Rotations below which a dimension is fully interpolated, 1 by default.
        beta_slow: f32,
    },
}

/// Parameters of a rotary embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RopeSpec {
    /// Which elements are rotated together.
    pub style: RopeStyle,
    /// Base of the geometric series of wavelengths (`rope.freq_base`).
    pub base: f32,
    /// Elements of each head that are rotated (the rest passes through). Even, at most `head_dim`.
    pub dims: usize,
    /// Scaling for long contexts.
    pub scaling: RopeScaling,
    /// Divisors per pair from `rope_freqs.weight`, if the file has them (`dims / 2` values).
    pub freq_factors: Option<Vec<f32>>,
}

/// Parameters of a rotary embedding that describe no rotation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RopeError {
    /// The number of rotated elements is odd, zero or absurd.
    #[error("rotary dims: expected an even number in 2..={max}, found {found}", max = RopeSpec::MAX_DIMS)]
    Dims {
        /// What the specification says.
        found: usize,
    },
    /// One divisor per pair is needed.
    #[error("rope frequency factors: expected {expected}, found {found}")]
    FactorCount {
        /// Pairs.
        expected: usize,
        /// Factors.
        found: usize,
    },
    /// A parameter is not in the range in which the formulas mean something.
    #[error("rope {parameter}: expected {expected}, found {found}")]
    Parameter {
        /// Which one.
        parameter: &'static str,
        /// Its range.
        expected: &'static str,
        /// Its value.
        found: f64,
    },
}

/// What a [`RopeSpec`] comes to: the angle per position of each pair, and a factor on the rotated values.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeFrequencies {
    /// Radians per position of each pair (`dims / 2` values), after scaling.
    pub inv_freq: Vec<f32>,
    /// Multiplies sine and cosine: 1 except for `YaRN`.
    pub magnitude: f32,
}

impl RopeFrequencies {
    /// Cosine and sine of each pair's angle at `position`, times [`magnitude`](Self::magnitude).
    ///
    /// # Shapes
    /// `cos`, `sin`: `[dims / 2]`; the shortest of the slices and the frequencies says how many are written.
    ///
    /// The angle is an f64 product: in f32 it would be off by 2e-3 radians at position 32,768 already.
    pub fn cos_sin(&self, position: u32, cos: &mut [f32], sin: &mut [f32]) {
        let magnitude = f64::from(self.magnitude);
        for ((cos, sin), &frequency) in cos.iter_mut().zip(sin.iter_mut()).zip(&self.inv_freq) {
            let (s, c) = (f64::from(position) * f64::from(frequency)).sin_cos();
            *cos = (c * magnitude) as f32;
            *sin = (s * magnitude) as f32;
        }
    }
}

impl RopeSpec {
    /// Most elements per head that can be rotated. Real models have at most 512; the limit keeps tables of absurd files small.
    pub const MAX_DIMS: usize = 1 << 16;

    /// Checks that the parameters, which come from a file, describe a rotation.
    ///
    /// # Errors
    /// [`RopeError`] names the parameter, its range and its value.
    pub fn check(&self) -> Result<(), RopeError> {
        if self.dims == 0 || !self.dims.is_multiple_of(2) || self.dims > Self::MAX_DIMS {
            return Err(RopeError::Dims { found: self.dims });
        }
        // At base 1 all pairs turn alike; YaRN divides by ln(base).
        if !(self.base.is_finite() && self.base > 1.0) {
            return Err(RopeError::Parameter {
                parameter: "base",
                expected: "a finite number above 1",
                found: f64::from(self.base),
            });
        }
        let positive = |parameter: &'static str, x: f32| {
            if x.is_finite() && x > 0.0 {
                Ok(())
            } else {
                Err(RopeError::Parameter { parameter, expected: "a finite number above 0", found: f64::from(x) })
            }
        };
        let above = |parameter: &'static str, expected: &'static str, low: f32, high: f32| {
            if high > low { Ok(()) } else { Err(RopeError::Parameter { parameter, expected, found: f64::from(high) }) }
        };
        match self.scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => positive("scaling factor", factor)?,
            RopeScaling::Llama3 { factor, low, high, original_context } => {
                positive("scaling factor", factor)?;
                positive("low frequency factor", low)?;
                positive("high frequency factor", high)?;
                above("high frequency factor", "more than the low frequency factor", low, high)?;
                positive("original context", original_context as f32)?;
            }
            RopeScaling::Yarn { factor, original_context, attn_factor, beta_fast, beta_slow } => {
                positive("scaling factor", factor)?;
                positive("attention factor", attn_factor)?;
                positive("beta fast", beta_fast)?;
                positive("beta slow", beta_slow)?;
                above("beta fast", "more than beta slow", beta_slow, beta_fast)?;
                positive("original context", original_context as f32)?;
            }
        }
        if let Some(factors) = &self.freq_factors {
            if factors.len() != self.dims / 2 {
                return Err(RopeError::FactorCount { expected: self.dims / 2, found: factors.len() });
            }
            factors.iter().try_for_each(|&f| positive("frequency factor", f))?;
        }
        Ok(())
    }

    /// The frequencies these parameters stand for, computed in f64 and rounded once.
    ///
    /// Meaningful for parameters that pass [`check`](Self::check); others give frequencies that may not be finite.
    pub fn inv_freq(&self) -> RopeFrequencies {
        let pairs = self.dims.min(Self::MAX_DIMS) / 2;
        let base = f64::from(self.base);
        let mut inv_freq: Vec<f64> = (0..pairs).map(|i| base.powf(-2.0 * i as f64 / self.dims as f64)).collect();
        let magnitude = match self.scaling {
            RopeScaling::None => 1.0,
            RopeScaling::Linear { factor } => {
                for f in &mut inv_freq {
                    *f /= f64::from(factor);
                }
                1.0
            }
            RopeScaling::Llama3 { factor, low, high, original_context } => {
                let (low, high) = (f64::from(low), f64::from(high));
                for f in &mut inv_freq {
                    // Turns that this pair makes over the context of training.
                    let turns = f64::from(original_context) * *f / TAU;
                    let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    *f *= keep + (1.0 - keep) / f64::from(factor);
                }
                1.0
            }
            RopeScaling::Yarn { factor, original_context, attn_factor, beta_fast, beta_slow } => {
                // The (fractional) pair that makes `turns` turns over the context of training.
                let pair_of = |turns: f32| {
                    let context = f64::from(original_context);
                    self.dims as f64 * (context / (f64::from(turns) * TAU)).ln() / (2.0 * base.ln())
                };
                let last = self.dims as f64 - 1.0;
                let from = pair_of(beta_fast).floor().max(0.0);
                let to = pair_of(beta_slow).ceil().min(last);
                for (i, f) in inv_freq.iter_mut().enumerate() {
                    let interpolate = ((i as f64 - from) / (to - from).max(1e-3)).clamp(0.0, 1.0);
                    *f *= (1.0 - interpolate) + interpolate / f64::from(factor);
                }
                let factor = f64::from(factor);
                f64::from(attn_factor) * if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 }
            }
        };
        if let Some(factors) = &self.freq_factors {
            for (f, &divisor) in inv_freq.iter_mut().zip(factors) {
                *f /= f64::from(divisor);
            }
        }
        RopeFrequencies { inv_freq: inv_freq.into_iter().map(|f| f as f32).collect(), magnitude: magnitude as f32 }
    }

    /// [`RopeFrequencies::cos_sin`] for a single position. Who needs several positions keeps [`inv_freq`](Self::inv_freq).
    pub fn cos_sin(&self, position: u32, cos: &mut [f32], sin: &mut [f32]) {
        self.inv_freq().cos_sin(position, cos, sin);
    }
}

#[cfg(test)]
mod tests;
