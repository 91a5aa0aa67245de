//! The bricks of a decoder as types, on top of the scalar reference.
//!
//! This is the semantic catalogue: what each brick is called, takes, promises and may cost, in a form that can be run, checked
//! and composed by hand. Speed comes from plans, which fuse bricks and choose kernels; they are judged by what is here.
//!
//! # A wrong composition does not compile
//!
//! Every brick takes and gives [`Activations`] of a certain [`State`]. The only order of a layer that type-checks is the right
//! one:
//!
//! ```
//! # use bricks::catalog::*;
//! # use bricks::{BrickError, RunBrick};
//! # struct Parts { norm: RmsNormBrick, qkv: QkvBrick, rope: RopeBrick, attention: AttentionBrick, o: OProjBrick, add: ResidualBrick }
//! fn half_layer(b: &Parts, x: &Activations<Stream>, positions: &[u32], cache: &mut KvCache)
//!     -> Result<Activations<Stream>, BrickError>
//! {
//!     let normed = b.norm.run(x)?.output;
//!     let projected = b.qkv.run(&normed)?.output;
//!     let rotated = b.rope.run(Rotate { qkv: &projected, positions })?.output;
//!     let attended = b.attention.run(Attend { qkv: &rotated, positions, cache })?.output;
//!     let update = b.o.run(&attended)?.output;
//!     Ok(b.add.run(Sum { stream: x, update: &update })?.output)
//! }
//! ```
//!
//! Projecting what was not normalised:
//!
//! ```compile_fail,E0308
//! # use bricks::catalog::*;
//! # use bricks::{BrickError, RunBrick};
//! fn wrong(qkv: &QkvBrick, x: &Activations<Stream>) -> Result<(), BrickError> {
//!     qkv.run(x)?;
//!     Ok(())
//! }
//! ```
//!
//! Attending with queries and keys that were not rotated:
//!
//! ```compile_fail,E0308
//! # use bricks::catalog::*;
//! # use bricks::{BrickError, RunBrick};
//! fn wrong(attention: &AttentionBrick, qkv: &Activations<Projected>, positions: &[u32], cache: &mut KvCache)
//!     -> Result<(), BrickError>
//! {
//!     attention.run(Attend { qkv, positions, cache })?;
//!     Ok(())
//! }
//! ```
//!
//! Rotating twice:
//!
//! ```compile_fail,E0308
//! # use bricks::catalog::*;
//! # use bricks::{BrickError, RunBrick};
//! fn wrong(rope: &RopeBrick, rotated: &Activations<Rotated>, positions: &[u32]) -> Result<(), BrickError> {
//!     rope.run(Rotate { qkv: rotated, positions })?;
//!     Ok(())
//! }
//! ```
//!
//! Adding attention's output to the stream without its projection:
//!
//! ```compile_fail,E0308
//! # use bricks::catalog::*;
//! # use bricks::{BrickError, RunBrick};
//! fn wrong(add: &ResidualBrick, stream: &Activations<Stream>, attended: &Activations<Attended>) -> Result<(), BrickError> {
//!     add.run(Sum { stream, update: attended })?;
//!     Ok(())
//! }
//! ```
//!
//! Using the norm's output as the stream of the next layer:
//!
//! ```compile_fail,E0308
//! # use bricks::catalog::*;
//! # use bricks::{BrickError, RunBrick};
//! fn wrong(norm: &RmsNormBrick, x: &Activations<Stream>) -> Result<Activations<Stream>, BrickError> {
//!     Ok(norm.run(x)?.output)
//! }
//! ```
//!
//! # Budgets
//! Bricks are built with [`BudgetTable::DEFAULT`]; [`Brick::with_budget`](crate::Brick::with_budget) and
//! [`TransformerLayerBrick::with_budgets`] replace it.

mod activation;
mod attention;
mod budgets;
mod embed;
mod ffn;
mod layer;
mod norm;
mod projection;
mod quantise;
mod registry;
mod residual;
mod rope;
mod values;

pub use activation::{ActivationBrick, GatedUnit};
pub use attention::{Attend, AttentionBrick, CausalAttention, KvCache};
pub use budgets::BudgetTable;
pub use embed::{EmbedBrick, Embedding};
pub use ffn::{FeedForward, FfnBrick};
pub use layer::{LayerInput, LayerOutput, LayerParts, TransformerLayerBrick};
pub use norm::{RmsNorm, RmsNormBrick};
pub use projection::{
    DownBrick, DownRole, GateUpBrick, GateUpRole, LmHeadBrick, LmHeadRole, OProjBrick, OProjRole, Part, Projection,
    ProjectionRole, QkvBrick, QkvRole,
};
pub use quantise::{ActivationQuantBrick, RoundToQ8, RoundingError};
pub use registry::{TYPE_NAMES, registry};
pub use residual::{ResidualBrick, ResidualSum, Sum};
pub use rope::{RopeBrick, Rotate, Rotation};
pub use values::{Activations, Attended, GateAndUp, Gated, Logits, Normed, Projected, Rotated, State, Stream, Update};

use crate::assertion::{Assertions, BrickAssertion};
use crate::op::Dim;

/// The assertions of a brick whose output is `f32[T, width]` and has a scalar reference.
fn promises(width: usize, tolerance: f64) -> Assertions {
    Assertions::of(BrickAssertion::shape([Dim::Tokens, Dim::Fixed(width)]))
        .and(BrickAssertion::finite())
        .and(BrickAssertion::equiv_scalar(tolerance))
        .and(BrickAssertion::budget_met())
}

/// Error allowed where a brick sums products (QKV and relatives).
const SUM_TOLERANCE: f64 = 1e-4;
/// Error allowed where a brick works element by element.
const ELEMENT_TOLERANCE: f64 = 1e-6;
