#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use rand_chacha::rand_core::RngCore as _;

fn sampler(f: impl FnOnce(&mut SamplerOptions)) -> Sampler {
    let mut o = SamplerOptions { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerOptions::default() };
    f(&mut o);
    Sampler::new(o, 8).unwrap()
}

#[test]
fn greedy_takes_the_first_of_equals() {
    let mut s = sampler(|o| o.temperature = 0.0);
    assert_eq!(s.sample(&[0.0, 3.0, 3.0, 1.0], &[]), Ok(1));
    assert_eq!(s.sample(&[f32::NEG_INFINITY, -1.0], &[]), Ok(1));
}

#[test]
fn bad_logits_are_errors() {
    for t in [0.0, 1.0] {
        let mut s = sampler(|o| o.temperature = t);
        assert_eq!(s.sample(&[0.0, f32::NAN], &[]), Err(SamplerError::NotFinite { token: 1 }));
        assert_eq!(s.sample(&[f32::NEG_INFINITY; 2], &[]), Err(SamplerError::NotFinite { token: 0 }));
    }
}

#[test]
fn options_out_of_range_are_named() {
    for (f, name) in [
        ((|o| o.temperature = -1.0) as fn(&mut SamplerOptions), "temperature"),
        (|o| o.temperature = f32::NAN, "temperature"),
        (|o| o.top_p = 0.0, "top-p"),
        (|o| o.min_p = 1.5, "min-p"),
        (|o| o.repeat_penalty = 0.0, "repeat-penalty"),
    ] {
        let mut o = SamplerOptions::default();
        f(&mut o);
        let err = o.validate().unwrap_err();
        assert!(err.to_string().starts_with(name), "{err}");
    }
}

#[test]
fn the_penalty_moves_a_recent_token_down_once() {
    let mut s = sampler(|o| {
        o.temperature = 0.0;
        o.repeat_penalty = 2.0;
        o.repeat_last_n = 2;
    });
    assert_eq!(s.sample(&[1.0, 3.0, 2.0], &[1, 1]), Ok(2), "3.0 / 2 once, not twice");
    assert_eq!(s.sample(&[1.4, 3.0, 1.0], &[1, 1]), Ok(1));
    assert_eq!(s.sample(&[1.0, 3.0, 2.0], &[1, 0, 0]), Ok(1), "outside the window");
    assert_eq!(s.sample(&[-1.0, -1.5], &[0, 0]), Ok(1), "negative logits are multiplied");
}

#[test]
fn top_k_top_p_and_min_p_keep_what_they_say() {
    let logits = [0.5f32.ln(), 0.3f32.ln(), 0.15f32.ln(), 0.05f32.ln()];
    let kinds = |s: &mut Sampler| {
        let mut seen: Vec<u32> = (0..500).map(|_| s.sample(&logits, &[]).unwrap()).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    };
    assert_eq!(kinds(&mut sampler(|_| {})), [0, 1, 2, 3]);
    assert_eq!(kinds(&mut sampler(|o| o.top_k = 2)), [0, 1]);
    assert_eq!(kinds(&mut sampler(|o| o.top_p = 0.7)), [0, 1]);
    assert_eq!(kinds(&mut sampler(|o| o.min_p = 0.2)), [0, 1, 2]);
    assert_eq!(kinds(&mut sampler(|o| o.temperature = 0.01)), [0]);
}

#[test]
fn samples_follow_the_distribution_and_the_seed() {
    let logits = [0.7f32.ln(), 0.2f32.ln(), 0.1f32.ln()];
    let draw = |seed| {
        let mut s = sampler(|o| o.seed = seed);
        (0..4000).map(|_| s.sample(&logits, &[]).unwrap()).collect::<Vec<_>>()
    };
    let a = draw(1);
    assert_eq!(a, draw(1));
    assert_ne!(a, draw(2));
    let share = a.iter().filter(|&&x| x == 0).count() as f64 / 4000.0;
    assert!((share - 0.7).abs() < 0.04, "{share}");
}

#[test]
fn logprobs_are_a_distribution() {
    let (top, chosen) = top_logprobs(&[0.0, 1.0, 2.0, -50.0], 3, Some(0));
    assert_eq!(top.iter().map(|t| t.id).collect::<Vec<_>>(), [2, 1, 0]);
    assert!((top.iter().map(|t| t.logprob.exp()).sum::<f32>() - 1.0).abs() < 1e-6);
    assert_eq!(chosen, Some(top[2].logprob));
    assert_eq!(top_logprobs(&[1.0], 5, Some(7)).1, None);
}

proptest! {
    #[test]
    fn the_highest_logit_is_found_in_any_lane(
        logits in proptest::collection::vec(
            prop_oneof![4 => (-3i8..3).prop_map(f32::from), 1 => Just(f32::NAN), 1 => Just(f32::NEG_INFINITY)],
            0..150,
        ),
    ) {
        let expected = bricks::reference::argmax(&logits).filter(|&i| logits[i] > f32::NEG_INFINITY);
        prop_assert_eq!(argmax(&logits), expected.map(|i| i as u32));
        prop_assert_eq!(first_nan(&logits), logits.iter().position(|x| x.is_nan()));
    }

    #[test]
    fn always_a_legal_token(logits in proptest::collection::vec(-1e4f32..1e4, 1..200), seed: u64, k in 0usize..50,
                            p in 0.01f32..=1.0, m in 0.0f32..=1.0, t in 0.01f32..5.0) {
        let o = SamplerOptions { temperature: t, top_k: k, top_p: p, min_p: m, seed, ..SamplerOptions::default() };
        let mut s = Sampler::new(o, logits.len()).unwrap();
        let id = s.sample(&logits, &[0]).unwrap();
        prop_assert!((id as usize) < logits.len());
    }
}

/// The obvious way: everything sorted before every stage.
fn by_sorting(o: &SamplerOptions, rng: &mut ChaCha8Rng, logits: &[f32], recent: &[u32]) -> Result<u32, SamplerError> {
    if let Some(token) = logits.iter().position(|x| x.is_nan()) {
        return Err(SamplerError::NotFinite { token });
    }
    let mut left: Vec<(f32, u32)> = logits.iter().copied().zip(0..).collect();
    let weights = |left: &[(f32, u32)]| -> Vec<f64> {
        left.iter().map(|(x, _)| f64::from((x - left.first().map_or(0.0, |best| best.0)).exp())).collect()
    };
    for stage in &o.chain {
        left.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        match stage {
            // Greedy choice looks at penalties only.
            Stage::TopK | Stage::TopP | Stage::MinP if o.temperature == 0.0 => {}
            Stage::Penalties => {
                let window = &recent[recent.len().saturating_sub(o.repeat_last_n)..];
                for (x, _) in left.iter_mut().filter(|(_, id)| window.contains(id)) {
                    *x = if *x > 0.0 { *x / o.repeat_penalty } else { *x * o.repeat_penalty };
                }
            }
            Stage::TopK if o.top_k > 0 => left.truncate(o.top_k),
            Stage::TopP if o.top_p < 1.0 => {
                let weights = weights(&left);
                let total: f64 = weights.iter().sum();
                let mut mass = 0.0;
                let last = weights.iter().position(|w| {
                    mass += w;
                    mass >= f64::from(o.top_p) * total
                });
                left.truncate(last.map_or(left.len(), |i| i + 1));
            }
            Stage::MinP if o.min_p > 0.0 => {
                let floor = left.first().map_or(0.0, |best| best.0 + o.min_p.ln());
                left.retain(|(x, _)| *x >= floor);
            }
            Stage::Temperature if o.temperature > 0.0 => left.iter_mut().for_each(|(x, _)| *x /= o.temperature),
            _ => {}
        }
    }
    if o.temperature == 0.0 {
        // Of equal values the first, and the two zeros are equal.
        let best = left.iter().map(|l| l.0).fold(f32::NEG_INFINITY, f32::max);
        let first = left.iter().filter(|l| l.0 == best).map(|l| l.1).min();
        return first.filter(|_| best > f32::NEG_INFINITY).ok_or(SamplerError::NotFinite { token: 0 });
    }
    left.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let weights = weights(&left);
    let total: f64 = weights.iter().sum();
    if !(total.is_finite() && total > 0.0) {
        return Err(SamplerError::NotFinite { token: 0 });
    }
    let mut rest = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
    let drawn = weights.iter().position(|w| {
        rest -= w;
        rest < 0.0
    });
    let last = || weights.iter().rposition(|&w| w > 0.0);
    Ok(left[drawn.or_else(last).unwrap()].1)
}

/// Vocabularies of all sizes, with values that many tokens share, both zeros and infinities among them.
fn any_logits() -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![
        8 => -30.0f32..30.0,
        8 => (-6i8..6).prop_map(f32::from),
        1 => prop_oneof![Just(0.0f32), Just(-0.0), Just(f32::NEG_INFINITY), Just(-120.0)],
    ];
    // Far fewer values than tokens, so that ties lie wherever a selection cuts.
    let size = prop_oneof![4 => 1usize..200, 1 => 4000usize..9000];
    (proptest::collection::vec(value, 1..400), size, any::<u32>(), 0u8..30).prop_map(|(values, n, mix, odd)| {
        let mut logits: Vec<f32> =
            (0..n as u32).map(|i| values[(i.wrapping_mul(mix | 1).rotate_left(11) as usize) % values.len()]).collect();
        match odd {
            0 => logits[n / 2] = f32::INFINITY,
            1 => logits[n / 3] = f32::NAN,
            2 => logits.fill(f32::NEG_INFINITY),
            _ => {}
        }
        logits
    })
}

fn any_chain() -> impl Strategy<Value = Vec<Stage>> {
    prop_oneof![
        2 => Just(DEFAULT_CHAIN.to_vec()),
        1 => Just(DEFAULT_CHAIN.to_vec()).prop_shuffle(),
        1 => proptest::sample::subsequence(DEFAULT_CHAIN.to_vec(), 0..=5),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn selecting_gives_what_sorting_gives(
        logits in any_logits(), chain in any_chain(), seed: u64,
        k in prop_oneof![1 => Just(0usize), 2 => 1usize..300, 1 => 300usize..9000],
        p in prop_oneof![1 => Just(1.0f32), 1 => Just(0.5), 3 => 0.001f32..1.0],
        m in prop_oneof![1 => Just(0.0f32), 1 => Just(1.0), 2 => 0.0f32..1.0],
        t in prop_oneof![1 => Just(0.0f32), 1 => Just(1.0), 4 => 0.05f32..4.0],
        penalty in prop_oneof![1 => Just(1.0f32), 1 => 0.5f32..2.0],
        recent in proptest::collection::vec(0u32..10_000, 0..80),
    ) {
        let o = SamplerOptions {
            temperature: t, top_k: k, top_p: p, min_p: m, repeat_penalty: penalty, seed, chain,
            ..SamplerOptions::default()
        };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut s = Sampler::new(o.clone(), logits.len()).unwrap();
        for _ in 0..3 {
            prop_assert_eq!(s.sample(&logits, &recent), by_sorting(&o, &mut rng, &logits, &recent));
        }
    }
}
