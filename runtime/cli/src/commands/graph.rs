//! `brick graph MODEL`: the graph a model is.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use brick_graphs::export::{self, AsciiOptions};
use brick_graphs::passes::{self, MaxRows};
use brick_models::arch::ArchSpec;
use brick_models::build::build_graph;
use bricks::Extent;
use serde_json::json;

use crate::args::{GraphArgs, GraphFormat};
use crate::output;

pub(super) fn graph(args: &GraphArgs) -> anyhow::Result<ExitCode> {
    let source = args.source.source()?;
    let gguf = source.gguf()?;
    let path = || gguf.path().map_or_else(|| source.name(), |p| p.display().to_string());
    let spec = ArchSpec::from_gguf(&gguf).with_context(path)?;
    let built = build_graph(&spec, &|name| gguf.tensor(name).and_then(|t| t.shape().ok())).with_context(path)?;
    let max_rows = MaxRows { tokens: args.tokens as usize, wanted: 1 };
    let extent = Extent::one_sequence(args.tokens, args.context, 1);

    if args.passes {
        let mut rows = Vec::new();
        for pass in passes::pipeline() {
            let done = passes::run_until(&built, pass.name, max_rows)?;
            rows.push((
                pass,
                done.graph.len(),
                done.graph.total_cost(&extent),
                done.placement.map(|p| p.arena_bytes()),
            ));
        }
        if args.json {
            let rows: Vec<_> = rows
                .iter()
                .map(|(p, n, c, a)| json!({"pass": p.name, "about": p.about, "bricks": n, "cost": c, "arena_bytes": a}))
                .collect();
            output::print_json(&json!({"schema": "brick.passes/1", "extent": extent, "passes": rows}))?;
        } else {
            let mut text =
                format!("{:<20} {:>7} {:>12} {:>12}  {}\n", "pass", "bricks", "bytes moved", "arena", "what it does");
            for (p, n, c, a) in rows {
                let arena = a.map_or_else(|| "–".into(), |a| output::bytes(a as u64));
                // Writing to a string does not fail.
                let _ =
                    writeln!(text, "{:<20} {n:>7} {:>12} {arena:>12}  {}", p.name, output::bytes(c.bytes()), p.about);
            }
            output::print(&text)?;
        }
        return Ok(ExitCode::SUCCESS);
    }

    let last = args.after.as_deref().unwrap_or("fuse-rope-kv");
    let done = passes::run_until(&built, last, max_rows)?;
    let format = if args.json { GraphFormat::Json } else { args.format };
    match format {
        GraphFormat::Ascii => {
            let mut text = export::ascii(&done.graph, &AsciiOptions { extent, collapse: !args.all_layers });
            if let Some(l) = &done.liveness {
                text.push('\n');
                text.push_str(&l.render(&done.graph));
            }
            if let Some(p) = &done.placement {
                text.push('\n');
                text.push_str(&p.render(&done.graph));
            }
            output::print(&text)?;
        }
        GraphFormat::Dot => output::print(&export::dot(&done.graph))?,
        GraphFormat::Mermaid => output::print(&export::mermaid(&done.graph))?,
        GraphFormat::Json => output::print_json(&export::json(&done.graph, &extent))?,
    }
    Ok(ExitCode::SUCCESS)
}
