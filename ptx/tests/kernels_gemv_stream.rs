//! Matrices whose kernels round the activations themselves: the results of a kernel that rounds and one that multiplies, bit for bit.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::ir::Target;
use brick_ptx::kernels::gemv::stream::{GemvStream, Source};
use brick_ptx::kernels::gemv::{Epilogue, Gemv};
use brick_ptx::kernels::norm::{self, Output};
use brick_ptx::kernels::workload::{Arg, Noise, bytes_of_f32};
use brick_ptx::kernels::{Format, Workload, activation, quantize};
use launches::{SCHEDULES, floats, replace};

/// Elements of a result's row of `Store` beyond those that are written.
const GAP: usize = 3;
const UNTOUCHED: [u8; 4] = [0x5a; 4];

fn position(args: &[Arg], name: &str) -> usize {
    args.iter().position(|arg| matches!(arg, Arg::Buffer { name: n, .. } if *n == name)).unwrap()
}

/// The tiles that a kernel of its own makes of the activations.
fn tiles(source: Source, x: &[f32], gain: &[f32], eps: f32, columns: usize) -> Vec<u8> {
    if source == Source::Plain {
        return activation::encode(x, columns).unwrap();
    }
    let mut load = norm::workload(Output::Q8, x.len() / columns, columns, eps, 0).unwrap();
    replace(&mut load, "x", bytes_of_f32(x));
    replace(&mut load, "gain", bytes_of_f32(gain));
    // The padding of tiles has blocks of zeros.
    let y = position(&load.args, "y");
    load.args[y] = Arg::update("y", vec![0; activation::bytes(columns, x.len() / columns)]);
    let module = launches::module(norm::rms_norm(Output::Q8, Target::Sm80), Target::Sm80);
    launches::run(&load, &module, "rms_norm_q8", SCHEDULES[0]).bytes("y").unwrap().to_vec()
}

/// Compares with the composition, with a grid of `blocks`.
fn check(stream: GemvStream, rows: usize, columns: usize, blocks: u32, seed: u64) {
    let (tokens, epilogue) = (stream.tokens(), stream.epilogue());
    let mut noise = Noise::new(seed);
    let mut load = stream.workload(rows, columns, seed).unwrap();
    load.dims.grid[0] = blocks;
    let at = position(&load.args, "x");
    // Large and small values, and in some a block of zeros and one that is not finite.
    let mut x: Vec<f32> = noise.floats(tokens * columns).iter().map(|x| 100.0 * x * x * x).collect();
    x[..32].fill(0.0);
    if seed % 5 == 4 {
        x[columns - 1] = f32::INFINITY;
    }
    replace(&mut load, "x", bytes_of_f32(&x));
    let (gain, eps) = match (stream.source(), load.args.last()) {
        (Source::Norm, Some(Arg::F32(eps))) => (floats(&load, "gain"), *eps),
        _ => (Vec::new(), 0.0),
    };

    let gemv = Gemv::new(stream.format(), tokens, epilogue).unwrap();
    let mut reference = gemv.workload(rows, columns, seed).unwrap();
    reference.args[..at].clone_from_slice(&load.args[..at]);
    replace(&mut reference, "x", tiles(stream.source(), &x, &gain, eps, columns));
    let (mut own, mut other) = (at + 1 + usize::from(stream.source() == Source::Norm), at + 1);
    let result = if epilogue == Epilogue::ArgMax { "tokens" } else { "y" };
    if epilogue == Epilogue::Store {
        let stride = rows + GAP;
        let (bias, residual) = (noise.floats(rows), noise.floats(tokens * stride));
        let mut y = bytes_of_f32(&residual);
        // With a null pointer for the bias or with `y` as the residual, in turn.
        let added = match seed % 3 {
            0 => [Arg::read("bias", bytes_of_f32(&bias)), Arg::read("residual", y.clone())],
            1 => [Arg::U64(0), Arg::read("residual", y.clone())],
            _ => [Arg::read("bias", bytes_of_f32(&bias)), Arg::U64(0)],
        };
        y = UNTOUCHED.repeat(y.len() / 4);
        for (args, first) in [(&mut load.args, own), (&mut reference.args, other)] {
            args[first..first + 2].clone_from_slice(&added);
            args[first + 2] = Arg::update("y", y.clone());
            args[first + 5] = Arg::U32(stride as u32);
        }
        own += 6;
        other += 6;
    } else if epilogue == Epilogue::ArgMax {
        load.args[own] = Arg::scratch("best", 8 * tokens * blocks as usize);
        own += 5;
        other += 5;
    } else {
        own += 3;
        other += 3;
    }
    assert_eq!((load.args.len(), reference.args.len()), (own + usize::from(!gain.is_empty()), other));
    let module = launches::module(gemv.kernel(Target::Sm80), Target::Sm80);
    let expected = launches::run(&reference, &module, &gemv.name(), SCHEDULES[0]).u32s(result).unwrap();
    for target in Target::ALL {
        let module = launches::module(stream.kernel(target), target);
        let schedule = SCHEDULES[(seed + target as u64) as usize % 4];
        let run = launches::run(&load, &module, &stream.name(), schedule);
        assert_eq!(run.u32s(result).unwrap(), expected, "{} {rows}x{columns}", stream.name());
        assert_eq!(run.counts.bank_conflicts(), 0, "{}", stream.name());
        if epilogue == Epilogue::ArgMax {
            assert_eq!(run.u32s("arrivals").unwrap(), [0], "{}", stream.name());
        }
    }
}

/// Shapes without and with whole steps, parts of one and two chunks behind them, and rows for less and more than a grid.
fn check_all(epilogue: Epilogue, tokens: usize) {
    for format in Format::QUANTISED {
        let ragged = format.column_multiple();
        let shapes = [(ragged, 1), (1536, 2), (2048, 1), (3 * 1024 + ragged, 3), (4096 + 2048, 1)];
        for source in Source::ALL {
            let stream = GemvStream::new(format, tokens, epilogue, source).unwrap();
            for (i, (columns, blocks)) in shapes.into_iter().enumerate() {
                let rows = [2, 38, 16, 50, 34][i] - usize::from(epilogue != Epilogue::SwiGlu && i < 4);
                check(stream, rows, columns, blocks, i as u64 + 10 * tokens as u64);
            }
        }
    }
}

#[test]
fn stores() {
    for tokens in [1, 2] {
        check_all(Epilogue::Store, tokens);
    }
}

#[test]
fn gated_activations() {
    for tokens in [1, 2] {
        check_all(Epilogue::SwiGlu, tokens);
    }
}

#[test]
fn the_largest() {
    for tokens in [1, 2] {
        check_all(Epilogue::ArgMax, tokens);
    }
}

/// Compares with the kernel that stores only, and the one that rounds what it stores.
fn check_codes(stream: GemvStream, rows: usize, columns: usize, blocks: u32, seed: u64) {
    let tokens = stream.tokens();
    let mut load = stream.workload(rows, columns, seed).unwrap();
    load.dims.grid[0] = blocks;
    let mut noise = Noise::new(seed);
    let mut x: Vec<f32> = noise.floats(tokens * columns).iter().map(|x| 100.0 * x * x * x).collect();
    if seed % 5 == 4 {
        x[columns - 1] = f32::INFINITY;
    }
    replace(&mut load, "x", bytes_of_f32(&x));
    let stores = GemvStream::new(stream.format(), tokens, Epilogue::SwiGlu, stream.source()).unwrap();
    let mut reference = load.clone();
    reference.args.remove(position(&load.args, "tiles"));
    let module = launches::module(stores.kernel(Target::Sm80), Target::Sm80);
    let reference = launches::run(&reference, &module, &stores.name(), SCHEDULES[0]);
    let y = reference.bytes("y").unwrap().to_vec();
    let size = activation::bytes(rows / 2, tokens);
    let rounding = Workload {
        dims: quantize::quantize_q8_dims(rows / 2, tokens, 1).unwrap(),
        args: vec![Arg::read("x", y), Arg::write("y", size), Arg::U32(rows as u32 / 2)],
        work: load.work,
    };
    let module = launches::module(quantize::quantize_q8(Target::Sm80), Target::Sm80);
    let rounded = launches::run(&rounding, &module, "quantize_q8", SCHEDULES[0]);
    let tiles = rounded.bytes("y").unwrap();
    for target in Target::ALL {
        let module = launches::module(stream.kernel(target), target);
        let schedule = SCHEDULES[(seed + target as u64) as usize % 4];
        let run = launches::run(&load, &module, &stream.name(), schedule);
        assert_eq!(run.u32s("y").unwrap(), reference.u32s("y").unwrap(), "{} {rows}x{columns}", stream.name());
        assert!(run.bytes("tiles").unwrap() == tiles, "{} {rows}x{columns}", stream.name());
        assert_eq!(run.counts.bank_conflicts(), 0, "{}", stream.name());
    }
}

/// Blocks of a CTA: one, several, as many as of others and one more; outputs of a part of a group, of a whole one and of more.
#[test]
fn gated_activations_in_codes() {
    for (i, format) in (0..).zip(Format::QUANTISED) {
        let ragged = format.column_multiple();
        for tokens in [1, 2] {
            for source in Source::ALL {
                let stream = GemvStream::new(format, tokens, Epilogue::SwiGluQ8, source).unwrap();
                for (j, (rows, columns, blocks)) in
                    [(64, ragged, 1), (448, 1536, 3), (192, 3 * 1024 + ragged, 1)].into_iter().enumerate()
                {
                    check_codes(stream, rows, columns, blocks, j as u64 + i + 10 * tokens as u64);
                }
                let (rows, blocks) = [(2048, 5), (2048 + 64, 4)][tokens - 1];
                check_codes(stream, rows, ragged, blocks, i);
            }
        }
    }
}

#[test]
fn shapes_and_names() {
    let stream = |tokens, epilogue, source| GemvStream::new(Format::Q4_K, tokens, epilogue, source).unwrap();
    let store = stream(1, Epilogue::Store, Source::Norm);
    assert_eq!(store.name(), "gemv_stream_q4_k_b1_norm");
    assert_eq!(stream(2, Epilogue::SwiGlu, Source::Plain).name(), "gemv_stream_swiglu_q4_k_b2");
    assert_eq!(stream(2, Epilogue::ArgMax, Source::Norm).name(), "gemv_stream_argmax_q4_k_b2_norm");
    let dims = store.dims(17_920, 1536, 132).unwrap();
    assert_eq!((dims.grid, dims.block, dims.dynamic_shared), ([396, 1, 1], [256, 1, 1], 2 * 1600));
    assert_eq!(store.dims(1536, 1536, 132).unwrap().grid, [96, 1, 1]);
    assert!(store.fits(61 * 1024) && !store.fits(62 * 1024));
    let two = stream(2, Epilogue::Store, Source::Plain);
    assert!(two.fits(30 * 1024) && !two.fits(30 * 1024 + 256));
    assert_eq!(
        two.dims(8, 31 * 1024, 132).unwrap_err().to_string(),
        "kernel `gemv_stream_q4_k_b2` takes columns that is 1 to 30720, found 31744"
    );
    // One block of 96000 bytes would leave room for another, not for a third.
    assert_eq!(two.dims(1 << 20, 30 * 1024, 100).unwrap().grid, [200, 1, 1]);
    assert!(stream(1, Epilogue::SwiGlu, Source::Norm).dims(3, 256, 1).is_err());
    let codes = stream(2, Epilogue::SwiGluQ8, Source::Norm);
    assert_eq!(codes.name(), "gemv_stream_swiglu_q8_q4_k_b2_norm");
    assert_eq!(codes.dims(17_920, 1536, 132).unwrap().grid, [264, 1, 1]);
    assert_eq!(codes.dims(17_920, 1536, 200).unwrap().grid, [280, 1, 1]);
    assert!(codes.dims(32, 256, 1).is_err());
    for (format, tokens) in [(Format::F16, 1), (Format::Q4_K, 3), (Format::Q4_K, 4)] {
        assert_eq!(GemvStream::new(format, tokens, Epilogue::Store, Source::Plain), None);
    }
    assert_eq!(
        Gemv::new(Format::Q4_K, 1, Epilogue::SwiGluQ8).unwrap_err().to_string(),
        "kernel `gemv_q4_k` takes tokens that is 0, as only `gemv_stream` rounds results, found 1"
    );
}
