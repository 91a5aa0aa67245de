//! How far an output is from the scalar reference: one measure for assertions, conformance tests and `brick check`.

/// The largest deviation of an output from its reference, and where it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// `max |output − reference| / (|reference| + rms(reference))`.
    ///
    /// Relative for large elements, and relative to the size of the whole tensor for small ones, whose own relative error means
    /// nothing after a long sum with cancellation. Scaling both sides changes nothing. 0 when both are zero or the same
    /// infinity; infinite where either is NaN or only one is infinite.
    pub error: f64,
    /// Index of the element that has this error (0 when all are equal).
    pub index: usize,
    /// The output there.
    pub output: f32,
    /// The reference there.
    pub reference: f32,
    /// Root mean square of the difference over the root mean square of the reference; infinite where
    /// [`error`](Self::error) is.
    pub relative_rms: f64,
}

impl Divergence {
    /// Compares element by element; `None` if the lengths differ. Two empty slices do not diverge.
    pub fn between(output: &[f32], reference: &[f32]) -> Option<Self> {
        if output.len() != reference.len() {
            return None;
        }
        // An infinite reference must not make every deviation beside it look small.
        let square = |x: f64| if x.is_finite() { x * x } else { 0.0 };
        let squares: f64 = reference.iter().map(|&r| square(f64::from(r))).sum();
        let rms = (squares / reference.len().max(1) as f64).sqrt();
        let mut worst = Self {
            error: 0.0,
            index: 0,
            output: output.first().copied().unwrap_or(0.0),
            reference: reference.first().copied().unwrap_or(0.0),
            relative_rms: 0.0,
        };
        let mut difference_squares = 0.0;
        for (index, (&o, &r)) in output.iter().zip(reference).enumerate() {
            // Equality covers zeros of both signs and equal infinities.
            let difference = if o == r { 0.0 } else { (f64::from(o) - f64::from(r)).abs() };
            let error = if difference == 0.0 {
                0.0
            } else if difference.is_finite() {
                difference / (f64::from(r).abs() + rms)
            } else {
                f64::INFINITY
            };
            difference_squares += difference * difference;
            if error > worst.error {
                worst = Self { error, index, output: o, reference: r, ..worst };
            }
        }
        worst.relative_rms = if worst.error == 0.0 {
            0.0
        } else if worst.error.is_infinite() {
            f64::INFINITY
        } else {
            (difference_squares / squares).sqrt()
        };
        Some(worst)
    }
}

impl std::fmt::Display for Divergence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { error, index, output, reference, relative_rms } = self;
        write!(f, "error {error:.3e} at index {index} ({output} for {reference}), relative rms {relative_rms:.3e}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn error(output: &[f32], reference: &[f32]) -> f64 {
        Divergence::between(output, reference).unwrap().error
    }

    #[test]
    fn equal_is_zero_also_for_zeros_and_infinities() {
        assert_eq!(error(&[0.0, -0.0, 1.5, f32::INFINITY], &[-0.0, 0.0, 1.5, f32::INFINITY]), 0.0);
        assert_eq!(error(&[], &[]), 0.0);
    }

    #[test]
    fn nan_and_lone_infinities_are_infinitely_wrong() {
        assert_eq!(error(&[f32::NAN], &[f32::NAN]), f64::INFINITY);
        assert_eq!(error(&[1.0, f32::NAN], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(error(&[f32::INFINITY], &[f32::NEG_INFINITY]), f64::INFINITY);
        assert_eq!(error(&[1e30], &[f32::INFINITY]), f64::INFINITY);
        assert_eq!(error(&[1e-30], &[0.0]), f64::INFINITY, "anything is infinitely far from an all-zero reference");
    }

    #[test]
    fn other_lengths_do_not_compare() {
        assert_eq!(Divergence::between(&[1.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn names_the_worst_element_and_does_not_depend_on_scale() {
        let reference = [1.0f32, -2.0, 2.0, 1.0]; // rms √2.5
        let d = Divergence::between(&[1.0, -2.5, 2.25, 1.0], &reference).unwrap();
        let expected = 0.5 / (2.0 + 2.5f64.sqrt());
        assert!((d.error - expected).abs() < 1e-12, "{d}");
        assert_eq!((d.index, d.output, d.reference), (1, -2.5, -2.0));
        assert!((d.relative_rms - (0.3125f64 / 10.0).sqrt()).abs() < 1e-12, "{d}");
        let scaled = Divergence::between(&[1024.0, -2560.0, 2304.0, 1024.0], &reference.map(|x| x * 1024.0)).unwrap();
        assert_eq!(scaled.error, d.error);
    }

    #[test]
    fn an_infinite_reference_hides_nothing_beside_it() {
        let d = error(&[f32::INFINITY, 2.0], &[f32::INFINITY, 1.0]);
        assert!(d > 0.5, "{d}");
    }
}
