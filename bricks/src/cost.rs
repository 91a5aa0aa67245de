//! Static cost: what a brick must move and compute, known before anything runs.

use serde::{Deserialize, Serialize};

/// The size of one forward call, as far as cost depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Extent {
    /// Rows of the batch (tokens `T`).
    pub tokens: u64,
    /// Rows whose logits are wanted.
    pub wanted: u64,
    /// Key positions that exist for the batch's sequences after this call (context `S`, summed over sequences).
    pub context: u64,
    /// (query, key) pairs that causal attention visits.
    pub pairs: u64,
}

impl Extent {
    /// `tokens` consecutive tokens of one sequence that end at context length `context`, logits wanted for `wanted` of them.
    ///
    /// The pairs are `Σ (context − tokens + 1 + i)` for `i` in `0..tokens`.
    pub fn one_sequence(tokens: u64, context: u64, wanted: u64) -> Self {
        let context = context.max(tokens);
        let first = context - tokens;
        Self { tokens, wanted, context, pairs: tokens * first + tokens * (tokens + 1) / 2 }
    }
}

/// Bytes moved and operations done by a brick. All figures are derived from shapes, never measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes of weights read.
    pub weight_bytes: u64,
    /// Bytes of activations and KV cache read.
    pub read_bytes: u64,
    /// Bytes of activations and KV cache written.
    pub write_bytes: u64,
    /// Integer operations (a multiply-add counts as two).
    pub int_ops: u64,
    /// Floating-point operations (a multiply-add counts as two).
    pub flops: u64,
}

impl Cost {
    /// All bytes moved.
    pub fn bytes(&self) -> u64 {
        self.weight_bytes + self.read_bytes + self.write_bytes
    }

    /// All operations, integer and floating point.
    pub fn ops(&self) -> u64 {
        self.int_ops + self.flops
    }
}

impl std::ops::Add for Cost {
    type Output = Cost;
    fn add(self, o: Cost) -> Cost {
        Cost {
            weight_bytes: self.weight_bytes + o.weight_bytes,
            read_bytes: self.read_bytes + o.read_bytes,
            write_bytes: self.write_bytes + o.write_bytes,
            int_ops: self.int_ops + o.int_ops,
            flops: self.flops + o.flops,
        }
    }
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, o: Cost) {
        *self = *self + o;
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(iter: I) -> Cost {
        iter.fold(Cost::default(), |a, b| a + b)
    }
}
