//! `brick ptx`: kernels for GPUs, on a machine without one.

use serde_json::Value;

use crate::shell::Shell;

#[test]
fn kernels_are_listed_and_printed() {
    let shell = Shell::new();
    let list = shell.brick("ptx list").succeeds().stdout;
    assert!(list.lines().any(|l| l.starts_with("gemv_q4_k_b1 ") && l.contains("sm_80")), "{list}");
    assert_eq!(shell.brick("ptx").succeeds().stdout, list);
    let listed: Value = serde_json::from_str(&shell.brick("ptx --json").succeeds().stdout).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(list.lines().count()));

    let text = shell.brick("ptx gemv_q4_k_b1").succeeds().stdout;
    assert!(text.contains(".version 8.0\n.target sm_80\n"), "{text}");
    assert!(text.contains(".visible .entry gemv_q4_k_b1("), "{text}");
    let newer = shell.brick("ptx gemv_q4_k_b1 --target sm_100").succeeds().stdout;
    assert!(newer.contains(".target sm_90\n"), "the newest text that sm_100 runs");
}

#[test]
fn a_kernel_is_explained_without_an_assembler() {
    let explain = |more: &str| {
        let words = format!("ptx gemv_q4_k_b1 --explain{more}");
        Shell::new().brick(&words).env("PTXAS", "/nowhere/ptxas").succeeds().stdout
    };
    let text = explain("");
    assert!(
        text.contains("0 bank conflicts") && text.contains("unavailable: ") && text.contains("H200 (derived)"),
        "{text}"
    );
    let json: Value = serde_json::from_str(&explain(" --json")).expect("JSON");
    assert!(json["hardware"]["unavailable"]["reason"].as_str().is_some_and(|r| r.contains("ptxas")), "{json}");
    let counted = &json["counted"];
    assert_eq!(counted["bank_conflicts"], 0);
    assert!(counted["warp_instructions"].as_u64().is_some_and(|n| n > 0));
    assert!(counted["global_load_sectors"].as_u64() >= counted["global_load_sectors_at_best"].as_u64());
    let share = json["ceilings"][0]["bandwidth_fraction"].as_f64().expect("a share");
    assert!(share > 0.0 && share <= 1.0, "{share}");
}

#[test]
fn what_is_not_there_is_said() {
    let shell = Shell::new();
    let error = shell.brick("ptx gemv_q9").fails(1, &["no kernel `gemv_q9`"]).stderr;
    assert!(error.contains("brick ptx list"), "{error}");
    shell.brick("ptx q4_k").fails(1, &["no kernel `q4_k`", "gemv_q4_k_b1"]);
    shell.brick("ptx gemv_q4_k_b1 --target sm_70").fails(2, &["expected one of sm_80"]);
    shell.brick("ptx list --explain").fails(1, &["for one kernel"]);
}
