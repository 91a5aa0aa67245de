//! Recording: the hook in the scheduler, and what it fills.
//!
//! | module | content |
//! | --- | --- |
//! | `recorder` | the trait the scheduler is generic over; [`NoRecord`] |
//! | `layout` | which steps share a clock read in which mode |
//! | `ring` | raw times of the last forwards |
//! | `work` | how much was asked of each step, for its static cost |
//! | `spread` | histograms of everything recorded |
//! | `threads` | when each thread of the gang reached the barriers |
//! | `profiler` | [`BrickProfiler`]: the hot path and exact totals |

mod layout;
mod profiler;
mod recorder;
mod ring;
mod spread;
mod threads;
mod work;

#[cfg(test)]
mod tests;

pub use layout::SyncMode;
pub use profiler::{BrickProfiler, PhaseTotals};
pub use recorder::{Arrivals, NoRecord, Recorder};
pub use ring::ForwardSample;
pub use threads::{Stamps, ThreadTime};
pub use work::Work;
