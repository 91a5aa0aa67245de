//! What the tests share: a model to pull, a registry to pull it with, a listener for its progress.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use brick_models::registry::{
    HubConfig, KnownModels, ModelRef, Programs, Progress, Registry, RegistryConfig, RegistryError, SourceError,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A file that begins like a GGUF file and has `bytes` bytes that do not repeat in any convenient way.
pub(crate) fn model_bytes(bytes: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    let mut body = b"GGUF".to_vec();
    body.resize_with(bytes, &mut next);
    body
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|n| char::from(b"0123456789abcdef"[usize::from(n)]))
        .collect()
}

/// A table with one model, `toy:1m`, in `toy.gguf`, with the given sources.
pub(crate) fn table(body: &[u8], sources: &str) -> KnownModels {
    sized_table(body.len() as u64, &sha256(body), sources)
}

pub(crate) fn sized_table(bytes: u64, sha256: &str, sources: &str) -> KnownModels {
    KnownModels::from_toml(&format!(
        "[[model]]\nname = 'toy'\ntag = '1m'\ndefault = true\ndescription = 'd'\nlicense = 'l'\nfile = 'toy.gguf'\n\
         bytes = {bytes}\nsha256 = '{sha256}'\n{sources}"
    ))
    .unwrap()
}

pub(crate) const HUB_SOURCE: &str =
    "[[model.source]]\nkind = 'hub'\nowner = 'o'\nrepo = 'r'\nrevision = 'v1'\nfile = 'toy.gguf'\n";

/// Where [`HUB_SOURCE`] is asked for.
pub(crate) const HUB_PATH: &str = "/o/r/resolve/v1/toy.gguf";

/// Quick to give up, no program that exists.
pub(crate) fn config(endpoint: &str, known: KnownModels) -> RegistryConfig {
    RegistryConfig {
        known,
        hub: HubConfig {
            endpoint: endpoint.to_owned(),
            token: None,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(20),
            retries: 1,
            retry_delay: Duration::from_millis(1),
        },
        programs: Programs { python: vec!["no-such-python".into()], npm: vec!["no-such-npm".into()] },
    }
}

pub(crate) fn toy() -> ModelRef {
    ModelRef::Known { name: "toy".to_owned(), tag: "1m".to_owned() }
}

/// A registry in a directory of its own.
pub(crate) struct Bench {
    pub(crate) registry: Registry,
    pub(crate) home: TempDir,
}

impl Bench {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        let home = TempDir::new().unwrap();
        let registry = Registry::with_config(home.path(), config).unwrap();
        Bench { registry, home }
    }

    /// The same cache, another configuration.
    pub(crate) fn with(&self, config: RegistryConfig) -> Registry {
        Registry::with_config(self.home.path(), config).unwrap()
    }

    pub(crate) fn toy_slot(&self) -> PathBuf {
        self.home.path().join("models/toy/1m")
    }
}

/// Names of the files of a slot, sorted; empty if there is no slot.
pub(crate) fn files(slot: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(slot) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The partial file of a slot.
pub(crate) fn partial(slot: &Path) -> Option<PathBuf> {
    let name = files(slot).into_iter().find(|name| name.ends_with(".partial"))?;
    Some(slot.join(name))
}

/// Keeps what it is told; asks for an end after so many bytes, if told to.
#[derive(Default)]
pub(crate) struct Listener {
    pub(crate) total: AtomicU64,
    pub(crate) position: AtomicU64,
    pub(crate) messages: Mutex<Vec<String>>,
    pub(crate) cancel_after: Option<u64>,
}

impl Listener {
    pub(crate) fn said(&self, text: &str) -> bool {
        self.messages.lock().unwrap().iter().any(|message| message.contains(text))
    }
}

impl Progress for Listener {
    fn set_total(&self, total: Option<u64>) {
        self.total.store(total.unwrap_or(0), Ordering::SeqCst);
        self.position.store(0, Ordering::SeqCst);
    }

    fn inc(&self, bytes: u64) {
        self.position.fetch_add(bytes, Ordering::SeqCst);
    }

    fn message(&self, text: &str) {
        self.messages.lock().unwrap().push(text.to_owned());
    }

    fn cancelled(&self) -> bool {
        self.cancel_after.is_some_and(|bytes| self.position.load(Ordering::SeqCst) >= bytes)
    }
}

/// The reasons of a pull of which every source failed.
pub(crate) fn reasons<T: std::fmt::Debug>(result: Result<T, RegistryError>) -> Vec<SourceError> {
    match result {
        Err(RegistryError::AllSourcesFailed { tried, .. }) => tried.into_iter().map(|attempt| attempt.error).collect(),
        other => panic!("{other:?}"),
    }
}

/// The reason of a pull whose only source failed.
pub(crate) fn reason<T: std::fmt::Debug>(result: Result<T, RegistryError>) -> SourceError {
    let mut reasons = reasons(result);
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    reasons.remove(0)
}
