//! Models by name: pull, cache, list, check, remove.
//!
//! ```no_run
//! use brick_models::registry::{ModelRef, Registry};
//!
//! let registry = Registry::open_default()?;
//! let path = registry.resolve(&ModelRef::parse("smollm2:135m")?, &())?;
//! # Ok::<(), brick_models::registry::RegistryError>(())
//! ```
//!
//! # The cache
//!
//! Below `$BRICK_HOME` (without it: the platform's cache directory for `brick`):
//!
//! ```text
//! models/<name>/<tag>/                      a known model's slot
//! hub/<owner>/<repo>/<revision>/<file>/     a hub file's slot; `/` in revision and file is written %2F
//!     <file>                                the model, whole and checked; renamed into place
//!     manifest.json                         reference, bytes, sha256, source, time; written last
//!     <file>.<source>.partial               an unfinished transfer, with its state in <file>.<source>.partial.json
//!     <file>.raw                            what was fetched, before it is converted
//!     package.<random>.tmp/                 the package being fetched
//! locks/<hash>.lock                         held while a slot is changed; empty, never removed
//! ```
//!
//! A model counts as cached if its manifest is there and the file is as long as the manifest says; then nothing but the
//! file system is touched, and a read-only cache does. Everything that changes a slot holds its lock, so that of two
//! processes pulling the same model the second waits and finds it there. Killed at any point, a process leaves at worst
//! a partial file that the next pull goes on with, or finds unfit and throws away. A file put by hand where a known
//! model belongs is taken up by the next pull if its hash is right.
//!
//! # Trust
//!
//! A known model is checked against the table in the repository, whatever source delivered it. A `hf://` file is checked
//! against the SHA-256 that the hub announces, if it does; what was computed is recorded in the manifest, and
//! [`Registry::verify`] compares with that later.

#![forbid(unsafe_code)]

mod cache;
mod convert;
mod error;
mod hub;
mod known;
mod name;
mod packages;
mod partial;
mod progress;
mod pull;
mod url;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cache::{Manifest, Slot, finished, hash_file};
pub use error::{Attempt, RegistryError, SourceError};
pub use hub::HubConfig;
pub use known::{Conversion, KnownModel, KnownModels, Packages, Source, SourceFormat};
use name::existing_file;
pub use name::{HubFile, ModelRef};
pub use packages::Programs;
pub use progress::Progress;

/// A cache of models and the ways to fill it.
#[derive(Debug, Clone)]
pub struct Registry {
    home: PathBuf,
    config: RegistryConfig,
}

/// What a registry pulls from.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Models that have a name.
    pub known: KnownModels,
    /// The model hub.
    pub hub: HubConfig,
    /// The programs that fetch packages.
    pub programs: Programs,
}

impl RegistryConfig {
    /// The built-in table; the hub as `HF_ENDPOINT` and `HF_TOKEN` say; programs from `PATH`.
    pub fn from_env() -> Self {
        RegistryConfig {
            known: KnownModels::builtin().clone(),
            hub: HubConfig::from_env(),
            programs: Programs::default(),
        }
    }
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// What names it: `smollm2:135m`, `hf://owner/repo/file.gguf`.
    pub reference: String,
    /// The reference without tag or revision.
    pub repository: String,
    /// Tag or revision.
    pub tag: String,
    /// Size in bytes.
    pub bytes: u64,
    /// When it was pulled.
    pub modified: SystemTime,
    /// The file.
    pub path: PathBuf,
    /// Its SHA-256 when it was pulled.
    pub sha256: String,
    /// Where it came from, in words.
    pub source: String,
}

/// What a pull came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The model.
    pub model: CachedModel,
    /// Whether it was there already.
    pub was_cached: bool,
}

/// What a removal came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Bytes of the finished file; zero if only the rest of a pull was there.
    pub bytes: u64,
    /// The directory that is gone.
    pub path: PathBuf,
}

impl Registry {
    /// `$BRICK_HOME`, or the platform's cache directory for brick.
    ///
    /// # Errors
    /// [`RegistryError::NoHome`].
    pub fn default_home() -> Result<PathBuf, RegistryError> {
        match std::env::var_os("BRICK_HOME").filter(|home| !home.is_empty()) {
            Some(home) => Ok(PathBuf::from(home)),
            None => directories::ProjectDirs::from("", "", "brick")
                .map(|dirs| dirs.cache_dir().to_path_buf())
                .ok_or(RegistryError::NoHome),
        }
    }

    /// Opens the cache at [`default_home`](Self::default_home).
    ///
    /// # Errors
    /// As [`default_home`](Self::default_home) and [`open`](Self::open).
    pub fn open_default() -> Result<Self, RegistryError> {
        Self::open(Self::default_home()?)
    }

    /// Opens the cache at `home`, configured [from the environment](RegistryConfig::from_env). Creates nothing.
    ///
    /// # Errors
    /// [`RegistryError::HomeNotADirectory`]; [`RegistryError::Cache`] if `home` cannot be looked at.
    pub fn open(home: impl Into<PathBuf>) -> Result<Self, RegistryError> {
        Self::with_config(home, RegistryConfig::from_env())
    }

    /// Opens the cache at `home` with a configuration of one's own.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn with_config(home: impl Into<PathBuf>, config: RegistryConfig) -> Result<Self, RegistryError> {
        let home = home.into();
        // Absolute, since programs that fetch packages run in another directory.
        let home = std::path::absolute(&home).map_err(|error| error::cache_error("look at", &home, error))?;
        match home.metadata() {
            Ok(meta) if !meta.is_dir() => Err(RegistryError::HomeNotADirectory { path: home }),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error::cache_error("look at", &home, error))
            }
            _ => Ok(Registry { home, config }),
        }
    }

    /// The directory of the cache.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The models this registry knows by name.
    pub fn known(&self) -> &KnownModels {
        &self.config.known
    }

    /// [`ModelRef::parse`] with this registry's table.
    ///
    /// # Errors
    /// As [`ModelRef::parse`].
    pub fn parse(&self, given: &str) -> Result<ModelRef, RegistryError> {
        ModelRef::parse_with(&self.config.known, given)
    }

    /// The file of a model: a path as it is, a cached model from the cache, any other pulled first.
    ///
    /// # Errors
    /// As [`pull`](Self::pull); for a path [`RegistryError::NoSuchFile`], [`RegistryError::NotAFile`].
    pub fn resolve(&self, reference: &ModelRef, progress: &dyn Progress) -> Result<PathBuf, RegistryError> {
        match reference {
            ModelRef::Path(path) => existing_file(path.clone()),
            _ => self.pull(reference, progress).map(|pulled| pulled.model.path),
        }
    }

    /// Brings a model into the cache, unless it is there. A branch of a hub repository (`main`) is not looked up again:
    /// remove the model to have it anew.
    ///
    /// # Errors
    /// [`RegistryError::AllSourcesFailed`] with every source's reason; [`RegistryError::NoSpace`],
    /// [`RegistryError::Cache`], [`RegistryError::Interrupted`]; [`RegistryError::BadReference`] for a path.
    pub fn pull(&self, reference: &ModelRef, progress: &dyn Progress) -> Result<Pulled, RegistryError> {
        let (slot, known) = self.slot(reference)?;
        if let Some(manifest) = slot.cached(known) {
            return Ok(Pulled { model: CachedModel::new(manifest, slot.file), was_cached: true });
        }
        pull::pull(self, reference, &slot, known, progress)
    }

    /// Every model in the cache, by name.
    ///
    /// # Errors
    /// [`RegistryError::Cache`] if the directories cannot be read. A cache that is not there yet is empty.
    pub fn list(&self) -> Result<Vec<CachedModel>, RegistryError> {
        let found = finished(&self.home)?.into_iter();
        let mut models: Vec<CachedModel> = found.map(|(manifest, path)| CachedModel::new(manifest, path)).collect();
        models.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(models)
    }

    /// Removes a model from the cache, with what unfinished pulls left of it.
    ///
    /// # Errors
    /// [`RegistryError::NotCached`], [`RegistryError::Busy`] while it is being pulled, [`RegistryError::Cache`];
    /// [`RegistryError::BadReference`] for a path: files outside the cache are not ours to remove.
    pub fn rm(&self, reference: &ModelRef) -> Result<Removed, RegistryError> {
        let (slot, _) = self.slot(reference)?;
        if !slot.exists() {
            return Err(RegistryError::NotCached { reference: reference.to_string() });
        }
        let Some(_lock) = slot.try_lock()? else {
            return Err(RegistryError::Busy { reference: reference.to_string() });
        };
        let bytes = slot.file.metadata().map_or(0, |meta| meta.len());
        slot.remove(&self.home)?;
        Ok(Removed { bytes, path: slot.dir })
    }

    /// Reads a cached model in full and compares it with its manifest, and if it is a known model with the table.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`], [`RegistryError::NotCached`], [`RegistryError::Cache`],
    /// [`RegistryError::Interrupted`]; [`RegistryError::BadReference`] for a path, of which nothing is known.
    pub fn verify(&self, reference: &ModelRef, progress: &dyn Progress) -> Result<CachedModel, RegistryError> {
        let (slot, known) = self.slot(reference)?;
        let Some(manifest) = slot.cached(known) else {
            return Err(RegistryError::NotCached { reference: reference.to_string() });
        };
        progress.set_total(Some(manifest.bytes));
        let (found, _) = hash_file(&slot.file, progress)?;
        let expected = known.map_or(&manifest.sha256, |model| &model.sha256);
        if *expected != found {
            let (reference, expected) = (reference.to_string(), expected.clone());
            return Err(RegistryError::Damaged { reference, path: slot.file, expected, found });
        }
        Ok(CachedModel::new(manifest, slot.file))
    }

    /// Where a model lies, or would lie, and what the table says of it.
    fn slot(&self, reference: &ModelRef) -> Result<(Slot, Option<&KnownModel>), RegistryError> {
        let bad = |reason: String| RegistryError::BadReference { given: reference.to_string(), reason };
        match reference {
            ModelRef::Path(_) => Err(bad("it is a file of this machine; the cache has no part in it".to_owned())),
            ModelRef::Known { name, tag } => match self.config.known.find(name, Some(tag)) {
                Some(model) => {
                    let reference = ModelRef::Known { name: model.name.clone(), tag: model.tag.clone() };
                    Ok((Slot::new(&self.home, &reference, &model.file), Some(model)))
                }
                // Known to the table it was parsed with, not to this one.
                None => {
                    Err(self.parse(&reference.to_string()).err().unwrap_or_else(|| bad("no such model".to_owned())))
                }
            },
            ModelRef::Hub(file) => {
                // It may have been put together by hand.
                file.check().map_err(bad)?;
                Ok((Slot::new(&self.home, reference, file.file_name()), None))
            }
        }
    }
}

impl CachedModel {
    fn new(manifest: Manifest, path: PathBuf) -> Self {
        CachedModel {
            reference: manifest.reference,
            repository: manifest.repository,
            tag: manifest.tag,
            bytes: manifest.bytes,
            modified: UNIX_EPOCH.checked_add(Duration::from_secs(manifest.pulled_unix_s)).unwrap_or(UNIX_EPOCH),
            path,
            sha256: manifest.sha256,
            source: manifest.source,
        }
    }
}
