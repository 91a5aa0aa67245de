//! Tokens that are found in text as a whole, before any splitting or merging.
//!
//! The longest token claims its places first, then the next shorter one in what is left, and so on. This is not the
//! leftmost-longest rule: with tokens `ab` and `bcd`, the text `abcd` is `a`, `bcd`.

use std::ops::Range;

use aho_corasick::{AhoCorasick, Input};

use super::data::TokenKind;
use super::error::VocabError;
use super::vocab::Vocab;

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fragment {
    /// Bytes of the text, to be tokenized.
    Text(Range<usize>),
    /// A special token.
    Token(u32),
}

/// Finds one set of tokens.
#[derive(Debug)]
pub(super) struct Finder {
    /// Tokens by length of spelling, longest first. A text is scanned once per length, however many tokens there are.
    classes: Vec<Class>,
}

/// Tokens of one length.
#[derive(Debug)]
struct Class {
    search: AhoCorasick,
    tokens: Vec<Special>,
}

#[derive(Debug, Clone, Copy)]
struct Special {
    id: u32,
    strips_after: bool,
}

impl Finder {
    /// Tokens that are always found.
    pub(super) fn user_defined(vocab: &Vocab, strip: bool) -> Result<Self, VocabError> {
        Self::new(vocab, strip, |kind| kind == TokenKind::UserDefined)
    }

    /// Tokens that are found when special tokens are to be parsed.
    pub(super) fn all(vocab: &Vocab, strip: bool) -> Result<Self, VocabError> {
        Self::new(vocab, strip, |kind| kind == TokenKind::UserDefined || kind.is_special())
    }

    fn new(vocab: &Vocab, strip: bool, wanted: impl Fn(TokenKind) -> bool) -> Result<Self, VocabError> {
        // What is not UTF-8 cannot be in a text; what is, is only found at character boundaries.
        let mut found: Vec<(&str, u32)> = vocab
            .iter()
            .filter(|&(_, text, kind)| wanted(kind) && !text.is_empty())
            .filter_map(|(id, text, _)| Some((std::str::from_utf8(text).ok()?, id)))
            .collect();
        found.sort_by_key(|&(text, id)| (std::cmp::Reverse(text.len()), id));
        let classes = found
            .chunk_by(|(a, _), (b, _)| a.len() == b.len())
            .map(|class| {
                let search = AhoCorasick::new(class.iter().map(|&(text, _)| text))
                    .map_err(|e| VocabError::SpecialSearch { message: e.to_string() })?;
                let tokens = class.iter().map(|&(text, id)| Special { id, strips_after: strip && strips(text) });
                Ok(Class { search, tokens: tokens.collect() })
            })
            .collect::<Result<_, VocabError>>()?;
        Ok(Self { classes })
    }

    /// Parts `text`. No text fragment is empty, and none but white space after a stripping token is lost.
    pub(super) fn fragments(&self, text: &str) -> Vec<Fragment> {
        let mut fragments = vec![];
        if !text.is_empty() {
            fragments.push(Fragment::Text(0..text.len()));
        }
        for class in &self.classes {
            let mut parted = Vec::with_capacity(fragments.len());
            for fragment in fragments {
                match fragment {
                    Fragment::Text(range) => class.part(text, range, &mut parted),
                    token @ Fragment::Token(_) => parted.push(token),
                }
            }
            fragments = parted;
        }
        fragments
    }
}

impl Class {
    fn part(&self, text: &str, range: Range<usize>, out: &mut Vec<Fragment>) {
        let Range { start: mut at, end } = range;
        while let Some(found) = self.search.find(Input::new(text).range(at..end)) {
            let Some(token) = self.tokens.get(found.pattern().as_usize()) else { break };
            if found.start() > at {
                out.push(Fragment::Text(at..found.start()));
            }
            out.push(Fragment::Token(token.id));
            at = found.end();
            if token.strips_after {
                // ASCII white space with vertical tab, which `is_ascii_whitespace` leaves out.
                let rest = &text.as_bytes()[at..end];
                at += rest.iter().take_while(|c| matches!(c, b'\t'..=b'\r' | b' ')).count();
            }
        }
        if at < end {
            out.push(Fragment::Text(at..end));
        }
    }
}

/// Whether this token of a vocabulary whose special tokens strip does so itself.
fn strips(text: &str) -> bool {
    !matches!(text, "<unk>" | "<s>" | "<|endoftext|>")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::data::VocabData;
    use super::*;

    fn finder(tokens: &[&'static str], strip: bool) -> Finder {
        let data = VocabData {
            model: "llama",
            tokens: tokens.iter().map(|t| t.as_bytes()).collect(),
            token_types: Some(vec![4; tokens.len()]),
            ..VocabData::default()
        };
        Finder::user_defined(&Vocab::new(&data).unwrap(), strip).unwrap()
    }

    /// Fragments as text, tokens in brackets.
    fn show(finder: &Finder, text: &str) -> String {
        finder
            .fragments(text)
            .into_iter()
            .map(|fragment| match fragment {
                Fragment::Text(range) => format!("'{}'", &text[range]),
                Fragment::Token(id) => format!("[{id}]"),
            })
            .collect()
    }

    #[test]
    fn the_longest_token_comes_first_wherever_it_is() {
        let f = finder(&["ab", "bcd", ""], false);
        assert_eq!(show(&f, "abcd ab"), "'a'[1]' '[0]");
        assert_eq!(show(&f, ""), "");
        assert_eq!(show(&f, "xyz"), "'xyz'");
    }

    #[test]
    fn runs_are_cut_from_the_left() {
        let f = finder(&["  ", "    "], false);
        assert_eq!(show(&f, "       x"), "[1][0]' x'");
    }

    #[test]
    fn white_space_after_stripping_tokens_is_dropped() {
        let f = finder(&["<|user|>", "<s>"], true);
        assert_eq!(show(&f, "<|user|> \n\u{b}hi <s> x"), "[0]'hi '[1]' x'");
        assert_eq!(show(&f, "<|user|>  "), "[0]");
    }

    #[test]
    fn tokens_that_are_not_text_are_left_out() {
        let data = VocabData {
            model: "llama",
            tokens: vec![&[0xA9], b"x"],
            token_types: Some(vec![4, 4]),
            ..VocabData::default()
        };
        let f = Finder::user_defined(&Vocab::new(&data).unwrap(), false).unwrap();
        assert_eq!(show(&f, "éx"), "'é'[1]");
    }
}
