//! A gate's report as text and as a pull-request comment.

use std::fmt::Write;

use super::Style;
use super::format::clean;
use super::table::{Cell, Table, Tone, escape, paint};
use crate::gate::{Check, Report, Tier, Verdict};

/// Most characters of a reason in a table: a changed graph changes many facts of a brick at once.
const LONGEST: usize = 160;

impl Check {
    /// The figures in a few words, if there are any: `1.0993 [1.0921, 1.1046], limit 1.05, control ±0.6 %, 40 pairs`.
    pub fn figures(&self) -> Option<String> {
        let m = self.measured.as_ref()?;
        let mut out = value(self.tier, m.value);
        if let Some([low, high]) = m.interval {
            let _ = write!(out, " [{}, {}]", value(self.tier, low), value(self.tier, high));
        }
        if let Some(limit) = m.limit {
            let _ = write!(out, ", limit {}", value(self.tier, limit));
        }
        if let Some(control) = m.control {
            let _ = write!(out, ", control ±{:.1} %", 100.0 * control);
        }
        if let Some(pairs) = m.pairs {
            let _ = write!(out, ", {pairs} {}", if self.tier == Tier::Ratio { "pairs" } else { "calls" });
        }
        Some(out)
    }
}

fn value(tier: Tier, x: f64) -> String {
    match tier {
        Tier::Roofline => format!("{:.0} %", 100.0 * x),
        _ => format!("{x:.4}"),
    }
}

const fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Pass => Tone::Good,
        Verdict::Fail => Tone::Bad,
        Verdict::Inconclusive => Tone::Bold,
        Verdict::Advisory | Verdict::Skipped => Tone::Dim,
    }
}

impl Report {
    /// What a person reads in a terminal: everything that did not pass, a table of what was measured, and a line that sums up.
    pub fn to_text(&self, style: Style) -> String {
        let plain = |s: &str| style.plain(s);
        let mut out = String::new();
        let _ = writeln!(out, "{}", plain(&self.subject()));
        for line in self.said() {
            let word = paint(&format!("{:<12}", line.verdict.word()), tone(line.verdict), style);
            let text = format!("{}  {}: {}", line.tier.name(), clean(&line.name), shortened(&line.why));
            let _ = writeln!(out, "{word}  {}", plain(&text));
        }
        if let Some(table) = self.measurements() {
            let _ = write!(out, "{}", table.to_text(style));
        }
        let _ = writeln!(out, "{}", plain(&self.counts()));
        let verdict = paint(self.verdict.word(), tone(self.verdict), style);
        let _ = writeln!(out, "gate: {verdict}{}", plain(&self.blame()));
        out
    }

    /// A comment for a pull request.
    pub fn to_markdown(&self) -> String {
        let mut out = format!("### brick gate: {}{}\n\n", self.verdict.word(), escape(&self.blame()));
        let said: Vec<Vec<Cell>> = self
            .said()
            .map(|c| {
                let word = Cell::new(c.verdict.word(), tone(c.verdict));
                vec![word, c.tier.name().into(), clean(&c.name).into(), shortened(&c.why).into()]
            })
            .collect();
        if !said.is_empty() {
            let header = ["verdict", "tier", "what", "why"].map(str::to_owned).to_vec();
            let _ = writeln!(out, "{}", Table { header, left: 4, rows: said, totals: vec![] }.to_markdown());
        }
        if let Some(table) = self.measurements() {
            let _ = writeln!(out, "<details><summary>Measured</summary>\n\n{}\n</details>\n", table.to_markdown());
        }
        let _ = writeln!(out, "{}  \n{}", self.counts(), escape(&self.subject()));
        out
    }

    fn subject(&self) -> String {
        // The machine's fingerprint names the version.
        let Self { file, model, machine, build, .. } = self;
        format!("{} · model {} · {} · {}", clean(file), clean(model), clean(machine), build.target)
    }

    /// Checks that are told one by one: what did not pass, and what was not measured but should be known.
    fn said(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|c| !matches!(c.verdict, Verdict::Pass | Verdict::Advisory))
    }

    /// What failed, most special first: checks of a tier are in that order.
    fn blame(&self) -> String {
        let mut failed = self.checks.iter().filter(|c| c.verdict == Verdict::Fail);
        match (failed.next(), failed.count()) {
            (None, _) => String::new(),
            (Some(first), 0) => format!(" ({})", clean(&first.name)),
            (Some(first), more) => format!(" ({} and {more} more)", clean(&first.name)),
        }
    }

    fn counts(&self) -> String {
        let tiers = [Tier::Facts, Tier::Instructions, Tier::Ratio, Tier::Roofline].into_iter().filter_map(|tier| {
            let of = |v| self.checks.iter().filter(|c| c.tier == tier && c.verdict == v).count();
            let all = [Verdict::Pass, Verdict::Fail, Verdict::Inconclusive, Verdict::Advisory, Verdict::Skipped];
            let parts: Vec<String> = all
                .into_iter()
                .filter(|v| of(*v) > 0)
                .map(|v| format!("{} {}", of(v), v.word().to_lowercase()))
                .collect();
            (!parts.is_empty()).then(|| format!("{} {}: {}", tier.name(), tier.about(), parts.join(", ")))
        });
        tiers.collect::<Vec<_>>().join(" · ")
    }

    /// A row per measurement.
    fn measurements(&self) -> Option<Table> {
        let rows: Vec<Vec<Cell>> = self
            .checks
            .iter()
            .filter_map(|c| {
                let m = c.measured.as_ref()?;
                let some = |x: Option<f64>| x.map_or_else(Cell::none, |x| value(c.tier, x).into());
                let interval = m.interval.map_or_else(Cell::none, |[low, high]| {
                    format!("{} – {}", value(c.tier, low), value(c.tier, high)).into()
                });
                let control = m.control.map_or_else(Cell::none, |x| format!("±{:.1} %", 100.0 * x).into());
                Some(vec![
                    c.tier.name().into(),
                    clean(&c.name).into(),
                    value(c.tier, m.value).into(),
                    interval,
                    some(m.limit),
                    control,
                    m.pairs.map_or_else(Cell::none, |n| n.to_string().into()),
                    Cell::new(c.verdict.word(), tone(c.verdict)),
                ])
            })
            .collect();
        let header = ["tier", "what", "measured", "interval", "limit", "control", "n", "verdict"];
        let header = header.map(str::to_owned).to_vec();
        (!rows.is_empty()).then_some(Table { header, left: 2, rows, totals: vec![] })
    }
}

fn shortened(text: &str) -> String {
    let text = clean(text);
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}
