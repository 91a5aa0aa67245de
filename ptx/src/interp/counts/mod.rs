//! What a launch did, counted: exact numbers, the same on every machine, for the profiler and for gates.

mod class;
mod tally;

use std::fmt;

pub use class::Class;
pub use tally::Traffic;
pub(crate) use tally::{Kind, Tally};

use self::class::CLASSES;
use super::op::Op;

/// What one line of the text did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineCount {
    /// Line of the text, from 1.
    pub line: u32,
    /// Instructions issued, once per warp.
    pub instructions: u64,
    /// Lanes that executed them.
    pub lanes: u64,
}

/// What a launch did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    instructions: [u64; CLASSES.len()],
    lanes: u64,
    lines: Vec<LineCount>,
    pub(super) blocks: u64,
    pub(super) warps: u64,
    pub(super) tally: Tally,
}

impl Counts {
    /// Adds up what every instruction of the code did: `(op, line, times issued, lanes)`.
    pub(super) fn of_code<'a>(code: impl Iterator<Item = (&'a Op, u32, u64, u64)>) -> Self {
        let mut out = Self::default();
        for (op, line, issued, lanes) in code.filter(|&(_, _, issued, _)| issued > 0) {
            out.instructions[op.class() as usize] += issued;
            out.lanes += lanes;
            // The code is in the order of the text.
            match out.lines.last_mut() {
                Some(count) if count.line == line => {
                    count.instructions += issued;
                    count.lanes += lanes;
                }
                _ => out.lines.push(LineCount { line, instructions: issued, lanes }),
            }
        }
        out
    }

    /// Instructions issued, once per warp.
    pub fn instructions(&self) -> u64 {
        self.instructions.iter().sum()
    }

    /// Instructions of one class, once per warp.
    pub fn class(&self, class: Class) -> u64 {
        self.instructions[class as usize]
    }

    /// Instructions times the lanes that executed them.
    pub fn lane_instructions(&self) -> u64 {
        self.lanes
    }

    /// Share of lanes that executed, of 32 per instruction: 1 without divergence, guards or partial warps.
    pub fn lane_efficiency(&self) -> f64 {
        let issued = self.instructions();
        if issued == 0 { 1.0 } else { self.lanes as f64 / (issued as f64 * 32.0) }
    }

    /// Per line of the text, ascending.
    pub fn lines(&self) -> &[LineCount] {
        &self.lines
    }

    /// Blocks that ran.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Warps that ran.
    pub fn warps(&self) -> u64 {
        self.warps
    }

    /// Loads from global memory, the sources of asynchronous copies included.
    pub fn global_loads(&self) -> Traffic {
        self.tally.global_load
    }

    /// Stores to global memory.
    pub fn global_stores(&self) -> Traffic {
        self.tally.global_store
    }

    /// Atomics on global memory.
    pub fn global_atomics(&self) -> Traffic {
        self.tally.global_atomic
    }

    /// Loads from shared memory.
    pub fn shared_loads(&self) -> Traffic {
        self.tally.shared_load
    }

    /// Stores to shared memory, the targets of asynchronous copies included.
    pub fn shared_stores(&self) -> Traffic {
        self.tally.shared_store
    }

    /// Atomics on shared memory.
    pub fn shared_atomics(&self) -> Traffic {
        self.tally.shared_atomic
    }

    /// Extra wavefronts of shared memory, over loads, stores and atomics.
    pub fn bank_conflicts(&self) -> u64 {
        [self.tally.shared_load, self.tally.shared_store, self.tally.shared_atomic].iter().map(Traffic::excess).sum()
    }

    /// Bytes of parameters read, once per warp.
    pub fn param_bytes(&self) -> u64 {
        self.tally.param_bytes
    }

    /// Arrivals of warps at barriers of the block.
    pub fn barriers(&self) -> u64 {
        self.tally.barriers
    }

    /// Conditional and unconditional branches, once per warp.
    pub fn branches(&self) -> u64 {
        self.tally.branches
    }

    /// Branches that split a warp.
    pub fn divergent_branches(&self) -> u64 {
        self.tally.divergent
    }

    /// Lanes that added floats atomically: their order, and so the last bits of the sum, is open.
    pub fn float_atomics(&self) -> u64 {
        self.tally.float_atomics
    }

    /// Adds the counts of another launch.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.instructions.iter_mut().zip(other.instructions) {
            *mine += theirs;
        }
        self.lanes += other.lanes;
        self.blocks += other.blocks;
        self.warps += other.warps;
        for count in &other.lines {
            match self.lines.binary_search_by_key(&count.line, |c| c.line) {
                Ok(i) => {
                    self.lines[i].instructions += count.instructions;
                    self.lines[i].lanes += count.lanes;
                }
                Err(i) => self.lines.insert(i, *count),
            }
        }
        self.tally.merge(&other.tally);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "blocks {} warps {}", self.blocks, self.warps)?;
        writeln!(f, "instructions {} lane_efficiency {:.4}", self.instructions(), self.lane_efficiency())?;
        for class in Class::all().filter(|&class| self.class(class) > 0) {
            writeln!(f, "  {} {}", class.name(), self.class(class))?;
        }
        let spaces = [
            ("global loads", "sectors", self.global_loads()),
            ("global stores", "sectors", self.global_stores()),
            ("global atomics", "sectors", self.global_atomics()),
            ("shared loads", "wavefronts", self.shared_loads()),
            ("shared stores", "wavefronts", self.shared_stores()),
            ("shared atomics", "wavefronts", self.shared_atomics()),
        ];
        for (name, unit, t) in spaces.into_iter().filter(|(_, _, t)| t.requests > 0) {
            writeln!(f, "{name} {} bytes {} {unit} {} ideal {}", t.requests, t.bytes, t.units, t.ideal)?;
        }
        writeln!(f, "branches {} divergent {}", self.branches(), self.divergent_branches())?;
        write!(f, "barriers {}", self.barriers())
    }
}
