//! Attention with rotation and the write to the cache: the results of the launches it stands for, bit for bit.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::ir::Target;
use brick_ptx::kernels::Workload;
use brick_ptx::kernels::attention::{self, Fused, Shape, Spec};
use brick_ptx::kernels::kv::{Batch, INACTIVE, KvType};
use brick_ptx::kernels::rope_kv::{self, RopeStyle};
use brick_ptx::kernels::workload::Arg;
use launches::{SCHEDULES, contents, replace, run_all};

const SOFTCAP: f32 = 0.7;

fn plain(head_dim: u32, heads: u32) -> Spec {
    Spec { head_dim, heads, kv: KvType::F16, softcap: false, window: false }
}

/// Queries, cache and output of rotation and attention, one after the other.
fn expected(fused: Fused, shape: Shape, pairs: usize, batch: &Batch, load: &Workload) -> [Vec<u8>; 2] {
    let Fused { spec, style, .. } = fused;
    let of_rope = rope_kv::Spec { head_dim: spec.head_dim, style, bias: false, kv: spec.kv };
    let rope = rope_kv::Shape { rows: shape.rows, heads: shape.heads, kv_heads: shape.kv_heads, pairs };
    let mut rope_load = rope_kv::workload(of_rope, rope, batch, 0).unwrap();
    for name in ["qkv", "angles", "kv"] {
        replace(&mut rope_load, name, contents(load, name).to_vec());
    }
    let module = launches::module(rope_kv::rope_kv(of_rope, Target::Sm80), Target::Sm80);
    let rotated = launches::run(&rope_load, &module, &of_rope.kernel(), SCHEDULES[0]);
    let cache = rotated.bytes("kv").unwrap().to_vec();

    let mut attended = attention::workload(spec, shape, batch, SOFTCAP, 0).unwrap();
    replace(&mut attended, "q", rotated.bytes("q").unwrap().to_vec());
    replace(&mut attended, "kv", cache.clone());
    let (_, y) = run_all(attention::attention(spec, Target::Sm80), &attended, |run| run.bytes("y").unwrap().to_vec());
    [cache, y]
}

fn check(fused: Fused, (kv_heads, pairs): (usize, usize), context: usize, positions: &[u32]) {
    let batch = Batch::new(positions);
    let heads = fused.spec.heads as usize * kv_heads;
    let shape = Shape { rows: positions.len(), heads, kv_heads, context, window: 100 };
    let load = attention::fused_workload(fused, shape, pairs, &batch, SOFTCAP, 5).unwrap();
    let [cache, y] = expected(fused, shape, pairs, &batch, &load);
    let what = format!("{} at {positions:?}", fused.kernel());
    for target in Target::ALL {
        let module = launches::module(attention::attention_fused(fused, target), target);
        for schedule in SCHEDULES {
            let run = launches::run(&load, &module, &fused.kernel(), schedule);
            assert!(run.bytes("kv").unwrap() == cache, "cache of {what}");
            assert!(run.bytes("y").unwrap() == y, "{what}");
            assert!(run.bytes("arrivals").unwrap().iter().all(|&b| b == 0), "counters go back to zero");
            assert_eq!(run.counts.bank_conflicts(), 0, "{what}");
        }
    }
}

#[test]
fn the_bits_of_two_launches() {
    let neox = |spec| Fused { spec, style: RopeStyle::SplitHalves };
    let norm = |spec| Fused { spec, style: RopeStyle::Interleaved };
    // The first position, the first and the last of a block and of a split; one split and several; rows that
    // take no part.
    check(neox(plain(128, 6)), (2, 64), 1024, &[300]);
    check(neox(plain(128, 6)), (2, 64), 512, &[0, 31, 255, 256]);
    check(neox(plain(128, 7)), (1, 64), 512, &[64, 159, 160]);
    check(norm(plain(128, 8)), (1, 64), 512, &[127, INACTIVE, 128, 511]);
    check(neox(plain(64, 7)), (1, 32), 1024, &[160, 600]);
    check(neox(plain(64, 1)), (3, 32), 512, &[32, INACTIVE, 290]);
    check(norm(plain(64, 4)), (2, 32), 256, &[95, 3]);
    check(neox(plain(256, 2)), (2, 128), 512, &[64, 270]);
    check(neox(plain(256, 1)), (1, 128), 512, &[223]);
    check(norm(Spec { kv: KvType::Bf16, ..plain(256, 2) }), (1, 128), 512, &[281]);
}

#[test]
fn elements_that_are_not_rotated() {
    for style in [RopeStyle::SplitHalves, RopeStyle::Interleaved] {
        check(Fused { spec: plain(128, 2), style }, (1, 32), 512, &[40]);
    }
}

#[test]
fn softcap_and_window() {
    for (softcap, window) in [(true, false), (false, true), (true, true)] {
        let spec = Spec { softcap, window, ..plain(64, 2) };
        check(Fused { spec, style: RopeStyle::SplitHalves }, (1, 32), 1024, &[99, 340, 700, 20]);
    }
}

/// A context that outgrew the grid leaves the cache as it is.
#[test]
fn a_context_that_outgrew_the_grid_is_nan() {
    let fused = Fused { spec: plain(64, 2), style: RopeStyle::SplitHalves };
    let batch = Batch::new(&[300, 20]);
    let shape = Shape { rows: 2, heads: 2, kv_heads: 1, context: 256, window: 0 };
    let load = attention::fused_workload(fused, shape, 32, &batch, SOFTCAP, 7).unwrap();
    let before = contents(&load, "kv").to_vec();
    let (run, _) =
        run_all(attention::attention_fused(fused, Target::Sm80), &load, |run| run.bytes("kv").unwrap().to_vec());
    let y = run.f32s("y").unwrap();
    assert!(y[..128].iter().all(|y| y.is_nan()) && y[128..].iter().all(|y| y.is_finite()));
    let key = batch.key_at(64, 0, 0, 300);
    assert!(run.bytes("kv").unwrap()[2 * key..][..128] == before[2 * key..][..128]);
}

#[test]
fn shapes_that_are_refused() {
    let fused = Fused { spec: plain(128, 6), style: RopeStyle::SplitHalves };
    assert_eq!(fused.kernel(), "attention_fused_neox_f16_d128_h6");
    let shape = Shape { rows: 8, heads: 12, kv_heads: 2, context: 4096, window: 0 };
    assert_eq!(fused.dims(shape, 64).unwrap().grid, [16, 2, 8]);
    assert_eq!(
        fused.dims(Shape { heads: 24, ..shape }, 64).unwrap_err().to_string(),
        "kernel `attention_fused_neox_f16_d128_h6` takes query heads that is 6 for each KV head, found 24"
    );
    assert!(fused.dims(shape, 65).is_err());
    assert!(fused.dims(shape, 0).is_err());
    let load = attention::fused_workload(fused, shape, 64, &Batch::new(&[5; 8]), 0.0, 1).unwrap();
    assert!(matches!(load.args[..2], [Arg::Buffer { name: "qkv", .. }, Arg::Buffer { name: "angles", .. }]));
}
