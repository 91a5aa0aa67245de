//! The norm that is put off: sums with their squares and codes, and products that are divided by the root later.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::interp::Schedule;
use brick_ptx::ir::{Kernel, Target};
use brick_ptx::kernels::gemv::mma::{FORMATS, GemvMma};
use brick_ptx::kernels::gemv::{Epilogue, Gemv};
use brick_ptx::kernels::workload::{Arg, Noise, bytes_of_f32};
use brick_ptx::kernels::{Format, Workload, activation};
use launches::{SCHEDULES, assert_close, contents, floats, replace};

const CHUNKS: usize = 2;
const EPS: f32 = 1e-6;

fn gemv(format: Format, tokens: usize, epilogue: Epilogue) -> Gemv {
    Gemv::new(format, tokens, epilogue).unwrap()
}

fn position(load: &Workload, name: &str) -> usize {
    let is = |arg: &Arg| matches!(arg, Arg::Buffer { name: n, .. } if *n == name);
    load.args.iter().position(is).unwrap()
}

/// The activations of a workload, and others, as chunks; outputs of as many.
fn in_chunks(load: &mut Workload, x: &[u8]) {
    load.dims.grid[1] = CHUNKS as u32;
    replace(load, "x", x.to_vec());
    for arg in &mut load.args {
        let Arg::Buffer { name, .. } = *arg else { continue };
        let bytes = arg.bytes() as usize * CHUNKS;
        *arg = match name {
            "y" => Arg::scratch(name, bytes),
            "tiles" => Arg::write(name, bytes),
            "arrivals" => Arg::update(name, vec![0; bytes]),
            _ => continue,
        };
    }
}

fn activations(format: Format, tokens: usize, columns: usize) -> Vec<u8> {
    let of_chunk = |seed| {
        let x = Noise::new(seed).floats(tokens * columns);
        match format {
            Format::F16 => bytes_of_f32(&x),
            Format::BF16 => x.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
            _ => activation::encode(&x, columns).unwrap(),
        }
    };
    (0..CHUNKS as u64).flat_map(of_chunk).collect()
}

/// Sum of squares in the order of the kernels: four values of a lane, then lanes 4, 2 and 1 apart.
fn squares(block: &[f32]) -> f32 {
    let mut lanes: Vec<f32> =
        block.chunks_exact(4).map(|x| x[1..].iter().fold(x[0] * x[0], |sum, x| x.mul_add(*x, sum))).collect();
    for distance in [4, 2, 1] {
        lanes = (0..8).map(|lane| lanes[lane] + lanes[lane ^ distance]).collect();
    }
    lanes[0]
}

/// A sum with residual is that of the kernel that stores only; its codes and squares are the host's.
fn check_sum(
    kernel: &dyn Fn(Target) -> Kernel,
    load: &Workload,
    (format, tokens): (Format, usize),
    (rows, columns): (usize, usize),
    seed: u64,
) {
    let x = activations(format, tokens, columns);
    let residual = Arg::read("residual", bytes_of_f32(&Noise::new(seed + 900).floats(CHUNKS * tokens * rows)));
    let residual = if seed.is_multiple_of(3) { Arg::U64(0) } else { residual };
    let plain = gemv(format, tokens, Epilogue::Store);
    let mut reference = plain.workload(rows, columns, seed).unwrap();
    let at = reference.args.len() - 5;
    reference.args[at] = residual.clone();
    in_chunks(&mut reference, &x);
    let module = launches::module(plain.kernel(Target::Sm80), Target::Sm80);
    let expected = launches::run(&reference, &module, &plain.name(), Schedule::RoundRobin).f32s("y").unwrap();

    let mut load = load.clone();
    let at = position(&load, "y") - 1;
    assert_eq!(load.args[at], Arg::U64(0), "the residual is before the output");
    load.args[at] = residual;
    in_chunks(&mut load, &x);
    let at = position(&load, "squares");
    load.args[at] = Arg::write("squares", load.args[at].bytes() as usize * CHUNKS);
    let gain = floats(&load, "gain");
    let scaled: Vec<f32> = expected.iter().zip(gain.iter().cycle()).map(|(y, gain)| y * gain).collect();
    let tiles: Vec<u8> =
        scaled.chunks_exact(tokens * rows).flat_map(|y| activation::encode(y, rows).unwrap()).collect();
    let of_blocks: Vec<f32> = expected.chunks_exact(32).map(squares).collect();
    for target in Target::ALL {
        let name = &kernel(target).name;
        let schedule = SCHEDULES[(seed + target as u64) as usize % 4];
        let found = launches::run(&load, &launches::module(kernel(target), target), name, schedule);
        assert_eq!(found.f32s("y").unwrap(), expected, "{name} {rows}x{columns}");
        assert_eq!(found.f32s("squares").unwrap(), of_blocks, "{name} {rows}x{columns}");
        assert!(found.bytes("tiles").unwrap() == tiles, "{name} {rows}x{columns}");
        assert!(found.bytes("arrivals").unwrap().iter().all(|&b| b == 0), "{name}: counters go back to zero");
    }
}

/// Rows that are one block, several, a whole group and more than one.
const ROWS: [usize; 4] = [32, 96, 1024, 1056];

#[test]
fn sums_with_squares_and_codes() {
    for (i, format) in Format::ALL.into_iter().enumerate() {
        for (j, tokens) in [1, 2, 3, 4, 5, 8].into_iter().enumerate() {
            if i != j && tokens % 2 == 1 && tokens > 1 {
                continue;
            }
            let rows = if i == j { ROWS[2 + i % 2] } else { ROWS[(i + j) % 2] };
            let (columns, seed) = (format.column_multiple().max(32), (7 * i + j) as u64);
            let gemv = gemv(format, tokens, Epilogue::SumQ8);
            let load = gemv.workload(rows, columns, seed).unwrap();
            check_sum(&|target| gemv.kernel(target), &load, (format, tokens), (rows, columns), seed);
            if tokens == 1 {
                let narrow = gemv.narrow();
                assert!(narrow.name().ends_with("_b1_r1"));
                let load = narrow.workload(rows, columns, seed).unwrap();
                check_sum(&|target| narrow.kernel(target), &load, (format, 1), (rows, columns), seed);
            }
        }
    }
    for (i, format) in FORMATS.into_iter().enumerate() {
        let (rows, columns, seed) = (ROWS[1 + i], 512, 70 + i as u64);
        let mma = GemvMma::with(format, Epilogue::SumQ8).unwrap();
        let load = mma.workload(rows, columns, seed).unwrap();
        check_sum(&|target| mma.kernel(target), &load, (format, 8), (rows, columns), seed);
    }
}

/// The factor of a token: lanes take every 32nd square, then the tree over lanes 16, 8, 4, 2 and 1 apart.
fn root(squares: &[f32]) -> f32 {
    let mut lanes: Vec<f32> =
        (0..32).map(|lane| squares.iter().skip(lane).step_by(32).fold(0.0, |sum, square| sum + square)).collect();
    for distance in [16, 8, 4, 2, 1] {
        lanes = (0..32).map(|lane| lanes[lane] + lanes[lane ^ distance]).collect();
    }
    1.0 / (lanes[0] / (32 * squares.len()) as f32 + EPS).sqrt()
}

/// Any kernel of the family.
struct Variant<'a> {
    kernel: &'a dyn Fn(Target) -> Kernel,
    load: Workload,
}

#[test]
fn products_are_divided_by_the_root() {
    for (i, format) in Format::QUANTISED.into_iter().enumerate() {
        for (j, tokens) in [1, 2, 4, 8].into_iter().enumerate() {
            let (rows, seed) = (11, (5 * i + j) as u64);
            let columns = [256, 1280, 2304, 768][(i + j) % 4];
            let x = activations(format, tokens, columns);
            let mut noise = Noise::new(seed);
            let squares: Vec<f32> = noise.floats(CHUNKS * tokens * columns / 32).iter().map(|x| 90.0 * x * x).collect();
            let bias = noise.floats(rows);
            let residual = noise.floats(CHUNKS * tokens * rows);
            let plain = gemv(format, tokens, Epilogue::Store);
            let mut reference = plain.workload(rows, columns, seed).unwrap();
            in_chunks(&mut reference, &x);
            let module = launches::module(plain.kernel(Target::Sm80), Target::Sm80);
            let products = launches::run(&reference, &module, &plain.name(), Schedule::RoundRobin).f32s("y").unwrap();
            let roots: Vec<f32> = squares.chunks_exact(columns / 32).map(root).collect();
            let expected: Vec<f32> = (products.iter().enumerate())
                .map(|(i, product)| product * roots[i / rows] + bias[i % rows] + residual[i])
                .collect();

            let scaled = plain.scaled();
            let mma = GemvMma::new(format, false).filter(|_| tokens == 8).map(GemvMma::scaled);
            let of_scaled = |target| scaled.kernel(target);
            let of_narrow = |target| scaled.narrow().kernel(target);
            let of_mma = |target| mma.unwrap().kernel(target);
            let mut variants =
                vec![Variant { kernel: &of_scaled, load: scaled.workload(rows, columns, seed).unwrap() }];
            if tokens == 1 {
                let load = scaled.narrow().workload(rows, columns, seed).unwrap();
                variants.push(Variant { kernel: &of_narrow, load });
            }
            if let Some(mma) = mma {
                variants.push(Variant { kernel: &of_mma, load: mma.workload(rows, columns, seed).unwrap() });
            }
            for Variant { kernel, mut load } in variants {
                in_chunks(&mut load, &x);
                replace(&mut load, "squares", bytes_of_f32(&squares));
                let y = position(&load, "y");
                assert_eq!(position(&load, "squares"), y - 3);
                load.args[y - 2] = Arg::read("bias", bytes_of_f32(&bias));
                load.args[y - 1] = Arg::read("residual", bytes_of_f32(&residual));
                for target in Target::ALL {
                    let schedule = SCHEDULES[(seed + target as u64) as usize % 4];
                    let name = &kernel(target).name;
                    let found = launches::run(&load, &launches::module(kernel(target), target), name, schedule);
                    assert_eq!(found.f32s("y").unwrap(), expected, "{name} {rows}x{columns}");
                }
            }
        }
    }
}

/// Both halves of the gated activation are divided, and all variants give the same bits.
#[test]
fn the_gated_activation_is_divided() {
    for (format, tokens) in [(Format::Q4_K, 1), (Format::Q8_0, 2), (Format::Q4_0, 8), (Format::Q6_K, 8)] {
        let (rows, columns) = (128, 512);
        let x = activations(format, tokens, columns);
        let squares: Vec<f32> =
            Noise::new(8).floats(CHUNKS * tokens * columns / 32).iter().map(|x| 9.0 * x * x).collect();
        let plain = gemv(format, tokens, Epilogue::Store);
        let mut reference = plain.workload(rows, columns, 6).unwrap();
        in_chunks(&mut reference, &x);
        let module = launches::module(plain.kernel(Target::Sm80), Target::Sm80);
        let products = launches::run(&reference, &module, &plain.name(), Schedule::RoundRobin).f32s("y").unwrap();
        let roots: Vec<f32> = squares.chunks_exact(columns / 32).map(root).collect();
        let expected: Vec<f32> = (products.chunks_exact(2).enumerate())
            .map(|(i, pair)| {
                let [gate, up] = [pair[0], pair[1]].map(|product| product * roots[2 * i / rows]);
                gate / (1.0 + (-gate).exp()) * up
            })
            .collect();
        let scaled = gemv(format, tokens, Epilogue::SwiGluQ8).scaled();
        let mma = GemvMma::with(format, Epilogue::SwiGluQ8).filter(|_| tokens == 8).map(GemvMma::scaled);
        let mut variants = vec![(scaled.kernel(Target::Sm80), scaled.workload(rows, columns, 6).unwrap())];
        if tokens == 1 {
            let narrow = scaled.narrow();
            variants.push((narrow.kernel(Target::Sm80), narrow.workload(rows, columns, 6).unwrap()));
        }
        if let Some(mma) = mma {
            variants.push((mma.kernel(Target::Sm80), mma.workload(rows, columns, 6).unwrap()));
        }
        let mut first: Option<Vec<f32>> = None;
        for (kernel, mut load) in variants {
            in_chunks(&mut load, &x);
            replace(&mut load, "squares", bytes_of_f32(&squares));
            let name = kernel.name.clone();
            let run = launches::run(&load, &launches::module(kernel, Target::Sm80), &name, Schedule::Seeded(3));
            let y = run.f32s("y").unwrap();
            assert_close(&y, &expected, 2e-6, &name);
            let tiles = y.chunks_exact(tokens * rows / 2).flat_map(|y| activation::encode(y, rows / 2).unwrap());
            assert!(run.bytes("tiles").unwrap() == tiles.collect::<Vec<_>>(), "{name}");
            assert_eq!(first.get_or_insert(y.clone()), &y, "{name}");
        }
    }
}

/// What is put off is the norm: a matrix, then a scaled one, against the norm between them.
#[test]
fn the_norm_is_the_norm() {
    use brick_ptx::kernels::norm;
    let (hidden, rows) = (256, 24);
    let sum = gemv(Format::Q8_0, 1, Epilogue::SumQ8);
    let load = sum.workload(hidden, 64, 1).unwrap();
    let run =
        launches::run(&load, &launches::module(sum.kernel(Target::Sm80), Target::Sm80), &sum.name(), SCHEDULES[1]);

    let mut of_norm = norm::workload(norm::Output::Q8, 1, hidden, EPS, 1).unwrap();
    replace(&mut of_norm, "x", run.bytes("y").unwrap().to_vec());
    replace(&mut of_norm, "gain", contents(&load, "gain").to_vec());
    let kernel = norm::rms_norm(norm::Output::Q8, Target::Sm80);
    let normed = launches::run(&of_norm, &launches::module(kernel, Target::Sm80), "rms_norm_q8", SCHEDULES[0]);

    let plain = gemv(Format::Q4_K, 1, Epilogue::Store);
    let mut expected = plain.workload(rows, hidden, 2).unwrap();
    replace(&mut expected, "x", normed.bytes("y").unwrap().to_vec());
    let mut found = plain.scaled().workload(rows, hidden, 2).unwrap();
    replace(&mut found, "x", run.bytes("tiles").unwrap().to_vec());
    replace(&mut found, "squares", run.bytes("squares").unwrap().to_vec());
    let [expected, found] = [(plain, expected), (plain.scaled(), found)].map(|(gemv, load)| {
        launches::run(&load, &launches::module(gemv.kernel(Target::Sm80), Target::Sm80), &gemv.name(), SCHEDULES[2])
            .f32s("y")
            .unwrap()
    });
    // Codes on the border between two differ.
    let size = expected.iter().map(|y| y.abs()).fold(0.0, f32::max);
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 5e-3 * size, "{found} {expected}");
    }
}

#[test]
fn what_is_never_scaled_stays_as_it_is() {
    for other in [gemv(Format::F16, 1, Epilogue::Store), gemv(Format::Q4_K, 1, Epilogue::ArgMax)] {
        assert_eq!(other.scaled(), other);
    }
    assert_eq!(gemv(Format::Q4_K, 1, Epilogue::Store).narrow().scaled().name(), "gemv_q4_k_b1_scaled_r1");
    assert_eq!(GemvMma::new(Format::Q4_K, false).unwrap().scaled().name(), "gemv_mma_q4_k_b8_scaled");
    let sum = gemv(Format::Q4_K, 1, Epilogue::SumQ8);
    assert_eq!(sum.scaled(), sum);
    assert_eq!(
        sum.dims(48, 256, 1, 132).unwrap_err().to_string(),
        "kernel `gemv_sum_q8_q4_k_b1` takes rows that is a multiple of 32, at most 16777216, found 48"
    );
}
