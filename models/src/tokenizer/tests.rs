//! Vocabularies small enough to read, and everything that can be wrong with one. For real ones see
//! `tests/tokenizer_vocabs.rs`.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tokenizers::Model as _;

use super::alphabet::char_of;
use super::*;

/// A byte-level vocabulary: the 256 bytes, `extra` tokens, and merges that make tokens of those they need.
struct Small {
    tokens: Vec<String>,
    merges: Vec<String>,
    types: Vec<i32>,
}

impl Small {
    fn new(merges: &[(&str, &str)], special: &[(&str, i32)]) -> Self {
        let mut tokens: Vec<String> = (0..=255).map(|byte| char_of(byte).to_string()).collect();
        for (left, right) in merges {
            let joined = format!("{left}{right}");
            if !tokens.contains(&joined) {
                tokens.push(joined);
            }
        }
        let mut types = vec![1; tokens.len()];
        for (token, kind) in special {
            tokens.push((*token).to_owned());
            types.push(*kind);
        }
        let merges = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        Self { tokens, merges, types }
    }

    fn data(&self) -> VocabData<'_> {
        VocabData {
            model: "gpt2",
            pre: Some("gpt-2"),
            tokens: self.tokens.iter().map(String::as_bytes).collect(),
            merges: Some(self.merges.iter().map(String::as_bytes).collect()),
            token_types: Some(self.types.clone()),
            ..VocabData::default()
        }
    }

    fn tokenizer(&self) -> Tokenizer {
        Tokenizer::new(&self.data()).unwrap()
    }
}

/// `the`, `ther` and a chat's tokens.
fn small() -> Small {
    Small::new(
        &[("h", "e"), ("t", "he"), ("Ġ", "the"), ("e", "r"), ("the", "r"), ("a", "a"), ("aa", "aa")],
        &[("<|im_start|>", 3), ("<|im_end|>", 1), ("<tool>", 4), ("<|endoftext|>", 3)],
    )
}

fn pieces(t: &Tokenizer, text: &str, options: EncodeOptions) -> Vec<String> {
    let ids = t.encode(text, options).unwrap();
    ids.into_iter().map(|id| t.token_to_piece(id).unwrap().into_owned()).collect()
}

/// A SentencePiece vocabulary without byte tokens unless given.
fn spm(tokens: &[(&'static str, f32, i32)]) -> VocabData<'static> {
    VocabData {
        model: "llama",
        tokens: tokens.iter().map(|(text, _, _)| text.as_bytes()).collect(),
        scores: Some(tokens.iter().map(|(_, score, _)| *score).collect()),
        token_types: Some(tokens.iter().map(|(_, _, kind)| *kind).collect()),
        ..VocabData::default()
    }
}

const SPM: &[(&str, f32, i32)] = &[
    ("<unk>", 0.0, 2),
    ("<s>", 0.0, 3),
    ("</s>", 0.0, 3),
    ("▁", -1.0, 1),
    ("a", -2.0, 1),
    ("b", -3.0, 1),
    ("ab", -4.0, 1),
    ("ba", -4.0, 1),
    ("▁a", -5.0, 1),
    ("<0xC3>", 0.0, 6),
    ("<0xA9>", 0.0, 6),
];

const PARSE: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };
const ADD: EncodeOptions = EncodeOptions { add_special: true, parse_special: false };

#[test]
fn merges_apply_in_the_order_of_the_list() {
    let t = small().tokenizer();
    // `er` would be found before `the` from the left, but `the` comes first in the list.
    assert_eq!(pieces(&t, "ther", EncodeOptions::default()), ["ther"]);
    assert_eq!(pieces(&t, "the the er", EncodeOptions::default()), ["the", " the", " ", "er"]);
    assert_eq!(pieces(&t, "aaaaa", EncodeOptions::default()), ["aaaa", "a"]);
    assert_eq!(t.encode("", EncodeOptions::default()).unwrap(), Vec::<u32>::new());
}

#[test]
fn control_tokens_are_text_unless_parsed_and_user_defined_ones_never_are() {
    let t = small().tokenizer();
    assert_eq!(pieces(&t, "<tool>a", EncodeOptions::default()), ["<tool>", "a"]);
    assert!(pieces(&t, "<|im_start|>", EncodeOptions::default()).len() > 1);
    // `<|im_end|>` is of type "normal" in the file but known by its name.
    assert_eq!(pieces(&t, "<|im_start|>the<|im_end|>", PARSE), ["<|im_start|>", "the", "<|im_end|>"]);
    assert_eq!(t.kind(t.id_of("<|im_end|>").unwrap()), Ok(TokenKind::Control));
}

#[test]
fn tokens_that_end_generation_are_known_by_name() {
    let t = small().tokenizer();
    let named = |name| t.id_of(name).unwrap();
    assert_eq!(t.end_of_generation(), [named("<|im_end|>"), named("<|endoftext|>")]);
    assert_eq!(t.special().eot, Some(named("<|im_end|>")));
    assert!(!t.is_end_of_generation(named("<|im_start|>")));

    let harmony =
        Small::new(&[], &[("<|end|>", 3), ("<|return|>", 3), ("<|call|>", 3), ("<|message|>", 3)]).tokenizer();
    assert!(!harmony.is_end_of_generation(harmony.id_of("<|end|>").unwrap()));
    assert!(harmony.is_end_of_generation(harmony.id_of("<|call|>").unwrap()));
    assert_eq!(harmony.kind(harmony.id_of("<|message|>").unwrap()), Ok(TokenKind::UserDefined));
}

#[test]
fn bos_and_eos_are_added_where_the_file_says() {
    let small = small();
    let with = |bos, eos, add_bos, add_eos| {
        Tokenizer::new(&VocabData { bos, eos, add_bos, add_eos, ..small.data() }).map(|t| t.encode("a", ADD).unwrap())
    };
    let a = u32::from(b'a');
    assert_eq!(with(Some(7), Some(8), None, None).unwrap(), [a]);
    assert_eq!(with(Some(7), Some(8), Some(true), Some(true)).unwrap(), [7, a, 8]);
    let error = with(None, Some(8), Some(true), None).unwrap_err();
    assert!(matches!(error, VocabError::MissingSpecial { flag: "tokenizer.ggml.add_bos_token", .. }), "{error}");

    let t = Tokenizer::new(&VocabData { pre: Some("llama-bpe"), bos: Some(7), ..small.data() }).unwrap();
    assert_eq!(t.encode("a", ADD).unwrap(), [7, a], "llama 3's files do not say so");
    assert_eq!(t.encode("a", PARSE).unwrap(), [a]);
}

#[test]
fn scores_decide_which_pair_merges() {
    let t = Tokenizer::new(&spm(SPM)).unwrap();
    assert_eq!((t.bos(), t.eos(), t.special().unknown), (Some(1), Some(2), Some(0)));
    // `ab` and `ba` score alike, so the leftmost; both score above `▁a`.
    assert_eq!(pieces(&t, "aba", EncodeOptions::default()), [" ", "ab", "a"]);
    assert_eq!(pieces(&t, "a a", EncodeOptions::default()), [" a", " a"]);
    assert_eq!(t.encode("a", ADD).unwrap(), [1, 8]);
    assert_eq!(t.encode("", ADD).unwrap(), [1]);
}

#[test]
fn spaces_go_in_front_of_text_and_come_off_again() {
    let t = Tokenizer::new(&spm(SPM)).unwrap();
    let ids = t.encode("a<s> a", PARSE).unwrap();
    assert_eq!(ids, [8, 1, 3, 8]);
    let decode =
        |skip_special, keep_space_prefix| t.decode(&ids, DecodeOptions { skip_special, keep_space_prefix }).unwrap();
    assert_eq!(decode(false, false), "a<s> a");
    assert_eq!(decode(false, true), " a<s>  a");
    assert_eq!(decode(true, false), "a a");

    let t = Tokenizer::new(&VocabData { add_space_prefix: Some(false), ..spm(SPM) }).unwrap();
    assert_eq!(t.encode("a a", EncodeOptions::default()).unwrap(), [4, 8]);
    assert_eq!(t.decode(&[8, 8], DecodeOptions::default()).unwrap(), " a a");
}

#[test]
fn characters_without_a_token_go_by_bytes_or_are_unknown() {
    let t = Tokenizer::new(&spm(SPM)).unwrap();
    assert_eq!(t.encode("é", EncodeOptions::default()).unwrap(), [3, 9, 10]);
    // One unknown for the character, although half of its bytes have tokens.
    assert_eq!(t.encode("è", EncodeOptions::default()).unwrap(), [3, 0]);

    let bare = [("▁", 0.0, 1)];
    let t = Tokenizer::new(&spm(&bare)).unwrap();
    assert_eq!(t.encode("x", EncodeOptions::default()).unwrap(), [0, 0], "token 0 is the conventional unknown");
    let few = Small { tokens: vec!["a".into()], merges: vec![], types: vec![1] };
    let t = few.tokenizer();
    let error = t.encode("aéa", EncodeOptions::default()).unwrap_err();
    assert_eq!(error, EncodeError::NoToken { text: "aéa".into(), byte: 0xC3 });
    let t = Tokenizer::new(&VocabData { unknown: Some(0), ..few.data() }).unwrap();
    assert_eq!(t.encode("éa", EncodeOptions::default()).unwrap(), [0, 0, 0]);
}

#[test]
fn ids_beyond_the_vocabulary_are_errors() {
    let t = small().tokenizer();
    let size = t.vocab_size();
    for found in [size as u32, u32::MAX] {
        let error = UnknownToken { found, size };
        assert_eq!(t.token_bytes(found), Err(error));
        assert_eq!(t.token_text(found), Err(error));
        assert_eq!(t.kind(found), Err(error));
        assert_eq!(t.decode(&[1, found], DecodeOptions::default()), Err(error));
        assert_eq!(StreamDecoder::new(&t, DecodeOptions::default()).push(found), Err(error));
        assert!(!t.is_end_of_generation(found));
    }
}

#[test]
fn the_first_of_equal_tokens_is_used_and_all_decode() {
    let mut small = small();
    small.tokens.push("the".into());
    small.types.push(1);
    let t = small.tokenizer();
    let the = t.encode("the", EncodeOptions::default()).unwrap();
    assert!(the[0] < t.vocab_size() as u32 - 1);
    assert_eq!(t.decode(&[t.vocab_size() as u32 - 1], DecodeOptions::default()).unwrap(), "the");
}

/// Builds `data` after a change and returns the error's text.
fn refused(data: &VocabData<'_>) -> String {
    Tokenizer::new(data).unwrap_err().to_string()
}

#[test]
fn errors_name_the_key_what_was_expected_and_what_was_found() {
    let small = small();
    let n = small.tokens.len();
    let check = |data: VocabData<'_>, parts: &[&str]| {
        let message = refused(&data);
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    };
    check(VocabData { model: "t5", ..small.data() }, &["tokenizer.ggml.model", "\"gpt2\", \"llama\"", "\"t5\""]);
    check(VocabData { pre: Some("x"), ..small.data() }, &["tokenizer.ggml.pre", "\"qwen2\"", "found \"x\""]);
    check(VocabData { tokens: vec![], token_types: None, ..small.data() }, &["at least one token"]);
    check(VocabData { token_types: Some(vec![1; 3]), ..small.data() }, &["token_type", &n.to_string(), "found 3"]);
    check(VocabData { token_types: Some(vec![9; n]), ..small.data() }, &["token_type", "found 9 for token 0"]);
    check(VocabData { token_types: Some(vec![6; n]), ..small.data() }, &["byte token 0", "\"Ā\""]);
    check(VocabData { merges: None, ..small.data() }, &["tokenizer.ggml.merges", "\"gpt2\"", "none"]);
    check(VocabData { merges: Some(vec![b"t h"]), ..small.data() }, &["merges", "result of entry 0", "\"th\""]);
    check(VocabData { merges: Some(vec![b"h e", b"ab"]), ..small.data() }, &["separated", "\"ab\"", "entry 1"]);
    check(VocabData { merges: Some(vec![b"h "]), ..small.data() }, &["separated", "\"h \""]);
    check(VocabData { merges: Some(vec![b""]), ..small.data() }, &["separated"]);
    check(VocabData { merges: Some(vec![b"xyz e"]), ..small.data() }, &["to be a token", "entry 0"]);
    for key in ["bos", "eos", "unknown", "eot", "eom"] {
        let id = |name: &str| Some(n as u32).filter(|_| name == key);
        let data = VocabData {
            bos: id("bos"),
            eos: id("eos"),
            unknown: id("unknown"),
            eot: id("eot"),
            eom: id("eom"),
            ..small.data()
        };
        check(data, &[&format!("tokenizer.ggml.{key}_token_id"), &format!("size {n}, found {n}")]);
    }
    assert!(
        Tokenizer::new(&VocabData { padding: Some(n as u32), ..small.data() }).unwrap().special().padding.is_none()
    );

    check(VocabData { scores: None, ..spm(SPM) }, &["tokenizer.ggml.scores", "\"llama\"", "none"]);
    check(VocabData { scores: Some(vec![0.0; 2]), ..spm(SPM) }, &["tokenizer.ggml.scores", "11", "found 2"]);
    check(VocabData { scores: Some(vec![f32::NAN; 11]), ..spm(SPM) }, &["tokenizer.ggml.scores", "NaN", "token 0"]);
}

#[test]
fn streams_emit_whole_characters() {
    let t = small().tokenizer();
    let mut stream = StreamDecoder::new(&t, DecodeOptions::default());
    let mut push = |byte: u8| stream.push(u32::from(byte)).unwrap().map(str::to_owned);
    let family = "👩\u{200d}👧";
    let emitted: Vec<Option<String>> = family.bytes().map(&mut push).collect();
    let shown: Vec<&str> = emitted.iter().flatten().map(String::as_str).collect();
    assert_eq!(shown, ["👩", "\u{200d}", "👧"]);
    assert_eq!(emitted[0], None);

    // What cannot become a character any more is replaced at once, and only it.
    assert_eq!(push(0xF0), None);
    assert_eq!(push(0x9F), None);
    assert_eq!(push(b'a').as_deref(), Some("\u{FFFD}a"));
    assert_eq!(push(0x80).as_deref(), Some("\u{FFFD}"));
    assert_eq!(push(0xC3), None);
    assert_eq!(push(0xC3).as_deref(), Some("\u{FFFD}"));
    assert_eq!(stream.finish(), Some("\u{FFFD}"));
    assert_eq!(stream.finish(), None);
}

#[test]
fn streams_keep_or_strip_the_space_like_decoding() {
    let t = std::sync::Arc::new(Tokenizer::new(&spm(SPM)).unwrap());
    for keep_space_prefix in [false, true] {
        let options = DecodeOptions { skip_special: true, keep_space_prefix };
        let ids = [1, 8, 8, 2, 8, 9, 10];
        let mut stream = StreamDecoder::new(t.clone(), options);
        let text: String = ids.iter().map(|&id| stream.push(id).unwrap().unwrap_or_default().to_owned()).collect();
        assert_eq!(text, t.decode(&ids, options).unwrap());
    }
}

proptest! {
    #[test]
    fn byte_level_encoding_comes_back(text in any::<String>(), pre in 0..3usize) {
        let small = small();
        let pre = Some(["gpt-2", "llama-bpe", "deepseek-llm"][pre]);
        let t = Tokenizer::new(&VocabData { pre, ..small.data() }).unwrap();
        let ids = t.encode(&text, EncodeOptions::default()).unwrap();
        prop_assert_eq!(t.decode(&ids, DecodeOptions::default()).unwrap(), text.clone());
        let mut stream = StreamDecoder::new(&t, DecodeOptions::default());
        let mut streamed = String::new();
        for &id in &ids {
            streamed.push_str(stream.push(id).unwrap().unwrap_or_default());
        }
        prop_assert_eq!(stream.finish(), None);
        prop_assert_eq!(streamed, text);
    }

    #[test]
    fn any_bytes_stream_as_they_decode(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let t = small().tokenizer();
        let ids: Vec<u32> = bytes.iter().map(|&byte| u32::from(byte)).collect();
        let mut stream = StreamDecoder::new(&t, DecodeOptions::default());
        let mut streamed = String::new();
        for &id in &ids {
            streamed.push_str(stream.push(id).unwrap().unwrap_or_default());
        }
        streamed.push_str(stream.finish().unwrap_or_default());
        prop_assert_eq!(streamed, String::from_utf8_lossy(&bytes));
    }

    /// Merging against another implementation, over random vocabularies on three letters.
    #[test]
    fn merging_agrees_with_the_tokenizers_crate(
        picks in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..24),
        word in "[abc]{0,40}",
    ) {
        let mut known: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        let mut merges: Vec<(String, String)> = Vec::new();
        for (left, right) in picks {
            let pair = (left.get(&known).clone(), right.get(&known).clone());
            let joined = format!("{}{}", pair.0, pair.1);
            if joined.len() <= 12 && !merges.contains(&pair) {
                if !known.contains(&joined) {
                    known.push(joined);
                }
                merges.push(pair);
            }
        }
        let pairs: Vec<(&str, &str)> = merges.iter().map(|(l, r)| (l.as_str(), r.as_str())).collect();
        let small = Small::new(&pairs, &[]);
        let vocab: Vec<(String, u32)> = small.tokens.iter().cloned().zip(0..).collect();
        let theirs = tokenizers::models::bpe::BPE::builder()
            .vocab_and_merges(vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
            .build()
            .unwrap();
        let expected: Vec<u32> = theirs.tokenize(&word).unwrap().into_iter().map(|token| token.id).collect();
        prop_assert_eq!(small.tokenizer().encode(&word, EncodeOptions::default()).unwrap(), expected);
    }
}
