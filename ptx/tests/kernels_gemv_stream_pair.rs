//! Two matrices whose kernel rounds the activations itself: the results of two launches, bit for bit.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::ir::Target;
use brick_ptx::kernels::Format;
use brick_ptx::kernels::gemv::Epilogue;
use brick_ptx::kernels::gemv::stream::pair::GemvStreamPair;
use brick_ptx::kernels::gemv::stream::{GemvStream, Source};
use brick_ptx::kernels::workload::{Arg, Noise, bytes_of_f32};
use launches::SCHEDULES;

const FORMATS: [Format; 2] = [Format::Q4_K, Format::Q6_K];
/// Elements of a result's row beyond those of both matrices.
const GAP: usize = 3;
const UNTOUCHED: [u8; 4] = [0x5a; 4];

/// Compares with a launch for each, with a grid of `blocks`.
fn check(pair: GemvStreamPair, rows: [usize; 2], columns: usize, blocks: u32, seed: u64) {
    let (tokens, source) = (pair.tokens(), pair.source());
    let bias = Noise::new(seed + 1).floats(rows[0] + rows[1]);
    let mut load = pair.workload(rows, columns, seed).unwrap();
    load.dims.grid[0] = blocks;
    let inputs = if source == Source::Norm { 2 } else { 1 };
    // Two planes of A, four of B.
    let (at, stride) = (6 + inputs, rows[0] + rows[1] + GAP);
    load.args[at] = Arg::read("bias", bytes_of_f32(&bias));
    load.args[at + 1] = Arg::update("y", UNTOUCHED.repeat(tokens * stride));
    load.args[at + 5] = Arg::U32(stride as u32);

    let alone = |i: usize, planes: &[Arg], bias: &[f32]| {
        let stream = GemvStream::new(FORMATS[i], tokens, Epilogue::Store, source).unwrap();
        let mut one = stream.workload(rows[i], columns, 0).unwrap();
        one.args[..planes.len()].clone_from_slice(planes);
        one.args[planes.len()..planes.len() + inputs].clone_from_slice(&load.args[6..at]);
        one.args[planes.len() + inputs] = Arg::read("bias", bytes_of_f32(bias));
        let module = launches::module(stream.kernel(Target::Sm80), Target::Sm80);
        launches::run(&one, &module, &stream.name(), SCHEDULES[0]).f32s("y").unwrap()
    };
    let (bias_a, bias_b) = bias.split_at(rows[0]);
    let (of_a, of_b) = (alone(0, &load.args[..2], bias_a), alone(1, &load.args[2..6], bias_b));
    let untouched = f32::from_le_bytes(UNTOUCHED);
    let expected: Vec<f32> = (0..tokens)
        .flat_map(|token| {
            let [a, b] = [(&of_a, rows[0]), (&of_b, rows[1])].map(|(y, rows)| &y[token * rows..][..rows]);
            [a, b, &[untouched; GAP]].concat()
        })
        .collect();
    for target in Target::ALL {
        let module = launches::module(pair.kernel(target), target);
        let schedule = SCHEDULES[(seed + target as u64) as usize % 4];
        let run = launches::run(&load, &module, &pair.name(), schedule);
        assert_eq!(run.f32s("y").unwrap(), expected, "{} {rows:?}x{columns}", pair.name());
        assert_eq!(run.counts.bank_conflicts(), 0, "{}", pair.name());
    }
}

#[test]
fn the_bits_of_two_launches() {
    for source in Source::ALL {
        for (i, tokens) in [1, 2].into_iter().enumerate() {
            let pair = GemvStreamPair::new(FORMATS, tokens, source).unwrap();
            let shapes = [([24, 8], 256, 2), ([61, 21], 1536, 6), ([1, 65], 2304, 3), ([70, 3], 5120, 2)];
            for (j, (rows, columns, blocks)) in shapes.into_iter().enumerate() {
                check(pair, rows, columns, blocks, (4 * i + j) as u64);
            }
        }
    }
}

#[test]
fn shapes_and_names() {
    let pair = GemvStreamPair::new(FORMATS, 1, Source::Norm).unwrap();
    assert_eq!(pair.name(), "gemv_stream_pair_q4_k_q6_k_b1_norm");
    let dims = pair.dims([1792, 256], 1536, 132).unwrap();
    assert_eq!((dims.grid, dims.block, dims.dynamic_shared), ([128, 1, 1], [256, 1, 1], 2 * 1600));
    assert_eq!(pair.dims([4096, 1024], 4096, 132).unwrap().grid, [264, 1, 1]);
    assert_eq!(pair.dims([1, 1], 256, 1).unwrap().grid, [2, 1, 1]);
    assert!(pair.fits(61 * 1024) && !pair.fits(62 * 1024));
    assert_eq!(
        pair.dims([0, 8], 256, 1).unwrap_err().to_string(),
        "kernel `gemv_stream_pair_q4_k_q6_k_b1_norm` takes rows that is 1 to 16777216, found 0"
    );
    assert!(pair.dims([8, 8], 128, 1).is_err());
    assert_eq!(GemvStreamPair::new([Format::Q6_K, Format::Q4_K], 1, Source::Plain), None);
    assert_eq!(GemvStreamPair::new(FORMATS, 3, Source::Plain), None);
}
