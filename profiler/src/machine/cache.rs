//! The measurement on disk. It saves seconds, never decides anything: whatever is wrong with the file, the machine is
//! measured again.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::{CpuTopology, Fingerprint, Machine, MeasureError, MeasureOptions};

/// Why a stored measurement cannot be used, or could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is no measurement.
    #[error("{path}, line {line}: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Line of the problem; 0 for the file as a whole.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The file was written by another version of this crate.
    #[error("{path}: expected version {expected}, found {found}")]
    Version {
        /// The file.
        path: PathBuf,
        /// [`Machine::VERSION`].
        expected: u32,
        /// What the file says.
        found: u64,
    },
    /// The file describes another machine, or this one with other settings.
    #[error("{path}: measured on {found}; this is {expected}")]
    Stale {
        /// The file.
        path: PathBuf,
        /// This machine.
        expected: Box<Fingerprint>,
        /// The machine of the file.
        found: Box<Fingerprint>,
    },
}

impl CacheError {
    /// Whether there simply is no file yet.
    fn is_absence(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

impl Machine {
    /// Where measurements are kept: `machine.json` below `$BRICK_HOME` or the platform's cache directory for brick.
    pub fn cache_path() -> Option<PathBuf> {
        let home = match std::env::var_os("BRICK_HOME").filter(|home| !home.is_empty()) {
            Some(home) => PathBuf::from(home),
            None => directories::ProjectDirs::from("", "", "brick")?.cache_dir().to_path_buf(),
        };
        Some(home.join("machine.json"))
    }

    /// The stored measurement of this machine or, failing that, a new one, which is then stored. Problems with the file are
    /// warnings (`tracing`).
    ///
    /// # Errors
    /// [`MeasureError`], when there is no usable measurement and the machine cannot be measured.
    pub fn load_or_measure() -> Result<Self, MeasureError> {
        Self::load_or_measure_at(Self::cache_path().as_deref(), &MeasureOptions::default())
    }

    /// The same with a file and options of the caller's choice.
    ///
    /// # Errors
    /// As [`load_or_measure`](Self::load_or_measure).
    pub fn load_or_measure_at(path: Option<&Path>, options: &MeasureOptions) -> Result<Self, MeasureError> {
        if let Some(path) = path {
            match Self::load(path) {
                Ok(machine) => return Ok(machine),
                Err(e) if e.is_absence() => {}
                Err(e) => tracing::warn!("measuring this machine again: {e}"),
            }
        }
        let machine = match Self::measure(options) {
            Err(MeasureError::Threads { threads, source }) if threads > 1 => {
                tracing::warn!("measuring with one thread: {threads} are refused ({source})");
                Self::measure(&MeasureOptions { threads: Some(1), ..*options })?
            }
            other => other?,
        };
        if let Some(path) = path
            && let Err(e) = machine.store(path)
        {
            tracing::warn!("the measurement of this machine is not kept: {e}");
        }
        Ok(machine)
    }

    /// Reads a measurement of **this** machine.
    ///
    /// # Errors
    /// [`CacheError`] says what is wrong with the file.
    pub fn load(path: &Path) -> Result<Self, CacheError> {
        let machine = Self::read(path)?;
        let expected = Fingerprint::of(&CpuTopology::detect());
        if machine.fingerprint != expected {
            let (expected, found) = (Box::new(expected), Box::new(machine.fingerprint));
            return Err(CacheError::Stale { path: path.to_owned(), expected, found });
        }
        Ok(machine)
    }

    /// Reads a measurement of any machine.
    ///
    /// # Errors
    /// [`CacheError`], except [`CacheError::Stale`].
    pub fn read(path: &Path) -> Result<Self, CacheError> {
        /// Far more than any measurement has.
        const MAX_BYTES: u64 = 1 << 20;
        let io = |source| CacheError::Io { path: path.to_owned(), source };
        let corrupt = |line, reason| CacheError::Corrupt { path: path.to_owned(), line, reason };
        let bytes = std::fs::metadata(path).map_err(io)?.len();
        if bytes > MAX_BYTES {
            return Err(corrupt(0, format!("expected at most {MAX_BYTES} bytes, found {bytes}")));
        }
        let text = std::fs::read(path).map_err(io)?;
        // The version first: another version may have other fields.
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(|e| corrupt(e.line(), e.to_string()))?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(v) if v == u64::from(Self::VERSION) => {}
            Some(found) => return Err(CacheError::Version { path: path.to_owned(), expected: Self::VERSION, found }),
            None => return Err(corrupt(0, "expected an object with a version".into())),
        }
        let machine: Self = serde_json::from_slice(&text).map_err(|e| corrupt(e.line(), e.to_string()))?;
        if !machine.is_sane() {
            return Err(corrupt(0, "expected positive, finite measurements".into()));
        }
        Ok(machine)
    }

    /// Writes the measurement; whoever reads the file at the same time sees the old or the new one, never a part.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn store(&self, path: &Path) -> Result<(), CacheError> {
        let io = |source| CacheError::Io { path: path.to_owned(), source };
        let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir).map_err(io)?;
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(io)?;
        serde_json::to_writer_pretty(&mut file, self).map_err(|e| io(e.into()))?;
        file.write_all(b"\n").map_err(io)?;
        file.persist(path).map_err(|e| io(e.error))?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::machine::tests::machine;

    const QUICK: MeasureOptions = MeasureOptions {
        threads: Some(1),
        repeats: 1,
        bytes: 1 << 12,
        max_working_set: 1 << 16,
        rounds: 10,
        barriers: 1,
    };

    /// A measurement that claims to be of this machine, with a figure no probe returns.
    fn planted() -> Machine {
        let mut m = machine();
        m.fingerprint = Fingerprint::of(&CpuTopology::detect());
        m.measured.barrier_ns = 123.456;
        m
    }

    #[test]
    fn what_is_stored_is_loaded_and_nothing_measured() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/sub/machine.json");
        planted().store(&path).unwrap();
        assert_eq!(Machine::load(&path).unwrap(), planted());
        let again = Machine::load_or_measure_at(Some(&path), &QUICK).unwrap();
        assert_eq!(again.measured.barrier_ns, 123.456);
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary files stay behind");
    }

    #[test]
    fn a_missing_file_is_measured_and_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machine.json");
        let measured = Machine::load_or_measure_at(Some(&path), &QUICK).unwrap();
        assert_eq!(Machine::load(&path).unwrap(), measured);
    }

    #[test]
    fn unusable_files_are_named_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machine.json");
        let mut stale = planted();
        stale.fingerprint.cpu_model.push_str(" (another)");
        let mut insane = planted();
        insane.measured.int8_gop_s.all = -1.0;
        let good = serde_json::to_string_pretty(&planted()).unwrap();
        let files = [
            (serde_json::to_string(&stale).unwrap(), "measured on"),
            (serde_json::to_string(&insane).unwrap(), "positive"),
            (good.replacen("\"version\": 2", "\"version\": 3", 1), "expected version 2, found 3"),
            ("{\"version\": 1, \"measured\": {}}".to_owned(), "expected version 2, found 1"),
            (good.replacen("\"version\": 2", "\"version\": \"2\"", 1), "expected an object with a version"),
            (good.replacen("\"threads\": 2", "\"threads\": -2", 1), "line "),
            (good[..good.len() / 2].to_owned(), "line "),
            ("[]".to_owned(), "version"),
            (String::new(), "line 1"),
            ("\u{0}\u{1}".to_owned(), "line 1"),
            ("[".repeat(100_000), "recursion"),
            (" ".repeat(2 << 20), "at most"),
        ];
        for (content, expected) in files {
            std::fs::write(&path, &content).unwrap();
            let error = Machine::load(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} should say {expected:?}");
            let measured = Machine::load_or_measure_at(Some(&path), &QUICK).unwrap();
            assert_ne!(measured.measured.barrier_ns, 123.456);
            assert_eq!(Machine::load(&path).unwrap(), measured, "replaced");
        }
    }

    #[test]
    fn an_unwritable_place_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "in the way").unwrap();
        let path = file.join("machine.json"); // below a file: neither readable nor writable, for root either
        assert!(matches!(planted().store(&path), Err(CacheError::Io { .. })));
        assert!(Machine::load_or_measure_at(Some(&path), &QUICK).unwrap().is_sane());
        assert!(Machine::load_or_measure_at(None, &QUICK).unwrap().is_sane());
    }
}
