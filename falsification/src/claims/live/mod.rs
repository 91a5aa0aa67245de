//! M001–M010, H001–H010, F-CBTOP-001–010, F-PROF-006, F-PROFILE-004, R001, QC-07, QC-12, CI-01, CI-02: the live view and its report.
//!
//! | module | what is looked at |
//! | --- | --- |
//! | `headless` | the program from outside: output, files, exit codes |
//! | `screen` | frames, drawn without a terminal |
//! | `figures` | where figures come from |

mod figures;
mod headless;
mod screen;

use crate::claim::{Claim, Family};

macro_rules! claim {
    ($id:literal, $statement:literal, $threshold:literal, $check:path) => {
        Claim { id: $id, statement: $statement, family: Family::LiveView, threshold: $threshold, check: $check }
    };
}

pub(super) const CLAIMS: &[Claim] = &[
    claim!("M001", "A headless run ends well", "exit code 0", headless::ends_well),
    claim!("M002", "What --output writes is JSON", "parses", headless::output_is_json),
    claim!("M003", "The report has scores of bricks", "a row for each kind of the graph", headless::brick_scores),
    claim!(
        "M004",
        "The report has scores of projects, and none is made up",
        "null where unknown",
        headless::pmat_scores
    ),
    claim!("M005", "--ci fails where a score is not reached", "exit code 1 at 999, 0 at 0", headless::ci),
    claim!("M006", "Times of a quiet machine are steady", "CV below 5 %", figures::steady),
    claim!("M007", "The view is drawn without a panic at any size", "1 × 1 to 300 × 60", screen::any_size),
    claim!("M008", "The pipeline shows every kind of brick", "all names", screen::all_names),
    claim!("M009", "The drill-down shows how times are spread", "p50, p99, p99.9 and every call", screen::drill_down),
    claim!("M010", "The CI workflow is valid", "parses; jobs, steps, scripts that exist", figures::workflow),
    claim!("H001", "Headless without a model says what is missing", "exit code 1, one line", headless::no_model),
    claim!("H002", "There are no simulated figures to ask for", "--simulated is refused", headless::simulated),
    claim!("H003", "--json prints JSON and nothing else", "all of standard output parses", headless::only_json),
    claim!("H004", "--output writes the document that is printed", "equal", headless::same_document),
    claim!("H005", "--ci honours --throughput", "exit code 1 below it, 0 above", headless::throughput),
    claim!("H006", "--brick-score gives a verdict", "FAIL at 101, PASS at 0; exit codes", headless::score_verdict),
    claim!("H007", "Every model format is accepted", "GGUF, SafeTensors, APR", headless::formats),
    claim!("H008", "A file that is no model is refused", "exit code 1, named", headless::no_model_file),
    claim!("H009", "--compare prints ratios", "a ratio per format", headless::compare),
    claim!("H010", "The report names the processor that ran", "as measured; never simulated", headless::hardware),
    claim!("F-CBTOP-001", "Headless ends well with a real model", "exit code 0", headless::real_ends_well),
    claim!("F-CBTOP-002", "The report of a real model is JSON", "parses, brick.top/1", headless::real_json),
    claim!("F-CBTOP-003", "Every brick of a real model has a score", "none missing", headless::real_scores),
    claim!("F-CBTOP-004", "Throughput is positive", "> 0", headless::real_throughput),
    claim!("F-CBTOP-005", "The threshold on the CV fails at its limit", "5.0 % is not below 5 %", figures::cv_limit),
    claim!("F-CBTOP-006", "No brick scores below 50 on the target hardware", "at least 50", headless::no_low_score),
    claim!("F-CBTOP-007", "Times of bricks fit in the time of a token", "Σ µs ≤ 10⁶ ÷ tok/s", figures::fits),
    claim!("F-CBTOP-008", "A trace of the recording is written", "not empty; a span per brick", figures::trace),
    claim!("F-CBTOP-009", "A stored recording names its hot spots", "at least 1, the largest", figures::hot_spots),
    claim!(
        "F-CBTOP-010",
        "A baseline exists, and nothing is accepted without",
        "file present; missing: refused",
        headless::baseline
    ),
    claim!("F-PROF-006", "The time of a frame is seen in the debug panel", "present", screen::debug_panel),
    claim!("F-PROFILE-004", "A path of a model is accepted", "exit code 0", headless::path),
    claim!(
        "R001",
        "Times are measured brick by brick, not shares of a total",
        "one brick slower: one row changes",
        figures::real
    ),
    claim!("QC-07", "A profiler that returns no data is an error", "error", figures::no_data),
    claim!("QC-12", "The report has the recorder's figures", "equal, and said to be measured", figures::measured),
    claim!("CI-01", "No output says simulated", "absent", headless::never_simulated),
    claim!("CI-02", "The text says which figures are measured", "MEASURED present", headless::says_measured),
];
