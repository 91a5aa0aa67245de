//! `brick inspect` and `brick graph`: what a file holds and the graph it becomes.

use crate::shell::Shell;
use crate::tiny;

#[test]
fn inspect_counts_what_is_there() {
    let shell = Shell::with_models();
    let file = tiny::model();
    shell.write("tiny.gguf", &file);
    let report = shell.brick("inspect tiny.gguf --json").json();
    assert_eq!(report["schema"], "brick.inspect/1");
    assert_eq!(report["file_bytes"], file.len());
    assert_eq!(report["metadata"]["general.name"], "tiny");
    assert_eq!(report["metadata"]["tokenizer.ggml.tokens"]["elements"], tiny::VOCAB);
    assert_eq!(report["architecture"]["n_layers"], tiny::LAYERS);
    let tensors = report["tensors"].as_array().unwrap();
    assert_eq!(tensors.len() as u64, 9 * tiny::LAYERS + 3);
    let types = report["bytes_by_type"].as_object().unwrap();
    let total = |key: &str| types.values().map(|t| t[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(total("tensors"), tensors.len() as u64);
    assert_eq!(report["parameters"], total("values"));
    assert_eq!(types["Q8_0"]["bytes"].as_u64().unwrap() * 32, types["Q8_0"]["values"].as_u64().unwrap() * 34);

    let full = shell.brick("inspect tiny.gguf --json --full").json();
    assert_eq!(full["metadata"]["tokenizer.ggml.tokens"].as_array().unwrap().len() as u64, tiny::VOCAB);
    let text = shell.brick("inspect tiny.gguf --tensors").succeeds();
    for part in ["general.name = \"tiny\"", "blk.1.ffn_down.weight", "128 × 64", "Q8_0"] {
        assert!(text.stdout.contains(part), "{part}: {text}");
    }
}

#[test]
fn inspect_shows_files_that_cannot_run() {
    let shell = Shell::new();
    let mut w = tiny::writer();
    w.set("general.architecture", "perceptron");
    shell.write("odd.gguf", w.to_bytes().unwrap());
    let output = shell.brick("inspect odd.gguf").succeeds();
    assert!(output.stdout.contains("general.architecture = \"perceptron\""), "{output}");
    assert!(output.stderr.contains("cannot run this file"), "{output}");
    assert_eq!(shell.brick("inspect odd.gguf --json").json()["architecture"], serde_json::Value::Null);
}

const PASSES: [&str; 8] =
    ["validate", "fuse-qkv", "fuse-gate-up", "fuse-gated", "fuse-residual-norm", "fuse-rope-kv", "liveness", "place"];

#[test]
fn a_graph_after_every_pass() {
    let shell = Shell::with_models();
    let report = shell.brick("graph qwen2-tiny.gguf --passes --json").json();
    let passes = report["passes"].as_array().unwrap();
    let names: Vec<_> = passes.iter().map(|p| p["pass"].as_str().unwrap()).collect();
    assert_eq!(names, PASSES);
    let bricks: Vec<_> = passes.iter().map(|p| p["bricks"].as_u64().unwrap()).collect();
    assert!(bricks.is_sorted_by(|a, b| a >= b), "fusions only merge: {bricks:?}");
    assert!(bricks[0] > bricks[5]);
    assert!(passes[7]["arena_bytes"].as_u64().unwrap() > 0);
    let table = shell.brick("graph qwen2-tiny.gguf --passes").succeeds();
    for (pass, n) in PASSES.iter().zip(&bricks) {
        let line = table.stdout.lines().find(|l| l.starts_with(pass)).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some(n.to_string().as_str()), "{table}");
        let graph = shell.brick(&format!("graph qwen2-tiny.gguf --json --after {pass}")).json();
        assert_eq!(graph["bricks"].as_array().unwrap().len() as u64, *n, "{pass}");
        let tree = shell.brick(&format!("graph qwen2-tiny.gguf --after {pass}")).succeeds();
        assert!(tree.stdout.contains(&format!("model  {n} bricks")), "{tree}");
    }
    let built = shell.brick("graph qwen2-tiny.gguf --after validate").succeeds().stdout;
    assert!(built.contains("blk.0.attn_q ") && !built.contains("attn_qkv"), "{built}");
    let fused = shell.brick("graph qwen2-tiny.gguf").succeeds().stdout;
    assert!(!fused.contains("blk.0.attn_q ") && fused.contains("blk.0.attn_qkv"), "{fused}");
}

#[test]
fn a_graph_in_every_format() {
    let shell = Shell::with_models();
    let dot = shell.brick("graph spm-tiny.gguf --format dot").succeeds().stdout;
    assert!(dot.starts_with("digraph ") && dot.trim_end().ends_with('}'), "{dot}");
    let mermaid = shell.brick("graph spm-tiny.gguf --format mermaid").succeeds().stdout;
    assert!(mermaid.starts_with("flowchart "), "{mermaid}");
    let json = shell.brick("graph spm-tiny.gguf --format json").json();
    for brick in json["bricks"].as_array().unwrap() {
        let name = brick["name"].as_str().unwrap();
        assert!(dot.contains(name) && mermaid.contains(name), "{name}");
    }
    assert_eq!(json, shell.brick("graph spm-tiny.gguf --json").json());
}

#[test]
fn costs_follow_tokens_and_context() {
    let shell = Shell::with_models();
    let flops = |options: &str| {
        shell.brick(&format!("graph spm-tiny.gguf --json {options}")).json()["total_cost"]["flops"].as_u64().unwrap()
    };
    assert!(flops("--context 1024") > flops("--context 16"));
    assert!(flops("--tokens 8 --context 64") > flops("--tokens 1 --context 64"));
}
