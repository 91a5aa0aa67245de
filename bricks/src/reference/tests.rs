#![allow(clippy::unwrap_used)]
// One file per mechanism.
mod attention;
mod elementwise;
mod eval;
mod linear;
mod rotation;

/// Deterministic values in -1..1 without a pattern that a transpose or an offset would keep.
fn noise(seed: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729 + 31) % 2003) as f32 / 1001.0 - 1.0).collect()
}
