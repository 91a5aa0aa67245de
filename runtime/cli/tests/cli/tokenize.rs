//! `brick tokenize`.

use serde_json::json;

use crate::shell::Shell;

const TEXTS: [&str; 7] = [
    "hello",
    "The red brick wall, 12 rows. été 🧱",
    "  two spaces,\n\na new line\t9",
    "日本語 العربية",
    "\0\u{7f}\u{1b}[31mred\u{1b}[0m",
    " ",
    "a\r\nb",
];

#[test]
fn text_to_ids_and_back() {
    let shell = Shell::with_models();
    for model in ["qwen2-tiny.gguf", "spm-tiny.gguf"] {
        for text in TEXTS {
            let ids = shell.brick(&format!("tokenize {model} --ids")).stdin(text).succeeds().stdout;
            let back = shell.brick(&format!("tokenize {model} --decode --json")).stdin(ids.as_str()).json();
            assert_eq!(back["text"], text, "{model}: {ids}");
            let plain = shell.brick(&format!("tokenize {model} --decode")).stdin(ids).succeeds().stdout;
            assert_eq!(plain.strip_suffix('\n').unwrap(), text.strip_suffix('\n').unwrap_or(text), "{model}: as it is");
            // The array of the JSON form is taken as it is.
            let json = shell.brick(&format!("tokenize {model} --json")).stdin(text).json();
            let back = shell.brick(&format!("tokenize {model} --decode --json")).arg(json["ids"].to_string()).json();
            assert_eq!(back["text"], text, "{model}");
        }
    }
}

#[test]
fn the_json_report() {
    let shell = Shell::with_models();
    let report = shell.brick("tokenize qwen2-tiny.gguf --json he").json();
    let expected = json!({
        "schema": "brick.tokenize/1",
        "text": "he",
        "add_special": false,
        "parse_special": true,
        "ids": [256],
        "tokens": [{"id": 256, "piece": "he", "bytes": [104, 101], "kind": "normal"}],
    });
    assert_eq!(report, expected);
}

#[test]
fn special_tokens_only_where_wanted() {
    let shell = Shell::with_models();
    let ids = |options: &str| {
        shell.brick("tokenize qwen2-tiny.gguf --json").arg("<|im_start|>").arg(options).json()["ids"].clone()
    };
    let parsed = shell.brick("tokenize qwen2-tiny.gguf --json").arg("<|im_start|>").json();
    assert_eq!(parsed["ids"], json!([288]));
    assert_eq!(parsed["tokens"][0]["kind"], "control");
    let ordinary = ids("--no-special");
    assert!(ordinary.as_array().unwrap().len() > 1);
    assert!(!ordinary.as_array().unwrap().contains(&json!(288)));
    // `--bos` adds what the model wants around a text.
    assert_eq!(shell.brick("tokenize spm-tiny.gguf --bos --ids hi").succeeds().stdout.split(' ').next(), Some("1"));
    assert_ne!(shell.brick("tokenize spm-tiny.gguf --ids hi").succeeds().stdout.split(' ').next(), Some("1"));
}

#[test]
fn the_table_for_people() {
    let shell = Shell::with_models();
    let output = shell.brick("tokenize qwen2-tiny.gguf hello").succeeds();
    assert_eq!(output.stdout, "    256  \"he\"\n    108  \"l\"\n    108  \"l\"\n    111  \"o\"\n");
    assert_eq!(output.stderr, "4 tokens\n");
}

#[test]
fn text_that_looks_like_an_option() {
    let shell = Shell::with_models();
    let report = shell.brick("tokenize qwen2-tiny.gguf --json").arg("-x").json();
    assert_eq!(report["text"], "-x");
}
