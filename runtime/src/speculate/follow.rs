//! Follows the place in the text that is being repeated, and learns how far its predictions can be trusted.
//!
//! A prediction costs nothing, so one is made for every token, drafted or not, and every token that is generated says
//! whether it was right. So the odds are known before anything is risked on them, and go up again while nothing is drafted.

use super::ngram::{MAX_LEN, NgramIndex, Place};

/// After a miss, the place where it happened is searched for its continuation: this many tokens after it, for this many
/// generated tokens. A renamed identifier is some tokens long.
const RESUME_WINDOW: usize = 12;
const RESUME_TOKENS: usize = 16;
/// Weight of the last observations: the odds are those of about 1 / (1 - DECAY) of them.
const DECAY: f32 = 0.97;
/// Observations that the odds to start with count for.
const PRIOR_WEIGHT: f32 = 3.0;
/// Lengths that begin a class of their own.
const CLASSES: [usize; 10] = [0, 1, 2, 3, 4, 6, 9, 16, 32, MAX_LEN];
/// Odds to start with, by class: a place found by its tokens alone, and one near the last miss. Guesses; observations
/// replace them within some ten tokens.
const PRIOR: [[f32; CLASSES.len()]; 2] = [
    [0.0, 0.0, 0.3, 0.45, 0.55, 0.65, 0.75, 0.85, 0.93, 0.97],
    [0.15, 0.45, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97],
];

fn class(len: usize) -> usize {
    CLASSES.iter().rposition(|&from| len >= from).unwrap_or(0)
}

/// Decayed counts of one class.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    right: f32,
    all: f32,
}

/// The place that is followed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Followed {
    place: Place,
    /// Found near the place of the last miss.
    resumed: bool,
}

/// Predicts how the text goes on from where it stood before.
#[derive(Debug)]
pub(crate) struct Follower {
    index: NgramIndex,
    followed: Option<Followed>,
    /// Where the last prediction failed, and for how many tokens that is still of interest.
    missed: Option<(usize, usize)>,
    tallies: [[Tally; CLASSES.len()]; 2],
}

impl Follower {
    /// Follows texts of up to `capacity` tokens.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { index: NgramIndex::new(capacity), followed: None, missed: None, tallies: Default::default() }
    }

    /// Starts at the end of another text. What was learnt about the odds stays.
    pub(crate) fn set(&mut self, tokens: &[u32]) {
        self.index.set(tokens);
        self.missed = None;
        self.followed = self.find();
    }

    /// Takes the token that the text really goes on with.
    pub(crate) fn observe(&mut self, token: u32) {
        let predicted = self.followed.and_then(|f| self.index.tokens().get(f.place.next).map(|&t| (f, t)));
        self.index.push(token);
        self.missed = self.missed.and_then(|(at, left)| Some((at, left.checked_sub(1)?)));
        if let Some((f, prediction)) = predicted {
            let right = prediction == token;
            let tally = &mut self.tallies[usize::from(f.resumed)][class(f.place.len)];
            tally.right = tally.right * DECAY + f32::from(u8::from(right));
            tally.all = tally.all * DECAY + 1.0;
            if right {
                // No other place can have become the longest: it would have been before.
                let place = Place { next: f.place.next + 1, len: (f.place.len + 1).min(MAX_LEN) };
                self.followed = Some(Followed { place, ..f });
                return;
            }
            self.missed = self.after_miss(f);
        }
        self.followed = self.find();
    }

    /// A miss while guessing near an earlier miss says nothing about where the text is: the earlier place stays.
    fn after_miss(&self, f: Followed) -> Option<(usize, usize)> {
        let keep = f.resumed && f.place.len < 2;
        self.missed.filter(|_| keep).or(Some((f.place.next, RESUME_TOKENS)))
    }

    /// The place with the best odds.
    fn find(&self) -> Option<Followed> {
        let anywhere = self.index.longest().map(|place| Followed { place, resumed: false });
        let near = self.missed.and_then(|(at, _)| self.near(at)).map(|place| Followed { place, resumed: true });
        match (anywhere, near) {
            (Some(a), Some(n)) => Some(if self.odds_of(n, 0) >= self.odds_of(a, 0) { n } else { a }),
            (a, n) => a.or(n),
        }
    }

    /// The longest match whose prediction stands shortly after `at`, the nearest among equals; with nothing in common, the
    /// token right after it (one token was replaced by another).
    fn near(&self, at: usize) -> Option<Place> {
        let end = self.index.tokens().len();
        let mut best: Option<Place> = None;
        for next in at..(at + RESUME_WINDOW).min(end) {
            let place = Place { next, len: self.index.common(next) };
            if place.len > best.map_or(0, |b| b.len) {
                best = Some(place);
            }
        }
        best.or_else(|| Some(Place { next: at + 1, len: 0 }).filter(|p| p.next < end))
    }

    /// Chance that the `i`-th predicted token is right if all before it are.
    pub(crate) fn odds(&self, i: usize) -> f32 {
        self.followed.map_or(0.0, |f| self.odds_of(f, i))
    }

    fn odds_of(&self, f: Followed, i: usize) -> f32 {
        let (kind, class) = (usize::from(f.resumed), class(f.place.len + i));
        let Tally { right, all } = self.tallies[kind][class];
        (right + PRIOR[kind][class] * PRIOR_WEIGHT) / (all + PRIOR_WEIGHT)
    }

    /// Tokens that the followed place has in common with the end of the text; `None` when none is followed.
    pub(crate) fn len(&self) -> Option<usize> {
        self.followed.map(|f| f.place.len)
    }

    /// Appends the predicted tokens to `draft` until it has `n`. A prediction that reaches the end of the text goes on with
    /// itself: a loop.
    pub(crate) fn draft(&self, n: usize, draft: &mut Vec<u32>) {
        let Some(f) = self.followed else { return };
        let tokens = self.index.tokens();
        while draft.len() < n {
            let at = f.place.next + draft.len();
            let token = tokens.get(at).or_else(|| draft.get(at.wrapping_sub(tokens.len()))).copied();
            let Some(token) = token else { return };
            draft.push(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafted(f: &Follower, n: usize) -> Vec<u32> {
        let mut draft = Vec::new();
        f.draft(n, &mut draft);
        draft
    }

    fn follower(tokens: &[u32]) -> Follower {
        let mut f = Follower::new(300);
        f.set(tokens);
        f
    }

    #[test]
    fn it_predicts_what_followed_and_goes_round_a_loop() {
        let f = follower(&[1, 2, 3, 4, 5, 9, 1, 2]);
        assert_eq!(drafted(&f, 3), [3, 4, 5]);
        assert_eq!(drafted(&f, 9), [3, 4, 5, 9, 1, 2, 3, 4, 5], "past the end it goes on with itself");
        assert_eq!(drafted(&follower(&[1, 2, 3, 2, 3]), 5), [2, 3, 2, 3, 2]);
        assert_eq!(drafted(&follower(&[1, 2, 3]), 5), [0u32; 0]);
    }

    #[test]
    fn it_follows_a_repetition_and_finds_back_after_a_change() {
        // The text 100..140, then the same with one token replaced by two others.
        let source: Vec<u32> = (100..140).collect();
        let mut f = follower(&source);
        let mut right = Vec::new();
        let edited: Vec<u32> = (100..120).chain([7, 8]).chain(121..140).collect();
        for &t in &edited {
            right.push(drafted(&f, 1) == [t]);
            f.observe(t);
        }
        // The first two tokens are no n-gram yet, and the change is a surprise; what follows it is not.
        let missed: Vec<u32> = edited.iter().zip(&right).filter(|(_, r)| !**r).map(|(t, _)| *t).collect();
        assert_eq!(missed, [100, 101, 7, 8]);

        // One token for one: the very next one is predicted.
        let mut f = follower(&source);
        let edited: Vec<u32> = (100..120).chain([7]).chain(121..140).collect();
        let missed: Vec<u32> = edited
            .iter()
            .filter(|&&t| {
                let hit = drafted(&f, 1) == [t];
                f.observe(t);
                !hit
            })
            .copied()
            .collect();
        assert_eq!(missed, [100, 101, 7]);
    }

    #[test]
    fn odds_are_learnt_in_both_directions_without_drafting() {
        // Every pair is known, and is followed by something new each time.
        let mut text = vec![1, 2];
        for i in 0..40 {
            text.extend([1000 + i, 1, 2]);
        }
        let mut f = follower(&text);
        let at_start = f.odds(0);
        for i in 0..40 {
            for t in [2000 + i, 1, 2] {
                f.observe(t);
            }
        }
        assert_eq!(f.len(), Some(2));
        assert!(f.odds(0) < 0.1 && f.odds(0) < at_start, "{} {at_start}", f.odds(0));
        // A repetition of the whole is trusted again, the more the longer it lasts.
        for &t in &text[..80] {
            f.observe(t);
        }
        assert_eq!(f.len(), Some(MAX_LEN));
        assert!(f.odds(0) > 0.9, "{}", f.odds(0));
    }
}
