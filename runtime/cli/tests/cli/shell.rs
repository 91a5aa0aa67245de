//! A directory to work in and commands that read like a shell session.
//!
//! ```text
//! let shell = Shell::new();
//! shell.write("tiny.gguf", &tiny::model());
//! let answer = shell.brick("run tiny.gguf --raw -n 4").arg("two words").succeeds().stdout;
//! ```

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than any command of these tests takes, on any machine: only a command that hangs gets there.
const LIMIT: Duration = Duration::from_secs(300);

/// An empty working directory with a `BRICK_HOME` of its own. No command reaches the network or finds a program.
pub(crate) struct Shell {
    directory: TempDir,
    home: PathBuf,
}

impl Shell {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("home");
        Self { directory, home }
    }

    /// A shell with the tiny models of the repository in its directory.
    pub(crate) fn with_models() -> Self {
        let shell = Self::new();
        for name in ["qwen2-tiny.gguf", "spm-tiny.gguf"] {
            std::fs::copy(repository().join("falsification/reference/synthetic").join(name), shell.path(name)).unwrap();
        }
        shell
    }

    /// The same with a `BRICK_HOME` that all tests share, where this machine's limits are known: they are measured once.
    pub(crate) fn with_machine() -> Self {
        static HOME: OnceLock<PathBuf> = OnceLock::new();
        let home = HOME.get_or_init(|| {
            let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-home");
            std::fs::create_dir_all(&home).unwrap();
            let mut shell = Shell::new();
            shell.home.clone_from(&home);
            shell.brick("machine").succeeds();
            home
        });
        Self { home: home.clone(), ..Self::with_models() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// `brick` with these words; arguments with spaces are added with [`Brick::arg`].
    pub(crate) fn brick(&self, words: &str) -> Brick<'_> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_brick"));
        command.args(words.split_whitespace()).current_dir(self.directory.path());
        for name in ["BRICK_LOG", "BRICK_SIMD", "HF_TOKEN", "CLICOLOR", "CLICOLOR_FORCE", "NO_COLOR"] {
            command.env_remove(name);
        }
        command.env("BRICK_HOME", &self.home).env("HF_ENDPOINT", "http://127.0.0.1:1").env("PATH", "");
        Brick { shell: self, command, line: format!("brick {words}"), stdin: None }
    }

    /// Every file of the directory with its size, but for the lock files, which stay for good.
    fn files(&self) -> BTreeMap<PathBuf, u64> {
        fn walk(directory: &Path, files: &mut BTreeMap<PathBuf, u64>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    walk(&entry.path(), files);
                } else if entry.path().extension() != Some(OsStr::new("lock")) {
                    files.insert(entry.path(), entry.metadata().unwrap().len());
                }
            }
        }
        let mut files = BTreeMap::new();
        walk(self.directory.path(), &mut files);
        files
    }
}

/// A command that has not run yet.
pub(crate) struct Brick<'s> {
    shell: &'s Shell,
    command: Command,
    line: String,
    stdin: Option<Vec<u8>>,
}

impl Brick<'_> {
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.line = format!("{} {:?}", self.line, arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.line.insert_str(0, &format!("{name}={:?} ", value.as_ref().to_string_lossy()));
        self.command.env(name, value);
        self
    }

    /// What is piped in; nothing otherwise.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Starts the command; both outputs are pipes.
    pub(crate) fn start(&mut self) -> Child {
        let stdin = if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        if let (Some(bytes), Some(mut pipe)) = (self.stdin.take(), child.stdin.take()) {
            std::thread::spawn(move || {
                // A command that ends before it has read everything is no failure of the test.
                let _ = pipe.write_all(&bytes);
            });
        }
        child
    }

    /// Runs to the end, whatever that is.
    pub(crate) fn run(mut self) -> Output {
        let mut child = self.start();
        let stdout = drain(child.stdout.take().unwrap());
        let stderr = drain(child.stderr.take().unwrap());
        let status = wait(&mut child, &self.line);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_else(|e| panic!("{}: {e}", self.line));
        Output {
            code: status.code(),
            stdout: text(stdout.join().unwrap()),
            stderr: text(stderr.join().unwrap()),
            line: self.line,
        }
    }

    /// Runs; exit code 0, or the test fails.
    pub(crate) fn succeeds(self) -> Output {
        let output = self.run();
        assert_eq!(output.code, Some(0), "{output}");
        output.assert_no_panic();
        output
    }

    /// Runs; one JSON document on standard output, or the test fails.
    pub(crate) fn json(self) -> Value {
        let output = self.succeeds();
        serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("not JSON: {e}\n{output}"))
    }

    /// Runs; this exit code, nothing but one error line with all of `parts` in it, and no file made or changed, or the
    /// test fails.
    pub(crate) fn fails(self, code: i32, parts: &[&str]) -> Output {
        let shell = self.shell;
        let before = shell.files();
        let output = self.run();
        assert_eq!(output.code, Some(code), "{output}");
        assert_eq!(output.stdout, "", "{output}");
        output.assert_no_panic();
        assert_eq!(output.errors().len(), 1, "{output}");
        for part in parts {
            assert!(output.stderr.contains(part), "expected {part:?}\n{output}");
        }
        assert_eq!(shell.files(), before, "files were made or changed\n{output}");
        output
    }
}

/// How a command ended and what it said.
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    line: String,
}

impl Output {
    /// The lines of standard error that announce an error.
    pub(crate) fn errors(&self) -> Vec<&str> {
        self.stderr.lines().filter(|l| l.starts_with("error:")).collect()
    }

    pub(crate) fn assert_no_panic(&self) {
        for text in [&self.stdout, &self.stderr] {
            assert!(!text.contains("panicked") && !text.contains("RUST_BACKTRACE"), "{self}");
        }
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Output { code, stdout, stderr, line } = self;
        write!(f, "$ {line}\nexit code {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// Waits for the end of a command; one that hangs is ended and fails the test.
pub(crate) fn wait(child: &mut Child, line: &str) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{line}: not done after {LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reads a pipe to its end on a thread.
pub(crate) fn drain(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
