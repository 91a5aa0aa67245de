//! Several threads and several processes at one cache, and processes that are killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use brick_models::registry::{ModelRef, Progress, Registry, RegistryError};

use crate::server::{Reply, Request, Server};
use crate::support::*;

const SIZE: usize = 2_000_000;
const REFERENCE: &str = "hf://o/r/x.gguf";

/// Sends the file in `steps` pieces, a tenth of a second apart.
fn slow_server(body: Vec<u8>, steps: usize) -> Server {
    Server::start(move |request| Reply::file(request, &body, "\"v\"").pace(SIZE / steps, Duration::from_millis(100)))
}

#[test]
fn threads_that_pull_the_same_model_fetch_it_once() {
    let body = model_bytes(SIZE, 1);
    let server = slow_server(body.clone(), 5);
    let bench = Bench::new(config(&server.address, table(&body, HUB_SOURCE)));
    let listener = Listener::default();
    let pulled: Vec<_> = std::thread::scope(|scope| {
        let pull = || bench.registry.pull(&toy(), &listener).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(pull)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(pulled.iter().filter(|pulled| !pulled.was_cached).count(), 1);
    assert!(pulled.iter().all(|pulled| std::fs::read(&pulled.model.path).unwrap() == body));
    assert_eq!(server.requests().len(), 1);
    assert!(listener.said("waiting for it"));
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
    let server = slow_server(body.clone(), 10);
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
    let server = slow_server(body.clone(), 20);
    let bench = Bench::new(config(&server.address, table(b"GGUF", HUB_SOURCE)));
    let slot = bench.home.path().join("hub/o/r/main/x.gguf");
    let mut child = spawn(bench.home.path(), &server.address);
    let begun = Instant::now();
    let partial_len = || partial(&slot).and_then(|path| path.metadata().ok()).map_or(0, |meta| meta.len());
    while partial_len() < 200_000 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the child does not get on");
        std::thread::sleep(Duration::from_millis(10));
    }
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
    let server = slow_server(body.clone(), 10);
    let bench = Bench::new(config(&server.address, table(&body, HUB_SOURCE)));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| bench.registry.pull(&toy(), &()).unwrap());
        while server.requests().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let impatient = Listener { cancel_after: Some(0), ..Listener::default() };
        let result = bench.registry.pull(&toy(), &impatient);
        assert!(matches!(result, Err(RegistryError::Interrupted)), "{result:?}");
        assert!(!first.join().unwrap().was_cached);
    });
}
