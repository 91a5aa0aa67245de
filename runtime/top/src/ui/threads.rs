//! Busy and waiting threads: on a CPU, what warps and their stalls are on a GPU.

use brick_profiler::format::{duration, percent};
use brick_profiler::profile::ThreadsMeasured;
use ratatui::text::{Line, Span};

use super::Body;
use super::theme::{Theme, bar};
use crate::snapshot::Snapshot;

pub(super) fn view(s: &Snapshot, theme: Theme, width: usize) -> Body {
    let title = "threads: busy, and waiting at barriers";
    if s.threads.is_empty() {
        return Body::new(title, vec![Line::from("arrivals of threads were not recorded")]);
    }
    let room = width.saturating_sub(52).clamp(4, 40);
    let mut lines = Vec::new();
    for t in &s.threads {
        let all = t.busy_us + t.wait_us;
        let busy = if all > 0.0 { t.busy_us / all } else { 0.0 };
        lines.push(Line::from(vec![
            format!("thread {:>3} ", t.thread).into(),
            Span::styled(bar(busy, room), theme.good()),
            format!(" busy {:>6}*  {:>10}, waiting {}", percent(busy), duration(t.busy_us), duration(t.wait_us)).into(),
        ]));
    }
    lines.push(Line::default());
    lines
        .push(Line::styled("waiting for the slowest thread, by kind (share of the kind's thread time)*", Theme::dim()));
    let total: f64 = s.bricks.iter().filter_map(|b| b.measured.threads.as_ref()).map(wait).sum();
    for row in &s.bricks {
        let Some(t) = &row.measured.threads else { continue };
        let share = t.wait_share();
        let of_all = if total > 0.0 { wait(t) / total } else { 0.0 };
        lines.push(Line::from(vec![
            format!("{:<10} ", row.kind.name()).into(),
            Span::styled(bar(share, room), theme.heat(share * 2.0)),
            format!(" {:>6}*  {:>6}* of all waiting", percent(share), percent(of_all)).into(),
        ]));
    }
    Body::new(title, lines)
}

fn wait(t: &ThreadsMeasured) -> f64 {
    t.wait_us.iter().sum()
}
