//! Another program, measured in turn with this one.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::measure::{Kind, Test, synthetic_token};

/// Longest that a server may take for one request.
const PATIENCE: Duration = Duration::from_secs(600);

/// Who is measured besides.
pub(super) enum Peer {
    /// A program that takes llama-bench's options and prints its JSON.
    Command(String),
    /// A server with the OpenAI API.
    Server(Server),
}

/// What the report says about the other program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct About {
    /// `command` or `server`.
    pub(super) kind: &'static str,
    /// The command line, or the address.
    pub(super) what: String,
    /// How the two sides' figures differ in what they contain.
    pub(super) note: &'static str,
}

impl Peer {
    pub(super) fn new(cmd: Option<&str>, url: Option<&str>, model: Option<&str>) -> anyhow::Result<Option<Self>> {
        Ok(match (cmd, url) {
            (Some(cmd), _) => Some(Self::Command(cmd.to_owned())),
            (None, Some(url)) => Some(Self::Server(Server::new(url, model)?)),
            (None, None) => None,
        })
    }

    pub(super) fn about(&self) -> About {
        match self {
            Self::Command(cmd) => About {
                kind: "command",
                what: cmd.clone(),
                note: "both sides: forward calls only; the other one is started anew for every repetition and warms up by itself",
            },
            Self::Server(s) => About {
                kind: "server",
                what: s.base.clone(),
                note: "the server's figures contain its sampling, HTTP and the network; a prompt's speed is that of the first token",
            },
        }
    }

    /// Tokens per second of a test, once. `round` makes prompts differ, so that no cache of prefixes can answer.
    pub(super) fn once(&mut self, test: &Test, threads: usize, round: u32, vocab: usize) -> anyhow::Result<f64> {
        ensure!(test.sequences == 1, "{test}: another program is measured with one sequence only");
        let tok_s = match self {
            Self::Command(cmd) => command(cmd, test, threads)?,
            Self::Server(s) => s.once(test, round, vocab)?,
        };
        ensure!(tok_s.is_finite() && tok_s > 0.0, "{test}: the other program says {tok_s} tokens per second");
        Ok(tok_s)
    }
}

/// Runs llama-bench, or what takes its options, for one test.
fn command(cmd: &str, test: &Test, threads: usize) -> anyhow::Result<f64> {
    let (p, n) = match test.kind {
        Kind::Prefill => (test.tokens, 0),
        Kind::Decode => (0, test.tokens),
    };
    let depth = if test.depth > 0 { format!(" -d {}", test.depth) } else { String::new() };
    let line = format!("{cmd} -p {p} -n {n}{depth} -t {threads} -r 1 -o json");
    let mut shell = if cfg!(windows) { Command::new("cmd") } else { Command::new("/bin/sh") };
    shell.arg(if cfg!(windows) { "/C" } else { "-c" }).arg(&line).stdin(Stdio::null());
    let done = shell.output().with_context(|| format!("cannot run {line}"))?;
    if !done.status.success() {
        let text = String::from_utf8_lossy(&done.stderr);
        let last = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("nothing on standard error");
        bail!("{line}: {}: {}", done.status, clean(last));
    }
    speed_of(&String::from_utf8_lossy(&done.stdout), p, n).with_context(|| line.clone())
}

/// `avg_ts` of the entry for this test in llama-bench's JSON.
fn speed_of(text: &str, p: usize, n: usize) -> anyhow::Result<f64> {
    let expected = "expected llama-bench's JSON, an array of objects with n_prompt, n_gen and avg_ts";
    let start = text.find('[').with_context(|| format!("{expected}; found {:?}", short(text)))?;
    let tests: Vec<Value> =
        serde_json::from_str(&text[start..]).with_context(|| format!("{expected}; found {:?}", short(text)))?;
    let found = tests.iter().find(|t| t["n_prompt"] == p && t["n_gen"] == n);
    let found = found.with_context(|| format!("{expected}; found no entry with n_prompt {p} and n_gen {n}"))?;
    found["avg_ts"].as_f64().with_context(|| format!("{expected}; found avg_ts {}", found["avg_ts"]))
}

/// A server with `/v1/completions`.
pub(super) struct Server {
    agent: ureq::Agent,
    base: String,
    model: Option<String>,
}

impl Server {
    fn new(url: &str, model: Option<&str>) -> anyhow::Result<Self> {
        ensure!(
            url.starts_with("http://") || url.starts_with("https://"),
            "--vs {url}: expected an address such as http://localhost:8080"
        );
        let base = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().new_agent();
        let mut server = Self { agent, base, model: model.map(str::to_owned) };
        if server.model.is_none() {
            server.model = server.first_model()?;
        }
        Ok(server)
    }

    /// The first model the server names; servers of one model may name none.
    fn first_model(&self) -> anyhow::Result<Option<String>> {
        let url = format!("{}/v1/models", self.base);
        let mut reply = match self.agent.get(&url).call() {
            Ok(reply) => reply,
            Err(ureq::Error::StatusCode(_)) => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot reach {url}")),
        };
        let list: Value = reply.body_mut().read_json().with_context(|| format!("{url}: expected JSON"))?;
        Ok(list["data"][0]["id"].as_str().map(str::to_owned))
    }

    /// One streamed completion: of one token for a prompt, of as many as asked for otherwise.
    fn once(&self, test: &Test, round: u32, vocab: usize) -> anyhow::Result<f64> {
        // Some tokens of a prompt come first in any case: a completion needs one.
        let (prompt, wanted) = match test.kind {
            Kind::Prefill => (test.depth + test.tokens, 1),
            Kind::Decode => (test.depth.max(1), test.tokens + 1),
        };
        let ids: Vec<u32> = (0..prompt).map(|i| synthetic_token(i + 31 * round as usize, vocab)).collect();
        let mut body = json!({
            "prompt": ids, "max_tokens": wanted, "temperature": 0, "stream": true, "stream_options": {"include_usage": true},
            "ignore_eos": true, "cache_prompt": false,
        });
        if let Some(model) = &self.model {
            body["model"] = json!(model);
        }
        let url = format!("{}/v1/completions", self.base);
        let start = Instant::now();
        let reply = self.agent.post(&url).send_json(&body).with_context(|| format!("cannot post to {url}"))?;
        let stream =
            Stream::read(BufReader::new(reply.into_body().into_reader()), start).with_context(|| url.clone())?;
        let tokens = stream.usage.unwrap_or(stream.events);
        match test.kind {
            Kind::Prefill => {
                // A prompt of ids is taken as it is, or refused; what the server counted counts.
                let counted = stream.prompt.map_or(test.tokens, |n| (n as usize).saturating_sub(test.depth));
                Ok(counted as f64 / stream.first.as_secs_f64())
            }
            Kind::Decode => {
                ensure!(tokens >= 2, "{url}: expected {wanted} tokens, found {tokens}: a speed needs two");
                Ok((tokens - 1) as f64 / (stream.last.saturating_sub(stream.first)).as_secs_f64())
            }
        }
    }
}

/// What a stream of server-sent events said, and when.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stream {
    /// Events with a piece of text.
    events: u64,
    /// When the first and the last of them came.
    first: Duration,
    last: Duration,
    /// Tokens by the server's own count.
    usage: Option<u64>,
    prompt: Option<u64>,
}

impl Stream {
    fn read(reader: impl BufRead, start: Instant) -> anyhow::Result<Self> {
        let mut stream = Self::default();
        for line in reader.lines() {
            let line = line.context("the stream broke off")?;
            let Some(data) = line.strip_prefix("data:").map(str::trim) else { continue };
            if data == "[DONE]" {
                break;
            }
            let event: Value = serde_json::from_str(data)
                .with_context(|| format!("expected an event in JSON, found {:?}", short(data)))?;
            if let Some(error) = event.get("error") {
                bail!("the server says: {}", short(&error.to_string()));
            }
            if event["choices"].as_array().is_some_and(|c| !c.is_empty() && c[0].get("text").is_some()) {
                stream.last = start.elapsed();
                if stream.events == 0 {
                    stream.first = stream.last;
                }
                stream.events += 1;
            }
            let count = |name: &str| event["usage"][name].as_u64();
            stream.usage = count("completion_tokens").or(stream.usage);
            stream.prompt = count("prompt_tokens").or(stream.prompt);
        }
        ensure!(stream.events > 0, "expected a stream of completion events, found none");
        Ok(stream)
    }
}

/// The beginning of a text from outside, for an error.
fn short(text: &str) -> String {
    clean(&text.chars().take(120).collect::<String>())
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn llama_benchs_json() {
        let text = "build: 1234\n[{\"n_prompt\": 0, \"n_gen\": 8, \"avg_ts\": 5.5}, {\"n_prompt\": 512, \"n_gen\": 0, \"avg_ts\": 770.25}]\n";
        assert_eq!(speed_of(text, 512, 0).unwrap(), 770.25);
        assert_eq!(speed_of(text, 0, 8).unwrap(), 5.5);
        for (text, found) in [
            ("no json", "found \"no json\""),
            ("[{]", "found \"[{]\""),
            ("[]", "found no entry with n_prompt 512 and n_gen 0"),
            ("[{\"n_prompt\": 512, \"n_gen\": 0, \"avg_ts\": \"fast\"}]", "found avg_ts \"fast\""),
        ] {
            let e = format!("{:#}", speed_of(text, 512, 0).unwrap_err());
            assert!(e.contains("expected llama-bench's JSON") && e.contains(found), "{e}");
        }
    }

    #[test]
    fn streams_of_events() {
        let read = |text: &str| Stream::read(text.as_bytes(), Instant::now());
        let s = read(
            ": comment\n\ndata: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"b\"}]}\n\n\
             data: {\"choices\":[],\"usage\":{\"completion_tokens\":9,\"prompt_tokens\":4}}\n\ndata: [DONE]\nnonsense",
        )
        .unwrap();
        assert_eq!((s.events, s.usage, s.prompt), (2, Some(9), Some(4)));
        assert!(s.first <= s.last);
        let error = |text: &str| format!("{:#}", read(text).unwrap_err());
        assert_eq!(error(""), "expected a stream of completion events, found none");
        assert_eq!(error("data: {\"error\":{\"message\":\"no\"}}\n"), "the server says: {\"message\":\"no\"}");
        assert!(error("data: {\n").contains("expected an event in JSON"));
    }
}
