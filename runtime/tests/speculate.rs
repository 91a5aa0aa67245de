//! Speculation changes how many tokens a forward call brings, and nothing else: the same tokens, log-probabilities, pieces
//! of text and reason to stop, whatever is drafted.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use brick_profiler::NoRecord;
use brick_runtime::{
    EngineOptions, FinishReason, GenerateOptions, Generation, Model, SamplerOptions, Session, Speculation,
    SpeculationStats,
};
use common::{MODELS, engine, model, options, tokens};
use proptest::prelude::*;

const MODES: [Speculation; 5] =
    [Speculation::Auto, Speculation::Fixed(1), Speculation::Fixed(3), Speculation::Fixed(7), Speculation::Fixed(31)];

fn session(m: &Model, context: usize) -> Session<'_> {
    // One thread: the number of threads changes nothing either, and tests of a busy machine wait less.
    let o = EngineOptions { threads: 1, context, sequences: 1, ..options() };
    Session::new(engine(m, &o), &m.tokenizer, m.spec.context_length).unwrap()
}

/// An answer with the pieces of its text; cancelled after `pieces` of them.
fn answer(s: &mut Session<'_>, prompt: &[u32], o: &GenerateOptions, pieces: usize) -> (Generation, Vec<String>) {
    let (cancel, mut shown) = (AtomicBool::new(false), Vec::new());
    let generation = s.generate(prompt, o, &mut NoRecord, &cancel, &mut |text| {
        shown.push(text.to_owned());
        cancel.store(shown.len() >= pieces, Ordering::Relaxed);
    });
    (generation.unwrap(), shown)
}

type Position = (usize, u32, Option<u32>, Vec<(u32, u32)>);
type Facts = (Vec<u32>, String, FinishReason, Vec<Position>, usize);

/// Everything about an answer that speculation must leave alone, log-probabilities as bits.
fn facts(g: &Generation) -> Facts {
    let bits = |p: &brick_runtime::session::PositionLogprobs| {
        let top: Vec<(u32, u32)> = p.top.iter().map(|t| (t.id, t.logprob.to_bits())).collect();
        (p.position, p.id, p.logprob.map(f32::to_bits), top)
    };
    let logprobs: Vec<_> = g.logprobs.iter().map(bits).collect();
    (g.ids.clone(), g.text.clone(), g.finish.clone(), logprobs, g.timings.decode_tokens)
}

/// Compares an answer in every mode with that of one call per token; gives what the modes did together.
fn compare(m: &Model, context: usize, prompt: &[u32], o: &GenerateOptions, pieces: usize) -> SpeculationStats {
    let mut off = session(m, context);
    let (expected, shown) = answer(&mut off, prompt, o, pieces);
    assert_eq!(expected.speculation.drafted, 0);
    let mut sum = SpeculationStats::default();
    for speculation in MODES {
        let mut on = session(m, context);
        let (found, found_shown) = answer(&mut on, prompt, &GenerateOptions { speculation, ..o.clone() }, pieces);
        assert_eq!(facts(&found), facts(&expected), "{speculation:?}");
        assert_eq!(found_shown, shown, "{speculation:?}: the stream");
        assert_eq!(on.tokens(), off.tokens(), "{speculation:?}: what is in the cache");
        assert_eq!(on.engine().kv().usage(), off.engine().kv().usage(), "{speculation:?}: blocks");
        let s = found.speculation;
        assert!(s.accepted <= s.drafted && s.tokens <= s.forwards + s.accepted, "{s:?}");
        assert_eq!(s.tokens, found.timings.decode_tokens, "{s:?}");
        sum.drafted += s.drafted;
        sum.accepted += s.accepted;
    }
    sum
}

/// A text that repeats itself, with a change here and there.
fn repetitive(n: usize, vocab: usize, seed: usize) -> Vec<u32> {
    let phrase = tokens(9, vocab, seed);
    (0..n).map(|i| if i % 23 == 22 { ((i * 31 + seed) % vocab) as u32 } else { phrase[i % 9] }).collect()
}

fn samplers() -> Vec<SamplerOptions> {
    let base = SamplerOptions::default();
    let mut all = vec![base.clone(), SamplerOptions { repeat_penalty: 1.3, ..base.clone() }];
    for seed in 1..3 {
        all.push(SamplerOptions { temperature: 0.3, seed, ..base.clone() });
        all.push(SamplerOptions { temperature: 1.0, repeat_penalty: 1.2, repeat_last_n: 8, seed, ..base.clone() });
    }
    all
}

fn generating(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(max_tokens), ignore_eos: true, ..GenerateOptions::default() }
}

#[test]
fn answers_are_the_same_bit_by_bit() {
    let mut sum = SpeculationStats::default();
    for name in MODELS {
        let m = model(name);
        for (i, sampler) in samplers().into_iter().enumerate() {
            let o = GenerateOptions { sampler, logprobs: Some(5), ..generating(70) };
            let s = compare(&m, 160, &repetitive(60, m.spec.vocab, i), &o, usize::MAX);
            sum.drafted += s.drafted;
            sum.accepted += s.accepted;
        }
    }
    // Right and wrong drafts both occurred, or nothing was compared.
    assert!(sum.accepted > 100 && sum.drafted > sum.accepted + 100, "{sum:?}");
}

#[test]
fn answers_end_at_the_same_token() {
    let m = model("qwen2-tiny");
    let prompt = repetitive(40, m.spec.vocab, 2);
    let mut accepted = 0;
    // As many tokens as asked for: never a draft beyond.
    for n in [0, 1, 2, 3, 5, 8, 13] {
        accepted += compare(&m, 160, &prompt, &generating(n), usize::MAX).accepted;
    }
    // A full context.
    let unlimited = GenerateOptions { ignore_eos: true, ..GenerateOptions::default() };
    for context in [40, 41, 42, 47, 64, 96] {
        accepted += compare(&m, context, &prompt, &unlimited, usize::MAX).accepted;
        let mut s = session(&m, context);
        let o = GenerateOptions { speculation: Speculation::Fixed(7), ..unlimited.clone() };
        assert_eq!(answer(&mut s, &prompt, &o, usize::MAX).0.finish, FinishReason::ContextFull { context });
    }
    // Cancelled after some pieces of text.
    for pieces in [1, 2, 5, 9] {
        accepted += compare(&m, 160, &prompt, &unlimited, pieces).accepted;
    }
    // A stop string: any piece of the text.
    let whole = answer(&mut session(&m, 160), &prompt, &generating(60), usize::MAX).1;
    for piece in whole.iter().filter(|p| !p.contains(char::REPLACEMENT_CHARACTER)).step_by(7) {
        let o = GenerateOptions { stop: vec!["never said".into(), piece.clone()], ..generating(60) };
        accepted += compare(&m, 160, &prompt, &o, usize::MAX).accepted;
    }
    assert!(accepted > 50, "{accepted}");
}

#[test]
fn an_end_of_text_in_the_draft_ends_the_answer() {
    let m = model("qwen2-tiny");
    let end = (0..m.spec.vocab as u32).find(|&t| m.tokenizer.is_end_of_generation(t)).unwrap();
    // High temperatures reach it sooner or later, and the prompt proposes it all the time.
    let phrase: Vec<u32> = tokens(4, m.spec.vocab, 3).into_iter().chain([end]).collect();
    let prompt = phrase.repeat(6);
    let mut ended = 0;
    for seed in 0..12 {
        let sampler =
            SamplerOptions { temperature: 3.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed, ..SamplerOptions::default() };
        let o = GenerateOptions { sampler, max_tokens: Some(90), ..GenerateOptions::default() };
        compare(&m, 160, &prompt, &o, usize::MAX);
        let g = answer(&mut session(&m, 160), &prompt, &o, usize::MAX).0;
        ended += usize::from(g.finish == FinishReason::EndOfText(end));
    }
    assert!(ended > 0);
}

#[test]
fn conversations_go_on_the_same() {
    let m = model("spm-tiny");
    let o = GenerateOptions { logprobs: Some(3), ..generating(20) };
    let mut sessions: Vec<_> = [Speculation::Off].iter().chain(&MODES).map(|&s| (s, session(&m, 160))).collect();
    let mut text = repetitive(30, m.spec.vocab, 4);
    for turn in 0..3 {
        let mut expected: Option<(Facts, usize)> = None;
        for (speculation, s) in &mut sessions {
            let (g, _) = answer(s, &text, &GenerateOptions { speculation: *speculation, ..o.clone() }, usize::MAX);
            let found = (facts(&g), g.timings.cached_tokens);
            assert_eq!(&found, expected.get_or_insert(found.clone()), "turn {turn}: {speculation:?}");
        }
        let g = answer(&mut sessions[0].1, &text, &o, usize::MAX).0;
        // The next turn leaves out the end of the answer: the cache is cut inside of it.
        text.extend(&g.ids[..15]);
        text.extend([3, 4, 5]);
    }
}

#[test]
fn an_engine_without_rows_for_drafts_drafts_less() {
    let m = model("qwen2-tiny");
    let prompt = repetitive(40, m.spec.vocab, 2);
    for (max_rows, max_wanted) in [(16, 1), (1, 8), (16, 3)] {
        let o = EngineOptions { sequences: 1, max_rows, max_wanted, ..options() };
        let mut s = Session::new(engine(&m, &o), &m.tokenizer, m.spec.context_length).unwrap();
        let o = GenerateOptions { speculation: Speculation::Fixed(7), ..generating(40) };
        let stats = answer(&mut s, &prompt, &o, usize::MAX).0.speculation;
        let most = max_rows.min(max_wanted) - 1;
        assert!(stats.drafted <= stats.forwards * most, "{stats:?}");
        assert_eq!(stats.drafted > 0, most > 0, "{stats:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_options_give_the_same_answer(
        which in 0usize..MODELS.len(),
        length in 1usize..80,
        seed in 0usize..1000,
        temperature in prop_oneof![Just(0.0f32), 0.05f32..2.0],
        penalty in prop_oneof![Just(1.0f32), 0.8f32..1.6],
        max_tokens in 0usize..60,
        context in 80usize..130,
        ignore_eos: bool,
    ) {
        let m = model(MODELS[which]);
        let sampler = SamplerOptions {
            temperature, repeat_penalty: penalty, seed: seed as u64, ..SamplerOptions::default()
        };
        let o = GenerateOptions { sampler, ignore_eos, logprobs: Some(2), ..generating(max_tokens) };
        compare(&m, context, &repetitive(length, m.spec.vocab, seed), &o, usize::MAX);
    }
}
