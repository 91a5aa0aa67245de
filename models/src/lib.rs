//! *Which* model: file formats, architectures as data, tokenizer, chat template, registry, made-up models.

pub mod arch;
pub mod build;
pub mod chat;
pub mod format;
pub mod registry;
pub mod synthetic;
pub mod tokenizer;
