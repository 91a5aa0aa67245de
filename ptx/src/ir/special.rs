//! Special registers: what a thread can ask the machine.

use super::Type;

/// An axis of a block or grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Dim {
    X,
    Y,
    Z,
}

/// A special register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Special {
    /// Index of the thread in its block.
    Tid(Dim),
    /// Extent of a block, in threads.
    Ntid(Dim),
    /// Index of the block in its grid.
    Ctaid(Dim),
    /// Extent of the grid, in blocks.
    Nctaid(Dim),
    /// Index of the thread in its warp.
    LaneId,
    /// Slot of the warp on its multiprocessor. Not necessarily `tid / 32`, and it may change: for profiling only.
    WarpId,
    /// Multiprocessor that runs the thread.
    SmId,
    /// Number of multiprocessors.
    NSmId,
    /// Nanoseconds, the same clock on all multiprocessors; updated every 32 ns to every microsecond, depending on the GPU.
    GlobalTimer,
    /// Cycles of the multiprocessor, 32 bits.
    Clock,
    /// Cycles of the multiprocessor, 64 bits.
    Clock64,
    /// Bit of the own lane.
    LanemaskEq,
    /// Bits of the lanes before the own.
    LanemaskLt,
    /// Bits of the lanes up to and with the own.
    LanemaskLe,
    /// Bits of the lanes after the own.
    LanemaskGt,
    /// Bits of the own and the lanes after it.
    LanemaskGe,
}

impl Special {
    /// Name in the text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tid(Dim::X) => "%tid.x",
            Self::Tid(Dim::Y) => "%tid.y",
            Self::Tid(Dim::Z) => "%tid.z",
            Self::Ntid(Dim::X) => "%ntid.x",
            Self::Ntid(Dim::Y) => "%ntid.y",
            Self::Ntid(Dim::Z) => "%ntid.z",
            Self::Ctaid(Dim::X) => "%ctaid.x",
            Self::Ctaid(Dim::Y) => "%ctaid.y",
            Self::Ctaid(Dim::Z) => "%ctaid.z",
            Self::Nctaid(Dim::X) => "%nctaid.x",
            Self::Nctaid(Dim::Y) => "%nctaid.y",
            Self::Nctaid(Dim::Z) => "%nctaid.z",
            Self::LaneId => "%laneid",
            Self::WarpId => "%warpid",
            Self::SmId => "%smid",
            Self::NSmId => "%nsmid",
            Self::GlobalTimer => "%globaltimer",
            Self::Clock => "%clock",
            Self::Clock64 => "%clock64",
            Self::LanemaskEq => "%lanemask_eq",
            Self::LanemaskLt => "%lanemask_lt",
            Self::LanemaskLe => "%lanemask_le",
            Self::LanemaskGt => "%lanemask_gt",
            Self::LanemaskGe => "%lanemask_ge",
        }
    }

    /// Type it is read as.
    pub fn ty(self) -> Type {
        match self {
            Self::GlobalTimer | Self::Clock64 => Type::U64,
            _ => Type::U32,
        }
    }
}
