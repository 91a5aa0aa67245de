//! A report for CI servers.

use quick_junit::{NonSuccessKind, Report as Document, TestCase, TestCaseStatus, TestSuite};

use super::check::{Check, Report, Tier, Verdict};
use crate::report::clean;

impl Report {
    /// JUnit XML: a suite per tier, a case per check. What is inconclusive, advisory or skipped is a skipped case with its reason:
    /// visible, and not red.
    pub fn to_junit(&self) -> String {
        let mut document = Document::new("brick gate");
        for tier in [Tier::Facts, Tier::Instructions, Tier::Ratio, Tier::Roofline] {
            let mut suite = TestSuite::new(format!("{} {}", tier.name(), tier.about()));
            for check in self.checks.iter().filter(|c| c.tier == tier) {
                let mut case = TestCase::new(clean(&check.name), status(check));
                case.set_classname(format!("gate.{}", tier.name()));
                suite.add_test_case(case);
            }
            if !suite.test_cases.is_empty() {
                suite.add_property(("file", clean(&self.file).as_str()));
                suite.add_property(("model", clean(&self.model).as_str()));
                suite.add_property(("machine", clean(&self.machine).as_str()));
                document.add_test_suite(suite);
            }
        }
        document.to_string().expect("invariant: XML is written to memory")
    }
}

fn status(check: &Check) -> TestCaseStatus {
    let figures = check.figures().map_or_else(String::new, |f| format!(" ({f})"));
    let message = format!("{}: {}{figures}", check.verdict.word(), clean(&check.why));
    match check.verdict {
        Verdict::Pass => TestCaseStatus::success(),
        Verdict::Fail => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_type("gate").set_message(message);
            status
        }
        Verdict::Inconclusive | Verdict::Advisory | Verdict::Skipped => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(message);
            status
        }
    }
}
