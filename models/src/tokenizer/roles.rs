//! Roles of tokens that files do not state and that are known by the tokens' spelling.
//!
//! Most files name one end-of-sequence token, while models end their turns with others. These lists are the spellings
//! that models in the wild use; the reference is llama.cpp, so that generation stops where it does there.

use super::data::{SpecialIds, TokenKind};
use super::vocab::Vocab;

/// Ends a turn. The first that exists is used where the file names none.
const END_OF_TURN: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

/// Ends a message that calls a tool.
const END_OF_MESSAGE: &[&str] = &["<|eom_id|>"];

/// Ends generation.
const END_OF_GENERATION: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
];

/// Parts of fill-in-the-middle prompts: the code before, after and in the gap.
const INFILL: [&[&str]; 3] = [
    &["<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>"],
    &["<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>"],
    &["<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>"],
];

/// Padding, repository and file separators of fill-in-the-middle prompts: a model that emits one is done.
const INFILL_ENDS: [&[&str]; 3] = [
    &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
    &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
    &["<|file_sep|>"],
];

/// Structure of the harmony format that is part of the text.
const SHOWN: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Completes `ids`, corrects the kinds of tokens with a known role, and returns the tokens that end generation, sorted.
pub(super) fn assign(vocab: &mut Vocab, ids: &mut SpecialIds) -> Vec<u32> {
    ids.eot = ids.eot.or_else(|| control(vocab, END_OF_TURN));
    ids.eom = ids.eom.or_else(|| control(vocab, END_OF_MESSAGE));
    for names in INFILL {
        control(vocab, names);
    }
    let mut ends: Vec<u32> = INFILL_ENDS.iter().filter_map(|names| control(vocab, names)).collect();
    for name in END_OF_GENERATION {
        ends.extend(control(vocab, &[name]));
    }
    for name in SHOWN {
        if let Some(id) = vocab.id(name.as_bytes()) {
            vocab.set_kind(id, TokenKind::UserDefined);
        }
    }
    ends.extend([ids.eos, ids.eot, ids.eom].into_iter().flatten());

    // Where messages end with `<|return|>` or a call, `<|end|>` only separates a message's parts.
    let has = |ends: &[u32], name: &str| vocab.id(name.as_bytes()).is_some_and(|id| ends.contains(&id));
    let calls = has(&ends, "<|call|>") || has(&ends, "<|calls|>");
    if calls
        && (has(&ends, "<|return|>") || has(&ends, "<|flush|>"))
        && let Some(id) = vocab.id(b"<|end|>")
    {
        ends.retain(|&end| end != id);
        vocab.set_kind(id, TokenKind::UserDefined);
    }
    ends.sort_unstable();
    ends.dedup();
    ends
}

/// The first token spelled like one of `names`, which is made a control token: some converters wrote them as text.
fn control(vocab: &mut Vocab, names: &[&str]) -> Option<u32> {
    let id = names.iter().find_map(|name| vocab.id(name.as_bytes()))?;
    vocab.set_kind(id, TokenKind::Control);
    Some(id)
}
