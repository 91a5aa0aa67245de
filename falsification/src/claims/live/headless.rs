//! The program from outside.

use std::path::Path;

use brick_profiler::Machine;
use serde_json::Value;

use crate::claim::{Outcome, Refusal, require, require_eq, require_some};
use crate::context::Context;
use crate::program::{Program, Said};

const FILE: &str = "qwen2-tiny.gguf";
const QUICK: &str = "top qwen2-tiny.gguf --headless --pp 8 --tokens 8";

fn program(context: &Context) -> Result<Program, Refusal> {
    Program::with_file(FILE, context.synthetic("qwen2-tiny")?.file)
}

fn succeeds(program: &Program, words: &str) -> Result<Said, Refusal> {
    let said = program.run(words)?;
    require(said.code == Some(0), format!("exit code 0 of brick {words}"), || {
        format!("{:?}: {}", said.code, said.stderr)
    })?;
    Ok(said)
}

fn json(program: &Program, words: &str) -> Result<Value, Refusal> {
    Ok(serde_json::from_str(&succeeds(program, words)?.stdout)?)
}

/// Exit code and what was said, which must be one line that holds `part`.
fn refused(said: &Said, code: i32, part: &str) -> Result<(), Refusal> {
    require_eq("exit code", &said.code, &Some(code))?;
    require_eq("standard output", &said.stdout.as_str(), &"")?;
    require(said.stderr.contains(part), format!("{part:?} in the message"), || said.stderr.clone())
}

/// The report of the real model.
fn real(context: &Context) -> Result<Value, Refusal> {
    let program = Program::with_file("empty", b"")?;
    let file = context.real_file()?;
    let words = format!("top {} --headless --json --pp 16 --tokens 16", file.display());
    if words.split_whitespace().count() != 8 {
        return Err(Refusal::not_testable(format!("the path of the model has spaces: {}", file.display())));
    }
    json(&program, &words)
}

fn rows(report: &Value) -> Result<&Vec<Value>, Refusal> {
    require_some(report["brick_scores"].as_array(), "an array of brick_scores")
}

pub(super) fn ends_well(context: &Context) -> Outcome {
    let said = succeeds(&program(context)?, QUICK)?;
    Ok(format!("exit code 0, {} lines", said.stdout.lines().count()))
}

pub(super) fn output_is_json(context: &Context) -> Outcome {
    let program = program(context)?;
    succeeds(&program, &format!("{QUICK} --output report.json"))?;
    let text = std::fs::read_to_string(program.directory().join("report.json"))?;
    let report: Value = serde_json::from_str(&text)?;
    require_eq("schema", &report["schema"].as_str(), &Some("brick.top/1"))?;
    Ok(format!("{} bytes of JSON", text.len()))
}

pub(super) fn brick_scores(context: &Context) -> Outcome {
    let program = program(context)?;
    let report = json(&program, &format!("{QUICK} --json"))?;
    let rows = rows(&report)?;
    // By name, from the graph itself.
    let graph = json(&program, &format!("graph {FILE} --json"))?;
    let bricks = require_some(graph["bricks"].as_array(), "bricks of the graph")?;
    require(rows.len() >= 8 && rows.len() <= bricks.len(), "8 kinds at least", || rows.len().to_string())?;
    let shares: f64 = rows.iter().filter_map(|r| r["share"].as_f64()).sum();
    require((0.5..=1.0).contains(&shares), "most of the time in the rows", || shares.to_string())?;
    Ok(format!("{} kinds of {} bricks, {:.1} % of the time", rows.len(), bricks.len(), 100.0 * shares))
}

pub(super) fn pmat_scores(context: &Context) -> Outcome {
    let report = json(&program(context)?, &format!("{QUICK} --json"))?;
    let scores = require_some(report["pmat_scores"].as_object(), "pmat_scores")?;
    for unknown in ["rust_project_score", "tdg_score", "cuda_tdg_score", "perfection_score"] {
        require_eq(unknown, &scores.get(unknown), &Some(&Value::Null))?;
    }
    let own = require_some(scores.get("brick_score").and_then(Value::as_u64), "brick_score as a number")?;
    require_eq("brick_score at the top", &report["brick_score"].as_u64(), &Some(own))?;
    Ok(format!("brick_score {own}, the four of other programs null"))
}

pub(super) fn ci(context: &Context) -> Outcome {
    let program = program(context)?;
    let code = |score: u32| program.run(&format!("top {FILE} --tokens 4 --ci --brick-score {score}")).map(|s| s.code);
    require_eq("exit codes at 999 and 0", &(code(999)?, code(0)?), &(Some(1), Some(0)))?;
    Ok("exit code 1 at 999, 0 at 0".into())
}

pub(super) fn no_model(context: &Context) -> Outcome {
    let said = program(context)?.run_alone("top --headless")?;
    refused(&said, 1, "no model and no run to watch")?;
    Ok(said.stderr.trim().to_owned())
}

pub(super) fn simulated(context: &Context) -> Outcome {
    let said = program(context)?.run(&format!("{QUICK} --simulated"))?;
    refused(&said, 2, "--simulated")?;
    Ok("--simulated is wrong usage: exit code 2".into())
}

pub(super) fn only_json(context: &Context) -> Outcome {
    let report = json(&program(context)?, &format!("{QUICK} --json"))?;
    let keys = require_some(report.as_object(), "an object")?.len();
    Ok(format!("one object of {keys} keys"))
}

pub(super) fn same_document(context: &Context) -> Outcome {
    let program = program(context)?;
    let printed = json(&program, &format!("{QUICK} --json -o report.json"))?;
    let written: Value = serde_json::from_str(&std::fs::read_to_string(program.directory().join("report.json"))?)?;
    require(printed == written, "equal documents", || "different ones".into())?;
    Ok("equal".into())
}

pub(super) fn throughput(context: &Context) -> Outcome {
    let program = program(context)?;
    let run = |limit: &str| program.run(&format!("top {FILE} --tokens 4 --ci --throughput {limit}"));
    let (above, below) = (run("1e12")?, run("0")?);
    require_eq("exit codes at 10¹² and 0", &(above.code, below.code), &(Some(1), Some(0)))?;
    require(above.stderr.contains("min-tok-s"), "the threshold by name", || above.stderr.clone())?;
    Ok(above.stderr.trim().to_owned())
}

pub(super) fn score_verdict(context: &Context) -> Outcome {
    let program = program(context)?;
    for (score, word, code) in [(101, "FAIL", 1), (0, "PASS", 0)] {
        let said = program.run(&format!("{QUICK} --json --brick-score {score} --fail-on-threshold"))?;
        let report: Value = serde_json::from_str(&said.stdout)?;
        require_eq("verdict", &report["status"].as_str(), &Some(word))?;
        require_eq("exit code", &said.code, &Some(code))?;
    }
    Ok("FAIL and 1 at 101, PASS and 0 at 0".into())
}

pub(super) fn formats(_: &Context) -> Outcome {
    Err(Refusal::not_testable("this version reads GGUF only (docs/formats.md); of it, F-PROFILE-004 is the test"))
}

pub(super) fn no_model_file(context: &Context) -> Outcome {
    let program = program(context)?;
    std::fs::write(program.directory().join("notes.txt"), "a shopping list")?;
    refused(&program.run("top ./notes.txt --headless")?, 1, "notes.txt")?;
    Ok("exit code 1, and the file is named".into())
}

pub(super) fn compare(_: &Context) -> Outcome {
    Err(Refusal::not_testable(
        "one format, so no formats to compare; ratios against other programs, with intervals, are those of `brick bench --vs-cmd`",
    ))
}

pub(super) fn hardware(context: &Context) -> Outcome {
    let program = program(context)?;
    let report = json(&program, &format!("{QUICK} --json"))?;
    let machine = Machine::load_or_measure()?;
    require_eq("processor", &report["hardware"]["cpu"].as_str(), &Some(machine.fingerprint.cpu_model.as_str()))?;
    require_eq("GPU of the CPU backend", &report["hardware"]["gpu"], &Value::Null)?;
    require(!report.to_string().contains("simulated"), "no word of simulation", || report.to_string())?;
    Ok(machine.fingerprint.cpu_model)
}

pub(super) fn real_ends_well(context: &Context) -> Outcome {
    let report = real(context)?;
    Ok(format!("exit code 0, {} forward calls", report["throughput"]["forwards"]))
}

pub(super) fn real_json(context: &Context) -> Outcome {
    let report = real(context)?;
    require_eq("schema", &report["schema"].as_str(), &Some("brick.top/1"))?;
    for key in
        ["model", "hardware", "throughput", "brick_scores", "pmat_scores", "falsification", "bottleneck", "origin"]
    {
        require(!report[key].is_null(), format!("{key} in the report"), || report.to_string())?;
    }
    Ok(format!("model {}", report["model"]))
}

pub(super) fn real_scores(context: &Context) -> Outcome {
    let report = real(context)?;
    let rows = rows(&report)?;
    let missing: Vec<&Value> = rows.iter().filter(|r| !r["score"].is_u64()).map(|r| &r["name"]).collect();
    require(!rows.is_empty() && missing.is_empty(), "a score for every brick", || format!("none for {missing:?}"))?;
    Ok(format!("{} kinds of bricks, each with a score", rows.len()))
}

pub(super) fn real_throughput(context: &Context) -> Outcome {
    let report = real(context)?;
    let tok_s = require_some(report["throughput"]["tokens_per_sec"].as_f64(), "tokens_per_sec")?;
    require(tok_s > 0.0, "more than 0", || tok_s.to_string())?;
    Ok(format!("{tok_s:.1} tok/s"))
}

pub(super) fn no_low_score(context: &Context) -> Outcome {
    let report = real(context)?;
    let lowest = rows(&report)?.iter().min_by_key(|r| r["score"].as_u64());
    let lowest = lowest.map_or_else(String::new, |r| format!("; here, {} scores least: {}", r["name"], r["score"]));
    Err(Refusal::not_testable(format!("needs the target hardware, a GPU of the catalogue, and its backend{lowest}")))
}

pub(super) fn path(context: &Context) -> Outcome {
    let program = program(context)?;
    let absolute = program.directory().join(FILE);
    if absolute.display().to_string().contains(' ') {
        return Err(Refusal::not_testable("the directory for temporary files has a space in its name"));
    }
    for path in [format!("./{FILE}"), absolute.display().to_string()] {
        succeeds(&program, &format!("top {path} --headless --tokens 2"))?;
    }
    Ok("a relative and an absolute path of a GGUF file".into())
}

pub(super) fn baseline(context: &Context) -> Outcome {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let (script, gate) = (root.join(".ci/run"), root.join("gates/smollm2.gate.toml"));
    if !script.is_file() {
        return Err(Refusal::not_testable("needs the source tree that this program was built from"));
    }
    require(gate.is_file(), "gates/smollm2.gate.toml", || "no such file".into())?;
    let runs = std::fs::read_to_string(script)?.lines().any(|l| l.contains("gate check gates/smollm2.gate.toml"));
    require(runs, "`gate check gates/smollm2.gate.toml` in .ci/run", || "no such line".into())?;
    let said = program(context)?.run("gate check missing.gate.toml")?;
    require(said.code == Some(1) && said.stderr.contains("missing.gate.toml"), "a missing baseline refused", || {
        format!("{:?}: {}", said.code, said.stderr)
    })?;
    Ok("a recorded baseline, checked by .ci/run; a missing one is refused".into())
}

pub(super) fn never_simulated(context: &Context) -> Outcome {
    let program = program(context)?;
    for words in [QUICK.to_owned(), format!("{QUICK} --json")] {
        let said = succeeds(&program, &words)?;
        let found =
            said.stdout.to_lowercase().contains("simulated") || said.stderr.to_lowercase().contains("simulated");
        require(!found, "no word of simulation", || said.stdout.clone())?;
    }
    Ok("absent from text, JSON and standard error".into())
}

pub(super) fn says_measured(context: &Context) -> Outcome {
    let said = succeeds(&program(context)?, QUICK)?;
    let lines = said.stdout.lines().filter(|l| l.contains("(MEASURED)")).count();
    require(lines > 0, "MEASURED in the text", || said.stdout.clone())?;
    let bare = said.stdout.lines().find(|l| l.contains("µs") && !l.contains("(MEASURED)") && !l.contains("(derived)"));
    require(bare.is_none(), "an origin behind every time", || bare.unwrap_or_default().to_owned())?;
    Ok(format!("on {lines} lines"))
}
