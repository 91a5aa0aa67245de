//! The report as llama-bench prints its own, for scripts that read that.

use std::fmt::Write as _;

use brick_models::synthetic::PREFIX;
use brick_profiler::Summary;
use serde::Serialize;

use super::measure::Kind;
use super::report::{Report, Row};
use crate::args::LlamaBenchForm;

/// An entry of llama-bench's JSON, as far as it applies. Refused figures are left out.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    build_commit: &'a str,
    backends: &'static str,
    model_filename: &'a str,
    model_type: String,
    model_size: u64,
    n_batch: usize,
    n_ubatch: usize,
    n_threads: usize,
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    test_time: &'a str,
    avg_ns: u64,
    stddev_ns: u64,
    avg_ts: f64,
    stddev_ts: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples_ns: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples_ts: Vec<f64>,
}

impl<'a> Entry<'a> {
    fn new(report: &'a Report, row: &Row) -> Option<Self> {
        row.summary?;
        let tokens = row.what.tokens * row.what.sequences;
        let samples_ns: Vec<u64> = row.tok_s.iter().map(|t| (tokens as f64 * 1e9 / t).round() as u64).collect();
        let ns = Summary::of(&mut samples_ns.iter().map(|n| *n as f64).collect::<Vec<_>>())?;
        let ts = Summary::of(&mut row.tok_s.clone())?;
        let (n_prompt, n_gen) = match row.what.kind {
            Kind::Prefill => (tokens, 0),
            Kind::Decode => (0, tokens),
        };
        let m = &report.model;
        // What has no weights says so in every form.
        let made_up = m.name.starts_with(PREFIX).then_some(m.name.as_str());
        let model_type = match made_up {
            Some(name) => vec![name],
            None => [m.architecture.as_deref(), m.quantization.as_deref()].into_iter().flatten().collect(),
        };
        Some(Self {
            build_commit: report.build.git.as_deref().unwrap_or("unknown"),
            backends: "CPU",
            model_filename: &m.name,
            model_type: model_type.join(" "),
            model_size: m.file_bytes.unwrap_or(0),
            n_batch: report.batch,
            n_ubatch: report.batch,
            n_threads: row.threads,
            n_prompt,
            n_gen,
            n_depth: row.what.depth,
            test_time: report.timestamp.as_deref().unwrap_or("unknown"),
            avg_ns: ns.mean.round() as u64,
            stddev_ns: ns.std.round() as u64,
            avg_ts: ts.mean,
            stddev_ts: ts.std,
            samples_ns,
            samples_ts: row.tok_s.clone(),
        })
    }
}

/// The report in one of llama-bench's forms.
pub(super) fn render(report: &Report, form: LlamaBenchForm) -> serde_json::Result<String> {
    let entries: Vec<Entry<'_>> = report.rows.iter().filter_map(|r| Entry::new(report, r)).collect();
    Ok(match form {
        LlamaBenchForm::Json => serde_json::to_string_pretty(&entries)?,
        LlamaBenchForm::Jsonl => {
            entries.iter().map(|e| serde_json::to_string(e).map(|l| l + "\n")).collect::<Result<String, _>>()?
        }
        LlamaBenchForm::Csv => csv(&entries)?,
        LlamaBenchForm::Md => markdown(report, &entries),
    })
}

/// As llama-bench: a line of names, then all values in quotes; no samples.
fn csv(entries: &[Entry<'_>]) -> serde_json::Result<String> {
    let mut lines = Vec::new();
    for e in entries {
        let value = serde_json::to_value(e)?;
        let fields: Vec<_> = value.as_object().into_iter().flatten().filter(|(_, v)| !v.is_array()).collect();
        if lines.is_empty() {
            lines.push(fields.iter().map(|(k, _)| k.as_str()).collect::<Vec<_>>().join(","));
        }
        let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned).replace('"', "\"\"");
        lines.push(fields.iter().map(|(_, v)| format!("\"{}\"", text(v))).collect::<Vec<_>>().join(","));
    }
    Ok(lines.join("\n") + "\n")
}

fn markdown(report: &Report, entries: &[Entry<'_>]) -> String {
    let mut text =
        String::from("| model | size | backend | threads | test | t/s |\n| --- | ---: | --- | ---: | ---: | ---: |\n");
    let size =
        report.model.file_bytes.map_or_else(|| "?".into(), |b| format!("{:.2} MiB", b as f64 / f64::from(1 << 20)));
    let tests = report.rows.iter().filter(|r| r.summary.is_some()).map(|r| &r.test);
    for (e, test) in entries.iter().zip(tests) {
        let name = e.model_type.replace('|', "/");
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {name} | {size} | CPU | {} | {test} | {:.2} ± {:.2} |",
            e.n_threads, e.avg_ts, e.stddev_ts
        );
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn every_form() {
        for (name, form) in [
            ("llama_bench_json", LlamaBenchForm::Json),
            ("llama_bench_csv", LlamaBenchForm::Csv),
            ("llama_bench_md", LlamaBenchForm::Md),
        ] {
            insta::assert_snapshot!(name, render(&report(), form).unwrap());
        }
        let lines = render(&report(), LlamaBenchForm::Jsonl).unwrap();
        assert_eq!(lines.lines().count(), 3);
        assert!(lines.lines().all(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["avg_ts"].is_f64()));
    }
}
