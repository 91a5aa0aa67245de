//! What an operation *is*.
//!
//! A **brick** is one operation of a language model (RMSNorm, QKV, attention, …) that carries a token budget and assertions.
//! This crate defines the contract every brick fulfils, the scalar reference that says what each operation means, the
//! quantised weight formats, and the kernels that compute them fast.
//!
//! | module | content |
//! | --- | --- |
//! | [`kind`] | [`BrickKind`]: the accounting categories |
//! | [`op`] | [`Op`]: what a brick computes, as data; its port types and static cost |
//! | [`dtype`] | [`DType`]: storage types of weights, byte-exact with ggml |
//! | [`quant`] | codecs of the weight formats, and the Q8 activations of integer kernels |
//! | [`brick`] | [`ComputeBrick`]: the contract; [`Brick`]: an operation with a budget and assertions |
//! | [`assertion`], [`verify`] | what must be true of an output, and the verdicts on it |
//! | [`divergence`] | how far an output is from the reference |
//! | [`mod@line`] | running bricks under a budget policy; the bottleneck |
//! | [`mod@reference`] | what each operation means: scalar, never optimised |
//! | [`catalog`] | the bricks of a decoder as types whose wrong composition does not compile |
//! | [`budget`] | [`TokenBudget`], its origin, and what happens when it is exceeded |
//! | [`cost`] | [`Cost`]: bytes and operations, known before anything runs |

pub mod assertion;
pub mod brick;
pub mod budget;
pub mod catalog;
pub mod cost;
pub mod cpu;
pub mod divergence;
pub mod dtype;
pub mod error;
pub mod kind;
pub mod line;
pub mod op;
pub mod quant;
pub mod reference;
pub mod rope;
pub mod verify;

pub use assertion::{AssertionOutcome, Assertions, BrickAssertion, Observation, Verdict};
pub use brick::{Brick, ComputeBrick, ComputeOp, Observe, RunBrick};
pub use budget::{BudgetOrigin, BudgetPolicy, TokenBudget, TokenResult};
pub use cost::{Cost, Extent};
pub use divergence::Divergence;
pub use dtype::DType;
pub use error::BrickError;
pub use kind::{BrickCategory, BrickKind};
pub use line::{BottleneckReport, BrickLine, LineEntry, LineReport};
pub use op::{ActKind, AttentionSpec, Dim, LinearPart, Op, OpError, PortType, Rows, ValueType, WeightShape};
pub use quant::QuantError;
pub use rope::{RopeError, RopeFrequencies, RopeScaling, RopeSpec, RopeStyle};
pub use verify::Verification;
