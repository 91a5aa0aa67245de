//! Matrix times a few vectors, executed: every format, bucket and epilogue, against decoded weights in f64.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::interp::{Module, Schedule};
use brick_ptx::ir::Target;
use brick_ptx::kernels::argmax::NO_TOKEN;
use brick_ptx::kernels::gemv::{Epilogue, Gemv};
use brick_ptx::kernels::workload::{Arg, Noise, Workload, bytes_of_f32, random_rows};
use brick_ptx::kernels::{Format, activation};
use bricks::op::ActKind;
use bricks::quant::DotReference;
use bricks::quant::q8::Q8Rows;
use bricks::reference::{activate, argmax};

/// Rounding error of a result, relative to the sum of the magnitudes of its terms: a lane rounds twice per block (eight times per unit
/// of floats), then there are five additions. Far above what is seen, far below an error in one code.
const RELATIVE: f64 = 4e-6;

fn gemv(format: Format, tokens: usize, epilogue: Epilogue) -> Gemv {
    Gemv::new(format, tokens, epilogue).unwrap()
}

/// Weights and activations of a launch, kept for the reference.
struct Problem {
    gemv: Gemv,
    rows: usize,
    columns: usize,
    weights: Vec<Vec<f32>>,
    /// As the kernel sees them: rounded where the format asks for it.
    x: Vec<Vec<f64>>,
    workload: Workload,
}

impl Problem {
    fn new(gemv: Gemv, rows: usize, columns: usize, seed: u64) -> Self {
        let workload = gemv.workload(rows, columns, seed).unwrap();
        // The same numbers in the same order as the workload draws them.
        let mut noise = Noise::new(seed);
        let weights = random_rows(gemv.format(), rows, columns, &mut noise);
        let x = noise.floats(gemv.tokens() * columns);
        let x = x
            .chunks_exact(columns)
            .map(|row| match gemv.format() {
                Format::F16 => row.iter().map(|&x| f64::from(x)).collect(),
                Format::BF16 => row.iter().map(|&x| f64::from(half::bf16::from_f32(x).to_f32())).collect(),
                _ => {
                    let rounded = Q8Rows::from_values(columns, row).unwrap();
                    let row = rounded.row(0).unwrap();
                    let value = |(i, &code): (usize, &i8)| f64::from(row.scales()[i / 32]) * f64::from(code);
                    row.codes().iter().enumerate().map(value).collect()
                }
            })
            .collect();
        let weights = launches::decoded(gemv.format(), columns, &weights);
        Self { gemv, rows, columns, weights, x, workload }
    }

    fn dot(&self, token: usize, row: usize) -> DotReference {
        let terms = self.weights[row].iter().zip(&self.x[token]).map(|(&w, &x)| f64::from(w) * x);
        terms.fold(DotReference { value: 0.0, magnitude: 0.0 }, |dot, term| DotReference {
            value: dot.value + term,
            magnitude: dot.magnitude + term.abs(),
        })
    }

    fn module(&self, target: Target) -> Module {
        launches::module(self.gemv.kernel(target), target)
    }

    fn y(&self, module: &Module, schedule: Schedule) -> Vec<f32> {
        launches::run(&self.workload, module, &self.gemv.name(), schedule).f32s("y").unwrap()
    }

    /// Replaces a buffer or a null pointer of the workload.
    fn replace(&mut self, parameter: usize, arg: Arg) {
        self.workload.args[parameter] = arg;
    }

    fn check_stored(&self, y: &[f32], added: impl Fn(usize, usize) -> f64) {
        for token in 0..self.gemv.tokens() {
            for row in 0..self.rows {
                let mut expected = self.dot(token, row);
                let added = added(token, row);
                expected = DotReference { value: expected.value + added, magnitude: expected.magnitude + added.abs() };
                let found = y[token * self.rows + row];
                let Self { columns, rows, .. } = self;
                assert!(
                    expected.accepts(found, RELATIVE),
                    "{} of {rows}x{columns}, token {token}, row {row}: {found} {expected:?}",
                    self.gemv.name()
                );
            }
        }
    }
}

/// Shapes with whole and with ragged steps, warps and blocks. In units of the format's columns.
fn shapes(format: Format) -> Vec<(usize, usize)> {
    match format.column_multiple() {
        256 => vec![(1, 256), (7, 768), (18, 2048), (5, 2304), (3, 4864)],
        32 => vec![(1, 32), (7, 896), (18, 2048), (5, 2080), (3, 4896)],
        _ => vec![(1, 8), (7, 264), (18, 512), (5, 1544), (3, 2048)],
    }
}

#[test]
fn products_of_every_format_and_bucket() {
    for format in Format::ALL {
        for tokens in [1, 2, 3, 4, 5, 8] {
            let gemv = gemv(format, tokens, Epilogue::Store);
            let module = launches::module(gemv.kernel(Target::Sm80), Target::Sm80);
            for (i, (rows, columns)) in shapes(format).into_iter().enumerate() {
                let problem = Problem::new(gemv, rows, columns, 100 + i as u64);
                // Every schedule for one ragged shape; the others in turn.
                let schedules = if i == 1 { launches::SCHEDULES.to_vec() } else { vec![launches::SCHEDULES[i % 4]] };
                for schedule in schedules {
                    problem.check_stored(&problem.y(&module, schedule), |_, _| 0.0);
                }
            }
        }
    }
}

#[test]
fn dependent_launch_changes_no_bit() {
    for format in Format::ALL {
        let gemv = gemv(format, 2, Epilogue::Store);
        let columns = 3 * format.column_multiple().max(32);
        let problem = Problem::new(gemv, 9, columns, 5);
        let [old, new] = Target::ALL.map(|target| problem.y(&problem.module(target), Schedule::Seeded(4)));
        assert_eq!(old, new);
    }
}

/// The bits of a token's result are those it has alone.
#[test]
fn results_do_not_depend_on_company() {
    for format in Format::ALL {
        let (rows, columns) = (6, if format.is_float() { 1544 } else { 2304 });
        let weights = random_rows(format, rows, columns, &mut Noise::new(7));
        let x = Noise::new(8).floats(8 * columns);
        let result = |tokens: usize, x: &[f32]| {
            let gemv = gemv(format, tokens, Epilogue::Store);
            let mut problem = Problem::new(gemv, rows, columns, 7);
            let bytes = match format {
                Format::F16 => bytes_of_f32(x),
                Format::BF16 => x.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
                _ => activation::encode(x, columns).unwrap(),
            };
            let parameter = problem.workload.args.len() - 7;
            problem.replace(parameter, Arg::read("x", bytes));
            // The workload draws its weights first: they are those of the same seed.
            assert_eq!(problem.weights, launches::decoded(format, columns, &weights));
            problem.y(&problem.module(Target::Sm80), Schedule::RoundRobin)
        };
        let together = result(8, &x);
        for tokens in [1_usize, 2, 4] {
            let few = result(tokens, &x[..tokens * columns]);
            assert_eq!(few, together[..tokens * rows], "{format:?}");
        }
    }
}

#[test]
fn bias_and_residual_are_added_where_there_are_such() {
    for (tokens, with_bias, with_residual) in [(1, true, false), (3, false, true), (4, true, true)] {
        let gemv = gemv(Format::Q4_K, tokens, Epilogue::Store);
        let mut problem = Problem::new(gemv, 11, 512, 21);
        let mut noise = Noise::new(22);
        let (bias, residual) = (noise.floats(11), noise.floats(11 * tokens));
        let first = problem.workload.args.len() - 6;
        if with_bias {
            problem.replace(first, Arg::read("bias", bytes_of_f32(&bias)));
        }
        if with_residual {
            problem.replace(first + 1, Arg::read("residual", bytes_of_f32(&residual)));
        }
        let added = |token: usize, row: usize| {
            f64::from(u8::from(with_bias)) * f64::from(bias[row])
                + f64::from(u8::from(with_residual)) * f64::from(residual[11 * token + row])
        };
        let module = problem.module(Target::Sm80);
        for schedule in launches::SCHEDULES {
            problem.check_stored(&problem.y(&module, schedule), added);
        }
    }
}

#[test]
fn a_poisoned_activation_stays_visible() {
    let gemv = gemv(Format::Q6_K, 2, Epilogue::Store);
    let mut problem = Problem::new(gemv, 3, 512, 1);
    let mut x = Noise::new(2).floats(2 * 512);
    x[512 + 77] = f32::INFINITY;
    let parameter = problem.workload.args.len() - 7;
    problem.replace(parameter, Arg::read("x", activation::encode(&x, 512).unwrap()));
    let y = problem.y(&problem.module(Target::Sm80), Schedule::RoundRobin);
    assert!(y[..3].iter().all(|y| y.is_finite()) && y[3..].iter().all(|y| y.is_nan()), "{y:?}");
}

#[test]
fn the_gated_activation() {
    for format in Format::ALL {
        for tokens in [1, 3, 8] {
            let gemv = gemv(format, tokens, Epilogue::SwiGlu);
            let columns = 2 * format.column_multiple().max(32);
            let problem = Problem::new(gemv, 14, columns, 31);
            let module = problem.module(Target::Sm80);
            for schedule in launches::SCHEDULES {
                let y = problem.y(&module, schedule);
                assert_eq!(y.len(), 7 * tokens);
                for (i, &found) in y.iter().enumerate() {
                    let (token, pair) = (i / 7, i % 7);
                    let [gate, up] = [0, 1].map(|r| problem.dot(token, 2 * pair + r));
                    let expected = activate(ActKind::Silu, gate.value) * up.value;
                    // The derivative of silu is below 1.1; `ex2` and the division are within 2^-20.
                    let tolerance = RELATIVE
                        * (1.1 * gate.magnitude * up.value.abs() + gate.value.abs() * up.magnitude)
                        + 4e-6 * expected.abs();
                    assert!((f64::from(found) - expected).abs() <= tolerance + 1e-30, "{format:?} {found} {expected}");
                }
            }
        }
    }
}

#[test]
fn the_largest_of_all_rows() {
    for format in Format::ALL {
        for (tokens, rows) in [(1, 1), (2, 37), (5, 50), (8, 33)] {
            let gemv = gemv(format, tokens, Epilogue::ArgMax);
            let columns = 2 * format.column_multiple().max(32);
            let problem = Problem::new(gemv, rows, columns, 41);
            let module = problem.module(Target::Sm80);
            for schedule in launches::SCHEDULES {
                let run = launches::run(&problem.workload, &module, &gemv.name(), schedule);
                for (token, &found) in run.u32s("tokens").unwrap().iter().enumerate() {
                    let values: Vec<f32> = (0..rows).map(|row| problem.dot(token, row).value as f32).collect();
                    assert_eq!(Some(found as usize), argmax(&values), "{format:?} {rows} rows, {schedule:?}");
                }
                assert_eq!(run.u32s("arrivals").unwrap(), [0], "the counter is ready for the next launch");
            }
        }
    }
}

/// Equal rows, far apart: the first wins, whichever warp and block has it. All NaN: no token.
#[test]
fn of_equal_rows_the_first_wins() {
    let (rows, columns) = (600, 32);
    let gemv = gemv(Format::Q8_0, 2, Epilogue::ArgMax);
    let mut problem = Problem::new(gemv, rows, columns, 1);
    let mut weights = random_rows(Format::Q8_0, rows, columns, &mut Noise::new(1));
    // Rows 150, 151 and 599 are ten times the activations; all others are small.
    let x: Vec<f32> = (0..2 * columns).map(|i| if i < columns { 1.0 } else { f32::NAN }).collect();
    for (row, bytes) in weights.chunks_exact_mut(34).enumerate() {
        let code = if matches!(row, 150 | 151 | 599) { 100 } else { (row % 50) as u8 };
        bytes[..2].copy_from_slice(&half::f16::ONE.to_le_bytes());
        bytes[2..].fill(code);
    }
    let packed = brick_ptx::kernels::pack::Packed::matrix(Format::Q8_0, columns, &weights).unwrap();
    problem.replace(0, Arg::read("codes", packed.codes));
    problem.replace(1, Arg::read("scales", packed.scales));
    problem.replace(2, Arg::read("x", activation::encode(&x, columns).unwrap()));
    assert!(problem.workload.dims.grid[0] > 1);
    let module = problem.module(Target::Sm80);
    for schedule in launches::SCHEDULES {
        let run = launches::run(&problem.workload, &module, &gemv.name(), schedule);
        assert_eq!(run.u32s("tokens").unwrap(), [150, NO_TOKEN]);
    }
}

#[test]
fn what_a_kernel_cannot_do_is_refused() {
    let gated = gemv(Format::Q4_K, 1, Epilogue::SwiGlu);
    let refused = |rows, columns| gated.dims(rows, columns, 1, 132).unwrap_err().to_string();
    insta::assert_snapshot!(
        [
            refused(7, 256),
            refused(0, 256),
            refused(8, 1000),
            refused(1 << 25, 256),
            Gemv::new(Format::Q4_K, 9, Epilogue::Store).unwrap_err().to_string(),
            Gemv::new(Format::Q4_K, 0, Epilogue::Store).unwrap_err().to_string(),
        ]
        .join("\n")
    );
    let head = gemv(Format::Q4_K, 1, Epilogue::ArgMax);
    assert_eq!(head.dims(128_256, 4096, 1, 132).unwrap().grid, [8 * 132, 1, 1]);
    assert!(head.dims(128_256, 4096, 2, 132).is_err());
    assert_eq!(gated.dims(4096, 4096, 3, 132).unwrap().grid, [512, 3, 1]);
    assert!(gated.dims(4096, 4096, 65536, 132).is_err());
}
