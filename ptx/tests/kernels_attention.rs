//! Attention kernels against the scalar reference.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::ir::Target;
use brick_ptx::kernels::Workload;
use brick_ptx::kernels::attention::{self, Shape, Spec};
use brick_ptx::kernels::kv::{self, BLOCK, Batch, INACTIVE, KvType};
use bricks::op::AttentionSpec;
use bricks::reference;
use launches::{assert_close, contents, floats, run_all};

const SOFTCAP: f32 = 0.7;

/// Keys and values of a sequence up to a position, as the reference takes them: `[positions][kv_heads · head_dim]`.
fn context(load: &Workload, batch: &Batch, kv: KvType, d: u32, kv_heads: usize, row: usize) -> [Vec<f32>; 2] {
    let cache: Vec<f32> =
        contents(load, "kv").chunks_exact(2).map(|b| kv.value(u16::from_le_bytes([b[0], b[1]]))).collect();
    let (last, sequence) = (batch.positions[row], batch.sequences[row]);
    [0, (BLOCK * d) as usize].map(|plane| {
        let heads = (0..=last).flat_map(|p| (0..kv_heads).map(move |h| (p, h)));
        heads.flat_map(|(p, h)| cache[batch.key_at(d, h, sequence, p) + plane..][..d as usize].to_vec()).collect()
    })
}

/// What the reference says of a row.
fn expected(load: &Workload, batch: &Batch, spec: Spec, shape: Shape, row: usize) -> Vec<f32> {
    let d = spec.head_dim as usize;
    if batch.positions[row] == INACTIVE {
        return vec![0.0; shape.heads * d];
    }
    let reference = AttentionSpec {
        n_heads: shape.heads,
        n_kv_heads: shape.kv_heads,
        head_dim: d,
        scale: 1.0 / (d as f32).sqrt(),
        window: spec.window.then_some(shape.window),
        softcap: spec.softcap.then_some(SOFTCAP),
    };
    let [keys, values] = context(load, batch, spec.kv, spec.head_dim, shape.kv_heads, row);
    let q = &floats(load, "q")[row * shape.heads * d..][..shape.heads * d];
    reference::attention(&reference, q, &keys, &values, &[batch.positions[row]]).unwrap()
}

fn check(spec: Spec, shape: Shape, positions: &[u32]) -> Vec<f32> {
    let batch = Batch::new(positions);
    let load = attention::workload(spec, shape, &batch, SOFTCAP, 5).unwrap();
    let (run, y) = run_all(attention::attention(spec, Target::Sm80), &load, |run| {
        run.f32s("y").unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
    });
    let y: Vec<f32> = y.into_iter().map(f32::from_bits).collect();
    let expected: Vec<f32> = (0..shape.rows).flat_map(|row| expected(&load, &batch, spec, shape, row)).collect();
    assert_close(&y, &expected, 3e-6, &format!("{} at {positions:?}", spec.kernel()));
    assert!(run.bytes("arrivals").unwrap().iter().all(|&b| b == 0), "counters go back to zero");
    assert_eq!(run.counts.bank_conflicts(), 0, "{}", spec.kernel());
    y
}

fn plain(head_dim: u32, heads: u32) -> Spec {
    Spec { head_dim, heads, kv: KvType::F16, softcap: false, window: false }
}

#[test]
fn attention_is_that_of_the_reference() {
    for (spec, kv_heads, positions) in [
        (plain(128, 7), 1, &[0, 31, 300][..]),
        (plain(64, 4), 2, &[32, INACTIVE, 255]),
        (plain(64, 1), 1, &[256, 600]),
        (plain(256, 2), 1, &[5, 260]),
        (plain(128, 8), 1, &[129]),
        (Spec { kv: KvType::Bf16, ..plain(128, 3) }, 1, &[77, 511]),
    ] {
        let heads = spec.heads as usize * kv_heads;
        check(spec, Shape { rows: positions.len(), heads, kv_heads, context: 1024, window: 0 }, positions);
    }
}

#[test]
fn a_group_may_be_larger_than_a_cta_takes() {
    assert_eq!([1, 7, 8, 12, 16, 11, 26].map(attention::heads_per_cta), [1, 7, 8, 6, 8, 1, 2]);
    check(plain(64, 2), Shape { rows: 1, heads: 12, kv_heads: 2, context: 512, window: 0 }, &[280]);
}

#[test]
fn softcap_and_window_are_those_of_the_reference() {
    for (softcap, window) in [(true, false), (false, true), (true, true)] {
        let spec = Spec { softcap, window, ..plain(64, 2) };
        for (positions, size) in [(&[0, 40, 99, 100, 340][..], 100), (&[400], 1), (&[700], 300)] {
            let shape = Shape { rows: positions.len(), heads: 2, kv_heads: 1, context: 1024, window: size };
            check(spec, shape, positions);
        }
    }
}

#[test]
fn a_row_gets_the_same_bits_in_any_company_and_any_grid() {
    let spec = plain(64, 2);
    let shape = |rows, context| Shape { rows, heads: 2, kv_heads: 1, context, window: 0 };
    // The noise of the cache depends on the batch, so the row is compared by moving its own cache.
    let batch = Batch::new(&[300]);
    let mut load = attention::workload(spec, shape(1, 320), &batch, SOFTCAP, 6).unwrap();
    let bits = |load: &Workload| {
        run_all(attention::attention(spec, Target::Sm80), load, |run| {
            run.f32s("y").unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        })
        .1
    };
    let alone = bits(&load);
    let wide = attention::workload(spec, shape(1, 4096), &batch, SOFTCAP, 6).unwrap();
    assert_eq!(wide.dims.grid[0], 16);
    assert_eq!(bits(&wide), alone);

    // Three rows of the same sequence; the last is the one from before.
    let company = Batch { positions: vec![7, 270, 300], sequences: vec![0; 3], ..batch };
    let mut together = attention::workload(spec, shape(3, 512), &company, SOFTCAP, 6).unwrap();
    let cache = contents(&load, "kv").to_vec();
    launches::replace(&mut together, "kv", cache);
    let q = contents(&load, "q").to_vec();
    launches::replace(&mut together, "q", [q.clone(), q.clone(), q.clone()].concat());
    assert_eq!(bits(&together)[2 * 128..], alone);
    launches::replace(&mut load, "q", q);
    assert_eq!(bits(&load), alone);
}

#[test]
fn a_context_that_outgrew_the_grid_is_nan() {
    let (spec, batch) = (plain(64, 2), Batch::new(&[300, 20]));
    let shape = Shape { rows: 2, heads: 2, kv_heads: 1, context: 256, window: 0 };
    let load = attention::workload(spec, shape, &batch, SOFTCAP, 7).unwrap();
    let (_, nan) = run_all(attention::attention(spec, Target::Sm80), &load, |run| {
        run.f32s("y").unwrap().into_iter().map(f32::is_nan).collect::<Vec<_>>()
    });
    assert!(nan[..128].iter().all(|&nan| nan) && !nan[128..].iter().any(|&nan| nan));
}

#[test]
fn shapes_that_attention_cannot_do_are_refused() {
    let shape = Shape { rows: 1, heads: 14, kv_heads: 2, context: 4096, window: 0 };
    let dims = attention::dims(plain(128, 7), shape).unwrap();
    assert_eq!((dims.grid, dims.block, kv::page_bytes(128)), ([16, 2, 1], [128, 1, 1], 16384));
    assert_eq!(
        attention::dims(plain(128, 4), shape).unwrap_err().to_string(),
        "kernel `attention_f16_d128_h4` takes heads that is a multiple of 8, at most 32768, found 14"
    );
    assert!(attention::dims(plain(96, 7), shape).is_err());
    assert!(attention::dims(plain(128, 9), shape).is_err());
    assert!(attention::dims(plain(128, 7), Shape { rows: 0, ..shape }).is_err());
    assert!(attention::dims(Spec { window: true, ..plain(128, 7) }, shape).is_err());
}

mod prefill {
    use brick_ptx::kernels::attention_prefill::{self as prefill, Shape, Spec, Tile};

    use super::*;

    /// Runs of rows, one per sequence, cut into tiles; one tile more takes no part.
    fn tiles(runs: &[(u32, u32)]) -> Vec<Tile> {
        let (mut tiles, mut first_row) = (Vec::new(), 0);
        for (sequence, &(first, rows)) in (0..).zip(runs) {
            for at in (0..rows).step_by(prefill::TILE as usize) {
                let rows = (rows - at).min(prefill::TILE);
                tiles.push(Tile { first_row: first_row + at, rows, sequence, position: first + at });
            }
            first_row += rows;
        }
        tiles.push(Tile { first_row: 0, rows: 0, sequence: 0, position: 0 });
        tiles
    }

    fn check(spec: Spec, heads: usize, kv_heads: usize, window: usize, runs: &[(u32, u32)]) {
        let (batch, tiles) = (Batch::runs(runs), tiles(runs));
        let shape = Shape { tiles: tiles.len(), heads, kv_heads, window };
        let load = prefill::workload(spec, shape, &tiles, &batch, SOFTCAP, 8).unwrap();
        let (run, y) = run_all(prefill::attention_prefill(spec, Target::Sm80), &load, |run| {
            run.f32s("y").unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        });
        let y: Vec<f32> = y.into_iter().map(f32::from_bits).collect();
        let Spec { head_dim, kv, softcap, window: has_window } = spec;
        let decode = super::Spec { head_dim, heads: 1, kv, softcap, window: has_window };
        let rows = batch.positions.len();
        let of_decode = super::Shape { rows, heads, kv_heads, context: 1, window };
        let expected: Vec<f32> = (0..rows).flat_map(|row| expected(&load, &batch, decode, of_decode, row)).collect();
        // Queries and weights are rounded to 11 or 8 bits; values are below 1.
        let tolerance = if kv == KvType::F16 { 1e-3 } else { 8e-3 };
        assert_close(&y, &expected, tolerance, &format!("{} at {runs:?}", spec.kernel()));
        assert_eq!(run.counts.bank_conflicts(), 0, "{}", spec.kernel());
    }

    fn plain(head_dim: u32) -> Spec {
        Spec { head_dim, kv: KvType::F16, softcap: false, window: false }
    }

    #[test]
    fn prefill_is_that_of_the_reference() {
        check(plain(64), 2, 1, 0, &[(0, 1), (0, 70), (37, 16)]);
        check(plain(128), 2, 2, 0, &[(0, 64), (95, 33)]);
        check(plain(256), 1, 1, 0, &[(30, 20)]);
        check(Spec { kv: KvType::Bf16, ..plain(64) }, 1, 1, 0, &[(3, 40)]);
    }

    #[test]
    fn softcap_and_window_are_those_of_the_reference() {
        check(Spec { softcap: true, ..plain(64) }, 1, 1, 0, &[(10, 40)]);
        for window in [1, 20, 100] {
            check(Spec { window: true, ..plain(64) }, 1, 1, window, &[(0, 70), (150, 40)]);
        }
        check(Spec { window: true, softcap: true, ..plain(64) }, 1, 1, 33, &[(64, 64)]);
    }

    #[test]
    fn a_row_gets_the_same_bits_in_any_tile() {
        let (spec, batch) = (plain(64), Batch::runs(&[(40, 50)]));
        let bits = |tiles: &[Tile]| {
            let shape = Shape { tiles: tiles.len(), heads: 1, kv_heads: 1, window: 0 };
            let load = prefill::workload(spec, shape, tiles, &batch, SOFTCAP, 9).unwrap();
            run_all(prefill::attention_prefill(spec, Target::Sm80), &load, |run| {
                run.f32s("y").unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
            })
            .1
        };
        let tile = |first_row, rows| Tile { first_row, rows, sequence: 0, position: 40 + first_row };
        assert_eq!(bits(&[tile(0, 50)]), bits(&[tile(0, 7), tile(7, 1), tile(8, 42)]));
    }

    #[test]
    fn shapes_that_prefill_cannot_do_are_refused() {
        let shape = Shape { tiles: 3, heads: 14, kv_heads: 2, window: 0 };
        assert_eq!(prefill::dims(plain(128), shape).unwrap().grid, [3, 14, 1]);
        assert!(prefill::dims(plain(96), shape).is_err());
        assert!(prefill::dims(plain(128), Shape { kv_heads: 4, ..shape }).is_err());
        assert!(prefill::dims(plain(128), Shape { tiles: 0, ..shape }).is_err());
        assert!(prefill::dims(Spec { window: true, ..plain(128) }, shape).is_err());
    }
}
