//! Spans for a collector: decoded from what arrives there.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::server::Server;
use crate::shell::Shell;

/// Runs the tiny model with a collector, and gives the spans that arrived.
fn spans(options: &str) -> (Vec<Span>, usize) {
    let collector = Server::start(|_| (200, String::new()));
    let shell = Shell::with_models();
    let words =
        format!("run qwen2-tiny.gguf --raw hello -n 4 --ignore-eos --otlp-endpoint http://{}", collector.address);
    let plain = shell.brick("run qwen2-tiny.gguf --raw hello -n 4 --ignore-eos").succeeds().stdout;
    let traced = shell.brick(&format!("{words} {options}")).succeeds();
    assert_eq!(traced.stdout, plain, "the answer is the same");
    assert!(!traced.stderr.contains("warning"), "{traced}");
    let asked = collector.asked();
    let mut spans = Vec::new();
    for request in &asked {
        assert_eq!(request.line, "POST /v1/traces HTTP/1.1");
        assert!(request.headers.contains("content-type: application/x-protobuf"), "{}", request.headers);
        let message = ExportTraceServiceRequest::decode(&request.body[..]).unwrap();
        for resource in message.resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            assert!(attributes.iter().any(|a| a.key == "service.name"), "{attributes:?}");
            spans.extend(resource.scope_spans.into_iter().flat_map(|s| s.spans));
        }
    }
    (spans, asked.len())
}

#[test]
fn a_request_is_a_tree_of_spans() {
    let (spans, posts) = spans("");
    assert_eq!(posts, 1);
    let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|s| (s.span_id.as_slice(), s)).collect();
    assert_eq!(by_id.len(), spans.len(), "ids are unique");
    let trace = &spans[0].trace_id;
    assert_eq!(trace.len(), 16);
    let mut roots = 0;
    for s in &spans {
        assert_eq!(&s.trace_id, trace);
        assert!(s.start_time_unix_nano <= s.end_time_unix_nano);
        let Some(parent) = by_id.get(s.parent_span_id.as_slice()) else {
            assert!(s.parent_span_id.is_empty() && s.name == "request", "{s:?}");
            roots += 1;
            continue;
        };
        assert!(
            parent.start_time_unix_nano <= s.start_time_unix_nano && s.end_time_unix_nano <= parent.end_time_unix_nano,
            "a span lies within its parent: {} in {}",
            s.name,
            parent.name
        );
        let expected = match s.name.as_str() {
            n if n.starts_with("forward ") => "request",
            n if n.starts_with("layer ") => "forward ",
            n if n.starts_with("blk.1.") => "layer 1",
            n if n.starts_with("blk.0.") => "layer 0",
            _ => "forward ",
        };
        assert!(parent.name.starts_with(expected), "{} in {}", s.name, parent.name);
    }
    assert_eq!(roots, 1);
    let count = |name: &str| spans.iter().filter(|s| s.name == name).count();
    // The first token comes from the prompt's logits.
    assert_eq!((count("forward prefill"), count("forward decode")), (1, 3));
    assert_eq!((count("layer 0"), count("blk.1.ffn_down")), (4, 4));
    // Now, by the clock of this machine.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let age = now.abs_diff(spans[0].start_time_unix_nano);
    assert!(age < 300_000_000_000, "{age} ns");
}

#[test]
fn details_can_be_sampled() {
    let (spans, _) = spans("--otlp-sample 0.5");
    let count = |name: &str| spans.iter().filter(|s| s.name == name).count();
    assert_eq!(count("forward prefill") + count("forward decode"), 4, "forward calls are never left out");
    assert_eq!(count("layer 0"), 2);
}

#[test]
fn a_collector_that_fails_is_a_remark() {
    let shell = Shell::with_models();
    let run = |url: &str| shell.brick(&format!("run qwen2-tiny.gguf --raw hello -n 2 --otlp-endpoint {url}"));
    let unreachable = run("http://127.0.0.1:1").succeeds();
    assert!(unreachable.stderr.contains("warning: cannot send spans to http://127.0.0.1:1/v1/traces"), "{unreachable}");
    let refusing = Server::start(|_| (503, "busy".to_owned()));
    let refused = run(&format!("http://{}", refusing.address)).succeeds();
    assert!(refused.stderr.contains("warning: cannot send spans"), "{refused}");
    run("localhost").fails(1, &["--otlp-endpoint localhost: expected an address"]);
}
