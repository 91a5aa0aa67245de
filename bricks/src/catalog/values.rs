//! Activations whose type says what they are.

use std::fmt;
use std::marker::PhantomData;

use crate::brick::Observe;
use crate::error::BrickError;
use crate::reference::{gather_rows, rows_of};

/// What activations are: the place between two bricks.
pub trait State: sealed::Sealed + Send + Sync + 'static {
    /// The name used in messages.
    const NAME: &'static str;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! states {
    ($($(#[$doc:meta])+ $name:ident = $label:literal;)*) => {$(
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl State for $name {
            const NAME: &'static str = $label;
        }
    )*};
}

states! {
    /// The residual stream, `[T, hidden]`.
    Stream = "stream";
    /// A normalised stream, `[T, hidden]`.
    Normed = "normed";
    /// Queries, keys and values side by side, before rotation: `[T, q + 2·kv]`.
    Projected = "projected";
    /// The same with queries and keys rotated.
    Rotated = "rotated";
    /// What attention found, `[T, q]`.
    Attended = "attended";
    /// Gate and up projections side by side, `[T, 2·ffn]`.
    GateAndUp = "gate_and_up";
    /// The gated hidden layer of the feed-forward network, `[T, ffn]`.
    Gated = "gated";
    /// What is to be added to the stream, `[T, hidden]`.
    Update = "update";
    /// Scores of the vocabulary, `[L, vocab]`.
    Logits = "logits";
}

/// A matrix `[rows, width]` of activations in state `S`.
pub struct Activations<S> {
    width: usize,
    values: Vec<f32>,
    state: PhantomData<fn() -> S>,
}

impl<S: State> Activations<S> {
    /// Declares that these rows of `width` values are in state `S`; rows may be 0.
    ///
    /// # Errors
    /// [`BrickError`] if `width` is 0 or the values do not fill whole rows.
    pub fn new(width: usize, values: Vec<f32>) -> Result<Self, BrickError> {
        rows_of(S::NAME, "activations", &values, width)?;
        Ok(Self { width, values, state: PhantomData })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    /// Values per row; at least 1.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The rows with these numbers, e.g. those whose logits are wanted.
    ///
    /// # Errors
    /// [`BrickError::Index`] if there is no such row.
    pub fn select(&self, rows: &[usize]) -> Result<Self, BrickError> {
        Self::new(self.width, gather_rows(&self.values, self.width, rows).map_err(|e| e.in_brick(S::NAME))?)
    }

    /// Checks the width against what a brick takes.
    pub(super) fn expect_width(&self, brick: &str, expected: usize) -> Result<(), BrickError> {
        if self.width == expected {
            return Ok(());
        }
        Err(BrickError::shape(
            brick,
            S::NAME,
            format_args!("[T, {expected}]"),
            format_args!("[{}, {}]", self.rows(), self.width),
        ))
    }

    /// Takes rows apart into column ranges of these widths, whose sum is the width: one buffer per range.
    pub(super) fn split<const N: usize>(&self, widths: [usize; N]) -> [Vec<f32>; N] {
        debug_assert_eq!(widths.iter().sum::<usize>(), self.width);
        let mut from = 0;
        widths.map(|w| {
            let columns = from..from + w;
            from += w;
            self.values.chunks_exact(self.width).flat_map(|row| &row[columns.clone()]).copied().collect()
        })
    }

    /// Puts buffers, each of rows of its own width, side by side; the inverse of [`split`](Self::split).
    pub(super) fn join(parts: &[(usize, Vec<f32>)]) -> Result<Self, BrickError> {
        let mut rows: Vec<_> = parts.iter().map(|(width, part)| part.chunks_exact((*width).max(1))).collect();
        let mut values = Vec::with_capacity(parts.iter().map(|(_, part)| part.len()).sum());
        while rows.iter().any(|r| r.len() > 0) {
            rows.iter_mut().filter_map(Iterator::next).for_each(|row| values.extend_from_slice(row));
        }
        Self::new(parts.iter().map(|(width, _)| width).sum(), values)
    }
}

impl<S: State> Observe for Activations<S> {
    fn values(&self) -> &[f32] {
        &self.values
    }

    fn shape(&self) -> Vec<usize> {
        vec![self.rows(), self.width]
    }
}

// Written out because derives would ask `S`, which has no values, for the same traits.
impl<S> Clone for Activations<S> {
    fn clone(&self) -> Self {
        Self { width: self.width, values: self.values.clone(), state: PhantomData }
    }
}

impl<S> PartialEq for Activations<S> {
    fn eq(&self, other: &Self) -> bool {
        self.width == other.width && self.values == other.values
    }
}

impl<S: State> fmt::Debug for Activations<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Activations<{}>[{}, {}]{:?}", S::NAME, self.rows(), self.width, self.values)
    }
}
