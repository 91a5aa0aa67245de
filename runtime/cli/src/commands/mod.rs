//! One module per command.

mod bench;
mod chat;
mod check;
mod completions;
mod falsify;
mod gate;
mod gpu_check;
mod graph;
mod inspect;
mod live;
mod machine;
mod models;
mod perplexity;
mod profile;
mod ptx;
mod report;
mod run;
mod tokenize;
mod top;
mod trace;

use std::process::ExitCode;

use crate::args::{Cli, Command};

/// Runs a command.
///
/// # Errors
/// Whatever the command could not do; the exit code is then 1.
pub(crate) fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Run(a) => run::run(&a),
        Command::Chat(a) => chat::chat(&a.model, a.system.as_deref(), &a.sampling, a.live),
        Command::Profile(a) => profile::profile(&a),
        Command::Top(a) => top::top(&a),
        Command::Report(a) => report::report(&a),
        Command::Score(a) => report::score(&a),
        Command::Bench(a) => bench::bench(&a),
        Command::Perplexity(a) => perplexity::perplexity(&a),
        Command::Graph(a) => graph::graph(&a),
        Command::Check(a) => check::check(&a),
        Command::Gate(a) => gate::gate(&a),
        Command::GateWorker(a) => gate::worker(&a),
        Command::Trace(a) => trace::trace(&a),
        Command::Tokenize(a) => tokenize::tokenize(&a),
        Command::Inspect(a) => inspect::inspect(&a),
        Command::Machine(a) => machine::machine(&a),
        Command::Ptx(a) => ptx::ptx(&a),
        Command::GpuCheck(a) => gpu_check::gpu_check(&a),
        Command::Pull(a) => models::pull(&a),
        Command::List(a) => models::list(&a),
        Command::Rm(a) => models::rm(&a),
        Command::Falsify(a) => falsify::falsify(&a),
        Command::Completions(a) => completions::completions(a.shell),
    }
}
