//! A decode step (forward call and choice of the token) allocates nothing, on any thread; recording and
//! speculating do not either.

#![allow(clippy::unwrap_used)]

mod common;

use brick_profiler::{BrickProfiler, NoRecord, Recorder};
use brick_runtime::allocations::{self, CountingAllocator};
use brick_runtime::speculate::Speculator;
use brick_runtime::{Batch, EngineOptions, Row, Sampler, SamplerOptions, Speculation};
use common::{MODELS, engine, model, options, tokens};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// How often anybody allocated, reallocated or freed meanwhile.
fn counted(f: impl FnOnce()) -> u64 {
    allocations::count(f).1.unwrap()
}

fn decode_steps<R: Recorder>(
    name: &str,
    threads: usize,
    prompt: usize,
    recorder: impl FnOnce(&brick_runtime::Engine) -> R,
) -> u64 {
    let m = model(name);
    let mut e = engine(&m, &EngineOptions { threads, context: prompt + 64, max_rows: prompt, ..options() });
    let mut recorder = recorder(&e);
    let sequence = e.new_sequence().unwrap();
    let ids = tokens(prompt, m.spec.vocab, 1);
    let mut batch = Batch::with_capacity(prompt);
    batch.push_tokens(sequence, 0, &ids);
    let mut history = ids.clone();
    history.reserve(64);
    let sampling = SamplerOptions { temperature: 0.8, repeat_penalty: 1.1, ..SamplerOptions::default() };
    let mut sampler = Sampler::new(sampling, m.spec.vocab).unwrap();
    let mut token = {
        let logits = e.forward_observed(&batch, &mut recorder, &mut brick_runtime::engine::NoObserver).unwrap();
        sampler.sample(logits.last().unwrap(), &history).unwrap()
    };
    // 40 steps: the context grows over the edge of a KV block, twice.
    counted(|| {
        for _ in 0..40 {
            batch.clear();
            batch.push(Row { token, position: history.len(), sequence, wanted: true });
            history.push(token);
            let logits = e.forward_observed(&batch, &mut recorder, &mut brick_runtime::engine::NoObserver).unwrap();
            token = sampler.sample(logits.last().unwrap(), &history).unwrap();
        }
    })
}

/// Decodes as a session does that speculates, until 80 tokens are generated; gives allocations, and drafted and accepted
/// tokens.
fn speculating_steps(name: &str, mode: Speculation) -> (u64, usize, usize) {
    let m = model(name);
    let mut e = engine(&m, &options());
    let sequence = e.new_sequence().unwrap();
    let ids: Vec<u32> = tokens(6, m.spec.vocab, 1).repeat(8);
    let mut batch = Batch::with_capacity(64);
    batch.push_tokens(sequence, 0, &ids);
    let mut history = ids.clone();
    history.reserve(100);
    let mut sampler =
        Sampler::new(SamplerOptions { repeat_penalty: 1.05, ..SamplerOptions::default() }, m.spec.vocab).unwrap();
    let mut speculator = Speculator::new(mode, 160, 15);
    speculator.start(&ids, ids.len(), 1_000_000);
    e.forward_quiet(&batch).unwrap();
    let (mut drafted, mut accepted) = (0, 0);
    let allocations = counted(|| {
        let (mut row, mut rows) = (0, 0);
        while history.len() < ids.len() + 80 {
            let token = sampler.sample(e.logits().row(row), &history).unwrap();
            history.push(token);
            speculator.observe(token);
            if row < rows && speculator.drafted()[row] == token {
                row += 1;
                accepted += 1;
                continue;
            }
            let position = history.len() - 1;
            e.kv_mut().truncate(sequence, position).unwrap();
            batch.clear();
            batch.push(Row { token, position, sequence, wanted: true });
            for (i, &token) in speculator.draft(15).iter().enumerate() {
                batch.push(Row { token, position: position + 1 + i, sequence, wanted: true });
            }
            rows = batch.len() - 1;
            drafted += rows;
            row = 0;
            e.forward_quiet(&batch).unwrap();
            // As if drafted rows cost next to nothing.
            speculator.forwarded(1_000_000, 1);
        }
    });
    (allocations, drafted, accepted)
}

#[test]
fn decoding_allocates_nothing() {
    // One test only: the counter is global.
    assert!(counted(|| drop(std::hint::black_box(vec![1u8; 100]))) >= 2, "the counter counts");
    for name in MODELS {
        for threads in [1, 2] {
            assert_eq!(decode_steps(name, threads, 30, |_| NoRecord), 0, "{name}, {threads} threads");
        }
    }
    // Attention of one row is shared out to both threads.
    assert_eq!(decode_steps("qwen2-tiny", 2, 500, |_| NoRecord), 0, "long context");
    let recorded = decode_steps("qwen2-tiny", 2, 30, |e| BrickProfiler::new(e.steps(), 64).with_threads(2));
    assert_eq!(recorded, 0, "while recording");
    for mode in [Speculation::Fixed(7), Speculation::Auto] {
        let (mut drafted, mut accepted) = (0, 0);
        for name in MODELS {
            let (allocations, d, a) = speculating_steps(name, mode);
            assert_eq!(allocations, 0, "{name}, {mode:?}");
            drafted += d;
            accepted += a;
        }
        assert!(accepted > 0 && accepted < drafted, "{mode:?}: {accepted} of {drafted}, both right and wrong drafts");
    }
}
