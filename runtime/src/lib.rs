//! *Running* a model: plan, scheduler, KV cache, sampler, session.

pub mod allocations;
pub mod arena;
pub mod batch;
pub mod check;
pub mod cuda;
pub mod engine;
mod exec;
pub mod facts;
#[doc(hidden)]
pub mod fault;
pub mod kv;
pub mod model;
pub mod perplexity;
pub mod plan;
pub mod sampler;
pub mod session;
pub mod speculate;
pub mod stop;
pub mod trace;
pub mod weights;

pub use batch::{Batch, Row};
pub use engine::{Engine, EngineError, EngineOptions, Logits};
pub use kv::{KvCache, KvError, SequenceId};
pub use model::{LoadError, Model};
pub use sampler::{Sampler, SamplerError, SamplerOptions};
pub use session::{FinishReason, GenerateError, GenerateOptions, Generation, Session};
pub use speculate::{Speculation, SpeculationStats};
pub use weights::{PackedWeights, Weights};
