//! The limits of a device, measured: what speeds are compared with.

use brick_ptx::ir::{self, Module};
use brick_ptx::kernels::calibrate::{self, DP4A_OPS, DP4A_PER_ROUND, MMA_OPS, MMA_PER_ROUND, TILE_BYTES};
use brick_ptx::kernels::{Dims, ShapeError};
use serde::Serialize;

use crate::device::{Access, Arg, Device, KernelId, Launch, Place, Region};
use crate::error::DeviceError;
use crate::rates::{POOL, Pool};

/// Runs that are timed; the first is not counted.
const RUNS: usize = 7;
/// Rounds of the arithmetic kernels: some milliseconds.
const ROUNDS: u32 = 4000;
/// Launches of the kernel that does nothing, one behind the other.
const TOUCHES: usize = 1000;

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    /// Gigabytes per second that streaming loads read from device memory.
    pub read_gb_s: f64,
    /// Gigabytes per second of a copying kernel, reads and writes together.
    pub copy_kernel_gb_s: f64,
    /// Gigabytes per second of the driver's copy, reads and writes together.
    pub copy_driver_gb_s: f64,
    /// Tera-operations per second of dp4a.
    pub dp4a_tops: f64,
    /// Tera-operations per second of int8 mma 16×8×32.
    pub mma_tops: f64,
    /// Nanoseconds per kernel in a replayed graph, of kernels that do nothing but wait for one another.
    pub boundary_ns: f64,
    /// The same with programmatic dependent launch.
    pub boundary_dependent_ns: f64,
    /// The same launched one by one.
    pub boundary_eager_ns: f64,
}

struct Bench<'a> {
    device: &'a mut dyn Device,
    y: Region,
}

impl Bench<'_> {
    fn kernel(&mut self, name: &str, build: impl FnOnce(ir::Target) -> ir::Kernel) -> Result<KernelId, DeviceError> {
        let target = self.device.about().target();
        let text = brick_ptx::compile(&Module { kernels: vec![build(target)] }, target)
            .map_err(|e| DeviceError::Text { kernel: name.into(), reason: e.to_string() })?;
        self.device.kernel(name, &text)
    }

    /// Median nanoseconds of `run`.
    fn time(&mut self, mut run: impl FnMut(&mut dyn Device) -> Result<(), DeviceError>) -> Result<f64, DeviceError> {
        let mut times = Vec::with_capacity(RUNS);
        for _ in 0..=RUNS {
            let from = self.device.mark()?;
            run(self.device)?;
            let to = self.device.mark()?;
            times.push(self.device.elapsed_ns(from, to)?);
        }
        self.device.release_marks();
        let times = &mut times[1..];
        times.sort_unstable();
        Ok(times[times.len() / 2] as f64)
    }

    fn rate(&mut self, mma: bool, dims: Dims) -> Result<f64, DeviceError> {
        let kernel = if mma {
            self.kernel("mma_rate", calibrate::mma_rate)?
        } else {
            self.kernel("dp4a_rate", calibrate::dp4a_rate)?
        };
        let args = vec![Arg::Ptr(self.y.at(0), Access::Write), Arg::U32(ROUNDS)];
        let launch = Launch { kernel, dims, args, dependent: false };
        let ns = self.time(|device| device.launch(&launch))?;
        let threads = f64::from(dims.grid[0] * dims.block[0]);
        let ops = if mma {
            threads / 32.0 * f64::from(MMA_PER_ROUND) * f64::from(MMA_OPS)
        } else {
            threads * f64::from(DP4A_PER_ROUND) * f64::from(DP4A_OPS)
        };
        Ok(ops * f64::from(ROUNDS) / ns / 1e3)
    }

    fn boundary(&mut self, dependent: bool, captured: bool, dims: Dims) -> Result<f64, DeviceError> {
        let kernel = self.kernel("touch", calibrate::touch)?;
        let args = vec![Arg::Ptr(self.y.at(0), Access::ReadWrite)];
        let launch = Launch { kernel, dims, args, dependent };
        let many = |device: &mut dyn Device| (0..TOUCHES).try_for_each(|_| device.launch(&launch));
        let ns = if captured {
            self.device.begin_capture()?;
            if let Err(e) = many(self.device) {
                self.device.abandon_capture();
                return Err(e);
            }
            let graph = self.device.end_capture()?;
            self.time(|device| device.replay(graph))?
        } else {
            self.time(many)?
        };
        Ok(ns / TOUCHES as f64)
    }
}

fn shape(e: ShapeError) -> DeviceError {
    let reason = e.to_string();
    DeviceError::Text { kernel: e.kernel, reason }
}

/// Measures a device with its pool of memory. Takes about a tenth of a second.
///
/// # Errors
/// Failures of the driver.
pub fn calibrate(device: &mut dyn Device, pool: &Pool) -> Result<Limits, DeviceError> {
    let processors = device.about().processors as usize;
    let copy_driver_gb_s = pool.copy_rate(device)?;
    let dims = calibrate::dims(processors).map_err(shape)?;
    let y = device
        .arena("calibration", &Place::in_turn([("y".to_owned(), u64::from(4 * dims.grid[0] * dims.block[0]))]))?;
    let mut bench = Bench { device, y: y[0] };
    bench.device.clear(y[0].at(0), u64::from(4 * dims.grid[0] * dims.block[0]))?;

    // Whole rounds of the grid, in half of the pool: the other half is where the copy goes.
    let half = POOL / 2;
    let tiles = half / u64::from(TILE_BYTES) / u64::from(dims.grid[0]) * u64::from(dims.grid[0]);
    let bytes = (tiles * u64::from(TILE_BYTES)) as f64;
    let kernel = bench.kernel("read_bandwidth", calibrate::read_bandwidth)?;
    let args = vec![Arg::Ptr(pool.at(0), Access::Read), Arg::Ptr(y[0].at(0), Access::Write), Arg::U32(tiles as u32)];
    let launch = Launch { kernel, dims, args, dependent: false };
    let read_gb_s = bytes / bench.time(|device| device.launch(&launch))?;
    let kernel = bench.kernel("copy_bandwidth", calibrate::copy_bandwidth)?;
    let args = vec![Arg::Ptr(pool.at(0), Access::Read), Arg::Ptr(pool.at(half), Access::Write), Arg::U32(tiles as u32)];
    let launch = Launch { kernel, dims, args, dependent: false };
    let copy_kernel_gb_s = 2.0 * bytes / bench.time(|device| device.launch(&launch))?;
    let touch = calibrate::touch_dims(processors).map_err(shape)?;
    Ok(Limits {
        read_gb_s,
        copy_kernel_gb_s,
        copy_driver_gb_s,
        dp4a_tops: bench.rate(false, dims)?,
        mma_tops: bench.rate(true, dims)?,
        boundary_ns: bench.boundary(false, true, touch)?,
        boundary_dependent_ns: bench.boundary(true, true, touch)?,
        boundary_eager_ns: bench.boundary(false, false, touch)?,
    })
}
