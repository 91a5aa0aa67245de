//! What each operation means, in the plainest code that says it.
//!
//! Everything else in the project is checked against this module, so nothing here is optimised: plain loops over
//! row-major f32 buffers, sums in f64, one rounding at the end. It depends on no kernel and on no plan.
//!
//! Rows are tokens. A buffer `[T, width]` does not carry its shape: `T` is its length divided by the width that the weights
//! or parameters give, and a length that is not a multiple is an error. `T` may be 0.
//!
//! # Errors
//! Functions check every length, index and parameter and report [`BrickError`]; they do not panic, whatever
//! they are given. Values are not checked: NaN and infinities go through the arithmetic and come out where it takes them.

mod activation;
mod attention;
mod distribution;
mod eval;
mod linear;
mod norm;
mod rotate;
mod weight;

pub use activation::{activate, gated_activation};
pub(crate) use attention::check_attention;
pub use attention::{attention, kv_write};
pub use distribution::{argmax, softmax};
pub use eval::{Context, run};
pub(crate) use linear::decode_q8;
pub use linear::{Arithmetic, embed, linear, linear_f32, linear_q8};
pub use norm::{add, add_rms_norm, gather_rows, rms_norm};
pub use rotate::rope;
pub use weight::Weight;

use crate::error::BrickError;

/// Splits a buffer `[rows, width]`: the number of rows.
pub(crate) fn rows_of(brick: &str, what: &'static str, values: &[f32], width: usize) -> Result<usize, BrickError> {
    match values.len().checked_rem(width) {
        Some(0) => Ok(values.len() / width),
        Some(_) => Err(BrickError::shape(brick, what, format_args!("rows of {width} values"), values.len())),
        None => Err(BrickError::parameter(brick, "width", "at least 1", width)),
    }
}

/// Most values in a row that parameters alone can ask for. No model comes near; the limit keeps sizes, and the costs that are
/// derived from them, far from overflow.
const MAX_WIDTH: usize = i32::MAX as usize;

/// Width of a row as a product of sizes that parameters give, each at least 1.
pub(crate) fn width_of(brick: &str, parameter: &'static str, factors: &[usize]) -> Result<usize, BrickError> {
    factors.iter().try_fold(1usize, |n, &f| n.checked_mul(f).filter(|n| (1..=MAX_WIDTH).contains(n))).ok_or_else(|| {
        BrickError::parameter(
            brick,
            parameter,
            format_args!("sizes whose product is in 1..={MAX_WIDTH}"),
            format_args!("{factors:?}"),
        )
    })
}

/// A buffer of zeros for an output of `rows · width` values.
pub(crate) fn zeros(brick: &str, rows: usize, width: usize) -> Result<Vec<f32>, BrickError> {
    let memory = |elements| BrickError::Memory { brick: brick.to_owned(), elements };
    let elements = rows.checked_mul(width).ok_or_else(|| memory(usize::MAX))?;
    let mut values = Vec::new();
    values.try_reserve_exact(elements).map_err(|_| memory(elements))?;
    values.resize(elements, 0.0);
    Ok(values)
}

/// Checks that a buffer has one entry per row.
pub(crate) fn one_per_row(brick: &str, what: &'static str, found: usize, rows: usize) -> Result<(), BrickError> {
    if found == rows {
        Ok(())
    } else {
        Err(BrickError::shape(brick, what, format_args!("one for each of {rows} rows"), found))
    }
}

#[cfg(test)]
mod tests;
