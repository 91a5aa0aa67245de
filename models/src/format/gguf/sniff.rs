//! What a file that is not GGUF seems to be, from its first bytes.

use super::error::FormatError;

pub(super) const MAGIC: [u8; 4] = *b"GGUF";

/// First bytes and what they mean. Formats that people do hand to a model runtime by mistake.
const KNOWN: &[(&[u8], &str)] = &[
    (b"FUGG", "a GGUF file with swapped bytes (big-endian)"),
    (b"lmgg", "a GGML file, the predecessor of GGUF: convert the model again"),
    (b"fmgg", "a GGMF file, a predecessor of GGUF: convert the model again"),
    (b"tjgg", "a GGJT file, a predecessor of GGUF: convert the model again"),
    (b"algg", "a GGLA file, an old LoRA adapter"),
    (b"PK\x03\x04", "a zip archive (PyTorch checkpoints and wheels are zip archives)"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (b"\xfd7zXZ", "xz-compressed data"),
    (b"BZh", "bzip2-compressed data"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x80\x02", "a Python pickle (old PyTorch checkpoint)"),
    (b"version https://git-lfs", "a Git LFS pointer: the real file was not downloaded (`git lfs pull`)"),
    (b"<!DOCTYPE", "an HTML page, perhaps an error page saved by a download"),
    (b"<!doctype", "an HTML page, perhaps an error page saved by a download"),
    (b"<html", "an HTML page, perhaps an error page saved by a download"),
    (b"<?xml", "an XML document, perhaps an error page saved by a download"),
    (b"{", "JSON text"),
    (b"\x7fELF", "an executable"),
    (b"\0\0\0\0\0\0\0\0", "an unfinished download (it begins with zeros)"),
];

/// Accepts the magic of GGUF, or says what the file is instead.
pub(super) fn check_magic(bytes: &[u8]) -> Result<(), FormatError> {
    if bytes.is_empty() {
        return Err(FormatError::Empty);
    }
    if bytes.starts_with(&MAGIC) {
        return Ok(());
    }
    let head = bytes.get(..4).unwrap_or(bytes);
    Err(FormatError::Magic { found: format!("\"{}\"", head.escape_ascii()), looks_like: looks_like(bytes) })
}

fn looks_like(bytes: &[u8]) -> Option<&'static str> {
    // SafeTensors: the length of a JSON header in 8 bytes, then the header.
    if let Some((len, rest)) = bytes.split_first_chunk::<8>() {
        let len = u64::from_le_bytes(*len);
        if rest.starts_with(b"{") && (2..=100_000_000).contains(&len) {
            return Some("a SafeTensors file: convert it to GGUF first");
        }
    }
    if MAGIC.starts_with(bytes) {
        return Some("the beginning of a GGUF file, cut off");
    }
    KNOWN.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_people_mistake_for_gguf() {
        for (bytes, part) in [
            (&b"PK\x03\x04rest"[..], "zip"),
            (b"version https://git-lfs.example/spec/v1\noid sha256:00", "Git LFS"),
            (b"<!DOCTYPE html><html>", "HTML"),
            (b"\x10\0\0\0\0\0\0\0{\"a\":1}", "SafeTensors"),
            (b"GGU", "cut off"),
            (b"tjgg\x01\0\0\0", "GGJT"),
        ] {
            let message = check_magic(bytes).map_err(|e| e.to_string()).expect_err("not GGUF");
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(check_magic(b""), Err(FormatError::Empty));
        let unknown = check_magic(b"\x01\x02\x03\x04").map_err(|e| e.to_string()).expect_err("not GGUF");
        assert_eq!(unknown, r#"expected the magic bytes "GGUF" at byte 0, found "\x01\x02\x03\x04""#);
    }
}
