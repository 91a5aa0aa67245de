//! Output that nobody reads, and Ctrl-C.

use std::io::{BufRead, BufReader, Read};

use crate::shell::{Shell, drain, wait};

/// `command | head -1`: ends well and says nothing.
fn first_line_only(shell: &Shell, words: &str) {
    let mut child = shell.brick(words).start();
    let stderr = drain(child.stderr.take().unwrap());
    let mut line = String::new();
    // The reader, and with it the pipe, is closed here.
    BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let status = wait(&mut child, words);
    let stderr = String::from_utf8(stderr.join().unwrap()).unwrap();
    assert_eq!(status.code(), Some(0), "{words}: {stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("error:"), "{words}: {stderr}");
    assert_ne!(line, "", "{words}");
}

#[test]
fn output_into_a_closed_pipe() {
    let shell = Shell::with_machine();
    for words in [
        "inspect qwen2-tiny.gguf --full --json",
        "graph qwen2-tiny.gguf --all-layers --json",
        "graph qwen2-tiny.gguf --format dot",
        "check qwen2-tiny.gguf --json",
        "profile qwen2-tiny.gguf --pp 4 --tg 1 --repeat 1 --json",
        "tokenize qwen2-tiny.gguf --json hello",
        "machine --json",
        "list --known",
        "completions bash",
        "--help",
        "run --help",
    ] {
        first_line_only(&shell, words);
    }
}

#[test]
fn an_answer_that_nobody_reads_any_more() {
    let shell = Shell::with_models();
    let mut child = shell.brick("run spm-tiny.gguf hello --ignore-eos --ctx 60000 --raw").start();
    let stderr = drain(child.stderr.take().unwrap());
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let status = wait(&mut child, "run | head -c 1");
    let stderr = String::from_utf8(stderr.join().unwrap()).unwrap();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains("error:"), "{stderr}");
}

/// Starts a command that would take minutes, interrupts it at the first sign of life, and gives exit code and both outputs.
#[cfg(unix)]
fn interrupt(shell: &Shell, words: &str, signal: &str) -> (Option<i32>, String, String) {
    let mut child = shell.brick(words).start();
    let stderr = drain(child.stderr.take().unwrap());
    let mut pipe = child.stdout.take().unwrap();
    let mut first = [0];
    pipe.read_exact(&mut first).unwrap();
    let kill = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let rest = drain(pipe);
    let status = wait(&mut child, words);
    let stdout = [&first[..], &rest.join().unwrap()].concat();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr.join().unwrap()))
}

#[test]
#[cfg(unix)]
fn ctrl_c_ends_an_answer_and_keeps_what_was_said() {
    let shell = Shell::with_models();
    for signal in ["-INT", "-TERM"] {
        let (code, stdout, stderr) =
            interrupt(&shell, "run spm-tiny.gguf hello --ignore-eos --ctx 60000 --raw", signal);
        assert_eq!(code, Some(130), "{signal}: {stderr}");
        assert!(stdout.ends_with('\n') && !stdout.trim().is_empty(), "{signal}: {stdout:?}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert!(stderr.contains("generated "), "the final line is there: {stderr}");
        // What was said is the beginning of the whole answer.
        let whole = shell.brick("run spm-tiny.gguf hello --ignore-eos -n 8 --raw").succeeds().stdout;
        let n = whole.trim_end().len().min(stdout.trim_end().len());
        assert_eq!(whole.get(..n), stdout.get(..n));
    }
}
