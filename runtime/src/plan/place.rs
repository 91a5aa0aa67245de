//! Placing buffers in one arena: buffers that live at the same time never overlap.

use crate::arena::ALIGN;

/// A buffer to place: its size, and the first and last step that touch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) bytes: usize,
    pub(super) first: usize,
    pub(super) last: usize,
}

/// Byte offset of every buffer (multiples of [`ALIGN`]) and the arena's size.
///
/// Largest first, each at the lowest offset where it meets none that lives at the same time. With `reuse` off every buffer
/// gets its own place, so that all values survive a forward call (for checks).
pub(super) fn place(intervals: &[Interval], reuse: bool) -> (Vec<usize>, usize) {
    let size = |i: usize| intervals[i].bytes.next_multiple_of(ALIGN);
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(intervals[i].bytes));
    let mut offsets = vec![0; intervals.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut end = 0;
    for i in order {
        let lives_with = |j: usize| {
            !reuse || (intervals[i].first <= intervals[j].last && intervals[j].first <= intervals[i].last)
        };
        let mut taken: Vec<(usize, usize)> =
            placed.iter().filter(|&&j| lives_with(j)).map(|&j| (offsets[j], offsets[j] + size(j))).collect();
        taken.sort_unstable();
        let mut at = 0;
        for (from, to) in taken {
            if at + size(i) <= from {
                break;
            }
            at = at.max(to);
        }
        offsets[i] = at;
        end = end.max(at + size(i));
        placed.push(i);
    }
    (offsets, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn living_buffers_never_overlap(raw in proptest::collection::vec((1usize..5000, 0usize..20, 0usize..8), 1..40), reuse: bool) {
            let v: Vec<Interval> = raw.iter().map(|&(bytes, first, n)| Interval { bytes, first, last: first + n }).collect();
            let (at, end) = place(&v, reuse);
            for i in 0..v.len() {
                prop_assert!(at[i].is_multiple_of(ALIGN) && at[i] + v[i].bytes <= end);
                for j in 0..i {
                    let together = !reuse || (v[i].first <= v[j].last && v[j].first <= v[i].last);
                    let apart = at[i] + v[i].bytes <= at[j] || at[j] + v[j].bytes <= at[i];
                    prop_assert!(!together || apart, "{i} and {j}");
                }
            }
            if !reuse {
                prop_assert_eq!(end, v.iter().map(|x| x.bytes.next_multiple_of(ALIGN)).sum::<usize>());
            }
        }
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        let v: Vec<Interval> = (0..10).map(|i| Interval { bytes: 1024, first: i, last: i + 1 }).collect();
        assert_eq!(place(&v, true).1, 2048);
        assert_eq!(place(&v, false).1, 10 * 1024);
    }
}
