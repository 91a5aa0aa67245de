//! Which steps share a clock read.

use serde::{Deserialize, Serialize};

use crate::step::StepInfo;

/// How finely time is taken. On the CPU a "synchronisation" is a clock read behind a barrier that exists anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncMode {
    /// One clock read per step; statistics are up to date after every forward.
    #[default]
    Immediate,
    /// One clock read per layer boundary. Steps and kinds have no times of their own.
    PerLayer,
    /// One clock read per step, stored raw; statistics appear when the recording is finished. A forward that has to leave
    /// the buffer because it is full is accounted before it goes, so that nothing is lost.
    Deferred,
    /// Nothing is read and nothing is recorded.
    None,
}

impl SyncMode {
    /// The name used in every report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::PerLayer => "per-layer",
            Self::Deferred => "deferred",
            Self::None => "none",
        }
    }

    /// Whether each step gets a time of its own.
    pub const fn times_steps(self) -> bool {
        matches!(self, Self::Immediate | Self::Deferred)
    }
}

impl std::fmt::Display for SyncMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Where a step's time goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// Column of the ring.
    pub(super) slot: u32,
    /// Whether the clock is read after this step.
    pub(super) closes: bool,
}

/// Maps steps to columns of the ring, and columns to segments.
///
/// A **segment** is a run of consecutive steps of the same layer (or of none). A **slot** is what gets a time: a step, or a
/// whole segment in [`SyncMode::PerLayer`].
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// One per step.
    pub(super) targets: Vec<Target>,
    /// Segment of each slot.
    pub(super) segment_of_slot: Vec<u32>,
    /// Index of the kind of each slot where a slot is a step; empty otherwise. Close together: after a forward call the caches hold its
    /// weights, and every line that is touched comes from memory.
    pub(super) kind_of_slot: Vec<u8>,
    /// Layer of each segment.
    pub(super) segment_layers: Vec<Option<u32>>,
}

impl Layout {
    pub(super) fn new(steps: &[StepInfo], mode: SyncMode) -> Self {
        let kinds = steps.iter().filter(|_| mode.times_steps()).map(|s| s.kind.index() as u8);
        let mut layout = Self {
            targets: Vec::with_capacity(steps.len()),
            segment_of_slot: Vec::new(),
            kind_of_slot: kinds.collect(),
            segment_layers: Vec::new(),
        };
        for (i, step) in steps.iter().enumerate() {
            if i == 0 || steps[i - 1].layer != step.layer {
                layout.segment_layers.push(step.layer);
                if !mode.times_steps() {
                    layout.segment_of_slot.push(layout.segment_layers.len() as u32 - 1);
                }
            }
            if mode.times_steps() {
                layout.segment_of_slot.push(layout.segment_layers.len() as u32 - 1);
            }
            let last_of_segment = steps.get(i + 1).is_none_or(|next| next.layer != step.layer);
            layout.targets.push(Target {
                slot: layout.segment_of_slot.len() as u32 - 1,
                closes: mode.times_steps() || last_of_segment,
            });
        }
        layout
    }

    pub(super) fn slots(&self) -> usize {
        self.segment_of_slot.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::step;
    use bricks::BrickKind::{Attention, Embed, LmHead, Qkv};

    #[test]
    fn segments_are_runs_of_one_layer() {
        let steps = [
            step("embed", Embed, None),
            step("blk.0.qkv", Qkv, Some(0)),
            step("blk.0.attn", Attention, Some(0)),
            step("blk.1.qkv", Qkv, Some(1)),
            step("blk.1.attn", Attention, Some(1)),
            step("head", LmHead, None),
        ];
        let fine = Layout::new(&steps, SyncMode::Immediate);
        assert_eq!(fine.segment_layers, [None, Some(0), Some(1), None]);
        assert_eq!(fine.segment_of_slot, [0, 1, 1, 2, 2, 3]);
        assert!(fine.targets.iter().enumerate().all(|(i, t)| t.slot as usize == i && t.closes));

        let coarse = Layout::new(&steps, SyncMode::PerLayer);
        assert_eq!(coarse.segment_of_slot, [0, 1, 2, 3]);
        let slots: Vec<_> = coarse.targets.iter().map(|t| (t.slot, t.closes)).collect();
        assert_eq!(slots, [(0, true), (1, false), (1, true), (2, false), (2, true), (3, true)]);
    }

    #[test]
    fn a_plan_without_steps_has_no_slots() {
        assert_eq!(Layout::new(&[], SyncMode::Immediate).slots(), 0);
        assert_eq!(Layout::new(&[], SyncMode::PerLayer).slots(), 0);
    }
}
