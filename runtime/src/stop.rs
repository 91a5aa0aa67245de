//! Stop strings across token borders.

/// Passes text through until a stop string appears, holding back only what could still become one.
#[derive(Debug, Clone, Default)]
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
}

/// What became of the text pushed into a [`StopFilter`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopOutcome {
    /// Text that is safe to show.
    Text(String),
    /// The text before the stop string, and the stop string.
    Stopped(String, String),
}

impl StopFilter {
    /// A filter for these stop strings; empty ones are ignored.
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Adds generated text.
    pub fn push(&mut self, text: &str) -> StopOutcome {
        if self.stops.is_empty() {
            return StopOutcome::Text(text.to_owned());
        }
        self.held.push_str(text);
        // The earliest stop string wins; the longest among those that start at the same place.
        let found = self
            .stops
            .iter()
            .filter_map(|s| self.held.find(s.as_str()).map(|at| (at, std::cmp::Reverse(s.len()), s)))
            .min();
        if let Some((at, _, stop)) = found {
            let stop = stop.clone();
            let before = self.held[..at].to_owned();
            self.held.clear();
            return StopOutcome::Stopped(before, stop);
        }
        // Hold back the longest end of the text that begins a stop string.
        let mut keep = 0;
        for s in &self.stops {
            let longest = s.len().min(self.held.len());
            let n = (1..=longest)
                .rev()
                .find(|&n| s.is_char_boundary(n) && self.held.as_bytes().ends_with(&s.as_bytes()[..n]))
                .unwrap_or(0);
            keep = keep.max(n);
        }
        let rest = self.held.split_off(self.held.len() - keep);
        StopOutcome::Text(std::mem::replace(&mut self.held, rest))
    }

    /// What is still held back at the end.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut f = StopFilter::new(&stops);
        let mut out = String::new();
        for p in pieces {
            match f.push(p) {
                StopOutcome::Text(t) => out.push_str(&t),
                StopOutcome::Stopped(t, s) => return (out + &t, Some(s)),
            }
        }
        (out + &f.finish(), None)
    }

    #[test]
    fn finds_a_stop_string_cut_anywhere() {
        assert_eq!(run(&["</end>"], &["ab<", "/e", "nd>tail"]), ("ab".into(), Some("</end>".into())));
        assert_eq!(run(&["</end>"], &["ab<", "/e", "xd>"]), ("ab</exd>".into(), None));
        assert_eq!(run(&["ü!"], &["aü", "ü!"]), ("aü".into(), Some("ü!".into())));
        assert_eq!(run(&["", "b"], &["ab"]), ("a".into(), Some("b".into())));
        assert_eq!(run(&["bc", "b"], &["ab", "c"]), ("a".into(), Some("b".into())), "b is complete first");
        assert_eq!(run(&["bc", "b"], &["abc"]), ("a".into(), Some("bc".into())), "the longest at the same place");
    }

    proptest! {
        /// However the text is cut, the result is that of searching the whole text (one stop string).
        #[test]
        fn cutting_does_not_matter(text in "[abü]{0,30}", stop in "[abü]{1,3}", cuts in proptest::collection::vec(0usize..30, 0..6)) {
            let mut at: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).filter(|&c| text.is_char_boundary(c)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let pieces: Vec<&str> = at.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            let expected = match text.find(&stop) {
                Some(i) => (text[..i].to_owned(), Some(stop.clone())),
                None => (text.clone(), None),
            };
            prop_assert_eq!(run(&[&stop], &pieces), expected);
        }
    }
}
