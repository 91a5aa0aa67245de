//! From tokens back to text, at once or as they are generated.

use std::borrow::Borrow;

use super::Tokenizer;
use super::data::TokenKind;
use super::error::UnknownToken;

/// How tokens become text. The default is the inverse of [`encode`](Tokenizer::encode).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DecodeOptions {
    /// Leave out control and unknown tokens.
    pub skip_special: bool,
    /// Keep the space that SentencePiece vocabularies put before text at the start and after special tokens. Wanted
    /// where the tokens continue a text.
    pub keep_space_prefix: bool,
}

impl Tokenizer {
    /// The bytes that `ids` stand for. Not necessarily UTF-8: a token may hold part of a character.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn decode_bytes(&self, ids: &[u32], options: DecodeOptions) -> Result<Vec<u8>, UnknownToken> {
        let mut out = Vec::new();
        let mut prefix = SpacePrefix::new(self, options);
        for &id in ids {
            out.extend_from_slice(prefix.bytes(self, id, options)?);
        }
        Ok(out)
    }

    /// The text that `ids` stand for, with U+FFFD in place of what is not UTF-8.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn decode(&self, ids: &[u32], options: DecodeOptions) -> Result<String, UnknownToken> {
        let bytes = self.decode_bytes(ids, options)?;
        Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }
}

/// Whether the next text begins with a space that encoding added.
#[derive(Debug, Clone, Copy)]
struct SpacePrefix {
    pending: bool,
}

impl SpacePrefix {
    fn new(tokenizer: &Tokenizer, options: DecodeOptions) -> Self {
        Self { pending: tokenizer.adds_space_prefix() && !options.keep_space_prefix }
    }

    /// The bytes token `id` adds to the text.
    fn bytes<'t>(&mut self, t: &'t Tokenizer, id: u32, options: DecodeOptions) -> Result<&'t [u8], UnknownToken> {
        let kind = t.kind(id)?;
        if kind.is_special() || kind == TokenKind::UserDefined {
            *self = Self::new(t, options);
            return if kind.is_special() && options.skip_special { Ok(&[]) } else { t.token_bytes(id) };
        }
        let bytes = t.token_bytes(id)?;
        let strip = std::mem::replace(&mut self.pending, false);
        Ok(bytes.strip_prefix(b" ").filter(|_| strip).unwrap_or(bytes))
    }
}

/// Decodes tokens one by one, as they are generated, in whole characters.
///
/// `T` is whatever holds the tokenizer: `&Tokenizer`, `Arc<Tokenizer>` or `Tokenizer`.
///
/// ```
/// # use brick_models::tokenizer::{DecodeOptions, StreamDecoder, Tokenizer, VocabData};
/// # let data = VocabData {
/// #     model: "llama",
/// #     tokens: vec![b"<unk>".as_slice(), b"<0xC3>", b"<0xA9>", b"caf"],
/// #     scores: Some(vec![0.0; 4]),
/// #     token_types: Some(vec![2, 6, 6, 1]),
/// #     add_bos: Some(false),
/// #     eos: Some(0), bos: Some(0),
/// #     ..VocabData::default()
/// # };
/// # let tokenizer = Tokenizer::new(&data)?;
/// let mut stream = StreamDecoder::new(&tokenizer, DecodeOptions::default());
/// assert_eq!(stream.push(3)?, Some("caf"));
/// assert_eq!(stream.push(1)?, None); // the first byte of é
/// assert_eq!(stream.push(2)?, Some("é"));
/// assert_eq!(stream.finish(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct StreamDecoder<T> {
    tokenizer: T,
    options: DecodeOptions,
    prefix: SpacePrefix,
    /// Bytes of a character that has begun but not ended: at most three between calls.
    partial: Vec<u8>,
    /// The text returned last.
    text: String,
}

impl<T: Borrow<Tokenizer>> StreamDecoder<T> {
    /// A decoder at the start of a text, or within one if `options` keep the space prefix.
    pub fn new(tokenizer: T, options: DecodeOptions) -> Self {
        let prefix = SpacePrefix::new(tokenizer.borrow(), options);
        Self { tokenizer, options, prefix, partial: Vec::new(), text: String::new() }
    }

    /// Takes the next token and returns the characters it completes, if any. Bytes that can no longer become a
    /// character come out as U+FFFD.
    ///
    /// # Errors
    /// An id outside the vocabulary; the decoder is then as before.
    pub fn push(&mut self, id: u32) -> Result<Option<&str>, UnknownToken> {
        let bytes = self.prefix.bytes(self.tokenizer.borrow(), id, self.options)?;
        self.partial.extend_from_slice(bytes);
        self.text.clear();
        let mut used = 0;
        for chunk in self.partial.utf8_chunks() {
            self.text.push_str(chunk.valid());
            used += chunk.valid().len();
            if is_begun(chunk.invalid()) && used + chunk.invalid().len() == self.partial.len() {
                break;
            }
            if !chunk.invalid().is_empty() {
                self.text.push(char::REPLACEMENT_CHARACTER);
                used += chunk.invalid().len();
            }
        }
        self.partial.drain(..used);
        Ok(self.last())
    }

    /// Ends the text: a character that has begun comes out as U+FFFD. The decoder is then at the start of a new text.
    pub fn finish(&mut self) -> Option<&str> {
        self.text.clear();
        if !std::mem::take(&mut self.partial).is_empty() {
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        self.prefix = SpacePrefix::new(self.tokenizer.borrow(), self.options);
        self.last()
    }

    fn last(&self) -> Option<&str> {
        Some(self.text.as_str()).filter(|text| !text.is_empty())
    }
}

/// Whether `bytes`, which are no character, are the beginning of one.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}
