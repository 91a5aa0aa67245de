//! Rounding of activations to 8 bits.

use super::{Activations, BudgetTable, ELEMENT_TOLERANCE, Normed, promises};
use crate::assertion::Assertions;
use crate::brick::{Brick, ComputeOp};
use crate::budget::TokenBudget;
use crate::cost::{Cost, Extent};
use crate::error::BrickError;
use crate::kind::BrickKind;
use crate::quant::q8::{BLOCK, Q8Rows};
use crate::reference;

/// [`RoundToQ8`] as a brick.
pub type ActivationQuantBrick = Brick<RoundToQ8>;

/// What integer kernels see of activations: 8-bit codes with one scale per 32 values, and back. [`Normed`] to [`Normed`],
/// `[T, width]`.
#[derive(Debug, Clone, Copy)]
pub struct RoundToQ8 {
    width: usize,
}

/// What rounding to 8 bits changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoundingError {
    /// Largest absolute difference.
    pub max: f64,
    /// Root mean square of the difference over that of the values; 0 if all values are 0.
    pub relative_rms: f64,
}

impl Brick<RoundToQ8> {
    /// Rounds rows of `width` values.
    ///
    /// # Errors
    /// [`BrickError::Parameter`] if `width` is not a positive multiple of 32.
    pub fn new(width: usize) -> Result<Self, BrickError> {
        reference::width_of(RoundToQ8::NAME, "width", &[width])?;
        if !width.is_multiple_of(BLOCK) {
            return Err(BrickError::parameter(
                RoundToQ8::NAME,
                "width",
                format_args!("a positive multiple of {BLOCK}"),
                width,
            ));
        }
        Ok(Self::from_op(RoundToQ8 { width }))
    }

    /// Codes, scales and code sums.
    ///
    /// # Errors
    /// [`BrickError::Shape`] if the rows have another width.
    pub fn quantize(&self, x: &Activations<Normed>) -> Result<Q8Rows, BrickError> {
        self.op().quantize(x)
    }

    /// The values that codes stand for.
    ///
    /// # Errors
    /// [`BrickError::Shape`] if the rows have another width.
    pub fn dequantize(&self, codes: &Q8Rows) -> Result<Activations<Normed>, BrickError> {
        self.op().dequantize(codes)
    }

    /// What rounding changes about these activations. Not finite if they are not.
    ///
    /// # Errors
    /// [`BrickError::Shape`] if the rows have another width.
    pub fn measure_error(&self, x: &Activations<Normed>) -> Result<RoundingError, BrickError> {
        let rounded = self.dequantize(&self.quantize(x)?)?;
        let (mut max, mut difference, mut squares) = (0.0f64, 0.0, 0.0);
        for (&x, &y) in x.values().iter().zip(rounded.values()) {
            let (x, d) = (f64::from(x), f64::from(x) - f64::from(y));
            // `f64::max` would drop a NaN.
            max = if max.is_nan() || d.is_nan() { f64::NAN } else { max.max(d.abs()) };
            difference += d * d;
            squares += x * x;
        }
        let relative_rms = if squares == 0.0 { 0.0 } else { (difference / squares).sqrt() };
        Ok(RoundingError { max, relative_rms })
    }
}

impl RoundToQ8 {
    fn quantize(self, x: &Activations<Normed>) -> Result<Q8Rows, BrickError> {
        x.expect_width(Self::NAME, self.width)?;
        Q8Rows::from_values(self.width, x.values())
            .map_err(|source| BrickError::Quant { brick: Self::NAME.into(), source })
    }

    fn dequantize(self, codes: &Q8Rows) -> Result<Activations<Normed>, BrickError> {
        if codes.width() != self.width {
            return Err(BrickError::shape(
                Self::NAME,
                "codes",
                format_args!("[T, {}]", self.width),
                format_args!("[{}, {}]", codes.rows(), codes.width()),
            ));
        }
        Activations::new(self.width, reference::decode_q8(Self::NAME, codes)?)
    }
}

impl ComputeOp for RoundToQ8 {
    type Input<'a> = &'a Activations<Normed>;
    type Output = Activations<Normed>;
    const NAME: &'static str = "activation_quant";

    fn kind(&self) -> BrickKind {
        BrickKind::Custom
    }

    fn default_budget(&self) -> TokenBudget {
        BudgetTable::DEFAULT.get(self.kind())
    }

    fn assertions(&self) -> Assertions {
        promises(self.width, ELEMENT_TOLERANCE)
    }

    fn tokens(x: &Self::Input<'_>) -> usize {
        x.rows()
    }

    fn execute(&self, x: Self::Input<'_>) -> Result<Self::Output, BrickError> {
        self.dequantize(&self.quantize(x)?)
    }

    /// Reads f32; writes a code per value, and a scale and two sums (8 bytes) per block.
    fn cost(&self, extent: &Extent) -> Cost {
        let n = extent.tokens.saturating_mul(self.width as u64);
        let blocks = n / BLOCK as u64;
        Cost {
            weight_bytes: 0,
            read_bytes: n.saturating_mul(4),
            write_bytes: n.saturating_add(blocks.saturating_mul(8)),
            int_ops: n,
            flops: n.saturating_mul(3),
        }
    }
}
