//! The logit lens: what the model would say after each layer.
//!
//! The residual stream after a layer is sent through the final norm and the LM head as if it were the last one
//! (nostalgebraist, "interpreting GPT: the logit lens", 2020).

use serde::{Deserialize, Serialize};

/// How the tokens that were close to being chosen came up, layer by layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogitEvolutionTrace {
    /// Forward call, counted from 0.
    pub step: usize,
    /// Position whose logits these are; the chosen token stands at the next one.
    pub position: usize,
    /// Layers that were looked at, in order.
    pub layers: Vec<u32>,
    /// The chosen token first, then those that came next in the final logits.
    pub tracked_tokens: Vec<TokenLogitEvolution>,
    /// First of the layers from which on the chosen token stays the most likely one; `None` if it is not after the last of them.
    pub decisive_layer: Option<u32>,
}

/// One token, layer by layer. Figures are `None` where the layer's logits are not numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenLogitEvolution {
    /// The token.
    pub token_id: u32,
    /// Its logit after each of [`LogitEvolutionTrace::layers`].
    pub per_layer_logits: Vec<Option<f32>>,
    /// Its [`rank`].
    pub per_layer_ranks: Vec<Option<u32>>,
    /// Its probability at temperature 1.
    pub per_layer_probs: Vec<Option<f32>>,
    /// Its probability in the model's own logits.
    pub final_prob: Option<f32>,
}

impl LogitEvolutionTrace {
    /// `lens` has the logits after each of `layers`, `own` are the model's own; `tracked` are token ids, the chosen one first.
    pub fn new(
        (step, position): (usize, usize),
        layers: &[u32],
        lens: &[&[f32]],
        own: &[f32],
        tracked: &[u32],
    ) -> Self {
        let tracked_tokens: Vec<_> = tracked
            .iter()
            .map(|&id| TokenLogitEvolution {
                token_id: id,
                per_layer_logits: lens.iter().map(|l| l.get(id as usize).copied().filter(|x| x.is_finite())).collect(),
                per_layer_ranks: lens.iter().map(|l| rank(l, id)).collect(),
                per_layer_probs: lens.iter().map(|l| probability(l, id).map(|p| p as f32)).collect(),
                final_prob: probability(own, id).map(|p| p as f32),
            })
            .collect();
        let decisive_layer = tracked_tokens.first().and_then(|t| {
            let from = t.per_layer_ranks.iter().rposition(|r| *r != Some(1)).map_or(0, |i| i + 1);
            layers.get(from).copied()
        });
        Self { step, position, layers: layers.to_vec(), tracked_tokens, decisive_layer }
    }

    /// The chosen token.
    pub fn chosen(&self) -> Option<&TokenLogitEvolution> {
        self.tracked_tokens.first()
    }
}

/// Rank of a token among all: 1 is the most likely. Of tokens with equal logits the one with the lower id comes first, as when
/// brick chooses greedily. A NaN is behind every number; `None` for a token that has one, or that does not exist.
pub fn rank(logits: &[f32], id: u32) -> Option<u32> {
    let own = *logits.get(id as usize)?;
    if own.is_nan() {
        return None;
    }
    let before = |(i, &x): (usize, &f32)| x > own || (x == own && i < id as usize);
    Some(1 + logits.iter().enumerate().filter(|&l| before(l)).count() as u32)
}

/// Probability of a token at temperature 1. `None` if the logits give no distribution, or the token does not exist.
pub fn probability(logits: &[f32], id: u32) -> Option<f64> {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - max).exp()).sum();
    let p = (f64::from(*logits.get(id as usize)?) - max).exp() / sum;
    p.is_finite().then_some(p)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_go_to_the_lower_id() {
        let logits = [1.0, 3.0, 3.0, f32::NAN, 2.0, f32::NEG_INFINITY];
        let ranks: Vec<_> = (0..7).map(|id| rank(&logits, id)).collect();
        assert_eq!(ranks, [Some(4), Some(1), Some(2), None, Some(3), Some(5), None]);
    }

    #[test]
    fn the_decisive_layer_is_the_last_change_to_first_place() {
        let win = [5.0f32, 0.0, 1.0];
        let lose = [0.0f32, 5.0, 1.0];
        let of = |lens: &[&[f32]]| {
            let layers: Vec<u32> = (0..lens.len() as u32).map(|i| i * 2).collect();
            LogitEvolutionTrace::new((0, 0), &layers, lens, &win, &[0]).decisive_layer
        };
        assert_eq!(of(&[&win, &win, &win]), Some(0));
        assert_eq!(of(&[&win, &lose, &win]), Some(4), "the first time did not last");
        assert_eq!(of(&[&lose, &win, &win]), Some(2));
        assert_eq!(of(&[&win, &lose]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn logits_that_are_no_numbers_have_no_figures() {
        let nan = [f32::NAN; 3];
        let t = LogitEvolutionTrace::new((0, 0), &[0], &[&nan], &nan, &[1, 9]);
        for token in &t.tracked_tokens {
            assert_eq!((token.per_layer_logits[0], token.per_layer_ranks[0]), (None, None));
            assert_eq!((token.per_layer_probs[0], token.final_prob), (None, None));
        }
        assert_eq!(t.decisive_layer, None);
        assert_eq!(probability(&[f32::NEG_INFINITY; 2], 0), None);
        assert_eq!(probability(&[0.0, f32::NEG_INFINITY], 0), Some(1.0));
    }

    proptest! {
        #[test]
        fn ranks_are_a_permutation_and_follow_the_logits(raw in proptest::collection::vec(-4i8..4, 1..40)) {
            let logits: Vec<f32> = raw.iter().map(|&x| f32::from(x)).collect();
            let mut ranks: Vec<u32> = (0..logits.len() as u32).map(|id| rank(&logits, id).unwrap()).collect();
            let best = ranks.iter().position(|&r| r == 1).unwrap();
            prop_assert_eq!(Some(best), bricks::reference::argmax(&logits));
            let total: f64 = (0..logits.len() as u32).map(|id| probability(&logits, id).unwrap()).sum();
            prop_assert!((total - 1.0).abs() < 1e-12);
            ranks.sort_unstable();
            prop_assert_eq!(ranks, (1..=logits.len() as u32).collect::<Vec<_>>());
        }
    }
}
