//! The kernels that measure a GPU do what their rates are computed from.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::interp::Class;
use brick_ptx::ir::Target;
use brick_ptx::kernels::{all, calibrate};
use launches::{contents, run_all};

#[test]
fn reads_miss_nothing() {
    // Fewer tiles than CTAs, and more.
    for tiles in [0, 3, 10] {
        let load = calibrate::bandwidth_workload(false, 1, tiles, 1).unwrap();
        let (run, y) = run_all(calibrate::read_bandwidth(Target::Sm80), &load, |run| run.u32s("y").unwrap());
        let (words, _) = contents(&load, "x").as_chunks::<4>();
        let expected = words.iter().fold(0, |sum, word| sum ^ u32::from_le_bytes(*word));
        assert_eq!(y.iter().fold(0, |sum, word| sum ^ word), expected, "{tiles} tiles");
        assert_eq!(run.counts.global_loads().bytes, tiles as u64 * u64::from(calibrate::TILE_BYTES));
    }
}

#[test]
fn copies_are_copies() {
    let load = calibrate::bandwidth_workload(true, 1, 10, 2).unwrap();
    let (_, y) = run_all(calibrate::copy_bandwidth(Target::Sm80), &load, |run| run.bytes("y").unwrap().to_vec());
    assert!(y == contents(&load, "x"));
}

/// Four products of bytes.
fn dp4a(a: i32, b: i32, c: i32) -> i32 {
    let products =
        a.to_le_bytes().into_iter().zip(b.to_le_bytes()).map(|(a, b)| i32::from(a as i8) * i32::from(b as i8));
    c.wrapping_add(products.sum())
}

#[test]
fn every_dp4a_is_in_the_result() {
    let load = calibrate::rate_workload(false, 1, 5).unwrap();
    let (run, y) = run_all(calibrate::dp4a_rate(Target::Sm80), &load, |run| run.u32s("y").unwrap());
    for (thread, &found) in y.iter().enumerate() {
        let factor = thread as i32 + 0x0102_0304;
        let chain = |start| (0..10).fold(start, |sum, _| dp4a(sum, factor, sum));
        assert_eq!(found, (1..9).map(chain).fold(0, |all, sum| all ^ sum) as u32, "thread {thread}");
    }
    assert_eq!(run.counts.class(Class::Dot) * 32 * u64::from(calibrate::DP4A_OPS), load.work.int_ops);
}

#[test]
fn every_mma_is_in_the_result() {
    let [one, five] = [1, 5].map(|rounds| {
        let load = calibrate::rate_workload(true, 1, rounds).unwrap();
        let (run, y) = run_all(calibrate::mma_rate(Target::Sm80), &load, |run| run.u32s("y").unwrap());
        assert_eq!(run.counts.class(Class::Matrix) * u64::from(calibrate::MMA_OPS), load.work.int_ops);
        y
    });
    assert_ne!(one, five);
    // The four numbers that thread 0 has of C = A B: rows 0 and 8, columns 0 and 1.
    let word = |thread: usize, i: u32| (thread as u32).wrapping_mul(0x0101_0101).wrapping_add(i).to_le_bytes();
    let dot = |row: usize, column: usize| {
        let of_half = |half: usize, t: usize| {
            let a = word(4 * (row % 8) + t, (row / 8 + 2 * half) as u32);
            let b = word(4 * column + t, 4 + half as u32);
            a.into_iter().zip(b).map(|(a, b)| i32::from(a as i8) * i32::from(b as i8)).sum::<i32>()
        };
        (0..2).flat_map(|half| (0..4).map(move |t| (half, t))).map(|(half, t)| of_half(half, t)).sum::<i32>()
    };
    let products = [(0, 0), (0, 1), (8, 0), (8, 1)].map(|(row, column)| dot(row, column));
    for (rounds, y) in [(1, one), (5, five)] {
        let expected = (0..32).fold(0, |all, i| all ^ (i as i32 + rounds * products[i % 4]));
        assert_eq!(y[0], expected as u32, "{rounds} rounds");
    }
}

#[test]
fn a_touch_per_block() {
    let entry = all().into_iter().find(|entry| entry.name == "touch").unwrap();
    let (_, counter) = run_all(calibrate::touch(Target::Sm80), &entry.workload, |run| run.u32s("counter").unwrap());
    assert_eq!(counter, [3]);
    assert_eq!(calibrate::dims(132).unwrap().grid, [528, 1, 1]);
    assert_eq!(calibrate::touch_dims(1).unwrap().grid, [1, 1, 1]);
    assert!(calibrate::dims(0).is_err());
}
