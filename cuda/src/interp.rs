//! The interpreter as a device: every launch is executed, and checked for bounds, initialisation and races, on any machine.
//!
//! Every region is a buffer of its own, also where an arena puts several in one place: an access that leaves a region, and a read of
//! what the region's owner did not write, are faults.

use std::sync::Arc;

use brick_ptx::interp::{self, Access, Buffer, Checks, Gpu, Limits, Module, Schedule};

use crate::device::{About, Arg, Captured, Device, KernelId, Launch, Place, Ptr, Region, Ticket};
use crate::error::DeviceError;

/// Multiprocessors that it claims to have: few, so that grids made for them are small.
const PROCESSORS: u32 = 4;

struct Kernel {
    name: String,
    module: Arc<Module>,
}

/// A device that is a program.
pub struct Interp {
    about: About,
    gpu: Gpu,
    schedule: Schedule,
    checks: Checks,
    regions: Vec<(Buffer, String, u64)>,
    kernels: Vec<Kernel>,
    capturing: Option<Vec<Launch>>,
    captured: Vec<Vec<Launch>>,
    fetched: Vec<Option<Vec<u8>>>,
    launches: u64,
}

impl std::fmt::Debug for Interp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interp").field("launches", &self.launches).finish_non_exhaustive()
    }
}

impl Interp {
    /// A machine without memory that interleaves warps as `schedule` says and checks what `checks` says, running kernels as for
    /// compute capability `capability`.
    pub fn new(schedule: Schedule, checks: Checks, capability: (u32, u32)) -> Self {
        let limits = Limits { processors: PROCESSORS, ..Limits::default() };
        let about = About {
            backend: "interp",
            name: "PTX interpreter".into(),
            capability,
            processors: PROCESSORS,
            memory: limits.bytes,
            l2: 0,
            shared: if capability >= (9, 0) { 227 << 10 } else { 99 << 10 },
            driver: 0,
        };
        Self {
            about,
            gpu: Gpu::new(limits),
            schedule,
            checks,
            regions: Vec::new(),
            kernels: Vec::new(),
            capturing: None,
            captured: Vec::new(),
            fetched: Vec::new(),
            launches: 0,
        }
    }

    /// Launches that ran.
    pub fn launches(&self) -> u64 {
        self.launches
    }

    fn region(&self, region: Region) -> Result<&(Buffer, String, u64), DeviceError> {
        self.regions.get(region.index()).ok_or(DeviceError::Foreign { what: "region", id: region.0 })
    }

    fn bytes(&self, at: Ptr, bytes: u64) -> Result<&[u8], DeviceError> {
        let (buffer, name, size) = self.region(at.region)?;
        let all = self.gpu.peek(*buffer)?;
        let end = at.offset.saturating_add(bytes);
        all.get(at.offset as usize..end as usize).ok_or_else(|| DeviceError::Range {
            region: name.clone(),
            start: at.offset,
            end,
            size: *size,
        })
    }

    fn run(&mut self, launch: &Launch) -> Result<(), DeviceError> {
        let id = launch.kernel;
        let kernel = self.kernels.get(id.0 as usize).ok_or(DeviceError::Foreign { what: "kernel", id: id.0 })?;
        // An argument's rights are those of all arguments in its region together.
        let rights = |region: Region| {
            let of_region = launch.args.iter().filter_map(|arg| match arg {
                Arg::Ptr(at, access) if at.region == region => Some(*access),
                _ => None,
            });
            of_region.reduce(|a, b| if a == b { a } else { Access::ReadWrite })
        };
        let mut args = Vec::with_capacity(launch.args.len());
        for arg in &launch.args {
            args.push(match *arg {
                Arg::Ptr(at, access) => interp::Arg::Slice {
                    buffer: self.region(at.region)?.0,
                    offset: at.offset,
                    access: rights(at.region).unwrap_or(access),
                },
                Arg::Null => interp::Arg::U64(0),
                Arg::U32(n) => interp::Arg::U32(n),
                Arg::U64(n) => interp::Arg::U64(n),
                Arg::F32(x) => interp::Arg::F32(x),
            });
        }
        let shape = interp::Launch {
            grid: launch.dims.grid,
            block: launch.dims.block,
            dynamic_shared: launch.dims.dynamic_shared,
            schedule: self.schedule,
            checks: self.checks,
        };
        let (module, name) = (Arc::clone(&kernel.module), kernel.name.clone());
        self.gpu.launch(&module, &name, shape, &args)?;
        self.launches += 1;
        Ok(())
    }
}

impl Device for Interp {
    fn about(&self) -> &About {
        &self.about
    }

    fn arena(&mut self, name: &str, parts: &[Place]) -> Result<Vec<Region>, DeviceError> {
        let first = self.regions.len() as u32;
        for part in parts {
            let made = self.gpu.scratch(&part.name, part.bytes as usize);
            let buffer = made.map_err(|_| DeviceError::OutOfMemory {
                arena: name.to_owned(),
                needed: parts.iter().map(|p| p.bytes).sum(),
                free: 0,
                total: self.about.memory,
            })?;
            self.regions.push((buffer, part.name.clone(), part.bytes));
        }
        Ok((first..self.regions.len() as u32).map(Region).collect())
    }

    fn write(&mut self, to: Ptr, bytes: &[u8]) -> Result<(), DeviceError> {
        let buffer = self.region(to.region)?.0;
        Ok(self.gpu.write(buffer, to.offset, bytes)?)
    }

    fn clear(&mut self, at: Ptr, bytes: u64) -> Result<(), DeviceError> {
        self.write(at, &vec![0; bytes as usize])
    }

    fn copy(&mut self, from: Ptr, to: Ptr, bytes: u64) -> Result<(), DeviceError> {
        let copied = self.bytes(from, bytes)?.to_vec();
        self.write(to, &copied)
    }

    fn fetch(&mut self, from: Ptr, bytes: usize) -> Result<Ticket, DeviceError> {
        let copied = self.bytes(from, bytes as u64)?.to_vec();
        let free = self.fetched.iter().position(Option::is_none);
        let index = free.unwrap_or(self.fetched.len());
        if free.is_none() {
            self.fetched.push(None);
        }
        self.fetched[index] = Some(copied);
        Ok(Ticket(index as u32))
    }

    fn receive(&mut self, ticket: Ticket, out: &mut [u8]) -> Result<(), DeviceError> {
        let slot = self.fetched.get_mut(ticket.0 as usize).and_then(Option::take).filter(|b| b.len() == out.len());
        out.copy_from_slice(&slot.ok_or(DeviceError::Foreign { what: "ticket", id: ticket.0 })?);
        Ok(())
    }

    fn kernel(&mut self, name: &str, text: &str) -> Result<KernelId, DeviceError> {
        if let Some(at) = self.kernels.iter().position(|k| k.name == name) {
            return Ok(KernelId(at as u32));
        }
        let refused = |reason: String| DeviceError::Text { kernel: name.to_owned(), reason };
        let module = Arc::new(Module::parse(text).map_err(|e| refused(e.to_string()))?);
        self.kernels.push(Kernel { name: name.to_owned(), module });
        Ok(KernelId(self.kernels.len() as u32 - 1))
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), DeviceError> {
        match &mut self.capturing {
            Some(noted) => {
                noted.push(launch.clone());
                Ok(())
            }
            None => self.run(launch),
        }
    }

    fn begin_capture(&mut self) -> Result<(), DeviceError> {
        if self.capturing.is_some() {
            return Err(DeviceError::Capture("one is under way already"));
        }
        self.capturing = Some(Vec::new());
        Ok(())
    }

    fn end_capture(&mut self) -> Result<Captured, DeviceError> {
        let noted = self.capturing.take().ok_or(DeviceError::Capture("none was begun"))?;
        if noted.is_empty() {
            return Err(DeviceError::Capture("it holds no launch"));
        }
        self.captured.push(noted);
        Ok(Captured(self.captured.len() as u32 - 1))
    }

    fn abandon_capture(&mut self) {
        self.capturing = None;
    }

    fn replay(&mut self, captured: Captured) -> Result<(), DeviceError> {
        let index = captured.0 as usize;
        let launches = self.captured.get(index).ok_or(DeviceError::Foreign { what: "graph", id: captured.0 })?.clone();
        launches.iter().try_for_each(|launch| self.run(launch))
    }

    fn synchronize(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn memory(&mut self) -> Result<(u64, u64), DeviceError> {
        let used: u64 = self.regions.iter().map(|r| r.2).sum();
        Ok((self.about.memory.saturating_sub(used), self.about.memory))
    }
}
