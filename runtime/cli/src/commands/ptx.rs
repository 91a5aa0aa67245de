//! `brick ptx`: kernels for NVIDIA GPUs, printed and explained without one.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, bail};
use brick_ptx::interp::{Checks, Counts, Schedule};
use brick_ptx::ir::{Arch, Module, Target};
use brick_ptx::kernels::ceiling::{self, Ceiling, Needs};
use brick_ptx::kernels::{self, Entry};
use brick_ptx::ptxas::{Histogram, PtxasError, Resources, Tools};
use serde::Serialize;

use crate::args::PtxArgs;
use crate::output;

pub(super) fn ptx(args: &PtxArgs) -> anyhow::Result<ExitCode> {
    if args.fetch_ptxas {
        let tools = Tools::fetch().context("cannot fetch NVIDIA's assembler")?;
        output::note(&format!("{}, {}", tools.ptxas().display(), tools.nvdisasm().display()));
    }
    let entries = kernels::all();
    if args.kernel == "list" {
        if args.explain || args.target.is_some() {
            bail!("--explain and --target are for one kernel: brick ptx KERNEL");
        }
        list(&entries, args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(entry) = entries.iter().find(|e| e.name == args.kernel) else {
        let near = entries.iter().map(|e| e.name.as_str()).filter(|n| n.contains(&args.kernel)).take(6);
        let near: Vec<&str> = near.collect();
        let hint = if near.is_empty() { String::from("`brick ptx list` names all") } else { near.join(", ") };
        bail!("no kernel `{}` ({hint})", args.kernel);
    };
    let arch = args.target.unwrap_or(match entry.oldest {
        Target::Sm80 => Arch::Sm80,
        Target::Sm90 => Arch::Sm90,
    });
    let Some(target) = Target::ALL.into_iter().rev().find(|&t| t >= entry.oldest && arch.runs(t)) else {
        bail!("kernel `{}` is written for {} and newer, not for {arch}", entry.name, entry.oldest);
    };
    let text = brick_ptx::compile(&Module { kernels: vec![(entry.build)(target)] }, target)?;
    match (args.explain, args.json) {
        (false, false) => output::print(&text)?,
        (false, true) => {
            let found = Text { kernel: &entry.name, about: entry.about, target: target.to_string(), ptx: &text };
            output::print_json(&found)?;
        }
        (true, json) => {
            let explained = Explained::of(entry, arch, &text)?;
            if json { output::print_json(&explained)? } else { output::print(&explained.text()?)? }
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Listed<'a> {
    kernel: &'a str,
    about: &'a str,
    oldest_target: String,
}

fn list(entries: &[Entry], json: bool) -> anyhow::Result<()> {
    let listed: Vec<Listed<'_>> = entries
        .iter()
        .map(|e| Listed { kernel: &e.name, about: e.about, oldest_target: e.oldest.to_string() })
        .collect();
    if json {
        return output::print_json(&listed);
    }
    let width = listed.iter().map(|l| l.kernel.len()).max().unwrap_or(0);
    let mut text = String::new();
    for l in listed {
        writeln!(text, "{:width$}  {}  {}", l.kernel, l.oldest_target, l.about)?;
    }
    output::print(&text)
}

#[derive(Serialize)]
struct Text<'a> {
    kernel: &'a str,
    about: &'a str,
    target: String,
    ptx: &'a str,
}

/// What is known of a kernel without a GPU.
#[derive(Serialize)]
struct Explained<'a> {
    kernel: &'a str,
    about: &'a str,
    /// Of the text that was counted.
    target: String,
    /// Of the machine code.
    arch: String,
    launch: Launch,
    /// Counted by the interpreter while the small launch ran.
    counted: Counted,
    /// By NVIDIA's assembler, or why not.
    hardware: Hardware,
    /// Derived from the counts: nothing of it was measured on a GPU.
    ceilings: Vec<Bound>,
}

/// What limits a kernel on a GPU, if nothing else does.
#[derive(Serialize)]
struct Bound {
    gpu: &'static str,
    /// Which resource binds.
    resource: String,
    /// Of the memory's bandwidth, what is left to the kernel.
    bandwidth_fraction: f64,
    #[serde(skip)]
    words: String,
}

impl Bound {
    fn of(entry: &Entry, counts: &Counts) -> Vec<Self> {
        let needs = Needs::of(&entry.workload.work, counts);
        let of = |gpu| {
            let ceiling = Ceiling::new(gpu, needs);
            let (resource, words) = (ceiling.bound().to_string(), ceiling.to_string());
            Self { gpu: gpu.name, resource, bandwidth_fraction: ceiling.bandwidth_fraction(), words }
        };
        [ceiling::H200, ceiling::A100, ceiling::RTX_4090].into_iter().map(of).collect()
    }
}

#[derive(Serialize)]
struct Launch {
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared_bytes: u32,
    /// Bytes it cannot do without.
    needed_bytes: u64,
}

#[derive(Serialize)]
struct Counted {
    warp_instructions: u64,
    /// By class, those that occur.
    classes: Vec<(&'static str, u64)>,
    global_load_sectors: u64,
    global_load_sectors_at_best: u64,
    global_store_sectors: u64,
    global_store_sectors_at_best: u64,
    bank_conflicts: u64,
    barriers: u64,
    divergent_branches: u64,
    active_lanes: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Hardware {
    Assembled {
        registers: u32,
        spill_bytes: u32,
        stack_bytes: u32,
        static_shared_bytes: u32,
        barriers: u32,
        /// On a multiprocessor, of the launch's blocks (derived).
        resident_warps: u32,
        most_warps: u32,
        /// Machine instructions of the innermost loop, if there is one.
        hot_loop: Option<Vec<(String, usize)>>,
    },
    Unavailable {
        reason: String,
    },
}

impl<'a> Explained<'a> {
    fn of(entry: &'a Entry, arch: Arch, text: &str) -> anyhow::Result<Self> {
        let run = entry.run(Schedule::RoundRobin, Checks::Full)?;
        let dims = entry.workload.dims;
        Ok(Self {
            kernel: &entry.name,
            about: entry.about,
            target: entry.oldest.to_string(),
            arch: arch.to_string(),
            launch: Launch {
                grid: dims.grid,
                block: dims.block,
                dynamic_shared_bytes: dims.dynamic_shared,
                needed_bytes: entry.workload.work.bytes(),
            },
            counted: Counted::of(&run.counts),
            hardware: hardware(entry, arch, text),
            ceilings: Bound::of(entry, &run.counts),
        })
    }

    fn text(&self) -> Result<String, std::fmt::Error> {
        let mut s = String::new();
        let Launch { grid: [x, y, z], block, dynamic_shared_bytes, needed_bytes } = self.launch;
        let threads: u32 = block.iter().product();
        writeln!(s, "{}: {}", self.kernel, self.about)?;
        writeln!(s, "\nlaunch (the small one that tests run)")?;
        writeln!(
            s,
            "  grid {x} x {y} x {z}, {threads} threads a block, {dynamic_shared_bytes} B of dynamic shared memory"
        )?;
        writeln!(s, "  {needed_bytes} B it cannot do without (derived)")?;
        let c = &self.counted;
        writeln!(s, "\ncounted in the interpreter, {}", self.target)?;
        writeln!(
            s,
            "  {} instructions of warps, {:.1} % of lanes active",
            c.warp_instructions,
            100.0 * c.active_lanes
        )?;
        for (class, n) in &c.classes {
            writeln!(s, "    {class:<12} {n:>8}")?;
        }
        let sectors = |n: u64, best: u64| format!("{n} sectors of 32 B, {best} at best");
        writeln!(s, "  loads   {}", sectors(c.global_load_sectors, c.global_load_sectors_at_best))?;
        writeln!(s, "  stores  {}", sectors(c.global_store_sectors, c.global_store_sectors_at_best))?;
        let Counted { bank_conflicts, barriers, divergent_branches, .. } = c;
        writeln!(s, "  {bank_conflicts} bank conflicts, {barriers} barriers, {divergent_branches} divergent branches")?;
        writeln!(s, "\nhardware, {}", self.arch)?;
        match &self.hardware {
            Hardware::Assembled {
                registers,
                spill_bytes,
                stack_bytes,
                static_shared_bytes,
                barriers,
                resident_warps,
                most_warps,
                hot_loop,
            } => {
                writeln!(s, "  {registers} registers, {spill_bytes} B spilled, {stack_bytes} B of stack")?;
                writeln!(s, "  {static_shared_bytes} B of static shared memory, {barriers} barriers")?;
                writeln!(s, "  {resident_warps} of {most_warps} warps resident on a multiprocessor (derived)")?;
                if let Some(hot) = hot_loop {
                    let total: usize = hot.iter().map(|(_, n)| n).sum();
                    writeln!(s, "  innermost loop: {total} instructions")?;
                    for (opcode, n) in hot {
                        writeln!(s, "    {opcode:<28} {n:>4}")?;
                    }
                }
            }
            Hardware::Unavailable { reason } => writeln!(s, "  unavailable: {reason}")?,
        }
        writeln!(s, "\nceilings, without launch latency")?;
        for ceiling in &self.ceilings {
            writeln!(s, "  {}", ceiling.words)?;
        }
        Ok(s)
    }
}

impl Counted {
    fn of(counts: &Counts) -> Self {
        let classes = brick_ptx::interp::Class::all().map(|c| (c.name(), counts.class(c))).filter(|&(_, n)| n > 0);
        Self {
            warp_instructions: counts.instructions(),
            classes: classes.collect(),
            global_load_sectors: counts.global_loads().units,
            global_load_sectors_at_best: counts.global_loads().ideal,
            global_store_sectors: counts.global_stores().units,
            global_store_sectors_at_best: counts.global_stores().ideal,
            bank_conflicts: counts.bank_conflicts(),
            barriers: counts.barriers(),
            divergent_branches: counts.divergent_branches(),
            active_lanes: counts.lane_efficiency(),
        }
    }
}

/// Registers and machine code; a missing assembler is not an error.
fn hardware(entry: &Entry, arch: Arch, text: &str) -> Hardware {
    match assembled(&entry.name, arch, text) {
        Ok((r, hot)) => Hardware::Assembled {
            registers: r.registers,
            spill_bytes: r.spill_store_bytes + r.spill_load_bytes,
            stack_bytes: r.stack_bytes,
            static_shared_bytes: r.static_shared_bytes,
            barriers: r.barriers,
            resident_warps: r.resident_warps(
                entry.workload.dims.block.iter().product(),
                entry.workload.dims.dynamic_shared,
                arch,
            ),
            most_warps: arch.max_warps(),
            hot_loop: hot.map(|h| h.0.into_iter().collect()),
        },
        Err(e) => Hardware::Unavailable { reason: e.to_string() },
    }
}

fn assembled(kernel: &str, arch: Arch, text: &str) -> Result<(Resources, Option<Histogram>), PtxasError> {
    let tools = Tools::find()?;
    let assembled = tools.assemble(text, arch)?;
    let sass = tools.disassemble(&assembled.cubin)?;
    let resources = assembled.resources.into_iter().find(|r| r.kernel == kernel).unwrap_or_default();
    let hot = sass.iter().find_map(|s| s.hot_loop().map(|range| s.histogram(range)));
    Ok((resources, hot))
}
