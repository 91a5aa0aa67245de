//! How many drafted tokens pay: what a forward call with 1 + K rows costs here and now, against what it is expected to
//! bring.
//!
//! Costs are medians of the last calls by number of rows. A number of rows that was never tried is estimated from its
//! neighbours, and before there are any from the rows of the prompt, which overestimates: rows share the reading of the
//! weights. Trying against the estimate is paid from one percent of the time that was spent: a call that loses more than is
//! left delays the next try. That bounds tries only; a draft chosen on wrong costs or odds is not paid from it.

/// Last calls that a cost is the median of.
const SAMPLES: usize = 5;
/// A draft has to promise this many times the speed of none: odds and costs are estimates.
const MARGIN: f64 = 1.05;
/// Share of the time spent that may be lost by trying.
const TRIAL_SHARE: f64 = 0.01;
/// Cost of another row, as a share of a call with one, while nothing at all is known.
const UNKNOWN_SLOPE: f64 = 0.5;
/// Rows of a prompt that are enough to measure it.
const PROMPT_ROWS: usize = 16;
/// A promise above this is worth a trial.
const TRIAL_PROMISE: f64 = 1.15;

/// Costs of the last calls with one number of rows, in ns.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    last: [f64; SAMPLES],
    count: usize,
}

impl Cost {
    fn add(&mut self, ns: f64) {
        self.last[self.count % SAMPLES] = ns;
        self.count += 1;
    }

    fn median(&self) -> Option<f64> {
        let n = self.count.min(SAMPLES);
        let mut sorted = self.last;
        sorted[..n].sort_unstable_by(f64::total_cmp);
        // Of two the lower: a call can be late for many reasons, and early for none.
        n.checked_sub(1).map(|last| sorted[last / 2])
    }
}

/// Costs of forward calls, and the choice of K.
#[derive(Debug)]
pub(crate) struct Pace {
    /// By drafted tokens: calls with 1 + K rows.
    costs: Vec<Cost>,
    /// Another row of a prompt, ns.
    prompt_row: Option<f64>,
    /// Time that may still be lost by trying, ns.
    allowance: f64,
    /// Whether the call that runs is a trial.
    trial: bool,
}

impl Pace {
    /// For up to `max_draft` drafted tokens.
    pub(crate) fn new(max_draft: usize) -> Self {
        Self { costs: vec![Cost::default(); max_draft + 1], prompt_row: None, allowance: 0.0, trial: false }
    }

    /// A prompt of `rows` rows took `ns`.
    pub(crate) fn prompt(&mut self, rows: usize, ns: u64) {
        if rows >= PROMPT_ROWS {
            self.prompt_row = Some(ns as f64 / rows as f64);
        }
    }

    /// A call with `drafted` drafted rows took `ns` and brought `tokens` tokens.
    pub(crate) fn forwarded(&mut self, drafted: usize, ns: u64, tokens: usize) {
        let ns = ns as f64;
        self.costs[drafted].add(ns);
        self.allowance += ns * TRIAL_SHARE;
        if std::mem::take(&mut self.trial) {
            let one = self.costs[0].median().unwrap_or(ns);
            self.allowance -= (ns - one * tokens as f64).max(0.0);
        }
    }

    /// Cost of another row where nothing better is known, ns.
    fn slope(&self, one: f64) -> f64 {
        self.prompt_row.unwrap_or(one * UNKNOWN_SLOPE)
    }

    /// Expected cost of a call with `k` drafted rows, ns: measured, or between measured ones, or beyond them.
    fn cost(&self, k: usize, one: f64) -> f64 {
        if let Some(ns) = self.costs[k].median() {
            return ns;
        }
        let measured = |i: &usize| self.costs[*i].count > 0;
        let below = (1..k).rev().find(measured);
        let above = (k + 1..self.costs.len()).find(measured);
        let at = |i: usize| self.costs[i].median().unwrap_or(one);
        let (from, low) = below.map_or((0, one), |i| (i, at(i)));
        let slope = match (above, below) {
            (Some(i), _) => (at(i) - low) / (i - from) as f64,
            (None, Some(i)) => (low - one) / i as f64,
            (None, None) => self.slope(one),
        };
        low + slope.max(0.0) * (k - from) as f64
    }

    /// How many of at most `limit` tokens to draft, when the `i`-th one is right with chance `odds(i)` if all before it
    /// are. 0 where none pays, and until one call without a draft has been measured.
    pub(crate) fn choose(&mut self, limit: usize, odds: impl Fn(usize) -> f32) -> usize {
        let limit = limit.min(self.costs.len() - 1);
        self.trial = false;
        let Some(one) = self.costs[0].median() else { return 0 };
        let (mut best, mut best_gain) = (0, MARGIN);
        let (mut trial, mut trial_gain) = (0, TRIAL_PROMISE);
        let (mut chance, mut tokens) = (1.0, 1.0);
        for k in 1..=limit {
            chance *= f64::from(odds(k - 1));
            tokens += chance;
            let cost = self.cost(k, one);
            let gain = tokens * one / cost;
            if gain > best_gain {
                (best, best_gain) = (k, gain);
            }
            // Too little is known of this call: what if it were cheap?
            if self.costs[k].count < 2 && tokens > trial_gain && cost - one * tokens <= self.allowance {
                (trial, trial_gain) = (k, tokens);
            }
        }
        if best == 0 && trial > 0 && self.allowance > 0.0 {
            self.trial = true;
            return trial;
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `calls` calls whose costs follow `cost` (in units of one row), with drafts that are right with chance `p`, each
    /// token like the next; gives the speed against no drafts and the last K.
    fn run(calls: usize, prompt_row: Option<u64>, p: f64, cost: impl Fn(usize) -> f64) -> (f64, usize) {
        let mut pace = Pace::new(15);
        if let Some(ns) = prompt_row {
            pace.prompt(100, ns * 100);
        }
        // Deterministic luck.
        let mut state = 1u64;
        let mut luck = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f64 / (1u64 << 24) as f64
        };
        let (mut spent, mut tokens, mut k) = (0.0, 0, 0);
        for _ in 0..calls {
            k = pace.choose(15, |_| p as f32);
            let brought = 1 + (0..k).take_while(|_| luck() < p).count();
            let ns = cost(k + 1) * 1e6;
            pace.forwarded(k, ns as u64, brought);
            spent += ns;
            tokens += brought;
        }
        (tokens as f64 * 1e6 / spent, k)
    }

    #[test]
    fn free_rows_are_used_and_dear_ones_are_not() {
        // Rows for nothing: as many as there are.
        let (speed, k) = run(300, Some(100_000), 0.9, |_| 1.0);
        assert!(k == 15 && speed > 6.0, "{speed} {k}");
        // A row costs a tenth: the best K is in between.
        let (speed, k) = run(300, Some(100_000), 0.8, |rows| 1.0 + 0.1 * (rows - 1) as f64);
        assert!((3..12).contains(&k) && speed > 2.0, "{speed} {k}");
        // Each row costs as much as a call of its own: never.
        let (speed, k) = run(3000, Some(1_000_000), 0.9, |rows| rows as f64);
        assert!(k == 0 && speed > 0.985, "{speed} {k}");
        // Poor odds.
        let (speed, k) = run(3000, Some(200_000), 0.1, |rows| 1.0 + 0.2 * (rows - 1) as f64);
        assert_eq!((speed, k), (1.0, 0));
    }

    #[test]
    fn a_wrong_first_estimate_is_found_out_by_trying() {
        // The prompt says that rows are dear; they are cheap.
        let (speed, k) = run(3000, Some(1_000_000), 0.9, |rows| 1.0 + 0.05 * (rows - 1) as f64);
        assert!(k > 5 && speed > 3.0, "{speed} {k}");
        // The prompt says that rows are cheap; they are dear: one call each to see it.
        let (speed, _) = run(3000, Some(10_000), 0.9, |rows| rows as f64);
        assert!(speed > 0.97, "{speed}");
        // Nothing is known of the prompt.
        let (speed, _) = run(3000, None, 0.95, |rows| 1.0 + 0.1 * (rows - 1) as f64);
        assert!(speed > 3.0, "{speed}");
    }

    #[test]
    fn nothing_is_drafted_before_anything_is_known() {
        let mut pace = Pace::new(7);
        assert_eq!(pace.choose(7, |_| 1.0), 0);
        pace.forwarded(0, 1000, 1);
        pace.prompt(3, 3);
        assert_eq!(pace.choose(7, |_| 1.0), 7, "half a row per row, if nothing says more");
        assert_eq!(pace.choose(2, |_| 1.0), 2);
        assert_eq!(pace.choose(0, |_| 1.0), 0);
        assert_eq!(pace.choose(7, |_| 0.0), 0);
    }

    #[test]
    fn a_late_call_does_not_move_the_median() {
        let mut cost = Cost::default();
        assert_eq!(cost.median(), None);
        for ns in [10.0, 900.0] {
            cost.add(ns);
        }
        assert_eq!(cost.median(), Some(10.0));
        for ns in [11.0, 12.0, 800.0, 13.0] {
            cost.add(ns);
        }
        assert_eq!(cost.median(), Some(13.0), "of 900, 11, 12, 800, 13");
    }
}
