//! Element by element: the residual, and the gated activation where no matrix kernel has done it already.
//!
//! # `add`
//! `y = a + b`; `a`, `b`, `y`: `[n]` f32.
//!
//! # `gate_silu`, `gate_gelu`
//! `y = act(gate) · up`. `gate` and `up` are rows of `columns` f32 that begin `stride` elements apart: two matrices
//! (`stride = columns`), or the halves of one (`up = gate + columns`, `stride = 2 · columns`). `y`: `[rows][columns]`
//! f32.
//!
//! - SwiGLU: `x / (1 + e^-x)`;
//! - GeGLU: `x/2 · (1 + tanh u)` with `u = √(2/π) · (x + 0.044715 x³)`, which is `x / (1 + e^-2u)`.
//!
//! A thread takes four elements; the last thread of `add` takes what is left one by one. Bandwidth binds both: 12 bytes
//! per element.

use std::f32::consts::LOG2_E;

use super::Entry;
use super::launch::{Dims, ShapeError};
use super::workload::{Arg, Noise, Work, Workload, bytes_of_f32};
use crate::build::{F32, KernelBuilder, LoadOptions, Reg};
use crate::ir::{Access, Kernel, Target, Threads};

const THREADS: u32 = 256;

/// Function of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x · sigmoid(x)`: SwiGLU.
    Silu,
    /// GELU, tanh approximation: GeGLU.
    GeluTanh,
}

impl Activation {
    /// Name of the kernel.
    pub fn kernel(self) -> &'static str {
        match self {
            Self::Silu => "gate_silu",
            Self::GeluTanh => "gate_gelu",
        }
    }

    /// The function at `x`.
    pub(super) fn apply(self, k: &KernelBuilder, x: Reg<F32>) -> Reg<F32> {
        // Both are x / (1 + 2^-t).
        let t = match self {
            Self::Silu => k.mul(x, -LOG2_E),
            Self::GeluTanh => {
                let two_root = 2.0 * (2.0 / std::f32::consts::PI).sqrt();
                let inner = k.fma(k.mul(x, x), 0.044_715, 1.0);
                k.mul(k.mul(x, inner), -LOG2_E * two_root)
            }
        };
        k.mul(x, k.rcp_approx(k.add(k.ex2(t), 1.0)))
    }
}

/// `add`; for [`Target::Sm90`], with dependent launch.
pub fn add(target: Target) -> Kernel {
    let k = KernelBuilder::new("add");
    k.about("y[i] = a[i] + b[i] for i < n. A thread takes four elements.");
    k.threads(Threads::UpTo(THREADS));
    let a = k.param_ptr::<F32>("a", Access::Read, 16);
    let b = k.param_ptr::<F32>("b", Access::Read, 16);
    let y = k.param_ptr::<F32>("y", Access::Write, 16);
    let n = k.param_u32("n");
    let i = k.shl(k.mad(k.ctaid(), k.ntid(), k.tid()), 2);
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }
    let [a, b] = [a, b].map(|x| k.index(x, i));
    let y = k.index(y, i);
    k.if_else(
        k.le(k.add(i, 4), n),
        || {
            let [a, b] = [a, b].map(|x| k.ld_vec::<_, _, 4>(x, LoadOptions::READ_ONLY));
            k.st4(y, std::array::from_fn::<_, 4, _>(|j| k.add(a[j], b[j])));
        },
        || {
            for j in 0..3 {
                k.if_(k.lt(k.add(i, j), n), || {
                    let [a, b] = [a, b].map(|x| k.ld_with(x.at(j as i32), LoadOptions::READ_ONLY));
                    k.st(y.at(j as i32), k.add(a, b));
                });
            }
        },
    );
    k.finish()
}

/// The launch of `add`.
///
/// # Errors
/// [`ShapeError`] unless there are 1 to 2^30 elements.
pub fn add_dims(n: usize) -> Result<Dims, ShapeError> {
    Ok(Dims::linear(ShapeError::check("add", "elements", n, 1, 1 << 30)?.div_ceil(4 * THREADS), THREADS))
}

/// `gate_…`; for [`Target::Sm90`], with dependent launch.
pub fn gate(activation: Activation, target: Target) -> Kernel {
    let k = KernelBuilder::new(activation.kernel());
    k.about("y = act(gate) * up, for rows of columns that begin stride elements apart. A thread takes four elements of a row.");
    k.threads(Threads::UpTo(THREADS));
    let gate = k.param_ptr::<F32>("gate", Access::Read, 16);
    let up = k.param_ptr::<F32>("up", Access::Read, 16);
    let y = k.param_ptr::<F32>("y", Access::Write, 16);
    let columns = k.param_u32_multiple_of("columns", 4);
    let stride = k.param_u32_multiple_of("stride", 4);
    let (row, i) = (k.ctaid_y(), k.shl(k.mad(k.ctaid(), k.ntid(), k.tid()), 2));
    k.return_if(k.ge(i, columns));
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }
    let [gate, up] =
        [gate, up].map(|x| k.ld_vec::<_, _, 4>(k.index(k.row(x, row, k.shl(stride, 2)), i), LoadOptions::READ_ONLY));
    let values = std::array::from_fn::<_, 4, _>(|j| k.mul(activation.apply(&k, gate[j]), up[j]));
    k.st4(k.index(k.row(y, row, k.shl(columns, 2)), i), values);
    k.finish()
}

/// The launch of `gate_…`.
///
/// # Errors
/// [`ShapeError`] unless `columns` and `stride` are multiples of 4, a row fits the stride, and there are 1 to 65535
/// rows.
pub fn gate_dims(activation: Activation, rows: usize, columns: usize, stride: usize) -> Result<Dims, ShapeError> {
    let name = activation.kernel();
    ShapeError::check(name, "stride", stride, 4, 1 << 28)?;
    let columns = ShapeError::check(name, "columns", columns, 4, stride as u32)?;
    let rows = ShapeError::check(name, "rows", rows, 1, 65535)?;
    Ok(Dims { grid: [columns.div_ceil(4 * THREADS), rows, 1], block: [THREADS, 1, 1], dynamic_shared: 0 })
}

/// A launch of `add` with seeded data.
///
/// # Errors
/// As [`add_dims`].
pub fn add_workload(n: usize, seed: u64) -> Result<Workload, ShapeError> {
    let mut noise = Noise::new(seed);
    let args = vec![
        Arg::read("a", bytes_of_f32(&noise.floats(n))),
        Arg::read("b", bytes_of_f32(&noise.floats(n))),
        Arg::write("y", 4 * n),
        Arg::U32(n as u32),
    ];
    let n = n as u64;
    let work = Work { activation_bytes: 8 * n, output_bytes: 4 * n, float_ops: n, ..Work::default() };
    Ok(Workload { dims: add_dims(n as usize)?, args, work })
}

/// A launch of `gate_…` on two matrices with these elements.
///
/// # Errors
/// As [`gate_dims`].
pub fn gate_workload(activation: Activation, columns: usize, gate: &[f32], up: &[f32]) -> Result<Workload, ShapeError> {
    let n = gate.len();
    let args = vec![
        Arg::read("gate", bytes_of_f32(gate)),
        Arg::read("up", bytes_of_f32(up)),
        Arg::write("y", 4 * n),
        Arg::U32(columns as u32),
        Arg::U32(columns as u32),
    ];
    let work =
        Work { activation_bytes: 8 * n as u64, output_bytes: 4 * n as u64, float_ops: 6 * n as u64, ..Work::default() };
    Ok(Workload { dims: gate_dims(activation, n / columns.max(1), columns, columns)?, args, work })
}

/// What ships.
pub(super) fn entries() -> Vec<Entry> {
    const INVARIANT: &str = "invariant: the shape of a workload is one that its kernel takes";
    let noise = |seed| Noise::new(seed).floats(2 * 1540);
    let gate = |activation: Activation, about| Entry {
        name: activation.kernel().into(),
        about,
        oldest: Target::Sm80,
        build: Box::new(move |target| gate(activation, target)),
        workload: gate_workload(activation, 1540, &noise(17), &noise(18)).expect(INVARIANT),
    };
    vec![
        Entry {
            name: "add".into(),
            about: "sum of two vectors: the residual",
            oldest: Target::Sm80,
            build: Box::new(add),
            workload: add_workload(3079, 19).expect(INVARIANT),
        },
        gate(Activation::Silu, "gated activation, SwiGLU"),
        gate(Activation::GeluTanh, "gated activation, GeGLU"),
    ]
}
