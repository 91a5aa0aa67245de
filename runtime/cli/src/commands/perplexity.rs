//! `brick perplexity MODEL --file TEXT`: how well a model predicts a text.

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Context, bail};
use brick_models::tokenizer::EncodeOptions;
use brick_profiler::profile::{BuildInfo, ModelInfo};
use brick_runtime::engine::default_threads;
use brick_runtime::perplexity::{Chunks, MAX_WANTED, Score};
use brick_runtime::{EngineOptions, Model};
use serde::Serialize;

use crate::args::PerplexityArgs;
use crate::{exit, load, output, progress};

pub(super) fn perplexity(args: &PerplexityArgs) -> anyhow::Result<ExitCode> {
    let text = read(args)?;
    let context = args.ctx as usize;
    let model = load::model(&args.model)?;
    load::check_level()?;
    load::note_context("--ctx", context, &model);
    let chunks = chunks(&model, &text, context)?;
    let wanted = args.chunks.map_or(chunks.len(), |n| chunks.len().min(n as usize));

    let max_rows = (args.batch as usize).min(context);
    let options = EngineOptions {
        threads: args.threads.map_or_else(default_threads, usize::from),
        context,
        max_rows,
        max_wanted: MAX_WANTED.min(max_rows),
        ..EngineOptions::default()
    };
    let mut engine = model.engine(&options).context("cannot set up the engine")?;
    let sequence = engine.new_sequence()?;

    let bar = progress::steps(wanted as u64);
    let stop = progress::interrupted();
    let mut scores = Vec::with_capacity(wanted);
    let mut sum = Score::default();
    for chunk in 0..wanted {
        if stop.load(Ordering::Relaxed) {
            output::error("interrupted: nothing was reported");
            return Ok(ExitCode::from(exit::INTERRUPTED));
        }
        let score = chunks.score(chunk, &mut engine, sequence)?;
        sum.merge(&score);
        scores.push(score);
        bar.set_message(sum.perplexity().map_or_else(String::new, |p| format!("perplexity {p:.4}")));
        bar.inc(1);
    }
    bar.finish_and_clear();

    let report = Report::new(
        super::profile::model_info(&model, &args.model),
        format!("cpu {}", options.simd.name()),
        context,
        chunks.tokens().len(),
        &sum,
        &scores,
    )
    .context("no token was predicted")?;
    if args.json { output::print_json(&report) } else { output::print(&report.to_text()) }?;
    Ok(ExitCode::SUCCESS)
}

/// The text exactly as it is in the file; `-` is standard input.
fn read(args: &PerplexityArgs) -> anyhow::Result<String> {
    let name = args.file.display();
    let bytes = if args.file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
    } else {
        std::fs::read(&args.file)
    };
    let bytes = bytes.with_context(|| format!("cannot read --file {name}"))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(e) => bail!("--file {name} is not UTF-8: valid up to byte {}", e.utf8_error().valid_up_to()),
    }
}

/// Special tokens spelled in a text are text here, as in llama.cpp's tool.
fn chunks(model: &Model, text: &str, context: usize) -> anyhow::Result<Chunks> {
    let tokenizer = &model.tokenizer;
    // The end of text that some models want after a prompt would be one token to predict among thousands.
    let mut tokens = tokenizer.encode(text, EncodeOptions { add_special: false, parse_special: false })?;
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    if let Some(bos) = bos {
        tokens.insert(0, bos);
    }
    Ok(Chunks::new(tokens, context, bos)?)
}

/// The document of `--json`; likelihoods in nats.
#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    model: ModelInfo,
    build: BuildInfo,
    backend: String,
    context: usize,
    /// Of the text, BOS included.
    text_tokens: usize,
    /// At the end of the text, not looked at.
    unused_tokens: usize,
    predicted_tokens: u64,
    perplexity: f64,
    /// Null with a single token.
    perplexity_standard_error: Option<f64>,
    mean_nll: f64,
    mean_nll_standard_error: Option<f64>,
    /// Mean negative log-likelihood of each chunk.
    chunk_nll: Vec<f64>,
}

impl Report {
    /// `None` if no token was predicted.
    fn new(
        model: ModelInfo,
        backend: String,
        context: usize,
        text_tokens: usize,
        sum: &Score,
        chunks: &[Score],
    ) -> Option<Self> {
        Some(Self {
            schema: "brick.perplexity/1",
            model,
            build: crate::about::build(),
            backend,
            context,
            text_tokens,
            unused_tokens: text_tokens - chunks.len() * context,
            predicted_tokens: sum.tokens,
            perplexity: sum.perplexity()?,
            perplexity_standard_error: sum.perplexity_error(),
            mean_nll: sum.mean()?,
            mean_nll_standard_error: sum.standard_error(),
            chunk_nll: chunks.iter().filter_map(Score::mean).collect(),
        })
    }

    fn to_text(&self) -> String {
        let error = self.perplexity_standard_error.map_or_else(String::new, |e| format!(" ± {e:.4} (standard error)"));
        let chunks = self.chunk_nll.len();
        format!(
            "perplexity {:.4}{error}\n{} tokens predicted in {chunks} chunk{} of {}; {} of {} tokens unused\n",
            self.perplexity,
            self.predicted_tokens,
            if chunks == 1 { "" } else { "s" },
            self.context,
            self.unused_tokens,
            self.text_tokens,
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn report(chunks: &[&[f64]]) -> Option<Report> {
        let scores: Vec<Score> = chunks
            .iter()
            .map(|nlls| {
                let mut s = Score::default();
                for x in *nlls {
                    s.add(*x);
                }
                s
            })
            .collect();
        let mut sum = Score::default();
        for s in &scores {
            sum.merge(s);
        }
        let model = ModelInfo { name: "SmolLM2 135M".into(), ..ModelInfo::default() };
        let mut report = Report::new(model, "cpu scalar".into(), 8, 21, &sum, &scores)?;
        report.build = BuildInfo {
            version: "1.2.3".into(),
            target: "x86_64-linux".into(),
            debug_assertions: false,
            git: None,
            rustc: None,
            features: vec![],
        };
        Some(report)
    }

    #[test]
    fn the_report() {
        let r = report(&[&[1.0, 2.0, 3.0], &[2.5, 3.5, 0.5]]).unwrap();
        insta::assert_snapshot!("perplexity_text", r.to_text());
        insta::assert_snapshot!("perplexity_json", serde_json::to_string_pretty(&r).unwrap());
    }

    #[test]
    fn one_token_has_no_error_and_none_no_report() {
        assert_eq!(
            report(&[&[0.0]]).unwrap().to_text(),
            "perplexity 1.0000\n1 tokens predicted in 1 chunk of 8; 13 of 21 tokens unused\n"
        );
        assert!(report(&[]).is_none());
    }
}
