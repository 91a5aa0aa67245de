//! Speed of the linear kernels alone, on one thread: operations per second for several numbers of tokens, and bytes of weights
//! per second for one token.
//!
//! ```sh
//! cargo run --release -p bricks --example linear_speed -- [ROWS COLS [TYPE …]]
//! ```
//!
//! Each figure is the best of many repetitions: what the kernel can do when nobody disturbs it. Weights are read from the
//! cache they fit into.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bricks::DType;
use bricks::cpu::linear::{Acts, LinearKernel, Matrix, Packed, PackedShape};
use bricks::cpu::{SimdLevel, probe};
use bricks::quant::q8::Q8Rows;

const TOKENS: [usize; 7] = [1, 2, 4, 8, 16, 64, 512];
const TYPES: [DType; 9] = [
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q8_0,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
    DType::F16,
    DType::BF16,
];

/// Shortest of repetitions over at least 150 ms.
fn best(mut f: impl FnMut()) -> f64 {
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    let mut n = 0;
    while n < 5 || begin.elapsed() < Duration::from_millis(150) {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed().as_secs_f64());
        n += 1;
    }
    best
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (rows, cols) = match &args[..] {
        [rows, cols, ..] => (rows.parse()?, cols.parse()?),
        _ => (1536, 768),
    };
    let types: Vec<DType> = if args.len() > 2 {
        let find = |name: &String| DType::ALL.iter().copied().find(|t| t.name() == name);
        args[2..].iter().map(|n| find(n).ok_or(format!("unknown type {n}"))).collect::<Result<_, _>>()?
    } else {
        TYPES.to_vec()
    };
    println!("[{rows}, {cols}], one thread, GOP/s by tokens, GB/s of weights at one token");
    for level in SimdLevel::available().filter(|&l| l >= SimdLevel::Avx2) {
        let iters = 200_000;
        let peak = |f: fn(SimdLevel, u64) -> u64| {
            let ops = f(level, iters) as f64;
            ops / best(|| _ = black_box(f(level, iters))) / 1e9
        };
        println!("{level}: int8 {:.0} GOP/s, f32 {:.0} GFLOP/s", peak(probe::int8_ops), peak(probe::f32_flops));
        for &dtype in &types {
            let bytes = rows * dtype.row_bytes(cols).ok_or("columns are not whole blocks")?;
            // Small positive numbers in every format: no NaN, no infinity.
            let file: Vec<u8> =
                (0..bytes).map(|i| if i % 2 == 1 { 40 + (i % 19) as u8 } else { (i * 37 % 61) as u8 }).collect();
            let packed = Packed::new(PackedShape { dtype, rows, cols }, &file)?;
            let matrix = Matrix { weight: packed.matrix(), bias: None };
            let kernel = LinearKernel::new(dtype, level);
            print!("  {:7}", dtype.name());
            for tokens in TOKENS {
                let x: Vec<f32> = (0..tokens * cols).map(|i| (i % 113) as f32 / 113.0 - 0.5).collect();
                let q8 = Q8Rows::from_values(cols.next_multiple_of(32), if dtype.is_float() { &[] } else { &x })?;
                let acts = || if dtype.is_float() { Acts::F32(&x) } else { Acts::Q8((&q8).into()) };
                let mut out = vec![0.0; tokens * rows];
                let t = best(|| kernel.apply(&matrix, acts(), black_box(&mut out)).expect("shapes agree"));
                print!(" {:5.0}", 2.0 * (rows * cols * tokens) as f64 / t / 1e9);
                if tokens == 1 {
                    print!(" ({:3.0} GB/s)", bytes as f64 / t / 1e9);
                }
            }
            println!();
        }
    }
    Ok(())
}
