//! `brick gate record`: writes the facts, and says what became of the old ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use brick_profiler::gate::{Facts, Limits, Snapshot, Verdict, compare};
use brick_runtime::facts;

use super::arms::Setup;
use super::{check, instructions};
use crate::args::GateRecordArgs;
use crate::load::Source;
use crate::output;

pub(super) fn record(args: &GateRecordArgs) -> anyhow::Result<ExitCode> {
    // Not this program's file: not overwritten.
    let old = args.output.exists().then(|| Snapshot::read(&args.output)).transpose()?;
    let given = Source::either(args.model.as_deref(), args.synthetic);
    let Some(source) = given.or_else(|| old.as_ref().map(|o| Source::parse(&o.model))).transpose()? else {
        bail!("MODEL is missing (or --synthetic): there is no {} that would name one", args.output.display());
    };
    let name = source.name();
    let model = source.model()?;
    // Another model has other conditions.
    let kept = old.as_ref().filter(|o| o.model == name);
    let conditions = kept.map_or_else(|| facts::conditions(&model), |o| o.conditions.clone());
    let limits = kept.map_or_else(Limits::default, |o| o.limits.clone());
    let mut found = facts::gather(&model, &conditions, args.inject.as_ref())?.facts;
    let mut changes = 0;
    if let Some(old) = kept {
        changes = say_changes(&old.facts, &found);
        if same_but_kernels(&old.facts, &found) {
            let mut kernels = old.facts.kernels.clone();
            kernels.append(&mut found.kernels);
            found.kernels = kernels;
        }
    }
    let instructions = if args.instructions {
        let argument = source.argument()?;
        let setup = Setup { model: &argument, conditions: &conditions, threads: 1, depth: check::depth(&conditions) };
        match instructions::count(&setup, args.inject.as_ref())? {
            Ok(counted) => Some(counted),
            Err(reason) => bail!("--instructions: {reason}"),
        }
    } else {
        kept.and_then(|o| o.instructions.clone())
    };
    let reason = args.reason.clone().or_else(|| kept.filter(|_| changes == 0).and_then(|o| o.reason.clone()));
    let snapshot = Snapshot { model: name, reason, conditions, limits, instructions, facts: found };
    write(&args.output, &snapshot)?;
    let levels: Vec<&str> = snapshot.facts.kernels.keys().map(String::as_str).collect();
    output::note(&format!(
        "{}: {} groups of bricks, kernels of {}{}",
        args.output.display(),
        snapshot.facts.bricks.len(),
        levels.join(", "),
        match (&old, changes) {
            (None, _) => String::new(),
            (Some(_), 0) => "; no fact changed".to_owned(),
            (Some(_), n) => format!("; {n} facts changed"),
        }
    ));
    Ok(ExitCode::SUCCESS)
}

fn say_changes(old: &Facts, new: &Facts) -> usize {
    let changed: Vec<_> = compare(old, new).into_iter().filter(|c| c.verdict == Verdict::Fail).collect();
    for check in &changed {
        output::note(&format!("{}: {}", check.name, check.why));
    }
    changed.len()
}

/// Whether kernels of other levels, which cannot be seen here, still belong to the rest.
fn same_but_kernels(a: &Facts, b: &Facts) -> bool {
    let without = |f: &Facts| Facts { kernels: BTreeMap::new(), ..f.clone() };
    without(a) == without(b)
}

fn write(path: &Path, snapshot: &Snapshot) -> anyhow::Result<()> {
    let text = snapshot.to_toml();
    // What was written can be read, or is not written.
    Snapshot::parse(&path.display().to_string(), &text).context("the facts of this model do not make a gate file")?;
    crate::output::write_atomically(path, &text)
}
