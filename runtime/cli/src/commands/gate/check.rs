//! `brick gate check`: all tiers that were asked for, one report.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use brick_profiler::StepInfo;
use brick_profiler::budget::Roofline;
use brick_profiler::gate::paired::{Judge, Trial};
use brick_profiler::gate::{Check, Conditions, Report, Snapshot, Tier, Verdict, compare, judge_instructions, roofline};
use brick_profiler::machine::{CpuTopology, Fingerprint};
use brick_runtime::facts;
use bricks::Extent;

use super::arms::{CALLS, Call, Repeat, Setup, start};
use super::instructions;
use crate::args::{GateCall, GateCheckArgs};
use crate::load::Source;
use crate::{exit, output};

/// Positions in the cache before a measured call.
pub(super) fn depth(conditions: &Conditions) -> usize {
    64.min(conditions.context / 2)
}

/// Rows of the measured piece of a prompt: enough that arithmetic bounds it.
fn prompt_rows(conditions: &Conditions) -> usize {
    64.min(conditions.batch).min(conditions.context - depth(conditions))
}

pub(super) fn check(args: &GateCheckArgs) -> anyhow::Result<ExitCode> {
    let snapshot = Snapshot::read(&args.file)?;
    let limit = args.limit.unwrap_or(snapshot.limits.ratio);
    if !(limit > 1.0 && limit.is_finite()) {
        bail!("--limit {limit}: expected a number above 1");
    }
    let source = match Source::either(args.model.as_deref(), args.synthetic) {
        Some(source) => source?,
        None => Source::parse(&snapshot.model)?,
    };
    let argument = source.argument()?;
    let model = source.model()?;
    let gathered = facts::gather(&model, &snapshot.conditions, args.inject.as_ref())
        .with_context(|| args.file.display().to_string())?;
    drop(model);
    let setup = Setup {
        model: &argument,
        conditions: &snapshot.conditions,
        threads: args.threads,
        depth: depth(&snapshot.conditions),
    };
    let mut checks = compare(&snapshot.facts, &gathered.facts);
    checks.push(check_instructions(args, &snapshot, &setup)?);
    match &args.base {
        Some(base) => checks.extend(check_ratios(args, &setup, base, limit, &gathered.steps)?),
        None => checks.push(Check::new(
            Tier::Ratio,
            "times against another program",
            Verdict::Skipped,
            "no program to compare with (--base)",
        )),
    }
    let quiet = args.quiet_host || std::env::var_os("PERF_HOST").is_some_and(|v| v == "quiet");
    if args.roofline || quiet {
        let floor = snapshot.limits.roofline;
        checks.extend(check_roofline(args, &setup, &gathered.steps, floor, quiet)?);
    }
    let machine = Fingerprint::of(&CpuTopology::detect()).to_string();
    let report = Report::new(args.file.display().to_string(), source.name(), machine, checks);
    if let Some(file) = &args.junit {
        crate::output::write_atomically(file, &report.to_junit())?;
    }
    if let Some(file) = &args.history {
        append(file, &report)?;
    }
    if args.json {
        output::print_json(&report)?;
    } else if args.markdown {
        output::print(&report.to_markdown())?;
    } else {
        output::print_styled(&report.to_text(output::style()))?;
    }
    Ok(if report.fails() { ExitCode::from(exit::VERDICT) } else { ExitCode::SUCCESS })
}

fn check_instructions(args: &GateCheckArgs, snapshot: &Snapshot, setup: &Setup<'_>) -> anyhow::Result<Check> {
    let skipped = |why: String| Check::new(Tier::Instructions, "instructions of a token", Verdict::Skipped, why);
    if !args.instructions {
        return Ok(skipped("not asked for (--instructions)".to_owned()));
    }
    let Some(recorded) = &snapshot.instructions else {
        return Ok(skipped("not on record; `brick gate record --instructions` counts them".to_owned()));
    };
    // On record is the count of one thread, whatever is measured otherwise.
    let setup = Setup { threads: 1, ..setup.clone() };
    Ok(match instructions::count(&setup, args.inject.as_ref())? {
        Ok(now) => judge_instructions(recorded, &now, snapshot.limits.instructions_percent),
        Err(reason) => skipped(reason),
    })
}

/// Calls in the order of the command line, each once.
fn calls(args: &GateCheckArgs, conditions: &Conditions) -> Vec<Call> {
    let depth = depth(conditions);
    let mut calls: Vec<Call> = Vec::new();
    for call in &args.calls {
        let call = match call {
            GateCall::Decode => Call { name: format!("a token at {depth}"), rows: 1 },
            GateCall::Prompt => {
                let rows = prompt_rows(conditions);
                Call { name: format!("{rows} prompt tokens at {depth}"), rows }
            }
        };
        if calls.iter().all(|c| c.rows != call.rows) {
            calls.push(call);
        }
    }
    calls
}

fn extent(call: &Call, depth: usize) -> Extent {
    Extent::one_sequence(call.rows as u64, (depth + call.rows) as u64, 1)
}

fn check_ratios(
    args: &GateCheckArgs,
    setup: &Setup<'_>,
    base: &Path,
    limit: f64,
    steps: &[StepInfo],
) -> anyhow::Result<Vec<Check>> {
    // Before anything else runs: measuring wants a quiet machine, and is done once.
    let machine = crate::commands::machine::get(false)?;
    let limits = Roofline::new(&machine, steps, usize::from(args.threads));
    let streams = |call: &Call, name: &str| {
        let extent = extent(call, setup.depth);
        steps.iter().find(|s| s.name == name).is_some_and(|s| roofline::streams(&limits, s, &extent))
    };
    let repeat = Repeat {
        base,
        candidate: std::env::current_exe().context("path of this program")?,
        fault: args.inject.as_ref(),
        rounds: args.rounds as usize,
        streams: &streams,
    };
    let judge = Judge::new(limit);
    let calls = calls(args, setup.conditions);
    let mut trials: Vec<Trial> = calls.iter().map(|c| Trial::new(&c.name, limit)).collect();
    for number in 0.. {
        let open: BTreeSet<&str> =
            calls.iter().zip(&trials).filter(|(_, t)| t.wants_more()).map(|(c, _)| c.name.as_str()).collect();
        if open.is_empty() {
            break;
        }
        if number > 0 {
            output::note(&format!("something looks slower: repeat {} with new processes", number + 1));
        }
        let now: Vec<Call> = calls.iter().filter(|c| open.contains(c.name.as_str())).cloned().collect();
        for series in repeat.run(setup, &now, number)? {
            let findings = judge.judge(&series)?;
            if let Some(at) = calls.iter().position(|c| c.name == series.call) {
                trials[at].add(findings);
            }
        }
    }
    Ok(trials.iter().flat_map(Trial::checks).collect())
}

fn check_roofline(
    args: &GateCheckArgs,
    setup: &Setup<'_>,
    steps: &[StepInfo],
    floor: f64,
    quiet: bool,
) -> anyhow::Result<Vec<Check>> {
    let machine = crate::commands::machine::get(false)?;
    let limits = Roofline::new(&machine, steps, usize::from(args.threads));
    let program = std::env::current_exe().context("path of this program")?;
    // The steps are those of the facts, whatever fault those have.
    let mut worker = start(&program, setup, args.inject.as_ref())?;
    let mut checks = Vec::new();
    for call in calls(args, setup.conditions) {
        let mut samples = Vec::with_capacity(args.rounds as usize);
        for _ in 0..args.rounds {
            samples.push(worker.sample(call.rows, CALLS)?);
        }
        let extent = extent(&call, setup.depth);
        checks.extend(roofline::check(&limits, steps, (&call.name, &extent), &samples, floor, quiet));
    }
    worker.finish()?;
    Ok(checks)
}

/// T4: a history that nothing is judged by here; change points are found offline.
fn append(path: &Path, report: &Report) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let lines = report.history(now)?;
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot append to {}", path.display()))?;
    file.write_all(lines.as_bytes()).with_context(|| format!("cannot append to {}", path.display()))
}
