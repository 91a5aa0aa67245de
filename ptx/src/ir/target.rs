//! What a text is written for, and what it runs on.

use std::fmt;

/// The `.target` of a text: the oldest architecture that runs it. Newer ones run it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// `sm_80`: the baseline, for every architecture since Ampere.
    Sm80,
    /// `sm_90`: adds programmatic dependent launch and bf16 arithmetic.
    Sm90,
}

impl Target {
    /// Both targets.
    pub const ALL: [Self; 2] = [Self::Sm80, Self::Sm90];

    /// Most shared memory of one block, static and dynamic together, in bytes, on the architecture it is named after.
    pub fn max_shared_bytes(self) -> u64 {
        match self {
            Self::Sm80 => Arch::Sm80.max_shared_bytes(),
            Self::Sm90 => Arch::Sm90.max_shared_bytes(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sm80 => "sm_80",
            Self::Sm90 => "sm_90",
        })
    }
}

/// An architecture that text is assembled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// A100, A30.
    Sm80,
    /// RTX 30, A10, A40.
    Sm86,
    /// RTX 40, L4, L40.
    Sm89,
    /// H100, H200.
    Sm90,
    /// B200.
    Sm100,
    /// RTX 50.
    Sm120,
}

impl Arch {
    /// All architectures.
    pub const ALL: [Self; 6] = [Self::Sm80, Self::Sm86, Self::Sm89, Self::Sm90, Self::Sm100, Self::Sm120];

    /// Most shared memory of one block, static and dynamic together, in bytes (CUDA C++ Programming Guide, technical
    /// specifications per compute capability).
    pub fn max_shared_bytes(self) -> u64 {
        1024 * match self {
            Self::Sm80 => 163,
            Self::Sm86 | Self::Sm89 | Self::Sm120 => 99,
            Self::Sm90 | Self::Sm100 => 227,
        }
    }

    /// Whether a text for `target` assembles for this architecture.
    pub fn runs(self, target: Target) -> bool {
        target == Target::Sm80 || self >= Self::Sm90
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sm80 => "sm_80",
            Self::Sm86 => "sm_86",
            Self::Sm89 => "sm_89",
            Self::Sm90 => "sm_90",
            Self::Sm100 => "sm_100",
            Self::Sm120 => "sm_120",
        })
    }
}
