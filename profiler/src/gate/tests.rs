#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::paired::{Class, Judge, Outcome, Round, Sample, Series, StepRef, Trial};
use super::*;
use crate::Style;
use crate::paired::Bootstrap;

fn moved(n: u64) -> Moved {
    Moved { weights: n, read: 10, written: 20, int: 2 * n, float: 0 }
}

fn brick(name: &str, layers: &str, count: usize) -> BrickFacts {
    BrickFacts {
        name: name.into(),
        kind: "Down".into(),
        count,
        layers: layers.into(),
        fused: vec![],
        weights: vec!["Q4_1[576, 1536]".into()],
        decode: moved(1000),
        prompt: moved(5000),
    }
}

fn snapshot() -> Snapshot {
    let kernels = |level: &str| -> BTreeMap<String, String> {
        [("token_embd", "embed"), ("blk.*.ffn_down", "linear_q4_1")]
            .into_iter()
            .map(|(n, k)| (n.to_owned(), format!("{k}_{level}")))
            .collect()
    };
    Snapshot {
        model: "smollm2".into(),
        reason: Some("first \"record\"".into()),
        conditions: Conditions {
            context: 1024,
            batch: 512,
            threads: 2,
            kv_type: "f16".into(),
            decode_context: 512,
            prompt_rows: 512,
        },
        limits: Limits::default(),
        instructions: Some(Instructions {
            per_token: 100_000,
            level: "avx2".into(),
            build: "rustc 1.90.0, x86_64-unknown-linux-gnu".into(),
            depth: 64,
        }),
        facts: Facts {
            graph: GraphFacts {
                architecture: "llama".into(),
                hash: "ab".repeat(8),
                built_bricks: 20,
                built_wires: 30,
                bricks_after: vec![("validate".into(), 20), ("fuse-qkv".into(), 12)],
                bricks: 12,
                wires: 15,
            },
            plan: PlanFacts {
                steps: 13,
                barriers_per_token: 13,
                barriers_per_prompt: 26,
                allocations_per_token: Some(0),
                arena_bytes: 4096,
                kv_bytes_per_token: 768,
                packed_weight_bytes: 99_999,
            },
            bricks: vec![
                BrickFacts { kind: "Embed".into(), fused: vec!["a".into(), "b".into()], ..brick("token_embd", "", 1) },
                brick("blk.*.ffn_down", "0-3, 7", 5),
                BrickFacts { weights: vec!["Q6_K[576, 1536]".into()], ..brick("blk.*.ffn_down", "4-6", 3) },
            ],
            kernels: [("avx2", kernels("avx2")), ("amx", kernels("amx"))].map(|(l, k)| (l.to_owned(), k)).into(),
        },
    }
}

#[test]
fn files_are_read_as_they_are_written() {
    let s = snapshot();
    assert_eq!(Snapshot::parse("f", &s.to_toml()).unwrap(), s);
    let bare = Snapshot { reason: None, instructions: None, ..s };
    assert_eq!(Snapshot::parse("f", &bare.to_toml()).unwrap(), bare);
    insta::assert_snapshot!("file", snapshot().to_toml());
}

#[test]
fn files_that_are_none_are_refused_with_the_reason() {
    let text = snapshot().to_toml();
    let refused = |text: &str, parts: &[&str]| {
        let e = Snapshot::parse("x.gate.toml", text).unwrap_err().to_string();
        for part in parts.iter().chain(&["x.gate.toml"]) {
            assert!(e.contains(part), "expected {part:?} in: {e}");
        }
    };
    refused("", &["expected a gate file", "schema"]);
    refused("not toml at all", &["expected a gate file"]);
    refused("[package]\nname = \"brick\"\n", &["expected a gate file", "schema"]);
    let (mid_line, no_bricks) = (text.find("arena_bytes").unwrap() + 5, text.find("[[brick]]").unwrap());
    refused(&text[..mid_line], &["expected a gate file"]);
    refused(&text[..no_bricks], &["brick: expected at least one, found none"]);
    for (from, to, parts) in [
        ("schema = 1", "schema = 2", &["expected schema 1, found 2", "newer brick"][..]),
        ("schema = 1", "schema = 0", &["expected schema 1, found 0"]),
        ("steps = 13", "steps = 13\nlaunches = 7", &["unknown field `launches`"]),
        ("[graph]", "[gaph]", &["gaph"]),
        ("ratio = 1.05", "ratio = 0.95", &["limits.ratio", "above 1", "0.95"]),
        ("ratio = 1.05", "ratio = nan", &["limits.ratio"]),
        ("instructions_percent = 3.0", "instructions_percent = 0.0", &["limits.instructions_percent"]),
        ("roofline = 0.25", "roofline = 1.5", &["limits.roofline"]),
        ("threads = 2", "threads = 0", &["conditions.threads"]),
        ("context = 1024", "context = 1", &["conditions.context"]),
        ("batch = 512", "batch = 2000", &["conditions.batch"]),
        ("prompt_rows = 512", "prompt_rows = 0", &["conditions.prompt_rows"]),
        ("decode_context = 512", "decode_context = 5000", &["conditions.decode_context"]),
        ("per_token = 100000", "per_token = 0", &["instructions.per_token"]),
        ("steps = 13", "steps = -1", &["expected a gate file"]),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(text, changed, "{from}");
        refused(&changed, parts);
    }
    let at = text.find("[[brick]]").unwrap();
    refused(&text[..at], &["brick: expected at least one"]);
    let missing = Snapshot::read(std::path::Path::new("no/such.gate.toml")).unwrap_err();
    assert!(matches!(missing, SnapshotError::Io { .. }), "{missing}");
}

fn failures(recorded: &Facts, found: &Facts) -> Vec<(String, String)> {
    let failed = compare(recorded, found).into_iter().filter(|c| c.verdict == Verdict::Fail);
    failed.map(|c| (c.name, c.why)).collect()
}

/// The facts as a machine with AVX2 finds them.
fn found() -> Facts {
    let mut facts = snapshot().facts;
    facts.kernels.remove("amx");
    facts
}

#[test]
fn equal_facts_pass_and_any_other_fails_by_name() {
    type Change = fn(&mut Facts);
    let recorded = snapshot().facts;
    assert_eq!(failures(&recorded, &found()), []);
    let changes: [(&str, Change); 21] = [
        ("graph.architecture", |f| f.graph.architecture.push('x')),
        ("graph.hash", |f| f.graph.hash.push('x')),
        ("graph.built_bricks", |f| f.graph.built_bricks += 1),
        ("graph.built_wires", |f| f.graph.built_wires += 1),
        ("graph.bricks_after", |f| f.graph.bricks_after[1].1 += 1),
        ("graph.bricks", |f| f.graph.bricks += 1),
        ("graph.wires", |f| f.graph.wires -= 1),
        ("plan.steps", |f| f.plan.steps += 1),
        ("plan.barriers_per_token", |f| f.plan.barriers_per_token += 1),
        ("plan.barriers_per_prompt", |f| f.plan.barriers_per_prompt -= 1),
        ("plan.arena_bytes", |f| f.plan.arena_bytes += 64),
        ("plan.kv_bytes_per_token", |f| f.plan.kv_bytes_per_token -= 1),
        ("plan.packed_weight_bytes", |f| f.plan.packed_weight_bytes += 1),
        ("plan.allocations_per_token", |f| f.plan.allocations_per_token = Some(1)),
        ("brick token_embd", |f| f.bricks[0].count += 1),
        ("brick token_embd", |f| f.bricks[0].kind = "Norm".into()),
        ("brick token_embd", |f| drop(f.bricks[0].fused.pop())),
        ("brick blk.*.ffn_down (layers 4-6)", |f| f.bricks[2].weights[0] = "Q8_0[576, 1536]".into()),
        ("brick blk.*.ffn_down (layers 0-3, 7)", |f| f.bricks[1].decode.read += 1),
        ("brick blk.*.ffn_down (layers 4-6)", |f| f.bricks[2].prompt.float += 1),
        ("kernels at avx2", |f| {
            f.kernels.get_mut("avx2").unwrap().insert("token_embd".into(), "embed_scalar".into());
        }),
    ];
    for (name, change) in changes {
        let mut facts = found();
        change(&mut facts);
        let failed = failures(&recorded, &facts);
        assert!(failed.len() == 1 && failed[0].0 == name, "{name}: {failed:?}");
        assert!(failed[0].1.contains("recorded") && failed[0].1.contains("found"), "{failed:?}");
    }
}

#[test]
fn bricks_that_come_go_or_change_places_fail() {
    let recorded = snapshot().facts;
    let mut facts = found();
    facts.bricks.remove(0);
    assert_eq!(failures(&recorded, &facts)[0].0, "brick token_embd");
    facts.bricks.insert(0, brick("output", "", 1));
    let names: Vec<String> = failures(&recorded, &facts).into_iter().map(|(n, _)| n).collect();
    assert_eq!(names, ["brick token_embd", "brick output"]);
    let mut facts = found();
    facts.bricks.swap(0, 1);
    assert_eq!(failures(&recorded, &facts)[0].0, "order of the bricks");
}

#[test]
fn what_cannot_be_seen_is_skipped_with_the_reason() {
    let recorded = snapshot().facts;
    let mut facts = found();
    facts.plan.allocations_per_token = None;
    let kernels = facts.kernels.remove("avx2").unwrap();
    facts.kernels.insert("neon".into(), kernels);
    let skipped: Vec<Check> =
        compare(&recorded, &facts).into_iter().filter(|c| c.verdict == Verdict::Skipped).collect();
    assert_eq!(skipped.len(), 2, "{skipped:?}");
    assert!(skipped[0].why.contains("does not count"), "{skipped:?}");
    assert!(skipped[1].why.contains("level neon is not on record"), "{skipped:?}");
}

#[test]
fn instructions_are_judged_for_the_compiler_on_record() {
    let recorded = snapshot().instructions.unwrap();
    let judge = |per_token, build: &str, level: &str| {
        let now = Instructions { per_token, build: build.into(), level: level.into(), ..recorded.clone() };
        judge_instructions(&recorded, &now, 3.0).verdict
    };
    let build = recorded.build.as_str();
    for (n, verdict) in
        [(97_000, Verdict::Pass), (103_000, Verdict::Pass), (96_999, Verdict::Fail), (103_001, Verdict::Fail)]
    {
        assert_eq!(judge(n, build, "avx2"), verdict, "{n}");
        assert_eq!(judge(n, "rustc 2.0", "avx2"), Verdict::Inconclusive);
        assert_eq!(judge(n, build, "scalar"), Verdict::Inconclusive);
    }
}

#[test]
fn names_and_layers_are_folded() {
    assert_eq!(fold_name("blk.3.attn_q", Some(3)), "blk.*.attn_q");
    assert_eq!(fold_name("blk.13.attn_3.3x", Some(3)), "blk.13.attn_3.3x");
    assert_eq!(fold_name("output", None), "output");
    assert_eq!(layer_ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
    assert_eq!(layer_ranges(&[]), "");
}

/// A machine whose speed jumps for several rounds at a time, whose calls are interrupted now and then for long, and that places
/// each process anew.
struct Machine {
    rng: ChaCha8Rng,
    /// Relative spread of a step; 0.003 was measured on a quiet machine with two cores.
    noise: f64,
    /// How often a call is interrupted.
    interrupted: f64,
    /// How much a process may be slower than another for all of its life.
    placement: f64,
}

impl Machine {
    fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), noise: 0.01, interrupted: 0.1, placement: 0.005 }
    }

    fn uniform(&mut self) -> f64 {
        f64::from(self.rng.next_u32()) / 4_294_967_296.0
    }

    /// Rounds of four steps in two layers; the candidate's `slower` step takes `factor` as long.
    fn series(&mut self, rounds: usize, slower: usize, factor: f64) -> Series {
        let step = |i: usize| StepRef {
            name: format!("blk.{}.{}", i / 2, ["ffn_up", "ffn_down"][i % 2]),
            kind: ["GateUp", "Down"][i % 2].into(),
            layer: Some(i as u32 / 2),
            streams: false,
        };
        let steps: Vec<StepRef> = (0..4).map(step).collect();
        let placed: Vec<f64> = (0..12).map(|_| 1.0 + self.placement * self.uniform()).collect();
        let mut speed = 1.0;
        let mut all = Vec::new();
        for round in 0..rounds {
            if round % 7 == 0 {
                speed = if self.uniform() < 0.5 { 1.0 } else { 1.5 };
            }
            let mut sample = |arm: usize| {
                let steps_ns: Vec<f64> = (0..4)
                    .map(|i| {
                        // A tail as of Pareto: some calls take many times as long.
                        let tail =
                            if self.uniform() < self.interrupted { self.uniform().max(1e-3).powf(-0.7) } else { 1.0 };
                        let work = if arm == 2 && i == slower { factor } else { 1.0 };
                        60_000.0
                            * work
                            * speed
                            * tail
                            * placed[4 * arm + i]
                            * (1.0 + self.noise * (self.uniform() - 0.5))
                    })
                    .collect();
                Sample { wall_ns: steps_ns.iter().sum::<f64>() + 1000.0, steps_ns }
            };
            all.push(Round { base: sample(0), control: sample(1), candidate: sample(2) });
        }
        Series { call: "a token at 64".into(), base_steps: steps.clone(), candidate_steps: steps, rounds: all }
    }

    fn trial(&mut self, slower: usize, factor: f64) -> Trial {
        let judge = Judge { limit: 1.05, bootstrap: Bootstrap { resamples: 500, ..Bootstrap::default() } };
        let mut trial = Trial::new("a token at 64", judge.limit);
        while trial.wants_more() {
            trial.add(judge.judge(&self.series(42, slower, factor)).unwrap());
        }
        trial
    }
}

fn failed(trial: &Trial) -> Vec<String> {
    trial.checks().into_iter().filter(|c| c.verdict == Verdict::Fail).map(|c| c.name).collect()
}

#[test]
fn the_same_program_never_fails_whatever_the_machine_does() {
    for (noise, interrupted, placement) in [(0.01, 0.1, 0.005), (0.1, 0.3, 0.01), (0.3, 0.5, 0.03), (0.02, 0.05, 0.06)]
    {
        for seed in 0..50 {
            let mut machine = Machine { noise, interrupted, placement, ..Machine::new(seed) };
            let trial = machine.trial(0, 1.0);
            assert_eq!(
                failed(&trial),
                [""; 0],
                "noise {noise}, interrupted {interrupted}, placement {placement}, {seed}"
            );
        }
    }
}

#[test]
fn a_tenth_more_work_in_one_brick_fails_and_names_it() {
    for seed in 0..50 {
        let trial = Machine::new(1000 + seed).trial(3, 1.1);
        let failed = failed(&trial);
        assert!(failed.first().is_some_and(|n| n == "blk.1.ffn_down, a token at 64"), "{seed}: {failed:?}");
        assert!(failed.iter().all(|n| !n.contains("ffn_up")), "{seed}: {failed:?}");
    }
}

#[test]
fn a_busy_machine_makes_verdicts_inconclusive_not_wrong() {
    let mut inconclusive = 0;
    for seed in 0..20 {
        let mut machine = Machine { noise: 0.6, interrupted: 0.6, ..Machine::new(seed) };
        let trial = machine.trial(3, 1.02);
        assert_eq!(failed(&trial), [""; 0]);
        assert!(trial.repeats() <= Trial::MAX_REPEATS);
        inconclusive += trial.checks().iter().filter(|c| c.verdict == Verdict::Inconclusive).count();
    }
    assert!(inconclusive > 20, "{inconclusive}");
}

#[test]
fn one_repeat_is_enough_for_a_pass_and_three_are_needed_to_fail() {
    assert_eq!(Machine::new(1).trial(0, 1.0).repeats(), 1);
    assert!(Machine::new(1).trial(0, 1.3).repeats() >= Trial::NEEDED);
    // Slow in two repeats, and not in the third: something else happened.
    let judge = Judge::new(1.05);
    let mut machine = Machine::new(2);
    let mut trial = Trial::new("a token at 64", 1.05);
    for factor in [1.2, 1.2, 1.0] {
        assert!(trial.wants_more());
        trial.add(judge.judge(&machine.series(42, 3, factor)).unwrap());
    }
    assert!(!trial.wants_more());
    assert_eq!(failed(&trial), [""; 0]);
    let check = trial.checks().into_iter().find(|c| c.name.starts_with("blk.1.ffn_down")).unwrap();
    assert_eq!(check.verdict, Verdict::Inconclusive);
    assert!(check.why.contains("2 of 3 repeats only"), "{}", check.why);
}

#[test]
fn what_streams_from_memory_is_said_and_not_judged() {
    let judge = Judge::new(1.05);
    let mut trial = Trial::new("a token at 64", 1.05);
    let mut series = Machine::new(3).series(42, 3, 2.0);
    for step in series.base_steps.iter_mut().chain(&mut series.candidate_steps) {
        step.streams = step.name.ends_with("ffn_down");
    }
    trial.add(judge.judge(&series).unwrap());
    assert!(!trial.wants_more());
    let of = |name: &str| trial.checks().into_iter().find(|c| c.name.starts_with(name)).map(|c| c.verdict);
    // Half of the whole call is such a step, so the call is not judged either.
    for name in ["blk.1.ffn_down", "blk.*.ffn_down", "all Down", "a token"] {
        assert_eq!(of(name), Some(Verdict::Advisory), "{name}");
    }
    assert_eq!(of("all GateUp"), Some(Verdict::Pass));
}

#[test]
fn only_what_both_have_and_what_is_long_enough_is_compared() {
    let judge = Judge::new(1.05);
    let mut series = Machine::new(4).series(12, 0, 1.0);
    series.candidate_steps[3].name = "blk.1.other".into();
    for r in &mut series.rounds {
        for s in [&mut r.base, &mut r.control, &mut r.candidate] {
            s.steps_ns[0] = 19_000.0;
        }
    }
    let findings = judge.judge(&series).unwrap();
    let names: Vec<(Class, &str)> = findings.iter().map(|f| (f.class, f.name.as_str())).collect();
    assert_eq!(
        names,
        [
            (Class::Step, "blk.0.ffn_down"),
            (Class::Step, "blk.1.ffn_up"),
            (Class::Group, "blk.*.ffn_up"),
            (Class::Kind, "GateUp"),
            (Class::Kind, "Down"),
            (Class::Call, "a token at 64"),
        ]
    );
    assert!(judge.judge(&Series { rounds: vec![], ..series }).is_err());
}

#[test]
fn intervals_are_wider_the_more_is_judged() {
    let series = Machine::new(5).series(42, 0, 1.0);
    let all = Judge::new(1.05).judge(&series).unwrap();
    let alone: Vec<StepRef> =
        series.base_steps.iter().map(|s| StepRef { streams: s.name != "blk.0.ffn_up", ..s.clone() }).collect();
    let alone = Judge::new(1.05).judge(&Series { base_steps: alone, ..series }).unwrap();
    let width = |f: &[super::paired::Finding]| {
        let f = f.iter().find(|f| f.name == "blk.0.ffn_up").unwrap();
        f.ratio.high - f.ratio.low
    };
    assert!(width(&all) > width(&alone), "{} {}", width(&all), width(&alone));
    assert!(all.iter().all(|f| f.outcome != Outcome::Above));
}

/// A report with every verdict of every tier.
fn report() -> Report {
    let mut facts = found();
    facts.plan.barriers_per_token += 1;
    facts.plan.allocations_per_token = None;
    let recorded = snapshot();
    let mut checks = compare(&recorded.facts, &facts);
    let then = recorded.instructions.unwrap();
    let now = Instructions { per_token: 108_000, build: "rustc 2.0".into(), ..then.clone() };
    checks.push(judge_instructions(&then, &now, 3.0));
    let mut trial = Trial::new("a token at 64", 1.05);
    let mut machine = Machine::new(7);
    while trial.wants_more() {
        trial.add(Judge::new(1.05).judge(&machine.series(42, 3, 1.1)).unwrap());
    }
    checks.extend(trial.checks());
    let measured = Measured { value: 0.41, interval: None, limit: Some(0.25), control: None, pairs: Some(42) };
    let why = "105.0 µs, at least 43.1 µs by the limits of this machine";
    checks.push(Check::new(Tier::Roofline, "a token at 64", Verdict::Advisory, why).with(measured));
    let mut report =
        Report::new("gates/a_b.gate.toml", "smollm2", "Some CPU · 2 cores, 2 threads · avx2 · brick 0.1.0", checks);
    report.build = crate::profile::BuildInfo {
        version: "0.1.0".into(),
        target: "x86_64-linux".into(),
        debug_assertions: false,
        git: None,
        rustc: None,
        features: vec![],
    };
    report
}

#[test]
fn reports() {
    let report = report();
    assert!(report.fails());
    insta::assert_snapshot!("text", report.to_text(Style::PLAIN));
    insta::assert_snapshot!("markdown", report.to_markdown());
    insta::assert_snapshot!("junit", report.to_junit());
    insta::assert_json_snapshot!("json", report);
    assert!(report.to_text(Style::ASCII).is_ascii());
    let colour = report.to_text(Style::COLOR);
    assert!(colour.contains("\u{1b}[31mFAIL"), "{colour}");
    let history = report.history(1_700_000_000).unwrap();
    assert_eq!(history.lines().count(), report.checks.len());
    for line in history.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["schema"], "brick.gate.history/1");
        assert_eq!(value["unix_seconds"], 1_700_000_000);
    }
}

#[test]
fn the_worst_check_is_the_verdict_of_all() {
    use Verdict::{Advisory, Fail, Inconclusive, Pass, Skipped};
    let of = |verdicts: &[Verdict]| {
        let checks = verdicts.iter().map(|v| Check::new(Tier::Facts, "x", *v, "y")).collect();
        Report::new("f", "m", "c", checks).verdict
    };
    assert_eq!(of(&[Pass, Inconclusive, Fail, Skipped]), Fail);
    assert_eq!(of(&[Pass, Inconclusive, Skipped]), Inconclusive);
    assert_eq!(of(&[Pass, Advisory, Skipped]), Pass);
    assert_eq!(of(&[Skipped, Skipped]), Skipped);
    assert_eq!(of(&[]), Skipped);
}

#[test]
fn hostile_names_move_no_cursor_and_break_no_document() {
    let checks = vec![Check::new(Tier::Facts, "a|b\u{1b}[2J<x>&\"", Verdict::Fail, "c\nd ]]> \u{202e}")];
    let report = Report::new("f\u{7}", "m", "c", checks);
    for text in [report.to_text(Style::PLAIN), report.to_markdown(), report.to_junit()] {
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}') && !text.contains('\u{202e}'), "{text}");
    }
    assert!(report.to_markdown().contains("a\\|b"));
    assert!(!report.to_junit().contains("<x>"));
}
