//! A vocabulary out of the metadata of a GGUF file.

use super::Tokenizer;
use super::data::VocabData;
use super::error::VocabError;
use crate::format::gguf::Metadata;

impl<'a> VocabData<'a> {
    /// Reads the `tokenizer.ggml.*` keys; the texts stay where they are. `remove_extra_whitespaces` is not read: only
    /// unigram models, of which there are none here, act on it.
    ///
    /// # Errors
    /// [`VocabError::Metadata`] if a key is missing or has another type.
    pub fn from_gguf(metadata: &Metadata<'a>) -> Result<Self, VocabError> {
        let id = |name: &str| metadata.opt::<u32>(&format!("tokenizer.ggml.{name}_token_id"));
        let flag = |name: &str| metadata.opt::<bool>(&format!("tokenizer.ggml.{name}"));
        let name = metadata.opt::<&str>("general.name")?.unwrap_or_default().to_lowercase();
        Ok(Self {
            model: metadata.get_str("tokenizer.ggml.model")?,
            pre: metadata.opt("tokenizer.ggml.pre")?,
            tokens: metadata.get_array_str("tokenizer.ggml.tokens")?.iter().collect(),
            scores: metadata.opt("tokenizer.ggml.scores")?,
            token_types: metadata.opt("tokenizer.ggml.token_type")?,
            merges: metadata.opt_array_str("tokenizer.ggml.merges")?.map(|merges| merges.iter().collect()),
            bos: id("bos")?,
            eos: id("eos")?,
            unknown: id("unknown")?,
            // Written as -1 by some converters.
            padding: id("padding").ok().flatten(),
            eot: id("eot")?,
            eom: id("eom")?,
            add_bos: flag("add_bos_token")?,
            add_eos: flag("add_eos_token")?,
            add_space_prefix: flag("add_space_prefix")?,
            strip_after_special: name.contains("phi-3") || name.contains("phi3"),
        })
    }
}

impl Tokenizer {
    /// The tokenizer of a GGUF file.
    ///
    /// # Errors
    /// As [`VocabData::from_gguf`] and [`Tokenizer::new`].
    pub fn from_gguf(metadata: &Metadata<'_>) -> Result<Self, VocabError> {
        Self::new(&VocabData::from_gguf(metadata)?)
    }
}
