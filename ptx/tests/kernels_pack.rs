//! Planes of weights and tiles of activations, read back as their documentation says and compared with the formats' reference.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::kernels::activation;
use brick_ptx::kernels::pack::{PackError, Packed};
use brick_ptx::kernels::workload::{Noise, random_rows};
use brick_ptx::kernels::{Format, quantize};
use bricks::quant::q8::Q8Rows;
use half::{bf16, f16};
use proptest::prelude::*;

fn half_at(plane: &[u8], index: usize) -> f32 {
    f16::from_le_bytes([plane[2 * index], plane[2 * index + 1]]).to_f32()
}

/// The value of a row and column, by the tables of `kernels::pack` alone.
fn value(m: &Packed, row: usize, column: usize) -> f32 {
    let (blocks, supers) = (m.columns / 32, m.columns / 256);
    let (block, i) = (column / 32, column % 32);
    let (h, t, j) = (i / 16, i % 16 / 4, i % 4);
    let at = row * blocks + block;
    let low = || i32::from(m.codes[16 * at + i % 16] >> (4 * h) & 15);
    let fields = || {
        let place = 16 * (row * supers + block / 8);
        let bytes: [u8; 16] = m.scales[place..place + 16].try_into().unwrap();
        let pair = u128::from_le_bytes(bytes) >> (32 + 12 * (block % 8));
        let (d, dmin) = (half_at(&m.scales, place / 2), half_at(&m.scales, place / 2 + 1));
        (d * (pair & 63) as f32, dmin * (pair >> 6 & 63) as f32)
    };
    match m.format {
        Format::F16 => half_at(&m.codes, row * m.columns + column),
        Format::BF16 => {
            let at = 2 * (row * m.columns + column);
            bf16::from_le_bytes([m.codes[at], m.codes[at + 1]]).to_f32()
        }
        Format::Q4_0 => half_at(&m.scales, at) * (low() - 8) as f32,
        Format::Q4_1 => half_at(&m.scales, 2 * at) * low() as f32 + half_at(&m.scales, 2 * at + 1),
        Format::Q8_0 => {
            let code = m.codes[row * m.columns + h * m.columns / 2 + 16 * block + i % 16] as i8;
            half_at(&m.scales, at) * f32::from(code)
        }
        Format::Q4_K => {
            let (scale, min) = fields();
            scale * low() as f32 - min
        }
        Format::Q5_K => {
            let (scale, min) = fields();
            let high = i32::from(m.high[4 * at + j] >> (4 * h + t) & 1);
            scale * (low() | high << 4) as f32 - min
        }
        Format::Q6_K => {
            let high = i32::from(m.high[8 * at + 4 * h + j] >> (2 * t) & 3);
            let scale = half_at(&m.supers, row * supers + block / 8) * f32::from(m.scales[2 * at + h] as i8);
            scale * ((low() | high << 4) - 32) as f32
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn planes_hold_what_the_file_holds(seed: u64, rows in 1_usize..4, units in 1_usize..5) {
        for format in Format::ALL {
            let columns = units * format.column_multiple();
            let bytes = random_rows(format, rows, columns, &mut Noise::new(seed));
            let packed = Packed::matrix(format, columns, &bytes).unwrap();
            prop_assert_eq!(packed.rows, rows);
            prop_assert_eq!(packed.bytes(), bytes.len());
            for (row, expected) in launches::decoded(format, columns, &bytes).into_iter().enumerate() {
                for (column, expected) in expected.into_iter().enumerate() {
                    let found = value(&packed, row, column);
                    prop_assert_eq!(found.to_bits(), expected.to_bits(), "{:?} {} {}", format, row, column);
                }
            }
        }
    }
}

#[test]
fn rows_of_gate_and_up_take_turns() {
    let mut noise = Noise::new(3);
    let [gate, up] = [0; 2].map(|_| random_rows(Format::Q8_0, 3, 64, &mut noise));
    let both = Packed::gated(Format::Q8_0, 64, &gate, &up).unwrap();
    let [gate, up] = [gate, up].map(|m| Packed::matrix(Format::Q8_0, 64, &m).unwrap());
    for i in 0..3 {
        for column in 0..64 {
            assert_eq!(value(&both, 2 * i, column), value(&gate, i, column));
            assert_eq!(value(&both, 2 * i + 1, column), value(&up, i, column));
        }
    }
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let refused = |format, columns, bytes: &[u8]| Packed::matrix(format, columns, bytes).unwrap_err();
    assert_eq!(
        refused(Format::Q4_K, 128, &[0; 72]),
        PackError::Columns { format: Format::Q4_K, multiple_of: 256, columns: 128 }
    );
    assert_eq!(
        refused(Format::F16, 12, &[0; 24]),
        PackError::Columns { format: Format::F16, multiple_of: 8, columns: 12 }
    );
    assert_eq!(
        refused(Format::Q8_0, 32, &[0; 40]),
        PackError::Row { format: Format::Q8_0, row: 1, columns: 32, expected: 34, found: 6 }
    );
    let uneven = Packed::gated(Format::Q8_0, 32, &[0; 68], &[0; 34]).unwrap_err();
    assert_eq!(uneven, PackError::Row { format: Format::Q8_0, row: 3, columns: 32, expected: 34, found: 0 });
}

/// Values that the rounding of activations has rules for.
fn adversarial(tokens: usize, columns: usize, seed: u64) -> Vec<f32> {
    let mut x = Noise::new(seed).floats(tokens * columns);
    let special = [0.0, -0.0, 1e-38, f32::MIN_POSITIVE, 127.0 * f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NAN];
    for (i, block) in x.chunks_exact_mut(32).enumerate() {
        match i % 12 {
            n @ 0..8 => block[(5 * i) % 32] = special[n],
            // Only one value: the rest is zero.
            n @ 8..10 => {
                block.fill(0.0);
                block[i % 32] = special[n - 4];
            }
            // Halves between two codes.
            10 => block.iter_mut().enumerate().for_each(|(j, x)| *x = if j == 0 { 127.0 } else { j as f32 + 0.5 }),
            _ => {}
        }
    }
    x
}

/// The tiles of `x`, by the reference.
fn tiles(x: &[f32], columns: usize) -> Vec<u8> {
    let rows = Q8Rows::from_values(columns, x).unwrap();
    let tokens = rows.rows();
    let mut tiles = vec![0; activation::bytes(columns, tokens)];
    for token in 0..tokens {
        let row = rows.row(token).unwrap();
        for (column, &code) in row.codes().iter().enumerate() {
            tiles[activation::code_at(tokens, token, column)] = code as u8;
        }
        for (block, (&scale, &[first, second])) in row.scales().iter().zip(row.sums()).enumerate() {
            let at = activation::scale_at(tokens, token, 32 * block);
            let whole = i32::from(first) + i32::from(second);
            tiles[at..at + 4].copy_from_slice(&scale.to_le_bytes());
            tiles[at + 4..at + 8].copy_from_slice(&(scale * whole as f32).to_le_bytes());
            tiles[at + 8..at + 10].copy_from_slice(&first.to_le_bytes());
            tiles[at + 10..at + 12].copy_from_slice(&second.to_le_bytes());
            tiles[at + 12..at + 16].copy_from_slice(&whole.to_le_bytes());
        }
    }
    tiles
}

/// Any NaN as the same NaN: a product with a NaN may have either sign and payload.
fn canonical(mut tiles: Vec<u8>) -> Vec<u8> {
    for tile in tiles.chunks_exact_mut(activation::TILE) {
        for word in tile[activation::SCALES..].chunks_exact_mut(4) {
            if f32::from_le_bytes([word[0], word[1], word[2], word[3]]).is_nan() && word[3] & 0x7f == 0x7f {
                word.copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
            }
        }
    }
    tiles
}

#[test]
fn activations_are_rounded_as_on_the_cpu_bit_for_bit() {
    use brick_ptx::ir::Target;
    use brick_ptx::kernels::workload::{Arg, Work, Workload, bytes_of_f32};

    for target in Target::ALL {
        let module = launches::module(quantize::quantize_q8(target), target);
        for (tokens, columns) in [(1, 32), (3, 896), (2, 1024), (1, 2080)] {
            let x = adversarial(tokens, columns, columns as u64);
            let expected = canonical(tiles(&x, columns));
            assert_eq!(canonical(activation::encode(&x, columns).unwrap()), expected, "{columns} columns on the host");
            let workload = Workload {
                dims: quantize::quantize_q8_dims(columns, tokens, 1).unwrap(),
                args: vec![Arg::read("x", bytes_of_f32(&x)), Arg::write("y", expected.len()), Arg::U32(columns as u32)],
                work: Work::default(),
            };
            for schedule in launches::SCHEDULES {
                let run = launches::run(&workload, &module, "quantize_q8", schedule);
                assert_eq!(canonical(run.bytes("y").unwrap().to_vec()), expected, "{columns} columns, {schedule:?}");
            }
        }
    }
    let refused = quantize::quantize_q8_dims(100, 1, 1).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "kernel `quantize_q8` takes columns that is a multiple of 32, at most 1073741824, found 100"
    );
}

#[test]
fn bfloat16_is_rounded_as_on_the_cpu() {
    use brick_ptx::ir::Target;
    use brick_ptx::kernels::workload::{Arg, Work, Workload, bytes_of_f32};
    use bricks::quant::float::round_bf16;

    let mut noise = Noise::new(9);
    let mut x: Vec<f32> = (0..2056).map(|_| f32::from_bits(noise.bits() as u32)).collect();
    x[..6].copy_from_slice(&[0.0, -0.0, 1.003_906_3, f32::MAX, f32::INFINITY, -1e-39]);
    let workload = Workload {
        dims: quantize::round_bf16_dims(x.len()).unwrap(),
        args: vec![Arg::read("x", bytes_of_f32(&x)), Arg::write("y", 2 * x.len()), Arg::U32(x.len() as u32)],
        work: Work::default(),
    };
    let module = launches::module(quantize::round_bf16(Target::Sm80), Target::Sm80);
    for schedule in launches::SCHEDULES {
        let run = launches::run(&workload, &module, "round_bf16", schedule);
        let (found, _) = run.bytes("y").unwrap().as_chunks::<2>();
        for (&x, &found) in x.iter().zip(found) {
            let (found, expected) = (bf16::from_le_bytes(found).to_f32(), round_bf16(x));
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{x:e} {found:e}");
        }
    }
}
