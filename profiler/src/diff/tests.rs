//! Profiles of which one is the other with known changes.

#![allow(clippy::unwrap_used)]

use bricks::BrickKind;

use super::{DiffError, DiffOptions, ProfileDiff, Verdict};
use crate::profile::Profile;
use crate::step::Phase;
use crate::testing::profile;

/// The test profile with enough forward calls for intervals: `n` decoded tokens at ascending contexts, with noise of a few per mille
/// that differs from seed to seed; times of the brick `name` are multiplied by `factor`.
fn long(n: usize, seed: u64, name: &str, factor: f64) -> Profile {
    let mut p = profile();
    p.phases.retain(|p| p.phase == Phase::Decode);
    let phase = &mut p.phases[0];
    let first = phase.timeline[0].clone();
    let mut state = seed;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1.0 + (state >> 40) as f64 / (1u64 << 24) as f64 * 0.006
    };
    phase.timeline = (0..n)
        .map(|i| {
            let mut f = first.clone();
            f.context = 100 + i as u64;
            for (us, step) in f.steps_us.iter_mut().zip(&phase.steps) {
                let changed = if step.name == name { factor } else { 1.0 };
                *us = us.map(|us| us * noise() * changed);
            }
            f.wall_us = f.steps_us.iter().flatten().sum();
            f
        })
        .collect();
    for step in &mut phase.steps {
        if step.name == name {
            step.measured.mean_us_per_token *= factor;
        }
    }
    p
}

#[test]
fn a_slower_brick_is_named_and_nothing_else_is() {
    let (a, b) = (long(40, 1, "", 1.0), long(40, 2, "blk.1.ffn_down", 1.1));
    let diff = ProfileDiff::new(&a, &b, DiffOptions::default()).unwrap();
    assert_eq!((diff.phases.len(), diff.same_graph), (1, Some(true)));
    let decode = &diff.phases[0];
    assert_eq!(decode.pairs, 40);
    let slower: Vec<&str> =
        decode.steps.iter().filter(|r| r.verdict != Verdict::NoEvidence).map(|r| r.name.as_str()).collect();
    assert_eq!(slower, ["blk.1.ffn_down"]);
    assert_eq!(decode.steps[0].name, "blk.1.ffn_down", "the largest contribution comes first");
    assert_eq!(decode.steps[0].verdict, Verdict::Slower);
    let ratio = decode.steps[0].ratio.unwrap();
    assert!((ratio.estimate - 1.1).abs() < 0.005, "{ratio}");
    // One of two layers: 5 % of the kind.
    let down = decode.kinds.iter().find(|r| r.kind == Some(BrickKind::Down)).unwrap();
    assert_eq!(down.verdict, Verdict::Slower);
    // The other way round it is faster.
    let back = ProfileDiff::new(&b, &a, DiffOptions::default()).unwrap();
    assert_eq!(back.phases[0].steps[0].verdict, Verdict::Faster);
    assert_eq!(back.phases[0].steps[0].delta_us, -decode.steps[0].delta_us);
}

#[test]
fn equal_profiles_differ_in_nothing() {
    let claimed = |seed: u64, threshold: f64| {
        let (a, b) = (long(40, 100 + seed, "", 1.0), long(40, 200 + seed, "", 1.0));
        let diff = ProfileDiff::new(&a, &b, DiffOptions { threshold }).unwrap();
        assert!(diff.notes.is_empty(), "{:?}", diff.notes);
        let phase = &diff.phases[0];
        phase.steps.iter().filter(|r| matches!(r.verdict, Verdict::Faster | Verdict::Slower)).count()
    };
    assert_eq!((0..20).map(|seed| claimed(seed, 0.02)).sum::<usize>(), 0);
    // Without a threshold, one table in twenty may claim something.
    let wrong = (0..20).filter(|&seed| claimed(seed, 0.0) > 0).count();
    assert!(wrong <= 4, "{wrong} of 20 tables");
}

#[test]
fn calls_of_different_sizes_are_no_pairs() {
    let (a, mut b) = (long(10, 1, "", 1.0), long(10, 2, "", 1.0));
    // Only the contexts 105 to 109 are in both, in another order.
    for f in &mut b.phases[0].timeline {
        f.context += 5;
    }
    b.phases[0].timeline.reverse();
    let diff = ProfileDiff::new(&a, &b, DiffOptions::default()).unwrap();
    assert_eq!(diff.phases[0].pairs, 5);
    b.phases[0].timeline.iter_mut().for_each(|f| f.tokens = 7);
    let diff = ProfileDiff::new(&a, &b, DiffOptions::default()).unwrap();
    assert_eq!((diff.phases[0].pairs, diff.phases[0].total.verdict), (0, Verdict::NotCompared));
}

#[test]
fn bricks_of_one_profile_are_contributions_without_a_ratio() {
    let (mut a, b) = (long(20, 1, "", 1.0), long(20, 2, "", 1.0));
    let gone = a.phases[0].steps.iter().position(|s| s.name == "blk.0.ffn_act").unwrap();
    a.phases[0].steps.remove(gone);
    a.phases[0].timeline.iter_mut().for_each(|f| {
        let _ = f.steps_us.remove(gone);
    });
    a.model.graph_hash = Some("other".into());
    a.run.threads = 1;
    let diff = ProfileDiff::new(&a, &b, DiffOptions::default()).unwrap();
    let row = diff.phases[0].steps.iter().find(|r| r.name == "blk.0.ffn_act").unwrap();
    assert_eq!((row.a_us, row.verdict), (None, Verdict::NotCompared));
    assert_eq!(row.delta_us, row.b_us.unwrap());
    // All others are still matched by name, not by position.
    let others = diff.phases[0].steps.iter().filter(|r| r.name != "blk.0.ffn_act");
    assert!(others.into_iter().all(|r| r.verdict == Verdict::NoEvidence));
    assert_eq!(diff.notes, ["threads: 1 and 2", "the graphs differ: bricks are matched by name"]);
}

#[test]
fn profiles_without_a_common_phase_are_an_error() {
    let (a, mut b) = (long(5, 1, "", 1.0), profile());
    b.phases.retain(|p| p.phase == Phase::Prefill);
    let e = ProfileDiff::new(&a, &b, DiffOptions::default()).unwrap_err();
    assert_eq!(e, DiffError::NoCommonPhase { a: "decode".into(), b: "prefill".into() });
    insta::assert_snapshot!(e, @"expected a phase that both profiles have, found decode in the first and prefill in the second");
}

#[test]
fn the_report_reads_well() {
    let (a, b) = (long(40, 1, "", 1.0), long(40, 2, "blk.1.ffn_down", 1.1));
    let mut diff = ProfileDiff::new(&a, &b, DiffOptions::default()).unwrap();
    diff.phases[0].steps.truncate(4);
    insta::assert_snapshot!(diff.to_text(&crate::Style::PLAIN, 4));
    insta::assert_snapshot!(diff.to_markdown(4));
}
