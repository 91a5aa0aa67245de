//! What happens to queries, keys and values between their projection and attention: bias, rotation, and the write to
//! the cache.
//!
//! # Shapes
//! `H` query heads, `KV` heads of keys and of values, `D` = `head_dim`, `T` rows:
//!
//! | buffer | layout |
//! | --- | --- |
//! | `qkv` | `[T][H + 2·KV][D]` f32: queries, keys, values, as one matrix gives them |
//! | `bias` | `[H + 2·KV][D]` f32, if the kernel was built with it |
//! | `angles` | `[T][pairs]` cosine and sine, f32: what `rope_angles` wrote |
//! | `positions`, `sequences`, `block_table`, `kv` | see [`kv`] |
//! | `q` | `[T][H][D]` f32: rotated queries |
//!
//! The first `2 · pairs` elements of each query and key are rotated, the others pass through: pair `i` is `(2i, 2i +
//! 1)` of [`RopeStyle::Interleaved`], `(i, i + pairs)` of [`RopeStyle::SplitHalves`].
//!
//! A thread takes one pair of one head; CTAs of 256 threads, rows along y. The cache of a row is written at the row's
//! position, which is read from device memory. It moves some kilobytes per row: launch latency binds it when decoding,
//! bandwidth when prefilling.

use super::Entry;
use super::kv::{self, BLOCK, Batch, INACTIVE, KvType};
use super::launch::{Dims, ShapeError};
use super::workload::{Arg, Noise, Work, Workload, bytes_of_f32, bytes_of_u32};
use crate::build::{B32, F32, KernelBuilder, LoadOptions, Ptr, Reg, U16, U32, Var};
use crate::ir::{Access, Kernel, Target, Threads};

const THREADS: u32 = 256;

/// Which elements of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RopeStyle {
    /// Pairs `(2i, 2i + 1)`: NORM.
    Interleaved,
    /// Pairs `(i, i + pairs)`: NEOX.
    SplitHalves,
}

/// What a kernel is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Elements per head, one of [`kv::HEAD_DIMS`].
    pub head_dim: u32,
    /// Pairing.
    pub style: RopeStyle,
    /// Whether there is a bias.
    pub bias: bool,
    /// Type of the cache.
    pub kv: KvType,
}

impl Spec {
    /// Name of the kernel.
    pub fn kernel(self) -> String {
        let style = match self.style {
            RopeStyle::Interleaved => "norm",
            RopeStyle::SplitHalves => "neox",
        };
        format!("rope_kv_{style}{}_{}_d{}", if self.bias { "_bias" } else { "" }, self.kv.name(), self.head_dim)
    }
}

/// `rope_kv_…`; for [`Target::Sm90`], with dependent launch.
pub fn rope_kv(spec: Spec, target: Target) -> Kernel {
    let k = KernelBuilder::new(&spec.kernel());
    k.about("Adds the bias, rotates queries and keys, writes keys and values to the cache. A thread takes a pair of a head.");
    k.threads(Threads::UpTo(THREADS));
    let qkv = k.param_ptr::<F32>("qkv", Access::Read, 16);
    let bias = spec.bias.then(|| k.param_ptr::<F32>("bias", Access::Read, 16));
    let angles = k.param_ptr::<F32>("angles", Access::Read, 8);
    let positions = k.param_ptr::<U32>("positions", Access::Read, 4);
    let sequences = k.param_ptr::<U32>("sequences", Access::Read, 4);
    let block_table = k.param_ptr::<U32>("block_table", Access::Read, 4);
    let q = k.param_ptr::<F32>("q", Access::Write, 16);
    let kv = k.param_ptr::<B32>("kv", Access::ReadWrite, 16);
    let heads = k.param_u32("heads");
    let kv_heads = k.param_u32("kv_heads");
    let pairs = k.param_u32("pairs");
    let table_width = k.param_u32("table_width");
    let blocks = k.param_u32("blocks");

    let row = k.ctaid_y();
    let unit = k.mad(k.ctaid(), k.ntid(), k.tid());
    let (head, pair) = (k.div(unit, spec.head_dim / 2), k.rem(unit, spec.head_dim / 2));
    let all_heads = k.add(heads, k.shl(kv_heads, 1));
    k.return_if(k.ge(head, all_heads));
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }
    let position = k.ld_with(k.index(positions, row), LoadOptions::READ_ONLY);
    k.return_if(k.eq(position, INACTIVE));

    let rotated_heads = k.add(heads, kv_heads);
    let rotated = k.and(k.lt(pair, pairs), k.lt(head, rotated_heads));
    let doubled = k.shl(pair, 1);
    let (first, second) = match spec.style {
        RopeStyle::Interleaved => (doubled, k.add(doubled, 1)),
        RopeStyle::SplitHalves => {
            (k.select(rotated, pair, doubled), k.select(rotated, k.add(pair, pairs), k.add(doubled, 1)))
        }
    };
    let of_row = k.index_by(k.row(qkv, row, k.mul(all_heads, 4 * spec.head_dim)), head, 4 * spec.head_dim);
    let pair_of = |of_head: Ptr<F32>| match spec.style {
        RopeStyle::Interleaved => k.ld_vec(k.index(of_head, first), LoadOptions::READ_ONLY),
        RopeStyle::SplitHalves => [first, second].map(|i| k.ld_with(k.index(of_head, i), LoadOptions::READ_ONLY)),
    };
    let x = pair_of(of_row);
    let [a, b] = bias.map_or(x, |bias| {
        let bias = pair_of(k.index_by(bias, head, 4 * spec.head_dim));
        [k.add(x[0], bias[0]), k.add(x[1], bias[1])]
    });
    let (a, b) = (k.var(a), k.var(b));
    k.if_(rotated, || {
        let angle = k.index_by(k.row(angles, row, k.shl(pairs, 3)), pair, 8);
        let [cos, sin] = k.ld_vec::<_, _, 2>(angle, LoadOptions::READ_ONLY);
        rotate(&k, a, b, cos, sin);
    });
    let (a, b) = (a.get(), b.get());

    let store_kv = || {
        let sequence = k.ld_with(k.index(sequences, row), LoadOptions::READ_ONLY);
        let entry = k.mad(sequence, table_width, k.div(position, BLOCK));
        let block = k.ld_with(k.index(block_table, entry), LoadOptions::READ_ONLY);
        let is_value = k.ge(head, rotated_heads);
        let kv_head = k.sub(head, k.select(is_value, rotated_heads, heads));
        let page = kv::page(&k, kv, kv_head, block, blocks, spec.head_dim);
        let slot = k.add(k.rem(position, BLOCK), k.select(is_value, BLOCK, 0));
        let to = k.index_by(page, slot, 2 * spec.head_dim);
        store_pair(&k, spec.kv, spec.style, to, (first, second), (a, b));
    };
    let store_q = || {
        let q = k.index_by(k.row(q, row, k.mul(heads, 4 * spec.head_dim)), head, 4 * spec.head_dim);
        match spec.style {
            RopeStyle::Interleaved => k.st2(k.index(q, first), [a, b]),
            RopeStyle::SplitHalves => {
                k.st(k.index(q, first), a);
                k.st(k.index(q, second), b);
            }
        }
    };
    k.if_else(k.lt(head, heads), store_q, store_kv);
    k.finish()
}

/// Rotates a pair.
pub(super) fn rotate(k: &KernelBuilder, a: Var<F32>, b: Var<F32>, cos: Reg<F32>, sin: Reg<F32>) {
    let turned = k.fma(a, cos, k.neg(k.mul(b, sin)));
    k.set(b, k.fma(a, sin, k.mul(b, cos)));
    k.set(a, turned);
}

/// Stores two elements of a key or value.
pub(super) fn store_pair(
    k: &KernelBuilder,
    kv: KvType,
    style: RopeStyle,
    to: Ptr<B32>,
    (i, j): (Reg<U32>, Reg<U32>),
    (a, b): (Reg<F32>, Reg<F32>),
) {
    match style {
        // Neighbours: one word.
        RopeStyle::Interleaved => k.st(k.index_by(to, k.shr(i, 1), 4), kv.pack(k, a, b)),
        RopeStyle::SplitHalves => {
            kv.store(k, k.index(to.cast::<U16>(), i), a);
            kv.store(k, k.index(to.cast::<U16>(), j), b);
        }
    }
}

/// Shape of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows of the batch.
    pub rows: usize,
    /// Query heads.
    pub heads: usize,
    /// Heads of keys, and of values.
    pub kv_heads: usize,
    /// Pairs of a head that are rotated.
    pub pairs: usize,
}

/// The launch.
///
/// # Errors
/// [`ShapeError`] for a head size that the kernel is not written for, more pairs than half a head, no heads, or rows
/// outside 1 to 65535.
pub fn dims(spec: Spec, shape: Shape) -> Result<Dims, ShapeError> {
    let name = spec.kernel();
    kv::check_head_dim(&name, spec.head_dim)?;
    ShapeError::check(&name, "pairs", shape.pairs, 1, spec.head_dim / 2)?;
    let heads = ShapeError::check(&name, "heads", shape.heads, 1, 1 << 12)?;
    let kv_heads = ShapeError::check(&name, "KV heads", shape.kv_heads, 1, 1 << 12)?;
    let rows = ShapeError::check(&name, "rows", shape.rows, 1, 65535)?;
    let threads = (heads + 2 * kv_heads) * spec.head_dim / 2;
    Ok(Dims { grid: [threads.div_ceil(THREADS), rows, 1], block: [THREADS, 1, 1], dynamic_shared: 0 })
}

/// A launch with seeded queries, keys and values. The angles are random: they are not checked to be a rotation.
///
/// # Errors
/// As [`dims`].
pub fn workload(spec: Spec, shape: Shape, batch: &Batch, seed: u64) -> Result<Workload, ShapeError> {
    let mut noise = Noise::new(seed);
    let d = spec.head_dim as usize;
    let width = (shape.heads + 2 * shape.kv_heads) * d;
    let mut args = vec![Arg::read("qkv", bytes_of_f32(&noise.floats(shape.rows * width)))];
    if spec.bias {
        args.push(Arg::read("bias", bytes_of_f32(&noise.floats(width))));
    }
    let pages = shape.kv_heads * batch.blocks as usize;
    args.extend([
        Arg::read("angles", bytes_of_f32(&noise.floats(2 * shape.rows * shape.pairs))),
        Arg::read("positions", bytes_of_u32(&batch.positions)),
        Arg::read("sequences", bytes_of_u32(&batch.sequences)),
        Arg::read("block_table", bytes_of_u32(&batch.block_table)),
        Arg::update("q", vec![0; 4 * shape.rows * shape.heads * d]),
        Arg::update("kv", vec![0; pages * kv::page_bytes(spec.head_dim) as usize]),
        Arg::U32(shape.heads as u32),
        Arg::U32(shape.kv_heads as u32),
        Arg::U32(shape.pairs as u32),
        Arg::U32(batch.table_width),
        Arg::U32(batch.blocks),
    ]);
    let (q, kv) = ((shape.rows * shape.heads * d) as u64, (2 * shape.rows * shape.kv_heads * d) as u64);
    let work = Work {
        weight_bytes: if spec.bias { 4 * width as u64 } else { 0 },
        activation_bytes: 4 * (q + kv) + 8 * (shape.rows * shape.pairs) as u64,
        output_bytes: 4 * q + 2 * kv,
        float_ops: (6 * shape.rows * (shape.heads + shape.kv_heads) * shape.pairs) as u64,
        ..Work::default()
    };
    Ok(Workload { dims: dims(spec, shape)?, args, work })
}

/// What ships.
pub(super) fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for style in [RopeStyle::Interleaved, RopeStyle::SplitHalves] {
        for bias in [false, true] {
            for head_dim in kv::HEAD_DIMS {
                let spec = Spec { head_dim, style, bias, kv: KvType::F16 };
                let shape = Shape { rows: 2, heads: 4, kv_heads: 2, pairs: head_dim as usize / 2 };
                let batch = Batch {
                    positions: vec![37, 5],
                    sequences: vec![0, 1],
                    block_table: vec![2, 0, 1, 0],
                    table_width: 2,
                    blocks: 3,
                };
                entries.push(Entry {
                    name: spec.kernel(),
                    about: "bias and rotation of queries and keys, keys and values to the paged cache",
                    oldest: Target::Sm80,
                    build: Box::new(move |target| rope_kv(spec, target)),
                    workload: workload(spec, shape, &batch, 12)
                        .expect("invariant: the shape of a workload is one that its kernel takes"),
                });
            }
        }
    }
    entries
}
