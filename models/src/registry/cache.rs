//! Where things lie below `$BRICK_HOME`, and what a finished model's manifest says.
//!
//! The layout is described in the documentation of [`registry`](super).

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{RegistryError, cache_error};
use super::known::KnownModel;
use super::name::{HubFile, ModelRef, is_sha256};
use super::progress::Progress;

/// Version of the manifest's form; another one is treated as not cached.
const MANIFEST_FORMAT: u32 = 1;
/// A manifest larger than this is none.
const MAX_SMALL_FILE: u64 = 1 << 20;
/// How often a waiting process looks whether the lock is free.
const LOCK_POLL: Duration = Duration::from_millis(100);
/// Read at once when hashing.
pub(super) const CHUNK: usize = 1 << 18;

/// The directory of one model: the file, its manifest, and what is left of unfinished pulls.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) dir: PathBuf,
    pub(super) file: PathBuf,
    lock: PathBuf,
    reference: String,
}

/// Says that `file` is finished and checked. Written last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    pub(super) reference: String,
    pub(super) repository: String,
    pub(super) tag: String,
    pub(super) file: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    pub(super) source: String,
    /// Seconds since 1970.
    pub(super) pulled_unix_s: u64,
}

/// Holds the slot's lock until dropped. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct SlotLock(#[expect(dead_code, reason = "dropping it unlocks")] File);

impl Slot {
    /// The slot of a known model or a hub file.
    pub(super) fn new(home: &Path, reference: &ModelRef, file_name: &str) -> Slot {
        let mut key = Vec::new();
        match reference {
            ModelRef::Known { name, tag } => key.extend(["models".to_owned(), name.clone(), tag.clone()]),
            ModelRef::Hub(HubFile { owner, repo, revision, file }) => {
                key.extend(["hub".to_owned(), owner.clone(), repo.clone(), part(revision), part(file)]);
            }
            ModelRef::Path(_) => unreachable!("invariant: the registry answers for paths itself"),
        }
        let dir = key.iter().fold(home.to_path_buf(), |dir, part| dir.join(part));
        // Named by hash: a file name has room for any reference. Never deleted, see `rm`.
        let lock = home.join("locks").join(format!("{:.32}.lock", hex(&Sha256::digest(key.join("/")))));
        Slot { file: dir.join(file_name), dir, lock, reference: reference.to_string() }
    }

    /// The same slot with another file, whose name begins like the model's.
    pub(super) fn beside(&self, ending: &str) -> Slot {
        let mut name = self.file.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        Slot { file: self.dir.join(name), ..self.clone() }
    }

    fn manifest_path(&self) -> PathBuf {
        self.dir.join("manifest.json")
    }

    /// The manifest, if the file is there, finished, as long as the manifest says, and (for a known model) the one the
    /// table means. Does not read the file.
    pub(super) fn cached(&self, known: Option<&KnownModel>) -> Option<Manifest> {
        let manifest: Manifest = read_json(&self.manifest_path())?;
        let here = manifest.format == MANIFEST_FORMAT
            // Differs when two references meet in one slot: on a file system that ignores case.
            && manifest.reference == self.reference
            && Some(manifest.file.as_str()) == self.file.file_name().and_then(|name| name.to_str())
            && is_sha256(&manifest.sha256)
            && known.is_none_or(|model| model.sha256 == manifest.sha256);
        let meta = self.file.metadata().ok()?;
        (here && meta.is_file() && meta.len() == manifest.bytes).then_some(manifest)
    }

    /// Whether there is anything of this model: a finished file or the rest of a pull.
    pub(super) fn exists(&self) -> bool {
        self.dir.symlink_metadata().is_ok()
    }

    pub(super) fn write_manifest(&self, manifest: &Manifest) -> Result<(), RegistryError> {
        write_json(&self.manifest_path(), manifest)
    }

    pub(super) fn manifest(&self, reference: &ModelRef, bytes: u64, sha256: String, source: String) -> Manifest {
        Manifest {
            format: MANIFEST_FORMAT,
            reference: self.reference.clone(),
            repository: reference.repository(),
            tag: reference.tag().to_owned(),
            file: self.file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes,
            sha256,
            source,
            pulled_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }

    /// Creates the slot's directory.
    pub(super) fn create(&self) -> Result<(), RegistryError> {
        let mut made = fs::create_dir_all(&self.dir);
        // A neighbour that is removed just now may take the empty directory above along.
        for _ in 0..3 {
            if !made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                break;
            }
            made = fs::create_dir_all(&self.dir);
        }
        made.map_err(|error| cache_error("create", &self.dir, error))
    }

    /// Takes the slot's lock, waiting for another process (or thread) that has it; says so once.
    pub(super) fn lock(&self, progress: &dyn Progress) -> Result<SlotLock, RegistryError> {
        let mut told = false;
        loop {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            if progress.cancelled() {
                return Err(RegistryError::Interrupted);
            }
            if !told {
                progress.message(&format!("another process is pulling {}; waiting for it", self.reference));
                told = true;
            }
            std::thread::sleep(LOCK_POLL);
        }
    }

    /// Takes the slot's lock if it is free.
    pub(super) fn try_lock(&self) -> Result<Option<SlotLock>, RegistryError> {
        let dir = self.lock.parent().unwrap_or(&self.lock);
        fs::create_dir_all(dir).map_err(|error| cache_error("create", dir, error))?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.lock)
            .map_err(|error| cache_error("open", &self.lock, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(SlotLock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(cache_error("lock", &self.lock, error)),
        }
    }

    /// Removes the slot. The caller holds the lock. The manifest goes first: ended in between, the rest counts as not
    /// cached. The lock file stays: if it were removed, a process that waits on it and one that creates it anew could both
    /// believe to hold the lock.
    pub(super) fn remove(&self, home: &Path) -> Result<(), RegistryError> {
        let manifest = self.manifest_path();
        match fs::remove_file(&manifest) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(cache_error("remove", &manifest, error));
            }
            _ => {}
        }
        fs::remove_dir_all(&self.dir).map_err(|error| cache_error("remove", &self.dir, error))?;
        self.prune(home);
        Ok(())
    }

    /// Removes the slot's directory and those above it, as far as they are empty.
    pub(super) fn prune(&self, home: &Path) {
        let mut dir = Some(self.dir.as_path());
        while let Some(empty) = dir.filter(|dir| *dir != home && dir.starts_with(home)) {
            if fs::remove_dir(empty).is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
                return;
            }
            dir = empty.parent();
        }
    }
}

/// Every finished model below `home`, with its file. What cannot be read is left out, with a warning in the log.
pub(super) fn finished(home: &Path) -> Result<Vec<(Manifest, PathBuf)>, RegistryError> {
    let mut found = Vec::new();
    // Depths of the slots: models/name/tag, hub/owner/repo/revision/file.
    for (top, depth) in [("models", 2), ("hub", 4)] {
        let mut dirs = vec![home.join(top)];
        for _ in 0..depth {
            let mut below = Vec::new();
            for dir in &dirs {
                below.extend(subdirectories(dir)?);
            }
            dirs = below;
        }
        for dir in dirs {
            let Some(manifest) = read_json::<Manifest>(&dir.join("manifest.json")) else { continue };
            // The manifest is outside data: its `file` must be a name, not a way out of the slot.
            let file = dir.join(&manifest.file);
            let inside = file.parent() == Some(dir.as_path());
            let whole = file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == manifest.bytes);
            if inside && whole && manifest.format == MANIFEST_FORMAT {
                found.push((manifest, file));
            } else {
                tracing::warn!(dir = %dir.display(), "left out of the list: file and manifest do not agree");
            }
        }
    }
    Ok(found)
}

fn subdirectories(dir: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cache_error("list", dir, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| cache_error("list", dir, error))?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    Ok(found)
}

/// `%`, `/` and everything but plain ASCII become `%XX`, so that distinct texts are distinct file names.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&hex(&[byte]).to_uppercase());
        }
    }
    out
}

/// `text` as one part of a path: escaped, and if that is too long for a file system, cut and told apart by its hash (`~`
/// comes from no escape).
fn part(text: &str) -> String {
    const LONGEST: usize = 180;
    let escaped = escape(text);
    if escaped.len() <= LONGEST {
        return escaped;
    }
    format!("{escaped:.140}~{:.32}", hex(&Sha256::digest(text)))
}

/// Lowercase hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect()
}

/// SHA-256 and length of a file, reported as it goes.
pub(super) fn hash_file(path: &Path, progress: &dyn Progress) -> Result<(String, u64), RegistryError> {
    let mut file = File::open(path).map_err(|error| cache_error("open", path, error))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        if progress.cancelled() {
            return Err(RegistryError::Interrupted);
        }
        let n = match file.read(&mut buffer) {
            Ok(0) => return Ok((hex(&hasher.finalize()), bytes)),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(cache_error("read", path, error)),
        };
        hasher.update(&buffer[..n]);
        bytes += n as u64;
        progress.inc(n as u64);
    }
}

/// Reads a small JSON file; anything wrong with it (absent, too large, another form) is `None`.
pub(super) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(MAX_SMALL_FILE).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Writes a small JSON file whole or not at all: temporary file beside it, sync, rename.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), RegistryError> {
    let temporary = path.with_extension("json.tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        serde_json::to_writer_pretty(&mut file, value)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| cache_error("write", path, error))
}

/// Makes a rename durable. Directories cannot be synced everywhere, and the content was synced before: a failure is only
/// noted.
pub(super) fn sync_dir(dir: &Path) {
    if cfg!(unix)
        && let Err(error) = File::open(dir).and_then(|dir| dir.sync_all())
    {
        tracing::debug!(dir = %dir.display(), %error, "directory not synced");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn slots_of_different_references_are_different_and_inside_the_home() {
        let home = Path::new("/h");
        let slot = |text: &str| {
            let reference = ModelRef::parse(text).unwrap();
            let name = if let ModelRef::Hub(file) = &reference { file.file_name().to_owned() } else { "f".to_owned() };
            Slot::new(home, &reference, &name)
        };
        let slots = ["smollm2", "hf://o/r/a/b.gguf", "hf://o/r/a%2Fb.gguf", "hf://o/r@a/b.gguf", "hf://o/r/b.gguf@a/b"];
        for (i, a) in slots.iter().enumerate() {
            assert!(slot(a).file.starts_with(home), "{a}");
            for b in &slots[..i] {
                assert_ne!(slot(a).dir, slot(b).dir, "{a} {b}");
                assert_ne!(slot(a).lock, slot(b).lock, "{a} {b}");
            }
        }
        assert_eq!(slot("hf://o/r/a/b.gguf").file, home.join("hub/o/r/main/a%2Fb.gguf/b.gguf"));
    }

    #[test]
    fn a_manifest_that_points_out_of_its_slot_is_not_listed() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("models/a/b");
        fs::create_dir_all(&dir).unwrap();
        fs::write(home.path().join("models/a/x"), b"1234").unwrap();
        let reference = ModelRef::Known { name: "a".to_owned(), tag: "b".to_owned() };
        let slot = Slot::new(home.path(), &reference, "x");
        let mut manifest = slot.manifest(&reference, 4, "0".repeat(64), String::new());
        manifest.file = "../x".to_owned();
        slot.write_manifest(&manifest).unwrap();
        assert_eq!(finished(home.path()).unwrap(), []);
        fs::write(dir.join("x"), b"1234").unwrap();
        assert_eq!(slot.cached(None), None);
        manifest.file = "x".to_owned();
        slot.write_manifest(&manifest).unwrap();
        assert_eq!(slot.cached(None), Some(manifest.clone()));
        assert_eq!(finished(home.path()).unwrap(), [(manifest, dir.join("x"))]);
    }

    #[test]
    fn hex_and_escape() {
        assert_eq!(hex(&[0, 0xab, 0xff]), "00abff");
        assert_eq!(escape("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(escape("a%b é"), "a%25b%20%C3%A9");
        let (a, b) = (part(&"é/".repeat(99)), part(&"é/".repeat(98)));
        assert!(a != b && a.len() < 200 && b.len() < 200, "{a} {b}");
    }
}
