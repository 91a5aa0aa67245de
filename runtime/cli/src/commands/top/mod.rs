//! `brick top`: a model while it runs, in a terminal or as one report.
//!
//! | module | content |
//! | --- | --- |
//! | `source` | where snapshots come from: another process, or a thread of this one |
//! | `drive` | running a model to be looked at |
//! | `terminal` | the screen: keys in, frames out |
//! | `headless` | the report, its thresholds, its exit code |

mod drive;
mod headless;
mod source;
mod terminal;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use brick_top::socket::{self, Running};

use crate::args::TopArgs;

pub(super) fn top(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let headless = args.headless || args.ci;
    if !headless && !std::io::stdout().is_terminal() {
        bail!("standard output is no terminal to draw on: --headless reports without one");
    }
    match (&args.model, headless) {
        (Some(model), true) => drive::report(args, model),
        (Some(model), false) => drive::view(args, model),
        (None, true) => headless::attached(args, &target(args)?),
        (None, false) => terminal::attached(&target(args)?),
    }
}

/// The run to attach to.
fn target(args: &TopArgs) -> anyhow::Result<Running> {
    let directory = super::live::directory()?;
    let Some(wanted) = &args.attach else { return only(&directory) };
    if let Ok(pid) = wanted.parse() {
        let path = socket::path_of(&directory, pid);
        return Ok(Running { pid, path });
    }
    let path = PathBuf::from(wanted);
    // The name of a socket is its process, wherever it lies; of another name nothing follows.
    let pid = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok()).unwrap_or(0);
    Ok(Running { pid, path })
}

/// The only run there is.
fn only(directory: &Path) -> anyhow::Result<Running> {
    let mut runs = socket::running(directory)?;
    match runs.len() {
        0 => bail!(
            "no model and no run to watch: expected MODEL, or a `brick run --live` or `brick chat --live` of this user; found none"
        ),
        1 => Ok(runs.remove(0)),
        n => {
            let pids: Vec<String> = runs.iter().map(|r| r.pid.to_string()).collect();
            bail!("{n} runs can be watched: choose one with --attach PID, of {}", pids.join(", "))
        }
    }
}
