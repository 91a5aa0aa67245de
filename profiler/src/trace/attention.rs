//! Where attention looks.

use serde::{Deserialize, Serialize};

/// What one head looked at from one position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionWeightTrace {
    /// Forward call, counted from 0.
    pub step: usize,
    /// Layer.
    pub layer_idx: u32,
    /// Query head.
    pub head_idx: u32,
    /// Position of the query.
    pub query_pos: usize,
    /// First position that the query sees: above 0 only with a sliding window. It sees all from there to itself.
    pub first_pos: usize,
    /// Positions with the largest weights, largest first; among equals the lower position first.
    pub top_k_positions: Vec<usize>,
    /// Their weights.
    pub top_k_weights: Vec<f32>,
    /// Entropy of all weights in nats, `−Σ p ln p`: 0 if all weight is on one position, `ln n` if it is spread evenly over n.
    /// `None` if a weight is not a number.
    pub entropy: Option<f32>,
    /// The largest weight.
    pub max_weight: Option<f32>,
    /// Weight of position 0, if the query sees it: much of it is a *sink*.
    pub sink_weight: Option<f32>,
}

impl AttentionWeightTrace {
    /// From all weights of a row: `weights[i]` is that of position `first_pos + i`, and the last one that of `query_pos`.
    pub fn new(
        (step, layer_idx, head_idx): (usize, u32, u32),
        (first_pos, query_pos): (usize, usize),
        weights: &[f64],
        top_k: usize,
    ) -> Self {
        let mut order: Vec<usize> = (0..weights.len()).filter(|&i| !weights[i].is_nan()).collect();
        let by = |a: &usize, b: &usize| weights[*b].total_cmp(&weights[*a]).then(a.cmp(b));
        let kept = top_k.max(1);
        if order.len() > kept {
            order.select_nth_unstable_by(kept - 1, by);
            order.truncate(kept);
        }
        order.sort_unstable_by(by);
        let entropy = entropy(weights);
        Self {
            step,
            layer_idx,
            head_idx,
            query_pos,
            first_pos,
            entropy: entropy.map(|e| e as f32),
            max_weight: order.first().map(|&i| weights[i] as f32),
            sink_weight: weights.first().filter(|w| first_pos == 0 && !w.is_nan()).map(|&w| w as f32),
            top_k_weights: order.iter().take(top_k).map(|&i| weights[i] as f32).collect(),
            top_k_positions: order.iter().take(top_k).map(|&i| first_pos + i).collect(),
        }
    }

    /// Number of positions that the query sees.
    pub fn visible(&self) -> usize {
        (self.query_pos + 1).saturating_sub(self.first_pos)
    }
}

/// Entropy of a distribution in nats, with `0 ln 0 = 0`. `None` if a probability is negative or not finite.
pub fn entropy(probabilities: &[f64]) -> Option<f64> {
    let mut sum = 0.0;
    for &p in probabilities {
        if !(p.is_finite() && p >= 0.0) {
            return None;
        }
        if p > 0.0 {
            sum -= p * p.ln();
        }
    }
    // A single probability of 1 gives -0.
    Some(sum.max(0.0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entropy_of_even_weights_is_the_logarithm_of_their_number() {
        for n in [1usize, 2, 3, 10, 1000, 4096] {
            let e = entropy(&vec![1.0 / n as f64; n]).unwrap();
            assert!((e - (n as f64).ln()).abs() < 1e-10, "{n}: {e}");
        }
        assert_eq!(entropy(&[0.0, 1.0, 0.0]), Some(0.0));
        assert_eq!(entropy(&[f64::NAN, 1.0]), None);
        assert_eq!(entropy(&[-0.5, 1.5]), None);
    }

    #[test]
    fn ties_go_to_the_lower_position_and_a_window_shifts_positions() {
        let t = AttentionWeightTrace::new((0, 1, 2), (10, 13), &[0.25; 4], 3);
        assert_eq!(t.top_k_positions, [10, 11, 12]);
        assert_eq!((t.visible(), t.sink_weight), (4, None));
        let none = AttentionWeightTrace::new((0, 1, 2), (0, 1), &[0.75, 0.25], 0);
        assert_eq!((none.top_k_positions.len(), none.max_weight, none.sink_weight), (0, Some(0.75), Some(0.75)));
    }

    #[test]
    fn weights_that_are_no_numbers_leave_no_figures() {
        let t = AttentionWeightTrace::new((0, 0, 0), (0, 1), &[f64::NAN; 2], 5);
        assert_eq!((t.entropy, t.max_weight, t.sink_weight), (None, None, None));
        assert!(t.top_k_positions.is_empty() && t.top_k_weights.is_empty());
    }

    proptest! {
        #[test]
        fn the_largest_come_first(raw in proptest::collection::vec(0.0f64..1.0, 1..60), k in 1usize..10) {
            let sum: f64 = raw.iter().sum::<f64>() + 1e-9;
            let weights: Vec<f64> = raw.iter().map(|w| w / sum).collect();
            let t = AttentionWeightTrace::new((0, 0, 0), (0, weights.len() - 1), &weights, k);
            prop_assert_eq!(t.top_k_positions.len(), k.min(weights.len()));
            prop_assert!(t.top_k_weights.windows(2).all(|w| w[0] >= w[1]));
            prop_assert!(t.top_k_weights.iter().sum::<f32>() <= 1.0 + 1e-6);
            let smallest = *t.top_k_weights.last().unwrap();
            for (i, &w) in weights.iter().enumerate() {
                prop_assert!(t.top_k_positions.contains(&i) || w as f32 <= smallest);
            }
            let e = t.entropy.unwrap();
            prop_assert!(e >= 0.0 && f64::from(e) <= (weights.len() as f64).ln() + 1e-6);
        }
    }
}
