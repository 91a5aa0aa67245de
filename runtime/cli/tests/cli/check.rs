//! `brick check`: agrees with the reference, or names the brick that does not.

use serde_json::Value;

use crate::shell::Shell;

fn bricks(report: &Value) -> Vec<&str> {
    report["report"]["bricks"].as_array().unwrap().iter().map(|b| b["brick"].as_str().unwrap()).collect()
}

#[test]
fn good_kernels_agree() {
    let shell = Shell::with_models();
    for model in ["qwen2-tiny.gguf", "spm-tiny.gguf"] {
        let output = shell.brick(&format!("check {model}")).succeeds();
        assert!(output.stdout.contains("bricks agree with the scalar reference"), "{output}");
        let report = shell.brick(&format!("check {model} --json --prompt wall")).json();
        assert_eq!(report["ok"], true);
        assert_eq!(report["report"]["first_divergence"], Value::Null);
        for b in report["report"]["bricks"].as_array().unwrap() {
            assert_eq!(b["ok"], true, "{b}");
            assert!(b["relative_error"].as_f64().unwrap() <= b["tolerance"].as_f64().unwrap(), "{b}");
        }
        let all = shell.brick(&format!("check {model} --all")).succeeds().stdout;
        for brick in bricks(&report) {
            assert!(all.contains(brick), "{brick}: {all}");
        }
    }
}

/// Attention is judged on what the cache holds, and the cache on what was to be stored.
#[test]
fn a_cache_of_codes_agrees_within_its_step() {
    let shell = Shell::with_models();
    let report = shell.brick("check qwen2-tiny.gguf --kv-type q8_0 --json").json();
    assert_eq!(report["ok"], true);
    let stored: Vec<&Value> =
        report["report"]["bricks"].as_array().unwrap().iter().filter(|b| b["tolerance"] == 2e-2).collect();
    assert_eq!(stored.len(), 2, "one per layer: {report}");
    // More than f16 would be off: they are codes.
    assert!(stored.iter().all(|b| b["relative_error"].as_f64().unwrap() > 1e-3), "{stored:?}");
}

#[test]
fn every_instruction_set_agrees() {
    let shell = Shell::with_models();
    let scalar = shell.brick("check spm-tiny.gguf --json").env("BRICK_SIMD", "scalar").json();
    assert_eq!(scalar["report"]["simd"], "scalar");
    let native = shell.brick("check spm-tiny.gguf --json").json();
    assert_eq!(bricks(&scalar), bricks(&native));
}

#[test]
fn a_broken_kernel_is_named_whichever_it_is() {
    let shell = Shell::with_models();
    for model in ["qwen2-tiny.gguf", "spm-tiny.gguf"] {
        let good = shell.brick(&format!("check {model} --json")).json();
        for brick in bricks(&good) {
            let output = shell.brick(&format!("check {model} --sabotage {brick}")).run();
            assert_eq!(output.code, Some(3), "{output}");
            assert!(output.stdout.contains(&format!("first divergence: {brick} (")), "{output}");
            output.assert_no_panic();
        }
    }
}

#[test]
fn the_report_of_a_broken_kernel() {
    let shell = Shell::with_models();
    let output = shell.brick("check qwen2-tiny.gguf --json --sabotage blk.1.attn_qkv").run();
    assert_eq!(output.code, Some(3), "{output}");
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["sabotaged"], "blk.1.attn_qkv");
    let first = report["report"]["first_divergence"].as_u64().unwrap() as usize;
    assert_eq!(bricks(&report)[first], "blk.1.attn_qkv");
    // Every brick is judged on its own inputs: the others still pass.
    let bad = report["report"]["bricks"].as_array().unwrap().iter().filter(|b| b["ok"] == false).count();
    assert_eq!(bad, 1, "{output}");
}
