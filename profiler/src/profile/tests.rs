//! Profiles of recordings whose times are known.

#![allow(clippy::unwrap_used)]

use bricks::{BrickKind, BudgetOrigin, BudgetPolicy};
use serde_json::{Value, json};

use super::{Flag, Profile, ProfileError, Verdict};
use crate::budget::{Baseline, BaselineError, BudgetFile, BudgetTable, Roofline, StepBudgets};
use crate::machine::tests::machine;
use crate::record::SyncMode;
use crate::step::Phase;
use crate::testing::{profile, profile_against, profile_in, recording, stamped_profile};

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

#[test]
fn figures_are_those_of_the_clock() {
    let p = profile();
    let decode = p.phase(Phase::Decode).unwrap();
    // One forward of scale 1: 9 µs LM head, 150 ns × 5 norms, 40 ns × 2 activations, 2 µs × 11 others; scales sum to 82.
    let unit = 9_000.0 + 5.0 * 150.0 + 2.0 * 40.0 + 11.0 * 2_000.0;
    assert!(close(decode.measured.steps_us, unit * 82.0 / 1e3));
    assert!(close(decode.measured.wall_us, (unit * 82.0 + 5.0 * 300.0) / 1e3));
    assert!(close(decode.measured.external_us, 5.0 * 0.7));
    assert_eq!((decode.measured.forwards, decode.measured.tokens), (5, 5));
    // Gaps: 1 µs between decoded tokens, none after the last.
    assert!(close(decode.measured.gap_us, 4.0), "{}", decode.measured.gap_us);
    let qkv = decode.kind(BrickKind::Qkv).unwrap();
    assert_eq!(qkv.measured.calls, 10);
    assert!(close(qkv.measured.total_us, 2.0 * 2.0 * 82.0));
    // The ring keeps the last four: scales 11, 40, 11, 10.
    let samples = qkv.measured.us_per_token.unwrap();
    assert_eq!((samples.samples, samples.p50, samples.p99), (4, 44.0, 160.0));
    assert!(close(qkv.measured.mean_us_per_token, 2.0 * 2.0 * 82.0 / 5.0));
    assert_eq!((qkv.measured.min_us, qkv.measured.max_us), (20.0, 80.0));
    let prefill = p.phase(Phase::Prefill).unwrap();
    assert_eq!((prefill.measured.forwards, prefill.measured.tokens), (1, 16));
    assert!(close(prefill.kind(BrickKind::Qkv).unwrap().measured.us_per_token.unwrap().p50, 20.0 / 16.0));
    assert_eq!(p.phase(Phase::Mixed), None);
}

#[test]
fn parts_add_up_to_wholes() {
    for phase in &profile().phases {
        let sum = |f: &dyn Fn(&super::RowDerived) -> f64| -> (f64, f64) {
            (phase.kinds.iter().map(|r| f(&r.derived)).sum(), phase.steps.iter().map(|r| f(&r.derived)).sum())
        };
        let (kinds, steps) = sum(&|d| d.work.bytes_per_token);
        assert!(close(kinds, phase.derived.work.bytes_per_token) && close(steps, kinds));
        let (kinds, _) = sum(&|d| d.share);
        assert!(close(kinds, 1.0), "{kinds}");
        let us: f64 = phase.kinds.iter().map(|r| r.measured.total_us).sum();
        assert!(close(us, phase.measured.steps_us + phase.measured.external_us));
        let categories: f64 = phase.categories.iter().map(|r| r.measured.total_us).sum();
        assert!(close(categories, us));
        let layers: f64 = phase.layers.iter().map(|r| r.measured.total_us).sum();
        assert!(close(layers, phase.measured.steps_us));
        assert!(close(phase.derived.coverage.unwrap(), phase.measured.steps_us / phase.measured.wall_us));
    }
}

#[test]
fn rates_are_work_over_time() {
    let p = profile();
    let decode = p.phase(Phase::Decode).unwrap();
    let row = decode.kind(BrickKind::GateUp).unwrap();
    let per_s = 5.0 * row.derived.work.bytes_per_token / (row.measured.total_us * 1e3);
    assert!(close(row.derived.work.gb_per_s.unwrap(), per_s));
    // 2 layers × 1024 rows × 256 inputs × 2 operations; Q4_K: 144 bytes per 256 weights.
    assert_eq!(row.derived.work.int_ops_per_token, 2.0 * 1024.0 * 256.0 * 2.0);
    assert_eq!(row.derived.work.weight_bytes_per_token, 2.0 * 1024.0 * 144.0);
    assert_eq!(row.derived.work.gflop_per_s, None, "no floating point, no rate of it");
}

#[test]
fn budgets_are_compared_with_medians() {
    let machine = machine();
    let mut r = recording(SyncMode::Immediate);
    let file = BudgetFile::parse(
        "b.toml",
        "phase = \"decode\"\n[kinds]\nQKV = 22.0\nGateUp = 21.9\nSample = 0.7\n[bricks]\n\"blk.1.attn\" = 1000\n",
    );
    let table = BudgetTable::from(file.unwrap());
    let p = profile_against(&mut r, Some(&table), Some(&machine));
    let decode = p.phase(Phase::Decode).unwrap();
    let verdict = |kind| decode.kind(kind).unwrap().derived.verdict;
    // Median of QKV: 22 µs per brick, 44 for both.
    assert_eq!(verdict(BrickKind::Qkv), Verdict::Within);
    assert_eq!(verdict(BrickKind::GateUp), Verdict::Over);
    assert_eq!(verdict(BrickKind::Sample), Verdict::Within);
    assert_eq!(verdict(BrickKind::Attention), Verdict::NoBudget, "one of two bricks has one");
    assert_eq!(decode.derived.verdict, Verdict::NoBudget);
    let b = decode.kind(BrickKind::GateUp).unwrap().derived.budget.unwrap();
    assert_eq!((b.us_per_token, b.origin), (43.8, BudgetOrigin::Explicit));
    assert!(close(b.gap_factor, 44.0 / 43.8));
    let prefill = p.phase(Phase::Prefill).unwrap();
    assert!(prefill.kinds.iter().all(|k| k.derived.verdict == Verdict::NoBudget));

    let violations = p.violations();
    assert_eq!(violations.len(), 2, "{violations:?}");
    assert!(violations.iter().all(|v| v.kind == BrickKind::GateUp && v.phase == Phase::Decode));
    assert_eq!(p.enforce(BudgetPolicy::Report), Ok(()));
    assert_eq!(
        p.enforce(BudgetPolicy::Strict).unwrap_err().to_string(),
        "blk.0.ffn_gate_up (GateUp) exceeded its explicit budget in decode: expected at most 21.900 µs/token, measured \
         22.000 (1.00x)"
    );
}

#[test]
fn a_single_forward_can_stop_the_line() {
    let r = recording(SyncMode::Immediate);
    let file = BudgetFile::parse("b.toml", "[bricks]\n\"blk.1.ffn_down\" = 22.5\n").unwrap();
    let budgets = StepBudgets::new(&file.into(), r.steps(), Phase::Decode, &r.phase_totals(Phase::Decode).extent);
    let checked: Vec<_> = r.samples(Phase::Decode).map(|s| budgets.check(r.steps(), &s)).collect();
    let ok: Vec<bool> = checked.iter().map(Result::is_ok).collect();
    assert_eq!(ok, [true, false, true, true], "only the disturbed one");
    let v = checked[1].clone().unwrap_err();
    assert_eq!((v.brick.as_str(), v.layer, v.limit_us, v.actual_us), ("blk.1.ffn_down", Some(1), 22.5, 80.0));
}

#[test]
fn without_budgets_there_are_no_verdicts() {
    let machine = machine();
    let mut r = recording(SyncMode::Immediate);
    let p = profile_against(&mut r, None, Some(&machine));
    assert_eq!(p.budget, None);
    assert!(p.violations().is_empty());
    assert!(p.phases.iter().flat_map(|p| &p.steps).all(|s| s.derived.verdict == Verdict::NoBudget));
}

#[test]
fn an_earlier_profile_is_a_budget() {
    let earlier = profile();
    let json = earlier.to_json().unwrap();
    let at = |tolerance| BudgetTable::from(Baseline::from_json("before.json", &json, tolerance).unwrap());
    let mut r = recording(SyncMode::Immediate);
    let same = profile_against(&mut r, Some(&at(1.1)), None);
    assert!(same.violations().is_empty());
    let decode = same.phase(Phase::Decode).unwrap();
    let budget = decode.kind(BrickKind::Qkv).unwrap().derived.budget.unwrap();
    assert!(budget.origin == BudgetOrigin::Baseline && close(budget.us_per_token, 44.0 * 1.1));
    assert_eq!(decode.kind(BrickKind::Sample).unwrap().derived.verdict, Verdict::Within);
    assert_eq!(decode.derived.verdict, Verdict::Within);
    assert_eq!(
        same.budget.unwrap().source,
        "baseline: 1.10 × the medians of before.json, tiny, 2 threads, Example CPU 9000 · 2 cores, 4 threads · \
         avx512-vnni · brick 0.1.0"
    );
    for nonsense in [0.9, f64::NAN, f64::INFINITY] {
        assert!(matches!(Baseline::new("x", &earlier, nonsense), Err(BaselineError::Tolerance(_))));
    }
    assert!(matches!(Baseline::from_json("x", "{", 1.1), Err(BaselineError::Profile(_))));
}

#[test]
fn impossible_rates_are_flagged() {
    let mut slow = machine();
    for b in &mut slow.measured.read {
        (b.gb_s.one, b.gb_s.all) = (1.0, 1.0);
    }
    slow.measured.int8_gop_s.all = 3.0;
    slow.measured.f32_gflop_s.all = 0.5;
    let mut r = recording(SyncMode::Immediate);
    let p = profile_against(&mut r, None, Some(&slow));
    let decode = p.phase(Phase::Decode).unwrap();
    let flags = |kind| decode.kind(kind).unwrap().derived.flags.clone();
    assert_eq!(flags(BrickKind::GateUp), [Flag::AboveMeasuredBandwidth, Flag::AboveMeasuredInt8Peak]);
    assert_eq!(flags(BrickKind::Attention), [Flag::AboveMeasuredF32Peak]);
    assert_eq!(flags(BrickKind::LmHead), []);
    let p = profile_against(&mut r, None, None);
    assert!(
        p.phases
            .iter()
            .flat_map(|p| &p.kinds)
            .all(|k| { k.derived.flags.iter().all(|f| *f == Flag::NearClockResolution) })
    );
}

#[test]
fn weights_cannot_come_faster_than_from_where_they_are() {
    let mut small = machine();
    // No cache holds the model; memory is slow, L1 fast.
    for b in &mut small.measured.read {
        b.capacity_bytes = b.capacity_bytes.map(|_| 1 << 16);
    }
    let dram = small.measured.read.last_mut().unwrap();
    (dram.gb_s.one, dram.gb_s.all) = (2.0, 2.0);
    let mut r = recording(SyncMode::Immediate);
    let p = profile_against(&mut r, None, Some(&small));
    let decode = p.phase(Phase::Decode).unwrap();
    let flags = |kind| decode.kind(kind).unwrap().derived.flags.contains(&Flag::AboveMeasuredBandwidth);
    assert!(flags(BrickKind::GateUp), "4.65 GB/s of weights");
    assert!(!flags(BrickKind::Activation), "9.4 GB/s of activations, which L1 holds");
}

#[test]
fn bottlenecks_are_named() {
    let p = profile();
    let decode = p.phase(Phase::Decode).unwrap();
    let (kind, step) = (decode.slowest_kind.clone().unwrap(), decode.slowest_step.clone().unwrap());
    assert_eq!((kind.brick_name.as_str(), step.brick_name.as_str(), step.layer_idx), ("LmHead", "output", None));
    assert_eq!(kind.actual_us, 99.0);
    assert!(close(kind.gap_factor.unwrap(), kind.actual_us / kind.budget_us.unwrap()));
}

#[test]
fn roofline_budgets_of_a_phase_use_its_mean_size() {
    let (machine, r) = (machine(), recording(SyncMode::Immediate));
    let p = profile();
    let prefill = p.phase(Phase::Prefill).unwrap();
    assert_eq!(prefill.derived.mean_extent.tokens, 16);
    let roofline = Roofline::new(&machine, r.steps(), 2);
    for row in &prefill.steps {
        let step = r.steps().iter().find(|s| s.name == row.name).unwrap();
        let expected = roofline.budget(step, &prefill.derived.mean_extent).unwrap().us_per_token();
        assert_eq!(row.derived.budget.unwrap().us_per_token, expected, "{}", row.name);
    }
}

fn schema() -> jsonschema::Validator {
    jsonschema::validator_for(&serde_json::from_str::<Value>(Profile::JSON_SCHEMA).unwrap()).unwrap()
}

#[test]
fn the_schema_accepts_every_profile() {
    let schema = schema();
    let mut r = recording(SyncMode::Immediate);
    let bare = profile_against(&mut r, None, None);
    let modes = [SyncMode::Immediate, SyncMode::PerLayer, SyncMode::Deferred, SyncMode::None];
    for p in modes.into_iter().map(profile_in).chain([bare, stamped_profile()]) {
        let value: Value = serde_json::from_str(&p.to_json().unwrap()).unwrap();
        let errors: Vec<String> = schema.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }
}

/// Damages a profile.
type Break = fn(&mut Value);

#[test]
fn the_schema_refuses_what_is_no_profile() {
    let schema = schema();
    let good: Value = serde_json::from_str(&profile().to_json().unwrap()).unwrap();
    let broken: [(&str, Break); 7] = [
        ("unknown key", |v| v["extra"] = json!(1)),
        ("missing key", |v| drop(v.as_object_mut().unwrap().remove("phases"))),
        ("other version", |v| v["schema_version"] = json!(1)),
        ("negative time", |v| v["phases"][0]["measured"]["wall_us"] = json!(-1.0)),
        ("unknown kind", |v| v["phases"][0]["kinds"][0]["kind"] = json!("gemm")),
        ("share above 1", |v| v["phases"][0]["kinds"][0]["derived"]["share"] = json!(1.5)),
        ("a derived figure among measured ones", |v| v["phases"][0]["measured"]["tokens_per_s"] = json!(5)),
    ];
    for (what, f) in broken {
        let mut value = good.clone();
        f(&mut value);
        assert!(!schema.is_valid(&value), "{what}");
    }
}

#[test]
fn json_comes_back_as_it_was() {
    for p in [profile(), stamped_profile()] {
        assert_eq!(Profile::from_json("p.json", &p.to_json().unwrap()).unwrap(), p);
    }
}

#[test]
fn other_json_is_refused_with_file_and_line() {
    let good = profile().to_json().unwrap();
    let error = |text: &str| Profile::from_json("p.json", text).unwrap_err();
    assert!(matches!(error("{\n  x"), ProfileError::Json { line: 2, .. }));
    assert!(error("{}").to_string().contains("p.json: expected schema version 2, found none"));
    let newer = good.replacen("\"schema_version\": 2", "\"schema_version\": 7", 1);
    assert!(matches!(error(&newer), ProfileError::Version { expected: 2, .. }));
    let extra = good.replacen("\"model\": {", "\"model\": {\n\"speed\": 1,", 1);
    let message = error(&extra).to_string();
    assert!(message.starts_with("p.json, line ") && message.contains("unknown field `speed`"), "{message}");
}
