//! Tokenizers: text to token ids and back, exactly as the model was trained with.
//!
//! A [`Tokenizer`] is built from the vocabulary in a model's file ([`VocabData`]) and implements the two kinds that
//! decoders use: byte-level BPE (`gpt2`) with the pre-tokenizer the file names, and SentencePiece BPE (`llama`).
//! Construction checks everything; after it, encoding a text and decoding valid ids do not fail for any vocabulary that
//! covers all bytes, as real ones do.
//!
//! ```no_run
//! use brick_models::format::gguf::Gguf;
//! use brick_models::tokenizer::{DecodeOptions, EncodeOptions, Tokenizer};
//!
//! let file = Gguf::open("model.gguf")?;
//! let tokenizer = Tokenizer::from_gguf(&file.metadata())?;
//! let ids = tokenizer.encode("Once upon a time", EncodeOptions::default())?;
//! assert_eq!(tokenizer.decode(&ids, DecodeOptions::default())?, "Once upon a time");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Time is n log n in the length of a text, whatever the text: no step backtracks, and the search for special tokens
//! passes over the text once per length of special token.
#![forbid(unsafe_code)]

pub(crate) mod alphabet;
mod bpe;
mod data;
mod decode;
mod error;
mod gguf;
mod pretokenize;
mod roles;
mod special;
mod spm;
#[cfg(test)]
mod tests;
mod vocab;

use std::borrow::Cow;

pub use data::{SpecialIds, TokenKind, VocabData};
pub use decode::{DecodeOptions, StreamDecoder};
pub use error::{EncodeError, UnknownToken, VocabError};

use bpe::Bpe;
use special::{Finder, Fragment};
use spm::Spm;
use vocab::Vocab;

/// The longest text that [`Tokenizer::encode`] takes, in bytes: positions are 32 bits wide, and two are spare.
pub const MAX_TEXT: usize = (u32::MAX - 2) as usize;

/// How text becomes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EncodeOptions {
    /// Put the tokens for beginning and end around the text, if the vocabulary asks for them.
    pub add_special: bool,
    /// Turn spellings of control tokens, such as `<|im_start|>`, into those tokens. For rendered chat templates; text
    /// from users taken alone should stay text.
    pub parse_special: bool,
}

/// A vocabulary with its algorithm. Immutable, and shared between threads as it is.
#[derive(Debug)]
pub struct Tokenizer {
    vocab: Vocab,
    model: Model,
    special: SpecialIds,
    /// Tokens that end generation, sorted.
    ends: Vec<u32>,
    add_bos: bool,
    add_eos: bool,
    user_defined: Finder,
    all_special: Finder,
}

#[derive(Debug)]
enum Model {
    Bpe(Bpe),
    Spm(Spm),
}

impl Tokenizer {
    /// Checks a vocabulary and builds its tables.
    ///
    /// # Errors
    /// [`VocabError`] says what was expected, what was found, and under which key.
    pub fn new(data: &VocabData<'_>) -> Result<Self, VocabError> {
        if !data::SUPPORTED_MODELS.contains(&data.model) {
            return Err(VocabError::UnknownModel { found: data.model.to_owned() });
        }
        let mut vocab = Vocab::new(data)?;
        let mut special = special_ids(data, vocab.len())?;
        let model = if data.model == data::LLAMA {
            Model::Spm(Spm::new(data, &vocab, special.unknown)?)
        } else {
            Model::Bpe(Bpe::new(data, &vocab, special.unknown)?)
        };
        let ends = roles::assign(&mut vocab, &mut special);

        let add = |asked: Option<bool>, default: bool, id: Option<u32>, flag, key| match (asked, id) {
            (Some(true), None) => Err(VocabError::MissingSpecial { flag, key }),
            (asked, id) => Ok(asked.unwrap_or(default) && id.is_some()),
        };
        let default_bos = match &model {
            Model::Bpe(bpe) => bpe.adds_bos(),
            Model::Spm(_) => true,
        };
        let add_bos =
            add(data.add_bos, default_bos, special.bos, "tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id")?;
        let add_eos =
            add(data.add_eos, false, special.eos, "tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id")?;
        let strip = data.strip_after_special;
        let user_defined = Finder::user_defined(&vocab, strip)?;
        let all_special = Finder::all(&vocab, strip)?;
        Ok(Self { vocab, model, special, ends, add_bos, add_eos, user_defined, all_special })
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] beyond [`MAX_TEXT`], and [`EncodeError::NoToken`] if the vocabulary covers neither the
    /// text nor its bytes.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, EncodeError> {
        if text.len() > MAX_TEXT {
            return Err(EncodeError::TooLong { max: MAX_TEXT, found: text.len() });
        }
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        ids.extend(self.special.bos.filter(|_| options.add_special && self.add_bos));
        let finder = if options.parse_special { &self.all_special } else { &self.user_defined };
        let mut first = true;
        for fragment in finder.fragments(text) {
            match fragment {
                Fragment::Token(id) => {
                    ids.push(id);
                    first = true;
                }
                Fragment::Text(range) => {
                    let text = &text[range];
                    match &self.model {
                        Model::Bpe(bpe) => bpe.encode(text, &self.vocab, &mut ids)?,
                        Model::Spm(spm) => spm.encode(text, first, &self.vocab, &mut ids)?,
                    }
                    first = false;
                }
            }
        }
        ids.extend(self.special.eos.filter(|_| options.add_special && self.add_eos));
        Ok(ids)
    }

    /// Number of tokens. Every id is less.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// The token spelled `text` in the vocabulary, e.g. `<|im_end|>`; ordinary tokens are spelled as the file spells
    /// them (`Ġthe`, `▁the`).
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.vocab.id(text.as_bytes())
    }

    /// The vocabulary's spelling of a token.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn token_text(&self, id: u32) -> Result<Cow<'_, str>, UnknownToken> {
        self.vocab.text(id).map(String::from_utf8_lossy)
    }

    /// The bytes a token adds to a text; part of a character possibly.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Result<&[u8], UnknownToken> {
        self.vocab.bytes(id)
    }

    /// What a token adds to a text, for display: U+FFFD stands for what is not UTF-8.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn token_to_piece(&self, id: u32) -> Result<Cow<'_, str>, UnknownToken> {
        self.vocab.bytes(id).map(String::from_utf8_lossy)
    }

    /// What a token is for.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn kind(&self, id: u32) -> Result<TokenKind, UnknownToken> {
        self.vocab.kind(id)
    }

    /// Ids of the tokens with a role.
    pub fn special(&self) -> SpecialIds {
        self.special
    }

    /// Beginning of a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// End of a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// Whether [`EncodeOptions::add_special`] puts [`bos`](Self::bos) first.
    pub fn adds_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether [`EncodeOptions::add_special`] puts [`eos`](Self::eos) last.
    pub fn adds_eos(&self) -> bool {
        self.add_eos
    }

    /// All tokens that end generation, ascending: the end of a sequence, of a turn, of a message, and the like.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.ends
    }

    /// Whether a token ends generation.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    fn adds_space_prefix(&self) -> bool {
        matches!(&self.model, Model::Spm(spm) if spm.adds_space_prefix())
    }
}

/// The ids the file states, or the model's conventional ones, checked against the vocabulary.
fn special_ids(data: &VocabData<'_>, size: usize) -> Result<SpecialIds, VocabError> {
    let inside = |id: &u32| (*id as usize) < size;
    let check = |id: Option<u32>, key| match id {
        Some(found) if !inside(&found) => Err(VocabError::SpecialId { key, found, size }),
        id => Ok(id),
    };
    let conventional = |id: u32| Some(id).filter(|_| data.model == data::LLAMA).filter(inside);
    Ok(SpecialIds {
        bos: check(data.bos, "tokenizer.ggml.bos_token_id")?.or_else(|| conventional(1)),
        eos: check(data.eos, "tokenizer.ggml.eos_token_id")?.or_else(|| conventional(2)),
        unknown: check(data.unknown, "tokenizer.ggml.unknown_token_id")?.or_else(|| conventional(0)),
        padding: data.padding.filter(inside),
        eot: check(data.eot, "tokenizer.ggml.eot_token_id")?,
        eom: check(data.eom, "tokenizer.ggml.eom_token_id")?,
    })
}
