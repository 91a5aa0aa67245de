//! `brick falsify [FILTER]`: every claim of the project, put to the test.

use std::process::ExitCode;

use anyhow::bail;

use crate::args::FalsifyArgs;
use crate::{exit, output};

pub(super) fn falsify(args: &FalsifyArgs) -> anyhow::Result<ExitCode> {
    let filter = args.filter.as_deref().unwrap_or("");
    if brick_falsification::select(filter).is_empty() {
        bail!("no claim's id or statement contains {filter:?}");
    }
    let board = brick_falsification::run(filter);
    output::print(&if args.json { board.json() } else { board.text() })?;
    Ok(if board.stands() { ExitCode::SUCCESS } else { ExitCode::from(exit::VERDICT) })
}
