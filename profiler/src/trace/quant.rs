//! Rounding errors against f32.

use serde::{Deserialize, Serialize};

/// What the errors are measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuantizationBasis {
    /// What brick adds when it runs the file: outputs of bricks against the same bricks on the same inputs in f32. The error of the
    /// stored weights is not in it.
    Arithmetic,
    /// The weights of the file against those of another file of the same model.
    Weights,
}

impl QuantizationBasis {
    /// What is compared with what, as a sentence.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Arithmetic => {
                "error that brick's arithmetic adds (activations rounded to 8 bits, keys and values to the cache's type); \
                 output of each brick against the f32 reference on the same input and the same stored weights; how far the \
                 stored weights are from the original model is not in it (--against measures that)"
            }
            Self::Weights => {
                "error of the stored weights: each tensor against the tensor of the same name in the other file"
            }
        }
    }
}

/// Rounding errors of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelQuantizationError {
    /// What the errors are measured on.
    pub basis: QuantizationBasis,
    /// What they are measured against: `f32 reference`, or the name of the other file.
    pub against: String,
    /// Rows of the forward call that were compared; `None` for weights.
    pub rows: Option<u64>,
    /// One entry per output of a brick, or per tensor.
    pub bricks: Vec<QuantizationErrorTrace>,
}

/// The rounding error of one output or tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizationErrorTrace {
    /// The brick, or the tensor.
    pub brick_name: String,
    /// Its layer.
    pub layer_idx: Option<u32>,
    /// What rounds: the kernel, or the storage types of both tensors.
    pub format: String,
    /// Pairs of values that were compared.
    pub values: u64,
    /// Pairs left out because one of them is not finite.
    pub nonfinite: u64,
    /// Mean squared error; `None` without values. As all figures here, at most [`f32::MAX`].
    pub mse: Option<f32>,
    /// Cosine of the angle between both, in `-1..=1`. Two zero vectors have 1, a zero vector and another one 0.
    pub cosine_similarity: Option<f32>,
    /// `10 · log10(Σ reference² / Σ error²)` in decibels. `None` where there is no such ratio: without error (`mse` is 0), or
    /// without signal.
    pub snr_db: Option<f32>,
    /// The largest absolute error.
    pub max_abs_error: Option<f32>,
}

impl QuantizationErrorTrace {
    /// The figures of `sums` under a name.
    pub fn new(brick_name: String, layer_idx: Option<u32>, format: String, sums: &ErrorSums) -> Self {
        // JSON has no infinity.
        let narrow = |x: f64| x.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
        Self {
            brick_name,
            layer_idx,
            format,
            values: sums.values,
            nonfinite: sums.nonfinite,
            mse: sums.mse().map(narrow),
            cosine_similarity: sums.cosine().map(narrow),
            snr_db: sums.snr_db().map(narrow),
            max_abs_error: (sums.values > 0).then_some(narrow(sums.max_abs)),
        }
    }

    /// Whether both were equal, value by value.
    pub fn is_exact(&self) -> bool {
        self.max_abs_error == Some(0.0) && self.nonfinite == 0
    }
}

/// Sums from which errors are computed, over any number of calls, in f64.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ErrorSums {
    values: u64,
    nonfinite: u64,
    error2: f64,
    found2: f64,
    reference2: f64,
    product: f64,
    max_abs: f64,
}

impl ErrorSums {
    /// Compares `found` with `reference`, value by value.
    pub fn add(&mut self, found: &[f32], reference: &[f32]) {
        debug_assert_eq!(found.len(), reference.len());
        for (&f, &r) in found.iter().zip(reference) {
            if !(f.is_finite() && r.is_finite()) {
                self.nonfinite += 1;
                continue;
            }
            let (f, r) = (f64::from(f), f64::from(r));
            let error = f - r;
            self.values += 1;
            self.error2 += error * error;
            self.found2 += f * f;
            self.reference2 += r * r;
            self.product += f * r;
            self.max_abs = self.max_abs.max(error.abs());
        }
    }

    /// Mean squared error; `None` without values.
    pub fn mse(&self) -> Option<f64> {
        (self.values > 0).then(|| self.error2 / self.values as f64)
    }

    /// Cosine of the angle between both; see [`QuantizationErrorTrace::cosine_similarity`].
    pub fn cosine(&self) -> Option<f64> {
        if self.values == 0 {
            return None;
        }
        let norms = self.found2.sqrt() * self.reference2.sqrt();
        Some(match (self.found2 > 0.0, self.reference2 > 0.0) {
            (false, false) => 1.0,
            // Rounding could lead a hair outside.
            (true, true) => (self.product / norms).clamp(-1.0, 1.0),
            _ => 0.0,
        })
    }

    /// Signal to noise ratio in decibels; see [`QuantizationErrorTrace::snr_db`].
    pub fn snr_db(&self) -> Option<f64> {
        (self.error2 > 0.0 && self.reference2 > 0.0).then(|| 10.0 * (self.reference2 / self.error2).log10())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sums(found: &[f32], reference: &[f32]) -> ErrorSums {
        let mut s = ErrorSums::default();
        s.add(found, reference);
        s
    }

    #[test]
    fn what_has_no_quotient_is_defined() {
        let zero = sums(&[0.0, 0.0], &[0.0, 0.0]);
        assert_eq!((zero.mse(), zero.cosine(), zero.snr_db()), (Some(0.0), Some(1.0), None));
        let lost = sums(&[0.0, 0.0], &[3.0, 4.0]);
        assert_eq!((lost.mse(), lost.cosine(), lost.snr_db()), (Some(12.5), Some(0.0), Some(0.0)));
        let noise = sums(&[3.0, 4.0], &[0.0, 0.0]);
        assert_eq!((noise.cosine(), noise.snr_db()), (Some(0.0), None));
        let exact = sums(&[3.0, 4.0], &[3.0, 4.0]);
        assert_eq!((exact.mse(), exact.cosine(), exact.snr_db()), (Some(0.0), Some(1.0), None));
        let none = sums(&[f32::NAN], &[1.0]);
        assert_eq!((none.mse(), none.cosine(), none.snr_db()), (None, None, None));
        let t = QuantizationErrorTrace::new("x".into(), None, "f".into(), &none);
        assert_eq!((t.values, t.nonfinite, t.max_abs_error, t.is_exact()), (0, 1, None, false));
    }

    #[test]
    fn twenty_decibels_are_a_tenth() {
        let snr = sums(&[11.0, 22.0], &[10.0, 20.0]).snr_db().unwrap();
        assert!((snr - 20.0).abs() < 1e-12, "{snr}");
        let turned = sums(&[-1.0, -2.0], &[1.0, 2.0]).cosine().unwrap();
        assert!((turned + 1.0).abs() < 1e-12, "{turned}");
    }

    proptest! {
        #[test]
        fn figures_agree_with_their_formulas(
            pairs in proptest::collection::vec((-1e30f32..1e30, -1e30f32..1e30), 1..50)
        ) {
            let (f, r): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
            let s = sums(&f, &r);
            let cosine = s.cosine().unwrap();
            prop_assert!((-1.0..=1.0).contains(&cosine));
            let noise: f64 = pairs.iter().map(|(f, r)| (f64::from(*f) - f64::from(*r)).powi(2)).sum();
            let signal: f64 = r.iter().map(|r| f64::from(*r).powi(2)).sum();
            prop_assert_eq!(s.mse().unwrap(), noise / pairs.len() as f64);
            if noise > 0.0 && signal > 0.0 {
                prop_assert_eq!(s.snr_db().unwrap(), 10.0 * (signal / noise).log10());
            }
            prop_assert!((sums(&f, &f).cosine().unwrap() - 1.0).abs() < 1e-12);
        }
    }
}
