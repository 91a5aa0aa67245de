//! Reports of fixed recordings, reviewed as snapshots.

use super::{ReportOptions, Style};
use crate::machine::tests::machine;
use crate::record::SyncMode;
use crate::testing::{profile, profile_in, stamped_profile};

#[test]
fn text_of_a_profile() {
    insta::assert_snapshot!(profile().to_text(&ReportOptions::default()));
}

#[test]
fn ascii_of_a_profile_with_its_slowest_bricks() {
    let text = profile().to_text(&ReportOptions { style: Style::ASCII, steps: 3, ..ReportOptions::default() });
    assert!(text.is_ascii());
    insta::assert_snapshot!(text);
}

#[test]
fn markdown_of_a_profile() {
    insta::assert_snapshot!(profile().to_markdown(&ReportOptions { steps: 2, ..ReportOptions::default() }));
}

#[test]
fn inside_the_decode_steps_of_a_gpu() {
    let of_stamps = |text: &str, from: &str| text.split_once(from).map(|(_, rest)| format!("{from}{rest}"));
    let text = of_stamps(&stamped_profile().to_text(&ReportOptions::default()), "inside a decode step");
    let markdown = of_stamps(&stamped_profile().to_markdown(&ReportOptions::default()), "### inside a decode step");
    let (text, markdown) = (text.unwrap_or_default(), markdown.unwrap_or_default());
    insta::assert_snapshot!(format!("{text}\n{markdown}"));
}

#[test]
fn layers_where_steps_were_not_timed() {
    insta::assert_snapshot!(profile_in(SyncMode::PerLayer).to_text(&ReportOptions::default()));
}

#[test]
fn a_recording_of_nothing_says_so() {
    let text = profile_in(SyncMode::None).to_text(&ReportOptions::default());
    assert!(text.ends_with("\nnothing was recorded\n"), "{text}");
}

#[test]
fn colours_only_when_asked_for() {
    let options = |style| ReportOptions { style, steps: 2, ..ReportOptions::default() };
    assert!(profile().to_text(&options(Style::COLOR)).contains("\u{1b}[31m"));
    assert!(!profile().to_text(&options(Style::PLAIN)).contains('\u{1b}'));
    assert!(!machine().to_text(Style::PLAIN).contains('\u{1b}'));
}

#[test]
fn a_hostile_model_name_stays_on_its_line() {
    let mut p = profile();
    p.model.name = "x\u{1b}]0;owned\u{7}\n| a | b |".into();
    let text = p.to_text(&ReportOptions::default());
    assert!(!text.contains('\u{1b}') && !text.contains("\n| a"), "{text}");
    let markdown = p.to_markdown(&ReportOptions::default());
    assert!(!markdown.contains('\u{1b}') && !markdown.contains("\n| a"), "{markdown}");
}

#[test]
fn text_of_a_machine() {
    insta::assert_snapshot!(machine().to_text(Style::PLAIN));
}
