//! Attention over pages against a plain softmax in f64, and its independence of where pages lie and what is not visible.
#![allow(clippy::unwrap_used)]

use std::ops::Range;

use bricks::cpu::SimdLevel;
use bricks::cpu::attention::{AttentionGroup, KvPage};
use half::f16;
use proptest::prelude::*;

/// Queries, and keys and values of enough whole pages for `context` positions.
struct Case {
    group: AttentionGroup,
    q: Vec<f32>,
    keys: Vec<f16>,
    values: Vec<f16>,
}

fn noise(i: usize, seed: usize) -> f32 {
    let x = (i.wrapping_mul(0x9e37_79b9) ^ seed.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35) >> 7;
    (x % 20_011) as f32 / 10_005.5 - 1.0
}

impl Case {
    fn new(heads: usize, head_dim: usize, page_len: usize, context: usize, size: f32) -> Self {
        let group = AttentionGroup { heads, head_dim, page_len, scale: 1.0 / (head_dim as f32).sqrt(), softcap: None };
        let n = context.next_multiple_of(page_len) * head_dim;
        Self {
            group,
            q: (0..heads * head_dim).map(|i| noise(i, 1) * size).collect(),
            keys: (0..n).map(|i| f16::from_f32(noise(i, 2) * size)).collect(),
            values: (0..n).map(|i| f16::from_f32(noise(i, 3))).collect(),
        }
    }

    fn page(&self, i: usize) -> Option<KvPage<'_>> {
        let size = self.group.page_len * self.group.head_dim;
        Some(KvPage {
            keys: self.keys.get(i * size..)?.get(..size)?,
            values: self.values.get(i * size..)?.get(..size)?,
        })
    }

    fn run(&self, level: SimdLevel, visible: Range<usize>) -> Vec<f32> {
        let mut scratch = vec![f32::NAN; self.group.scratch_len()];
        let mut out = vec![f32::NAN; self.q.len()];
        self.group.run(level, &self.q, visible, |i| self.page(i), &mut scratch, &mut out).unwrap();
        out
    }

    /// The definition, in f64.
    fn expected(&self, visible: Range<usize>) -> Vec<f64> {
        let dim = self.group.head_dim;
        let mut out = Vec::new();
        for q in self.q.chunks_exact(dim) {
            let scores: Vec<f64> = visible
                .clone()
                .map(|i| {
                    let key = &self.keys[i * dim..][..dim];
                    let dot: f64 = q.iter().zip(key).map(|(q, k)| f64::from(*q) * k.to_f64()).sum();
                    let score = dot * f64::from(self.group.scale);
                    self.group.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                })
                .collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
            let sum: f64 = weights.iter().sum();
            out.extend((0..dim).map(|d| {
                let values = visible.clone().map(|i| self.values[i * dim + d].to_f64());
                values.zip(&weights).map(|(v, w)| v * w).sum::<f64>() / sum
            }));
        }
        out
    }

    /// Every level agrees with the definition, and the levels with each other to the bit.
    fn check(&self, visible: Range<usize>) {
        let expected = self.expected(visible.clone());
        let mut first = None;
        for level in SimdLevel::available() {
            let out = self.run(level, visible.clone());
            for (i, (y, e)) in out.iter().zip(&expected).enumerate() {
                assert!(
                    (f64::from(*y) - e).abs() <= 2e-5,
                    "{level} {:?} {visible:?}: out[{i}] = {y}, expected {e}",
                    self.group
                );
            }
            let first = first.get_or_insert_with(|| out.clone());
            assert_eq!(bits(&out), bits(first), "{level} {:?} {visible:?}", self.group);
        }
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn agrees_with_the_definition_for_all_shapes() {
    for head_dim in [16, 32, 48, 64, 80, 96, 128, 256, 1, 7, 20, 72] {
        for heads in [1, 2, 3, 4, 5, 7, 8] {
            for (page_len, context) in [(32, 1), (32, 77), (64, 64), (5, 23), (16, 33)] {
                Case::new(heads, head_dim, page_len, context, 2.0).check(0..context);
            }
        }
    }
}

#[test]
fn windows_softcaps_and_large_scores() {
    for size in [0.0, 1e-3, 1.0, 12.0] {
        let mut case = Case::new(3, 64, 32, 200, size);
        for visible in [0..200, 199..200, 100..200, 31..33, 32..64, 64..65, 5..10] {
            case.check(visible);
        }
        for cap in [50.0, 1.0] {
            case.group.softcap = Some(cap);
            case.check(0..200);
            case.check(37..111);
        }
    }
}

/// Rising scores move the maximum at every page, falling ones at none; both far beyond what `exp` could take unshifted.
#[test]
fn scores_that_rise_or_fall_over_thousands_stay_finite() {
    for direction in [1.0, -1.0] {
        let mut case = Case::new(2, 16, 16, 160, 1.0);
        case.group.scale = 1.0;
        case.q.fill(8.0);
        for (i, row) in case.keys.chunks_exact_mut(16).enumerate() {
            row.fill(f16::from_f32(direction * (i as f32 - 80.0)));
        }
        case.check(0..160);
    }
}

#[test]
fn what_is_not_visible_is_not_read_and_does_not_matter() {
    let case = Case::new(4, 64, 32, 96, 1.0);
    let mut poisoned = Case::new(4, 64, 32, 96, 1.0);
    for (i, row) in poisoned.keys.chunks_exact_mut(64).chain(poisoned.values.chunks_exact_mut(64)).enumerate() {
        if !(37..70).contains(&(i % 96)) {
            row.fill(f16::NAN);
        }
    }
    for level in SimdLevel::available() {
        assert_eq!(bits(&poisoned.run(level, 37..70)), bits(&case.run(level, 37..70)), "{level}");
        assert!(poisoned.run(level, 36..70).iter().all(|y| y.is_nan()), "{level}");
    }
}

/// A head's bits do not depend on the heads beside it, so grouping is free to change.
#[test]
fn heads_do_not_depend_on_their_company() {
    let case = Case::new(7, 80, 32, 150, 1.5);
    for level in SimdLevel::available() {
        let together = case.run(level, 11..150);
        for (h, q) in case.q.chunks_exact(80).enumerate() {
            let mut alone = Case::new(1, 80, 32, 150, 1.5);
            alone.q = q.to_vec();
            assert_eq!(bits(&alone.run(level, 11..150)), bits(&together[h * 80..][..80]), "{level} head {h}");
        }
    }
}

#[test]
fn no_position_gives_zeros_and_contradictions_are_errors() {
    let case = Case::new(2, 32, 16, 40, 1.0);
    let level = SimdLevel::detect();
    assert_eq!(case.run(level, 7..7), [0.0; 64]);
    let (mut scratch, mut out) = (vec![0.0; case.group.scratch_len()], vec![0.0; 64]);
    let page = |i| case.page(i);
    let run = |g: &AttentionGroup, q: &[f32], visible: Range<usize>, scratch: &mut [f32], out: &mut [f32]| {
        g.run(level, q, visible, page, scratch, out).unwrap_err().to_string()
    };
    let g = &case.group;
    assert_eq!(run(g, &case.q[1..], 0..9, &mut scratch, &mut out), "elements of the queries: expected 64, found 63");
    assert_eq!(
        run(g, &case.q, 0..9, &mut scratch[1..], &mut out),
        "scratch of attention: expected at most 35, found 36"
    );
    assert_eq!(
        run(g, &case.q, 0..9, &mut scratch, &mut out[1..]),
        "elements of the attention output: expected 64, found 63"
    );
    assert_eq!(run(g, &case.q, 0..49, &mut scratch, &mut out), "page of the sequence: expected at most 2, found 3");
    let other = AttentionGroup { page_len: 8, ..case.group };
    assert_eq!(
        run(&other, &case.q, 0..9, &mut scratch, &mut out),
        "elements of a page of keys: expected 256, found 512"
    );
    let none = AttentionGroup { page_len: 0, ..case.group };
    assert_eq!(run(&none, &case.q, 0..9, &mut scratch, &mut out), "positions per page: expected 1, found 0");
    let absurd = AttentionGroup { heads: usize::MAX, head_dim: 0, page_len: usize::MAX, ..case.group };
    assert!(absurd.run(level, &[], 0..9, page, &mut scratch, &mut []).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_shape_agrees(
        heads in 1usize..9, head_dim in 1usize..140, page_len in 1usize..70, context in 1usize..200,
        start in 0usize..200, size in 0f32..6.0
    ) {
        Case::new(heads, head_dim, page_len, context, size).check(start.min(context - 1)..context);
    }
}
