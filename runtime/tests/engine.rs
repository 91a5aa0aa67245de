//! The engine's errors leave everything as it was; checks find a broken kernel; recording accounts for the time.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::AtomicBool;

use brick_profiler::{BrickProfiler, NoRecord, Phase};
use brick_runtime::check::{CheckError, check};
use brick_runtime::session::PositionLogprobs;
use brick_runtime::{
    Batch, EngineError, EngineOptions, FinishReason, GenerateError, GenerateOptions, KvError, Row, SamplerOptions,
    Session,
};
use common::{MODELS, engine, model, options, tokens};

#[test]
fn bad_batches_are_errors_and_change_nothing() {
    let m = model("spm-tiny");
    let mut e = engine(&m, &EngineOptions { context: 40, max_rows: 8, max_wanted: 2, sequences: 2, ..options() });
    let s = e.new_sequence().unwrap();
    let mut batch = Batch::default();
    assert!(matches!(e.forward_quiet(&batch), Err(EngineError::EmptyBatch)));
    batch.push_tokens(s, 0, &[1, 2, 3]);
    e.forward_quiet(&batch).unwrap();
    let before: Vec<u32> = e.logits().row(0).iter().map(|x| x.to_bits()).collect();

    let vocab = m.spec.vocab as u32;
    let row = |token, position| Row { token, position, sequence: s, wanted: false };
    let cases: [(&str, Vec<Row>); 5] = [
        ("outside the vocabulary", vec![row(1, 3), row(vocab, 4)]),
        ("the next position is 4", vec![row(1, 3), row(1, 5)]),
        ("the next position is 3", vec![row(1, 0)]),
        ("9 rows, the plan", (3..12).map(|p| row(1, p)).collect()),
        ("3 rows with wanted", (3..6).map(|p| Row { wanted: true, ..row(1, p) }).collect()),
    ];
    for (message, rows) in cases {
        batch.clear();
        for row in rows {
            batch.push(row);
        }
        let error = e.forward_quiet(&batch).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert_eq!(e.kv().len(s).unwrap(), 3, "{message}");
    }
    assert!(e.logits().row(0).iter().map(|x| x.to_bits()).eq(before), "the last logits are still there");

    // Fill the context; the row that does not fit takes the others of its batch with it.
    batch.clear();
    batch.push_tokens(s, 3, &[5; 8]);
    for start in [3, 11, 19, 27] {
        batch.clear();
        batch.push_tokens(s, start, &[5; 8]);
        e.forward_quiet(&batch).unwrap();
    }
    batch.clear();
    batch.push_tokens(s, 35, &[5; 8]);
    assert!(matches!(e.forward_quiet(&batch), Err(EngineError::Kv(KvError::ContextFull { wanted: 41, context: 40 }))));
    assert_eq!(e.kv().len(s).unwrap(), 35);
}

#[test]
fn check_passes_and_finds_every_kind_of_broken_kernel() {
    for name in MODELS {
        let m = model(name);
        let ids = tokens(9, m.spec.vocab, 1);
        let report = check(&m.fused, m.weights(), &options(), &ids, None).unwrap();
        assert!(report.first().is_none(), "{name}: {:?}", report.first());
        assert_eq!(report.bricks.len() + 1, m.fused.len(), "every brick but the input is judged");
    }
    let m = model("qwen2-tiny");
    let ids = tokens(9, m.spec.vocab, 1);
    // The fused graph, and the graph as built: other bricks.
    for graph in [&m.fused, &m.graph] {
        for brick in graph.bricks().skip(1) {
            // Every kind and layer once would be slow; one layer and what is outside of layers.
            if brick.layer.is_some_and(|l| l != 1) {
                continue;
            }
            let report = check(graph, m.weights(), &options(), &ids, Some(&brick.name)).unwrap();
            assert_eq!(report.first().map(|b| b.brick.as_str()), Some(brick.name.as_str()));
        }
    }
    let error = check(&m.fused, m.weights(), &options(), &ids, Some("blk.99.nothing")).unwrap_err();
    assert!(matches!(error, CheckError::UnknownBrick { .. }));
}

/// The plan of the fused graph computes what the plan of the graph as built computes.
#[test]
fn fusion_changes_no_bit() {
    for name in MODELS {
        let m = model(name);
        let ids = tokens(20, m.spec.vocab, 1);
        let run = |graph| {
            let mut e = brick_runtime::Engine::new(graph, m.weights(), &options()).unwrap();
            let s = e.new_sequence().unwrap();
            let mut batch = Batch::default();
            batch.push_tokens(s, 0, &ids);
            e.forward_quiet(&batch).unwrap().row(0).iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        assert!(run(&m.graph) == run(&m.fused), "{name}");
    }
}

#[test]
fn recording_accounts_for_every_step() {
    let m = model("qwen2-tiny");
    let mut e = engine(&m, &options());
    let mut recorder = BrickProfiler::new(e.steps(), 16);
    let s = e.new_sequence().unwrap();
    let mut batch = Batch::default();
    batch.push_tokens(s, 0, &tokens(20, m.spec.vocab, 1));
    e.forward(&batch, &mut recorder).unwrap();
    for position in 20..25 {
        batch.clear();
        batch.push_tokens(s, position, &[3]);
        e.forward(&batch, &mut recorder).unwrap();
    }
    recorder.finish();
    assert_eq!(recorder.phase_totals(Phase::Prefill).forwards, 1);
    assert_eq!(recorder.phase_totals(Phase::Decode).forwards, 5);
    for step in 0..e.steps().len() {
        assert_eq!(recorder.step_totals(Phase::Decode, step).unwrap().count, 5);
    }
    assert_eq!(recorder.ignored_calls(), 0);
}

fn generate(
    session: &mut Session<'_>,
    ids: &[u32],
    o: &GenerateOptions,
) -> Result<brick_runtime::Generation, GenerateError> {
    session.generate(ids, o, &mut NoRecord, &AtomicBool::new(false), &mut |_| {})
}

#[test]
fn sessions_reuse_their_prefix_and_say_why_they_end() {
    let m = model("qwen2-tiny");
    let new_session = |context| {
        let o = EngineOptions { context, sequences: 1, max_rows: 16, max_wanted: 4, ..options() };
        Session::new(engine(&m, &o), &m.tokenizer, m.spec.context_length).unwrap()
    };
    let ids = tokens(30, m.spec.vocab, 1);
    let o = GenerateOptions { max_tokens: Some(20), ignore_eos: true, ..GenerateOptions::default() };
    let mut session = new_session(100);
    let first = generate(&mut session, &ids, &o).unwrap();
    assert_eq!((first.ids.len(), &first.finish), (20, &FinishReason::MaxTokens));

    // The whole conversation again: nothing but its last token is computed, and the answer is the same.
    let again = generate(&mut session, &ids, &o).unwrap();
    assert_eq!((&again.ids, again.timings.cached_tokens), (&first.ids, 29));
    let longer: Vec<u32> = ids.iter().chain(&first.ids).copied().chain([5, 6]).collect();
    let continued = generate(&mut session, &longer, &o).unwrap();
    assert_eq!(continued.timings.cached_tokens, 49, "the last generated token was never computed");
    assert_eq!(continued.ids, generate(&mut new_session(100), &longer, &o).unwrap().ids);

    // Context.
    let full = generate(&mut new_session(40), &ids, &o).unwrap();
    assert_eq!((full.ids.len(), full.finish), (11, FinishReason::ContextFull { context: 40 }));
    assert!(matches!(
        generate(&mut new_session(29), &ids, &o),
        Err(GenerateError::PromptTooLong { tokens: 30, context: 29, .. })
    ));
    assert!(matches!(generate(&mut new_session(29), &[], &o), Err(GenerateError::EmptyPrompt)));

    // Seeds.
    let sampled = |seed| {
        let sampler =
            SamplerOptions { temperature: 1.5, top_k: 0, top_p: 1.0, min_p: 0.0, seed, ..SamplerOptions::default() };
        generate(&mut new_session(100), &ids, &GenerateOptions { sampler, ..o.clone() }).unwrap().ids
    };
    assert_eq!(sampled(1), sampled(1));
    assert_ne!(sampled(1), sampled(2));
}

#[test]
fn logprobs_cover_prompt_and_answer() {
    let m = model("spm-tiny");
    let run = |max_wanted| {
        let o = EngineOptions { sequences: 1, max_rows: 16, max_wanted, ..options() };
        let mut session = Session::new(engine(&m, &o), &m.tokenizer, m.spec.context_length).unwrap();
        let o = GenerateOptions {
            max_tokens: Some(3),
            ignore_eos: true,
            logprobs: Some(4),
            echo: true,
            ..GenerateOptions::default()
        };
        generate(&mut session, &tokens(21, m.spec.vocab, 1), &o).unwrap()
    };
    let g = run(4);
    let positions: Vec<usize> = g.logprobs.iter().map(|p| p.position).collect();
    assert_eq!(positions, (1..24).collect::<Vec<_>>(), "every position after the first");
    for PositionLogprobs { id, logprob, top, .. } in &g.logprobs {
        assert_eq!(top.len(), 4);
        assert!(top.windows(2).all(|w| w[0].logprob >= w[1].logprob));
        let p = logprob.unwrap();
        assert!(p <= top[0].logprob && p <= 0.0);
        assert!(top.iter().all(|t| t.id != *id || t.logprob == p));
    }
    assert_eq!(g.logprobs, run(16).logprobs, "the size of the chunks makes no difference");
}

#[test]
fn cancelling_stops_between_tokens() {
    let m = model("qwen2-tiny");
    let mut session = Session::new(engine(&m, &options()), &m.tokenizer, m.spec.context_length).unwrap();
    let cancel = AtomicBool::new(false);
    let o = GenerateOptions { ignore_eos: true, ..GenerateOptions::default() };
    let mut pieces = 0;
    let g = session
        .generate(&tokens(5, m.spec.vocab, 1), &o, &mut NoRecord, &cancel, &mut |_| {
            pieces += 1;
            cancel.store(true, std::sync::atomic::Ordering::Relaxed);
        })
        .unwrap();
    assert_eq!(g.finish, FinishReason::Cancelled);
    assert_eq!(pieces, 1);
}
