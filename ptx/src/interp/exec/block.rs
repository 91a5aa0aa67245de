//! A resident block: its warps and what they share.

use super::barrier::Barriers;
use super::warp::{Geometry, Warp};
use crate::interp::decode::Kernel;
use crate::interp::memory::Shared;
use crate::interp::race::Locations;

/// A block that has started and not finished.
pub(super) struct Block {
    /// Index in the grid, x fastest.
    pub(super) index: u64,
    pub(super) warps: Vec<Warp>,
    pub(super) shared: Shared,
    pub(super) locations: Locations,
    pub(super) barriers: Barriers,
    /// Warps that have not finished.
    pub(super) unfinished: u32,
}

impl Block {
    pub(super) fn new(kernel: &Kernel, geometry: &Geometry, index: u64, races: bool) -> Self {
        let warps: Vec<Warp> = (0..geometry.warps()).map(|w| Warp::new(kernel, geometry, index, w)).collect();
        Self {
            index,
            unfinished: warps.len() as u32,
            warps,
            shared: Shared::new(&kernel.shared, geometry.dynamic_shared, races),
            locations: Locations::default(),
            barriers: Barriers::default(),
        }
    }
}
