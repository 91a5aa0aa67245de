//! Several threads and several processes at one cache, and processes that are killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use brick_models::registry::{ModelRef, Progress, Registry, RegistryError};

use crate::server::{Reply, Request, Server};
use crate::support::*;

const SIZE: usize = 2_000_000;
const REFERENCE: &str = "hf://o/r/x.gguf";

/// Serves the file once the gate is open.
fn gated_server(body: Vec<u8>, gate: Arc<AtomicBool>) -> Server {
    Server::start(move |request| {
        wait_until(|| gate.load(Ordering::SeqCst));
        Reply::file(request, &body, "\"v\"")
    })
}

/// Waits for what another thread or process is to bring about; far longer than it can take.
fn wait_until(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn threads_that_pull_the_same_model_fetch_it_once() {
    let body = model_bytes(SIZE, 1);
    let gate = Arc::new(AtomicBool::new(false));
    let server = gated_server(body.clone(), gate.clone());
    let bench = Bench::new(config(&server.address, table(&body, HUB_SOURCE)));
    let listener = Listener::default();
    let pulled: Vec<_> = std::thread::scope(|scope| {
        let pull = || bench.registry.pull(&toy(), &listener).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(pull)).collect();
        wait_until(|| listener.said("waiting for it"));
        gate.store(true, Ordering::SeqCst);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(pulled.iter().filter(|pulled| !pulled.was_cached).count(), 1);
    assert!(pulled.iter().all(|pulled| std::fs::read(&pulled.model.path).unwrap() == body));
    assert_eq!(server.requests().len(), 1);
    assert_eq!(files(&bench.toy_slot()), ["manifest.json", "toy.gguf"]);
}

/// Not a test of its own: what the tests below run as another process. Prints its messages, then `pulled` or `cached`.
#[test]
#[ignore = "run by other tests, as another process"]
fn child() {
    struct Print;
    impl Progress for Print {
        fn set_total(&self, _: Option<u64>) {}
        fn inc(&self, _: u64) {}
        fn message(&self, text: &str) {
            println!("{text}");
        }
    }
    let registry = Registry::open_default().unwrap();
    let pulled = registry.pull(&ModelRef::parse(REFERENCE).unwrap(), &Print).unwrap();
    println!("{}", if pulled.was_cached { "cached" } else { "pulled" });
}

/// This test binary again, pulling into `home` from `endpoint`, set up as a user would: by the environment.
fn spawn(home: &Path, endpoint: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "processes::child"])
        .env("BRICK_HOME", home)
        .env("HF_ENDPOINT", endpoint)
        .env("HF_TOKEN", "")
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn output(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn of_two_processes_the_second_waits_and_finds_the_file() {
    let body = model_bytes(SIZE, 2);
    let served = body.clone();
    let server = Server::start(move |request| {
        Reply::file(request, &served, "\"v\"").pace(SIZE / 10, Duration::from_millis(100))
    });
    let bench = Bench::new(config(&server.address, table(b"GGUF", HUB_SOURCE)));
    let children = [(); 2].map(|()| spawn(bench.home.path(), &server.address));
    let outputs = children.map(output);
    let saying = |word: &str| outputs.iter().filter(|output| output.contains(word)).count();
    assert_eq!((saying("\npulled"), saying("\ncached")), (1, 1), "{outputs:?}");
    assert_eq!(server.requests().len(), 1);
    let list = bench.registry.list().unwrap();
    assert_eq!(list.len(), 1);
    assert!(std::fs::read(&list[0].path).unwrap() == body);
    bench.registry.verify(&ModelRef::parse(REFERENCE).unwrap(), &()).unwrap();
}

#[test]
fn a_killed_process_leaves_a_partial_file_that_the_next_pull_goes_on_with() {
    let body = model_bytes(SIZE, 3);
    let served = body.clone();
    // To the child slowly, so that there is time to kill it; the rest at once.
    let server = Server::start(move |request| {
        let reply = Reply::file(request, &served, "\"v\"");
        if request.range_start().is_none() { reply.pace(SIZE / 200, Duration::from_millis(100)) } else { reply }
    });
    let bench = Bench::new(config(&server.address, table(b"GGUF", HUB_SOURCE)));
    let slot = bench.home.path().join("hub/o/r/main/x.gguf");
    let mut child = spawn(bench.home.path(), &server.address);
    let partial_len = || partial(&slot).and_then(|path| path.metadata().ok()).map_or(0, |meta| meta.len());
    wait_until(|| partial_len() >= 50_000);
    // While it pulls, the model cannot be removed under its hands.
    let reference = ModelRef::parse(REFERENCE).unwrap();
    let result = bench.registry.rm(&reference);
    assert!(matches!(result, Err(RegistryError::Busy { .. })), "{result:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = partial_len();
    assert!(!slot.join("x.gguf").exists() && !slot.join("manifest.json").exists());
    assert_eq!(bench.registry.list().unwrap(), []);

    let path = bench.registry.resolve(&reference, &()).unwrap();
    assert!(std::fs::read(path).unwrap() == body);
    let ranges: Vec<_> = server.requests().iter().map(Request::range_start).collect();
    assert_eq!(ranges, [None, Some(kept as usize)]);
    assert_eq!(files(&slot), ["manifest.json", "x.gguf"]);
}

#[test]
fn a_waiting_pull_can_be_interrupted() {
    let body = model_bytes(SIZE, 4);
    let gate = Arc::new(AtomicBool::new(false));
    let server = gated_server(body.clone(), gate.clone());
    let bench = Bench::new(config(&server.address, table(&body, HUB_SOURCE)));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| bench.registry.pull(&toy(), &()).unwrap());
        wait_until(|| !server.requests().is_empty());
        let impatient = Listener { cancel_after: Some(0), ..Listener::default() };
        let result = bench.registry.pull(&toy(), &impatient);
        gate.store(true, Ordering::SeqCst);
        assert!(matches!(result, Err(RegistryError::Interrupted)), "{result:?}");
        assert!(!first.join().unwrap().was_cached);
    });
}
