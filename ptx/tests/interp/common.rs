//! What the tests of the interpreter share.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use brick_ptx::interp::{Fault, Gpu, GpuError, Launch, Module, Schedule};

/// Parses one of the texts beside this file.
pub(crate) fn parse(text: &str) -> Module {
    Module::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// A one-dimensional launch with a schedule.
pub(crate) fn linear(blocks: u32, threads: u32, schedule: Schedule) -> Launch {
    Launch { schedule, ..Launch::linear(blocks, threads) }
}

/// Every schedule the tests of correct programs run: in turn, and twenty seeds.
pub(crate) fn schedules() -> impl Iterator<Item = Schedule> {
    std::iter::once(Schedule::RoundRobin).chain((0..20).map(Schedule::Seeded))
}

pub(crate) fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub(crate) fn words_of(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

pub(crate) fn result(gpu: &Gpu, buffer: brick_ptx::interp::Buffer) -> Vec<u32> {
    words_of(gpu.read(buffer).expect("every word was written"))
}

/// The fault of a launch that must have one.
pub(crate) fn fault<T: std::fmt::Debug>(outcome: Result<T, GpuError>) -> Fault {
    match outcome {
        Err(GpuError::Fault(fault)) => *fault,
        other => panic!("expected a fault, found {other:?}"),
    }
}

/// Pseudo-random words that are the same on every machine.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        })
        .collect()
}
