//! `brick trace`: what values a forward call computed.

use brick_profiler::trace::ModelTracer;
use serde_json::Value;

use crate::shell::{Shell, repository};
use crate::tiny;

/// Fails unless `trace` is what docs/schema/trace.schema.json says.
pub(crate) fn assert_valid(trace: &Value) {
    let schema = std::fs::read_to_string(repository().join("docs/schema/trace.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let errors: Vec<String> = schema.iter_errors(trace).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

/// How many traces of each kind there are.
fn counts(trace: &Value) -> Vec<(String, usize)> {
    let traces = trace["traces"].as_object().unwrap();
    traces.iter().map(|(k, v)| (k.clone(), v.as_array().unwrap().len())).filter(|(_, n)| *n > 0).collect()
}

#[test]
fn the_json_document_keeps_to_its_schema_and_can_be_read_again() {
    let shell = Shell::with_models();
    for options in ["", "--trace logit,kv --tokens 2", "--layers 1 --heads 0-1 --top-k 2", "--batch 2 --threads 1"] {
        let output = shell.brick(&format!("trace qwen2-tiny.gguf --json {options}")).succeeds();
        assert_valid(&serde_json::from_str(&output.stdout).unwrap());
        let tracer = ModelTracer::import_json("stdout", &output.stdout).unwrap();
        assert_eq!(tracer.export_json().unwrap(), output.stdout.trim_end());
    }
}

#[test]
fn the_tokens_are_those_of_an_untraced_run() {
    let shell = Shell::with_models();
    for model in ["qwen2-tiny.gguf", "spm-tiny.gguf"] {
        let run = shell.brick(&format!("run {model} --raw --json -n 6")).arg("The wall is").json();
        let trace = shell.brick(&format!("trace {model} --json --tokens 6 --prompt")).arg("The wall is").json();
        let ids: Vec<&Value> = trace["run"]["tokens"].as_array().unwrap().iter().map(|t| &t["id"]).collect();
        let expected: Vec<&Value> =
            ["prompt_ids", "generated_ids"].iter().flat_map(|k| run[k].as_array().unwrap()).collect();
        assert_eq!(ids, expected, "{model}");
    }
}

#[test]
fn only_what_is_asked_for() {
    let shell = Shell::with_models();
    let kinds = |list: &str| {
        let trace = shell.brick(&format!("trace qwen2-tiny.gguf --json --tokens 1 --trace {list}")).json();
        counts(&trace).into_iter().map(|(k, _)| k).collect::<Vec<_>>()
    };
    for kind in ["activation", "attention", "logit", "quant", "kv"] {
        assert_eq!(kinds(kind), [kind]);
    }
    assert_eq!(kinds("kv,activation"), ["activation", "kv"]);
    assert_eq!(kinds("all").len(), 5);
}

#[test]
fn the_tables() {
    let shell = Shell::with_models();
    let text = shell.brick("trace qwen2-tiny.gguf --tokens 3").succeeds().stdout;
    for part in
        ["model ", "activations", "attention", "logit lens", "KV cache", "never evicted", "quantisation against"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("error that brick's arithmetic adds"), "it says which error it is: {text}");
    assert!(!text.contains("heads at position") && !text.contains("  pattern  "), "{text}");
    let chosen = shell.brick("trace qwen2-tiny.gguf --trace attention --heads 1 --explain").succeeds().stdout;
    assert!(chosen.contains("heads at position") && chosen.contains("Repetition\n  pattern"), "{chosen}");
    assert!(!chosen.contains("logit lens (") && !chosen.contains('\u{1b}'), "{chosen}");
}

#[test]
fn the_document_goes_to_a_file_as_well() {
    let shell = Shell::with_models();
    shell.write("t.json", "old");
    let output = shell.brick("trace qwen2-tiny.gguf --tokens 1 --trace kv -o t.json").succeeds();
    assert!(output.stdout.contains("KV cache"), "{output}");
    assert_valid(&serde_json::from_str(&shell.read("t.json")).unwrap());
    shell.brick("trace qwen2-tiny.gguf --tokens 1 --trace kv -o no/t.json").fails(1, &["cannot write no/t.json"]);
}

#[test]
fn weights_against_another_file() {
    let shell = Shell::with_models();
    let same = shell.brick("trace qwen2-tiny.gguf --tokens 1 --trace quant --against qwen2-tiny.gguf").succeeds();
    assert!(same.stdout.contains("error of the stored weights") && same.stdout.contains("exact"), "{same}");
    shell.write("tiny.gguf", tiny::model());
    shell
        .brick("trace tiny.gguf --against qwen2-tiny.gguf --prompt ab")
        .fails(1, &["qwen2-tiny.gguf: tensor ", "expected [", "no file of the same model"]);
    shell.brick("trace tiny.gguf --trace kv --against tiny.gguf").fails(1, &["--against", "expected quant"]);
}

#[test]
fn a_poisoned_weight_is_an_error_where_it_is() {
    let shell = Shell::new();
    shell.write("good.gguf", tiny::model());
    let healthy = shell.brick("trace good.gguf --prompt abcd --json --fail-on-anomaly").json();
    let worst = healthy["anomalies"].as_array().unwrap().iter().filter(|a| a["severity"] != "note").count();
    assert_eq!(worst, 0, "{}", healthy["anomalies"]);

    let mut w = tiny::writer();
    let mut values = vec![0.01f32; (tiny::FFN * tiny::HIDDEN) as usize];
    values[7] = f32::NAN;
    w.remove_tensor("blk.1.ffn_down.weight");
    w.tensor_f32("blk.1.ffn_down.weight", &[tiny::FFN, tiny::HIDDEN], &values);
    shell.write("bad.gguf", w.to_bytes().unwrap());
    let output = shell.brick("trace bad.gguf --prompt abcd --fail-on-anomaly").run();
    assert_eq!(output.code, Some(3), "{output}");
    assert_eq!(output.errors().len(), 1, "{output}");
    assert!(output.errors()[0].contains("not a number: layer 1, FFN output, step 0"), "{output}");
    assert!(output.stdout.contains("is not a number)"), "the run ended there: {output}");
    let json = shell.brick("trace bad.gguf --prompt abcd --json").json();
    assert_valid(&json);
    let first = &json["anomalies"][0];
    assert_eq!((&first["rule"], &first["severity"], &first["layer_idx"]), (&"nan".into(), &"error".into(), &1.into()));
}

#[test]
fn bad_requests() {
    let shell = Shell::with_models();
    shell.brick("trace qwen2-tiny.gguf --layers 7").fails(1, &["there is no layer 7", "expected 0 to 1"]);
    shell.brick("trace qwen2-tiny.gguf --heads 64").fails(1, &["there is no head 64"]);
    shell.brick("trace qwen2-tiny.gguf --layers 3-1").fails(2, &["--layers", "3-1"]);
    shell.brick("trace qwen2-tiny.gguf --trace nothing").fails(2, &["nothing", "activation"]);
    shell.brick("trace qwen2-tiny.gguf --tokens 0").fails(2, &["--tokens"]);
    shell.brick("trace qwen2-tiny.gguf --prompt").arg("").fails(1, &["the prompt is empty"]);
    shell.brick("trace qwen2-tiny.gguf --ctx 2 --prompt").arg("one two three four").fails(1, &["the context holds 2"]);
    shell.brick("trace nothing.gguf").fails(1, &["nothing.gguf"]);
}
