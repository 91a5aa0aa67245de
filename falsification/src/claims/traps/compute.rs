//! Traps in the arithmetic of kernels.

use bricks::cpu::SimdLevel;
use bricks::cpu::linear::{Acts, LinearKernel, Matrix, Packed, PackedShape, Q8Acts};
use bricks::quant::q8::Q8Rows;
use bricks::reference::{Arithmetic, Weight, linear};
use bricks::{DType, Divergence, quant};

use crate::claim::{Outcome, Refusal, require, require_eq, require_some};
use crate::context::Context;
use crate::noise::Noise;

/// Random blocks with scales of moderate size.
fn random_blocks(noise: &mut Noise, dtype: DType, blocks: usize) -> Vec<u8> {
    if dtype.is_float() {
        let values = noise.values(blocks, 1.0);
        let mut out = vec![0; blocks * dtype.block_bytes()];
        // Widths and types fit by construction; were they not, the zeros would show.
        let _ = quant::encode_row(dtype, &values, &mut out);
        return out;
    }
    let f16_fields: &[usize] = match dtype {
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
        _ => &[0],
    };
    let mut out: Vec<u8> = (0..blocks * dtype.block_bytes()).map(|_| noise.bits() as u8).collect();
    for block in out.chunks_mut(dtype.block_bytes()) {
        for at in f16_fields {
            // Exponents 2⁻⁷ to 2⁻⁴, either sign, any fraction.
            block[at + 1] = 0x20 | (block[at + 1] & 0x8f);
        }
    }
    out
}

/// The kernel's outputs for all tokens of `x`.
fn run_kernel(kernel: &LinearKernel, weight: &[u8], rows: usize, cols: usize, x: &[f32]) -> Result<Vec<f32>, Refusal> {
    let mut out = vec![f32::NAN; x.len() / cols * rows];
    let packed = Packed::new(PackedShape { dtype: kernel.dtype(), rows, cols }, weight)?;
    let matrix = Matrix { weight: packed.matrix(), bias: None };
    if kernel.takes_q8() {
        let codes = Q8Rows::from_values(cols, x)?;
        kernel.apply(&matrix, Acts::Q8(Q8Acts::from(&codes)), &mut out)?;
    } else {
        kernel.apply(&matrix, Acts::F32(x), &mut out)?;
    }
    Ok(out)
}

pub(super) fn layout(_: &Context) -> Outcome {
    // Row r holds 1 at column r + 1: output r is input r + 1. A transposed reading would give input r - 1.
    let n = 64;
    let mut values = vec![0.0f32; n * n];
    for r in 0..n - 1 {
        values[r * n + r + 1] = 1.0;
    }
    let x: Vec<f32> = (0..n).map(|i| (i as f32 - 20.0) / 8.0).collect();
    let expected: Vec<f32> = x[1..].iter().copied().chain([0.0]).collect();
    let mut levels = 0;
    for level in SimdLevel::available() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let mut bytes = vec![0; n * require_some(dtype.row_bytes(n), "whole blocks")?];
            quant::encode_row(dtype, &values, &mut bytes)?;
            let found = run_kernel(&LinearKernel::new(dtype, level), &bytes, n, n, &x)?;
            require_eq(&format!("outputs of a shift by one in {dtype} at {}", level.name()), &found, &expected)?;
        }
        levels += 1;
    }
    Ok(format!("a square shift matrix shifts the right way, 3 types at {levels} levels"))
}

pub(super) fn q4_k_mapping(_: &Context) -> Outcome {
    // All sub-scales different, all minimums different, every byte of codes with different nibbles.
    let scales: [u8; 8] = [1, 2, 3, 5, 17, 33, 48, 63];
    let minimums: [u8; 8] = [60, 50, 40, 30, 20, 10, 4, 0];
    let mut block = [0u8; 144];
    block[..2].copy_from_slice(&0x3c00u16.to_le_bytes()); // 1.0
    block[2..4].copy_from_slice(&0x3800u16.to_le_bytes()); // 0.5
    for j in 0..4 {
        block[4 + j] = scales[j] | (scales[j + 4] >> 4) << 6;
        block[8 + j] = minimums[j] | (minimums[j + 4] >> 4) << 6;
        block[12 + j] = (scales[j + 4] & 15) | (minimums[j + 4] & 15) << 4;
    }
    for (i, byte) in block[16..].iter_mut().enumerate() {
        *byte = (i % 16 + (i * 7 + 3) % 16 * 16) as u8;
    }
    let mut found = vec![0.0f32; 256];
    quant::decode_row(DType::Q4_K, &block, &mut found)?;
    for (i, found) in found.iter().enumerate() {
        let (sub, at) = (i / 32, sub_byte(i));
        let code = if sub % 2 == 0 { at % 16 } else { (at * 7 + 3) % 16 };
        let expected = f32::from(scales[sub]) * code as f32 - 0.5 * f32::from(minimums[sub]);
        require_eq(&format!("value {i} (sub-block {sub})"), found, &expected)?;
    }
    Ok("256 values of a block with 8 scales, 8 minimums and 16 codes, all different".into())
}

/// Byte of the codes that holds value `i`.
fn sub_byte(i: usize) -> usize {
    i / 64 * 32 + i % 32
}

pub(super) fn unaligned(_: &Context) -> Outcome {
    let mut noise = Noise::new(10);
    let (rows, cols) = (19, 512);
    let x = noise.values(3 * cols, 1.0);
    let mut compared = 0;
    for &dtype in DType::ALL {
        let weight = random_blocks(&mut noise, dtype, rows * cols / dtype.block_len());
        for level in SimdLevel::available() {
            let kernel = LinearKernel::new(dtype, level);
            let aligned = run_kernel(&kernel, &weight, rows, cols, &x)?;
            for shift in [1, 2, 3, 7, 31] {
                let mut moved = vec![0xaa; shift];
                moved.extend_from_slice(&weight);
                let found = run_kernel(&kernel, &moved[shift..], rows, cols, &x)?;
                let same = found.iter().zip(&aligned).all(|(a, b)| a.to_bits() == b.to_bits());
                require(same, format!("the same bits of {dtype} at {} moved by {shift}", level.name()), || {
                    "others".into()
                })?;
                compared += 1;
            }
        }
    }
    Ok(format!("{compared} moved matrices of {} types give the same bits", DType::ALL.len()))
}

pub(super) fn whole_blocks(_: &Context) -> Outcome {
    let mut refused = 0;
    for &dtype in DType::ALL.iter().filter(|d| d.block_len() == 256) {
        for cols in [32, 128, 255, 257, 896] {
            require_eq(&format!("bytes of a row of {cols} in {dtype}"), &dtype.row_bytes(cols), &None)?;
            let bytes = vec![0u8; cols.div_ceil(256) * dtype.block_bytes()];
            require(Weight::new(dtype, 1, cols, bytes.clone()).is_err(), "no weight", || format!("{dtype} of {cols}"))?;
            let packed = Packed::new(PackedShape { dtype, rows: 1, cols }, &bytes);
            require(packed.is_err(), "no packed matrix", || format!("{dtype} of {cols}"))?;
            refused += 3;
        }
    }
    require(refused > 0, "formats of 256-blocks", || "none".into())?;
    // Rows of 896 values, which real models have, are fine in formats of 32.
    require_eq("bytes of 896 values in Q8_0", &DType::Q8_0.row_bytes(896), &Some(952))?;
    Ok(format!("{refused} rows of partial blocks refused"))
}

pub(super) fn every_type(_: &Context) -> Outcome {
    let mut noise = Noise::new(29);
    let (mut compared, mut worst) = (0, 0.0f64);
    let (rows, cols) = (37, 768);
    let x = noise.values(21 * cols, 1.5);
    for &dtype in DType::ALL {
        let bytes = random_blocks(&mut noise, dtype, rows * cols / dtype.block_len());
        let weight = Weight::new(dtype, rows, cols, bytes.clone())?;
        for tokens in [1, 2, 5, 21] {
            let x = &x[..tokens * cols];
            let expected = linear(&weight, None, x, Arithmetic::Q8)?;
            let mut first: Option<Vec<f32>> = None;
            for level in SimdLevel::available() {
                let found = run_kernel(&LinearKernel::new(dtype, level), &bytes, rows, cols, x)?;
                let d = require_some(Divergence::between(&found, &expected), "as many outputs")?;
                require(d.error <= 1e-5, format!("{dtype}, {tokens} tokens, {} within 1e-5", level.name()), || {
                    format!("{:e}: {} for {} at {}", d.error, d.output, d.reference, d.index)
                })?;
                worst = worst.max(d.error);
                let first = first.get_or_insert_with(|| found.clone());
                let same = first.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits());
                require(same, format!("{dtype} at {} as at the lowest level", level.name()), || "other bits".into())?;
                compared += 1;
            }
        }
    }
    let levels: Vec<&str> = SimdLevel::available().map(SimdLevel::name).collect();
    Ok(format!("{compared} products of {} types at {}: error up to {worst:.1e}", DType::ALL.len(), levels.join(", ")))
}
