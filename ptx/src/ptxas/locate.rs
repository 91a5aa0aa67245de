//! Where the programs are.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::PtxasError;

/// A program of the CUDA toolkit.
#[derive(Debug)]
pub(super) struct Tool {
    /// File name.
    pub(super) name: &'static str,
    /// Environment variable that names it.
    pub(super) variable: &'static str,
    /// Package on the Python package index.
    pub(super) package: &'static str,
    /// Version of the package.
    pub(super) version: &'static str,
}

/// 13.0 goes with driver release 580 and takes PTX up to 9.0.
pub(super) const PTXAS: Tool =
    Tool { name: "ptxas", variable: "PTXAS", package: "nvidia-cuda-nvcc", version: "13.0.88" };
/// Reads what any 13.x assembler writes.
pub(super) const NVDISASM: Tool =
    Tool { name: "nvdisasm", variable: "NVDISASM", package: "nvidia-cuda-nvdisasm", version: "13.2.51" };

/// Release that the programs have to be of.
const RELEASE: &str = "13";

/// Where to look for the programs.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Value of `$PTXAS`.
    pub ptxas: Option<PathBuf>,
    /// Value of `$NVDISASM`.
    pub nvdisasm: Option<PathBuf>,
    /// Value of `$PATH`.
    pub path: Option<OsString>,
    /// Directory of fetched programs: `cuda-tools` below `$BRICK_HOME` or the platform's cache directory for brick.
    pub cache: Option<PathBuf>,
}

/// The two programs.
#[derive(Debug, Clone)]
pub struct Tools {
    pub(super) ptxas: PathBuf,
    pub(super) nvdisasm: PathBuf,
}

impl Search {
    /// As the environment says.
    pub fn from_env() -> Self {
        let var = |name| env::var_os(name).filter(|value| !value.is_empty());
        let home = match var("BRICK_HOME") {
            Some(home) => Some(PathBuf::from(home)),
            None => directories::ProjectDirs::from("", "", "brick").map(|dirs| dirs.cache_dir().to_path_buf()),
        };
        Self {
            ptxas: var(PTXAS.variable).map(PathBuf::from),
            nvdisasm: var(NVDISASM.variable).map(PathBuf::from),
            path: var("PATH"),
            cache: home.map(|home| home.join("cuda-tools")),
        }
    }

    /// Finds both programs and checks their release. A program that is named is taken or refused; only where none is named
    /// do `$PATH` and then the cache count.
    ///
    /// # Errors
    /// [`PtxasError::NotFound`], [`PtxasError::Version`], [`PtxasError::Crashed`], [`PtxasError::Start`].
    pub fn find(&self) -> Result<Tools, PtxasError> {
        Ok(Tools { ptxas: self.locate(&PTXAS)?, nvdisasm: self.locate(&NVDISASM)? })
    }

    fn locate(&self, tool: &Tool) -> Result<PathBuf, PtxasError> {
        let named = if tool.name == PTXAS.name { &self.ptxas } else { &self.nvdisasm };
        if let Some(program) = named {
            check_release(program)?;
            return Ok(program.clone());
        }
        let in_path = self.path.iter().flat_map(env::split_paths).map(|dir| dir.join(tool.name));
        let found = in_path.chain(self.cached(tool)).find(|program| program.is_file());
        let program = found.ok_or_else(|| PtxasError::NotFound {
            tool: tool.name,
            variable: tool.variable,
            tried: match self.cached(tool) {
                Some(program) => format!("PATH and {}", program.display()),
                None => "PATH".to_owned(),
            },
        })?;
        check_release(&program)?;
        Ok(program)
    }

    /// Where a fetched program is kept.
    pub(super) fn cached(&self, tool: &Tool) -> Option<PathBuf> {
        self.cache.as_ref().map(|cache| cache.join(format!("{}-{}", tool.name, tool.version)).join(tool.name))
    }
}

impl Tools {
    /// Finds the programs where the environment says: `$PTXAS` and `$NVDISASM`, `$PATH`, brick's cache.
    ///
    /// # Errors
    /// As [`Search::find`].
    pub fn find() -> Result<Self, PtxasError> {
        Search::from_env().find()
    }

    /// The assembler.
    pub fn ptxas(&self) -> &Path {
        &self.ptxas
    }

    /// The disassembler.
    pub fn nvdisasm(&self) -> &Path {
        &self.nvdisasm
    }

    /// The same as [`find`](Self::find) for tests, which go on without: `None` and a line that says so, if a program is nowhere and
    /// `REQUIRE_PTXAS=1` is not set. A program that is there but wrong is an error.
    ///
    /// # Errors
    /// As [`Search::find`].
    pub fn find_for_tests() -> Result<Option<Self>, PtxasError> {
        match Self::find() {
            Err(e @ PtxasError::NotFound { .. }) if env::var_os("REQUIRE_PTXAS").is_none_or(|v| v != "1") => {
                println!("SKIPPED: {e}");
                Ok(None)
            }
            found => found.map(Some),
        }
    }
}

fn check_release(program: &Path) -> Result<(), PtxasError> {
    let output = run(program, ["--version"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(crashed(program, &output));
    }
    let release = text.lines().find(|line| line.contains("release "));
    let good = release.is_some_and(|line| {
        line.split("release ").nth(1).is_some_and(|version| version.split('.').next() == Some(RELEASE))
    });
    if good {
        return Ok(());
    }
    let found = release.or_else(|| text.lines().next()).unwrap_or_default().trim().to_owned();
    Err(PtxasError::Version { program: program.to_owned(), expected: "13.x", found })
}

/// Runs a program to its end.
pub(super) fn run<I>(program: &Path, args: I) -> Result<Output, PtxasError>
where
    I: IntoIterator,
    I::Item: AsRef<std::ffi::OsStr>,
{
    let output = Command::new(program).args(args).output();
    output.map_err(|source| PtxasError::Start { program: program.to_owned(), source })
}

/// What is said of a program that failed on its own account.
pub(super) fn crashed(program: &Path, output: &Output) -> PtxasError {
    PtxasError::Crashed { program: program.to_owned(), status: output.status.to_string(), output: said(output) }
}

/// What a program said, on both streams.
pub(super) fn said(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    text.join("\n").trim().to_owned()
}
