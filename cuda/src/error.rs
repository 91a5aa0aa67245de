//! What can go wrong on a device: each with what was asked for, what was found, and what helps.

use brick_ptx::interp::GpuError;

/// The device cannot be used, or refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// There is no driver library.
    #[error("no NVIDIA driver: libcuda is not on this machine (use --device cpu)")]
    NoDriver,
    /// The library is the toolkit's stub, which is for linking only.
    #[error("the libcuda found is the toolkit's stub, not a driver: install the NVIDIA driver, or use --device cpu")]
    StubDriver,
    /// The driver is older than the interface that is used.
    #[error("the NVIDIA driver speaks CUDA {}, {} or newer is needed: update the driver, or use --device cpu", version(*found), version(*needed))]
    DriverTooOld {
        /// As the driver counts: 12080 is 12.8.
        found: i32,
        /// The oldest that will do.
        needed: i32,
    },
    /// No GPU of that number.
    #[error("there is no GPU {ordinal}: the driver shows {count}{}", if *count == 0 { " (use --device cpu)" } else { ", counted from 0" })]
    Ordinal {
        /// The number asked for.
        ordinal: usize,
        /// GPUs there are.
        count: usize,
    },
    /// A GPU that the kernels are not written for.
    #[error("GPU {name} has compute capability {}.{}, 8.0 or newer is needed (use --device cpu)", capability.0, capability.1)]
    TooOld {
        /// Name of the GPU.
        name: String,
        /// Its compute capability.
        capability: (u32, u32),
    },
    /// An arena does not fit.
    #[error("the {arena} take {needed} bytes of device memory, {free} of {total} are free{}", advice(arena))]
    OutOfMemory {
        /// What the memory is for.
        arena: String,
        /// Bytes asked for.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes there are.
        total: u64,
    },
    /// The driver does not take a kernel.
    #[error("the driver refuses kernel `{kernel}`: {log}")]
    Jit {
        /// Name of the kernel.
        kernel: String,
        /// What the driver's assembler said.
        log: String,
    },
    /// The device fell over: nothing on it can be used any more.
    #[error("the GPU was lost in {call} ({}): start again", status(*code))]
    Lost {
        /// The call that noticed.
        call: &'static str,
        /// The driver's code.
        code: u32,
    },
    /// Another failure of the driver.
    #[error("{call} failed: {}", status(*code))]
    Driver {
        /// The call.
        call: &'static str,
        /// The driver's code.
        code: u32,
    },
    /// A capture that cannot be ended, or was not begun.
    #[error("capture: {0}")]
    Capture(&'static str),
    /// A kernel, graph or region of another device.
    #[error("{what} {id} is not of this device")]
    Foreign {
        /// A kernel, a graph, a region …
        what: &'static str,
        /// Its number.
        id: u32,
    },
    /// An access beyond the end of a region.
    #[error("bytes {start}..{end} are not inside region `{region}` of {size} bytes")]
    Range {
        /// Name of the region.
        region: String,
        /// First byte.
        start: u64,
        /// End of the access.
        end: u64,
        /// Size of the region.
        size: u64,
    },
    /// The interpreter found a fault, or does not take a text.
    #[error(transparent)]
    Interpreter(#[from] GpuError),
    /// The interpreter does not take a text.
    #[error("kernel `{kernel}`: {reason}")]
    Text {
        /// Name of the kernel.
        kernel: String,
        /// Why not.
        reason: String,
    },
}

fn version(v: i32) -> String {
    format!("{}.{}", v / 1000, v % 1000 / 10)
}

fn advice(arena: &str) -> &'static str {
    match arena {
        "KV pages" => ": use a smaller --ctx",
        "activations" => ": use a smaller --batch or --ctx",
        _ => ": use a smaller model, or --device cpu",
    }
}

/// The names of codes that people meet, from the driver's header: asking the driver for them is one more call that can fail.
fn status(code: u32) -> String {
    let name = match code {
        1 => "CUDA_ERROR_INVALID_VALUE",
        2 => "CUDA_ERROR_OUT_OF_MEMORY",
        3 => "CUDA_ERROR_NOT_INITIALIZED",
        4 => "CUDA_ERROR_DEINITIALIZED",
        34 => "CUDA_ERROR_STUB_LIBRARY",
        46 => "CUDA_ERROR_DEVICE_UNAVAILABLE",
        100 => "CUDA_ERROR_NO_DEVICE",
        101 => "CUDA_ERROR_INVALID_DEVICE",
        200 => "CUDA_ERROR_INVALID_IMAGE",
        201 => "CUDA_ERROR_INVALID_CONTEXT",
        209 => "CUDA_ERROR_NO_BINARY_FOR_GPU",
        214 => "CUDA_ERROR_ECC_UNCORRECTABLE",
        218 => "CUDA_ERROR_INVALID_PTX",
        222 => "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        400 => "CUDA_ERROR_INVALID_HANDLE",
        500 => "CUDA_ERROR_NOT_FOUND",
        700 => "CUDA_ERROR_ILLEGAL_ADDRESS",
        701 => "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
        702 => "CUDA_ERROR_LAUNCH_TIMEOUT",
        710 => "CUDA_ERROR_ASSERT",
        714 => "CUDA_ERROR_HARDWARE_STACK_ERROR",
        715 => "CUDA_ERROR_ILLEGAL_INSTRUCTION",
        716 => "CUDA_ERROR_MISALIGNED_ADDRESS",
        718 => "CUDA_ERROR_INVALID_PC",
        719 => "CUDA_ERROR_LAUNCH_FAILED",
        900 => "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        901 => "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
        905 => "CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
        910 => "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE",
        999 => "CUDA_ERROR_UNKNOWN",
        _ => return format!("CUDA error {code}"),
    };
    format!("{name} ({code})")
}

impl DeviceError {
    /// What the driver's code of a call stands for.
    pub(crate) fn driver(call: &'static str, code: u32) -> Self {
        match code {
            34 => Self::StubDriver,
            // Sticky: the context is gone.
            46 | 214 | 700 | 702 | 710 | 714..=719 | 999 => Self::Lost { call, code },
            _ => Self::Driver { call, code },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_was_found_and_what_helps() {
        let shown = [
            DeviceError::NoDriver,
            DeviceError::driver("cuInit", 34),
            DeviceError::DriverTooOld { found: 11040, needed: 12000 },
            DeviceError::Ordinal { ordinal: 3, count: 1 },
            DeviceError::Ordinal { ordinal: 0, count: 0 },
            DeviceError::TooOld { name: "Tesla T4".into(), capability: (7, 5) },
            DeviceError::OutOfMemory { arena: "KV pages".into(), needed: 9 << 30, free: 1 << 30, total: 8 << 30 },
            DeviceError::OutOfMemory { arena: "weights".into(), needed: 9 << 30, free: 1 << 30, total: 8 << 30 },
            DeviceError::driver("cuStreamSynchronize", 700),
            DeviceError::driver("cuMemFree", 1),
            DeviceError::driver("cuMemFree", 12345),
        ]
        .map(|e| e.to_string())
        .join("\n");
        insta::assert_snapshot!(shown);
    }
}
