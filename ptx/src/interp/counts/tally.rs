//! What is counted while instructions execute: requests to memory, and how well they use it.

use crate::interp::op::{AtomFn, Space};

/// Traffic of one kind between warps and a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Instructions with at least one active lane.
    pub requests: u64,
    /// Bytes the lanes asked for, repeats included.
    pub bytes: u64,
    /// Global memory: 32-byte sectors touched, each once per request. Shared memory: wavefronts, the passes a request
    /// takes through the 32 banks.
    pub units: u64,
    /// What `units` would be at best: for global memory the distinct bytes in sectors, for shared memory one pass per
    /// 128 bytes the instruction can carry at once.
    pub ideal: u64,
}

impl Traffic {
    fn add(&mut self, bytes: u64, units: u64, ideal: u64) {
        self.requests += 1;
        self.bytes += bytes;
        self.units += units;
        self.ideal += ideal;
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.units += other.units;
        self.ideal += other.ideal;
    }

    /// Bank conflicts, or sectors beyond the ideal: how many units were not needed.
    pub fn excess(&self) -> u64 {
        self.units - self.ideal
    }
}

/// The counts that are made while instructions execute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(super) global_load: Traffic,
    pub(super) global_store: Traffic,
    pub(super) global_atomic: Traffic,
    pub(super) shared_load: Traffic,
    pub(super) shared_store: Traffic,
    pub(super) shared_atomic: Traffic,
    pub(crate) param_bytes: u64,
    pub(crate) barriers: u64,
    pub(crate) branches: u64,
    pub(crate) divergent: u64,
    pub(crate) float_atomics: u64,
}

/// How an access counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Load,
    Store,
    Atomic(AtomFn),
}

impl Tally {
    pub(super) fn merge(&mut self, other: &Self) {
        self.global_load.merge(&other.global_load);
        self.global_store.merge(&other.global_store);
        self.global_atomic.merge(&other.global_atomic);
        self.shared_load.merge(&other.shared_load);
        self.shared_store.merge(&other.shared_store);
        self.shared_atomic.merge(&other.shared_atomic);
        self.param_bytes += other.param_bytes;
        self.barriers += other.barriers;
        self.branches += other.branches;
        self.divergent += other.divergent;
        self.float_atomics += other.float_atomics;
    }

    /// Counts one request: the address of every active lane, and how many bytes each accesses.
    pub(crate) fn request(&mut self, space: Space, kind: Kind, addresses: &[u64; 32], mask: u32, bytes: u32) {
        let lanes = u64::from(mask.count_ones());
        let total = lanes * u64::from(bytes);
        let (units, ideal) = match space {
            Space::Global => sectors(addresses, mask, bytes),
            Space::Shared => wavefronts(addresses, mask, bytes),
        };
        let traffic = match (space, kind) {
            (Space::Global, Kind::Load) => &mut self.global_load,
            (Space::Global, Kind::Store) => &mut self.global_store,
            (Space::Global, Kind::Atomic(_)) => &mut self.global_atomic,
            (Space::Shared, Kind::Load) => &mut self.shared_load,
            (Space::Shared, Kind::Store) => &mut self.shared_store,
            (Space::Shared, Kind::Atomic(_)) => &mut self.shared_atomic,
        };
        traffic.add(total, units, ideal);
        if matches!(kind, Kind::Atomic(AtomFn::AddF32 | AtomFn::AddF64)) {
            self.float_atomics += lanes;
        }
    }

    /// Counts the rows of one `ldmatrix`: eight rows of 16 bytes per pass.
    pub(crate) fn matrix_rows(&mut self, rows: &[u64]) {
        let mut units = 0;
        for eight in rows.chunks(8) {
            let mut addresses = [0; 32];
            addresses[..eight.len()].copy_from_slice(eight);
            units += phase(&addresses[..eight.len()], 16);
        }
        self.shared_load.add(rows.len() as u64 * 16, units, rows.len().div_ceil(8) as u64);
    }
}

/// Sectors touched by one request, and the fewest that hold its distinct bytes.
fn sectors(addresses: &[u64; 32], mask: u32, bytes: u32) -> (u64, u64) {
    let mut sorted = [0_u64; 32];
    let mut n = 0;
    let mut ascending = true;
    for (lane, &address) in addresses.iter().enumerate() {
        if mask >> lane & 1 == 1 {
            ascending &= n == 0 || sorted[n - 1] <= address;
            sorted[n] = address;
            n += 1;
        }
    }
    let sorted = &mut sorted[..n];
    if !ascending {
        sorted.sort_unstable();
    }
    let (mut sectors, mut distinct) = (0, 0);
    let (mut last, mut last_sector) = (None, None);
    for &address in sorted.iter() {
        distinct += u64::from(last != Some(address));
        sectors += u64::from(last_sector != Some(address / 32));
        last = Some(address);
        last_sector = Some(address / 32);
    }
    (sectors, (distinct * u64::from(bytes)).div_ceil(32))
}

/// Passes of one request through shared memory, and the fewest possible.
///
/// Lanes that ask for the same 4-byte word are served together. An 8-byte access is served by half warps, a 16-byte
/// access by quarters, each on its own.
fn wavefronts(addresses: &[u64; 32], mask: u32, bytes: u32) -> (u64, u64) {
    let group = match bytes {
        16 => 8,
        8 => 16,
        _ => 32,
    };
    let (mut units, mut ideal) = (0, 0);
    for start in (0..32).step_by(group) {
        let mut active = [0_u64; 32];
        let mut n = 0;
        for (i, &address) in addresses[start..start + group].iter().enumerate() {
            if mask >> (start + i) & 1 == 1 {
                active[n] = address;
                n += 1;
            }
        }
        if n > 0 {
            units += phase(&active[..n], bytes);
            ideal += 1;
        }
    }
    (units, ideal)
}

/// The most distinct words any bank is asked for.
fn phase(addresses: &[u64], bytes: u32) -> u64 {
    let words_each = u64::from(bytes.div_ceil(4));
    let mut words = [0_u64; 32];
    let mut n = 0;
    for &address in addresses {
        for i in 0..words_each {
            // At most 32 words per phase: 32 lanes of 4 bytes, 16 of 8, 8 of 16.
            if n < 32 {
                words[n] = address / 4 + i;
                n += 1;
            }
        }
    }
    let words = &mut words[..n];
    words.sort_unstable();
    let mut per_bank = [0_u64; 32];
    let mut last = None;
    for &word in words.iter() {
        if last != Some(word) {
            per_bank[(word % 32) as usize] += 1;
            last = Some(word);
        }
    }
    per_bank.into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(f: impl Fn(u64) -> u64) -> [u64; 32] {
        std::array::from_fn(|lane| f(lane as u64))
    }

    #[test]
    fn sectors_of_typical_requests() {
        assert_eq!(sectors(&addresses(|l| l * 4), u32::MAX, 4), (4, 4));
        assert_eq!(sectors(&addresses(|l| l * 16), u32::MAX, 16), (16, 16));
        assert_eq!(sectors(&addresses(|l| l * 32), u32::MAX, 4), (32, 4));
        assert_eq!(sectors(&addresses(|_| 64), u32::MAX, 4), (1, 1));
        assert_eq!(sectors(&addresses(|l| (31 - l) * 4), 0xff, 4), (1, 1));
    }

    #[test]
    fn wavefronts_of_typical_requests() {
        assert_eq!(wavefronts(&addresses(|l| l * 4), u32::MAX, 4), (1, 1));
        assert_eq!(wavefronts(&addresses(|_| 0), u32::MAX, 4), (1, 1), "a broadcast");
        assert_eq!(wavefronts(&addresses(|l| l * 128), u32::MAX, 4), (32, 1), "one column");
        assert_eq!(wavefronts(&addresses(|l| l * 132), u32::MAX, 4), (1, 1), "a padded column");
        assert_eq!(wavefronts(&addresses(|l| l * 8), u32::MAX, 4), (2, 1), "every second word");
        assert_eq!(wavefronts(&addresses(|l| l * 16), u32::MAX, 16), (4, 4));
        assert_eq!(wavefronts(&addresses(|l| l * 128), u32::MAX, 16), (32, 4));
    }
}
