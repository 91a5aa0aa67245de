//! Tokenizers on real vocabularies, against what llama.cpp makes of the same texts.
//!
//! The vocabularies are llama.cpp's test files (1 to 11 MB each, fetched once, see [`vocab_dir`]) with the texts and
//! tokens that lie beside them, and `data/tokenizer/llama_cpp.json` with more awkward texts.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use brick_models::format::gguf::Gguf;
use brick_models::tokenizer::{DecodeOptions, EncodeOptions, StreamDecoder, Tokenizer};
use serde::Deserialize;

/// `$BRICK_VOCAB_DIR`, or else a cache under the target directory that the fetch script fills.
fn vocab_dir() -> &'static Path {
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        if let Some(dir) = std::env::var_os("BRICK_VOCAB_DIR") {
            return Ok(dir.into());
        }
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-data").join("vocab");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../falsification/reference/vocab_fetch.py");
        let output = Command::new("python3").arg(script).arg(&dir).output();
        match output {
            Ok(output) if output.status.success() => Ok(dir),
            Ok(output) => Err(format!("{script}: {}", String::from_utf8_lossy(&output.stderr))),
            Err(e) => Err(format!("python3 {script}: {e}")),
        }
    });
    match dir {
        Ok(dir) => dir,
        Err(why) => panic!("no vocabularies: set BRICK_VOCAB_DIR to a directory with ggml-vocab-*.gguf, or fix\n{why}"),
    }
}

fn path(name: &str, suffix: &str) -> PathBuf {
    vocab_dir().join(format!("ggml-vocab-{name}.gguf{suffix}"))
}

fn load(name: &str) -> Tokenizer {
    let file = Gguf::open(path(name, "")).unwrap();
    Tokenizer::from_gguf(&file.metadata()).unwrap()
}

/// The texts and tokens beside a vocabulary.
fn pairs(name: &str) -> Vec<(String, Vec<u32>)> {
    let read = |suffix| std::fs::read_to_string(path(name, suffix)).unwrap();
    let (texts, tokens) = (read(".inp"), read(".out"));
    let texts: Vec<&str> = texts.split_terminator("\n__ggml_vocab_test__\n").collect();
    let tokens: Vec<Vec<u32>> =
        tokens.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
    assert_eq!(texts.len(), tokens.len(), "{name}");
    assert!(texts.len() >= 40, "{name}: {} texts", texts.len());
    texts.into_iter().map(str::to_owned).zip(tokens).collect()
}

#[derive(Deserialize)]
struct Goldens {
    texts: Vec<String>,
    #[serde(flatten)]
    vocabs: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Golden {
    plain: Vec<Vec<u32>>,
    special: Vec<Vec<u32>>,
    ends: Vec<u32>,
}

fn goldens(name: &str) -> (Vec<String>, Golden) {
    let mut all: Goldens = serde_json::from_str(include_str!("data/tokenizer/llama_cpp.json")).unwrap();
    let golden: Golden = serde_json::from_value(all.vocabs.remove(name).unwrap()).unwrap();
    assert_eq!(all.texts.len(), golden.plain.len());
    assert_eq!(all.texts.len(), golden.special.len());
    (all.texts, golden)
}

/// Encodes `text` and describes the difference, if any.
fn difference(t: &Tokenizer, text: &str, expected: &[u32], options: EncodeOptions) -> Option<String> {
    let found = t.encode(text, options).unwrap();
    let show = |ids: &[u32]| {
        ids.iter().map(|&id| format!("{id}{:?}", t.token_to_piece(id).unwrap())).collect::<Vec<_>>().join(" ")
    };
    (found != expected).then(|| format!("{text:?}\n expected {}\n found    {}", show(expected), show(&found)))
}

/// What `text` is after encoding and decoding. SentencePiece spells spaces U+2581 and cannot tell the two apart.
fn round_trip(t: &Tokenizer, text: &str) -> String {
    if t.id_of("▁the").is_some() { text.replace('▁', " ") } else { text.to_owned() }
}

fn check(name: &str, has_pairs: bool) {
    const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
    const SPECIAL: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };
    let t = load(name);
    let pairs = if has_pairs { pairs(name) } else { Vec::new() };
    let (texts, golden) = goldens(name);

    let mut wrong = Vec::new();
    wrong.extend(pairs.iter().filter_map(|(text, ids)| difference(&t, text, ids, PLAIN)));
    for (text, (plain, special)) in texts.iter().zip(golden.plain.iter().zip(&golden.special)) {
        wrong.extend(difference(&t, text, plain, PLAIN));
        wrong.extend(difference(&t, text, special, SPECIAL));
    }
    println!("{name}: {} pairs, {} goldens, {} wrong", pairs.len(), 2 * texts.len(), wrong.len());
    assert!(wrong.is_empty(), "{name}: {}", wrong.join("\n"));
    assert_eq!(t.end_of_generation(), golden.ends, "{name}: tokens that end generation");

    for text in pairs.iter().map(|(text, _)| text).chain(&texts) {
        let ids = t.encode(text, PLAIN).unwrap();
        let text = round_trip(&t, text);
        assert_eq!(t.decode(&ids, DecodeOptions::default()).unwrap(), text, "{name}");
        let mut stream = StreamDecoder::new(&t, DecodeOptions::default());
        let mut streamed = String::new();
        for &id in &ids {
            streamed.push_str(stream.push(id).unwrap().unwrap_or_default());
        }
        assert_eq!(stream.finish(), None, "{name}");
        assert_eq!(streamed, text, "{name}");
    }
}

macro_rules! vocabularies {
    ($($test:ident = $name:literal, $has_pairs:literal;)*) => {$(
        #[test]
        fn $test() {
            check($name, $has_pairs);
        }
    )*};
}

vocabularies! {
    baichuan = "baichuan", false;
    command_r = "command-r", true;
    deepseek_coder = "deepseek-coder", true;
    deepseek_llm = "deepseek-llm", true;
    falcon = "falcon", true;
    gpt_2 = "gpt-2", true;
    gpt_neox = "gpt-neox", false;
    llama_bpe = "llama-bpe", true;
    llama_spm = "llama-spm", true;
    mpt = "mpt", true;
    phi_3 = "phi-3", true;
    qwen2 = "qwen2", true;
    qwen35 = "qwen35", true;
    refact = "refact", true;
    starcoder = "starcoder", true;
}

#[test]
fn known_prompts() {
    let encode =
        |name, text| load(name).encode(text, EncodeOptions { add_special: true, parse_special: false }).unwrap();
    assert_eq!(encode("qwen2", "The capital of France is"), [785, 6722, 315, 9625, 374]);
    assert_eq!(encode("llama-spm", "The capital of France is"), [1, 450, 7483, 310, 3444, 338]);
    assert_eq!(encode("llama-spm", ""), [1]);
}

#[test]
#[ignore = "needs BRICK_TEST_MODEL, a SmolLM2 GGUF"]
fn smollm2_prompts() {
    let file = Gguf::open(std::env::var_os("BRICK_TEST_MODEL").unwrap()).unwrap();
    let t = Tokenizer::from_gguf(&file.metadata()).unwrap();
    let encode = |text| t.encode(text, EncodeOptions { add_special: true, parse_special: true }).unwrap();
    assert_eq!(encode("The capital of France is"), [504, 3575, 282, 4649, 314]);
    assert_eq!(encode("Once upon a time"), [6403, 1980, 253, 655]);
    assert_eq!(encode("<|im_start|>user")[0], 1);
    assert!(t.is_end_of_generation(t.id_of("<|im_end|>").unwrap()));
}

#[test]
fn every_token_of_every_byte_level_vocabulary_decodes_to_what_encodes_to_it() {
    // Bytes, not text: tokens may be parts of characters. So: all bytes of all tokens of a text, in order.
    for name in ["gpt-2", "qwen2"] {
        let t = load(name);
        for id in 0..t.vocab_size() as u32 {
            let bytes = t.token_bytes(id).unwrap();
            let Ok(text) = std::str::from_utf8(bytes) else { continue };
            let ids = t.encode(text, EncodeOptions::default()).unwrap();
            assert_eq!(t.decode_bytes(&ids, DecodeOptions::default()).unwrap(), bytes, "{name}: token {id}");
        }
    }
}

#[test]
fn hostile_texts_take_no_longer_than_their_length() {
    // Quadratic algorithms would take hours over these.
    const N: usize = 1 << 20;
    let family = "👩\u{200d}👩\u{200d}👧\u{200d}👦";
    let texts =
        ["a", " ", "\n", "\0", "\u{a0}", "<", "▁", "'s", "1", "\u{301}", family, "<|im_start|>", "¿¡", " \t\r\n"]
            .map(|unit| unit.repeat(N / unit.len()) + "x");
    for name in ["qwen2", "llama-spm", "phi-3", "deepseek-llm"] {
        let t = load(name);
        for text in &texts {
            let ids = t.encode(text, EncodeOptions { add_special: false, parse_special: true }).unwrap();
            assert!(ids.len() <= text.len() + 1, "{name}: {} tokens", ids.len()); // and a space in front
            assert!(t.decode(&ids, DecodeOptions::default()).unwrap() == round_trip(&t, text), "{name}: {text:.20}");
        }
    }
}
