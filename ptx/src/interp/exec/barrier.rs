//! The sixteen barriers of a block.

use super::warp::Warp;
use crate::interp::fault::FaultKind;
use crate::interp::race::VectorClock;

/// All barriers of a block.
#[derive(Debug, Default)]
pub(super) struct Barriers {
    slots: [Barrier; 16],
}

#[derive(Debug, Default)]
struct Barrier {
    /// Threads it waits for; set by the first warp that arrives.
    expected: Option<u32>,
    arrived: u32,
    waiting: Vec<u32>,
    known: VectorClock,
    fenced: VectorClock,
}

/// What a barrier carries to the warps it lets go.
pub(super) struct Release {
    pub(super) warps: Vec<u32>,
    pub(super) known: VectorClock,
    pub(super) fenced: VectorClock,
}

/// One arrival.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) id: u32,
    /// Threads the instruction names; `None` means all of the block.
    pub(super) threads: Option<u32>,
    /// Whether the warp stays until the barrier completes.
    pub(super) waits: bool,
}

impl Barriers {
    /// A warp arrives; the last one releases those that wait. `limit` is the block's threads in whole warps.
    pub(super) fn arrive(
        &mut self,
        warp: &mut Warp,
        arrival: Arrival,
        limit: u32,
    ) -> Result<Option<Release>, FaultKind> {
        let Arrival { id, threads, waits } = arrival;
        let expects = threads.unwrap_or(limit);
        let Some(barrier) =
            self.slots.get_mut(id as usize).filter(|_| expects > 0 && expects % 32 == 0 && expects <= limit)
        else {
            return Err(FaultKind::Barrier { id, threads: expects, limit });
        };
        match barrier.expected {
            Some(expected) if expected != expects => {
                return Err(FaultKind::BarrierCount { id, expected, found: expects });
            }
            _ => barrier.expected = Some(expects),
        }
        let (known, fenced) = warp.actor.arrive();
        barrier.known.join(&known);
        barrier.fenced.join(&fenced);
        barrier.arrived += 32;
        if waits {
            barrier.waiting.push(warp.index);
        }
        if barrier.arrived < expects {
            return Ok(None);
        }
        let Barrier { waiting, known, fenced, .. } = std::mem::take(barrier);
        Ok(Some(Release { warps: waiting, known, fenced }))
    }

    /// A warp that waits, with the barrier it waits at: `(warp, id, arrived, expected)`.
    pub(super) fn first_waiting(&self) -> Option<(u32, u32, u32, u32)> {
        self.slots.iter().enumerate().find_map(|(id, barrier)| {
            let &warp = barrier.waiting.first()?;
            Some((warp, id as u32, barrier.arrived, barrier.expected.unwrap_or(0)))
        })
    }

    /// How many warps wait.
    pub(super) fn waiting(&self) -> u32 {
        self.slots.iter().map(|barrier| barrier.waiting.len() as u32).sum()
    }
}
