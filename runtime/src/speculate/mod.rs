//! Speculation without a draft model: the text so far proposes how it goes on, one forward call checks the proposal.
//!
//! Text that repeats itself (code that is edited, a quoted document, a list) goes on as it went on before. The last few
//! tokens are looked up in prompt and answer, what followed there is the draft, and one [`crate::Engine::forward`] call
//! computes the logits after the last token and after every drafted one. From each row of logits a token is sampled as ever;
//! while it is the drafted one, the next row is valid, too, and the call has brought another token. What was computed for
//! drafted tokens after the first wrong one is forgotten.
//!
//! The draft never decides anything, so the answer is that without speculation, token by token, for every sampling option
//! and seed: the bits of a row's logits do not depend on the rest of the batch, and the random numbers are drawn in the same
//! order. (That is more than the same distribution, which is what rejection sampling would give, arXiv 2211.17192.)
//! The clock has a say only in how many tokens are drafted.

mod follow;
mod ngram;
mod pace;

use serde::Serialize;

use follow::Follower;
use pace::Pace;

/// Whether and how far the text so far proposes how it goes on. Changes how fast an answer comes, never the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speculation {
    /// One forward call for each token.
    #[default]
    Off,
    /// Drafts when, and as many tokens as, measured costs and past hits promise to pay; at most [`Self::MAX_AUTO`].
    Auto,
    /// Drafts this many tokens wherever the last two tokens stood before.
    Fixed(usize),
}

impl Speculation {
    /// Most tokens drafted for one call by [`Speculation::Auto`].
    pub const MAX_AUTO: usize = 15;

    /// Most tokens drafted for one call. An engine has to give one row of logits more
    /// ([`crate::EngineOptions::max_wanted`]); with fewer, less is drafted.
    pub fn max_draft(self) -> usize {
        match self {
            Self::Off => 0,
            Self::Auto => Self::MAX_AUTO,
            Self::Fixed(n) => n,
        }
    }
}

/// What speculation did in one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SpeculationStats {
    /// Tokens that were drafted, each a row of a forward call.
    pub drafted: usize,
    /// Drafted tokens that became part of the answer.
    pub accepted: usize,
    /// Forward calls after the prompt's.
    pub forwards: usize,
    /// Tokens of the answer that came from these calls.
    pub tokens: usize,
}

impl SpeculationStats {
    /// Share of drafted tokens that became part of the answer; `None` if there were none.
    pub fn acceptance_rate(&self) -> Option<f64> {
        (self.drafted > 0).then(|| self.accepted as f64 / self.drafted as f64)
    }

    /// Tokens that a forward call brought on average; `None` if there was no call.
    pub fn tokens_per_forward(&self) -> Option<f64> {
        (self.forwards > 0).then(|| self.tokens as f64 / self.forwards as f64)
    }
}

/// Makes drafts, and learns from what becomes of them. Allocates nothing after it was made.
#[derive(Debug)]
pub struct Speculator {
    mode: Speculation,
    follower: Follower,
    pace: Pace,
    draft: Vec<u32>,
}

impl Speculator {
    /// For texts of up to `max_tokens` tokens (beyond, nothing is drafted from what comes), drafting up to `max_draft`.
    pub fn new(mode: Speculation, max_tokens: usize, max_draft: usize) -> Self {
        let max_draft = max_draft.min(mode.max_draft());
        Self {
            mode,
            follower: Follower::new(max_tokens),
            pace: Pace::new(max_draft),
            draft: Vec::with_capacity(max_draft),
        }
    }

    /// The mode it was made for.
    pub fn mode(&self) -> Speculation {
        self.mode
    }

    /// Starts after another text, of which `rows` tokens were just computed in `ns` nanoseconds. What an earlier text has in
    /// common with its beginning is not indexed again.
    pub fn start(&mut self, text: &[u32], rows: usize, ns: u64) {
        self.draft.clear();
        self.follower.set(text);
        self.pace.prompt(rows, ns);
    }

    /// Drafts at most `limit` tokens that may follow the text.
    pub fn draft(&mut self, limit: usize) -> &[u32] {
        let n = match self.mode {
            Speculation::Off => 0,
            Speculation::Auto => self.pace.choose(limit, |i| self.follower.odds(i)),
            Speculation::Fixed(n) => n.min(limit).min(if self.follower.len() >= Some(2) { usize::MAX } else { 0 }),
        };
        self.draft.clear();
        let n = n.min(self.draft.capacity());
        self.follower.draft(n, &mut self.draft);
        &self.draft
    }

    /// The draft that was made last.
    pub fn drafted(&self) -> &[u32] {
        &self.draft
    }

    /// Takes the token that the text really goes on with.
    pub fn observe(&mut self, token: u32) {
        self.follower.observe(token);
    }

    /// The forward call that checked the last draft took `ns` nanoseconds and brought `tokens` tokens.
    pub fn forwarded(&mut self, ns: u64, tokens: usize) {
        self.pace.forwarded(self.draft.len(), ns, tokens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_draft_follows_every_repetition_and_nothing_else() {
        let mut s = Speculator::new(Speculation::Fixed(4), 100, 100);
        s.start(&[1, 2, 3, 4, 5, 6, 7, 1], 8, 1);
        assert_eq!(s.draft(9), [0u32; 0], "one token in common");
        s.observe(2);
        assert_eq!(s.draft(9), [3, 4, 5, 6]);
        assert_eq!(s.draft(2), [3, 4]);
        s.observe(3);
        assert_eq!(s.draft(9), [4, 5, 6, 7]);
        s.observe(9);
        assert_eq!(s.draft(9), [0u32; 0], "a guess is no repetition");
        assert_eq!(Speculator::new(Speculation::Fixed(4), 100, 2).draft.capacity(), 2, "as the engine allows");
    }

    #[test]
    fn automatic_drafts_wait_for_a_measurement_and_follow_it() {
        let text: Vec<u32> = (0..50).chain(0..20).collect();
        let mut s = Speculator::new(Speculation::Auto, 200, 15);
        s.start(&text, 70, 7_000_000);
        assert_eq!(s.draft(15), [0u32; 0]);
        s.forwarded(1_000_000, 1);
        s.observe(20);
        assert!(s.draft(15).starts_with(&[21, 22, 23]), "a tenth of a call per row: {:?}", s.drafted());
        let mut dear = Speculator::new(Speculation::Auto, 200, 15);
        dear.start(&text, 70, 70_000_000);
        dear.forwarded(1_000_000, 1);
        assert_eq!(dear.draft(15), [0u32; 0], "a whole call per row");
        let mut off = Speculator::new(Speculation::Off, 200, 15);
        off.start(&text, 70, 7_000_000);
        assert_eq!(off.draft(15), [0u32; 0]);
    }

    #[test]
    fn the_rates() {
        let stats = SpeculationStats { drafted: 8, accepted: 6, forwards: 3, tokens: 9 };
        assert_eq!((stats.acceptance_rate(), stats.tokens_per_forward()), (Some(0.75), Some(3.0)));
        let none = SpeculationStats::default();
        assert_eq!((none.acceptance_rate(), none.tokens_per_forward()), (None, None));
    }
}
