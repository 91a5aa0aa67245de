//! `brick report` and `brick score`: everything that can be said about a recorded profile without running anything.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use brick_profiler::diff::{DiffOptions, ProfileDiff};
use brick_profiler::exec_graph::Heat;
use brick_profiler::score::ModelScore;
use brick_profiler::{ExecutionGraph, Phase, Profile, ReportOptions};

use crate::args::{DiffArgs, HeatArg, PhaseArg, ReportArgs, ReportCommand, ReportFormat, ScoreArgs};
use crate::output;

/// Why there is no roofline.
const UNTIMED: &str = "this profile has no times of bricks, or no limits of the machine: there is no roofline to draw";
/// Columns where nobody says how many there are.
const COLUMNS: usize = 100;

/// Profiles larger than this are not what they seem to be.
const LARGEST: u64 = 1 << 30;

pub(super) fn report(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    if let Some(ReportCommand::Diff(diff_args)) = &args.command {
        return diff(diff_args);
    }
    let path = args.profile.as_deref().context("no profile was given")?;
    let profile = read(path)?;
    let format = match (args.markdown, args.json, args.html) {
        (true, ..) => ReportFormat::Markdown,
        (_, true, _) => ReportFormat::Json,
        (.., true) => ReportFormat::Html,
        _ => args.format,
    };
    check_layer(&profile, args.layer)?;
    let text = render(&profile, format, args)?;
    match &args.output {
        Some(file) => output::write_atomically(file, &text)?,
        None if format == ReportFormat::Text => output::print_styled(&text)?,
        None => output::print(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn render(profile: &Profile, format: ReportFormat, args: &ReportArgs) -> anyhow::Result<String> {
    // A file is not a terminal.
    let style = if args.output.is_some() { brick_profiler::Style::PLAIN } else { output::style() };
    let options = ReportOptions {
        style,
        steps: args.steps.map_or(0, |n| n as usize),
        phase: args.phase.map(Phase::from),
        layer: args.layer,
    };
    if let Some(phase) = options.phase {
        require(profile, phase)?;
    }
    let heat = match args.heat {
        HeatArg::Time => Heat::Time,
        HeatArg::Roofline => Heat::Roofline,
    };
    let graph = || -> anyhow::Result<ExecutionGraph> {
        let phase = phase_of(profile, args.phase)?;
        ExecutionGraph::from_profile(profile, phase).context("the profile has no such phase")
    };
    Ok(match format {
        ReportFormat::Text => profile.to_text(&options),
        ReportFormat::Markdown => profile.to_markdown(&options),
        ReportFormat::Json => profile.to_json()?,
        ReportFormat::Ascii => graph()?.to_ascii_tree(),
        ReportFormat::Dot => graph()?.to_dot_by(heat),
        ReportFormat::Mermaid => graph()?.to_mermaid_by(heat),
        ReportFormat::Graph => graph()?.to_json()?,
        ReportFormat::Csr => serde_json::to_string_pretty(&graph()?.to_csr())?,
        ReportFormat::Html => profile.to_html(),
        ReportFormat::Trace => profile.to_chrome_trace(),
        ReportFormat::Flamegraph => profile.to_flamegraph_svg()?,
        ReportFormat::Folded => profile.to_folded(),
        ReportFormat::Roofline => {
            let phase = phase_of(profile, args.phase)?;
            profile.to_roofline_ascii(phase, terminal_width()).context(UNTIMED)?
        }
        ReportFormat::RooflineSvg => profile.to_roofline_svg(phase_of(profile, args.phase)?).context(UNTIMED)?,
    })
}

/// Columns of the terminal, as shells that export it say.
fn terminal_width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(COLUMNS)
}

fn diff(args: &DiffArgs) -> anyhow::Result<ExitCode> {
    if !(args.threshold >= 0.0 && args.threshold < 1.0) {
        bail!("--threshold {}: expected a fraction from 0 to 1, such as 0.02", args.threshold);
    }
    let (a, b) = (read(&args.first)?, read(&args.second)?);
    let diff = ProfileDiff::new(&a, &b, DiffOptions { threshold: args.threshold })?;
    if args.json {
        output::print_json(&diff)?;
    } else if args.markdown {
        output::print(&diff.to_markdown(args.steps))?;
    } else {
        output::print_styled(&diff.to_text(&output::style(), args.steps))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn score(args: &ScoreArgs) -> anyhow::Result<ExitCode> {
    let profile = read(&args.profile)?;
    let phase = phase_of(&profile, args.phase)?;
    let score = ModelScore::of(&profile, phase).context("the profile has no such phase")?;
    if args.json {
        output::print_json(&score)?;
    } else if args.markdown {
        output::print(&score.to_markdown())?;
    } else {
        output::print_styled(&score.to_text(&output::style()))?;
    }
    let Some(threshold) = args.threshold else { return Ok(ExitCode::SUCCESS) };
    match score.score {
        Some(points) if points >= threshold => Ok(ExitCode::SUCCESS),
        Some(points) => {
            output::error(&format!("score {points} is below the threshold of {threshold}"));
            Ok(ExitCode::FAILURE)
        }
        None => {
            output::error(&format!("there is no score to hold against the threshold of {threshold}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// A profile from a file, or from standard input.
fn read(path: &Path) -> anyhow::Result<Profile> {
    let stdin = path == Path::new("-");
    let name = if stdin { "standard input".to_owned() } else { path.display().to_string() };
    let context = || format!("cannot read {name}");
    let mut source: Box<dyn Read> =
        if stdin { Box::new(std::io::stdin()) } else { Box::new(std::fs::File::open(path).with_context(context)?) };
    let mut bytes = Vec::new();
    source.by_ref().take(LARGEST + 1).read_to_end(&mut bytes).with_context(context)?;
    if bytes.len() as u64 > LARGEST {
        bail!("{name}: expected a profile of at most {}, found more", output::bytes(LARGEST));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        anyhow::anyhow!("{name}: expected a profile in JSON, found bytes at offset {at} that are not UTF-8")
    })?;
    Ok(Profile::from_json(&name, &text)?)
}

/// The phase that was asked for, or the one a reader most likely means.
fn phase_of(profile: &Profile, asked: Option<PhaseArg>) -> anyhow::Result<Phase> {
    if let Some(phase) = asked.map(Phase::from) {
        require(profile, phase)?;
        return Ok(phase);
    }
    let recorded = |p: &Phase| profile.phase(*p).is_some();
    [Phase::Decode, Phase::Prefill, Phase::Mixed]
        .into_iter()
        .find(recorded)
        .context("nothing was recorded in this profile")
}

fn require(profile: &Profile, phase: Phase) -> anyhow::Result<()> {
    if profile.phase(phase).is_none() {
        let found: Vec<&str> = profile.phases.iter().map(|p| p.phase.name()).collect();
        bail!(
            "--phase {phase}: the profile has {}",
            if found.is_empty() { "no phases".into() } else { found.join(", ") }
        );
    }
    Ok(())
}

fn check_layer(profile: &Profile, layer: Option<u32>) -> anyhow::Result<()> {
    let Some(layer) = layer else { return Ok(()) };
    let layers = || profile.phases.iter().flat_map(|p| &p.layers).filter_map(|l| l.layer);
    if layers().any(|l| l == layer) {
        return Ok(());
    }
    match layers().max() {
        Some(last) => bail!("--layer {layer}: the profile has layers 0 to {last}"),
        None => bail!("--layer {layer}: the profile has no layers"),
    }
}
