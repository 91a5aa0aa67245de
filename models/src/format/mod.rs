//! File formats that carry models.

pub mod gguf;
pub mod llama2c;
