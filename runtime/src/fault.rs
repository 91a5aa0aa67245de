//! Breaking the speed of an engine on purpose, to see that a gate notices. Nothing here runs unless asked for, and nothing in the
//! scheduler knows of it: a fault is another plan, or another graph.

use std::str::FromStr;

use brick_graphs::{Graph, GraphError, passes};

use crate::engine::{Engine, EngineError};
use crate::plan::{Slot, StepKind};

/// What is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A linear brick computes a tenth of its outputs twice; the results are the same.
    Work {
        /// Its name.
        brick: String,
    },
    /// The graph is fused without this pass.
    WithoutPass {
        /// Its name.
        pass: String,
    },
    /// Every step allocates.
    Allocation,
    /// The plan has a step more: the first one is done twice.
    ExtraStep,
}

/// A fault cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// Not the name of a fault.
    #[error("expected work:BRICK, without:PASS, allocation or extra-step, found {found:?}")]
    Unknown {
        /// What was asked for.
        found: String,
    },
    /// The brick does not exist or is not linear.
    #[error("{brick}: expected a linear brick of the plan (e.g. {example}), found {found}")]
    Brick {
        /// The brick.
        brick: String,
        /// What it is.
        found: String,
        /// One that would do.
        example: String,
    },
    /// The graph.
    #[error(transparent)]
    Graph(#[from] Box<GraphError>),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] Box<EngineError>),
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        match text.split_once(':') {
            Some(("work", brick)) if !brick.is_empty() => Ok(Self::Work { brick: brick.to_owned() }),
            Some(("without", pass)) if !pass.is_empty() => Ok(Self::WithoutPass { pass: pass.to_owned() }),
            None if text == "allocation" => Ok(Self::Allocation),
            None if text == "extra-step" => Ok(Self::ExtraStep),
            _ => Err(FaultError::Unknown { found: text.to_owned() }),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Work { brick } => write!(f, "work:{brick}"),
            Self::WithoutPass { pass } => write!(f, "without:{pass}"),
            Self::Allocation => f.write_str("allocation"),
            Self::ExtraStep => f.write_str("extra-step"),
        }
    }
}

impl Fault {
    /// The graph that runs with this fault, if it is another one.
    ///
    /// # Errors
    /// No such pass.
    pub fn graph(&self, built: &Graph) -> Result<Option<Graph>, FaultError> {
        match self {
            Self::WithoutPass { pass } => {
                Ok(Some(passes::fuse_all_but(built, pass).map_err(|e| FaultError::Graph(Box::new(e)))?))
            }
            _ => Ok(None),
        }
    }

    /// Breaks an engine.
    ///
    /// # Errors
    /// No such linear brick; memory is short.
    pub fn inject(&self, engine: &mut Engine) -> Result<(), FaultError> {
        match self {
            Self::Work { brick } => more_work(engine, brick),
            Self::ExtraStep => {
                let plan = engine.cpu_mut().map_err(Box::new)?.plan_mut();
                // The rotary tables: done twice, they are the same.
                if let (Some(step), Some(info)) = (plan.steps.first().cloned(), plan.info.first().cloned()) {
                    let name = format!("{}.again", info.name);
                    plan.steps.insert(1, step);
                    plan.info.insert(1, brick_profiler::StepInfo { name, ..info });
                }
                Ok(())
            }
            // These are not the plan's.
            Self::WithoutPass { .. } | Self::Allocation => Ok(()),
        }
    }
}

/// Appends the first tenth of a matrix to its step, with outputs that nobody reads.
fn more_work(engine: &mut Engine, brick: &str) -> Result<(), FaultError> {
    let cpu = engine.cpu_mut().map_err(Box::new)?;
    let plan = cpu.plan_mut();
    let at = plan.info.iter().position(|i| i.name == brick);
    let linear = |kind: &StepKind| matches!(kind, StepKind::Linear { .. });
    let Some(at) = at.filter(|at| linear(&plan.steps[*at].kind)) else {
        let example = plan.steps.iter().position(|s| linear(&s.kind)).map(|i| plan.info[i].name.clone());
        return Err(FaultError::Brick {
            brick: brick.to_owned(),
            found: at.map_or_else(|| "no such step".to_owned(), |at| plan.info[at].op.name().to_owned()),
            example: example.unwrap_or_else(|| "none".to_owned()),
        });
    };
    let (end, max_rows) = (plan.arena_bytes, plan.max_rows);
    let mut bytes = 0;
    if let StepKind::Linear { matrices, .. } = &mut plan.steps[at].kind {
        let all: usize = matrices.iter().map(|m| m.rows).sum();
        // Whole groups of packed rows.
        let tenth = all.div_ceil(10).next_multiple_of(16);
        if let Some(mut more) = matrices.iter().max_by_key(|m| m.rows).cloned() {
            more.rows = tenth.min(more.rows);
            more.dst = Slot { offset: end.next_multiple_of(crate::arena::ALIGN), width: more.rows };
            bytes = crate::arena::ALIGN.saturating_add(max_rows.saturating_mul(4 * more.rows));
            matrices.push(more);
        }
    }
    cpu.grow_arena(bytes).map_err(|e| FaultError::Engine(Box::new(e)))
}
