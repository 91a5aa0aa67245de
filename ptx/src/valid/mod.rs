//! The validator: everything that must be true of a [`Module`] before it becomes text.
//!
//! If [`validate`] returns `Ok`, then [`emit`](crate::emit) either gives a text or returns an error; neither of the two
//! ever panics, whatever the IR. What is checked, in this order:
//!
//! | file | what |
//! | --- | --- |
//! | `declare` | names, parameters, shape of blocks, size of shared memory |
//! | `operands` | registers exist and have the class that the instruction needs; immediates are in range |
//! | `types` | the operation exists for its type, and on the target |
//! | `memory` | vector widths, spaces, ordering, hints |
//! | `defined` | no register is read that some path leaves unset |
//! | `flow` | barriers and warp operations run where the threads they wait for run them, too |
//! | `access` | every access is aligned, and parameters are used as declared |
//!
//! The last two read [`Facts`]: what is known of a register on every path.

mod access;
mod declare;
mod defined;
mod error;
mod facts;
mod flow;
mod memory;
mod operands;
mod types;
mod walk;

pub use error::{Place, ValidError, ValidErrorKind};
pub use facts::{Facts, Origin, Uniformity};

use crate::ir::{Arch, Inst, Kernel, Module, Stmt, Target};
use error::Check;

/// Checks a module for a target.
///
/// # Errors
/// The first thing that is wrong, naming the kernel, the statement and, where a builder made it, the line of Rust.
pub fn validate(module: &Module, target: Target) -> Result<(), ValidError> {
    declare::names(module)?;
    module.kernels.iter().try_for_each(|kernel| validate_kernel(kernel, target))
}

/// Checks one kernel for a target.
///
/// # Errors
/// As [`validate`].
pub fn validate_kernel(kernel: &Kernel, target: Target) -> Result<(), ValidError> {
    let whole = |kind| ValidError { kernel: kernel.name.clone(), place: Place::Kernel, kind };
    if kernel.is_too_deep() {
        return Err(whole(ValidErrorKind::TooDeep));
    }
    declare::check(kernel, target).map_err(whole)?;
    walk::instructions(kernel, &mut |stmt, inst| {
        let checked = operands::check(inst, kernel)
            .and_then(|()| types::check(inst, target))
            .and_then(|()| memory::check(inst, kernel));
        checked.map_err(|kind| located(kernel, stmt, inst, kind))
    })?;
    defined::check(kernel)?;
    let facts = Facts::of(kernel).ok_or_else(|| whole(ValidErrorKind::TooDeep))?;
    flow::check(kernel, &facts)?;
    walk::instructions(kernel, &mut |stmt, inst| {
        access::check(inst, kernel, &facts).map_err(|kind| located(kernel, stmt, inst, kind))
    })
}

/// Checks that the shared memory of a kernel fits a block of `arch`: a text for `sm_80` also runs where there is less.
///
/// # Errors
/// [`ValidErrorKind::SharedMemory`].
pub fn fits_shared(kernel: &Kernel, arch: Arch) -> Result<(), ValidError> {
    declare::shared_limit(kernel, arch.max_shared_bytes()).map_err(|kind| ValidError {
        kernel: kernel.name.clone(),
        place: Place::Kernel,
        kind,
    })
}

fn located(kernel: &Kernel, stmt: &Stmt, inst: &Inst, kind: ValidErrorKind) -> ValidError {
    let place = Place::Statement { opcode: inst.opcode(), source: stmt.source };
    ValidError { kernel: kernel.name.clone(), place, kind }
}

/// What a check of one instruction gives.
type Checked = Check<()>;
