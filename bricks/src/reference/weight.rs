//! Weights as a file stores them.

use std::borrow::Cow;

use crate::dtype::DType;
use crate::error::BrickError;
use crate::op::WeightShape;
use crate::quant;

/// A matrix `[rows, cols]` in its storage format, or a vector as a matrix of one row. Borrowed from a memory map or owned.
///
/// The bytes stay as they are; operations decode one row at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight<'a> {
    shape: WeightShape,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Weight<'a> {
    /// A weight over the bytes of a tensor.
    ///
    /// # Errors
    /// [`BrickError::Weight`] if there are no rows or columns, the columns do not fill whole blocks, or the bytes are not those
    /// of `rows · cols` values.
    pub fn new(dtype: DType, rows: usize, cols: usize, bytes: impl Into<Cow<'a, [u8]>>) -> Result<Self, BrickError> {
        let bytes = bytes.into();
        let error = |expected: String, found: String| BrickError::Weight {
            brick: "weight".into(),
            role: "tensor",
            expected,
            found,
        };
        if rows == 0 || cols == 0 {
            return Err(error("at least one row and one column".into(), format!("[{rows}, {cols}]")));
        }
        let row_bytes = dtype.row_bytes(cols).ok_or_else(|| {
            error(format!("a multiple of {} columns for {dtype}", dtype.block_len()), cols.to_string())
        })?;
        match row_bytes.checked_mul(rows) {
            Some(n) if n == bytes.len() => Ok(Self { shape: WeightShape { dtype, rows, cols }, bytes }),
            Some(n) => Err(error(format!("{n} bytes for {dtype} [{rows}, {cols}]"), format!("{} bytes", bytes.len()))),
            None => Err(error("a tensor that fits into memory".into(), format!("{dtype} [{rows}, {cols}]"))),
        }
    }

    /// An F32 matrix from its values.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_f32(rows: usize, cols: usize, values: &[f32]) -> Result<Weight<'static>, BrickError> {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Weight::new(DType::F32, rows, cols, bytes)
    }

    /// Type and shape.
    pub fn shape(&self) -> WeightShape {
        self.shape
    }

    /// Output features (1 for a vector).
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// Input features (the vector's length).
    pub fn cols(&self) -> usize {
        self.shape.cols
    }

    /// Decodes row `row` to `dst` (`[cols]`).
    ///
    /// # Errors
    /// [`BrickError::Index`] if there is no such row, [`BrickError::Quant`] if `dst` has another length.
    pub fn decode_row(&self, row: usize, dst: &mut [f32]) -> Result<(), BrickError> {
        let row_bytes = self.bytes.len() / self.shape.rows;
        let src = row
            .checked_mul(row_bytes)
            .and_then(|start| self.bytes.get(start..start.checked_add(row_bytes)?))
            .ok_or_else(|| BrickError::Index {
                brick: "weight".into(),
                what: "row",
                index: row,
                limit: self.shape.rows,
            })?;
        quant::decode_row(self.shape.dtype, src, dst)
            .map_err(|source| BrickError::Quant { brick: "weight".into(), source })
    }

    /// The values of a vector.
    ///
    /// # Errors
    /// [`BrickError::Weight`] if this is a matrix of several rows, or does not have `len` columns.
    pub fn vector(&self, brick: &str, role: &'static str, len: usize) -> Result<Vec<f32>, BrickError> {
        self.expect_shape(brick, role, 1, len)?;
        let mut values = vec![0.0; self.shape.cols];
        self.decode_row(0, &mut values).map_err(|e| e.in_brick(brick))?;
        Ok(values)
    }

    /// Checks the shape.
    ///
    /// # Errors
    /// [`BrickError::Weight`] with both shapes.
    pub fn expect_shape(&self, brick: &str, role: &'static str, rows: usize, cols: usize) -> Result<(), BrickError> {
        let WeightShape { dtype, rows: found_rows, cols: found_cols } = self.shape;
        if (rows, cols) == (found_rows, found_cols) {
            return Ok(());
        }
        Err(BrickError::Weight {
            brick: brick.to_owned(),
            role,
            expected: format!("[{rows}, {cols}]"),
            found: format!("[{found_rows}, {found_cols}] {dtype}"),
        })
    }
}
