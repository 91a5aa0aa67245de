//! Steps: launched one by one, or captured once and replayed; and when their parts ran.

use std::time::Instant;

use brick_cuda::{Captured, Device, DeviceError, KernelId, Mark, Place, Ptr, Region};
use brick_profiler::SyncMode;
use brick_profiler::profile::launch_parts;
use brick_ptx::stamp::{RECORD_BYTES, SUFFIX};

use super::{GpuError, GpuRunner, Marks};
use crate::cuda::launch::{Launcher, Stamping};
use crate::cuda::plan::Extent;
use crate::cuda::stamps::{StampedLaunch, StepStamps};

/// Replayed steps whose stamps are kept.
const KEPT: usize = 16;

/// A captured step.
pub(super) struct Graph {
    pub(super) captured: Captured,
    pub(super) launches: usize,
    /// If the step is timed.
    marks: Marks,
    /// If its blocks note when they ran.
    stamped: Option<Stamped>,
}

/// Where the blocks of a step note when they ran.
struct Stamped {
    records: Region,
    launches: Vec<StampedLaunch>,
}

impl Stamped {
    fn bytes(&self) -> u64 {
        RECORD_BYTES * self.launches.iter().map(StampedLaunch::blocks).sum::<u64>()
    }
}

impl GpuRunner {
    /// Launches one by one. The host waits behind every node or every layer, or lets the device note the time, as `sync` says.
    pub(super) fn eager(&mut self, extent: Extent, sync: SyncMode) -> Result<(), GpuError> {
        self.counts.eager += 1;
        if sync == SyncMode::None {
            return Ok(self.launcher(extent).step(&mut |device, _, launch| device.launch(launch))?);
        }
        if sync == SyncMode::Deferred {
            let mut marks = std::mem::take(&mut self.marks);
            let result = self.marked(extent, &mut marks);
            let result = result.and_then(|used| Ok(self.read_marks(&marks[..used])?));
            self.marks = marks;
            return result;
        }
        // By step before which the host waits: those that begin another layer, or all.
        let info = &self.plan.info;
        let waits: Vec<bool> = (0..info.len())
            .map(|i| i > 0 && (sync == SyncMode::Immediate || info[i].layer != info[i - 1].layer))
            .collect();
        self.device.synchronize()?;
        let mut took = std::mem::take(&mut self.took);
        let (mut since, mut before) = (Instant::now(), 0);
        let result = self.launcher(extent).step(&mut |device, node, launch| {
            if node != before {
                if (before + 1..=node).any(|n| waits[n]) {
                    device.synchronize()?;
                    let now = Instant::now();
                    took[before] += now.duration_since(since).as_nanos() as u64;
                    since = now;
                }
                before = node;
            }
            device.launch(launch)
        });
        let result = result.map_err(GpuError::from).and_then(|()| Ok(self.device.synchronize()?));
        took[before] += since.elapsed().as_nanos() as u64;
        self.took = took;
        result
    }

    /// Makes a step's launches with a mark before the first and behind the last of every node that has any. Gives the number of marks;
    /// there may be more from other steps.
    fn marked(&mut self, extent: Extent, marks: &mut Marks) -> Result<usize, GpuError> {
        let mut next = 0;
        let mut mark = |device: &mut dyn Device, behind: Option<usize>| -> Result<(), DeviceError> {
            match marks.get_mut(next) {
                Some((node, mark)) => {
                    *node = behind;
                    device.mark_again(*mark)?;
                }
                None => marks.push((behind, device.mark()?)),
            }
            next += 1;
            Ok(())
        };
        let mut current = None;
        mark(&mut *self.device, None)?;
        self.launcher(extent).step(&mut |device, node, launch| {
            if current.is_some_and(|c| c != node) {
                mark(device, current)?;
            }
            current = Some(node);
            device.launch(launch)
        })?;
        mark(&mut *self.device, current)?;
        Ok(next)
    }

    /// Adds what passed between marks to the nodes.
    fn read_marks(&mut self, marks: &[(Option<usize>, Mark)]) -> Result<(), DeviceError> {
        for pair in marks.windows(2) {
            if let Some(node) = pair[1].0 {
                self.took[node] += self.device.elapsed_ns(pair[0].1, pair[1].1)?;
            }
        }
        Ok(())
    }

    /// Runs a captured step; captures it first if there is none of this extent.
    pub(super) fn replay(&mut self, extent: Extent) -> Result<(), GpuError> {
        if !self.graphs.contains_key(&extent) {
            self.capture(extent)?;
        }
        let Some(graph) = self.graphs.get(&extent) else { return Ok(()) };
        self.counts.replays += 1;
        if let Some(stamped) = &graph.stamped {
            self.device.clear(stamped.records.at(0), stamped.bytes())?;
        }
        self.device.replay(graph.captured)?;
        if let Some(stamped) = &graph.stamped {
            let mut bytes = vec![0; stamped.bytes() as usize];
            self.device.read(stamped.records.at(0), &mut bytes)?;
            let step = StepStamps::new(&stamped.launches, &bytes);
            self.stamped(step);
        } else if extent.timed {
            let marks = graph.marks.clone();
            self.read_marks(&marks)?;
        }
        Ok(())
    }

    /// Keeps what a step noted, and charges its time to the nodes.
    fn stamped(&mut self, step: StepStamps) {
        let parts = launch_parts(&step.times(&self.plan.info));
        for (launch, part) in step.launches.iter().zip(parts) {
            if let Some(took) = self.took.get_mut(launch.node) {
                *took += part.gap_ns + part.work_ns;
            }
        }
        if self.stamps.len() == KEPT {
            self.stamps.pop_front();
        }
        self.stamps.push_back(step);
    }

    fn capture(&mut self, extent: Extent) -> Result<(), GpuError> {
        // Loading a kernel is not allowed while capturing: all launches are made once before.
        let mut made = Vec::new();
        self.stamping_launcher(extent, None).step(&mut |_, node, launch| {
            made.push((node, launch.kernel, launch.dims.grid));
            Ok(())
        })?;
        let launches = made.len();
        let stamped = if self.plan.stamps { Some(self.records(&made)?) } else { None };
        let mut marks = Vec::new();
        self.device.begin_capture()?;
        let made = if extent.timed {
            self.marked(extent, &mut marks).map(|_| ())
        } else {
            let records = stamped.as_ref().map(|s| s.records.at(0));
            let mut launcher = self.stamping_launcher(extent, records);
            launcher.step(&mut |device, _, launch| device.launch(launch)).map_err(GpuError::from)
        };
        if let Err(e) = made {
            self.device.abandon_capture();
            return Err(e);
        }
        let captured = self.device.end_capture()?;
        self.graphs.insert(extent, Graph { captured, launches, marks, stamped });
        self.counts.captures += 1;
        Ok(())
    }

    /// A launcher of kernels with stamps, if the plan has stamps.
    fn stamping_launcher(&mut self, extent: Extent, records: Option<Ptr>) -> Launcher<'_> {
        let stamping = self.plan.stamps.then(|| Stamping::new(records));
        Launcher { stamping, ..self.launcher(extent) }
    }

    /// Allocates the records of a step.
    fn records(&mut self, made: &[(usize, KernelId, [u32; 3])]) -> Result<Stamped, GpuError> {
        let launch = |&(node, kernel, grid): &(usize, KernelId, [u32; 3])| {
            let name = self.kernels.name(kernel);
            StampedLaunch { node, kernel: name.strip_suffix(SUFFIX).unwrap_or(name).to_owned(), grid }
        };
        let launches: Vec<StampedLaunch> = made.iter().map(launch).collect();
        let bytes = RECORD_BYTES * launches.iter().map(StampedLaunch::blocks).sum::<u64>();
        let mut regions = self.device.arena("stamps", &[Place { name: "stamps".into(), offset: 0, bytes }])?;
        let records = regions.pop().expect("invariant: an arena of one part has one");
        Ok(Stamped { records, launches })
    }
}
