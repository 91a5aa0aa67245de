//! Raw times of the last forwards of one phase.

use bricks::{BrickKind, Extent};

/// Marks a slot whose step did not run in a forward (an LM head without wanted rows, for instance).
pub(super) const NOT_RUN: u64 = u64::MAX;

/// What is kept of a forward besides its row of times.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Head {
    pub(super) extent: Extent,
    pub(super) begin_ns: u64,
    pub(super) end_ns: u64,
    /// Time between the end of this forward and the beginning of the next, once known.
    pub(super) gap_ns: u64,
    /// Whether the row holds durations (true) or still raw clock readings.
    pub(super) resolved: bool,
}

/// A fixed number of rows, each one forward: a column per slot and one per kind of external work.
#[derive(Debug)]
pub(super) struct Ring {
    slots: usize,
    times: Vec<u64>,
    heads: Vec<Head>,
    /// The row that is written next.
    next: usize,
    /// Rows in use.
    len: usize,
}

impl Ring {
    /// Most columns × rows of one ring (32 MiB).
    const MAX_TIMES: usize = 1 << 22;

    /// Room for `rows` forwards: at least one, and fewer than asked for when that would take more than 32 MiB.
    pub(super) fn new(slots: usize, rows: usize) -> Self {
        let stride = slots + BrickKind::COUNT;
        let rows = rows.clamp(1, (Self::MAX_TIMES / stride).max(1));
        Self {
            slots,
            // A non-zero fill touches every page now rather than in the hot path.
            times: vec![NOT_RUN; stride * rows],
            heads: vec![Head::default(); rows],
            next: 0,
            len: 0,
        }
    }

    fn stride(&self) -> usize {
        self.slots + BrickKind::COUNT
    }

    pub(super) fn capacity(&self) -> usize {
        self.heads.len()
    }

    pub(super) fn clear(&mut self) {
        (self.next, self.len) = (0, 0);
    }

    /// The row that [`Self::start`] will overwrite, if it is in use.
    pub(super) fn oldest_to_go(&self) -> Option<usize> {
        (self.len == self.capacity()).then_some(self.next)
    }

    /// Wipes the next row and gives its index. It becomes visible with [`Self::commit`].
    pub(super) fn start(&mut self) -> usize {
        let row = self.next;
        self.len = self.len.min(self.capacity() - 1);
        let (slots, externals) = self.row_mut(row);
        slots.fill(NOT_RUN);
        externals.fill(0);
        row
    }

    /// Makes the started row visible.
    pub(super) fn commit(&mut self, head: Head) {
        self.heads[self.next] = head;
        self.next = (self.next + 1) % self.capacity();
        self.len += 1;
    }

    /// Slot columns and external columns of a row.
    pub(super) fn row_mut(&mut self, row: usize) -> (&mut [u64], &mut [u64]) {
        let stride = self.stride();
        self.times[row * stride..(row + 1) * stride].split_at_mut(self.slots)
    }

    pub(super) fn head_mut(&mut self, row: usize) -> &mut Head {
        &mut self.heads[row]
    }

    /// Row indices, oldest first.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = usize> + use<> {
        let (capacity, first) = (self.capacity(), self.next + self.capacity() - self.len);
        (0..self.len).map(move |i| (first + i) % capacity)
    }

    /// A resolved row; `None` while it holds raw clock readings.
    pub(super) fn sample(&self, row: usize) -> Option<ForwardSample<'_>> {
        let head = self.heads[row];
        let (slots, externals) = self.times[row * self.stride()..(row + 1) * self.stride()].split_at(self.slots);
        head.resolved.then_some(ForwardSample { head, slots, externals })
    }
}

/// One recorded forward call. All times are measured nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct ForwardSample<'a> {
    head: Head,
    slots: &'a [u64],
    externals: &'a [u64],
}

impl ForwardSample<'_> {
    /// Size of the call.
    pub fn extent(&self) -> Extent {
        self.head.extent
    }

    /// Clock reading at its beginning.
    pub fn begin_ns(&self) -> u64 {
        self.head.begin_ns
    }

    /// From the beginning to the end of the forward call.
    pub fn wall_ns(&self) -> u64 {
        self.head.end_ns.saturating_sub(self.head.begin_ns)
    }

    /// From the end of this call to the beginning of the next one; 0 for the last.
    pub fn gap_ns(&self) -> u64 {
        self.head.gap_ns
    }

    /// Time of a slot: a step, or a segment of one layer in [`crate::SyncMode::PerLayer`]. `None` if it did not run.
    pub fn slot_ns(&self, slot: usize) -> Option<u64> {
        self.slots.get(slot).copied().filter(|&ns| ns != NOT_RUN)
    }

    /// Host work of this kind charged to the forward.
    pub fn external_ns(&self, kind: BrickKind) -> u64 {
        self.externals[kind.index()]
    }

    /// Sum of all slots.
    pub fn slots_ns(&self) -> u64 {
        self.slots.iter().filter(|&&ns| ns != NOT_RUN).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn push(ring: &mut Ring, n: u64) {
        let row = ring.start();
        ring.row_mut(row).0[0] = n;
        ring.commit(Head { resolved: true, ..Head::default() });
    }

    fn seen(ring: &Ring) -> Vec<u64> {
        ring.rows().map(|r| ring.sample(r).unwrap().slot_ns(0).unwrap()).collect()
    }

    #[test]
    fn the_last_rows_stay_in_order() {
        let mut ring = Ring::new(2, 3);
        assert_eq!((seen(&ring), ring.oldest_to_go()), (vec![], None));
        for n in 0..3 {
            push(&mut ring, n);
        }
        assert_eq!((seen(&ring), ring.oldest_to_go()), (vec![0, 1, 2], Some(0)));
        push(&mut ring, 3);
        push(&mut ring, 4);
        assert_eq!(seen(&ring), [2, 3, 4]);
        ring.clear();
        assert_eq!(seen(&ring), [0u64; 0]);
    }

    #[test]
    fn an_abandoned_row_is_invisible_and_reused() {
        let mut ring = Ring::new(1, 2);
        push(&mut ring, 1);
        push(&mut ring, 2);
        let row = ring.start(); // begun, never committed
        ring.row_mut(row).0[0] = 99;
        assert_eq!(seen(&ring), [2]);
        push(&mut ring, 3);
        assert_eq!(seen(&ring), [2, 3]);
    }

    #[test]
    fn rows_are_wiped_before_use() {
        let mut ring = Ring::new(2, 1);
        push(&mut ring, 7);
        let row = ring.start();
        let (slots, externals) = ring.row_mut(row);
        assert_eq!(slots, [NOT_RUN, NOT_RUN]);
        assert!(externals.iter().all(|&ns| ns == 0));
    }

    #[test]
    fn size_is_bounded_whatever_is_asked_for() {
        assert_eq!(Ring::new(1, 0).capacity(), 1);
        let huge = Ring::new(1000, usize::MAX);
        assert!(huge.times.len() <= Ring::MAX_TIMES && huge.capacity() > 4_000);
    }
}
