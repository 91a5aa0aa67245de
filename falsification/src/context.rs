//! The models that experiments share.

use std::path::PathBuf;
use std::sync::OnceLock;

use brick_models::format::gguf::requantize;
use brick_models::registry::{ModelRef, Registry};
use brick_runtime::Model;
use bricks::DType;
use tempfile::TempDir;

use crate::claim::Refusal;
use crate::synthetic::{NAMES, Synthetic};

/// The real model of the suite.
pub const REAL_MODEL: &str = "smollm2:135m";

/// Environment variable with the path of the real model's file; without it, the registry finds or pulls [`REAL_MODEL`].
pub const MODEL_ENV: &str = "BRICK_TEST_MODEL";

/// Storage types that the real model is copied into.
pub const COPIES: [DType; 2] = [DType::Q8_0, DType::F16];

/// What experiments share. Models are loaded when first asked for, and only once.
#[derive(Debug, Default)]
pub struct Context {
    model_path: Option<PathBuf>,
    real: OnceLock<Result<Model, Refusal>>,
    /// Copies in other storage types, with the directories that hold their files.
    copies: [OnceLock<Result<(Model, TempDir), Refusal>>; COPIES.len()],
    synthetic: [OnceLock<Result<Synthetic, Refusal>>; NAMES.len()],
}

impl Context {
    /// Nothing loaded; the real model is that of [`MODEL_ENV`] if it is set.
    pub fn from_env() -> Self {
        let model_path = std::env::var_os(MODEL_ENV).filter(|p| !p.is_empty()).map(PathBuf::from);
        Self { model_path, ..Self::default() }
    }

    /// A synthetic model.
    ///
    /// # Errors
    /// Falsified if it cannot be loaded.
    pub fn synthetic(&self, name: &str) -> Result<&Synthetic, Refusal> {
        let unknown = || Refusal::falsified(format!("one of {NAMES:?}"), name);
        let i = NAMES.iter().position(|n| *n == name).ok_or_else(unknown)?;
        self.synthetic[i].get_or_init(|| Synthetic::load(name)).as_ref().map_err(Clone::clone)
    }

    /// Every synthetic model.
    ///
    /// # Errors
    /// As [`synthetic`](Self::synthetic).
    pub fn synthetics(&self) -> Result<Vec<&Synthetic>, Refusal> {
        NAMES.iter().map(|name| self.synthetic(name)).collect()
    }

    /// The real model, SmolLM2-135M-Instruct in Q4_1; pulled if it is not in the cache.
    ///
    /// # Errors
    /// Not testable if it cannot be had; falsified if it is there and cannot be loaded.
    pub fn real(&self) -> Result<&Model, Refusal> {
        self.real.get_or_init(|| Ok(Model::load(self.real_file()?)?)).as_ref().map_err(Clone::clone)
    }

    /// A copy of the real model whose matrices are all stored as `dtype`, one of [`COPIES`]. Its file lives as long as the context.
    ///
    /// # Errors
    /// As [`real`](Self::real); falsified if the copy cannot be made.
    pub fn real_as(&self, dtype: DType) -> Result<&Model, Refusal> {
        let unknown = || Refusal::falsified(format!("one of {COPIES:?}"), dtype.name());
        let i = COPIES.iter().position(|d| *d == dtype).ok_or_else(unknown)?;
        let make = || {
            let source = self.real()?;
            let dir = tempfile::tempdir()?;
            let path = dir.path().join("model.gguf");
            requantize(&source.gguf, &path, |_| dtype)?;
            Ok((Model::load(&path)?, dir))
        };
        self.copies[i].get_or_init(make).as_ref().map(|(model, _)| model).map_err(Clone::clone)
    }

    /// Any model by name, pulled if it is not in the cache; loaded anew every time.
    ///
    /// # Errors
    /// As [`real`](Self::real).
    pub fn named(&self, reference: &str) -> Result<Model, Refusal> {
        Ok(Model::load(resolve(reference)?)?)
    }

    /// The file of the real model; pulled if it is not in the cache.
    ///
    /// # Errors
    /// Not testable if it cannot be had.
    pub fn real_file(&self) -> Result<PathBuf, Refusal> {
        if let Some(path) = &self.model_path {
            let missing = || Refusal::not_testable(format!("{MODEL_ENV} names {}, which is no file", path.display()));
            return path.is_file().then(|| path.clone()).ok_or_else(missing);
        }
        resolve(REAL_MODEL)
    }
}

/// The file of a model, pulled if it is not in the cache.
fn resolve(reference: &str) -> Result<PathBuf, Refusal> {
    let found = Registry::open_default().and_then(|r| r.resolve(&ModelRef::parse(reference)?, &()));
    found.map_err(|e| Refusal::not_testable(format!("{reference} cannot be had: {}", one_line(&e.to_string()))))
}

/// Longer messages list every source that was tried.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}
