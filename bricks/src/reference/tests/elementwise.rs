//! Norms, activations, softmax, argmax.

use proptest::prelude::*;

use super::super::{activate, add, add_rms_norm, argmax, gated_activation, gather_rows, rms_norm, softmax};
use super::noise;
use crate::error::BrickError;
use crate::op::ActKind;

fn softmax_of(scores: &[f64]) -> Vec<f64> {
    let mut p = scores.to_vec();
    softmax(&mut p);
    p
}

proptest! {
    /// F044: ±1e4 would overflow a naive exponential.
    #[test]
    fn softmax_is_a_distribution_whatever_the_scores(scores in prop::collection::vec(-1e4..1e4f64, 1..200)) {
        let p = softmax_of(&scores);
        prop_assert!(p.iter().all(|x| x.is_finite() && (0.0..=1.0).contains(x)));
        prop_assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn softmax_does_not_see_a_common_offset(scores in prop::collection::vec(-50.0..50.0f64, 1..20), offset in -1e4..1e4f64) {
        let shifted: Vec<f64> = scores.iter().map(|x| x + offset).collect();
        for (p, q) in softmax_of(&scores).iter().zip(softmax_of(&shifted)) {
            prop_assert!((p - q).abs() < 1e-9);
        }
    }

    /// F047.
    #[test]
    fn swiglu_is_silu_of_gate_times_up(pairs in prop::collection::vec((-30.0..30.0f32, -30.0..30.0f32), 1..50)) {
        let (gate, up): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let y = gated_activation(ActKind::Silu, &gate, &up).unwrap();
        for i in 0..y.len() {
            let sigmoid = 1.0 / (1.0 + (-f64::from(gate[i])).exp());
            let expected = f64::from(gate[i]) * sigmoid * f64::from(up[i]);
            prop_assert!((f64::from(y[i]) - expected).abs() <= 1e-6 * expected.abs(), "{} for {expected}", y[i]);
        }
    }

    #[test]
    fn rms_norm_of_a_row_has_unit_mean_square(x in prop::collection::vec(-100.0..100.0f32, 4..64)) {
        prop_assume!(x.iter().any(|v| v.abs() > 1.0));
        let y = rms_norm(&x, &vec![1.0; x.len()], 0.0).unwrap();
        let mean = y.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / y.len() as f64;
        prop_assert!((mean - 1.0).abs() < 1e-6, "{mean}");
    }
}

#[test]
fn softmax_at_its_edges() {
    const MASKED: f64 = f64::NEG_INFINITY;
    assert_eq!(softmax_of(&[MASKED, 3.0, MASKED]), [0.0, 1.0, 0.0], "all masked but one");
    assert_eq!(softmax_of(&[-1e4]), [1.0], "length 1");
    assert_eq!(softmax_of(&[7.0, 7.0]), [0.5, 0.5]);
    assert_eq!(softmax_of(&[]), [0.0; 0]);
    let p = softmax_of(&[0.0, 2f64.ln()]);
    assert!((p[0] - 1.0 / 3.0).abs() < 1e-15 && (p[1] - 2.0 / 3.0).abs() < 1e-15);
    for none in [&[MASKED, MASKED][..], &[0.0, f64::NAN], &[f64::INFINITY, 0.0]] {
        assert!(softmax_of(none).iter().any(|x| x.is_nan()), "{none:?} has no distribution, and must show it");
    }
}

#[test]
fn argmax_takes_the_first_of_equals_and_never_nan() {
    assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), Some(1));
    assert_eq!(argmax(&[f32::NAN, -5.0, f32::NAN]), Some(1));
    assert_eq!(argmax(&[f32::NEG_INFINITY, f32::NEG_INFINITY]), Some(0));
    assert_eq!(argmax(&[0.0, f32::INFINITY]), Some(1));
    assert_eq!(argmax(&[f32::NAN]), None);
    assert_eq!(argmax(&[]), None);
}

#[test]
fn activations_at_known_points() {
    // silu(1) = 1/(1 + 1/e); gelu values from the formula evaluated by hand to 9 digits.
    assert!((activate(ActKind::Silu, 1.0) - 0.731_058_578_630_004_9).abs() < 1e-15);
    assert!((activate(ActKind::GeluTanh, 1.0) - 0.841_191_990_608_276_8).abs() < 1e-12);
    assert!((activate(ActKind::GeluTanh, -2.0) - -0.045_402_305_912_224_94).abs() < 1e-12);
    for act in [ActKind::Silu, ActKind::GeluTanh] {
        assert_eq!(activate(act, 0.0), 0.0);
        assert_eq!(activate(act, 1e4), 1e4, "identity far to the right");
        assert_eq!(activate(act, -1e4), 0.0, "zero far to the left, without overflow");
    }
}

#[test]
fn gates_need_partners() {
    assert!(matches!(gated_activation(ActKind::Silu, &[1.0], &[]), Err(BrickError::Shape { .. })));
    assert!(matches!(add(&[1.0], &[1.0, 2.0]), Err(BrickError::Shape { .. })));
}

/// F048: eps is inside the root, and its size is seen.
#[test]
fn rms_norm_epsilon_is_inside_the_root() {
    let ones = [1.0; 4];
    assert_eq!(rms_norm(&[0.0; 4], &ones, 1e-6).unwrap(), [0.0; 4], "a zero row stays zero");
    // With x = 1e-3, mean(x²) = 1e-6 = eps: y = 1e-3/sqrt(2e-6). Outside the root it would be 1e-3/(1e-3 + 1e-6).
    let tiny = rms_norm(&[1e-3; 4], &ones, 1e-6).unwrap();
    assert!((f64::from(tiny[0]) - 0.5f64.sqrt()).abs() < 1e-6, "{}", tiny[0]);
    let larger = rms_norm(&[1e-3; 4], &ones, 1e-5).unwrap();
    assert!((f64::from(larger[0]) - (1.0f64 / 11.0).sqrt()).abs() < 1e-6, "{}", larger[0]);
}

#[test]
fn rms_norm_applies_the_gain_per_element_and_rows_apart() {
    let y = rms_norm(&[3.0, 4.0, 30.0, 40.0], &[1.0, 10.0], 0.0).unwrap();
    let root = 12.5f64.sqrt();
    for (found, expected) in y.iter().zip([3.0 / root, 40.0 / root, 3.0 / root, 40.0 / root]) {
        assert!((f64::from(*found) - expected).abs() < 1e-6, "{y:?}");
    }
}

/// Squares of large values overflow f32 but not the reference.
#[test]
fn rms_norm_of_huge_values_is_finite() {
    let y = rms_norm(&[1e30, -1e30], &[1.0, 1.0], 1e-6).unwrap();
    assert_eq!(y, [1.0, -1.0]);
}

#[test]
fn add_rms_norm_gives_the_sum_and_its_norm() {
    let (r, x, g) = (noise(1, 24), noise(2, 24), noise(3, 8));
    let (sum, norm) = add_rms_norm(&r, &x, &g, 1e-5).unwrap();
    assert_eq!(sum, add(&r, &x).unwrap());
    assert_eq!(norm, rms_norm(&sum, &g, 1e-5).unwrap());
}

#[test]
fn bad_norms_are_refused() {
    assert!(matches!(rms_norm(&[1.0; 5], &[1.0; 4], 1e-6), Err(BrickError::Shape { .. })));
    assert!(matches!(rms_norm(&[], &[], 1e-6), Err(BrickError::Parameter { .. })));
    for eps in [-1e-6, f32::NAN, f32::INFINITY] {
        assert!(matches!(rms_norm(&[1.0], &[1.0], eps), Err(BrickError::Parameter { .. })), "{eps}");
    }
}

#[test]
fn gathering_takes_listed_rows_in_order() {
    let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    assert_eq!(gather_rows(&x, 2, &[2, 0, 2]).unwrap(), [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
    assert!(matches!(gather_rows(&x, 2, &[3]), Err(BrickError::Index { index: 3, limit: 3, .. })));
    assert!(gather_rows(&x, 4, &[]).is_err() && gather_rows(&x, 0, &[]).is_err());
}
