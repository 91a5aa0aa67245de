//! F101-P–F110-P: the profiler, driven by a clock that moves when told to.

use std::collections::BTreeSet;

use brick_profiler::{BrickProfiler, ManualClock, NoRecord, Phase, Recorder, StepInfo, SyncMode, Totals};
use bricks::{BrickCategory, BrickKind, Extent, Op, PortType, Rows};

use crate::claim::{Claim, Family, Outcome, Refusal, require, require_eq, require_some};
use crate::context::Context;

macro_rules! claim {
    ($id:literal, $statement:literal, $threshold:literal, $check:ident) => {
        Claim { id: $id, statement: $statement, family: Family::Profiler, threshold: $threshold, check: $check }
    };
}

pub(super) const CLAIMS: &[Claim] = &[
    claim!("F101-P", "There are 15 kinds of bricks with dense indices", "15, 0 to 14", f101),
    claim!("F102-P", "Looking up a kind is indexing an array, whatever the number of bricks", "index = position", f102),
    claim!("F103-P", "Each kind belongs to exactly one of Norm, Attention, FFN, Other", "total mapping", f103),
    claim!("F104-P", "Totals of a category are the sum of its kinds", "exact", f104),
    claim!("F105-P", "Immediate mode takes one sample per brick", "exact count", f105),
    claim!("F106-P", "Per-layer mode synchronises once per layer", "clock reads = layers + ends", f106),
    claim!("F107-P", "Deferred mode shows nothing until finalised, then everything", "exact", f107),
    claim!("F108-P", "Mode none records nothing", "0", f108),
    claim!("F109-P", "Statistics by id and by name agree", "exact", f109),
    claim!("F110-P", "A disabled profiler adds no samples and no synchronisation", "0", f110),
];

fn step(name: String, kind: BrickKind, layer: Option<u32>) -> StepInfo {
    StepInfo {
        name,
        kind,
        layer,
        kernel: "add".into(),
        bricks: vec![],
        op: Op::Add,
        inputs: vec![PortType::rows(Rows::All, 8); 2],
        weights: vec![],
    }
}

const LAYERS: u32 = 3;
const LAYER: [(&str, BrickKind); 8] = [
    ("attn_norm", BrickKind::RmsNorm),
    ("attn_qkv", BrickKind::Qkv),
    ("rope", BrickKind::Rope),
    ("attn", BrickKind::Attention),
    ("attn_output", BrickKind::OProj),
    ("ffn_norm", BrickKind::RmsNorm),
    ("ffn_gate_up", BrickKind::GateUp),
    ("ffn_down", BrickKind::Down),
];

/// Embedding, three layers of eight steps, final norm, LM head.
fn plan() -> Vec<StepInfo> {
    let mut steps = vec![step("token_embd".into(), BrickKind::Embed, None)];
    for l in 0..LAYERS {
        steps.extend(LAYER.iter().map(|(name, kind)| step(format!("blk.{l}.{name}"), *kind, Some(l))));
    }
    steps.push(step("output_norm".into(), BrickKind::FinalNorm, None));
    steps.push(step("output".into(), BrickKind::LmHead, None));
    steps
}

/// Nanoseconds that step `i` takes in forward `n`.
fn duration(n: u64, i: usize) -> u64 {
    100 + 7 * i as u64 + 1000 * n
}

/// Records `forwards` decode calls of the plan and gives the nanoseconds they took in all.
fn drive<R: Recorder>(recorder: &mut R, clock: &ManualClock, forwards: u64) -> u64 {
    let mut total = 0;
    for n in 0..forwards {
        recorder.begin_forward(&Extent::one_sequence(1, 1, n + 1), Phase::Decode);
        for i in 0..plan().len() {
            clock.advance(duration(n, i));
            total += duration(n, i);
            recorder.step_done(i);
        }
        recorder.end_forward();
        recorder.record_external(BrickKind::Sample, 50);
    }
    total
}

fn f101(_: &Context) -> Outcome {
    require_eq("number of kinds", &(BrickKind::COUNT, BrickKind::ALL.len()), &(15, 15))?;
    let indices: Vec<usize> = BrickKind::ALL.iter().map(|k| k.index()).collect();
    require_eq("indices", &indices, &(0..15).collect())?;
    let names: BTreeSet<&str> = BrickKind::ALL.iter().map(|k| k.name()).collect();
    require_eq("different names", &names.len(), &15)?;
    Ok("15 kinds, 0 to 14, 15 names".into())
}

fn f102(_: &Context) -> Outcome {
    // The position in an array of COUNT is the kind itself, so there is nothing to search.
    let mut table = [None; BrickKind::COUNT];
    for kind in BrickKind::ALL {
        require(table[kind.index()].replace(kind).is_none(), "one kind per place", || kind.name().into())?;
    }
    for (i, kind) in table.iter().enumerate() {
        require_eq("kind at its place", &kind.map(BrickKind::index), &Some(i))?;
    }
    // A profiler of 40 times as many steps reads the clock as often per step, and finds each by its number.
    let reads = |copies: usize| {
        let steps: Vec<StepInfo> = (0..copies).flat_map(|_| plan()).collect();
        let clock = ManualClock::new();
        let mut p = BrickProfiler::with_clock(&steps, 4, SyncMode::Immediate, &clock);
        p.begin_forward(&Extent::one_sequence(1, 1, 1), Phase::Decode);
        let before = clock.reads();
        for i in 0..steps.len() {
            clock.advance(i as u64 + 1);
            p.step_done(i);
        }
        let reads = clock.reads() - before;
        p.end_forward();
        let right = (0..steps.len()).all(|i| p.step_totals(Phase::Decode, i).is_some_and(|t| t.sum_ns == i as u64 + 1));
        (reads as f64 / steps.len() as f64, right)
    };
    require_eq("(clock reads per step, each step's own time)", &reads(1), &(1.0, true))?;
    require_eq("the same with 40 times the steps", &reads(40), &(1.0, true))?;
    Ok("15 of 15 kinds at their index; one clock read per step with 27 steps and with 1080".into())
}

fn f103(_: &Context) -> Outcome {
    let count = |c| BrickKind::ALL.iter().filter(|k| k.category() == c).count();
    let counts = BrickCategory::ALL.map(count);
    require_eq("kinds in all categories", &counts.iter().sum::<usize>(), &15)?;
    require_eq("norm, attention, FFN, other", &counts, &[2, 5, 3, 5])?;
    for (kind, category) in [
        (BrickKind::FinalNorm, BrickCategory::Norm),
        (BrickKind::KvWrite, BrickCategory::Attention),
        (BrickKind::Down, BrickCategory::Ffn),
        (BrickKind::LmHead, BrickCategory::Other),
    ] {
        require_eq(kind.name(), &kind.category(), &category)?;
    }
    Ok("2 + 5 + 3 + 5 = 15".into())
}

fn recorded(mode: SyncMode, clock: &ManualClock) -> (BrickProfiler<&ManualClock>, u64) {
    let mut p = BrickProfiler::with_clock(&plan(), 16, mode, clock);
    let total = drive(&mut p, clock, 5);
    (p, total)
}

fn f104(_: &Context) -> Outcome {
    let clock = ManualClock::new();
    let (p, total) = recorded(SyncMode::Immediate, &clock);
    let mut all = 0;
    for category in BrickCategory::ALL {
        let kinds = BrickKind::ALL.into_iter().filter(|k| k.category() == category);
        let mut sum = Totals::default();
        kinds.for_each(|k| sum.merge(&p.kind_totals(Phase::Decode, k)));
        let found = p.category_totals(Phase::Decode, category);
        require_eq(category.name(), &found, &sum)?;
        all += found.sum_ns;
    }
    require_eq("sum of all categories", &all, &(total + 5 * 50))?;
    // By hand: the norms of three layers and the final one.
    let steps = plan();
    let norms = |n: u64| {
        (0..steps.len()).filter(|i| steps[*i].kind.category() == BrickCategory::Norm).map(move |i| duration(n, i))
    };
    let expected: u64 = (0..5).flat_map(norms).sum();
    require_eq("norms by hand", &p.category_totals(Phase::Decode, BrickCategory::Norm).sum_ns, &expected)?;
    Ok(format!("4 categories, {all} ns in all"))
}

fn f105(_: &Context) -> Outcome {
    let clock = ManualClock::new();
    let (p, total) = recorded(SyncMode::Immediate, &clock);
    for (i, info) in plan().iter().enumerate() {
        let t = require_some(p.step_totals(Phase::Decode, i), "totals of the step")?;
        let expected: u64 = (0..5).map(|n| duration(n, i)).sum();
        require_eq(&info.name, &(t.count, t.sum_ns), &(5, expected))?;
    }
    require_eq("sum of all steps", &p.phase_totals(Phase::Decode).steps_ns, &total)?;
    require_eq("calls that made no sense", &p.ignored_calls(), &0)?;
    Ok(format!("27 steps × 5 calls = 135 samples, {total} ns"))
}

fn f106(_: &Context) -> Outcome {
    let clock = ManualClock::new();
    let mut p = BrickProfiler::with_clock(&plan(), 16, SyncMode::PerLayer, &clock);
    let total = drive(&mut p, &clock, 1);
    // The beginning and the end of the call; what lies before the layers, each layer, what lies after them.
    let boundaries = u64::from(LAYERS) + 2;
    require_eq("clock reads", &clock.reads(), &(boundaries + 2))?;
    let layers: Vec<(Option<u32>, u64)> = p.segment_totals(Phase::Decode).map(|(l, t)| (l, t.count)).collect();
    require_eq("segments", &layers, &vec![(None, 1), (Some(0), 1), (Some(1), 1), (Some(2), 1), (None, 1)])?;
    let sum: u64 = p.segment_totals(Phase::Decode).map(|(_, t)| t.sum_ns).sum();
    require_eq("their sum", &sum, &total)?;
    require_eq("times of single steps", &p.step_totals(Phase::Decode, 3), &None)?;
    Ok(format!("{LAYERS} layers, {boundaries} boundaries, {} clock reads for 27 steps", boundaries + 2))
}

fn f107(_: &Context) -> Outcome {
    let clock = ManualClock::new();
    let (mut p, total) = recorded(SyncMode::Deferred, &clock);
    let before = p.phase_totals(Phase::Decode);
    require_eq("(calls, ns) before", &(before.forwards, before.steps_ns), &(0, 0))?;
    require_eq(
        "samples before",
        &(0..27).filter_map(|i| p.step_totals(Phase::Decode, i)).map(|t| t.count).sum::<u64>(),
        &0,
    )?;
    p.finish();
    let after = p.phase_totals(Phase::Decode);
    require_eq("(calls, ns) after", &(after.forwards, after.steps_ns), &(5, total))?;
    let immediate_clock = ManualClock::new();
    let (immediate, _) = recorded(SyncMode::Immediate, &immediate_clock);
    for i in 0..27 {
        require_eq(
            "the same as immediate",
            &p.step_totals(Phase::Decode, i),
            &immediate.step_totals(Phase::Decode, i),
        )?;
    }
    p.finish();
    require_eq("finalised twice", &p.phase_totals(Phase::Decode), &after)?;
    Ok("0 samples, then 135, equal to those of immediate mode; its cost on a GPU is not testable here".into())
}

fn silent(p: &BrickProfiler<&ManualClock>, clock: &ManualClock) -> Result<(), Refusal> {
    require_eq("clock reads", &clock.reads(), &0)?;
    for phase in Phase::ALL {
        require_eq("calls", &p.phase_totals(phase).forwards, &0)?;
        require_eq("samples", &p.samples(phase).count(), &0)?;
        for kind in BrickKind::ALL {
            require_eq(kind.name(), &p.kind_totals(phase, kind).count, &0)?;
        }
    }
    Ok(())
}

fn f108(_: &Context) -> Outcome {
    let clock = ManualClock::new();
    let (mut p, _) = recorded(SyncMode::None, &clock);
    p.finish();
    silent(&p, &clock)?;
    p.set_enabled(true);
    require(!p.is_enabled(), "a mode that stays off", || "enabled".into())?;
    Ok("5 calls of 27 steps: 0 samples, 0 clock reads".into())
}

fn f109(_: &Context) -> Outcome {
    let clock = ManualClock::new();
    let (p, _) = recorded(SyncMode::Immediate, &clock);
    for (i, info) in plan().iter().enumerate() {
        let by_id = p.step_totals(Phase::Decode, i);
        require_eq(&info.name, &p.totals_by_name(Phase::Decode, &info.name), &by_id)?;
    }
    for kind in BrickKind::ALL {
        require_eq(
            kind.name(),
            &p.totals_by_name(Phase::Decode, kind.name()),
            &Some(p.kind_totals(Phase::Decode, kind)),
        )?;
    }
    require_eq("an unknown name", &p.totals_by_name(Phase::Decode, "blk.9.attn"), &None)?;
    Ok("27 steps and 15 kinds".into())
}

fn f110(_: &Context) -> Outcome {
    let clock = ManualClock::new();
    let mut p = BrickProfiler::with_clock(&plan(), 16, SyncMode::Immediate, &clock);
    p.set_enabled(false);
    drive(&mut p, &clock, 5);
    silent(&p, &clock)?;
    p.set_enabled(true);
    drive(&mut p, &clock, 2);
    require_eq("calls after switching it on again", &p.phase_totals(Phase::Decode).forwards, &2)?;
    // The recorder that compiles to nothing.
    let before = clock.reads();
    drive(&mut NoRecord, &clock, 5);
    require_eq("clock reads of NoRecord", &(clock.reads() - before), &0)?;
    require(!NoRecord::ENABLED && std::mem::size_of::<NoRecord>() == 0, "a recorder of no size", || {
        "NoRecord has a size".into()
    })?;
    Ok("5 calls while disabled: 0 samples, 0 clock reads; NoRecord: 0 clock reads, 0 bytes".into())
}
