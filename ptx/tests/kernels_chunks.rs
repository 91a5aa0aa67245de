//! Launches of several chunks of tokens: the bits of the same launches one by one.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::ir::{Kernel, Target};
use brick_ptx::kernels::gemv::mma::{FORMATS, GemvMma};
use brick_ptx::kernels::gemv::{Epilogue, Gemv};
use brick_ptx::kernels::workload::{Arg, Noise, Work, Workload, bytes_of_f32};
use brick_ptx::kernels::{Format, activation, norm, quantize};
use launches::{SCHEDULES, replace};

const CHUNKS: usize = 3;
/// What is in a result before the launch.
const UNTOUCHED: [u8; 4] = [0x5a; 4];
/// Elements that a result's row has beyond the rows of the matrix.
const GAP: usize = 5;

/// Bytes of every chunk.
type Chunks = [Vec<u8>; CHUNKS];

/// Runs `one` for every chunk, and a launch of all of them. `inputs` are the buffers that chunks have their own part of, `axis` is the
/// direction of the grid that they lie along. With `stride`, rows of results are so many elements, and [`GAP`] more in the one launch.
fn check(
    kernel: &dyn Fn(Target) -> Kernel,
    one: &Workload,
    axis: usize,
    inputs: &[(&str, Chunks)],
    stride: Option<usize>,
) {
    let bytes = one.args.iter().find(|arg| matches!(arg, Arg::Buffer { name: "y", .. })).unwrap().bytes() as usize;
    for (target, schedule) in Target::ALL.into_iter().zip([SCHEDULES[0], SCHEDULES[2]]) {
        let name = kernel(target).name;
        let module = launches::module(kernel(target), target);
        let of_chunk = |chunk: usize| {
            let mut one = one.clone();
            for (name, chunks) in inputs {
                replace(&mut one, name, chunks[chunk].clone());
            }
            launches::run(&one, &module, &name, schedule).bytes("y").unwrap().to_vec()
        };
        let expected: Vec<u8> = (0..CHUNKS).flat_map(of_chunk).collect();

        let mut all = one.clone();
        all.dims.grid[axis] = CHUNKS as u32;
        for (name, chunks) in inputs {
            replace(&mut all, name, chunks.concat());
        }
        let y = all.args.iter_mut().find(|arg| matches!(arg, Arg::Buffer { name: "y", .. })).unwrap();
        let Some(stride) = stride else {
            *y = Arg::write("y", CHUNKS * bytes);
            assert!(launches::run(&all, &module, &name, schedule).bytes("y").unwrap() == expected, "{name}");
            continue;
        };
        let rows = CHUNKS * bytes / (4 * stride);
        *y = Arg::update("y", UNTOUCHED.repeat(rows * (stride + GAP)));
        assert_eq!(all.args.pop(), Some(Arg::U32(stride as u32)), "the last parameter is the stride");
        all.args.push(Arg::U32((stride + GAP) as u32));
        let run = launches::run(&all, &module, &name, schedule);
        for (found, expected) in
            run.bytes("y").unwrap().chunks_exact(4 * (stride + GAP)).zip(expected.chunks_exact(4 * stride))
        {
            let (found, gap) = found.split_at(4 * stride);
            assert!(found == expected, "{name}");
            assert_eq!(gap, UNTOUCHED.repeat(GAP), "{name} writes beyond its rows");
        }
    }
}

fn chunks(make: impl FnMut(usize) -> Vec<u8>) -> Chunks {
    std::array::from_fn(make)
}

/// Activations of a format.
fn activations(format: Format, tokens: usize, columns: usize) -> Chunks {
    let mut noise = Noise::new(77);
    chunks(|_| {
        let x = noise.floats(tokens * columns);
        match format {
            Format::F16 => bytes_of_f32(&x),
            Format::BF16 => x.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
            _ => activation::encode(&x, columns).unwrap(),
        }
    })
}

/// Checks a kernel of one of the families. `shape`: rows and columns.
fn check_gemv(
    kernel: &dyn Fn(Target) -> Kernel,
    mut one: Workload,
    (format, tokens, epilogue): (Format, usize, Epilogue),
    (rows, columns): (usize, usize),
) {
    let mut inputs = vec![("x", activations(format, tokens, columns))];
    if epilogue == Epilogue::SwiGlu {
        return check(kernel, &one, 1, &inputs, None);
    }
    check(kernel, &one, 1, &inputs, Some(rows));
    // Residuals have the stride of results, so here it is the number of rows.
    let mut noise = Noise::new(78);
    let first = one.args.len() - 6;
    one.args[first] = Arg::read("bias", bytes_of_f32(&noise.floats(rows)));
    one.args[first + 1] = Arg::read("residual", Vec::new());
    inputs.push(("residual", chunks(|_| bytes_of_f32(&noise.floats(tokens * rows)))));
    check(kernel, &one, 1, &inputs, None);
}

#[test]
fn matrix_kernels() {
    for format in Format::ALL {
        for tokens in [1, 3, 8] {
            for epilogue in [Epilogue::Store, Epilogue::SwiGlu] {
                let gemv = Gemv::new(format, tokens, epilogue).unwrap();
                // Columns that do not fill their last group.
                let shape = (10, if format.is_float() { 520 } else { 1280 });
                let one = gemv.workload(shape.0, shape.1, 5).unwrap();
                check_gemv(&|target| gemv.kernel(target), one, (format, tokens, epilogue), shape);
            }
        }
    }
}

#[test]
fn matrix_kernels_on_tensor_cores() {
    for format in FORMATS {
        for gated in [false, true] {
            let mma = GemvMma::new(format, 8, gated).unwrap();
            let shape = (38, 1280);
            let one = mma.workload(shape.0, shape.1, 6).unwrap();
            check_gemv(&|target| mma.kernel(target), one, (format, 8, mma.epilogue()), shape);
        }
    }
}

#[test]
fn norms() {
    for (output, columns) in [(norm::Output::F32, 1540), (norm::Output::Q8, 1568)] {
        for rows in [1, 2] {
            let one = norm::workload(output, rows, columns, 1e-6, 7).unwrap();
            let mut noise = Noise::new(79);
            let x = chunks(|_| bytes_of_f32(&noise.floats(rows * columns)));
            check(&|target| norm::rms_norm(output, target), &one, 1, &[("x", x)], None);
        }
    }
}

#[test]
fn quantisation() {
    let (tokens, columns) = (2, 1312);
    let mut noise = Noise::new(80);
    let x = chunks(|_| bytes_of_f32(&noise.floats(tokens * columns)));
    let one = Workload {
        dims: quantize::quantize_q8_dims(columns, tokens, 1).unwrap(),
        args: vec![
            Arg::read("x", Vec::new()),
            Arg::write("y", activation::bytes(columns, tokens)),
            Arg::U32(columns as u32),
        ],
        work: Work::default(),
    };
    check(&quantize::quantize_q8, &one, 2, &[("x", x)], None);
}

/// What the helpers give is what the tests above launch.
#[test]
fn chunks_are_in_the_grid() {
    let gemv = Gemv::new(Format::Q4_K, 8, Epilogue::Store).unwrap();
    assert_eq!(gemv.dims(64, 512, 3, 1).unwrap().grid, [8, 3, 1]);
    assert_eq!(GemvMma::new(Format::Q4_K, 8, true).unwrap().dims(64, 512, 3).unwrap().grid, [2, 3, 1]);
    assert_eq!(norm::dims(norm::Output::Q8, 8, 512, 3).unwrap().grid, [8, 3, 1]);
    assert_eq!(quantize::quantize_q8_dims(2048, 8, 3).unwrap().grid, [2, 8, 3]);
    for refused in [0, 65536] {
        assert!(gemv.dims(64, 512, refused, 1).is_err());
        assert!(quantize::quantize_q8_dims(2048, 8, refused).is_err());
    }
}
