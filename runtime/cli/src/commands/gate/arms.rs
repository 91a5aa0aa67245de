//! Workers, and three of them taking turns.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use brick_profiler::gate::Conditions;
use brick_profiler::gate::paired::{Round, Sample, Series, StepRef};
use brick_profiler::paired::Order;
use brick_runtime::fault::Fault;
use serde::de::DeserializeOwned;

use super::worker::{Hello, PROTOCOL, Times};

/// A worker that says nothing for this long hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// Calls of a request at least, of which the fastest counts. An odd number.
pub(super) const CALLS: usize = 5;

/// How workers are started.
#[derive(Debug, Clone)]
pub(super) struct Setup<'a> {
    /// What a worker is told to load.
    pub(super) model: &'a OsStr,
    pub(super) conditions: &'a Conditions,
    pub(super) threads: u16,
    pub(super) depth: usize,
}

impl Setup<'_> {
    /// Arguments of the worker. What is not the conditions' own is passed as it is.
    pub(super) fn args(&self, fault: Option<&Fault>) -> Vec<OsString> {
        let c = self.conditions;
        let mut args: Vec<OsString> = vec!["gate-worker".into(), self.model.into()];
        for (name, value) in [
            ("--threads", self.threads.to_string()),
            ("--context", c.context.to_string()),
            ("--batch", c.batch.to_string()),
            ("--kv-type", c.kv_type.clone()),
            ("--depth", self.depth.to_string()),
        ] {
            args.push(name.into());
            args.push(value.into());
        }
        if let Some(fault) = fault {
            args.push("--inject".into());
            args.push(fault.to_string().into());
        }
        args
    }
}

/// A running worker. Dropped, it ends.
pub(super) struct Worker {
    program: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<std::io::Result<String>>,
    stderr: Option<JoinHandle<String>>,
    pub(super) hello: Hello,
}

impl Worker {
    /// Starts `command`, which is a worker of `program` (under valgrind, perhaps).
    pub(super) fn start(program: &Path, mut command: Command) -> anyhow::Result<Self> {
        let program = program.display().to_string();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let piped = "invariant: asked for a pipe";
        let stdout = child.stdout.take().expect(piped);
        let mut stderr = child.stderr.take().expect(piped);
        let (send, lines) = channel();
        // Ends with the pipe, or when nobody listens any more.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let stdin = child.stdin.take();
        let hello = Hello { protocol: PROTOCOL, version: String::new(), simd: String::new(), steps: Vec::new() };
        let mut worker = Self { program, child, stdin, lines, stderr: Some(stderr), hello };
        worker.hello = worker.read()?;
        if worker.hello.protocol != PROTOCOL {
            bail!("{}: expected protocol {PROTOCOL} of gate workers, found {}", worker.program, worker.hello.protocol);
        }
        Ok(worker)
    }

    /// A request and its answer.
    pub(super) fn ask<T: DeserializeOwned>(&mut self, request: &str) -> anyhow::Result<T> {
        let stdin = self.stdin.as_mut().expect("invariant: open until the end");
        // A worker that has ended is told of by what it said last.
        let _ = writeln!(stdin, "{request}").and_then(|()| stdin.flush());
        self.read()
    }

    fn read<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let line = match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line.with_context(|| self.program.clone())?,
            Err(RecvTimeoutError::Timeout) => bail!("{}: no answer in {} s", self.program, PATIENCE.as_secs()),
            Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
        };
        serde_json::from_str(&line).with_context(|| format!("{}: expected a gate worker, found {line:?}", self.program))
    }

    /// Why a worker that should answer has ended.
    fn ended(&mut self) -> anyhow::Error {
        drop(self.stdin.take());
        let status = self.child.wait().map_or_else(|e| e.to_string(), |s| s.to_string());
        let stderr = self.stderr.take().and_then(|t| t.join().ok()).unwrap_or_default();
        let said =
            stderr.lines().find(|l| l.starts_with("error")).or_else(|| stderr.lines().last()).unwrap_or("nothing");
        anyhow::anyhow!(
            "{}: expected a gate worker, found a program that ended ({status}) and said: {said}",
            self.program
        )
    }

    /// Closes its input and waits for its end, which must be an orderly one.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        drop(self.stdin.take());
        let begin = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(_) => return Err(self.ended()),
                None if begin.elapsed() > PATIENCE => bail!("{}: does not end", self.program),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Times of a call, the least of several.
    pub(super) fn sample(&mut self, rows: usize, calls: usize) -> anyhow::Result<Sample> {
        let times: Times = self.ask(&format!("call {rows} {calls}"))?;
        if times.steps_ns.len() != self.hello.steps.len() {
            let (expected, found) = (self.hello.steps.len(), times.steps_ns.len());
            bail!("{}: expected times of {expected} steps, found {found}", self.program);
        }
        // A step shorter than a tick of the clock took some time all the same.
        let ns = |n: u64| n.max(1) as f64;
        Ok(Sample { wall_ns: ns(times.wall_ns), steps_ns: times.steps_ns.into_iter().map(ns).collect() })
    }

    /// Its steps; `streams` says which stream from memory, by name.
    fn steps(&self, streams: &dyn Fn(&str) -> bool) -> Vec<StepRef> {
        let step = |s: &super::worker::StepName| StepRef {
            name: s.name.clone(),
            kind: s.kind.clone(),
            layer: s.layer,
            streams: streams(&s.name),
        };
        self.hello.steps.iter().map(step).collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It may be in the middle of a call; nothing of it is wanted any more. One that has ended already is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A worker of `program`.
pub(super) fn start(program: &Path, setup: &Setup<'_>, fault: Option<&Fault>) -> anyhow::Result<Worker> {
    let mut command = Command::new(program);
    command.args(setup.args(fault));
    Worker::start(program, command)
}

/// A call that is compared.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) rows: usize,
}

/// One repeat: three new processes, and rounds of each call.
pub(super) struct Repeat<'a> {
    pub(super) base: &'a Path,
    pub(super) candidate: PathBuf,
    pub(super) fault: Option<&'a Fault>,
    pub(super) rounds: usize,
    /// Whether reading memory bounds a step in a call, by name.
    pub(super) streams: &'a dyn Fn(&Call, &str) -> bool,
}

impl Repeat<'_> {
    /// Measures the calls. `number` is that of the repeat: the order in which processes start goes round, as the first may find more
    /// large pages than the last.
    pub(super) fn run(&self, setup: &Setup<'_>, calls: &[Call], number: usize) -> anyhow::Result<Vec<Series>> {
        let mut arms: Vec<(usize, Worker)> = Vec::with_capacity(3);
        for arm in (0..3).map(|i| (number + i) % 3) {
            let (program, fault) = if arm == 2 { (&*self.candidate, self.fault) } else { (self.base, None) };
            arms.push((arm, start(program, setup, fault)?));
        }
        arms.sort_by_key(|(arm, _)| *arm);
        let mut arms: Vec<Worker> = arms.into_iter().map(|(_, worker)| worker).collect();
        if arms[0].hello.simd != arms[2].hello.simd {
            let (base, candidate) = (&arms[0], &arms[2]);
            bail!("{}: runs {} kernels, this program {}", base.program, base.hello.simd, candidate.hello.simd);
        }
        let mut all = Vec::with_capacity(calls.len());
        for call in calls {
            let mut rounds = Vec::with_capacity(self.rounds);
            // What one call takes, to make short ones more often: a sample of some milliseconds.
            let probe = arms[0].sample(call.rows, CALLS)?;
            let calls = ((2e6 / probe.wall_ns) as usize).clamp(CALLS, 64);
            for order in Order::default().take(self.rounds) {
                let mut samples = [None, None, None];
                for arm in order {
                    samples[arm] = Some(arms[arm].sample(call.rows, calls)?);
                }
                if let [Some(base), Some(control), Some(candidate)] = samples {
                    rounds.push(Round { base, control, candidate });
                }
            }
            let streams = |name: &str| (self.streams)(call, name);
            let (base_steps, candidate_steps) = (arms[0].steps(&streams), arms[2].steps(&streams));
            all.push(Series { call: call.name.clone(), base_steps, candidate_steps, rounds });
        }
        for arm in arms {
            arm.finish()?;
        }
        Ok(all)
    }
}
