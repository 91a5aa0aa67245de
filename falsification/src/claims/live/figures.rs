//! Where figures come from.

use std::path::Path;

use brick_profiler::profile::{BuildInfo, ModelInfo, RunInfo};
use brick_profiler::{
    BrickProfiler, ClockPrecision, Machine, ManualClock, Phase, Profile, ProfileInputs, Recorder, StepInfo, SyncMode,
};
use brick_top::report::{Origin, Report, SourceKind, Thresholds};
use brick_top::snapshot::Facts;
use brick_top::{NoData, Snapshot};
use bricks::{BudgetPolicy, Extent};
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

use crate::claim::{Outcome, Refusal, require, require_eq, require_some};
use crate::context::Context;
use crate::runs;

/// A profile of the real model on this machine.
fn real_profile(context: &Context) -> Result<Profile, Refusal> {
    runs::profile(context.real()?, &Machine::load_or_measure()?)
}

fn snapshot(profile: &Profile) -> Result<Snapshot, Refusal> {
    Ok(Snapshot::of(profile, &Facts::default())?)
}

fn report(s: &Snapshot, thresholds: &Thresholds) -> Report {
    Report::new(s, SourceKind::Driven, thresholds, None)
}

pub(super) fn steady(context: &Context) -> Outcome {
    let report = report(&snapshot(&real_profile(context)?)?, &Thresholds::default());
    let cv = require_some(report.throughput.cv_percent, "a CV")?;
    Err(Refusal::not_testable(format!(
        "needs a machine that is known to be quiet: no test asserts a time of an unknown one; the CV of this run is {cv:.1} %"
    )))
}

pub(super) fn cv_limit(context: &Context) -> Outcome {
    let mut s = snapshot(&runs::profile(&context.synthetic("spm-tiny")?.model, &Machine::load_or_measure()?)?)?;
    let asked = Thresholds { max_cv_percent: Some(5.0), ..Thresholds::default() };
    for (cv, holds) in [(0.0, true), (0.049_99, true), (0.05, false), (0.2, false)] {
        require_some(s.measured.us_per_token.as_mut(), "wall times")?.cv = cv;
        let failed = report(&s, &asked).failed().count();
        require_eq(&format!("failed thresholds at {} %", 100.0 * cv), &failed, &usize::from(!holds))?;
    }
    s.measured.us_per_token = None;
    require_eq("failed thresholds where the CV is not known", &report(&s, &asked).failed().count(), &1)?;
    Ok("holds at 4.999 %, fails at 5.0 % and where it is not known".into())
}

pub(super) fn fits(context: &Context) -> Outcome {
    let s = snapshot(&real_profile(context)?)?;
    let tok_s = require_some(s.derived.tokens_per_s_overall, "tok/s")?;
    let (bricks, token) = (s.bricks_us(), 1e6 / tok_s);
    // Both are sums of the same integers, rounded apart.
    require(bricks > 0.0 && bricks <= token * (1.0 + 1e-9), format!("at most {token:.3} µs"), || {
        format!("{bricks:.3} µs")
    })?;
    Ok(format!("{} bricks take {bricks:.1} µs of a token's {token:.1} µs", s.steps.len()))
}

pub(super) fn trace(context: &Context) -> Outcome {
    let profile = real_profile(context)?;
    let trace: Value = serde_json::from_str(&profile.to_chrome_trace())?;
    let events = require_some(trace["traceEvents"].as_array(), "traceEvents")?;
    let decode = require_some(profile.phase(Phase::Decode), "decoding")?;
    for step in &decode.steps {
        require(events.iter().any(|e| e["ph"] == "X" && e["name"] == step.name.as_str()), step.name.as_str(), || {
            "no span of it".into()
        })?;
    }
    Ok(format!("{} events, a span of each of {} bricks", events.len(), decode.steps.len()))
}

pub(super) fn hot_spots(context: &Context) -> Outcome {
    let stored = real_profile(context)?.to_json()?;
    let profile = Profile::from_json("stored", &stored)?;
    let s = snapshot(&profile)?;
    let (kind, step) =
        (require_some(s.bottleneck.as_ref(), "a kind")?, require_some(s.slowest_step.as_ref(), "a brick")?);
    let largest = s.bricks.iter().max_by(|a, b| a.measured.total_us.total_cmp(&b.measured.total_us));
    require_eq("the kind that takes most", &largest.map(|b| b.kind.name()), &Some(kind.brick_name.as_str()))?;
    let largest = s.steps.iter().max_by(|a, b| a.mean_us_per_token.total_cmp(&b.mean_us_per_token));
    require_eq("the brick that takes most", &largest.map(|c| c.name.as_str()), &Some(step.brick_name.as_str()))?;
    Ok(format!("{} ({:.1} % of the time) and {}", kind.brick_name, 100.0 * kind.share, step.brick_name))
}

/// A recording of `forwards` tokens in which step `slow` takes twice its time.
fn recording(steps: &[StepInfo], forwards: u64, slow: Option<usize>) -> Profile {
    let clock = ManualClock::new();
    let mut recorder = BrickProfiler::with_clock(steps, 16, SyncMode::Immediate, &clock);
    for n in 0..forwards {
        recorder.begin_forward(&Extent::one_sequence(1, n + 1, 1), Phase::Decode);
        for i in 0..steps.len() {
            let ns = 1000 + 37 * i as u64 + n;
            clock.advance(if slow == Some(i) { 2 * ns } else { ns });
            recorder.step_done(i);
        }
        recorder.end_forward();
    }
    let inputs = ProfileInputs {
        model: ModelInfo::default(),
        build: BuildInfo::current(),
        run: RunInfo::default(),
        clock: ClockPrecision { resolution_ns: 1, read_ns: 1.0 },
        machine: None,
        budgets: None,
        policy: BudgetPolicy::Off,
        counters: None,
        timeline: 16,
        intervals: false,
    };
    Profile::new(&mut recorder, inputs)
}

fn steps(context: &Context) -> Result<Vec<StepInfo>, Refusal> {
    Ok(context.synthetic("spm-tiny")?.model.engine(&runs::options(8, 8))?.steps().to_vec())
}

pub(super) fn real(context: &Context) -> Outcome {
    let steps = steps(context)?;
    let before = snapshot(&recording(&steps, 5, None))?;
    for slow in 0..steps.len() {
        let after = snapshot(&recording(&steps, 5, Some(slow)))?;
        for (i, (a, b)) in before.steps.iter().zip(&after.steps).enumerate() {
            let factor = if i == slow { 2.0 } else { 1.0 };
            let found = b.mean_us_per_token / a.mean_us_per_token;
            require((found - factor).abs() < 1e-12, format!("{}: {factor} times as long", a.name), || {
                found.to_string()
            })?;
        }
    }
    let said = crate::program::Program::with_file("empty", b"")?.run_alone("top --headless")?;
    require_eq("exit code without a model", &said.code, &Some(1))?;
    Ok(format!("each of {} bricks slowed down alone changes its own row, and no other", steps.len()))
}

pub(super) fn no_data(context: &Context) -> Outcome {
    let steps = steps(context)?;
    let nothing = recording(&steps, 0, None);
    require_eq("of a recorder that saw nothing", &Snapshot::of(&nothing, &Facts::default()).err(), &Some(NoData))?;
    let coarse = Profile { phases: vec![], ..recording(&steps, 3, None) };
    require_eq("of a profile without phases", &Snapshot::of(&coarse, &Facts::default()).err(), &Some(NoData))?;
    Ok(NoData.to_string())
}

pub(super) fn measured(context: &Context) -> Outcome {
    let profile = real_profile(context)?;
    let report = report(&snapshot(&profile)?, &Thresholds::default());
    let decode = require_some(profile.phase(Phase::Decode), "decoding")?;
    let wall = require_some(decode.measured.us_per_token, "wall times")?;
    require_eq("p50", &report.throughput.p50_us, &Some(wall.p50))?;
    require_eq("p99", &report.throughput.p99_us, &Some(wall.p99))?;
    for row in &report.brick_scores {
        let kind = require_some(decode.kinds.iter().find(|k| k.kind.name() == row.name), row.name)?;
        require_eq(row.name, &Some(row.actual_us), &kind.measured.us_per_token.map(|s| s.p50))?;
    }
    for path in ["throughput.p50_us", "brick_scores[].actual_us"] {
        require_eq(path, &report.origin.get(path), &Some(&Origin::Measured))?;
    }
    require(report.to_text().contains("(MEASURED)"), "MEASURED in the text", || report.to_text())?;
    Ok(format!("2 times of the call, {} of bricks", report.brick_scores.len()))
}

/// What is wrong with a workflow, if anything.
fn workflow_error(text: &str, root: &Path) -> Option<String> {
    let documents = match YamlLoader::load_from_str(text) {
        Ok(documents) => documents,
        Err(e) => return Some(e.to_string()),
    };
    let [workflow] = documents.as_slice() else { return Some(format!("{} documents", documents.len())) };
    if let Some(key) = ["name", "on", "jobs"].into_iter().find(|key| workflow[*key].is_badvalue()) {
        return Some(format!("no {key}"));
    }
    let Some(jobs) = workflow["jobs"].as_hash().filter(|jobs| !jobs.is_empty()) else { return Some("no jobs".into()) };
    for (name, job) in jobs {
        let name = name.as_str().unwrap_or("a job");
        if job["runs-on"].as_str().is_none() {
            return Some(format!("{name}: no runs-on"));
        }
        let Some(steps) = job["steps"].as_vec().filter(|s| !s.is_empty()) else {
            return Some(format!("{name}: no steps"));
        };
        if let Some(why) = steps.iter().find_map(|step| step_error(step, root)) {
            return Some(format!("{name}: {why}"));
        }
    }
    None
}

fn step_error(step: &Yaml, root: &Path) -> Option<String> {
    match (step["uses"].as_str(), step["run"].as_str()) {
        (Some(action), None) => (!action.contains('@')).then(|| format!("{action} without a version")),
        (None, Some(run)) => {
            let script = run.split_whitespace().next().filter(|word| word.starts_with(".ci/"))?;
            (!root.join(script).is_file()).then(|| format!("{script} does not exist"))
        }
        _ => Some("a step that neither uses nor runs, or does both".into()),
    }
}

pub(super) fn workflow(_: &Context) -> Outcome {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let path = root.join(".github/workflows/ci.yml");
    if !path.is_file() {
        return Err(Refusal::not_testable("needs the source tree that this program was built from"));
    }
    let text = std::fs::read_to_string(path)?;
    let error = workflow_error(&text, root);
    require(error.is_none(), "a valid workflow", || error.unwrap_or_default())?;
    let bad = [
        text.replace("jobs:", "jobs: ["),
        text.replace("runs-on:", "runs-at:"),
        text.replace("@v4", ""),
        text.replace("- run: .ci/run", "- run: .ci/walk"),
        text.replace("- run: .ci/run", "- walk: .ci/run"),
    ];
    for bad in &bad {
        require(workflow_error(bad, root).is_some(), "a damaged workflow refused", || bad.clone())?;
    }
    Ok(format!("valid; each of {} damaged copies is refused", bad.len()))
}
