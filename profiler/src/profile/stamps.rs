//! Where the time of a GPU's decode step goes inside the overlap of its launches, from what the blocks noted themselves.

use bricks::BrickKind;
use serde::{Deserialize, Serialize};

/// A launch of a step: first and last of what its blocks noted, in nanoseconds from the first block of the step on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchTimes {
    /// Name of the step of the plan.
    pub step: String,
    /// Its kind.
    pub kind: BrickKind,
    /// Name of the kernel.
    pub kernel: String,
    /// Blocks that ran.
    pub blocks: u64,
    /// Multiprocessors that they ran on.
    pub processors: u64,
    /// The first and the last block to begin.
    pub begin_ns: [u64; 2],
    /// The first and the last block past its wait for the kernel before.
    pub waited_ns: [u64; 2],
    /// The first and the last block to end.
    pub end_ns: [u64; 2],
}

/// A launch's part of a step. The parts of all launches add up to the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchPart {
    /// From the end of all launches before to the first block past its wait: the boundary.
    pub gap_ns: u64,
    /// From there to the end of the last block.
    pub work_ns: u64,
}

/// Cuts a step into its launches' parts: from the first block of the step to the end of the last, without a rest.
pub fn launch_parts(step: &[LaunchTimes]) -> Vec<LaunchPart> {
    let mut ended = 0;
    let part = |launch: &LaunchTimes| {
        // A launch that does not wait works while those before still do: its own part begins when they have ended.
        let start = launch.waited_ns[0].max(ended);
        let end = launch.end_ns[1].max(start);
        let part = LaunchPart { gap_ns: start - ended, work_ns: end - start };
        ended = end;
        part
    };
    step.iter().map(part).collect()
}

/// Decode steps whose blocks noted when they ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceStamps {
    /// Read from the device's clock.
    pub measured: StampsMeasured,
    /// Computed from that.
    pub derived: StampsDerived,
}

/// What was noted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StampsMeasured {
    /// Time of each step, from its first block to the end of its last; oldest first.
    pub span_us: Vec<f64>,
    /// The launches of the last step, in order.
    pub launches: Vec<LaunchTimes>,
}

/// Means over the steps whose span is in the middle half of all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StampsDerived {
    /// Those steps.
    pub steps: u64,
    /// Their span: the sum of gap and work of all rows.
    pub span_us: f64,
    /// A row per kind of brick and kernel, in the order in which they first run.
    pub rows: Vec<StampsRow>,
}

/// All launches of a kernel for a kind of brick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StampsRow {
    /// Kind.
    pub kind: BrickKind,
    /// Name of the kernel.
    pub kernel: String,
    /// Launches in a step.
    pub launches: u64,
    /// Blocks of the largest launch.
    pub blocks: u64,
    /// Multiprocessors of the launch that has most.
    pub processors: u64,
    /// From the first block to begin to the first past its wait, per launch: how long it was there before it was its turn.
    pub ahead_us: f64,
    /// From the first block past its wait to the last, per launch: blocks that came late.
    pub late_us: f64,
    /// From the first block to end to the last, per launch.
    pub tail_us: f64,
    /// Between the end of the launches before and the first block past its wait, per step.
    pub gap_us: f64,
    /// From there to the end of the last block, per step.
    pub work_us: f64,
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

fn span_ns(step: &[LaunchTimes]) -> u64 {
    step.iter().map(|l| l.end_ns[1]).max().unwrap_or(0)
}

/// Whether the launches are the same: their times can be averaged.
fn same(a: &[LaunchTimes], b: &[LaunchTimes]) -> bool {
    let key = |l: &LaunchTimes| (l.blocks, l.kind);
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| key(a) == key(b) && a.kernel == b.kernel && a.step == b.step)
}

impl DeviceStamps {
    /// Sums up steps, oldest first, of which those count that have the same launches as the last. `None` if there is none.
    pub fn new(steps: &[Vec<LaunchTimes>]) -> Option<Self> {
        let last = steps.last().filter(|launches| !launches.is_empty())?;
        let steps: Vec<&[LaunchTimes]> = steps.iter().map(Vec::as_slice).filter(|step| same(step, last)).collect();
        let mut middle = steps.clone();
        middle.sort_by_key(|step| span_ns(step));
        let cut = middle.len() / 4;
        let middle = &middle[cut..middle.len() - cut];
        let n = middle.len() as f64;

        let mut rows: Vec<StampsRow> = Vec::new();
        for step in middle {
            for (launch, part) in step.iter().zip(launch_parts(step)) {
                let row = row_of(&mut rows, launch);
                row.launches += 1;
                row.blocks = row.blocks.max(launch.blocks);
                row.processors = row.processors.max(launch.processors);
                let until = |from: u64, to: u64| us(to.saturating_sub(from));
                row.ahead_us += until(launch.begin_ns[0], launch.waited_ns[0]);
                row.late_us += until(launch.waited_ns[0], launch.waited_ns[1]);
                row.tail_us += until(launch.end_ns[0], launch.end_ns[1]);
                row.gap_us += us(part.gap_ns);
                row.work_us += us(part.work_ns);
            }
        }
        for row in &mut rows {
            let launches = row.launches as f64;
            for sum in [&mut row.ahead_us, &mut row.late_us, &mut row.tail_us] {
                *sum /= launches;
            }
            row.gap_us /= n;
            row.work_us /= n;
            row.launches /= middle.len() as u64;
        }
        let span_us = middle.iter().map(|step| us(span_ns(step))).sum::<f64>() / n;
        Some(Self {
            measured: StampsMeasured {
                span_us: steps.iter().map(|step| us(span_ns(step))).collect(),
                launches: last.clone(),
            },
            derived: StampsDerived { steps: middle.len() as u64, span_us, rows },
        })
    }
}

/// The row of a launch; a new one if there is none yet.
fn row_of<'a>(rows: &'a mut Vec<StampsRow>, launch: &LaunchTimes) -> &'a mut StampsRow {
    let at = rows.iter().position(|row| row.kind == launch.kind && row.kernel == launch.kernel);
    let at = at.unwrap_or_else(|| {
        rows.push(StampsRow {
            kind: launch.kind,
            kernel: launch.kernel.clone(),
            launches: 0,
            blocks: 0,
            processors: 0,
            ahead_us: 0.0,
            late_us: 0.0,
            tail_us: 0.0,
            gap_us: 0.0,
            work_us: 0.0,
        });
        rows.len() - 1
    });
    &mut rows[at]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::stamped_step;

    #[test]
    fn parts_add_up_to_the_step() {
        let step = stamped_step(0);
        let parts = launch_parts(&step);
        let all: u64 = parts.iter().map(|p| p.gap_ns + p.work_ns).sum();
        assert_eq!(all, span_ns(&step));
        // The embedding waits for nobody; the next has its turn 500 ns after it has ended.
        assert_eq!(parts[0], LaunchPart { gap_ns: 100, work_ns: 1900 });
        assert_eq!(parts[1], LaunchPart { gap_ns: 500, work_ns: 2500 });
    }

    #[test]
    fn a_launch_that_does_not_wait_has_no_gap_and_no_negative_part() {
        let mut step = stamped_step(0);
        step[1].waited_ns = [10, 20];
        assert_eq!(launch_parts(&step)[1], LaunchPart { gap_ns: 0, work_ns: 3000 });
        step[1].end_ns = [15, 1500];
        assert_eq!(launch_parts(&step)[1], LaunchPart { gap_ns: 0, work_ns: 0 });
    }

    #[test]
    fn outliers_and_steps_of_other_launches_do_not_count() {
        let mut steps: Vec<_> = [0, 1, 2, 3, 4, 5, 900].map(stamped_step).to_vec();
        steps[1].truncate(2);
        let stamps = DeviceStamps::new(&steps).unwrap();
        assert_eq!((stamps.measured.span_us.len(), stamps.derived.steps), (6, 4));
        assert_eq!(stamps.measured.launches, steps[6]);
        let parts: f64 = stamps.derived.rows.iter().map(|r| r.gap_us + r.work_us).sum();
        assert!((parts - stamps.derived.span_us).abs() < 1e-9);
        assert!(stamps.derived.span_us < 20.0, "{stamps:?}");
        let launches: Vec<u64> = stamps.derived.rows.iter().map(|r| r.launches).collect();
        assert_eq!(launches, [1, 2, 2]);
    }

    #[test]
    fn of_nothing_comes_nothing() {
        assert!(DeviceStamps::new(&[]).is_none());
        assert!(DeviceStamps::new(&[Vec::new()]).is_none());
    }
}
