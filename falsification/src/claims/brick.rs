//! F001–F014: the contract of bricks.

use std::any::TypeId;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bricks::catalog::{
    self, ActivationBrick, ActivationQuantBrick, Activations, Attend, AttentionBrick, DownBrick, EmbedBrick, FfnBrick,
    GateUpBrick, KvCache, LayerInput, LmHeadBrick, OProjBrick, QkvBrick, ResidualBrick, RmsNormBrick, RopeBrick,
    Rotate, State, Stream, Sum, TransformerLayerBrick,
};
use bricks::reference::Weight;
use bricks::{
    BottleneckReport, BrickAssertion, BrickError, BrickKind, BrickLine, BudgetOrigin, BudgetPolicy, ComputeBrick,
    LineEntry, Observation, Observe, RopeStyle, RunBrick, TokenBudget, TokenResult,
};

use super::fixtures::{self, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, VOCAB};
use crate::claim::{Claim, Family, Outcome, Refusal, require, require_eq, require_some};
use crate::context::Context;
use crate::noise::Noise;
use crate::runs;

macro_rules! claim {
    ($id:literal, $statement:literal, $threshold:literal, $check:ident) => {
        Claim { id: $id, statement: $statement, family: Family::Brick, threshold: $threshold, check: $check }
    };
}

pub(super) const CLAIMS: &[Claim] = &[
    claim!("F001", "Every brick type implements the contract ComputeBrick", "compiles; none left out", f001),
    claim!("F002", "Every brick declares at least one assertion", "more than 0", f002),
    claim!(
        "F003",
        "verify() evaluates all declared assertions, not just up to the first failure",
        "evaluated = declared",
        f003
    ),
    claim!("F004", "No brick has a budget of zero", "positive and finite", f004),
    claim!("F005", "The name of a brick type is unique", "no duplicates", f005),
    claim!("F006", "run() returns a Result and never panics", "0 panics", f006),
    claim!("F007", "Handling of brick errors is exhaustive", "compiles without a wildcard", f007),
    claim!("F008", "The fields of a TokenResult agree with each other", "tok/s · µs = 10⁶; met ⇔ µs ≤ limit", f008),
    claim!("F009", "A wrong composition of bricks does not compile", "only the right neighbours fit", f009),
    claim!("F010", "The reported bottleneck is the slowest brick", "exact", f010),
    claim!("F011", "A budget violation stops the line", "later bricks do not run; error returned", f011),
    claim!("F012", "A failed assertion gives an actionable message", "names brick, assertion, expected, actual", f012),
    claim!("F013", "Metrics are emitted once per brick execution", "records = executions", f013),
    claim!("F014", "Bricks can be shared between threads", "Send + Sync", f014),
];

fn budget(us: f64) -> Result<TokenBudget, Refusal> {
    require_some(TokenBudget::from_latency(us, BudgetOrigin::Explicit), "a budget from a positive latency")
}

/// The brick types, listed here independently of the catalogue's own list: each is asked for the whole contract, execution and
/// thread safety included.
fn contract() -> Vec<&'static str> {
    fn keeps<B: RunBrick + Send + Sync + 'static>() {}
    macro_rules! keep {
        ($($brick:ident),*) => { vec![$({ keeps::<$brick>(); stringify!($brick) }),*] };
    }
    keep![
        EmbedBrick,
        RmsNormBrick,
        QkvBrick,
        RopeBrick,
        AttentionBrick,
        OProjBrick,
        GateUpBrick,
        ActivationBrick,
        DownBrick,
        FfnBrick,
        LmHeadBrick,
        ResidualBrick,
        ActivationQuantBrick,
        TransformerLayerBrick
    ]
}

fn f001(_: &Context) -> Outcome {
    let mut here = contract();
    let mut there = catalog::TYPE_NAMES.to_vec();
    here.sort_unstable();
    there.sort_unstable();
    require_eq("brick types", &there, &here)?;
    require_eq("instances in the registry", &catalog::registry().len(), &here.len())?;
    Ok(format!("{} brick types", here.len()))
}

fn f002(_: &Context) -> Outcome {
    let registry = catalog::registry();
    let mut least = usize::MAX;
    for b in &registry {
        require(!b.assertions().is_empty(), "assertions", || format!("none of {}", b.name()))?;
        least = least.min(b.assertions().len());
    }
    Ok(format!("{} bricks, each at least {least} assertions", registry.len()))
}

fn f003(_: &Context) -> Outcome {
    let evaluated = Arc::new(AtomicUsize::new(0));
    let mut brick = fixtures::layer_parts()?.attn_norm;
    let mut declared = brick.assertions().len();
    for i in 0..7 {
        let evaluated = Arc::clone(&evaluated);
        let custom = BrickAssertion::new(format!("custom_{i}")).description("an odd number").check(move |_| {
            evaluated.fetch_add(1, Ordering::Relaxed);
            if i % 2 == 1 { Ok(()) } else { Err("an even number".into()) }
        });
        brick = brick.with_assertion(custom);
        declared += 1;
    }
    // NaN in the output and a wrong shape: the first declared assertions fail, too.
    let seen = Observation { output: &[f32::NAN; 3], shape: &[3], reference: None, actual_us: Some(1.0) };
    let verification = brick.verify(&seen);
    require_eq("outcomes", &verification.outcomes.len(), &declared)?;
    require_eq("custom assertions that ran", &evaluated.load(Ordering::Relaxed), &7)?;
    let failures = verification.failures().count();
    require(verification.outcomes.first().is_some_and(bricks::AssertionOutcome::failed), "the first to fail", || {
        verification.to_string()
    })?;
    require(failures >= 6, "at least 6 failures reported", || failures.to_string())?;
    Ok(format!("{declared} declared, {declared} evaluated, {failures} failures listed"))
}

fn f004(_: &Context) -> Outcome {
    let registry = catalog::registry();
    for b in &registry {
        let us = b.budget().us_per_token();
        require(us > 0.0 && us.is_finite(), "a positive, finite budget", || format!("{us} µs of {}", b.name()))?;
    }
    for us in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-310] {
        let made = TokenBudget::from_latency(us, BudgetOrigin::Explicit);
        require(made.is_none(), format!("no budget of {us} µs"), || format!("{made:?}"))?;
        let made = TokenBudget::from_throughput(us, BudgetOrigin::Explicit);
        require(made.is_none(), format!("no budget of {us} tok/s"), || format!("{made:?}"))?;
    }
    Ok(format!("{} bricks; 10 impossible budgets refused", registry.len()))
}

fn f005(_: &Context) -> Outcome {
    let registry = catalog::registry();
    let mut names: Vec<&str> = registry.iter().map(|b| b.name()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    require_eq("different names", &names.len(), &count)?;
    Ok(format!("{count} names: {}", names.join(", ")))
}

/// Rows of `width` values, from harmless to hostile.
fn hostile(noise: &mut Noise, rows: usize, width: usize) -> Vec<f32> {
    const ODD: [f32; 8] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, -0.0, 1e-42, 3.0];
    (0..rows * width).map(|_| ODD[noise.below(ODD.len())]).collect()
}

/// Runs a brick and counts: refused, accepted; a panic falsifies.
fn survives<T>(
    count: &mut (usize, usize),
    brick: &str,
    run: impl FnOnce() -> Result<T, BrickError>,
) -> Result<(), Refusal> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(_)) => count.1 += 1,
        Ok(Err(e)) => {
            require(!e.to_string().is_empty(), "an error that says something", || format!("{e:?}"))?;
            count.0 += 1;
        }
        Err(_) => return Err(Refusal::falsified("no panic", format!("a panic in {brick}"))),
    }
    Ok(())
}

fn f006(_: &Context) -> Outcome {
    let parts = fixtures::layer_parts()?;
    let layer = TransformerLayerBrick::new(0, parts.clone());
    let mut noise = Noise::new(6);
    let mut count = (0, 0);
    let qkv_width = (HEADS + 2 * KV_HEADS) * HEAD_DIM;
    for round in 0..40 {
        let rows = [0, 1, 2, 5][round % 4];
        let off = [0, 0, 1, 7][(round / 4) % 4];
        macro_rules! acts {
            ($width:expr) => {
                // `+ 0`: the state is inferred from the brick that takes it.
                Activations::new($width + off, hostile(&mut noise, rows, $width + off))?
            };
        }
        let mut positions: Vec<u32> = (0..rows as u32).collect();
        match round % 5 {
            3 => positions.push(0),
            4 => positions.iter_mut().for_each(|p| *p = u32::MAX - *p),
            _ => {}
        }
        macro_rules! try_on {
            ($brick:expr, $input:expr) => {{
                let (brick, input) = (&$brick, $input);
                survives(&mut count, brick.name(), || brick.run(input))?
            }};
        }
        try_on!(parts.attn_norm, &acts!(HIDDEN));
        try_on!(parts.qkv, &acts!(HIDDEN));
        try_on!(parts.rope, Rotate { qkv: &acts!(qkv_width), positions: &positions });
        let mut cache = KvCache::new(KV_HEADS, HEAD_DIM, 4)?;
        try_on!(parts.attention, Attend { qkv: &acts!(qkv_width), positions: &positions, cache: &mut cache });
        try_on!(parts.o_proj, &acts!(HEADS * HEAD_DIM));
        try_on!(parts.residual, Sum { stream: &acts!(HIDDEN), update: &acts!(HIDDEN) });
        try_on!(parts.ffn, &acts!(HIDDEN));
        try_on!(fixtures::gate_up()?, &acts!(HIDDEN));
        try_on!(fixtures::activation()?, &acts!(2 * fixtures::FFN));
        try_on!(fixtures::down()?, &acts!(fixtures::FFN));
        try_on!(fixtures::lm_head()?, &acts!(HIDDEN));
        try_on!(ActivationQuantBrick::new(32)?, &acts!(32));
        let tokens: Vec<u32> = (0..rows).map(|i| if off == 0 { i as u32 } else { u32::MAX }).collect();
        try_on!(fixtures::embed()?, tokens.as_slice());
        let mut cache = KvCache::new(KV_HEADS, HEAD_DIM, 4)?;
        try_on!(layer, LayerInput { stream: &acts!(HIDDEN), positions: &positions, cache: &mut cache });
    }
    // Sizes whose products overflow.
    let huge = usize::MAX / 2;
    let spec = fixtures::rope_spec(RopeStyle::Interleaved, 4, 1e4);
    survives(&mut count, "rope", || RopeBrick::new(huge, huge, huge, spec))?;
    survives(&mut count, "kv cache", || KvCache::new(huge, huge, huge))?;
    survives(&mut count, "residual", || ResidualBrick::new(0))?;
    survives(&mut count, "activation", || ActivationBrick::new(bricks::ActKind::Silu, huge))?;
    survives(&mut count, "weight", || Weight::new(bricks::DType::Q4_K, huge, 256, vec![]))?;
    let (refused, accepted) = count;
    require(refused > 100 && accepted > 100, "inputs of both kinds", || {
        format!("{refused} refused, {accepted} accepted")
    })?;
    Ok(format!("{} runs without a panic: {refused} refused with an error, {accepted} computed", refused + accepted))
}

fn f007(_: &Context) -> Outcome {
    // No wildcard: a new kind of error does not compile until somebody decides here what it means.
    fn class(e: &BrickError) -> &'static str {
        match e {
            BrickError::BudgetExceeded { .. } | BrickError::LineStopped { .. } => "budget",
            BrickError::Assertion { .. } => "assertion",
            BrickError::Shape { .. } | BrickError::Index { .. } | BrickError::Op { .. } => "input",
            BrickError::Parameter { .. } | BrickError::Rope { .. } => "parameter",
            BrickError::Weight { .. } | BrickError::Quant { .. } => "weight",
            BrickError::Memory { .. } | BrickError::Backend { .. } => "machine",
        }
    }
    let parts = fixtures::layer_parts()?;
    let wrong = Activations::new(HIDDEN + 1, vec![0.0; HIDDEN + 1])?;
    let errors = [
        (parts.attn_norm.run(&wrong).err(), "input"),
        (fixtures::embed()?.run(&[VOCAB as u32]).err(), "input"),
        (ResidualBrick::new(0).err(), "parameter"),
        (Weight::new(bricks::DType::F32, 2, 2, vec![0; 15]).err(), "weight"),
    ];
    for (e, expected) in &errors {
        require_eq("class of the error", &e.as_ref().map(class), &Some(*expected))?;
    }
    Ok("the match over all kinds of errors compiles; 4 errors land where they belong".into())
}

fn f008(_: &Context) -> Outcome {
    let mut noise = Noise::new(8);
    let cases = 20_000;
    for i in 0..cases {
        let ns = match i % 4 {
            0 => noise.below(3) as u64,
            1 => noise.below(1000) as u64,
            2 => noise.below(1_000_000_000) as u64,
            _ => noise.bits() >> 12,
        };
        let tokens = [0, 1, 2, 7, 512][noise.below(5)];
        let limit = budget(10f64.powf(noise.between(-4.0, 7.0)))?;
        let r = TokenResult::new((), ns, tokens, &limit);
        let product = r.us_per_token * r.tokens_per_sec;
        let fine = (product / 1e6 - 1.0).abs() < 1e-12 && r.us_per_token > 0.0 && r.tokens_per_sec.is_finite();
        require(fine, "tok/s · µs = 10⁶", || format!("{product} for {ns} ns and {tokens} tokens"))?;
        require_eq("budget_met", &r.budget_met, &(r.us_per_token <= limit.us_per_token()))?;
    }
    // Nothing is rounded to whole microseconds.
    let r = TokenResult::new((), 250, 1, &budget(0.25)?);
    require_eq("(µs, met) of 250 ns against 0.25 µs", &(r.us_per_token, r.budget_met), &(0.25, true))?;
    Ok(format!("{cases} random times, a quarter of them below 3 ns"))
}

/// Whether what `A` gives is exactly what `B` takes. Rust converts neither, so types that differ do not compile.
fn fits<A: RunBrick, B: RunBrick>() -> bool
where
    A::Output: 'static,
    B::Input<'static>: 'static,
{
    TypeId::of::<&'static A::Output>() == TypeId::of::<B::Input<'static>>()
}

fn f009(_: &Context) -> Outcome {
    macro_rules! pairs {
        ($($a:ident),* => $bs:tt) => { vec![$(pairs!(@row $a $bs)),*].concat() };
        (@row $a:ident [$($b:ident),*]) => { vec![$((stringify!($a), stringify!($b), fits::<$a, $b>())),*] };
    }
    // Bricks that take one kind of activations; the others take structures that no brick gives.
    let pairs: Vec<(&str, &str, bool)> = pairs!(
        EmbedBrick, RmsNormBrick, QkvBrick, RopeBrick, AttentionBrick, OProjBrick, GateUpBrick, ActivationBrick, DownBrick,
        FfnBrick, LmHeadBrick, ResidualBrick
        => [RmsNormBrick, QkvBrick, OProjBrick, GateUpBrick, ActivationBrick, DownBrick, FfnBrick, LmHeadBrick]
    );
    let found: Vec<(&str, &str)> = pairs.iter().filter(|(_, _, fits)| *fits).map(|(a, b, _)| (*a, *b)).collect();
    let expected = [
        ("EmbedBrick", "RmsNormBrick"),
        ("RmsNormBrick", "QkvBrick"),
        ("RmsNormBrick", "GateUpBrick"),
        ("RmsNormBrick", "FfnBrick"),
        ("RmsNormBrick", "LmHeadBrick"),
        ("AttentionBrick", "OProjBrick"),
        ("GateUpBrick", "ActivationBrick"),
        ("ActivationBrick", "DownBrick"),
        ("ResidualBrick", "RmsNormBrick"),
    ];
    require_eq("neighbours whose types fit", &found, &expected.to_vec())?;
    let states: Vec<&str> = {
        use bricks::catalog::{Attended, GateAndUp, Gated, Logits, Normed, Projected, Rotated, Update};
        fn name<S: State>() -> &'static str {
            S::NAME
        }
        let mut all = vec![
            name::<Stream>(),
            name::<Normed>(),
            name::<Projected>(),
            name::<Rotated>(),
            name::<Attended>(),
            name::<GateAndUp>(),
            name::<Gated>(),
            name::<Update>(),
            name::<Logits>(),
        ];
        all.sort_unstable();
        all.dedup();
        all
    };
    require_eq("different states", &states.len(), &9)?;
    Ok(format!(
        "of {} pairs of neighbours {} have fitting types, the right ones; that others do not compile is also in the \
         documentation tests of bricks::catalog",
        pairs.len(),
        found.len()
    ))
}

fn f010(_: &Context) -> Outcome {
    let entry = |brick: &str, actual_us: f64, limit: f64| {
        Ok::<_, Refusal>(LineEntry {
            layer: Some(3),
            brick: brick.into(),
            actual_us,
            budget: budget(limit)?,
            verification: None,
        })
    };
    let name = |entries: &[LineEntry]| BottleneckReport::of(entries).map(|b| b.brick_name);
    let line = [entry("norm", 20.0, 1.5)?, entry("ffn", 35.0, 12.2)?, entry("qkv", 25.0, 6.0)?];
    let report = require_some(BottleneckReport::of(&line), "a bottleneck")?;
    require_eq("brick", &report.brick_name.as_str(), &"ffn")?;
    require_eq("times", &(report.actual_us, report.budget_us, report.layer), &(35.0, 12.2, Some(3)))?;
    require_eq("gap factor", &report.gap_factor, &(35.0 / 12.2))?;
    require_eq("of one brick", &name(&line[2..]), &Some("qkv".into()))?;
    require_eq("of none", &name(&[]), &None)?;
    let tie = [entry("a", 1.0, 9.0)?, entry("b", 5.0, 9.0)?, entry("c", 5.0, 1.0)?, entry("d", f64::NAN, 1.0)?];
    require_eq("of two equals, the first", &name(&tie), &Some("b".into()))?;
    let mut noise = Noise::new(10);
    for _ in 0..500 {
        let times: Vec<f64> = (0..=noise.below(20)).map(|_| noise.below(50) as f64).collect();
        let entries: Vec<LineEntry> =
            times.iter().enumerate().map(|(i, t)| entry(&i.to_string(), *t, 1.0)).collect::<Result<_, _>>()?;
        let slowest = times.iter().copied().fold(f64::MIN, f64::max);
        let first = times.iter().position(|t| *t == slowest).map(|i| i.to_string());
        require_eq("bottleneck of random times", &name(&entries), &first)?;
    }
    Ok("505 lines, with ties, one brick and none".into())
}

fn f011(_: &Context) -> Outcome {
    let parts = fixtures::layer_parts()?;
    let stream = Activations::<Stream>::new(HIDDEN, vec![0.5; HIDDEN])?;
    // No machine takes less than a picosecond.
    let hopeless = parts.attn_norm.clone().with_budget(budget(1e-6)?);
    let mut line = BrickLine::new(BudgetPolicy::Strict);
    let stopped = line.step(&hopeless, &stream).err();
    require(matches!(stopped, Some(BrickError::BudgetExceeded { .. })), "BudgetExceeded", || format!("{stopped:?}"))?;

    let normed = parts.attn_norm.run(&stream)?.output;
    let cache_of = |policy: BudgetPolicy| -> Result<(usize, Option<BrickError>), Refusal> {
        // A layer whose QKV projection has a hopeless budget: does attention, three bricks on, still write its cache?
        let mut parts = parts.clone();
        parts.qkv = parts.qkv.with_budget(budget(1e-6)?);
        let generous = budget(1e9)?;
        parts.attn_norm = parts.attn_norm.with_budget(generous);
        let layer = TransformerLayerBrick::new(0, parts);
        let mut cache = KvCache::new(KV_HEADS, HEAD_DIM, 4)?;
        let input = LayerInput { stream: &stream, positions: &[0], cache: &mut cache };
        let error = layer.run_on_line(policy, input).err();
        Ok((cache.len(), error))
    };
    let (written, error) = cache_of(BudgetPolicy::Strict)?;
    require_eq("positions written after the line stopped", &written, &0)?;
    require_eq("brick that stopped it", &error.as_ref().map(BrickError::brick), &Some("qkv_proj"))?;
    let (written, error) = cache_of(BudgetPolicy::Report)?;
    require_eq("positions written under the report policy", &(written, error), &(1, None))?;

    let refused = line.step(&parts.qkv, &normed).err();
    require(matches!(refused, Some(BrickError::LineStopped { .. })), "LineStopped", || format!("{refused:?}"))?;
    require_eq("executions on the stopped line", &line.finish().entries.len(), &1)?;
    Ok("strict: the violation is an error, the bricks behind it did not run; report: the line goes on".into())
}

fn f012(_: &Context) -> Outcome {
    let brick = fixtures::layer_parts()?.ffn_norm;
    let mut output = vec![0.5; 2 * HIDDEN];
    output[HIDDEN + 3] = f32::NAN;
    let seen = Observation { output: &output, shape: &[2, HIDDEN], reference: None, actual_us: None };
    let message = require_some(brick.verify(&seen).check().err(), "an error for NaN in the output")?.to_string();
    for part in ["rms_norm", "finite", "expected finite values", "found NaN at index 19 (1 of 32 values)"] {
        require(message.contains(part), format!("{part:?} in the message"), || message.clone())?;
    }
    Ok(format!("message: {message}"))
}

fn f013(context: &Context) -> Outcome {
    // On a line of bricks.
    let layer = TransformerLayerBrick::new(7, fixtures::layer_parts()?);
    let stream = Activations::<Stream>::new(HIDDEN, vec![0.25; 3 * HIDDEN])?;
    let mut cache = KvCache::new(KV_HEADS, HEAD_DIM, 8)?;
    let input = LayerInput { stream: &stream, positions: &[0, 1, 2], cache: &mut cache };
    let output = layer.run_on_line(BudgetPolicy::Report, input)?;
    let entries = &output.report.entries;
    require_eq("records of a layer's 9 executions", &entries.len(), &9)?;
    let complete = entries.iter().all(|e| e.layer == Some(7) && e.actual_us > 0.0 && e.actual_us.is_finite());
    require(complete, "a layer and a positive time in each record", || format!("{entries:?}"))?;
    require_eq("rows of the output", &output.shape()[0], &3)?;
    // In an engine: one call of the recorder per step, in order.
    let (told, steps) = runs::told(&context.synthetic("qwen2-tiny")?.model, &[1, 2, 3])?;
    require_eq("calls begun and ended", &told.forwards, &(1, 1))?;
    require_eq("steps recorded in one forward call", &told.steps, &(0..steps).collect())?;
    Ok(format!("9 of 9 executions of a layer, {steps} of {steps} steps of a forward call"))
}

fn f014(_: &Context) -> Outcome {
    fn shared<T: Send + Sync + ?Sized>() {}
    shared::<dyn ComputeBrick>();
    shared::<BrickKind>();
    shared::<BrickError>();
    shared::<BrickAssertion>();
    let brick: Arc<dyn ComputeBrick> = Arc::new(fixtures::layer_parts()?.qkv);
    let names: Vec<String> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..4).map(|_| s.spawn(|| brick.name().to_owned())).collect();
        threads.into_iter().filter_map(|t| t.join().ok()).collect()
    });
    require_eq("answers from 4 threads", &names, &vec!["qkv_proj".to_owned(); 4])?;
    Ok(format!("{} brick types compile as Send + Sync; one shared by 4 threads", contract().len()))
}
