//! F085, F087: noisy measurements are rejected, regressions are found. The times are drawn, not taken: no load of this machine can
//! change the outcome.

use brick_profiler::Summary;
use brick_profiler::gate::paired::{Judge, Round, Sample, Series, StepRef, Trial};
use brick_profiler::gate::{Verdict, compare};
use brick_runtime::facts;
use brick_runtime::fault::Fault;

use crate::claim::{Claim, Family, Outcome, Refusal, require, require_eq, require_some};
use crate::context::Context;
use crate::noise::Noise;
use crate::synthetic::Synthetic;

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "F085",
        statement: "A measurement whose control varies by more than the limit allows is rejected, not averaged away",
        family: Family::Performance,
        threshold: "coefficient of variation = σ / mean to 1e-12; no verdict of 20 noisy runs is a pass or a failure",
        check: f085,
    },
    Claim {
        id: "F087",
        statement: "A regression against the version before fails the gate and is named; the same version never fails",
        family: Family::Performance,
        threshold: "+10 % in one brick, 50 of 50; 0 of 50 without a change; a lost fusion and an extra step exactly",
        check: f087,
    },
];

const LIMIT: f64 = 1.05;

/// Rounds of two steps of 100 µs on a machine whose speed jumps, whose calls vary by `spread`, and one of ten takes thrice as long.
/// The candidate's second step takes `factor` as long.
fn series(noise: &mut Noise, spread: f64, factor: f64) -> Series {
    let step = |name: &str| StepRef { name: name.into(), kind: "Down".into(), layer: None, streams: false };
    let steps = vec![step("other"), step("slower")];
    let mut speed = 1.0;
    let rounds = (0..42)
        .map(|round| {
            if round % 7 == 0 {
                speed = if noise.unit() < 0.5 { 1.0 } else { 1.6 };
            }
            let mut sample = |factor: f64| {
                let mut time = |work: f64| {
                    let interrupted = if noise.unit() < 0.1 { 3.0 } else { 1.0 };
                    1e5 * work * speed * interrupted * (1.0 + spread * noise.between(-1.0, 1.0))
                };
                let steps_ns = vec![time(1.0), time(factor)];
                Sample { wall_ns: steps_ns.iter().sum(), steps_ns }
            };
            Round { base: sample(1.0), control: sample(1.0), candidate: sample(factor) }
        })
        .collect();
    Series { call: "a token".into(), base_steps: steps.clone(), candidate_steps: steps, rounds }
}

fn trial(noise: &mut Noise, spread: f64, factor: f64) -> Result<Trial, Refusal> {
    let judge = Judge::new(LIMIT);
    let mut trial = Trial::new("a token", LIMIT);
    while trial.wants_more() {
        trial.add(judge.judge(&series(noise, spread, factor))?);
    }
    Ok(trial)
}

fn f085(_: &Context) -> Outcome {
    let mut noise = Noise::new(85);
    for n in 2..200 {
        let samples: Vec<f64> = (0..n).map(|_| noise.between(1.0, 2.0)).collect();
        let mean = samples.iter().sum::<f64>() / f64::from(n);
        let deviation = (samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n)).sqrt();
        let summary = require_some(Summary::of(&mut samples.clone()), "a summary")?;
        let error = (summary.cv - deviation / mean).abs();
        require(error < 1e-12, format!("{} as coefficient of variation", deviation / mean), || summary.cv.to_string())?;
    }
    let mut said = 0;
    for _ in 0..20 {
        let trial = trial(&mut noise, 0.6, 1.0)?;
        for check in trial.checks() {
            require(check.verdict != Verdict::Fail, "no failure of the same program", || format!("{check:?}"))?;
            said += usize::from(check.verdict == Verdict::Inconclusive);
        }
    }
    require(said >= 30, "30 inconclusive verdicts of 20 noisy runs", || said.to_string())?;
    Ok(format!("198 coefficients; 20 noisy runs of one program: {said} inconclusive verdicts, no failure"))
}

fn f087(_: &Context) -> Outcome {
    let mut noise = Noise::new(87);
    for run in 0..50 {
        let same = trial(&mut noise, 0.01, 1.0)?;
        let failed = same.checks().into_iter().find(|c| c.verdict == Verdict::Fail);
        require(failed.is_none(), format!("run {run} of the same version: no failure"), || format!("{failed:?}"))?;
        let slower = trial(&mut noise, 0.01, 1.1)?;
        let failed = slower.checks().into_iter().find(|c| c.verdict == Verdict::Fail).map(|c| c.name);
        require_eq("first that fails", &failed.as_deref(), &Some("slower, a token"))?;
    }
    let model = Synthetic::load("qwen2-tiny")?.model;
    let conditions = facts::conditions(&model);
    let recorded = facts::gather(&model, &conditions, None)?.facts;
    let failed = |fault: Option<&Fault>| -> Result<Vec<String>, Refusal> {
        let found = facts::gather(&model, &conditions, fault)?.facts;
        let checks = compare(&recorded, &found).into_iter().filter(|c| c.verdict == Verdict::Fail);
        Ok(checks.map(|c| c.name).collect())
    };
    require_eq("facts that differ without a change", &failed(None)?, &Vec::new())?;
    let step = failed(Some(&Fault::ExtraStep))?;
    require(step.iter().any(|n| n == "plan.barriers_per_token"), "an extra step is seen", || step.join(", "))?;
    let fusion = failed(Some(&Fault::WithoutPass { pass: "fuse-qkv".into() }))?;
    // Its layers have weights of different types, so each is a group of its own.
    let named = fusion.iter().any(|n| n.starts_with("brick blk.*.attn_qkv"));
    require(named, "a lost fusion is named", || fusion.join(", "))?;
    Ok(format!(
        "50 of 50 runs with +10 % failed by name, 0 of 50 without; an extra step changed {} facts, a lost fusion {}",
        step.len(),
        fusion.len()
    ))
}
