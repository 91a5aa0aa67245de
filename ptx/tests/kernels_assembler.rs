//! What the assembler makes of every kernel that ships: registers, spills, shared memory and hot loop, as exact numbers.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::ops::Range;

use brick_ptx::ir::{Arch, Kernel, Module, Target, Threads};
use brick_ptx::kernels::{self, Entry};
use brick_ptx::ptxas::{Resources, Sass, Tools};
use brick_ptx::valid::fits_shared;

const ARCHS: [Arch; 5] = [Arch::Sm80, Arch::Sm86, Arch::Sm89, Arch::Sm90, Arch::Sm100];
/// What names of kernels begin with.
const FAMILIES: [&str; 22] = [
    "gemv",
    STREAM,
    "gemm",
    "quantize",
    "round",
    "add",
    "advance",
    "argmax",
    "attention",
    "compact",
    "copy",
    "dp4a",
    "embed",
    "gate",
    "gather",
    "mma_rate",
    "read",
    "rms_norm",
    "rope",
    "softmax",
    "top_k",
    "touch",
];
/// The family that has a test of its own.
const STREAM: &str = "gemv_stream";
/// Bytes of loads that 4.3 TB/s times 0.75 µs ask of each of 132 multiprocessors.
const BYTES_IN_FLIGHT: u32 = 24_432;

struct Assembled {
    entry: Entry,
    kernel: Kernel,
    resources: Resources,
    /// For [`LISTED`] only: the disassembler takes longer than all else.
    sass: Option<Sass>,
}

/// The architecture whose machine code is looked at.
const LISTED: Arch = Arch::Sm90;

/// The family of a kernel: the longest beginning of its name.
fn family_of(name: &str) -> Option<&'static str> {
    FAMILIES.into_iter().filter(|family| name.starts_with(family)).max_by_key(|family| family.len())
}

/// The loop in which no other begins and that has the most dp4a, the hot loop of all where none has any.
fn loop_of_products(sass: &Sass) -> Option<Range<usize>> {
    let hot = sass.hot_loop()?;
    let loops = sass.loops();
    let innermost = loops.iter().filter(|l| !loops.iter().any(|m| m.start > l.start && m.start < l.end));
    let products = |range: &Range<usize>| sass.histogram(range.clone()).count("IDP");
    let most = innermost.max_by_key(|range| products(range)).cloned()?;
    Some(if products(&most) > products(&hot) { most } else { hot })
}

/// All kernels of a family, in one module.
fn assembled(tools: &Tools, family: &str, arch: Arch) -> Vec<Assembled> {
    // Kernels for newer architectures use dependent launch.
    let target = if arch >= Arch::Sm90 { Target::Sm90 } else { Target::Sm80 };
    let mut entries: Vec<Entry> = kernels::all();
    entries.retain(|entry| family_of(&entry.name) == Some(family) && entry.oldest <= target);
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let kernels: Vec<Kernel> = entries.iter().map(|entry| (entry.build)(target)).collect();
    for kernel in &kernels {
        fits_shared(kernel, arch).unwrap();
    }
    let text = brick_ptx::compile(&Module { kernels: kernels.clone() }, target).unwrap();
    let assembled = tools.assemble(&text, arch).unwrap();
    let sass = if arch == LISTED { tools.disassemble(&assembled.cubin).unwrap() } else { Vec::new() };
    let sass = sass.into_iter().map(Some).chain(std::iter::repeat(None));
    let parts = assembled.resources.into_iter().zip(sass);
    let all: Vec<Assembled> = entries
        .into_iter()
        .zip(kernels)
        .zip(parts)
        .map(|((entry, kernel), (resources, sass))| Assembled { entry, kernel, resources, sass })
        .collect();
    for a in &all {
        assert_eq!(a.entry.name, a.resources.kernel);
        let (_, dynamic) = a.kernel.shared_bytes();
        let shared = u64::from(a.resources.static_shared_bytes) + dynamic;
        assert!(shared <= arch.max_shared_bytes(), "{arch} {}: {shared} bytes of shared memory", a.entry.name);
        assert!(a.sass.as_ref().is_none_or(|sass| sass.kernel == a.entry.name));
        let resources = &a.resources;
        assert_eq!(resources.spill_store_bytes + resources.spill_load_bytes, 0, "{arch} {resources}");
        assert_eq!(resources.stack_bytes, 0, "{arch} {resources}");
    }
    all
}

fn report(all: &[Assembled], arch: Arch) -> String {
    let mut report = String::new();
    for Assembled { resources, sass, .. } in all {
        write!(report, "{arch} {resources}").unwrap();
        match sass.as_ref().and_then(|sass| Some(sass.histogram(loop_of_products(sass)?))) {
            Some(hot) => writeln!(report, "; loop of {}: {hot}", hot.0.values().sum::<usize>()).unwrap(),
            None => writeln!(report).unwrap(),
        }
    }
    report
}

fn what_a_family_takes(tools: &Tools, family: &str) {
    let reports: Vec<String> = std::thread::scope(|scope| {
        let archs = ARCHS.map(|arch| {
            scope.spawn(move || {
                let all = assembled(tools, family, arch);
                if arch == LISTED && family.starts_with("gemv") {
                    four_bit_weights_cost_few_instructions(&all, &format!("{family}_q4_k_b1"));
                    enough_bytes_are_in_flight(&all);
                }
                report(&all, arch)
            })
        });
        archs.into_iter().map(|arch| arch.join().unwrap()).collect()
    });
    insta::assert_snapshot!(family, reports.concat());
}

/// One test of almost everything, because to assemble is what takes the time.
#[test]
fn what_kernels_take() {
    let Some(tools) = Tools::find_for_tests().unwrap() else { return };
    FAMILIES.into_iter().filter(|family| *family != STREAM).for_each(|family| what_a_family_takes(&tools, family));
    let all = kernels::all();
    let forgotten = all.iter().find(|entry| family_of(&entry.name).is_none());
    assert!(forgotten.is_none(), "{} is of no family here", forgotten.unwrap().name);
}

#[test]
fn what_streams_take() {
    let Some(tools) = Tools::find_for_tests().unwrap() else { return };
    what_a_family_takes(&tools, STREAM);
}

/// The most common kernel of a family costs at most 41 instructions per 16 bytes of codes: a third of what an H200 can issue meanwhile.
fn four_bit_weights_cost_few_instructions(all: &[Assembled], name: &str) {
    let sass = all.iter().find(|a| a.entry.name == name).unwrap().sass.as_ref().unwrap();
    let hot = loop_of_products(sass).unwrap();
    let histogram = sass.histogram(hot.clone());
    // A load of codes is eight dp4a.
    let loads = histogram.count("IDP") / 8;
    assert_eq!(loads, 4, "{histogram}");
    assert!(hot.len() <= 41 * loads, "{} instructions for {loads} loads: {histogram}", hot.len());
}

/// Enough warps fit a multiprocessor to have the bytes under way that its share of the bandwidth asks for.
fn enough_bytes_are_in_flight(all: &[Assembled]) {
    // Those on tensor cores hold no registers for it: their copies are counted by the stages of their ring.
    for Assembled { entry, kernel, resources, sass } in all.iter().filter(|a| !a.entry.name.contains("mma")) {
        let Threads::Exactly([threads, 1, 1]) = kernel.threads else { panic!("{} has blocks of any size", entry.name) };
        let warps = resources.resident_warps(threads, entry.workload.dims.dynamic_shared, LISTED);
        let sass = sass.as_ref().unwrap();
        let loads =
            (sass.loops().into_iter()).map(|range| sass.histogram(range).count("LDG.E.NA.LTC256B.128")).max().unwrap();
        // Scales are 16 bytes a lane for some formats, but eight lanes share them.
        let narrow = if entry.name.ends_with("_r1") { 2 } else { 1 };
        let codes = narrow * if entry.name.contains("q8_0") { 8 } else { 4 };
        assert!(loads >= codes, "{}: {loads} loads", entry.name);
        let bytes = warps * codes as u32 * 512;
        assert!(bytes >= BYTES_IN_FLIGHT, "{}: {warps} warps have {bytes} bytes under way", entry.name);
    }
}
