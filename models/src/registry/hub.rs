//! The model hub over HTTP: one file of a repository, resumed where an earlier transfer ended.
//!
//! `{endpoint}/{owner}/{repo}/resolve/{revision}/{file}` answers with the file, or with redirects to a content server.
//! The hub's own answers (not the content server's) may carry `X-Linked-Etag` and `X-Linked-Size`, the SHA-256 and the
//! length of the file; they are what a file of unknown content is checked against. Redirects are followed here, not by
//! the HTTP library, for these headers and so that the token goes to the hub only.

use std::io;
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use super::cache::escape;
use super::error::{FetchError, RegistryError, SourceError};
use super::name::{HubFile, is_sha256};
use super::partial::{Partial, State, check_space};
use super::progress::Progress;
use super::url::{host, join, origin};

const MAX_REDIRECTS: usize = 10;

/// How the model hub is reached.
#[derive(Clone)]
pub struct HubConfig {
    /// `https://host`, without the part that names the file.
    pub endpoint: String,
    /// Sent to the endpoint as a bearer token, never to where it redirects.
    pub token: Option<String>,
    /// Until a host that does not answer counts as unreachable and the next source is tried.
    pub connect_timeout: Duration,
    /// Until a silent connection counts as broken.
    pub read_timeout: Duration,
    /// How often a broken transfer is taken up again, in a row without a byte received.
    pub retries: u32,
    /// Wait before the first retry; doubled for each further one.
    pub retry_delay: Duration,
}

impl Default for HubConfig {
    fn default() -> Self {
        HubConfig {
            endpoint: "https://huggingface.co".to_owned(),
            token: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            retries: 4,
            retry_delay: Duration::from_secs(1),
        }
    }
}

impl HubConfig {
    /// The defaults, with `HF_ENDPOINT` and `HF_TOKEN` where they are set.
    pub fn from_env() -> Self {
        let var =
            |name| std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let default = HubConfig::default();
        HubConfig { endpoint: var("HF_ENDPOINT").unwrap_or(default.endpoint), token: var("HF_TOKEN"), ..default }
    }
}

/// The token is a secret: it is not shown.
impl std::fmt::Debug for HubConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubConfig")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("connect_timeout", &self.connect_timeout)
            .field("read_timeout", &self.read_timeout)
            .field("retries", &self.retries)
            .field("retry_delay", &self.retry_delay)
            .finish()
    }
}

/// What a file must be, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) bytes: Option<u64>,
    pub(super) sha256: Option<String>,
}

/// One transfer: the file, where it goes, what it must be.
struct Transfer<'a> {
    config: &'a HubConfig,
    agent: Agent,
    address: String,
    promise: Promise,
    dir: &'a std::path::Path,
    progress: &'a dyn Progress,
}

/// How one request ended that brought no error.
enum Outcome {
    Complete,
    /// What was kept does not fit what the server has now; it was thrown away.
    StartOver,
}

/// Brings `partial` to its full length, taking up broken transfers, and returns what the file must be: what was known
/// before, completed by what the hub says.
pub(super) fn fill(
    config: &HubConfig,
    file: &HubFile,
    known: &Promise,
    dir: &std::path::Path,
    partial: &mut Partial,
    progress: &dyn Progress,
) -> Result<Promise, FetchError> {
    let endpoint = config.endpoint.trim_end_matches('/');
    origin(endpoint)?;
    let path: Vec<String> = file.file.split('/').map(escape).collect();
    let HubFile { owner, repo, revision, .. } = file;
    let address = format!("{endpoint}/{owner}/{repo}/resolve/{}/{}", escape(revision), path.join("/"));
    let agent = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_resolve(Some(config.connect_timeout))
        .timeout_connect(Some(config.connect_timeout))
        .timeout_recv_response(Some(config.read_timeout))
        .timeout_per_read(Some(config.read_timeout))
        .timeout_per_write(Some(config.read_timeout))
        // Compressed on the way, length and ranges would not be those of the file.
        .accept_encoding("identity")
        .user_agent(concat!("brick/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    let mut transfer = Transfer { config, agent, address, promise: known.clone(), dir, progress };
    let start = partial.len();
    let mut failures = 0;
    let mut restarts = 0;
    loop {
        let before = partial.len();
        let error = match transfer.request(partial) {
            Ok(Outcome::Complete) => return Ok(transfer.promise),
            // A server that never agrees with itself must not keep us here for ever.
            Ok(Outcome::StartOver) if restarts < MAX_REDIRECTS => {
                restarts += 1;
                continue;
            }
            Ok(Outcome::StartOver) => {
                let reason = "the file changes from request to request".to_owned();
                return Err(SourceError::Protocol { host: host(&transfer.address).to_owned(), reason }.into());
            }
            Err(FetchError::Source(error)) if error.is_transient() => error,
            Err(error) => return Err(error),
        };
        if partial.len() > before {
            failures = 0;
        }
        failures += 1;
        // A hub that was never reached is left for the next source at once.
        let never = matches!(error, SourceError::Unreachable { .. }) && partial.len() == start;
        if never || failures > config.retries {
            return Err(error.into());
        }
        progress.message(&format!("{error}; taking it up again"));
        wait(config.retry_delay.saturating_mul(1 << (failures - 1).min(6)), progress)?;
    }
}

fn wait(mut left: Duration, progress: &dyn Progress) -> Result<(), RegistryError> {
    const STEP: Duration = Duration::from_millis(100);
    while !left.is_zero() {
        if progress.cancelled() {
            return Err(RegistryError::Interrupted);
        }
        let step = left.min(STEP);
        std::thread::sleep(step);
        left -= step;
    }
    Ok(())
}

impl Transfer<'_> {
    /// One request, with the redirects it takes, and the body it leads to.
    fn request(&mut self, partial: &mut Partial) -> Result<Outcome, FetchError> {
        let mut url = self.address.clone();
        let mut announced = Promise::default();
        // Bytes kept are gone on with if it can be told that they are of the same file: by the server, from its own mark
        // (If-Range), or in the end by the hash.
        let sha_known = self.promise.sha256.is_some() || partial.state().sha256.is_some();
        let resume = partial.len() > 0 && (partial.state().etag.is_some() || sha_known);
        for _ in 0..=MAX_REDIRECTS {
            let at_hub = origin(&url)? == origin(&self.address)?;
            let mut request = self.agent.get(&url);
            if let Some(token) = self.config.token.as_ref().filter(|_| at_hub) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if resume {
                request = request.header("Range", format!("bytes={}-", partial.len()));
                if let Some(etag) = &partial.state().etag {
                    request = request.header("If-Range", etag);
                }
            }
            let response = request.call().map_err(|error| call_error(error, &url, partial.len()))?;
            let status = response.status().as_u16();
            if at_hub {
                announced.note_hub(response.headers(), (200..300).contains(&status));
                self.check_announced(&announced)?;
            }
            match status {
                301 | 302 | 303 | 307 | 308 => {
                    let location = text(response.headers(), "location").ok_or_else(|| SourceError::Protocol {
                        host: host(&url).to_owned(),
                        reason: format!("HTTP {status} without an address"),
                    })?;
                    url = join(&url, location)?;
                }
                200 => return self.whole(response, &url, announced, partial),
                206 if resume => return self.rest(response, &url, announced, partial),
                // Nothing after what is there: it is all there, or it is of another file.
                416 if resume && Some(partial.len()) == self.total(&announced, partial) => {
                    self.settle(announced);
                    return Ok(Outcome::Complete);
                }
                416 if resume => return self.start_over(partial),
                401 | 403 => {
                    let token_sent = self.config.token.is_some() && at_hub;
                    return Err(SourceError::Denied { url, status, token_sent }.into());
                }
                404 | 410 => return Err(SourceError::NotFound { url, status }.into()),
                _ => return Err(SourceError::Status { url, status }.into()),
            }
        }
        Err(SourceError::BadAddress { url: self.address.clone(), reason: "too many redirects".to_owned() }.into())
    }

    /// What the hub announces must not differ from what is known of the file.
    fn check_announced(&self, announced: &Promise) -> Result<(), SourceError> {
        match (self.promise.bytes, announced.bytes) {
            (Some(expected), Some(found)) if expected != found => {
                return Err(SourceError::WrongSize { expected, found });
            }
            _ => {}
        }
        match (self.promise.sha256.clone(), announced.sha256.clone()) {
            (Some(expected), Some(found)) if expected != found => Err(SourceError::WrongHash { expected, found }),
            _ => Ok(()),
        }
    }

    fn total(&self, announced: &Promise, partial: &Partial) -> Option<u64> {
        self.promise.bytes.or(announced.bytes).or(partial.state().total)
    }

    fn settle(&mut self, announced: Promise) {
        self.promise.bytes = self.promise.bytes.or(announced.bytes);
        self.promise.sha256 = self.promise.sha256.take().or(announced.sha256);
    }

    fn start_over(&self, partial: &mut Partial) -> Result<Outcome, FetchError> {
        self.progress.message("the file on the server is not the one begun earlier; starting over");
        partial.restart(State::default(), self.progress)?;
        Ok(Outcome::StartOver)
    }

    /// 200: the file from its beginning.
    fn whole(
        &mut self,
        response: Response<Body>,
        url: &str,
        mut announced: Promise,
        partial: &mut Partial,
    ) -> Result<Outcome, FetchError> {
        let headers = response.headers();
        check_is_a_file(headers, url)?;
        let length = number(headers, "content-length");
        let chunked = text(headers, "transfer-encoding").is_some_and(|value| value.contains("chunked"));
        let total = length.or(self.promise.bytes).or(announced.bytes);
        if total.is_none() && !chunked {
            // Without a length, an end cannot be told from a broken connection.
            let reason = "it announces neither the length of the file nor its end".to_owned();
            return Err(SourceError::Protocol { host: host(url).to_owned(), reason }.into());
        }
        if let (Some(expected), Some(found)) = (self.promise.bytes.or(announced.bytes), total)
            && expected != found
        {
            return Err(SourceError::WrongSize { expected, found }.into());
        }
        announced.bytes = announced.bytes.or(length);
        if partial.len() > 0 {
            self.progress.message("the server sends the file from its beginning; starting over");
        }
        check_space(self.dir, total.unwrap_or(0).saturating_sub(partial.len()))?;
        let state = State { etag: strong_etag(headers), sha256: announced.sha256.clone(), total, ..State::default() };
        partial.restart(state, self.progress)?;
        self.settle(announced);
        self.body(response, url, total, partial)
    }

    /// 206: the file from where the partial one ends.
    fn rest(
        &mut self,
        response: Response<Body>,
        url: &str,
        announced: Promise,
        partial: &mut Partial,
    ) -> Result<Outcome, FetchError> {
        let headers = response.headers();
        check_is_a_file(headers, url)?;
        let range = text(headers, "content-range").and_then(content_range);
        let Some((first, total)) = range.filter(|(first, _)| *first == partial.len()) else {
            let reason = format!("asked for the bytes from {} on, it sent others", partial.len());
            return Err(SourceError::Protocol { host: host(url).to_owned(), reason }.into());
        };
        let state = partial.state();
        let expected = state.total.or(self.promise.bytes);
        let etag = strong_etag(headers);
        let conflict = differ(state.total, total)
            || differ(state.etag.as_ref(), etag.as_ref())
            || differ(state.sha256.as_ref(), announced.sha256.as_ref());
        // No mark in common, but the hash is known: it decides in the end.
        let vouched =
            (etag.is_some() && etag == state.etag) || self.promise.sha256.is_some() || announced.sha256.is_some();
        if conflict || !vouched {
            return self.start_over(partial);
        }
        let total = total.or(expected);
        check_space(self.dir, total.unwrap_or(first).saturating_sub(first))?;
        self.settle(announced);
        self.promise.bytes = self.promise.bytes.or(total);
        self.body(response, url, total, partial)
    }

    fn body(
        &self,
        response: Response<Body>,
        url: &str,
        total: Option<u64>,
        partial: &mut Partial,
    ) -> Result<Outcome, FetchError> {
        let mut reader = response.into_body().into_with_config().limit(u64::MAX).reader();
        let broken = |error: io::Error, received| match total {
            Some(expected) if error.kind() == io::ErrorKind::UnexpectedEof => {
                SourceError::Short { from: host(url).to_owned(), received, expected }
            }
            _ => SourceError::Broken { host: host(url).to_owned(), received, reason: error.to_string() },
        };
        partial.append(&mut reader, total, self.progress, &broken)?;
        match total {
            Some(expected) if partial.len() < expected => {
                Err(SourceError::Short { from: host(url).to_owned(), received: partial.len(), expected }.into())
            }
            _ => Ok(Outcome::Complete),
        }
    }
}

impl Promise {
    /// Takes what an answer of the hub itself says of the file. `ETag` counts only on the answer that has the file: on a
    /// redirect it is not the file's.
    fn note_hub(&mut self, headers: &HeaderMap, has_file: bool) {
        let sha = |name| text(headers, name).map(unquoted).filter(|value| is_sha256(value)).map(str::to_owned);
        self.bytes = self.bytes.or_else(|| number(headers, "x-linked-size"));
        self.sha256 = self.sha256.take().or_else(|| sha("x-linked-etag"));
        if has_file {
            self.sha256 = self.sha256.take().or_else(|| sha("etag"));
        }
    }
}

/// Whether both are known and not the same.
fn differ<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a != b)
}

fn check_is_a_file(headers: &HeaderMap, url: &str) -> Result<(), SourceError> {
    if text(headers, "content-type")
        .is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/html"))
    {
        return Err(SourceError::WebPage { url: url.to_owned() });
    }
    match text(headers, "content-encoding") {
        None | Some("identity" | "") => Ok(()),
        Some(other) => Err(SourceError::Protocol {
            host: host(url).to_owned(),
            reason: format!("it sent the file encoded as {other}, which was not asked for"),
        }),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.trim().parse().ok()
}

fn unquoted(value: &str) -> &str {
    value.trim().trim_matches('"')
}

/// The entity tag, if it may be used with `If-Range`: a weak one does not vouch for every byte (RFC 9110, 8.8.1, 13.1.5).
fn strong_etag(headers: &HeaderMap) -> Option<String> {
    text(headers, "etag")
        .filter(|etag| etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'))
        .map(str::to_owned)
}

/// First byte and length of the whole of `bytes 10-19/20`; the length may be `*` (RFC 9110, 14.4).
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = if total.trim() == "*" { None } else { Some(total.trim().parse::<u64>().ok()?) };
    (first <= last && total.is_none_or(|total| last < total)).then_some((first, total))
}

fn call_error(error: ureq::Error, url: &str, received: u64) -> SourceError {
    use ureq::{Error, Timeout};
    let host = host(url).to_owned();
    let reason = error.to_string();
    match error {
        Error::Io(error) if was_connected(&error) => SourceError::Broken { host, received, reason },
        Error::HostNotFound
        | Error::ConnectionFailed
        | Error::ConnectProxyFailed(_)
        | Error::Io(_)
        | Error::Tls(_)
        | Error::Rustls(_)
        | Error::Timeout(Timeout::Connect | Timeout::Resolve) => SourceError::Unreachable { host, reason },
        Error::BadUri(_) | Error::Http(_) => SourceError::BadAddress { url: url.to_owned(), reason },
        Error::Protocol(_) | Error::LargeResponseHeader(..) => SourceError::Protocol { host, reason },
        _ => SourceError::Broken { host, received, reason },
    }
}

fn was_connected(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 10-19/20"), Some((10, Some(20))));
        assert_eq!(content_range("bytes 10-19/*"), Some((10, None)));
        for bad in ["", "bytes */20", "bytes 19-10/20", "bytes 10-20/20", "items 1-2/3", "bytes -5/9", "bytes 1-2"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_strong_entity_tags_serve_if_range() {
        let headers = |etag: &str| HeaderMap::from_iter([(ureq::http::header::ETAG, etag.parse().unwrap())]);
        assert_eq!(strong_etag(&headers("\"abc\"")).as_deref(), Some("\"abc\""));
        for weak in ["W/\"abc\"", "abc", "\"", "\"\""] {
            assert_eq!(strong_etag(&headers(weak)), None, "{weak}");
        }
    }

    #[test]
    fn the_token_is_not_shown() {
        let config = HubConfig { token: Some("hf_secret".to_owned()), ..HubConfig::default() };
        assert!(!format!("{config:?}").contains("secret"));
    }
}
