//! Frames between processes: one JSON document per line, each with the name and version of its structure.

use std::io::{BufRead, Read};

use serde::Deserialize;

use crate::snapshot::Snapshot;

/// Longest frame that is read. A model of 128 layers has frames of a quarter of a megabyte.
pub const LONGEST: usize = 16 << 20;
/// Characters of a foreign line that an error quotes.
const QUOTED: usize = 40;

/// What came is not a frame.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// Nothing came for the time the connection allows.
    #[error("nothing came for {seconds} s: the run does not compute, or what listens there is no brick")]
    Silent {
        /// The time.
        seconds: u64,
    },
    /// The peer went away in the middle of a frame.
    #[error("the run went away in the middle of a frame, after {bytes} bytes of it")]
    Cut {
        /// What had come.
        bytes: usize,
    },
    /// A line that is too long to be a frame.
    #[error("expected a frame of at most {longest} bytes on a line, found a longer line")]
    TooLong {
        /// [`LONGEST`].
        longest: usize,
    },
    /// Not a frame at all.
    #[error("expected a frame of {expected}, found {found}: what listens there is no brick")]
    Foreign {
        /// [`Snapshot::SCHEMA`].
        expected: &'static str,
        /// The beginning of the line, or what is wrong with it.
        found: String,
    },
    /// A frame of another version of brick.
    #[error("expected a frame of {expected}, found one of {found}: the run is another version of brick")]
    Version {
        /// [`Snapshot::SCHEMA`].
        expected: &'static str,
        /// What the frame says.
        found: String,
    },
    /// A frame of this version that has another shape.
    #[error("a frame of {schema} does not have its form: {found}", schema = Snapshot::SCHEMA)]
    Malformed {
        /// What is wrong.
        found: String,
    },
}

/// The frame as a line, with its end.
///
/// # Errors
/// Never with a snapshot made by this crate: all its figures are finite.
pub fn encode(snapshot: &Snapshot) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(snapshot)?;
    line.push(b'\n');
    Ok(line)
}

/// The frame of a line.
///
/// # Errors
/// [`WireError::Foreign`], [`WireError::Version`], [`WireError::Malformed`].
pub fn decode(line: &[u8]) -> Result<Snapshot, WireError> {
    #[derive(Deserialize)]
    struct Named {
        schema: String,
    }
    // The name first: another version may have other fields.
    let Ok(Named { schema }) = serde_json::from_slice(line) else {
        return Err(WireError::Foreign { expected: Snapshot::SCHEMA, found: quoted(line) });
    };
    if schema != Snapshot::SCHEMA {
        return Err(WireError::Version { expected: Snapshot::SCHEMA, found: quoted(schema.as_bytes()) });
    }
    serde_json::from_slice(line).map_err(|e| WireError::Malformed { found: e.to_string() })
}

fn quoted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * QUOTED)]);
    let short: String = text.trim().chars().take(QUOTED).collect();
    if short.is_empty() { "an empty line".into() } else { format!("{short:?}") }
}

/// Reads the next frame; `None` when the peer closed the connection between two frames.
///
/// # Errors
/// [`WireError`].
pub fn read_frame(reader: &mut impl BufRead) -> Result<Option<Snapshot>, WireError> {
    let mut line = Vec::new();
    reader.take(LONGEST as u64 + 1).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => decode(&line).map(Some),
        Some(_) if line.len() > LONGEST => Err(WireError::TooLong { longest: LONGEST }),
        Some(_) => Err(WireError::Cut { bytes: line.len() }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing;

    #[test]
    fn a_frame_survives_the_way() {
        let frames = [testing::snapshot(), Snapshot { pid: 7, ..testing::snapshot() }];
        let bytes: Vec<u8> = frames.iter().flat_map(|f| encode(f).unwrap()).collect();
        assert_eq!(bytes.split(|b| *b == b'\n').count(), 3, "a line each, and nothing after the last");
        let mut reader = bytes.as_slice();
        for frame in &frames {
            let read = read_frame(&mut reader).unwrap().unwrap();
            assert_close(&serde_json::to_value(read).unwrap(), &serde_json::to_value(frame).unwrap());
        }
        assert_eq!(read_frame(&mut reader).unwrap(), None);
    }

    /// Equal but for the last bit of a figure, which reading decimal digits may change.
    fn assert_close(a: &Value, b: &Value) {
        match (a, b) {
            (Value::Object(a), Value::Object(b)) => {
                assert!(a.keys().eq(b.keys()));
                a.iter().for_each(|(key, value)| assert_close(value, &b[key]));
            }
            (Value::Array(a), Value::Array(b)) => {
                assert_eq!(a.len(), b.len());
                a.iter().zip(b).for_each(|(a, b)| assert_close(a, b));
            }
            (Value::Number(x), Value::Number(y)) if x.is_f64() && y.is_f64() => {
                let (x, y) = (x.as_f64().unwrap(), y.as_f64().unwrap());
                assert!((x - y).abs() <= 1e-15 * y.abs(), "{x} {y}");
            }
            _ => assert_eq!(a, b),
        }
    }

    #[test]
    fn what_is_no_frame_is_told_apart() {
        let error = |bytes: &[u8]| read_frame(&mut &*bytes).unwrap_err().to_string();
        let cases = [
            ("HTTP/1.1 400 Bad Request\r\n", "found \"HTTP/1.1 400 Bad Request\": what listens there is no brick"),
            ("\n", "found an empty line"),
            ("{\"schema\":\"brick.top.frame/9\"}\n", "found one of \"brick.top.frame/9\": the run is another version"),
            ("{\"schema\":\"brick.top.frame/1\",\"pid\":1}\n", "does not have its form: missing field"),
            ("{\"schema\":\"brick.top", "in the middle of a frame, after 20 bytes"),
            ("[1,2]\n", "found \"[1,2]\""),
        ];
        for (bytes, expected) in cases {
            let found = error(bytes.as_bytes());
            assert!(found.contains(expected), "{bytes:?}: {found}");
        }
        assert!(error(b"\xff\xfe\x00\n").contains("no brick"));
        assert!(error(&vec![b' '; LONGEST + 10]).contains("longer line"));
    }

    #[test]
    fn a_damaged_frame_is_an_error_or_another_frame_and_never_a_panic() {
        let good = encode(&testing::snapshot()).unwrap();
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        for _ in 0..300 {
            let mut bad = good.clone();
            for _ in 0..=random() % 3 {
                let at = random() % bad.len();
                bad[at] = b"0123456789eE-.,\"{}[]nt\x80\n"[random() % 24];
            }
            if let Ok(Some(frame)) = read_frame(&mut bad.as_slice()) {
                testing::draw_everything(&frame);
            }
        }
    }
}
