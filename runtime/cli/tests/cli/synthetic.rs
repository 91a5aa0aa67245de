//! `--synthetic SHAPE:TYPE`: the commands that take it, what their reports call the model, and what is refused.

use crate::shell::Shell;

const NAME: &str = "synthetic:tiny:q4_k_m";

#[test]
fn a_bench_names_the_model() {
    let shell = Shell::new();
    let bench = "bench --synthetic tiny:q4_k_m --pp 8 --tg 3 --repeat 2 -t 1";
    let report = shell.brick(&format!("{bench} --json")).json();
    assert_eq!(report["model"]["name"], NAME);
    assert_eq!(report["model"]["quantization"], "Q4_K + Q6_K");
    assert_eq!(report["rows"].as_array().unwrap().len(), 2);
    for form in ["", "--markdown", "-o md"] {
        let output = shell.brick(&format!("{bench} {form}")).succeeds();
        assert!(output.stdout.contains(NAME), "{output}");
    }
    // The name that a report gives.
    let again = shell.brick(&format!("bench {NAME} --pp 8 --tg 0 --repeat 2 -t 1 --json")).json();
    assert_eq!(again["model"]["name"], NAME);
}

#[test]
fn a_profile_names_the_model() {
    let shell = Shell::with_machine();
    let output = shell.brick("profile --synthetic TINY:Q4_K_M --pp 8 --tg 2 --repeat 1 -o p.json").succeeds();
    assert!(output.stdout.contains(NAME), "{output}");
    let profile: serde_json::Value = serde_json::from_str(&shell.read("p.json")).unwrap();
    assert_eq!(profile["model"]["name"], NAME);
    assert!(profile["model"]["graph_hash"].is_string() && profile["model"]["sha256"].is_null(), "{}", profile["model"]);
    shell.brick("report p.json --format html -o p.html").succeeds();
    assert!(shell.read("p.html").contains(NAME));
}

#[test]
fn a_graph_makes_no_weights() {
    let shell = Shell::new();
    let output = shell.brick("graph --synthetic qwen2.5-coder-32b:q4_k_m --json").json();
    assert!(output.to_string().contains("blk.63.ffn_down"));
    let passes = shell.brick("graph --synthetic qwen2.5-coder-32b:bf16 --passes").succeeds().stdout;
    assert!(passes.contains("fuse-rope-kv"), "{passes}");
}

#[test]
fn a_gate_records_and_checks_the_model() {
    let shell = Shell::new();
    shell.brick("gate record --synthetic tiny:q4_k_m -o tiny.gate.toml").succeeds();
    let file = shell.read("tiny.gate.toml");
    assert!(file.contains(&format!("model = \"{NAME}\"")), "{file}");
    let check = shell.brick("gate check tiny.gate.toml --json").json();
    assert_eq!((&check["verdict"], &check["model"]), (&"pass".into(), &NAME.into()), "{check}");
    shell.brick("gate record -o tiny.gate.toml").succeeds();
    assert_eq!(shell.read("tiny.gate.toml"), file);
    let other = shell.brick("gate check tiny.gate.toml --synthetic tiny:q8_0 --json").run();
    assert_eq!(other.code, Some(3), "{other}");
    assert!(other.stdout.contains("synthetic:tiny:q8_0"), "{other}");
}

#[test]
fn exactly_one_model_has_to_be_given() {
    let shell = Shell::with_models();
    for command in ["bench", "profile", "graph"] {
        shell.brick(command).fails(2, &["required", "MODEL", "--synthetic <SHAPE:TYPE>"]);
        shell
            .brick(&format!("{command} qwen2-tiny.gguf --synthetic tiny:q4_0"))
            .fails(2, &["cannot be used with", "MODEL", "--synthetic <SHAPE:TYPE>"]);
    }
    let gate = "-o x.gate.toml --synthetic tiny:q4_0";
    shell.brick(&format!("gate record qwen2-tiny.gguf {gate}")).fails(2, &["cannot be used with"]);
    shell.brick("gate record -o x.gate.toml").fails(1, &["MODEL is missing (or --synthetic)"]);
    shell.brick("gate check x.gate.toml qwen2-tiny.gguf --synthetic tiny:q4_0").fails(2, &["cannot be used with"]);
}

#[test]
fn unknown_shapes_and_types() {
    let shell = Shell::new();
    for command in ["bench", "profile", "graph", "gate record -o x.gate.toml"] {
        let with = |name: &str| shell.brick(&format!("{command} --synthetic {name}"));
        with("huge:q4_0").fails(2, &["expected a shape of", "qwen2.5-coder-7b", "smollm2-135m", "found `huge`"]);
        with("tiny:q3_k").fails(2, &["expected a type of", "q4_k_m", "found `q3_k`"]);
        with("tiny").fails(2, &["expected SHAPE:TYPE", "found `tiny`"]);
    }
    shell.brick("bench synthetic:tiny:q9").fails(1, &["expected a type of", "found `q9`"]);
}
