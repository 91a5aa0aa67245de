//! The vocabulary in a `tokenizer.bin`.

use super::Llama2cError;

/// A token longer than this is none. The longest of Llama 2 has 27 bytes.
const MAX_TOKEN: usize = 1 << 12;

/// How many tokens come before those of the text: unknown, beginning, end, and a token for each byte.
const RESERVED: usize = 3 + 256;

/// A vocabulary as GGUF has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocabulary {
    /// Spellings, with U+2581 for spaces.
    pub tokens: Vec<Vec<u8>>,
    /// The pair whose union scores highest merges first.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.token_type`: 1 text, 2 unknown, 3 control, 6 byte.
    pub types: Vec<i32>,
}

impl Vocabulary {
    /// Reads a file of `size` tokens.
    ///
    /// # Errors
    /// [`Llama2cError::Length`] if it ends early or late; [`Llama2cError::Token`].
    pub fn read(bytes: &[u8], size: usize) -> Result<Self, Llama2cError> {
        let length = |expected: usize| {
            let (expected, found) = (expected as u64, bytes.len() as u64);
            Llama2cError::Length { what: "tokenizer", expected, found }
        };
        let number = |at: usize| {
            let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
            bytes.copied().ok_or_else(|| length(at + 4))
        };
        // The length of the longest token, of which nothing depends.
        number(0)?;
        let mut at = 4;
        let mut vocabulary = Self { tokens: Vec::new(), scores: Vec::new(), types: Vec::new() };
        for id in 0..size {
            let score = f32::from_le_bytes(number(at)?);
            let found = i32::from_le_bytes(number(at + 4)?);
            let token = |expected, found| Llama2cError::Token { id, expected, found };
            if !score.is_finite() {
                return Err(token("a finite score", score.to_string()));
            }
            let len = usize::try_from(found).ok().filter(|n| (1..=MAX_TOKEN).contains(n));
            let len = len.ok_or_else(|| token("a length of 1 to 4096 bytes", found.to_string()))?;
            let text = bytes.get(at + 8..).and_then(|rest| rest.get(..len)).ok_or_else(|| length(at + 8 + len))?;
            at += 8 + len;
            let expected = "the token of a byte: <0x0A>, or the character U+000A";
            let (text, kind) =
                spelled(id, text).ok_or_else(|| token(expected, format!("{:?}", String::from_utf8_lossy(text))))?;
            vocabulary.tokens.push(text);
            vocabulary.scores.push(score);
            vocabulary.types.push(kind);
        }
        if at == bytes.len() { Ok(vocabulary) } else { Err(length(at)) }
    }
}

/// A token as SentencePiece has it, and its type; `None` for one that does not stand for the byte it has the place of.
fn spelled(id: usize, text: &[u8]) -> Option<(Vec<u8>, i32)> {
    Some(match id {
        0 => (text.to_vec(), 2),
        // Exported between line breaks, as `\n<s>\n`.
        1 => (b"<s>".to_vec(), 3),
        2 => (b"</s>".to_vec(), 3),
        3..RESERVED => {
            let byte = (id - 3) as u8;
            let token = format!("<0x{byte:02X}>").into_bytes();
            // Exported as the character, by the first versions.
            let character = char::from(byte);
            if text != token && text != character.encode_utf8(&mut [0; 4]).as_bytes() {
                return None;
            }
            (token, 6)
        }
        _ => {
            let mut out = Vec::with_capacity(text.len() + 2);
            for &byte in text {
                if byte == b' ' { out.extend("\u{2581}".bytes()) } else { out.push(byte) }
            }
            (out, 1)
        }
    })
}
