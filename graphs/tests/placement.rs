//! Liveness and the arena.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;

use brick_graphs::passes::{ALIGN, Buffer, MaxRows, Placement, liveness, pack, place, place_without_reuse, run_all};
use brick_graphs::{Graph, GraphError, ValueId};
use bricks::ValueType;
use common::{acts, decoder, grow};
use proptest::prelude::*;

/// Plays a call on the arena in units of [`ALIGN`] bytes: whoever writes owns what it wrote. Knows nothing of intervals.
fn play(g: &Graph, p: &Placement) -> Result<(), String> {
    let mut owner: HashMap<usize, ValueId> = HashMap::new();
    let cells = |v: ValueId| p.slot(v).into_iter().flat_map(|s| (s.offset / ALIGN)..((s.offset + s.bytes) / ALIGN));
    let intact = |owner: &HashMap<usize, ValueId>, v: ValueId| cells(v).all(|c| owner.get(&c) == Some(&v));
    for b in g.bricks() {
        for v in &b.outputs {
            for c in cells(*v) {
                owner.insert(c, *v);
            }
        }
        // After writing: an output over one of the brick's own inputs is a fault too.
        for v in &b.inputs {
            if !intact(&owner, *v) {
                return Err(format!("{} reads value {} that was overwritten", b.name, v.0));
            }
        }
    }
    if intact(&owner, g.output()) { Ok(()) } else { Err("the output was overwritten".into()) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn values_survive_until_their_last_reader(acts in acts(), tokens in 0usize..70, wanted in 0usize..4) {
        let g = grow(&acts);
        let max = MaxRows { tokens, wanted };
        let live = liveness(&g);
        let (p, apart) = (place(&g, &live, max).unwrap(), place_without_reuse(&g, &live, max).unwrap());
        prop_assert_eq!(play(&g, &p), Ok(()));
        prop_assert_eq!(play(&g, &apart), Ok(()));
        prop_assert!(p.peak_bytes() <= p.arena_bytes() && p.arena_bytes() <= apart.arena_bytes());
        prop_assert_eq!(p.peak_bytes(), apart.peak_bytes());
        for (v, s) in g.values().iter().zip(p.slots()) {
            prop_assert_eq!(s.is_none(), v.ty.value == ValueType::KvCache);
            if let Some(s) = s {
                prop_assert!(s.offset.is_multiple_of(ALIGN) && s.row_stride.is_multiple_of(ALIGN));
                prop_assert_eq!(s.bytes, s.rows * s.row_stride);
                prop_assert!(s.offset + s.bytes <= p.arena_bytes());
            }
        }
        let slots: Vec<_> = apart.slots().iter().flatten().collect();
        for (i, a) in slots.iter().enumerate() {
            prop_assert!(slots[i + 1..].iter().all(|b| !a.overlaps(b)));
        }
    }
}

#[test]
fn the_arena_does_not_grow_with_the_layers() {
    let max = MaxRows { tokens: 16, wanted: 1 };
    let size = |layers| run_all(&decoder(layers), max).unwrap().placement.unwrap().arena_bytes();
    assert_eq!(size(2), size(30));
}

#[test]
fn a_decoder_is_packed_to_the_bound() {
    let max = MaxRows { tokens: 8, wanted: 1 };
    let p = run_all(&decoder(2), max).unwrap().placement.unwrap();
    // The gated activation (8 rows of 128) and what it is computed from (64), while the residual stream (64) waits.
    assert_eq!(p.peak_bytes(), 8 * 4 * (128 + 2 * 64));
    assert_eq!(p.arena_bytes(), p.peak_bytes());
}

#[test]
fn intervals_end_with_the_last_reader_and_the_output_with_the_call() {
    let g = decoder(1);
    let live = liveness(&g);
    let interval = |name: &str| live.interval(g.find(name).unwrap().outputs[0]);
    let id = |name: &str| g.find(name).unwrap().id;
    assert_eq!(interval("token_embd").last, id("blk.0.attn_residual"));
    assert_eq!(interval("blk.0.attn_norm").last, id("blk.0.attn_v"));
    assert_eq!(interval("blk.0.kv_write").last, id("blk.0.attn"));
    assert_eq!(interval("output").last, id("output"));
    assert_eq!(interval("output").first, id("output"));
}

#[test]
fn sizes_that_overflow_are_errors() {
    let g = decoder(1);
    let live = liveness(&g);
    for tokens in [usize::MAX, usize::MAX / 256, usize::MAX / 1024] {
        let max = MaxRows { tokens, wanted: 1 };
        for r in [place(&g, &live, max), place_without_reuse(&g, &live, max)] {
            assert!(matches!(r, Err(GraphError::Unplaceable { .. })), "{tokens}");
        }
    }
}

#[test]
fn rows_are_padded_to_cache_lines() {
    let g = grow(&[]);
    let p = place(&g, &liveness(&g), MaxRows { tokens: 3, wanted: 2 }).unwrap();
    let slot = |name: &str| p.slot(g.find(name).unwrap().outputs[0]).unwrap();
    // Three token ids are one row of 12 bytes.
    assert_eq!((slot("tokens").rows, slot("tokens").row_stride), (1, 64));
    assert_eq!((slot("embed").rows, slot("embed").row_stride), (3, 256));
    assert_eq!((slot("output_norm").rows, slot("output_norm").bytes), (2, 512));
}

#[test]
fn buffers_of_odd_sizes_are_packed_in_whole_lines() {
    let chain: Vec<Buffer> = (0..10).map(|i| Buffer { bytes: 100, first: i, last: i + 1 }).collect();
    let p = pack(&chain).unwrap();
    assert_eq!(p.bytes, 2 * 128);
    assert!(p.offsets.iter().enumerate().all(|(i, o)| *o == i % 2 * 128), "{:?}", p.offsets);
    assert_eq!(pack(&[]).unwrap().bytes, 0);
    assert!(pack(&[Buffer { bytes: usize::MAX, first: 0, last: 0 }]).is_none());
    assert!(pack(&[Buffer { bytes: usize::MAX / 2, first: 0, last: 0 }; 3]).is_none());
}

#[test]
fn a_small_buffer_takes_the_smallest_gap_that_holds_it() {
    // Big buffers fix the ends of two gaps, of 2 lines and of 1; the last needs 1 line.
    let line = ALIGN;
    let buffer = |lines: usize, first, last| Buffer { bytes: lines * line, first, last };
    let buffers = [
        buffer(8, 0, 9),
        buffer(7, 0, 1), // at 8, gone before the last comes: leaves nothing busy there
        buffer(6, 0, 9), // at 15
        buffer(5, 2, 9), // at 8, which leaves the gap 13..15
        buffer(4, 2, 2), // behind
        buffer(1, 5, 5),
    ];
    let p = pack(&buffers).unwrap();
    let lines: Vec<usize> = p.offsets.iter().map(|o| o / line).collect();
    assert_eq!(lines, [0, 8, 15, 8, 21, 13]);
}
