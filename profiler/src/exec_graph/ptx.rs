//! Sources of launched kernels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Names a registered source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PtxHash(pub u64);

impl std::fmt::Display for PtxHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// PTX sources by hash and the other way round. A source has the same hash in every run, unless two different sources
/// collide; then the one registered later gets the next free number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PtxRegistry {
    sources: BTreeMap<PtxHash, String>,
}

impl PtxRegistry {
    /// A registry without sources.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a source and gives its hash; the same source twice is kept once.
    pub fn register(&mut self, source: &str) -> PtxHash {
        let mut hash = fnv1a(source);
        loop {
            match self.sources.get(&hash) {
                Some(known) if known == source => return hash,
                Some(_) => hash = PtxHash(hash.0.wrapping_add(1)),
                None => {
                    self.sources.insert(hash, source.to_owned());
                    return hash;
                }
            }
        }
    }

    /// The source of a hash.
    pub fn source(&self, hash: PtxHash) -> Option<&str> {
        self.sources.get(&hash).map(String::as_str)
    }

    /// The hash of a registered source.
    pub fn hash(&self, source: &str) -> Option<PtxHash> {
        let mut hash = fnv1a(source);
        loop {
            match self.sources.get(&hash) {
                Some(known) if known == source => return Some(hash),
                Some(_) => hash = PtxHash(hash.0.wrapping_add(1)),
                None => return None,
            }
        }
    }

    /// Number of sources.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether there are no sources.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }
}

/// 64-bit FNV-1a: stable across versions and platforms, which `std`'s hashes are not.
fn fnv1a(source: &str) -> PtxHash {
    PtxHash(source.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_and_source_lead_to_each_other() {
        let mut r = PtxRegistry::new();
        assert!(r.is_empty());
        let (a, b) = (r.register(".version 8.0 // a"), r.register(".version 8.0 // b"));
        assert_ne!(a, b);
        assert_eq!(r.register(".version 8.0 // a"), a);
        assert_eq!((r.len(), r.source(a), r.hash(".version 8.0 // b")), (2, Some(".version 8.0 // a"), Some(b)));
        assert_eq!((r.source(PtxHash(1)), r.hash("unknown")), (None, None));
        assert_eq!(fnv1a("").to_string(), "cbf29ce484222325");
        assert_eq!(fnv1a("a"), PtxHash(0xaf63_dc4c_8601_ec8c), "the published value");
    }

    #[test]
    fn colliding_sources_are_kept_apart() {
        let mut r = PtxRegistry::new();
        r.sources.insert(fnv1a("mine"), "somebody else's".into());
        let hash = r.register("mine");
        assert_eq!((r.source(hash), r.hash("mine")), (Some("mine"), Some(hash)));
        assert_eq!(r.register("mine"), hash);
    }
}
