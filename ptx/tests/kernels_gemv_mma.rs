//! Eight vectors on tensor cores: the results of the kernels with dp4a, bit for bit.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::interp::Schedule;
use brick_ptx::ir::Target;
use brick_ptx::kernels::Format;
use brick_ptx::kernels::gemv::mma::{FORMATS, GemvMma};
use brick_ptx::kernels::gemv::{Epilogue, Gemv};
use brick_ptx::kernels::workload::{Arg, Contents, Noise, bytes_of_f32};

#[test]
fn the_bits_of_dp4a() {
    for format in FORMATS {
        let all = [false, true].map(|gated| GemvMma::new(format, 8, gated).unwrap());
        for mma in [all[0], all[1], all[0].narrow()] {
            let dp4a = Gemv::new(format, 8, mma.epilogue()).unwrap();
            let reference = launches::module(dp4a.kernel(Target::Sm80), Target::Sm80);
            for target in Target::ALL {
                let module = launches::module(mma.kernel(target), target);
                // One group that is not whole; several, the last not whole; rows that are not whole blocks; more groups than stages.
                for (i, (rows, columns)) in [(2, 256), (34, 1536), (48, 768), (6, 5376)].into_iter().enumerate() {
                    let seed = 60 + i as u64;
                    let workload = dp4a.workload(rows, columns, seed).unwrap();
                    let expected = launches::run(&workload, &reference, &dp4a.name(), Schedule::RoundRobin);
                    let expected = expected.f32s("y").unwrap();
                    // A gate far below zero makes nothing of its up, but not everywhere (of 8 results, perhaps).
                    let most = expected.iter().filter(|y| **y != 0.0).count() > expected.len() / 2;
                    assert!(most || expected.len() < 32);
                    let schedules = if i == 1 { launches::SCHEDULES.to_vec() } else { vec![launches::SCHEDULES[i]] };
                    for schedule in schedules {
                        let found =
                            launches::run(&mma.workload(rows, columns, seed).unwrap(), &module, &mma.name(), schedule);
                        assert_eq!(found.f32s("y").unwrap(), expected, "{} {rows}x{columns}", mma.name());
                    }
                }
            }
        }
    }
}

/// Of 16 and 32 tokens, every chunk of eight has the results that it has alone.
#[test]
fn the_bits_of_every_chunk() {
    for format in FORMATS {
        let kernel = |tokens, gated| GemvMma::new(format, tokens, gated).unwrap();
        for wide in
            [kernel(16, true), kernel(32, false), kernel(32, true), kernel(16, false), kernel(16, false).narrow()]
        {
            let tokens = wide.tokens();
            let one = kernel(8, wide.epilogue() == Epilogue::SwiGlu);
            let target = wide.oldest();
            let module = launches::module(wide.kernel(target), target);
            let reference = launches::module(one.kernel(Target::Sm80), Target::Sm80);
            for (i, (rows, columns)) in [(34, 1536), (4, 3328)].into_iter().enumerate() {
                let workload = wide.workload(rows, columns, 90).unwrap();
                let schedule = launches::SCHEDULES[i];
                let found = launches::run(&workload, &module, &wide.name(), schedule).f32s("y").unwrap();
                let is_x = |arg: &Arg| matches!(arg, Arg::Buffer { name: "x", .. });
                let at = workload.args.iter().position(is_x).unwrap();
                let Arg::Buffer { contents: Contents::Bytes(x), .. } = &workload.args[at] else {
                    panic!("a workload's activations are bytes")
                };
                let per_chunk = x.len() / (tokens / 8);
                let mut expected = Vec::new();
                for x in x.chunks(per_chunk) {
                    let mut alone = one.workload(rows, columns, 90).unwrap();
                    alone.args[at] = Arg::read("x", x.to_vec());
                    expected.extend(launches::run(&alone, &reference, &one.name(), schedule).f32s("y").unwrap());
                }
                assert_eq!(found, expected, "{} {rows}x{columns}", wide.name());
            }
        }
    }
}

#[test]
fn bias_and_residual() {
    let (rows, columns) = (40, 512);
    let mut noise = Noise::new(3);
    let (bias, residual) = (bytes_of_f32(&noise.floats(rows)), bytes_of_f32(&noise.floats(8 * rows)));
    let mma = GemvMma::new(Format::Q4_K, 8, false).unwrap();
    let dp4a = Gemv::new(Format::Q4_K, 8, mma.epilogue()).unwrap();
    let [found, expected] = [
        (mma.workload(rows, columns, 1).unwrap(), mma.kernel(Target::Sm80), mma.name()),
        (dp4a.workload(rows, columns, 1).unwrap(), dp4a.kernel(Target::Sm80), dp4a.name()),
    ]
    .map(|(mut workload, kernel, name)| {
        let first = workload.args.len() - 6;
        workload.args[first] = Arg::read("bias", bias.clone());
        workload.args[first + 1] = Arg::read("residual", residual.clone());
        let module = launches::module(kernel, Target::Sm80);
        launches::run(&workload, &module, &name, Schedule::Seeded(5)).f32s("y").unwrap()
    });
    assert_eq!(found, expected);
}

#[test]
fn shapes_that_are_refused() {
    let mma = GemvMma::new(Format::Q8_0, 8, true).unwrap();
    let refused = |rows, columns| mma.dims(rows, columns, 1).unwrap_err().to_string();
    assert_eq!(
        refused(3, 256),
        "kernel `gemv_mma_swiglu_q8_0_b8` takes rows that is a multiple of 2, at most 16777216, found 3"
    );
    assert!(refused(4, 896).contains("columns that is a multiple of 256"));
    assert_eq!(GemvMma::new(Format::Q5_K, 8, false), None);
    assert_eq!(GemvMma::new(Format::Q4_K, 24, false), None);
    let wide = GemvMma::new(Format::Q4_K, 32, false).unwrap();
    assert!(wide.dims(32, 256, 6).unwrap_err().to_string().contains("chunks that is a multiple of 4"));
    assert_eq!(wide.dims(40, 256, 8).unwrap().grid, [2, 2, 1]);
}
