//! `brick profile` and `brick machine`.

use serde_json::Value;

use crate::shell::{Shell, repository};

const SMALL: &str = "profile qwen2-tiny.gguf --pp 8 --tg 3 --repeat 2";

fn phase<'a>(profile: &'a Value, name: &str) -> &'a Value {
    profile["phases"].as_array().unwrap().iter().find(|p| p["phase"] == name).unwrap()
}

/// Fails unless `profile` is what docs/schema/profile.schema.json says.
pub(crate) fn assert_valid(profile: &Value) {
    let schema = std::fs::read_to_string(repository().join("docs/schema/profile.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let errors: Vec<String> = schema.iter_errors(profile).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn the_json_document_keeps_to_its_schema() {
    let shell = Shell::with_machine();
    for options in ["", "--budget-policy off", "--budget qwen2.5-1.5b-rtx4090", "--tg 0", "--threads 1"] {
        let words = SMALL.replace("--tg 3", if options.contains("--tg") { "" } else { "--tg 3" });
        assert_valid(&shell.brick(&format!("{words} --json {options}")).json());
    }
}

#[test]
fn calls_and_tokens_add_up() {
    let shell = Shell::with_machine();
    let profile = shell.brick(&format!("{SMALL} --json")).json();
    let (prefill, decode) = (phase(&profile, "prefill"), phase(&profile, "decode"));
    assert_eq!(prefill["measured"]["forwards"], 2);
    assert_eq!(prefill["measured"]["tokens"], 16);
    assert_eq!(decode["measured"]["forwards"], 6);
    assert_eq!(decode["measured"]["tokens"], 6);
    for p in [prefill, decode] {
        let steps = p["steps"].as_array().unwrap();
        let of_steps: f64 = steps.iter().map(|s| s["measured"]["total_us"].as_f64().unwrap()).sum();
        let total = p["measured"]["steps_us"].as_f64().unwrap();
        assert!((of_steps - total).abs() < 1e-3 * total + 0.01 * steps.len() as f64, "{of_steps} {total}");
        assert!(total <= p["measured"]["wall_us"].as_f64().unwrap());
    }
    // One step per brick of the graph, and the sampler.
    let graph = shell.brick("graph qwen2-tiny.gguf --json").json();
    for brick in graph["bricks"].as_array().unwrap() {
        assert!(decode["steps"].as_array().unwrap().iter().any(|s| s["name"] == brick["name"]), "{brick}");
    }
}

#[test]
fn the_table_and_its_variants() {
    let shell = Shell::with_machine();
    let table = shell.brick(SMALL).succeeds();
    for part in ["prefill", "decode", "QKV", "coverage", "bottleneck", "budget", "verdict"] {
        assert!(table.stdout.contains(part), "{part}: {table}");
    }
    // Below the table, the slowest of them is named.
    let rows_of_steps = table.stdout.lines().filter(|line| line.starts_with("│ blk.")).count();
    assert_eq!(rows_of_steps, 0, "steps only when asked for: {table}");
    let steps = shell.brick(&format!("{SMALL} --steps")).succeeds();
    for step in ["│ blk.0.attn_qkv", "│ blk.1.attn_qkv"] {
        assert!(steps.stdout.contains(step), "{steps}");
    }
    let markdown = shell.brick(&format!("{SMALL} --markdown")).succeeds();
    assert!(
        markdown.stdout.contains("|---") || markdown.stdout.contains("| ---") || markdown.stdout.contains("|:--"),
        "{markdown}"
    );
    assert!(!markdown.stdout.contains('┌') && !markdown.stdout.contains('\u{1b}'), "{markdown}");
    let prompted = shell.brick("profile qwen2-tiny.gguf --prompt hello --tg 2 --repeat 1 --json").json();
    let prompt = shell.brick("run qwen2-tiny.gguf hello --json -n 1").json();
    assert_eq!(prompted["run"]["prompt_tokens"], prompt["prompt_ids"].as_array().unwrap().len());
}

#[test]
fn the_execution_graph() {
    let shell = Shell::with_machine();
    let graph = |format: &str| shell.brick(&format!("{SMALL} --graph {format}")).succeeds().stdout;
    let dot = graph("dot");
    assert!(dot.starts_with("digraph ") && dot.trim_end().ends_with('}'), "{dot}");
    assert!(graph("mermaid").starts_with("flowchart "));
    let tree = graph("ascii");
    assert!(tree.contains("qwen2-tiny") && tree.contains("blk.0.attn") && tree.contains("µs"), "{tree}");
    serde_json::from_str::<Value>(&graph("json")).unwrap();
}

#[test]
fn the_document_goes_to_a_file_as_well() {
    let shell = Shell::with_machine();
    shell.write("p.json", "old");
    let table = shell.brick(&format!("{SMALL} -o p.json")).succeeds();
    assert!(table.stdout.contains("coverage"), "{table}");
    assert_valid(&serde_json::from_str(&shell.read("p.json")).unwrap());
}

#[test]
fn budgets_that_cannot_be_met_and_ones_that_can() {
    let shell = Shell::with_machine();
    let budget = |name: &str, us: f64| {
        shell.write(
            name,
            format!("model = \"any\"\nmachine = \"any\"\nnote = \"test\"\n[kinds]\nQKV = {us}\nDown = {us}\n"),
        );
    };
    budget("tight.toml", 1e-6);
    budget("loose.toml", 1e9);
    let run =
        |file: &str, policy: &str| shell.brick(&format!("{SMALL} --budget {file} --budget-policy {policy}")).run();
    let strict = run("tight.toml", "strict");
    assert_eq!(strict.code, Some(3), "{strict}");
    assert_eq!(strict.errors().len(), 1, "{strict}");
    let error = strict.errors()[0];
    assert!(error.contains("attn_qkv (QKV)") || error.contains("ffn_down (Down)"), "the worst is named: {strict}");
    assert!(strict.stdout.contains("coverage"), "the table is shown all the same: {strict}");
    for (file, policy) in [("tight.toml", "report"), ("tight.toml", "off"), ("loose.toml", "strict")] {
        let output = run(file, policy);
        assert_eq!(output.code, Some(0), "{file} {policy}: {output}");
    }
}

#[test]
fn the_machine() {
    let shell = Shell::with_machine();
    let machine = shell.brick("machine --json").json();
    let measured = &machine["measured"];
    for limit in [&measured["int8_gop_s"], &measured["f32_gflop_s"], &measured["read"][0]["gb_s"]] {
        assert!(limit["one"].as_f64().unwrap() > 0.0 && limit["all"].as_f64().unwrap() > 0.0, "{machine}");
    }
    assert_eq!(machine, shell.brick("machine --json").json(), "measured once");
    let text = shell.brick("machine").succeeds();
    assert!(text.stdout.contains("GB/s"), "{text}");
    assert!(text.stderr.contains("--refresh"), "{text}");
    assert!(shell.home().join("machine.json").is_file());
}
