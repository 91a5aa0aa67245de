//! Budgets written down by a person, in TOML.
//!
//! ```toml
//! # All keys are optional.
//! model = "smollm2-135m"      # what the budgets are for; free text, shown in reports
//! machine = "2-core Zen 4"    # likewise
//! note = "after the first round of fusion"
//! phase = "decode"            # prefill, decode or mixed; without it the budgets hold for every phase
//!
//! [kinds]                     # µs per token of each brick of a kind (one layer's QKV, not all of them)
//! QKV = 6.0
//! RmsNorm = 1.5
//!
//! [bricks]                    # µs per token of bricks whose name matches; wins over [kinds]
//! "blk.*.ffn_down" = 4.2      # * any characters, ? one character
//! "blk.0.ffn_down" = 5.0      # of several patterns that match, the one with most literal characters wins
//! ```

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use bricks::{BrickKind, BudgetOrigin, TokenBudget};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::glob;
use crate::step::{Phase, StepInfo};

/// A budget file does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}, line {line}: expected {expected}, found {found}")]
pub struct BudgetFileError {
    /// Name of the file.
    pub file: String,
    /// Line, counted from 1; 0 when the file could not be read.
    pub line: usize,
    /// What may stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

/// The budgets of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetFile {
    file: String,
    model: Option<String>,
    machine: Option<String>,
    note: Option<String>,
    phase: Option<Phase>,
    kinds: BTreeMap<BrickKind, TokenBudget>,
    /// Most specific pattern first.
    bricks: Vec<(String, TokenBudget)>,
}

impl BudgetFile {
    /// The files that come with the profiler: name and content.
    pub const BUILTIN: [(&'static str, &'static str); 2] = [
        ("default", include_str!("../../budgets/default.toml")),
        ("qwen2.5-1.5b-rtx4090", include_str!("../../budgets/qwen2.5-1.5b-rtx4090.toml")),
    ];

    /// One of [`BUILTIN`](Self::BUILTIN) by name.
    pub fn builtin(name: &str) -> Option<Self> {
        let (name, text) = Self::BUILTIN.into_iter().find(|(n, _)| *n == name)?;
        Some(Self::parse(name, text).expect("invariant: the files that come with the profiler are tested"))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or [`parse`](Self::parse) refuses it.
    pub fn read(path: &Path) -> Result<Self, BudgetFileError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&file, &text),
            Err(e) => Err(BudgetFileError { file, line: 0, expected: "a readable file".into(), found: e.to_string() }),
        }
    }

    /// Parses the content of a file; `file` is its name in errors and reports.
    ///
    /// # Errors
    /// The first thing that is not as described above, with its line.
    pub fn parse(file: &str, text: &str) -> Result<Self, BudgetFileError> {
        let at = Location { file, text };
        let document =
            DeTable::parse(text).map_err(|e| at.error(e.span().unwrap_or(0..0), "TOML", e.message().to_owned()))?;
        let mut all = Self {
            file: file.to_owned(),
            model: None,
            machine: None,
            note: None,
            phase: None,
            kinds: BTreeMap::new(),
            bricks: Vec::new(),
        };
        for (key, value) in document.get_ref() {
            match &**key.get_ref() {
                "model" => all.model = Some(at.string(value)?),
                "machine" => all.machine = Some(at.string(value)?),
                "note" => all.note = Some(at.string(value)?),
                "phase" => {
                    let name = at.string(value)?;
                    let phase = Phase::ALL.into_iter().find(|p| p.name() == name);
                    all.phase = Some(
                        phase.ok_or_else(|| at.error(value.span(), "prefill, decode or mixed", format!("{name:?}")))?,
                    );
                }
                "kinds" => {
                    for (key, value) in at.table(value)? {
                        let kind = kind_by_name(key.get_ref()).ok_or_else(|| {
                            let names: Vec<_> = BrickKind::ALL.iter().map(|k| k.name()).collect();
                            at.error(
                                key.span(),
                                &format!("one of {}", names.join(", ")),
                                format!("{:?}", key.get_ref()),
                            )
                        })?;
                        if all.kinds.insert(kind, at.budget(value)?).is_some() {
                            return Err(at.error(key.span(), "each kind once", format!("{kind} again")));
                        }
                    }
                }
                "bricks" => {
                    for (key, value) in at.table(value)? {
                        all.bricks.push((key.get_ref().to_string(), at.budget(value)?));
                    }
                }
                other => {
                    let expected = "model, machine, note, phase, [kinds] or [bricks]";
                    return Err(at.error(key.span(), expected, format!("{other:?}")));
                }
            }
        }
        all.bricks.sort_by(|(a, _), (b, _)| glob::specificity(b).cmp(&glob::specificity(a)).then_with(|| a.cmp(b)));
        Ok(all)
    }

    /// Budget of a step.
    pub fn budget(&self, step: &StepInfo, phase: Phase) -> Option<TokenBudget> {
        if self.phase.is_some_and(|p| p != phase) {
            return None;
        }
        let by_name = self.bricks.iter().find(|(pattern, _)| glob::matches(pattern, &step.name)).map(|(_, b)| *b);
        by_name.or_else(|| self.kinds.get(&step.kind).copied())
    }

    /// Budget of each brick of a kind.
    pub fn kind_budget(&self, kind: BrickKind, phase: Phase) -> Option<TokenBudget> {
        self.kinds.get(&kind).copied().filter(|_| self.phase.is_none_or(|p| p == phase))
    }

    /// File and what it says about itself, in one line.
    pub fn describe(&self) -> String {
        let mut line = format!("explicit: {}", self.file);
        let facts = [("for ", &self.model), ("on ", &self.machine), ("", &self.note)];
        for (before, fact) in facts.iter().filter_map(|(b, f)| f.as_ref().map(|f| (b, f))) {
            line.push_str(", ");
            line.push_str(before);
            line.extend(fact.chars().map(|c| if c.is_control() { ' ' } else { c }));
        }
        line
    }
}

/// `RmsNorm`, `rms_norm`, `rmsnorm`.
fn kind_by_name(name: &str) -> Option<BrickKind> {
    let plain = |s: &str| s.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect::<String>();
    BrickKind::ALL.into_iter().find(|k| plain(k.name()) == plain(name))
}

/// The file being parsed, for errors.
struct Location<'a> {
    file: &'a str,
    text: &'a str,
}

impl Location<'_> {
    fn error(&self, span: Range<usize>, expected: &str, found: String) -> BudgetFileError {
        let before = self.text.as_bytes().get(..span.start).unwrap_or(self.text.as_bytes());
        let line = before.split(|&b| b == b'\n').count();
        BudgetFileError { file: self.file.to_owned(), line, expected: expected.to_owned(), found }
    }

    fn string(&self, value: &Spanned<DeValue<'_>>) -> Result<String, BudgetFileError> {
        match value.get_ref() {
            DeValue::String(s) => Ok(s.to_string()),
            other => Err(self.error(value.span(), "a string", kind_of(other))),
        }
    }

    fn table<'v, 'i>(&self, value: &'v Spanned<DeValue<'i>>) -> Result<&'v DeTable<'i>, BudgetFileError> {
        match value.get_ref() {
            DeValue::Table(t) => Ok(t),
            other => Err(self.error(value.span(), "a table", kind_of(other))),
        }
    }

    fn budget(&self, value: &Spanned<DeValue<'_>>) -> Result<TokenBudget, BudgetFileError> {
        let (number, text) = match value.get_ref() {
            DeValue::Float(f) => (f.as_str().parse::<f64>().ok(), f.as_str()),
            DeValue::Integer(i) if i.radix() == 10 => (i.as_str().parse::<f64>().ok(), i.as_str()),
            other => return Err(self.error(value.span(), "a number of µs per token", kind_of(other))),
        };
        number
            .and_then(|us| TokenBudget::from_latency(us, BudgetOrigin::Explicit))
            .ok_or_else(|| self.error(value.span(), "a finite number of µs per token above 0", text.to_owned()))
    }
}

fn kind_of(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(s) => format!("the string {s:?}"),
        DeValue::Integer(i) => format!("the integer {}", i.as_str()),
        DeValue::Float(f) => format!("the number {}", f.as_str()),
        DeValue::Boolean(b) => format!("{b}"),
        DeValue::Datetime(d) => format!("the date {d}"),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::step;

    fn us(file: &BudgetFile, name: &str, kind: BrickKind) -> Option<f64> {
        file.budget(&step(name, kind, None), Phase::Decode).map(|b| b.us_per_token())
    }

    #[test]
    fn the_shipped_targets_are_those_of_the_specification() {
        let file = BudgetFile::builtin("qwen2.5-1.5b-rtx4090").unwrap();
        let layer = [
            (BrickKind::RmsNorm, 1.5),
            (BrickKind::Qkv, 6.0),
            (BrickKind::Rope, 1.0),
            (BrickKind::Attention, 10.0),
            (BrickKind::OProj, 3.5),
            (BrickKind::Residual, 0.5),
            (BrickKind::RmsNorm, 1.5),
            (BrickKind::GateUp, 6.0),
            (BrickKind::Activation, 2.0),
            (BrickKind::Down, 4.2),
            (BrickKind::Residual, 0.5),
        ];
        for (kind, expected) in layer {
            assert_eq!(us(&file, "x", kind), Some(expected), "{kind}");
        }
        let sum: f64 = layer.iter().map(|(_, us)| us).sum();
        assert!((sum - 36.7).abs() < 1e-9, "{sum}");
        assert_eq!(us(&file, "x", BrickKind::LmHead), None);
        assert_eq!(file.budget(&step("x", BrickKind::Qkv, None), Phase::Prefill), None, "targets of decode only");
        assert_eq!(
            file.describe(),
            "explicit: qwen2.5-1.5b-rtx4090, for qwen2.5-1.5b-q4_k_m, on RTX 4090, target of 976 tok/s, twice a baseline of 488"
        );
    }

    #[test]
    fn every_shipped_file_parses() {
        for (name, _) in BudgetFile::BUILTIN {
            assert!(!BudgetFile::builtin(name).unwrap().kinds.is_empty(), "{name}");
        }
        assert_eq!(BudgetFile::builtin("nothing"), None);
        let default = BudgetFile::builtin("default").unwrap();
        assert_eq!(us(&default, "x", BrickKind::Attention), Some(25.0));
        assert_eq!(us(&default, "x", BrickKind::Residual), Some(3.0));
    }

    #[test]
    fn names_win_over_kinds_and_literal_ones_over_patterns() {
        let text = "[kinds]\nqkv = 6\nrms_norm = 1_0.5\n[bricks]\n\"blk.*\" = 9\n\"blk.*.attn_qkv\" = 3.0\n\"blk.0.attn_qkv\" = 2e0\n";
        let file = BudgetFile::parse("b.toml", text).unwrap();
        assert_eq!(us(&file, "blk.0.attn_qkv", BrickKind::Qkv), Some(2.0));
        assert_eq!(us(&file, "blk.1.attn_qkv", BrickKind::Qkv), Some(3.0));
        assert_eq!(us(&file, "blk.1.other", BrickKind::Qkv), Some(9.0));
        assert_eq!(us(&file, "x", BrickKind::Qkv), Some(6.0));
        assert_eq!(us(&file, "x", BrickKind::RmsNorm), Some(10.5));
        assert_eq!(us(&file, "x", BrickKind::Down), None);
    }

    #[test]
    fn errors_name_file_line_and_what_was_expected() {
        for (text, line, expected) in [
            ("model = 3", 1, "expected a string, found the integer 3"),
            ("\nspeed = 1", 2, "expected model, machine, note, phase, [kinds] or [bricks], found \"speed\""),
            ("phase = \"warm\"", 1, "expected prefill, decode or mixed, found \"warm\""),
            ("[kinds]\nQKV = 1\nqkv = 2", 3, "expected each kind once, found QKV again"),
            ("[kinds]\n\nGemm = 1", 3, "expected one of Embed, RmsNorm"),
            ("[kinds]\nQKV = 0", 2, "above 0, found 0"),
            ("[kinds]\nQKV = -1.5", 2, "above 0, found -1.5"),
            ("[kinds]\nQKV = nan", 2, "above 0, found nan"),
            ("[kinds]\nQKV = +inf", 2, "above 0, found +inf"),
            ("[kinds]\nQKV = 0x10", 2, "a number of µs per token"),
            ("[kinds]\nQKV = \"6\"", 2, "found the string \"6\""),
            ("[kinds]\nQKV = [6]", 2, "found an array"),
            ("kinds = 1", 1, "expected a table"),
            ("[bricks]\n\"a\" = 1\n\"a\" = 2", 3, "expected TOML"),
            ("[kinds]\nQKV = ", 2, "expected TOML"),
            ("\u{0}", 1, "expected TOML"),
        ] {
            let e = BudgetFile::parse("b.toml", text).unwrap_err();
            assert_eq!((e.file.as_str(), e.line), ("b.toml", line), "{e}");
            assert!(e.to_string().contains(expected), "{e} should say {expected:?}");
        }
        let e = BudgetFile::read(Path::new("/nonexistent/b.toml")).unwrap_err();
        assert!(e.to_string().starts_with("/nonexistent/b.toml, line 0: expected a readable file"), "{e}");
    }

    #[test]
    fn an_empty_file_has_no_budgets() {
        let file = BudgetFile::parse("b.toml", "").unwrap();
        assert_eq!(us(&file, "x", BrickKind::Qkv), None);
        assert_eq!(file.describe(), "explicit: b.toml");
    }
}
