//! Operations on weight matrices: the embedding table and linear maps.

use super::{Weight, rows_of, zeros};
use crate::DType;
use crate::error::BrickError;
use crate::quant::float::round_bf16;
use crate::quant::q8::Q8Rows;

/// What a linear map multiplies its weights with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arithmetic {
    /// The activations as they are. The meaning of the model.
    #[default]
    F32,
    /// The activations as integer kernels see them, rounded to 8 bits per block of 32 ([`quant::q8`](crate::quant::q8)), where the
    /// weights are quantised; rounded to BF16 where the weights are; as they are where the weights are other floats. What a kernel
    /// has to reproduce up to summation order.
    Q8,
}

/// Rows of the embedding table, times `scale`.
///
/// # Shapes
/// `table`: `[vocab, width]`; the result: `[tokens.len(), width]`.
///
/// # Errors
/// [`BrickError::Index`] if a token is not less than `vocab`.
pub fn embed(table: &Weight<'_>, tokens: &[u32], scale: f32) -> Result<Vec<f32>, BrickError> {
    const NAME: &str = "embed";
    let width = table.cols();
    let mut y = zeros(NAME, tokens.len(), width)?;
    for (row, &token) in y.chunks_exact_mut(width).zip(tokens) {
        let (index, limit) = (token as usize, table.rows());
        if index >= limit {
            return Err(BrickError::Index { brick: NAME.into(), what: "token", index, limit });
        }
        table.decode_row(index, row).map_err(|e| e.in_brick(NAME))?;
        for x in row {
            *x *= scale;
        }
    }
    Ok(y)
}

/// `y = W · x (+ b)` in the given arithmetic.
///
/// # Shapes
/// `weight`: `[out, in]`, `bias`: `[out]`, `x`: `[T, in]`; the result: `[T, out]`.
///
/// # Errors
/// [`BrickError`] if `x` is not rows of `in` values, or the bias does not have `out`; in [`Arithmetic::Q8`] also if the weights
/// are quantised and `in` is not a multiple of 32.
pub fn linear(
    weight: &Weight<'_>,
    bias: Option<&[f32]>,
    x: &[f32],
    arithmetic: Arithmetic,
) -> Result<Vec<f32>, BrickError> {
    match arithmetic {
        Arithmetic::Q8 if !weight.shape().dtype.is_float() => linear_q8(weight, bias, x),
        Arithmetic::Q8 if weight.shape().dtype == DType::BF16 => {
            let rounded: Vec<f32> = x.iter().map(|x| round_bf16(*x)).collect();
            linear_f32(weight, bias, &rounded)
        }
        Arithmetic::F32 | Arithmetic::Q8 => linear_f32(weight, bias, x),
    }
}

/// `y = W · x (+ b)` with decoded weights and the activations as they are; see [`linear`] for shapes and errors.
///
/// # Errors
/// As [`linear`].
pub fn linear_f32(weight: &Weight<'_>, bias: Option<&[f32]>, x: &[f32]) -> Result<Vec<f32>, BrickError> {
    const NAME: &str = "linear";
    let (n_out, n_in) = (weight.rows(), weight.cols());
    let rows = rows_of(NAME, "input", x, n_in)?;
    if let Some(b) = bias.filter(|b| b.len() != n_out) {
        return Err(BrickError::shape(NAME, "bias", format_args!("{n_out} values"), b.len()));
    }
    let mut y = zeros(NAME, rows, n_out)?;
    let mut w = zeros(NAME, 1, n_in)?;
    for o in 0..n_out {
        weight.decode_row(o, &mut w).map_err(|e| e.in_brick(NAME))?;
        let b = bias.map_or(0.0, |b| f64::from(b[o]));
        for (t, x) in x.chunks_exact(n_in).enumerate() {
            let dot: f64 = w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
            y[t * n_out + o] = (dot + b) as f32;
        }
    }
    Ok(y)
}

/// `y = W · x (+ b)` with decoded weights and activations rounded to 8 bits, whatever the type of the weights; see [`linear`]
/// for shapes and errors.
///
/// # Errors
/// As [`linear`].
pub fn linear_q8(weight: &Weight<'_>, bias: Option<&[f32]>, x: &[f32]) -> Result<Vec<f32>, BrickError> {
    const NAME: &str = "linear";
    rows_of(NAME, "input", x, weight.cols())?;
    linear_f32(weight, bias, &round_to_q8(NAME, weight.cols(), x)?)
}

/// The values that Q8 codes of `x` (`[T, width]`) stand for.
pub(crate) fn round_to_q8(brick: &str, width: usize, x: &[f32]) -> Result<Vec<f32>, BrickError> {
    let codes =
        Q8Rows::from_values(width, x).map_err(|source| BrickError::Quant { brick: brick.to_owned(), source })?;
    decode_q8(brick, &codes)
}

/// The values that Q8 codes stand for, `[T, width]`.
pub(crate) fn decode_q8(brick: &str, codes: &Q8Rows) -> Result<Vec<f32>, BrickError> {
    let mut values = zeros(brick, codes.rows(), codes.width())?;
    for (t, row) in values.chunks_exact_mut(codes.width().max(1)).enumerate() {
        if let Some(codes) = codes.row(t) {
            codes.decode(row).map_err(|source| BrickError::Quant { brick: brick.to_owned(), source })?;
        }
    }
    Ok(values)
}
