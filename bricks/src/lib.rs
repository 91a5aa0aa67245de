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
//! | [`budget`] | [`TokenBudget`], its origin, and what happens when it is exceeded |
//! | [`cost`] | [`Cost`]: bytes and operations, known before anything runs |

pub mod budget;
pub mod cost;
pub mod cpu;
pub mod dtype;
pub mod kind;
pub mod op;
pub mod quant;
pub mod rope;

pub use budget::{BudgetOrigin, BudgetPolicy, TokenBudget, TokenResult};
pub use cost::{Cost, Extent};
pub use dtype::DType;
pub use kind::{BrickCategory, BrickKind};
pub use op::{ActKind, AttentionSpec, Dim, LinearPart, Op, OpError, PortType, Rows, ValueType, WeightShape};
pub use quant::QuantError;
pub use rope::{RopeScaling, RopeSpec, RopeStyle};
