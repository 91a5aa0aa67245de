//! A profile as tables and lines.

use std::fmt::Write;

use super::format::{clean, count, duration, number, percent};
use super::table::{Cell, Table, Tone, escape, paint};
use super::{Style, stamps};
use crate::profile::{
    BottleneckReport, BoundShare, BudgetShare, Counters, Flag, PhaseProfile, Profile, PromptKind, RowDerived,
    RowMeasured, ThreadsMeasured, Verdict, WorkRates,
};

/// What a report shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportOptions {
    /// How it is drawn.
    pub style: Style,
    /// How many single bricks to list, slowest first; 0 for none.
    pub steps: usize,
    /// Only this phase.
    pub phase: Option<crate::Phase>,
    /// Only the bricks of this layer, all of them, slowest first.
    pub layer: Option<u32>,
}

const HEADER: [&str; 13] = [
    "brick",
    "calls",
    "p50 µs/tok",
    "p99 µs/tok",
    "share*",
    "MB/tok*",
    "GB/s*",
    "Mop/tok*",
    "GOP/s*",
    "of limit*",
    "budget µs*",
    "gap*",
    "verdict*",
];

/// One phase, ready to be drawn.
struct PhaseView {
    title: String,
    kinds: Option<Table>,
    layers: Option<Table>,
    steps: Option<Table>,
    /// Lines after the tables, each with its tone.
    lines: Vec<(String, Tone)>,
}

impl Profile {
    /// The profile as aligned text.
    pub fn to_text(&self, options: &ReportOptions) -> String {
        let style = options.style;
        let plain = |s: &str| style.plain(s);
        let mut out = String::new();
        for (key, value) in self.heading() {
            let _ = writeln!(out, "{} {}", paint(&format!("{key:<8}"), Tone::Bold, style), plain(&value));
        }
        for phase in self.shown(options) {
            let view = PhaseView::new(phase, options);
            let _ = writeln!(out, "\n{}", paint(&plain(&view.title), Tone::Bold, style));
            for table in [&view.kinds, &view.layers, &view.steps].into_iter().flatten() {
                out.push_str(&table.to_text(style));
            }
            for (line, tone) in &view.lines {
                let _ = writeln!(out, "{}", paint(&plain(line), *tone, style));
            }
        }
        if let Some(stamps) = &self.stamps {
            let _ = writeln!(out, "\n{}", paint(&plain(&stamps.title()), Tone::Bold, style));
            out.push_str(&stamps.table().to_text(style));
            let _ = writeln!(out, "{}", paint(&plain(stamps::LEGEND), Tone::Dim, style));
        }
        if self.phases.is_empty() {
            out.push_str("\nnothing was recorded\n");
        } else {
            let _ = writeln!(out, "\n{}", paint(&plain(LEGEND), Tone::Dim, style));
        }
        out
    }

    /// The profile in Markdown.
    pub fn to_markdown(&self, options: &ReportOptions) -> String {
        let mut out = String::new();
        for (key, value) in self.heading() {
            let _ = writeln!(out, "- **{key}** {}", escape(&value));
        }
        for phase in self.shown(options) {
            let view = PhaseView::new(phase, options);
            let _ = writeln!(out, "\n### {}\n", escape(&view.title));
            for table in [&view.kinds, &view.layers, &view.steps].into_iter().flatten() {
                out.push_str(&table.to_markdown());
                out.push('\n');
            }
            for (line, _) in &view.lines {
                let _ = writeln!(out, "- {}", escape(line));
            }
        }
        if let Some(stamps) = &self.stamps {
            let _ = writeln!(out, "\n### {}\n", escape(&stamps.title()));
            let _ = writeln!(out, "{}\n{}", stamps.table().to_markdown(), escape(stamps::LEGEND));
        }
        if self.phases.is_empty() {
            out.push_str("\nnothing was recorded\n");
        } else {
            let _ = writeln!(out, "\n{}", escape(LEGEND));
        }
        out
    }

    /// Hardware counters per token of everything recorded.
    fn counters(&self, c: &Counters) -> String {
        let tokens: u64 = self.phases.iter().map(|p| p.measured.tokens).sum();
        let per_token = |n: u64| number(n as f64 / tokens.max(1) as f64);
        let named = [("cycles", c.cycles), ("instructions", c.instructions), ("cache misses", c.cache_misses)];
        let mut parts: Vec<String> =
            named.into_iter().filter_map(|(name, n)| Some(format!("{} {name} per token*", per_token(n?)))).collect();
        if let (Some(cycles), Some(instructions)) = (c.cycles.filter(|n| *n > 0), c.instructions) {
            parts.push(format!("{:.2} instructions per cycle*", instructions as f64 / cycles as f64));
        }
        parts.extend(c.unavailable.as_deref().map(|why| format!("unavailable: {}", clean(why))));
        parts.join(", ")
    }

    fn shown(&self, options: &ReportOptions) -> impl Iterator<Item = &PhaseProfile> {
        let phase = options.phase;
        self.phases.iter().filter(move |p| phase.is_none_or(|only| p.phase == only))
    }

    /// What ran, where, with which clock and budgets.
    fn heading(&self) -> Vec<(&'static str, String)> {
        let mut model = clean(&self.model.name);
        for fact in [&self.model.architecture, &self.model.quantization].into_iter().flatten() {
            let _ = write!(model, " · {}", clean(fact));
        }
        let r = &self.run;
        let mut lines = vec![("model", model)];
        lines.push((
            "run",
            format!(
                "{} · {} · {} · {}{} in the prompt, {} generated · {} of warm-up",
                clean(&r.backend),
                count(r.threads as u64, "thread"),
                count(r.sequences, "sequence"),
                if r.prompt == PromptKind::Synthetic { "synthetic: " } else { "" },
                count(r.prompt_tokens, "token"),
                r.generated_tokens,
                count(r.warmup_forwards, "forward"),
            ),
        ));
        let machine = self.machine.as_ref().map(|m| clean(&m.fingerprint.to_string()));
        lines.push(("machine", machine.unwrap_or_else(|| "not measured".into())));
        let (m, d) = (&self.recorder.measured, &self.recorder.derived);
        let mut clock = format!(
            "resolution {} ns, {:.1} ns per read · {} sync",
            m.clock.resolution_ns, m.clock.read_ns, self.recorder.sync_mode
        );
        if let Some(overhead) = d.clock_overhead {
            let _ = write!(clock, " · {:.2}%* of the time went into reading it", overhead * 100.0);
        }
        lines.push(("clock", clock));
        lines.extend(m.counters.as_ref().map(|c| ("counters", self.counters(c))));
        lines.push(("budgets", self.budget.as_ref().map_or_else(|| "none".into(), |b| clean(&b.source))));
        if self.build.debug_assertions {
            lines.push(("warning", "a build with debug assertions: times are not those of a release".into()));
        }
        if m.aborted_forwards > 0 {
            lines.push(("warning", format!("{} failed and left no figures", count(m.aborted_forwards, "forward"))));
        }
        if m.ignored_calls > 0 {
            lines.push(("warning", format!("{} to the recorder made no sense", count(m.ignored_calls, "call"))));
        }
        lines
    }
}

const LEGEND: &str = "* derived from shapes, limits and measured times; everything else is measured. Percentiles are per \
                      forward call, nearest rank.";

impl PhaseView {
    fn new(p: &PhaseProfile, options: &ReportOptions) -> Self {
        let m = &p.measured;
        let title = format!(
            "{} · {}, {}, {}",
            p.phase,
            count(m.forwards, "forward"),
            count(m.tokens, "token"),
            duration(m.wall_us)
        );
        let whole = options.layer.is_none();
        let kinds = (whole && !p.kinds.is_empty()).then(|| Table {
            header: HEADER.map(str::to_owned).to_vec(),
            left: 1,
            rows: p.kinds.iter().map(|r| row(r.kind.name(), &r.measured, &r.derived)).collect(),
            totals: vec![total(p)],
        });
        let layers = (p.kinds.is_empty() && !p.layers.is_empty()).then(|| layers(p, options.layer));
        let most = if whole { options.steps } else { usize::MAX };
        let steps = (most > 0 && !p.steps.is_empty()).then(|| slowest_steps(p, most, options.layer));
        Self { title, kinds, layers, steps, lines: lines(p) }
    }
}

fn row(name: &str, m: &RowMeasured, d: &RowDerived) -> Vec<Cell> {
    let percentile =
        |f: fn(&crate::Summary) -> f64| m.us_per_token.as_ref().map_or_else(Cell::none, |s| number(f(s)).into());
    let mut cells: Vec<Cell> = vec![
        clean(name).into(),
        m.calls.to_string().into(),
        percentile(|s| s.p50),
        percentile(|s| s.p99),
        percent(d.share).into(),
    ];
    if d.flags.contains(&Flag::NearClockResolution) {
        cells[2] = Cell::new(format!("{}!", cells[2].text), Tone::Bad);
    }
    cells.extend(work(&d.work, &d.flags));
    cells.push(bound(d.bound.as_ref()));
    cells.extend(budget(d.budget.as_ref(), d.verdict));
    cells
}

/// How near the time comes to what physics allows, and which resource that is.
fn bound(b: Option<&BoundShare>) -> Cell {
    b.map_or_else(Cell::none, |b| format!("{:.0}% {}", b.fraction * 100.0, b.resource.name()).into())
}

/// Bytes, bandwidth, operations, rate.
fn work(w: &WorkRates, flags: &[Flag]) -> [Cell; 4] {
    let mega = |x: f64| if x == 0.0 { Cell::none() } else { number(x / 1e6).into() };
    let rate = |x: Option<f64>, doubt: &[Flag]| match x {
        None => Cell::none(),
        Some(x) if flags.iter().any(|f| doubt.contains(f)) => Cell::new(format!("{}!", number(x)), Tone::Bad),
        Some(x) => number(x).into(),
    };
    let gop = match (w.int_gop_per_s, w.gflop_per_s) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or(0.0) + b.unwrap_or(0.0)),
    };
    [
        mega(w.bytes_per_token),
        rate(w.gb_per_s, &[Flag::AboveMeasuredBandwidth]),
        mega(w.int_ops_per_token + w.flops_per_token),
        rate(gop, &[Flag::AboveMeasuredInt8Peak, Flag::AboveMeasuredF32Peak]),
    ]
}

fn budget(b: Option<&BudgetShare>, verdict: Verdict) -> [Cell; 3] {
    let tone = match verdict {
        Verdict::Within => Tone::Good,
        Verdict::Over => Tone::Bad,
        Verdict::NoBudget | Verdict::NotMeasured => Tone::Dim,
    };
    let gap = b.map_or_else(Cell::none, |b| Cell::new(format!("{:.2}×", b.gap_factor), tone));
    [b.map_or_else(Cell::none, |b| number(b.us_per_token).into()), gap, Cell::new(verdict.name(), tone)]
}

fn total(p: &PhaseProfile) -> Vec<Cell> {
    let calls: u64 = p.kinds.iter().map(|k| k.measured.calls).sum();
    let wall = |f: fn(&crate::Summary) -> f64| {
        p.measured.us_per_token.as_ref().map_or_else(Cell::none, |s| number(f(s)).into())
    };
    let mut cells: Vec<Cell> =
        vec!["forward".into(), calls.to_string().into(), wall(|s| s.p50), wall(|s| s.p99), Cell::none()];
    cells.extend(work(&p.derived.work, &p.derived.flags));
    cells.push(bound(p.derived.bound.as_ref()));
    cells.extend(budget(p.derived.budget.as_ref(), p.derived.verdict));
    cells
}

fn layers(p: &PhaseProfile, only: Option<u32>) -> Table {
    let name = |layer: Option<u32>| layer.map_or_else(|| "no layer".to_owned(), |l| format!("layer {l}"));
    let row = |r: &crate::profile::LayerRow| -> Vec<Cell> {
        let m = &r.measured;
        vec![
            name(r.layer).into(),
            m.calls.to_string().into(),
            number(m.mean_us_per_token).into(),
            percent(r.derived.share).into(),
        ]
    };
    Table {
        header: ["layer", "forwards", "mean µs/tok", "share*"].map(str::to_owned).to_vec(),
        left: 1,
        rows: p.layers.iter().filter(|l| only.is_none() || l.layer == only).map(row).collect(),
        totals: vec![],
    }
}

fn slowest_steps(p: &PhaseProfile, most: usize, only: Option<u32>) -> Table {
    let mut order: Vec<_> = p.steps.iter().filter(|s| only.is_none() || s.layer == only).collect();
    order.sort_by(|a, b| b.measured.total_us.total_cmp(&a.measured.total_us).then_with(|| a.name.cmp(&b.name)));
    let mut header = HEADER.map(str::to_owned).to_vec();
    header.insert(1, "kernel".into());
    let rows = order.into_iter().take(most).map(|s| {
        let mut cells = row(&s.name, &s.measured, &s.derived);
        cells.insert(1, clean(&s.kernel).into());
        cells
    });
    Table { header, left: 2, rows: rows.collect(), totals: vec![] }
}

fn lines(p: &PhaseProfile) -> Vec<(String, Tone)> {
    let (m, d) = (&p.measured, &p.derived);
    let mut lines = Vec::new();
    let mut speed = Vec::new();
    if let Some(x) = d.tokens_per_s {
        speed.push(format!("{} tok/s*", number(x)));
    }
    if let Some(x) = d.tokens_per_s_with_gaps {
        speed.push(format!("{} with the time between forwards*", number(x)));
    }
    if let Some(x) = d.bricks_per_s {
        speed.push(format!("{x:.0} bricks/s*"));
    }
    if !speed.is_empty() {
        lines.push((format!("speed: {}", speed.join(", ")), Tone::Plain));
    }
    if let Some(s) = &m.us_per_token {
        let line = format!(
            "spread: mean {}, std {}, CV {}, median {} (95% CI {} – {}) µs/token over the last {}",
            number(s.mean),
            number(s.std),
            percent(s.cv),
            number(s.p50),
            number(s.median_ci_low),
            number(s.median_ci_high),
            count(s.samples, "forward"),
        );
        lines.push((line, Tone::Plain));
    }
    if let Some(c) = d.coverage {
        let line = format!("coverage: {}* of the forwards' wall time is charged to bricks", percent(c));
        lines.push((line, if c > 0.95 { Tone::Plain } else { Tone::Bad }));
    }
    lines.extend(waiting(p).map(|l| (l, Tone::Plain)));
    for (what, b) in [("bottleneck", &p.slowest_kind), ("slowest brick", &p.slowest_step)] {
        lines.extend(b.as_ref().map(|b| (bottleneck(what, b), Tone::Bold)));
    }
    let flags = p.kinds.iter().flat_map(|k| &k.derived.flags).chain(&d.flags);
    let flags: std::collections::BTreeSet<Flag> = flags.copied().collect();
    lines.extend(flags.into_iter().map(|f| (format!("! {}", f.meaning()), Tone::Bad)));
    lines
}

/// How the threads shared the work, and where they waited most.
fn waiting(p: &PhaseProfile) -> Option<String> {
    let busy =
        p.threads.iter().map(|t| format!("{} {}", t.thread, percent(t.busy_us / (t.busy_us + t.wait_us).max(1e-9))));
    let busy: Vec<String> = busy.collect();
    let total: f64 = p.threads.iter().map(|t| t.busy_us + t.wait_us).sum();
    let share = p.threads.iter().map(|t| t.wait_us).sum::<f64>() / total.max(1e-9);
    let wait = |t: &ThreadsMeasured| t.wait_us.iter().sum::<f64>();
    let rows = p.kinds.iter().filter_map(|k| Some((k.kind, k.measured.threads.as_ref()?)));
    let (kind, worst) = rows.reduce(|a, b| if wait(b.1) > wait(a.1) { b } else { a })?;
    Some(format!(
        "threads: busy {}; {}* of their time is waiting for the slowest, most of it in {kind} ({}* of its time)",
        busy.join(", "),
        percent(share),
        percent(worst.wait_share()),
    ))
}

fn bottleneck(what: &str, b: &BottleneckReport) -> String {
    let mut line = format!("{what}: {}", clean(&b.brick_name));
    if let Some(layer) = b.layer_idx {
        let _ = write!(line, " (layer {layer})");
    }
    let _ = write!(line, " {} µs/token, {}* of the phase", number(b.actual_us), percent(b.share));
    if let (Some(budget), Some(gap)) = (b.budget_us, b.gap_factor) {
        let _ = write!(line, ", {gap:.2}×* its budget of {} µs*", number(budget));
    }
    line
}
