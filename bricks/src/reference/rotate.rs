//! Rotary position embedding of heads.

use super::{one_per_row, rows_of, width_of};
use crate::error::BrickError;
use crate::rope::{RopeSpec, RopeStyle};

/// Rotates the first `spec.dims` elements of each head by the angles of the row's position; the rest passes through.
///
/// # Shapes
/// `x` and the result: `[T, n_heads · head_dim]`, `positions`: `[T]`.
///
/// # Errors
/// [`BrickError`] if `x` is not rows of that width, there is not one position per row, or the specification is not one of a
/// rotation of heads of that size.
pub fn rope(
    spec: &RopeSpec,
    n_heads: usize,
    head_dim: usize,
    x: &[f32],
    positions: &[u32],
) -> Result<Vec<f32>, BrickError> {
    const NAME: &str = "rope";
    spec.check().map_err(|source| BrickError::Rope { brick: NAME.into(), source })?;
    if spec.dims > head_dim {
        return Err(BrickError::parameter(NAME, "rotary dims", format_args!("at most {head_dim}"), spec.dims));
    }
    let width = width_of(NAME, "heads, head_dim", &[n_heads, head_dim])?;
    let rows = rows_of(NAME, "input", x, width)?;
    one_per_row(NAME, "positions", positions.len(), rows)?;

    let half = spec.dims / 2;
    let frequencies = spec.inv_freq();
    let (mut cos, mut sin) = (vec![0.0; half], vec![0.0; half]);
    let mut y = x.to_vec();
    for (row, &position) in y.chunks_exact_mut(width).zip(positions) {
        frequencies.cos_sin(position, &mut cos, &mut sin);
        for head in row.chunks_exact_mut(head_dim) {
            for i in 0..half {
                let (a, b) = match spec.style {
                    RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                    RopeStyle::SplitHalves => (i, i + half),
                };
                let (xa, xb) = (f64::from(head[a]), f64::from(head[b]));
                let (c, s) = (f64::from(cos[i]), f64::from(sin[i]));
                head[a] = (xa * c - xb * s) as f32;
                head[b] = (xa * s + xb * c) as f32;
            }
        }
    }
    Ok(y)
}
