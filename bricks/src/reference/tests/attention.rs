//! Attention and the KV cache.

use super::super::{attention, kv_write};
use super::noise;
use crate::error::BrickError;
use crate::op::AttentionSpec;

fn spec(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> AttentionSpec {
    let scale = 1.0 / (head_dim as f32).sqrt();
    AttentionSpec { n_heads, n_kv_heads, head_dim, scale, window: None, softcap: None }
}

/// With zero keys every visible position weighs the same, so the output is the mean of what is visible: value `j` is `2^j`.
fn mean_of_visible(window: Option<usize>, position: u32, context: usize) -> f32 {
    let s = AttentionSpec { window, ..spec(1, 1, 1) };
    let values: Vec<f32> = (0..context).map(|j| (1u32 << j) as f32).collect();
    attention(&s, &[1.0], &vec![0.0; context], &values, &[position]).unwrap()[0]
}

/// F045: a query sees itself and what was before it, exactly.
#[test]
fn a_query_sees_its_past_and_itself() {
    for p in 0..8u32 {
        let expected = ((1u32 << (p + 1)) - 1) as f32 / (p + 1) as f32;
        assert!((mean_of_visible(None, p, 8) - expected).abs() < 1e-5, "position {p}");
    }
}

#[test]
fn a_window_counts_the_query_itself() {
    assert_eq!(mean_of_visible(Some(1), 5, 8), 32.0);
    assert_eq!(mean_of_visible(Some(2), 5, 8), 24.0, "(16 + 32)/2");
    assert_eq!(mean_of_visible(Some(6), 5, 8), mean_of_visible(None, 5, 8));
    assert_eq!(mean_of_visible(Some(usize::MAX), 5, 8), mean_of_visible(None, 5, 8));
    assert_eq!(mean_of_visible(Some(3), 0, 8), 1.0);
}

/// F045: what comes later does not reach earlier rows, not by a bit, not even as NaN.
#[test]
fn the_future_does_not_reach_the_past() {
    let s = spec(4, 2, 8);
    let (q, k, v) = (noise(1, 6 * 32), noise(2, 6 * 16), noise(3, 6 * 16));
    let before = attention(&s, &q, &k, &v, &[0, 1, 2, 3, 4, 5]).unwrap();
    for cut in 1..6 {
        let (mut k, mut v) = (k.clone(), v.clone());
        k[cut * 16..].fill(f32::NAN);
        v[cut * 16..].fill(f32::INFINITY);
        let after = attention(&s, &q, &k, &v, &[0, 1, 2, 3, 4, 5]).unwrap();
        assert_eq!(before[..cut * 32], after[..cut * 32], "cut at {cut}");
        assert!(after[cut * 32..].iter().all(|x| !x.is_finite()), "and what may see it does");
    }
}

/// Rows do not know each other: prefill is decode, row by row.
#[test]
fn a_batch_is_its_rows() {
    let s = spec(4, 2, 8);
    let (q, k, v) = (noise(4, 6 * 32), noise(5, 6 * 16), noise(6, 6 * 16));
    let all = attention(&s, &q, &k, &v, &[0, 1, 2, 3, 4, 5]).unwrap();
    for t in 0..6 {
        let (q, seen) = (&q[t * 32..][..32], (t + 1) * 16);
        let one = attention(&s, q, &k[..seen], &v[..seen], &[t as u32]).unwrap();
        assert_eq!(one, all[t * 32..][..32], "row {t}");
    }
}

/// Query head `h` reads KV head `h · n_kv / n`: each KV head's value is its own number.
#[test]
fn grouped_heads_read_their_own_kv_head() {
    for (n_heads, n_kv_heads, expected) in
        [(6, 2, &[0.0, 0.0, 0.0, 1.0, 1.0, 1.0][..]), (4, 4, &[0.0, 1.0, 2.0, 3.0]), (3, 1, &[0.0, 0.0, 0.0])]
    {
        let values: Vec<f32> = (0..n_kv_heads).map(|g| g as f32).collect();
        let q = noise(7, n_heads);
        let y = attention(&spec(n_heads, n_kv_heads, 1), &q, &vec![0.5; n_kv_heads], &values, &[0]).unwrap();
        assert_eq!(y, expected);
    }
}

/// Two keys, by hand: weights are `e^(s·scale)` over their sum.
#[test]
fn scores_are_scaled_and_capped() {
    let with = |scale: f32, softcap: Option<f32>| {
        let s = AttentionSpec { scale, softcap, ..spec(1, 1, 2) };
        attention(&s, &[1.0, 2.0], &[0.0, 0.0, 3.0, 4.0], &[0.0, 0.0, 1.0, 1.0], &[1]).unwrap()[0]
    };
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    // q · k = 11.
    assert!((f64::from(with(0.1, None)) - sigmoid(1.1)).abs() < 1e-7);
    assert!((f64::from(with(1.0, Some(5.0))) - sigmoid(5.0 * (11.0f64 / 5.0).tanh())).abs() < 1e-7);
}

#[test]
fn large_scores_do_not_overflow() {
    let y = attention(&spec(1, 1, 1), &[1e4], &[1e4, -1e4], &[1.0, 2.0], &[1]).unwrap();
    assert_eq!(y, [1.0]);
}

/// F046: each row lands at its own position and nowhere else.
#[test]
fn writes_land_at_their_positions() {
    const SENTINEL: f32 = -7.0;
    let mut cache = vec![SENTINEL; 5 * 4];
    let src = noise(8, 2 * 4);
    kv_write(&mut cache, 4, &src, &[3, 1]).unwrap();
    assert_eq!(cache[12..16], src[..4]);
    assert_eq!(cache[4..8], src[4..]);
    for free in [0, 2, 4] {
        assert_eq!(cache[free * 4..][..4], [SENTINEL; 4], "position {free}");
    }
}

#[test]
fn a_refused_write_writes_nothing() {
    let mut cache = vec![0.0; 8];
    let error = kv_write(&mut cache, 4, &[1.0; 8], &[0, 2]).unwrap_err();
    assert!(matches!(error, BrickError::Index { index: 2, limit: 2, .. }));
    assert!(kv_write(&mut cache, 4, &[1.0; 7], &[0]).is_err());
    assert!(kv_write(&mut cache, 3, &[1.0; 3], &[0]).is_err());
    assert!(kv_write(&mut cache, 0, &[], &[]).is_err());
    assert!(kv_write(&mut cache, 4, &[1.0; 4], &[0, 1]).is_err());
    assert_eq!(cache, [0.0; 8]);
}

#[test]
fn contradictions_are_refused() {
    let ok = spec(4, 2, 2);
    let run = |s: &AttentionSpec| attention(s, &[0.0; 8], &[0.0; 4], &[0.0; 4], &[0]);
    assert!(run(&ok).is_ok());
    for bad in [
        AttentionSpec { n_kv_heads: 3, ..ok.clone() },
        AttentionSpec { n_kv_heads: 0, ..ok.clone() },
        AttentionSpec { n_heads: 0, ..ok.clone() },
        AttentionSpec { head_dim: 0, ..ok.clone() },
        AttentionSpec { n_heads: usize::MAX, n_kv_heads: 1, ..ok.clone() },
        AttentionSpec { scale: f32::NAN, ..ok.clone() },
        AttentionSpec { window: Some(0), ..ok.clone() },
        AttentionSpec { softcap: Some(0.0), ..ok.clone() },
        AttentionSpec { softcap: Some(f32::INFINITY), ..ok.clone() },
    ] {
        assert!(matches!(run(&bad), Err(BrickError::Parameter { .. })), "{bad:?}");
    }
    assert!(matches!(attention(&ok, &[0.0; 7], &[0.0; 4], &[0.0; 4], &[0]), Err(BrickError::Shape { .. })));
    assert!(matches!(attention(&ok, &[0.0; 8], &[0.0; 5], &[0.0; 5], &[0]), Err(BrickError::Shape { .. })));
    assert!(matches!(attention(&ok, &[0.0; 8], &[0.0; 4], &[0.0; 8], &[0]), Err(BrickError::Shape { .. })));
    assert!(matches!(attention(&ok, &[0.0; 8], &[0.0; 4], &[0.0; 4], &[1]), Err(BrickError::Index { .. })));
    assert!(matches!(attention(&ok, &[0.0; 8], &[], &[], &[0]), Err(BrickError::Index { .. })), "no key at all");
}
