//! Which warp runs next, and for how long.

use std::collections::VecDeque;

/// How the warps of the resident blocks are interleaved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schedule {
    /// Each warp in turn, some dozens of instructions at a time.
    #[default]
    RoundRobin,
    /// A random warp for a random, short time, and a random side of every divergent branch first. The same seed gives
    /// the same interleaving.
    Seeded(u64),
}

/// A warp of a resident block: slot and warp.
pub(super) type Id = (usize, u32);

/// The warps that can run.
pub(super) struct Ready {
    queue: VecDeque<Id>,
    random: Option<Random>,
}

impl Ready {
    pub(super) fn new(schedule: Schedule) -> Self {
        let random = match schedule {
            Schedule::RoundRobin => None,
            Schedule::Seeded(seed) => Some(Random(seed)),
        };
        Self { queue: VecDeque::new(), random }
    }

    pub(super) fn push(&mut self, id: Id) {
        self.queue.push_back(id);
    }

    /// The warp to run next, and for how many instructions.
    pub(super) fn next(&mut self) -> Option<(Id, u32)> {
        match &mut self.random {
            None => Some((self.queue.pop_front()?, 64)),
            Some(random) => {
                let pick = random.below(self.queue.len() as u64)?;
                let turn = random.below(16)? as u32 + 1;
                Some((self.queue.swap_remove_back(pick as usize)?, turn))
            }
        }
    }

    /// Whether the lanes that take a divergent branch go first.
    pub(super) fn taken_first(&mut self) -> bool {
        self.random.as_mut().is_none_or(|random| random.next() & 1 == 0)
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`, if there is one.
    fn below(&mut self, n: u64) -> Option<u64> {
        (n > 0).then(|| self.next() % n)
    }
}
