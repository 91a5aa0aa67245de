//! Snapshots of every export, and a parser for the DOT that we write.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashSet;

use brick_graphs::export::{AsciiOptions, GraphDoc, ascii, dot, json, mermaid};
use brick_graphs::passes::{MaxRows, liveness, place, run_all};
use brick_graphs::{Graph, GraphBuilder};
use bricks::{BrickKind, DType, Extent, Op};
use common::{D, decoder, matrix};

const ROWS: MaxRows = MaxRows { tokens: 8, wanted: 1 };

fn extent() -> Extent {
    Extent::one_sequence(1, 128, 1)
}

fn fused(layers: u32) -> Graph {
    run_all(&decoder(layers), ROWS).unwrap().graph
}

fn hostile() -> Graph {
    let mut b = GraphBuilder::new();
    let tokens = b.push("tokens", BrickKind::Custom, None, Op::Input, &[], &[]).out();
    let table = b.weight("t\"]; evil", matrix(DType::F32, 10, D));
    let name = "a\"]; x -> y [label=\"\\\n<script>`#|\u{1b}[31m";
    let x = b.push(name, BrickKind::Embed, Some(0), Op::Embed { scale: 1.0 }, &[tokens], &[table]).out();
    b.finish(x).unwrap()
}

#[test]
fn ascii_tree() {
    let show = |g: &Graph, collapse| ascii(g, &AsciiOptions { extent: extent(), collapse });
    insta::assert_snapshot!("ascii_unfused", show(&decoder(2), false));
    insta::assert_snapshot!("ascii_fused", show(&fused(2), false));
    insta::assert_snapshot!("ascii_collapsed", show(&fused(30), true));
    insta::assert_snapshot!("ascii_hostile", show(&hostile(), false));
}

#[test]
fn collapsing_keeps_layers_that_differ() {
    let tree = |layers| ascii(&decoder(layers), &AsciiOptions { extent: extent(), collapse: true });
    assert!(tree(1).contains("layer 0  16 bricks") && !tree(1).contains("like"));
    assert!(tree(2).contains("layer 1 like 0"));
    assert!(tree(5).contains("layers 1–4 like 0"));
    // Fused, the first layer starts with a plain norm and the last ends with a plain addition.
    let tree = ascii(&fused(5), &AsciiOptions { extent: extent(), collapse: true });
    assert!(tree.contains("layers 2–3 like 1") || tree.contains("layer 2 like 1"), "{tree}");
    assert!(tree.contains("layer 0  ") && tree.contains("layer 4  "), "{tree}");
}

#[test]
fn dot_text() {
    insta::assert_snapshot!("dot_fused", dot(&fused(2)));
    insta::assert_snapshot!("dot_hostile", dot(&hostile()));
}

#[test]
fn mermaid_text() {
    insta::assert_snapshot!("mermaid_fused", mermaid(&fused(2)));
    insta::assert_snapshot!("mermaid_hostile", mermaid(&hostile()));
}

#[test]
fn json_text() {
    let doc = json(&fused(2), &extent());
    let text = serde_json::to_string_pretty(&doc).unwrap();
    insta::assert_snapshot!("json_fused", text);
    assert_eq!(serde_json::from_str::<GraphDoc>(&text).unwrap(), doc);
    assert_eq!(text, serde_json::to_string_pretty(&json(&fused(2), &extent())).unwrap());
    for (i, v) in doc.values.iter().enumerate() {
        assert_eq!(v.id.index(), i);
    }
}

#[test]
fn annotations_can_be_printed() {
    let g = fused(1);
    let live = liveness(&g);
    insta::assert_snapshot!("liveness", live.render(&g));
    insta::assert_snapshot!("placement", place(&g, &live, ROWS).unwrap().render(&g));
}

#[test]
fn mermaid_labels_are_closed_on_their_line() {
    for line in mermaid(&hostile()).lines() {
        assert!(line.matches('"').count().is_multiple_of(2), "{line}");
        assert!(!line.contains('<') || line.contains("<br/>"), "{line}");
        assert!(!line.chars().any(char::is_control), "{line}");
    }
}

#[test]
fn dot_parses_and_every_edge_joins_declared_nodes() {
    for g in [decoder(2), fused(3), hostile()] {
        let parsed = parse_dot(&dot(&g)).unwrap();
        assert_eq!(parsed.nodes.len(), g.len());
        assert_eq!(parsed.edges.len(), g.bricks().map(|b| b.inputs.len()).sum::<usize>());
        for (a, b) in &parsed.edges {
            assert!(parsed.nodes.contains(a) && parsed.nodes.contains(b), "{a} -> {b}");
        }
    }
}

#[test]
fn the_dot_parser_refuses_what_is_not_dot() {
    for text in [
        "digraph g { a [label=\"x\"; }",
        "digraph g { a -> ; }",
        "digraph g { a [label=\"x]; }",
        "digraph g { subgraph s { a; }",
        "digraph g { a b; }",
        "digraph g { } x",
    ] {
        assert!(parse_dot(text).is_err(), "{text}");
    }
    assert!(parse_dot("digraph g { a [x=1, y=\"b\\\"\"]; subgraph s { label=\"l\"; b; } a -> b [s=t]; }").is_ok());
}

#[derive(Default)]
struct Dot {
    nodes: HashSet<String>,
    edges: Vec<(String, String)>,
}

/// The part of the DOT grammar that we write: `digraph ID { stmt; … }` with nodes, edges, attributes, `ID = ID`, subgraphs.
fn parse_dot(text: &str) -> Result<Dot, String> {
    let tokens = dot_tokens(text)?;
    let mut at = tokens.iter().map(String::as_str).peekable();
    let mut dot = Dot::default();
    expect(&mut at, "digraph")?;
    id(&mut at)?;
    expect(&mut at, "{")?;
    statements(&mut at, &mut dot)?;
    at.next().map_or(Ok(dot), |t| Err(format!("`{t}` after the end")))
}

fn statements<'a, I: Iterator<Item = &'a str>>(at: &mut std::iter::Peekable<I>, dot: &mut Dot) -> Result<(), String> {
    loop {
        match at.next().ok_or("expected `}`, found the end")? {
            "}" => return Ok(()),
            "subgraph" => {
                id(at)?;
                expect(at, "{")?;
                statements(at, dot)?;
            }
            first => {
                let first = check_id(first)?;
                match at.peek().copied() {
                    Some("=") => {
                        at.next();
                        id(at)?;
                    }
                    Some("->") => {
                        at.next();
                        dot.edges.push((first, id(at)?));
                        attributes(at)?;
                    }
                    _ => {
                        attributes(at)?;
                        if first != "node" && first != "edge" && !dot.nodes.insert(first.clone()) {
                            return Err(format!("node {first} declared twice"));
                        }
                    }
                }
                expect(at, ";")?;
            }
        }
    }
}

fn attributes<'a, I: Iterator<Item = &'a str>>(at: &mut std::iter::Peekable<I>) -> Result<(), String> {
    if at.peek() != Some(&"[") {
        return Ok(());
    }
    at.next();
    loop {
        id(at)?;
        expect(at, "=")?;
        id(at)?;
        match at.next() {
            Some(",") => {}
            Some("]") => return Ok(()),
            t => return Err(format!("expected `,` or `]`, found {t:?}")),
        }
    }
}

fn expect<'a, I: Iterator<Item = &'a str>>(at: &mut std::iter::Peekable<I>, what: &str) -> Result<(), String> {
    let found = at.next();
    if found == Some(what) { Ok(()) } else { Err(format!("expected `{what}`, found {found:?}")) }
}

fn id<'a, I: Iterator<Item = &'a str>>(at: &mut std::iter::Peekable<I>) -> Result<String, String> {
    check_id(at.next().ok_or("expected an id, found the end")?)
}

fn check_id(t: &str) -> Result<String, String> {
    let plain = t.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain || t.starts_with('"') { Ok(t.to_owned()) } else { Err(format!("expected an id, found `{t}`")) }
}

fn dot_tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '{' | '}' | '[' | ']' | ';' | ',' | '=' => tokens.push(c.to_string()),
            '-' if chars.next_if_eq(&'>').is_some() => tokens.push("->".into()),
            '"' => {
                let mut s = String::from('"');
                loop {
                    match chars.next().ok_or("a string does not end")? {
                        '"' => break,
                        '\\' => s.extend(['\\', chars.next().ok_or("a string does not end")?]),
                        '\n' => return Err("a string crosses lines".into()),
                        c => s.push(c),
                    }
                }
                s.push('"');
                tokens.push(s);
            }
            c if c.is_ascii_alphanumeric() || c == '_' => {
                let mut s = String::from(c);
                while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    s.push(c);
                }
                tokens.push(s);
            }
            c => return Err(format!("unexpected {c:?}")),
        }
    }
    Ok(tokens)
}
