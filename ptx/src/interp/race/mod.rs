//! Who may have seen what: vector clocks of warps, and the last accesses to every byte of memory that can change.

mod actor;
mod clock;
mod shadow;
mod sync;

pub(crate) use actor::Actor;
pub(crate) use clock::VectorClock;
pub(crate) use shadow::{Conflict, Shadow, Use};
pub(crate) use sync::Locations;
