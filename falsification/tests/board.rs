//! The score board in its three forms, and the rules it keeps.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use brick_falsification::{Board, Claim, Context, Entry, Family, Refusal, Verdict, registry, select};

fn claim(id: &'static str, family: Family, statement: &'static str) -> Claim {
    Claim { id, statement, family, threshold: "exact", check: |_| Err(Refusal::not_testable("only a name")) }
}

fn board() -> Board {
    let corroborated = |evidence: &str| Verdict::Corroborated { evidence: evidence.into() };
    Board::new(vec![
        Entry::new(
            &claim("TRAP-13", Family::Trap, "Launch sizes are rounded up"),
            Verdict::NotTestable { reason: "no GPU".into() },
        ),
        Entry::new(&claim("F002", Family::Brick, "Every brick declares an assertion"), corroborated("14 bricks")),
        Entry::new(
            &claim("F010", Family::Brick, "The bottleneck is the slowest brick"),
            Verdict::Falsified { expected: "ffn | 35 µs".into(), found: "qkv\n25 µs".into() },
        ),
        Entry::new(
            &claim("F050", Family::Backend, "The top-1 token is llama.cpp's"),
            corroborated("99.7 % of 931\nflip: a[3]"),
        ),
    ])
}

#[test]
fn text() {
    insta::assert_snapshot!(board().text());
}

#[test]
fn markdown() {
    insta::assert_snapshot!(board().markdown());
}

#[test]
fn json() {
    insta::assert_snapshot!(board().json());
    let value: serde_json::Value = serde_json::from_str(&board().json()).unwrap();
    assert_eq!(value["claims"].as_array().unwrap().len(), 4);
}

#[test]
fn a_skip_is_no_pass() {
    let b = board();
    assert_eq!((b.score.corroborated, b.score.falsified, b.score.not_testable), (2, 1, 1));
    assert!(!b.stands());
    let skips = Board::of(&[claim("A", Family::Trap, "a"), claim("B", Family::Trap, "b")], &Context::from_env());
    assert_eq!((skips.score.corroborated, skips.score.not_testable), (0, 2));
}

#[test]
fn a_panic_falsifies() {
    let panics = Claim { check: |_| panic!("on {}", "purpose"), ..claim("A", Family::Trap, "a") };
    let verdict = panics.judge(&Context::from_env());
    assert_eq!(verdict, Verdict::Falsified { expected: "no panic".into(), found: "a panic: on purpose".into() });
}

#[test]
fn errors_falsify_with_their_sources() {
    let errs = Claim { check: |_| Ok(std::fs::read_to_string("no/such/file")?), ..claim("A", Family::Trap, "a") };
    let Verdict::Falsified { found, .. } = errs.judge(&Context::from_env()) else { panic!("an error passed") };
    assert!(found.starts_with("the error: "), "{found}");
}

#[test]
fn ids_are_unique_and_those_of_the_catalogue() {
    let ids: Vec<&str> = registry().iter().map(|c| c.id).collect();
    let unique: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len());
    let single = ["F002-X", "F021", "F022", "F085", "F087", "F-STRUCT", "F-PROF-001", "F-PROF-003"];
    let mut expected: Vec<String> = single.map(String::from).to_vec();
    expected.extend(["F-PROF-006", "F-PROFILE-004", "R001", "QC-07", "QC-12", "CI-01", "CI-02"].map(String::from));
    expected.extend((1..=10).flat_map(|i| [format!("M{i:03}"), format!("H{i:03}"), format!("F-CBTOP-{i:03}")]));
    expected.extend((371..=378).map(|i| format!("F{i}")));
    expected.extend((11..=20).map(|i| format!("M{i:03}")));
    // F265, F266 and F268 have no definition.
    expected.extend((250..=264).chain([267]).chain(269..=275).map(|i| format!("F{i}")));
    expected.extend((1..=14).chain(41..=51).chain(61..=73).chain([90]).map(|i| format!("F{i:03}")));
    expected.extend((101..=110).map(|i| format!("F{i}-P")));
    expected.extend((111..=127).map(|i| format!("F{i}-G")));
    expected.extend((1..=6).map(|i| format!("SF-{i}")));
    expected.extend((1..=31).map(|i| format!("TRAP-{i:02}")));
    assert_eq!(unique, expected.iter().map(String::as_str).collect());
    for c in registry() {
        assert!(!c.statement.is_empty() && !c.threshold.is_empty() && !c.statement.ends_with('.'), "{}", c.id);
    }
}

#[test]
fn filters_find_ids_statements_and_families() {
    let ids = |filter: &str| select(filter).iter().map(|c| c.id).collect::<Vec<_>>();
    assert_eq!(ids("f104-p"), ["F104-P"]);
    assert_eq!(ids("Q4_K"), ["F042", "TRAP-07"]);
    assert_eq!(ids("execution graph").len(), 17);
    assert_eq!(ids("").len(), registry().len());
    assert!(ids("no such claim").is_empty());
}
