//! State of the KV cache.

use serde::{Deserialize, Serialize};

/// The KV cache after one forward call.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KvCacheStateTrace {
    /// Forward call, counted from 0.
    pub step: usize,
    /// Positions of the sequence.
    pub cache_size_tokens: usize,
    /// Positions it may have.
    pub capacity_tokens: usize,
    /// Blocks in use, by all sequences.
    pub blocks_in_use: usize,
    /// Blocks of the pool.
    pub blocks: usize,
    /// Bytes of the blocks in use.
    pub bytes_in_use: u64,
    /// Positions that this call pushed out.
    pub evictions_this_step: u64,
    /// Positions pushed out so far.
    pub total_evictions: u64,
    /// Share of the prompt's positions that were found in the cache; `None` if nothing was looked up.
    pub hit_rate: Option<f32>,
}

impl KvCacheStateTrace {
    /// Why brick's own cache never counts an eviction.
    pub const NO_EVICTIONS: &'static str = "blocks are never evicted: a full context is an error";
}

/// Share of `lookups` that were `hits`, in `0..=1`; `None` without lookups. More hits than lookups count as all.
pub fn hit_rate(hits: u64, lookups: u64) -> Option<f32> {
    (lookups > 0).then(|| (hits.min(lookups) as f64 / lookups as f64) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_rate_is_a_share(hits: u64, lookups: u64) {
            match hit_rate(hits, lookups) {
                None => prop_assert_eq!(lookups, 0),
                Some(r) => prop_assert!((0.0..=1.0).contains(&r)),
            }
        }
    }

    #[test]
    fn rates() {
        assert_eq!([hit_rate(0, 4), hit_rate(1, 4), hit_rate(4, 4)], [Some(0.0), Some(0.25), Some(1.0)]);
    }
}
