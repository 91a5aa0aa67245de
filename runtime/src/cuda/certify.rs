//! Certifying a GPU: that it computes what the CPU and the interpreter compute, that replay is eager launching to the bit, that nothing
//! leaks; and how fast it decodes.

use std::sync::Arc;
use std::time::Instant;

use brick_cuda::Device;
use brick_graphs::Graph;
use serde::Serialize;

use super::GpuCounts;
use crate::batch::Batch;
use crate::engine::{Engine, EngineError, EngineOptions};
use crate::kv::SequenceId;
use crate::weights::Weights;

/// How a model on the GPU compares with the CPU, and with itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelCheck {
    /// Name of the model.
    pub model: String,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens that were decoded greedily on the CPU, and given to both.
    pub decoded: usize,
    /// Positions where the largest logit of both is the same token.
    pub same_token: usize,
    /// Positions where it is not, with the CPU's logits of both tokens: a tie, or a difference.
    pub other_token: Vec<OtherToken>,
    /// Differences between GPU and CPU.
    pub difference: Difference,
    /// Differences between the CPU and the same weights without rounding of activations, if they were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_error: Option<Difference>,
    /// Differences between the GPU and the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_error: Option<Difference>,
    /// Rows of logits of replayed steps that are those of eager launching, to the bit, of all that were compared.
    pub replay_equals_eager: (usize, usize),
    /// Greedy decoding on the device gives the tokens of stepwise decoding on the device.
    pub greedy_equals_stepwise: bool,
    /// A row in a batch of several sequences has the bits that it has alone.
    pub company_changes_nothing: bool,
    /// What the runner did.
    pub captures: u64,
}

/// How far logits are apart, in standard deviations of their row.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Difference {
    /// The largest of all logits of all positions.
    pub largest: f64,
    /// Mean over positions of the largest of a position.
    pub mean: f64,
}

impl Difference {
    fn between(reference: &[Vec<f32>], found: &[Vec<f32>]) -> Self {
        let mut out = Self::default();
        for (a, b) in reference.iter().zip(found) {
            // A NaN is no difference that `max` would see.
            let d = if b.iter().all(|x| x.is_finite()) {
                a.iter().zip(b).map(|(x, y)| f64::from((x - y).abs())).fold(0.0, f64::max) / spread(a)
            } else {
                f64::INFINITY
            };
            out.largest = out.largest.max(d);
            out.mean += d / reference.len() as f64;
        }
        out
    }
}

/// A position where CPU and GPU prefer different tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OtherToken {
    /// Position.
    pub position: usize,
    /// What the CPU prefers.
    pub cpu: u32,
    /// What the GPU prefers.
    pub gpu: u32,
    /// How much more the CPU prefers its own, in standard deviations of the row.
    pub margin: f64,
}

impl ModelCheck {
    /// Whether the GPU computes what it should: it is no further from exact arithmetic than the CPU (a quarter is allowed for where
    /// rounding happens to fall), or, without such, close to the CPU; and tokens differ only where the CPU's own preference is smaller
    /// than twice the largest difference.
    pub fn passed(&self) -> bool {
        let (same, all) = self.replay_equals_eager;
        let close = match (self.cpu_error, self.gpu_error) {
            (Some(cpu), Some(gpu)) => gpu.mean <= 1.25 * cpu.mean + CLOSE,
            _ => self.difference.largest < FAR,
        };
        let ties = self.other_token.iter().all(|o| o.margin <= 2.0 * self.difference.largest);
        close
            && self.difference.largest.is_finite()
            && ties
            && same == all
            && self.greedy_equals_stepwise
            && self.company_changes_nothing
    }
}

/// Standard deviations that are nothing: what the order of f32 sums makes.
const CLOSE: f64 = 1e-3;
/// Standard deviations that rounding to 8 bits in another order does not make, in models of few layers.
const FAR: f64 = 0.1;

/// Decoding speed at a number of sequences.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speed {
    /// Sequences side by side.
    pub sequences: usize,
    /// Steps of a run.
    pub steps: usize,
    /// Nanoseconds per step, of each run.
    pub ns_per_step: Vec<f64>,
    /// Tokens per second of all sequences, of the median run.
    pub tokens_per_s: f64,
    /// Bytes of weights per nanosecond: each byte counted once per step.
    pub weight_gb_s: f64,
    /// That, of the bandwidth that was measured.
    pub fraction_of_bandwidth: f64,
    /// Launches of a captured step.
    pub launches: usize,
}

/// Speeds of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelSpeed {
    /// Name of the model.
    pub model: String,
    /// Bytes of weights that a step of one token reads.
    pub bytes_per_step: u64,
    /// Seconds to bring the weights to the device.
    pub load_s: f64,
    /// Decoding, by sequences.
    pub decode: Vec<Speed>,
    /// Tokens per second of a prompt of 512 tokens.
    pub prefill_tokens_per_s: f64,
    /// Bytes on the device.
    pub weight_bytes: u64,
}

/// A leak check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leaks {
    /// Steps.
    pub steps: usize,
    /// Bytes of device memory that were free before.
    pub free_before: u64,
    /// Bytes that are free after.
    pub free_after: u64,
    /// Graphs that were captured meanwhile.
    pub captures: u64,
}

/// A model to be certified.
pub struct Subject<'a> {
    /// Its name.
    pub name: &'a str,
    /// The fused graph.
    pub graph: &'a Graph,
    /// Its weights.
    pub weights: Arc<dyn Weights>,
    /// The same model with its weights in f32, which the CPU multiplies without rounding activations.
    pub exact: Option<(&'a Graph, Arc<dyn Weights>)>,
}

impl Subject<'_> {
    fn engine(&self, device: Box<dyn Device>, options: &EngineOptions) -> Result<Engine, EngineError> {
        Engine::on_device(self.graph, &*self.weights, options, device, &mut ())
    }

    /// Compares a model on the device with the CPU, token for token, on a prompt and `steps` tokens after it.
    ///
    /// # Errors
    /// When an engine cannot be made, or fails.
    pub fn compare(&self, device: Box<dyn Device>, prompt: &[u32], steps: usize) -> Result<ModelCheck, EngineError> {
        let options = EngineOptions {
            context: (prompt.len() + steps + 1).max(64),
            sequences: 4,
            max_rows: 64,
            max_wanted: 8,
            ..EngineOptions::default()
        };
        let mut cpu = Engine::new(self.graph, Arc::clone(&self.weights), &options)?;
        let mut gpu = self.engine(device, &options)?;
        let (reference, tokens) = decode(&mut cpu, prompt, steps, None)?;
        let (found, _) = decode(&mut gpu, prompt, steps, Some(&tokens))?;
        let mut check = ModelCheck {
            model: self.name.to_owned(),
            prompt: prompt.len(),
            decoded: steps,
            same_token: 0,
            other_token: Vec::new(),
            difference: Difference::between(&reference, &found),
            cpu_error: None,
            gpu_error: None,
            replay_equals_eager: (0, 0),
            greedy_equals_stepwise: false,
            company_changes_nothing: false,
            captures: 0,
        };
        if let Some((graph, weights)) = &self.exact {
            let mut exact = Engine::new(graph, Arc::clone(weights), &options)?;
            let (exact, _) = decode(&mut exact, prompt, steps, Some(&tokens))?;
            check.cpu_error = Some(Difference::between(&exact, &reference));
            check.gpu_error = Some(Difference::between(&exact, &found));
        }
        for (i, (a, b)) in reference.iter().zip(&found).enumerate() {
            let (cpu, gpu) = (largest(a), largest(b));
            if cpu == gpu {
                check.same_token += 1;
            } else {
                let margin = f64::from(a[cpu as usize] - a[gpu as usize]) / spread(a);
                check.other_token.push(OtherToken { position: prompt.len() + i, cpu, gpu, margin });
            }
        }
        // The same once more, every launch made one by one.
        if let Some(runner) = gpu.gpu_mut() {
            runner.set_capture(false);
        }
        let (eager, _) = decode(&mut gpu, prompt, steps, Some(&tokens))?;
        if let Some(runner) = gpu.gpu_mut() {
            runner.set_capture(true);
        }
        let same =
            |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits());
        let equal = found.iter().zip(&eager).filter(|(a, b)| same(a, b)).count();
        check.replay_equals_eager = (equal, found.len());
        check.greedy_equals_stepwise = Self::greedy(&mut gpu, prompt, steps)?;
        check.company_changes_nothing = company(&mut gpu, prompt, &tokens, &found)?;
        check.captures = gpu.gpu().map_or(0, |g| g.counts().captures);
        Ok(check)
    }

    /// Whether decoding with every token going into the next step on the device gives what decoding step by step gives.
    fn greedy(gpu: &mut Engine, prompt: &[u32], steps: usize) -> Result<bool, EngineError> {
        let (_, stepwise) = decode(gpu, prompt, steps, None)?;
        let id = gpu.new_sequence()?;
        let mut batch = Batch::default();
        batch.push_tokens(id, 0, prompt);
        let first = gpu.forward_quiet(&batch)?.last().map(largest).unwrap_or_default();
        let mut tokens = vec![first];
        let seen = gpu.decode_greedy(&[(id, first)], steps - 1, &mut |found| {
            tokens.push(found[0]);
            true
        })?;
        gpu.kv_mut().release(id)?;
        Ok(seen + 1 == steps && tokens == stepwise)
    }

    /// Decodes `steps` steps and says what is left of the memory.
    ///
    /// # Errors
    /// When the engine cannot be made, or fails.
    pub fn leaks(&self, device: Box<dyn Device>, steps: usize) -> Result<Leaks, EngineError> {
        let options = EngineOptions { context: 256, max_rows: 8, max_wanted: 1, ..EngineOptions::default() };
        let mut engine = self.engine(device, &options)?;
        let free = |engine: &mut Engine| -> Result<u64, EngineError> {
            let gpu = engine.gpu_mut().ok_or(EngineError::CpuOnly("memory is looked at"))?;
            gpu.device_mut().synchronize().map_err(super::GpuError::from)?;
            Ok(gpu.device_mut().memory().map_err(super::GpuError::from)?.0)
        };
        let run = |engine: &mut Engine, steps: usize| -> Result<(), EngineError> {
            let mut left = steps;
            while left > 0 {
                let id = engine.new_sequence()?;
                let n = left.min(200);
                engine.decode_greedy(&[(id, 1)], n, &mut |_| true)?;
                engine.kv_mut().release(id)?;
                left -= n;
            }
            Ok(())
        };
        // The first steps capture, and load kernels.
        run(&mut engine, 210)?;
        let captures = |e: &Engine| e.gpu().map_or(0, |g| g.counts().captures);
        let (free_before, before) = (free(&mut engine)?, captures(&engine));
        run(&mut engine, steps)?;
        let free_after = free(&mut engine)?;
        Ok(Leaks { steps, free_before, free_after, captures: captures(&engine) - before })
    }

    /// How fast it decodes, for each number of sequences, at contexts of up to 256 positions.
    ///
    /// # Errors
    /// When the engine cannot be made, or fails.
    pub fn speed(
        &self,
        device: Box<dyn Device>,
        sequences: &[usize],
        bandwidth_gb_s: f64,
    ) -> Result<ModelSpeed, EngineError> {
        const STEPS: usize = 128;
        const RUNS: usize = 5;
        let most = sequences.iter().copied().max().unwrap_or(1);
        let options = EngineOptions {
            context: 1024,
            sequences: most,
            max_rows: 512,
            max_wanted: most.min(8),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            ..EngineOptions::default()
        };
        let start = Instant::now();
        let mut engine = self.engine(device, &options)?;
        let load_s = start.elapsed().as_secs_f64();
        let bytes_per_step = bytes_per_step(self.graph);
        let mut decode = Vec::new();
        for &n in sequences {
            let ids = (0..n).map(|_| engine.new_sequence()).collect::<Result<Vec<_>, _>>()?;
            let rows: Vec<(SequenceId, u32)> = ids.iter().enumerate().map(|(i, &id)| (id, i as u32 + 1)).collect();
            let mut times = Vec::with_capacity(RUNS);
            for _ in 0..=RUNS {
                for id in &ids {
                    engine.kv_mut().truncate(*id, 0)?;
                }
                let start = Instant::now();
                engine.decode_greedy(&rows, STEPS, &mut |_| true)?;
                times.push(start.elapsed().as_nanos() as f64 / STEPS as f64);
            }
            for id in ids {
                engine.kv_mut().release(id)?;
            }
            times.remove(0);
            let mut sorted = times.clone();
            sorted.sort_by(f64::total_cmp);
            let median = sorted[RUNS / 2];
            let weight_gb_s = bytes_per_step as f64 / median;
            let launches = engine.gpu().map_or(0, |g| {
                let rows = super::plan::Chunks::of(n);
                g.captured().filter(|(e, ..)| e.greedy && e.rows == rows).map(|(_, _, n)| n).max().unwrap_or(0)
            });
            decode.push(Speed {
                sequences: n,
                steps: STEPS,
                ns_per_step: times,
                tokens_per_s: n as f64 * 1e9 / median,
                weight_gb_s,
                fraction_of_bandwidth: weight_gb_s / bandwidth_gb_s,
                launches,
            });
        }
        let prefill_tokens_per_s = prefill(&mut engine)?;
        let counts = engine.gpu().map_or_else(GpuCounts::default, super::GpuRunner::counts);
        Ok(ModelSpeed {
            model: self.name.to_owned(),
            bytes_per_step,
            load_s,
            decode,
            prefill_tokens_per_s,
            weight_bytes: counts.weight_bytes,
        })
    }
}

/// Bytes of matrices that a step reads: all but the embedding table, of which it reads rows.
fn bytes_per_step(graph: &Graph) -> u64 {
    graph.bricks().filter(|b| !b.op.parts().is_empty()).flat_map(|b| graph.weight_shapes(b.id)).map(|s| s.bytes()).sum()
}

fn prefill(engine: &mut Engine) -> Result<f64, EngineError> {
    const PROMPT: usize = 512;
    let vocab = engine.vocab();
    let prompt: Vec<u32> = (0..PROMPT).map(|i| ((i * 7919 + 101) % vocab) as u32).collect();
    let mut times = Vec::new();
    for _ in 0..4 {
        let id = engine.new_sequence()?;
        let mut batch = Batch::default();
        batch.push_tokens(id, 0, &prompt);
        let start = Instant::now();
        engine.forward_quiet(&batch)?;
        times.push(start.elapsed().as_secs_f64());
        engine.kv_mut().release(id)?;
    }
    times.remove(0);
    times.sort_by(f64::total_cmp);
    Ok(PROMPT as f64 / times[times.len() / 2])
}

/// Logits after the prompt and after each of `steps - 1` tokens, and the `steps` tokens: given ones, or the largest logits.
fn decode(
    engine: &mut Engine,
    prompt: &[u32],
    steps: usize,
    given: Option<&[u32]>,
) -> Result<(Vec<Vec<f32>>, Vec<u32>), EngineError> {
    let id = engine.new_sequence()?;
    let mut batch = Batch::default();
    let (mut rows, mut tokens) = (Vec::with_capacity(steps), Vec::with_capacity(steps));
    for (i, part) in prompt.chunks(engine.max_rows()).enumerate() {
        batch.clear();
        batch.push_tokens(id, i * engine.max_rows(), part);
        engine.forward_quiet(&batch)?;
    }
    for step in 0..steps {
        let row = engine.logits().last().unwrap_or_default().to_vec();
        let token = given.map_or_else(|| largest(&row), |given| given[step]);
        rows.push(row);
        tokens.push(token);
        if step + 1 < steps {
            batch.clear();
            batch.push_tokens(id, prompt.len() + step, &[token]);
            engine.forward_quiet(&batch)?;
        }
    }
    engine.kv_mut().release(id)?;
    Ok((rows, tokens))
}

/// Whether a sequence between two others has the logits that it has alone.
fn company(gpu: &mut Engine, prompt: &[u32], tokens: &[u32], alone: &[Vec<f32>]) -> Result<bool, EngineError> {
    let ids = [gpu.new_sequence()?, gpu.new_sequence()?, gpu.new_sequence()?];
    let mut batch = Batch::default();
    let starts: [&[u32]; 3] = [&prompt[..1], prompt, &prompt[..prompt.len().min(2)]];
    for (id, start) in ids.iter().zip(starts) {
        for (i, part) in start.chunks(gpu.max_rows()).enumerate() {
            batch.clear();
            batch.push_tokens(*id, i * gpu.max_rows(), part);
            gpu.forward_quiet(&batch)?;
        }
    }
    let mut same = true;
    for (step, &token) in tokens.iter().enumerate().take(alone.len() - 1) {
        batch.clear();
        for (id, start) in ids.iter().zip(starts) {
            batch.push_tokens(*id, start.len() + step, &[token]);
        }
        let logits = gpu.forward_quiet(&batch)?;
        let row = logits.row(1);
        same &= row.iter().zip(&alone[step + 1]).all(|(a, b)| a.to_bits() == b.to_bits());
    }
    for id in ids {
        gpu.kv_mut().release(id)?;
    }
    Ok(same)
}

fn largest(logits: &[f32]) -> u32 {
    crate::sampler::argmax(logits).unwrap_or(0)
}

/// Standard deviation.
fn spread(row: &[f32]) -> f64 {
    let n = row.len().max(1) as f64;
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    (row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n).sqrt().max(f64::MIN_POSITIVE)
}
