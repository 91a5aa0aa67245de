//! `brick top`: reports without a terminal, runs that are watched, peers that are none.

use serde_json::Value;

use crate::shell::{Shell, repository};

const SMALL: &str = "top qwen2-tiny.gguf --headless --pp 8 --tokens 12";

/// Fails unless the report is what docs/schema/top.schema.json says.
pub(crate) fn assert_valid(report: &Value) {
    let schema = std::fs::read_to_string(repository().join("docs/schema/top.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let errors: Vec<String> = schema.iter_errors(report).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn the_report_keeps_to_its_schema() {
    let shell = Shell::with_machine();
    for options in ["", "--min-tok-s 1e9", "--threads 1", "--max-cv 1e6 --min-score 0 --throughput 0"] {
        assert_valid(&shell.brick(&format!("{SMALL} --json {options}")).json());
    }
    // A schema that anything keeps to would be none.
    let schema = std::fs::read_to_string(repository().join("docs/schema/top.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let good = shell.brick(&format!("{SMALL} --json")).json();
    for path in ["/throughput/p50_us", "/brick_scores/0/score", "/status", "/origin/brick_score", "/source/kind"] {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = "many".into();
        assert!(!schema.is_valid(&bad), "{path}");
    }
    let mut bad = good;
    bad.as_object_mut().unwrap().remove("pmat_scores");
    assert!(!schema.is_valid(&bad));
}

#[test]
fn figures_are_those_of_a_recording() {
    let shell = Shell::with_machine();
    let report = shell.brick(&format!("{SMALL} --json")).json();
    assert_eq!((report["phase"].as_str(), report["throughput"]["forwards"].as_u64()), (Some("decode"), Some(12)));
    let t = &report["throughput"];
    for figure in ["tokens_per_sec", "ttft_ms", "p50_us", "p99_us"] {
        assert!(t[figure].as_f64().unwrap() > 0.0, "{figure}: {report}");
    }
    assert!(t["p50_us"].as_f64() <= t["p99_us"].as_f64());
    // Every brick of the graph has a row, and the bottleneck is the one that takes most.
    let graph = shell.brick("graph qwen2-tiny.gguf --json").json();
    let rows = report["brick_scores"].as_array().unwrap();
    assert!(rows.len() >= 8 && rows.len() < graph["bricks"].as_array().unwrap().len(), "{report}");
    assert!(rows.iter().all(|r| r["score"].is_u64() && r["name"] != "Sample"), "{report}");
    let largest = rows.iter().max_by(|a, b| a["share"].as_f64().unwrap().total_cmp(&b["share"].as_f64().unwrap()));
    assert_eq!(report["bottleneck"]["brick"], largest.unwrap()["name"], "{report}");
    assert_eq!((&report["status"], &report["hardware"]["gpu"]), (&Value::Null, &Value::Null));
    assert_eq!(report["source"]["kind"], "driven");
}

#[test]
fn the_text_says_what_is_measured_and_what_is_derived() {
    let shell = Shell::with_machine();
    let text = shell.brick(SMALL).succeeds().stdout;
    assert!(text.contains("(MEASURED)") && text.contains("(derived)") && !text.contains("(simulated)"), "{text}");
    for line in text.lines().filter(|l| l.contains("µs") || l.contains("tok/s")) {
        assert!(line.contains("(MEASURED)") || line.contains("(derived)"), "{line}");
    }
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn the_document_goes_to_a_file_as_well() {
    let shell = Shell::with_machine();
    let printed = shell.brick(&format!("{SMALL} --json -o top.json")).json();
    assert_eq!(serde_json::from_str::<Value>(&shell.read("top.json")).unwrap(), printed);
    let text = shell.brick(&format!("{SMALL} -o text.json")).succeeds().stdout;
    assert!(text.starts_with("model "), "{text}");
    assert_valid(&serde_json::from_str(&shell.read("text.json")).unwrap());
}

#[test]
fn thresholds_and_the_exit_code() {
    let shell = Shell::with_machine();
    let run = |options: &str| shell.brick(&format!("{SMALL} {options}")).run();
    let fails = run("--fail-on-threshold --min-tok-s 1e12");
    assert_eq!((fails.code, fails.errors().len()), (Some(1), 1), "{fails}");
    assert!(fails.errors()[0].contains("min-tok-s") && fails.stdout.contains("status       FAIL"), "{fails}");
    assert_eq!(run("--min-tok-s 1e12").code, Some(0), "only when asked for");
    let both = run("--fail-on-threshold --min-tok-s 0 --max-cv 0 --min-score 999");
    assert_eq!(both.code, Some(1), "{both}");
    assert!(both.errors()[0].contains("max-cv") && both.errors()[0].contains("min-score"), "{both}");
    assert!(!both.errors()[0].contains("min-tok-s"), "{both}");
    let passes = run("--fail-on-threshold --throughput 0 --max-cv 1e9");
    assert_eq!(passes.code, Some(0), "{passes}");
    assert!(passes.stdout.contains("status       PASS"), "{passes}");
    let ci = |options: &str| shell.brick(&format!("top qwen2-tiny.gguf --tokens 4 --ci {options}")).run().code;
    assert_eq!((ci("--brick-score 999"), ci("--brick-score 0")), (Some(1), Some(0)));
}

#[test]
fn wrong_usage() {
    let shell = Shell::with_models();
    let nothing = "no model and no run to watch: expected MODEL, or a `brick run --live`";
    shell.brick("top --headless").fails(1, &[nothing]);
    shell.brick("top qwen2-tiny.gguf").fails(1, &["standard output is no terminal", "--headless"]);
    shell.brick("top").fails(1, &["--headless"]);
    shell.brick("top missing.gguf --headless").fails(1, &["missing.gguf"]);
    shell.write("notes.txt", "a shopping list");
    shell.brick("top ./notes.txt --headless").fails(1, &["notes.txt"]);
    shell.brick("top --attach 4711 --headless").fails(1, &["4711.sock", "no run can be watched"]);
    for words in [
        "top qwen2-tiny.gguf --headless --fail-on-threshold",
        "top qwen2-tiny.gguf --ci",
        "top qwen2-tiny.gguf --json",
        "top qwen2-tiny.gguf --headless --min-tok-s -1",
        "top qwen2-tiny.gguf --headless --max-cv nan",
        "top qwen2-tiny.gguf --headless --tokens 0",
        "top qwen2-tiny.gguf --headless --simulated",
        "top qwen2-tiny.gguf --attach 1",
        "run qwen2-tiny.gguf hello --live --otlp-endpoint http://127.0.0.1:1",
    ] {
        let output = shell.brick(words).run();
        assert_eq!((output.code, output.stdout.as_str()), (Some(2), ""), "{output}");
        output.assert_no_panic();
    }
    let full = shell.brick("top qwen2-tiny.gguf --headless --ctx 16 --pp 8 --tokens 12").run();
    assert_eq!(full.code, Some(1), "{full}");
}

#[cfg(unix)]
mod watching {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;
    use std::process::{Child, Stdio};
    use std::time::{Duration, Instant};

    use super::{Value, assert_valid};
    use crate::shell::{Shell, drain, wait};

    /// A run that computes until it is ended.
    struct Run {
        child: Child,
        socket: PathBuf,
    }

    impl Run {
        /// Starts one and waits until it can be watched.
        fn start(shell: &Shell) -> Self {
            Self::with(shell, "run spm-tiny.gguf hello --ignore-eos --ctx 60000 --raw --live")
        }

        fn with(shell: &Shell, words: &str) -> Self {
            let mut child = shell.brick(words).start();
            // Nobody else reads what it says.
            drain(child.stdout.take().unwrap());
            drain(child.stderr.take().unwrap());
            let socket = shell.home().join("top").join(format!("{}.sock", child.id()));
            let begin = Instant::now();
            while !socket.exists() {
                assert!(begin.elapsed() < Duration::from_secs(60), "no socket at {}", socket.display());
                assert_eq!(child.try_wait().unwrap(), None, "the run ended");
                std::thread::sleep(Duration::from_millis(5));
            }
            Self { child, socket }
        }

        fn signal(&mut self, signal: &str) -> Option<i32> {
            let kill = std::process::Command::new("kill").args([signal, &self.child.id().to_string()]).status();
            assert!(kill.unwrap().success());
            wait(&mut self.child, "run --live").code()
        }
    }

    impl Drop for Run {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn home() -> Shell {
        // A home of its own: other tests must not see these runs.
        let shell = Shell::with_machine();
        let own = Shell::with_models();
        std::fs::create_dir_all(own.home()).unwrap();
        std::fs::copy(shell.home().join("machine.json"), own.home().join("machine.json")).unwrap();
        own
    }

    /// A listener in place of a run, which says `bytes` to whoever comes and then closes.
    fn foreign(shell: &Shell, name: &str, bytes: Vec<u8>) -> std::thread::JoinHandle<()> {
        let listener = UnixListener::bind(shell.path(name)).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // A viewer that has read enough may be gone.
            let _ = stream.write_all(&bytes);
        })
    }

    #[test]
    fn a_run_is_watched_and_goes_on() {
        let shell = home();
        let mut run = Run::start(&shell);
        assert_eq!(run.socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(run.socket.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let first = shell.brick("top --headless --json").json();
        assert_valid(&first);
        assert_eq!(first["source"]["kind"], "attached");
        assert_eq!(first["source"]["pid"], run.child.id());
        // Later there is more, by number and by path.
        let seen = first["throughput"]["forwards"].as_u64().unwrap();
        let pid = run.child.id();
        let later = shell.brick(&format!("top --attach {pid} --headless --json --tokens {}", seen + 50)).json();
        assert!(later["throughput"]["forwards"].as_u64().unwrap() >= seen + 50, "{later}");
        let path = format!("top --attach {} --headless", run.socket.display());
        let text = shell.brick(&path).succeeds().stdout;
        assert!(text.contains("attached to a run, process") && text.contains("budget"), "{text}");
        let failed = shell.brick("top --headless --fail-on-threshold --min-tok-s 1e12").run();
        assert_eq!(failed.code, Some(1), "{failed}");
        // Two at once, and one that never reads.
        let lazy = UnixStream::connect(&run.socket).unwrap();
        let mut two: Vec<Child> = (0..2).map(|_| shell.brick("top --headless --json --tokens 200").start()).collect();
        for child in &mut two {
            let stdout = drain(child.stdout.take().unwrap());
            assert_eq!(wait(child, "top").code(), Some(0));
            assert_valid(&serde_json::from_slice(&stdout.join().unwrap()).unwrap());
        }
        drop(lazy);
        assert_eq!(run.signal("-INT"), Some(130));
        assert!(!run.socket.exists(), "the socket goes with its run");
        shell.brick("top --headless").fails(1, &["no model and no run to watch"]);
    }

    #[test]
    fn a_viewer_that_never_reads_does_not_hold_up_the_run() {
        let shell = home();
        let words = "run qwen2-tiny.gguf hello --ignore-eos -n 80 --live";
        let alone = shell.brick(words).succeeds().stdout;
        let mut run = Run::start(&shell);
        let lazy: Vec<UnixStream> = (0..4).map(|_| UnixStream::connect(&run.socket).unwrap()).collect();
        // Its forward calls go on, as another viewer sees.
        let seen = |tokens: u64| -> Value { shell.brick(&format!("top --headless --json --tokens {tokens}")).json() };
        let first = seen(1)["throughput"]["forwards"].as_u64().unwrap();
        seen(first + 500);
        drop(lazy);
        run.signal("-TERM");
        assert_eq!(alone, shell.brick(words).succeeds().stdout, "watching changes no answer");
    }

    #[test]
    fn a_run_that_is_killed_leaves_a_socket_that_the_next_look_removes() {
        let shell = home();
        let mut run = Run::start(&shell);
        let mut watching = shell.brick("top --headless --json --tokens 1000000000").start();
        watching.kill().unwrap();
        watching.wait().unwrap();
        // Killed while it is watched.
        let mut watching = shell.brick("top --headless --json --tokens 1000000").start();
        let stdout = drain(watching.stdout.take().unwrap());
        let stderr = drain(watching.stderr.take().unwrap());
        shell.brick("top --headless --tokens 20").succeeds();
        run.signal("-KILL");
        let code = wait(&mut watching, "top").code();
        let said = String::from_utf8(stderr.join().unwrap()).unwrap();
        // Between two frames it is the end; in the middle of one, an error. Either way it is said.
        assert!(!said.contains("panicked"), "{said}");
        match code {
            Some(0) => {
                assert!(said.contains("the run ended after"), "{said}");
                assert_valid(&serde_json::from_slice(&stdout.join().unwrap()).unwrap());
            }
            other => assert!(other == Some(1) && said.contains("in the middle of a frame"), "{other:?} {said}"),
        }
        assert!(run.socket.exists(), "nobody could remove it");
        let stale = shell.brick(&format!("top --attach {} --headless", run.child.id())).run();
        assert!(stale.code == Some(1) && stale.stderr.contains("is gone; its socket is left over"), "{stale}");
        let none = shell.brick("top --headless").run();
        assert!(none.code == Some(1) && none.stderr.contains("no run to watch"), "{none}");
        assert!(!run.socket.exists(), "removed");
    }

    #[test]
    fn of_several_runs_one_has_to_be_chosen() {
        let shell = home();
        let runs = [Run::start(&shell), Run::start(&shell)];
        let output = shell.brick("top --headless").run();
        assert_eq!(output.code, Some(1), "{output}");
        for run in &runs {
            assert!(output.stderr.contains(&run.child.id().to_string()), "{output}");
            shell.brick(&format!("top --attach {} --headless", run.child.id())).succeeds();
        }
    }

    #[test]
    fn peers_that_are_no_runs() {
        let shell = home();
        let frame = |schema: &str| format!("{{\"schema\":\"{schema}\",\"pid\":1}}\n").into_bytes();
        let cases = [
            ("garbage", b"\x00\xff\x17 garbage \xf0\n".to_vec(), "what listens there is no brick"),
            ("http", b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), "what listens there is no brick"),
            ("version", frame("brick.top.frame/9"), "the run is another version of brick"),
            ("form", frame("brick.top.frame/1"), "does not have its form"),
            ("cut", b"{\"schema\":\"brick.top.fr".to_vec(), "in the middle of a frame"),
            ("silent", vec![], "expected profile data of at least one forward call, found none"),
        ];
        for (name, bytes, expected) in cases {
            let server = foreign(&shell, name, bytes);
            let output = shell.brick(&format!("top --attach ./{name} --headless")).run();
            assert!(output.code == Some(1) && output.stderr.contains(expected), "{name}: {output}");
            assert_eq!(output.errors().len(), 1, "{output}");
            output.assert_no_panic();
            server.join().unwrap();
        }
        shell.write("file", "no socket");
        let output = shell.brick("top --attach ./file --headless").run();
        assert!(output.code == Some(1) && output.stderr.contains("file"), "{output}");
        let long = format!("top --attach ./{} --headless", "x".repeat(200));
        let output = shell.brick(&long).run();
        assert!(output.code == Some(1) && output.stderr.contains("the path of the socket has 202 bytes"), "{output}");
    }

    #[test]
    fn a_chat_is_watched_between_its_answers() {
        let shell = home();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_brick"));
        command.args(["chat", "spm-tiny.gguf", "-n", "12", "--live"]).current_dir(shell.path("."));
        command.env("BRICK_HOME", shell.home()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut chat = command.spawn().unwrap();
        let mut stdin = chat.stdin.take().unwrap();
        stdin.write_all(b"hello\n").unwrap();
        let mut out = BufReader::new(chat.stdout.take().unwrap());
        // An answer, complete: its line ends.
        out.read_line(&mut String::new()).unwrap();
        let report = shell.brick("top --headless --json").json();
        assert_valid(&report);
        assert!(report["throughput"]["forwards"].as_u64().unwrap() >= 1, "{report}");
        drop(stdin);
        out.read_to_end(&mut Vec::new()).unwrap();
        assert!(wait(&mut chat, "chat").success());
    }
}
