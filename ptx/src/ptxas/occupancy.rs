//! How many warps of a kernel fit a multiprocessor: derived from what the assembler says, not measured.

use super::Resources;
use crate::ir::Arch;

/// Registers of a multiprocessor, on all architectures that are known here.
const REGISTERS: u32 = 65_536;
/// Registers are given to warps in units of so many.
const UNIT: u32 = 256;
/// Shared memory that the system takes of every block, in bytes.
const RESERVED: u32 = 1024;

/// Most warps, blocks, and bytes of shared memory of a multiprocessor (CUDA C++ Programming Guide, technical specifications per
/// compute capability).
fn limits(arch: Arch) -> (u32, u32, u32) {
    match arch {
        Arch::Sm80 => (64, 32, 164 << 10),
        Arch::Sm86 => (48, 16, 100 << 10),
        Arch::Sm89 | Arch::Sm120 => (48, 24, 100 << 10),
        Arch::Sm90 | Arch::Sm100 => (64, 32, 228 << 10),
    }
}

impl Arch {
    /// Most warps that are resident on a multiprocessor.
    pub fn max_warps(self) -> u32 {
        limits(self).0
    }
}

impl Resources {
    /// Warps that are resident on a multiprocessor in blocks of `threads` threads with so many bytes of dynamic shared memory each:
    /// 0 if not even one block fits, or blocks have no threads.
    pub fn resident_warps(&self, threads: u32, dynamic_shared: u32, arch: Arch) -> u32 {
        let (most_warps, most_blocks, shared) = limits(arch);
        let warps = threads.div_ceil(32);
        let registers = (self.registers.max(1) * 32).next_multiple_of(UNIT) * warps;
        let by_registers = REGISTERS.checked_div(registers).unwrap_or(0);
        let by_shared = shared / (self.static_shared_bytes + dynamic_shared + RESERVED);
        let by_warps = most_warps.checked_div(warps).unwrap_or(0);
        warps * by_registers.min(by_shared).min(by_warps).min(most_blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scarce_decides() {
        let takes =
            |registers, static_shared_bytes| Resources { registers, static_shared_bytes, ..Resources::default() };
        // 80 registers are 2,560 of a warp, 10,240 of a block: six blocks.
        assert_eq!(takes(80, 0).resident_warps(128, 0, Arch::Sm90), 24);
        assert_eq!(takes(16, 0).resident_warps(128, 0, Arch::Sm90), 64, "warps");
        assert_eq!(takes(16, 0).resident_warps(128, 0, Arch::Sm86), 48, "fewer warps");
        assert_eq!(takes(16, 0).resident_warps(32, 0, Arch::Sm90), 32, "blocks");
        assert_eq!(takes(16, 4096).resident_warps(128, 60 << 10, Arch::Sm90), 12, "shared memory: 65 KiB a block");
        assert_eq!(takes(255, 0).resident_warps(1024, 0, Arch::Sm90), 0, "no block fits");
        assert_eq!(takes(16, 0).resident_warps(0, 0, Arch::Sm90), 0);
    }
}
