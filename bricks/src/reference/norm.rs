//! Normalisation, residuals, and the choice of rows.

use super::{rows_of, zeros};
use crate::error::BrickError;

/// `y = x / sqrt(mean(x²) + eps) · gain`, per row.
///
/// # Shapes
/// `x`: `[T, d]`, `gain`: `[d]`; the result: `[T, d]`.
///
/// # Errors
/// [`BrickError`] if `x` is not rows of `d` values, or `eps` is negative or not finite.
pub fn rms_norm(x: &[f32], gain: &[f32], eps: f32) -> Result<Vec<f32>, BrickError> {
    const NAME: &str = "rms_norm";
    let d = gain.len();
    let rows = rows_of(NAME, "input", x, d)?;
    if !(eps.is_finite() && eps >= 0.0) {
        return Err(BrickError::parameter(NAME, "eps", "a finite number that is not negative", eps));
    }
    let mut y = zeros(NAME, rows, d)?;
    for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
        let squares: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        let root = (squares / d as f64 + f64::from(eps)).sqrt();
        for ((y, &x), &g) in y.iter_mut().zip(x).zip(gain) {
            *y = (f64::from(x) / root * f64::from(g)) as f32;
        }
    }
    Ok(y)
}

/// Residual and norm: `r + x`, and the norm of that sum.
///
/// # Shapes
/// `r`, `x`: `[T, d]`, `gain`: `[d]`; both results: `[T, d]`.
///
/// # Errors
/// As [`add`] and [`rms_norm`].
pub fn add_rms_norm(r: &[f32], x: &[f32], gain: &[f32], eps: f32) -> Result<(Vec<f32>, Vec<f32>), BrickError> {
    const NAME: &str = "add_rms_norm";
    let sum = add(r, x).map_err(|e| e.in_brick(NAME))?;
    let norm = rms_norm(&sum, gain, eps).map_err(|e| e.in_brick(NAME))?;
    Ok((sum, norm))
}

/// `a + b`, element by element.
///
/// # Errors
/// [`BrickError::Shape`] if the lengths differ.
pub fn add(a: &[f32], b: &[f32]) -> Result<Vec<f32>, BrickError> {
    if a.len() != b.len() {
        return Err(BrickError::shape("add", "second input", format_args!("{} values", a.len()), b.len()));
    }
    Ok(a.iter().zip(b).map(|(a, b)| a + b).collect())
}

/// The rows of `x` whose numbers are listed, in that order.
///
/// # Shapes
/// `x`: `[T, width]`; the result: `[rows.len(), width]`.
///
/// # Errors
/// [`BrickError`] if `x` is not rows of `width` values, or a number is not less than `T`.
pub fn gather_rows(x: &[f32], width: usize, rows: &[usize]) -> Result<Vec<f32>, BrickError> {
    const NAME: &str = "gather_rows";
    let limit = rows_of(NAME, "input", x, width)?;
    let mut y = zeros(NAME, rows.len(), width)?;
    for (y, &row) in y.chunks_exact_mut(width).zip(rows) {
        if row >= limit {
            return Err(BrickError::Index { brick: NAME.into(), what: "row", index: row, limit });
        }
        y.copy_from_slice(&x[row * width..][..width]);
    }
    Ok(y)
}
