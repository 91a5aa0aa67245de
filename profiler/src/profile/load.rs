//! Profiles as JSON.

use super::Profile;

/// A text is not a profile this version can read.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not JSON, or JSON of another shape.
    #[error(
        "{file}, line {line}, column {column}: expected a profile (docs/schema/profile.schema.json), found {found}"
    )]
    Json {
        /// Name of the file.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1.
        column: usize,
        /// What is wrong.
        found: String,
    },
    /// A profile of another version.
    #[error("{file}: expected schema version {expected}, found {found}")]
    Version {
        /// Name of the file.
        file: String,
        /// [`Profile::SCHEMA_VERSION`].
        expected: u32,
        /// What the file says.
        found: String,
    },
}

impl Profile {
    /// The documented JSON, indented.
    ///
    /// # Errors
    /// Never with a profile made by this crate: all figures are finite.
    pub fn to_json(&self) -> serde_json::Result<String> {
        super::json::to_string(self)
    }

    /// Reads what [`to_json`](Self::to_json) wrote; `file` is its name in errors.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn from_json(file: &str, text: &str) -> Result<Self, ProfileError> {
        let error = |e: &serde_json::Error| ProfileError::Json {
            file: file.to_owned(),
            line: e.line(),
            column: e.column(),
            found: e.to_string(),
        };
        // The version first: another version may have other fields.
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| error(&e))?;
        let version = value.get("schema_version");
        if version.and_then(serde_json::Value::as_u64) != Some(u64::from(Self::SCHEMA_VERSION)) {
            let found = version.map_or_else(|| "none".to_owned(), ToString::to_string);
            return Err(ProfileError::Version { file: file.to_owned(), expected: Self::SCHEMA_VERSION, found });
        }
        serde_json::from_str(text).map_err(|e| error(&e))
    }
}
