//! Single cases of the codecs that golden files cannot hold or that deserve a name.

use bricks::DType;
use bricks::quant::{self, QuantError, dot_reference, q8};
use bricks::quant::{DotReference, q8::Q8Row, q8::Q8RowMut, q8::Q8Rows};

fn encode(dtype: DType, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; dtype.row_bytes(values.len()).expect("whole blocks")];
    quant::encode_row(dtype, values, &mut bytes).expect("lengths fit");
    bytes
}

/// ggml's C code starts from `max = +0.0` and never meets anything larger, so `d = 0 / -8 = -0.0` whatever the zeros'
/// signs; the Python package differs for a block of negative zeros. Files are written by the C code.
#[test]
fn zeros_of_either_sign_encode_alike() {
    for zero in [0.0, -0.0] {
        let q4_0 = encode(DType::Q4_0, &[zero; 32]);
        assert_eq!(q4_0[..2], [0x00, 0x80]);
        assert!(q4_0[2..].iter().all(|&b| b == 0x88));
        assert!(encode(DType::Q8_0, &[zero; 32]).iter().all(|&b| b == 0));
    }
}

/// Of two zeros the first is the minimum, as in ggml's C code.
#[test]
fn the_first_of_equal_minimums_gives_its_sign() {
    let minimum = |first: f32, second: f32| {
        let mut values = [1.0; 32];
        values[..2].copy_from_slice(&[first, second]);
        encode(DType::Q4_1, &values)[2..4].to_vec()
    };
    assert_eq!(minimum(0.0, -0.0), [0x00, 0x00]);
    assert_eq!(minimum(-0.0, 0.0), [0x00, 0x80]);
}

/// Half a unit in the last place of f16 above its largest value rounds to infinity, anything below does not.
#[test]
fn f16_rounds_its_upper_end() {
    assert_eq!(encode(DType::F16, &[65519.996]), 0x7bff_u16.to_le_bytes());
    assert_eq!(encode(DType::F16, &[65520.0]), 0x7c00_u16.to_le_bytes());
}

/// Every f16 and bf16 survives the way to f32 and back.
#[test]
fn half_floats_round_trip() {
    for dtype in [DType::F16, DType::BF16] {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut values = vec![0.0; 1 << 16];
        quant::decode_row(dtype, &bytes, &mut values).expect("lengths fit");
        let back = encode(dtype, &values);
        for (bits, x) in (0..=u16::MAX).zip(&values) {
            let found = u16::from_le_bytes([back[2 * bits as usize], back[2 * bits as usize + 1]]);
            let quiet = if dtype == DType::F16 { 0x0200 } else { 0x0040 };
            let expected = if x.is_nan() { bits | quiet } else { bits };
            assert_eq!(expected, found, "{dtype} {bits:#06x}");
        }
    }
}

#[test]
fn activation_ties_round_to_even() {
    // amax = 127: scale 1, codes are the rounded values.
    let mut values = [0.0; 32];
    values[..8].copy_from_slice(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5, 126.5]);
    let rows = Q8Rows::from_values(32, &values).expect("lengths fit");
    assert_eq!(rows.codes()[..8], [127, 0, 2, 2, 0, -2, -126, 126]);
    assert_eq!(rows.scales(), [1.0]);
    assert_eq!(rows.sums(), [[129, 0]]);
}

/// `x · (127 / amax)`, neither `x / (amax / 127)` nor `x · (1 / (amax / 127))`: these would give 0, 1, 6 here.
#[test]
fn activation_codes_multiply_by_the_inverse() {
    let mut values = [0.0; 32];
    values[..4].copy_from_slice(&[11.0, 0.043_307_09, 0.129_921_26, 0.562_992_16]);
    let rows = Q8Rows::from_values(32, &values).expect("lengths fit");
    assert_eq!(rows.codes()[..4], [127, 1, 2, 7]);
}

#[test]
fn activations_at_the_ends_of_f32() {
    let mut values = [0.0; 96];
    values[3] = q8::MIN_AMAX.next_down(); // flushed
    values[40] = q8::MIN_AMAX; // the smallest scale that is normal
    values[50] = -q8::MIN_AMAX / 2.0;
    values[64] = f32::MAX;
    values[95] = -f32::MAX;
    let rows = Q8Rows::from_values(96, &values).expect("lengths fit");
    assert_eq!(rows.scales(), [0.0, f32::MIN_POSITIVE, f32::MAX / 127.0]);
    assert_eq!([rows.codes()[3], rows.codes()[40], rows.codes()[50]], [0, 127, -64]);
    assert_eq!(rows.sums(), [[0, 0], [127, -64], [127, -127]]);
}

/// The sums are at their widest where all codes are ±127, and the signs of the halves do not mix.
#[test]
fn activation_sums_at_their_widest() {
    let values: Vec<f32> = (0..32).map(|i| if i < 16 { -3.0 } else { 3.0 }).collect();
    let rows = Q8Rows::from_values(32, &values).expect("lengths fit");
    assert_eq!(rows.sums(), [[-2032, 2032]]);
}

#[test]
fn one_broken_activation_poisons_its_block_and_every_dot_product_with_it() {
    let weights = encode(DType::Q8_0, &[0.0; 64]);
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![1.0; 64];
        values[40] = bad;
        let rows = Q8Rows::from_values(64, &values).expect("lengths fit");
        let row = rows.row(0).expect("one row");
        assert_eq!(row.scales()[1].to_bits(), q8::POISON.to_bits());
        let mut decoded = vec![0.0; 64];
        row.decode(&mut decoded).expect("lengths fit");
        assert!(decoded[..32].iter().all(|x| *x == 1.0) && decoded[32..].iter().all(|x| x.is_nan()));
        // Even against weights of zero.
        let dot = dot_reference(DType::Q8_0, &weights, row).expect("lengths fit");
        assert!(dot.value.is_nan() && dot.accepts(f32::NAN, 0.0) && !dot.accepts(0.0, 1e9));
    }
}

#[test]
fn rows_of_a_matrix_do_not_touch() {
    let values: Vec<f32> = (0..4 * 64).map(|i| i as f32).collect();
    let all = Q8Rows::from_values(64, &values).expect("lengths fit");
    let mut one_by_one = Q8Rows::zeros(4, 64).expect("lengths fit");
    for t in [2, 0, 3, 1] {
        let mut row = one_by_one.row_mut(t).expect("row");
        row.encode(&values[64 * t..][..64]).expect("lengths fit");
    }
    assert_eq!(all, one_by_one);
    assert_eq!(all.row(3).expect("row").scales(), &all.scales()[6..8]);
    assert!(all.row(4).is_none() && one_by_one.row_mut(4).is_none());
}

#[test]
fn empty_rows_are_rows() {
    let rows = Q8Rows::from_values(0, &[]).expect("nothing to encode");
    assert_eq!((rows.rows(), rows.width()), (0, 0));
    for &dtype in DType::ALL {
        quant::decode_row(dtype, &[], &mut []).expect("nothing to decode");
        let row = Q8Row::new(&[], &[], &[]).expect("an empty row");
        assert_eq!(dot_reference(dtype, &[], row), Ok(DotReference { value: 0.0, magnitude: 0.0 }));
    }
}

#[test]
fn activation_planes_must_fit_each_other() {
    let row =
        |c: usize, s: usize, m: usize| Q8Row::new(&[0; 96][..c], &[0.0; 3][..s], &[[0; 2]; 3][..m]).map(|r| r.width());
    assert_eq!(row(64, 2, 2), Ok(64));
    assert_eq!(row(63, 2, 2), Err(QuantError::RowLength { format: "Q8 activation", block: 32, found: 63 }));
    let plane = |what, found| Err(QuantError::PlaneLength { what, values: 64, expected: 2, found });
    assert_eq!(row(64, 3, 2), plane("Q8 scale plane", 3));
    assert_eq!(row(64, 2, 1), plane("Q8 sum plane", 1));
    assert_eq!(row(64, 1, 2), plane("Q8 scale plane", 1));
    assert!(Q8RowMut::new(&mut [0; 32], &mut [], &mut [[0; 2]]).is_err());

    assert!(Q8Rows::zeros(1, 48).is_err());
    assert_eq!(
        Q8Rows::zeros(usize::MAX / 32, 64),
        Err(QuantError::TooLarge { format: "Q8 activation", rows: usize::MAX / 32, width: 64 })
    );
    assert!(Q8Rows::zeros(usize::MAX / 64, 64).is_err(), "beyond the largest allocation");
    for (width, len) in [(64, 96), (0, 1), (33, 33)] {
        assert!(Q8Rows::from_values(width, &vec![0.0; len]).is_err(), "{width} {len}");
    }
    let rows = Q8Rows::zeros(1, 64).expect("lengths fit");
    assert!(rows.row(0).expect("row").decode(&mut [0.0; 63]).is_err());
}

#[test]
fn errors_say_what_was_expected_and_found() {
    let text = |e: QuantError| e.to_string();
    let decode = |dtype, bytes, values| quant::decode_row(dtype, &vec![0; bytes], &mut vec![0.0; values]).map_err(text);
    assert_eq!(decode(DType::Q4_K, 144, 255), Err("Q4_K row: expected a multiple of 256 values, found 255".into()));
    assert_eq!(decode(DType::Q6_K, 209, 256), Err("Q6_K row of 256 values: expected 210 bytes, found 209".into()));
    let refused = quant::encode_row(DType::Q6_K, &[0.0; 256], &mut [0; 210]).map_err(text);
    assert_eq!(refused, Err("expected a type with an encoder (F32, F16, BF16, Q4_0, Q4_1, Q8_0), found Q6_K".into()));
    let float = quant::unpack_row(DType::F16, &[0; 64], &mut [0; 32], &mut [0.0], &mut [0.0]);
    assert_eq!(float, Err(QuantError::NotQuantised { dtype: DType::F16 }));
    let planes = |scales: usize, mins: usize| {
        quant::unpack_row(DType::Q6_K, &[0; 210], &mut [0; 256], &mut vec![0.0; scales], &mut vec![0.0; mins])
    };
    assert_eq!(planes(16, 16), Ok(()));
    assert!(planes(17, 16).is_err() && planes(16, 15).is_err() && planes(16, 17).is_err());
    let scales = planes(8, 16).map_err(text);
    assert_eq!(scales, Err("unpacked scales: expected 16 elements for a row of 256 values, found 8".into()));
}

#[test]
fn the_yardstick_measures_against_the_terms() {
    // 1000 - 1000 + 1: cancellation leaves a small value of large terms.
    let dot = DotReference { value: 1.0, magnitude: 2001.0 };
    assert!(dot.accepts(1.02, 1e-5) && !dot.accepts(1.03, 1e-5) && !dot.accepts(f32::NAN, 1e-5));
    assert!(!dot.accepts(f32::INFINITY, 1e-5));
    let beyond = DotReference { value: -1e39, magnitude: 1e39 };
    assert!(beyond.accepts(f32::NEG_INFINITY, 1e-5) && !beyond.accepts(f32::INFINITY, 1e-5));
    let infinite = DotReference { value: f64::INFINITY, magnitude: f64::INFINITY };
    assert!(infinite.accepts(f32::INFINITY, 1e-5) && !infinite.accepts(1.0, 1e-5));
}

/// The packed scales, field by field, from bytes with one field set: the tables of the format read backwards.
#[test]
fn packed_scales_hold_what_was_put_in() {
    for s in 0..8 {
        let mut packed = [0_u8; 12];
        if s < 4 {
            packed[s] |= 0x2d;
            packed[4 + s] |= 0x1e;
        } else {
            packed[4 + s] |= 0x0d | 0x0e << 4;
            packed[s - 4] |= 0b10 << 6;
            packed[s] |= 0b01 << 6;
        }
        let (mut scales, mut mins) = ([0; 8], [0; 8]);
        (scales[s], mins[s]) = (0x2d, 0x1e);
        assert_eq!(quant::k::scales_k4(packed), (scales, mins), "sub-block {s}");
    }
    for s in 0..16 {
        let mut packed = [0_u8; 12];
        packed[s % 8] |= 0x0b << (4 * (s / 8));
        packed[8 + s % 4] |= 0b11 << (2 * (s / 4));
        let mut scales = [-32; 16];
        scales[s] = 0x3b - 32;
        assert_eq!(quant::k::scales_q3_k(packed), scales, "sub-block {s}");
    }
    for s in 0..8 {
        let mut low = [0; 4];
        low[s / 2] = 0x09 << (4 * (s % 2));
        let mut scales = [-32; 8];
        scales[s] = 0x29 - 32;
        assert_eq!(quant::iq4::scales_iq4_xs((0b10_u16 << (2 * s)).to_le_bytes(), low), scales, "sub-block {s}");
    }
}
