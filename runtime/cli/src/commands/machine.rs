//! `brick machine`: the measured limits of this computer.

use std::process::ExitCode;

use brick_profiler::Machine;
use brick_profiler::machine::MeasureOptions;

use crate::args::MachineArgs;
use crate::output;

pub(super) fn machine(args: &MachineArgs) -> anyhow::Result<ExitCode> {
    let machine = get(args.refresh)?;
    if args.json {
        output::print_json(&machine)?;
    } else {
        output::print_styled(&machine.to_text(output::style()))?;
        if let Some(path) = Machine::cache_path() {
            output::note(&format!("kept in {}; --refresh measures again", path.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The machine's limits, if they have been measured under the present circumstances. Nothing is measured here: that takes seconds.
pub(super) fn known() -> Option<Machine> {
    Machine::load(&Machine::cache_path()?).ok()
}

/// The machine's limits; measured (some seconds) unless they are known already.
pub(super) fn get(refresh: bool) -> anyhow::Result<Machine> {
    let path = Machine::cache_path();
    if refresh {
        let machine = Machine::measure(&MeasureOptions::default())?;
        if let Some(path) = &path {
            machine.store(path)?;
        }
        return Ok(machine);
    }
    if path.as_deref().is_none_or(|p| !p.exists()) {
        output::note("measuring this machine once (memory bandwidth, arithmetic peaks), a few seconds …");
    }
    Ok(Machine::load_or_measure()?)
}
