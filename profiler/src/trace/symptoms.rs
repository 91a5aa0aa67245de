//! What a pattern means and where to look.

use std::fmt::Write;

use crate::report::Style;
use crate::report::table::{Tone, paint};

/// A pattern, what it means, and where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symptom {
    /// What is seen.
    pub symptom: &'static str,
    /// What a trace shows then.
    pub pattern: &'static str,
    /// What to look at next.
    pub look: &'static str,
}

/// The table of `brick trace --explain`.
pub const SYMPTOMS: &[Symptom] = &[
    Symptom {
        symptom: "NaN or infinity",
        pattern: "error `not a number` or `infinite`; the first one listed is where it began, the others follow from it",
        look: "the brick before that tensor: `brick check` (kernel), `brick inspect --tensors` (weights)",
    },
    Symptom {
        symptom: "Noise instead of text",
        pattern: "`explosion` or `vanishing`; or no decisive layer, with probabilities near 1 / vocabulary",
        look: "the first layer that shows it: norm gains, embedding scale, rotary base, a tensor in the wrong order",
    },
    Symptom {
        symptom: "A layer that does nothing",
        pattern: "`bypass`: kept above 0.99",
        look: "attention output and FFN output of that layer: one near 0 is a projection that was not loaded",
    },
    Symptom {
        symptom: "Repetition",
        pattern: "attention: the most recent positions have most of the weight in all heads",
        look: "the sampler (--repeat-penalty, --temperature); rotary positions, if it happens from the first token on",
    },
    Symptom {
        symptom: "Lost context",
        pattern: "attention: early positions that matter have no weight in any head or layer",
        look: "sliding window, --ctx beyond the trained length, rotary scaling",
    },
    Symptom {
        symptom: "Attention sink",
        pattern: "`attention sink`: position 0 has most of the weight",
        look: "nothing, if some heads of some layers do it: that is how a head rests. All heads of all layers: BOS missing or \
               doubled, keys of other positions broken",
    },
    Symptom {
        symptom: "Attention collapse",
        pattern: "`attention collapse`: all weight on one other position. A note for some heads, a warning for all of a layer",
        look: "the scale of queries and keys (head size, bias), the KV cache's type (--kv-type f16)",
    },
    Symptom {
        symptom: "Confusion",
        pattern: "attention: entropy near ln n in all heads; logits: a flat distribution, low p",
        look: "queries and keys near 0: normed input, Q and K weights; a prompt that the model does not know (template)",
    },
    Symptom {
        symptom: "Wrong token",
        pattern: "`rank jump`: the right one led after a late layer and is overtaken; a decisive layer at the very end",
        look: "what that layer adds (FFN output); quantisation of that layer (`--trace quant`); the margin in p",
    },
    Symptom {
        symptom: "Quality lost to quantisation",
        pattern: "`quantisation drift`: cosine below 0.99, or one tensor far below the SNR of its like",
        look: "`--against` the F16 file for the weights; a wider type for those tensors; `brick perplexity`",
    },
    Symptom {
        symptom: "Context lost in the cache",
        pattern: "`KV thrashing`: hit rate below 0.5; evictions",
        look: "prompts that differ at their beginning; a larger --ctx. brick's own cache evicts nothing",
    },
];

/// The table as text.
pub fn symptoms_text(style: Style) -> String {
    let plain = |s: &str| style.plain(s);
    let mut out = String::new();
    for s in SYMPTOMS {
        let _ = writeln!(out, "{}", paint(&plain(s.symptom), Tone::Bold, style));
        let _ = writeln!(out, "  pattern  {}", plain(s.pattern));
        let _ = writeln!(out, "  look at  {}", plain(s.look));
    }
    out
}
