//! Attention over keys and values, and the writing of those.

use super::{one_per_row, rows_of, softmax, width_of, zeros};
use crate::error::BrickError;
use crate::op::AttentionSpec;

/// Stores each row of `src` at its position of `cache`.
///
/// # Shapes
/// `cache`: `[S, kv_dim]`, `src`: `[T, kv_dim]`, `positions`: `[T]`, each less than `S`.
///
/// # Errors
/// [`BrickError`] if the shapes do not fit or a position is not in the cache; nothing is written then.
pub fn kv_write(cache: &mut [f32], kv_dim: usize, src: &[f32], positions: &[u32]) -> Result<(), BrickError> {
    const NAME: &str = "kv_write";
    let limit = rows_of(NAME, "cache", cache, kv_dim)?;
    let rows = rows_of(NAME, "input", src, kv_dim)?;
    one_per_row(NAME, "positions", positions.len(), rows)?;
    in_context(NAME, positions, limit)?;
    for (row, &position) in src.chunks_exact(kv_dim).zip(positions) {
        cache[position as usize * kv_dim..][..kv_dim].copy_from_slice(row);
    }
    Ok(())
}

/// Causal attention of one sequence: a query at position `p` sees the keys at `j <= p`, with a window only those at
/// `j > p - window`. Query head `h` reads KV head `h · n_kv_heads / n_heads`.
///
/// Per query and head: scores `q · k · scale`, capped if the specification says so, softmax over the visible keys, and the sum
/// of their values by these weights.
///
/// # Shapes
/// `q` and the result: `[T, n_heads · head_dim]`; `keys`, `values`: `[S, n_kv_heads · head_dim]`; `positions`: `[T]`, each
/// less than `S`.
///
/// # Errors
/// [`BrickError`] if shapes or positions do not fit, or the specification contradicts itself.
pub fn attention(
    spec: &AttentionSpec,
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    positions: &[u32],
) -> Result<Vec<f32>, BrickError> {
    const NAME: &str = "attention";
    check_attention(NAME, spec)?;
    let d = spec.head_dim;
    let width = width_of(NAME, "heads, head_dim", &[spec.n_heads, d])?;
    let kv_dim = width_of(NAME, "KV heads, head_dim", &[spec.n_kv_heads, d])?;
    let rows = rows_of(NAME, "queries", q, width)?;
    let context = rows_of(NAME, "keys", keys, kv_dim)?;
    if values.len() != keys.len() {
        return Err(BrickError::shape(NAME, "values", format_args!("{} as keys", keys.len()), values.len()));
    }
    one_per_row(NAME, "positions", positions.len(), rows)?;
    in_context(NAME, positions, context)?;

    let mut y = zeros(NAME, rows, width)?;
    for (t, &position) in positions.iter().enumerate() {
        let last = position as usize;
        let first = spec.window.map_or(0, |w| (last + 1).saturating_sub(w));
        for h in 0..spec.n_heads {
            let group = h / (spec.n_heads / spec.n_kv_heads);
            let q = &q[t * width + h * d..][..d];
            let mut weights: Vec<f64> = (first..=last)
                .map(|j| {
                    let k = &keys[j * kv_dim + group * d..][..d];
                    let dot: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                    let score = dot * f64::from(spec.scale);
                    spec.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                })
                .collect();
            softmax(&mut weights);
            let y = &mut y[t * width + h * d..][..d];
            for (i, y) in y.iter_mut().enumerate() {
                let sum: f64 =
                    (first..=last).zip(&weights).map(|(j, w)| w * f64::from(values[j * kv_dim + group * d + i])).sum();
                *y = sum as f32;
            }
        }
    }
    Ok(y)
}

/// Checks an attention specification.
pub(crate) fn check_attention(brick: &str, spec: &AttentionSpec) -> Result<(), BrickError> {
    let AttentionSpec { n_heads, n_kv_heads, head_dim, scale, window, softcap } = *spec;
    width_of(brick, "heads, head_dim", &[n_heads, head_dim])?;
    if n_kv_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
        return Err(BrickError::parameter(brick, "KV heads", format_args!("a divisor of {n_heads} heads"), n_kv_heads));
    }
    if !scale.is_finite() {
        return Err(BrickError::parameter(brick, "scale", "a finite number", scale));
    }
    if window == Some(0) {
        return Err(BrickError::parameter(brick, "window", "at least 1", 0));
    }
    match softcap {
        Some(cap) if !(cap.is_finite() && cap > 0.0) => {
            Err(BrickError::parameter(brick, "softcap", "a finite number above 0", cap))
        }
        _ => Ok(()),
    }
}

fn in_context(brick: &str, positions: &[u32], limit: usize) -> Result<(), BrickError> {
    match positions.iter().map(|&p| p as usize).find(|&p| p >= limit) {
        Some(index) => Err(BrickError::Index { brick: brick.to_owned(), what: "position", index, limit }),
        None => Ok(()),
    }
}
