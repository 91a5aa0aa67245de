//! What people call a model: `smollm2:135m`, `hf://owner/repo/file.gguf`, or a path.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use super::error::RegistryError;
use super::known::KnownModels;

/// Longest reference accepted, in bytes; a longer one is no name, but a mistake.
const MAX_REFERENCE: usize = 4096;
/// Longest part of a name or path, in bytes: what common file systems take, with room for a suffix of ours.
const MAX_PART: usize = 200;
/// How many look-alikes an error offers.
const MAX_NEAR: usize = 3;

/// A model, as named by a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelRef {
    /// A model of the table, name and tag spelled as there.
    Known {
        /// `smollm2`.
        name: String,
        /// `135m`.
        tag: String,
    },
    /// A file on the model hub.
    Hub(HubFile),
    /// A file of this machine. It is used where it lies; the cache has no part in it.
    Path(PathBuf),
}

/// A file in a repository of the model hub.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubFile {
    /// User or organisation.
    pub owner: String,
    /// Repository.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Path inside the repository, parts separated by `/`.
    pub file: String,
}

impl ModelRef {
    /// Reads a reference, looking names up in the built-in table.
    ///
    /// - `hf://owner/repo/path/file.gguf`, with `@revision` after the repository or after the file (`main` without it);
    /// - the path of a file: anything with a path separator, or ending in `.gguf`;
    /// - `name:tag`, or `name` for its default tag; case does not matter.
    ///
    /// # Errors
    /// [`RegistryError::UnknownName`] with the known names and those that look alike, [`RegistryError::NoSuchFile`],
    /// [`RegistryError::NotAFile`], [`RegistryError::BadReference`].
    pub fn parse(given: &str) -> Result<Self, RegistryError> {
        Self::parse_with(KnownModels::builtin(), given)
    }

    /// [`parse`](Self::parse) with another table.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_with(known: &KnownModels, given: &str) -> Result<Self, RegistryError> {
        let bad = |reason: &str| RegistryError::BadReference { given: shortened(given), reason: reason.to_owned() };
        if given.trim().is_empty() {
            return Err(bad("it is empty"));
        }
        if given.len() > MAX_REFERENCE || given.chars().any(char::is_control) {
            return Err(bad("it is too long or holds control characters"));
        }
        if let Some(rest) = given.strip_prefix("hf://") {
            return HubFile::parse(rest).map(ModelRef::Hub).map_err(|reason| bad(&reason));
        }
        if given.starts_with("http://") || given.starts_with("https://") {
            return Err(bad("addresses are not taken; for a file on the model hub write hf://owner/repo/file.gguf"));
        }
        if looks_like_path(given) {
            return existing_file(PathBuf::from(given)).map(ModelRef::Path);
        }
        let (name, tag) = match given.split_once(':') {
            None => (given, None),
            Some((name, tag)) => (name, Some(tag)),
        };
        match known.find(name, tag) {
            Some(model) => Ok(ModelRef::Known { name: model.name.clone(), tag: model.tag.clone() }),
            None if PathBuf::from(given).is_file() => {
                Err(bad("for the file of this name here, write it with ./ before"))
            }
            None => Err(RegistryError::UnknownName {
                given: shortened(given),
                known: known.models().iter().map(super::KnownModel::id).collect(),
                near: near_misses(known, given),
            }),
        }
    }

    /// First column of a listing: the name, `hf://owner/repo/file`, or the path.
    pub fn repository(&self) -> String {
        match self {
            ModelRef::Known { name, .. } => name.clone(),
            ModelRef::Hub(file) => format!("hf://{}/{}/{}", file.owner, file.repo, file.file),
            ModelRef::Path(path) => path.display().to_string(),
        }
    }

    /// Second column of a listing: the tag, the revision, or nothing.
    pub fn tag(&self) -> &str {
        match self {
            ModelRef::Known { tag, .. } => tag,
            ModelRef::Hub(file) => &file.revision,
            ModelRef::Path(_) => "",
        }
    }
}

/// The reference in a form that [`ModelRef::parse`] reads back.
impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelRef::Known { name, tag } => write!(f, "{name}:{tag}"),
            ModelRef::Hub(file) => write!(f, "hf://{file}"),
            ModelRef::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// `owner/repo/file`, unless the revision is `main` with `@revision` after the repository (at the end if it holds a `/`).
impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HubFile { owner, repo, revision, file } = self;
        match revision.as_str() {
            "main" => write!(f, "{owner}/{repo}/{file}"),
            revision if revision.contains('/') => write!(f, "{owner}/{repo}/{file}@{revision}"),
            revision => write!(f, "{owner}/{repo}@{revision}/{file}"),
        }
    }
}

impl HubFile {
    /// Reads what follows `hf://`.
    fn parse(text: &str) -> Result<Self, String> {
        let form = "the form is hf://owner/repo/file.gguf, optionally with @revision";
        let (owner, rest) = text.split_once('/').ok_or(form)?;
        let (repo, file) = rest.split_once('/').ok_or(form)?;
        let (repo, after_repo) = split_revision(repo, repo.find('@'));
        // A file may hold an `@` of its own; a revision follows the one after `.gguf`, and may hold `/`.
        let (file, after_file) = split_revision(file, file.to_ascii_lowercase().find(".gguf@").map(|at| at + 5));
        if after_repo.is_some() && after_file.is_some() {
            return Err("it names two revisions".to_owned());
        }
        let revision = after_repo.or(after_file).unwrap_or("main");
        let file = HubFile {
            owner: owner.to_owned(),
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            file: file.to_owned(),
        };
        file.check()?;
        Ok(file)
    }

    /// Whether every part can go into an address and into a path of the cache without leading anywhere else.
    pub(super) fn check(&self) -> Result<(), String> {
        for (what, text) in [("owner", &self.owner), ("repository", &self.repo)] {
            if !is_name(text) {
                return Err(format!("`{text}` is no {what}"));
            }
        }
        if !self.revision.split('/').all(is_name) {
            return Err(format!("`{}` is no revision", self.revision));
        }
        if !self.file.split('/').all(is_file_part) {
            return Err(format!("`{}` is no file of a repository", self.file));
        }
        // Models are GGUF files; and so no file of a slot is mistaken for one that the cache puts there.
        if !self.file.to_ascii_lowercase().ends_with(".gguf") {
            return Err(format!("`{}` is no .gguf file", self.file));
        }
        Ok(())
    }

    /// The last part of the path: what the file is called in the cache.
    pub(super) fn file_name(&self) -> &str {
        self.file.rsplit('/').next().unwrap_or(&self.file)
    }
}

fn split_revision(text: &str, at: Option<usize>) -> (&str, Option<&str>) {
    match at.and_then(|at| Some((text.get(..at)?, text.get(at + 1..)?))) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// ASCII letters, digits, `.`, `_`, `-`, neither beginning with `-` nor made of dots only: safe as a part of a path, of
/// an address, and as an argument.
pub(super) fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=MAX_PART).contains(&text.len())
        && text.chars().all(plain)
        && !text.starts_with('-')
        && !text.chars().all(|c| c == '.')
}

/// One part of a path in a repository: anything that every file system takes as a name.
fn is_file_part(text: &str) -> bool {
    (1..=MAX_PART).contains(&text.len())
        && !text.chars().any(|c| c.is_control() || matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|'))
        && !text.chars().all(|c| c == '.')
        && !text.ends_with(['.', ' '])
}

/// 64 lowercase hex digits.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Both separators count on every system: `models\x.gguf` given on Unix is a path gone wrong, not a name.
fn looks_like_path(given: &str) -> bool {
    given.contains(['/', '\\']) || given.to_ascii_lowercase().ends_with(".gguf")
}

pub(super) fn existing_file(path: PathBuf) -> Result<PathBuf, RegistryError> {
    match path.metadata() {
        Ok(meta) if meta.is_file() => Ok(path),
        Ok(_) => Err(RegistryError::NotAFile { path }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(RegistryError::NoSuchFile { path }),
        Err(error) => Err(super::error::cache_error("look at", &path, error)),
    }
}

fn shortened(given: &str) -> String {
    const SHOWN: usize = 80;
    let text: String = given.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if given.chars().nth(SHOWN).is_some() { text + "…" } else { text }
}

/// Known names within a third of their length (at least two edits) of what was given, or beginning with it; best first.
fn near_misses(known: &KnownModels, given: &str) -> Vec<String> {
    let given = given.to_lowercase();
    // Beyond this length nothing can be near, and the distance costs length times length.
    if given.chars().count() > 64 {
        return Vec::new();
    }
    let mut scored: Vec<(usize, String)> = Vec::new();
    for model in known.models() {
        let id = model.id();
        // `smolm2` is near `smollm2:135m` by its name, `qwen2.5-coder:7b` is near `…:1.5b` by its name and tag.
        let name = given.split(':').next().unwrap_or(&given);
        let best = edit_distance(&given, &id).min(edit_distance(name, &model.name));
        let prefix = name.chars().count() >= 3 && (id.starts_with(name) || name.starts_with(&model.name));
        if prefix || best <= (model.name.len() / 3).max(2) {
            scored.push((best, id));
        }
    }
    scored.sort();
    scored.into_iter().take(MAX_NEAR).map(|(_, id)| id).collect()
}

/// Levenshtein's distance: insertions, deletions and substitutions of characters that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hub(owner: &str, repo: &str, revision: &str, file: &str) -> ModelRef {
        let [owner, repo, revision, file] = [owner, repo, revision, file].map(str::to_owned);
        ModelRef::Hub(HubFile { owner, repo, revision, file })
    }

    #[test]
    fn names_with_and_without_tag() {
        let expected = ModelRef::Known { name: "smollm2".to_owned(), tag: "135m".to_owned() };
        for given in ["smollm2", "smollm2:135m", "SmolLM2:135M"] {
            assert_eq!(ModelRef::parse(given).unwrap(), expected, "{given}");
        }
        assert_eq!(expected.to_string(), "smollm2:135m");
        assert_eq!((expected.repository().as_str(), expected.tag()), ("smollm2", "135m"));
    }

    #[test]
    fn hub_references_and_their_revisions() {
        let cases = [
            ("hf://o/r/f.gguf", hub("o", "r", "main", "f.gguf")),
            ("hf://o/r/sub/f.gguf", hub("o", "r", "main", "sub/f.gguf")),
            ("hf://o/r@v1.0/f.gguf", hub("o", "r", "v1.0", "f.gguf")),
            ("hf://o/r/f.gguf@v1.0", hub("o", "r", "v1.0", "f.gguf")),
            ("hf://o/r/f.GGUF@refs/pr/1", hub("o", "r", "refs/pr/1", "f.GGUF")),
            ("hf://o/r/a@b.gguf", hub("o", "r", "main", "a@b.gguf")),
        ];
        for (given, expected) in cases {
            let parsed = ModelRef::parse(given).unwrap();
            assert_eq!(parsed, expected, "{given}");
            assert_eq!(ModelRef::parse(&parsed.to_string()).unwrap(), expected, "{given}");
        }
    }

    #[test]
    fn hostile_hub_references_are_refused() {
        for given in [
            "hf://",
            "hf://o",
            "hf://o/r",
            "hf://o/r/",
            "hf:///r/f.gguf",
            "hf://o//f.gguf",
            "hf://../r/f.gguf",
            "hf://o/r/../../f.gguf",
            "hf://o/r/a//f.gguf",
            "hf://o/r/a\\..\\f.gguf",
            "hf://o/r/C:f.gguf",
            "hf://o/r@/f.gguf",
            "hf://o/r@../f.gguf",
            "hf://o/r@a/f.gguf@b",
            "hf://o/r/f.gguf@a/../b",
            "hf://o/-r/f.gguf",
            "hf://o/r/f.gguf\n",
            "hf://o/r x/f.gguf",
            "hf://o/r/manifest.json",
            "hf://o/r/f.gguf.partial",
        ] {
            let result = ModelRef::parse(given);
            assert!(matches!(result, Err(RegistryError::BadReference { .. })), "{given}: {result:?}");
        }
        let long = format!("hf://o/r/{}.gguf", "a".repeat(300));
        assert!(matches!(ModelRef::parse(&long), Err(RegistryError::BadReference { .. })));
    }

    #[test]
    fn paths_must_be_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.gguf");
        std::fs::write(&file, b"GGUF").unwrap();
        assert_eq!(ModelRef::parse(file.to_str().unwrap()).unwrap(), ModelRef::Path(file));
        let result = ModelRef::parse(dir.path().to_str().unwrap());
        assert!(matches!(result, Err(RegistryError::NotAFile { .. })), "{result:?}");
        for given in ["./nothing-here", "nothing-here.gguf", "a\\b", "smollm2:135m/x"] {
            let result = ModelRef::parse(given);
            assert!(matches!(result, Err(RegistryError::NoSuchFile { .. })), "{given}: {result:?}");
        }
    }

    #[test]
    fn unknown_names_list_the_known_ones_and_the_look_alikes() {
        for (given, expected) in [
            ("smolm2", "smollm2:135m"),
            ("smollm2:136m", "smollm2:135m"),
            ("smollm", "smollm2:135m"),
            ("qwen2.5-coder:7b", "qwen2.5-coder:1.5b"),
            ("qwen", "qwen2.5-coder:1.5b"),
            ("gema3", "gemma3:270m"),
        ] {
            let error = ModelRef::parse(given).unwrap_err();
            let RegistryError::UnknownName { near, known, .. } = &error else { panic!("{given}: {error}") };
            assert_eq!(near.first().map(String::as_str), Some(expected), "{given}: {near:?}");
            assert_eq!(known.len(), KnownModels::builtin().models().len());
            assert!(error.to_string().contains(&format!("did you mean {expected}")), "{error}");
        }
        let error = ModelRef::parse("zzzzzzzzzzzz").unwrap_err();
        assert!(matches!(&error, RegistryError::UnknownName { near, .. } if near.is_empty()), "{error}");
        assert!(error.to_string().contains("tinyllama:1.1b-iq2"), "{error}");
    }

    #[test]
    fn what_is_no_reference_at_all() {
        let long = "x".repeat(MAX_REFERENCE + 1);
        for given in ["", "  ", "a\0b", "https://example.org/m.gguf", long.as_str()] {
            let result = ModelRef::parse(given);
            assert!(matches!(result, Err(RegistryError::BadReference { .. })), "{given:.20}: {result:?}");
        }
    }

    #[test]
    fn edit_distances() {
        for (a, b, expected) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("é", "e", 1)]
        {
            assert_eq!(edit_distance(a, b), expected, "{a} {b}");
        }
    }
}
