//! Variants of the kernel, their launches, and what ships.

use super::fused::{Fused, attention_fused};
use super::split::attention;
use crate::ir::Target;
use crate::kernels::attention::scalars::Values;
use crate::kernels::kv::{self, BLOCK, Batch, KvType};
use crate::kernels::rope_kv::RopeStyle;
use crate::kernels::workload::{Arg, Noise, Work, Workload, bytes_of_f32, bytes_of_u32};
use crate::kernels::{Dims, Entry, ShapeError, known};

/// Positions of a split.
pub const SPLIT: u32 = 256;

pub(super) const WARPS: u32 = 4;
pub(super) const THREADS: u32 = 32 * WARPS;
/// Blocks that a warp takes of a split.
pub(super) const ROUNDS: u32 = SPLIT / BLOCK / WARPS;

/// What a kernel is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Elements per head, one of [`kv::HEAD_DIMS`].
    pub head_dim: u32,
    /// Query heads of a CTA, 1 to 8: see [`heads_per_cta`].
    pub heads: u32,
    /// Type of the cache.
    pub kv: KvType,
    /// Whether scores are capped.
    pub softcap: bool,
    /// Whether a row sees a window only.
    pub window: bool,
}

impl Spec {
    /// Name of the kernel.
    pub fn kernel(self) -> String {
        let softcap = if self.softcap { "_softcap" } else { "" };
        let window = if self.window { "_window" } else { "" };
        format!("attention_{}_d{}_h{}{softcap}{window}", self.kv.name(), self.head_dim, self.heads)
    }

    /// Bytes of a key, or of a value.
    pub(super) fn key_bytes(self) -> u32 {
        2 * self.head_dim
    }

    /// Bytes of the keys of a block in shared memory, and of its values. A warp's output takes the place of the keys later, and is smaller.
    pub(super) fn tile_bytes(self) -> u32 {
        BLOCK * self.key_bytes()
    }

    /// Whether values come through shared memory, like keys. Those of the largest heads do not fit on every GPU.
    pub(super) fn values_in_shared(self) -> bool {
        self.head_dim <= 128
    }

    /// Bytes between the weights of neighbouring positions in shared memory: an odd number of 16, so that lanes that
    /// store 16 bytes side by side lie in different banks.
    pub(super) fn weight_stride(self) -> u32 {
        16 * (self.heads.div_ceil(4) | 1)
    }

    /// Where queries begin in shared memory.
    pub(super) fn queries_at(self) -> u32 {
        WARPS * self.tile_bytes() * (1 + u32::from(self.values_in_shared()))
    }

    /// Where weights begin in shared memory.
    pub(super) fn weights_at(self) -> u32 {
        self.queries_at() + 4 * self.heads * self.head_dim
    }

    /// Where maxima and sums of the warps begin in shared memory.
    pub(super) fn sums_at(self) -> u32 {
        self.weights_at() + WARPS * BLOCK * self.weight_stride()
    }

    /// Bytes of shared memory.
    pub(super) fn shared_bytes(self) -> u32 {
        (self.sums_at() + WARPS * self.heads * 8).next_multiple_of(16)
    }
}

/// The most query heads of a group that a CTA can take: the largest divisor of the group that is at most 8.
pub fn heads_per_cta(group: u32) -> u32 {
    (1..=8).rev().find(|&n| group.is_multiple_of(n)).unwrap_or(1)
}

/// Shape of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows of the batch.
    pub rows: usize,
    /// Query heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Positions of the longest context that the launch has to do.
    pub context: usize,
    /// Positions that a row sees, if the kernel was built with a window.
    pub window: usize,
}

/// The launch. Its `grid[0]` is `splits`, the width of the scratch buffers.
///
/// # Errors
/// [`ShapeError`] for a head size or a number of heads per CTA that the kernel is not written for, query heads that are
/// no multiple of the KV heads or groups that are no multiple of the heads per CTA, or rows outside 1 to 65535.
pub fn dims(spec: Spec, shape: Shape) -> Result<Dims, ShapeError> {
    let name = spec.kernel();
    kv::check_head_dim(&name, spec.head_dim)?;
    ShapeError::check(&name, "heads per CTA", spec.heads as usize, 1, 8)?;
    let kv_heads = ShapeError::check(&name, "KV heads", shape.kv_heads, 1, 1 << 12)?;
    let heads = ShapeError::check(&name, "heads", shape.heads, (kv_heads * spec.heads) as usize, 1 << 15)?;
    let rows = ShapeError::check(&name, "rows", shape.rows, 1, 65535)?;
    let context = ShapeError::check(&name, "positions of context", shape.context, 1, 1 << 26)?;
    let mut splits = context.div_ceil(SPLIT);
    if spec.window {
        // A window that does not begin at the border of a split touches one more.
        let window = ShapeError::check(&name, "positions of the window", shape.window, 1, 1 << 26)?;
        splits = splits.min((window - 1).div_ceil(SPLIT) + 1);
    }
    Ok(Dims { grid: [splits, heads / spec.heads, rows], block: [THREADS, 1, 1], dynamic_shared: spec.shared_bytes() })
}

/// A launch with seeded queries, keys and values. Positions of the cache that no row may see hold NaN.
///
/// # Errors
/// As [`dims`].
pub fn workload(spec: Spec, shape: Shape, batch: &Batch, softcap: f32, seed: u64) -> Result<Workload, ShapeError> {
    let dims = dims(spec, shape)?;
    let mut noise = Noise::new(seed);
    let d = spec.head_dim as usize;
    let q = shape.rows * shape.heads * d;
    let window = spec.window.then_some(shape.window);
    let values = Values {
        head_dim: spec.head_dim,
        heads: shape.heads,
        kv_heads: shape.kv_heads,
        batch,
        softcap: spec.softcap.then_some(softcap),
        window,
    };
    let cache = batch.cache(spec.kv, spec.head_dim, shape.kv_heads, window, &mut noise);
    let parts = shape.rows * shape.heads * dims.grid[0] as usize;
    let mut args = vec![
        Arg::read("q", bytes_of_f32(&noise.floats(q))),
        Arg::read("positions", bytes_of_u32(&batch.positions)),
        Arg::read("sequences", bytes_of_u32(&batch.sequences)),
        Arg::read("block_table", bytes_of_u32(&batch.block_table)),
        Arg::read("kv", cache),
        Arg::update("y", vec![0; 4 * q]),
        Arg::scratch("parts", 4 * parts * d),
        Arg::scratch("part_sums", 8 * parts),
        Arg::update("arrivals", vec![0; 4 * shape.rows * shape.heads / spec.heads as usize]),
    ];
    args.extend(values.args());
    let visible: u64 = batch.positions.iter().filter(|&&p| p != kv::INACTIVE).map(|&p| values.seen(p)).sum();
    Ok(Workload { dims, args, work: values.work(shape.rows, visible, visible) })
}

/// A launch of a fused kernel. The angles are random: they are not checked to be a rotation.
///
/// # Errors
/// As [`Fused::dims`].
pub fn fused_workload(
    fused: Fused,
    shape: Shape,
    pairs: usize,
    batch: &Batch,
    softcap: f32,
    seed: u64,
) -> Result<Workload, ShapeError> {
    let dims = fused.dims(shape, pairs)?;
    let Workload { mut args, work, .. } = workload(fused.spec, shape, batch, softcap, seed)?;
    let mut noise = Noise::new(seed + 1);
    let Shape { rows, heads, kv_heads, .. } = shape;
    let d = fused.spec.head_dim as usize;
    args[0] = Arg::read("qkv", bytes_of_f32(&noise.floats(rows * (heads + 2 * kv_heads) * d)));
    args.insert(1, Arg::read("angles", bytes_of_f32(&noise.floats(2 * rows * pairs))));
    args[5] = Arg::update("kv", batch.cache(fused.spec.kv, fused.spec.head_dim, kv_heads, None, &mut noise));
    args.push(Arg::U32(pairs as u32));
    let written = (2 * rows * kv_heads * d) as u64;
    let work = Work {
        activation_bytes: work.activation_bytes + 4 * written + 8 * (rows * pairs) as u64,
        output_bytes: work.output_bytes + 2 * written,
        float_ops: work.float_ops + (rows * 6 * (heads + kv_heads) * pairs) as u64,
        ..work
    };
    Ok(Workload { dims, args, work })
}

/// What ships: every head size with the group sizes of published models, and the variants of gemma.
pub(in crate::kernels) fn entries() -> Vec<Entry> {
    let plain = |head_dim, heads| Spec { head_dim, heads, kv: KvType::F16, softcap: false, window: false };
    let mut specs = Vec::new();
    for heads in 1..=8 {
        specs.push(plain(128, heads));
    }
    specs.extend([plain(64, 1), plain(64, 4), plain(64, 7), plain(64, 8), plain(256, 1), plain(256, 2), plain(256, 4)]);
    specs.push(Spec { window: true, ..plain(128, 4) });
    specs.push(Spec { softcap: true, ..plain(256, 2) });
    specs.push(Spec { softcap: true, window: true, ..plain(256, 2) });
    specs.push(Spec { kv: KvType::Bf16, ..plain(128, 4) });
    let batch = Batch::new(&[299, 33]);
    let entry = |spec: Spec| {
        let heads = spec.heads as usize;
        let shape = Shape { rows: 2, heads, kv_heads: 1, context: 512, window: 100 };
        Entry {
            name: spec.kernel(),
            about: "attention of single rows over the paged cache, split over the context",
            oldest: Target::Sm80,
            build: Box::new(move |target| attention(spec, target)),
            workload: known(workload(spec, shape, &batch, 30.0, 14)),
        }
    };
    let fused = |style, spec: Spec| Fused { spec, style };
    let mut all: Vec<Entry> = specs.into_iter().map(entry).collect();
    let neox = RopeStyle::SplitHalves;
    let mut kernels: Vec<Fused> = (1..=8).map(|heads| fused(neox, plain(128, heads))).collect();
    let others = [(64, 1), (64, 4), (64, 7), (64, 8), (256, 1), (256, 2), (256, 4)];
    kernels.extend(others.map(|(head_dim, heads)| fused(neox, plain(head_dim, heads))));
    kernels.push(fused(neox, Spec { window: true, ..plain(128, 4) }));
    kernels.push(fused(neox, Spec { softcap: true, ..plain(256, 2) }));
    kernels.push(fused(neox, Spec { softcap: true, window: true, ..plain(256, 2) }));
    kernels.extend([(128, 4), (128, 8), (64, 4)].map(|(d, heads)| fused(RopeStyle::Interleaved, plain(d, heads))));
    let entry = |fused: Fused| {
        let (heads, pairs) = (fused.spec.heads as usize, fused.spec.head_dim as usize / 2);
        let shape = Shape { rows: 2, heads, kv_heads: 1, context: 512, window: 100 };
        Entry {
            name: fused.kernel(),
            about: "rotation, write to the paged cache, attention of single rows",
            oldest: Target::Sm80,
            build: Box::new(move |target| attention_fused(fused, target)),
            workload: known(fused_workload(fused, shape, pairs, &batch, 30.0, 14)),
        }
    };
    all.extend(kernels.into_iter().map(entry));
    all
}
