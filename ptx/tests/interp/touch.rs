//! Whatever a text does: it ends.

use brick_ptx::interp::{Access, Arg, Checks, Gpu, Launch, Limits, Module, Schedule};

/// Parses a text and launches its kernels within tight limits: everything must end, with a result or an error.
pub(crate) fn touch(text: &str, seed: u64) {
    let Ok(module) = Module::parse(text) else { return };
    let limits = Limits { steps: 3000, bytes: 16 << 20, resident_blocks: 4, ..Limits::default() };
    for kernel in module.kernels() {
        for checks in [Checks::Full, Checks::MemoryOnly] {
            let mut gpu = Gpu::new(limits);
            let Ok(buffer) = gpu.buffer("b", &[1; 4096], Access::ReadWrite) else { return };
            let args: Vec<Arg> = module
                .parameters(kernel)
                .into_iter()
                .flatten()
                .map(|(_, bytes)| if bytes == 8 { Arg::Buffer(buffer) } else { Arg::U32(64) })
                .collect();
            let schedule = Schedule::Seeded(seed);
            let launch = Launch { dynamic_shared: 64, checks, schedule, ..Launch::linear(2, 64) };
            match gpu.launch(&module, kernel, launch, &args) {
                Ok(counts) => assert!(counts.instructions() <= limits.steps),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}
