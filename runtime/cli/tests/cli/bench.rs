//! `brick bench` and `brick perplexity` on tiny models.

use serde_json::Value;

use crate::server::Server;
use crate::shell::{Shell, repository};
use crate::tiny;

const SMALL: &str = "bench qwen2-tiny.gguf --pp 8 --tg 3 --repeat 2";

fn tests(report: &Value) -> Vec<(&str, u64)> {
    let rows = report["rows"].as_array().unwrap();
    rows.iter().map(|r| (r["test"].as_str().unwrap(), r["threads"].as_u64().unwrap())).collect()
}

#[test]
fn lists_are_combined() {
    let shell = Shell::with_models();
    let words =
        "bench qwen2-tiny.gguf --pp 8,20 --tg 3 --depth 0,40 --sequences 1,3 --threads 2,1 --repeat 2 --batch 16";
    let report = shell.brick(&format!("{words} --json")).json();
    let one_engine = [
        "pp8",
        "pp20",
        "tg3",
        "pp8 @ 40",
        "pp20 @ 40",
        "tg3 @ 40",
        "pp8 x3",
        "pp20 x3",
        "tg3 x3",
        "pp8 @ 40 x3",
        "pp20 @ 40 x3",
        "tg3 @ 40 x3",
    ];
    let expected: Vec<_> = [2, 1].into_iter().flat_map(|threads| one_engine.map(|test| (test, threads))).collect();
    assert_eq!(tests(&report), expected);
    for row in report["rows"].as_array().unwrap() {
        let samples: Vec<f64> = row["tok_s"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        assert_eq!(samples.len(), 2, "{row}");
        assert!(samples.iter().all(|x| x.is_finite() && *x > 0.0), "{row}");
        let summary = |name: &str| row["summary"][name].as_f64().unwrap();
        assert_eq!(summary("samples"), 2.0);
        let (low, median, high) = (summary("median_ci_low"), summary("p50"), summary("median_ci_high"));
        assert!(low <= median && median <= high && samples.contains(&median), "{row}");
    }
    assert_eq!(report["rows"][11]["tokens"], 3);
    assert_eq!(report["rows"][11]["depth"], 40);
    assert_eq!(report["rows"][11]["sequences"], 3);
    assert_eq!(report["rows"][11]["kind"], "decode");
    assert_eq!((&report["schema"], &report["batch"]), (&"brick.bench/2".into(), &16.into()));
    let threads = report["engines"].as_array().unwrap().iter().map(|e| e["threads"].as_u64().unwrap());
    assert_eq!(threads.collect::<Vec<_>>(), [2, 1]);
    assert!(report["load_ms"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["engines"].as_array().unwrap().iter().all(|e| e["first_forward_ms"].as_f64().unwrap() > 0.0));
}

#[test]
fn zero_leaves_a_kind_out() {
    let shell = Shell::with_models();
    let names = |words: &str| {
        let report = shell.brick(&format!("bench qwen2-tiny.gguf {words} --repeat 1 -t 1 --json")).json();
        tests(&report).iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("--pp 0 --tg 2"), ["tg2"]);
    assert_eq!(names("--pp 4 --tg 0"), ["pp4"]);
    shell.brick("bench qwen2-tiny.gguf --pp 0 --tg 0").fails(1, &["nothing to measure", "--pp or --tg"]);
}

#[test]
fn the_table_and_its_variant() {
    let shell = Shell::with_models();
    let table = shell.brick(SMALL).succeeds();
    let header = table.stdout.lines().nth(2).unwrap();
    let columns: Vec<&str> = header.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
    assert_eq!(
        columns,
        ["test", "threads", "median tok/s", "95 % interval", "CV", "outliers", "n", "of ceiling"],
        "{table}"
    );
    assert!(table.stdout.starts_with("qwen2-tiny, ") && table.stdout.contains("batch 8\n"), "{table}");
    assert!(table.stdout.lines().nth(3).unwrap().starts_with("pp8 "), "{table}");
    assert!(table.stdout.lines().nth(4).unwrap().starts_with("tg3 "), "{table}");
    // The shell's machine has not been measured, which is a remark; that it was not quiet may be another.
    assert!(table.stdout.contains("ceiling: unknown until `brick machine`"), "{table}");
    assert!(!table.stderr.contains('█') && !table.stderr.contains('\r'), "no bar without a terminal: {table}");
    let markdown = shell.brick(&format!("{SMALL} --markdown")).succeeds();
    assert!(markdown.stdout.contains("\n| --- | ---: |") && markdown.stdout.contains("\n| tg3 | "), "{markdown}");
}

#[test]
fn a_context_longer_than_the_models_is_a_remark() {
    let shell = Shell::new();
    shell.write("tiny.gguf", tiny::model());
    let bench = |depth: &str| shell.brick("bench tiny.gguf --pp 8 --tg 2 --repeat 1 --depth").arg(depth).succeeds();
    assert!(bench("100").stderr.contains("a context of 108 is longer than the 96 tokens"));
    assert!(!bench("88").stderr.contains("longer"));
}

#[test]
fn what_bench_refuses() {
    let shell = Shell::with_models();
    shell.brick("bench qwen2-tiny.gguf --depth 4294967295 --sequences 1024 --repeat 1").fails(1, &["engine"]);
    shell.brick("bench qwen2-tiny.gguf").env("BRICK_SIMD", "nonsense").fails(1, &["BRICK_SIMD", "nonsense"]);
    shell.brick("bench nothing.gguf").fails(1, &["nothing.gguf"]);
}

/// Fails unless the report is what docs/schema/bench.schema.json says.
fn assert_valid(report: &Value) {
    let schema = std::fs::read_to_string(repository().join("docs/schema/bench.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let errors: Vec<String> = schema.iter_errors(report).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn the_document_keeps_to_its_schema_and_knows_the_ceiling() {
    let shell = Shell::with_machine();
    let report = shell.brick("bench qwen2-tiny.gguf --pp 8 --tg 3 --repeat 6 --json").json();
    assert_valid(&report);
    for row in report["rows"].as_array().unwrap() {
        let ceiling = row["ceiling_tok_s"].as_f64().unwrap();
        assert!(ceiling > row["summary"]["p50"].as_f64().unwrap(), "a tiny model is far from its ceiling: {row}");
        assert!(row["refused"].is_null() && row["ratio"].is_null(), "{row}");
    }
}

#[test]
fn llama_benchs_options_and_forms() {
    let shell = Shell::with_models();
    let entries = shell.brick("bench qwen2-tiny.gguf -p 8 -n 0 -r 2 -t 1 -o json").json();
    let entry = &entries.as_array().unwrap()[0];
    assert_eq!(
        (entry["n_prompt"].as_u64(), entry["n_gen"].as_u64(), entry["n_threads"].as_u64()),
        (Some(8), Some(0), Some(1))
    );
    assert_eq!(entry["samples_ts"].as_array().unwrap().len(), 2);
    assert!(shell.brick("bench qwen2-tiny.gguf -p 0 -n 2 -r 1 -o md").succeeds().stdout.contains("| tg2 |"));
    assert!(shell.brick("bench qwen2-tiny.gguf -p 4 -n 0 -r 1 -o csv").succeeds().stdout.starts_with("build_commit,"));
}

#[cfg(unix)]
#[test]
fn another_program_is_measured_in_turn() {
    let shell = Shell::with_models();
    // What brick adds to the command line is a comment to the shell.
    let fake = r#"echo '[{"n_prompt":8,"n_gen":0,"avg_ts":2.0},{"n_prompt":0,"n_gen":3,"avg_ts":4.0}]' #"#;
    let words = "bench qwen2-tiny.gguf -p 8 -n 3 -r 6";
    let report = shell.brick(&format!("{words} --json --vs-cmd")).arg(fake).json();
    assert_valid(&report);
    for (row, theirs) in report["rows"].as_array().unwrap().iter().zip([2.0, 4.0]) {
        assert_eq!(row["peer_tok_s"].as_array().unwrap(), &vec![Value::from(theirs); 6]);
        let (ratio, ours) = (row["ratio"]["estimate"].as_f64().unwrap(), row["summary"]["p50"].as_f64().unwrap());
        // Both are medians of six: of ratios the mean of the middle two, of speeds the lower one.
        assert!(ratio >= ours / theirs * 0.999 && row["ratio"]["low"].as_f64().unwrap() <= ratio, "{row}");
    }
    let table = shell.brick(&format!("{words} --vs-cmd")).arg(fake).succeeds();
    assert!(table.stdout.contains("other tok/s") && table.stdout.contains("other: echo"), "{table}");
    // brick itself takes those options.
    let line = format!("{} bench qwen2-tiny.gguf", env!("CARGO_BIN_EXE_brick"));
    let own = shell.brick("bench qwen2-tiny.gguf -p 8 -n 0 -r 5 --json --vs-cmd").arg(&line).json();
    assert_eq!(own["rows"][0]["peer_tok_s"].as_array().unwrap().len(), 5);

    let refused = |cmd: &str, parts: &[&str]| {
        shell.brick(&format!("{words} --vs-cmd")).arg(cmd).fails(1, parts);
    };
    refused("exit 7 #", &["exit 7 # -p 8 -n 0", "exit status: 7"]);
    refused("echo hello #", &["expected llama-bench's JSON", "hello"]);
    refused("echo '[]' #", &["found no entry with n_prompt 8 and n_gen 0"]);
    shell
        .brick("bench qwen2-tiny.gguf -p 8 -n 0 -r 5 --sequences 2 --vs-cmd")
        .arg(fake)
        .fails(1, &["one sequence only"]);
}

#[test]
fn a_server_is_measured_in_turn() {
    let server = Server::start(|request| {
        if request.line.starts_with("GET /v1/models ") {
            return (200, r#"{"data":[{"id":"the-model"}]}"#.to_owned());
        }
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let (n, prompt) = (asked["max_tokens"].as_u64().unwrap(), asked["prompt"].as_array().unwrap().len());
        let events = "data: {\"choices\":[{\"text\":\"x\"}]}\n\n".repeat(n as usize);
        let usage = format!(r#"{{"completion_tokens":{n},"prompt_tokens":{prompt}}}"#);
        (200, format!("{events}data: {{\"choices\":[],\"usage\":{usage}}}\n\ndata: [DONE]\n\n"))
    });
    let shell = Shell::with_models();
    let words = format!("bench qwen2-tiny.gguf -p 8 -n 4 -r 5 --json --vs http://{}/v1", server.address);
    let report = shell.brick(&words).json();
    assert_valid(&report);
    assert_eq!(report["peer"]["kind"], "server");
    for row in report["rows"].as_array().unwrap() {
        assert_eq!(row["peer_tok_s"].as_array().unwrap().len(), 5);
        assert!(row["ratio"]["low"].as_f64().unwrap() > 0.0);
    }
    let posts = server.asked().into_iter().filter(|r| r.line.starts_with("POST /v1/completions "));
    let asked: Vec<Value> = posts.map(|r| serde_json::from_slice(&r.body).unwrap()).collect();
    assert_eq!(asked.len(), 10);
    assert!(asked.iter().all(|a| a["model"] == "the-model" && a["stream"] == true && a["temperature"] == 0));
    assert_eq!((asked[0]["max_tokens"].as_u64(), asked[9]["max_tokens"].as_u64()), (Some(1), Some(5)));
    assert_ne!(asked[0]["prompt"], asked[1]["prompt"], "no cache of prefixes can answer");
    shell.brick("bench qwen2-tiny.gguf -p 8 -n 0 --vs localhost").fails(1, &["expected an address such as http://"]);
    let nobody = "bench qwen2-tiny.gguf -p 8 -n 0 --vs http://127.0.0.1:1";
    shell.brick(nobody).fails(1, &["cannot reach http://127.0.0.1:1/v1/models"]);
}

/// The text of the peers' comparison, cut short.
fn text() -> String {
    std::fs::read_to_string(repository().join("benches/peers/text.txt")).unwrap()[..400].to_owned()
}

#[test]
fn a_perplexity_is_that_of_the_log_probabilities() {
    let shell = Shell::new();
    shell.write("tiny.gguf", tiny::model());
    let text = text();
    shell.write("text.txt", &text);
    let report = shell.brick("perplexity tiny.gguf --file text.txt --ctx 32 --json").json();
    assert_eq!(report["schema"], "brick.perplexity/1");
    // A token per byte.
    let (bytes, chunks) = (text.len(), text.len() / 32);
    assert_eq!(report["text_tokens"], bytes);
    assert_eq!(report["unused_tokens"], bytes - 32 * chunks);
    assert_eq!(report["predicted_tokens"], 15 * chunks);
    assert_eq!(report["chunk_nll"].as_array().unwrap().len(), chunks);

    // The same from what `run` says of a prompt that is one chunk: positions 17 to 31 are predicted.
    for (i, expected) in report["chunk_nll"].as_array().unwrap().iter().enumerate().take(2) {
        let run = shell.brick("run tiny.gguf --json --logprobs 1 --echo --raw -n 1").arg(&text[32 * i..][..32]).json();
        let mean = run["logprobs"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| (17..32).contains(&p["position"].as_u64().unwrap()))
            .map(|p| -p["logprob"].as_f64().unwrap() / 15.0)
            .sum::<f64>();
        let expected = expected.as_f64().unwrap();
        assert!((mean - expected).abs() < 1e-4 * expected, "chunk {i}: {mean} {expected}");
    }
    let mean = report["mean_nll"].as_f64().unwrap();
    let perplexity = report["perplexity"].as_f64().unwrap();
    assert!((mean.exp() - perplexity).abs() < 1e-9 * perplexity);
    let error = report["perplexity_standard_error"].as_f64().unwrap();
    assert!(error > 0.0 && error < perplexity, "{report}");
}

#[test]
fn threads_and_batches_do_not_change_a_bit_of_it() {
    let shell = Shell::new();
    shell.write("tiny.gguf", tiny::model());
    shell.write("text.txt", text());
    let run = |options: &str| {
        shell.brick(&format!("perplexity tiny.gguf -f text.txt --ctx 32 --chunks 3 --json {options}")).json()
    };
    let one = run("-t 1");
    assert_eq!(one["chunk_nll"].as_array().unwrap().len(), 3);
    assert_eq!(one["unused_tokens"], 400 - 96);
    assert_eq!(one, run("-t 2 --batch 7"));
}

#[test]
fn the_text_comes_from_standard_input_as_well() {
    let shell = Shell::new();
    shell.write("tiny.gguf", tiny::model());
    shell.write("text.txt", text());
    let words = "perplexity tiny.gguf --ctx 64 --file";
    let from_file = shell.brick(words).arg("text.txt").succeeds().stdout;
    assert_eq!(from_file, shell.brick(words).arg("-").stdin(text()).succeeds().stdout);
    let lines: Vec<&str> = from_file.lines().collect();
    assert!(lines[0].starts_with("perplexity ") && lines[0].ends_with(" (standard error)"), "{from_file}");
    assert_eq!(lines[1..], ["186 tokens predicted in 6 chunks of 64; 16 of 400 tokens unused"], "{from_file}");
}

#[test]
fn what_perplexity_refuses() {
    let shell = Shell::new();
    shell.write("tiny.gguf", tiny::model());
    shell.write("short.txt", "too short");
    shell.write("latin1.txt", b"caf\xe9");
    shell.brick("perplexity tiny.gguf --file nothing.txt").fails(1, &["cannot read --file nothing.txt"]);
    shell.brick("perplexity tiny.gguf --file .").fails(1, &["cannot read --file ."]);
    shell.brick("perplexity tiny.gguf --file latin1.txt").fails(1, &["latin1.txt is not UTF-8: valid up to byte 3"]);
    shell.brick("perplexity tiny.gguf --file short.txt --ctx 64").fails(1, &["9 tokens", "64", "longer text"]);
    shell.brick("perplexity tiny.gguf --file short.txt --ctx 4294967295").fails(1, &["longer text"]);
    shell.brick("perplexity tiny.gguf --file short.txt --ctx 8").env("BRICK_SIMD", "no").fails(1, &["BRICK_SIMD"]);
}
