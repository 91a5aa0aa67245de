//! Flags of `brick trace`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ModelArgs;

#[derive(Debug, Args)]
#[command(after_help = "\
The prompt is taken as it is, without the chat template, and continued greedily. Looking changes nothing: tokens and logits are \
those of `brick run --raw`, bit by bit.

Quantisation is measured in one of two ways. Without --against: what brick's own arithmetic adds, each brick against the f32 \
reference on the same input. With --against FILE: the stored weights against those of another file of the same model, an F16 \
one for example.

Examples:
  brick trace smollm2
  brick trace smollm2 --prompt \"The sky is\" --trace logit --tokens 4
  brick trace smollm2 --trace attention --layers 0,27-29 --heads 0-2
  brick trace smollm2 --trace quant --against smollm2-f16.gguf
  brick trace smollm2 --json --output trace.json --fail-on-anomaly")]
pub(crate) struct TraceArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// What is traced
    #[arg(long, value_name = "KIND,…", value_enum, value_delimiter = ',', default_value = "all")]
    pub(crate) trace: Vec<TraceKind>,
    /// Text to continue [default: a fixed sentence]
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tokens: u32,
    /// Layers to trace, e.g. 0,27 or 0-3,27 [default: all]
    #[arg(long, value_name = "N,…", value_parser = selection)]
    pub(crate) layers: Option<Selection>,
    /// Attention heads to trace, e.g. 0-2 [default: all]
    #[arg(long, value_name = "N,…", value_parser = selection)]
    pub(crate) heads: Option<Selection>,
    /// Positions to keep of each row of attention weights
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub(crate) top_k: usize,
    /// Compare the weights with those of another file of the same model (a name or a path)
    #[arg(long, value_name = "MODEL")]
    pub(crate) against: Option<String>,
    /// Also say what patterns mean and where to look
    #[arg(long, conflicts_with = "json")]
    pub(crate) explain: bool,
    /// Exit with 3 if there is an anomaly that is more than a note
    #[arg(long)]
    pub(crate) fail_on_anomaly: bool,
    /// All traces as one JSON document (docs/schema/trace.schema.json)
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write the JSON document to a file
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TraceKind {
    /// Everything below
    All,
    /// Statistics of the values that pass through each layer
    Activation,
    /// Where each head looks, at the last position of the prompt and at each generated one
    Attention,
    /// What the model would say after each layer
    Logit,
    /// Rounding errors
    Quant,
    /// State of the KV cache
    Kv,
}

/// Numbers of layers or heads, in order, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection(pub(crate) Vec<u32>);

/// More layers or heads than any model has.
const MAX_SELECTED: u32 = 65_535;

fn selection(value: &str) -> Result<Selection, String> {
    let number = |s: &str| s.parse::<u32>().ok().filter(|n| *n <= MAX_SELECTED);
    let mut all = Vec::new();
    for part in value.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        match (number(from), number(to)) {
            (Some(from), Some(to)) if from <= to => all.extend(from..=to),
            _ => return Err(format!("expected numbers or ranges such as 0,27 or 0-3, found {part:?}")),
        }
    }
    all.sort_unstable();
    all.dedup();
    Ok(Selection(all))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    #[test]
    fn selections_are_numbers_and_ranges() {
        let of = |s| super::selection(s).map(|s| s.0);
        assert_eq!(of("27,0"), Ok(vec![0, 27]));
        assert_eq!(of("0-3,2,7-7"), Ok(vec![0, 1, 2, 3, 7]));
        for bad in ["", "a", "3-1", "1,", "-1", "0-4294967295", "1-2-3"] {
            assert!(of(bad).unwrap_err().contains("found"), "{bad}");
        }
    }
}
