//! Linear kernels against the decoded reference, and their promise that results do not depend on company.
#![allow(clippy::unwrap_used)]

use bricks::DType;
use bricks::cpu::SimdLevel;
use bricks::cpu::linear::{Acts, LinearKernel, Matrix, Packed, PackedMatrix, PackedShape, Q8Acts, ROW_GROUP, RawOut};
use bricks::quant::q8::Q8Rows;
use bricks::quant::{decode_row, dot_reference};
use half::f16;
use proptest::prelude::*;

/// A small generator (xorshift64*): the same matrices on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// In `-1..1`.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

const QUANTISED: [DType; 12] = [
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
    DType::IQ4_NL,
    DType::IQ4_XS,
];
const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Where a block keeps its f16 scale, and its f16 minimum if it has one.
fn scale_offsets(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
        _ => &[0],
    }
}

/// How codes and scales are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fill {
    /// Any bytes, scales around `size`.
    Random(f32),
    /// Every code and block scale byte is this one.
    Byte(u8),
}

fn quantised_matrix(dtype: DType, rows: usize, cols: usize, fill: Fill, rng: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; rows * dtype.row_bytes(cols).unwrap()];
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for b in block.iter_mut() {
            *b = match fill {
                Fill::Random(_) => rng.next() as u8,
                Fill::Byte(b) => b,
            };
        }
        for &at in scale_offsets(dtype) {
            let size = if let Fill::Random(size) = fill { size } else { 0.01 };
            block[at..at + 2].copy_from_slice(&f16::from_f32(rng.unit() * size).to_le_bytes());
        }
    }
    bytes
}

fn float_matrix(dtype: DType, rows: usize, cols: usize, rng: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rows * cols {
        let x = rng.unit() * 2.0;
        match dtype {
            DType::F32 => bytes.extend(x.to_le_bytes()),
            DType::F16 => bytes.extend(f16::from_f32(x).to_le_bytes()),
            _ => bytes.extend(half::bf16::from_f32(x).to_le_bytes()),
        }
    }
    bytes
}

fn values(n: usize, size: f32, rng: &mut Random) -> Vec<f32> {
    (0..n).map(|_| rng.unit() * size).collect()
}

/// The bytes at an odd address: files do not align rows.
fn misaligned(bytes: &[u8]) -> Vec<u8> {
    let mut v = vec![0; bytes.len() + 1];
    v[1..].copy_from_slice(bytes);
    v
}

fn pack(dtype: DType, rows: usize, cols: usize, file: &[u8]) -> Packed {
    Packed::new(PackedShape { dtype, rows, cols }, file).unwrap()
}

fn run(level: SimdLevel, dtype: DType, m: &Matrix<'_>, acts: Acts<'_>, tokens: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; tokens * m.weight.shape().rows];
    LinearKernel::new(dtype, level).apply(m, acts, &mut out).unwrap();
    out
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn check_quantised(dtype: DType, rows: usize, cols: usize, tokens: usize, fill: Fill, size: f32, rng: &mut Random) {
    let file = misaligned(&quantised_matrix(dtype, rows, cols, fill, rng));
    let file = &file[1..];
    let packed = pack(dtype, rows, cols, file);
    let m = Matrix { weight: packed.matrix(), bias: None };
    let acts = Q8Rows::from_values(cols, &values(tokens * cols, size, rng)).unwrap();
    let mut first = None;
    for level in SimdLevel::available() {
        let out = run(level, dtype, &m, Acts::Q8((&acts).into()), tokens);
        let row_bytes = dtype.row_bytes(cols).unwrap();
        for (i, &y) in out.iter().enumerate() {
            let (t, r) = (i / rows, i % rows);
            let reference = dot_reference(dtype, &file[r * row_bytes..][..row_bytes], acts.row(t).unwrap()).unwrap();
            assert!(
                reference.accepts(y, 1e-5),
                "{dtype} {level} [{rows}, {cols}] × {tokens}, {fill:?}: out[{t}][{r}] = {y}, expected {reference:?}"
            );
        }
        let expected = first.get_or_insert_with(|| out.clone());
        assert_eq!(bits(&out), bits(expected), "{dtype} {level} [{rows}, {cols}] × {tokens}: levels differ");
    }
}

#[test]
fn every_format_agrees_with_the_decoded_reference() {
    let mut rng = Random(1);
    for dtype in QUANTISED {
        for rows in [1, 2, 3, 7, 8, 15, 16, 17, 33] {
            for blocks in [1, 2, 3, 5] {
                for tokens in [1, 2, 3, 4, 5, 8, 9, 17, 25, 36] {
                    if rows * tokens <= 300 || blocks == 3 {
                        let cols = blocks * dtype.block_len();
                        check_quantised(dtype, rows, cols, tokens, Fill::Random(0.05), 3.0, &mut rng);
                    }
                }
            }
        }
        // Across panels of 512 inputs, with a short last one where blocks allow.
        for cols in [512, 768, 1536, 1024 + dtype.block_len(), 2304] {
            for tokens in [1, 6, 16, 21] {
                check_quantised(dtype, 19, cols, tokens, Fill::Random(0.05), 3.0, &mut rng);
            }
        }
    }
}

#[test]
fn extreme_codes_and_scales_neither_saturate_nor_overflow() {
    let mut rng = Random(2);
    for dtype in QUANTISED {
        let cols = 2 * dtype.block_len().max(64);
        for tokens in [1, 5, 16] {
            for byte in [0x00, 0xff, 0x80, 0x7f, 0x88, 0x77, 0xf0, 0x0f, 0xaa, 0x55] {
                check_quantised(dtype, 17, cols, tokens, Fill::Byte(byte), 1e3, &mut rng);
            }
            for (scale, size) in [(6e4, 1e4), (1e-6, 1e-6), (6e4, 1e-20), (0.0, 1.0), (1.0, 0.0), (6e-8, 1e20)] {
                check_quantised(dtype, 17, cols, tokens, Fill::Random(scale), size, &mut rng);
            }
        }
    }
}

/// Every activation at ±127 against the largest codes: the largest integers a block can produce.
#[test]
fn largest_products_of_both_signs_are_exact() {
    let mut rng = Random(3);
    for dtype in QUANTISED {
        let cols = dtype.block_len().max(64);
        let weight = quantised_matrix(dtype, 16, cols, Fill::Byte(0xff), &mut rng);
        let packed = pack(dtype, 16, cols, &weight);
        let m = Matrix { weight: packed.matrix(), bias: None };
        for pattern in [[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]] {
            let x: Vec<f32> = (0..cols).map(|i| pattern[i % 2] * 5.0).collect();
            let acts = Q8Rows::from_values(cols, &x).unwrap();
            for level in SimdLevel::available() {
                for (r, &y) in run(level, dtype, &m, Acts::Q8((&acts).into()), 1).iter().enumerate() {
                    let row = &weight[r * weight.len() / 16..][..weight.len() / 16];
                    let reference = dot_reference(dtype, row, acts.row(0).unwrap()).unwrap();
                    assert!(reference.accepts(y, 1e-6), "{dtype} {level} row {r}: {y}, expected {reference:?}");
                }
            }
        }
    }
}

#[test]
fn a_poisoned_block_makes_the_outputs_of_its_token_nan_and_of_no_other() {
    let mut rng = Random(4);
    for dtype in QUANTISED {
        let cols = 2 * dtype.block_len();
        let weight = quantised_matrix(dtype, 18, cols, Fill::Random(0.1), &mut rng);
        let packed = pack(dtype, 18, cols, &weight);
        let m = Matrix { weight: packed.matrix(), bias: None };
        let mut x = values(6 * cols, 1.0, &mut rng);
        x[2 * cols + cols - 1] = f32::INFINITY;
        let acts = Q8Rows::from_values(cols, &x).unwrap();
        for level in SimdLevel::available() {
            let out = run(level, dtype, &m, Acts::Q8((&acts).into()), 6);
            for (i, y) in out.iter().enumerate() {
                assert_eq!(y.is_nan(), i / 18 == 2, "{dtype} {level} out[{}][{}] = {y}", i / 18, i % 18);
            }
        }
    }
}

#[test]
fn scales_that_are_not_finite_give_the_same_at_every_level_and_in_any_company() {
    let mut rng = Random(11);
    for dtype in QUANTISED {
        for scale in [f16::INFINITY, f16::NEG_INFINITY, f16::NAN] {
            let cols = 2 * dtype.block_len();
            let mut weight = quantised_matrix(dtype, 18, cols, Fill::Random(0.1), &mut rng);
            // The first block of row 3.
            let at = 3 * weight.len() / 18 + scale_offsets(dtype)[0];
            weight[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            let packed = pack(dtype, 18, cols, &weight);
            let m = Matrix { weight: packed.matrix(), bias: None };
            let acts = Q8Rows::from_values(cols, &values(20 * cols, 1.0, &mut rng)).unwrap();
            let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            let alone: Vec<f32> = (0..20)
                .flat_map(|t| run(SimdLevel::Scalar, dtype, &m, Acts::Q8(acts.row(t).unwrap().into()), 1))
                .collect();
            for level in SimdLevel::available() {
                let all = run(level, dtype, &m, Acts::Q8((&acts).into()), 20);
                for (i, (&a, &b)) in all.iter().zip(&alone).enumerate() {
                    assert!(same(a, b), "{dtype} {level} scale {scale}: out[{}][{}] = {a}, alone {b}", i / 18, i % 18);
                    assert_eq!(
                        a.is_finite(),
                        i % 18 != 3,
                        "{dtype} {level} scale {scale}: out[{}][{}] = {a}",
                        i / 18,
                        i % 18
                    );
                }
            }
        }
    }
}

#[test]
fn float_weights_agree_with_f64_and_across_levels() {
    let mut rng = Random(5);
    for dtype in FLOATS {
        for (rows, cols) in [(1, 1), (2, 15), (3, 16), (7, 17), (9, 31), (17, 64), (20, 577), (50, 96), (33, 4128)] {
            for tokens in [1, 2, 3, 4, 5, 8, 9, 17, 33, 50] {
                if rows * cols * tokens > 2_000_000 {
                    continue;
                }
                let weight = misaligned(&float_matrix(dtype, rows, cols, &mut rng));
                let bias = values(rows, 1.0, &mut rng);
                let packed = pack(dtype, rows, cols, &weight[1..]);
                let m = Matrix { weight: packed.matrix(), bias: Some(&bias) };
                let x = values(tokens * cols, 2.0, &mut rng);
                // What the kernel of BF16 makes of activations.
                let seen: Vec<f32> = match dtype {
                    DType::BF16 => x.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect(),
                    _ => x.clone(),
                };
                let mut first = None;
                for level in SimdLevel::available() {
                    let out = run(level, dtype, &m, Acts::F32(&x), tokens);
                    let mut w = vec![0.0; cols];
                    for r in 0..rows {
                        let row_bytes = dtype.row_bytes(cols).unwrap();
                        decode_row(dtype, &weight[1..][r * row_bytes..][..row_bytes], &mut w).unwrap();
                        for t in 0..tokens {
                            let terms = w.iter().zip(&seen[t * cols..]).map(|(w, x)| f64::from(*w) * f64::from(*x));
                            let (mut sum, mut magnitude) = (f64::from(bias[r]), f64::from(bias[r].abs()));
                            for term in terms {
                                sum += term;
                                magnitude += term.abs();
                            }
                            let y = f64::from(out[t * rows + r]);
                            assert!((y - sum).abs() <= 1e-6 * magnitude, "{dtype} {level} [{t}][{r}]: {y} ≠ {sum}");
                        }
                    }
                    let expected = first.get_or_insert_with(|| out.clone());
                    assert_eq!(bits(&out), bits(expected), "{dtype} {level} [{rows}, {cols}] × {tokens}");
                }
            }
        }
    }
}

#[test]
fn floats_that_are_not_finite_or_tiny_are_the_same_at_every_level_and_in_any_company() {
    let special =
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-39, -1e-39, f32::MIN_POSITIVE, 1e38, -1e38, 0.0, -0.0, 1.0];
    let mut rng = Random(12);
    for dtype in FLOATS {
        let (rows, cols, tokens) = (18, 64, 20);
        let mut weight = float_matrix(dtype, rows, cols, &mut rng);
        let mut x = values(tokens * cols, 1.0, &mut rng);
        for (i, &v) in special.iter().enumerate() {
            // A weight of row `i`, and an activation of token `i`.
            let at = (i * cols + 5 * i) * dtype.block_bytes();
            let bytes: Vec<u8> = match dtype {
                DType::F32 => v.to_le_bytes().to_vec(),
                DType::F16 => f16::from_f32(v).to_le_bytes().to_vec(),
                _ => half::bf16::from_f32(v).to_le_bytes().to_vec(),
            };
            weight[at..at + bytes.len()].copy_from_slice(&bytes);
            x[i * cols + 3 * i] = v;
        }
        let packed = pack(dtype, rows, cols, &weight);
        let m = Matrix { weight: packed.matrix(), bias: None };
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        let alone: Vec<f32> =
            (0..tokens).flat_map(|t| run(SimdLevel::Scalar, dtype, &m, Acts::F32(&x[t * cols..][..cols]), 1)).collect();
        assert!(alone.iter().any(|y| y.is_nan()) && alone.iter().any(|y| y.is_infinite()), "{dtype}");
        for level in SimdLevel::available() {
            let all = run(level, dtype, &m, Acts::F32(&x), tokens);
            for (i, (&a, &b)) in all.iter().zip(&alone).enumerate() {
                assert!(same(a, b), "{dtype} {level}: out[{}][{}] = {a}, alone {b}", i / rows, i % rows);
            }
        }
    }
}

/// One matrix and 17 tokens; every way to cut the work must give the same bits as one token and one row at a time.
fn check_company(dtype: DType, rows: usize, cols: usize, cuts: &[usize], rng: &mut Random) {
    let tokens = 17;
    let q8 = QUANTISED.contains(&dtype);
    let weight = if q8 {
        quantised_matrix(dtype, rows, cols, Fill::Random(0.05), rng)
    } else {
        float_matrix(dtype, rows, cols, rng)
    };
    let bias = values(rows, 1.0, rng);
    let packed = pack(dtype, rows, cols, &weight);
    let m = Matrix { weight: packed.matrix(), bias: Some(&bias) };
    let x = values(tokens * cols, 1.0, rng);
    let encoded = Q8Rows::from_values(if q8 { cols } else { 32 * cols }, &x[..if q8 { x.len() } else { 0 }]).unwrap();
    let acts = |from: usize, to: usize| {
        if q8 {
            let planes = (&encoded.codes()[from * cols..to * cols], from * cols / 32..to * cols / 32);
            let (scales, sums) = (&encoded.scales()[planes.1.clone()], &encoded.sums()[planes.1.clone()]);
            Acts::Q8(Q8Acts::new(cols, planes.0, scales, sums).unwrap())
        } else {
            Acts::F32(&x[from * cols..to * cols])
        }
    };
    for level in SimdLevel::available() {
        let kernel = LinearKernel::new(dtype, level);
        let mut alone = vec![f32::NAN; tokens * rows];
        for t in 0..tokens {
            for r in 0..rows {
                let out = RawOut { ptr: alone[t * rows..].as_mut_ptr(), stride: rows };
                // SAFETY: `out` has `rows` elements.
                unsafe { kernel.rows(&m, r..r + 1, acts(t, t + 1), out).unwrap() };
            }
        }
        for n in [1, 2, 3, 4, 5, 8, 9, 17] {
            let mut together = vec![f32::NAN; n * (rows + 3)];
            let mut from = 0;
            for to in cuts.iter().map(|c| c % (rows + 1)).chain([rows]) {
                let out = RawOut { ptr: together.as_mut_ptr(), stride: rows + 3 };
                // SAFETY: `out` has `rows` elements and three more for each token.
                unsafe { kernel.rows(&m, from..to.max(from), acts(0, n), out).unwrap() };
                from = to.max(from);
            }
            for (t, row) in together.chunks_exact(rows + 3).enumerate() {
                assert_eq!(bits(&row[..rows]), bits(&alone[t * rows..][..rows]), "{dtype} {level} {n} tokens {cuts:?}");
                assert!(row[rows..].iter().all(|x| x.is_nan()), "{dtype} {level}: wrote beyond its rows");
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_tokens_ranges_or_level() {
    let mut rng = Random(6);
    for dtype in QUANTISED.into_iter().chain(FLOATS) {
        // Tiles of BF16 want whole runs of 32 inputs.
        let widths = if dtype.is_float() { vec![83, 160] } else { vec![3 * dtype.block_len().max(256)] };
        for cols in widths {
            for (rows, cuts) in [(37, &[5, 16, 21][..]), (16, &[8]), (5, &[2]), (48, &[16, 32])] {
                check_company(dtype, rows, cols, cuts, &mut rng);
            }
        }
    }
}

#[test]
fn contradicting_arguments_are_errors_and_write_nothing() {
    let weight = [0u8; 18 * 4];
    let kernel = LinearKernel::new(DType::Q4_0, SimdLevel::detect());
    let acts = Q8Rows::zeros(2, 32).unwrap();
    let wide = Q8Rows::zeros(1, 64).unwrap();
    let shape = PackedShape { dtype: DType::Q4_0, rows: 4, cols: 32 };
    let packed = Packed::new(shape, &weight).unwrap();
    let floats = pack(DType::F32, 4, 32, &[0; 4 * 32 * 4]);
    let m = Matrix { weight: packed.matrix(), bias: None };
    let (q8, mut out) = (Acts::Q8((&acts).into()), [7.0; 8]);
    kernel.apply(&m, q8, &mut out).unwrap();
    assert_eq!(out, [0.0; 8]);
    out = [7.0; 8];
    let errors = [
        (Matrix { bias: Some(&[0.0; 3]), ..m }, q8, "values of the bias: expected 4, found 3"),
        (m, Acts::F32(&[0.0; 64]), "activations of Q4_0 weights: expected Q8, found f32"),
        (Matrix { weight: floats.matrix(), ..m }, q8, "weights: expected Q4_0, found F32"),
    ];
    for (m, acts, message) in errors {
        assert_eq!(kernel.apply(&m, acts, &mut out).unwrap_err().to_string(), message);
    }
    let short = &mut out[..4];
    let error = kernel.apply(&m, Acts::Q8((&wide).into()), short).unwrap_err();
    assert_eq!(error.to_string(), "width of the activations: expected 32, found 64");
    let raw = RawOut { ptr: out.as_mut_ptr(), stride: 4 };
    // SAFETY: both calls are refused.
    let errors = unsafe {
        [kernel.rows(&m, 0..5, q8, raw), kernel.rows(&m, 0..4, q8, RawOut { stride: 3, ..raw })].map(Result::unwrap_err)
    };
    assert_eq!(errors[0].to_string(), "last row of the range: expected at most 4, found 5");
    assert_eq!(errors[1].to_string(), "rows of the range, for the stride of the output: expected at most 3, found 4");
    assert_eq!(out, [7.0; 8]);
    let planes = ([0i8; 64], [0f32; 2], [[0i16; 2]; 2]);
    assert!(Q8Acts::new(32, &planes.0, &planes.1, &planes.2).is_ok());
    assert!(Q8Acts::new(48, &planes.0, &planes.1, &planes.2).is_err());
    assert!(Q8Acts::new(0, &[], &[], &[]).is_err());
    assert!(Q8Acts::new(32, &planes.0, &planes.1[1..], &planes.2).is_err());
    assert!(Q8Acts::new(32, &planes.0, &planes.1, &planes.2[1..]).is_err());
    assert!(Q8Acts::new(64, &planes.0[32..], &planes.1[1..], &planes.2[1..]).is_err());
}

#[test]
fn bytes_that_are_not_the_matrix_are_not_packed() {
    let shape = PackedShape { dtype: DType::Q4_0, rows: 4, cols: 32 };
    let error = |shape: PackedShape, bytes: &[u8]| Packed::new(shape, bytes).unwrap_err().to_string();
    assert_eq!(error(shape, &[0; 71]), "bytes of the matrix: expected 72, found 71");
    let columns = "Q4_0 rows: expected a positive multiple of 32 values, found";
    assert_eq!(error(PackedShape { cols: 31, ..shape }, &[0; 72]), format!("{columns} 31"));
    assert_eq!(error(PackedShape { cols: 0, ..shape }, &[0; 72]), format!("{columns} 0"));
    assert!(Packed::new(PackedShape { rows: usize::MAX, ..shape }, &[0; 72]).is_err());
    assert!(Packed::new(PackedShape { cols: usize::MAX / 32 * 32, ..shape }, &[0; 72]).is_err());
    let mut out = vec![7; shape.bytes().unwrap()];
    assert!(shape.pack(&[0; 72], 0..2, &mut out).is_err());
    assert!(shape.pack(&[0; 72], 0..1, &mut out[1..]).is_err());
    assert!(out.iter().all(|&b| b == 7));
    let packed = pack(DType::Q4_0, 4, 64, &[0; 4 * 36]);
    assert!(PackedMatrix::new(shape, &out[..64]).is_err());
    assert_eq!(packed.matrix().shape().rows, 4);
}

/// The packed matrix has the bytes of the file, up to whole groups of sixteen rows and whole cache lines.
#[test]
fn packing_costs_no_memory_beyond_padding() {
    for &dtype in DType::ALL {
        for cols in [256, 512, 1536] {
            let shape = PackedShape { dtype, rows: 64, cols };
            let file = 64 * dtype.row_bytes(cols).unwrap();
            let packed = shape.bytes().unwrap();
            assert!(packed >= file && packed < file + 64 / ROW_GROUP * 64, "{dtype} {cols}: {packed} for {file}");
        }
    }
}

#[test]
fn no_tokens_and_no_rows_are_no_work() {
    for dtype in [DType::Q4_1, DType::F16] {
        let weight = vec![0u8; dtype.row_bytes(64).unwrap() * 2];
        let packed = pack(dtype, 2, 64, &weight);
        let m = Matrix { weight: packed.matrix(), bias: None };
        let none = Q8Rows::zeros(0, 64).unwrap();
        let acts = if dtype.is_float() { Acts::F32(&[]) } else { Acts::Q8((&none).into()) };
        LinearKernel::new(dtype, SimdLevel::detect()).apply(&m, acts, &mut []).unwrap();
        let one = Q8Rows::zeros(1, 64).unwrap();
        let acts = if dtype.is_float() { Acts::F32(&[0.0; 64]) } else { Acts::Q8((&one).into()) };
        let packed = pack(dtype, 0, 64, &[]);
        let m = Matrix { weight: packed.matrix(), bias: None };
        LinearKernel::new(dtype, SimdLevel::detect()).apply(&m, acts, &mut []).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.min(96)))] // PROPTEST_CASES lowers it

    #[test]
    fn random_shapes_and_values_agree(
        which in 0..QUANTISED.len(), rows in 1usize..80, blocks in 1usize..40, tokens in 1usize..50,
        scale in -14i32..10, size in -60i32..60, seed in 1u64..
    ) {
        let dtype = QUANTISED[which];
        let cols = blocks.div_ceil(dtype.block_len() / 32) * dtype.block_len();
        let fill = Fill::Random(2f32.powi(scale));
        check_quantised(dtype, rows, cols, tokens, fill, 2f32.powi(size), &mut Random(seed));
    }

    #[test]
    fn random_cuts_give_the_same_bits(
        which in 0..DType::ALL.len(), rows in 1usize..50, cuts in prop::collection::vec(0usize..50, 0..4), seed in 1u64..
    ) {
        let dtype = DType::ALL[which];
        let cols = if dtype.is_float() { 40 + 24 * (seed as usize % 2) } else { dtype.block_len() };
        check_company(dtype, rows, cols, &cuts, &mut Random(seed));
    }
}
