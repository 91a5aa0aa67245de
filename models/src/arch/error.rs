//! Why a file cannot be run although it is a valid GGUF file.

use crate::format::gguf::{FormatError, MetadataError};

/// A file's metadata or tensors do not describe a model that can be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ArchError {
    /// No such architecture.
    #[error("architecture `{found}` is not supported; supported: {supported}")]
    Architecture {
        /// `general.architecture`.
        found: String,
        /// The names that are.
        supported: String,
    },
    /// A metadata key is missing or of the wrong type.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A tensor is missing or of a storage type that cannot be decoded.
    #[error(transparent)]
    Tensor(#[from] FormatError),
    /// A value that makes no sense, alone or beside others.
    #[error("`{what}`: expected {expected}, found {found}")]
    Value {
        /// Metadata key or field.
        what: String,
        /// What would make sense.
        expected: String,
        /// The value.
        found: String,
    },
    /// A feature of the architecture that this crate does not implement, so that running the model would give wrong answers.
    #[error("`{what}` = {found} asks for {feature}, which is not supported")]
    Unsupported {
        /// Metadata key.
        what: String,
        /// Its value.
        found: String,
        /// The feature.
        feature: &'static str,
    },
    /// A tensor has the wrong shape.
    #[error("tensor `{tensor}` ({role}): expected shape [{}], found [{}]", dims(expected), dims(found))]
    Shape {
        /// The tensor.
        tensor: String,
        /// What it is for.
        role: &'static str,
        /// Rows (outputs) and columns (inputs) that the metadata ask for, or a length.
        expected: Vec<u64>,
        /// Axes found, in the same order: outermost first.
        found: Vec<u64>,
    },
    /// The file's layers are not those its metadata announce.
    #[error("`{key}` announces {expected} layers, but the tensors are those of {found}")]
    Layers {
        /// Metadata key.
        key: String,
        /// Layers announced.
        expected: usize,
        /// Layers for which there are tensors (highest index + 1).
        found: usize,
    },
    /// A tensor with no place in the architecture: leaving it out would give wrong answers.
    #[error(
        "tensor `{tensor}` has no place in architecture `{architecture}`; the model differs from what is implemented"
    )]
    UnknownTensor {
        /// The tensor.
        tensor: String,
        /// `general.architecture`.
        architecture: String,
    },
    /// A bias that the architecture needs holds only zeros: it was lost in a conversion.
    #[error("tensor `{tensor}` ({role}) holds only zeros, but architecture `{architecture}` needs it")]
    ZeroBias {
        /// The tensor.
        tensor: String,
        /// What it is for.
        role: &'static str,
        /// `general.architecture`.
        architecture: String,
    },
}

fn dims(dims: &[u64]) -> String {
    dims.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}
