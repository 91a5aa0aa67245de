//! Runs every shipped kernel on the GPU and in the interpreter, compares, and measures how fast weights stream. Prints JSON.

use std::time::Instant;

use brick_cuda::conform::{self, Verdict};
use brick_cuda::driver::Cuda;
use brick_cuda::rates::Pool;
use brick_cuda::{Device, DeviceError};
use brick_ptx::kernels::{self, Format};

fn main() -> Result<(), DeviceError> {
    let mut cuda = Cuda::open(0)?;
    let start = Instant::now();
    println!("{:?}", cuda.about());
    let mut counts = [0; 4];
    let mut jit = 0.0;
    let from: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    for (i, entry) in kernels::all().iter().enumerate().skip(from) {
        let t = Instant::now();
        let c = match conform::check(&mut cuda, entry) {
            Ok(c) => c,
            Err(e) => {
                // The context is gone, and with it this process: another goes on.
                println!("{}: {e}; {counts:?} before", entry.name);
                let me = std::env::current_exe().unwrap_or_default();
                let status = std::process::Command::new(me).arg((i + 1).to_string()).status();
                println!("{status:?}");
                return Ok(());
            }
        };
        jit += t.elapsed().as_secs_f64();
        counts[c.verdict as usize] += 1;
        if c.verdict != Verdict::Equal {
            println!("{}", serde_json::to_string(&c).unwrap_or_default());
        }
    }
    println!("equal, close, different, failed: {counts:?} in {:.1} s ({jit:.1})", start.elapsed().as_secs_f64());
    let pool = Pool::new(&mut cuda)?;
    println!("copy {:.0} GB/s", pool.copy_rate(&mut cuda)?);
    let shapes =
        [(17920, 1536), (1536, 8960), (1536, 1536), (2048, 1536), (151_936, 1536), (37888, 3584), (4608, 3584)];
    for format in Format::ALL {
        for tokens in [1, 2, 4, 8] {
            for shape in shapes {
                if format != Format::Q4_K && shape.0 != 17920 && shape.0 != 37888 && shape != (1536, 8960) {
                    continue;
                }
                for mma in [false, true] {
                    if mma && tokens != 8 {
                        continue;
                    }
                    if let Some(r) = pool.gemv(&mut cuda, format, tokens, mma, shape)? {
                        println!(
                            "{:24} {:6}x{:5} {:9.0} ns {:7.0} GB/s",
                            r.kernel, r.rows, r.columns, r.ns_per_launch, r.gb_per_s
                        );
                    }
                }
            }
        }
    }
    println!("all in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
