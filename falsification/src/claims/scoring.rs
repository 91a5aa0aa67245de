//! M011–M020: scores and their bounds; F-PROF-001, F-PROF-003: that profiles are measured.

use brick_profiler::score::{Core, Grade, ModelScore, gap_score, mean};
use brick_profiler::{Machine, Phase, Profile};
use bricks::BrickKind;

use crate::claim::{Claim, Family, Outcome, Refusal, require, require_eq, require_some};
use crate::context::Context;
use crate::runs;

macro_rules! claim {
    ($id:literal, $statement:literal, $threshold:literal, $check:ident) => {
        Claim { id: $id, statement: $statement, family: Family::Scoring, threshold: $threshold, check: $check }
    };
}

pub(super) const CLAIMS: &[Claim] = &[
    claim!("M011", "The core score weighs compute, bandwidth, budget and stability", ".30 .25 .25 .20", m011),
    claim!("M012", "Compute efficiency lies in [0, 1]", "0 to 1", m012),
    claim!("M013", "The bandwidth ratio lies in [0, 1]", "0 to 1", m013),
    claim!("M014", "The latency ratio is capped", "at most 1", m014),
    claim!("M015", "Stability is 1 − CV, and never negative", "exact; floor 0", m015),
    claim!("M016", "Grades change at 90, 80, 70, 60", "exact", m016),
    claim!("M017", "CUDA-TDG adds up its five parts", "30 + 25 + 20 + 15 + 10", m017),
    claim!(
        "M018",
        "No brick is faster than the roofline of its machine allows",
        "at most 1.05 of it, or flagged",
        m018
    ),
    claim!("M019", "A model's score is the mean of its bricks'", "95, 88, 98, 85, 87, 82 give 89", m019),
    claim!("M020", "The JSON of scores has what it promises", "fields present", m020),
    claim!("F-PROF-001", "Times of bricks are measured: they vary independently", "correlation < 0.99", fprof001),
    claim!("F-PROF-003", "Kernels of a GPU have times of their own", "> 0", fprof003),
];

fn points(compute: f64, bandwidth: f64, latency: f64, stability: f64) -> u32 {
    Core { compute, bandwidth, latency, stability }.points()
}

fn m011(_: &Context) -> Outcome {
    let alone = [points(1., 0., 0., 0.), points(0., 1., 0., 0.), points(0., 0., 1., 0.), points(0., 0., 0., 1.)];
    require_eq("points of each part alone", &alone, &[30, 25, 25, 20])?;
    require_eq("all parts", &points(1., 1., 1., 1.), &100)?;
    Ok("30 + 25 + 25 + 20 = 100".into())
}

fn real_profile(context: &Context) -> Result<(Profile, Machine), Refusal> {
    let machine = Machine::load_or_measure()?;
    Ok((runs::profile(context.real()?, &machine)?, machine))
}

/// Scores of both phases of the real model.
fn scores(context: &Context) -> Result<Vec<ModelScore>, Refusal> {
    let (profile, _) = real_profile(context)?;
    [Phase::Prefill, Phase::Decode].into_iter().map(|p| require_some(ModelScore::of(&profile, p), p.name())).collect()
}

/// Smallest and largest of a part over all bricks of the real model.
fn range(context: &Context, part: fn(&Core) -> f64) -> Outcome {
    let scores = scores(context)?;
    let all: Vec<f64> = scores.iter().flat_map(|s| &s.bricks).filter_map(|b| b.core.as_ref().map(part)).collect();
    require(all.len() >= 10, "at least 10 bricks with a score", || all.len().to_string())?;
    let (low, high) = all.iter().fold((f64::INFINITY, 0.0f64), |(l, h), x| (l.min(*x), h.max(*x)));
    require(low >= 0.0 && high <= 1.0, "from 0 to 1", || format!("{low} to {high}"))?;
    Ok(format!("{low:.3} to {high:.3} over {} kinds of bricks", all.len()))
}

fn m012(context: &Context) -> Outcome {
    require_eq("more than the peak counts as the peak", &points(7.0, 0., 0., 0.), &30)?;
    range(context, |c| c.compute)
}

fn m013(context: &Context) -> Outcome {
    require_eq("more than the bandwidth counts as the bandwidth", &points(0., 7.0, 0., 0.), &25)?;
    range(context, |c| c.bandwidth)
}

fn m014(context: &Context) -> Outcome {
    require_eq("a budget kept twice over counts once", &points(0., 0., 2.0, 0.), &25)?;
    require_eq("gap scores", &[1.433, 1.714, 1.842, 7.628, 0.5].map(gap_score), &[56, 28, 15, 0, 100])?;
    range(context, |c| c.latency)
}

fn m015(context: &Context) -> Outcome {
    require_eq("a CV of 3", &points(0., 0., 0., 1.0 - 3.0), &0)?;
    for b in scores(context)?.iter().flat_map(|s| &s.bricks) {
        if let Some(core) = &b.core {
            require((0.0..=1.0).contains(&core.stability), "from 0 to 1", || {
                format!("{}: {}", b.kind, core.stability)
            })?;
        }
    }
    range(context, |c| c.stability)
}

fn m016(_: &Context) -> Outcome {
    let grades = [0, 59, 60, 69, 70, 79, 80, 89, 90, 100].map(|s| Grade::of(s).name());
    require_eq("grades", &grades, &["F", "F", "D", "D", "C", "C", "B", "B", "A", "A"])?;
    Ok("10 of 10 at the limits".into())
}

fn m017(_: &Context) -> Outcome {
    Err(Refusal::not_testable("scores CUDA kernels, which this build does not have"))
}

fn m018(context: &Context) -> Outcome {
    let (profile, _) = real_profile(context)?;
    let mut nearest = 0.0f64;
    for phase in &profile.phases {
        for row in &phase.kinds {
            let Some(bound) = row.derived.bound else { continue };
            // A small brick's activations may come from a nearer cache than assumed: then a flag says so.
            let honest = bound.fraction <= 1.05 || !row.derived.flags.is_empty() || bound.us_per_token < 0.5;
            require(honest, "at most 1.05, or a flag", || {
                format!("{} {}: {:.2}", phase.phase, row.kind, bound.fraction)
            })?;
            nearest = nearest.max(bound.fraction);
        }
    }
    require(nearest > 0.0, "a fraction of the roofline", || "none".into())?;
    Ok(format!("nearest kind at {:.0} % of its roofline", nearest * 100.0))
}

fn m019(context: &Context) -> Outcome {
    require_eq("mean", &mean(&[95, 88, 98, 85, 87, 82]), &Some(89))?;
    for s in scores(context)? {
        let scored: Vec<u32> = s.bricks.iter().filter_map(|b| b.score).collect();
        require_eq("the model's score", &s.score, &mean(&scored))?;
    }
    Ok("89; and the real model's, in both phases".into())
}

fn m020(context: &Context) -> Outcome {
    for s in scores(context)? {
        let json = serde_json::to_value(&s)?;
        for key in ["schema_version", "model", "phase", "score", "grade", "core_score", "bricks"] {
            require(json.get(key).is_some(), key, || json.to_string())?;
        }
        for b in json["bricks"].as_array().into_iter().flatten() {
            let sum: f64 = ["performance", "efficiency", "correctness", "stability"]
                .iter()
                .filter_map(|k| b["parts"][k].as_f64())
                .sum();
            let told = b["score"].as_f64();
            require(told.is_none_or(|s| (s - sum).abs() < 1.0), "parts that add up", || b.to_string())?;
        }
    }
    Ok("7 fields, parts that add up".into())
}

fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = a.len() as f64;
    let mean = |x: &[f64]| x.iter().sum::<f64>() / n;
    let (ma, mb) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(x, y)| f(x - ma, y - mb)).sum::<f64>();
    let spread = (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
    (spread > 0.0).then(|| sum(&|x, y| x * y) / spread)
}

fn fprof001(context: &Context) -> Outcome {
    let (profile, _) = real_profile(context)?;
    let decode = require_some(profile.phase(Phase::Decode), "decoding")?;
    let times = |kind: BrickKind| -> Vec<f64> {
        let of = |f: &brick_profiler::profile::ForwardRow| {
            let steps = decode.steps.iter().zip(&f.steps_us).filter(|(s, _)| s.kind == kind);
            steps.filter_map(|(_, us)| *us).sum::<f64>()
        };
        decode.timeline.iter().map(of).collect()
    };
    let (qkv, attention) = (times(BrickKind::Qkv), times(BrickKind::Attention));
    require(qkv.len() >= 10, "at least 10 forward calls", || qkv.len().to_string())?;
    let measured = require_some(correlation(&qkv, &attention), "times that vary")?;
    require(measured < 0.99, "a correlation below 0.99", || format!("{measured:.4}"))?;
    // The control: times that were derived from throughput by fixed shares are the same series twice.
    let derived: Vec<f64> = qkv.iter().map(|t| t * 0.4).collect();
    let control = require_some(correlation(&qkv, &derived), "a control")?;
    require(control > 0.99, "derived times to be found out", || format!("{control:.4}"))?;
    require_eq("a series that does not vary", &correlation(&[1.0; 10], &qkv[..10]), &None)?;
    Ok(format!("correlation of QKV and attention {measured:.3}; of derived times {control:.3}"))
}

fn fprof003(_: &Context) -> Outcome {
    Err(Refusal::not_testable("needs the CUDA backend, which this build does not have"))
}
