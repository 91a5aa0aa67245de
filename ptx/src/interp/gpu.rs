//! The machine as the host sees it: buffers, launches, results.

use super::counts::Counts;
use super::decode::{Kernel, Param};
use super::exec::{self, Geometry, Plan, Schedule};
use super::fault::Fault;
use super::memory::{Access, Buffer, Cells, Global};
use super::module::Module;

/// What the machine has, and how long a launch may take. Whatever a text says, these hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Instructions of warps per launch.
    pub steps: u64,
    /// Bytes of all buffers together, and of the registers and shared memory of the resident blocks together.
    pub bytes: u64,
    /// Bytes of shared memory per block.
    pub shared_bytes: u32,
    /// Blocks that are resident at once: a kernel whose blocks wait for one another needs all of its grid.
    pub resident_blocks: u32,
    /// Multiprocessors that `%nsmid` reports.
    pub processors: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: 1 << 30, bytes: 1 << 32, shared_bytes: 227 << 10, resident_blocks: 8, processors: 132 }
    }
}

/// What is checked while a kernel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checks {
    /// Everything, races included.
    #[default]
    Full,
    /// Everything but races: bounds, alignment, rights, initialisation, copies under way, divergence.
    MemoryOnly,
}

/// The shape of a launch and how it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Bytes of the `.extern .shared` array.
    pub dynamic_shared: u32,
    /// How warps are interleaved.
    pub schedule: Schedule,
    /// What is checked.
    pub checks: Checks,
}

impl Launch {
    /// A one-dimensional launch with default schedule and all checks.
    pub fn linear(blocks: u32, threads: u32) -> Self {
        Self {
            grid: [blocks, 1, 1],
            block: [threads, 1, 1],
            dynamic_shared: 0,
            schedule: Schedule::default(),
            checks: Checks::default(),
        }
    }
}

/// A kernel argument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// The address of a buffer, with the rights it was made with.
    Buffer(Buffer),
    /// The address of a byte within a buffer, with rights for this launch.
    Slice {
        /// The buffer.
        buffer: Buffer,
        /// Byte within it.
        offset: u64,
        /// What this launch may do with the whole buffer. If several arguments name it, the last one counts.
        access: Access,
    },
    /// A 32-bit unsigned integer.
    U32(u32),
    /// A 32-bit signed integer.
    I32(i32),
    /// A 64-bit unsigned integer.
    U64(u64),
    /// A 64-bit signed integer.
    I64(i64),
    /// A 32-bit float.
    F32(f32),
    /// A 64-bit float.
    F64(f64),
}

impl Arg {
    fn bytes(self) -> u64 {
        match self {
            Self::U32(_) | Self::I32(_) | Self::F32(_) => 4,
            _ => 8,
        }
    }

    fn bits(self) -> u64 {
        match self {
            Self::Buffer(buffer) => Global::address(buffer),
            Self::Slice { buffer, offset, .. } => Global::address(buffer).wrapping_add(offset),
            Self::U32(v) => v.into(),
            Self::I32(v) => v as u32 as u64,
            Self::U64(v) => v,
            Self::I64(v) => v as u64,
            Self::F32(v) => v.to_bits().into(),
            Self::F64(v) => v.to_bits(),
        }
    }

    fn buffer(self) -> Option<Buffer> {
        match self {
            Self::Buffer(buffer) | Self::Slice { buffer, .. } => Some(buffer),
            _ => None,
        }
    }
}

/// What the host did wrong, or the fault of the kernel it launched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// The kernel broke a rule.
    #[error(transparent)]
    Fault(#[from] Box<Fault>),
    /// A module without this kernel.
    #[error("the module has no kernel `{0}`")]
    NoKernel(String),
    /// The wrong number of arguments.
    #[error("kernel `{kernel}` takes {expected} arguments, found {found}")]
    ArgumentCount {
        /// Name of the kernel.
        kernel: String,
        /// How many it declares.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// An argument whose size is not that of its parameter.
    #[error("parameter `{parameter}` of kernel `{kernel}` has {expected} bytes, the argument {found}")]
    ArgumentSize {
        /// Name of the kernel.
        kernel: String,
        /// Name of the parameter.
        parameter: String,
        /// Its size.
        expected: u64,
        /// Size of the argument.
        found: u64,
    },
    /// A block of no threads, of more than 1024, or of a shape the kernel's `.reqntid` or `.maxntid` rules out.
    #[error("kernel `{kernel}` cannot be launched with blocks of {block:?} threads: {why}")]
    BlockShape {
        /// Name of the kernel.
        kernel: String,
        /// The shape asked for.
        block: [u32; 3],
        /// The rule it breaks.
        why: String,
    },
    /// A grid without blocks, or with more warps than the machine can tell apart.
    #[error("a grid of {0:?} blocks cannot be launched: it is empty, or has more than 2^32 warps")]
    GridShape([u32; 3]),
    /// More memory than the limits allow.
    #[error("{what} would take {needed} bytes, the limit is {limit}")]
    Memory {
        /// Buffers, shared memory, registers …
        what: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A buffer of another machine.
    #[error("the buffer does not belong to this machine")]
    ForeignBuffer,
    /// A host access beyond the end of a buffer.
    #[error("bytes {start}..{end} are not inside buffer `{buffer}` of {size} bytes")]
    Range {
        /// Name of the buffer.
        buffer: String,
        /// First byte.
        start: u64,
        /// End of the access.
        end: u64,
        /// Size of the buffer.
        size: u64,
    },
    /// A result that no kernel wrote.
    #[error("byte {offset} of buffer `{buffer}` was never written")]
    Unwritten {
        /// Name of the buffer.
        buffer: String,
        /// The first byte without a value.
        offset: u64,
    },
}

/// A machine: memory that outlives launches.
#[derive(Debug)]
pub struct Gpu {
    limits: Limits,
    global: Global,
    used: u64,
    /// Instructions of all launches so far: what clocks count.
    clock: u64,
}

impl Gpu {
    /// A machine without buffers.
    pub fn new(limits: Limits) -> Self {
        Self { limits, global: Global::default(), used: 0, clock: 0 }
    }

    /// Makes a buffer with these contents.
    ///
    /// # Errors
    /// [`GpuError::Memory`] if all buffers together would exceed the limit.
    pub fn buffer(&mut self, name: &str, bytes: &[u8], access: Access) -> Result<Buffer, GpuError> {
        self.reserve(bytes.len())?;
        Ok(self.global.add(name, Cells::filled(bytes.to_vec()), access))
    }

    /// Makes a write-only buffer without values: reading it, on the machine or by [`Gpu::read`], is an error where
    /// nothing was written.
    ///
    /// # Errors
    /// [`GpuError::Memory`] if all buffers together would exceed the limit.
    pub fn output(&mut self, name: &str, bytes: usize) -> Result<Buffer, GpuError> {
        self.reserve(bytes)?;
        Ok(self.global.add(name, Cells::poisoned(bytes), Access::Write))
    }

    /// Makes a buffer without values that kernels may write and read back.
    ///
    /// # Errors
    /// [`GpuError::Memory`] if all buffers together would exceed the limit.
    pub fn scratch(&mut self, name: &str, bytes: usize) -> Result<Buffer, GpuError> {
        self.reserve(bytes)?;
        Ok(self.global.add(name, Cells::poisoned(bytes), Access::ReadWrite))
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), GpuError> {
        let needed = self.used.saturating_add(bytes as u64);
        // Half of a buffer's slot of address space is the most it can have.
        let limit = self.limits.bytes.min(1 << 35);
        if needed > limit {
            return Err(GpuError::Memory { what: "all buffers", needed, limit });
        }
        self.used = needed;
        Ok(())
    }

    /// The contents of a buffer.
    ///
    /// # Errors
    /// [`GpuError::Unwritten`] if some byte has no value, [`GpuError::ForeignBuffer`] if the buffer is not ours.
    pub fn read(&self, buffer: Buffer) -> Result<&[u8], GpuError> {
        let span = self.global.span(buffer).ok_or(GpuError::ForeignBuffer)?;
        match span.cells.first_hole() {
            Some(hole) => Err(GpuError::Unwritten { buffer: span.name.clone(), offset: hole as u64 }),
            None => Ok(span.cells.bytes()),
        }
    }

    /// The contents of a buffer, with `0xff` where no byte was written.
    ///
    /// # Errors
    /// [`GpuError::ForeignBuffer`] if the buffer is not ours.
    pub fn peek(&self, buffer: Buffer) -> Result<&[u8], GpuError> {
        Ok(self.global.span(buffer).ok_or(GpuError::ForeignBuffer)?.cells.bytes())
    }

    /// Writes bytes from the host between launches.
    ///
    /// # Errors
    /// [`GpuError::Range`] if they do not fit, [`GpuError::ForeignBuffer`] if the buffer is not ours.
    pub fn write(&mut self, buffer: Buffer, offset: u64, bytes: &[u8]) -> Result<(), GpuError> {
        let span = self.global.span_mut(buffer).ok_or(GpuError::ForeignBuffer)?;
        let size = span.cells.len() as u64;
        let end = offset.saturating_add(bytes.len() as u64);
        if end > size {
            return Err(GpuError::Range { buffer: span.name.clone(), start: offset, end, size });
        }
        span.cells.store_bytes(offset as usize, bytes);
        Ok(())
    }

    /// The address of a buffer, as kernels see it: to be stored in structures on the machine.
    ///
    /// # Errors
    /// [`GpuError::ForeignBuffer`] if the buffer is not ours.
    pub fn address(&self, buffer: Buffer) -> Result<u64, GpuError> {
        self.global.span(buffer).ok_or(GpuError::ForeignBuffer)?;
        Ok(Global::address(buffer))
    }

    /// Runs a kernel to its end.
    ///
    /// Launches are ordered: each sees everything the one before wrote.
    ///
    /// # Errors
    /// [`GpuError::Fault`] if the kernel broke a rule; other variants if the launch itself is wrong.
    pub fn launch(&mut self, module: &Module, kernel: &str, launch: Launch, args: &[Arg]) -> Result<Counts, GpuError> {
        let kernel = module.kernel(kernel).ok_or_else(|| GpuError::NoKernel(kernel.to_owned()))?;
        let params = self.params(kernel, args)?;
        let geometry = self.geometry(kernel, launch)?;
        let races = launch.checks == Checks::Full;
        let rights: Vec<(Buffer, Access)> = args
            .iter()
            .filter_map(|arg| match *arg {
                Arg::Slice { buffer, access, .. } => Some((buffer, access)),
                _ => None,
            })
            .collect();
        self.global.begin(&rights, races);
        let plan = Plan {
            kernel,
            geometry,
            schedule: launch.schedule,
            races,
            params,
            steps: self.limits.steps,
            resident: self.limits.resident_blocks.max(1) as usize,
            began: self.clock,
        };
        let counts = exec::run(&plan, &mut self.global)?;
        self.clock += counts.instructions();
        Ok(counts)
    }

    /// The block of parameters.
    fn params(&self, kernel: &Kernel, args: &[Arg]) -> Result<Vec<u8>, GpuError> {
        if kernel.params.len() != args.len() {
            let (expected, found) = (kernel.params.len(), args.len());
            return Err(GpuError::ArgumentCount { kernel: kernel.name.clone(), expected, found });
        }
        let size = kernel.params.last().map_or(0, |last| u64::from(last.offset) + last.bytes());
        let mut out = vec![0; size as usize];
        for (param, arg) in kernel.params.iter().zip(args) {
            self.param(kernel, param, *arg, &mut out)?;
        }
        Ok(out)
    }

    fn param(&self, kernel: &Kernel, param: &Param, arg: Arg, out: &mut [u8]) -> Result<(), GpuError> {
        let (expected, found) = (param.bytes(), arg.bytes());
        if expected != found {
            let (kernel, parameter) = (kernel.name.clone(), param.name.clone());
            return Err(GpuError::ArgumentSize { kernel, parameter, expected, found });
        }
        if arg.buffer().is_some_and(|buffer| self.global.span(buffer).is_none()) {
            return Err(GpuError::ForeignBuffer);
        }
        let (start, len) = (param.offset as usize, found as usize);
        out[start..start + len].copy_from_slice(&arg.bits().to_le_bytes()[..len]);
        Ok(())
    }

    fn geometry(&self, kernel: &Kernel, launch: Launch) -> Result<Geometry, GpuError> {
        let Launch { grid, block, dynamic_shared, .. } = launch;
        let product = |dims: [u32; 3]| dims.iter().try_fold(1_u64, |all, &n| all.checked_mul(n.into()));
        let shape = |why: String| Err(GpuError::BlockShape { kernel: kernel.name.clone(), block, why });
        let threads = product(block).filter(|n| (1..=1024).contains(n));
        let Some(threads) = threads else { return shape("1 to 1024 threads are possible".to_owned()) };
        if let Some(required) = kernel.required_block.filter(|required| *required != block) {
            return shape(format!("`.reqntid` asks for {required:?}"));
        }
        if let Some(max) = kernel.max_block.filter(|max| product(*max).is_some_and(|max| threads > max)) {
            return shape(format!("`.maxntid` allows {max:?}"));
        }
        let warps = threads.div_ceil(32);
        let blocks = product(grid).filter(|&n| n > 0 && n.checked_mul(warps).is_some_and(|n| n < u32::MAX.into()));
        let Some(blocks) = blocks else { return Err(GpuError::GridShape(grid)) };

        let fixed: u64 = kernel.shared.iter().filter_map(|array| array.bytes).map(u64::from).sum();
        let total_shared = fixed + u64::from(dynamic_shared);
        let limit = self.limits.shared_bytes.into();
        if total_shared > limit {
            return Err(GpuError::Memory { what: "shared memory of a block", needed: total_shared, limit });
        }
        let registers = 128 * u64::from(kernel.files.r32) + 256 * u64::from(kernel.files.r64);
        let span = kernel.shared.iter().map(|array| u64::from(array.address)).max().unwrap_or(0) + total_shared;
        let resident = blocks.min(self.limits.resident_blocks.max(1).into());
        let needed = resident.saturating_mul(warps * registers + span);
        if needed > self.limits.bytes {
            let limit = self.limits.bytes;
            return Err(GpuError::Memory { what: "registers and shared memory of the resident blocks", needed, limit });
        }
        let processors = self.limits.processors.max(1);
        Ok(Geometry { grid, block, dynamic_shared, total_shared: total_shared as u32, processors })
    }
}
