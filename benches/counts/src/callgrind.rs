//! Counting the instructions of calls with valgrind's callgrind.
//!
//! One process makes the calls of all cases, each through [`count_here`]; callgrind counts within one function there, and writes a
//! file whenever another returns. What is counted is what **our own program** executes: the C library's `memcpy` and `memset`
//! choose among variants by processor and version, so instructions of other objects are reported apart.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;

/// Instructions of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Of the program itself.
    pub own: u64,
    /// Of libraries it called (the C library: copying and clearing). Differs between systems.
    pub library: u64,
}

/// Counts by case.
pub type Counts = BTreeMap<String, Count>;

/// Counting is not possible, or went wrong.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// This machine cannot count: nothing is wrong, but nothing is shown either.
    #[error("{0}")]
    NotHere(String),
    /// A file or process.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program under valgrind ended with an error.
    #[error("valgrind ended with {status}: {stderr}")]
    Failed {
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of its messages.
        stderr: String,
    },
    /// A file of callgrind's is not as expected.
    #[error("{file}: line {line}: expected {expected}, found {found:?}")]
    Format {
        /// Which file.
        file: String,
        /// Where.
        line: usize,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// Not one file per case.
    #[error("callgrind wrote {found} counts for {expected} cases")]
    Files {
        /// Calls that were made.
        expected: usize,
        /// Files found.
        found: usize,
    },
    /// A second run gave another count.
    #[error("{case}: {first} instructions, and {second} in a second run: the count depends on something it must not")]
    NotDeterministic {
        /// The case.
        case: String,
        /// Of the first run.
        first: u64,
        /// Of the second.
        second: u64,
    },
}

/// Makes a call whose instructions are counted, if callgrind watches.
pub fn count_here(call: &mut dyn FnMut()) {
    kernel_counts_case(call);
}

/// What callgrind looks for by name. Two functions, because of two options for the same name it heeds one.
const CASE: &str = "*kernel_counts_case*";
const REGION: &str = "*kernel_counts_region*";

#[inline(never)]
fn kernel_counts_case(call: &mut dyn FnMut()) {
    kernel_counts_region(call);
    // Not a tail call: callgrind would never see this function return.
    black_box(call);
}

#[inline(never)]
fn kernel_counts_region(call: &mut dyn FnMut()) {
    call();
    black_box(call);
}

/// The version of valgrind.
///
/// # Errors
/// [`CountError::NotHere`] where there is none.
pub fn valgrind_version() -> Result<String, CountError> {
    let output = Command::new("valgrind").arg("--version").output();
    match output {
        Ok(o) if o.status.success() => Ok(String::from_utf8_lossy(&o.stdout).trim().to_owned()),
        Ok(o) => Err(CountError::NotHere(format!("valgrind --version ended with {}", o.status))),
        Err(e) => Err(CountError::NotHere(format!("valgrind cannot be run: {e} (package valgrind)"))),
    }
}

/// Runs `program args…` under callgrind and returns the counts of the regions it enters. The program prints a line per
/// region, in their order: the name of the case.
///
/// # Errors
/// [`CountError`].
pub fn count<A: AsRef<OsStr>>(program: &Path, args: &[A]) -> Result<Counts, CountError> {
    run(program, args, "")
}

/// Its files go to a directory of its own; `padding` goes to the environment.
fn run<A: AsRef<OsStr>>(program: &Path, args: &[A], padding: &str) -> Result<Counts, CountError> {
    // Different for each run of a process, too.
    let name = format!("kernel-counts-{}-{}", std::process::id(), padding.len());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir(&dir)
        .map_err(|source| CountError::Io { what: format!("directory {}", dir.display()), source })?;
    let result = count_in(&dir, program, args, padding);
    // Left-overs in a temporary directory are no reason to fail.
    let _ = std::fs::remove_dir_all(&dir);
    result
}

fn count_in<A: AsRef<OsStr>>(dir: &Path, program: &Path, args: &[A], padding: &str) -> Result<Counts, CountError> {
    // Canonical, as callgrind names objects.
    let program = program
        .canonicalize()
        .map_err(|source| CountError::Io { what: format!("program {}", program.display()), source })?;
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--quiet", "--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--toggle-collect={REGION}"))
        .arg(format!("--dump-after={CASE}"))
        .arg(format!("--callgrind-out-file={}", dir.join("out").display()))
        .arg(&program)
        .args(args)
        .env("KERNEL_COUNTS_PADDING", padding);
    let output = command.output().map_err(|source| CountError::Io { what: "valgrind".to_owned(), source })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.lines().collect();
        let stderr = lines[lines.len().saturating_sub(12)..].join("\n");
        return Err(CountError::Failed { status: output.status, stderr });
    }
    let names: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    // One file per region, and behind them the rest of the program, in which nothing is counted.
    let found = std::fs::read_dir(dir)
        .map_err(|source| CountError::Io { what: format!("directory {}", dir.display()), source })?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("out."))
        .count();
    if found != names.len() && found != names.len() + 1 {
        return Err(CountError::Files { expected: names.len(), found });
    }
    let mut counts = Counts::new();
    for (i, name) in names.into_iter().enumerate() {
        let path = dir.join(format!("out.{}", i + 1));
        let text = std::fs::read_to_string(&path)
            .map_err(|source| CountError::Io { what: format!("file {}", path.display()), source })?;
        counts.insert(name, parse(&text, &program.to_string_lossy(), &path.display().to_string())?);
    }
    Ok(counts)
}

/// Adds up the instructions of a file of callgrind's, by whether they are of the object `own`.
///
/// The format: <https://valgrind.org/docs/manual/cl-format.html>, without compression of names or positions. Lines of cost are
/// `position instructions`; the one behind a `calls=` line is the callee's, and counted where the callee is listed.
fn parse(text: &str, own: &str, file: &str) -> Result<Count, CountError> {
    let mut count = Count::default();
    let (mut in_own, mut of_callee) = (false, false);
    let mut total = None;
    for (i, line) in text.lines().enumerate() {
        let error =
            |expected| CountError::Format { file: file.to_owned(), line: i + 1, expected, found: line.to_owned() };
        if let Some(object) = line.strip_prefix("ob=") {
            in_own = object == own;
        } else if line.starts_with("calls=") {
            of_callee = true;
        } else if let Some(sum) = line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: ")) {
            total = Some(sum.trim().parse::<u64>().map_err(|_| error("one event, the number of instructions"))?);
        } else if line.starts_with(|c: char| c.is_ascii_digit()) {
            let mut fields = line.split_ascii_whitespace().skip(1);
            // A line without costs has the cost 0.
            let cost: u64 = fields.next().unwrap_or("0").parse().map_err(|_| error("a position and a cost"))?;
            if !std::mem::take(&mut of_callee) {
                *(if in_own { &mut count.own } else { &mut count.library }) += cost;
            }
        }
    }
    // Its own sum checks that this reading of the format is right.
    if total != Some(count.own + count.library) {
        let found = format!("{total:?}, and lines that add up to {}", count.own + count.library);
        return Err(CountError::Format {
            file: file.to_owned(),
            line: text.lines().count(),
            expected: "a sum that is the lines'",
            found,
        });
    }
    Ok(count)
}

/// Two runs of `program args…`, which must agree: the second with a larger environment, so with its stack elsewhere.
///
/// # Errors
/// [`CountError::NotDeterministic`], and as [`count`].
pub fn count_twice<A: AsRef<OsStr>>(program: &Path, args: &[A]) -> Result<Counts, CountError> {
    let first = run(program, args, "")?;
    let second = run(program, args, &"x".repeat(1_237))?;
    for (case, a) in &first {
        let b = second.get(case).copied().unwrap_or_default();
        if a.own != b.own {
            return Err(CountError::NotDeterministic { case: case.clone(), first: a.own, second: b.own });
        }
    }
    Ok(first)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FILE: &str = "\
version: 1
creator: callgrind-3.19.0
pid: 1
cmd:  bench run
part: 1


desc: I1 cache:
desc: Trigger: --dump-after=region
positions: line
events: Ir
summary: 145


ob=/p/bench
fl=a.rs
fn=region
10 5
cfn=kernel
calls=1 20
11 140
12 10

fn=kernel
20 100
cob=/lib/libc.so.6
cfi=???
cfn=memcpy
calls=2 0
21 30

ob=/lib/libc.so.6
fl=???
fn=memcpy
0 30

totals: 145
";

    #[test]
    fn costs_are_added_up_by_object() {
        assert_eq!(parse(FILE, "/p/bench", "f").unwrap(), Count { own: 115, library: 30 });
        assert_eq!(parse(FILE, "/p/other", "f").unwrap(), Count { own: 0, library: 145 });
    }

    #[test]
    fn a_file_that_contradicts_itself_is_an_error() {
        let wrong = FILE.replace("12 10", "12 11");
        let e = parse(&wrong, "/p/bench", "f").unwrap_err().to_string();
        assert!(e.contains("145") && e.contains("146"), "{e}");
        let e = parse(&FILE.replace("12 10", "12 x"), "/p/bench", "f").unwrap_err().to_string();
        assert!(e.contains("line 22") && e.contains("12 x"), "{e}");
        assert!(parse("", "/p/bench", "f").is_err());
    }
}
