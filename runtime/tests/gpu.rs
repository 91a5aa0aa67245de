//! Whole models on the GPU's backend, without a GPU: on the interpreter, compared with the CPU; on the recorder, as launch lists.

#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::Write as _;
use std::sync::Arc;

use brick_cuda::interp::Interp;
use brick_cuda::noop::{Event, Noop};
use brick_cuda::{Device, Place};
use brick_models::synthetic::Synthetic;
use brick_profiler::profile::{DeviceStamps, LaunchTimes, launch_parts};
use brick_profiler::{BrickProfiler, Phase, SyncMode};
use brick_ptx::interp::{Checks, Schedule};
use brick_runtime::cuda::certify::Subject;
use brick_runtime::{Batch, Engine, EngineError, EngineOptions, Model};

fn synthetic(name: &str) -> Model {
    let synthetic: Synthetic = name.parse().unwrap();
    Model::from_gguf(Arc::new(synthetic.gguf().unwrap())).unwrap()
}

fn options() -> EngineOptions {
    EngineOptions { threads: 1, context: 96, sequences: 3, max_rows: 16, max_wanted: 8, ..EngineOptions::default() }
}

fn on(model: &Model, options: &EngineOptions, device: Box<dyn Device>) -> Result<Engine, EngineError> {
    Engine::on_device(&model.fused, &*model.weights(), options, device, &mut ())
}

fn interpreter(seed: u64, checks: Checks) -> Box<dyn Device> {
    Box::new(Interp::new(Schedule::Seeded(seed), checks, (9, 0)))
}

/// A prompt and greedy steps, three sequences side by side, replayed and launched one by one, on the interpreter and on the CPU.
fn certified(name: &str, checks: Checks) {
    let model = synthetic(name);
    let subject = Subject { name, graph: &model.fused, weights: model.weights(), exact: None };
    let check = subject.compare(interpreter(7, checks), &[3, 17, 250, 9, 400], 3).unwrap();
    assert!(check.passed(), "{check:#?}");
    assert!(check.difference.largest > 0.0, "bits that are all equal are another backend's");
    assert_eq!(check.same_token, 3, "{check:#?}");
}

#[test]
fn a_model_in_q4_k_m_on_the_interpreter_equals_the_cpu_with_every_check() {
    certified("tiny:q4_k_m", Checks::Full);
}

#[test]
fn a_model_in_q8_0_on_the_interpreter_equals_the_cpu() {
    certified("tiny:q8_0", Checks::MemoryOnly);
}

#[test]
fn a_model_in_bf16_on_the_interpreter_equals_the_cpu() {
    certified("tiny:bf16", Checks::MemoryOnly);
}

#[test]
fn a_model_in_f16_on_the_interpreter_equals_the_cpu() {
    certified("tiny:f16", Checks::MemoryOnly);
}

#[test]
fn launches_and_captures_of_a_prompt_and_of_steps_are_these() {
    let model = synthetic("tiny:q4_k_m");
    let device = Noop::new();
    let record = device.record();
    let mut engine = on(&model, &options(), Box::new(device)).unwrap();
    let mut out = String::new();
    let mut section = |title: &str| {
        writeln!(out, "# {title}\n{}", record.text()).unwrap();
        record.forget();
    };
    section("set up");
    let (a, b) = (engine.new_sequence().unwrap(), engine.new_sequence().unwrap());
    let mut batch = Batch::default();
    batch.push_tokens(a, 0, &[3, 17, 250, 9, 400]);
    engine.forward_quiet(&batch).unwrap();
    section("a prompt of five tokens");
    batch.clear();
    batch.push_tokens(b, 0, &[5]);
    engine.forward_quiet(&batch).unwrap();
    section("a prompt of one token: captured, and run");
    batch.clear();
    batch.push_tokens(a, 5, &[1]);
    engine.forward_quiet(&batch).unwrap();
    section("the next token of another sequence: replayed");
    engine.decode_greedy(&[(a, 1), (b, 2)], 3, &mut |_| true).unwrap();
    section("three greedy steps of two sequences");
    insta::assert_snapshot!(out);
}

#[test]
fn a_decode_step_of_qwen2_5_coder_1_5b_is_this_list_of_launches() {
    let model = synthetic("qwen2.5-coder-1.5b:q4_k_m");
    let device = Noop::new();
    let record = device.record();
    let options = EngineOptions { context: 4096, sequences: 1, ..EngineOptions::default() };
    let mut engine = on(&model, &options, Box::new(device)).unwrap();
    let id = engine.new_sequence().unwrap();
    record.forget();
    engine.decode_greedy(&[(id, 1)], 1, &mut |_| true).unwrap();
    let (events, launches) = (record.text(), record.events());
    let launches = launches.iter().filter(|e| matches!(e, Event::Launch(_))).count();
    let layers = model.spec.n_layers;
    // The first two layers and the last, and what is around them.
    let shown: Vec<&str> = events
        .lines()
        .filter(|line| {
            let of = |i: usize| line.contains(&format!("blk.{i}.")) || line.contains(&format!("kv.{i})"));
            !line.contains("blk.") || of(0) || of(1) || of(layers - 1)
        })
        .collect();
    insta::assert_snapshot!(format!("{launches} launches, {layers} layers\n{}", shown.join("\n")));
}

#[test]
fn what_does_not_fit_or_has_no_kernel_is_told() {
    let model = synthetic("tiny:q4_k_m");
    let mut shown = String::new();
    let mut tell = |title: &str, e: Result<Engine, EngineError>| {
        writeln!(shown, "{title}: {}", e.expect_err("it does not fit")).unwrap();
    };
    let with = |bytes: u64| -> Box<dyn Device> { Box::new(Noop::with_memory(bytes)) };
    tell("no room for the cache", on(&model, &options(), with(1 << 10)));
    tell("no room for activations", on(&model, &options(), with(400 << 10)));
    tell("no room for weights", on(&model, &options(), with(1 << 20)));
    let q8 = EngineOptions { kv_type: bricks::cpu::attention::KvType::Q8_0, ..options() };
    tell("a q8_0 cache", on(&model, &q8, with(1 << 30)));
    let kept = EngineOptions { keep_values: true, ..options() };
    tell("kept values", on(&model, &kept, with(1 << 30)));
    for name in ["qwen2-partial", "spm-tiny"] {
        tell(name, on(&common::model(name), &options(), with(1 << 30)));
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn a_failed_call_leaves_sequences_as_they_were() {
    let model = synthetic("tiny:q8_0");
    let mut engine = on(&model, &options(), interpreter(1, Checks::MemoryOnly)).unwrap();
    let id = engine.new_sequence().unwrap();
    let mut batch = Batch::default();
    batch.push_tokens(id, 0, &[1, 2, 3]);
    let before = engine.forward_quiet(&batch).unwrap().last().unwrap().to_vec();
    assert!(matches!(engine.decode_greedy(&[(id, 600)], 2, &mut |_| true), Err(EngineError::Token { .. })));
    // More steps than there is room for: none is done.
    assert!(engine.decode_greedy(&[(id, 4)], 200, &mut |_| true).is_err());
    assert_eq!(engine.kv().len(id).unwrap(), 3);
    // The caller stops after the second of many: only what it saw counts.
    let mut seen = Vec::new();
    let n = engine.decode_greedy(&[(id, 4)], 20, &mut |t| {
        seen.push(t[0]);
        seen.len() < 2
    });
    assert_eq!((n.unwrap(), engine.kv().len(id).unwrap()), (2, 5));
    // Going back and computing the same gives the same bits.
    engine.kv_mut().truncate(id, 0).unwrap();
    assert_eq!(engine.forward_quiet(&batch).unwrap().last().unwrap(), before);
}

#[test]
fn a_fork_shares_pages_and_copies_them_on_the_device_before_it_writes() {
    let model = synthetic("tiny:q8_0");
    let mut engine = on(&model, &options(), interpreter(3, Checks::MemoryOnly)).unwrap();
    let id = engine.new_sequence().unwrap();
    let mut batch = Batch::default();
    batch.push_tokens(id, 0, &[1, 2, 3, 4]);
    engine.forward_quiet(&batch).unwrap();
    let fork = engine.kv_mut().fork(id, 3).unwrap();
    let next = |engine: &mut Engine, id, position: usize, token: u32| {
        let mut batch = Batch::default();
        batch.push_tokens(id, position, &[token]);
        engine.forward_quiet(&batch).unwrap().last().unwrap().to_vec()
    };
    let forked = next(&mut engine, fork, 3, 9);
    let original = next(&mut engine, id, 4, 5);
    // A sequence that was never forked says what both have to be.
    let alone = engine.new_sequence().unwrap();
    let mut batch = Batch::default();
    batch.push_tokens(alone, 0, &[1, 2, 3]);
    engine.forward_quiet(&batch).unwrap();
    assert_eq!(next(&mut engine, alone, 3, 9), forked);
    engine.kv_mut().truncate(alone, 3).unwrap();
    next(&mut engine, alone, 3, 4);
    assert_eq!(next(&mut engine, alone, 4, 5), original);
}

/// Logits of a prompt, and of two sequences side by side, with kernels that round what they read up to so many columns.
fn rounded_by_readers(model: &Model, streamed_columns: usize) -> Vec<Vec<f32>> {
    let options = EngineOptions { streamed_columns, ..options() };
    let mut engine = on(model, &options, interpreter(5, Checks::Full)).unwrap();
    let (a, b) = (engine.new_sequence().unwrap(), engine.new_sequence().unwrap());
    let mut out = Vec::new();
    for (id, prompt) in [(a, [3, 17, 250]), (b, [9, 400, 1])] {
        let mut batch = Batch::default();
        batch.push_tokens(id, 0, &prompt);
        out.push(engine.forward_quiet(&batch).unwrap().last().unwrap().to_vec());
    }
    let mut batch = Batch::default();
    batch.push_tokens(a, 3, &[7]);
    out.push(engine.forward_quiet(&batch).unwrap().row(0).to_vec());
    batch.clear();
    batch.push_tokens(a, 4, &[8]);
    batch.push_tokens(b, 3, &[8]);
    let logits = engine.forward_quiet(&batch).unwrap();
    out.extend((0..2).map(|i| logits.row(i).to_vec()));
    out
}

#[test]
fn who_rounds_activations_changes_no_bit() {
    for types in ["q4_k_m", "q8_0"] {
        let model = synthetic(&format!("tiny:{types}"));
        // Nobody; readers of 256 columns, and gate and up for the reader of 512; everybody.
        let [launches, some, all] = [0, 256, 4096].map(|columns| rounded_by_readers(&model, columns));
        assert_eq!(launches, some, "{types}");
        assert_eq!(launches, all, "{types}");
    }
}

/// The last logits of a prompt that comes in pieces of so many tokens.
fn in_pieces(model: &Model, prompt: &[u32], size: usize) -> (Vec<f32>, Vec<String>) {
    let options = EngineOptions { max_rows: 48, ..options() };
    let mut engine = on(model, &options, interpreter(6, Checks::MemoryOnly)).unwrap();
    let id = engine.new_sequence().unwrap();
    for (i, piece) in prompt.chunks(size).enumerate() {
        let mut batch = Batch::default();
        batch.push_tokens(id, i * size, piece);
        engine.forward_quiet(&batch).unwrap();
    }
    let kernels = engine.gpu().unwrap().kernels().iter().map(|(name, _)| name.clone()).collect();
    (engine.logits().last().unwrap().to_vec(), kernels)
}

#[test]
fn how_a_prompt_comes_changes_no_bit() {
    let prompt: Vec<u32> = (0..43).map(|i| 37 * i % 500).collect();
    for (types, sizes) in [("q4_k_m", &[16, 1][..]), ("q8_0", &[5])] {
        let model = synthetic(&format!("tiny:{types}"));
        // Four chunks of eight and two more; two; one token each.
        let (whole, kernels) = in_pieces(&model, &prompt, 43);
        for width in ["_b32", "_b16"] {
            assert!(kernels.iter().any(|name| name.ends_with(width)), "{types}: {kernels:?}");
        }
        for &size in sizes {
            assert_eq!(in_pieces(&model, &prompt, size).0, whole, "{types}, in pieces of {size}");
        }
    }
}

/// A prompt, decode steps of two sequences side by side and alone, and greedy ones: logits and tokens.
fn prompt_and_steps(engine: &mut Engine) -> (Vec<Vec<f32>>, Vec<u32>) {
    let (a, b) = (engine.new_sequence().unwrap(), engine.new_sequence().unwrap());
    let mut logits = Vec::new();
    let mut forward = |engine: &mut Engine, rows: &[(brick_runtime::SequenceId, usize, u32)]| {
        let mut batch = Batch::default();
        for &(id, position, token) in rows {
            batch.push_tokens(id, position, &[token]);
        }
        logits.push(engine.forward_quiet(&batch).unwrap().last().unwrap().to_vec());
    };
    let mut batch = Batch::default();
    batch.push_tokens(a, 0, &[3, 17, 250, 9, 400]);
    engine.forward_quiet(&batch).unwrap();
    forward(engine, &[(b, 0, 5)]);
    forward(engine, &[(a, 5, 7), (b, 1, 8)]);
    forward(engine, &[(a, 6, 9)]);
    let mut tokens = Vec::new();
    let greedy = engine.decode_greedy(&[(a, 1), (b, 2)], 3, &mut |found| {
        tokens.extend(found);
        true
    });
    assert_eq!(greedy.unwrap(), 3);
    (logits, tokens)
}

#[test]
fn steps_with_stamps_give_the_same_bits_and_a_record_per_block() {
    let model = synthetic("tiny:q4_k_m");
    let with = |stamps| on(&model, &EngineOptions { stamps, ..options() }, interpreter(9, Checks::Full)).unwrap();
    let (mut plain, mut stamped) = (with(false), with(true));
    assert_eq!(prompt_and_steps(&mut plain), prompt_and_steps(&mut stamped));
    assert_eq!(plain.gpu().unwrap().stamps().len(), 0);
    let gpu = stamped.gpu().unwrap();
    assert_eq!(gpu.stamps().len(), 6, "the prompt of five is launched one by one, and not stamped");
    let info = &gpu.plan().info;
    for step in gpu.stamps() {
        assert!(step.launches.len() > 2 * model.spec.n_layers);
        for launch in &step.launches {
            let blocks: u32 = launch.grid.iter().product();
            assert!(launch.blocks.len() == blocks as usize && launch.blocks.iter().all(|r| r.ran), "{}", launch.kernel);
            assert!(launch.blocks.iter().all(|r| r.begin < r.waited && r.waited < r.end), "{}", launch.kernel);
            assert!(!launch.kernel.contains("stamped"));
        }
        let times = step.times(info);
        // The interpreter runs one launch behind the other.
        assert!(times.windows(2).all(|w| w[0].end_ns[1] < w[1].begin_ns[0]), "{times:#?}");
        let span: u64 = launch_parts(&times).iter().map(|p| p.gap_ns + p.work_ns).sum();
        assert_eq!(span, times.last().unwrap().end_ns[1]);
    }
    let first: Vec<LaunchTimes> = gpu.stamps().next().unwrap().times(info);
    assert!(first.iter().any(|l| l.step == "blk.1.attn" && l.kernel.starts_with("attention_fused")), "{first:#?}");
    let steps: Vec<_> = gpu.stamps().map(|step| step.times(info)).collect();
    let summary = DeviceStamps::new(&steps).unwrap();
    assert_eq!(summary.measured.span_us.len(), 3, "three greedy steps have the launches of the last");
}

#[test]
fn steps_with_stamps_are_timed_by_them() {
    let model = synthetic("tiny:q8_0");
    let options = EngineOptions { stamps: true, ..options() };
    let mut engine = on(&model, &options, interpreter(2, Checks::MemoryOnly)).unwrap();
    let mut recorder = BrickProfiler::with_mode(engine.steps(), 4, SyncMode::Deferred);
    let id = engine.new_sequence().unwrap();
    let mut batch = Batch::default();
    batch.push_tokens(id, 0, &[1, 2, 3]);
    engine.forward(&batch, &mut recorder).unwrap();
    assert_eq!(engine.gpu().unwrap().stamps().len(), 0);
    batch.clear();
    batch.push_tokens(id, 3, &[4]);
    engine.forward(&batch, &mut recorder).unwrap();
    recorder.finish();
    let gpu = engine.gpu().unwrap();
    let times = gpu.stamps().next().unwrap().times(&gpu.plan().info);
    let of_step = |i: usize| recorder.step_totals(Phase::Decode, i).map_or(0, |t| t.sum_ns);
    let charged: u64 = (0..engine.steps().len()).map(of_step).sum();
    assert_eq!(charged, times.last().unwrap().end_ns[1]);
}

#[test]
fn records_are_cleared_before_a_step_and_read_behind_it() {
    let model = synthetic("tiny:q4_k_m");
    let device = Noop::new();
    let record = device.record();
    let mut engine = on(&model, &EngineOptions { stamps: true, ..options() }, Box::new(device)).unwrap();
    let id = engine.new_sequence().unwrap();
    let mut batch = Batch::default();
    batch.push_tokens(id, 0, &[3, 17, 250]);
    record.forget();
    engine.forward_quiet(&batch).unwrap();
    assert!(!record.text().contains("stamp"), "a prompt has none: {}", record.text());
    record.forget();
    batch.clear();
    batch.push_tokens(id, 3, &[5]);
    engine.forward_quiet(&batch).unwrap();
    let text = record.text();
    let launches: Vec<&str> = text.lines().filter(|l| l.contains("<<<")).collect();
    assert!(launches.iter().all(|l| l.contains("_stamped <<<") && l.contains(", <>stamps")), "{text}");
    let about: Vec<&str> = text.lines().filter(|l| !l.contains("<<<")).collect();
    insta::assert_snapshot!(format!("{}\n{}", about.join("\n"), launches[..3].join("\n")));
    record.forget();
    batch.clear();
    batch.push_tokens(id, 4, &[6]);
    engine.forward_quiet(&batch).unwrap();
    let again: Vec<String> = record.text().lines().map(str::to_owned).collect();
    let at = again.iter().position(|l| l.starts_with("replay")).unwrap();
    assert!(again[at - 1].starts_with("clear ") && again[at + 1].starts_with("fetch "), "{again:#?}");
}

#[test]
fn parts_of_an_arena_are_aligned_and_do_not_overlap() {
    let places = Place::in_turn([("a".to_owned(), 3), ("b".to_owned(), 0), ("c".to_owned(), 300)]);
    assert_eq!(places.iter().map(|p| p.offset).collect::<Vec<_>>(), [0, 256, 256]);
    assert_eq!(Place::end(&places), 556);
}
