//! Attention weights, computed again in plain code.

use bricks::AttentionSpec;
use bricks::reference::softmax;

/// The weights of one head's query, and the position of the first of them.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadWeights {
    /// First position that the query sees.
    pub first: usize,
    /// Weights of that position and the following ones, up to the query's own.
    pub weights: Vec<f64>,
}

/// The weights with which a query at `position` looks at the keys before it and its own: scaled, capped and windowed as the
/// operation says. Query head `head` reads KV head `head · n_kv_heads / n_heads`.
///
/// # Shapes
/// `q`: `[n_heads · head_dim]`, after the rotation; `keys`: `[S, n_kv_heads · head_dim]` with `S > position`, as the cache holds
/// them.
///
/// # Panics
/// If the shapes do not fit.
pub fn head_weights(spec: &AttentionSpec, q: &[f32], keys: &[f32], head: usize, position: usize) -> HeadWeights {
    let (d, kv_dim) = (spec.head_dim, spec.n_kv_heads * spec.head_dim);
    let first = spec.window.map_or(0, |w| (position + 1).saturating_sub(w));
    let group = head / (spec.n_heads / spec.n_kv_heads);
    let q = &q[head * d..][..d];
    let score = |p: usize| {
        let k = &keys[p * kv_dim + group * d..][..d];
        let score = dot(q, k) * f64::from(spec.scale);
        spec.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
    };
    let mut weights: Vec<f64> = (first..=position).map(score).collect();
    softmax(&mut weights);
    HeadWeights { first, weights }
}

/// In f32, as the kernels, and in lanes: one chain of additions would take most of the time that tracing takes.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    const LANES: usize = 16;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sum = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            sum[i] += a[i] * b[i];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&a, &b)| a * b).sum();
    sum.iter().map(|&x| f64::from(x)).sum::<f64>() + f64::from(rest)
}

impl HeadWeights {
    /// What the head gives with these weights.
    ///
    /// # Shapes
    /// `values`: `[S, n_kv_heads · head_dim]`, as the cache holds them; the result: `[head_dim]`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn output(&self, spec: &AttentionSpec, values: &[f32], head: usize) -> Vec<f32> {
        let (d, kv_dim) = (spec.head_dim, spec.n_kv_heads * spec.head_dim);
        let group = head / (spec.n_heads / spec.n_kv_heads);
        let at = |p: usize, i: usize| f64::from(values[p * kv_dim + group * d + i]);
        let sum = |i: usize| self.weights.iter().zip(self.first..).map(|(w, p)| w * at(p, i)).sum::<f64>() as f32;
        (0..d).map(sum).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bricks::reference::attention;
    use proptest::prelude::*;

    #[test]
    fn a_window_hides_what_is_before_it() {
        let spec = AttentionSpec { n_heads: 1, n_kv_heads: 1, head_dim: 1, scale: 1.0, window: Some(3), softcap: None };
        let w = head_weights(&spec, &[0.0], &[1.0; 8], 0, 6);
        assert_eq!((w.first, w.weights.len()), (4, 3));
        let w = head_weights(&spec, &[0.0], &[1.0; 8], 0, 1);
        assert_eq!((w.first, w.weights), (0, vec![0.5, 0.5]));
    }

    proptest! {
        #[test]
        fn weights_sum_to_one_and_give_what_the_reference_gives(
            seed in proptest::collection::vec(-2.0f32..2.0, 200), groups in 1usize..3, kv_heads in 1usize..3,
            position in 0usize..9, window in proptest::option::of(1usize..12), softcap in proptest::option::of(0.5f32..30.0)
        ) {
            let d = 4;
            let spec =
                AttentionSpec { n_heads: groups * kv_heads, n_kv_heads: kv_heads, head_dim: d, scale: 0.5, window, softcap };
            let take = |n: usize, from: usize| -> Vec<f32> { (0..n).map(|i| seed[(from + i * 7) % 200]).collect() };
            let q = take(spec.n_heads * d, 0);
            let (keys, values) = (take(9 * kv_heads * d, 3), take(9 * kv_heads * d, 11));
            let expected = attention(&spec, &q, &keys, &values, &[position as u32]).unwrap();
            for head in 0..spec.n_heads {
                let w = head_weights(&spec, &q, &keys, head, position);
                prop_assert!((w.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                prop_assert_eq!(w.first + w.weights.len(), position + 1);
                for (found, expected) in w.output(&spec, &values, head).iter().zip(&expected[head * d..]) {
                    prop_assert!((found - expected).abs() < 1e-5, "{found} {expected}");
                }
            }
        }
    }
}
