//! Rows of the embedding table.

use super::error::{KernelError, same};
use crate::DType;
use crate::quant::decode_row;

/// `out = table[token] · scale`: decodes one row of a table of `out.len()` columns.
///
/// # Errors
/// The table is not whole rows of that many columns of `dtype`, or `token` is not one of its rows.
pub fn embed_row(dtype: DType, table: &[u8], token: usize, scale: f32, out: &mut [f32]) -> Result<(), KernelError> {
    let columns = KernelError::Columns { dtype, cols: out.len() };
    let row_bytes = dtype.row_bytes(out.len()).filter(|&n| n > 0).ok_or(columns.clone())?;
    let rows = table.len() / row_bytes;
    same("bytes of whole rows of the embedding table", rows * row_bytes, table.len())?;
    let limit = rows.saturating_sub(1);
    let row = token.checked_mul(row_bytes).and_then(|at| table.get(at..)?.get(..row_bytes));
    let row = row.ok_or(KernelError::Limit { what: "token of the embedding", limit, found: token })?;
    decode_row(dtype, row, out).map_err(|_| columns)?;
    // Multiplying by 1 would change nothing but the payload of NaNs; most models do not scale.
    if scale != 1.0 {
        for x in out {
            *x *= scale;
        }
    }
    Ok(())
}
