//! The parameters that both kernels of attention end with, on the device and on the host: heads, cache, scores.

use std::f32::consts::LOG2_E;

use crate::build::{F32, KernelBuilder, Reg, U32};
use crate::kernels::kv::Batch;
use crate::kernels::workload::{Arg, Work};

/// As the kernel sees them.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Scalars {
    /// Query heads.
    pub(in crate::kernels) heads: Reg<U32>,
    /// Query heads per KV head.
    pub(in crate::kernels) group: Reg<U32>,
    /// Entries of a line of the block table.
    pub(in crate::kernels) table_width: Reg<U32>,
    /// Blocks in the cache.
    pub(in crate::kernels) blocks: Reg<U32>,
    scale: Reg<F32>,
    softcap: Option<Reg<F32>>,
    /// Positions that a row sees, if not all before it.
    pub(in crate::kernels) window: Option<Reg<U32>>,
}

impl Scalars {
    pub(in crate::kernels) fn params(k: &KernelBuilder, softcap: bool, window: bool) -> Self {
        Self {
            heads: k.param_u32("heads"),
            group: k.param_u32("group"),
            table_width: k.param_u32("table_width"),
            blocks: k.param_u32("blocks"),
            scale: k.param_f32("scale"),
            softcap: softcap.then(|| k.param_f32("softcap")),
            window: window.then(|| k.param_u32("window")),
        }
    }

    /// The first position that a row at `position` sees.
    pub(in crate::kernels) fn first(&self, k: &KernelBuilder, position: Reg<U32>) -> Reg<U32> {
        self.window.map_or_else(|| k.value(0), |w| k.sub(k.max(k.add(position, 1), w), w))
    }

    /// What multiplies scores: to the exponent of 2, or, before a cap, to units of the cap.
    pub(in crate::kernels) fn unit(&self, k: &KernelBuilder) -> Reg<F32> {
        self.softcap.map_or_else(|| k.mul(self.scale, LOG2_E), |cap| k.div_rn(self.scale, cap))
    }

    /// The cap of scores, in units of the exponent, if there is one.
    pub(in crate::kernels) fn cap(&self, k: &KernelBuilder) -> Option<Reg<F32>> {
        self.softcap.map(|cap| k.mul(cap, LOG2_E))
    }
}

/// Shapes and variants, as the host passes them.
pub(in crate::kernels) struct Values<'a> {
    pub(in crate::kernels) head_dim: u32,
    pub(in crate::kernels) heads: usize,
    pub(in crate::kernels) kv_heads: usize,
    pub(in crate::kernels) batch: &'a Batch,
    pub(in crate::kernels) softcap: Option<f32>,
    pub(in crate::kernels) window: Option<usize>,
}

impl Values<'_> {
    /// The arguments, in the order of [`Scalars::params`].
    pub(in crate::kernels) fn args(&self) -> impl Iterator<Item = Arg> {
        let always = [
            Arg::U32(self.heads as u32),
            Arg::U32((self.heads / self.kv_heads) as u32),
            Arg::U32(self.batch.table_width),
            Arg::U32(self.batch.blocks),
            Arg::F32(1.0 / (self.head_dim as f32).sqrt()),
        ];
        let window = self.window.map(|w| Arg::U32(w as u32));
        always.into_iter().chain(self.softcap.map(Arg::F32)).chain(window)
    }

    /// How many positions a row at `position` sees.
    pub(in crate::kernels) fn seen(&self, position: u32) -> u64 {
        let all = u64::from(position) + 1;
        self.window.map_or(all, |w| all.min(w as u64))
    }

    /// The least a launch for `rows` rows has to do, which see `seen` positions in all, `cached` of which are read.
    pub(in crate::kernels) fn work(&self, rows: usize, cached: u64, seen: u64) -> Work {
        let d = self.head_dim as usize;
        let q = (4 * rows * self.heads * d) as u64;
        Work {
            weight_bytes: cached * (4 * self.kv_heads * d) as u64,
            activation_bytes: q,
            output_bytes: q,
            float_ops: seen * (self.heads * (4 * d + 5)) as u64,
            ..Work::default()
        }
    }
}
