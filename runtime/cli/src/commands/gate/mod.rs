//! `brick gate`: what must not change unnoticed.
//!
//! | module | content |
//! | --- | --- |
//! | `record`, `check` | the two commands |
//! | `worker` | a process that makes measured calls for another, and its protocol |
//! | `arms` | three such processes that take turns |
//! | `instructions` | one such process under callgrind |

mod arms;
mod check;
mod instructions;
mod record;
mod worker;

use std::process::ExitCode;

use crate::args::{GateArgs, GateCommand};

pub(super) use worker::worker;

pub(super) fn gate(args: &GateArgs) -> anyhow::Result<ExitCode> {
    crate::load::check_level()?;
    match &args.command {
        GateCommand::Record(a) => record::record(a),
        GateCommand::Check(a) => check::check(a),
    }
}
