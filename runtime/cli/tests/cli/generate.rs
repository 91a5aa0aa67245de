//! `brick run` and `brick chat` on tiny models: their text means nothing, all the rest is as with a large one.

use serde_json::Value;

use crate::shell::{Output, Shell};

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn an_answer_and_a_final_line() {
    let shell = Shell::with_models();
    let output = shell.brick("run spm-tiny.gguf hello -n 8 --ignore-eos").succeeds();
    assert!(output.stdout.ends_with('\n') && output.stdout.len() > 1, "{output}");
    for part in ["prompt ", "generated 8 tokens", "tok/s", "TTFT"] {
        assert!(output.stderr.contains(part), "{output}");
    }
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    let quiet = shell.brick("run spm-tiny.gguf hello -n 8 --ignore-eos -q").succeeds();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), (output.stdout.as_str(), ""), "{quiet}");
}

#[test]
fn the_json_report() {
    let shell = Shell::with_models();
    let report = shell.brick("run qwen2-tiny.gguf --json --raw -n 5 --ignore-eos").arg("the brick").json();
    let expected = [
        "schema",
        "model",
        "prompt",
        "prompt_ids",
        "generated_ids",
        "text",
        "finish",
        "sampling",
        "timings",
        "speculation",
    ];
    assert_eq!(keys(&report), expected);
    assert_eq!(report["schema"], "brick.run/1");
    assert_eq!(report["model"], "qwen2-tiny.gguf");
    assert_eq!(report["prompt"], "the brick");
    assert_eq!(report["finish"]["reason"], "max_tokens");
    assert_eq!(report["sampling"]["temperature"], 0.0);
    assert_eq!(ids(&report["generated_ids"]).len(), 5);
    let prompt = shell.brick("tokenize qwen2-tiny.gguf --bos --json").arg("the brick").json();
    assert_eq!(report["prompt_ids"], prompt["ids"]);
    let timings = &report["timings"];
    assert_eq!(timings["prompt_tokens"].as_u64().unwrap() as usize, ids(&prompt["ids"]).len());
    for key in ["load_ms", "time_to_first_token_ms", "prompt_ms", "decode_ms"] {
        assert!(timings[key].as_f64().unwrap() > 0.0, "{key}: {timings}");
    }
    // The stream of the plain form is the same text.
    let plain = shell.brick("run qwen2-tiny.gguf --raw -n 5 --ignore-eos").arg("the brick").succeeds();
    assert_eq!(plain.stdout.strip_suffix('\n'), report["text"].as_str(), "{plain}");
}

#[test]
fn logprobs_cover_every_position() {
    let shell = Shell::with_models();
    let report = shell
        .brick("run spm-tiny.gguf --json --raw --ignore-eos -n 4 --logprobs 321 --echo")
        .arg("brick by brick")
        .json();
    let all = [ids(&report["prompt_ids"]), ids(&report["generated_ids"])].concat();
    let positions = report["logprobs"].as_array().unwrap();
    // Nothing predicts the first token.
    assert_eq!(positions.len(), all.len() - 1);
    for (i, p) in positions.iter().enumerate() {
        assert_eq!(p["position"], i + 1);
        assert_eq!(p["id"], all[i + 1]);
        let top = p["top"].as_array().unwrap();
        assert_eq!(top.len(), 321, "the whole vocabulary");
        let logprobs: Vec<f64> = top.iter().map(|t| t["logprob"].as_f64().unwrap()).collect();
        assert!(logprobs.is_sorted_by(|a, b| a >= b), "most likely first");
        let sum: f64 = logprobs.iter().map(|l| l.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-4, "position {i}: probabilities sum to {sum}");
        let own = top.iter().find(|t| t["id"] == p["id"]).unwrap();
        assert_eq!(own["logprob"], p["logprob"]);
        if i + 1 >= ids(&report["prompt_ids"]).len() {
            assert_eq!(top[0]["logprob"], p["logprob"], "greedy takes the most likely");
        }
    }
    let without = shell.brick("run spm-tiny.gguf --json --raw --ignore-eos -n 4 --logprobs 2 brick").json();
    assert_eq!(without["logprobs"].as_array().unwrap().len(), 4, "without --echo: what was generated");
    assert_eq!(without["logprobs"][0]["top"].as_array().unwrap().len(), 2);
}

#[test]
fn the_same_seed_gives_the_same_text() {
    let shell = Shell::with_models();
    let run = |options: &str| {
        shell
            .brick("run qwen2-tiny.gguf hello --json --ignore-eos -n 40 --temperature 1 --top-k 0 --top-p 1 --min-p 0")
            .arg(options)
            .json()
    };
    let (a, b, c) = (run("--seed=7"), run("--seed=7"), run("--seed=8"));
    assert_eq!(a["generated_ids"], b["generated_ids"]);
    assert_eq!(a["text"], b["text"]);
    assert_ne!(a["generated_ids"], c["generated_ids"]);
    assert_eq!(a["sampling"]["seed"], 7);
    // A random seed is shown, and gives the same text again.
    let first = shell.brick("run qwen2-tiny.gguf hello --temperature 1 --ignore-eos -n 20").succeeds();
    let (_, seed) = first.stderr.trim().rsplit_once("seed ").unwrap();
    let again = shell.brick("run qwen2-tiny.gguf hello --temperature 1 --ignore-eos -n 20 --seed").arg(seed).succeeds();
    assert_eq!(first.stdout, again.stdout, "{again}");
}

#[test]
fn threads_and_batches_do_not_change_a_bit() {
    let shell = Shell::with_models();
    for model in ["qwen2-tiny.gguf", "spm-tiny.gguf"] {
        let run = |options: &str| {
            let mut report = shell
                .brick(&format!("run {model} --json --raw --ignore-eos -n 12 --logprobs 3 --echo {options}"))
                .arg("brick by brick by brick")
                .json();
            report.as_object_mut().unwrap().retain(|key, _| ["generated_ids", "logprobs"].contains(&key.as_str()));
            report
        };
        let one = run("--threads 1");
        assert_eq!(one, run("--threads 2"), "{model}");
        assert_eq!(one, run("--threads 3"), "{model}");
        assert_eq!(one["generated_ids"], run("--batch 4")["generated_ids"], "{model}");
    }
}

#[test]
fn speculation_changes_no_bit_and_says_what_it_did() {
    let shell = Shell::with_models();
    for model in ["qwen2-tiny.gguf", "spm-tiny.gguf"] {
        for sampling in ["--temperature 0", "--temperature 0.7 --seed 5 --repeat-penalty 1.1"] {
            let run = |speculate: &str| {
                shell
                    .brick(&format!("run {model} --json --raw --ignore-eos -n 40 --logprobs 3 --echo {sampling}"))
                    .arg("--speculate")
                    .arg(speculate)
                    .arg("brick by brick by brick by brick by brick")
                    .json()
            };
            let off = run("off");
            assert_eq!(off["speculation"]["drafted"], 0);
            assert_eq!(off["speculation"]["forwards"], 39);
            for mode in ["auto", "1", "7", "64"] {
                let on = run(mode);
                for key in ["prompt_ids", "generated_ids", "text", "finish", "logprobs"] {
                    assert_eq!(on[key], off[key], "{model} {sampling} {mode}: {key}");
                }
                let s = &on["speculation"];
                let count = |key: &str| s[key].as_u64().unwrap();
                assert!(count("accepted") <= count("drafted"), "{s}");
                assert_eq!(count("forwards") == 39, count("accepted") == 0, "{s}");
                assert_eq!(s["acceptance_rate"].is_null(), count("drafted") == 0, "{s}");
                if mode == "7" {
                    assert_eq!(s["mode"], 7);
                    assert!(count("drafted") > 0, "the prompt repeats itself: {s}");
                }
            }
        }
    }
    let line = |speculate| {
        let command = format!("run qwen2-tiny.gguf --raw --ignore-eos -n 40 --speculate {speculate}");
        shell.brick(&command).arg("brick by brick by brick").succeeds().stderr
    };
    let shown = line("4");
    assert!(shown.contains("| drafted ") && shown.contains("tokens per forward"), "{shown}");
    assert!(!line("off").contains("drafted"));
}

#[test]
fn stop_strings_end_the_answer_and_are_not_shown() {
    let shell = Shell::with_models();
    let run = "run spm-tiny.gguf hello --json --ignore-eos --temperature 1 --seed 3 -n 40";
    let whole = shell.brick(run).json()["text"].as_str().unwrap().to_owned();
    // Some text from the middle, wherever it appears first.
    let chars: Vec<char> = whole.chars().filter(|c| *c != char::REPLACEMENT_CHARACTER).collect();
    let letter = chars.iter().find(|c| c.is_ascii_alphabetic()).unwrap().to_string();
    let report = shell.brick(run).arg("--stop").arg("never said").arg("--stop").arg(&letter).json();
    let (before, _) = whole.split_once(&letter).unwrap();
    assert_eq!(report["text"], before);
    assert_eq!(report["finish"], serde_json::json!({"reason": "stop", "detail": letter}));
}

#[test]
fn as_many_tokens_as_asked_for() {
    let shell = Shell::with_models();
    for n in [0, 1, 2, 17] {
        let report = shell.brick("run spm-tiny.gguf hi --json --ignore-eos -n").arg(n.to_string()).json();
        assert_eq!(ids(&report["generated_ids"]).len(), n);
        assert_eq!(report["finish"]["reason"], "max_tokens");
    }
}

#[test]
fn a_prompt_goes_through_the_template_unless_raw() {
    let shell = Shell::with_models();
    let ids_of = |options: &str| {
        ids(&shell.brick(&format!("run qwen2-tiny.gguf hello --json -n 1 {options}")).json()["prompt_ids"])
    };
    let decode = |ids: &[u64]| {
        let words: Vec<String> = ids.iter().map(u64::to_string).collect();
        shell.brick("tokenize qwen2-tiny.gguf --decode --json").arg(words.join(" ")).json()["text"].clone()
    };
    assert_eq!(decode(&ids_of("--raw")), "hello");
    let templated = decode(&ids_of(""));
    let templated = templated.as_str().unwrap();
    assert!(templated.contains("user\nhello") && templated.ends_with("assistant\n"), "{templated:?}");
    let with_system = decode(&ids_of("--system brief"));
    assert!(with_system.as_str().unwrap().contains("system\nbrief"), "{with_system:?}");
}

#[test]
fn a_prompt_on_standard_input() {
    let shell = Shell::with_models();
    let argument = shell.brick("run qwen2-tiny.gguf --raw -n 6").arg("a brick\nwall").succeeds();
    for piped in ["a brick\nwall", "a brick\nwall\n", "a brick\nwall\r\n"] {
        let output = shell.brick("run qwen2-tiny.gguf --raw -n 6").stdin(piped).succeeds();
        assert_eq!(output.stdout, argument.stdout, "{piped:?}");
    }
}

#[test]
fn a_full_context_keeps_the_text_so_far() {
    let shell = Shell::with_models();
    let cut: Output = shell.brick("run spm-tiny.gguf hello --raw --ignore-eos --ctx 24").run();
    assert_eq!(cut.code, Some(4), "{cut}");
    assert!(cut.errors()[0].contains("the context is full (24 tokens)"), "{cut}");
    assert!(cut.errors()[0].contains("--ctx"), "{cut}");
    let whole = shell.brick("run spm-tiny.gguf hello --raw --ignore-eos -n 60 -q").succeeds();
    let text = cut.stdout.trim_end_matches(['\n', char::REPLACEMENT_CHARACTER]);
    assert!(!text.is_empty() && whole.stdout.starts_with(text), "{cut}\n{whole}");
    let report = shell.brick("run spm-tiny.gguf hello --raw --ignore-eos --ctx 24 --json").run();
    assert_eq!(report.code, Some(4), "{report}");
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(report["finish"], serde_json::json!({"reason": "context_full", "detail": {"context": 24}}));
}

#[test]
fn a_context_longer_than_the_training_is_noted() {
    let shell = Shell::with_models();
    let output = shell.brick("run spm-tiny.gguf hello -n 2 --ctx 500").succeeds();
    assert!(output.stderr.contains("--ctx 500 is longer than the 128 tokens"), "{output}");
}

#[test]
fn a_chat_from_a_pipe() {
    let shell = Shell::with_models();
    let chat = |lines: &str| shell.brick("chat qwen2-tiny.gguf --ctx 120 -n 3").stdin(lines).succeeds();
    let once = chat("hello\n");
    assert_eq!(
        once.stdout.matches('\n').count() - once.stdout.trim_end_matches('\n').matches('\n').count(),
        1,
        "{once}"
    );
    // The conversation is forgotten: the same question gets the same answer.
    let twice = chat("hello\n/reset\nhello\n/exit\nnever read\n");
    assert_eq!(twice.stdout, once.stdout.repeat(2), "{twice}");
    assert!(twice.stderr.contains("the conversation is forgotten"), "{twice}");
    // The first turn of a chat is what `run` answers.
    assert_eq!(shell.brick("run qwen2-tiny.gguf hello --ctx 120 -n 3").succeeds().stdout, once.stdout);
    // Nothing said, nothing answered.
    assert_eq!(chat("").stdout, "");
    assert_eq!(chat("\n  \n/exit\n").stdout, "");
}

#[test]
fn chat_commands() {
    let shell = Shell::with_models();
    let output = shell
        .brick("chat qwen2-tiny.gguf -n 2")
        .stdin("/help\n/stats\n/dance\nhi\n/stats\n/system be brief\n")
        .succeeds();
    for part in ["/reset", "no answer yet", "unknown command /dance", "generated 2 tokens", "system message set"] {
        assert!(output.stderr.contains(part), "{part}: {output}");
    }
    let with_system = shell.brick("chat qwen2-tiny.gguf -n 8 --system brief").stdin("hi\n").succeeds();
    let set_later = shell.brick("chat qwen2-tiny.gguf -n 8").stdin("/system brief\nhi\n").succeeds();
    assert_eq!(with_system.stdout, set_later.stdout);
}

#[test]
fn a_chat_that_outgrows_its_context_goes_on() {
    let shell = Shell::with_models();
    let long = "one two three ".repeat(40);
    let output = shell.brick("chat qwen2-tiny.gguf --ctx 64 -n 3").stdin(format!("{long}\nhi\n")).succeeds();
    assert_eq!(output.errors().len(), 1, "{output}");
    assert!(output.errors()[0].contains("/reset"), "{output}");
    assert_ne!(output.stdout, "", "the second line is answered: {output}");
}
