//! What the blocks of a GPU's decode steps noted, as a table.

use super::format::{clean, count, number, percent};
use super::table::{Cell, Table};
use crate::profile::{DeviceStamps, StampsRow};

const HEADER: [&str; 12] = [
    "brick",
    "kernel",
    "launches",
    "blocks",
    "SMs",
    "ahead µs*",
    "late µs*",
    "tail µs*",
    "each µs*",
    "gap µs/step*",
    "work µs/step*",
    "share*",
];

/// What the columns mean.
pub(super) const LEGEND: &str = "\
per launch: ahead, from its first block to the first past its wait; late, from there to the last past its wait; tail, from its first block to end to
its last; each, gap and work. gap: from the end of all launches before to the first block past its wait; work: from there to the end of the last.
Gaps and works add up to the step.";

impl DeviceStamps {
    pub(super) fn title(&self) -> String {
        let spans = &self.measured.span_us;
        let least = spans.iter().copied().fold(f64::INFINITY, f64::min);
        let most = spans.iter().copied().fold(0.0, f64::max);
        format!(
            "inside a decode step: {} µs*, the mean of the middle {} of {} ({} – {} µs)",
            number(self.derived.span_us),
            self.derived.steps,
            count(spans.len() as u64, "step"),
            number(least),
            number(most),
        )
    }

    pub(super) fn table(&self) -> Table {
        let span = self.derived.span_us.max(1e-9);
        let row = |r: &StampsRow| -> Vec<Cell> {
            let both = r.gap_us + r.work_us;
            vec![
                r.kind.to_string().into(),
                clean(&r.kernel).into(),
                r.launches.to_string().into(),
                r.blocks.to_string().into(),
                r.processors.to_string().into(),
                number(r.ahead_us).into(),
                number(r.late_us).into(),
                number(r.tail_us).into(),
                number(both / r.launches.max(1) as f64).into(),
                number(r.gap_us).into(),
                number(r.work_us).into(),
                percent(both / span).into(),
            ]
        };
        let rows = &self.derived.rows;
        let sum = |value: fn(&StampsRow) -> f64| rows.iter().map(value).sum::<f64>();
        let (gap, work) = (sum(|r| r.gap_us), sum(|r| r.work_us));
        let launches: u64 = rows.iter().map(|r| r.launches).sum();
        let mut total: Vec<Cell> = vec!["step".into(), Cell::none(), launches.to_string().into()];
        total.extend(std::iter::repeat_n(Cell::none(), 5));
        total.push(number((gap + work) / launches.max(1) as f64).into());
        total.extend([number(gap).into(), number(work).into(), percent((gap + work) / span).into()]);
        Table {
            header: HEADER.map(str::to_owned).to_vec(),
            left: 2,
            rows: rows.iter().map(row).collect(),
            totals: vec![total],
        }
    }
}
