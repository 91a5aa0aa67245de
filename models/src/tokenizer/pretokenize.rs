//! Pre-tokenizers: the rules, named by `tokenizer.ggml.pre`, that cut text into words. Merges never cross a cut.
//!
//! Published rules are regular expressions with one look-ahead, `\s+(?!\S)`: white space before a word gives up its
//! last character, which goes with the word. Backtracking engines take quadratic time over it or give up on long
//! input, so the look-ahead is done by hand here ([`Step::next`]) and the rest by an engine that is linear in the text.

use std::ops::Range;

use regex::Regex;

use super::error::VocabError;

/// English contractions, then words, numbers and symbols with the space before them (GPT-2).
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";

/// GPT-4's: line ends stick to symbols, any symbol may lead a word, and numbers are cut to three digits. Case folding
/// makes `'ſ` (U+017F) a contraction, as in the published rule; llama.cpp lists ASCII letters instead.
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
);

/// As [`LLAMA3`], with digits one by one.
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
);

/// As [`QWEN2`], with combining marks belonging to words.
const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
);

const DIGIT: &str = r"\p{N}";
const THREE_ASCII_DIGITS: &str = "[0-9][0-9][0-9]";
const LINE_END: &str = r"[\r\n]";
/// Chinese, Japanese, Korean and the scripts around them.
const EAST_ASIAN: &str = r"[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\u{D7FF}]+";

/// Letters with case, as of the Unicode version DeepSeek's list was made from; `\p{L&}` of today has more.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}\u{295}-\u{2AF}",
    r"\u{370}-\u{373}\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-\u{3A1}\u{3A3}-\u{3F5}",
    r"\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}\u{13A0}-\u{13F5}\u{13F8}-\u{13FD}",
    r"\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\u{1D6B}-\u{1D77}\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}",
    r"\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}\u{1F50}-\u{1F57}\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}",
    r"\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}\u{1FBE}\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}",
    r"\u{1FE0}-\u{1FEC}\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}",
    r"\u{2124}\u{2126}\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}",
    r"\u{2183}\u{2184}\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}",
    r"\u{A680}-\u{A69B}\u{A722}-\u{A76F}\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}",
    r"\u{FB13}-\u{FB17}\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}",
    r"\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}]+"
);

/// One set of rules under all its names.
struct Rules {
    names: &'static [&'static str],
    /// Applied one after the other, each to the pieces the one before left.
    steps: &'static [&'static str],
    /// A word that is a token is not merged up to but taken as it is.
    whole_words: bool,
    /// `add_bos_token` where the file does not say.
    add_bos: bool,
}

impl Rules {
    const fn new(names: &'static [&'static str], steps: &'static [&'static str]) -> Self {
        Self { names, steps, whole_words: false, add_bos: false }
    }
}

/// What a vocabulary without `pre` gets.
const DEFAULT: &str = "default";

const RULES: &[Rules] = &[
    Rules::new(&[DEFAULT], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", THREE_ASCII_DIGITS]),
    Rules::new(&["gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "trillion"], &[GPT2]),
    Rules {
        whole_words: true,
        add_bos: true,
        ..Rules::new(&["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"], &[LLAMA3])
    },
    Rules::new(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[LLAMA3]),
    Rules { whole_words: true, ..Rules::new(&["glm4"], &[LLAMA3]) },
    Rules::new(&["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "grok-2"], &[QWEN2]),
    Rules::new(&["qwen35"], &[QWEN35]),
    Rules::new(&["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"], &[DIGIT, GPT2]),
    Rules::new(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, THREE_ASCII_DIGITS]),
    Rules::new(
        &["deepseek-llm"],
        &[
            LINE_END,
            DEEPSEEK_LETTERS,
            // ASCII symbols, their full-width forms, quotation marks, and ideographic space, comma and stop.
            r"\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3000}-\u{3002}]+",
            r"\s+$",
            EAST_ASIAN,
            r"\p{N}+",
        ],
    ),
    Rules::new(&["deepseek-coder"], &[LINE_END, r"\s?\p{L}+", r"\s?\p{P}+", EAST_ASIAN, DIGIT]),
];

/// The names in [`RULES`], sorted.
pub(super) fn supported_names() -> impl Iterator<Item = &'static str> {
    let mut names: Vec<_> = RULES.iter().flat_map(|rules| rules.names).copied().collect();
    names.sort_unstable();
    names.into_iter()
}

/// A compiled set of rules.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    steps: Vec<Step>,
    whole_words: bool,
    add_bos: bool,
}

impl PreTokenizer {
    /// The rules with this name; [`DEFAULT`] for none.
    pub(super) fn new(name: Option<&str>) -> Result<Self, VocabError> {
        let name = name.unwrap_or(DEFAULT);
        let rules = RULES
            .iter()
            .find(|rules| rules.names.contains(&name))
            .ok_or_else(|| VocabError::UnknownPreTokenizer { found: name.to_owned() })?;
        let steps = rules.steps.iter().map(|pattern| Step::new(pattern)).collect();
        Ok(Self { steps, whole_words: rules.whole_words, add_bos: rules.add_bos })
    }

    /// Whether a word that is a token is taken as it is.
    pub(super) fn whole_words(&self) -> bool {
        self.whole_words
    }

    /// Whether texts begin with `bos` unless the file says otherwise.
    pub(super) fn adds_bos(&self) -> bool {
        self.add_bos
    }

    /// Cuts `text` into words: ranges of bytes, none empty, that cover it in order.
    pub(super) fn split(&self, text: &str) -> Vec<Range<usize>> {
        let mut pieces = vec![];
        if !text.is_empty() {
            pieces.push(0..text.len());
        }
        for step in &self.steps {
            let mut cut = Vec::with_capacity(pieces.len() * 2);
            for piece in pieces {
                step.split(&text[piece.clone()], piece.start, &mut cut);
            }
            pieces = cut;
        }
        pieces
    }
}

/// One expression; what it matches and what lies between matches become pieces.
#[derive(Debug)]
struct Step {
    regex: Regex,
    /// Whether the last alternative is `\s+` in place of `\s+(?!\S)|\s+`.
    spares_space: bool,
    /// Whether white space that ends a line is matched by an alternative of its own.
    line_ends: bool,
}

impl Step {
    fn new(pattern: &str) -> Self {
        Self {
            regex: Regex::new(pattern).expect("invariant: the patterns above are tested to compile"),
            spares_space: pattern.ends_with(r"|\s+"),
            line_ends: pattern.contains(r"|\s*[\r\n]+|"),
        }
    }

    /// Appends the pieces of `text`, which begins at byte `base` of the whole.
    fn split(&self, text: &str, base: usize, out: &mut Vec<Range<usize>>) {
        let mut at = 0;
        while let Some(found) = self.next(text, at) {
            if found.start > at {
                out.push(base + at..base + found.start);
            }
            out.push(base + found.start..base + found.end);
            at = found.end;
        }
        if at < text.len() {
            out.push(base + at..base + text.len());
        }
    }

    /// The first match at or after byte `at`, less the last white-space character if a word follows it.
    fn next(&self, text: &str, at: usize) -> Option<Range<usize>> {
        let found = self.regex.find_at(text, at)?;
        let mut range = found.range();
        if self.spares_space && range.end < text.len() {
            // Only `\s+` ends in white space, line ends aside; being greedy it stops at the end or before a word.
            let matched = found.as_str();
            let spared = matched
                .chars()
                .next_back()
                .filter(|&last| last.is_whitespace() && !(self.line_ends && matches!(last, '\r' | '\n')))
                .map_or(0, char::len_utf8);
            if spared < matched.len() {
                range.end -= spared;
            }
        }
        Some(range)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn words<'a>(name: &str, text: &'a str) -> Vec<&'a str> {
        PreTokenizer::new(Some(name)).unwrap().split(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn names_are_unique_and_all_compile() {
        let names: Vec<_> = supported_names().collect();
        for pair in names.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
        }
        for name in names {
            PreTokenizer::new(Some(name)).unwrap();
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let message = PreTokenizer::new(Some("gpt-17")).unwrap_err().to_string();
        for part in ["\"gpt-17\"", "\"qwen2\"", "\"llama-bpe\"", "tokenizer.ggml.pre"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn white_space_gives_its_last_character_to_the_word() {
        assert_eq!(words("gpt-2", "a   b"), ["a", "  ", " b"]);
        assert_eq!(words("gpt-2", "a \n\nb"), ["a", " \n", "\n", "b"]);
        assert_eq!(words("gpt-2", "a   "), ["a", "   "]);
        assert_eq!(words("gpt-2", "a\tb"), ["a", "\t", "b"]);
        assert_eq!(words("gpt-2", "a \u{3000}b"), ["a", " ", "\u{3000}", "b"]);
        assert_eq!(words("qwen2", "a \n\n  b"), ["a", " \n\n", " ", " b"]);
        assert_eq!(words("qwen2", "!\n\nb"), ["!\n\n", "b"]);
        assert_eq!(words("qwen2", "a\t\tb"), ["a", "\t", "\tb"]);
    }

    #[test]
    fn numbers_as_each_family_cuts_them() {
        assert_eq!(words("gpt-2", "x 12345"), ["x", " 12345"]);
        assert_eq!(words("llama-bpe", "x 12345"), ["x", " ", "123", "45"]);
        assert_eq!(words("qwen2", "x 123"), ["x", " ", "1", "2", "3"]);
        assert_eq!(words("smollm", "x 123"), ["x", " ", "1", "2", "3"]);
        assert_eq!(words("falcon", "x 1234"), ["x", " ", "123", "4"]);
        assert_eq!(words("deepseek-llm", "x 1234"), ["x", " ", "1234"]);
    }

    #[test]
    fn contractions() {
        assert_eq!(words("gpt-2", "I'm, I'M"), ["I", "'m", ",", " I", "'", "M"]);
        assert_eq!(words("llama-bpe", "I'm, I'M"), ["I", "'m", ",", " I", "'M"]);
    }

    #[test]
    fn long_runs_are_cut_in_one_pass() {
        // A backtracking engine needs 10^12 steps or gives up here.
        let n = 1 << 20;
        for (run, name) in
            [(" ", "gpt-2"), ("\t", "qwen2"), ("\n", "llama-bpe"), ("a", "deepseek-llm"), ("1", "falcon")]
        {
            let text = run.repeat(n) + "b";
            let pieces = words(name, &text);
            assert_eq!(pieces.concat().len(), n + 1, "{name}");
        }
        assert_eq!(words("gpt-2", &(" ".repeat(n) + "b")).len(), 2);
    }

    proptest! {
        #[test]
        fn pieces_cover_the_text_in_order(
            text in r"(\s|\p{L}|\p{N}|\p{P}|'(s|LL|re)|[ \r\n\t]{1,4}|.){0,60}",
            which in 0..RULES.len(),
        ) {
            let pieces = PreTokenizer::new(Some(RULES[which].names[0])).unwrap().split(&text);
            let mut at = 0;
            for piece in pieces {
                prop_assert_eq!(piece.start, at);
                prop_assert!(piece.end > at);
                at = piece.end;
            }
            prop_assert_eq!(at, text.len());
        }
    }
}
