//! Weights, the embedding table, linear maps.

use super::super::{Arithmetic, Weight, embed, linear, linear_f32, linear_q8};
use super::noise;
use crate::dtype::DType;
use crate::error::BrickError;
use crate::quant;

/// A 3×2 matrix whose transpose has another product.
fn small() -> Weight<'static> {
    Weight::from_f32(3, 2, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap()
}

fn encoded(dtype: DType, rows: usize, cols: usize, values: &[f32]) -> Weight<'static> {
    let row_bytes = dtype.row_bytes(cols).unwrap();
    let mut bytes = vec![0; rows * row_bytes];
    for (dst, src) in bytes.chunks_exact_mut(row_bytes).zip(values.chunks_exact(cols)) {
        quant::encode_row(dtype, src, dst).unwrap();
    }
    Weight::new(dtype, rows, cols, bytes).unwrap()
}

#[test]
fn rows_of_the_matrix_meet_rows_of_the_input() {
    let y = linear_f32(&small(), None, &[1.0, 10.0, -1.0, 0.5]).unwrap();
    assert_eq!(y, [21.0, 43.0, 65.0, 0.0, -1.0, -2.0]);
    let y = linear_f32(&small(), Some(&[0.5, 0.0, -1.0]), &[1.0, 10.0]).unwrap();
    assert_eq!(y, [21.5, 43.0, 64.0]);
    assert_eq!(linear_f32(&small(), None, &[]).unwrap(), [0.0; 0], "no rows in, none out");
}

/// A sum in f32 would lose the ones.
#[test]
fn sums_are_exact_where_f32_is_not() {
    let w = Weight::from_f32(1, 4, &[1.0; 4]).unwrap();
    assert_eq!(linear_f32(&w, None, &[1e8, 1.0, -1e8, 1.0]).unwrap(), [2.0]);
}

/// Every type the crate decodes goes through the same loop over decoded rows.
#[test]
fn any_storage_type_is_its_decoded_values() {
    let cols = 256;
    for &dtype in DType::ALL {
        let row_bytes = dtype.row_bytes(cols).unwrap();
        // Any bits decode; small exponents keep them finite in practice, NaN compares by bits.
        let bytes: Vec<u8> = (0..2 * row_bytes).map(|i| ((i * 37 + 11) % 0x3a) as u8).collect();
        let mut rows = [vec![0.0; cols], vec![0.0; cols]];
        for (row, src) in rows.iter_mut().zip(bytes.chunks_exact(row_bytes)) {
            quant::decode_row(dtype, src, row).unwrap();
        }
        let x = noise(5, cols);
        let y = linear_f32(&Weight::new(dtype, 2, cols, bytes).unwrap(), None, &x).unwrap();
        for (found, row) in y.iter().zip(&rows) {
            let sum: f64 = row.iter().zip(&x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
            assert_eq!(found.to_bits(), (sum as f32).to_bits(), "{dtype}");
        }
    }
}

#[test]
fn q8_rounds_activations_and_nothing_else() {
    let (values, x) = (noise(6, 3 * 64), noise(7, 2 * 64));
    let w = encoded(DType::Q8_0, 3, 64, &values);
    let q8 = linear_q8(&w, None, &x).unwrap();
    // Block by block with the rule of the format: codes of 127/amax.
    let rounded: Vec<f32> = x
        .chunks_exact(32)
        .flat_map(|block| {
            let amax = block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            block.iter().map(move |v| (v * (127.0 / amax)).round_ties_even() * (amax / 127.0))
        })
        .collect();
    assert_eq!(q8, linear_f32(&w, None, &rounded).unwrap());
    let exact = linear_f32(&w, None, &x).unwrap();
    assert_ne!(q8, exact);
    assert!(q8.iter().zip(&exact).all(|(a, b)| (a - b).abs() < 0.1), "{q8:?} for {exact:?}");
}

#[test]
fn arithmetic_of_q8_is_for_quantised_weights() {
    let (values, x) = (noise(8, 64), noise(9, 32));
    for (dtype, rounds) in [(DType::F32, false), (DType::F16, false), (DType::BF16, false), (DType::Q4_0, true)] {
        let w = encoded(dtype, 2, 32, &values);
        let y = linear(&w, None, &x, Arithmetic::Q8).unwrap();
        let expected = if dtype == DType::BF16 {
            let rounded: Vec<f32> = x.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect();
            assert_ne!(rounded, x);
            linear_f32(&w, None, &rounded)
        } else if rounds {
            linear_q8(&w, None, &x)
        } else {
            linear_f32(&w, None, &x)
        };
        assert_eq!(y, expected.unwrap(), "{dtype}");
        assert_eq!(linear(&w, None, &x, Arithmetic::F32).unwrap(), linear_f32(&w, None, &x).unwrap());
    }
}

#[test]
fn a_poisoned_activation_stays_visible() {
    let w = encoded(DType::Q8_0, 1, 32, &noise(1, 32));
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = vec![1.0; 32];
        x[17] = bad;
        assert!(linear_q8(&w, None, &x).unwrap()[0].is_nan());
        assert!(!linear_f32(&w, None, &x).unwrap()[0].is_finite());
    }
}

#[test]
fn embedding_gathers_scaled_rows() {
    assert_eq!(embed(&small(), &[2, 0], 1.0).unwrap(), [5.0, 6.0, 1.0, 2.0]);
    assert_eq!(embed(&small(), &[1], 0.5).unwrap(), [1.5, 2.0]);
    assert_eq!(embed(&small(), &[], 1.0).unwrap(), [0.0; 0]);
    for token in [3, u32::MAX] {
        let error = embed(&small(), &[0, token], 1.0).unwrap_err();
        assert!(matches!(error, BrickError::Index { index, limit: 3, .. } if index == token as usize), "{error}");
    }
}

#[test]
fn weights_must_have_the_bytes_of_their_shape() {
    for (dtype, rows, cols, bytes) in [
        (DType::F32, 2, 2, 15),
        (DType::F32, 2, 2, 17),
        (DType::F32, 0, 2, 0),
        (DType::F32, 2, 0, 0),
        (DType::F32, usize::MAX, 4, 16),
        (DType::F32, 2, usize::MAX, 16),
        (DType::Q4_0, 1, 33, 18),
        (DType::Q4_K, 1, 32, 144),
    ] {
        let error = Weight::new(dtype, rows, cols, vec![0; bytes]).unwrap_err();
        assert!(matches!(error, BrickError::Weight { .. }), "{error}");
    }
    let borrowed = [0u8; 36];
    let w = Weight::new(DType::Q4_0, 2, 32, &borrowed[..]).unwrap();
    assert!(matches!(w.decode_row(2, &mut [0.0; 32]), Err(BrickError::Index { .. })));
    assert!(matches!(w.decode_row(usize::MAX, &mut [0.0; 32]), Err(BrickError::Index { .. })));
    assert!(matches!(w.decode_row(0, &mut [0.0; 31]), Err(BrickError::Quant { .. })));
    assert!(matches!(w.vector("norm", "gain", 32), Err(BrickError::Weight { .. })), "a matrix is no vector");
}

#[test]
fn inputs_and_biases_must_fit() {
    assert!(matches!(linear_f32(&small(), None, &[1.0; 3]), Err(BrickError::Shape { .. })));
    assert!(matches!(linear_f32(&small(), Some(&[0.0; 2]), &[1.0; 2]), Err(BrickError::Shape { .. })));
    assert!(matches!(linear_q8(&small(), None, &[1.0; 2]), Err(BrickError::Quant { .. })), "2 is no multiple of 32");
    assert!(matches!(linear_q8(&small(), None, &[1.0; 3]), Err(BrickError::Shape { .. })));
}
