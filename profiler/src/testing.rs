//! Plans, recordings and profiles for unit tests.

use bricks::{
    ActKind, AttentionSpec, BrickKind, BudgetPolicy, DType, Extent, LinearPart, Op, PortType, Rows, WeightShape,
};

use crate::budget::{BudgetTable, Roofline};
use crate::clock::{ClockPrecision, ManualClock};
use crate::machine::Machine;
use crate::machine::tests::machine;
use crate::profile::{BuildInfo, DeviceStamps, LaunchTimes, ModelInfo, Profile, ProfileInputs, PromptKind, RunInfo};
use crate::record::{BrickProfiler, Recorder, SyncMode};
use crate::step::{Phase, StepInfo};

/// Width of the residual stream of [`plan`].
const D: usize = 256;
const FFN: usize = 512;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 64;
const VOCAB: usize = 512;

/// A step that only has an identity.
pub(crate) fn step(name: &str, kind: BrickKind, layer: Option<u32>) -> StepInfo {
    let inputs = vec![PortType::rows(Rows::All, D); 2];
    StepInfo {
        name: name.into(),
        kind,
        layer,
        kernel: "add_scalar".into(),
        bricks: vec![],
        op: Op::Add,
        inputs,
        weights: vec![],
    }
}

fn linear(name: String, kind: BrickKind, layer: Option<u32>, input: usize, parts: &[(&str, usize)]) -> StepInfo {
    let rows = if kind == BrickKind::LmHead { Rows::Wanted } else { Rows::All };
    let part = |&(label, rows): &(&str, usize)| LinearPart { label: label.into(), rows, bias: false };
    StepInfo {
        name,
        kind,
        layer,
        kernel: "linear_q4_k_scalar".into(),
        bricks: vec![],
        op: Op::Linear { input, parts: parts.iter().map(part).collect(), rows },
        inputs: vec![PortType::rows(rows, input)],
        weights: parts.iter().map(|&(_, rows)| WeightShape { dtype: DType::Q4_K, rows, cols: input }).collect(),
    }
}

/// The plan of a tiny decoder: embedding, `layers` layers of eight steps, final norm, LM head.
pub(crate) fn plan(layers: u32) -> Vec<StepInfo> {
    let gain = WeightShape { dtype: DType::F32, rows: 1, cols: D };
    let table = WeightShape { dtype: DType::Q8_0, rows: VOCAB, cols: D };
    let norm = |name: String, kind, layer, rows| StepInfo {
        kernel: "rms_norm_scalar".into(),
        op: Op::RmsNorm { eps: 1e-6, rows },
        inputs: vec![PortType::rows(Rows::All, D)],
        weights: vec![gain],
        ..step(&name, kind, layer)
    };
    let mut steps = vec![StepInfo {
        kernel: "embed_scalar".into(),
        op: Op::Embed { scale: 1.0 },
        inputs: vec![PortType::tokens()],
        weights: vec![table],
        ..step("token_embd", BrickKind::Embed, None)
    }];
    for l in 0..layers {
        let (at, layer) = (|s: &str| format!("blk.{l}.{s}"), Some(l));
        let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
        steps.push(norm(at("attn_norm"), BrickKind::RmsNorm, layer, Rows::All));
        steps.push(linear(at("attn_qkv"), BrickKind::Qkv, layer, D, &[("q", q), ("k", kv), ("v", kv)]));
        let spec = AttentionSpec {
            n_heads: HEADS,
            n_kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            scale: 0.125,
            window: None,
            softcap: None,
        };
        steps.push(StepInfo {
            kernel: "attention_scalar".into(),
            op: Op::Attention(spec),
            inputs: vec![PortType::rows(Rows::All, q), PortType::kv(kv)],
            ..step(&at("attn"), BrickKind::Attention, layer)
        });
        steps.push(linear(at("attn_output"), BrickKind::OProj, layer, q, &[("o", D)]));
        steps.push(StepInfo {
            kernel: "add_rms_norm_scalar".into(),
            op: Op::AddRmsNorm { eps: 1e-6 },
            weights: vec![gain],
            ..step(&at("ffn_norm"), BrickKind::RmsNorm, layer)
        });
        steps.push(linear(at("ffn_gate_up"), BrickKind::GateUp, layer, D, &[("gate", FFN), ("up", FFN)]));
        steps.push(StepInfo {
            kernel: "gated_activation_scalar".into(),
            op: Op::GatedActivation { act: ActKind::Silu },
            inputs: vec![PortType::rows(Rows::All, FFN); 2],
            ..step(&at("ffn_act"), BrickKind::Activation, layer)
        });
        steps.push(linear(at("ffn_down"), BrickKind::Down, layer, FFN, &[("down", D)]));
    }
    steps.push(norm("output_norm".into(), BrickKind::FinalNorm, None, Rows::Wanted));
    steps.push(linear("output".into(), BrickKind::LmHead, None, D, &[("logits", VOCAB)]));
    for (i, s) in steps.iter_mut().enumerate() {
        s.bricks = vec![i as u32];
    }
    steps
}

/// A recording of [`plan`]`(2)` on a clock that does what it is told: a prompt of 16 tokens, then five decoded ones, the
/// third of which was disturbed.
pub(crate) fn recording(mode: SyncMode) -> BrickProfiler<ManualClock> {
    let steps = plan(2);
    let mut recording = BrickProfiler::with_clock(&steps, 4, mode, ManualClock::new());
    let mut forward = |tokens: u64, context, phase, scale: u64| {
        recording.begin_forward(&Extent::one_sequence(tokens, context, 1), phase);
        for (i, step) in steps.iter().enumerate() {
            let ns = match step.kind {
                BrickKind::LmHead => 9_000,
                BrickKind::RmsNorm | BrickKind::FinalNorm => 150,
                BrickKind::Activation => 40,
                _ => 2_000,
            };
            recording.clock().advance(ns * scale);
            recording.step_done(i);
        }
        recording.clock().advance(300);
        recording.end_forward();
        recording.record_external(BrickKind::Sample, 700);
        recording.clock().advance(1_000);
    };
    forward(16, 16, Phase::Prefill, 5);
    for (i, scale) in [10, 11, 40, 11, 10].into_iter().enumerate() {
        forward(1, 17 + i as u64, Phase::Decode, scale);
    }
    recording
}

/// The profile of [`recording`] on the machine of round numbers, against its roofline.
pub(crate) fn profile() -> Profile {
    profile_in(SyncMode::Immediate)
}

/// The same in another mode.
pub(crate) fn profile_in(mode: SyncMode) -> Profile {
    let machine = machine();
    let mut recording = recording(mode);
    let budgets = BudgetTable::from(Roofline::new(&machine, recording.steps(), 2));
    profile_against(&mut recording, Some(&budgets), Some(&machine))
}

/// The profile of a recording with these budgets.
pub(crate) fn profile_against(
    recording: &mut BrickProfiler<ManualClock>,
    budgets: Option<&BudgetTable>,
    machine: Option<&Machine>,
) -> Profile {
    let inputs = ProfileInputs {
        model: ModelInfo {
            name: "tiny".into(),
            architecture: Some("llama".into()),
            quantization: Some("Q4_K".into()),
            file_bytes: Some(1_000_000),
            sha256: None,
            graph_hash: Some("5eed".into()),
        },
        build: BuildInfo {
            version: "0.1.0".into(),
            target: "x86_64-linux".into(),
            debug_assertions: false,
            git: Some("0123abcd".into()),
            rustc: Some("1.90.0".into()),
            features: vec![],
        },
        run: RunInfo {
            backend: "cpu avx512-vnni".into(),
            threads: 2,
            sequences: 1,
            prompt: PromptKind::Synthetic,
            prompt_tokens: 16,
            generated_tokens: 5,
            batch_rows: 512,
            context: 64,
            kv_type: Some("f16".into()),
            warmup_forwards: 0,
            timestamp: Some("2026-01-02T03:04:05Z".into()),
        },
        clock: ClockPrecision { resolution_ns: 50, read_ns: 22.5 },
        machine,
        budgets,
        policy: BudgetPolicy::Report,
        counters: None,
        timeline: 3,
        intervals: true,
    };
    Profile::new(recording, inputs)
}

/// A decode step of two layers as its blocks noted it; every launch takes `slower` ns longer.
pub(crate) fn stamped_step(slower: u64) -> Vec<LaunchTimes> {
    let mut ended = 0;
    let mut launch = |step: &str, kind, kernel: &str, blocks, gap: u64, work: u64| {
        let start = ended + gap;
        let end = start + work + slower;
        let begin = start.saturating_sub(1500);
        let launch = LaunchTimes {
            step: step.into(),
            kind,
            kernel: kernel.into(),
            blocks,
            processors: blocks.min(132),
            begin_ns: [begin, begin + 64],
            waited_ns: [start, start + 160],
            end_ns: [end - 400, end],
        };
        ended = end;
        launch
    };
    let mut step = vec![launch("embed", BrickKind::Embed, "embed_q4_k", 6, 100, 1900)];
    for layer in 0..2 {
        step.push(launch(&format!("blk.{layer}.attn_qkv"), BrickKind::Qkv, "gemv_stream_q4_k_b1_norm", 264, 500, 2500));
        step.push(launch(
            &format!("blk.{layer}.attn"),
            BrickKind::Attention,
            "attention_fused_norm_f16_d128_h6",
            2,
            700,
            3300,
        ));
    }
    step
}

/// [`profile`] with the stamps of some steps.
pub(crate) fn stamped_profile() -> Profile {
    let steps: Vec<_> = [0, 32, 64, 96].map(stamped_step).to_vec();
    Profile { stamps: DeviceStamps::new(&steps), ..profile() }
}
