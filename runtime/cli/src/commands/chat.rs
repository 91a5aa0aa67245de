//! `brick chat MODEL`: a conversation on the terminal.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use brick_models::chat::Message;
use brick_profiler::NoRecord;
use brick_runtime::{FinishReason, GenerateError, Session};
use rustyline::error::ReadlineError;

use super::live::Watched;
use crate::args::{ModelArgs, SamplingArgs};
use crate::{load, output, progress};

const HELP: &str = "/reset  forget the conversation\n/system TEXT  set the system message and forget the conversation\n\
                    /stats  speed of the last answer\n/exit  leave (also Ctrl-D)";

pub(super) fn chat(
    args: &ModelArgs,
    system: Option<&str>,
    sampling: &SamplingArgs,
    live: bool,
) -> anyhow::Result<ExitCode> {
    let options = super::run::chat_options(sampling)?;
    let (model, engine) = load::model_and_engine(args, sampling.speculate)?;
    let mut session = Session::new(engine, &model.tokenizer, model.spec.context_length)?;
    let mut watched = live.then(|| Watched::open(session.engine(), &model, &args.model)).transpose()?;
    let stop = progress::interrupted();
    let mut lines = Lines::new()?;
    if lines.interactive() {
        let name = model.spec.name.as_deref().unwrap_or(&args.model);
        output::note(&format!("{name}, context {} tokens. /help lists the commands.", session.engine().kv().context()));
    }

    let mut messages: Vec<Message> = system.map(|s| Message::new("system", s)).into_iter().collect();
    let mut stats = String::from("no answer yet");
    while let Some(line) = lines.next()? {
        let line = line.trim();
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match command {
            "" => {}
            "/exit" | "/quit" | "/bye" => break,
            "/help" | "/?" => output::note(HELP),
            "/stats" => output::note(&stats),
            "/reset" => {
                messages.retain(|m| m.role == "system");
                output::note("the conversation is forgotten");
            }
            "/system" => {
                messages.clear();
                if !rest.trim().is_empty() {
                    messages.push(Message::new("system", rest.trim()));
                }
                output::note("system message set; the conversation is forgotten");
            }
            c if c.starts_with('/') && !c[1..].contains('/') => {
                output::note(&format!("unknown command {c}; /help lists the commands"));
            }
            _ => {
                messages.push(Message::new("user", line));
                let ids = super::run::chat_ids(&model, &messages)?;
                stop.store(false, Ordering::Relaxed);
                let mut show = |text: &str| {
                    let mut out = std::io::stdout().lock();
                    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                };
                let generated = match &mut watched {
                    None => session.generate(&ids, &options, &mut NoRecord, &stop, &mut show),
                    Some(watched) => watched.generate(&mut session, &ids, &options, &stop, &mut show),
                };
                let generation = match generated {
                    Ok(g) => g,
                    Err(e @ GenerateError::PromptTooLong { .. }) => {
                        messages.pop();
                        output::error(&format!("{e}; /reset forgets the conversation"));
                        continue;
                    }
                    Err(e) => return Err(e.into()),
                };
                writeln!(std::io::stdout())?;
                if let FinishReason::ContextFull { context } = generation.finish {
                    output::error(&format!("the context is full ({context} tokens); /reset forgets the conversation"));
                }
                stats = super::run::summary(&generation.timings, &generation, 0.0, &options, sampling.seed);
                messages.push(Message::new("assistant", &generation.text));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Lines from a person (with editing and history) or from a pipe.
enum Lines {
    Editor(Box<rustyline::DefaultEditor>),
    Pipe(std::io::Lines<std::io::StdinLock<'static>>),
}

impl Lines {
    fn new() -> anyhow::Result<Self> {
        if std::io::stdin().is_terminal() {
            Ok(Self::Editor(Box::new(rustyline::DefaultEditor::new()?)))
        } else {
            Ok(Self::Pipe(std::io::stdin().lines()))
        }
    }

    fn interactive(&self) -> bool {
        matches!(self, Self::Editor(_))
    }

    /// The next line; `None` at the end (Ctrl-D). Ctrl-C drops the line being written.
    fn next(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Pipe(lines) => Ok(lines.next().transpose()?),
            Self::Editor(editor) => loop {
                match editor.readline("> ") {
                    Ok(line) => {
                        // Remembering a line can fail only for want of memory.
                        let _ = editor.add_history_entry(line.as_str());
                        return Ok(Some(line));
                    }
                    Err(ReadlineError::Interrupted) => {}
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(e) => return Err(e.into()),
                }
            },
        }
    }
}
