//! Attention with what comes before it: rotation, and the write to the cache.

use super::launch::{self, Shape, Spec, THREADS};
use super::split::{Cta, build};
use crate::build::{B32, Bf16, F16, F32, KernelBuilder, LoadOptions, Pred, Ptr, Reg, SharedSpace, SpaceOf, U32};
use crate::ir::{Access, Dim, Kernel, Special, Target};
use crate::kernels::kv::{BLOCK, KvType};
use crate::kernels::rope_kv::{RopeStyle, rotate};
use crate::kernels::{Dims, ShapeError};

/// What a fused kernel is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fused {
    /// Attention. Its heads are all query heads of a KV head.
    pub spec: Spec,
    /// Pairing of rotated elements.
    pub style: RopeStyle,
}

impl Fused {
    /// Name of the kernel: `attention_fused_neox_f16_d128_h6`.
    pub fn kernel(self) -> String {
        let style = match self.style {
            RopeStyle::Interleaved => "norm",
            RopeStyle::SplitHalves => "neox",
        };
        self.spec.kernel().replacen("attention", &format!("attention_fused_{style}"), 1)
    }

    /// Bytes of shared memory: with the key and the value of the row.
    pub(super) fn shared_bytes(self) -> u32 {
        self.spec.shared_bytes() + 2 * self.spec.key_bytes()
    }

    /// The launch. Its `grid[0]` is `splits`, the width of the scratch buffers.
    ///
    /// # Errors
    /// [`ShapeError`] as [`dims`](super::dims), for groups that are not the heads of a CTA, and more pairs than half a head.
    pub fn dims(self, shape: Shape, pairs: usize) -> Result<Dims, ShapeError> {
        let name = self.kernel();
        let dims = launch::dims(self.spec, shape)?;
        ShapeError::check(&name, "pairs", pairs, 1, self.spec.head_dim / 2)?;
        if shape.heads != shape.kv_heads * self.spec.heads as usize {
            let (what, expected) = ("query heads", format!("{} for each KV head", self.spec.heads));
            return Err(ShapeError { kernel: name, what, expected, found: shape.heads as u64 });
        }
        Ok(Dims { dynamic_shared: self.shared_bytes(), ..dims })
    }
}

/// `attention_fused_…`; for [`Target::Sm90`], with dependent launch.
pub fn attention_fused(fused: Fused, target: Target) -> Kernel {
    build(fused.spec, Some(fused), target)
}

/// The parameters in place of the queries.
pub(super) struct Input {
    style: RopeStyle,
    qkv: Ptr<F32>,
    angles: Ptr<F32>,
}

/// The row whose queries, key and value are to be rotated.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) row: Reg<U32>,
    pub(super) first_head: Reg<U32>,
    /// All query heads.
    pub(super) heads: Reg<U32>,
    /// Pairs that are rotated.
    pub(super) pairs: Reg<U32>,
    /// Whether the CTA's split holds the row's own position.
    pub(super) own: Reg<Pred>,
    /// The page of that position.
    pub(super) page: Ptr<B32>,
}

/// What a thread rotates.
pub(super) struct Sources {
    /// A head of the CTA, of which the one behind the queries is the key and the next one the value, and two elements of it.
    from: Vec<(Reg<U32>, [Ptr<F32>; 2])>,
    /// Cosine and sine.
    angle: Ptr<F32>,
    /// Whether the pair is one of those that are rotated.
    turned: Reg<Pred>,
    /// The elements in their head.
    places: (Reg<U32>, Reg<U32>),
}

impl Input {
    pub(super) fn params(k: &KernelBuilder, style: RopeStyle) -> Self {
        Self { style, qkv: k.param_ptr("qkv", Access::Read, 16), angles: k.param_ptr("angles", Access::Read, 8) }
    }

    /// Where a thread finds what it rotates: the same pair of several heads.
    pub(super) fn sources(&self, cta: &Cta<'_>, place: &Place) -> Sources {
        let (k, spec) = (cta.k, cta.spec);
        let &Place { row, first_head, heads, pairs, .. } = place;
        let half = spec.head_dim / 2;
        let (at_once, all) = (THREADS / half, spec.heads + 2);
        let kv_heads = k.special(Special::Nctaid(Dim::Y));
        let head_bytes = 4 * spec.head_dim;
        let of_row = k.row(self.qkv, row, k.mul(k.mad(kv_heads, 2, heads), head_bytes));
        let (mine, pair) = (k.div(k.tid(), half), k.rem(k.tid(), half));
        let turned = k.lt(pair, pairs);
        let places = match self.style {
            RopeStyle::Interleaved => {
                let first = k.shl(pair, 1);
                (first, k.add(first, 1))
            }
            // Behind the rotated elements, halves of the rest.
            RopeStyle::SplitHalves => {
                (k.add(pair, k.select(turned, 0, pairs)), k.add(pair, k.select(turned, pairs, half)))
            }
        };
        let of_kv = k.add(heads, cta.kv_head);
        let from = (0..all.div_ceil(at_once)).map(|i| {
            let head = k.add(mine, at_once * i);
            let query = k.add(first_head, head);
            let of_row_at = if at_once * (i + 1) <= spec.heads {
                query
            } else {
                let of_kv = k.add(of_kv, k.select::<U32>(k.gt(head, spec.heads), kv_heads, 0));
                k.select(k.lt(head, spec.heads), query, of_kv)
            };
            let of_head = k.index_by(of_row, of_row_at, head_bytes);
            (head, [places.0, places.1].map(|i| k.index(of_head, i)))
        });
        let angles = k.row(self.angles, row, k.shl(pairs, 3));
        let angle = k.index_by(angles, k.min(pair, k.sub(pairs, 1)), 8);
        Sources { from: from.collect(), angle, turned, places }
    }

    /// Rotates the queries of the CTA and stores them, times `unit`; where the split holds the row's own position, key and value go to
    /// the cache, and to shared memory, so that nobody waits for the cache. What happens to them is what
    /// [`rope_kv`](crate::kernels::rope_kv) does.
    pub(super) fn rotate(
        &self,
        cta: &Cta<'_>,
        &Place { own, page, .. }: &Place,
        sources: &Sources,
        unit: Reg<F32>,
        queries: Ptr<F32, SharedSpace>,
    ) {
        let (k, spec) = (cta.k, cta.spec);
        k.comment("queries, key and value");
        let (at_once, all) = (2 * THREADS / spec.head_dim, spec.heads + 2);
        let head_bytes = 4 * spec.head_dim;
        let &Sources { turned, places, .. } = sources;
        // All loads first: they are under way together.
        let read = LoadOptions::READ_ONLY;
        let load = |&(head, from): &(Reg<U32>, [Ptr<F32>; 2])| {
            let x: [_; 2] = match self.style {
                RopeStyle::Interleaved => k.ld_vec(from[0], read),
                RopeStyle::SplitHalves => from.map(|from| k.ld_with(from, read)),
            };
            (head, x)
        };
        let loaded: Vec<_> = sources.from.iter().map(load).collect();
        let [cos, sin] = k.ld_vec::<_, _, 2>(sources.angle, read);
        for (i, (head, [a, b])) in (0..).zip(loaded) {
            let (a, b) = (k.var(a), k.var(b));
            let only_queries = at_once * (i + 1) <= spec.heads;
            let rotated = if only_queries { turned } else { k.and(turned, k.le(head, spec.heads)) };
            k.if_(rotated, || rotate(k, a, b, cos, sin));
            let (a, b) = (a.get(), b.get());
            let query = || {
                let to = k.index_by(queries, head, head_bytes);
                let [a, b] = [a, b].map(|x| k.mul(x, unit));
                match self.style {
                    RopeStyle::Interleaved => k.st2(k.index(to, places.0), [a, b]),
                    RopeStyle::SplitHalves => {
                        k.st(k.index(to, places.0), a);
                        k.st(k.index(to, places.1), b);
                    }
                }
            };
            if only_queries {
                query();
                continue;
            }
            let key_or_value = || {
                k.if_(k.and(own, k.lt(head, all)), || {
                    let is_value = k.gt(head, spec.heads);
                    let slot = k.add(k.rem(cta.last, BLOCK), k.select::<U32>(is_value, BLOCK, 0));
                    let stored = shared_own(cta, is_value);
                    store(k, spec.kv, self.style, k.index_by(page, slot, spec.key_bytes()), places, (a, b));
                    store(k, spec.kv, self.style, stored, places, (a, b));
                });
            };
            k.if_else(k.lt(head, spec.heads), query, key_or_value);
        }
    }
}

/// Where the row's own key or value lies in shared memory.
fn shared_own(cta: &Cta<'_>, is_value: Reg<Pred>) -> Ptr<B32, SharedSpace> {
    let at = cta.shared.offset(cta.spec.shared_bytes() as i32);
    cta.k.index_by(at, cta.k.select::<U32>(is_value, 1, 0), cta.spec.key_bytes())
}

/// Stores two elements of a key or value, as [`rope_kv`](crate::kernels::rope_kv) does, in any memory.
fn store<S: SpaceOf>(
    k: &KernelBuilder,
    kv: KvType,
    style: RopeStyle,
    to: Ptr<B32, S>,
    (i, j): (Reg<U32>, Reg<U32>),
    (a, b): (Reg<F32>, Reg<F32>),
) {
    match (style, kv) {
        // Neighbours: one word.
        (RopeStyle::Interleaved, _) => k.st(k.index_by(to, k.shr(i, 1), 4), kv.pack(k, a, b)),
        (RopeStyle::SplitHalves, KvType::F16) => {
            for (i, x) in [(i, a), (j, b)] {
                k.st(k.index(to.cast::<F16>(), i), k.to_f16(x));
            }
        }
        (RopeStyle::SplitHalves, KvType::Bf16) => {
            for (i, x) in [(i, a), (j, b)] {
                k.st(k.index(to.cast::<Bf16>(), i), k.to_bf16(x));
            }
        }
    }
}
