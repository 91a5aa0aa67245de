//! Matrix times many vectors, executed.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::ir::Target;
use brick_ptx::kernels::Format;
use brick_ptx::kernels::gemm::{FORMATS, Gemm};
use brick_ptx::kernels::workload::{Arg, Noise, bytes_of_f32, random_rows};
use bricks::quant::{sub_block_len, unpack_row};
use half::bf16;

/// Rows as the kernel multiplies them: one rounding of `scale · code + minimum` to f32, one to bfloat16.
fn rounded(format: Format, columns: usize, bytes: &[u8]) -> Vec<Vec<f64>> {
    let Some(sub) = sub_block_len(launches::dtype(format)) else {
        let rows = launches::decoded(format, columns, bytes);
        return rows.into_iter().map(|row| row.into_iter().map(f64::from).collect()).collect();
    };
    bytes
        .chunks_exact(format.row_bytes(columns))
        .map(|row| {
            let mut codes = vec![0; columns];
            let (mut scales, mut mins) = (vec![0.0; columns / sub], vec![0.0; columns / sub]);
            unpack_row(launches::dtype(format), row, &mut codes, &mut scales, &mut mins).unwrap();
            let value = |(i, &code): (usize, &i8)| f32::from(code).mul_add(scales[i / sub], mins[i / sub]);
            codes.iter().enumerate().map(value).map(|w| bf16::from_f32(w).to_f64()).collect()
        })
        .collect()
}

#[test]
fn products_of_whole_and_ragged_tiles() {
    for format in FORMATS {
        let gemm = Gemm::new(format).unwrap();
        for (i, (rows, columns, tokens)) in
            [(128, 256, 128), (70, 512, 33), (130, 256, 1), (5, 256, 140)].into_iter().enumerate()
        {
            let mut workload = gemm.workload(rows, columns, tokens, 5).unwrap();
            let mut noise = Noise::new(5);
            let weights = rounded(format, columns, &random_rows(format, rows, columns, &mut noise));
            let x: Vec<f64> = noise.floats(tokens * columns).iter().map(|x| bf16::from_f32(*x).to_f64()).collect();
            let (bias, residual) = (noise.floats(rows), noise.floats(tokens * rows));
            let added = i % 2 == 1;
            if added {
                let first = workload.args.len() - 6;
                workload.args[first] = Arg::read("bias", bytes_of_f32(&bias));
                workload.args[first + 1] = Arg::read("residual", bytes_of_f32(&residual));
            }
            let target = Target::ALL[i % 2];
            let module = launches::module(gemm.kernel(target), target);
            let schedules = if i == 1 { launches::SCHEDULES.to_vec() } else { vec![launches::SCHEDULES[i]] };
            for schedule in schedules {
                let y = launches::run(&workload, &module, &gemm.name(), schedule).f32s("y").unwrap();
                for (at, &found) in y.iter().enumerate() {
                    let (token, row) = (at / rows, at % rows);
                    let terms = weights[row].iter().zip(&x[token * columns..]).map(|(w, x)| w * x);
                    let (mut expected, mut magnitude) = terms.fold((0.0, 0.0), |(s, m), t| (s + t, m + f64::abs(t)));
                    if added {
                        expected += f64::from(bias[row]) + f64::from(residual[at]);
                        magnitude += 2.0;
                    }
                    // An addition of f32 per mma, whose own sum the interpreter rounds once.
                    let tolerance = magnitude * columns as f64 / 16.0 * f64::powi(2.0, -24);
                    let error = (f64::from(found) - expected).abs();
                    assert!(error <= tolerance, "{format:?} {rows}x{columns}, {token} {row}: {found} {expected}");
                }
            }
        }
    }
}

/// The grid has room for more tokens than there are: what is beyond is neither read nor written.
#[test]
fn fewer_tokens_than_the_grid_has_room_for() {
    let gemm = Gemm::new(Format::Q8_0).unwrap();
    let (rows, columns) = (8, 64);
    let mut workload = gemm.workload(rows, columns, 5, 1).unwrap();
    workload.dims.grid[1] = 3;
    let module = launches::module(gemm.kernel(Target::Sm80), Target::Sm80);
    let y = launches::run(&workload, &module, &gemm.name(), launches::SCHEDULES[1]).f32s("y").unwrap();
    assert_eq!(y.len(), 5 * rows);
}

#[test]
fn the_tiles_have_no_bank_conflicts() {
    for format in FORMATS {
        let gemm = Gemm::new(format).unwrap();
        let module = launches::module(gemm.kernel(Target::Sm80), Target::Sm80);
        let run =
            launches::run(&gemm.workload(128, 256, 128, 1).unwrap(), &module, &gemm.name(), launches::SCHEDULES[0]);
        assert_eq!(run.counts.bank_conflicts(), 0, "{format:?}");
        assert_eq!(run.counts.class(brick_ptx::interp::Class::Matrix), 8 * 8 * 32);
    }
}
