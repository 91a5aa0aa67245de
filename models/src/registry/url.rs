//! The few operations on addresses that following a redirect takes.

use super::error::SourceError;

/// `scheme://host:port` of an `http` or `https` address.
pub(super) fn origin(url: &str) -> Result<&str, SourceError> {
    let bad = |reason: &str| SourceError::BadAddress { url: url.to_owned(), reason: reason.to_owned() };
    if !url.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad("it holds characters that an address cannot hold"));
    }
    let authority = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .ok_or_else(|| bad("only http:// and https:// are spoken"))?;
    let host = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || host.contains('@') {
        return Err(bad("it names no host, or a user"));
    }
    Ok(&url[..url.len() - authority.len() + host.len()])
}

/// Host and port of an address, for messages.
pub(super) fn host(url: &str) -> &str {
    origin(url).ok().and_then(|origin| origin.split_once("://")).map_or(url, |(_, host)| host)
}

/// Where a redirect from `base` to `location` leads. A redirect from `https` to `http` is refused.
pub(super) fn join(base: &str, location: &str) -> Result<String, SourceError> {
    let from = origin(base)?;
    let (scheme, _) = from.split_once(':').unwrap_or((from, ""));
    let url = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{from}{location}")
    } else if location.split(['/', '?', '#']).next().is_some_and(|first| first.contains(':')) {
        location.to_owned()
    } else {
        let path = base.split(['?', '#']).next().unwrap_or(base);
        let dir = path.get(..path.rfind('/').unwrap_or(0).max(from.len())).unwrap_or(from);
        format!("{dir}/{location}")
    };
    let to = origin(&url)?;
    if scheme == "https" && !to.starts_with("https:") {
        let reason = format!("redirect from https to {to} refused");
        return Err(SourceError::BadAddress { url: base.to_owned(), reason });
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn origins() {
        assert_eq!(origin("https://h.example:8443/a?b").unwrap(), "https://h.example:8443");
        assert_eq!(origin("http://h").unwrap(), "http://h");
        assert_eq!(host("http://[::1]:80/x"), "[::1]:80");
        for bad in ["", "h", "ftp://h/", "http://", "http:///x", "http://u:p@h/", "http://h/a b", "http://h/\u{e9}"] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn redirects() {
        let base = "https://h:1/a/b?c=/d";
        for (location, expected) in [
            ("https://k/x", "https://k/x"),
            ("//k/x", "https://k/x"),
            ("/x?y", "https://h:1/x?y"),
            ("x/y", "https://h:1/a/x/y"),
            ("x?u=http://z", "https://h:1/a/x?u=http://z"),
        ] {
            assert_eq!(join(base, location).unwrap(), expected, "{location}");
        }
        assert_eq!(join("http://h", "x").unwrap(), "http://h/x");
        assert_eq!(join("http://h/a", "https://k/").unwrap(), "https://k/");
        for bad in ["http://h:1/x", "file:///etc/passwd", "javascript:x", "https://", "/a b"] {
            assert!(join(base, bad).is_err(), "{bad}");
        }
    }
}
