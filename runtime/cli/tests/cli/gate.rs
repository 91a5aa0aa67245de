//! `brick gate`: what passes, what fails and by which name, and that it does not fail on noise.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::shell::{Output, Shell};
use crate::tiny::{self, Shape};

/// Large enough that a step of a prompt takes some tens of microseconds, small enough for a cache of its own.
const SHAPE: Shape = Shape { hidden: 192, layers: 1, ffn: 768, context: 256 };

/// A shell with a model and its facts on record.
fn recorded(shell: Shell) -> Shell {
    shell.write("m.gguf", tiny::writer_of(SHAPE).to_bytes().unwrap());
    shell.brick("gate record m.gguf -o m.gate.toml --reason").arg("first record").succeeds();
    shell
}

fn names(report: &Value, verdict: &str) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap().iter().filter(|c| c["verdict"] == verdict);
    checks.map(|c| c["name"].as_str().unwrap().to_owned()).collect()
}

fn report(output: &Output) -> Value {
    output.assert_no_panic();
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output}"))
}

/// Names of what fails with this fault, in exact facts.
fn failed_with(shell: &Shell, fault: &str) -> Vec<String> {
    let output = shell.brick(&format!("gate check m.gate.toml --json --inject {fault}")).run();
    assert_eq!(output.code, Some(3), "{output}");
    names(&report(&output), "fail")
}

#[test]
fn the_facts_of_a_model_pass_and_are_readable() {
    let shell = recorded(Shell::new());
    let file = shell.read("m.gate.toml");
    assert!(file.lines().count() < 180, "{file}");
    for part in
        ["reason = \"first record\"", "allocations_per_token = 0", "name = \"blk.*.ffn_down\"", "model = \"m.gguf\""]
    {
        assert!(file.contains(part), "{part}: {file}");
    }
    let output = shell.brick("gate check m.gate.toml").succeeds();
    assert!(output.stdout.contains("gate: PASS") && output.stdout.contains("--base"), "{output}");
    let report = shell.brick("gate check m.gate.toml --json").json();
    assert_eq!((&report["schema"], &report["verdict"]), (&"brick.gate/1".into(), &"pass".into()));
    assert_eq!(names(&report, "fail"), [""; 0]);
    // Twice the same, and nothing of the machine's is in it.
    let again = shell.brick("gate record -o m.gate.toml").succeeds();
    assert!(again.stderr.contains("no fact changed"), "{again}");
    assert_eq!(shell.read("m.gate.toml"), file);
}

#[test]
fn another_instruction_set_has_the_same_facts_and_kernels_of_its_own() {
    let shell = recorded(Shell::new());
    let scalar = |words: &str| shell.brick(words).env("BRICK_SIMD", "scalar");
    let native = shell.read("m.gate.toml");
    if native.contains("[kernels.\"scalar\"]") {
        return; // this processor has no other level
    }
    let report = scalar("gate check m.gate.toml --json").json();
    assert_eq!(report["verdict"], "pass");
    assert!(names(&report, "skipped").contains(&"kernels at scalar".to_owned()), "{report}");
    scalar("gate record -o m.gate.toml").succeeds();
    let both = shell.read("m.gate.toml");
    assert!(both.contains("[kernels.\"scalar\"]") && both.lines().count() > native.lines().count(), "{both}");
    for report in [scalar("gate check m.gate.toml --json").json(), shell.brick("gate check m.gate.toml --json").json()]
    {
        assert!(names(&report, "pass").iter().any(|n| n.starts_with("kernels at ")), "{report}");
    }
}

#[test]
fn a_lost_fusion_fails_and_is_named() {
    let shell = recorded(Shell::new());
    let qkv = failed_with(&shell, "without:fuse-qkv");
    for name in [
        "graph.bricks",
        "graph.hash",
        "plan.steps",
        "plan.barriers_per_token",
        "brick blk.*.attn_qkv",
        "brick blk.*.attn_q",
    ] {
        assert!(qkv.iter().any(|n| n == name), "{name}: {qkv:?}");
    }
    for (pass, brick) in [
        ("fuse-gated", "brick blk.*.ffn_gated"),
        ("fuse-residual-norm", "brick blk.*.ffn_norm"),
        ("fuse-rope-kv", "brick blk.*.attn_rope_kv"),
    ] {
        let failed = failed_with(&shell, &format!("without:{pass}"));
        assert!(failed.iter().any(|n| n.starts_with("brick ")), "{pass}, {brick}: {failed:?}");
        assert!(failed.contains(&"graph.bricks".to_owned()), "{pass}: {failed:?}");
    }
}

#[test]
fn an_allocation_fails_exactly() {
    let shell = recorded(Shell::new());
    assert_eq!(failed_with(&shell, "allocation"), ["plan.allocations_per_token"]);
}

#[test]
fn an_extra_step_fails_exactly() {
    let shell = recorded(Shell::new());
    let failed = failed_with(&shell, "extra-step");
    let plan = ["plan.steps", "plan.barriers_per_token", "plan.barriers_per_prompt"];
    assert_eq!(failed[..3], plan, "{failed:?}");
    // The new step, and its kernel.
    assert!(failed[3].contains(".again") && failed[4].starts_with("kernels at ") && failed.len() == 5, "{failed:?}");
}

#[test]
fn another_model_fails() {
    let shell = recorded(Shell::new());
    shell.write("n.gguf", tiny::writer_of(Shape { ffn: 800, ..SHAPE }).to_bytes().unwrap());
    let output = shell.brick("gate check m.gate.toml n.gguf --json").run();
    assert_eq!(output.code, Some(3), "{output}");
    let failed = names(&report(&output), "fail");
    assert!(failed.contains(&"brick blk.*.ffn_down".to_owned()), "{failed:?}");
    assert!(!failed.contains(&"graph.bricks".to_owned()), "{failed:?}");
}

#[test]
fn files_that_are_none_are_errors() {
    let shell = recorded(Shell::new());
    let file = shell.read("m.gate.toml");
    shell.write("half.toml", &file[..file.len() / 2]);
    shell.write("new.toml", file.replacen("schema = 1", "schema = 7", 1));
    shell.write("other.toml", "[package]\nname = \"x\"\n");
    shell.write("binary.toml", tiny::model());
    shell.write("gone.toml", file.replacen("m.gguf", "gone.gguf", 1));
    shell.write("long.toml", file.replacen("context = 256", "context = 100000", 1));
    shell.write("type.toml", file.replacen("\"f16\"", "\"f17\"", 1));
    for (file, parts) in [
        ("none.toml", &["none.toml"][..]),
        ("half.toml", &["half.toml", "expected a gate file"]),
        ("new.toml", &["new.toml", "expected schema 1, found 7", "newer brick"]),
        ("other.toml", &["other.toml", "expected a gate file"]),
        ("binary.toml", &["binary.toml"]),
        ("gone.toml", &["gone.gguf"]),
        ("long.toml", &["long.toml", "conditions.context", "at most 256", "100000"]),
        ("type.toml", &["type.toml", "conditions.kv_type", "f17"]),
    ] {
        shell.brick(&format!("gate check {file}")).fails(1, parts);
    }
    // A file that is somebody else's is not overwritten.
    shell.brick("gate record m.gguf -o other.toml").fails(1, &["other.toml", "expected a gate file"]);
    shell.brick("gate record -o nothing.toml").fails(1, &["MODEL is missing"]);
    shell.brick("gate check m.gate.toml --limit 0.9").fails(1, &["--limit 0.9", "above 1"]);
    let usage = shell.brick("gate check m.gate.toml --inject nonsense").run();
    assert!(usage.code == Some(2) && usage.stderr.contains("work:BRICK"), "{usage}");
    shell.brick("gate check m.gate.toml --inject without:nonsense").fails(1, &["nonsense", "fuse-qkv"]);
    shell.brick("gate check m.gate.toml --inject work:blk.0.attn").fails(1, &["blk.0.attn", "expected a linear brick"]);
}

#[test]
fn reports_go_where_they_are_wanted() {
    let shell = recorded(Shell::new());
    let words = "gate check m.gate.toml --markdown --junit j.xml --history h.jsonl --inject allocation";
    for _ in 0..2 {
        let output = shell.brick(words).run();
        assert_eq!(output.code, Some(3), "{output}");
        assert!(output.stdout.starts_with("### brick gate: FAIL (plan.allocations"), "{output}");
    }
    let junit = shell.read("j.xml");
    assert!(junit.starts_with("<?xml") && junit.contains("failures=\"1\"") && junit.contains("<failure"), "{junit}");
    let history = shell.read("h.jsonl");
    let failed = history.lines().filter(|l| l.contains("\"verdict\":\"fail\"")).count();
    assert_eq!(failed, 2, "appended: {history}");
    for line in history.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
}

#[test]
fn a_base_that_is_no_worker_is_an_error() {
    let shell = recorded(Shell::with_machine());
    shell.brick("gate check m.gate.toml --base nothing-here").fails(1, &["cannot start nothing-here"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let program = |name: &str, text: &str| {
            shell.write(name, format!("#!/bin/sh\n{text}\n"));
            std::fs::set_permissions(shell.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("old", "echo \"error: unrecognized subcommand 'gate-worker'\" >&2; exit 2");
        program("talks", "echo hello");
        program("newer", "echo '{\"protocol\":9,\"version\":\"9\",\"simd\":\"x\",\"steps\":[]}'");
        for (name, parts) in [
            ("old", &["expected a gate worker", "unrecognized subcommand"][..]),
            ("talks", &["expected a gate worker", "hello"]),
            ("newer", &["expected protocol 1", "found 9"]),
        ] {
            shell.brick(&format!("gate check m.gate.toml --base ./{name}")).fails(1, parts);
        }
    }
}

/// Compares this program with itself, the prompt only: a token of so small a model is over too soon.
fn against_itself<'s>(shell: &'s Shell, more: &str) -> crate::shell::Brick<'s> {
    shell.brick(&format!("gate check m.gate.toml --calls prompt --json {more} --base")).arg(env!("CARGO_BIN_EXE_brick"))
}

/// How often the gate is asked again when the machine was too busy for a verdict.
const ATTEMPTS: usize = 8;

/// Who takes the processors on purpose and who measures are kept apart.
static QUIET: Mutex<()> = Mutex::new(());

#[test]
fn a_tenth_more_work_fails_and_names_the_brick() {
    let shell = recorded(Shell::with_machine());
    let _quiet = QUIET.lock();
    for attempt in 1.. {
        let output = against_itself(&shell, "--inject work:blk.0.ffn_down").run();
        let report = report(&output);
        let failed = names(&report, "fail");
        // Facts do not change when a kernel is slow; its time does.
        assert!(failed.iter().all(|n| n.contains("prompt tokens")), "{failed:?}");
        if let Some(first) = failed.first() {
            assert_eq!(output.code, Some(3), "{output}");
            assert!(first.starts_with("blk.0.ffn_down, "), "{failed:?}");
            let others = ["attn_qkv", "attn_output", "ffn_gate"];
            assert!(failed.iter().all(|n| others.iter().all(|o| !n.contains(o))), "{failed:?}");
            return;
        }
        // A machine too busy for a verdict says so; that all is well it must never say.
        let passed = names(&report, "pass");
        assert!(passed.iter().all(|n| !n.starts_with("blk.0.ffn_down, ")), "{output}");
        if attempt == ATTEMPTS {
            println!("INCONCLUSIVE: the machine was too busy {ATTEMPTS} times");
            return;
        }
    }
}

#[test]
fn the_same_program_never_fails_while_others_take_the_processor() {
    let shell = recorded(Shell::with_machine());
    let _quiet = QUIET.lock();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let outputs: Vec<Output> = (0..50).map(|_| against_itself(&shell, "--rounds 18").run()).collect();
        stop.store(true, Ordering::Relaxed);
        for output in outputs {
            assert_eq!(output.code, Some(0), "{output}");
            let report = report(&output);
            assert!(report["checks"].as_array().unwrap().iter().any(|c| c["tier"] == "T2"), "{report}");
        }
    });
}

#[test]
fn instructions_are_counted_where_valgrind_is() {
    let shell = recorded(Shell::new());
    let output = shell.brick("gate check m.gate.toml --instructions").succeeds();
    assert!(output.stdout.contains("not on record"), "{output}");
    shell.brick("gate record -o m.gate.toml --instructions").fails(1, &["valgrind cannot be run"]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|d| d.join("valgrind").is_file()) {
        return; // nothing to count with
    }
    let here = |words: &str| shell.brick(words).env("PATH", &path);
    here("gate record -o m.gate.toml --instructions").succeeds();
    // Of so small a model a tenth of one brick is less than the usual limit.
    let file = shell.read("m.gate.toml").replacen("instructions_percent = 3.0", "instructions_percent = 0.5", 1);
    shell.write("m.gate.toml", &file);
    assert!(file.contains("[instructions]\nper_token = "), "{file}");
    let same = here("gate check m.gate.toml --instructions --json").json();
    assert!(names(&same, "pass").iter().any(|n| n.starts_with("instructions of a token")), "{same}");
    let more = here("gate check m.gate.toml --instructions --json --inject work:blk.0.ffn_down").run();
    assert_eq!(more.code, Some(3), "{more}");
    assert!(names(&report(&more), "fail")[0].starts_with("instructions of a token"), "{more}");
    shell.write("m.gate.toml", file.replacen("build = \"", "build = \"another ", 1));
    let other = here("gate check m.gate.toml --instructions --json --inject work:blk.0.ffn_down").json();
    assert_eq!(other["verdict"], "inconclusive");
    let none = shell.brick("gate check m.gate.toml --instructions --json").json();
    assert!(names(&none, "skipped").iter().any(|n| n.starts_with("instructions")), "{none}");
}

#[test]
fn the_roofline_is_said_and_judged_only_on_a_quiet_machine() {
    let shell = recorded(Shell::with_machine());
    let advisory = shell.brick("gate check m.gate.toml --roofline --rounds 6 --json").json();
    let of = |report: &Value| -> Vec<Value> {
        report["checks"].as_array().unwrap().iter().filter(|c| c["tier"] == "T3").cloned().collect()
    };
    assert!(of(&advisory).len() > 4 && of(&advisory).iter().all(|c| c["verdict"] == "advisory"), "{advisory}");
    // No machine reaches 99.9 % of a roofline with steps this small.
    let file = shell.read("m.gate.toml").replacen("roofline = 0.25", "roofline = 0.999", 1);
    shell.write("m.gate.toml", file);
    let quiet = shell.brick("gate check m.gate.toml --rounds 6 --json").env("PERF_HOST", "quiet").run();
    assert_eq!(quiet.code, Some(3), "{quiet}");
    assert!(names(&report(&quiet), "fail").iter().all(|n| !n.starts_with("all ")), "{quiet}");
}
