//! What can be wrong with a vocabulary, a text to encode, or an id to decode.

use super::data::SUPPORTED_MODELS;
use super::pretokenize::supported_names;
use crate::format::gguf::MetadataError;

/// Why no tokenizer could be built from a vocabulary.
#[derive(Debug, thiserror::Error)]
pub enum VocabError {
    /// The metadata has no usable value under a key the tokenizer needs.
    #[error("tokenizer metadata: {0}")]
    Metadata(#[from] MetadataError),
    /// Another algorithm than those implemented.
    #[error("`tokenizer.ggml.model`: expected one of {}, found {found:?}", list(SUPPORTED_MODELS.iter().copied()))]
    UnknownModel {
        /// The name in the file.
        found: String,
    },
    /// A pre-tokenizer whose rules are not known; guessing them would silently change every prompt.
    #[error("`tokenizer.ggml.pre`: expected one of {}, found {found:?}", list(supported_names()))]
    UnknownPreTokenizer {
        /// The name in the file.
        found: String,
    },
    /// The token list is empty.
    #[error("`tokenizer.ggml.tokens`: expected at least one token, found none")]
    Empty,
    /// More tokens, or more bytes of tokens, than 32-bit ids and offsets can address.
    #[error("`tokenizer.ggml.tokens`: expected fewer than 2^32 tokens and bytes of text, found {tokens} tokens")]
    TooLarge {
        /// Number of tokens.
        tokens: usize,
    },
    /// A list that runs parallel to the tokens has another length.
    #[error("`{key}`: expected {expected} entries, one per token, found {found}")]
    Length {
        /// Metadata key of the list.
        key: &'static str,
        /// Number of tokens.
        expected: usize,
        /// Number of entries.
        found: usize,
    },
    /// A list this kind of tokenizer cannot do without.
    #[error("`{key}`: expected a list, as tokenizer model {model:?} needs it, found none")]
    MissingList {
        /// Metadata key of the list.
        key: &'static str,
        /// Name of the tokenizer model.
        model: &'static str,
    },
    /// A token type outside the format's enumeration.
    #[error("`tokenizer.ggml.token_type`: expected 0 to 6, found {found} for token {id}")]
    TokenType {
        /// The token.
        id: u32,
        /// Its type in the file.
        found: i32,
    },
    /// A score that has no order.
    #[error("`tokenizer.ggml.scores`: expected a number, found NaN for token {id}")]
    Score {
        /// The token.
        id: u32,
    },
    /// A byte token whose text does not say which byte.
    #[error("`tokenizer.ggml.tokens`: expected the byte token {id} to read `<0x00>` to `<0xFF>`, found {text:?}")]
    ByteToken {
        /// The token.
        id: u32,
        /// Its text.
        text: String,
    },
    /// A merge that is not two parts separated by a space.
    #[error("`tokenizer.ggml.merges`: expected two parts separated by a space, found {text:?} in entry {index}")]
    MergeSyntax {
        /// Index in the list of merges.
        index: usize,
        /// The entry.
        text: String,
    },
    /// A merge whose part or result is no token.
    #[error("`tokenizer.ggml.merges`: expected the {part} of entry {index} to be a token, found {text:?}")]
    MergeToken {
        /// Index in the list of merges.
        index: usize,
        /// `left part`, `right part` or `result`.
        part: &'static str,
        /// The text that is no token.
        text: String,
    },
    /// A special token's id that is outside the vocabulary.
    #[error("`{key}`: expected an id below the vocabulary size {size}, found {found}")]
    SpecialId {
        /// Metadata key of the id.
        key: &'static str,
        /// The id in the file.
        found: u32,
        /// Number of tokens.
        size: usize,
    },
    /// The file asks for a token at one end of every text but does not name it.
    #[error("`{flag}` is true: expected an id under `{key}`, found none")]
    MissingSpecial {
        /// Metadata key of the flag.
        flag: &'static str,
        /// Metadata key of the missing id.
        key: &'static str,
    },
    /// The search structure over the special tokens could not be built.
    #[error("special tokens: {message}")]
    SpecialSearch {
        /// What the search library said.
        message: String,
    },
}

/// Why a text could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The text is longer than 32-bit offsets can address.
    #[error("text to encode: expected fewer than {max} bytes, found {found}")]
    TooLong {
        /// The limit in bytes.
        max: usize,
        /// The text's length in bytes.
        found: usize,
    },
    /// The vocabulary covers neither this piece of text nor its bytes, and has no token for the unknown.
    #[error("text to encode: no token for {text:?}, none for byte 0x{byte:02X} of it, and no unknown token")]
    NoToken {
        /// The smallest piece of text that has no token.
        text: String,
        /// Its first byte without a token.
        byte: u8,
    },
}

/// An id outside the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("token id: expected less than the vocabulary size {size}, found {found}")]
pub struct UnknownToken {
    /// The id.
    pub found: u32,
    /// Number of tokens in the vocabulary.
    pub size: usize,
}

/// `"a", "b"` for a message.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}
