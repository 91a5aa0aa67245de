//! Flags of `brick top`.

use std::path::PathBuf;

use clap::Args;

use super::EngineArgs;

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own
#[command(
    group = clap::ArgGroup::new("no_screen").multiple(true),
    group = clap::ArgGroup::new("limit").multiple(true),
    after_help = "\
Without MODEL, `brick top` attaches to a run that was started with --live: to the only one, or to the one that --attach names. \
With MODEL it runs the model itself: a prompt, then tokens until the context is full, again and again. In the view, ? lists the \
keys. A figure with * is derived; all others are measured.

--headless needs no terminal: it reports once and ends. Exit codes: 1 if a threshold fails (with --fail-on-threshold or --ci), and \
if there is no profile data.

Examples:
  brick top smollm2                                     watch a model that this command runs
  brick run smollm2 --live -n 2000 \"Tell me a story\"    in one terminal …
  brick top                                             … and in another, watch it
  brick top --attach 4711 --headless                    what process 4711 has computed so far
  brick top smollm2 --headless --json -o top.json
  brick top smollm2 --ci --min-tok-s 40 --max-cv 15     exit 1 below 40 tokens per second"
)]
pub(crate) struct TopArgs {
    /// Run this model: a known name (smollm2, qwen2.5-coder:1.5b), hf://owner/repo/file.gguf, or a path
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Watch the run of this process, or behind this socket
    #[arg(long, value_name = "PID|PATH", conflicts_with = "model", help_heading = "Attaching")]
    pub(crate) attach: Option<String>,
    /// Continue this prompt (through the chat template) instead of synthetic tokens
    #[arg(long, value_name = "TEXT", requires = "model", conflicts_with = "pp", help_heading = "Running")]
    pub(crate) prompt: Option<String>,
    /// Synthetic prompt tokens
    #[arg(
        long,
        value_name = "N",
        default_value_t = 32,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Running"
    )]
    pub(crate) pp: u32,
    /// Tokens to decode before the report, or before the prompt is computed again [default: 64 headless, else until the context is full]
    #[arg(
        long,
        visible_alias = "steps",
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        help_heading = "Running"
    )]
    pub(crate) tokens: Option<u32>,
    /// Report once instead of showing a view; needs no terminal
    #[arg(long, group = "no_screen", help_heading = "Reporting")]
    pub(crate) headless: bool,
    /// The report as JSON (docs/schema/top.schema.json)
    #[arg(long, requires = "no_screen", help_heading = "Reporting")]
    pub(crate) json: bool,
    /// Also write the JSON document to a file
    #[arg(long, short = 'o', value_name = "FILE", requires = "no_screen", help_heading = "Reporting")]
    pub(crate) output: Option<PathBuf>,
    /// Tokens per second, at least
    #[arg(long, alias = "throughput", group = "limit", value_name = "X", value_parser = figure, help_heading = "Thresholds")]
    pub(crate) min_tok_s: Option<f64>,
    /// Coefficient of variation of a token's time, below P per cent
    #[arg(long, group = "limit", value_name = "P", value_parser = figure, help_heading = "Thresholds")]
    pub(crate) max_cv: Option<f64>,
    /// Score of the model, at least
    #[arg(
        long,
        alias = "brick-score",
        group = "limit",
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(0..=1000),
        help_heading = "Thresholds"
    )]
    pub(crate) min_score: Option<u32>,
    /// Exit with 1 if a threshold fails
    #[arg(long, requires = "no_screen", requires = "limit", help_heading = "Thresholds")]
    pub(crate) fail_on_threshold: bool,
    /// The same as --headless --fail-on-threshold
    #[arg(long, group = "no_screen", requires = "limit", help_heading = "Thresholds")]
    pub(crate) ci: bool,
}

fn figure(text: &str) -> Result<f64, String> {
    let x: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if x.is_finite() && x >= 0.0 { Ok(x) } else { Err("expected a figure of at least 0".into()) }
}
