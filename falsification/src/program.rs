//! The `brick` program from outside, for claims about what it prints and how it ends.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::claim::Refusal;

/// Environment variable with the path of the program that claims run; without it, this process if it is `brick`, else the `brick` that
/// was built beside it.
pub const PROGRAM_ENV: &str = "BRICK_PROGRAM";

/// The program, and a directory to run it in.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    directory: TempDir,
}

/// How the program ended and what it said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Program {
    /// The program, with a file of this name and content in its directory.
    ///
    /// # Errors
    /// Not testable if there is no program.
    pub fn with_file(name: &str, content: &[u8]) -> Result<Self, Refusal> {
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join(name), content)?;
        Ok(Self { path: path()?, directory })
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs it with these words.
    ///
    /// # Errors
    /// Falsified if it cannot be started.
    pub fn run(&self, words: &str) -> Result<Said, Refusal> {
        self.run_at_home(words, None)
    }

    /// Runs it with a home where nothing is.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_alone(&self, words: &str) -> Result<Said, Refusal> {
        self.run_at_home(words, Some(&self.directory.path().join("home")))
    }

    fn run_at_home(&self, words: &str, home: Option<&Path>) -> Result<Said, Refusal> {
        let mut command = Command::new(&self.path);
        command.args(words.split_whitespace()).current_dir(self.directory.path()).env_remove("BRICK_LOG");
        command.stdin(std::process::Stdio::null());
        if let Some(home) = home {
            command.env("BRICK_HOME", home);
        }
        let output = command.output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) })
    }
}

fn path() -> Result<PathBuf, Refusal> {
    if let Some(path) = std::env::var_os(PROGRAM_ENV).filter(|p| !p.is_empty()).map(PathBuf::from) {
        let missing = || Refusal::not_testable(format!("{PROGRAM_ENV} names {}, which is no file", path.display()));
        return path.is_file().then(|| path.clone()).ok_or_else(missing);
    }
    let own = std::env::current_exe()?;
    let name = format!("brick{}", std::env::consts::EXE_SUFFIX);
    if own.file_name().is_some_and(|f| f == name.as_str()) {
        return Ok(own);
    }
    // Tests lie in target/PROFILE/deps, programs in target/PROFILE.
    let beside = own.parent().and_then(Path::parent).map(|d| d.join(&name)).filter(|p| p.is_file());
    beside.ok_or_else(|| {
        Refusal::not_testable(format!("needs the program: `cargo build -p brick`, or {PROGRAM_ENV} with its path"))
    })
}
