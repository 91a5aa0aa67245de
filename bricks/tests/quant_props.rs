//! Properties of the codecs that hold for any input.

use bricks::quant::{self, QuantError, q8};
use bricks::{DType, quant::q8::Q8Rows};
use proptest::prelude::*;

fn any_dtype() -> impl Strategy<Value = DType> {
    proptest::sample::select(DType::ALL)
}

/// Finite values over the whole range that models use, and exact zeros.
fn values(blocks: usize) -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![8 => -4.0_f32..4.0, 2 => -1e-3_f32..1e-3, 1 => -1e4_f32..1e4, 1 => Just(0.0)];
    proptest::collection::vec(value, 32 * blocks)
}

/// Any f32 bits: NaNs, infinities, subnormals.
fn any_bits(len: usize) -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec(any::<u32>().prop_map(f32::from_bits), len)
}

fn round_trip(dtype: DType, x: &[f32]) -> Vec<f32> {
    let mut bytes = vec![0; dtype.row_bytes(x.len()).expect("whole blocks")];
    quant::encode_row(dtype, x, &mut bytes).expect("lengths fit");
    let mut y = vec![0.0; x.len()];
    quant::decode_row(dtype, &bytes, &mut y).expect("lengths fit");
    y
}

fn amax(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |a, x| a.max(x.abs()))
}

proptest! {
    /// Any bytes and any lengths: success exactly when the lengths belong together, and never a panic.
    #[test]
    fn decoding_fails_exactly_when_lengths_do_not_fit(
        dtype in any_dtype(),
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        len in 0_usize..600,
        fit in any::<bool>(),
    ) {
        // Half of the cases cut both sides to whole blocks; the others take them as they come.
        let n = bytes.len() / dtype.block_bytes();
        let (bytes, len) =
            if fit { (&bytes[..n * dtype.block_bytes()], n * dtype.block_len()) } else { (&bytes[..], len) };
        let mut out = vec![f32::MAX; len];
        let result = quant::decode_row(dtype, bytes, &mut out);
        prop_assert_eq!(result.is_ok(), dtype.row_bytes(len) == Some(bytes.len()));
        match result {
            Ok(()) => {}
            Err(QuantError::RowLength { block, found, .. }) => {
                prop_assert_eq!((block, found), (dtype.block_len(), len));
                prop_assert!(len % block != 0);
            }
            Err(QuantError::ByteLength { expected, found, values, .. }) => {
                prop_assert_eq!((Some(expected), found, values), (dtype.row_bytes(len), bytes.len(), len));
            }
            Err(e) => prop_assert!(false, "unexpected {e}"),
        }
        if dtype.row_bytes(len) != Some(bytes.len()) {
            prop_assert!(out.iter().all(|&x| x == f32::MAX), "an error must leave the output alone");
        }
    }

    #[test]
    fn encoding_fails_exactly_when_it_cannot_fit(
        dtype in any_dtype(), x in any_bits(96), len in 0_usize..97, bytes in 0_usize..400, fit in any::<bool>(),
    ) {
        let len = if fit { len / dtype.block_len() * dtype.block_len() } else { len };
        let bytes = if fit { dtype.row_bytes(len).expect("whole blocks") } else { bytes };
        let mut out = vec![0x5a; bytes];
        let result = quant::encode_row(dtype, &x[..len], &mut out);
        let has_encoder = [DType::F32, DType::F16, DType::BF16, DType::Q4_0, DType::Q4_1, DType::Q8_0].contains(&dtype);
        prop_assert_eq!(result.is_ok(), has_encoder && dtype.row_bytes(len) == Some(bytes));
        if result.is_err() {
            prop_assert!(out.iter().all(|&b| b == 0x5a), "an error must leave the output alone");
        }
    }

    /// f16 has 11 significant bits and a smallest step of 2^-24, bf16 has 8 bits.
    #[test]
    fn floats_are_within_half_a_step(x in values(1)) {
        prop_assert_eq!(&round_trip(DType::F32, &x), &x);
        for (a, (h, b)) in x.iter().zip(round_trip(DType::F16, &x).iter().zip(round_trip(DType::BF16, &x))) {
            prop_assert!((a - h).abs() <= (a.abs() / 2048.0).max(0.5_f32.powi(25)));
            prop_assert!((a - b).abs() <= a.abs() / 256.0);
        }
    }

    /// A code is off by at most half a step (a whole one where the range is cut: the far end of Q4_0); and the scale
    /// (and minimum) by half an f16 step, which all codes see.
    #[test]
    fn quantised_values_are_within_a_step(x in values(2)) {
        let f16_step = |x: f32| (x.abs() / 2048.0).max(0.5_f32.powi(25));
        for (dtype, name) in [(DType::Q4_0, "Q4_0"), (DType::Q4_1, "Q4_1"), (DType::Q8_0, "Q8_0")] {
            let y = round_trip(dtype, &x);
            for (x, y) in x.chunks_exact(32).zip(y.chunks_exact(32)) {
                let a = amax(x);
                let (min, max) = x.iter().fold((f32::MAX, f32::MIN), |(l, h), &x| (l.min(x), h.max(x)));
                let bound = match dtype {
                    DType::Q4_0 => a / 8.0 + 8.0 * f16_step(a / 8.0),
                    DType::Q4_1 => (max - min) / 30.0 + 15.0 * f16_step((max - min) / 15.0) + f16_step(min),
                    _ => a / 254.0 + 127.0 * f16_step(a / 127.0),
                } * (1.0 + 1e-4);
                for (x, y) in x.iter().zip(y) {
                    prop_assert!((x - y).abs() <= bound, "{name}: {x} became {y}, allowed {bound}");
                }
            }
        }
    }

    /// A block with anything but finite values must not come back finite.
    #[test]
    fn broken_blocks_stay_visible(
        mut x in values(2),
        at in 0_usize..64,
        bad in proptest::sample::select(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY][..]),
    ) {
        x[at] = bad;
        for dtype in [DType::Q4_0, DType::Q4_1, DType::Q8_0] {
            let y = round_trip(dtype, &x);
            for (i, y) in y.iter().enumerate() {
                prop_assert_eq!(y.is_nan(), i / 32 == at / 32);
            }
        }
    }

    /// Activations: half a step of `amax / 127`, sums that are those of the codes, no code of -128.
    #[test]
    fn activations_are_within_half_a_step(x in values(3)) {
        let rows = Q8Rows::from_values(96, &x).expect("lengths fit");
        let row = rows.row(0).expect("one row");
        let mut y = vec![0.0; 96];
        row.decode(&mut y).expect("lengths fit");
        for (b, (x, y)) in x.chunks_exact(32).zip(y.chunks_exact(32)).enumerate() {
            let a = amax(x);
            for (x, y) in x.iter().zip(y) {
                prop_assert!((x - y).abs() <= a / 254.0 * (1.0 + 1e-5));
            }
            let codes = &row.codes()[32 * b..][..32];
            prop_assert!(codes.iter().all(|&c| c != -128));
            for h in 0..2 {
                let sum: i32 = codes[16 * h..][..16].iter().map(|&c| i32::from(c)).sum();
                prop_assert_eq!(sum, i32::from(row.sums()[b][h]));
            }
        }
    }

    /// Any bits at all: no panic; a block is poisoned exactly when it is not finite, and its scale is never subnormal.
    #[test]
    fn activations_of_any_bits(mut x in any_bits(64), shift in 0_u32..24) {
        // Shifting the exponent field down makes whole blocks finite, small, or zero.
        for x in &mut x {
            let bits = x.to_bits();
            *x = f32::from_bits(bits & 0x8000_0000 | (bits & 0x7fff_ffff) >> shift);
        }
        let rows = Q8Rows::from_values(64, &x).expect("lengths fit");
        for (b, x) in x.chunks_exact(32).enumerate() {
            let scale = rows.scales()[b];
            let codes = &rows.codes()[32 * b..][..32];
            if x.iter().all(|x| x.is_finite()) {
                prop_assert!(scale == 0.0 || scale.is_normal());
                prop_assert_eq!(scale == 0.0, amax(x) < q8::MIN_AMAX);
                prop_assert_eq!(scale == 0.0, codes.iter().all(|&c| c == 0));
                prop_assert!(scale == 0.0 || codes.iter().any(|&c| c.abs() == 127), "the largest value has code ±127");
            } else {
                prop_assert_eq!(scale.to_bits(), q8::POISON.to_bits());
                prop_assert!(codes.iter().all(|&c| c == 0));
                prop_assert_eq!(rows.sums()[b], [0, 0]);
            }
        }
    }

    /// The integer form of the dot product, with code sums paying for the minimums, is the reference within rounding.
    #[test]
    fn the_integer_dot_product_meets_the_reference(dtype in any_dtype(), seed in any::<u64>(), x in values(8)) {
        prop_assume!(!dtype.is_float());
        let weights = finite_row(dtype, seed);
        let rows = Q8Rows::from_values(256, &x).expect("lengths fit");
        let row = rows.row(0).expect("one row");
        let reference = quant::dot_reference(dtype, &weights, row).expect("lengths fit");
        let sub = quant::sub_block_len(dtype).expect("quantised");
        let (mut codes, mut scales, mut mins) = (vec![0; 256], vec![0.0; 256 / sub], vec![0.0; 256 / sub]);
        quant::unpack_row(dtype, &weights, &mut codes, &mut scales, &mut mins).expect("lengths fit");
        let mut y = 0.0_f32;
        for s in 0..256 / sub {
            let at = s * sub..(s + 1) * sub;
            let pairs = codes[at.clone()].iter().zip(&row.codes()[at]);
            let dot: i32 = pairs.map(|(&q, &c)| i32::from(q) * i32::from(c)).sum();
            let block = s * sub / 32;
            let sums = row.sums()[block];
            let sum = if sub == 32 { sums[0] + sums[1] } else { sums[s % 2] };
            y += row.scales()[block] * (scales[s] * dot as f32 + mins[s] * f32::from(sum));
        }
        prop_assert!(reference.accepts(y, 1e-5), "expected {}, found {y}", reference.value);
    }
}

/// 256 values of random blocks whose f16 fields are finite and of ordinary size.
fn finite_row(dtype: DType, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes: Vec<u8> = (0..dtype.row_bytes(256).expect("whole blocks"))
        .map(|_| {
            // A linear congruential generator; the top bits are good enough for codes.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    let fields: &[usize] = match dtype {
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[1, 3],
        DType::Q2_K => &[81, 83],
        DType::Q3_K => &[109],
        DType::Q6_K => &[209],
        _ => &[1],
    };
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for &high in fields {
            // The upper byte of an f16: keep the sign, exponents 8..12 (2^-7 .. 2^-3).
            block[high] = block[high] & 0x8f | 0x20;
        }
    }
    bytes
}
