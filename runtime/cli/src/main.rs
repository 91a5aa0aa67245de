//! The `brick` command line: thin commands over the brick crates.
//!
//! Results go to standard output, everything else (progress, logs, statistics, errors) to standard error, so that output can
//! be piped. Exit codes are listed in [`exit`].

#![forbid(unsafe_code)]

mod about;
mod args;
mod commands;
mod counters;
mod exit;
mod load;
mod otlp;
mod output;
mod progress;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;

/// Counts when `brick gate` wants to know what a token allocates, and else costs a load of a flag per allocation.
#[global_allocator]
static ALLOCATOR: brick_runtime::allocations::CountingAllocator = brick_runtime::allocations::CountingAllocator;

fn main() -> ExitCode {
    let cli = Cli::parse();
    output::set_color(cli.global.color);
    if let Err(e) = output::init_logging(cli.global.log.as_deref()) {
        return exit::report(&e);
    }
    match commands::dispatch(cli) {
        Ok(code) => code,
        Err(e) => exit::report(&e),
    }
}
