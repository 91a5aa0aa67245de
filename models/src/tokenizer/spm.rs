//! SentencePiece BPE as llama, mistral, gemma and phi-3 use it: text starts as its characters, and the adjacent pair
//! whose union is the highest-scoring token is joined until none is left (Kudo and Richardson 2018,
//! <https://arxiv.org/abs/1808.06226>). Characters without a token fall back to byte tokens.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::data::{LLAMA, VocabData};
use super::error::{EncodeError, VocabError};
use super::vocab::{SPACE_MARK, Vocab};

/// No symbol: the end of the chain.
const END: u32 = u32::MAX;

/// The tables of a SentencePiece vocabulary.
#[derive(Debug)]
pub(super) struct Spm {
    scores: Vec<f32>,
    byte_ids: Box<[Option<u32>; 256]>,
    add_space_prefix: bool,
    unknown: Option<u32>,
}

impl Spm {
    pub(super) fn new(data: &VocabData<'_>, vocab: &Vocab, unknown: Option<u32>) -> Result<Self, VocabError> {
        const KEY: &str = "tokenizer.ggml.scores";
        let scores = data.scores.clone().ok_or(VocabError::MissingList { key: KEY, model: LLAMA })?;
        if scores.len() != vocab.len() {
            return Err(VocabError::Length { key: KEY, expected: vocab.len(), found: scores.len() });
        }
        if let Some((id, _)) = (0u32..).zip(&scores).find(|(_, score)| score.is_nan()) {
            return Err(VocabError::Score { id });
        }
        let mut byte_ids = Box::new([None; 256]);
        for (byte, id) in (0u8..=255).zip(byte_ids.iter_mut()) {
            *id = vocab.id(format!("<0x{byte:02X}>").as_bytes());
        }
        Ok(Self { scores, byte_ids, add_space_prefix: data.add_space_prefix.unwrap_or(true), unknown })
    }

    pub(super) fn adds_space_prefix(&self) -> bool {
        self.add_space_prefix
    }

    /// Appends the tokens of `text`. `first`: it is the start of a text or follows a special token.
    pub(super) fn encode(&self, text: &str, first: bool, vocab: &Vocab, out: &mut Vec<u32>) -> Result<(), EncodeError> {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2);
        if first && self.add_space_prefix {
            escaped.push_str(SPACE_MARK);
        }
        for (i, part) in text.split(' ').enumerate() {
            if i > 0 {
                escaped.push_str(SPACE_MARK);
            }
            escaped.push_str(part);
        }

        let mut merger = Merger::new(&escaped, vocab, &self.scores);
        merger.merge();
        for piece in merger.pieces() {
            self.push_piece(piece, vocab, out)?;
        }
        Ok(())
    }

    fn push_piece(&self, piece: &str, vocab: &Vocab, out: &mut Vec<u32>) -> Result<(), EncodeError> {
        if let Some(id) = vocab.id(piece.as_bytes()) {
            out.push(id);
            return Ok(());
        }
        // Merged pieces are tokens, so this is a single character: by bytes, or unknown as a whole.
        let start = out.len();
        for byte in piece.bytes() {
            if let Some(id) = self.byte_ids[byte as usize] {
                out.push(id);
            } else {
                out.truncate(start);
                let error = || EncodeError::NoToken { text: piece.to_owned(), byte };
                out.push(self.unknown.ok_or_else(error)?);
                break;
            }
        }
        Ok(())
    }
}

/// A stretch of text, in a chain through [`Merger::symbols`].
#[derive(Debug, Clone, Copy)]
struct Symbol {
    prev: u32,
    next: u32,
    start: usize,
    /// Bytes; 0 once merged into its neighbour.
    len: usize,
}

/// A pair whose union is a token. Ordered by score, the leftmost first among equals.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    score: f32,
    left: u32,
    right: u32,
    len: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        // No NaN: checked by `Spm::new`.
        self.score.partial_cmp(&other.score).unwrap_or(Ordering::Equal).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

/// Merges one stretch of text.
struct Merger<'a> {
    text: &'a str,
    vocab: &'a Vocab,
    scores: &'a [f32],
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Candidate>,
}

impl<'a> Merger<'a> {
    fn new(text: &'a str, vocab: &'a Vocab, scores: &'a [f32]) -> Self {
        // Symbols are fewer than bytes, and those fewer than `MAX_TEXT` before escaping, which adds no symbol.
        let mut symbols: Vec<Symbol> = (0u32..)
            .zip(text.char_indices())
            .map(|(i, (start, c))| Symbol {
                prev: i.checked_sub(1).unwrap_or(END),
                next: i + 1,
                start,
                len: c.len_utf8(),
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = END;
        }
        Self { text, vocab, scores, symbols, queue: BinaryHeap::new() }
    }

    fn merge(&mut self) {
        for left in 0..self.symbols.len() as u32 {
            self.consider(left);
        }
        while let Some(Candidate { left, right, len, .. }) = self.queue.pop() {
            let (Some(&l), Some(&r)) = (self.symbols.get(left as usize), self.symbols.get(right as usize)) else {
                continue;
            };
            // Either may have been merged since; then this pair is no more.
            if l.len == 0 || r.len == 0 || l.len + r.len != len {
                continue;
            }
            self.symbols[right as usize].len = 0;
            self.symbols[left as usize] = Symbol { len, next: r.next, ..l };
            if let Some(after) = self.symbols.get_mut(r.next as usize) {
                after.prev = left;
            }
            self.consider(l.prev);
            self.consider(left);
        }
    }

    /// Queues the pair that begins at symbol `left`, if it makes a token.
    fn consider(&mut self, left: u32) {
        let Some(l) = self.symbols.get(left as usize) else { return };
        let Some(r) = self.symbols.get(l.next as usize) else { return };
        let len = l.len + r.len;
        let union = self.text.as_bytes().get(l.start..l.start + len).unwrap_or_default();
        let score = self.vocab.id(union).and_then(|id| self.scores.get(id as usize));
        if let Some(&score) = score {
            self.queue.push(Candidate { score, left, right: l.next, len });
        }
    }

    /// What is left, in order.
    fn pieces(&self) -> impl Iterator<Item = &'a str> {
        let mut at = if self.symbols.is_empty() { END } else { 0 };
        std::iter::from_fn(move || {
            let symbol = self.symbols.get(at as usize)?;
            at = symbol.next;
            self.text.get(symbol.start..symbol.start + symbol.len)
        })
    }
}
