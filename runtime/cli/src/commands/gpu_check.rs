//! `brick gpu-check`: whether a GPU computes what it should, what it can do, and how fast models decode on it.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use brick_cuda::calibrate::{self, Limits};
use brick_cuda::conform::{self, Conformance, Verdict};
use brick_cuda::driver::Cuda;
use brick_cuda::rates::{Pool, Rate};
use brick_cuda::{About, Device, DeviceError};
use brick_models::format::gguf::requantize;
use brick_models::synthetic::Synthetic;
use brick_models::tokenizer::EncodeOptions;
use brick_ptx::kernels::{self, Format};
use brick_runtime::Model;
use brick_runtime::cuda::certify::{Leaks, ModelCheck, ModelSpeed, Subject};
use bricks::DType;
use serde::Serialize;

use crate::args::{GpuCheckArgs, GpuPart};
use crate::output;

/// Shapes whose matrix kernels are timed: gate and up, down, a projection, and an LM head, of models of 1.5 and 7 billion weights.
const SHAPES: [(usize, usize); 7] =
    [(17_920, 1536), (1536, 8960), (1536, 1536), (2048, 1536), (151_936, 1536), (37_888, 3584), (3584, 18_944)];
/// Steps after which nothing may be missing of the memory.
const LEAK_STEPS: usize = 1000;
/// Bytes that the driver may keep for itself meanwhile.
const LEAK_SLACK: u64 = 2 << 20;

/// The whole document.
#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    brick: &'static str,
    unix_time: u64,
    seconds: f64,
    passed: bool,
    device: About,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernels: Option<Kernels>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sanitizer: Option<Sanitizer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rates: Vec<Rate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    models: Vec<ModelCheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaks: Option<Leaks>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    speeds: Vec<ModelSpeed>,
}

/// What compute-sanitizer says.
#[derive(Debug, Serialize)]
struct Sanitizer {
    tool: &'static str,
    /// Whether it is installed.
    present: bool,
    passed: bool,
    /// Its last line.
    summary: String,
}

/// How kernels compare with the interpreter.
#[derive(Debug, Serialize)]
struct Kernels {
    equal: usize,
    close: usize,
    different: usize,
    failed: usize,
    tolerance: f64,
    list: Vec<Conformance>,
}

pub(super) fn gpu_check(args: &GpuCheckArgs) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let wants = |part| args.only.is_empty() || args.only.contains(&part);
    // Each part has a device of its own, which is freed behind it.
    let open = || Cuda::open(args.device);
    let device = open()?.about().clone();
    output::note(&format!(
        "{}: compute capability {}.{}, {} multiprocessors, {}",
        device.name,
        device.capability.0,
        device.capability.1,
        device.processors,
        output::bytes(device.memory)
    ));
    let mut report = Report {
        schema: "brick-gpu-check-1",
        brick: env!("CARGO_PKG_VERSION"),
        unix_time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        seconds: 0.0,
        passed: true,
        device,
        kernels: None,
        sanitizer: None,
        limits: None,
        rates: Vec::new(),
        models: Vec::new(),
        leaks: None,
        speeds: Vec::new(),
    };
    if wants(GpuPart::Kernels) {
        let kernels = check_kernels(&mut open()?)?;
        report.passed &= kernels.different + kernels.failed == 0;
        report.kernels = Some(kernels);
    }
    if wants(GpuPart::Sanitizer) {
        let sanitizer = sanitize(args.device)?;
        report.passed &= sanitizer.passed || !sanitizer.present;
        report.sanitizer = Some(sanitizer);
    }
    if wants(GpuPart::Limits) || wants(GpuPart::Rates) || wants(GpuPart::Speed) {
        let mut device = open()?;
        let pool = Pool::new(&mut device)?;
        let limits = calibrate::calibrate(&mut device, &pool)?;
        show_limits(&limits);
        report.limits = Some(limits);
        if wants(GpuPart::Rates) {
            report.rates = rates(&mut device, &pool, limits.read_gb_s)?;
        }
    }
    if wants(GpuPart::Models) {
        models(args, &mut report)?;
    }
    if wants(GpuPart::Speed) {
        let bandwidth = report.limits.map_or(f64::NAN, |l| l.read_gb_s);
        for name in &args.speed {
            report.speeds.push(speed(args, name, bandwidth)?);
        }
    }
    report.seconds = start.elapsed().as_secs_f64();
    let text = output::json(&report)?;
    if let Some(path) = &args.output {
        output::write_atomically(path, &text)?;
    }
    if args.json {
        output::print(&text)?;
    }
    output::note(&format!("{} in {:.1} s", if report.passed { "passed" } else { "FAILED" }, report.seconds));
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_kernels(device: &mut Cuda) -> Result<Kernels, DeviceError> {
    let mut entries = kernels::all();
    entries.retain(|entry| conform::fits(device.about(), entry));
    let list = entries.iter().map(|entry| conform::check(device, entry)).collect::<Result<Vec<_>, _>>()?;
    let count = |verdict| list.iter().filter(|c| c.verdict == verdict).count();
    let kernels = Kernels {
        equal: count(Verdict::Equal),
        close: count(Verdict::Close),
        different: count(Verdict::Different),
        failed: count(Verdict::Failed),
        tolerance: conform::TOLERANCE,
        list: Vec::new(),
    };
    output::note(&format!(
        "kernels: {} equal the interpreter to the bit, {} within {:.0e}, {} differ, {} failed",
        kernels.equal, kernels.close, kernels.tolerance, kernels.different, kernels.failed
    ));
    for c in list.iter().filter(|c| matches!(c.verdict, Verdict::Different | Verdict::Failed)) {
        output::note(&format!("  {}: {:?} {}", c.kernel, c.verdict, c.detail.as_deref().unwrap_or_default()));
    }
    Ok(Kernels { list, ..kernels })
}

/// Runs the kernels once more, in a process that compute-sanitizer watches.
fn sanitize(device: usize) -> anyhow::Result<Sanitizer> {
    let mut sanitizer = Sanitizer { tool: "memcheck", present: false, passed: false, summary: String::new() };
    let me = std::env::current_exe().context("cannot find this program to run it again")?;
    let run = std::process::Command::new("compute-sanitizer")
        .args(["--tool", sanitizer.tool, "--error-exitcode", "9"])
        .arg(me)
        .args(["gpu-check", "--only", "kernels", "--device", &device.to_string()])
        .output();
    match run {
        Ok(out) => {
            sanitizer.present = true;
            sanitizer.passed = out.status.success();
            let text = String::from_utf8_lossy(&out.stdout);
            let last = text.lines().rev().find(|line| line.starts_with("========="));
            last.unwrap_or("no summary").trim_matches(['=', ' ']).clone_into(&mut sanitizer.summary);
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => "not installed".clone_into(&mut sanitizer.summary),
        Err(e) => return Err(e).context("compute-sanitizer"),
    }
    output::note(&format!("compute-sanitizer, {}: {}", sanitizer.tool, sanitizer.summary));
    Ok(sanitizer)
}

fn show_limits(limits: &Limits) {
    output::note(&format!(
        "limits: read {:.0} GB/s, copy {:.0} (driver {:.0}), dp4a {:.0} TOP/s, mma int8 {:.0} TOP/s; a kernel boundary {:.0} ns in a graph, {:.0} with dependent launch, {:.0} one by one",
        limits.read_gb_s,
        limits.copy_kernel_gb_s,
        limits.copy_driver_gb_s,
        limits.dp4a_tops,
        limits.mma_tops,
        limits.boundary_ns,
        limits.boundary_dependent_ns,
        limits.boundary_eager_ns
    ));
}

fn rates(device: &mut Cuda, pool: &Pool, bandwidth: f64) -> Result<Vec<Rate>, DeviceError> {
    let mut rates = Vec::new();
    for format in Format::ALL {
        for tokens in [1, 2, 4, 8, 16, 32] {
            for shape in SHAPES {
                // One format in full, of the others the large shapes.
                if format != Format::Q4_K && shape.0 < 17_920 {
                    continue;
                }
                for mma in [false, true] {
                    if (mma && tokens < 8) || (!mma && tokens > 8) {
                        continue;
                    }
                    let Some(rate) = pool.gemv(device, format, tokens, mma, shape)? else { continue };
                    output::note(&format!(
                        "  {:22} {:6} x {:5} {:8.0} ns {:6.0} GB/s {:3.0} %",
                        rate.kernel,
                        rate.rows,
                        rate.columns,
                        rate.ns_per_launch,
                        rate.gb_per_s,
                        100.0 * rate.gb_per_s / bandwidth
                    ));
                    rates.push(rate);
                }
            }
        }
    }
    Ok(rates)
}

fn models(args: &GpuCheckArgs, report: &mut Report) -> anyhow::Result<()> {
    let mut subjects = Vec::new();
    for path in &args.model {
        let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        subjects.push((name, Model::load(path)?));
    }
    for types in ["q4_k_m", "q8_0", "q4_0", "bf16", "f16"] {
        let name = format!("tiny:{types}");
        subjects.push(synthetic(&name)?);
    }
    for (name, model) in &subjects {
        let exact = exact(model)?;
        let subject = Subject {
            name,
            graph: &model.fused,
            weights: model.weights(),
            exact: Some((&exact.fused, exact.weights())),
        };
        let prompt = prompt(model, name);
        let steps = 64.min(model.spec.context_length.saturating_sub(prompt.len() + 1));
        let check = subject.compare(Box::new(Cuda::open(args.device)?), &prompt, steps)?;
        let (same, all) = check.replay_equals_eager;
        output::note(&format!(
            "{name}: {} of {} tokens as on the CPU, logits within {:.4} standard deviations (from exact activations: CPU {:.4}, GPU {:.4}); replay = eager in {same} of {all} rows; greedy {}, company {}: {}",
            check.same_token,
            check.decoded,
            check.difference.largest,
            check.cpu_error.unwrap_or_default().mean,
            check.gpu_error.unwrap_or_default().mean,
            if check.greedy_equals_stepwise { "equal" } else { "DIFFERENT" },
            if check.company_changes_nothing { "changes nothing" } else { "CHANGES BITS" },
            if check.passed() { "passed" } else { "FAILED" }
        ));
        for o in &check.other_token {
            output::note(&format!("  position {}: CPU {}, GPU {}, margin {:.4}", o.position, o.cpu, o.gpu, o.margin));
        }
        report.passed &= check.passed();
        report.models.push(check);
    }
    if let Some((name, model)) = subjects.first() {
        let subject = Subject { name, graph: &model.fused, weights: model.weights(), exact: None };
        let leaks = subject.leaks(Box::new(Cuda::open(args.device)?), LEAK_STEPS)?;
        output::note(&format!(
            "{LEAK_STEPS} steps: {} free before, {} after, {} graphs captured meanwhile",
            output::bytes(leaks.free_before),
            output::bytes(leaks.free_after),
            leaks.captures
        ));
        report.passed &= leaks.free_after + LEAK_SLACK >= leaks.free_before && leaks.captures == 0;
        report.leaks = Some(leaks);
    }
    Ok(())
}

/// What a model goes on from: the beginning of a story if it can read, else tokens without meaning.
fn prompt(model: &Model, name: &str) -> Vec<u32> {
    let vocab = model.spec.vocab;
    match model.tokenizer.encode(
        "Once upon a time there was a little dog who",
        EncodeOptions { add_special: true, parse_special: false },
    ) {
        Ok(ids) if !name.starts_with("synthetic") && !ids.is_empty() => ids,
        _ => (0..12).map(|i| ((i * 7919 + 13) % vocab) as u32).collect(),
    }
}

/// The same model with its weights in f32.
fn exact(model: &Model) -> anyhow::Result<Model> {
    let file = tempfile::Builder::new().prefix("brick-exact-").suffix(".gguf").tempfile()?;
    requantize(&model.gguf, file.path(), |_| DType::F32)?;
    // The map keeps the file's bytes after its name is gone.
    Ok(Model::load(file.path())?)
}

fn synthetic(name: &str) -> anyhow::Result<(String, Model)> {
    let synthetic: Synthetic = name.parse()?;
    let model = Model::from_gguf(Arc::new(synthetic.gguf()?))?;
    Ok((synthetic.to_string(), model))
}

fn speed(args: &GpuCheckArgs, name: &str, bandwidth: f64) -> anyhow::Result<ModelSpeed> {
    let (name, model) = if Path::new(name).exists() {
        (name.to_owned(), Model::load(name)?)
    } else {
        synthetic(name).with_context(|| format!("--speed {name}"))?
    };
    let subject = Subject { name: &name, graph: &model.fused, weights: model.weights(), exact: None };
    let sequences: Vec<usize> = args.sequences.iter().map(|&n| n.into()).collect();
    let speed = subject.speed(Box::new(Cuda::open(args.device)?), &sequences, bandwidth)?;
    output::note(&format!(
        "{name}: {} of weights read per step, loaded in {:.1} s; prompt of 512: {:.0} tok/s",
        output::bytes(speed.bytes_per_step),
        speed.load_s,
        speed.prefill_tokens_per_s
    ));
    for s in &speed.decode {
        output::note(&format!(
            "  {:2} sequences: {:8.1} tok/s, {:5.0} GB/s of weights, {:4.1} % of bandwidth, {} launches",
            s.sequences,
            s.tokens_per_s,
            s.weight_gb_s,
            100.0 * s.fraction_of_bandwidth,
            s.launches
        ));
    }
    Ok(speed)
}
