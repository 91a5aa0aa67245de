//! The checked vocabulary: spelling, bytes and kind of every token, and the id of every spelling.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::alphabet;
use super::data::{LLAMA, TokenKind, VocabData};
use super::error::{UnknownToken, VocabError};

/// How SentencePiece spells a space.
pub(super) const SPACE_MARK: &str = "\u{2581}";

/// Byte strings in one allocation; 150 000 tokens would otherwise be as many.
#[derive(Debug, Default)]
struct Arena {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Arena {
    fn with_capacity(strings: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(strings) }
    }

    /// Ends the string whose bytes were appended to `bytes`. `None` if it ends beyond 32-bit offsets.
    fn end(&mut self) -> Option<()> {
        self.ends.push(u32::try_from(self.bytes.len()).ok()?);
        Some(())
    }

    fn get(&self, i: u32) -> Option<&[u8]> {
        let i = i as usize;
        let end = *self.ends.get(i)? as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        self.bytes.get(start..end)
    }
}

/// Spellings, bytes and kinds of all tokens.
#[derive(Debug)]
pub(super) struct Vocab {
    /// As the file spells them.
    texts: Arena,
    /// As they appear in decoded text.
    bytes: Arena,
    kinds: Vec<TokenKind>,
    /// Ids by spelling. Keys are hashed with a random seed: files are not trusted.
    ids: HashTable<u32>,
    hasher: RandomState,
    /// Length of the longest spelling in bytes.
    longest: usize,
}

impl Vocab {
    /// Checks tokens and types.
    pub(super) fn new(data: &VocabData<'_>) -> Result<Self, VocabError> {
        let n = data.tokens.len();
        let too_large = || VocabError::TooLarge { tokens: n };
        let size = u32::try_from(n).ok().filter(|&size| size < u32::MAX).ok_or_else(too_large)?;
        if n == 0 {
            return Err(VocabError::Empty);
        }
        let kinds = kinds(data.token_types.as_deref(), n)?;

        let total = data.tokens.iter().map(|t| t.len()).sum();
        let mut texts = Arena::with_capacity(n, total);
        let mut bytes = Arena::with_capacity(n, total);
        for (id, (token, kind)) in (0..size).zip(data.tokens.iter().zip(&kinds)) {
            texts.bytes.extend_from_slice(token);
            texts.end().ok_or_else(too_large)?;
            append_decoded(&mut bytes.bytes, id, token, *kind, data.model)?;
            bytes.end().ok_or_else(too_large)?;
        }

        let longest = data.tokens.iter().map(|t| t.len()).max().unwrap_or(0);
        let mut vocab =
            Self { texts, bytes, kinds, ids: HashTable::with_capacity(n), hasher: RandomState::new(), longest };
        for (id, token) in (0..size).zip(&data.tokens) {
            // An empty spelling would be found everywhere; of equal ones the first stays.
            if !token.is_empty() && vocab.id(token).is_none() {
                let Self { texts, ids, hasher, .. } = &mut vocab;
                ids.insert_unique(hasher.hash_one(*token), id, |&other| hasher.hash_one(text_of(texts, other)));
            }
        }
        Ok(vocab)
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The token with this spelling.
    pub(super) fn id(&self, text: &[u8]) -> Option<u32> {
        if text.len() > self.longest {
            return None;
        }
        self.ids.find(self.hasher.hash_one(text), |&id| text_of(&self.texts, id) == text).copied()
    }

    /// The spelling of a token.
    pub(super) fn text(&self, id: u32) -> Result<&[u8], UnknownToken> {
        self.texts.get(id).ok_or_else(|| self.unknown(id))
    }

    /// The bytes a token stands for.
    pub(super) fn bytes(&self, id: u32) -> Result<&[u8], UnknownToken> {
        self.bytes.get(id).ok_or_else(|| self.unknown(id))
    }

    pub(super) fn kind(&self, id: u32) -> Result<TokenKind, UnknownToken> {
        self.kinds.get(id as usize).copied().ok_or_else(|| self.unknown(id))
    }

    /// Changes what a token is for. The bytes it decodes to stay the same.
    pub(super) fn set_kind(&mut self, id: u32, kind: TokenKind) {
        if let Some(slot) = self.kinds.get_mut(id as usize) {
            *slot = kind;
        }
    }

    /// All tokens with their spelling and kind.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &[u8], TokenKind)> {
        (0u32..).zip(&self.kinds).map(|(id, &kind)| (id, text_of(&self.texts, id), kind))
    }

    fn unknown(&self, found: u32) -> UnknownToken {
        UnknownToken { found, size: self.len() }
    }
}

fn text_of(texts: &Arena, id: u32) -> &[u8] {
    texts.get(id).unwrap_or_default()
}

fn kinds(types: Option<&[i32]>, n: usize) -> Result<Vec<TokenKind>, VocabError> {
    let Some(types) = types else { return Ok(vec![TokenKind::Normal; n]) };
    if types.len() != n {
        return Err(VocabError::Length { key: "tokenizer.ggml.token_type", expected: n, found: types.len() });
    }
    (0u32..)
        .zip(types)
        .map(|(id, &found)| TokenKind::from_file(found).ok_or(VocabError::TokenType { id, found }))
        .collect()
}

/// Appends the bytes that token `id` decodes to.
fn append_decoded(out: &mut Vec<u8>, id: u32, text: &[u8], kind: TokenKind, model: &str) -> Result<(), VocabError> {
    match kind {
        TokenKind::Byte => out.push(
            parse_byte(text)
                .ok_or_else(|| VocabError::ByteToken { id, text: String::from_utf8_lossy(text).into_owned() })?,
        ),
        // Spelled as they are written.
        TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown => out.extend_from_slice(text),
        TokenKind::Normal | TokenKind::Unused if model == LLAMA => append_unmarked(out, text),
        TokenKind::Normal | TokenKind::Unused => alphabet::append_bytes(out, text),
    }
    Ok(())
}

/// Appends `text` with [`SPACE_MARK`]s turned into spaces.
fn append_unmarked(out: &mut Vec<u8>, text: &[u8]) {
    let mark = SPACE_MARK.as_bytes();
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(mark) {
            out.push(b' ');
            rest = after;
        } else {
            out.push(first);
            rest = tail;
        }
    }
}

/// The byte that `<0x0A>` names.
fn parse_byte(text: &[u8]) -> Option<u8> {
    let &[b'<', b'0', b'x', high, low, b'>'] = text else { return None };
    let digit = |c: u8| char::from(c).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}
