//! Registers that may be read before they are written.
//!
//! A static analysis proves most reads safe; only the rest is watched while the kernel runs. A read of a register
//! nobody wrote is what a wrong emitter produces, and on a GPU it yields whatever was in the register file.

use std::collections::{HashMap, HashSet};

use super::decode::Key;
use super::flow::Graph;
use super::op::Instr;

/// The registers to watch, and at which instructions.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Names of the watched registers, for messages.
    pub(crate) names: Vec<String>,
    /// For every instruction, its place in `points` plus one; 0 for nothing to do.
    at: Vec<u32>,
    points: Vec<Point>,
}

/// What to do at one instruction: indexes into the watched registers.
#[derive(Debug, Default)]
pub(crate) struct Point {
    /// The guard, which must have been written in all active lanes.
    pub(crate) guard: Vec<u32>,
    /// Must have been written in all lanes that execute.
    pub(crate) check: Vec<u32>,
    /// Are written by the lanes that execute.
    pub(crate) mark: Vec<u32>,
}

impl Watch {
    /// What to do at instruction `pc`.
    pub(crate) fn point(&self, pc: u32) -> Option<&Point> {
        match self.at[pc as usize] {
            0 => None,
            i => Some(&self.points[i as usize - 1]),
        }
    }
}

/// Finds what to watch. `uses` has the registers each instruction reads and writes.
pub(super) fn watch(code: &[Instr], uses: &[(Vec<Key>, Vec<Key>)], names: &HashMap<Key, String>) -> Watch {
    let unsafe_reads = unsafe_reads(code, uses);
    let watched: HashSet<Key> = unsafe_reads.iter().flatten().copied().collect();
    let mut watched: Vec<Key> = watched.into_iter().collect();
    watched.sort_unstable();
    let index: HashMap<Key, u32> = watched.iter().enumerate().map(|(i, &key)| (key, i as u32)).collect();
    let mut out = Watch {
        names: watched.iter().map(|key| names.get(key).cloned().unwrap_or_default()).collect(),
        at: vec![0; code.len()],
        points: Vec::new(),
    };
    for (pc, (_, writes)) in uses.iter().enumerate() {
        let guard = code[pc].guard.map(|pin| Key::Pred(pin.p.0));
        let (guard, check): (Vec<Key>, Vec<Key>) = unsafe_reads[pc].iter().partition(|&&key| Some(key) == guard);
        let place = |keys: Vec<Key>| keys.iter().map(|key| index[key]).collect::<Vec<_>>();
        let (guard, check) = (place(guard), place(check));
        let mark = writes.iter().filter_map(|key| index.get(key).copied()).collect::<Vec<_>>();
        if !guard.is_empty() || !check.is_empty() || !mark.is_empty() {
            out.points.push(Point { guard, check, mark });
            out.at[pc] = out.points.len() as u32;
        }
    }
    out
}

/// A set of registers, by dense index.
#[derive(Clone, PartialEq, Eq)]
struct Set(Vec<u64>);

impl Set {
    fn insert(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }

    fn has(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 == 1
    }

    fn keep_common(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine &= theirs;
        }
    }
}

/// For every instruction, the registers it reads that some path leaves unwritten.
///
/// The usual forward analysis: what is written at the start of a block is what all its predecessors have written.
/// Guarded writes do not count, as the guard may be false.
fn unsafe_reads(code: &[Instr], uses: &[(Vec<Key>, Vec<Key>)]) -> Vec<Vec<Key>> {
    let mut index: HashMap<Key, usize> = HashMap::new();
    for key in uses.iter().flat_map(|(reads, writes)| reads.iter().chain(writes)) {
        let next = index.len();
        index.entry(*key).or_insert(next);
    }
    let words = index.len().div_ceil(64);
    let graph = Graph::new(code);
    let blocks = graph.starts.len();
    let range = |b: usize| {
        let end = graph.starts.get(b + 1).map_or(code.len(), |&next| next as usize);
        graph.starts[b] as usize..end
    };
    // At the start, every set but the first is "everything": the analysis takes away what some path does not write.
    let mut at_start = vec![Set(vec![u64::MAX; words]); blocks];
    if let Some(first) = at_start.first_mut() {
        *first = Set(vec![0; words]);
    }
    let mut work: Vec<usize> = vec![0; usize::from(blocks > 0)];
    let mut seen = vec![false; blocks];
    while let Some(b) = work.pop() {
        seen[b] = true;
        let mut set = at_start[b].clone();
        for pc in range(b).filter(|&pc| code[pc].guard.is_none()) {
            for key in &uses[pc].1 {
                set.insert(index[key]);
            }
        }
        for &next in &graph.next[b] {
            let mut merged = at_start[next].clone();
            merged.keep_common(&set);
            if merged != at_start[next] || !seen[next] {
                at_start[next] = merged;
                work.push(next);
            }
        }
    }
    let mut out = vec![Vec::new(); code.len()];
    for (b, set) in at_start.iter_mut().enumerate() {
        for pc in range(b) {
            let (reads, writes) = &uses[pc];
            out[pc] = reads.iter().filter(|key| !set.has(index[key])).copied().collect();
            if code[pc].guard.is_none() {
                for key in writes {
                    set.insert(index[key]);
                }
            }
        }
    }
    out
}
