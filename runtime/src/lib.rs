//! *Running* a model: plan, scheduler, KV cache, sampler, session.

pub mod arena;
pub mod batch;
pub mod engine;
mod exec;
pub mod kv;
pub mod plan;
pub mod sampler;
pub mod weights;

pub use batch::{Batch, Row};
pub use engine::{Engine, EngineError, EngineOptions, Logits};
pub use kv::{KvCache, KvError, SequenceId};
pub use sampler::{Sampler, SamplerError, SamplerOptions};
pub use weights::Weights;
