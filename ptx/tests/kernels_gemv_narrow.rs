//! One row per warp: the results of the kernels with two rows, bit for bit.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::interp::Schedule;
use brick_ptx::ir::Target;
use brick_ptx::kernels::Format;
use brick_ptx::kernels::gemv::{Epilogue, Gemv};
use brick_ptx::kernels::workload::{Arg, Noise, bytes_of_f32};

fn store(format: Format) -> Gemv {
    Gemv::new(format, 1, Epilogue::Store).unwrap()
}

/// Columns whose last steps have one, two, four and eight chunks, without and with whole steps before them.
fn columns(format: Format) -> [usize; 6] {
    // Of 32 blocks, or of as many lanes' columns of floats.
    let chunk = if format.is_float() { 256 } else { 1024 };
    let ragged = format.column_multiple();
    [ragged, 2 * chunk - ragged, 3 * chunk, 5 * chunk + ragged, 8 * chunk, 9 * chunk + ragged]
}

#[test]
fn the_bits_of_two_rows_a_warp() {
    for format in Format::ALL {
        let (wide, narrow) = (store(format), store(format).narrow());
        let reference = launches::module(wide.kernel(Target::Sm80), Target::Sm80);
        for target in Target::ALL {
            let module = launches::module(narrow.kernel(target), target);
            for (i, columns) in columns(format).into_iter().enumerate() {
                let (rows, seed) = ([1, 7, 4, 5, 2, 6][i], 90 + i as u64);
                let mut noise = Noise::new(seed);
                let (bias, residual) = (bytes_of_f32(&noise.floats(rows)), bytes_of_f32(&noise.floats(rows)));
                let [expected, found] = [(wide, &reference), (narrow, &module)].map(|(gemv, module)| {
                    let mut load = gemv.workload(rows, columns, seed).unwrap();
                    let first = load.args.len() - 6;
                    load.args[first] = Arg::read("bias", bias.clone());
                    load.args[first + 1] = Arg::read("residual", residual.clone());
                    launches::run(&load, module, &gemv.name(), launches::SCHEDULES[i % 4]).f32s("y").unwrap()
                });
                assert_eq!(found, expected, "{} {rows}x{columns}", narrow.name());
            }
        }
    }
}

/// All loads of a step come before its first product, in the text at least.
#[test]
fn eight_loads_are_under_way() {
    let narrow = store(Format::Q8_0).narrow();
    let text = brick_ptx::compile(&brick_ptx::ir::Module { kernels: vec![narrow.kernel(Target::Sm80)] }, Target::Sm80)
        .unwrap();
    let loads = text.split("dp4a").next().unwrap().matches("no_allocate.L2::256B.v4").count();
    assert_eq!(loads, 16, "eight blocks of two halves");
}

#[test]
fn few_rows_are_narrow() {
    let gemv = store(Format::Q4_K);
    assert_eq!((gemv.narrow().name(), gemv.narrow().rows_per_warp()), ("gemv_q4_k_b1_r1".to_owned(), 1));
    assert_eq!(gemv.narrow().dims(1536, 8960, 1, 132).unwrap().grid, [384, 1, 1]);
    assert!(gemv.prefers_narrow(1536, 132) && gemv.narrow().prefers_narrow(3166, 132));
    assert!(!gemv.prefers_narrow(3167, 132) && !gemv.prefers_narrow(17_920, 132));
    for other in [Gemv::new(Format::Q4_K, 2, Epilogue::Store), Gemv::new(Format::Q4_K, 1, Epilogue::ArgMax)] {
        let other = other.unwrap();
        assert_eq!(other.narrow(), other);
        assert!(!other.prefers_narrow(8, 132));
    }
}

/// The grid that narrow kernels are for.
#[test]
fn chunks_are_along_y() {
    let (rows, columns) = (6, 512);
    let narrow = store(Format::Q4_0).narrow();
    let module = launches::module(narrow.kernel(Target::Sm80), Target::Sm80);
    let one = narrow.workload(rows, columns, 4).unwrap();
    let x: Vec<Vec<u8>> = (0..3)
        .map(|i| brick_ptx::kernels::activation::encode(&Noise::new(i).floats(columns), columns).unwrap())
        .collect();
    let run = |x: Vec<u8>, chunks: usize| {
        let mut load = one.clone();
        launches::replace(&mut load, "x", x);
        load.dims.grid[1] = chunks as u32;
        let y = load.args.len() - 4;
        load.args[y] = Arg::write("y", 4 * rows * chunks);
        launches::run(&load, &module, &narrow.name(), Schedule::Seeded(2)).f32s("y").unwrap()
    };
    let expected: Vec<f32> = x.iter().flat_map(|x| run(x.clone(), 1)).collect();
    assert_eq!(run(x.concat(), 3), expected);
}
