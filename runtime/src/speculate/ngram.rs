//! Where the last few tokens stood before: an index of n-grams that grows with the text.
//!
//! One hash table per length n, each slot the head of a chain of positions (as in LZ77 compressors). Adding a token costs a
//! few instructions per n, taking tokens back undoes that in reverse order, and nothing is ever scanned again. Memory is
//! taken once, 4 bytes per slot and position, and touched only where it is used.

/// Lengths of n-grams that are indexed.
const LENGTHS: [usize; 3] = [4, 3, 2];
/// Entries of a chain that are looked at: a bound on the cost of text that repeats one n-gram over and over.
const MAX_WALK: usize = 24;
/// Common tokens before two positions that are counted at most.
pub(crate) const MAX_LEN: usize = 64;

/// A place in the text that continues as the end of the text may continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Position of the token that is predicted.
    pub(crate) next: usize,
    /// Tokens before it that are equal to the last tokens of the text, counted up to [`MAX_LEN`].
    pub(crate) len: usize,
}

/// Positions of one n. Positions are stored plus one; 0 is the end of a chain.
#[derive(Debug)]
struct Table {
    n: usize,
    heads: Vec<u32>,
    /// By position of the n-gram's last token: the one before with the same hash.
    before: Vec<u32>,
}

impl Table {
    fn slot(&self, tokens: &[u32]) -> usize {
        let gram = &tokens[tokens.len() - self.n..];
        let hash =
            gram.iter().fold(0u64, |h, &t| (h ^ u64::from(t)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23));
        // The heads are a power of two, at least 2.
        (hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - self.heads.len().trailing_zeros())) as usize
    }
}

/// The text so far and where its n-grams stand.
#[derive(Debug)]
pub(crate) struct NgramIndex {
    tokens: Vec<u32>,
    tables: [Table; LENGTHS.len()],
}

impl NgramIndex {
    /// An empty index with room for `capacity` tokens; more are not accepted.
    pub(crate) fn new(capacity: usize) -> Self {
        let slots = (capacity.max(1) * 2).next_power_of_two();
        let table = |n| Table { n, heads: vec![0; slots], before: vec![0; capacity] };
        Self { tokens: Vec::with_capacity(capacity), tables: LENGTHS.map(table) }
    }

    /// The text.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Adds a token; a text that is longer than the capacity stays as it is. Never allocates.
    pub(crate) fn push(&mut self, token: u32) {
        let at = self.tokens.len();
        if at >= self.tables[0].before.len() {
            return;
        }
        self.tokens.push(token);
        for table in &mut self.tables {
            if at + 1 >= table.n {
                let slot = table.slot(&self.tokens);
                table.before[at] = std::mem::replace(&mut table.heads[slot], at as u32 + 1);
            }
        }
    }

    /// Makes the text equal to `tokens`: what both have in common at the beginning is kept.
    pub(crate) fn set(&mut self, tokens: &[u32]) {
        let common = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        while self.tokens.len() > common {
            self.pop();
        }
        for &t in &tokens[common..] {
            self.push(t);
        }
    }

    fn pop(&mut self) {
        let Some(at) = self.tokens.len().checked_sub(1) else { return };
        for table in &mut self.tables {
            if at + 1 >= table.n {
                // The last position added is the head of its chain.
                let slot = table.slot(&self.tokens);
                debug_assert_eq!(table.heads[slot], at as u32 + 1);
                table.heads[slot] = table.before[at];
            }
        }
        self.tokens.pop();
    }

    /// Tokens before `next` that are equal to the last tokens of the text, up to [`MAX_LEN`].
    pub(crate) fn common(&self, next: usize) -> usize {
        let pairs = self.tokens[..next].iter().rev().zip(self.tokens.iter().rev());
        pairs.take(MAX_LEN).take_while(|(a, b)| a == b).count()
    }

    /// Where the longest end of the text stood before: the longest of the candidates looked at, the latest among equals.
    pub(crate) fn longest(&self) -> Option<Place> {
        for table in &self.tables {
            let Some(last) = self.tokens.len().checked_sub(1).filter(|l| l + 1 >= table.n) else { continue };
            let mut best: Option<Place> = None;
            // The head is the end of the text itself.
            let mut entry = table.before[last];
            for _ in 0..MAX_WALK {
                let Some(at) = (entry as usize).checked_sub(1) else { break };
                let len = self.common(at + 1);
                // Another n-gram may have the same hash.
                if len >= table.n && best.is_none_or(|b| len > b.len) {
                    best = Some(Place { next: at + 1, len });
                    if len == MAX_LEN {
                        break;
                    }
                }
                entry = table.before[at];
            }
            if best.is_some() {
                return best;
            }
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(tokens: &[u32]) -> NgramIndex {
        let mut i = NgramIndex::new(400);
        i.set(tokens);
        i
    }

    /// By looking everywhere.
    fn brute_force(tokens: &[u32]) -> Option<usize> {
        let end = tokens.len();
        let common = |next: usize| (1..=next.min(MAX_LEN)).take_while(|&k| tokens[next - k] == tokens[end - k]).count();
        (1..end).map(common).max().filter(|&len| len >= 2)
    }

    #[test]
    fn the_longest_end_wins_then_the_latest() {
        assert_eq!(index(&[]).longest(), None);
        assert_eq!(index(&[1, 2, 3]).longest(), None);
        assert_eq!(index(&[1, 1]).longest(), None, "one token is no n-gram");
        assert_eq!(index(&[1, 2, 9, 1, 2]).longest(), Some(Place { next: 2, len: 2 }));
        // 5 1 2 3 4 stood at the beginning; 1 2 3 4 later again.
        let text = [5, 1, 2, 3, 4, 7, 6, 1, 2, 3, 4, 8, 5, 1, 2, 3, 4];
        assert_eq!(index(&text).longest(), Some(Place { next: 5, len: 5 }));
        let text = [5, 1, 2, 3, 4, 7, 5, 1, 2, 3, 4, 8, 5, 1, 2, 3, 4];
        assert_eq!(index(&text).longest(), Some(Place { next: 11, len: 5 }), "the later one");
        // A loop: the text itself, one round before.
        assert_eq!(index(&[1, 2, 1, 2, 1, 2]).longest(), Some(Place { next: 4, len: 4 }));
    }

    #[test]
    fn tokens_past_the_capacity_are_left_out() {
        let mut i = NgramIndex::new(3);
        i.set(&[1, 2, 1, 2, 1]);
        assert_eq!(i.tokens(), [1, 2, 1]);
        let mut none = NgramIndex::new(0);
        none.push(1);
        assert_eq!((none.tokens().len(), none.longest()), (0, None));
    }

    proptest! {
        /// Few enough candidates to look at all of them: the index finds what looking everywhere finds.
        #[test]
        fn it_finds_what_looking_everywhere_finds(tokens in proptest::collection::vec(0u32..12, 0..60)) {
            let found = index(&tokens).longest();
            // Four tokens of twelve kinds: no chain of a text of 60 is longer than the walk, except of n = 2.
            let expected = brute_force(&tokens);
            prop_assert_eq!(found.map(|p| p.len), expected);
            if let Some(p) = found {
                prop_assert_eq!(index(&tokens).common(p.next), p.len);
                prop_assert!(p.next < tokens.len());
            }
        }

        /// Going back and on leaves no trace.
        #[test]
        fn setting_another_text_is_a_fresh_index(a in proptest::collection::vec(0u32..4, 0..80), keep in 0usize..80,
                                                 b in proptest::collection::vec(0u32..4, 0..80)) {
            let second: Vec<u32> = a.iter().take(keep).chain(&b).copied().collect();
            let mut i = index(&a);
            i.set(&second);
            let fresh = index(&second);
            prop_assert_eq!(i.longest(), fresh.longest());
            for (x, y) in i.tables.iter().zip(&fresh.tables) {
                prop_assert_eq!(&x.heads, &y.heads);
            }
        }
    }
}
