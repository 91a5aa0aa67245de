//! Variants of the kernel, their launches, and what ships.

use super::block::attention_prefill;
use crate::ir::Target;
use crate::kernels::attention::scalars::Values;
use crate::kernels::kv::{self, BLOCK, Batch, KvType};
use crate::kernels::workload::{Arg, Noise, Workload, bytes_of_f32, bytes_of_u32};
use crate::kernels::{Dims, Entry, ShapeError};

/// Rows of a tile.
pub const TILE: u32 = 64;

pub(super) const THREADS: u32 = 128;

/// What a kernel is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Elements per head, one of [`kv::HEAD_DIMS`].
    pub head_dim: u32,
    /// Type of the cache, of queries and of weights.
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
        format!("attention_prefill_{}_d{}{softcap}{window}", self.kv.name(), self.head_dim)
    }

    /// Whether fragments of queries are kept in shared memory: they would take 64 registers.
    pub(super) fn queries_in_shared(self) -> bool {
        self.head_dim > 128
    }

    /// Bytes of the keys and values of a block: a page.
    pub(super) fn stage_bytes(self) -> u32 {
        kv::page_bytes(self.head_dim)
    }

    /// Bytes of shared memory.
    pub(super) fn shared_bytes(self) -> u32 {
        2 * self.stage_bytes() + if self.queries_in_shared() { 2 * TILE * self.head_dim } else { 0 }
    }
}

/// Rows that a CTA takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// First row, in the batch.
    pub first_row: u32,
    /// Rows, at most [`TILE`]; 0 takes no part.
    pub rows: u32,
    /// Line of the block table.
    pub sequence: u32,
    /// Position of the first row; the others follow.
    pub position: u32,
}

/// Shape of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Tiles.
    pub tiles: usize,
    /// Query heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Positions that a row sees, if the kernel was built with a window.
    pub window: usize,
}

/// The launch.
///
/// # Errors
/// [`ShapeError`] for a head size that the kernel is not written for, query heads that are no multiple of the KV heads,
/// no tiles, or no window where one is needed.
pub fn dims(spec: Spec, shape: Shape) -> Result<Dims, ShapeError> {
    let name = spec.kernel();
    kv::check_head_dim(&name, spec.head_dim)?;
    let kv_heads = ShapeError::check(&name, "KV heads", shape.kv_heads, 1, 1 << 12)?;
    let heads = ShapeError::check(&name, "heads", shape.heads, kv_heads as usize, 65535)?;
    let tiles = ShapeError::check(&name, "tiles", shape.tiles, 1, 1 << 30)?;
    if spec.window {
        ShapeError::check(&name, "positions of the window", shape.window, 1, 1 << 26)?;
    }
    Ok(Dims { grid: [tiles, heads, 1], block: [THREADS, 1, 1], dynamic_shared: spec.shared_bytes() })
}

/// A launch with seeded queries, keys and values. `batch` has a row per row of the tiles, in their order. Positions of
/// the cache that no row may see hold NaN.
///
/// # Errors
/// As [`dims`].
pub fn workload(
    spec: Spec,
    shape: Shape,
    tiles: &[Tile],
    batch: &Batch,
    softcap: f32,
    seed: u64,
) -> Result<Workload, ShapeError> {
    let dims = dims(spec, Shape { tiles: tiles.len(), ..shape })?;
    let mut noise = Noise::new(seed);
    let d = spec.head_dim as usize;
    let q = batch.positions.len() * shape.heads * d;
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
    let table: Vec<u32> = tiles.iter().flat_map(|t| [t.first_row, t.rows, t.sequence, t.position]).collect();
    let mut args = vec![
        Arg::read("q", bytes_of_f32(&noise.floats(q))),
        Arg::read("tiles", bytes_of_u32(&table)),
        Arg::read("block_table", bytes_of_u32(&batch.block_table)),
        Arg::read("kv", cache),
        Arg::write("y", 4 * q),
    ];
    args.extend(values.args());
    let pairs: u64 = batch.positions.iter().map(|&p| values.seen(p)).sum();
    let cached =
        tiles.iter().filter(|t| t.rows > 0).map(|t| values.seen(t.position) + u64::from(t.rows) - 1).sum::<u64>();
    Ok(Workload { dims, args, work: values.work(batch.positions.len(), cached, pairs) })
}

/// What ships.
pub(in crate::kernels) fn entries() -> Vec<Entry> {
    let plain = |head_dim, kv| Spec { head_dim, kv, softcap: false, window: false };
    let mut specs: Vec<Spec> = kv::HEAD_DIMS.map(|head_dim| plain(head_dim, KvType::F16)).to_vec();
    specs.push(plain(128, KvType::Bf16));
    specs.push(Spec { window: true, ..plain(128, KvType::F16) });
    specs.push(Spec { softcap: true, ..plain(256, KvType::F16) });
    specs.push(Spec { softcap: true, window: true, ..plain(256, KvType::F16) });
    // A tile whose rows end within a warp's, behind two blocks of context.
    let tiles = [Tile { first_row: 0, rows: 41, sequence: 0, position: 2 * BLOCK }];
    let batch = Batch::runs(&[(2 * BLOCK, 41)]);
    let shape = Shape { tiles: 1, heads: 2, kv_heads: 1, window: 50 };
    let entry = |spec: Spec| Entry {
        name: spec.kernel(),
        about: "attention of runs of rows over the paged cache, on tensor cores",
        oldest: Target::Sm80,
        build: Box::new(move |target| attention_prefill(spec, target)),
        workload: workload(spec, shape, &tiles, &batch, 30.0, 15)
            .expect("invariant: the shape of a workload is one that its kernel takes"),
    };
    specs.into_iter().map(entry).collect()
}
