//! The unfinished file: appended to, hashed on the way, continued by a later pull, and renamed into place only when its
//! length and its SHA-256 are right.
//!
//! Beside `<file>.<key>.partial` lies `<file>.<key>.partial.json`, the state that says of what source the bytes are. The
//! key comes from the source, so that a pull from one source does not throw away what another one delivered. Without a
//! state that fits, the bytes are worth nothing and are thrown away.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::cache::{CHUNK, Slot, hex, read_json, sync_dir, write_json};
use super::convert;
use super::error::{FetchError, RegistryError, SourceError, cache_error};
use super::progress::Progress;

/// How the writer of GGUF files calls what it has not finished.
const TEMPORARY: &str = ".gguf-";

const GGUF_MAGIC: &[u8] = b"GGUF";

/// What is known about the bytes of a partial file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Where they are from.
    pub(super) source: String,
    /// The server's mark of this version of the file, if strong.
    pub(super) etag: Option<String>,
    /// SHA-256 of the whole, if announced.
    pub(super) sha256: Option<String>,
    /// Length of the whole, if announced.
    pub(super) total: Option<u64>,
    /// Finished pieces, of a file that comes in several.
    pub(super) pieces: Vec<Piece>,
}

/// A finished piece ends at byte `end`; `sha256` is that of everything before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    end: u64,
    sha256: String,
}

/// An open partial file. The caller holds the slot's lock.
#[derive(Debug)]
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    state_path: PathBuf,
    state: State,
    hasher: Sha256,
    len: u64,
    head: Vec<u8>,
    expect_gguf: bool,
}

impl Partial {
    /// Opens (or creates) the partial file of `source` in the slot, and reads what is there, so that it can be gone on
    /// with. `progress` is begun anew and told of the bytes kept.
    pub(super) fn open(
        slot: &Slot,
        source: &str,
        total: Option<u64>,
        progress: &dyn Progress,
    ) -> Result<Partial, RegistryError> {
        let key = hex(&Sha256::digest(source));
        let name = slot.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = slot.dir.join(format!("{name}.{key:.8}.partial"));
        let state_path = slot.dir.join(format!("{name}.{key:.8}.partial.json"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| cache_error("create", &path, error))?;
        let mut partial = Partial {
            file,
            expect_gguf: name.to_ascii_lowercase().ends_with(".gguf"),
            path,
            state: State::default(),
            state_path,
            hasher: Sha256::new(),
            len: 0,
            head: Vec::new(),
        };
        let state = read_json::<State>(&partial.state_path).filter(|state| state.source == source);
        progress.set_total(total.or(state.as_ref().and_then(|state| state.total)));
        match state {
            Some(state) => partial.take_up(state, progress)?,
            None => partial.truncate(0)?,
        }
        source.clone_into(&mut partial.state.source);
        Ok(partial)
    }

    /// Bytes there are.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// How many pieces are finished.
    pub(super) fn pieces(&self) -> usize {
        self.state.pieces.len()
    }

    /// Reads the bytes there are back into the hash: of a file from one transfer all of them, of one in pieces those up
    /// to the last piece that still has the hash it had. The rest is cut off.
    fn take_up(&mut self, mut state: State, progress: &dyn Progress) -> Result<(), RegistryError> {
        let there = self.file.metadata().map_err(|error| cache_error("read", &self.path, error))?.len();
        if state.pieces.is_empty() {
            self.read_back(there, progress)?;
        }
        let mut good = 0;
        for piece in &state.pieces {
            let before = (self.hasher.clone(), self.head.clone(), self.len);
            let whole = self.len <= piece.end && self.read_back(piece.end, progress)?;
            if !whole || hex(&self.hasher.clone().finalize()) != piece.sha256 {
                (self.hasher, self.head, self.len) = before;
                break;
            }
            good += 1;
        }
        state.pieces.truncate(good);
        self.state = state;
        progress.inc(self.len);
        self.truncate(self.len)
    }

    /// Hashes from the present position up to `end`; `false` if the file ends before.
    fn read_back(&mut self, end: u64, progress: &dyn Progress) -> Result<bool, RegistryError> {
        let mut buffer = vec![0; CHUNK];
        while self.len < end {
            if progress.cancelled() {
                return Err(RegistryError::Interrupted);
            }
            let wanted = usize::try_from(end - self.len).map_or(CHUNK, |left| left.min(CHUNK));
            let n = match self.file.read(&mut buffer[..wanted]) {
                Ok(0) => return Ok(false),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(cache_error("read", &self.path, error)),
            };
            self.note(&buffer[..n]);
        }
        Ok(true)
    }

    fn note(&mut self, bytes: &[u8]) {
        let missing = GGUF_MAGIC.len().saturating_sub(self.head.len());
        self.head.extend(bytes.iter().take(missing));
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
    }

    fn truncate(&mut self, len: u64) -> Result<(), RegistryError> {
        let cut = || -> io::Result<()> {
            if self.file.metadata()?.len() != len {
                self.file.set_len(len)?;
            }
            (&self.file).seek(SeekFrom::Start(len)).map(drop)
        };
        cut().map_err(|error| cache_error("write", &self.path, error))
    }

    /// Throws the bytes away and begins anew with `state`, whose source stays what it is.
    pub(super) fn restart(&mut self, state: State, progress: &dyn Progress) -> Result<(), RegistryError> {
        self.truncate(0)?;
        self.hasher = Sha256::new();
        self.head.clear();
        self.len = 0;
        progress.set_total(state.total);
        let source = std::mem::take(&mut self.state.source);
        self.state = State { source, ..state };
        write_json(&self.state_path, &self.state)
    }

    /// Writes the state as it is, so that what follows can be gone on with.
    pub(super) fn save_state(&self) -> Result<(), RegistryError> {
        write_json(&self.state_path, &self.state)
    }

    /// Appends what `from` gives until it ends; no more than `limit` bytes may be in the file then.
    ///
    /// # Errors
    /// What `failed` makes of an error of `from`; [`SourceError::WrongSize`] beyond the limit; [`SourceError::NotGguf`];
    /// a full disk and other trouble with the file, and a cancelled pull, as fatal.
    pub(super) fn append(
        &mut self,
        from: &mut dyn Read,
        limit: Option<u64>,
        progress: &dyn Progress,
        failed: &dyn Fn(io::Error, u64) -> SourceError,
    ) -> Result<(), FetchError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            if progress.cancelled() {
                return Err(RegistryError::Interrupted.into());
            }
            let n = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error, self.len).into()),
            };
            let found = self.len + n as u64;
            if let Some(expected) = limit.filter(|limit| found > *limit) {
                return Err(SourceError::WrongSize { expected, found }.into());
            }
            self.file.write_all(&buffer[..n]).map_err(|error| cache_error("write", &self.path, error))?;
            self.note(&buffer[..n]);
            self.check_head()?;
            progress.inc(n as u64);
        }
    }

    fn check_head(&self) -> Result<(), SourceError> {
        if self.expect_gguf && !GGUF_MAGIC.starts_with(&self.head) {
            return Err(SourceError::NotGguf { found: hex(&self.head) });
        }
        Ok(())
    }

    /// Marks the end of a piece: synced first, so that the state never promises more than the disk has.
    pub(super) fn finish_piece(&mut self) -> Result<(), RegistryError> {
        self.file.sync_data().map_err(|error| cache_error("write", &self.path, error))?;
        self.state.pieces.push(Piece { end: self.len, sha256: hex(&self.hasher.clone().finalize()) });
        self.save_state()
    }

    /// Checks length and hash against what is expected, and renames the file into place; returns length and hash.
    /// A file that fails the check is removed.
    pub(super) fn commit(
        self,
        slot: &Slot,
        bytes: Option<u64>,
        sha256: Option<&str>,
    ) -> Result<(u64, String), FetchError> {
        let (found, len) = (hex(&self.hasher.clone().finalize()), self.len);
        let wrong = if let Some(expected) = bytes.filter(|bytes| *bytes != len) {
            Some(SourceError::WrongSize { expected, found: len })
        } else if self.expect_gguf && self.head != GGUF_MAGIC {
            Some(SourceError::NotGguf { found: hex(&self.head) })
        } else {
            let differs = |expected: &&str| **expected != found;
            sha256.filter(differs).map(|e| SourceError::WrongHash { expected: e.to_owned(), found: found.clone() })
        };
        if let Some(error) = wrong {
            self.discard()?;
            return Err(error.into());
        }
        self.file.sync_all().map_err(|error| cache_error("write", &self.path, error))?;
        // Windows renames no open file.
        drop(self.file);
        fs::rename(&self.path, &slot.file).map_err(|error| cache_error("rename", &self.path, error))?;
        sync_dir(&slot.dir);
        remove_if_there(&self.state_path)?;
        Ok((len, found))
    }

    /// Removes the file and its state.
    pub(super) fn discard(self) -> Result<(), RegistryError> {
        drop(self.file);
        remove_if_there(&self.state_path)?;
        remove_if_there(&self.path)
    }
}

/// Removes what unfinished pulls left in the slot, of whatever source.
pub(super) fn remove_leftovers(slot: &Slot) {
    let Ok(entries) = fs::read_dir(&slot.dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let leftover = [".partial", ".partial.json", ".json.tmp", convert::RAW, convert::CONVERTED]
            .iter()
            .any(|ending| name.ends_with(ending))
            || name.starts_with(TEMPORARY);
        if leftover && let Err(error) = fs::remove_file(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "leftover not removed");
        }
    }
}

/// Fails early if `needed` bytes do not fit; a file system that does not tell is given the benefit of the doubt.
pub(super) fn check_space(dir: &Path, needed: u64) -> Result<(), RegistryError> {
    match fs4::available_space(dir) {
        Ok(available) if available < needed => {
            Err(RegistryError::NoSpace { path: dir.to_path_buf(), needed: Some(needed), available: Some(available) })
        }
        _ => Ok(()),
    }
}

fn remove_if_there(path: &Path) -> Result<(), RegistryError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cache_error("remove", path, error)),
        _ => Ok(()),
    }
}
