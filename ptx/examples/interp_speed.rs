//! How fast the interpreter is: a 1024 x 1024 matrix-vector product with 4-bit weights, in lane-instructions per second.
//!
//! ```sh
//! cargo run --release -p brick-ptx --example interp_speed
//! ```

#[path = "../tests/interp/gemv_q4.rs"]
mod gemv_q4;

use std::time::{Duration, Instant};

use brick_ptx::interp::{Access, Arg, Checks, Counts, Gpu, Launch, Limits, Module};

const SIZE: usize = 1024;
const RUNS: u32 = 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let module = Module::parse(include_str!("../tests/interp/gemv_q4.ptx"))?;
    let problem = gemv_q4::Problem::new(SIZE, SIZE);
    let mut gpu = Gpu::new(Limits::default());
    let w = gpu.buffer("w", &problem.w, Access::Read)?;
    let dm = gpu.buffer("dm", &problem.dm, Access::Read)?;
    let q = gpu.buffer("q", &problem.q, Access::Read)?;
    let s = gpu.buffer("s", &problem.s, Access::Read)?;
    let y = gpu.output("y", 4 * problem.rows)?;
    let args = [w, dm, q, s, y].map(Arg::Buffer).into_iter().chain([Arg::U32(problem.blocks as u32)]);
    let args: Vec<Arg> = args.collect();
    for checks in [Checks::Full, Checks::MemoryOnly] {
        let launch = Launch { checks, ..Launch::linear(problem.rows as u32 / 4, 128) };
        let mut best = Duration::MAX;
        let mut counts = Counts::default();
        for _ in 0..RUNS {
            let start = Instant::now();
            counts = gpu.launch(&module, "gemv_q4", launch, &args)?;
            best = best.min(start.elapsed());
        }
        let worst = gpu
            .read(y)?
            .chunks_exact(4)
            .zip(&problem.y)
            .map(|(found, expected)| {
                let found = f32::from_le_bytes([found[0], found[1], found[2], found[3]]);
                (f64::from(found) - expected).abs()
            })
            .fold(0.0, f64::max);
        let rate = counts.lane_instructions() as f64 / best.as_secs_f64();
        println!("{checks:?}: {best:.2?} the fastest of {RUNS}, {:.0} M lane-instructions/s", rate / 1e6);
        println!("largest difference from f64: {worst:.2e}");
        println!("{counts}\n");
    }
    Ok(())
}
