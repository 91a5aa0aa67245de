#![allow(clippy::unwrap_used)]

use std::f64::consts::PI;

use super::*;

fn spec(base: f32, dims: usize, scaling: RopeScaling) -> RopeSpec {
    RopeSpec { style: RopeStyle::SplitHalves, base, dims, scaling, freq_factors: None }
}

/// The configuration of Llama 3.2 1B.
fn llama3() -> RopeSpec {
    spec(5e5, 64, RopeScaling::Llama3 { factor: 32.0, low: 1.0, high: 4.0, original_context: 8192 })
}

/// The long-context configuration of Qwen2.5.
fn yarn() -> RopeSpec {
    let scaling =
        RopeScaling::Yarn { factor: 4.0, original_context: 32_768, attn_factor: 1.0, beta_fast: 32.0, beta_slow: 1.0 };
    spec(1e6, 128, scaling)
}

/// `base^(-2i/dims)`, by its definition.
fn plain(s: &RopeSpec, i: usize) -> f64 {
    1.0 / f64::from(s.base).powf((2 * i) as f64 / s.dims as f64)
}

fn assert_close(found: f64, expected: f64, what: &str) {
    assert!((found / expected - 1.0).abs() < 1e-7, "{what}: expected {expected}, found {found}");
}

/// Compares every pair with a formula, in f64 up to the one rounding to f32.
fn assert_frequencies(s: &RopeSpec, expected: impl Fn(usize) -> f64) {
    let f = s.inv_freq();
    assert_eq!(f.inv_freq.len(), s.dims / 2);
    for (i, &found) in f.inv_freq.iter().enumerate() {
        assert_close(f64::from(found), expected(i), &format!("pair {i}"));
    }
}

#[test]
fn without_scaling_wavelengths_are_a_geometric_series() {
    let s = spec(1e4, 64, RopeScaling::None);
    assert_frequencies(&s, |i| plain(&s, i));
    let f = s.inv_freq();
    assert_eq!((f.inv_freq[0], f.inv_freq[16], f.magnitude), (1.0, 0.01, 1.0));
}

#[test]
fn linear_scaling_divides_every_frequency() {
    let s = spec(1e4, 64, RopeScaling::Linear { factor: 4.0 });
    assert_frequencies(&s, |i| plain(&s, i) / 4.0);
    assert_eq!(s.inv_freq().magnitude, 1.0);
}

/// The published rule, in terms of wavelengths.
#[test]
fn llama3_keeps_high_frequencies_divides_low_ones_and_blends_between() {
    let s = llama3();
    let (factor, low, high, context) = (32.0, 1.0, 4.0, 8192.0);
    assert_frequencies(&s, |i| {
        let f = plain(&s, i);
        let wavelength = 2.0 * PI / f;
        if wavelength < context / high {
            f
        } else if wavelength > context / low {
            f / factor
        } else {
            let smooth = (context / wavelength - low) / (high - low);
            (1.0 - smooth) * f / factor + smooth * f
        }
    });
}

/// Values of a separate program for the same configuration.
#[test]
fn llama3_recorded_values() {
    let f = llama3().inv_freq();
    for (i, expected) in [
        (0, 1.0),
        (5, 0.128_687_373_432_650_52),
        (14, 0.003_211_445_994_752_591_3),
        (15, 0.001_290_547_928_209_264),
        (16, 0.000_429_556_796_559_368_15),
        (17, 9.708_287_802_627_67e-5),
        (18, 1.946_163_818_483_112_5e-5),
        (31, 9.418_306_725_434_909e-8),
    ] {
        assert_close(f64::from(f.inv_freq[i]), expected, &format!("pair {i}"));
    }
    assert_eq!(f.magnitude, 1.0);
}

/// Section 3.2 ("NTK-by-parts") and 3.4 (temperature) of the paper.
#[test]
fn yarn_interpolates_by_parts() {
    let s = yarn();
    // The pairs at which 32 and 1 turns fit into 32,768 positions.
    let pair = |turns: f64| 128.0 * (32_768.0 / (turns * 2.0 * PI)).ln() / (2.0 * 1e6f64.ln());
    let (low, high) = (pair(32.0).floor(), pair(1.0).ceil());
    assert_eq!((low, high), (23.0, 40.0));
    assert_frequencies(&s, |i| {
        let keep = 1.0 - ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        plain(&s, i) / 4.0 * (1.0 - keep) + plain(&s, i) * keep
    });
}

/// Values of a separate program for the same configuration.
#[test]
fn yarn_recorded_values() {
    let f = yarn().inv_freq();
    for (i, expected) in [
        (0, 1.0),
        (23, 0.006_978_305_848_598_663),
        (24, 0.005_375_321_490_790_102),
        (30, 0.001_064_360_981_247_001_7),
        (39, 6.490_394_320_837_028e-5),
        (40, 4.445_698_525_097_307e-5),
        (63, 3.102_344_401_879_299e-7),
    ] {
        assert_close(f64::from(f.inv_freq[i]), expected, &format!("pair {i}"));
    }
    assert_close(f64::from(f.magnitude), 1.138_629_436_111_989, "magnitude");
}

#[test]
fn yarn_magnitude_has_the_attention_factor_and_no_effect_without_extension() {
    let with = |factor: f32, attn_factor: f32| {
        let scaling =
            RopeScaling::Yarn { factor, original_context: 4096, attn_factor, beta_fast: 32.0, beta_slow: 1.0 };
        f64::from(spec(1e4, 64, scaling).inv_freq().magnitude)
    };
    assert_close(with(16.0, 0.5), 0.5 * (0.1 * 16f64.ln() + 1.0), "magnitude");
    assert_eq!(with(1.0, 1.0), 1.0);
}

#[test]
fn frequency_factors_divide_after_scaling() {
    let mut s = spec(1e4, 8, RopeScaling::Linear { factor: 2.0 });
    s.freq_factors = Some(vec![1.0, 2.0, 4.0, 32.0]);
    assert_frequencies(&s, |i| plain(&s, i) / 2.0 / [1.0, 2.0, 4.0, 32.0][i]);
}

#[test]
fn cos_sin_of_angles_times_magnitude() {
    let s = yarn();
    let f = s.inv_freq();
    let (mut cos, mut sin) = (vec![0.0; 64], vec![0.0; 64]);
    s.cos_sin(0, &mut cos, &mut sin);
    assert!(cos.iter().all(|&c| c == f.magnitude) && sin.iter().all(|&s| s == 0.0));
    s.cos_sin(1000, &mut cos, &mut sin);
    for i in 0..64 {
        let angle = 1000.0 * f64::from(f.inv_freq[i]);
        assert!((f64::from(cos[i]) - angle.cos() * f64::from(f.magnitude)).abs() < 1e-7, "pair {i}");
        assert!((f64::from(sin[i]) - angle.sin() * f64::from(f.magnitude)).abs() < 1e-7, "pair {i}");
    }
}

/// A product in f32 would be off by 1e-3 and more here.
#[test]
fn angles_stay_exact_at_long_contexts() {
    let s = spec(1e4, 4, RopeScaling::None);
    let (mut cos, mut sin) = ([0.0; 2], [0.0; 2]);
    s.cos_sin(1_000_003, &mut cos, &mut sin);
    let angle = 1_000_003.0 * f64::from(0.01f32);
    assert!((f64::from(cos[1]) - angle.cos()).abs() < 1e-7 && (f64::from(sin[1]) - angle.sin()).abs() < 1e-7);
}

#[test]
fn good_specifications_pass() {
    for s in [spec(1e4, 2, RopeScaling::None), llama3(), yarn()] {
        assert_eq!(s.check(), Ok(()));
    }
}

#[test]
fn parameters_without_meaning_are_refused_by_name() {
    let yarn = |factor: f32, original_context: u32, beta_fast: f32, beta_slow: f32| {
        let scaling = RopeScaling::Yarn { factor, original_context, attn_factor: 1.0, beta_fast, beta_slow };
        spec(1e4, 64, scaling)
    };
    let llama3 =
        |low: f32, high: f32| spec(1e4, 64, RopeScaling::Llama3 { factor: 8.0, low, high, original_context: 8192 });
    let factors = |f: Vec<f32>| RopeSpec { freq_factors: Some(f), ..spec(1e4, 4, RopeScaling::None) };
    let cases = [
        (spec(1e4, 0, RopeScaling::None), "rotary dims"),
        (spec(1e4, 3, RopeScaling::None), "rotary dims"),
        (spec(1e4, usize::MAX - 1, RopeScaling::None), "rotary dims"),
        (spec(0.0, 64, RopeScaling::None), "base"),
        (spec(1.0, 64, RopeScaling::None), "base"),
        (spec(f32::NAN, 64, RopeScaling::None), "base"),
        (spec(f32::INFINITY, 64, RopeScaling::None), "base"),
        (spec(1e4, 64, RopeScaling::Linear { factor: 0.0 }), "scaling factor"),
        (spec(1e4, 64, RopeScaling::Linear { factor: f32::NAN }), "scaling factor"),
        (llama3(4.0, 4.0), "high frequency factor"),
        (llama3(-1.0, 4.0), "low frequency factor"),
        (yarn(4.0, 0, 32.0, 1.0), "original context"),
        (yarn(-4.0, 4096, 32.0, 1.0), "scaling factor"),
        (yarn(4.0, 4096, 1.0, 32.0), "beta fast"),
        (factors(vec![1.0]), "frequency factors: expected 2, found 1"),
        (factors(vec![1.0, 0.0]), "frequency factor"),
    ];
    for (s, named) in cases {
        let message = s.check().unwrap_err().to_string();
        assert!(message.contains(named), "{s:?}: {message}");
        // Nonsense gives nonsense frequencies, not a panic.
        assert!(s.inv_freq().inv_freq.len() <= RopeSpec::MAX_DIMS / 2);
    }
}
