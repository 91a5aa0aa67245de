//! What the blocks of a captured step noted: when each began, was past its wait for the kernel before, and ended, and where.
//!
//! See [`brick_ptx::stamp`] for the kernels that note it and for what a record is, and [`brick_profiler::profile::DeviceStamps`] for what
//! becomes of several steps.

use std::collections::BTreeSet;

use brick_profiler::StepInfo;
use brick_profiler::profile::LaunchTimes;
use brick_ptx::stamp::{RECORD_BYTES, Record};

/// A launch whose blocks have records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StampedLaunch {
    pub(super) node: usize,
    /// Its name without stamps.
    pub(super) kernel: String,
    pub(super) grid: [u32; 3],
}

impl StampedLaunch {
    pub(super) fn blocks(&self) -> u64 {
        blocks(self.grid)
    }
}

/// Blocks of a grid.
pub(super) fn blocks(grid: [u32; 3]) -> u64 {
    grid.iter().map(|&n| u64::from(n)).product()
}

/// A launch and what its blocks noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchStamps {
    /// The node of the plan that it belongs to: an index into [`GpuPlan::info`](super::plan::GpuPlan::info).
    pub node: usize,
    /// The kernel, by its name without stamps.
    pub kernel: String,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// A record per block, x first.
    pub blocks: Vec<Record>,
}

/// The launches of a step that ran, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepStamps {
    /// The launches.
    pub launches: Vec<LaunchStamps>,
}

impl StepStamps {
    /// Reads the records of all launches, one launch behind the other.
    pub(super) fn new(launches: &[StampedLaunch], bytes: &[u8]) -> Self {
        let (records, _) = bytes.as_chunks::<{ RECORD_BYTES as usize }>();
        let mut records = records.iter().map(Record::from_bytes);
        let launch = |launch: &StampedLaunch| LaunchStamps {
            node: launch.node,
            kernel: launch.kernel.clone(),
            grid: launch.grid,
            blocks: records.by_ref().take(launch.blocks() as usize).collect(),
        };
        Self { launches: launches.iter().map(launch).collect() }
    }

    /// First and last of what the blocks of each launch noted, from the first block of the step on. `info` are the nodes of the plan.
    pub fn times(&self, info: &[StepInfo]) -> Vec<LaunchTimes> {
        let all = self.launches.iter().flat_map(|l| &l.blocks).filter(|r| r.ran);
        let start = all.map(|r| r.begin).min().unwrap_or(0);
        let launch = |launch: &LaunchStamps| {
            let ran: Vec<&Record> = launch.blocks.iter().filter(|r| r.ran).collect();
            let span = |time: fn(&Record) -> u64| {
                let times = || ran.iter().map(|r| time(r).saturating_sub(start));
                [times().min().unwrap_or(0), times().max().unwrap_or(0)]
            };
            let processors: BTreeSet<u32> = ran.iter().map(|r| r.processor).collect();
            let node = info.get(launch.node)?;
            Some(LaunchTimes {
                step: node.name.clone(),
                kind: node.kind,
                kernel: launch.kernel.clone(),
                blocks: ran.len() as u64,
                processors: processors.len() as u64,
                begin_ns: span(|r| r.begin),
                waited_ns: span(|r| r.waited),
                end_ns: span(|r| r.end),
            })
        };
        self.launches.iter().filter_map(launch).collect()
    }
}
