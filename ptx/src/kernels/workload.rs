//! A small launch of a kernel: what tests execute, and what a ceiling is derived from.

use super::format::Format;
use super::launch::Dims;
use crate::interp::{
    self, Access, Buffer, Checks, Counts, Gpu, GpuError, Launch, Limits, Module, ParseError, Schedule,
};

/// A launch with its arguments, and the work that cannot be avoided.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Grid, block, dynamic shared memory.
    pub dims: Dims,
    /// Arguments, in the order of the kernel's parameters.
    pub args: Vec<Arg>,
    /// The least any kernel would have to do for this launch.
    pub work: Work,
}

/// An argument.
#[derive(Debug, Clone, PartialEq)]
pub enum Arg {
    /// A buffer in global memory.
    Buffer {
        /// Name, for faults and for [`Run::bytes`].
        name: &'static str,
        /// What is in it before the launch.
        contents: Contents,
        /// What the kernel may do with it.
        access: Access,
    },
    /// A 32-bit number.
    U32(u32),
    /// A 64-bit number.
    U64(u64),
    /// A float.
    F32(f32),
}

/// What is in a buffer before the launch.
#[derive(Debug, Clone, PartialEq)]
pub enum Contents {
    /// These bytes.
    Bytes(Vec<u8>),
    /// That many bytes without a value: reading one that the kernel did not write is a fault.
    Unwritten(usize),
}

impl Arg {
    /// A buffer that the kernel reads.
    pub fn read(name: &'static str, bytes: Vec<u8>) -> Self {
        Self::Buffer { name, contents: Contents::Bytes(bytes), access: Access::Read }
    }

    /// A buffer of `bytes` bytes that the kernel writes, and has to write wholly to be read back.
    pub fn write(name: &'static str, bytes: usize) -> Self {
        Self::Buffer { name, contents: Contents::Unwritten(bytes), access: Access::Write }
    }

    /// A buffer of `bytes` bytes without values that the kernel writes and reads back.
    pub fn scratch(name: &'static str, bytes: usize) -> Self {
        Self::Buffer { name, contents: Contents::Unwritten(bytes), access: Access::ReadWrite }
    }

    /// Bytes that are passed: the size of a buffer, or 0 for a number.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Buffer { contents: Contents::Bytes(bytes), .. } => bytes.len() as u64,
            Self::Buffer { contents: Contents::Unwritten(bytes), .. } => *bytes as u64,
            Self::U32(_) | Self::U64(_) | Self::F32(_) => 0,
        }
    }

    /// A buffer that the kernel reads and writes.
    pub fn update(name: &'static str, bytes: Vec<u8>) -> Self {
        Self::Buffer { name, contents: Contents::Bytes(bytes), access: Access::ReadWrite }
    }
}

/// The least a launch has to do, derived from shapes. What is read more than once counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Bytes of weights that are read. Of the KV cache in attention.
    pub weight_bytes: u64,
    /// Bytes of activations that are read.
    pub activation_bytes: u64,
    /// Bytes that are written.
    pub output_bytes: u64,
    /// Operations on integers: a multiplication and an addition are two.
    pub int_ops: u64,
    /// Operations on floats: a multiplication and an addition are two.
    pub float_ops: u64,
}

impl Work {
    /// All bytes, read and written.
    pub fn bytes(&self) -> u64 {
        self.weight_bytes + self.activation_bytes + self.output_bytes
    }
}

/// Why a workload did not run, or its result cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kernel is not valid.
    #[error(transparent)]
    Compile(#[from] crate::CompileError),
    /// The interpreter does not take its text.
    #[error(transparent)]
    Parse(ParseError),
    /// The launch was refused, or the kernel broke a rule.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A result by a name that no argument has.
    #[error("kernel `{kernel}` has no buffer `{name}` among its arguments")]
    NoBuffer {
        /// Name of the kernel.
        kernel: String,
        /// Name that was asked for.
        name: String,
    },
}

/// A workload that ran.
#[derive(Debug)]
pub struct Run {
    /// What the launch did.
    pub counts: Counts,
    kernel: String,
    gpu: Gpu,
    buffers: Vec<(&'static str, Buffer)>,
}

impl Workload {
    /// Runs it in the interpreter.
    ///
    /// # Errors
    /// [`RunError::Gpu`] if the launch is refused or the kernel breaks a rule.
    pub fn run(&self, module: &Module, kernel: &str, schedule: Schedule, checks: Checks) -> Result<Run, RunError> {
        let mut gpu = Gpu::new(Limits::default());
        let mut buffers = Vec::new();
        let mut args = Vec::new();
        for arg in &self.args {
            args.push(match arg {
                Arg::Buffer { name, contents, access } => {
                    let buffer = match contents {
                        Contents::Bytes(bytes) => gpu.buffer(name, bytes, *access)?,
                        Contents::Unwritten(bytes) if *access == Access::Write => gpu.output(name, *bytes)?,
                        Contents::Unwritten(bytes) => gpu.scratch(name, *bytes)?,
                    };
                    buffers.push((*name, buffer));
                    interp::Arg::Buffer(buffer)
                }
                Arg::U32(n) => interp::Arg::U32(*n),
                Arg::U64(n) => interp::Arg::U64(*n),
                Arg::F32(x) => interp::Arg::F32(*x),
            });
        }
        let Dims { grid, block, dynamic_shared } = self.dims;
        let counts = gpu.launch(module, kernel, Launch { grid, block, dynamic_shared, schedule, checks }, &args)?;
        Ok(Run { counts, kernel: kernel.to_owned(), gpu, buffers })
    }
}

impl Run {
    /// What is in a buffer now.
    ///
    /// # Errors
    /// [`RunError::NoBuffer`] if no argument has this name, [`GpuError::Unwritten`] if a byte was never written.
    pub fn bytes(&self, name: &str) -> Result<&[u8], RunError> {
        let (_, buffer) = self
            .buffers
            .iter()
            .find(|(n, _)| *n == name)
            .ok_or_else(|| RunError::NoBuffer { kernel: self.kernel.clone(), name: name.to_owned() })?;
        Ok(self.gpu.read(*buffer)?)
    }

    /// The same, as words.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn u32s(&self, name: &str) -> Result<Vec<u32>, RunError> {
        let (words, _) = self.bytes(name)?.as_chunks::<4>();
        Ok(words.iter().map(|w| u32::from_le_bytes(*w)).collect())
    }

    /// The same, as floats.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn f32s(&self, name: &str) -> Result<Vec<f32>, RunError> {
        Ok(self.u32s(name)?.into_iter().map(f32::from_bits).collect())
    }
}

/// Pseudo-random numbers that are the same on every machine (SplitMix64).
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    /// Numbers that follow from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A float in `-1.0..1.0`.
    pub fn float(&mut self) -> f32 {
        // 24 bits fit the mantissa: every value is exact.
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// That many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.bits() as u8).collect()
    }

    /// That many floats in `-1.0..1.0`.
    pub fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.float()).collect()
    }
}

/// Floats as the bytes of a buffer.
pub fn bytes_of_f32(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Words as the bytes of a buffer.
pub fn bytes_of_u32(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Rows of weights as a file stores them: random codes and sub-scales, scales that are moderate numbers of either sign.
pub fn random_rows(format: Format, rows: usize, columns: usize, noise: &mut Noise) -> Vec<u8> {
    // Where blocks have their f16 numbers.
    let halves: &[usize] = match format {
        Format::Q4_0 | Format::Q8_0 | Format::F16 | Format::BF16 => &[0],
        Format::Q4_1 | Format::Q4_K | Format::Q5_K => &[0, 2],
        Format::Q6_K => &[208],
    };
    let mut bytes = noise.bytes(rows * format.row_bytes(columns));
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for &at in halves {
            let value = noise.float() / 16.0;
            let half = if format == Format::BF16 {
                half::bf16::from_f32(value).to_le_bytes()
            } else {
                half::f16::from_f32(value).to_le_bytes()
            };
            block[at..at + 2].copy_from_slice(&half);
        }
    }
    bytes
}
