//! Shapes of launches.

/// How a kernel is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory per block.
    pub dynamic_shared: u32,
}

impl Dims {
    /// A one-dimensional launch without dynamic shared memory.
    pub fn linear(blocks: u32, threads: u32) -> Self {
        Self { grid: [blocks, 1, 1], block: [threads, 1, 1], dynamic_shared: 0 }
    }
}

/// A shape that a kernel cannot do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernel `{kernel}` takes {what} that is {expected}, found {found}")]
pub struct ShapeError {
    /// Name or family of the kernel.
    pub kernel: String,
    /// Which number: `rows`, `columns`, `tokens` …
    pub what: &'static str,
    /// What it has to be.
    pub expected: String,
    /// What it is.
    pub found: u64,
}

impl ShapeError {
    /// Refuses `found` unless it is in `1..=most` and a multiple of `multiple_of`; gives it as the 32 bits that kernels take.
    ///
    /// # Errors
    /// [`ShapeError`] with the rule that is broken.
    pub fn check(
        kernel: &str,
        what: &'static str,
        found: usize,
        multiple_of: usize,
        most: u32,
    ) -> Result<u32, ShapeError> {
        match u32::try_from(found) {
            Ok(n) if n >= 1 && n <= most && found.is_multiple_of(multiple_of) => Ok(n),
            _ => Err(Self {
                kernel: kernel.to_owned(),
                what,
                expected: match multiple_of {
                    1 => format!("1 to {most}"),
                    _ => format!("a multiple of {multiple_of}, at most {most}"),
                },
                found: found as u64,
            }),
        }
    }
}
