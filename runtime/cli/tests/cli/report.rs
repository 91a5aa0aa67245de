//! `brick report` and `brick score`: on profiles that were recorded, and on files that are none.

use serde_json::Value;

use crate::profile::assert_valid;
use crate::shell::Shell;

/// A shell with a profile of the tiny model in `p.json`.
fn recorded() -> Shell {
    let shell = Shell::with_machine();
    shell.brick("profile qwen2-tiny.gguf --pp 8 --tg 6 --repeat 2 -o p.json").succeeds();
    shell
}

#[test]
fn a_profile_is_looked_at_in_many_ways() {
    let shell = recorded();
    let profile: Value = serde_json::from_str(&shell.read("p.json")).unwrap();
    assert_valid(&profile);
    // What is read back is what was written.
    assert_eq!(shell.brick("report p.json --json").json(), profile);
    assert_eq!(
        shell.brick("report -").stdin(shell.read("p.json")).succeeds().stdout,
        shell.brick("report p.json").succeeds().stdout
    );

    let table = shell.brick("report p.json").succeeds();
    for part in ["prefill", "decode", "QKV", "of limit*", "bottleneck", "threads: busy"] {
        assert!(table.stdout.contains(part), "{part}: {table}");
    }
    let decode = shell.brick("report p.json --phase decode --markdown").succeeds();
    assert!(decode.stdout.contains("### decode") && !decode.stdout.contains("### prefill"), "{decode}");
    let steps = shell.brick("report p.json --steps 1 --phase decode").succeeds();
    let lines = steps.stdout.lines();
    let rows = lines.skip_while(|l| !l.contains("│ kernel")).skip(2).take_while(|l| l.starts_with("│ "));
    assert_eq!(rows.count(), 1, "{steps}");

    let tree = shell.brick("report p.json --format ascii").succeeds().stdout;
    assert!(tree.contains("Layer 1") && tree.contains("blk.1.ffn_down"), "{tree}");
    assert!(shell.brick("report p.json --format dot").succeeds().stdout.starts_with("digraph "));
    assert!(shell.brick("report p.json --format mermaid").succeeds().stdout.starts_with("flowchart "));
    let graph = shell.brick("report p.json --format graph").json();
    let csr = shell.brick("report p.json --format csr").json();
    assert_eq!(csr["offsets"].as_array().unwrap().len(), graph["nodes"].as_array().unwrap().len() + 1);

    let heated = shell.brick("report p.json --format dot --heat roofline").succeeds().stdout;
    assert!(heated.starts_with("digraph ") && heated != shell.brick("report p.json --format dot").succeeds().stdout);
    let html = shell.brick("report p.json --html").succeeds().stdout;
    assert!(html.starts_with("<!doctype html>") || html.starts_with("<!DOCTYPE html>"), "{}", &html[..40]);
    assert!(!html.contains("http://") || !html.contains("src=\"http"), "nothing is fetched");
    let trace = shell.brick("report p.json --format trace").json();
    assert!(trace["traceEvents"].as_array().unwrap().iter().any(|e| e["ph"] == "X" && e["name"] == "blk.1.ffn_down"));
    assert!(shell.brick("report p.json --format flamegraph").succeeds().stdout.contains("<svg"));
    assert!(shell.brick("report p.json --format roofline-svg --phase prefill").succeeds().stdout.contains("<svg"));
    let folded = shell.brick("report p.json --format folded").succeeds().stdout;
    assert!(folded.lines().any(|l| l.contains(";blk.1.ffn_down;")), "{folded}");
    let plot = shell.brick("report p.json --format roofline").env("COLUMNS", "80").succeeds().stdout;
    assert!(plot.starts_with("roofline of decode") && plot.lines().all(|l| l.chars().count() <= 120), "{plot}");

    shell.brick("report p.json --markdown -o comment.md").succeeds();
    assert_eq!(shell.read("comment.md"), shell.brick("report p.json --markdown").succeeds().stdout);
}

#[test]
fn the_slowest_brick_of_a_layer() {
    let shell = recorded();
    let layer = shell.brick("report p.json --phase decode --layer 1").succeeds();
    let names: Vec<&str> =
        layer.stdout.lines().filter_map(|l| l.split_whitespace().find(|w| w.starts_with("blk."))).collect();
    assert!(names.len() >= 5 && names[..names.len() - 1].iter().all(|n| n.starts_with("blk.1.")), "{layer}");
    // Slowest first, by the document's own figures.
    let profile: Value = serde_json::from_str(&shell.read("p.json")).unwrap();
    let decode = profile["phases"].as_array().unwrap().iter().find(|p| p["phase"] == "decode").unwrap();
    let steps = decode["steps"].as_array().unwrap().iter().filter(|s| s["layer"] == 1);
    let slowest = steps.max_by(|a, b| {
        let us = |s: &Value| s["measured"]["total_us"].as_f64().unwrap();
        us(a).total_cmp(&us(b))
    });
    assert_eq!(names[0], slowest.unwrap()["name"], "{layer}");
    shell.brick("report p.json --layer 2").fails(1, &["--layer 2: the profile has layers 0 to 1"]);
}

#[test]
fn threads_and_forward_calls_are_in_the_document() {
    let shell = Shell::with_machine();
    let json = |options: &str| {
        shell.brick(&format!("profile qwen2-tiny.gguf --pp 8 --tg 6 --repeat 2 --json {options}")).json()
    };
    let decode = |p: &Value| p["phases"].as_array().unwrap().iter().find(|p| p["phase"] == "decode").unwrap().clone();
    let profile = json("--threads 2 --timeline 5");
    let phase = decode(&profile);
    let threads = phase["threads"].as_array().unwrap();
    assert_eq!(threads.len(), 2);
    let steps_us = phase["measured"]["steps_us"].as_f64().unwrap();
    for t in threads {
        let all = t["busy_us"].as_f64().unwrap() + t["wait_us"].as_f64().unwrap();
        assert!((all - steps_us).abs() < 0.01 * steps_us, "busy and waiting fill the steps: {all} {steps_us}");
    }
    let timeline = phase["timeline"].as_array().unwrap();
    assert_eq!(timeline.len(), 5);
    for call in timeline {
        assert_eq!(call["steps_us"].as_array().unwrap().len(), phase["steps"].as_array().unwrap().len());
        let sum: f64 = call["steps_us"].as_array().unwrap().iter().filter_map(Value::as_f64).sum();
        assert!(sum <= call["wall_us"].as_f64().unwrap() + 0.01, "{call}");
    }
    let contexts: Vec<u64> = timeline.iter().map(|f| f["context"].as_u64().unwrap()).collect();
    assert_eq!(contexts, [10, 11, 12, 13, 14]);
    assert_eq!(phase["batches"].as_array().unwrap().len(), 1);
    let histogram = phase["kinds"][0]["measured"]["histogram"].as_array().unwrap();
    assert_eq!(histogram.iter().map(|b| b[1].as_u64().unwrap()).sum::<u64>(), 12);
    assert!(
        profile["model"]["sha256"].as_str().unwrap().len() == 64 && profile["build"]["rustc"].is_string(),
        "{profile}"
    );

    let coarse = json("--sync per-layer");
    let phase = decode(&coarse);
    assert_eq!(coarse["recorder"]["sync_mode"], "per_layer");
    assert_eq!(phase["timeline"][0]["steps_us"].as_array().unwrap().len(), phase["layers"].as_array().unwrap().len());
    assert_eq!((phase["steps"].as_array().unwrap().len(), phase["threads"].as_array().unwrap().len()), (0, 0));
    assert_valid(&coarse);
    assert_valid(&json("--sync deferred"));
}

#[test]
fn two_profiles_are_compared() {
    let shell = recorded();
    let mut slow: Value = serde_json::from_str(&shell.read("p.json")).unwrap();
    // The same recording, one brick slower: every pair says so.
    let phases = slow["phases"].as_array_mut().unwrap();
    let decode = phases.iter_mut().find(|p| p["phase"] == "decode").unwrap();
    let column = decode["steps"].as_array().unwrap().iter().position(|s| s["name"] == "blk.1.ffn_down").unwrap();
    for call in decode["timeline"].as_array_mut().unwrap() {
        let us = &mut call["steps_us"][column];
        *us = Value::from((us.as_f64().unwrap() + 0.001) * 2.0);
    }
    decode["steps"][column]["measured"]["mean_us_per_token"] = Value::from(1e6);
    shell.write("slow.json", slow.to_string());
    let diff = shell.brick("report diff p.json slow.json --json").json();
    let phase = diff["phases"].as_array().unwrap().iter().find(|p| p["phase"] == "decode").unwrap();
    let first = &phase["steps"][0];
    assert_eq!(
        (first["name"].as_str(), first["verdict"].as_str()),
        (Some("blk.1.ffn_down"), Some("slower")),
        "{first}"
    );
    let others = phase["steps"].as_array().unwrap()[1..].iter();
    assert!(others.clone().all(|s| s["verdict"] != "slower" && s["verdict"] != "faster"), "{phase}");
    let text = shell.brick("report diff p.json slow.json").succeeds();
    assert!(text.stdout.contains("blk.1.ffn_down") && text.stdout.contains("slower"), "{text}");
    assert!(shell.brick("report diff p.json slow.json --markdown").succeeds().stdout.contains("**slower**"));
    shell.brick("report diff p.json slow.json --threshold 2").fails(1, &["expected a fraction from 0 to 1"]);
}

#[test]
fn scores_and_thresholds() {
    let shell = recorded();
    let score = shell.brick("score p.json --json").json();
    assert_eq!(score["phase"], "decode");
    let points = score["score"].as_u64().unwrap();
    let kinds = score["bricks"].as_array().unwrap();
    let scored: Vec<u64> = kinds.iter().filter_map(|b| b["score"].as_u64()).collect();
    assert_eq!(points, scored.iter().sum::<u64>() / scored.len() as u64);
    assert!(shell.brick("score p.json").succeeds().stdout.contains("grade"));
    assert!(shell.brick("score p.json --phase prefill --markdown").succeeds().stdout.contains("| QKV |"));
    shell.brick(&format!("score p.json --threshold {points}")).succeeds();
    let below = shell.brick("score p.json --threshold 999").run();
    assert_eq!(below.code, Some(1), "{below}");
    assert!(below.stderr.contains(&format!("score {points} is below the threshold of 999")), "{below}");
    shell.brick("profile qwen2-tiny.gguf --pp 8 --tg 6 --repeat 1 --budget-policy off -o none.json").succeeds();
    shell.brick("score none.json").succeeds();
    let none = shell.brick("score none.json --threshold 0").run();
    assert_eq!(none.code, Some(1), "{none}");
    assert!(none.stderr.contains("there is no score"), "{none}");
}

#[test]
fn files_that_are_no_profiles() {
    let shell = recorded();
    let text = shell.read("p.json");
    shell.write("cut.json", &text[..text.len() / 2]);
    shell.write("old.json", text.replace("\"schema_version\": 2", "\"schema_version\": 1"));
    shell.write("foreign.json", "{\"traceEvents\": []}");
    shell.write("binary.json", [0xff, 0xfe, 0x00]);
    shell.write("empty.json", "");
    let cases = [
        ("report missing.json", "cannot read missing.json"),
        ("report cut.json", "cut.json, line"),
        ("report old.json", "expected schema version 2, found 1"),
        ("report foreign.json", "expected schema version 2, found none"),
        ("report binary.json", "found bytes at offset 0 that are not UTF-8"),
        ("report empty.json", "empty.json, line 1, column 0: expected a profile"),
        ("report p.json -o nowhere/x.md", "cannot write nowhere/x.md"),
        ("report p.json --phase mixed", "--phase mixed: the profile has prefill, decode"),
        ("score cut.json", "cut.json, line"),
        ("report diff p.json old.json", "expected schema version 2, found 1"),
    ];
    for (line, expected) in cases {
        shell.brick(line).fails(1, &[expected]);
    }
    shell.brick("report").fails(2, &["<PROFILE>"]);
}

#[test]
fn a_document_of_another_shape_inside_is_no_panic() {
    let shell = recorded();
    let profile: Value = serde_json::from_str(&shell.read("p.json")).unwrap();
    let changes: [fn(&mut Value); 5] = [
        |p| p["phases"] = Value::Array(vec![]),
        |p| p["phases"][1]["timeline"][0]["steps_us"] = Value::Array(vec![]),
        |p| p["phases"][1]["steps"] = Value::Array(vec![]),
        |p| p["machine"] = Value::Null,
        |p| p["phases"][1]["threads"] = Value::Array(vec![]),
    ];
    for change in changes {
        let mut p = profile.clone();
        change(&mut p);
        shell.write("odd.json", p.to_string());
        for line in [
            "report odd.json",
            "report odd.json --markdown --steps",
            "report odd.json --format ascii",
            "report odd.json --format dot",
            "report diff p.json odd.json",
            "report diff odd.json p.json",
            "score odd.json",
        ] {
            let done = shell.brick(line).run();
            assert!(matches!(done.code, Some(0 | 1)), "{done}");
            assert!(!done.stderr.contains("panicked"), "{done}");
        }
    }
}
