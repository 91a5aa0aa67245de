//! Trace Event Format, JSON object form: for Perfetto, `chrome://tracing` and speedscope.
//!
//! Checked against `docs/schema/trace-event.schema.json`.

use serde::Serialize;
use serde_json::{Value, json};

use crate::profile::{PhaseProfile, Profile, StepRow};
use crate::report::clean;

/// Process of the gang's threads. Id 0 is the idle task to some readers, so ids begin with 1.
const GANG: u32 = 1;
/// Process of the layers.
const LAYERS: u32 = 2;
/// Track of steps without a layer. Tracks of threads count from 1; some readers want ids unique over processes.
const NO_LAYER: u32 = 1_000_000;

#[derive(Serialize)]
struct Trace {
    #[serde(rename = "displayTimeUnit")]
    display_time_unit: &'static str,
    #[serde(rename = "otherData")]
    other_data: Value,
    #[serde(rename = "traceEvents")]
    events: Vec<Event>,
}

#[derive(Serialize)]
struct Event {
    ph: char,
    pid: u32,
    tid: u32,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    args: Value,
}

/// A span on a track, in nanoseconds: sums of integers nest exactly, sums of fractional µs do not.
struct Span {
    begin: u64,
    ns: u64,
    /// Scopes on the same track around it; a reader takes the first of two spans that begin together for the outer one.
    depth: u8,
    event: Event,
}

/// A forward call to be drawn.
struct Forward {
    begin: u64,
    wall: u64,
    /// In the order of the phase's steps; of its layers where steps were not timed.
    steps: Vec<Option<u64>>,
    args: Value,
    name: &'static str,
}

impl Profile {
    /// The recorded forward calls as a trace (JSON), to be opened in Perfetto, `chrome://tracing` or speedscope.
    ///
    /// Two processes. **threads**: a track per thread of the gang, with the kernels it ran; all threads take part in every
    /// step, so a kernel lasts from barrier to barrier on each. Where busy times of threads were recorded, a `working*`
    /// inside shows the thread's mean busy fraction of that step; derived. **layers**: a track per layer with the bricks.
    /// The spans of category `brick` add up to what the steps of the recorded calls took.
    ///
    /// A phase whose single calls were not kept is drawn as one mean call, `mean forward*`. Where bricks were not timed,
    /// calls and layers are all there is.
    pub fn to_chrome_trace(&self) -> String {
        let mut tracks = vec![
            metadata("process_name", GANG, 0, json!({"name": format!("{} threads", clean(&self.model.name))})),
            metadata("process_sort_index", GANG, 0, json!({"sort_index": 0})),
            metadata("process_name", LAYERS, 0, json!({"name": format!("{} layers", clean(&self.model.name))})),
            metadata("process_sort_index", LAYERS, 0, json!({"sort_index": 1})),
        ];
        let threads = u32::try_from(self.run.threads).unwrap_or(u32::MAX).clamp(1, NO_LAYER - 1);
        for t in 0..threads {
            let name = if t == 0 { "thread 0 (leader)".to_owned() } else { format!("thread {t}") };
            tracks.push(metadata("thread_name", GANG, t + 1, json!({ "name": name })));
            tracks.push(metadata("thread_sort_index", GANG, t + 1, json!({ "sort_index": t })));
        }
        let mut layers: Vec<Option<u32>> = self.phases.iter().flat_map(|p| &p.layers).map(|l| l.layer).collect();
        layers.sort_unstable();
        layers.dedup();
        for layer in layers {
            let (name, at) = (layer.map_or_else(|| "no layer".to_owned(), |l| format!("layer {l}")), track(layer));
            tracks.push(metadata("thread_name", LAYERS, at, json!({ "name": name })));
            tracks.push(metadata("thread_sort_index", LAYERS, at, json!({"sort_index": at - NO_LAYER})));
        }

        let mut spans = Vec::new();
        let mut end = 0;
        for phase in &self.phases {
            for forward in forwards(phase, end) {
                end = end.max(forward.begin + forward.wall);
                draw(phase, &forward, threads, &mut spans);
            }
        }
        // In the order of time, outer spans first: what readers that build nesting from the order of the file expect.
        spans.sort_by_key(|s| (s.begin, s.depth, s.event.pid, s.event.tid));
        tracks.extend(spans.into_iter().map(|s| {
            let (ts, dur) = micros(s.begin, s.ns);
            Event { ts: Some(ts), dur: Some(dur), ..s.event }
        }));
        let other_data = json!({
            "program": format!("brick {}", self.build.version),
            "model": clean(&self.model.name),
            "backend": clean(&self.run.backend),
            "machine": self.machine.as_ref().map(|m| clean(&m.fingerprint.to_string())),
            "graph": self.model.graph_hash.as_deref().map(clean),
            "recorded": self.run.timestamp.as_deref().map(clean),
        });
        let trace = Trace { display_time_unit: "ns", other_data, events: tracks };
        serde_json::to_string(&trace).expect("invariant: maps of a trace have text keys")
    }
}

/// Begin and duration in µs. Readers add the two, some after they moved everything to 0 (speedscope), and two spans that
/// end together must end together after that; of `1.1 + 2.2` and `3.3` one is larger. Multiples of 2⁻¹⁴ µs (0.06 ns) add
/// up exactly for six days.
fn micros(begin: u64, ns: u64) -> (f64, f64) {
    const STEPS: f64 = 16384.0;
    let grid = |ns: u64| (ns as f64 / 1e3 * STEPS).round() / STEPS;
    (grid(begin), grid(begin + ns) - grid(begin))
}

fn metadata(name: &str, pid: u32, tid: u32, args: Value) -> Event {
    Event { ph: 'M', pid, tid, name: name.to_owned(), cat: None, ts: None, dur: None, args }
}

/// Track of a layer.
fn track(layer: Option<u32>) -> u32 {
    layer.map_or(NO_LAYER, |l| NO_LAYER.saturating_add(1).saturating_add(l))
}

fn ns(us: f64) -> u64 {
    (us * 1e3).round() as u64
}

/// The calls that were kept, or the mean of all, which then begins where the phases before it end.
fn forwards(phase: &PhaseProfile, after: u64) -> Vec<Forward> {
    if !phase.timeline.is_empty() {
        let forward = |f: &crate::profile::ForwardRow| Forward {
            begin: ns(f.begin_us),
            wall: ns(f.wall_us),
            steps: f.steps_us.iter().map(|us| us.map(ns)).collect(),
            args: json!({"phase": phase.phase, "tokens": f.tokens, "context": f.context}),
            name: "forward",
        };
        return phase.timeline.iter().map(forward).collect();
    }
    let forwards = phase.measured.forwards.max(1) as f64;
    let mean = |total_us: f64| Some(ns(total_us / forwards));
    let steps: Vec<Option<u64>> = if phase.steps.is_empty() {
        phase.layers.iter().map(|l| mean(l.measured.total_us)).collect()
    } else {
        phase.steps.iter().map(|s| mean(s.measured.total_us)).collect()
    };
    let charged: u64 = steps.iter().flatten().sum();
    vec![Forward {
        begin: after,
        wall: ns(phase.measured.wall_us / forwards).max(charged),
        steps,
        args: json!({"phase": phase.phase, "derived": {"mean_of_forwards": phase.measured.forwards}}),
        name: "mean forward*",
    }]
}

fn draw(phase: &PhaseProfile, forward: &Forward, threads: u32, spans: &mut Vec<Span>) {
    let span = |begin, ns, depth, pid, tid, name: String, cat: &str, args| Span {
        begin,
        ns,
        depth,
        event: Event {
            ph: 'X',
            pid,
            tid,
            name,
            cat: Some(format!("{cat},{}", phase.phase)),
            ts: None,
            dur: None,
            args,
        },
    };
    spans.push(span(forward.begin, forward.wall, 0, GANG, 1, forward.name.into(), "forward", forward.args.clone()));
    let mut at = forward.begin;
    // The open run of steps of one layer: its layer, where it began.
    let mut run: Option<(Option<u32>, u64)> = None;
    let close = |run: (Option<u32>, u64), end: u64, spans: &mut Vec<Span>| {
        if let (Some(l), begin) = run {
            spans.push(span(begin, end - begin, 0, LAYERS, track(Some(l)), format!("layer {l}"), "layer", json!({})));
        }
    };
    if phase.steps.is_empty() {
        for (row, &time) in phase.layers.iter().zip(&forward.steps) {
            let Some(time) = time else { continue };
            let name = row.layer.map_or_else(|| "no layer".to_owned(), |l| format!("layer {l}"));
            spans.push(span(at, time, 0, LAYERS, track(row.layer), name, "layer", json!({})));
            at += time;
        }
    }
    for (step, time) in phase.steps.iter().zip(&forward.steps) {
        let &Some(time) = time else { continue };
        if run.is_none_or(|(layer, _)| layer != step.layer)
            && let Some(before) = run.replace((step.layer, at))
        {
            close(before, at, spans);
        }
        spans.push(span(at, time, 1, LAYERS, track(step.layer), clean(&step.name), "brick", brick_args(step)));
        for t in 0..threads {
            let args = json!({"brick": clean(&step.name)});
            spans.push(span(at, time, 1, GANG, t + 1, clean(&step.kernel), "kernel", args));
            if let Some(busy) = busy_fraction(step, t) {
                let working = (time as f64 * busy) as u64;
                spans.push(span(at, working, 2, GANG, t + 1, "working*".into(), "derived", json!({})));
            }
        }
        at += time;
    }
    if let Some(run) = run {
        close(run, at, spans);
    }
}

/// How much of a step's time a thread was busy, on average.
fn busy_fraction(step: &StepRow, thread: u32) -> Option<f64> {
    let times = step.measured.threads.as_ref()?;
    let (busy, wait) = (*times.busy_us.get(thread as usize)?, *times.wait_us.get(thread as usize)?);
    (busy + wait > 0.0).then(|| (busy / (busy + wait)).clamp(0.0, 1.0))
}

fn brick_args(step: &StepRow) -> Value {
    let d = &step.derived;
    json!({
        "brick": clean(&step.name),
        "kind": step.kind.name(),
        "kernel": clean(&step.kernel),
        "derived": {
            "bytes_per_token": d.work.bytes_per_token,
            "operations_per_token": d.work.int_ops_per_token + d.work.flops_per_token,
            "bound_us_per_token": d.bound.as_ref().map(|b| b.us_per_token),
            "budget_us_per_token": d.budget.as_ref().map(|b| b.us_per_token),
            "verdict": d.verdict.name(),
        },
    })
}
