//! Which limit of a GPU a kernel meets first, derived from counts: nothing here was measured on a GPU unless it says so.
//!
//! A workload is executed in the interpreter; its instructions, dp4a, mma and bytes are scaled to one second on a [`Gpu`]. The resource
//! that takes longest is the [`Ceiling::bound`]; the share of bandwidth that is left to the kernel is
//! [`Ceiling::bandwidth_fraction`]. Launch latency and the tail of a grid are left out, so it is an upper bound.
//!
//! Bytes are those of the weights where there are such: activations and results are few, and shared by all rows of a real matrix.
//! Instructions are those of the PTX text without moves, which the assembler turns into about as many of the hardware: for
//! `gemv_q4_k_b1` 48 per load of codes, prologue and epilogue included, against 39 in the loop of the machine code. Where that is
//! known, [`Ceiling::with_instructions`] takes its number.

use std::fmt;

use super::workload::Work;
use crate::interp::{Class, Counts};

/// What a GPU can do per second, or per cycle and multiprocessor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gpu {
    /// Name.
    pub name: &'static str,
    /// Multiprocessors.
    pub processors: f64,
    /// Cycles per second, boosted.
    pub hertz: f64,
    /// Bytes per second of a copy.
    pub bytes_per_second: f64,
    /// Instructions of warps per cycle and multiprocessor.
    pub warp_instructions: f64,
    /// Lanes of dp4a per cycle and multiprocessor. Unverified: no document states it for these architectures.
    pub dp4a_lanes: f64,
    /// Multiplications with addition of 8-bit integers on tensor cores, by `mma.sync`, per cycle and multiprocessor.
    pub int8_mma: f64,
    /// The same of bfloat16.
    pub bf16_mma: f64,
}

/// H200: 4.3 TB/s measured copy, the rest from data sheets.
pub const H200: Gpu = Gpu {
    name: "H200",
    processors: 132.0,
    hertz: 1.98e9,
    bytes_per_second: 4.3e12,
    warp_instructions: 4.0,
    dp4a_lanes: 64.0,
    int8_mma: 4096.0,
    bf16_mma: 2048.0,
};

/// A100 of 80 GB: from data sheets, bandwidth reduced to the share that copies reach.
pub const A100: Gpu = Gpu {
    name: "A100",
    processors: 108.0,
    hertz: 1.41e9,
    bytes_per_second: 1.75e12,
    warp_instructions: 4.0,
    dp4a_lanes: 64.0,
    int8_mma: 2048.0,
    bf16_mma: 1024.0,
};

/// RTX 4090: from data sheets, bandwidth reduced to the share that copies reach.
pub const RTX_4090: Gpu = Gpu {
    name: "RTX 4090",
    processors: 128.0,
    hertz: 2.52e9,
    bytes_per_second: 0.92e12,
    warp_instructions: 4.0,
    dp4a_lanes: 64.0,
    int8_mma: 1024.0,
    bf16_mma: 512.0,
};

/// A resource that a kernel may be bound by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Bytes to and from memory.
    Bandwidth,
    /// Slots that instructions of warps are issued in.
    Issue,
    /// Units that compute dp4a.
    Dp4a,
    /// Tensor cores.
    Matrix,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bandwidth => "bandwidth",
            Self::Issue => "issue slots",
            Self::Dp4a => "dp4a",
            Self::Matrix => "tensor cores",
        })
    }
}

/// What a launch needs of each resource.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Needs {
    /// Bytes that cannot be avoided.
    pub bytes: f64,
    /// Instructions of warps.
    pub instructions: f64,
    /// Instructions of warps that are dp4a.
    pub dp4a: f64,
    /// Instructions of warps that are mma.
    pub mma: f64,
    /// Multiplications of one mma.
    pub mma_size: f64,
    /// Whether they are of 8-bit integers.
    pub mma_is_int8: bool,
}

impl Needs {
    /// Of an executed workload. All of its mma are taken to be of integers where it computes integers, else of bfloat16.
    pub fn of(work: &Work, counts: &Counts) -> Self {
        let mma_is_int8 = work.int_ops > 0;
        Self {
            bytes: if work.weight_bytes > 0 { work.weight_bytes } else { work.bytes() } as f64,
            instructions: (counts.instructions() - counts.class(Class::Move)) as f64,
            dp4a: counts.class(Class::Dot) as f64,
            mma: counts.class(Class::Matrix) as f64,
            mma_size: if mma_is_int8 { 16.0 * 8.0 * 32.0 } else { 16.0 * 8.0 * 16.0 },
            mma_is_int8,
        }
    }
}

/// How long each resource is needed, in seconds, for a launch that fills the GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ceiling {
    /// The GPU.
    pub gpu: Gpu,
    needs: Needs,
}

impl Ceiling {
    /// Derives it.
    pub fn new(gpu: Gpu, needs: Needs) -> Self {
        Self { gpu, needs }
    }

    /// With the number of instructions that the assembler's code would issue for the same launch.
    #[must_use]
    pub fn with_instructions(self, instructions: f64) -> Self {
        Self { needs: Needs { instructions, ..self.needs }, ..self }
    }

    /// Seconds that a resource is needed for, if all multiprocessors share the work.
    pub fn seconds(&self, resource: Resource) -> f64 {
        let (gpu, needs) = (&self.gpu, &self.needs);
        let cycles = gpu.processors * gpu.hertz;
        match resource {
            Resource::Bandwidth => needs.bytes / gpu.bytes_per_second,
            Resource::Issue => needs.instructions / gpu.warp_instructions / cycles,
            Resource::Dp4a => needs.dp4a * 32.0 / gpu.dp4a_lanes / cycles,
            Resource::Matrix => {
                let rate = if needs.mma_is_int8 { gpu.int8_mma } else { gpu.bf16_mma };
                needs.mma * needs.mma_size / rate / cycles
            }
        }
    }

    /// The resource that is needed longest.
    pub fn bound(&self) -> Resource {
        let all = [Resource::Bandwidth, Resource::Issue, Resource::Dp4a, Resource::Matrix];
        all.into_iter()
            .max_by(|a, b| self.seconds(*a).total_cmp(&self.seconds(*b)))
            .expect("invariant: the list of resources is not empty")
    }

    /// The share of bandwidth that is left: 1 if bandwidth binds.
    pub fn bandwidth_fraction(&self) -> f64 {
        let bound = self.seconds(self.bound());
        if bound == 0.0 { 1.0 } else { self.seconds(Resource::Bandwidth) / bound }
    }
}

impl fmt::Display for Ceiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |resource| 100.0 * self.seconds(resource) / self.seconds(self.bound());
        write!(
            f,
            "{} (derived): bound by {}; of that time bandwidth {:.0} %, issue {:.0} %, dp4a {:.0} % (rate unverified), mma {:.0} %",
            self.gpu.name,
            self.bound(),
            share(Resource::Bandwidth),
            share(Resource::Issue),
            share(Resource::Dp4a),
            share(Resource::Matrix),
        )
    }
}
