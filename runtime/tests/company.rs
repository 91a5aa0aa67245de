//! Results do not depend on company: the bits of a sequence's logits are the same whatever else is in the batch, however
//! many threads run, and however its tokens were cut into calls.

#![allow(clippy::unwrap_used)]

mod common;

use brick_runtime::{Batch, Engine, EngineOptions, Row, SequenceId};
use bricks::cpu::SimdLevel;
use bricks::cpu::attention::{KvType, SPLIT};
use common::{MODELS, engine, model, options, tokens};
use proptest::prelude::*;

/// Logits after every token of a sequence, as bits.
type Trace = Vec<Vec<u32>>;

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|x| x.to_bits()).collect()
}

/// One prompt in one call.
fn alone(engine: &mut Engine, ids: &[u32]) -> Trace {
    let seq = engine.new_sequence().unwrap();
    let mut batch = Batch::default();
    for (position, &token) in ids.iter().enumerate() {
        batch.push(Row { token, position, sequence: seq, wanted: true });
    }
    let logits = engine.forward_quiet(&batch).unwrap();
    let trace = (0..logits.len()).map(|i| bits(logits.row(i))).collect();
    engine.kv_mut().release(seq).unwrap();
    trace
}

/// Several sequences in a random mixture of calls: `schedule` says which sequences advance by how much in each call.
fn together(engine: &mut Engine, prompts: &[Vec<u32>], schedule: &[Vec<usize>]) -> Vec<Trace> {
    let seqs: Vec<SequenceId> = prompts.iter().map(|_| engine.new_sequence().unwrap()).collect();
    let mut at = vec![0; prompts.len()];
    let mut traces: Vec<Trace> = vec![Vec::new(); prompts.len()];
    let mut step = 0;
    while at.iter().zip(prompts).any(|(a, p)| *a < p.len()) {
        let mut batch = Batch::default();
        let mut owners = Vec::new();
        for (s, prompt) in prompts.iter().enumerate() {
            // After the schedule is used up everybody advances by one.
            let n = schedule.get(step).map_or(1, |call| call[s]).min(prompt.len() - at[s]).min(64 - batch.len());
            for _ in 0..n {
                batch.push(Row { token: prompt[at[s]], position: at[s], sequence: seqs[s], wanted: true });
                owners.push(s);
                at[s] += 1;
            }
        }
        step += 1;
        if batch.is_empty() {
            continue;
        }
        let logits = engine.forward_quiet(&batch).unwrap();
        for (i, &s) in owners.iter().enumerate() {
            traces[s].push(bits(logits.row(i)));
        }
    }
    for s in seqs {
        engine.kv_mut().release(s).unwrap();
    }
    traces
}

#[test]
fn threads_and_splits_do_not_change_a_bit() {
    for name in MODELS {
        let m = model(name);
        let ids = tokens(50, m.spec.vocab, 1);
        let reference = alone(&mut engine(&m, &options()), &ids);
        assert!(reference.iter().flatten().all(|b| f32::from_bits(*b).is_finite()), "{name}");
        for threads in [1, 3] {
            let o = EngineOptions { threads, ..options() };
            assert!(alone(&mut engine(&m, &o), &ids) == reference, "{name}: {threads} threads");
        }
        let one_by_one = together(&mut engine(&m, &options()), std::slice::from_ref(&ids), &[]);
        assert!(one_by_one[0] == reference, "{name}: decoded instead of prefilled");
    }
}

/// Contexts beyond a split: tiles of a prompt, single rows whose splits are shared out to threads, and drafts of a few rows.
#[test]
fn long_contexts_do_not_change_a_bit_either() {
    for kv_type in KvType::ALL {
        for name in ["qwen2-tiny", "spm-tiny"] {
            let m = model(name);
            let n = 2 * SPLIT + 70;
            let ids = tokens(n, m.spec.vocab, 8);
            let long = EngineOptions { context: n, kv_type, sequences: 1, ..options() };
            let whole = EngineOptions { max_rows: n, max_wanted: n, threads: 1, ..long };
            let reference = alone(&mut engine(&m, &whole), &ids);
            for threads in [1, 2, 3] {
                let o = EngineOptions { threads, ..long };
                let mut e = engine(&m, &o);
                // Calls of 64, 1, 5 and 31 rows in turn: prompts, decoding and drafts at all depths.
                let schedule: Vec<Vec<usize>> = (0..n).map(|i| vec![[64, 1, 5, 31][i % 4]]).collect();
                let found = together(&mut e, std::slice::from_ref(&ids), &schedule);
                assert!(found[0] == reference, "{name}, {kv_type}: {threads} threads, mixed calls");
                // A prompt, then one by one over the edge of a split.
                let found = together(&mut e, std::slice::from_ref(&ids), &vec![vec![64]; 7]);
                assert!(found[0] == reference, "{name}, {kv_type}: {threads} threads, decoded");
            }
        }
    }
}

#[test]
fn all_simd_levels_give_the_same_bits() {
    for name in MODELS {
        let m = model(name);
        let ids = tokens(20, m.spec.vocab, 2);
        let at = |simd| alone(&mut engine(&m, &EngineOptions { simd, ..options() }), &ids);
        let reference = at(SimdLevel::Scalar);
        for level in SimdLevel::available() {
            assert!(at(level) == reference, "{name}: {}", level.name());
        }
    }
}

#[test]
fn keeping_all_values_changes_nothing() {
    let m = model("qwen2-tiny");
    let ids = tokens(20, m.spec.vocab, 3);
    let kept = EngineOptions { keep_values: true, ..options() };
    assert!(alone(&mut engine(&m, &options()), &ids) == alone(&mut engine(&m, &kept), &ids));
}

/// F045: changing later tokens leaves earlier logits as they are, to the bit.
#[test]
fn the_future_has_no_influence() {
    let m = model("spm-tiny");
    let a = tokens(40, m.spec.vocab, 4);
    let mut b = a.clone();
    for t in &mut b[25..] {
        *t = (*t + 7) % m.spec.vocab as u32;
    }
    let mut e = engine(&m, &options());
    let (ta, tb) = (alone(&mut e, &a), alone(&mut e, &b));
    assert!(ta[..25] == tb[..25]);
    assert!(ta[25] != tb[25]);
}

/// A forked sequence continues as if it had computed its prefix itself; a truncated one forgets.
#[test]
fn fork_and_truncate_are_exact() {
    let m = model("qwen2-tiny");
    let mut e = engine(&m, &options());
    let prefix = tokens(40, m.spec.vocab, 5);
    let (x, y) = (tokens(10, m.spec.vocab, 6), tokens(10, m.spec.vocab, 7));
    let whole = |tail: &[u32]| [&prefix[..], tail].concat();
    let (tx, ty) = (alone(&mut e, &whole(&x)), alone(&mut e, &whole(&y)));

    let a = e.new_sequence().unwrap();
    let mut batch = Batch::default();
    batch.push_tokens(a, 0, &whole(&x));
    e.forward_quiet(&batch).unwrap();
    let b = e.kv_mut().fork(a, prefix.len()).unwrap();
    batch.clear();
    batch.push_tokens(b, prefix.len(), &y);
    assert!(bits(e.forward_quiet(&batch).unwrap().row(0)) == *ty.last().unwrap(), "fork");
    e.kv_mut().truncate(a, prefix.len()).unwrap();
    batch.clear();
    batch.push_tokens(a, prefix.len(), &y);
    assert!(bits(e.forward_quiet(&batch).unwrap().row(0)) == *ty.last().unwrap(), "truncate");
    e.kv_mut().truncate(b, prefix.len()).unwrap();
    batch.clear();
    batch.push_tokens(b, prefix.len(), &x);
    assert!(bits(e.forward_quiet(&batch).unwrap().row(0)) == *tx.last().unwrap(), "both");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Sequences of very different length share calls: some rows are cut at splits, others are not.
    #[test]
    fn company_does_not_change_a_bit_in_long_contexts(
        lens in proptest::collection::vec(prop_oneof![1usize..60, 250usize..330, 500usize..530], 1..4),
        schedule in proptest::collection::vec(proptest::collection::vec(0usize..64, 4), 8..16),
        threads in 1usize..4,
    ) {
        let m = model("qwen2-tiny");
        let prompts: Vec<Vec<u32>> = lens.iter().enumerate().map(|(i, &n)| tokens(n, m.spec.vocab, i)).collect();
        let long = EngineOptions { threads, context: 540, ..options() };
        let mut whole = engine(&m, &EngineOptions { max_rows: 540, max_wanted: 540, sequences: 1, ..long });
        let expected: Vec<Trace> = prompts.iter().map(|p| alone(&mut whole, p)).collect();
        let found = together(&mut engine(&m, &long), &prompts, &schedule);
        prop_assert!(found == expected);
    }

    #[test]
    fn company_does_not_change_a_bit(
        which in 0usize..6,
        lens in proptest::collection::vec(1usize..60, 1..4),
        schedule in proptest::collection::vec(proptest::collection::vec(0usize..40, 4), 0..8),
        threads in 1usize..4,
    ) {
        let m = model(MODELS[which]);
        let prompts: Vec<Vec<u32>> = lens.iter().enumerate().map(|(i, &n)| tokens(n, m.spec.vocab, i)).collect();
        let mut e = engine(&m, &EngineOptions { threads, ..options() });
        let expected: Vec<Trace> = prompts.iter().map(|p| alone(&mut e, p)).collect();
        let found = together(&mut e, &prompts, &schedule);
        prop_assert!(found == expected);
        prop_assert_eq!(e.kv().usage().0, 0);
    }
}
