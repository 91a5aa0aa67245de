//! Decoders and encoders against golden files made by the Python package `gguf` (see `data/quant/provenance.json`).
//!
//! Comparisons are bit by bit, zeros' signs included. One exception: where the reference decodes to a NaN, any NaN is
//! right, as the sign and payload of a NaN that went through arithmetic are the processor's choice.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bricks::{DType, quant};

const ENCODED: [DType; 6] = [DType::F32, DType::F16, DType::BF16, DType::Q4_0, DType::Q4_1, DType::Q8_0];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/quant")
}

/// The two halves of a golden file, whose records have `first` and `second` bytes.
fn golden(name: &str, first: usize, second: usize) -> (Vec<u8>, Vec<u8>, usize) {
    let mut head = std::fs::read(data().join(name)).expect("golden file");
    let n = head.len() / (first + second);
    assert!(n > 0 && head.len() == n * (first + second), "{name}: {} bytes are not whole records", head.len());
    let tail = head.split_off(n * first);
    (head, tail, n)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

fn same(expected: f32, found: f32) -> bool {
    expected.to_bits() == found.to_bits() || (expected.is_nan() && found.is_nan())
}

fn file(dtype: DType, direction: &str) -> String {
    format!("{}.{direction}.bin", dtype.name().to_lowercase())
}

#[test]
fn every_type_decodes_to_the_reference_bits() {
    for &dtype in DType::ALL {
        let name = file(dtype, "decode");
        let (blocks, values, n) = golden(&name, dtype.block_bytes(), 4 * dtype.block_len());
        let expected = floats(&values);
        let mut found = vec![0.0; n * dtype.block_len()];
        quant::decode_row(dtype, &blocks, &mut found).expect("lengths fit");
        for (i, (&e, &f)) in expected.iter().zip(&found).enumerate() {
            let (block, at) = (i / dtype.block_len(), i % dtype.block_len());
            assert!(same(e, f), "{name}: block {block}, value {at}: expected {e:e}, found {f:e}");
        }
    }
}

#[test]
fn encoders_give_the_reference_bytes() {
    for dtype in ENCODED {
        let name = file(dtype, "encode");
        // Quantised cases are rows of 32, floats single values: both are one block.
        let (values, expected, n) = golden(&name, 4 * dtype.block_len(), dtype.block_bytes());
        let mut found = vec![0; n * dtype.block_bytes()];
        quant::encode_row(dtype, &floats(&values), &mut found).expect("lengths fit");
        let blocks = expected.chunks_exact(dtype.block_bytes()).zip(found.chunks_exact(dtype.block_bytes()));
        for (i, (e, f)) in blocks.enumerate() {
            assert_eq!(e, f, "{name}: block {i}");
        }
    }
}

/// What kernels repack is what decodes: `scale · code + min` of the taken-apart row.
#[test]
fn unpacked_rows_give_the_reference_bits() {
    for dtype in DType::ALL.iter().copied().filter(|d| !d.is_float()) {
        let name = file(dtype, "decode");
        let (blocks, values, n) = golden(&name, dtype.block_bytes(), 4 * dtype.block_len());
        let len = n * dtype.block_len();
        let sub = quant::sub_block_len(dtype).expect("quantised");
        let (mut codes, mut scales, mut mins) = (vec![0; len], vec![0.0; len / sub], vec![0.0; len / sub]);
        quant::unpack_row(dtype, &blocks, &mut codes, &mut scales, &mut mins).expect("lengths fit");
        for (i, &e) in floats(&values).iter().enumerate() {
            let f = scales[i / sub] * f32::from(codes[i]) + mins[i / sub];
            assert!(same(e, f), "{name}: value {i}: expected {e:e}, found {f:e}");
        }
    }
}

#[test]
fn there_is_a_golden_file_for_every_codec_and_no_other() {
    let found: BTreeSet<String> = std::fs::read_dir(data())
        .expect("golden directory")
        .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    let mut expected: BTreeSet<String> = DType::ALL.iter().map(|&d| file(d, "decode")).collect();
    expected.extend(ENCODED.iter().map(|&d| file(d, "encode")));
    expected.insert("provenance.json".into());
    assert_eq!(expected, found);
}
