//! Byte-level BPE: every word starts as its bytes, and the pair that comes first in the list of merges is joined until
//! none is left (Sennrich et al. 2016, <https://arxiv.org/abs/1508.07909>; on bytes as in GPT-2).
//!
//! Hugging Face's `tokenizers` does the same and serves as the reference in the tests. It is not used here because its
//! pre-tokenizers backtrack and silently stop cutting at their limit (after a megabyte of spaces, say), and because it
//! loads slower: of a vocabulary of 152 000 tokens its model alone takes 81 ms, the whole tokenizer here 45 ms (one
//! core, best of five).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::alphabet;
use super::data::{GPT2, VocabData};
use super::error::{EncodeError, VocabError};
use super::pretokenize::PreTokenizer;
use super::vocab::Vocab;

/// Stands for a byte without a token. No id: a vocabulary has fewer than `u32::MAX` tokens.
const NO_TOKEN: u32 = u32::MAX;
/// No symbol: the end of the chain.
const END: u32 = u32::MAX;

/// The tables of a byte-level BPE vocabulary.
#[derive(Debug)]
pub(super) struct Bpe {
    words: PreTokenizer,
    byte_ids: Box<[u32; 256]>,
    merges: Merges,
    unknown: Option<u32>,
}

impl Bpe {
    /// Checks the merges against `vocab`.
    pub(super) fn new(data: &VocabData<'_>, vocab: &Vocab, unknown: Option<u32>) -> Result<Self, VocabError> {
        let words = PreTokenizer::new(data.pre)?;
        let list =
            data.merges.as_deref().ok_or(VocabError::MissingList { key: "tokenizer.ggml.merges", model: GPT2 })?;
        let mut byte_ids = Box::new([NO_TOKEN; 256]);
        for (byte, id) in (0..=255).zip(byte_ids.iter_mut()) {
            let spelled = alphabet::char_of(byte);
            *id = vocab.id(spelled.encode_utf8(&mut [0; 4]).as_bytes()).unwrap_or(NO_TOKEN);
        }
        Ok(Self { words, byte_ids, merges: Merges::new(list, vocab)?, unknown })
    }

    pub(super) fn adds_bos(&self) -> bool {
        self.words.adds_bos()
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, text: &str, vocab: &Vocab, out: &mut Vec<u32>) -> Result<(), EncodeError> {
        let mut scratch = Scratch::default();
        let mut spelled = Vec::new();
        for range in self.words.split(text) {
            let word = &text[range];
            if self.words.whole_words() {
                spelled.clear();
                alphabet::append_spelled(&mut spelled, word.as_bytes());
                if let Some(id) = vocab.id(&spelled) {
                    out.push(id);
                    continue;
                }
            }
            self.encode_word(word, &mut scratch, out)?;
        }
        Ok(())
    }

    fn encode_word(&self, word: &str, scratch: &mut Scratch, out: &mut Vec<u32>) -> Result<(), EncodeError> {
        scratch.start(word.bytes().map(|byte| self.byte_ids[byte as usize]));
        scratch.merge(&self.merges);
        let mut at = 0;
        while let Some(symbol) = scratch.symbols.get(at as usize) {
            if symbol.id == NO_TOKEN {
                // A byte never merges without a token, so `at` still counts bytes.
                out.push(self.unknown.ok_or_else(|| EncodeError::NoToken {
                    text: word.chars().take(32).collect(),
                    byte: word.as_bytes().get(at as usize).copied().unwrap_or_default(),
                })?);
            } else {
                out.push(symbol.id);
            }
            at = symbol.next;
        }
        Ok(())
    }
}

/// What two adjacent tokens merge to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Merge {
    right: u32,
    /// Position in the list: lower merges first.
    rank: u32,
    result: u32,
}

/// Merges sorted by (left, right), with the place of each left token's first. Lookups touch one short run of memory,
/// and no input can make them slower than a binary search.
#[derive(Debug)]
struct Merges {
    first: Vec<u32>,
    merges: Vec<Merge>,
}

impl Merges {
    fn new(list: &[&[u8]], vocab: &Vocab) -> Result<Self, VocabError> {
        let mut found = Vec::with_capacity(list.len());
        let mut joined = Vec::new();
        for (rank, (index, line)) in (0u32..).zip(list.iter().enumerate()) {
            let lossy = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
            // The left part is never empty, so a space in front belongs to it.
            let space = line.iter().skip(1).position(|&c| c == b' ').map(|i| i + 1);
            let (left, right) = space
                .map(|i| (&line[..i], &line[i + 1..]))
                .filter(|(_, right)| !right.is_empty())
                .ok_or_else(|| VocabError::MergeSyntax { index, text: lossy(line) })?;
            joined.clear();
            joined.extend_from_slice(left);
            joined.extend_from_slice(right);
            let id = |part, text: &[u8]| {
                vocab.id(text).ok_or_else(|| VocabError::MergeToken { index, part, text: lossy(text) })
            };
            let merge = Merge { right: id("right part", right)?, rank, result: id("result", &joined)? };
            found.push((id("left part", left)?, merge));
        }
        found.sort_unstable_by_key(|&(left, merge)| (left, merge.right, merge.rank));
        found.dedup_by_key(|&mut (left, merge)| (left, merge.right));

        let mut first = vec![0; vocab.len() + 1];
        for &(left, _) in &found {
            first[left as usize + 1] += 1;
        }
        for i in 1..first.len() {
            first[i] += first[i - 1];
        }
        Ok(Self { first, merges: found.into_iter().map(|(_, merge)| merge).collect() })
    }

    fn get(&self, left: u32, right: u32) -> Option<Merge> {
        let start = *self.first.get(left as usize)? as usize;
        let end = *self.first.get(left as usize + 1)? as usize;
        let run = self.merges.get(start..end)?;
        run.binary_search_by_key(&right, |merge| merge.right).ok().and_then(|i| run.get(i)).copied()
    }
}

/// A piece of the word being merged, in a chain through [`Scratch::symbols`].
#[derive(Debug, Clone, Copy)]
struct Symbol {
    prev: u32,
    next: u32,
    id: u32,
}

/// A pair that could merge. Orders by rank, then place, so that the heap yields merges as the algorithm defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    at: u32,
    left: u32,
    right: u32,
    result: u32,
}

/// Working memory, reused from word to word. n log n in the length of the word.
#[derive(Debug, Default)]
struct Scratch {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

impl Scratch {
    /// Puts a word's symbols in a chain.
    fn start(&mut self, ids: impl ExactSizeIterator<Item = u32>) {
        let n = ids.len() as u32; // at most `MAX_TEXT`
        self.queue.clear();
        self.symbols.clear();
        self.symbols.extend((0..n).zip(ids).map(|(i, id)| Symbol {
            prev: i.checked_sub(1).unwrap_or(END),
            next: if i + 1 < n { i + 1 } else { END },
            id,
        }));
    }

    /// Merges until no pair is left that can be. The chain then starts at the first symbol still.
    fn merge(&mut self, merges: &Merges) {
        for at in 0..self.symbols.len() as u32 {
            self.consider(at, merges);
        }
        while let Some(Reverse(Candidate { at, left, right, result, .. })) = self.queue.pop() {
            // Either symbol may have been merged since; then this pair is no more. Ids only change by merging.
            let Some(&symbol) = self.symbols.get(at as usize) else { continue };
            let Some(&next) = self.symbols.get(symbol.next as usize) else { continue };
            if symbol.id != left || next.id != right {
                continue;
            }
            // A merged-away symbol must not look like a pair again.
            self.symbols[symbol.next as usize] = Symbol { prev: END, next: END, id: NO_TOKEN };
            self.symbols[at as usize] = Symbol { id: result, next: next.next, ..symbol };
            if let Some(after) = self.symbols.get_mut(next.next as usize) {
                after.prev = at;
            }
            self.consider(symbol.prev, merges);
            self.consider(at, merges);
        }
    }

    /// Queues the pair that begins at `at`, if it merges.
    fn consider(&mut self, at: u32, merges: &Merges) {
        let Some(symbol) = self.symbols.get(at as usize) else { return };
        let Some(next) = self.symbols.get(symbol.next as usize) else { return };
        if let Some(Merge { rank, result, .. }) = merges.get(symbol.id, next.id) {
            self.queue.push(Reverse(Candidate { rank, at, left: symbol.id, right: next.id, result }));
        }
    }
}
