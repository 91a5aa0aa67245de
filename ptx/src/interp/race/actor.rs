//! What one warp knows of the others, and which of its own lanes have synchronised.

use super::clock::VectorClock;
use crate::interp::op::Scope;

/// A warp as a participant in synchronisation.
#[derive(Debug)]
pub(crate) struct Actor {
    /// Unique in the launch: block index times warps per block, plus warp.
    pub(crate) id: u32,
    /// Actors of the same block are `first..first + warps`.
    first: u32,
    warps: u32,
    /// The warp's own time; it passes at every synchronisation.
    time: u32,
    known: VectorClock,
    /// What a relaxed write publishes to the grid: knowledge at the last `fence.gpu`.
    fenced: VectorClock,
    /// The same for `fence.cta`, to the block.
    fenced_block: VectorClock,
    /// What relaxed reads have seen published, known after the next fence.
    pending: VectorClock,
    /// Time of the last synchronisation of all lanes.
    all_lanes: u32,
    /// Later synchronisations of some lanes: time and mask.
    some_lanes: Vec<(u32, u32)>,
}

impl Actor {
    pub(crate) fn new(block: u32, warp: u32, warps: u32) -> Self {
        let first = block.wrapping_mul(warps);
        Self {
            id: first.wrapping_add(warp),
            first,
            warps,
            time: 1,
            known: VectorClock::default(),
            fenced: VectorClock::default(),
            fenced_block: VectorClock::default(),
            pending: VectorClock::default(),
            all_lanes: 0,
            some_lanes: Vec::new(),
        }
    }

    pub(crate) fn time(&self) -> u32 {
        self.time
    }

    /// Warps per block of the launch.
    pub(crate) fn warps(&self) -> u32 {
        self.warps
    }

    pub(crate) fn same_block(&self, other: u32) -> bool {
        other.wrapping_sub(self.first) < self.warps
    }

    /// Whether what actor `other` did at `time` is known here.
    pub(crate) fn knows(&self, other: u32, time: u32) -> bool {
        self.known.get(other) >= time
    }

    /// Whether all lanes of this warp have synchronised since `time`.
    pub(crate) fn all_lanes_since(&self, time: u32) -> bool {
        time < self.all_lanes
    }

    /// Whether lanes `a` and `b` of this warp have synchronised since `time`.
    pub(crate) fn lanes_since(&self, time: u32, a: u32, b: u32) -> bool {
        let both = 1 << a | 1 << b;
        time < self.all_lanes || self.some_lanes.iter().any(|&(t, mask)| time < t && mask & both == both)
    }

    /// Whether some, but not all, lanes have synchronised since `time`.
    pub(crate) fn some_lanes_since(&self, time: u32) -> bool {
        self.some_lanes.last().is_some_and(|&(t, _)| time < t)
    }

    /// `bar.warp.sync` of the lanes in `mask`, of which `live` exist.
    pub(crate) fn warp_sync(&mut self, mask: u32, live: u32) {
        self.tick();
        if mask & live == live {
            self.all_lanes = self.time;
            self.some_lanes.clear();
        } else {
            self.some_lanes.push((self.time, mask));
        }
    }

    /// Everything this warp knows, itself included.
    pub(crate) fn snapshot(&self) -> VectorClock {
        let mut all = self.known.clone();
        all.raise(self.id, self.time);
        all
    }

    pub(crate) fn tick(&mut self) {
        self.time = self.time.saturating_add(1);
    }

    pub(crate) fn learn(&mut self, other: &VectorClock) {
        self.known.join(other);
    }

    /// Learns what is known about this block's warps: all that synchronisation at block scope carries.
    pub(crate) fn learn_block(&mut self, other: &VectorClock) {
        self.known.join_range(other, self.first, self.warps);
    }

    /// Remembers what a relaxed read saw, for the next fence.
    pub(crate) fn defer(&mut self, seen: &VectorClock) {
        self.pending.join(seen);
    }

    pub(crate) fn fence(&mut self, scope: Scope) {
        let pending = std::mem::take(&mut self.pending);
        match scope {
            Scope::Gpu => self.learn(&pending),
            Scope::Cta => {
                self.learn_block(&pending);
                self.pending = pending;
            }
        }
        let now = self.snapshot();
        if scope == Scope::Gpu {
            self.fenced = now.clone();
        }
        self.fenced_block = now;
        self.tick();
    }

    /// What a relaxed write publishes at a scope.
    pub(crate) fn fenced(&self, scope: Scope) -> &VectorClock {
        match scope {
            Scope::Gpu => &self.fenced,
            Scope::Cta => &self.fenced_block,
        }
    }

    /// What the warp brings to a barrier: its knowledge, and what its fences cover.
    pub(crate) fn arrive(&mut self) -> (VectorClock, VectorClock) {
        let out = (self.snapshot(), self.fenced.clone());
        self.tick();
        out
    }

    /// What the warp takes from a barrier all participants have reached.
    ///
    /// Fences are cumulative here: a fence before the barrier counts for a relaxed write of another warp after it.
    pub(crate) fn leave(&mut self, known: &VectorClock, fenced: &VectorClock) {
        self.known.join(known);
        self.fenced.join(fenced);
        self.fenced_block.join(fenced);
        self.tick();
        self.all_lanes = self.time;
        self.some_lanes.clear();
    }
}
