//! What a q8_0 KV cache costs in quality: next-token distributions with it against those with f16, at every position of the
//! golden prompts and their continuations.
//!
//! ```text
//! cargo run --release -p brick-benches --bin kv_quality -- smollm2 falsification/reference/golden/smollm2-135m-q4_1.json
//! ```

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use brick_models::registry::Registry;
use brick_runtime::engine::default_threads;
use brick_runtime::{Batch, EngineOptions, Model, Row};
use bricks::cpu::attention::KvType;
use bricks::reference::argmax;
use clap::Parser;
use serde::Deserialize;

/// Quality of a q8_0 KV cache against f16.
#[derive(Debug, Parser)]
struct Args {
    /// A known name (smollm2:135m), or a path.
    model: String,
    /// Golden file with the token ids.
    golden: PathBuf,
    /// Threads [default: the processors this process may use].
    #[arg(short, long)]
    threads: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct Golden {
    records: Vec<Record>,
}

#[derive(Debug, Deserialize)]
struct Record {
    id: String,
    prompt_ids: Vec<u32>,
    greedy_ids: Vec<u32>,
}

/// Divergence of one cache from the other over some positions.
#[derive(Debug, Default)]
struct Tally {
    positions: usize,
    same_top: usize,
    kl_sum: f64,
    kl_max: f64,
    /// Sum over positions of the log-probability of the token that follows, with f16 and with q8_0.
    log_p: [f64; 2],
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let registry = Registry::open_default()?;
    let model = Model::load(registry.resolve(&registry.parse(&args.model)?, &())?)?;
    let text =
        std::fs::read_to_string(&args.golden).with_context(|| format!("cannot read {}", args.golden.display()))?;
    let golden: Golden = serde_json::from_str(&text).with_context(|| args.golden.display().to_string())?;
    ensure!(!golden.records.is_empty(), "{} has no records", args.golden.display());
    let threads = args.threads.unwrap_or_else(default_threads);
    println!(
        "{:<24} {:>9} {:>9} {:>10} {:>10} {:>12} {:>12}",
        "prompt", "positions", "same top", "KL mean", "KL max", "ppl f16", "ppl q8_0"
    );
    let mut total = Tally::default();
    for r in &golden.records {
        let ids = [r.prompt_ids.as_slice(), &r.greedy_ids].concat();
        let f16 = logits(&model, &ids, KvType::F16, threads)?;
        let q8 = logits(&model, &ids, KvType::Q8_0, threads)?;
        let mut tally = Tally::default();
        for (i, (f16, q8)) in f16.iter().zip(&q8).enumerate() {
            tally.see(f16, q8, ids.get(i + 1).copied());
        }
        tally.print(&r.id);
        total.add(&tally);
    }
    total.print("all");
    Ok(())
}

/// Logits after every one of `ids`, which enter in calls of 128.
fn logits(model: &Model, ids: &[u32], kv_type: KvType, threads: usize) -> anyhow::Result<Vec<Vec<f32>>> {
    const ROWS: usize = 128;
    let options = EngineOptions {
        threads,
        context: ids.len(),
        max_rows: ROWS,
        max_wanted: ROWS,
        kv_type,
        ..EngineOptions::default()
    };
    let mut engine = model.engine(&options)?;
    let sequence = engine.new_sequence()?;
    let mut out = Vec::with_capacity(ids.len());
    let mut batch = Batch::with_capacity(ROWS);
    for (call, ids) in ids.chunks(ROWS).enumerate() {
        batch.clear();
        for (i, &token) in ids.iter().enumerate() {
            batch.push(Row { token, position: call * ROWS + i, sequence, wanted: true });
        }
        let logits = engine.forward_quiet(&batch)?;
        out.extend((0..logits.len()).map(|i| logits.row(i).to_vec()));
    }
    Ok(out)
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    logits.iter().map(|&x| f64::from(x - max) - sum.ln()).collect()
}

impl Tally {
    fn see(&mut self, f16: &[f32], q8: &[f32], next: Option<u32>) {
        self.positions += 1;
        self.same_top += usize::from(argmax(f16) == argmax(q8));
        let (p, q) = (log_softmax(f16), log_softmax(q8));
        let kl: f64 = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum();
        self.kl_sum += kl;
        self.kl_max = self.kl_max.max(kl);
        if let Some(next) = next {
            self.log_p[0] += p[next as usize];
            self.log_p[1] += q[next as usize];
        }
    }

    fn add(&mut self, other: &Self) {
        self.positions += other.positions;
        self.same_top += other.same_top;
        self.kl_sum += other.kl_sum;
        self.kl_max = self.kl_max.max(other.kl_max);
        self.log_p[0] += other.log_p[0];
        self.log_p[1] += other.log_p[1];
    }

    fn print(&self, name: &str) {
        let n = self.positions as f64;
        let [f16, q8] = self.log_p.map(|x| (-x / n).exp());
        let same = 100.0 * self.same_top as f64 / n;
        println!(
            "{name:<24} {:>9} {same:>7.2} % {:>10.6} {:>10.5} {f16:>12.4} {q8:>12.4}",
            self.positions,
            self.kl_sum / n,
            self.kl_max
        );
    }
}
