//! How fast kernels stream weights on a device: each matrix kernel alone, in graphs that are replayed, over more memory than caches hold.

use brick_ptx::ir::Module;
use brick_ptx::kernels::activation;
use brick_ptx::kernels::format::Format;
use brick_ptx::kernels::gemv::mma::GemvMma;
use brick_ptx::kernels::gemv::{Epilogue, Gemv};
use brick_ptx::kernels::pack::plane_row_bytes;
use brick_ptx::kernels::workload::Noise;
use serde::Serialize;

use crate::device::{Access, Arg, Device, Launch, Place, Ptr, Region};
use crate::error::DeviceError;

/// Bytes of weights that are gone over before any is read again: several times any second-level cache.
pub(crate) const POOL: u64 = 1 << 30;
/// Replays that are timed.
const REPLAYS: usize = 5;

/// A kernel's rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rate {
    /// Name of the kernel.
    pub kernel: String,
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns of the matrix.
    pub columns: usize,
    /// Launches of a replay.
    pub launches: usize,
    /// Time of a launch, median of the replays.
    pub ns_per_launch: f64,
    /// Bytes of weights per nanosecond: gigabytes per second.
    pub gb_per_s: f64,
}

/// Memory that rates are measured in.
#[derive(Debug)]
pub struct Pool {
    weights: Region,
    x: Region,
    y: Region,
}

impl Pool {
    /// Allocates the pool and fills it with noise.
    ///
    /// # Errors
    /// If memory is short.
    pub fn new(device: &mut dyn Device) -> Result<Self, DeviceError> {
        let parts = [("weights", POOL), ("x", 8 << 20), ("y", 64 << 20)].map(|(name, bytes)| (name.to_owned(), bytes));
        let regions = device.arena("pool", &Place::in_turn(parts))?;
        let [weights, x, y] = [regions[0], regions[1], regions[2]];
        let seed = Noise::new(5).bytes(16 << 20);
        device.write(weights.at(0), &seed)?;
        let mut have = seed.len() as u64;
        while have < POOL {
            let n = have.min(POOL - have);
            device.copy(weights.at(0), weights.at(have), n)?;
            have += n;
        }
        device.write(x.at(0), &seed[..8 << 20])?;
        Ok(Self { weights, x, y })
    }

    /// Bytes per second of a copy on the device, reads and writes counted.
    ///
    /// # Errors
    /// Failures of the driver.
    pub fn copy_rate(&self, device: &mut dyn Device) -> Result<f64, DeviceError> {
        let bytes = POOL / 2;
        let mut times = Vec::new();
        for _ in 0..=REPLAYS {
            let from = device.mark()?;
            device.copy(self.weights.at(0), self.weights.at(bytes), bytes)?;
            let to = device.mark()?;
            times.push(device.elapsed_ns(from, to)?);
        }
        device.release_marks();
        Ok(2.0 * bytes as f64 / median(&mut times[1..]))
    }

    /// The rate of a matrix kernel.
    ///
    /// # Errors
    /// If the kernel does not run.
    pub fn gemv(
        &self,
        device: &mut dyn Device,
        format: Format,
        tokens: usize,
        mma: bool,
        (rows, columns): (usize, usize),
    ) -> Result<Option<Rate>, DeviceError> {
        let target = device.about().target();
        let gemv = Gemv::new(format, tokens, Epilogue::Store).ok();
        let (name, kernel, dims) = match (mma, gemv) {
            (false, Some(g)) => (g.name(), g.kernel(target), g.dims(rows, columns, 1, device.about().processors)),
            (true, _) => match GemvMma::new(format, tokens, false) {
                Some(g) if g.shared() <= device.about().shared => {
                    (g.name(), g.kernel(target), g.dims(rows, columns, tokens / 8))
                }
                _ => return Ok(None),
            },
            (false, None) => return Ok(None),
        };
        let Ok(dims) = dims else { return Ok(None) };
        let text = brick_ptx::compile(&Module { kernels: vec![kernel] }, target)
            .map_err(|e| DeviceError::Text { kernel: name.clone(), reason: e.to_string() })?;
        let id = device.kernel(&name, &text)?;
        let planes = planes(format, rows, columns);
        let bytes: u64 = planes.iter().map(|n| n.next_multiple_of(256)).sum();
        let launches = (POOL / bytes).clamp(1, 256) as usize;
        device.begin_capture()?;
        for i in 0..launches as u64 {
            let mut at = self.weights.at(i * bytes);
            let mut args = Vec::new();
            for plane in &planes {
                args.push(Arg::Ptr(at, Access::Read));
                at = at.plus(plane.next_multiple_of(256));
            }
            args.extend([
                Arg::Ptr(self.x.at(0), Access::Read),
                Arg::Null,
                Arg::Null,
                Arg::Ptr(self.y.at(0), Access::Write),
                Arg::U32(rows as u32),
                Arg::U32(columns as u32),
                Arg::U32(rows as u32),
            ]);
            device.launch(&Launch { kernel: id, dims, args, dependent: true })?;
        }
        let graph = device.end_capture()?;
        let mut times = Vec::new();
        for _ in 0..=REPLAYS {
            let from = device.mark()?;
            device.replay(graph)?;
            let to = device.mark()?;
            times.push(device.elapsed_ns(from, to)?);
        }
        device.release_marks();
        let ns = median(&mut times[1..]) / launches as f64;
        let gb_per_s = planes.iter().sum::<u64>() as f64 / ns;
        Ok(Some(Rate { kernel: name, rows, columns, launches, ns_per_launch: ns, gb_per_s }))
    }

    /// A byte of the pool.
    pub(crate) fn at(&self, offset: u64) -> Ptr {
        self.weights.at(offset)
    }
}

/// Bytes of the planes of a matrix.
fn planes(format: Format, rows: usize, columns: usize) -> Vec<u64> {
    plane_row_bytes(format, columns).into_iter().filter(|&n| n > 0).map(|n| (n * rows) as u64).collect()
}

fn median(times: &mut [u64]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |&t| t as f64)
}

const _: () = assert!(activation::GROUP == 1024, "activations of 8 MiB hold any number of columns that is measured");
