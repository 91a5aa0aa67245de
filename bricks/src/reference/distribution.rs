//! From scores to probabilities and to a choice.

/// Turns scores into probabilities, in place: `exp(x - max) / Σ exp(x - max)`. The largest exponent is 0, so finite scores of any
/// size neither overflow nor divide by zero.
///
/// `-inf` gets probability 0. Where no distribution exists (a NaN, `+inf`, or nothing but `-inf`) every probability is NaN, so that
/// the assertion on the output sees it.
pub fn softmax(scores: &mut [f64]) {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for x in scores.iter_mut() {
        *x = (*x - max).exp();
    }
    let sum: f64 = scores.iter().sum();
    for x in scores {
        *x /= sum;
    }
}

/// Index of the largest value; of several, the first. NaN is never the largest: `None` if there is nothing else.
pub fn argmax(values: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (i, &x) in values.iter().enumerate() {
        if !x.is_nan() && best.is_none_or(|(_, b)| x > b) {
            best = Some((i, x));
        }
    }
    best.map(|(i, _)| i)
}
