//! The tokens that the stages of a chain have left over: as few of them are put in order as the choice needs.
//!
//! The result is that of sorting everything, bit by bit. Sums over all tokens are the one difficulty: in floating point they
//! depend on the order of the summands. A sum in any order brackets the sum in sorted order ([`Bracket`]), rounding is
//! monotone, and so a comparison that comes out the same at both ends of the bracket comes out so for the sorted sum. If it
//! does not, everything is sorted after all.

/// Logits that are looked at together: independent lanes, which compilers turn into vectors.
const TOGETHER: usize = 32;

/// Up to here sorting everything is as cheap as selecting.
const FEW: usize = 64;

/// Columns that a vocabulary is laid out in to bound the best `k` from below.
const COLUMNS: usize = 1024;

/// A token and its logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
}

/// Best first; the lower id first among equals.
#[allow(clippy::trivially_copy_pass_by_ref)] // the form that sorting takes
pub(super) fn order(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Working memory of a [`Pool`], kept from token to token.
#[derive(Debug)]
pub(super) struct Scratch {
    changed: Vec<f32>,
    maxima: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Scratch {
    /// For `vocab` tokens. Memory that no stage asks for is never touched.
    pub(super) fn new(vocab: usize) -> Self {
        Self {
            changed: Vec::with_capacity(vocab),
            maxima: Vec::with_capacity(COLUMNS),
            candidates: Vec::with_capacity(vocab),
        }
    }

    /// All tokens, with logits that are no NaN.
    pub(super) fn pool<'a>(&'a mut self, logits: &'a [f32]) -> Pool<'a> {
        Pool { given: logits, scratch: self, left: Left::Given }
    }
}

/// Where the logits of what is left are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    /// All tokens, with the logits that were given.
    Given,
    /// All tokens, with logits in [`Scratch::changed`].
    Changed,
    /// Those in [`Scratch::candidates`].
    Some,
}

/// The tokens left over.
pub(super) struct Pool<'a> {
    given: &'a [f32],
    scratch: &'a mut Scratch,
    left: Left,
}

impl Pool<'_> {
    /// Logits of all tokens, to be changed, while none is left out.
    fn all_mut(&mut self) -> Option<&mut [f32]> {
        if self.left == Left::Given {
            self.scratch.changed.clear();
            self.scratch.changed.extend_from_slice(self.given);
            self.left = Left::Changed;
        }
        (self.left == Left::Changed).then_some(&mut *self.scratch.changed)
    }

    /// What is left, as a list.
    fn list(&mut self) -> &mut Vec<Candidate> {
        let Scratch { changed, candidates, .. } = &mut *self.scratch;
        let logits = match self.left {
            Left::Given => self.given,
            Left::Changed => changed,
            Left::Some => return candidates,
        };
        candidates.clear();
        candidates.extend((0u32..).zip(logits).map(|(id, &logit)| Candidate { id, logit }));
        self.left = Left::Some;
        candidates
    }

    /// The most likely of all tokens, the first among equals; `None` if nothing is above −∞ or tokens were left out.
    pub(super) fn best(&self) -> Option<u32> {
        match self.left {
            Left::Given => super::argmax(self.given),
            Left::Changed => super::argmax(&self.scratch.changed),
            Left::Some => None,
        }
    }

    /// Changes the logit of token `id`, if it is left.
    pub(super) fn change(&mut self, id: u32, f: impl Fn(f32) -> f32) {
        let logit = match self.all_mut() {
            Some(logits) => logits.get_mut(id as usize),
            None => self.scratch.candidates.iter_mut().find(|c| c.id == id).map(|c| &mut c.logit),
        };
        if let Some(logit) = logit {
            *logit = f(*logit);
        }
    }

    /// Divides all logits.
    pub(super) fn divide(&mut self, temperature: f32) {
        match self.all_mut() {
            Some(logits) => logits.iter_mut().for_each(|x| *x /= temperature),
            None => self.scratch.candidates.iter_mut().for_each(|c| c.logit /= temperature),
        }
    }

    /// Leaves the `k` best.
    pub(super) fn keep_best(&mut self, k: usize) {
        let Scratch { changed, maxima, candidates } = &mut *self.scratch;
        let logits = match self.left {
            Left::Given => self.given,
            Left::Changed => changed,
            Left::Some => &[],
        };
        // The `k`-th largest of the columns' maxima: `k` logits at least reach it, so whatever is below is not among the
        // best, and few others do. Columns, not rows: their maxima are vectors. Not worth it for few rows or many best.
        if k > 0 && k <= COLUMNS / 4 && logits.len() >= 4 * COLUMNS {
            maxima.clear();
            maxima.resize(COLUMNS, f32::NEG_INFINITY);
            for row in logits.chunks(COLUMNS) {
                maxima.iter_mut().zip(row).for_each(|(best, &x)| *best = larger(*best, x));
            }
            let (_, &mut floor, _) = maxima.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
            at_least(logits, floor, candidates);
            self.left = Left::Some;
        }
        let list = self.list();
        if k > 0 && k < list.len() {
            list.select_nth_unstable_by(k - 1, order);
            list.truncate(k);
        }
    }

    /// Leaves what is at least `p` times as likely as the best.
    pub(super) fn keep_likely(&mut self, p: f32) {
        let floor = |best: f32| best + p.ln();
        let Scratch { changed, candidates, .. } = &mut *self.scratch;
        match self.left {
            Left::Given => at_least(self.given, floor(largest(self.given)), candidates),
            Left::Changed => at_least(changed, floor(largest(changed)), candidates),
            Left::Some => {
                let floor = floor(candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max));
                candidates.retain(|c| c.logit >= floor);
            }
        }
        self.left = Left::Some;
    }

    /// Leaves the smallest set of the best that has mass `p`.
    pub(super) fn keep_mass(&mut self, p: f32) {
        let list = self.list();
        let p = f64::from(p);
        let walk = |total: Bracket, list: &mut [Candidate]| {
            let mut mass = 0.0;
            Sorted::new(list, total.best).find(|w| {
                mass += f64::from(w);
                (mass >= p * total.high, mass >= p * total.low)
            })
        };
        if let Found::At(last) = find(list, walk) {
            list.truncate(last + 1);
        }
    }

    /// Draws from the softmax of what is left; `uniform` is asked for a number in [0, 1) once there is something to draw from.
    /// `None` if no logit is finite, or one is +∞.
    pub(super) fn draw(&mut self, uniform: impl FnOnce() -> f64) -> Option<u32> {
        let list = self.list();
        if !best_of(list).is_finite() {
            return None;
        }
        let u = uniform();
        let walk = |total: Bracket, list: &mut [Candidate]| {
            let (mut low, mut high) = (u * total.low, u * total.high);
            Sorted::new(list, total.best).find(|w| {
                low -= f64::from(w);
                high -= f64::from(w);
                (high < 0.0, low < 0.0)
            })
        };
        let at = match find(list, walk) {
            Found::At(i) => Some(i),
            // Rounding: the last candidate that has any weight. Everything is in order now.
            Found::Never | Found::Unclear => {
                let best = best_of(list);
                list.iter().rposition(|c| weight(c, best) > 0.0)
            }
        };
        list.get(at?).map(|c| c.id)
    }
}

/// Bounds of the sum of all weights, as it would come out in sorted order.
#[derive(Debug, Clone, Copy)]
struct Bracket {
    /// The highest logit, whose weight is 1.
    best: f32,
    low: f64,
    high: f64,
}

impl Bracket {
    /// From a sum in whatever order.
    fn around(list: &[Candidate], best: f32) -> Self {
        let sum: f64 = list.iter().map(|c| f64::from(weight(c, best))).sum();
        // A sum of n positive summands, in any order, errs by less than (n - 1) · 2^-53 of itself, and two such sums differ
        // by less than twice that (Higham 2002, Accuracy and Stability of Numerical Algorithms, §4.2). Twice that again
        // covers the rounding of the bounds.
        let slack = list.len() as f64 * f64::EPSILON * 2.0;
        Self { best, low: sum * (1.0 - slack), high: sum * (1.0 + slack) }
    }

    /// Of a list that is in order.
    fn exact(list: &[Candidate]) -> Self {
        let best = list.first().map_or(0.0, |c| c.logit);
        let sum = list.iter().map(|c| f64::from(weight(c, best))).sum();
        Self { best, low: sum, high: sum }
    }
}

/// Where a walk over the best ended.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Found {
    At(usize),
    /// At no candidate.
    Never,
    /// The bracket is too wide to say.
    Unclear,
}

/// What `walk` finds with the sum of all weights in sorted order.
fn find(list: &mut [Candidate], walk: impl Fn(Bracket, &mut [Candidate]) -> Found) -> Found {
    let best = best_of(list);
    if list.len() > FEW && best.is_finite() {
        let found = walk(Bracket::around(list, best), list);
        if found != Found::Unclear {
            return found;
        }
    }
    list.sort_unstable_by(order);
    walk(Bracket::exact(list), list)
}

/// A list that is put in order from the front, as far as it is looked at.
struct Sorted<'a> {
    list: &'a mut [Candidate],
    best: f32,
}

impl<'a> Sorted<'a> {
    fn new(list: &'a mut [Candidate], best: f32) -> Self {
        Self { list, best }
    }

    /// Asks `at` about the weights, from the best candidate on, until it says yes to the first question. A yes to the second
    /// one alone is unclear.
    fn find(self, mut at: impl FnMut(f32) -> (bool, bool)) -> Found {
        let n = self.list.len();
        let (mut from, mut until) = (0, FEW.min(n));
        while from < n {
            if until < n {
                self.list[from..].select_nth_unstable_by(until - from - 1, order);
            }
            self.list[from..until].sort_unstable_by(order);
            for (i, c) in self.list[from..until].iter().enumerate() {
                match at(weight(c, self.best)) {
                    (true, _) => return Found::At(from + i),
                    (false, true) => return Found::Unclear,
                    (false, false) => {}
                }
            }
            // A selection looks at all that is left, so there should be few of them.
            (from, until) = (until, until.saturating_mul(8).min(n));
        }
        Found::Never
    }
}

/// Probability relative to the best.
#[allow(clippy::trivially_copy_pass_by_ref)] // the form that iterators give
fn weight(c: &Candidate, best: f32) -> f32 {
    (c.logit - best).exp()
}

fn best_of(list: &[Candidate]) -> f32 {
    list.iter().map(|c| c.logit).max_by(f32::total_cmp).unwrap_or(f32::NEG_INFINITY)
}

/// Makes `out` the tokens whose logit is at least `floor`.
fn at_least(logits: &[f32], floor: f32, out: &mut Vec<Candidate>) {
    out.clear();
    for (first, block) in (0u32..).step_by(TOGETHER).zip(logits.chunks(TOGETHER)) {
        // Counted, not asked for any: that would be a branch per logit.
        if block.iter().filter(|&&x| x >= floor).count() > 0 {
            let ids = (first..).zip(block);
            out.extend(ids.filter(|&(_, &x)| x >= floor).map(|(id, &logit)| Candidate { id, logit }));
        }
    }
}

/// False for NaN, so NaN never wins.
fn larger(best: f32, x: f32) -> f32 {
    if x > best { x } else { best }
}

/// The largest value; −∞ of none. NaN is never it.
pub(super) fn largest(logits: &[f32]) -> f32 {
    let (blocks, rest) = logits.as_chunks::<TOGETHER>();
    let mut lanes = [f32::NEG_INFINITY; TOGETHER];
    for block in blocks {
        for (best, &x) in lanes.iter_mut().zip(block) {
            *best = larger(*best, x);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |best, &x| larger(best, x))
}

/// The first NaN.
pub(super) fn first_nan(logits: &[f32]) -> Option<usize> {
    let (blocks, rest) = logits.as_chunks::<TOGETHER>();
    let block = blocks.iter().position(|block| block.iter().fold(false, |nan, x| nan | x.is_nan()));
    let (from, part) = block.map_or((blocks.len() * TOGETHER, rest), |i| (i * TOGETHER, &blocks[i]));
    part.iter().position(|x| x.is_nan()).map(|i| from + i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_that_a_bracket_cannot_decide_are_formed_in_order() {
        // Half of the mass of equal weights is reached exactly: the bracket's ends disagree.
        let logits = [1.5f32; 2 * FEW];
        let list: Vec<Candidate> = (0u32..).zip(&logits).map(|(id, &logit)| Candidate { id, logit }).collect();
        let total = Bracket::around(&list, 1.5);
        assert!(total.low < 128.0 && total.high > 128.0 && total.high - total.low < 1e-10);
        let mut mass = 0.0;
        let found = Sorted::new(&mut list.clone(), 1.5).find(|w| {
            mass += f64::from(w);
            (mass >= 0.5 * total.high, mass >= 0.5 * total.low)
        });
        assert_eq!(found, Found::Unclear);
        let mut scratch = Scratch::new(logits.len());
        let mut pool = scratch.pool(&logits);
        pool.keep_mass(0.5);
        assert_eq!(pool.list().len(), FEW);
    }

    #[test]
    fn few_of_a_large_vocabulary_are_looked_at_in_order() {
        let logits: Vec<f32> = (0..8 * COLUMNS).map(|i| ((i * 7919) % (8 * COLUMNS)) as f32).collect();
        let mut scratch = Scratch::new(logits.len());
        let mut pool = scratch.pool(&logits);
        pool.keep_best(3);
        let best: Vec<f32> = pool.list().iter().map(|c| c.logit).collect();
        assert!(best.iter().all(|&x| x >= (8 * COLUMNS - 3) as f32) && best.len() == 3, "{best:?}");
    }
}
