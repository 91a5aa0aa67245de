//! What can go wrong in a brick. Every error carries its operands: which brick, what was expected, what was found.

use crate::op::OpError;
use crate::quant::QuantError;
use crate::rope::RopeError;

/// A brick did not run, or ran and broke its contract.
///
/// Exhaustive on purpose: whoever handles brick errors decides about each kind, and the compiler points at new ones.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BrickError {
    /// The brick took longer than its budget, under [`BudgetPolicy::Strict`](crate::BudgetPolicy::Strict).
    #[error("{brick}: {actual_us:.3} µs/token exceed the budget of {limit_us:.3} µs/token")]
    BudgetExceeded {
        /// The brick.
        brick: String,
        /// Its budget in microseconds per token.
        limit_us: f64,
        /// What it took, in microseconds per token.
        actual_us: f64,
    },
    /// The brick's output breaks one of its assertions.
    #[error("{brick}: assertion {assertion}: expected {expected}, found {actual}")]
    Assertion {
        /// The brick.
        brick: String,
        /// Name of the assertion.
        assertion: String,
        /// What it asks for.
        expected: String,
        /// What the output has.
        actual: String,
    },
    /// An input, an output or a state has the wrong number of elements.
    #[error("{brick}: {what}: expected {expected}, found {found}")]
    Shape {
        /// The brick.
        brick: String,
        /// Which input, output or state.
        what: &'static str,
        /// The shape it needs.
        expected: String,
        /// The shape it has.
        found: String,
    },
    /// A parameter is out of range, or two of them contradict each other.
    #[error("{brick}: {parameter}: expected {expected}, found {found}")]
    Parameter {
        /// The brick.
        brick: String,
        /// Which parameter.
        parameter: &'static str,
        /// Its range.
        expected: String,
        /// Its value.
        found: String,
    },
    /// A token, position or row number points outside of what it indexes.
    #[error("{brick}: {what} {index} is out of range: expected less than {limit}")]
    Index {
        /// The brick.
        brick: String,
        /// What is indexed.
        what: &'static str,
        /// The index.
        index: usize,
        /// Number of things there are.
        limit: usize,
    },
    /// A weight does not have the shape or the bytes that the brick needs.
    #[error("{brick}: weight {role}: expected {expected}, found {found}")]
    Weight {
        /// The brick.
        brick: String,
        /// What the weight is for.
        role: &'static str,
        /// What the brick needs.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// A codec refused a row of weights or activations.
    #[error("{brick}: {source}")]
    Quant {
        /// The brick.
        brick: String,
        /// What the codec says.
        source: QuantError,
    },
    /// The parameters of a rotary embedding describe no rotation.
    #[error("{brick}: {source}")]
    Rope {
        /// The brick.
        brick: String,
        /// What is wrong with them.
        source: RopeError,
    },
    /// Inputs or weights do not fit the operation.
    #[error("{brick}: {source}")]
    Op {
        /// The brick.
        brick: String,
        /// What does not fit.
        source: OpError,
    },
    /// The output would not fit into memory.
    #[error("{brick}: no memory for {elements} output elements")]
    Memory {
        /// The brick.
        brick: String,
        /// Elements asked for.
        elements: usize,
    },
    /// The brick was not run because an earlier one had stopped the line.
    #[error("{brick} was not run: {by} had stopped the line")]
    LineStopped {
        /// The brick that was to run.
        brick: String,
        /// The brick whose violation stopped the line.
        by: String,
    },
    /// A backend (driver, device, kernel) reports a failure of its own.
    #[error("{brick}: backend {backend}: {message}")]
    Backend {
        /// The brick.
        brick: String,
        /// Name of the backend.
        backend: String,
        /// What it reports.
        message: String,
    },
}

impl BrickError {
    /// The brick that the error is about.
    pub fn brick(&self) -> &str {
        match self {
            Self::BudgetExceeded { brick, .. }
            | Self::Assertion { brick, .. }
            | Self::Shape { brick, .. }
            | Self::Parameter { brick, .. }
            | Self::Index { brick, .. }
            | Self::Weight { brick, .. }
            | Self::Quant { brick, .. }
            | Self::Rope { brick, .. }
            | Self::Op { brick, .. }
            | Self::Memory { brick, .. }
            | Self::LineStopped { brick, .. }
            | Self::Backend { brick, .. } => brick,
        }
    }

    /// The same error, said of another brick: a brick made of operations puts its own name on what they report.
    #[must_use]
    pub fn in_brick(mut self, name: &str) -> Self {
        match &mut self {
            Self::BudgetExceeded { brick, .. }
            | Self::Assertion { brick, .. }
            | Self::Shape { brick, .. }
            | Self::Parameter { brick, .. }
            | Self::Index { brick, .. }
            | Self::Weight { brick, .. }
            | Self::Quant { brick, .. }
            | Self::Rope { brick, .. }
            | Self::Op { brick, .. }
            | Self::Memory { brick, .. }
            | Self::LineStopped { brick, .. }
            | Self::Backend { brick, .. } => name.clone_into(brick),
        }
        self
    }

    /// A [`Shape`](Self::Shape) error from anything that can be displayed.
    pub(crate) fn shape(
        brick: &str,
        what: &'static str,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> Self {
        Self::Shape { brick: brick.into(), what, expected: expected.to_string(), found: found.to_string() }
    }

    /// A [`Parameter`](Self::Parameter) error from anything that can be displayed.
    pub(crate) fn parameter(
        brick: &str,
        parameter: &'static str,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> Self {
        Self::Parameter { brick: brick.into(), parameter, expected: expected.to_string(), found: found.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each. The match below has no wildcard: a new variant does not compile until it is listed here (F007).
    fn one_of_each() -> Vec<BrickError> {
        let brick = || "qkv_proj".to_owned();
        let all = vec![
            BrickError::BudgetExceeded { brick: brick(), limit_us: 6.0, actual_us: 7.25 },
            BrickError::Assertion {
                brick: brick(),
                assertion: "finite".into(),
                expected: "no NaN".into(),
                actual: "NaN at 3".into(),
            },
            BrickError::shape("qkv_proj", "input", "[T, 4]", "7 values"),
            BrickError::parameter("qkv_proj", "eps", "a finite number", f32::NAN),
            BrickError::Index { brick: brick(), what: "token", index: 9, limit: 8 },
            BrickError::Weight { brick: brick(), role: "gain", expected: "[1, 4]".into(), found: "[1, 3] F32".into() },
            BrickError::Quant {
                brick: brick(),
                source: QuantError::RowLength { format: "Q4_0", block: 32, found: 31 },
            },
            BrickError::Rope { brick: brick(), source: RopeError::Dims { found: 3 } },
            BrickError::Op { brick: brick(), source: OpError::InputCount { expected: 2, found: 1 } },
            BrickError::Memory { brick: brick(), elements: 1 << 50 },
            BrickError::LineStopped { brick: brick(), by: "embed".into() },
            BrickError::Backend { brick: brick(), backend: "cuda".into(), message: "out of memory".into() },
        ];
        for e in &all {
            match e {
                BrickError::BudgetExceeded { .. }
                | BrickError::Assertion { .. }
                | BrickError::Shape { .. }
                | BrickError::Parameter { .. }
                | BrickError::Index { .. }
                | BrickError::Weight { .. }
                | BrickError::Quant { .. }
                | BrickError::Rope { .. }
                | BrickError::Op { .. }
                | BrickError::Memory { .. }
                | BrickError::LineStopped { .. }
                | BrickError::Backend { .. } => {}
            }
        }
        all
    }

    #[test]
    fn every_error_names_its_brick() {
        for e in one_of_each() {
            assert_eq!(e.brick(), "qkv_proj");
            assert!(e.to_string().contains("qkv_proj"), "{e}");
            let renamed = e.in_brick("layer_3");
            assert_eq!(renamed.brick(), "layer_3");
            assert!(!renamed.to_string().contains("qkv_proj"), "{renamed}");
        }
    }

    #[test]
    fn budget_and_assertion_errors_say_expected_and_found() {
        let [budget, assertion, ..] = &one_of_each()[..] else { unreachable!("the list has twelve") };
        assert_eq!(budget.to_string(), "qkv_proj: 7.250 µs/token exceed the budget of 6.000 µs/token");
        assert_eq!(assertion.to_string(), "qkv_proj: assertion finite: expected no NaN, found NaN at 3");
    }
}
