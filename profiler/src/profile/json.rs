//! JSON with one line per object: readable, and a fraction of the size of one number per line.

use std::io::{self, Write};

use serde::Serialize;
use serde::ser::Error as _;
use serde_json::ser::Formatter;

/// Objects are indented; an array stays on its line unless it holds objects.
#[derive(Debug, Default)]
struct OneLinePerObject {
    depth: usize,
    /// For each open container, outermost first: whether it is an array, and whether it holds objects.
    open: Vec<(bool, bool)>,
    has_value: bool,
}

impl OneLinePerObject {
    fn line<W: Write + ?Sized>(&self, out: &mut W) -> io::Result<()> {
        out.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| out.write_all(b"  "))
    }
}

impl Formatter for OneLinePerObject {
    fn begin_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth += 1;
        self.open.push((true, false));
        out.write_all(b"[")
    }

    fn end_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth -= 1;
        if let Some((_, true)) = self.open.pop() {
            self.line(out)?;
        }
        out.write_all(b"]")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b",") }
    }

    fn begin_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        if let Some((true, objects)) = self.open.last_mut() {
            *objects = true;
            self.line(out)?;
        }
        self.depth += 1;
        self.open.push((false, false));
        self.has_value = false;
        out.write_all(b"{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth -= 1;
        self.open.pop();
        if self.has_value {
            self.line(out)?;
        }
        self.has_value = true;
        out.write_all(b"}")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        self.line(out)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_value = true;
        Ok(())
    }
}

/// The value as text.
pub(super) fn to_string<T: Serialize>(value: &T) -> serde_json::Result<String> {
    let mut out = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, OneLinePerObject::default()))?;
    String::from_utf8(out).map_err(serde_json::Error::custom)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arrays_of_numbers_stay_on_their_line() {
        let value = json!({"a": [1, 2, null], "b": [{"c": []}, {}], "d": {"e": [[1, 2], [3, 4]]}, "f": []});
        let text = to_string(&value).unwrap();
        let expected = r#"{
  "a": [1,2,null],
  "b": [
    {
      "c": []
    },
    {}
  ],
  "d": {
    "e": [[1,2],[3,4]]
  },
  "f": []
}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
