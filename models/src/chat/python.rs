//! The setting that templates written for Python's Jinja and `apply_chat_template` expect.

use std::borrow::Cow;
use std::io;
use std::sync::LazyLock;
use std::time::SystemTime;

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};
use regex::Regex;
use serde::Serialize as _;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use super::strftime::strftime;

/// What a template said when it refused a conversation. Source of the engine's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// An environment without templates. `now` fixes the clock.
pub(super) fn environment(now: Option<SystemTime>) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
    });
    environment.add_function("strftime_now", move |format: &str| -> Result<String, Error> {
        let now = now.unwrap_or_else(SystemTime::now);
        strftime(now, format).map_err(|unknown| {
            Error::new(ErrorKind::InvalidOperation, format!("strftime_now: no directive {unknown:?} in {format:?}"))
        })
    });
    environment.add_filter("tojson", tojson);
    environment
}

/// `{% generation %}` and its end say which text the assistant wrote; a renderer has no use for them. As comments they
/// trim white space as they would have.
pub(super) fn without_generation_marks(source: &str) -> String {
    static MARK: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}").expect("invariant: a constant"));
    match MARK.replace_all(source, "{#$1$2#}") {
        Cow::Borrowed(_) => source.to_owned(),
        Cow::Owned(source) => source,
    }
}

/// JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it; the engine's own filter escapes for HTML.
#[expect(clippy::needless_pass_by_value, reason = "the engine calls filters with their arguments by value")]
fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Python's default, and no published template asks for another.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut out, OneLine)),
        Some(n) => {
            let indent = " ".repeat(n.min(16));
            value.serialize(&mut Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(indent.as_bytes())))
        }
    };
    let failed = |e: String| Error::new(ErrorKind::InvalidOperation, format!("tojson: {e}"));
    written.map_err(|e| failed(e.to_string()))?;
    String::from_utf8(out).map(Value::from_safe_string).map_err(|e| failed(e.to_string()))
}

/// One line, with a space after each comma and colon.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
