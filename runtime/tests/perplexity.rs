//! The perplexity of a text is that of its tokens predicted one by one, however they are cut into calls.

#![allow(clippy::unwrap_used)]

mod common;

use brick_runtime::perplexity::{Chunks, PerplexityError, Score};
use brick_runtime::{Batch, EngineError, EngineOptions, KvError, Model, Row};
use common::{MODELS, engine, model, options, tokens};

const CONTEXT: usize = 13;

fn score(m: &Model, options: &EngineOptions, chunks: &Chunks) -> Score {
    let mut e = engine(m, options);
    let sequence = e.new_sequence().unwrap();
    let mut sum = Score::default();
    for chunk in 0..chunks.len() {
        sum.merge(&chunks.score(chunk, &mut e, sequence).unwrap());
    }
    sum
}

/// The definition: a chunk at a time, a token at a time, probabilities instead of their logarithms.
fn defined(m: &Model, tokens: &[u32], bos: Option<u32>) -> (usize, f64) {
    let mut e = engine(m, &options());
    let (mut count, mut sum) = (0, 0.0);
    for chunk in tokens.chunks_exact(CONTEXT) {
        let sequence = e.new_sequence().unwrap();
        for (position, pair) in chunk.windows(2).enumerate() {
            let token = if position == 0 { bos.unwrap_or(pair[0]) } else { pair[0] };
            let mut batch = Batch::default();
            batch.push(Row { token, position, sequence, wanted: true });
            let logits = e.forward_quiet(&batch).unwrap();
            if position >= CONTEXT / 2 {
                let all: f64 = logits.row(0).iter().map(|&l| f64::from(l).exp()).sum();
                sum -= (f64::from(logits.row(0)[pair[1] as usize]).exp() / all).ln();
                count += 1;
            }
        }
        e.kv_mut().release(sequence).unwrap();
    }
    (count, sum)
}

#[test]
fn it_is_what_its_definition_says() {
    for name in MODELS {
        let m = model(name);
        let text = tokens(3 * CONTEXT + 5, m.spec.vocab, 1);
        for bos in [None, Some(2)] {
            let found = score(&m, &options(), &Chunks::new(text.clone(), CONTEXT, bos).unwrap());
            let (count, nll) = defined(&m, &text, bos);
            assert_eq!(found.tokens as usize, count);
            assert_eq!(count, 3 * (CONTEXT - 1 - CONTEXT / 2), "of three whole chunks");
            assert!((found.nll - nll).abs() < 1e-9 * nll, "{name}: {} {nll}", found.nll);
        }
        let plain = score(&m, &options(), &Chunks::new(text.clone(), CONTEXT, None).unwrap());
        let with_bos = score(&m, &options(), &Chunks::new(text, CONTEXT, Some(2)).unwrap());
        assert_ne!(plain.nll, with_bos.nll, "{name}: the first token is replaced");
    }
}

#[test]
fn the_cut_into_calls_and_threads_change_no_bit() {
    let m = model("qwen2-tiny");
    let chunks = Chunks::new(tokens(2 * CONTEXT, m.spec.vocab, 7), CONTEXT, None).unwrap();
    let expected = score(&m, &options(), &chunks);
    for (max_rows, max_wanted, threads) in [(1, 1, 1), (3, 2, 2), (5, 5, 1), (CONTEXT, 1, 2), (64, 64, 1)] {
        let options = EngineOptions { max_rows, max_wanted, threads, ..options() };
        assert_eq!(score(&m, &options, &chunks), expected, "{max_rows} {max_wanted} {threads}");
    }
}

#[test]
fn what_cannot_be_scored_is_an_error() {
    let m = model("qwen2-tiny");
    let mut e = engine(&m, &EngineOptions { context: CONTEXT - 4, ..options() });
    let sequence = e.new_sequence().unwrap();
    let chunks = Chunks::new(tokens(CONTEXT, m.spec.vocab, 1), CONTEXT, None).unwrap();
    let full = chunks.score(0, &mut e, sequence);
    assert!(matches!(full, Err(PerplexityError::Engine(EngineError::Kv(KvError::ContextFull { .. })))), "{full:?}");
    let outside = chunks.score(1, &mut e, sequence);
    assert!(matches!(outside, Err(PerplexityError::Engine(EngineError::EmptyBatch))), "{outside:?}");
    let unknown = Chunks::new(vec![m.spec.vocab as u32; CONTEXT], CONTEXT, None).unwrap().score(0, &mut e, sequence);
    assert!(matches!(unknown, Err(PerplexityError::Engine(EngineError::Token { row: 0, .. }))), "{unknown:?}");
}
