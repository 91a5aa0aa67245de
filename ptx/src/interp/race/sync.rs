//! What has been published at each address by releases, and by relaxed writes after fences.

use std::collections::HashMap;

use super::actor::Actor;
use super::clock::VectorClock;
use crate::interp::op::{Order, Scope};

/// The synchronising locations of one memory.
#[derive(Debug, Default)]
pub(crate) struct Locations {
    at: HashMap<u64, Location>,
}

#[derive(Debug, Default)]
struct Location {
    /// Published to the whole grid.
    grid: VectorClock,
    /// Published to one block: the index of its first actor stands for it.
    block: HashMap<u32, VectorClock>,
}

impl Locations {
    /// A strong read of `address`: an acquire learns at once, a relaxed read at its next fence.
    pub(crate) fn read(&mut self, address: u64, actor: &mut Actor, order: Order) {
        let Some(location) = self.at.get(&address) else { return };
        let own = location.block.get(&(actor.id / actor.warps()));
        if order.acquire {
            match order.scope {
                Scope::Gpu => actor.learn(&location.grid),
                Scope::Cta => actor.learn_block(&location.grid),
            }
            if let Some(own) = own {
                actor.learn(own);
            }
        } else {
            if order.scope == Scope::Gpu {
                actor.defer(&location.grid);
            }
            if let Some(own) = own {
                actor.defer(own);
            }
        }
    }

    /// A strong write of `address`. A read-modify-write adds to what is published there, a plain write replaces it.
    pub(crate) fn write(&mut self, address: u64, actor: &mut Actor, order: Order, modify: bool) {
        let location = self.at.entry(address).or_default();
        if !modify {
            *location = Location::default();
        }
        let block = actor.id / actor.warps();
        if order.release {
            let all = actor.snapshot();
            if order.scope == Scope::Gpu {
                location.grid.join(&all);
            }
            location.block.entry(block).or_default().join(&all);
            actor.tick();
        } else {
            if order.scope == Scope::Gpu && !actor.fenced(Scope::Gpu).is_empty() {
                location.grid.join(actor.fenced(Scope::Gpu));
            }
            if !actor.fenced(Scope::Cta).is_empty() {
                location.block.entry(block).or_default().join(actor.fenced(Scope::Cta));
            }
        }
    }
}
