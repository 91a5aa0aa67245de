//! Good models, bad requests.

use crate::shell::Shell;
use crate::tiny;

#[test]
fn an_empty_prompt() {
    let shell = Shell::with_models();
    shell.brick("run qwen2-tiny.gguf").arg("").fails(1, &["the prompt is empty"]);
    shell.brick("run qwen2-tiny.gguf").stdin("").fails(1, &["the prompt is empty"]);
    shell.brick("run qwen2-tiny.gguf --json").stdin("\n").fails(1, &["the prompt is empty"]);
    shell.brick("check qwen2-tiny.gguf --prompt").arg("").fails(1, &["the prompt is empty"]);
}

#[test]
fn a_prompt_longer_than_the_context() {
    let shell = Shell::with_models();
    let long = "one two three ".repeat(50);
    shell.brick("run qwen2-tiny.gguf --raw --ctx 16").arg(&long).fails(1, &["the context holds 16", "--ctx"]);
    shell.brick("run qwen2-tiny.gguf --ctx 16").stdin(long).fails(1, &["the context holds 16", "--ctx"]);
    shell.brick("profile qwen2-tiny.gguf --pp 64 --tg 1 --ctx 16").fails(1, &["66 positions are needed", "gives 16"]);
}

#[test]
fn heads_that_a_q8_cache_cannot_hold() {
    let shell = Shell::new();
    shell.write("tiny.gguf", tiny::model());
    let run = shell.brick("run tiny.gguf --raw -n 1 --kv-type q8_0 ab");
    run.fails(1, &["blk.0", "KV cache in q8_0", "multiple of 32", "found 16"]);
    shell.brick("run tiny.gguf --kv-type q4_0 ab").fails(2, &["q4_0", "f16, q8_0"]);
}

#[test]
fn standard_input_that_is_not_utf8() {
    let shell = Shell::with_models();
    shell.brick("run qwen2-tiny.gguf").stdin(b"caf\xe9").fails(1, &["not UTF-8", "0xe9 at offset 3"]);
    shell.brick("tokenize qwen2-tiny.gguf").stdin(b"\xff\xfe").fails(1, &["not UTF-8"]);
    shell.brick("chat qwen2-tiny.gguf").stdin(b"\xff\xfe\n").fails(1, &["UTF-8"]);
}

#[test]
fn sampling_options_out_of_range() {
    let shell = Shell::with_models();
    for (option, name) in [
        ("--temperature=-1", "temperature"),
        ("--temperature=NaN", "temperature"),
        ("--temperature=inf", "temperature"),
        ("--top-p=2", "top-p"),
        ("--top-p=-0.5", "top-p"),
        ("--min-p=1.5", "min-p"),
        ("--repeat-penalty=0", "repeat"),
        ("--repeat-penalty=-1", "repeat"),
    ] {
        let (_, value) = option.split_once('=').unwrap();
        shell.brick("run qwen2-tiny.gguf hi").arg(option).fails(1, &[name, &format!("found {value}")]);
        shell.brick("chat qwen2-tiny.gguf").arg(option).fails(1, &[name]);
    }
}

#[test]
fn options_the_parser_refuses() {
    let shell = Shell::with_models();
    for words in [
        "",
        "bake qwen2-tiny.gguf",
        "run",
        "run qwen2-tiny.gguf hi --threads 0",
        "run qwen2-tiny.gguf hi --threads 100000",
        "run qwen2-tiny.gguf hi --ctx 0",
        "run qwen2-tiny.gguf hi --batch 0",
        "run qwen2-tiny.gguf hi --temperature warm",
        "run qwen2-tiny.gguf hi -n -1",
        "run qwen2-tiny.gguf hi --speculate 0",
        "run qwen2-tiny.gguf hi --speculate 65",
        "run qwen2-tiny.gguf hi --speculate often",
        "chat qwen2-tiny.gguf --speculate -1",
        "run qwen2-tiny.gguf hi --raw --system be-brief",
        "run qwen2-tiny.gguf hi --logprobs 3",
        "run qwen2-tiny.gguf hi --json --echo",
        "run qwen2-tiny.gguf hi --no-such-option",
        "graph qwen2-tiny.gguf --format svg",
        "graph qwen2-tiny.gguf --json --format dot",
        "profile qwen2-tiny.gguf --repeat 0",
        "profile qwen2-tiny.gguf --json --markdown",
        "profile qwen2-tiny.gguf --json --graph dot",
        "bench qwen2-tiny.gguf --repeat 0",
        "bench qwen2-tiny.gguf --pp -1",
        "bench qwen2-tiny.gguf --tg 1,x",
        "bench qwen2-tiny.gguf --threads 1,0",
        "bench qwen2-tiny.gguf --sequences 0",
        "bench qwen2-tiny.gguf --json --markdown",
        "perplexity qwen2-tiny.gguf",
        "perplexity qwen2-tiny.gguf --file text.txt --ctx 3",
        "perplexity qwen2-tiny.gguf --file text.txt --chunks 0",
        "tokenize qwen2-tiny.gguf 1 --decode --ids",
        "completions tcsh",
    ] {
        let output = shell.brick(words).run();
        assert_eq!(output.code, Some(2), "{output}");
        assert_eq!(output.stdout, "", "{output}");
        assert!(output.stderr.contains("--help") || output.stderr.contains("Usage:"), "{output}");
        output.assert_no_panic();
    }
}

#[test]
fn a_bad_log_filter() {
    let shell = Shell::with_models();
    shell.brick("inspect qwen2-tiny.gguf --log a=b=c").fails(1, &["--log", "a=b=c", "expected a level"]);
    shell.brick("inspect qwen2-tiny.gguf").env("BRICK_LOG", "brick=loud").fails(1, &["brick=loud"]);
}

#[test]
fn logs_go_to_standard_error() {
    let shell = Shell::with_models();
    let quiet = shell.brick("run qwen2-tiny.gguf hi -n 4 -q").succeeds();
    let loud = shell.brick("run qwen2-tiny.gguf hi -n 4 -q --log debug").succeeds();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), (loud.stdout.as_str(), ""));
    for part in ["INFO", "qwen2-tiny.gguf", "DEBUG", "threads"] {
        assert!(loud.stderr.contains(part), "{part}: {loud}");
    }
    let from_environment = shell.brick("run qwen2-tiny.gguf hi -n 4 -q").env("BRICK_LOG", "brick=info").succeeds();
    assert!(from_environment.stderr.contains("INFO") && !from_environment.stderr.contains("DEBUG"));
}

#[test]
fn an_instruction_set_that_does_not_exist() {
    let shell = Shell::with_models();
    for command in ["run qwen2-tiny.gguf hi", "check qwen2-tiny.gguf"] {
        shell.brick(command).env("BRICK_SIMD", "nonsense").fails(1, &["BRICK_SIMD", "nonsense", "scalar"]);
    }
}

#[test]
fn a_context_no_memory_can_hold() {
    let shell = Shell::with_models();
    shell.brick("run qwen2-tiny.gguf hi --ctx 4294967295").fails(1, &["engine"]);
}

#[test]
fn names_of_things_inside_a_model() {
    let shell = Shell::with_models();
    shell.brick("check qwen2-tiny.gguf --sabotage blk.99.attn").fails(1, &["blk.99.attn", "brick graph", "blk.0."]);
    shell.brick("graph qwen2-tiny.gguf --after polish").fails(1, &["polish", "fuse-qkv"]);
    shell.brick("tokenize qwen2-tiny.gguf --decode").arg("12 twelve").fails(1, &["twelve", "token ids"]);
    shell.brick("tokenize qwen2-tiny.gguf --decode 290").fails(1, &["found 290", "290"]);
    shell.brick("tokenize qwen2-tiny.gguf --decode 99999999999").fails(1, &["99999999999"]);
}

#[test]
fn budget_files_that_are_wrong() {
    let shell = Shell::with_machine();
    let profile = |file: &str| shell.brick("profile qwen2-tiny.gguf --pp 4 --tg 1 --repeat 1 --budget").arg(file);
    profile("nothing.toml").fails(1, &["nothing.toml", "roofline", "qwen2.5-1.5b-rtx4090"]);
    shell.write("syntax.toml", "name = \"mine\"\n\nthis is not toml\n");
    profile("syntax.toml").fails(1, &["syntax.toml", "line 3"]);
    shell.write("binary.toml", b"\xff\xfe\0");
    profile("binary.toml").fails(1, &["binary.toml"]);
    std::fs::create_dir(shell.path("directory.toml")).unwrap();
    profile("directory.toml").fails(1, &["directory.toml"]);
}

#[test]
fn an_output_file_that_cannot_be_written() {
    let shell = Shell::with_machine();
    let profile = "profile qwen2-tiny.gguf --pp 4 --tg 1 --repeat 1 -o";
    shell.brick(profile).arg("no/such/directory/p.json").fails(1, &["cannot write no/such/directory/p.json"]);
    std::fs::create_dir(shell.path("taken")).unwrap();
    shell.brick(profile).arg("taken").fails(1, &["cannot write taken"]);
}
