//! Vector clocks, sparse: a warp knows about few others until something spreads knowledge over the whole grid.

/// For every actor, up to which of its times everything it did is known. Absent means nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct VectorClock {
    /// Actor and time, ascending by actor.
    entries: Vec<(u32, u32)>,
}

impl VectorClock {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn get(&self, actor: u32) -> u32 {
        match self.entries.binary_search_by_key(&actor, |e| e.0) {
            Ok(i) => self.entries[i].1,
            Err(_) => 0,
        }
    }

    /// Raises one entry.
    pub(crate) fn raise(&mut self, actor: u32, time: u32) {
        match self.entries.binary_search_by_key(&actor, |e| e.0) {
            Ok(i) => self.entries[i].1 = self.entries[i].1.max(time),
            Err(i) => self.entries.insert(i, (actor, time)),
        }
    }

    /// Learns everything `other` knows.
    pub(crate) fn join(&mut self, other: &Self) {
        self.join_entries(&other.entries);
    }

    /// Learns what `other` knows about the actors `first..first + count`.
    pub(crate) fn join_range(&mut self, other: &Self, first: u32, count: u32) {
        let start = other.entries.partition_point(|e| e.0 < first);
        let end = other.entries.partition_point(|e| e.0 < first.saturating_add(count));
        self.join_entries(&other.entries[start..end]);
    }

    fn join_entries(&mut self, other: &[(u32, u32)]) {
        if other.is_empty() {
            return;
        }
        if self.entries.is_empty() {
            self.entries.extend_from_slice(other);
            return;
        }
        let mine = std::mem::take(&mut self.entries);
        let mut out = Vec::with_capacity(mine.len().max(other.len()));
        let (mut i, mut j) = (0, 0);
        while i < mine.len() && j < other.len() {
            let (a, b) = (mine[i], other[j]);
            out.push(if a.0 == b.0 { (a.0, a.1.max(b.1)) } else { a.min(b) });
            i += usize::from(a.0 <= b.0);
            j += usize::from(b.0 <= a.0);
        }
        out.extend_from_slice(&mine[i..]);
        out.extend_from_slice(&other[j..]);
        self.entries = out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_takes_the_later_time_of_each() {
        let (mut a, mut b) = (VectorClock::default(), VectorClock::default());
        for (actor, time) in [(1, 5), (3, 2), (9, 1)] {
            a.raise(actor, time);
        }
        for (actor, time) in [(0, 7), (1, 4), (3, 8)] {
            b.raise(actor, time);
        }
        let mut part = a.clone();
        part.join_range(&b, 1, 2);
        assert_eq!([part.get(0), part.get(1), part.get(3)], [0, 5, 2]);
        a.join(&b);
        assert_eq!([a.get(0), a.get(1), a.get(2), a.get(3), a.get(9)], [7, 5, 0, 8, 1]);
    }
}
