//! Recording seen from outside, on a clock the test moves.

#![allow(clippy::unwrap_used)]

use bricks::{BrickCategory, BrickKind, Extent};

use super::{BrickProfiler, PhaseTotals, Recorder, SyncMode};
use crate::clock::ManualClock;
use crate::step::{Phase, StepInfo};
use crate::testing;

const DECODE: Extent = Extent { tokens: 1, wanted: 1, context: 10, pairs: 10 };

/// Runs one forward in which step `i` takes `times[i]` ns, with 7 ns before the end.
fn forward(p: &mut BrickProfiler<&ManualClock>, clock: &ManualClock, phase: Phase, times: &[u64]) {
    p.begin_forward(&DECODE, phase);
    for (i, &ns) in times.iter().enumerate() {
        clock.advance(ns);
        p.step_done(i);
    }
    clock.advance(7);
    p.end_forward();
}

fn times(steps: &[StepInfo], base: u64) -> Vec<u64> {
    (0..steps.len() as u64).map(|i| base + i * i).collect()
}

#[test]
fn immediate_gives_one_sample_per_step_and_forward() {
    let (steps, clock) = (testing::plan(2), ManualClock::new());
    let mut p = BrickProfiler::with_clock(&steps, 8, SyncMode::Immediate, &clock);
    for base in [10, 20, 30] {
        forward(&mut p, &clock, Phase::Decode, &times(&steps, base));
    }
    for i in 0..steps.len() {
        let t = p.step_totals(Phase::Decode, i).unwrap();
        let square = (i * i) as u64;
        assert_eq!((t.count, t.sum_ns, t.min_ns, t.max_ns), (3, 60 + 3 * square, 10 + square, 30 + square));
        assert_eq!(p.step_totals(Phase::Prefill, i).unwrap().count, 0);
    }
    assert_eq!(clock.reads(), 3 * (steps.len() as u64 + 2));
    assert_eq!(p.clock_reads(), clock.reads());
    assert_eq!(p.step_totals(Phase::Decode, steps.len()), None);
}

#[test]
fn steps_and_the_tail_add_up_to_the_wall() {
    let (steps, clock) = (testing::plan(1), ManualClock::new());
    let mut p = BrickProfiler::with_clock(&steps, 4, SyncMode::Immediate, &clock);
    forward(&mut p, &clock, Phase::Prefill, &times(&steps, 100));
    let t = p.phase_totals(Phase::Prefill);
    assert_eq!(t.steps_ns, times(&steps, 100).iter().sum::<u64>());
    assert_eq!(t.wall.sum_ns, t.steps_ns + 7);
    assert_eq!((t.forwards, t.extent), (1, DECODE));
}

#[test]
fn per_layer_reads_the_clock_once_per_layer() {
    let clock = ManualClock::new();
    let layers: Vec<StepInfo> = testing::plan(5).into_iter().filter(|s| s.layer.is_some()).collect::<Vec<_>>();
    let mut p = BrickProfiler::with_clock(&layers, 4, SyncMode::PerLayer, &clock);
    forward(&mut p, &clock, Phase::Decode, &vec![10; layers.len()]);
    assert_eq!(clock.reads(), 5 + 2, "one per layer, one at each end of the forward");
    let segments: Vec<_> = p.segment_totals(Phase::Decode).map(|(l, t)| (l.unwrap(), t.count, t.sum_ns)).collect();
    assert_eq!(segments, (0..5).map(|l| (l, 1, 80)).collect::<Vec<_>>());
    assert_eq!(p.step_totals(Phase::Decode, 0), None);
    assert_eq!(p.kind_totals(Phase::Decode, BrickKind::Qkv).count, 0, "no invented times");
}

#[test]
fn layers_have_the_same_times_in_every_mode() {
    let steps = testing::plan(3);
    let seen: Vec<Vec<_>> = [SyncMode::Immediate, SyncMode::PerLayer, SyncMode::Deferred]
        .into_iter()
        .map(|mode| {
            let clock = ManualClock::new();
            let mut p = BrickProfiler::with_clock(&steps, 4, mode, &clock);
            forward(&mut p, &clock, Phase::Decode, &times(&steps, 5));
            forward(&mut p, &clock, Phase::Decode, &times(&steps, 50));
            p.finish();
            p.segment_totals(Phase::Decode).map(|(l, t)| (l, *t)).collect()
        })
        .collect();
    assert_eq!(seen[0].len(), 5);
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
}

#[test]
fn deferred_shows_nothing_until_finished_and_then_everything() {
    let (steps, clock) = (testing::plan(1), ManualClock::new());
    let mut p = BrickProfiler::with_clock(&steps, 8, SyncMode::Deferred, &clock);
    let mut now = BrickProfiler::with_clock(&steps, 8, SyncMode::Immediate, &clock);
    for base in [1, 2, 3] {
        forward(&mut p, &clock, Phase::Decode, &times(&steps, base));
        forward(&mut now, &clock, Phase::Decode, &times(&steps, base));
    }
    assert_eq!(p.phase_totals(Phase::Decode).forwards, 0);
    assert_eq!(p.samples(Phase::Decode).count(), 0);
    assert!((0..steps.len()).all(|i| p.step_totals(Phase::Decode, i).unwrap().count == 0));
    p.finish();
    p.finish(); // changes nothing
    assert_eq!(p.samples(Phase::Decode).count(), 3);
    for i in 0..steps.len() {
        assert_eq!(p.step_totals(Phase::Decode, i), now.step_totals(Phase::Decode, i));
        assert_eq!(p.step_work(Phase::Decode, i), now.step_work(Phase::Decode, i));
    }
}

#[test]
fn deferred_loses_nothing_when_its_buffer_is_full() {
    let (steps, clock) = (testing::plan(1), ManualClock::new());
    let mut p = BrickProfiler::with_clock(&steps, 2, SyncMode::Deferred, &clock);
    for base in 1..=5 {
        forward(&mut p, &clock, Phase::Decode, &times(&steps, base));
    }
    p.finish();
    let t = p.step_totals(Phase::Decode, 0).unwrap();
    assert_eq!((t.count, t.sum_ns), (5, 1 + 2 + 3 + 4 + 5));
    assert_eq!(p.phase_totals(Phase::Decode).forwards, 5);
    assert_eq!(p.samples(Phase::Decode).map(|s| s.slot_ns(0).unwrap()).collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn off_means_no_samples_and_no_clock_reads() {
    let steps = testing::plan(1);
    for (mode, enabled) in [(SyncMode::None, true), (SyncMode::Immediate, false), (SyncMode::Deferred, false)] {
        let clock = ManualClock::new();
        let mut p = BrickProfiler::with_clock(&steps, 4, mode, &clock);
        p.set_enabled(enabled);
        assert!(!p.is_enabled());
        forward(&mut p, &clock, Phase::Decode, &times(&steps, 9));
        p.record_external(BrickKind::Sample, 5);
        p.finish();
        assert_eq!((clock.reads(), p.ignored_calls()), (0, 0));
        assert_eq!(p.phase_totals(Phase::Decode), PhaseTotals::default());
        assert_eq!(p.external_totals(Phase::Decode, BrickKind::Sample).count, 0);
    }
}

#[test]
fn names_ids_and_categories_agree() {
    let (steps, clock) = (testing::plan(3), ManualClock::new());
    let mut p = BrickProfiler::with_clock(&steps, 4, SyncMode::Immediate, &clock);
    forward(&mut p, &clock, Phase::Decode, &times(&steps, 3));
    p.record_external(BrickKind::Sample, 1234);
    let mut from_kinds = 0;
    for kind in BrickKind::ALL {
        let by_id = p.kind_totals(Phase::Decode, kind);
        assert_eq!(p.totals_by_name(Phase::Decode, kind.name()), Some(by_id));
        from_kinds += by_id.sum_ns;
    }
    let from_categories: u64 = BrickCategory::ALL.iter().map(|&c| p.category_totals(Phase::Decode, c).sum_ns).sum();
    let t = p.phase_totals(Phase::Decode);
    assert_eq!(from_kinds, t.steps_ns + 1234);
    assert_eq!(from_categories, from_kinds);
    for (i, s) in steps.iter().enumerate() {
        assert_eq!(p.totals_by_name(Phase::Decode, &s.name), p.step_totals(Phase::Decode, i));
    }
    assert_eq!(p.kind_totals(Phase::Decode, BrickKind::RmsNorm).count, 6);
    assert_eq!(p.totals_by_name(Phase::Decode, "blk.9.nothing"), None);
}

#[test]
fn gaps_and_external_work_belong_to_the_forward_before() {
    let (steps, clock) = (testing::plan(1), ManualClock::new());
    let mut p = BrickProfiler::with_clock(&steps, 4, SyncMode::Immediate, &clock);
    forward(&mut p, &clock, Phase::Prefill, &times(&steps, 3));
    p.record_external(BrickKind::Sample, 400);
    p.record_external(BrickKind::Sample, 100);
    clock.advance(1000);
    forward(&mut p, &clock, Phase::Decode, &times(&steps, 3));
    clock.advance(50);
    forward(&mut p, &clock, Phase::Decode, &times(&steps, 3));
    let (prefill, decode) = (p.phase_totals(Phase::Prefill), p.phase_totals(Phase::Decode));
    assert_eq!((prefill.gap_ns, prefill.external_ns), (1000, 500));
    assert_eq!((decode.gap_ns, decode.external_ns), (50, 0));
    let sample = p.samples(Phase::Prefill).next().unwrap();
    assert_eq!((sample.gap_ns(), sample.external_ns(BrickKind::Sample)), (1000, 500));
    assert_eq!(p.external_totals(Phase::Prefill, BrickKind::Sample).count, 2);
}

#[test]
fn with_room_for_one_forward_gaps_are_still_counted() {
    let (steps, clock) = (testing::plan(1), ManualClock::new());
    let mut p = BrickProfiler::with_clock(&steps, 1, SyncMode::Deferred, &clock);
    for _ in 0..3 {
        forward(&mut p, &clock, Phase::Decode, &times(&steps, 3));
        clock.advance(11);
    }
    p.finish();
    assert_eq!(p.phase_totals(Phase::Decode).gap_ns, 22);
    assert_eq!(p.samples(Phase::Decode).next().unwrap().gap_ns(), 0, "the next forward has not begun");
}

#[test]
fn a_failed_forward_leaves_no_trace_but_its_count() {
    let (steps, clock) = (testing::plan(1), ManualClock::new());
    let mut p = BrickProfiler::with_clock(&steps, 4, SyncMode::Immediate, &clock);
    p.begin_forward(&DECODE, Phase::Decode);
    clock.advance(1_000_000);
    p.step_done(0); // and then an error: no end
    forward(&mut p, &clock, Phase::Decode, &times(&steps, 3));
    assert_eq!((p.aborted_forwards(), p.phase_totals(Phase::Decode).forwards), (1, 1));
    assert_eq!(p.step_totals(Phase::Decode, 0).unwrap().sum_ns, 3);
    p.begin_forward(&DECODE, Phase::Decode);
    p.finish();
    assert_eq!((p.aborted_forwards(), p.phase_totals(Phase::Decode).forwards), (2, 1));
}

#[test]
fn steps_that_do_not_run_have_no_samples_and_no_work() {
    let (steps, clock) = (testing::plan(1), ManualClock::new());
    let mut p = BrickProfiler::with_clock(&steps, 4, SyncMode::Immediate, &clock);
    forward(&mut p, &clock, Phase::Prefill, &vec![4; steps.len() - 2]); // no final norm, no LM head
    let head = steps.len() - 1;
    assert_eq!(p.step_totals(Phase::Prefill, head).unwrap().count, 0);
    assert_eq!(p.step_work(Phase::Prefill, head).unwrap().calls, 0);
    assert_eq!(p.samples(Phase::Prefill).next().unwrap().slot_ns(head), None);
    let segments: Vec<_> = p.segment_totals(Phase::Prefill).map(|(_, t)| t.count).collect();
    assert_eq!(segments, [1, 1, 0]);
}

#[test]
fn nonsense_is_ignored_and_counted() {
    let (steps, clock) = (testing::plan(1), ManualClock::new());
    let mut p = BrickProfiler::with_clock(&steps, 4, SyncMode::Immediate, &clock);
    p.step_done(0); // outside a forward
    p.end_forward();
    p.record_external(BrickKind::Sample, 1);
    assert_eq!(p.ignored_calls(), 3);
    p.begin_forward(&DECODE, Phase::Decode);
    clock.advance(10);
    p.step_done(1);
    p.step_done(1); // twice
    p.step_done(0); // backwards
    p.step_done(usize::MAX);
    p.end_forward();
    assert_eq!(p.ignored_calls(), 6);
    assert_eq!(p.phase_totals(Phase::Decode).steps_ns, 10);
}

#[test]
fn reset_forgets_the_warm_up() {
    let (steps, clock) = (testing::plan(1), ManualClock::new());
    let mut p = BrickProfiler::with_clock(&steps, 4, SyncMode::Immediate, &clock);
    forward(&mut p, &clock, Phase::Decode, &times(&steps, 900));
    p.record_external(BrickKind::Sample, 5);
    p.reset();
    clock.advance(99);
    forward(&mut p, &clock, Phase::Decode, &times(&steps, 3));
    let t = p.phase_totals(Phase::Decode);
    assert_eq!((t.forwards, t.gap_ns, t.external_ns, p.samples(Phase::Decode).count()), (1, 0, 0, 1));
    assert_eq!(p.step_totals(Phase::Decode, 0).unwrap().max_ns, 3);
}
