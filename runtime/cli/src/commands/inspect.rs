//! `brick inspect MODEL`: what a file holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use brick_models::arch::ArchSpec;
use brick_models::format::gguf::{Array, Gguf, TensorInfo, Value};
use serde_json::json;

use crate::args::InspectArgs;
use crate::{load, output};

/// Characters of a string, and elements of an array, that are shown without `--full`.
const SHOWN_CHARS: usize = 80;
const SHOWN_ELEMENTS: usize = 4;

pub(super) fn inspect(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let gguf = load::gguf(&args.model)?;
    // A file of an unknown architecture can be looked at all the same.
    let spec = ArchSpec::from_gguf(&gguf);
    if args.json {
        output::print_json(&as_json(&gguf, spec.as_ref().ok(), args))?;
    } else {
        output::print(&as_text(&gguf, spec.as_ref().ok(), args))?;
        if let Err(e) = &spec {
            output::note(&format!("brick cannot run this file: {e}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Default)]
struct TypeTotal {
    tensors: usize,
    values: u64,
    bytes: u64,
}

fn by_type(gguf: &Gguf) -> BTreeMap<&'static str, TypeTotal> {
    let mut types: BTreeMap<&'static str, TypeTotal> = BTreeMap::new();
    for t in gguf.tensors() {
        let total = types.entry(t.type_name()).or_default();
        total.tensors += 1;
        total.values += t.n_values();
        total.bytes += size(gguf, t).unwrap_or(0);
    }
    types
}

fn size(gguf: &Gguf, t: &TensorInfo) -> Option<u64> {
    gguf.bytes(t).ok().map(|b| b.len() as u64)
}

fn as_text(gguf: &Gguf, spec: Option<&ArchSpec>, args: &InspectArgs) -> String {
    let mut s = String::new();
    let path = gguf.path().map(|p| p.display().to_string()).unwrap_or_default();
    let parameters: u64 = gguf.tensors().iter().map(TensorInfo::n_values).sum();
    // Writing to a string does not fail.
    let _ = writeln!(s, "{path}");
    let _ = writeln!(
        s,
        "GGUF v{}, {}, {} tensors, {:.1} M parameters",
        gguf.version(),
        output::bytes(gguf.file_size()),
        gguf.tensors().len(),
        parameters as f64 / 1e6
    );
    if let Some(a) = spec {
        let _ = writeln!(
            s,
            "{}: {} layers, hidden {}, {} heads of {} ({} KV), ffn {}, vocabulary {}, context {}, {} embeddings",
            a.architecture,
            a.n_layers,
            a.hidden,
            a.n_heads,
            a.head_dim,
            a.n_kv_heads,
            a.ffn,
            a.vocab,
            a.context_length,
            if a.tied_embeddings { "tied" } else { "untied" }
        );
    }
    let _ = writeln!(s, "\nBytes by type");
    for (name, t) in by_type(gguf) {
        let bits = if t.values > 0 { t.bytes as f64 * 8.0 / t.values as f64 } else { 0.0 };
        let _ = writeln!(
            s,
            "  {name:<8} {:>5} tensors {:>11.2} M values {:>10} {bits:>6.2} bits/value",
            t.tensors,
            t.values as f64 / 1e6,
            output::bytes(t.bytes)
        );
    }
    let _ = writeln!(s, "\nMetadata");
    for (key, value) in gguf.metadata().iter() {
        let _ = writeln!(s, "  {key} = {}", value_text(&value, args.full));
    }
    if args.tensors {
        let _ = writeln!(s, "\nTensors (row length first)");
        for t in gguf.tensors() {
            let dims: Vec<String> = t.dims.iter().map(ToString::to_string).collect();
            let bytes = size(gguf, t).map_or_else(|| "?".into(), output::bytes);
            let _ = writeln!(s, "  {:<32} {:>16} {:<8} {bytes:>10}", t.name, dims.join(" × "), t.type_name());
        }
    }
    s
}

fn value_text(value: &Value<'_>, full: bool) -> String {
    match value {
        Value::Array(a) => array_text(a, full),
        _ => match value.as_str() {
            Some(text) if !full && text.chars().count() > SHOWN_CHARS => {
                let start: String = text.chars().take(SHOWN_CHARS).collect();
                format!("{start:?}… ({} characters)", text.chars().count())
            }
            Some(text) => format!("{text:?}"),
            None => value_json(value, full).to_string(),
        },
    }
}

fn array_text(a: &Array<'_>, full: bool) -> String {
    let shown = if full { usize::MAX } else { SHOWN_ELEMENTS };
    let mut parts: Vec<String> = a.iter().take(shown).map(|v| value_text(&v, full)).collect();
    if parts.len() < a.len() {
        parts.push(format!("… ({} elements)", a.len()));
    }
    format!("[{}]", parts.join(", "))
}

/// A value as JSON; long arrays become their length and first elements unless `full`.
fn value_json(value: &Value<'_>, full: bool) -> serde_json::Value {
    if let Value::Array(a) = value {
        if full || a.len() <= SHOWN_ELEMENTS {
            return a.iter().map(|v| value_json(&v, full)).collect();
        }
        let first: Vec<_> = a.iter().take(SHOWN_ELEMENTS).map(|v| value_json(&v, full)).collect();
        return json!({"elements": a.len(), "first": first});
    }
    match value {
        Value::F32(x) => json!(x),
        Value::F64(x) => json!(x),
        Value::Bool(b) => json!(b),
        Value::String(s) => json!(String::from_utf8_lossy(s)),
        _ => value
            .as_integer()
            .map_or(serde_json::Value::Null, |n| i64::try_from(n).map_or_else(|_| json!(n as u64), |n| json!(n))),
    }
}

fn as_json(gguf: &Gguf, spec: Option<&ArchSpec>, args: &InspectArgs) -> serde_json::Value {
    let metadata: serde_json::Map<String, serde_json::Value> =
        gguf.metadata().iter().map(|(k, v)| (k.to_owned(), value_json(&v, args.full))).collect();
    let tensors: Vec<_> = gguf
        .tensors()
        .iter()
        .map(|t| json!({"name": t.name, "dims": t.dims, "type": t.type_name(), "bytes": size(gguf, t)}))
        .collect();
    let types: serde_json::Map<String, serde_json::Value> = by_type(gguf)
        .into_iter()
        .map(|(n, t)| (n.to_owned(), json!({"tensors": t.tensors, "values": t.values, "bytes": t.bytes})))
        .collect();
    json!({
        "schema": "brick.inspect/1",
        "path": gguf.path(),
        "format": "gguf",
        "version": gguf.version(),
        "file_bytes": gguf.file_size(),
        "parameters": gguf.tensors().iter().map(TensorInfo::n_values).sum::<u64>(),
        "architecture": spec,
        "bytes_by_type": types,
        "metadata": metadata,
        "tensors": tensors,
    })
}
