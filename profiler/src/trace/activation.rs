//! Activations of a layer.

use serde::{Deserialize, Serialize};

use super::TensorStats;

/// Statistics of the values that pass through one layer in one forward call.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerActivationTrace {
    /// Forward call, counted from 0.
    pub step: usize,
    /// Layer.
    pub layer_idx: u32,
    /// Rows (tokens) of the call; the statistics are those of all of them.
    pub rows: u64,
    /// The residual stream as the layer gets it.
    pub input_stats: TensorStats,
    /// After the attention norm.
    pub post_norm_stats: TensorStats,
    /// What attention adds to the stream (after its output projection).
    pub post_attn_stats: TensorStats,
    /// What the feed-forward network adds to the stream.
    pub post_ffn_stats: TensorStats,
    /// The residual stream as the layer leaves it.
    pub output_stats: TensorStats,
    /// Mean over the rows of [`residual_ratio`]; `None` if no row has one.
    pub residual_ratio: Option<f32>,
}

impl LayerActivationTrace {
    /// The five tensors in the order in which they come about, each with its name.
    pub fn tensors(&self) -> [(&'static str, &TensorStats); 5] {
        [
            ("input", &self.input_stats),
            ("normed input", &self.post_norm_stats),
            ("attention output", &self.post_attn_stats),
            ("FFN output", &self.post_ffn_stats),
            ("output", &self.output_stats),
        ]
    }
}

/// Share of a layer's input in its output, of one row: `‖x‖ / (‖x‖ + ‖y − x‖)`, in `0..=1`. It is 1 where the layer adds
/// nothing, ½ where it adds as much as there was, 0 where there was nothing.
///
/// `None` if the rows have different lengths or a value is not finite.
///
/// The literal `output / input` of other tools is near 1, or above, in every residual network, and says nothing.
pub fn residual_ratio(input: &[f32], output: &[f32]) -> Option<f64> {
    if input.len() != output.len() {
        return None;
    }
    let (mut kept, mut added) = (0.0f64, 0.0f64);
    for (&x, &y) in input.iter().zip(output) {
        let (x, y) = (f64::from(x), f64::from(y));
        kept += x * x;
        added += (y - x) * (y - x);
    }
    if !(kept.is_finite() && added.is_finite()) {
        return None;
    }
    let (kept, added) = (kept.sqrt(), added.sqrt());
    Some(if added == 0.0 { 1.0 } else { kept / (kept + added) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ratio_says_how_much_of_the_input_is_left() {
        assert_eq!(residual_ratio(&[3.0, 4.0], &[3.0, 4.0]), Some(1.0));
        assert_eq!(residual_ratio(&[0.0, 0.0], &[0.0, 0.0]), Some(1.0));
        assert_eq!(residual_ratio(&[3.0, 4.0], &[6.0, 8.0]), Some(0.5));
        assert_eq!(residual_ratio(&[0.0, 0.0], &[6.0, 8.0]), Some(0.0));
        assert_eq!(residual_ratio(&[3.0, 4.0], &[-3.0, -4.0]), Some(1.0 / 3.0), "turned around is not kept");
        assert_eq!(residual_ratio(&[1.0], &[f32::NAN]), None);
        assert_eq!(residual_ratio(&[f32::INFINITY], &[1.0]), None);
        assert_eq!(residual_ratio(&[1.0], &[1.0, 2.0]), None);
    }

    proptest! {
        #[test]
        fn the_ratio_is_a_share(rows in proptest::collection::vec((-1e30f32..1e30, -1e30f32..1e30), 1..20)) {
            let (x, y): (Vec<f32>, Vec<f32>) = rows.into_iter().unzip();
            let r = residual_ratio(&x, &y);
            prop_assert!(r.is_some_and(|r| (0.0..=1.0).contains(&r)), "{r:?}");
        }
    }
}
