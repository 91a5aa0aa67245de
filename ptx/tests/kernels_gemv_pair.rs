//! Two matrices in one launch: the results of two launches, bit for bit.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::ir::Target;
use brick_ptx::kernels::gemv::pair::{FORMATS, GemvPair};
use brick_ptx::kernels::gemv::{Epilogue, Gemv};
use brick_ptx::kernels::workload::{Arg, Noise, bytes_of_f32};
use brick_ptx::kernels::{Format, activation};
use launches::{SCHEDULES, replace};

const CHUNKS: usize = 2;
/// Elements of a result's row beyond those of both matrices.
const GAP: usize = 3;
const UNTOUCHED: [u8; 4] = [0x5a; 4];

/// What the kernel of one matrix gives for its planes, which are among the arguments from `planes` on.
fn alone(gemv: Gemv, load: &[Arg], rows: usize, [x, bias]: [&Arg; 2], columns: usize) -> Vec<f32> {
    let mut one = gemv.workload(rows, columns, 0).unwrap();
    let planes = load.len();
    one.args[..planes].clone_from_slice(load);
    one.args[planes] = x.clone();
    one.args[planes + 1] = bias.clone();
    one.args[planes + 3] = Arg::write("y", 4 * CHUNKS * gemv.tokens() * rows);
    one.dims.grid[1] = CHUNKS as u32;
    let module = launches::module(gemv.kernel(Target::Sm80), Target::Sm80);
    launches::run(&one, &module, &gemv.name(), SCHEDULES[0]).f32s("y").unwrap()
}

fn check(pair: GemvPair, rows: [usize; 2], columns: usize, seed: u64) {
    let tokens = pair.tokens();
    let x = |seed| activation::encode(&Noise::new(seed).floats(tokens * columns), columns).unwrap();
    let x = [x(seed + 1), x(seed + 2)].concat();
    let bias = Noise::new(seed).floats(rows[0] + rows[1]);

    let mut load = pair.workload(rows, columns, seed).unwrap();
    replace(&mut load, "x", x.clone());
    let at = load.args.iter().position(|arg| matches!(arg, Arg::Buffer { name: "x", .. })).unwrap();
    let y = at + 2;
    let stride = rows[0] + rows[1] + GAP;
    load.args[y - 1] = Arg::read("bias", bytes_of_f32(&bias));
    load.args[y] = Arg::update("y", UNTOUCHED.repeat(CHUNKS * tokens * stride));
    assert_eq!(load.args[y + 4], Arg::U32((stride - GAP) as u32));
    load.args[y + 4] = Arg::U32(stride as u32);
    load.dims.grid[1] = CHUNKS as u32;

    let [a, b] = pair.formats();
    let gemv = |format| Gemv::new(format, tokens, Epilogue::Store).unwrap();
    let planes = |format| if format == Format::Q6_K { 4 } else { 2 };
    let x = Arg::read("x", x);
    let of_bias = |bias: &[f32]| Arg::read("bias", bytes_of_f32(bias));
    let (args_a, args_b) = load.args[..at].split_at(planes(a));
    let (bias_a, bias_b) = bias.split_at(rows[0]);
    let of_a = alone(gemv(a), args_a, rows[0], [&x, &of_bias(bias_a)], columns);
    let of_b = alone(gemv(b), args_b, rows[1], [&x, &of_bias(bias_b)], columns);
    let untouched = f32::from_le_bytes(UNTOUCHED);
    let expected: Vec<f32> = (0..CHUNKS * tokens)
        .flat_map(|row| {
            let [a, b] = [(&of_a, rows[0]), (&of_b, rows[1])].map(|(y, rows)| &y[row * rows..][..rows]);
            [a, b, &[untouched; GAP]].concat()
        })
        .collect();
    for target in Target::ALL {
        let module = launches::module(pair.kernel(target), target);
        let schedule = SCHEDULES[(seed + target as u64) as usize % 4];
        let found = launches::run(&load, &module, &pair.name(), schedule).f32s("y").unwrap();
        assert_eq!(found, expected, "{} {rows:?}x{columns}", pair.name());
    }
}

#[test]
fn the_bits_of_two_launches() {
    for formats in FORMATS {
        for (i, tokens) in [1, 2, 3, 4].into_iter().enumerate() {
            let pair = GemvPair::new(formats, tokens).unwrap();
            for (j, (rows, columns)) in [([24, 8], 256), ([13, 5], 1536), ([1, 17], 2304)].into_iter().enumerate() {
                check(pair, rows, columns, (3 * i + j) as u64);
            }
        }
    }
}

#[test]
fn shapes_and_names() {
    let pair = GemvPair::new([Format::Q4_K, Format::Q6_K], 1).unwrap();
    assert_eq!(pair.name(), "gemv_pair_q4_k_q6_k_b1");
    assert_eq!(pair.dims([1792, 256], 1536, 3).unwrap().grid, [256, 3, 1]);
    assert_eq!(pair.dims([1793, 255], 1536, 1).unwrap().grid, [257, 1, 1]);
    assert_eq!(
        pair.dims([0, 8], 256, 1).unwrap_err().to_string(),
        "kernel `gemv_pair_q4_k_q6_k_b1` takes rows that is 1 to 16777216, found 0"
    );
    assert!(pair.dims([8, 8], 128, 1).is_err());
    assert_eq!(GemvPair::new([Format::Q6_K, Format::Q4_K], 1), None);
    assert_eq!(GemvPair::new([Format::Q4_K, Format::Q6_K], 5), None);
}
