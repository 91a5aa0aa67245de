//! Counts on record: a text file that is reviewed like code, the comparison with it, and what it says about speed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::cases::{Case, TOKENS};
use super::{Counts, cases};

/// Version of the file's form.
const SCHEMA: u32 = 1;

/// Instructions that a core finishes per cycle at best, on the processors with AVX2 since 2013 (some since 2021 manage 6): what
/// bounds are computed with.
const PER_CYCLE: f64 = 4.0;

/// One case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Instructions of one call, without those of libraries.
    pub instructions: u64,
    /// Instructions of libraries (copying, clearing): they differ between systems and are not compared.
    pub library: u64,
    /// Units of work of one call.
    pub work: u64,
    /// What `work` counts.
    pub unit: String,
}

impl Entry {
    /// Instructions per unit of work.
    pub fn per_unit(&self) -> f64 {
        self.instructions as f64 / self.work as f64
    }
}

/// A file of counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    schema: u32,
    /// Level of the kernels.
    pub level: String,
    /// Compiler, target and options ([`super::build`]).
    pub build: String,
    /// What counted.
    pub valgrind: String,
    /// How far a count may be from the recorded one, in per cent of it.
    pub limit_percent: f64,
    /// By name.
    pub counts: BTreeMap<String, Entry>,
}

/// A file of counts cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Not the form that this program writes.
    #[error("not a file of counts: {0}")]
    Form(#[from] toml::de::Error),
    /// A later or earlier form.
    #[error("schema {found}: expected {SCHEMA}")]
    Schema {
        /// The file's.
        found: u32,
    },
    /// A case without work, or a limit that is none.
    #[error("{what}: expected a positive number, found {found}")]
    Number {
        /// Which number.
        what: String,
        /// Its value.
        found: f64,
    },
}

/// What distinguishes two sets of counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// A count beyond the limit, in either direction.
    Count {
        /// The case.
        case: String,
        /// On record.
        recorded: Entry,
        /// Now.
        measured: Entry,
    },
    /// The case is another one than it was: other data or another shape.
    Work {
        /// The case.
        case: String,
        /// On record.
        recorded: Entry,
        /// Now.
        measured: Entry,
    },
    /// Recorded, but not counted any more.
    Gone {
        /// The case.
        case: String,
    },
    /// Counted, but not recorded.
    New {
        /// The case.
        case: String,
        /// Its count.
        measured: Entry,
    },
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count { case, recorded: a, measured: b } => write!(
                f,
                "{case}: {} instructions, recorded {}: {:+.2} % ({:.4} per {}, recorded {:.4})",
                b.instructions,
                a.instructions,
                100.0 * (b.instructions as f64 / a.instructions as f64 - 1.0),
                b.per_unit(),
                b.unit,
                a.per_unit(),
            ),
            Self::Work { case, recorded: a, measured: b } => {
                write!(f, "{case}: a call is {} {}s, recorded {} {}s", b.work, b.unit, a.work, a.unit)
            }
            Self::Gone { case } => write!(f, "{case}: recorded, but there is no such case"),
            Self::New { case, measured } => write!(f, "{case}: {} instructions, not recorded", measured.instructions),
        }
    }
}

/// Counts against those on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Whether both were compiled by the same compiler with the same options. If not, other counts are no failure.
    pub same_build: bool,
    /// Cases that are in both.
    pub compared: usize,
    /// What differs, by name of the case.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// Whether something differs that no compiler explains.
    pub fn fails(&self) -> bool {
        self.differences.iter().any(|d| self.same_build || !matches!(d, Difference::Count { .. }))
    }
}

impl Snapshot {
    /// Counts of this program.
    pub fn new(level: &str, valgrind: &str, limit_percent: f64, counts: &Counts) -> Self {
        let entry = |case: Case| {
            let count = counts.get(&case.name)?;
            let (unit, work) = (case.unit.to_owned(), case.work);
            Some((case.name, Entry { instructions: count.own, library: count.library, work, unit }))
        };
        Self {
            schema: SCHEMA,
            level: level.to_owned(),
            build: super::build(),
            valgrind: valgrind.to_owned(),
            limit_percent,
            counts: cases().into_iter().filter_map(entry).collect(),
        }
    }

    /// Reads what [`to_toml`](Self::to_toml) writes.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn from_toml(text: &str) -> Result<Self, SnapshotError> {
        let snapshot: Self = toml::from_str(text)?;
        if snapshot.schema != SCHEMA {
            return Err(SnapshotError::Schema { found: snapshot.schema });
        }
        let positive = |what: String, found: f64| {
            if found > 0.0 { Ok(()) } else { Err(SnapshotError::Number { what, found }) }
        };
        positive("limit_percent".to_owned(), snapshot.limit_percent)?;
        for (case, entry) in &snapshot.counts {
            positive(format!("work of {case}"), entry.work as f64)?;
            positive(format!("instructions of {case}"), entry.instructions as f64)?;
        }
        Ok(snapshot)
    }

    /// One line per case, in the order of names, so that a change shows as a changed line.
    pub fn to_toml(&self) -> String {
        let mut out = String::from(
            "# Instructions of the kernels: `cargo run --release -p brick-counts -- record` writes this, `check` compares.\n\
             # A line that changes is a kernel that changed: say why in the commit.\n",
        );
        let Self { schema, level, build, valgrind, limit_percent, counts } = self;
        let quoted = |s: &str| toml::Value::from(s).to_string();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "schema = {schema}\nlevel = {}\nbuild = {}", quoted(level), quoted(build));
        let _ = writeln!(out, "valgrind = {}\nlimit_percent = {limit_percent:?}\n\n[counts]", quoted(valgrind));
        for (case, e) in counts {
            let _ = writeln!(
                out,
                "{} = {{ instructions = {}, library = {}, work = {}, unit = {} }} # {:.4} per {}",
                quoted(case),
                e.instructions,
                e.library,
                e.work,
                quoted(&e.unit),
                e.per_unit(),
                e.unit
            );
        }
        out
    }

    /// Compares counts with these, which are on record.
    pub fn compare(&self, measured: &Self) -> Comparison {
        let mut differences = Vec::new();
        let mut compared = 0;
        for (case, recorded) in &self.counts {
            let case = case.clone();
            let Some(now) = measured.counts.get(&case).cloned() else {
                differences.push(Difference::Gone { case });
                continue;
            };
            compared += 1;
            let recorded = recorded.clone();
            let off = now.instructions.abs_diff(recorded.instructions) as f64 / recorded.instructions as f64;
            if (now.work, &now.unit) != (recorded.work, &recorded.unit) {
                differences.push(Difference::Work { case, recorded, measured: now });
            } else if 100.0 * off > self.limit_percent {
                differences.push(Difference::Count { case, recorded, measured: now });
            }
        }
        for (case, now) in &measured.counts {
            if !self.counts.contains_key(case) {
                differences.push(Difference::New { case: case.clone(), measured: now.clone() });
            }
        }
        Comparison { same_build: self.build == measured.build && self.level == measured.level, compared, differences }
    }

    /// Markdown: instructions per weight of every format and the bound that follows, then all other cases.
    ///
    /// The bound is in 10⁹ weights (times tokens) per second and GHz of the core's clock, at 4 instructions per cycle.
    pub fn table(&self) -> String {
        let mut out = format!("{}, {}, {}\n\n", self.level, self.build, self.valgrind);
        let cell = |name: &str| {
            let Some(e) = self.counts.get(name) else { return "– | – | –".to_owned() };
            format!("{} | {:.4} | {:.2}", e.instructions, e.per_unit(), PER_CYCLE / e.per_unit())
        };
        let [one, many] = TOKENS;
        let _ = writeln!(
            out,
            "| weights | {one} token: instructions | per weight | 10⁹/s per GHz | {many} tokens: instructions | per weight·token | 10⁹/s per GHz |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
        );
        for dtype in bricks::DType::ALL.iter().map(|d| d.name()) {
            let [a, b] = TOKENS.map(|tokens| cell(&format!("linear/{dtype}/{tokens}")));
            let _ = writeln!(out, "| {dtype} | {a} | {b} |");
        }
        let _ = writeln!(out, "\n| other | instructions | per | | 10⁹/s per GHz |\n| --- | ---: | ---: | --- | ---: |");
        for case in cases().iter().filter(|c| !c.name.starts_with("linear/")) {
            if let Some(e) = self.counts.get(&case.name) {
                let (n, per, bound) = (e.instructions, e.per_unit(), PER_CYCLE / e.per_unit());
                let _ = writeln!(out, "| {} | {n} | {per:.4} | {} | {bound:.2} |", case.name, e.unit);
            }
        }
        out
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Count;

    fn snapshot() -> Snapshot {
        let counts = cases().into_iter().map(|c| (c.name, Count { own: 1_000_000, library: 7 })).collect();
        Snapshot::new("avx2", "valgrind-3.19.0", 0.5, &counts)
    }

    fn altered(case: &str, instructions: u64) -> Snapshot {
        let mut s = snapshot();
        s.counts.get_mut(case).unwrap().instructions = instructions;
        s
    }

    #[test]
    fn files_are_read_as_they_are_written() {
        let s = snapshot();
        assert_eq!(Snapshot::from_toml(&s.to_toml()).unwrap(), s);
        assert_eq!(s.counts.len(), cases().len(), "names are different");
    }

    #[test]
    fn a_kernel_beyond_the_limit_is_named_in_either_direction() {
        let s = snapshot();
        assert!(!s.compare(&s).fails());
        for within in [995_000, 1_005_000] {
            assert!(!s.compare(&altered("linear/Q6_K/32", within)).fails());
        }
        for beyond in [994_999, 1_005_001, 1_100_000] {
            let comparison = s.compare(&altered("linear/Q6_K/32", beyond));
            assert!(comparison.fails());
            let [difference] = &comparison.differences[..] else { panic!("{comparison:?}") };
            let text = difference.to_string();
            assert!(text.starts_with(&format!("linear/Q6_K/32: {beyond} instructions, recorded 1000000")), "{text}");
        }
    }

    #[test]
    fn library_instructions_are_not_compared() {
        let (s, mut other) = (snapshot(), snapshot());
        other.counts.get_mut("pack/Q4_0").unwrap().library = 1 << 40;
        assert_eq!(s.compare(&other).differences, []);
    }

    #[test]
    fn another_compiler_excuses_counts_but_no_other_difference() {
        let s = snapshot();
        let mut other = altered("linear/Q6_K/32", 2_000_000);
        "rustc 1.0.0, elsewhere".clone_into(&mut other.build);
        let comparison = s.compare(&other);
        assert!(!comparison.fails() && comparison.differences.len() == 1, "{comparison:?}");
        other.counts.remove("arg-max");
        assert!(s.compare(&other).fails());
    }

    #[test]
    fn cases_that_come_go_or_change_their_shape_are_differences() {
        let s = snapshot();
        let mut less = snapshot();
        less.counts.remove("arg-max");
        assert_eq!(s.compare(&less).differences, [Difference::Gone { case: "arg-max".to_owned() }]);
        assert!(matches!(&less.compare(&s).differences[..], [Difference::New { case, .. }] if case == "arg-max"));
        let mut other = snapshot();
        other.counts.get_mut("add").unwrap().work += 1;
        assert!(matches!(&s.compare(&other).differences[..], [Difference::Work { case, .. }] if case == "add"));
    }

    #[test]
    fn damaged_files_are_errors() {
        let text = snapshot().to_toml();
        for (from, to) in [
            ("schema = 1", "schema = 2"),
            ("limit_percent = 0.5", "limit_percent = 0.0"),
            ("instructions = 1000000", "instructions = 0"),
            ("instructions = 1000000", "instructions = -1"),
            ("[counts]", "[other]"),
        ] {
            assert_ne!(text, text.replace(from, to));
            Snapshot::from_toml(&text.replace(from, to)).unwrap_err();
        }
    }

    #[test]
    fn the_table_has_a_line_for_every_case() {
        let table = snapshot().table();
        assert!(table.contains("| Q4_0 | 1000000 | 20.3451 | 0.20 | 1000000 | 0.6358 | 6.29 |"), "{table}");
        for case in cases().iter().filter(|c| !c.name.starts_with("linear/")) {
            assert!(table.contains(&format!("| {} | 1000000 |", case.name)), "{}", case.name);
        }
    }
}
