//! From what a source delivered to the finished file.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::cache::{Slot, hash_file, hex, sync_dir};
use super::error::{FetchError, SourceError, cache_error};
use super::known::{Conversion, KnownModel, SourceFormat};
use crate::format::gguf::writer::WriteError;
use crate::format::llama2c::{Checkpoint, Vocabulary, to_gguf};

/// Ending of a file that is to be converted.
pub(super) const RAW: &str = ".raw";
/// Ending of one that was converted, before it is checked.
pub(super) const CONVERTED: &str = ".converted";

/// Converts the file `raw`, whose hash was checked, checks the result against the table, and renames it into place; its length
/// and hash.
pub(super) fn convert(
    conversion: &Conversion,
    raw: &Path,
    slot: &Slot,
    known: Option<&KnownModel>,
) -> Result<(u64, String), FetchError> {
    let bytes = fs::read(raw).map_err(|error| cache_error("read", raw, error))?;
    let failed = |error: &dyn std::fmt::Display| SourceError::Convert { reason: error.to_string() };
    let file = match conversion.from {
        SourceFormat::Llama2c => {
            let (checkpoint, rest) = Checkpoint::read(&bytes).map_err(|e| failed(&e))?;
            let (expected, found) = (&conversion.checkpoint_sha256, hex(&Sha256::digest(checkpoint.bytes())));
            if *expected != found {
                return Err(failed(&format_args!("checkpoint: expected SHA-256 {expected}, found {found}")).into());
            }
            let vocabulary = Vocabulary::read(rest, checkpoint.config().vocab_size).map_err(|e| failed(&e))?;
            let name = slot.file.file_stem().unwrap_or_default().to_string_lossy();
            to_gguf(&name, &checkpoint, &vocabulary).map_err(|e| failed(&e))?
        }
    };
    let temporary = slot.beside(CONVERTED).file;
    file.write_file(&temporary).map_err(|error| -> FetchError {
        match error {
            WriteError::File { action, source, .. } => cache_error(action, &temporary, source).into(),
            WriteError::Io(source) => cache_error("write", &temporary, source).into(),
            other => failed(&other).into(),
        }
    })?;
    let (found, len) = hash_file(&temporary, &())?;
    if let Some(model) = known
        && (model.bytes != len || model.sha256 != found)
    {
        // Nobody can use it: another version of the conversion, or a defect of it.
        let _ = fs::remove_file(&temporary);
        let KnownModel { bytes, sha256, .. } = model;
        let reason = format!("expected {bytes} bytes with SHA-256 {sha256}, made {len} bytes with SHA-256 {found}");
        return Err(SourceError::Convert { reason }.into());
    }
    fs::rename(&temporary, &slot.file).map_err(|error| cache_error("rename", &temporary, error))?;
    sync_dir(&slot.dir);
    Ok((len, found))
}
