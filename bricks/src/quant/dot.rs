//! The yardstick of every integer dot product.

use super::q8::{self, Q8Row};
use super::{QuantError, decode_row};
use crate::dtype::DType;

/// A dot product in f64, and how large its terms were.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DotReference {
    /// `Σ w·x`.
    pub value: f64,
    /// `Σ |w·x|`: what a rounding error must be measured against, as `value` may be small by cancellation.
    pub magnitude: f64,
}

impl DotReference {
    /// Whether a kernel's result `y` is right: within `relative · magnitude` of the value; NaN if the value is NaN.
    ///
    /// Where the value, give or take that much, is beyond f32, the infinity of its sign is right as well.
    pub fn accepts(&self, y: f32, relative: f64) -> bool {
        let (y, value, tolerance) = (f64::from(y), self.value, relative * self.magnitude);
        if value.is_nan() || y.is_nan() {
            value.is_nan() && y.is_nan()
        } else if value.is_infinite() {
            y == value
        } else if y.is_infinite() {
            value * y > 0.0 && value.abs() + tolerance > f64::from(f32::MAX)
        } else {
            (y - value).abs() <= tolerance
        }
    }
}

/// Decoded weights times decoded activations, accumulated in f64 in the order of the row.
///
/// Activations are decoded in f64, where `scale · code` is exact: the only f32 roundings are those of [`decode_row`]. A
/// poisoned block of activations makes the result NaN.
///
/// # Errors
/// The width of `activations` does not fill whole blocks of `dtype`, or `weights` is not a row of that width.
pub fn dot_reference(dtype: DType, weights: &[u8], activations: Q8Row<'_>) -> Result<DotReference, QuantError> {
    let mut w = vec![0.0; activations.width()];
    decode_row(dtype, weights, &mut w)?;
    let mut dot = DotReference { value: 0.0, magnitude: 0.0 };
    let blocks = w.chunks_exact(q8::BLOCK).zip(activations.codes().chunks_exact(q8::BLOCK));
    for ((w, codes), &scale) in blocks.zip(activations.scales()) {
        for (&w, &code) in w.iter().zip(codes) {
            let term = f64::from(w) * (f64::from(scale) * f64::from(code));
            dot.value += term;
            dot.magnitude += term.abs();
        }
    }
    Ok(dot)
}
