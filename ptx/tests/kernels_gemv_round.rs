//! Epilogues that round: the results of two launches in one, bit for bit.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::interp::Schedule;
use brick_ptx::ir::{Kernel, Target};
use brick_ptx::kernels::gemv::mma::{FORMATS, GemvMma};
use brick_ptx::kernels::gemv::{Epilogue, Gemv};
use brick_ptx::kernels::workload::{Arg, Noise};
use brick_ptx::kernels::{Format, Run, Workload, activation};
use launches::{SCHEDULES, replace};

/// The tiles of all chunks, by the host.
fn tiles(y: &[f32], columns: usize, tokens: usize) -> Vec<u8> {
    y.chunks_exact(tokens * columns).flat_map(|y| activation::encode(y, columns).unwrap()).collect()
}

/// Runs a kernel with the activations of some chunks.
fn run(kernel: Kernel, load: &Workload, x: &[Vec<u8>], target: Target, schedule: Schedule) -> Run {
    let mut load = load.clone();
    replace(&mut load, "x", x.concat());
    load.dims.grid[1] = x.len() as u32;
    for arg in &mut load.args {
        let Arg::Buffer { name, .. } = *arg else { continue };
        let bytes = arg.bytes() as usize * x.len();
        *arg = match name {
            "y" => Arg::scratch(name, bytes),
            "tiles" => Arg::write(name, bytes),
            "arrivals" => Arg::update(name, vec![0; bytes]),
            _ => continue,
        };
    }
    let name = kernel.name.clone();
    launches::run(&load, &launches::module(kernel, target), &name, schedule)
}

/// Activations of some chunks.
fn activations(format: Format, tokens: usize, columns: usize, chunks: u64) -> Vec<Vec<u8>> {
    let of_chunk = |seed| {
        let x = Noise::new(seed).floats(tokens * columns);
        match format {
            Format::F16 => brick_ptx::kernels::workload::bytes_of_f32(&x),
            Format::BF16 => x.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
            _ => activation::encode(&x, columns).unwrap(),
        }
    };
    (0..chunks).map(of_chunk).collect()
}

fn gemv(format: Format, tokens: usize, epilogue: Epilogue) -> Gemv {
    Gemv::new(format, tokens, epilogue).unwrap()
}

/// The gated activation and its codes are those of the kernel that stores only, and of the host's rounding.
fn check_gated(
    kernel: &dyn Fn(Target) -> Kernel,
    load: &Workload,
    (format, tokens): (Format, usize),
    (rows, columns): (usize, usize),
    seed: u64,
) {
    let x = activations(format, tokens, columns, 2);
    let plain = gemv(format, tokens, Epilogue::SwiGlu);
    let reference = plain.workload(rows, columns, seed).unwrap();
    let expected = run(plain.kernel(Target::Sm80), &reference, &x, Target::Sm80, Schedule::RoundRobin);
    let expected = expected.f32s("y").unwrap();
    for target in Target::ALL {
        // Another schedule of warps and CTAs for each target.
        let schedule = SCHEDULES[(seed + target as u64) as usize % 4];
        let found = run(kernel(target), load, &x, target, schedule);
        let name = &kernel(target).name;
        assert_eq!(found.f32s("y").unwrap(), expected, "{name} {rows}x{columns}");
        assert!(found.bytes("tiles").unwrap() == tiles(&expected, rows / 2, tokens), "{name} {rows}x{columns}");
        assert!(found.bytes("arrivals").unwrap().iter().all(|&b| b == 0), "{name}: counters go back to zero");
    }
}

/// Rows whose outputs are one block, several, a whole group and more than one.
const ROWS: [usize; 4] = [64, 192, 2048, 2112];

#[test]
fn the_gated_activation_in_codes() {
    for (i, format) in Format::ALL.into_iter().enumerate() {
        for (j, tokens) in [1, 2, 3, 4, 5, 8].into_iter().enumerate() {
            let rows = if i == j { ROWS[2 + i % 2] } else { ROWS[(i + j) % 2] };
            if i != j && tokens % 2 == 1 && tokens > 1 {
                continue;
            }
            let (columns, seed) = (format.column_multiple().max(32), (7 * i + j) as u64);
            let gemv = gemv(format, tokens, Epilogue::SwiGluQ8);
            let load = gemv.workload(rows, columns, seed).unwrap();
            check_gated(&|target| gemv.kernel(target), &load, (format, tokens), (rows, columns), seed);
            if tokens == 1 {
                let narrow = gemv.narrow();
                assert!(narrow.name().ends_with("_b1_r1"));
                let load = narrow.workload(rows, columns, seed).unwrap();
                check_gated(&|target| narrow.kernel(target), &load, (format, 1), (rows, columns), seed);
            }
        }
    }
}

#[test]
fn the_gated_activation_in_codes_on_tensor_cores() {
    for (i, format) in FORMATS.into_iter().enumerate() {
        for rows in [ROWS[0], ROWS[1], ROWS[2 + i % 2]] {
            let (columns, seed) = (if rows == 64 { 1280 } else { 256 }, 40 + i as u64);
            let mma = GemvMma::with(format, Epilogue::SwiGluQ8).unwrap();
            let load = mma.workload(rows, columns, seed).unwrap();
            check_gated(&|target| mma.kernel(target), &load, (format, 8), (rows, columns), seed);
        }
    }
}

/// A token that is not finite poisons its own blocks only.
#[test]
fn poison_stays_with_its_token() {
    let gemv = gemv(Format::Q8_0, 2, Epilogue::SwiGluQ8);
    let load = gemv.workload(64, 32, 3).unwrap();
    let mut x = Noise::new(1).floats(64);
    x[40] = f32::NAN;
    let x = vec![activation::encode(&x, 32).unwrap()];
    let run = run(gemv.kernel(Target::Sm80), &load, &x, Target::Sm80, Schedule::Seeded(9));
    let y = run.f32s("y").unwrap();
    assert!(y[..32].iter().all(|y| y.is_finite()) && y[32..].iter().all(|y| y.is_nan()));
    let tiles = run.bytes("tiles").unwrap();
    let scale = |token| {
        let at = activation::scale_at(2, token, 0);
        f32::from_le_bytes(tiles[at..at + 4].try_into().unwrap())
    };
    assert!(scale(0).is_finite() && scale(1).is_nan());
}

#[test]
fn rows_that_are_not_blocks_are_refused() {
    let gated = gemv(Format::Q4_K, 1, Epilogue::SwiGluQ8);
    assert_eq!(
        gated.dims(96, 256, 1, 132).unwrap_err().to_string(),
        "kernel `gemv_swiglu_q8_q4_k_b1` takes rows that is a multiple of 64, at most 16777216, found 96"
    );
    assert!(GemvMma::with(Format::Q8_0, Epilogue::SwiGluQ8).unwrap().dims(32, 256, 1).is_err());
    assert_eq!(GemvMma::with(Format::Q8_0, Epilogue::ArgMax), None);
    assert_eq!(gated.narrow().dims(128, 256, 3, 132).unwrap().grid, [32, 3, 1]);
}
