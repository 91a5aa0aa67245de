//! Flags of `brick bench`.

use clap::{Args, ValueEnum};

use super::{DeviceArgs, SourceArgs};

#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is recorded and nothing is sampled: the clock is around forward calls of synthetic tokens, as in llama.cpp's \
llama-bench. Lists are combined: every --pp and --tg at every --depth, with every number of --sequences, on every number of \
--threads. Every test warms up once and is then repeated; the interval is that of the median, by a block bootstrap.

Another program is measured in turn with --vs-cmd or --vs: one repetition of one, one of the other, changing who comes first. The \
ratio is taken within rounds. A figure above what this machine can physically do (see `brick machine`) is refused.

Examples:
  brick bench smollm2                                      a prompt of 512 tokens; 128 tokens from an empty context
  brick bench smollm2 --pp 0 --tg 128 --depth 128,4096     what a long context costs
  brick bench smollm2 --pp 0 --tg 64 --sequences 1,8       what company brings
  brick bench smollm2 --threads 1,2 --markdown
  brick bench smollm2 --vs-cmd \"llama-bench -m model.gguf -fa 1\"
  brick bench smollm2 --vs http://localhost:8080           any server with the OpenAI API
  brick bench --synthetic qwen2.5-coder-7b:q4_k_m          the sizes of a model, without its weights")]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Tokens of a prompt; 0 measures no prompt
    #[arg(long, short = 'p', value_name = "N,…", value_delimiter = ',', default_value = "512")]
    pub(crate) pp: Vec<u32>,
    /// Tokens to generate, one a call; 0 measures no generation
    #[arg(long, short = 'n', value_name = "N,…", value_delimiter = ',', default_value = "128")]
    pub(crate) tg: Vec<u32>,
    /// Tokens in the context before the clock starts
    #[arg(long, short = 'd', value_name = "N,…", value_delimiter = ',', default_value = "0")]
    pub(crate) depth: Vec<u32>,
    /// Sequences computed together; the speed is that of all of them
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) sequences: Vec<u16>,
    /// Threads [default: the processors this process may use]
    #[arg(long, short = 't', value_name = "N,…", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Vec<u16>,
    /// Repetitions of each test after its warm-up
    #[arg(long, short = 'r', value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) repeat: u32,
    /// Stop repeating a test after so many seconds, but not before the fifth time
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub(crate) seconds: u64,
    /// Measure another program in turn: a command that takes llama-bench's options (-p, -n, -d, -t, -r, -o json are added)
    #[arg(long, value_name = "COMMAND", help_heading = "Side by side")]
    pub(crate) vs_cmd: Option<String>,
    /// Measure a server with the OpenAI API in turn (/v1/completions, streamed; prompts are token ids)
    #[arg(long, value_name = "URL", conflicts_with = "vs_cmd", help_heading = "Side by side")]
    pub(crate) vs: Option<String>,
    /// The server's model [default: the first it names]
    #[arg(long, value_name = "NAME", requires = "vs", help_heading = "Side by side")]
    pub(crate) vs_model: Option<String>,
    /// Most tokens of a prompt computed at once
    #[arg(long, value_name = "ROWS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) batch: u32,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Every sample, with model and machine, as JSON (docs/schema/bench.schema.json)
    #[arg(long)]
    pub(crate) json: bool,
    /// The table as Markdown
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
    /// Print as llama-bench does
    #[arg(long, short = 'o', value_name = "FORMAT", value_enum, conflicts_with_all = ["json", "markdown"])]
    pub(crate) llama_bench: Option<LlamaBenchForm>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LlamaBenchForm {
    Md,
    Csv,
    Json,
    Jsonl,
}
