//! What reports say about this program and about a model's file.

use std::io::Read;
use std::path::Path;

use brick_profiler::profile::BuildInfo;
use sha2::{Digest, Sha256};

/// This program: version, commit, compiler.
pub(crate) fn build() -> BuildInfo {
    BuildInfo {
        git: option_env!("BRICK_GIT").map(str::to_owned),
        rustc: option_env!("BRICK_RUSTC").map(str::to_owned),
        ..BuildInfo::current()
    }
}

/// Now, in UTC, to the second, as in ISO 8601.
pub(crate) fn timestamp() -> Option<String> {
    let now = time::OffsetDateTime::now_utc().replace_nanosecond(0).ok()?;
    now.format(&time::format_description::well_known::Rfc3339).ok()
}

/// Hash of bytes in hexadecimal.
pub(crate) fn sha256_of(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Hash of a file in hexadecimal; `None` if it cannot be read any more.
pub(crate) fn sha256(path: &Path) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hash.update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(format!("{:x}", hash.finalize()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    #[test]
    fn files_are_hashed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, b"abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-2, B.1
        assert_eq!(super::sha256(&path).unwrap(), expected);
        assert_eq!(super::sha256(dir.path()), None);
    }

    #[test]
    fn the_time_is_in_the_form_that_reports_promise() {
        let t = super::timestamp().unwrap();
        assert!(t.len() == 20 && t.ends_with('Z') && t.as_bytes()[10] == b'T', "{t}");
    }
}
