//! From a recording to OpenTelemetry spans: request → forward → layer → brick.

use brick_profiler::{BrickProfiler, Clock, ForwardSample, Phase, StepInfo};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::SpanKind, status::StatusCode};

/// What a request was, for its span.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Model, as its file names it.
    pub(crate) model: String,
    /// Tokens of the prompt and of the answer.
    pub(crate) prompt_tokens: u64,
    pub(crate) generated_tokens: u64,
    /// When it began and ended, by the recorder's clock.
    pub(crate) begin_ns: u64,
    pub(crate) end_ns: u64,
}

/// Random numbers for ids (splitmix64, Steele and others 2014): unique is all they have to be.
#[derive(Debug, Clone)]
pub(crate) struct Ids(u64);

impl Ids {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An id of a span: eight bytes, not all of them 0.
    fn span(&mut self) -> Vec<u8> {
        self.next().max(1).to_be_bytes().to_vec()
    }

    fn trace(&mut self) -> Vec<u8> {
        [self.next().to_be_bytes(), self.next().max(1).to_be_bytes()].concat()
    }
}

/// What all spans of a trace share.
struct Builder<'a> {
    ids: Ids,
    trace: Vec<u8>,
    /// Unix time of the recorder clock's origin.
    origin_unix_ns: u64,
    steps: &'a [StepInfo],
    spans: Vec<Span>,
}

impl Builder<'_> {
    /// Adds a span and gives its id.
    fn span(&mut self, name: &str, parent: &[u8], (begin, end): (u64, u64), attributes: Vec<KeyValue>) -> Vec<u8> {
        let id = self.ids.span();
        self.spans.push(Span {
            trace_id: self.trace.clone(),
            span_id: id.clone(),
            parent_span_id: parent.to_vec(),
            name: name.to_owned(),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: self.origin_unix_ns.saturating_add(begin),
            end_time_unix_nano: self.origin_unix_ns.saturating_add(end.max(begin)),
            attributes,
            status: Some(Status { message: String::new(), code: StatusCode::Unset.into() }),
            ..Span::default()
        });
        id
    }

    /// A forward call; with `detail`, its layers and bricks as well.
    fn forward(&mut self, phase: Phase, sample: &ForwardSample<'_>, parent: &[u8], detail: bool) {
        let (begin, extent) = (sample.begin_ns(), sample.extent());
        let attributes = vec![
            text("brick.phase", phase.name()),
            number("brick.tokens", extent.tokens),
            number("brick.context", extent.context),
        ];
        let name = format!("forward {phase}");
        let forward = self.span(&name, parent, (begin, begin + sample.wall_ns()), attributes);
        if !detail {
            return;
        }
        let steps = self.steps;
        let time = |i: usize| sample.slot_ns(i).unwrap_or(0);
        let (mut at, mut i) = (begin, 0);
        while i < steps.len() {
            let layer = steps[i].layer;
            let last = (i..steps.len()).take_while(|&j| steps[j].layer == layer).last().unwrap_or(i);
            let end = at + (i..=last).map(time).sum::<u64>();
            let parent = match layer {
                Some(n) => {
                    self.span(&format!("layer {n}"), &forward, (at, end), vec![number("brick.layer", u64::from(n))])
                }
                None => forward.clone(),
            };
            for (step, j) in steps[i..=last].iter().zip(i..) {
                if sample.slot_ns(j).is_none() {
                    continue; // did not run
                }
                let attributes = vec![text("brick.kind", step.kind.name()), text("brick.kernel", &step.kernel)];
                self.span(&step.name, &parent, (at, at + time(j)), attributes);
                at += time(j);
            }
            (at, i) = (end, last + 1);
        }
    }
}

/// All spans of one request. Of the forward calls, a fraction `detail` (the first one in any case) has spans for layers and bricks.
pub(crate) fn build(
    recorder: &BrickProfiler<Clock>,
    request: &Request,
    origin_unix_ns: u64,
    detail: f64,
    mut ids: Ids,
) -> Vec<Span> {
    let trace = ids.trace();
    let mut b = Builder { ids, trace, origin_unix_ns, steps: recorder.steps(), spans: Vec::new() };
    let attributes = vec![
        text("gen_ai.request.model", &request.model),
        number("gen_ai.usage.input_tokens", request.prompt_tokens),
        number("gen_ai.usage.output_tokens", request.generated_tokens),
    ];
    let root = b.span("request", &[], (request.begin_ns, request.end_ns), attributes);
    let samples = Phase::ALL.into_iter().flat_map(|p| recorder.samples(p).map(move |s| (p, s)));
    let mut samples: Vec<_> = samples.collect();
    samples.sort_by_key(|(_, s)| s.begin_ns());
    for (i, (phase, sample)) in samples.iter().enumerate() {
        b.forward(*phase, sample, &root, takes_detail(i, detail));
    }
    b.spans
}

/// Spreads a fraction evenly over calls counted from 0.
fn takes_detail(i: usize, fraction: f64) -> bool {
    let upto = |n: usize| (n as f64 * fraction).ceil();
    fraction > 0.0 && upto(i + 1) > upto(i)
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_spread_evenly_and_begin_with_the_first() {
        let taken = |f: f64| (0..10).filter(|&i| takes_detail(i, f)).collect::<Vec<_>>();
        assert_eq!(taken(1.0), (0..10).collect::<Vec<_>>());
        assert_eq!(taken(0.5), [0, 2, 4, 6, 8]);
        assert_eq!(taken(0.1), [0]);
        assert_eq!(taken(0.0), [0usize; 0]);
    }

    #[test]
    fn ids_are_unique_and_never_zero() {
        let mut ids = Ids::new(7);
        let all: std::collections::HashSet<_> = (0..10_000).map(|_| ids.span()).collect();
        assert_eq!(all.len(), 10_000);
        assert!(all.iter().all(|id| id.len() == 8 && id.iter().any(|b| *b != 0)));
        assert_eq!(ids.trace().len(), 16);
    }
}
