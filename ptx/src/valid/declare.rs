//! Declarations: names, parameters, shape of blocks, shared memory.

use std::collections::HashSet;

use super::error::Check;
use super::{Checked, Place, ValidError, ValidErrorKind};
use crate::ir::{Kernel, Module, ParamKind, SharedSize, Target, Threads};

/// Static shared memory of one block, in bytes, on every architecture.
const MAX_STATIC: u64 = 48 << 10;

/// Parameters of one kernel, in bytes, up to PTX 8.0.
const MAX_PARAM_BYTES: u64 = 4352;

/// Kernels of a module have different names.
pub(super) fn names(module: &Module) -> Result<(), ValidError> {
    let mut seen = HashSet::new();
    for kernel in &module.kernels {
        if !seen.insert(kernel.name.as_str()) {
            let kind = ValidErrorKind::Duplicate { what: "kernels", name: kernel.name.clone() };
            return Err(ValidError { kernel: kernel.name.clone(), place: Place::Kernel, kind });
        }
    }
    Ok(())
}

pub(super) fn check(kernel: &Kernel, target: Target) -> Checked {
    identifier(&kernel.name)?;
    let mut seen = HashSet::from([kernel.name.as_str()]);
    let all = kernel.params.iter().map(|p| &p.name).chain(kernel.shared.iter().map(|s| &s.name));
    for name in all {
        identifier(name)?;
        if !seen.insert(name) {
            let what = "parameters and shared allocations of the kernel";
            return Err(ValidErrorKind::Duplicate { what, name: name.clone() });
        }
    }
    params(kernel)?;
    threads(kernel)?;
    shared(kernel)?;
    shared_limit(kernel, target.max_shared_bytes())
}

fn identifier(name: &str) -> Checked {
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let good = starts && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') && name.len() <= 255 && name != "_";
    if good { Ok(()) } else { Err(ValidErrorKind::Name { name: name.chars().take(255).collect() }) }
}

fn declared(what: impl Into<String>, expected: &'static str, found: impl Into<u64>, good: bool) -> Check<()> {
    if good { Ok(()) } else { Err(ValidErrorKind::Declaration { what: what.into(), expected, found: found.into() }) }
}

fn params(kernel: &Kernel) -> Checked {
    let mut bytes = 0_u64;
    for param in &kernel.params {
        let size = match param.kind {
            ParamKind::U32 { .. } | ParamKind::F32 => 4,
            ParamKind::Pointer { .. } | ParamKind::U64 { .. } => 8,
        };
        bytes = bytes.next_multiple_of(size) + size;
        match param.kind {
            ParamKind::Pointer { align, .. } => {
                let what = || format!("alignment of parameter `{}`", param.name);
                declared(what(), "a power of two", align, align.is_power_of_two())?;
            }
            ParamKind::U32 { multiple_of } | ParamKind::U64 { multiple_of } => {
                let what = || format!("divisor of parameter `{}`", param.name);
                declared(what(), "a power of two", multiple_of, multiple_of.is_power_of_two())?;
            }
            ParamKind::F32 => {}
        }
    }
    declared("size of all parameters", "at most 4352 bytes", bytes, bytes <= MAX_PARAM_BYTES)
}

fn threads(kernel: &Kernel) -> Checked {
    let (shape, what) = match kernel.threads {
        Threads::Any => ([1; 3], "threads per block"),
        Threads::UpTo(n) => ([n, 1, 1], "threads per block"),
        Threads::Exactly(shape) => (shape, "threads per block"),
    };
    let all = shape.iter().fold(1_u64, |n, &extent| n.saturating_mul(extent.into()));
    declared(what, "1 to 1024", all, (1..=1024).contains(&all))?;
    declared("extent of a block along z", "at most 64", shape[2], shape[2] <= 64)?;
    match kernel.min_blocks {
        None => Ok(()),
        Some(_) if kernel.threads == Threads::Any => {
            declared("number of threads next to a least number of blocks", "a declared one", 0_u64, false)
        }
        Some(n) => declared("least number of blocks per multiprocessor", "1 to 32", n, (1..=32).contains(&n)),
    }
}

fn shared(kernel: &Kernel) -> Checked {
    for shared in &kernel.shared {
        let what = || format!("alignment of shared `{}`", shared.name);
        let good = shared.align.is_power_of_two() && shared.align <= 1024;
        declared(what(), "a power of two up to 1024", shared.align, good)?;
        let (SharedSize::Static { bytes } | SharedSize::Dynamic { max_bytes: bytes }) = shared.size;
        declared(format!("size of shared `{}`", shared.name), "at least 1 byte", bytes, bytes > 0)?;
    }
    let found = kernel.shared.iter().filter(|s| matches!(s.size, SharedSize::Dynamic { .. })).count();
    if found > 1 {
        return Err(ValidErrorKind::DynamicShared { found });
    }
    let (found, _) = kernel.shared_bytes();
    if found > MAX_STATIC {
        return Err(ValidErrorKind::SharedMemory { what: "static", found, limit: MAX_STATIC });
    }
    Ok(())
}

/// Static and dynamic shared memory together fit.
pub(super) fn shared_limit(kernel: &Kernel, limit: u64) -> Checked {
    let (fixed, dynamic) = kernel.shared_bytes();
    let found = fixed + dynamic;
    if found > limit {
        return Err(ValidErrorKind::SharedMemory { what: "static and dynamic", found, limit });
    }
    Ok(())
}
