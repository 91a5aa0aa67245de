//! The interface to a device: memory, kernels, launches, captures, clocks.
//!
//! Everything on a device happens in the order in which it was asked for (one stream). Calls return at once, but for those that say
//! that they wait.

pub use brick_ptx::interp::Access;
use brick_ptx::ir::Target;
use brick_ptx::kernels::Dims;
use serde::Serialize;

use crate::error::DeviceError;

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct About {
    /// `cuda`, `interp` or `noop`.
    pub backend: &'static str,
    /// Name of the GPU.
    pub name: String,
    /// Compute capability.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub processors: u32,
    /// Bytes of device memory.
    pub memory: u64,
    /// Bytes of the second-level cache.
    pub l2: u64,
    /// Bytes of shared memory that a block may have.
    pub shared: u32,
    /// Version of the driver, as it counts: 12080 is 12.8. 0 without a driver.
    pub driver: i32,
}

impl About {
    /// The target that kernels are made for.
    pub fn target(&self) -> Target {
        if self.capability >= (9, 0) { Target::Sm90 } else { Target::Sm80 }
    }
}

/// A named part of an arena to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Name, for errors and lists.
    pub name: String,
    /// Byte where it begins: a multiple of [`Place::ALIGN`]. Parts whose lives do not meet may lie in the same place.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
}

impl Place {
    /// Alignment of parts: what the driver gives an allocation.
    pub const ALIGN: u64 = 256;

    /// Puts parts one after the other.
    pub fn in_turn(parts: impl IntoIterator<Item = (String, u64)>) -> Vec<Self> {
        let mut end = 0;
        let place = |(name, bytes): (String, u64)| {
            let offset = end;
            end = (end + bytes).next_multiple_of(Self::ALIGN);
            Self { name, offset, bytes }
        };
        parts.into_iter().map(place).collect()
    }

    /// Bytes of an arena with these parts.
    pub fn end(parts: &[Self]) -> u64 {
        parts.iter().map(|p| p.offset + p.bytes).max().unwrap_or(0)
    }
}

/// A part of an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Region(pub(crate) u32);

impl Region {
    /// Its number: regions are counted as they are made.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// A byte within it.
    pub fn at(self, offset: u64) -> Ptr {
        Ptr { region: self, offset }
    }
}

/// A byte of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ptr {
    /// The region.
    pub region: Region,
    /// Byte within it.
    pub offset: u64,
}

impl Ptr {
    /// `bytes` further.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        Self { offset: self.offset + bytes, ..self }
    }
}

/// A kernel that a device has loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KernelId(pub(crate) u32);

/// An argument of a launch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// An address, and what the kernel does with the region.
    Ptr(Ptr, Access),
    /// No address: what is optional is not there.
    Null,
    /// A 32-bit number.
    U32(u32),
    /// A 64-bit number.
    U64(u64),
    /// A float.
    F32(f32),
}

/// A launch of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// The kernel.
    pub kernel: KernelId,
    /// Grid, block, dynamic shared memory.
    pub dims: Dims,
    /// Arguments, in the order of the kernel's parameters.
    pub args: Vec<Arg>,
    /// Whether it may begin before the launch ahead of it has ended: only for kernels that wait for their dependencies
    /// themselves, which those for [`Target::Sm90`] do.
    pub dependent: bool,
}

/// A captured sequence of launches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Captured(pub(crate) u32);

/// A copy to the host under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub(crate) u32);

/// A point in time on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark(pub(crate) u32);

/// A machine that kernels run on. See the [module](self). What has an answer here is that of a device without a clock.
pub trait Device: Send {
    /// What it is.
    fn about(&self) -> &About;

    /// Whether bytes that are written are there afterwards. Where they are not, nobody needs to make them.
    fn keeps_data(&self) -> bool {
        true
    }

    /// Allocates an arena, and gives its parts. Freed with the device.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] if it does not fit; nothing is allocated then.
    fn arena(&mut self, name: &str, parts: &[Place]) -> Result<Vec<Region>, DeviceError>;

    /// Copies bytes to the device. The source may change as soon as the call returns.
    ///
    /// # Errors
    /// [`DeviceError::Range`] if they do not fit, and failures of the driver.
    fn write(&mut self, to: Ptr, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Sets bytes to zero.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn clear(&mut self, at: Ptr, bytes: u64) -> Result<(), DeviceError>;

    /// Copies bytes on the device.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn copy(&mut self, from: Ptr, to: Ptr, bytes: u64) -> Result<(), DeviceError>;

    /// Copies bytes to the host; waits until they are there.
    ///
    /// # Errors
    /// As [`write`](Self::write); here, too, a fault of an earlier launch is noticed.
    fn read(&mut self, from: Ptr, out: &mut [u8]) -> Result<(), DeviceError> {
        let ticket = self.fetch(from, out.len())?;
        self.receive(ticket, out)
    }

    /// Begins to copy bytes to the host, in the order of launches.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn fetch(&mut self, from: Ptr, bytes: usize) -> Result<Ticket, DeviceError>;

    /// Waits for a copy to the host. `out` is as long as the copy; a ticket is used once.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn receive(&mut self, ticket: Ticket, out: &mut [u8]) -> Result<(), DeviceError>;

    /// Loads a kernel.
    ///
    /// # Errors
    /// [`DeviceError::Jit`] or [`DeviceError::Text`] if the text is not taken.
    fn kernel(&mut self, name: &str, text: &str) -> Result<KernelId, DeviceError>;

    /// Launches a kernel, or notes the launch while capturing.
    ///
    /// # Errors
    /// Failures of the driver; of the interpreter, a rule that the kernel broke.
    fn launch(&mut self, launch: &Launch) -> Result<(), DeviceError>;

    /// From here on, launches are noted and not run, until [`end_capture`](Self::end_capture).
    ///
    /// # Errors
    /// [`DeviceError::Capture`] if a capture is under way.
    fn begin_capture(&mut self) -> Result<(), DeviceError>;

    /// Ends a capture, and makes something of it that can be replayed.
    ///
    /// # Errors
    /// [`DeviceError::Capture`] if no capture is under way, or it holds nothing.
    fn end_capture(&mut self) -> Result<Captured, DeviceError>;

    /// Gives up what was noted since [`begin_capture`](Self::begin_capture), if anything.
    fn abandon_capture(&mut self);

    /// Runs what was captured, once.
    ///
    /// # Errors
    /// As [`launch`](Self::launch).
    fn replay(&mut self, captured: Captured) -> Result<(), DeviceError>;

    /// What was captured, as a graph in DOT, if the device can show it.
    ///
    /// # Errors
    /// [`DeviceError::Foreign`] if it is of another device.
    fn dot(&self, captured: Captured) -> Result<Option<String>, DeviceError> {
        let _ = captured;
        Ok(None)
    }

    /// Notes the time on the device when everything asked for so far is done. While capturing, the mark is captured too, and noted anew
    /// by every replay.
    ///
    /// # Errors
    /// Failures of the driver.
    fn mark(&mut self) -> Result<Mark, DeviceError> {
        Ok(Mark(0))
    }

    /// Notes the time at a mark that there is already.
    ///
    /// # Errors
    /// [`DeviceError::Foreign`] if there is none; failures of the driver.
    fn mark_again(&mut self, mark: Mark) -> Result<(), DeviceError> {
        let _ = mark;
        Ok(())
    }

    /// Nanoseconds from one mark to another; waits for the second. Zero on devices without a clock. Marks are used up by
    /// [`release_marks`](Self::release_marks).
    ///
    /// # Errors
    /// Failures of the driver.
    fn elapsed_ns(&mut self, from: Mark, to: Mark) -> Result<u64, DeviceError> {
        let _ = (from, to);
        Ok(0)
    }

    /// Forgets all marks.
    fn release_marks(&mut self) {}

    /// Waits until everything asked for is done.
    ///
    /// # Errors
    /// A fault of an earlier launch is noticed here.
    fn synchronize(&mut self) -> Result<(), DeviceError>;

    /// Bytes of device memory that are free, and bytes there are.
    ///
    /// # Errors
    /// Failures of the driver.
    fn memory(&mut self) -> Result<(u64, u64), DeviceError>;
}
