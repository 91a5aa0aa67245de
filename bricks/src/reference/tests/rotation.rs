//! F043: rotary embedding.

use proptest::prelude::*;

use super::super::rope;
use super::noise;
use crate::error::BrickError;
use crate::rope::{RopeScaling, RopeSpec, RopeStyle};

fn spec(style: RopeStyle, dims: usize) -> RopeSpec {
    RopeSpec { style, base: 1e4, dims, scaling: RopeScaling::None, freq_factors: None }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn style() -> impl Strategy<Value = RopeStyle> {
    prop_oneof![Just(RopeStyle::Interleaved), Just(RopeStyle::SplitHalves)]
}

fn head(dims: usize) -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-4.0..4.0f32, dims)
}

proptest! {
    #[test]
    fn position_0_is_the_identity(style in style(), x in head(32)) {
        prop_assert_eq!(rope(&spec(style, 16), 2, 16, &x, &[0]).unwrap(), x);
    }

    #[test]
    fn rotation_keeps_the_norm_of_each_head(style in style(), x in head(32), p in 0u32..100_000) {
        let y = rope(&spec(style, 16), 2, 16, &x, &[p]).unwrap();
        for (x, y) in x.chunks(16).zip(y.chunks(16)) {
            prop_assert!((dot(x, x) - dot(y, y)).abs() <= 1e-5 * (1.0 + dot(x, x)));
        }
    }

    #[test]
    fn products_depend_on_the_difference_of_positions_only(
        style in style(), q in head(16), k in head(16), p in 0u32..4096, d in 0u32..4096, shift in 0u32..4096,
    ) {
        let s = spec(style, 16);
        let at = |x: &[f32], p: u32| rope(&s, 1, 16, x, &[p]).unwrap();
        let near = dot(&at(&q, p + d), &at(&k, p));
        let far = dot(&at(&q, p + d + shift), &at(&k, p + shift));
        prop_assert!((near - far).abs() < 1e-3, "{near} and {far}");
    }

    #[test]
    fn elements_beyond_the_rotary_dims_pass_through(style in style(), x in head(24), p in 1u32..4096) {
        let y = rope(&spec(style, 8), 2, 12, &x, &[p]).unwrap();
        for (x, y) in x.chunks(12).zip(y.chunks(12)) {
            prop_assert_eq!(&x[8..], &y[8..]);
        }
    }
}

/// One unit vector per pair tells which elements turn together, in which direction, and by which angle.
#[test]
fn pairs_are_those_of_the_style() {
    for (style, partner) in [(RopeStyle::Interleaved, [1, 0, 3, 2]), (RopeStyle::SplitHalves, [2, 3, 0, 1])] {
        for i in 0..4 {
            let mut x = [0.0f32; 4];
            x[i] = 1.0;
            let y = rope(&spec(style, 4), 1, 4, &x, &[3]).unwrap();
            let j = partner[i];
            let pair = match style {
                RopeStyle::Interleaved => i / 2,
                RopeStyle::SplitHalves => i % 2,
            };
            let angle = 3.0 * [1.0, 0.01][pair];
            // The first element of a pair turns towards the second; the second towards minus the first.
            let sine = if i < j { f64::sin(angle) } else { -f64::sin(angle) };
            for (n, &found) in y.iter().enumerate() {
                let expected = if n == i {
                    f64::cos(angle)
                } else if n == j {
                    sine
                } else {
                    0.0
                };
                assert!((f64::from(found) - expected).abs() < 1e-6, "{style:?} unit {i}: {y:?}");
            }
        }
    }
}

#[test]
fn every_row_turns_by_its_own_position() {
    let s = spec(RopeStyle::SplitHalves, 8);
    let x = noise(4, 24);
    let y = rope(&s, 1, 8, &x, &[5, 0, 9]).unwrap();
    for (t, p) in [5, 0, 9].into_iter().enumerate() {
        assert_eq!(y[t * 8..][..8], rope(&s, 1, 8, &x[t * 8..][..8], &[p]).unwrap());
    }
}

#[test]
fn yarn_scales_the_rotated_part_only() {
    let scaling =
        RopeScaling::Yarn { factor: 4.0, original_context: 64, attn_factor: 1.0, beta_fast: 32.0, beta_slow: 1.0 };
    let s = RopeSpec { scaling, ..spec(RopeStyle::SplitHalves, 4) };
    let y = rope(&s, 1, 6, &[1.0; 6], &[0]).unwrap();
    let magnitude = (0.1 * 4f64.ln() + 1.0) as f32;
    assert_eq!(y, [magnitude, magnitude, magnitude, magnitude, 1.0, 1.0]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let s = spec(RopeStyle::SplitHalves, 8);
    assert!(matches!(rope(&s, 1, 6, &[0.0; 6], &[0]), Err(BrickError::Parameter { .. })), "dims > head_dim");
    assert!(matches!(rope(&s, 1, 8, &[0.0; 9], &[0]), Err(BrickError::Shape { .. })));
    assert!(matches!(rope(&s, 1, 8, &[0.0; 8], &[0, 1]), Err(BrickError::Shape { .. })));
    assert!(matches!(rope(&s, 0, 8, &[], &[]), Err(BrickError::Parameter { .. })));
    assert!(matches!(rope(&s, usize::MAX, 8, &[0.0; 8], &[0]), Err(BrickError::Parameter { .. })));
    assert!(matches!(rope(&spec(RopeStyle::SplitHalves, 7), 1, 8, &[], &[]), Err(BrickError::Rope { .. })));
}
