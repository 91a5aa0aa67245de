//! Row kernels against f64, with odd tails and hostile values, and the same bits at every level.
#![allow(clippy::unwrap_used)]

use bricks::cpu::{self, SimdLevel};
use bricks::quant::q8::{Q8RowMut, Q8Rows};
use bricks::{ActKind, DType, RopeStyle, quant};
use half::f16;
use proptest::prelude::*;

const WIDTHS: [usize; 14] = [0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 64, 65, 127, 576];

/// A value for every index: both signs, several magnitudes.
fn wave(i: usize) -> f32 {
    let x = (i as f32 * 0.737 + 0.3).sin() * 4.0;
    if i % 11 == 10 { x * 20.0 } else { x }
}

fn row(n: usize, from: usize) -> Vec<f32> {
    (from..from + n).map(wave).collect()
}

/// Bits, with all NaNs alike.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// Runs `f` at every level, checks that the bits agree, and returns them.
fn at_every_level(f: impl Fn(SimdLevel) -> Vec<f32>) -> Vec<f32> {
    let expected = f(SimdLevel::Scalar);
    for level in SimdLevel::available() {
        assert_eq!(bits(&f(level)), bits(&expected), "{level}");
    }
    expected
}

fn near(found: f32, expected: f64, relative: f64) {
    let error = (f64::from(found) - expected).abs();
    assert!(error <= relative * expected.abs() + 1e-37, "found {found}, expected {expected}");
}

#[test]
fn rms_norm_divides_by_the_root_of_the_mean_square() {
    for n in WIDTHS {
        for (size, eps) in [(1.0, 1e-5), (1e-4, 1e-6), (1e9, 1e-5), (0.0, 1e-5)] {
            let x: Vec<f32> = row(n, 3).iter().map(|x| x * size).collect();
            let gain = row(n, 1000);
            let out = at_every_level(|level| {
                let mut out = vec![f32::NAN; n];
                cpu::rms_norm_row(level, &x, &gain, eps, &mut out).unwrap();
                out
            });
            let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
            let rms = (squares / n as f64 + f64::from(eps)).sqrt();
            for ((y, x), g) in out.iter().zip(&x).zip(&gain) {
                near(*y, f64::from(*x) / rms * f64::from(*g), 1e-6);
            }
        }
    }
    let mut out = [0.0; 3];
    assert!(cpu::rms_norm_row(SimdLevel::detect(), &[1.0; 3], &[1.0; 2], 1e-5, &mut out).is_err());
    assert!(cpu::rms_norm_row(SimdLevel::detect(), &[1.0; 4], &[1.0; 4], 1e-5, &mut out).is_err());
}

#[test]
fn sums_are_exact_and_keep_what_is_not_finite() {
    for n in WIDTHS {
        let (mut a, b) = (row(n, 0), row(n, 500));
        if n > 2 {
            (a[0], a[1], a[2]) = (f32::NAN, f32::INFINITY, f32::MAX);
        }
        let out = at_every_level(|level| {
            let mut out = vec![0.0; n];
            cpu::add_row(level, &a, &b, &mut out).unwrap();
            out
        });
        let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        assert_eq!(bits(&out), bits(&expected));
    }
    assert!(cpu::add_row(SimdLevel::detect(), &[0.0; 2], &[0.0; 3], &mut [0.0; 2]).is_err());
    assert!(cpu::add_row(SimdLevel::detect(), &[0.0; 2], &[0.0; 2], &mut [0.0; 3]).is_err());
}

fn activation(act: ActKind, x: f32) -> f64 {
    let x = f64::from(x);
    match act {
        ActKind::Silu => x / (1.0 + (-x).exp()),
        // The tanh formula loses everything to cancellation for negative x, in f64 too: 1 + tanh u = 2 / (1 + e^-2u).
        ActKind::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            x / (1.0 + (-2.0 * u).exp())
        }
    }
}

#[test]
fn gates_are_within_1e_6_over_their_whole_range() {
    for act in [ActKind::Silu, ActKind::GeluTanh] {
        let range = if act == ActKind::Silu { 88.0 } else { 9.0 };
        let gate: Vec<f32> = (0..40_001).map(|i| (i as f32 / 20_000.0 - 1.0) * range).collect();
        let up = vec![2.0; gate.len()];
        let out = at_every_level(|level| {
            let mut out = vec![f32::NAN; gate.len()];
            cpu::gated_activation(level, act, &gate, &up, &mut out).unwrap();
            out
        });
        for (y, x) in out.iter().zip(&gate) {
            // GELU's exponent is rounded to f32: it counts where the result is next to nothing.
            let relative = if act == ActKind::GeluTanh && *x < -3.0 { 1e-5 } else { 1e-6 };
            near(*y, 2.0 * activation(act, *x), relative);
        }
        // The ends: identity far above, zero far below, NaN stays.
        let ends = [1e3, 1e30, -1e3, -1e30, 0.0, f32::NAN, f32::INFINITY];
        let out = at_every_level(|level| {
            let mut out = vec![f32::NAN; ends.len()];
            cpu::gated_activation(level, act, &ends, &[1.0; 7], &mut out).unwrap();
            out
        });
        assert_eq!(out[..5], [1e3, 1e30, 0.0, 0.0, 0.0], "{act:?}");
        assert!(out[5].is_nan() && out[6] == f32::INFINITY, "{act:?} {out:?}");
    }
    for n in WIDTHS {
        let mut out = vec![f32::NAN; n];
        cpu::gated_activation(SimdLevel::detect(), ActKind::Silu, &row(n, 0), &row(n, 90), &mut out).unwrap();
        for (i, y) in out.iter().enumerate() {
            near(*y, activation(ActKind::Silu, wave(i)) * f64::from(wave(i + 90)), 1e-6);
        }
    }
    assert!(cpu::gated_activation(SimdLevel::detect(), ActKind::Silu, &[0.0], &[], &mut [0.0]).is_err());
}

#[test]
fn softcap_is_bounded_and_odd() {
    let x: Vec<f32> = (-400..=400).map(|i| i as f32 * 0.7).collect();
    let out = at_every_level(|level| {
        let mut x = x.clone();
        cpu::softcap_row(level, 30.0, &mut x);
        x
    });
    for (i, (y, x)) in out.iter().zip(&x).enumerate() {
        let expected = 30.0 * (f64::from(*x) / 30.0).tanh();
        assert!((f64::from(*y) - expected).abs() <= 30.0 * 3e-7, "softcap({x}) = {y}, expected {expected}");
        assert_eq!(*y, -out[out.len() - 1 - i]);
    }
}

#[test]
fn rotation_turns_each_pair_and_passes_the_rest() {
    for style in [RopeStyle::Interleaved, RopeStyle::SplitHalves] {
        for (heads, head_dim, dims) in
            [(1, 2, 2), (3, 64, 64), (2, 80, 80), (9, 96, 24), (1, 256, 256), (2, 34, 34), (2, 16, 0), (1, 47, 46)]
        {
            let angles: Vec<f64> = (0..dims / 2).map(|i| 17.0 / 10f64.powf(i as f64 / dims as f64 * 4.0)).collect();
            let cos: Vec<f32> = angles.iter().map(|a| a.cos() as f32).collect();
            let sin: Vec<f32> = angles.iter().map(|a| a.sin() as f32).collect();
            let x = row(heads * head_dim, 7);
            let out = at_every_level(|level| {
                let mut x = x.clone();
                cpu::rope_row(level, style, &mut x, head_dim, &cos, &sin).unwrap();
                x
            });
            let mut expected: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
            for head in expected.chunks_exact_mut(head_dim) {
                for i in 0..dims / 2 {
                    let (i, j) = match style {
                        RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                        RopeStyle::SplitHalves => (i, i + dims / 2),
                    };
                    let p = if style == RopeStyle::Interleaved { i / 2 } else { i };
                    let (c, s) = (f64::from(cos[p]), f64::from(sin[p]));
                    (head[i], head[j]) = (head[i] * c - head[j] * s, head[j] * c + head[i] * s);
                }
            }
            for (y, e) in out.iter().zip(&expected) {
                assert!((f64::from(*y) - e).abs() <= 2e-5, "{style:?} {head_dim}/{dims}: {y}, expected {e}");
            }
            for (y, x) in out.chunks_exact(head_dim).zip(x.chunks_exact(head_dim)) {
                assert_eq!(y[dims..], x[dims..], "{style:?}: elements beyond the rotation changed");
            }
        }
    }
    let mut x = [0.0; 64];
    let level = SimdLevel::detect();
    assert!(cpu::rope_row(level, RopeStyle::Interleaved, &mut x, 32, &[1.0; 17], &[0.0; 17]).is_err());
    assert!(cpu::rope_row(level, RopeStyle::Interleaved, &mut x, 32, &[1.0; 16], &[0.0; 15]).is_err());
    assert!(cpu::rope_row(level, RopeStyle::Interleaved, &mut x, 48, &[1.0; 16], &[0.0; 16]).is_err());
    assert!(cpu::rope_row(level, RopeStyle::Interleaved, &mut x, 0, &[], &[]).is_err());
}

fn quantised(level: SimdLevel, x: &[f32]) -> Q8Rows {
    let mut rows = Q8Rows::zeros(1, x.len()).unwrap();
    let mut row: Q8RowMut<'_> = rows.row_mut(0).unwrap();
    cpu::quantize_row(level, x, &mut row).unwrap();
    rows
}

fn check_quantised(x: &[f32]) {
    let expected = Q8Rows::from_values(x.len(), x).unwrap();
    for level in SimdLevel::available() {
        let found = quantised(level, x);
        assert_eq!(found.codes(), expected.codes(), "{level} {x:?}");
        assert_eq!(bits(found.scales()), bits(expected.scales()), "{level} {x:?}");
        assert_eq!(found.sums(), expected.sums(), "{level} {x:?}");
    }
}

#[test]
fn activations_are_encoded_as_the_reference_does() {
    for blocks in [1, 2, 3, 18] {
        check_quantised(&row(32 * blocks, 5));
    }
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-45, -0.0, f32::MIN_POSITIVE] {
        for at in [0, 15, 16, 31, 40] {
            let mut x = row(64, 9);
            x[at] = special;
            check_quantised(&x);
            let mut x = vec![0.0; 64];
            x[at] = special;
            check_quantised(&x);
        }
    }
    // Ties of the rounding, to even.
    check_quantised(&(0..32).map(|i| if i == 0 { 127.0 } else { i as f32 - 16.5 }).collect::<Vec<_>>());
    let mut rows = Q8Rows::zeros(1, 64).unwrap();
    assert!(cpu::quantize_row(SimdLevel::detect(), &[0.0; 32], &mut rows.row_mut(0).unwrap()).is_err());
}

#[test]
fn half_precision_rounds_to_even_and_widens_exactly() {
    let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    let wide = at_every_level(|level| {
        let mut out = vec![0.0; all.len()];
        cpu::f16_to_f32(level, &all, &mut out).unwrap();
        out
    });
    for (x, y) in all.iter().zip(&wide) {
        assert!(x.to_f32() == *y || x.is_nan() && y.is_nan(), "{x}");
    }
    // Every f16, the middle to its neighbour, and just beside the middle; a length with a tail.
    let mut values: Vec<f32> = wide.iter().copied().filter(|x| !x.is_nan()).collect();
    for x in wide.iter().copied().filter(|x| x.is_finite()) {
        let next = f16::from_bits(f16::from_f32(x).to_bits().wrapping_add(1)).to_f32();
        let middle = f32::midpoint(x, next);
        values.extend([middle, f32::from_bits(middle.to_bits().wrapping_add(1))].iter().filter(|m| !m.is_nan()));
    }
    values.extend([65519.9, 65520.0, 1e10, -1e10, 1e-30]);
    for level in SimdLevel::available() {
        let mut narrow = vec![f16::ZERO; values.len()];
        cpu::f32_to_f16(level, &values, &mut narrow).unwrap();
        for (x, y) in values.iter().zip(&narrow) {
            assert_eq!(f16::from_f32_const(*x).to_bits(), y.to_bits(), "{level} {x}");
        }
    }
    for n in WIDTHS {
        let (src, mut dst) = (row(n, 0), vec![f16::ONE; n]);
        cpu::f32_to_f16(SimdLevel::detect(), &src, &mut dst).unwrap();
        assert!(src.iter().zip(&dst).all(|(x, y)| f16::from_f32_const(*x) == *y));
    }
    assert!(cpu::f32_to_f16(SimdLevel::detect(), &[0.0; 2], &mut [f16::ONE; 1]).is_err());
    assert!(cpu::f16_to_f32(SimdLevel::detect(), &[f16::ONE; 1], &mut [0.0; 2]).is_err());
}

#[test]
fn embedding_decodes_one_row_and_refuses_tokens_outside_the_table() {
    let (rows, cols) = (5, 64);
    let values = row(rows * cols, 0);
    let mut table = vec![0; rows * DType::Q8_0.row_bytes(cols).unwrap()];
    quant::encode_row(DType::Q8_0, &values, &mut table).unwrap();
    let mut all = vec![0.0; rows * cols];
    quant::decode_row(DType::Q8_0, &table, &mut all).unwrap();
    for token in 0..rows {
        let mut out = vec![f32::NAN; cols];
        cpu::embed_row(DType::Q8_0, &table, token, 1.0, &mut out).unwrap();
        assert_eq!(out, all[token * cols..][..cols]);
        cpu::embed_row(DType::Q8_0, &table, token, 3.0, &mut out).unwrap();
        assert!(out.iter().zip(&all[token * cols..]).all(|(y, x)| *y == x * 3.0));
    }
    let mut out = vec![0.0; cols];
    for token in [rows, usize::MAX] {
        let error = cpu::embed_row(DType::Q8_0, &table, token, 1.0, &mut out).unwrap_err();
        assert_eq!(error.to_string(), format!("token of the embedding: expected at most 4, found {token}"));
    }
    assert!(cpu::embed_row(DType::Q8_0, &table[1..], 0, 1.0, &mut out).is_err());
    assert!(cpu::embed_row(DType::Q8_0, &table, 0, 1.0, &mut out[1..]).is_err());
    assert!(cpu::embed_row(DType::Q8_0, &[], 0, 1.0, &mut out).is_err());
    assert!(cpu::embed_row(DType::Q8_0, &[], 0, 1.0, &mut []).is_err());
}

proptest! {
    #[test]
    fn any_bits_are_encoded_as_the_reference_does(words in prop::collection::vec(any::<u32>(), 32..=96)) {
        let n = words.len() / 32 * 32;
        check_quantised(&words[..n].iter().map(|w| f32::from_bits(*w)).collect::<Vec<_>>());
    }

    #[test]
    fn values_of_like_size_are_encoded_as_the_reference_does(
        x in prop::collection::vec(-1f32..1.0, 64..=64), size in -120i32..120
    ) {
        check_quantised(&x.iter().map(|x| x * 2f32.powi(size)).collect::<Vec<_>>());
    }
}
