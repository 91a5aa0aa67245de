//! A recording for unit tests, with times of its own.

#![allow(clippy::unwrap_used)]

use brick_profiler::budget::{BudgetTable, Roofline};
use brick_profiler::machine::{Bandwidth, CpuTopology, Fingerprint, Limits, MemoryLevel, PerThreads};
use brick_profiler::profile::{BuildInfo, ModelInfo, Profile, ProfileInputs, RunInfo, ThreadRow, ThreadsMeasured};
use brick_profiler::{BrickProfiler, ClockPrecision, Machine, ManualClock, Phase, Recorder, StepInfo, SyncMode};
use bricks::{BrickKind, BudgetPolicy, DType, Extent, LinearPart, Op, PortType, Rows, WeightShape};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;

use crate::snapshot::{Facts, Snapshot};
use crate::ui::{self, Link, Screen, Theme, Timing, UiState, View};

const WIDTH: usize = 512;

fn step(name: String, kind: BrickKind, layer: Option<u32>, rows: Option<usize>) -> StepInfo {
    let (op, weights) = match rows {
        Some(rows) => (
            Op::Linear {
                input: WIDTH,
                parts: vec![LinearPart { label: "y".into(), rows, bias: false }],
                rows: Rows::All,
            },
            vec![WeightShape { dtype: DType::Q8_0, rows, cols: WIDTH }],
        ),
        None => (Op::Add, vec![]),
    };
    let kernel = if rows.is_some() { "linear_q8_0_avx512" } else { "add_avx512" };
    let inputs = vec![PortType::rows(Rows::All, WIDTH); if rows.is_some() { 1 } else { 2 }];
    StepInfo { name, kind, layer, kernel: kernel.into(), bricks: vec![], op, inputs, weights }
}

/// Six layers of five steps, and an LM head.
pub(crate) fn plan() -> Vec<StepInfo> {
    let mut steps = Vec::new();
    for l in 0..6 {
        let mut add = |name: &str, kind, rows| steps.push(step(format!("blk.{l}.{name}"), kind, Some(l), rows));
        add("attn_norm", BrickKind::RmsNorm, None);
        add("attn_qkv", BrickKind::Qkv, Some(768));
        add("attn_output", BrickKind::OProj, Some(512));
        add("ffn_gate_up", BrickKind::GateUp, Some(2048));
        add("ffn_down", BrickKind::Down, Some(1024));
    }
    steps.push(step("output".into(), BrickKind::LmHead, None, Some(8192)));
    steps
}

pub(crate) fn machine() -> Machine {
    let level = |level, capacity_bytes: Option<u64>, one, all| Bandwidth {
        level,
        capacity_bytes,
        working_set_bytes: capacity_bytes.map_or(512 << 20, |c| c / 2),
        gb_s: PerThreads { one, all },
        small_pages_gb_s: PerThreads { one, all },
    };
    let cpu = CpuTopology {
        model: "Example CPU 9000".into(),
        logical_cores: 4,
        physical_cores: 2,
        cores: vec![vec![0, 2], vec![1, 3]],
        quota_millicores: None,
        caches: vec![],
        memory_available_bytes: Some(8_000_000_000),
        huge_pages: None,
    };
    Machine {
        version: Machine::VERSION,
        fingerprint: Fingerprint {
            cpu_model: cpu.model.clone(),
            physical_cores: 2,
            logical_cores: 4,
            quota_millicores: None,
            simd: "avx512-vnni".into(),
            brick_version: "0.1.0".into(),
        },
        reported: cpu,
        measured: Limits {
            threads: 2,
            read: vec![
                level(MemoryLevel::L1, Some(64 << 10), 200.0, 400.0),
                level(MemoryLevel::L2, Some(2 << 20), 100.0, 200.0),
                level(MemoryLevel::Dram, None, 20.0, 30.0),
            ],
            int8_gop_s: PerThreads { one: 400.0, all: 800.0 },
            bf16_gflop_s: None,
            tile_int8_gop_s: None,
            tile_bf16_gflop_s: None,
            f32_gflop_s: PerThreads { one: 100.0, all: 200.0 },
            barrier_ns: 200.0,
            clock: ClockPrecision { resolution_ns: 20, read_ns: 22.5 },
        },
    }
}

pub(crate) fn profile() -> Profile {
    let (steps, machine, clock) = (plan(), machine(), ManualClock::new());
    let mut recording = BrickProfiler::with_clock(&steps, 64, SyncMode::Immediate, &clock);
    let mut forward = |tokens: u64, context: u64, phase, percent: u64| {
        recording.begin_forward(&Extent::one_sequence(tokens, context, 1), phase);
        for (i, step) in steps.iter().enumerate() {
            let ns = match step.kind {
                BrickKind::RmsNorm => 4_000,
                BrickKind::Qkv => 18_000,
                BrickKind::OProj => 17_000,
                // Layer 3 is slower than the others.
                BrickKind::GateUp => {
                    if step.layer == Some(3) {
                        140_000
                    } else {
                        90_000
                    }
                }
                BrickKind::Down => 30_000,
                _ => 260_000,
            };
            clock.advance(ns * percent / 100);
            recording.step_done(i);
        }
        clock.advance(800);
        recording.end_forward();
        clock.advance(21_000);
        recording.record_external(BrickKind::Sample, 20_000);
    };
    forward(16, 16, Phase::Prefill, 500);
    for i in 0..40 {
        // Every tenth call is disturbed.
        forward(1, 17 + i, Phase::Decode, if i % 10 == 9 { 190 } else { 95 + i % 7 });
    }
    let budgets = BudgetTable::from(Roofline::new(&machine, &steps, 2));
    let inputs = ProfileInputs {
        model: ModelInfo { name: "Tiny 9M".into(), quantization: Some("Q8_0".into()), ..ModelInfo::default() },
        build: BuildInfo {
            version: "0.1.0".into(),
            target: "x86_64-linux".into(),
            debug_assertions: false,
            git: None,
            rustc: None,
            features: vec![],
        },
        run: RunInfo {
            backend: "cpu avx512-vnni".into(),
            threads: 2,
            sequences: 1,
            context: 128,
            ..RunInfo::default()
        },
        clock: ClockPrecision { resolution_ns: 20, read_ns: 22.5 },
        machine: Some(&machine),
        budgets: Some(&budgets),
        policy: BudgetPolicy::Report,
        counters: None,
        timeline: 64,
        intervals: false,
    };
    Profile::new(&mut recording, inputs)
}

/// A frame of [`profile`], with threads: the clock of the recording cannot be read by several.
pub(crate) fn snapshot() -> Snapshot {
    let facts = Facts {
        pid: 4711,
        weights_from: Some("DRAM".into()),
        ttft_ms: Some(4.5),
        frame_us: Some(850.0),
        frames_dropped: 2,
    };
    let mut s = Snapshot::of(&profile(), &facts).unwrap();
    s.threads =
        (0..2).map(|thread| ThreadRow { thread, busy_us: 30_000.0, wait_us: 6_000.0 * thread as f64 }).collect();
    for row in s.bricks.iter_mut().filter(|r| r.in_graph) {
        let half = row.measured.total_us / 2.0;
        row.measured.threads =
            Some(ThreadsMeasured { busy_us: vec![half, half * 0.8], wait_us: vec![0.0, half * 0.2] });
    }
    s
}

pub(crate) const TIMING: Timing =
    Timing { frame: std::time::Duration::from_micros(420), age: std::time::Duration::from_millis(80), snapshots: 12 };

/// What a screen looks like.
pub(crate) fn drawn(
    snapshot: Option<&Snapshot>,
    link: &Link,
    state: &UiState,
    theme: Theme,
    size: (u16, u16),
) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    let screen = Screen { snapshot, link, timing: TIMING, state, theme };
    terminal.draw(|frame| ui::draw(frame, &screen)).unwrap();
    terminal.backend().buffer().clone()
}

/// Every view and panel of a snapshot, at sizes from nothing to large.
pub(crate) fn draw_everything(s: &Snapshot) {
    for view in View::ALL {
        for (help, tuner, debug) in [(false, false, false), (true, true, false), (false, false, true)] {
            for size in [(1, 1), (20, 5), (40, 10), (80, 24), (200, 60)] {
                let state = UiState { view, help, tuner, debug, brick: 3, row: 2, ..UiState::default() };
                drawn(Some(s), &Link::Driving, &state, Theme { color: true }, size);
            }
        }
    }
    let report =
        crate::report::Report::new(s, crate::report::SourceKind::Attached, &crate::report::Thresholds::default(), None);
    report.to_text();
}
