//! `brick tokenize MODEL [TEXT]`: text to ids and back.

use std::fmt::Write as _;
use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, bail};
use brick_models::tokenizer::{DecodeOptions, EncodeOptions, Tokenizer};
use serde_json::json;

use crate::args::TokenizeArgs;
use crate::{load, output};

pub(super) fn tokenize(args: &TokenizeArgs) -> anyhow::Result<ExitCode> {
    let text = match &args.text {
        Some(t) => t.clone(),
        None => read_stdin()?,
    };
    let gguf = load::gguf(&args.model)?;
    let tokenizer = Tokenizer::from_gguf(&gguf.metadata())
        .with_context(|| gguf.path().map(|p| p.display().to_string()).unwrap_or_default())?;
    if args.decode { decode(args, &tokenizer, &text) } else { encode(args, &tokenizer, &text) }
}

/// Standard input exactly as it is: here a final line end is a token like any other.
fn read_stdin() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
    String::from_utf8(bytes)
        .map_err(|e| anyhow::anyhow!("standard input is not UTF-8: valid up to byte {}", e.utf8_error().valid_up_to()))
}

fn encode(args: &TokenizeArgs, tokenizer: &Tokenizer, text: &str) -> anyhow::Result<ExitCode> {
    let options = EncodeOptions { add_special: args.bos, parse_special: !args.no_special };
    let ids = tokenizer.encode(text, options)?;
    if args.json {
        let tokens: Vec<_> = ids.iter().map(|&id| token(tokenizer, id)).collect::<Result<_, _>>()?;
        output::print_json(&json!({
            "schema": "brick.tokenize/1",
            "text": text,
            "add_special": args.bos,
            "parse_special": !args.no_special,
            "ids": ids,
            "tokens": tokens,
        }))?;
    } else if args.ids {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        output::print(&ids.join(" "))?;
    } else {
        let mut out = String::new();
        for &id in &ids {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{id:>7}  {:?}", String::from_utf8_lossy(tokenizer.token_bytes(id)?));
        }
        output::print(&out)?;
        output::note(&format!("{} tokens", ids.len()));
    }
    Ok(ExitCode::SUCCESS)
}

fn token(tokenizer: &Tokenizer, id: u32) -> anyhow::Result<serde_json::Value> {
    let bytes = tokenizer.token_bytes(id)?;
    Ok(json!({
        "id": id,
        "piece": tokenizer.token_to_piece(id)?,
        "bytes": bytes,
        "kind": format!("{:?}", tokenizer.kind(id)?).to_lowercase(),
    }))
}

fn decode(args: &TokenizeArgs, tokenizer: &Tokenizer, text: &str) -> anyhow::Result<ExitCode> {
    let mut ids = Vec::new();
    let brackets = |c: char| c == '[' || c == ']' || c == ',' || c.is_whitespace();
    for word in text.split(brackets).filter(|w| !w.is_empty()) {
        match word.parse::<u32>() {
            Ok(id) => ids.push(id),
            Err(_) => bail!("expected token ids separated by spaces or commas, found {word:?}"),
        }
    }
    let text = tokenizer.decode(&ids, DecodeOptions::default())?;
    if args.json {
        output::print_json(&json!({"schema": "brick.tokenize/1", "ids": ids, "text": text}))?;
    } else {
        output::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}
