//! Help texts, version and completions: what a user reads first, so a change of them is looked at.

use crate::shell::Shell;

const COMMANDS: [&str; 22] = [
    "run",
    "chat",
    "profile",
    "top",
    "report",
    "score",
    "bench",
    "perplexity",
    "graph",
    "check",
    "gate",
    "trace",
    "tokenize",
    "inspect",
    "machine",
    "ptx",
    "gpu-check",
    "pull",
    "list",
    "rm",
    "falsify",
    "completions",
];

#[test]
fn every_help_text() {
    let shell = Shell::new();
    // Not a terminal: clap wraps at COLUMNS, if that is set.
    let help = |words: &str| shell.brick(words).env("COLUMNS", "120").succeeds().stdout;
    insta::assert_snapshot!("brick", help("--help"));
    for command in COMMANDS {
        insta::assert_snapshot!(command, help(&format!("{command} --help")));
    }
    for command in ["record", "check"] {
        insta::assert_snapshot!(format!("gate-{command}"), help(&format!("gate {command} --help")));
    }
}

#[test]
fn the_general_help_names_every_command_and_exit_code() {
    let help = Shell::new().brick("--help").succeeds().stdout;
    for word in COMMANDS.iter().chain(&["--log", "--color", "Exit codes", "  130  "]) {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert_eq!(Shell::new().brick("-h").succeeds().stdout.lines().next(), help.lines().next());
}

#[test]
fn no_command_is_a_usage_error_that_shows_the_help() {
    let output = Shell::new().brick("").run();
    assert_eq!(output.code, Some(2), "{output}");
    assert_eq!(output.stdout, "", "{output}");
    assert!(output.stderr.contains("completions"), "{output}");
}

#[test]
fn the_version() {
    let version = Shell::new().brick("--version").succeeds().stdout;
    assert_eq!(version, concat!("brick ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn completions_for_the_shells() {
    let shell = Shell::new();
    for name in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = shell.brick(&format!("completions {name}")).succeeds().stdout;
        for word in COMMANDS.iter().chain(&["temperature", "budget-policy"]) {
            assert!(script.contains(word), "{name}: {word}");
        }
    }
}

#[test]
fn colours_only_when_wanted() {
    let shell = Shell::new();
    let colour = |words: &str| shell.brick(words).run().stderr.contains('\u{1b}');
    assert!(!colour("inspect nothing.gguf"));
    assert!(!colour("inspect nothing.gguf --color never"));
    assert!(colour("inspect nothing.gguf --color always"));
}
