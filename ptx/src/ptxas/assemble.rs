//! Assembling, and what the assembler says of each kernel.

use std::fmt;
use std::fs;

use super::locate::{crashed, run, said};
use super::{PtxasError, Tools};
use crate::ir::Arch;

/// Machine code of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled {
    /// The code, as the driver loads it.
    pub cubin: Vec<u8>,
    /// What each kernel takes, by name.
    pub resources: Vec<Resources>,
}

/// What a kernel takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Name of the kernel.
    pub kernel: String,
    /// Registers per thread.
    pub registers: u32,
    /// Bytes per thread that registers are stored to for want of room.
    pub spill_store_bytes: u32,
    /// Bytes per thread that are loaded back.
    pub spill_load_bytes: u32,
    /// Bytes of stack per thread.
    pub stack_bytes: u32,
    /// Bytes of static shared memory per block.
    pub static_shared_bytes: u32,
    /// Barriers per block.
    pub barriers: u32,
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, registers, stack_bytes, static_shared_bytes, barriers, .. } = self;
        let (stores, loads) = (self.spill_store_bytes, self.spill_load_bytes);
        write!(f, "{kernel}: {registers} registers, spills {stores}+{loads} B, stack {stack_bytes} B, ")?;
        write!(f, "shared {static_shared_bytes} B, {barriers} barriers")
    }
}

impl Tools {
    /// Assembles a text for an architecture.
    ///
    /// # Errors
    /// [`PtxasError::Rejected`] with the assembler's words; others if it crashes or says something unknown.
    pub fn assemble(&self, ptx: &str, arch: Arch) -> Result<Assembled, PtxasError> {
        let scratch = tempfile::tempdir().map_err(PtxasError::io("create a directory in", std::env::temp_dir()))?;
        let (text, cubin) = (scratch.path().join("kernel.ptx"), scratch.path().join("kernel.cubin"));
        fs::write(&text, ptx).map_err(PtxasError::io("write", &text))?;
        let arch_flag = format!("-arch={arch}");
        let args = [arch_flag.as_ref(), "-v".as_ref(), text.as_os_str(), "-o".as_ref(), cubin.as_os_str()];
        let output = run(&self.ptxas, args)?;
        if !output.status.success() {
            let log = said(&output).replace(&*text.to_string_lossy(), "kernel.ptx");
            // It says what it does not take; a crash is silent or has no exit code.
            let spoke = output.status.code().is_some() && log.contains("ptxas");
            return Err(if spoke { PtxasError::Rejected { arch, log } } else { crashed(&self.ptxas, &output) });
        }
        let resources = resources(&said(&output))?;
        let cubin = fs::read(&cubin).map_err(PtxasError::io("read", cubin))?;
        Ok(Assembled { cubin, resources })
    }
}

/// Reads the report of `-v`.
fn resources(report: &str) -> Result<Vec<Resources>, PtxasError> {
    let mut all: Vec<Resources> = Vec::new();
    for line in report.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            all.push(Resources { kernel, ..Resources::default() });
        }
        let Some(kernel) = all.last_mut() else { continue };
        let error = |expected: &str| PtxasError::Report {
            tool: "ptxas",
            expected: format!("{expected} of `{}`", kernel.kernel),
            output: report.to_owned(),
        };
        if line.contains("bytes stack frame") {
            kernel.stack_bytes = before(line, " bytes stack frame").ok_or_else(|| error("the stack"))?;
            kernel.spill_store_bytes = before(line, " bytes spill stores").ok_or_else(|| error("spill stores"))?;
            kernel.spill_load_bytes = before(line, " bytes spill loads").ok_or_else(|| error("spill loads"))?;
        }
        if line.contains("Used ") {
            kernel.registers = before(line, " registers").ok_or_else(|| error("the registers"))?;
            // It leaves out what there is none of.
            kernel.barriers = before(line, " barriers").unwrap_or(0);
            kernel.static_shared_bytes = before(line, " bytes smem").unwrap_or(0);
        }
    }
    match all.iter().find(|r| r.registers == 0) {
        None => {
            all.sort_by(|a, b| a.kernel.cmp(&b.kernel));
            Ok(all)
        }
        Some(silent) => Err(PtxasError::Report {
            tool: "ptxas",
            expected: format!("the registers of `{}`", silent.kernel),
            output: report.to_owned(),
        }),
    }
}

/// The number before `unit`.
fn before(line: &str, unit: &str) -> Option<u32> {
    let (head, _) = line.split_once(unit)?;
    head.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn reads_a_report_of_two_kernels() {
        let report = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'b' for 'sm_80'\n\
            ptxas info    : Function properties for b\n    \
            64 bytes stack frame, 44 bytes spill stores, 48 bytes spill loads\n\
            ptxas info    : Used 255 registers, used 2 barriers, 64 bytes cumulative stack size, 512 bytes smem, 380 bytes cmem[0]\n\
            ptxas info    : Compiling entry function 'a' for 'sm_80'\n\
            ptxas info    : Function properties for a\n    \
            0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 12 registers";
        let [a, b] = resources(report).unwrap().try_into().unwrap();
        assert_eq!(a, Resources { kernel: "a".into(), registers: 12, ..Resources::default() });
        assert_eq!(b.to_string(), "b: 255 registers, spills 44+48 B, stack 64 B, shared 512 B, 2 barriers");
    }

    #[test]
    fn a_kernel_without_numbers_is_an_error() {
        let report = "ptxas info    : Compiling entry function 'k' for 'sm_80'";
        assert!(matches!(resources(report), Err(PtxasError::Report { .. })));
    }
}
