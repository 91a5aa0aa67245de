//! Flags of `brick report` and `brick score`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  brick profile smollm2 -o base.json             record once …
  brick report base.json                         … look many ways: the table per kind of brick
  brick report base.json --layer 7               the bricks of layer 7, slowest first
  brick report base.json --steps 20              the 20 slowest bricks of the model
  brick report base.json --html -o base.html     everything, for a browser
  brick report base.json --format trace -o t.json    for Perfetto (ui.perfetto.dev) or speedscope
  brick report base.json --format dot --heat roofline | dot -Tsvg > graph.svg
  brick report diff base.json new.json           what became faster, what slower, and by how much"
)]
pub(crate) struct ReportArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ReportCommand>,
    /// A profile that `brick profile -o` wrote; - reads standard input
    #[arg(required = true)]
    pub(crate) profile: Option<PathBuf>,
    /// Form of the report
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: ReportFormat,
    /// The same as --format markdown
    #[arg(long, group = "form", conflicts_with = "format")]
    pub(crate) markdown: bool,
    /// The same as --format json: the profile itself, checked
    #[arg(long, group = "form", conflicts_with = "format")]
    pub(crate) json: bool,
    /// The same as --format html
    #[arg(long, group = "form", conflicts_with = "format")]
    pub(crate) html: bool,
    /// What the colours of --format dot and mermaid say
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    pub(crate) heat: HeatArg,
    /// Tables: only this phase. Graphs and plots: this phase [default: decode if it was recorded]
    #[arg(long, value_enum, value_name = "PHASE")]
    pub(crate) phase: Option<PhaseArg>,
    /// Tables: only the bricks of this layer, slowest first
    #[arg(long, value_name = "N")]
    pub(crate) layer: Option<u32>,
    /// Tables: also list single bricks, slowest first; all of them, or N
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "4294967295")]
    pub(crate) steps: Option<u32>,
    /// Write to a file instead of standard output
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// Compare two profiles, brick by brick
    Diff(DiffArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Bricks are matched by their path, forward calls by their size. A row is faster or slower only if the whole interval of its \
ratio lies beyond the threshold; the intervals of a table hold together. The two recordings were made one after the other, \
so a difference that all bricks share may be the machine's: `brick gate` measures two programs in turn.")]
pub(crate) struct DiffArgs {
    /// The profile to compare with
    pub(crate) first: PathBuf,
    /// The profile that is compared
    pub(crate) second: PathBuf,
    /// Differences up to this fraction are none
    #[arg(long, value_name = "X", default_value_t = 0.02)]
    pub(crate) threshold: f64,
    /// List the N bricks that contribute most
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) steps: usize,
    /// The comparison as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The comparison as Markdown
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// Tables
    Text,
    /// Tables for a pull request
    Markdown,
    /// The profile itself
    Json,
    /// Execution graph model → layer → brick → kernel as a tree
    Ascii,
    /// The same for Graphviz, coloured
    Dot,
    /// The same for Mermaid
    Mermaid,
    /// The same as JSON: nodes and edges
    Graph,
    /// The same as compressed sparse rows, in JSON
    Csr,
    /// One file for a browser, without network: graph, flame chart, roofline, budgets, heat map
    Html,
    /// Trace Event Format, for Perfetto and chrome://tracing: a track per thread and per layer
    Trace,
    /// Flame graph as SVG
    Flamegraph,
    /// Stacks for flame graph tools: a line each, with nanoseconds
    Folded,
    /// Roofline of the machine with every kind of brick, for a terminal
    Roofline,
    /// The same as SVG
    RooflineSvg,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum HeatArg {
    /// Time, among nodes of the same kind
    #[default]
    Time,
    /// Distance from the least time the machine allows
    Roofline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PhaseArg {
    Prefill,
    Decode,
    Mixed,
}

impl From<PhaseArg> for brick_profiler::Phase {
    fn from(phase: PhaseArg) -> Self {
        match phase {
            PhaseArg::Prefill => Self::Prefill,
            PhaseArg::Decode => Self::Decode,
            PhaseArg::Mixed => Self::Mixed,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Grades: A from 90, B from 80, C from 70, D from 60, F below. The model's score is the mean of its kinds of bricks.

Examples:
  brick score base.json
  brick score base.json --threshold 80 --json    exits with 1 below 80")]
pub(crate) struct ScoreArgs {
    /// A profile that `brick profile -o` wrote; - reads standard input
    pub(crate) profile: PathBuf,
    /// Exit with 1 if the model's score is below this, or there is none
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) threshold: Option<u32>,
    /// Phase [default: decode if it was recorded]
    #[arg(long, value_enum, value_name = "PHASE")]
    pub(crate) phase: Option<PhaseArg>,
    /// The scores as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The scores as Markdown
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
}
