//! F061, F065–F073: kernels of GPUs, as far as a machine without one can tell: in the interpreter, and by NVIDIA's assembler where
//! it is installed.

use std::fmt::Write as _;
use std::sync::OnceLock;

use brick_ptx::interp::{Arg, Checks, Class, Counts, FaultKind, Gpu, GpuError, Launch, Limits, Module, Schedule};
use brick_ptx::ir::{self, Arch, ParamKind, Target};
use brick_ptx::kernels::{self, Entry};
use brick_ptx::ptxas::{Resources, Sass, Tools};

use crate::claim::{Claim, Family, Outcome, Refusal, require, require_eq};
use crate::context::Context;

macro_rules! claim {
    ($id:literal, $statement:literal, $threshold:literal, $check:ident) => {
        Claim { id: $id, statement: $statement, family: Family::Gpu, threshold: $threshold, check: $check }
    };
}

pub(super) const CLAIMS: &[Claim] = &[
    claim!(
        "F061",
        "The text of every kernel assembles",
        "accepted for sm_90 (the tests of the kernels: for sm_80, 86, 89, 90 and 100)",
        f061
    ),
    claim!(
        "F065",
        "Position and length are read from device memory, so that a captured step can be replayed",
        "no kernel takes them as a number",
        f065
    ),
    claim!("F066", "Integer dot products are those of the hardware", "dp4a in the text, IDP in the machine code", f066),
    claim!(
        "F067",
        "Weights are read in whole sectors",
        "sectors of all loads of matrix kernels = the fewest possible",
        f067
    ),
    claim!("F068", "Shared memory has no bank conflicts", "0 in the matrix kernels of decoding", f068),
    claim!("F069", "Warps of the matrix kernels of decoding do not diverge", "< 5 % of lanes idle", f069),
    claim!("F070", "Registers are within the limit, none is spilled", "≤ 255 a thread, 0 bytes", f070),
    claim!(
        "F071",
        "Every matrix kernel of decoding keeps a processor busy",
        "half of its warps resident, or 25 KB of loads on their way",
        f071
    ),
    claim!("F072", "Kernels have no data races", "none under round robin and three seeds", f072),
    claim!("F073", "A kernel that does not end is an error", "no hang, no panic", f073),
];

/// Assembling for one takes most of a minute; the kernels' own tests do it for all.
const ARCH: Arch = Arch::Sm90;

/// Of decoding: those for prompts are bound by arithmetic.
fn is_matrix(entry: &Entry) -> bool {
    entry.name.starts_with("gemv")
}

fn matrices() -> impl Iterator<Item = Entry> {
    kernels::all().into_iter().filter(is_matrix)
}

/// All kernels of a target in one text, if there are any.
fn text(target: Target) -> Result<Option<String>, Refusal> {
    let of_target = kernels::all().into_iter().filter(|e| e.oldest == target);
    let module = ir::Module { kernels: of_target.map(|e| (e.build)(target)).collect() };
    if module.kernels.is_empty() {
        return Ok(None);
    }
    Ok(Some(brick_ptx::compile(&module, target)?))
}

/// What the assembler says of every kernel, and its machine code. Made once.
struct Assembled {
    resources: Vec<Resources>,
    code: Vec<Sass>,
}

fn assembled() -> Result<&'static Assembled, Refusal> {
    static MADE: OnceLock<Result<Assembled, Refusal>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let tools = Tools::find().map_err(|e| Refusal::not_testable(format!("no assembler: {e}")))?;
        let (mut resources, mut code) = (Vec::new(), Vec::new());
        for target in Target::ALL {
            let Some(text) = text(target)? else { continue };
            let assembled = tools.assemble(&text, ARCH)?;
            resources.extend(assembled.resources);
            code.extend(tools.disassemble(&assembled.cubin)?);
        }
        Ok(Assembled { resources, code })
    });
    made.as_ref().map_err(Clone::clone)
}

fn f061(_: &Context) -> Outcome {
    let found = assembled()?.resources.len();
    require_eq("kernels that the assembler takes", &found, &kernels::all().len())?;
    Ok(format!("{found} kernels accepted for {ARCH}"))
}

fn f065(_: &Context) -> Outcome {
    let all = kernels::all();
    let mut pointers = 0;
    for entry in &all {
        for param in (entry.build)(entry.oldest).params {
            let changes = ["position", "length", "token", "context", "step"].iter().any(|w| param.name.contains(w));
            let is_pointer = matches!(param.kind, ParamKind::Pointer { .. });
            // How many rows a launch has is part of the launch: it is captured with it.
            let is_count =
                ["tokens", "max_context", "steps"].contains(&param.name.as_str()) || param.name.contains("stride");
            require(!changes || is_pointer || is_count, "an address", || {
                format!("kernel {} takes {} as a number", entry.name, param.name)
            })?;
            pointers += usize::from(changes && is_pointer);
        }
    }
    require(pointers > 0, "kernels that read positions or tokens", || "none".into())?;
    Ok(format!("{pointers} parameters of {} kernels name such values, all are addresses", all.len()))
}

/// A matrix kernel, and what its launch did.
struct Counted {
    name: String,
    is_integer: bool,
    counts: Counts,
}

/// The matrix kernels, run in turn. Made once.
fn counted() -> Result<&'static [Counted], Refusal> {
    static MADE: OnceLock<Result<Vec<Counted>, Refusal>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let run = |entry: Entry| {
            let counts = entry.run(Schedule::RoundRobin, Checks::Full)?.counts;
            Ok(Counted { is_integer: entry.workload.work.int_ops > 0, name: entry.name, counts })
        };
        matrices().map(run).collect()
    });
    made.as_deref().map_err(Clone::clone)
}

fn f066(_: &Context) -> Outcome {
    let mut dots = 0;
    for Counted { name, is_integer, counts } in counted()? {
        let (dot, mma) = (counts.class(Class::Dot), counts.class(Class::Matrix));
        require(!is_integer || dot + mma > 0, "dp4a or mma executed", || name.clone())?;
        dots += usize::from(dot > 0);
    }
    require(dots > 0, "kernels with dp4a", || "none".into())?;
    let mut evidence = format!("{dots} kernels execute dp4a");
    if let Ok(Assembled { code, .. }) = assembled() {
        let idp = code.iter().filter(|s| s.histogram(0..s.instructions.len()).count("IDP") > 0).count();
        require(idp >= dots, format!("IDP in the machine code of {dots} kernels"), || idp.to_string())?;
        write!(evidence, "; {idp} have IDP in the machine code of sm_90")?;
    }
    Ok(evidence)
}

fn f067(_: &Context) -> Outcome {
    let (mut sectors, mut kernels) = (0, 0);
    for Counted { name, counts, .. } in counted()?.iter().filter(|c| c.is_integer) {
        let loads = counts.global_loads();
        require(loads.excess() == 0, "no sector too many", || format!("{name}: {}", loads.excess()))?;
        sectors += loads.units;
        kernels += 1;
    }
    Ok(format!(
        "{sectors} sectors read by {kernels} kernels, each the fewest possible; 16 bytes a lane, where the claim has 4"
    ))
}

fn f068(_: &Context) -> Outcome {
    let mut shared = 0;
    for Counted { name, counts, .. } in counted()? {
        require_eq(name, &counts.bank_conflicts(), &0)?;
        shared += counts.shared_loads().requests + counts.shared_stores().requests;
    }
    Ok(format!("{shared} accesses to shared memory, no conflict"))
}

fn f069(_: &Context) -> Outcome {
    let (mut lanes, mut all, mut worst) = (0, 0, (1.0, ""));
    for Counted { name, counts, .. } in counted()? {
        lanes += counts.lane_instructions();
        all += 32 * counts.instructions();
        if counts.lane_efficiency() < worst.0 {
            worst = (counts.lane_efficiency(), name);
        }
    }
    let idle = 100.0 * (1.0 - lanes as f64 / all as f64);
    require(idle < 5.0, "less than 5 % of lanes idle", || format!("{idle:.1} %"))?;
    let (active, name) = worst;
    Ok(format!("{idle:.1} % of lanes idle in all of them; {:.1} % in {name}, the worst", 100.0 * (1.0 - active)))
}

fn f070(_: &Context) -> Outcome {
    let mut most = 0;
    for r in &assembled()?.resources {
        let spilled = r.spill_store_bytes + r.spill_load_bytes + r.stack_bytes;
        require(r.registers <= 255 && spilled == 0, "≤ 255 registers, nothing spilled", || r.to_string())?;
        most = most.max(r.registers);
    }
    Ok(format!("at most {most} registers, nothing spilled, on {ARCH}"))
}

fn f071(_: &Context) -> Outcome {
    let Assembled { resources, code } = assembled()?;
    let (mut full, mut on_their_way, mut least) = (0, 0, f64::INFINITY);
    for entry in matrices() {
        let of_it = resources.iter().find(|r| r.kernel == entry.name);
        let (r, sass) = of_it
            .zip(code.iter().find(|s| s.kernel == entry.name))
            .ok_or_else(|| Refusal::falsified(entry.name.clone(), "not in the machine code"))?;
        let dims = entry.workload.dims;
        let resident = r.resident_warps(dims.block.iter().product(), dims.dynamic_shared, ARCH);
        if 2 * resident >= ARCH.max_warps() {
            full += 1;
            continue;
        }
        let hot = sass.hot_loop().map(|range| sass.histogram(range)).unwrap_or_default();
        let bytes = |opcode: &str| {
            if opcode.contains(".128") {
                16
            } else if opcode.contains(".64") {
                8
            } else {
                4
            }
        };
        let loads = hot.0.iter().filter(|(opcode, _)| opcode.starts_with("LDG") || opcode.starts_with("LDGSTS"));
        let lane: usize = loads.map(|(opcode, n)| n * bytes(opcode)).sum();
        let kilobytes = f64::from(resident) * 32.0 * lane as f64 / 1e3;
        require(kilobytes >= 25.0, "half of the warps, or 25 KB on their way", || {
            format!("{}: {resident} of {} warps, {kilobytes:.0} KB", entry.name, ARCH.max_warps())
        })?;
        on_their_way += 1;
        least = least.min(kilobytes);
    }
    Ok(format!(
        "{full} kernels with half of the warps or more; {on_their_way} with fewer, and at least {least:.0} KB of loads on their way \
         (derived from registers, shared memory and the innermost loop on sm_90)"
    ))
}

fn f072(_: &Context) -> Outcome {
    let schedules = [Schedule::RoundRobin, Schedule::Seeded(1), Schedule::Seeded(2), Schedule::Seeded(3)];
    let all = kernels::all();
    for entry in &all {
        for schedule in schedules {
            entry.run(schedule, Checks::Full)?;
        }
    }
    Ok(format!(
        "{} kernels under {} schedules: no race, no access out of bounds, nothing read unwritten",
        all.len(),
        schedules.len()
    ))
}

fn f073(_: &Context) -> Outcome {
    let text = "\
.version 8.0
.target sm_80
.address_size 64
.visible .entry forever()
{
$again:
    bra $again;
}
";
    let module = Module::parse(text)?;
    let mut gpu = Gpu::new(Limits { steps: 100_000, ..Limits::default() });
    let launch = Launch {
        grid: [1, 1, 1],
        block: [32, 1, 1],
        dynamic_shared: 0,
        schedule: Schedule::RoundRobin,
        checks: Checks::Full,
    };
    let none: [Arg; 0] = [];
    match gpu.launch(&module, "forever", launch, &none) {
        Err(GpuError::Fault(fault)) if matches!(fault.kind, FaultKind::StepLimit { .. }) => {
            Ok(format!("in the interpreter: {fault}; the watchdog of a driver is not testable without a GPU"))
        }
        other => Err(Refusal::falsified("a fault that names the limit", format!("{other:?}"))),
    }
}
