//! Fetches the programs from the Python package index, as wheels, with pip.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::locate::{NVDISASM, PTXAS, Tool, said};
use super::{PtxasError, Search, Tools};

/// Python interpreters, tried in order until one has pip.
const PYTHONS: [&str; 2] = ["python3", "python"];

impl Tools {
    /// Finds the programs, and fetches what is missing into brick's cache: about 42 MB, once.
    ///
    /// # Errors
    /// As [`Search::fetch`].
    pub fn fetch() -> Result<Self, PtxasError> {
        Search::from_env().fetch()
    }
}

impl Search {
    /// Finds the programs, and fetches what is missing into the cache.
    ///
    /// # Errors
    /// What [`Search::find`] says of programs that are wrong; [`PtxasError::Download`] and others of the transfer.
    pub fn fetch(&self) -> Result<Tools, PtxasError> {
        loop {
            let missing = match self.find() {
                Err(PtxasError::NotFound { tool, .. }) => tool,
                other => return other,
            };
            let tool = if missing == PTXAS.name { &PTXAS } else { &NVDISASM };
            // What is fetched is found in the next round, or something else is wrong: the loop ends.
            self.fetch_one(tool)?;
        }
    }

    fn fetch_one(&self, tool: &Tool) -> Result<(), PtxasError> {
        if !cfg!(target_os = "linux") {
            return Err(PtxasError::Platform { tool: tool.name, variable: tool.variable });
        }
        let program = self.cached(tool).ok_or(PtxasError::NoCache { tool: tool.name })?;
        let dir = program.parent().ok_or(PtxasError::NoCache { tool: tool.name })?;
        fs::create_dir_all(dir).map_err(PtxasError::io("create", dir))?;
        let scratch = tempfile::tempdir_in(dir).map_err(PtxasError::io("create a directory in", dir))?;
        let wheel = download(tool, scratch.path())?;
        // Renamed when it is whole: another process never sees a part of it.
        let part = scratch.path().join(tool.name);
        extract(&wheel, tool, &part)?;
        fs::rename(&part, &program).map_err(PtxasError::io("write", program))
    }
}

fn download(tool: &Tool, into: &Path) -> Result<PathBuf, PtxasError> {
    let package = format!("{}=={}", tool.package, tool.version);
    let mut failure = PtxasError::NotFound { tool: "python3 with pip", variable: "PATH", tried: PYTHONS.join(", ") };
    for python in PYTHONS {
        let mut command = Command::new(python);
        command.args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]);
        command.args(["--no-input", "--disable-pip-version-check", "--quiet", "--dest"]);
        let output = match command.arg(into).arg(&package).output() {
            Ok(output) => output,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(PtxasError::Start { program: python.into(), source }),
        };
        if output.status.success() {
            return wheel_in(into, &package);
        }
        let command = format!("{python} -m pip download {package}");
        failure = PtxasError::Download { command, output: said(&output) };
    }
    Err(failure)
}

fn wheel_in(dir: &Path, package: &str) -> Result<PathBuf, PtxasError> {
    let entries = fs::read_dir(dir).map_err(PtxasError::io("read", dir))?;
    let wheel = entries.filter_map(Result::ok).map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "whl"));
    wheel.ok_or_else(|| PtxasError::Package { wheel: dir.to_owned(), member: format!("wheel of {package}") })
}

fn extract(wheel: &Path, tool: &Tool, to: &Path) -> Result<(), PtxasError> {
    let archive_error = |source| PtxasError::Archive { wheel: wheel.to_owned(), source };
    let file = File::open(wheel).map_err(PtxasError::io("read", wheel))?;
    let mut archive = zip::ZipArchive::new(file).map_err(archive_error)?;
    let suffix = format!("/bin/{}", tool.name);
    let Some(index) = archive.file_names().position(|name| name.ends_with(&suffix)) else {
        return Err(PtxasError::Package { wheel: wheel.to_owned(), member: suffix });
    };
    let mut member = archive.by_index(index).map_err(archive_error)?;
    let mut out = File::create(to).map_err(PtxasError::io("write", to))?;
    io::copy(&mut member, &mut out).map_err(PtxasError::io("write", to))?;
    make_executable(to)
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<(), PtxasError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(PtxasError::io("make executable", path))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<(), PtxasError> {
    Ok(())
}
