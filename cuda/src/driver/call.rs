//! Calls of the driver, and what their codes mean.

use cudarc::driver::sys::CUresult;

use crate::error::DeviceError;

/// Success, or the error that a code stands for.
pub(super) fn check(name: &'static str, code: u32) -> Result<(), DeviceError> {
    if code == 0 { Ok(()) } else { Err(DeviceError::driver(name, code)) }
}

/// Calls the driver.
pub(super) fn call(name: &'static str, f: impl FnOnce() -> CUresult) -> Result<(), DeviceError> {
    check(name, f() as u32)
}
