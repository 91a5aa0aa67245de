//! Spans for an OpenTelemetry collector, over HTTP with Protocol Buffers (OTLP/HTTP). Optional: nothing is recorded without an endpoint.

mod spans;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use brick_profiler::{BrickProfiler, Clock, TimeSource};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

pub(crate) use spans::Request;

/// Spans of one post: collectors take a few MB.
const SPANS_PER_POST: usize = 2000;
/// Longest wait for a collector.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where spans go, and how many.
#[derive(Debug)]
pub(crate) struct Exporter {
    url: String,
    /// Fraction of the forward calls that have spans for layers and bricks.
    detail: f64,
}

impl Exporter {
    /// # Errors
    /// An address that is none, or a fraction that is none.
    pub(crate) fn new(endpoint: &str, detail: f64) -> anyhow::Result<Self> {
        let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
        let rest = rest.filter(|r| !r.is_empty());
        let rest = rest.with_context(|| {
            format!("--otlp-endpoint {endpoint}: expected an address such as http://localhost:4318")
        })?;
        ensure!((0.0..=1.0).contains(&detail), "--otlp-sample {detail}: expected a fraction from 0 to 1");
        // As the specification of OTLP/HTTP says: the signal's path, unless the address has a path of its own.
        let has_path = rest.trim_end_matches('/').contains('/');
        let url = if has_path { endpoint.to_owned() } else { format!("{}/v1/traces", endpoint.trim_end_matches('/')) };
        Ok(Self { url, detail })
    }

    /// Sends the spans of a request that has just ended; gives their number.
    ///
    /// # Errors
    /// When the collector cannot be reached or refuses.
    pub(crate) fn export(&self, recorder: &mut BrickProfiler<Clock>, request: &Request) -> anyhow::Result<usize> {
        recorder.finish();
        // The recorder's clock counts from an arbitrary moment: what time is it there, and what time here?
        let there = recorder.clock().now_ns();
        let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let origin = here.saturating_sub(there);
        let ids = spans::Ids::new(here ^ u64::from(std::process::id()).rotate_left(32));
        let mut all = spans::build(recorder, request, origin, self.detail, ids);
        let count = all.len();
        let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().new_agent();
        while !all.is_empty() {
            let rest = all.split_off(all.len().min(SPANS_PER_POST));
            let body = message(std::mem::replace(&mut all, rest)).encode_to_vec();
            let post = agent.post(&self.url).header("Content-Type", "application/x-protobuf");
            post.send(&body[..]).with_context(|| format!("cannot send spans to {}", self.url))?;
        }
        Ok(count)
    }
}

fn message(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let version = env!("CARGO_PKG_VERSION");
    let resource = Resource {
        attributes: vec![
            spans::attribute("service.name", Value::StringValue("brick".into())),
            spans::attribute("service.version", Value::StringValue(version.into())),
        ],
        ..Resource::default()
    };
    let scope =
        InstrumentationScope { name: "brick".into(), version: version.into(), ..InstrumentationScope::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses_get_the_path_of_the_signal() {
        let url = |e: &str| Exporter::new(e, 1.0).unwrap().url;
        assert_eq!(url("http://localhost:4318"), "http://localhost:4318/v1/traces");
        assert_eq!(url("http://localhost:4318/"), "http://localhost:4318/v1/traces");
        assert_eq!(url("https://otel.example/custom"), "https://otel.example/custom");
        for bad in ["localhost:4318", "http://", "ftp://x"] {
            let e = Exporter::new(bad, 1.0).unwrap_err().to_string();
            assert!(e.contains(bad) && e.contains("expected an address"), "{e}");
        }
        assert!(Exporter::new("http://x", 1.5).unwrap_err().to_string().contains("--otlp-sample 1.5"));
    }
}
