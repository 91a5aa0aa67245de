//! Flags of `brick gate`.

use std::path::PathBuf;

use brick_models::synthetic::Synthetic;
use brick_runtime::fault::Fault;
use clap::{Args, Subcommand, ValueEnum};

use super::KvTypeArg;

#[derive(Debug, Args)]
pub(crate) struct GateArgs {
    #[command(subcommand)]
    pub(crate) command: GateCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GateCommand {
    /// Write the exact facts of a model to a file that is reviewed like code
    Record(GateRecordArgs),
    /// Compare a model with the recorded facts, and this program with another in turn
    Check(GateCheckArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
The file holds no time: bricks and wires before and after every fusion, steps, barriers, working memory, bytes and operations of every \
brick, heap allocations of a token, kernels. Recording over a file keeps its limits and conditions, and the kernels of other SIMD \
levels as long as everything else is the same.

Examples:
  brick gate record smollm2 -o gates/smollm2.gate.toml --reason \"first record\"
  brick gate record -o gates/smollm2.gate.toml --instructions --reason \"faster Q4_1 kernel\"")]
pub(crate) struct GateRecordArgs {
    /// A known name, hf://owner/repo/file.gguf, or a path [default: the model of the file]
    pub(crate) model: Option<String>,
    /// Random weights in the sizes of a published model, instead of MODEL (docs/models.md)
    #[arg(long, value_name = "SHAPE:TYPE", conflicts_with = "model")]
    pub(crate) synthetic: Option<Synthetic>,
    /// The file, FILE.gate.toml by custom
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Why facts changed, kept in the file
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Count the instructions of a token as well (needs valgrind)
    #[arg(long)]
    pub(crate) instructions: bool,
    /// Break something on purpose, for tests of the gate
    #[arg(long, value_name = "FAULT", hide = true)]
    pub(crate) inject: Option<Fault>,
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own
#[command(after_help = "\
What fails (exit code 3): an exact fact that is another; more instructions than the limit, with the same compiler; a brick that took \
longer than the limit allows in three repeats out of three. What cannot be judged here, because a tool is missing or the machine is \
unsteady, is said, and exits with 0.

Examples:
  brick gate check gates/smollm2.gate.toml                        exact facts, in seconds
  brick gate check gates/smollm2.gate.toml --instructions         and the instructions of a token
  brick gate check gates/smollm2.gate.toml --base ./brick-main    and this program against another, in turn
  brick gate check gates/smollm2.gate.toml --markdown --junit gate.xml")]
pub(crate) struct GateCheckArgs {
    /// What `brick gate record` wrote
    pub(crate) file: PathBuf,
    /// The model, if it is elsewhere than the file says
    pub(crate) model: Option<String>,
    /// Random weights in the sizes of a published model, instead of MODEL (docs/models.md)
    #[arg(long, value_name = "SHAPE:TYPE", conflicts_with = "model")]
    pub(crate) synthetic: Option<Synthetic>,
    /// Count the instructions of a token and compare them (needs valgrind)
    #[arg(long)]
    pub(crate) instructions: bool,
    /// Another brick to compare times with, in turn: the program of the branch that a change is for
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) base: Option<PathBuf>,
    /// Calls that are compared
    #[arg(long, value_enum, value_name = "CALL,…", value_delimiter = ',', default_values = ["decode", "prompt"])]
    pub(crate) calls: Vec<GateCall>,
    /// Largest ratio of times [default: that of the file]
    #[arg(long, value_name = "RATIO")]
    pub(crate) limit: Option<f64>,
    /// Rounds of a repeat; each measures the base, the base again, and this program
    #[arg(long, value_name = "N", default_value_t = 42, value_parser = clap::value_parser!(u32).range(6..=10_000))]
    pub(crate) rounds: u32,
    /// Threads of what is measured. Several wait for each other, and on a busy machine for the system
    #[arg(long, short = 't', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// Fraction of the roofline that is reached: said only, unless the machine is quiet
    #[arg(long)]
    pub(crate) roofline: bool,
    /// This machine does nothing else: judge the fraction of the roofline (as PERF_HOST=quiet)
    #[arg(long)]
    pub(crate) quiet_host: bool,
    /// The report as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The report as Markdown, for a comment on a pull request
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
    /// Also write the report as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Also append a line of JSON per check to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
    /// Break something on purpose, for tests of the gate: work:BRICK, without:PASS, allocation, extra-step
    #[arg(long, value_name = "FAULT", hide = true)]
    pub(crate) inject: Option<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GateCall {
    /// One token
    Decode,
    /// A piece of a prompt
    Prompt,
}

#[derive(Debug, Args)]
pub(crate) struct GateWorkerArgs {
    pub(crate) model: String,
    #[arg(long)]
    pub(crate) threads: usize,
    /// Positions of the KV cache
    #[arg(long)]
    pub(crate) context: usize,
    /// Rows of the largest call
    #[arg(long)]
    pub(crate) batch: usize,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) kv_type: KvTypeArg,
    /// Positions that are filled before anything is measured
    #[arg(long)]
    pub(crate) depth: usize,
    #[arg(long)]
    pub(crate) inject: Option<Fault>,
}
