//! How long the interpreter takes for a real shape: 1024 x 1024 Q4_K weights times one token, with all checks.
//!
//! ```sh
//! cargo run --release -p brick-ptx --example gemv_speed
//! ```

use std::time::Instant;

use brick_ptx::interp::{Checks, Module, Schedule};
use brick_ptx::ir::{self, Target};
use brick_ptx::kernels::Format;
use brick_ptx::kernels::gemv::{Epilogue, Gemv};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gemv = Gemv::new(Format::Q4_K, 1, Epilogue::Store)?;
    let text = brick_ptx::compile(&ir::Module { kernels: vec![gemv.kernel(Target::Sm80)] }, Target::Sm80)?;
    let module = Module::parse(&text)?;
    let workload = gemv.workload(1024, 1024, 1)?;
    for checks in [Checks::Full, Checks::MemoryOnly] {
        let start = Instant::now();
        let run = workload.run(&module, &gemv.name(), Schedule::RoundRobin, checks)?;
        let seconds = start.elapsed().as_secs_f64();
        let lanes = run.counts.lane_instructions();
        println!("{checks:?}: {:.1} ms, {:.0} M lane-instructions/s", 1e3 * seconds, lanes as f64 / seconds / 1e6);
    }
    Ok(())
}
