//! Every command, flag and help text.

mod bench;
mod gate;
mod gpu;
mod ptx;
mod report;
mod top;
mod trace;

use std::path::PathBuf;

use brick_models::synthetic::Synthetic;
use brick_runtime::Speculation;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use bench::{BenchArgs, LlamaBenchForm};
pub(crate) use gate::{GateArgs, GateCall, GateCheckArgs, GateCommand, GateRecordArgs, GateWorkerArgs};
pub(crate) use gpu::{DeviceArgs, GpuCheckArgs, GpuPart};
pub(crate) use ptx::PtxArgs;
pub(crate) use report::{DiffArgs, HeatArg, PhaseArg, ReportArgs, ReportCommand, ReportFormat, ScoreArgs};
pub(crate) use top::TopArgs;
pub(crate) use trace::{TraceArgs, TraceKind};

use crate::exit;

/// Runs language models as graphs of bricks and accounts for every brick of every token.
#[derive(Debug, Parser)]
#[command(
    name = "brick",
    version,
    about = "Runs language models as graphs of bricks and accounts for every brick of every token",
    after_help = exit::HELP,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Log to standard error: error, warn, info, debug, trace, or target=level
    #[arg(long, global = true, value_name = "FILTER", env = "BRICK_LOG", help_heading = "Global options")]
    pub(crate) log: Option<String>,
    /// Colours in the output
    #[arg(long, global = true, value_enum, default_value_t, help_heading = "Global options")]
    pub(crate) color: ColorChoice,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal only
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Answer a prompt (argument or standard input); chat when there is neither
    Run(RunArgs),
    /// Talk to a model
    Chat(ChatArgs),
    /// Where the time of a token goes, brick by brick, against a budget
    Profile(ProfileArgs),
    /// Watch a model while it runs, brick by brick; or report once, for CI
    Top(Box<TopArgs>),
    /// Look at a recorded profile: tables, graph, flame chart, roofline, HTML; compare two
    Report(Box<ReportArgs>),
    /// Points and a grade for every kind of brick of a recorded profile
    Score(ScoreArgs),
    /// Tokens per second of forward calls: prompt and generation, by depth, sequences, threads
    Bench(BenchArgs),
    /// How well a model predicts a text
    Perplexity(PerplexityArgs),
    /// The graph a model is: bricks, wires, weights, static cost
    Graph(GraphArgs),
    /// Compare every brick with its scalar reference; name the first that diverges
    Check(CheckArgs),
    /// Performance gates for CI: record exact facts of a model, and check against them
    Gate(GateArgs),
    /// Measures forward calls for another brick, over standard input and output
    #[command(hide = true)]
    GateWorker(GateWorkerArgs),
    /// The values of forward calls: activations, attention, logits by layer, rounding errors, KV cache
    Trace(TraceArgs),
    /// Text to token ids and back
    Tokenize(TokenizeArgs),
    /// What a model file holds: metadata, tensors, parameters, bytes by type
    Inspect(InspectArgs),
    /// The measured limits of this computer, from which budgets are derived
    Machine(MachineArgs),
    /// GPU kernels: their text, what they take of the hardware, what bounds them
    Ptx(PtxArgs),
    /// Certify a GPU: kernels and models against CPU and interpreter, limits, speeds; one JSON document
    GpuCheck(GpuCheckArgs),
    /// Download a model
    Pull(PullArgs),
    /// List downloaded models
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Remove a downloaded model
    Rm(RmArgs),
    /// Test every claim this project makes; print the score board
    Falsify(FalsifyArgs),
    /// Shell completions
    Completions(CompletionsArgs),
}

/// Which model, and how it is set up.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelArgs {
    /// A known name (smollm2, qwen2.5-coder:1.5b), hf://owner/repo/file.gguf, or a path
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// A model, or one with made-up weights.
#[derive(Debug, Clone, Args)]
#[group(id = "source", required = true, multiple = false)]
pub(crate) struct SourceArgs {
    /// A known name (smollm2, qwen2.5-coder:1.5b), hf://owner/repo/file.gguf, or a path
    pub(crate) model: Option<String>,
    /// Random weights in the sizes of a published model, instead of MODEL (docs/models.md)
    #[arg(long, value_name = "SHAPE:TYPE")]
    pub(crate) synthetic: Option<Synthetic>,
}

/// How an engine is set up.
#[derive(Debug, Clone, Args)]
pub(crate) struct EngineArgs {
    /// Threads [default: the physical cores this process may use, within its CPU quota]
    #[arg(long, short = 't', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Leave threads where the system puts them, also where they fill the cores
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Context length in tokens [default: the model's own, at most 4096]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) ctx: Option<u32>,
    /// Most tokens of a prompt computed at once
    #[arg(long, value_name = "ROWS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) batch: u32,
    /// Element type of the KV cache: q8_0 takes 53 % of the memory of f16 and is slightly less exact
    #[arg(long, value_name = "TYPE", value_enum, default_value_t)]
    pub(crate) kv_type: KvTypeArg,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum KvTypeArg {
    #[default]
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<KvTypeArg> for bricks::cpu::attention::KvType {
    fn from(kind: KvTypeArg) -> Self {
        match kind {
            KvTypeArg::F16 => Self::F16,
            KvTypeArg::Q8_0 => Self::Q8_0,
        }
    }
}

/// How tokens are chosen.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// 0 takes the most likely token every time; higher is more varied
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub(crate) temperature: f32,
    /// Keep the K most likely tokens; 0 keeps all
    #[arg(long, value_name = "K", default_value_t = 40)]
    pub(crate) top_k: usize,
    /// Keep the most likely tokens that reach probability P together
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    pub(crate) top_p: f32,
    /// Drop tokens less likely than P times the most likely
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    pub(crate) min_p: f32,
    /// Make recent tokens less likely; 1 is off
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(crate) repeat_penalty: f32,
    /// How many recent tokens the penalty looks at
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) repeat_last_n: usize,
    /// The same seed gives the same text [default: random, shown at the end]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Tokens to generate at most [default: until the model or the context ends]
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
    /// End the answer where this text appears (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Propose tokens from what the text said before and check several at once: auto (where it pays), off, or N tokens. Changes
    /// the speed, never the answer
    #[arg(long, value_name = "auto|off|N", default_value = "off", value_parser = speculation, help_heading = "Speculation")]
    pub(crate) speculate: Speculation,
}

/// Most tokens of a draft: each is a row of logits in memory.
const MAX_DRAFT: usize = 64;

fn speculation(value: &str) -> Result<Speculation, String> {
    match value {
        "auto" => Ok(Speculation::Auto),
        "off" => Ok(Speculation::Off),
        n => match n.parse() {
            Ok(n @ 1..=MAX_DRAFT) => Ok(Speculation::Fixed(n)),
            _ => Err(format!("expected auto, off, or a number of tokens from 1 to {MAX_DRAFT}")),
        },
    }
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own
#[command(after_help = "\
Examples:
  brick run smollm2 \"Why is the sky blue?\"
  git diff | brick run qwen2.5-coder:1.5b --system \"Review this change.\"
  brick run smollm2 --raw \"Once upon a time\" -n 50 --temperature 0.8 --seed 1
  brick run smollm2 --json --logprobs 5 --echo --raw \"The capital of France is\" -n 1")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// What to answer [default: standard input]
    pub(crate) prompt: Option<String>,
    /// System message of the chat template
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Continue the text as it is, without the chat template
    #[arg(long, conflicts_with = "system")]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// Prompt ids, generated ids, text, timings as one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// With --json: the N most likely tokens at every generated position
    #[arg(long, value_name = "N", requires = "json")]
    pub(crate) logprobs: Option<usize>,
    /// With --logprobs: the prompt's positions as well
    #[arg(long, requires = "logprobs")]
    pub(crate) echo: bool,
    /// Do not stop when the model says it is done
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// No statistics at the end
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
    /// Send spans request → forward → layer → brick to an OpenTelemetry collector (OTLP over HTTP), e.g. http://localhost:4318
    #[arg(long, value_name = "URL", help_heading = "Tracing")]
    pub(crate) otlp_endpoint: Option<String>,
    /// Let `brick top` watch this run
    #[arg(long, conflicts_with = "otlp_endpoint", help_heading = "Tracing")]
    pub(crate) live: bool,
    /// Fraction of the forward calls that have spans for layers and bricks
    #[arg(long, value_name = "X", default_value_t = 1.0, requires = "otlp_endpoint", help_heading = "Tracing")]
    pub(crate) otlp_sample: f64,
}

#[derive(Debug, Args)]
#[command(after_help = "\
In the chat: /reset forgets the conversation, /system TEXT sets the system message (and forgets), /stats shows the last answer's speed,
/exit (or Ctrl-D) leaves; Ctrl-C stops an answer.")]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// System message of the chat template
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// Let `brick top` watch this chat
    #[arg(long, help_heading = "Tracing")]
    pub(crate) live: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  brick profile smollm2                          512 prompt tokens, 64 generated
  brick profile smollm2 --pp 128 --tg 32 --json
  brick profile smollm2 --prompt \"Hello\" --graph ascii
  brick profile smollm2 --graph dot | dot -Tsvg > profile.svg
  brick profile smollm2 -o base.json && brick report base.json --layer 7
  brick profile qwen2.5-coder:1.5b --budget qwen2.5-1.5b-rtx4090 --budget-policy strict")]
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own
pub(crate) struct ProfileArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Profile this prompt (through the chat template) instead of synthetic tokens
    #[arg(long, value_name = "TEXT", conflicts_with = "pp")]
    pub(crate) prompt: Option<String>,
    /// Synthetic prompt tokens
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) pp: usize,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) tg: usize,
    /// Repetitions of prompt and generation; the first one warms up and is not counted
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeat: u32,
    /// roofline (derived from `brick machine`), a shipped table (qwen2.5-1.5b-rtx4090, default), or a TOML file
    #[arg(long, value_name = "NAME|FILE", default_value = "roofline")]
    pub(crate) budget: String,
    /// off, report, or strict: exit with 3 if a brick is over its budget, and name the worst
    #[arg(long, value_enum, default_value_t)]
    pub(crate) budget_policy: PolicyArg,
    /// Every step (layer by layer) instead of a table per kind
    #[arg(long)]
    pub(crate) steps: bool,
    /// Print the execution graph model → layer → brick → kernel with times instead of the table
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "json")]
    pub(crate) graph: Option<GraphFormat>,
    /// The whole recording as one JSON document (docs/schema/profile.schema.json)
    #[arg(long)]
    pub(crate) json: bool,
    /// The table as Markdown
    #[arg(long, conflicts_with_all = ["json", "graph"])]
    pub(crate) markdown: bool,
    /// Also write the JSON document to a file, for `brick report`
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write the captured decode step of a GPU as the driver shows it, in DOT (with --sync deferred)
    #[arg(long, value_name = "FILE")]
    pub(crate) cuda_graph: Option<PathBuf>,
    /// Inside the decode steps of a GPU: when the blocks of every launch began, were past their wait, and ended (--sync deferred)
    #[arg(long)]
    pub(crate) stamps: bool,
    /// How finely time is taken
    #[arg(long, value_enum, value_name = "MODE", default_value_t, default_value_if("stamps", "true", "deferred"))]
    pub(crate) sync: SyncArg,
    /// Forward calls of each phase that the JSON document lists one by one
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) timeline: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SyncArg {
    /// A clock reading behind every brick, on every thread
    #[default]
    Immediate,
    /// A clock reading behind every layer: less overhead, no times of bricks
    PerLayer,
    /// As immediate, with statistics computed at the end
    Deferred,
}

impl From<SyncArg> for brick_profiler::SyncMode {
    fn from(mode: SyncArg) -> Self {
        match mode {
            SyncArg::Immediate => Self::Immediate,
            SyncArg::PerLayer => Self::PerLayer,
            SyncArg::Deferred => Self::Deferred,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
The perplexity is exp of the mean negative log-likelihood of the tokens of a text: a model that had to guess among N \
equally likely tokens every time has N. Lower is better; only figures of the same text, the same --ctx and the same \
vocabulary compare.

The method is that of llama.cpp's llama-perplexity, so that figures can be compared: the text is cut into chunks of --ctx \
tokens (a rest at the end is dropped), each chunk starts from an empty context, and only the tokens of its second half \
count, so that every prediction sees at least half a chunk. Models that want BOS get it in place of the first token of each \
chunk. Special tokens spelled in the text are ordinary text. The standard error is that of the mean and takes tokens for \
independent.

Examples:
  brick perplexity smollm2 --file benches/peers/text.txt
  brick perplexity smollm2 --file book.txt --ctx 2048 --chunks 10 --json")]
pub(crate) struct PerplexityArgs {
    /// A known name (smollm2, qwen2.5-coder:1.5b), hf://owner/repo/file.gguf, or a path
    pub(crate) model: String,
    /// The text, UTF-8, taken exactly as it is; - reads standard input
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Tokens of a chunk
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(4..))]
    pub(crate) ctx: u32,
    /// Look at the first N chunks only [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) chunks: Option<u32>,
    /// Threads [default: the processors this process may use]
    #[arg(long, short = 't', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Most tokens computed at once
    #[arg(long, value_name = "ROWS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) batch: u32,
    /// The result, with the likelihood of every chunk, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum PolicyArg {
    Off,
    #[default]
    Report,
    Strict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    Ascii,
    Dot,
    Mermaid,
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  brick graph smollm2                     the graph that runs, equal layers folded
  brick graph smollm2 --after validate    as built, before any fusion
  brick graph smollm2 --format dot | dot -Tsvg > graph.svg
  brick graph smollm2 --passes            what each pass changes")]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Form of the output
    #[arg(long, value_enum, default_value = "ascii")]
    pub(crate) format: GraphFormat,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// Show the graph after this pass [default: the last fusion; see --passes]
    #[arg(long, value_name = "PASS")]
    pub(crate) after: Option<String>,
    /// List the passes with brick counts, bytes and arena
    #[arg(long, conflicts_with_all = ["after", "format"])]
    pub(crate) passes: bool,
    /// Do not fold equal layers
    #[arg(long)]
    pub(crate) all_layers: bool,
    /// Tokens of the call that costs are shown for
    #[arg(long, value_name = "T", default_value_t = 1)]
    pub(crate) tokens: u64,
    /// Context length that costs are shown for
    #[arg(long, value_name = "S", default_value_t = 512)]
    pub(crate) context: u64,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Text to run through the model [default: a fixed sentence]
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// Show every brick, not only the worst of each kind
    #[arg(long)]
    pub(crate) all: bool,
    /// Break the kernel of this brick on purpose, to see that the check finds it (e.g. blk.7.ffn_down)
    #[arg(long, value_name = "BRICK")]
    pub(crate) sabotage: Option<String>,
    /// The report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own
pub(crate) struct TokenizeArgs {
    /// A known name, hf://owner/repo/file.gguf, or a path
    pub(crate) model: String,
    /// Text to encode [default: standard input]
    #[arg(allow_hyphen_values = true)]
    pub(crate) text: Option<String>,
    /// Decode ids (separated by spaces or commas) to text instead
    #[arg(long, conflicts_with_all = ["no_special", "bos"])]
    pub(crate) decode: bool,
    /// Treat special tokens such as <|im_start|> in the text as ordinary text
    #[arg(long)]
    pub(crate) no_special: bool,
    /// Add the tokens the model expects around a text (BOS, EOS)
    #[arg(long)]
    pub(crate) bos: bool,
    /// Only the ids, on one line
    #[arg(long, conflicts_with_all = ["json", "decode"])]
    pub(crate) ids: bool,
    /// Ids, pieces and bytes as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A known name, hf://owner/repo/file.gguf, or a path
    pub(crate) model: String,
    /// Show every tensor
    #[arg(long)]
    pub(crate) tensors: bool,
    /// Show arrays and long strings in full
    #[arg(long)]
    pub(crate) full: bool,
    /// Everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MachineArgs {
    /// Measure again instead of using the cached result
    #[arg(long)]
    pub(crate) refresh: bool,
    /// The limits as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// A known name (smollm2, qwen2.5-coder:1.5b) or hf://owner/repo/file.gguf
    pub(crate) model: String,
    /// The result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress bar
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Known names that can be pulled, too
    #[arg(long)]
    pub(crate) known: bool,
    /// The list as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The model as `brick list` names it
    pub(crate) model: String,
    /// The result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FalsifyArgs {
    /// Only claims whose id or statement contains this
    pub(crate) filter: Option<String>,
    /// The score board as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
