//! How operations *connect*: a typed static graph of bricks, the passes that improve it, and its exports.
//!
//! A [`Graph`] says what a model computes before anything runs: which bricks there are, what flows between them, which
//! weights they read (by name, never the data), and what each of them costs. It is built by a [`GraphBuilder`], checked
//! once by [`GraphBuilder::finish`], and immutable from then on; a [pass](passes) makes a new graph from an old one.
//!
//! | module | content |
//! | --- | --- |
//! | [`graph`] | [`Graph`], [`Brick`], [`Value`], [`Wire`] and their ids |
//! | [`builder`] | [`GraphBuilder`] |
//! | [`passes`] | rewrites (fusions), liveness, arena placement, cost; the pipeline they form |
//! | [`meaning`] | the expression a value stands for: how a rewrite is checked |
//! | [`export`] | ASCII tree, DOT, Mermaid, JSON |
//! | [`error`] | [`GraphError`]: what is wrong with a composition, naming both bricks |
//!
//! ```
//! use brick_graphs::GraphBuilder;
//! use bricks::{BrickKind, DType, Op, Rows, WeightShape};
//!
//! let mut b = GraphBuilder::new();
//! let table = b.weight("token_embd.weight", WeightShape { dtype: DType::F32, rows: 10, cols: 4 });
//! let gain = b.weight("output_norm.weight", WeightShape { dtype: DType::F32, rows: 1, cols: 4 });
//! let tokens = b.push("tokens", BrickKind::Custom, None, Op::Input, &[], &[]);
//! let x = b.push("token_embd", BrickKind::Embed, None, Op::Embed { scale: 1.0 }, &[tokens.out()], &[table]);
//! let norm = Op::RmsNorm { eps: 1e-5, rows: Rows::Wanted };
//! let y = b.push("output_norm", BrickKind::FinalNorm, None, norm, &[x.out()], &[gain]);
//! let graph = b.finish(y.out())?;
//!
//! assert_eq!(graph.len(), 3);
//! assert_eq!(graph.value(graph.output()).ty.to_string(), "f32[L, 4]");
//! # Ok::<(), brick_graphs::GraphError>(())
//! ```

#![forbid(unsafe_code)]

mod assemble;
pub mod builder;
pub mod error;
pub mod export;
pub mod graph;
pub mod meaning;
pub mod passes;

pub use builder::{GraphBuilder, Handle, Handles};
pub use error::GraphError;
pub use graph::{Brick, BrickId, Graph, Value, ValueId, WeightId, WeightInfo, Wire};
