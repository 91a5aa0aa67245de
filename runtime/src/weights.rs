//! Where a plan finds the bytes of its weights.

use brick_graphs::WeightId;

/// The bytes of a graph's weights, in storage layout (see [`bricks::DType`]). A memory map, as a rule.
pub trait Weights: Send + Sync {
    /// All bytes of a weight. Must return the same memory every time.
    fn bytes(&self, weight: WeightId) -> &[u8];
}
