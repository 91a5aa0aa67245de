//! `brick check MODEL`: every brick against its scalar reference.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use brick_models::tokenizer::EncodeOptions;
use brick_runtime::EngineOptions;
use brick_runtime::check::{BrickCheck, CheckReport, check as run_check};
use serde_json::json;

use crate::args::CheckArgs;
use crate::{exit, load, output};

/// What runs through the model when nothing else is said: short, since the reference is slow on purpose.
const TEXT: &str = "The capital of France is Paris.";

pub(super) fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let model = load::model(&args.model.model)?;
    let text = args.prompt.as_deref().unwrap_or(TEXT);
    let tokens = model.tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: true })?;
    let device = args.model.engine.device.cpu("brick check")?;
    let options = EngineOptions { device, ..load::engine_options(&args.model.engine, &model)? };
    if tokens.is_empty() {
        anyhow::bail!("the prompt is empty");
    }
    let report = run_check(&model.fused, model.weights(), &options, &tokens, args.sabotage.as_deref())?;
    if args.json {
        output::print_json(&json!({
            "schema": "brick.check/1",
            "model": args.model.model,
            "sabotaged": args.sabotage,
            "ok": report.first_divergence.is_none(),
            "report": report,
        }))?;
    } else {
        output::print(&text_report(&report, args.all))?;
    }
    Ok(if report.first_divergence.is_none() { ExitCode::SUCCESS } else { ExitCode::from(exit::VERDICT) })
}

fn text_report(report: &CheckReport, all: bool) -> String {
    let mut worst: BTreeMap<usize, (&BrickCheck, usize)> = BTreeMap::new();
    for b in &report.bricks {
        let entry = worst.entry(b.kind.index()).or_insert((b, 0));
        entry.1 += 1;
        if b.relative_error > entry.0.relative_error {
            entry.0 = b;
        }
    }
    let mut s = format!(
        "{:<10} {:>6}  {:<22} {:>10} {:>10} {:>10}  verdict\n",
        "kind", "bricks", "worst brick", "rel error", "tolerance", "max abs"
    );
    let row = |s: &mut String, kind: &str, n: String, b: &BrickCheck| {
        // Writing to a string does not fail.
        let _ = writeln!(
            s,
            "{kind:<10} {n:>6}  {:<22} {:>10.1e} {:>10.0e} {:>10.1e}  {}",
            b.brick,
            b.relative_error,
            b.tolerance,
            b.max_abs_error,
            if b.ok { "ok" } else { "DIVERGES" }
        );
    };
    if all {
        for b in &report.bricks {
            row(&mut s, b.kind.name(), "1".into(), b);
        }
    } else {
        for (b, n) in worst.values() {
            row(&mut s, b.kind.name(), n.to_string(), b);
        }
    }
    let _ = match report.first() {
        None => writeln!(
            s,
            "\nall {} bricks agree with the scalar reference ({} tokens, {})",
            report.bricks.len(),
            report.tokens,
            report.simd
        ),
        Some(b) => writeln!(
            s,
            "\nfirst divergence: {} ({}, kernel {})\n  relative error {:.3e}, tolerance {:.0e}\n  \
             output {}, row {}, column {}: found {}, expected {}",
            b.brick,
            b.kind.name(),
            b.kernel,
            b.relative_error,
            b.tolerance,
            b.worst.0,
            b.worst.1,
            b.worst.2,
            b.found,
            b.expected
        ),
    };
    s
}
