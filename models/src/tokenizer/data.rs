//! A vocabulary as a file states it, before anything is checked.

/// Tokenizer models there is an algorithm for, as `tokenizer.ggml.model` names them.
pub(super) const SUPPORTED_MODELS: [&str; 2] = [GPT2, LLAMA];
pub(super) const GPT2: &str = "gpt2";
pub(super) const LLAMA: &str = "llama";

/// A vocabulary as a file states it. Input of [`Tokenizer::new`](super::Tokenizer::new), which checks all of it.
///
/// The texts are views, so that a vocabulary can be read from a memory map without copying it first.
/// Field by field these are the `tokenizer.ggml.*` keys of
/// [GGUF](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer).
#[derive(Debug, Clone, Default)]
pub struct VocabData<'a> {
    /// `model`: `gpt2` (byte-level BPE driven by merges) or `llama` (SentencePiece BPE driven by scores).
    pub model: &'a str,
    /// `pre`: name of the rules that cut text into words before merging. Used by `gpt2` only; none means `default`.
    pub pre: Option<&'a str>,
    /// `tokens`: spelling of each token, its index being its id. In `gpt2` vocabularies bytes are spelled as
    /// printable characters, in `llama` vocabularies spaces are spelled U+2581. Of two tokens spelled alike the first
    /// is used for encoding: converters append duplicates as padding.
    pub tokens: Vec<&'a [u8]>,
    /// `scores`: one per token; the pair whose union scores highest merges first. Needed by `llama` only.
    pub scores: Option<Vec<f32>>,
    /// `token_type`: one per token, see [`TokenKind`]. None means that all tokens are normal.
    pub token_types: Option<Vec<i32>>,
    /// `merges`: `left right`, best first. Needed by `gpt2` only.
    pub merges: Option<Vec<&'a [u8]>>,
    /// `bos_token_id`: beginning of a sequence. Defaults to 1 for `llama`.
    pub bos: Option<u32>,
    /// `eos_token_id`: end of a sequence. Defaults to 2 for `llama`.
    pub eos: Option<u32>,
    /// `unknown_token_id`: stands for text without a token. Defaults to 0 for `llama`.
    pub unknown: Option<u32>,
    /// `padding_token_id`. Nothing here pads, and many files name an id beyond their vocabulary; such an id is dropped.
    pub padding: Option<u32>,
    /// `eot_token_id`: end of a turn.
    pub eot: Option<u32>,
    /// `eom_token_id`: end of a message.
    pub eom: Option<u32>,
    /// `add_bos_token`: whether [`add_special`](super::EncodeOptions::add_special) puts `bos` first.
    pub add_bos: Option<bool>,
    /// `add_eos_token`: whether [`add_special`](super::EncodeOptions::add_special) puts `eos` last.
    pub add_eos: Option<bool>,
    /// `add_space_prefix`: whether text at the start and after special tokens gets a leading space. Used by `llama`
    /// only, where it defaults to true.
    pub add_space_prefix: Option<bool>,
    /// Whether special tokens swallow the white space after them, as those of phi-3 do. No key says so: phi-3's
    /// files are known by `general.name`.
    pub strip_after_special: bool,
}

/// What a token is for (`tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// Text.
    Normal,
    /// Stands for text without a token.
    Unknown,
    /// Structure, such as the start of a turn: matched in text only when asked to, and not part of decoded text.
    Control,
    /// Text that is matched as a whole before anything else.
    UserDefined,
    /// Left over from training.
    Unused,
    /// One byte, of text that has no token.
    Byte,
}

impl TokenKind {
    /// The kind with this number in a file. Type 0, "undefined", is what old converters wrote for normal tokens.
    pub(super) const fn from_file(number: i32) -> Option<Self> {
        Some(match number {
            0 | 1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// Whether tokens of this kind are structure rather than text.
    pub const fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// Ids of the tokens with a role of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpecialIds {
    /// Beginning of a sequence.
    pub bos: Option<u32>,
    /// End of a sequence.
    pub eos: Option<u32>,
    /// Stands for text without a token.
    pub unknown: Option<u32>,
    /// Padding.
    pub padding: Option<u32>,
    /// End of a turn.
    pub eot: Option<u32>,
    /// End of a message that calls a tool.
    pub eom: Option<u32>,
}
