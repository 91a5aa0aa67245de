//! A parsed module: the kernels of one PTX text.

use super::decode::{self, Kernel};
use super::text::{self, ParseError};

/// A PTX text, parsed and decoded, ready to launch.
#[derive(Debug)]
pub struct Module {
    version: (u32, u32),
    target: String,
    kernels: Vec<Kernel>,
}

impl Module {
    /// Parses and decodes a PTX text.
    ///
    /// # Errors
    /// [`ParseError`] with the line and column of the first thing that is not PTX of the subset.
    pub fn parse(ptx: &str) -> Result<Self, ParseError> {
        let raw = text::parse(ptx)?;
        let kernels = decode::decode(&raw)?;
        Ok(Self { version: raw.version, target: raw.target.to_owned(), kernels })
    }

    /// The PTX version the text declares.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The target the text declares, such as `sm_80`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Names of the kernels, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|kernel| kernel.name.as_str())
    }

    /// Name and size in bytes of every parameter of a kernel, in order; `None` if there is no such kernel.
    pub fn parameters(&self, kernel: &str) -> Option<impl Iterator<Item = (&str, u64)>> {
        Some(self.kernel(kernel)?.params.iter().map(|param| (param.name.as_str(), param.bytes())))
    }

    pub(super) fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }
}
