//! File formats that carry models.

pub mod gguf;
