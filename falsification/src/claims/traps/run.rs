//! Traps in running whole models.

use brick_models::format::gguf::GgufWriter;
use brick_runtime::{Batch, EngineOptions, Model, Row, SequenceId};
use bricks::RopeStyle;
use bricks::cpu::SimdLevel;

use crate::claim::{Outcome, Refusal, require, require_eq};
use crate::context::Context;
use crate::noise::Noise;
use crate::runs;
use crate::synthetic::{self, Synthetic};

type Rows = Vec<Vec<f32>>;

/// Bits, not values: `-0.0` is not `0.0`.
fn same_bits(a: &[Vec<f32>], b: &[Vec<f32>]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()))
}

fn require_same(what: &str, a: &[Vec<f32>], b: &[Vec<f32>]) -> Result<(), Refusal> {
    require(same_bits(a, b), format!("{what}: the same bits"), || {
        let first = a.iter().zip(b).position(|(a, b)| !same_bits(std::slice::from_ref(a), std::slice::from_ref(b)));
        format!("others, first in row {first:?}")
    })
}

fn all_at_once(s: &Synthetic) -> Result<Rows, Refusal> {
    let ids = s.golden.ids();
    runs::logits(&s.model, &runs::options(64, 64), &ids)
}

pub(super) fn rope_everywhere(context: &Context) -> Outcome {
    for s in context.synthetics()? {
        let style = if s.model.spec.architecture == "qwen2" { RopeStyle::SplitHalves } else { RopeStyle::Interleaved };
        require_eq(&format!("pairing of {}", s.name), &s.model.spec.rope.style, &style)?;
        // Two sequences at different positions in one batch, while a third is far ahead.
        let ids = s.golden.ids();
        let expected = all_at_once(s)?;
        let mut engine = s.model.engine(&EngineOptions { sequences: 3, ..runs::options(64, 64) })?;
        let [near, far, other] = [engine.new_sequence()?, engine.new_sequence()?, engine.new_sequence()?];
        let mut batch = Batch::with_capacity(64);
        batch.push_tokens(far, 0, &ids[..30]);
        engine.forward_quiet(&batch)?;
        batch.clear();
        let mut at: Vec<usize> = vec![];
        for i in 0..6 {
            for (sequence, position) in [(far, 30 + i), (near, i), (other, i)] {
                batch.push(Row { token: ids[position], position, sequence, wanted: true });
                at.push(position);
            }
        }
        let logits = engine.forward_quiet(&batch)?;
        let found: Rows = (0..logits.len()).map(|i| logits.row(i).to_vec()).collect();
        let expected: Rows = at.iter().map(|p| expected[*p].clone()).collect();
        require_same(&format!("three sequences of {} in one batch", s.name), &found, &expected)?;
    }
    Ok("6 models: pairing by architecture; positions 0–5 and 30–35 in one batch as in a prompt".into())
}

pub(super) fn paths_agree(context: &Context) -> Outcome {
    let mut paths = 0;
    for s in context.synthetics()? {
        let ids = s.golden.ids();
        let expected = all_at_once(s)?;
        let finite = expected.iter().flatten().all(|x| x.is_finite());
        require(finite, format!("finite logits of {}", s.name), || "NaN or infinity".into())?;
        require_same(&format!("{} unfused", s.name), &runs::logits_unfused(&s.model, &ids)?, &expected)?;
        paths += 1;
        for threads in [2, 3, 5] {
            let options = EngineOptions { threads, ..runs::options(64, 64) };
            require_same(
                &format!("{} with {threads} threads", s.name),
                &runs::logits(&s.model, &options, &ids)?,
                &expected,
            )?;
            paths += 1;
        }
        for simd in SimdLevel::available() {
            let options = EngineOptions { simd, ..runs::options(64, 64) };
            require_same(
                &format!("{} at {}", s.name, simd.name()),
                &runs::logits(&s.model, &options, &ids)?,
                &expected,
            )?;
            paths += 1;
        }
        let options = EngineOptions { keep_values: true, ..runs::options(64, 64) };
        require_same(&format!("{} keeping values", s.name), &runs::logits(&s.model, &options, &ids)?, &expected)?;
        paths += 1;
    }
    Ok(format!("{paths} runs of 6 models: unfused, 2–5 threads, each instruction set, buffers shared or kept"))
}

pub(super) fn reference_notices(context: &Context) -> Outcome {
    type Change = fn(&mut GgufWriter<'_>);
    let changes: &[(&str, &str, Change)] = &[
        ("qwen2-tiny", "another rotary base", |w| {
            w.set("qwen2.rope.freq_base", 1e4f32);
        }),
        ("qwen2-partial", "heads rotated whole", |w| {
            w.set("qwen2.rope.dimension_count", 32u32);
        }),
        ("spm-tiny", "no rotation to speak of", |w| {
            w.set("llama.rope.scaling.type", "linear").set("llama.rope.scaling.factor", 1e9f32);
        }),
        ("spm-linear", "scaling ignored", |w| {
            w.remove("llama.rope.scaling.factor");
            w.remove("llama.rope.scaling.type");
        }),
        ("spm-llama3", "frequency factors ignored", |w| {
            w.remove_tensor("rope_freqs.weight");
        }),
        ("spm-yarn", "yarn taken for linear", |w| {
            w.set("llama.rope.scaling.type", "linear");
        }),
        ("spm-yarn", "attention temperature of yarn ignored", |w| {
            w.set("llama.rope.scaling.yarn_attn_factor", 1.0f32 / (1.0 + 0.1 * 4.0f32.ln()));
        }),
        ("spm-yarn", "another end of yarn's ramp", |w| {
            w.set("llama.rope.scaling.yarn_beta_fast", 32.0f32);
        }),
        ("spm-tiny", "another epsilon", |w| {
            w.set("llama.attention.layer_norm_rms_epsilon", 1e-2f32);
        }),
    ];
    let mut smallest = f64::INFINITY;
    for (name, what, change) in changes {
        let s = context.synthetic(name)?;
        let wide = s.widened()?;
        let mut w = synthetic::copy(&wide.gguf, |_| true)?;
        change(&mut w);
        let changed = synthetic::load(&w)?;
        let ids = s.golden.ids();
        let error = |model: &Model| s.golden.compare(&runs::logits(model, &runs::options(64, 64), &ids)?);
        let (right, wrong) = (error(&wide)?, error(&changed)?);
        require(wrong.mean > 20.0 * right.mean, format!("{name} with {what}: 20 times the error of {right}"), || {
            wrong.to_string()
        })?;
        smallest = smallest.min(wrong.mean / right.mean);
    }
    Ok(format!("{} ways to be wrong, each at least {smallest:.0} times further from the reference", changes.len()))
}

pub(super) fn nothing_hard_coded(context: &Context) -> Outcome {
    let mut runs_made = 0;
    for s in context.synthetics()? {
        let ids = s.golden.ids();
        let expected = all_at_once(s)?;
        for chunk in [2, 3, 8, 13, 31, 32, 33] {
            let options = runs::options(ids.len(), chunk);
            require_same(
                &format!("{} in calls of {chunk}", s.name),
                &runs::logits(&s.model, &options, &ids)?,
                &expected,
            )?;
            runs_made += 1;
        }
        // One layer less, one layer more: both run, and differ.
        let arch = s.model.spec.architecture.clone();
        let one = s.changed(|w| {
            w.set(&format!("{arch}.block_count"), 1u32);
            for t in s.model.gguf.tensors().iter().filter(|t| t.name.starts_with("blk.1.")) {
                w.remove_tensor(&t.name);
            }
        })?;
        let three = {
            let gguf = s.gguf()?;
            let mut w = synthetic::copy(&gguf, |_| true)?;
            w.set(&format!("{arch}.block_count"), 3u32);
            for t in gguf.tensors().iter().filter(|t| t.name.starts_with("blk.1.")) {
                w.tensor(&t.name.replace("blk.1.", "blk.2."), &t.dims, t.shape()?.dtype, gguf.bytes(t)?);
            }
            synthetic::load(&w)?
        };
        let one = one.map_err(|e| Refusal::falsified("a model of one layer", e))?;
        for (layers, model) in [(1, &one), (3, &three)] {
            let logits = runs::logits(model, &runs::options(64, 64), &ids)?;
            let fine = logits.iter().flatten().all(|x| x.is_finite()) && !same_bits(&logits, &expected);
            require(fine, format!("finite and different logits from {layers} layers"), || {
                "the same, or not finite".into()
            })?;
            runs_made += 1;
        }
    }
    Ok(format!("{runs_made} runs: calls of 2 to 33 tokens, models of 1, 2 and 3 layers"))
}

pub(super) fn second_request(context: &Context) -> Outcome {
    for s in context.synthetics()? {
        let ids = s.golden.ids();
        let mut engine = s.model.engine(&runs::options(64, 64))?;
        let mut batch = Batch::with_capacity(64);
        let mut results: Vec<Rows> = vec![];
        for round in 0..3 {
            let sequence = engine.new_sequence()?;
            // Between the two real requests another one, so that buffers hold something else.
            let tokens: Vec<u32> = if round == 1 { ids.iter().rev().copied().collect() } else { ids.clone() };
            batch.clear();
            for (position, &token) in tokens.iter().enumerate() {
                batch.push(Row { token, position, sequence, wanted: true });
            }
            let logits = engine.forward_quiet(&batch)?;
            results.push((0..logits.len()).map(|i| logits.row(i).to_vec()).collect());
            engine.kv_mut().release(sequence)?;
        }
        require_same(&format!("third request to {} as the first", s.name), &results[2], &results[0])?;
        require(!same_bits(&results[1], &results[0]), "another request to give something else", || "the same".into())?;
        require_eq("blocks in use at the end", &engine.kv().usage().0, &0)?;
    }
    Ok("6 engines, another request in between".into())
}

pub(super) fn sequences_apart(context: &Context) -> Outcome {
    let s = context.synthetic("spm-tiny")?;
    let ids = s.golden.ids();
    let expected = all_at_once(s)?;
    let mut engine = s.model.engine(&EngineOptions { sequences: 4, ..runs::options(64, 64) })?;
    let mut batch = Batch::with_capacity(64);
    let sequences: Vec<SequenceId> = (0..4).map(|_| engine.new_sequence()).collect::<Result<_, _>>()?;
    let mut lengths = [0usize; 4];
    let mut noise = Noise::new(21);
    let (mut rows_seen, mut failures) = (0, 0);
    for _ in 0..60 {
        batch.clear();
        let mut at = vec![];
        let before = lengths;
        for (i, sequence) in sequences.iter().enumerate() {
            for _ in 0..noise.below(4) {
                if lengths[i] < ids.len() {
                    batch.push(Row { token: ids[lengths[i]], position: lengths[i], sequence: *sequence, wanted: true });
                    at.push(lengths[i]);
                    lengths[i] += 1;
                }
            }
        }
        if batch.is_empty() {
            let i = noise.below(4);
            lengths[i] = noise.below(lengths[i] + 1);
            engine.kv_mut().truncate(sequences[i], lengths[i])?;
            continue;
        }
        // Every fourth call has a bad last row: the whole call must leave no trace.
        if noise.below(4) == 0 {
            batch.push(Row { token: ids[0], position: 63, sequence: sequences[0], wanted: true });
            require(engine.forward_quiet(&batch).is_err(), "a wrong position refused", || "a result".into())?;
            lengths = before;
            failures += 1;
        } else {
            let logits = engine.forward_quiet(&batch)?;
            let found: Rows = (0..logits.len()).map(|i| logits.row(i).to_vec()).collect();
            let expected: Rows = at.iter().map(|p| expected[*p].clone()).collect();
            require_same("rows of four sequences", &found, &expected)?;
            rows_seen += found.len();
        }
        for (sequence, length) in sequences.iter().zip(lengths) {
            require_eq("length of a sequence", &engine.kv().len(*sequence)?, &length)?;
        }
        // Now and then one starts over, or goes back.
        let i = noise.below(4);
        if noise.below(5) == 0 || lengths[i] == ids.len() {
            lengths[i] = noise.below(lengths[i] + 1);
            engine.kv_mut().truncate(sequences[i], lengths[i])?;
        }
    }
    require(rows_seen > 50 && failures > 3, "rows and failures", || format!("{rows_seen}, {failures}"))?;
    Ok(format!(
        "{rows_seen} rows of 4 interleaved sequences as alone, {failures} failed calls without a trace, with truncation"
    ))
}

pub(super) fn prefill_mask(context: &Context) -> Outcome {
    for s in context.synthetics()? {
        let ids = s.golden.ids();
        let one_by_one = runs::logits(&s.model, &runs::options(ids.len(), 1), &ids)?;
        require_same(&format!("{} as one prompt and token by token", s.name), &all_at_once(s)?, &one_by_one)?;
    }
    Ok("6 models, 44 to 46 tokens each".into())
}

pub(super) fn generation_loops(context: &Context) -> Outcome {
    let mut tokens = 0;
    for s in context.synthetics()? {
        let wide = s.widened()?;
        let n = s.golden.greedy_ids.len();
        let found = runs::greedy(&wide, &runs::options(64, 64), &s.golden.prompt_ids, n, |_| false)?;
        require_eq(&format!("continuation of {} in F32", s.name), &found, &s.golden.greedy_ids)?;
        tokens += n;
        // The cache is used: a call for one token adds one position, and changing an early token changes what follows.
        let mut engine = s.model.engine(&runs::options(64, 64))?;
        let sequence = engine.new_sequence()?;
        let mut batch = Batch::with_capacity(64);
        batch.push_tokens(sequence, 0, &s.golden.prompt_ids);
        engine.forward_quiet(&batch)?;
        for i in 0..3 {
            let position = s.golden.prompt_ids.len() + i;
            require_eq("positions in the cache", &engine.kv().len(sequence)?, &position)?;
            batch.clear();
            batch.push(Row { token: s.golden.greedy_ids[i], position, sequence, wanted: true });
            require_eq("rows of a decode call", &engine.forward_quiet(&batch)?.len(), &1)?;
        }
    }
    Ok(format!("{tokens} tokens of 6 models in F32, the same as the independent forward pass"))
}

pub(super) fn any_number_of_rows(context: &Context) -> Outcome {
    let mut calls = 0;
    for name in ["qwen2-tiny", "qwen2-partial", "spm-tiny"] {
        let s = context.synthetic(name)?;
        let ids = s.golden.ids();
        let expected = all_at_once(s)?;
        // As many sequences as rows, all at the same position: every size of decode batch.
        for rows in 1..=20 {
            let options = EngineOptions { sequences: rows, ..runs::options(8, rows) };
            let mut engine = s.model.engine(&options)?;
            let sequences: Vec<SequenceId> = (0..rows).map(|_| engine.new_sequence()).collect::<Result<_, _>>()?;
            let mut batch = Batch::with_capacity(rows);
            for position in 0..3 {
                batch.clear();
                for &sequence in &sequences {
                    batch.push(Row { token: ids[position], position, sequence, wanted: true });
                }
                let logits = engine.forward_quiet(&batch)?;
                for i in 0..logits.len() {
                    let found = vec![logits.row(i).to_vec()];
                    require_same(&format!("row {i} of {rows} in {name}"), &found, &expected[position..=position])?;
                }
                calls += 1;
            }
        }
    }
    Ok(format!("{calls} calls of 1 to 20 sequences give the bits of a prompt of 44 rows"))
}
