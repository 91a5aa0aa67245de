//! The score board: every claim with its verdict, as text, Markdown and JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::claim::{Claim, Family, Verdict};
use crate::context::Context;

/// Version of the JSON form of [`Board`]; changes when a field changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// One claim and its verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Id of the claim.
    pub id: String,
    /// What it is about.
    pub family: Family,
    /// What it says.
    pub statement: String,
    /// Where the line between true and false is.
    pub threshold: String,
    /// `verdict` (`corroborated`, `falsified`, `not_testable`) with `evidence`, `expected` and `found`, or `reason`.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// How many claims got which verdict. What could not be tested is counted apart and is never a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Score {
    /// Experiments that ran and did not falsify.
    pub corroborated: usize,
    /// Experiments that ran and falsified.
    pub falsified: usize,
    /// Experiments that could not be made.
    pub not_testable: usize,
}

impl Score {
    /// Claims in all.
    pub const fn total(&self) -> usize {
        self.corroborated + self.falsified + self.not_testable
    }

    fn add(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Corroborated { .. } => self.corroborated += 1,
            Verdict::Falsified { .. } => self.falsified += 1,
            Verdict::NotTestable { .. } => self.not_testable += 1,
        }
    }
}

/// Claims with their verdicts.
///
/// Its JSON form: `schema` (number), `score` (`corroborated`, `falsified`, `not_testable`), and `claims`, a list of objects
/// with `id`, `family`, `statement`, `threshold`, `verdict`, and beside `verdict` the fields of [`Verdict`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Board {
    /// Version of this form.
    pub schema: u32,
    /// The count.
    pub score: Score,
    /// The claims, by family, then in the order of the registry.
    pub claims: Vec<Entry>,
}

impl Board {
    /// A board of entries, which are put in order.
    pub fn new(mut claims: Vec<Entry>) -> Self {
        claims.sort_by_key(|e| e.family);
        let mut score = Score::default();
        for e in &claims {
            score.add(&e.verdict);
        }
        Self { schema: SCHEMA_VERSION, score, claims }
    }

    /// Makes the experiments of these claims, one after the other.
    pub fn of(claims: &[Claim], context: &Context) -> Self {
        Self::new(claims.iter().map(|c| Entry::new(c, c.judge(context))).collect())
    }

    /// Whether no experiment falsified its claim. True of a board on which nothing could be tested: look at the score, too.
    pub const fn stands(&self) -> bool {
        self.score.falsified == 0
    }

    /// The count of one family.
    pub fn score_of(&self, family: Family) -> Score {
        let mut score = Score::default();
        self.of_family(family).for_each(|e| score.add(&e.verdict));
        score
    }

    fn of_family(&self, family: Family) -> impl Iterator<Item = &Entry> {
        self.claims.iter().filter(move |e| e.family == family)
    }

    /// The board for a terminal, ending in a line break.
    pub fn text(&self) -> String {
        let width = self.claims.iter().map(|e| e.id.chars().count()).max().unwrap_or(0);
        let mut out = String::new();
        for family in Family::ALL.into_iter().filter(|f| self.score_of(*f).total() > 0) {
            let _ = writeln!(out, "{family}: {}", in_words(self.score_of(family)));
            for e in self.of_family(family) {
                let _ = writeln!(out, "  {:width$}  {:12}  {}", e.id, e.verdict.word(), e.statement);
                let indent = width + 18;
                match &e.verdict {
                    Verdict::Corroborated { evidence } => line(&mut out, indent, "", evidence),
                    Verdict::Falsified { expected, found } => {
                        line(&mut out, indent, "expected ", expected);
                        line(&mut out, indent, "found    ", found);
                    }
                    Verdict::NotTestable { reason } => line(&mut out, indent, "", reason),
                }
            }
            out.push('\n');
        }
        let _ = writeln!(out, "{} claims: {}", self.score.total(), in_words(self.score));
        out
    }

    /// The board as Markdown, ending in a line break.
    pub fn markdown(&self) -> String {
        let mut out =
            String::from("| family | corroborated | falsified | not testable |\n| --- | ---: | ---: | ---: |\n");
        let row =
            |name: &str, s: Score| format!("| {name} | {} | {} | {} |\n", s.corroborated, s.falsified, s.not_testable);
        for family in Family::ALL.into_iter().filter(|f| self.score_of(*f).total() > 0) {
            out.push_str(&row(family.name(), self.score_of(family)));
        }
        out.push_str(&row("**all**", self.score));
        for family in Family::ALL.into_iter().filter(|f| self.score_of(*f).total() > 0) {
            let _ = write!(
                out,
                "\n## {family}\n\n| id | claim | threshold | verdict | seen |\n| --- | --- | --- | --- | --- |\n"
            );
            for e in self.of_family(family) {
                let seen = match &e.verdict {
                    Verdict::Corroborated { evidence } => evidence.clone(),
                    Verdict::Falsified { expected, found } => format!("expected {expected}; found {found}"),
                    Verdict::NotTestable { reason } => reason.clone(),
                };
                let cells = [&e.id, &e.statement, &e.threshold, e.verdict.word(), &seen].map(cell);
                let _ = writeln!(out, "| {} |", cells.join(" | "));
            }
        }
        out
    }

    /// The board as JSON, ending in a line break.
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("invariant: strings and numbers serialise");
        text.push('\n');
        text
    }
}

impl Entry {
    /// A claim with the verdict on it.
    pub fn new(claim: &Claim, verdict: Verdict) -> Self {
        Self {
            id: claim.id.to_owned(),
            family: claim.family,
            statement: claim.statement.to_owned(),
            threshold: claim.threshold.to_owned(),
            verdict,
        }
    }
}

fn in_words(s: Score) -> String {
    format!("{} corroborated, {} falsified, {} not testable", s.corroborated, s.falsified, s.not_testable)
}

/// Text under the statement; its own line breaks keep the indentation.
fn line(out: &mut String, indent: usize, label: &str, text: &str) {
    for (i, part) in text.lines().enumerate() {
        let label = if i == 0 { label } else { &" ".repeat(label.len()) };
        let _ = writeln!(out, "{:indent$}{label}{part}", "");
    }
}

/// Text in a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('\n', "<br>")
}
