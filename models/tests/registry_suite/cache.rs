//! The cache itself: listing, removing, checking, and homes that cannot be used.

use std::fs;

use brick_models::registry::{ModelRef, Registry, RegistryError};

use crate::server::{Reply, Server};
use crate::support::*;

/// A registry with the toy in its cache.
fn filled() -> (Bench, Vec<u8>) {
    let body = model_bytes(100_000, 1);
    let served = body.clone();
    let server = Server::start(move |request| Reply::file(request, &served, "\"v\""));
    let bench = Bench::new(config(&server.address, table(&body, HUB_SOURCE)));
    bench.registry.pull(&toy(), &()).unwrap();
    (bench, body)
}

#[test]
fn list_shows_what_is_there_and_rm_removes_it() {
    let (bench, body) = filled();
    let reference = ModelRef::parse("hf://o/r/x.gguf").unwrap();
    bench.registry.pull(&reference, &()).unwrap();
    let list = bench.registry.list().unwrap();
    let rows: Vec<_> = list.iter().map(|m| (m.reference.as_str(), m.repository.as_str(), m.tag.as_str())).collect();
    assert_eq!(rows, [("hf://o/r/x.gguf", "hf://o/r/x.gguf", "main"), ("toy:1m", "toy", "1m")]);
    for model in &list {
        assert_eq!(bench.registry.parse(&model.reference).unwrap().to_string(), model.reference);
        assert_eq!(fs::read(&model.path).unwrap(), body);
        assert_eq!((model.bytes, &model.sha256), (100_000, &sha256(&body)));
        assert!(model.modified.elapsed().unwrap().as_secs() < 3600);
    }

    let removed = bench.registry.rm(&toy()).unwrap();
    assert_eq!(removed.bytes, 100_000);
    assert!(!bench.home.path().join("models").exists());
    assert_eq!(bench.registry.list().unwrap().len(), 1);
    bench.registry.rm(&reference).unwrap();
    assert_eq!(bench.registry.list().unwrap(), []);
    let result = bench.registry.rm(&reference);
    assert!(matches!(result, Err(RegistryError::NotCached { .. })), "{result:?}");
}

#[test]
fn rm_removes_the_rest_of_a_pull_too() {
    let body = model_bytes(100_000, 1);
    let server = Server::start(|_| Reply::new(200, &model_bytes(100_000, 1)).cut(5000));
    let bench = Bench::new(config(&server.address, table(&body, HUB_SOURCE)));
    reason(bench.registry.pull(&toy(), &()));
    assert!(partial(&bench.toy_slot()).is_some());
    assert_eq!(bench.registry.rm(&toy()).unwrap().bytes, 0);
    assert!(!bench.toy_slot().exists());
}

#[test]
fn paths_are_used_where_they_lie_and_never_removed() {
    let (bench, _) = filled();
    let file = bench.home.path().join("own.gguf");
    fs::write(&file, b"GGUF").unwrap();
    let reference = ModelRef::parse(file.to_str().unwrap()).unwrap();
    assert_eq!(bench.registry.resolve(&reference, &()).unwrap(), file);
    for result in [bench.registry.rm(&reference).map(drop), bench.registry.pull(&reference, &()).map(drop)] {
        assert!(matches!(result, Err(RegistryError::BadReference { .. })), "{result:?}");
    }
    assert!(file.exists());
    fs::remove_file(&file).unwrap();
    let result = bench.registry.resolve(&reference, &());
    assert!(matches!(result, Err(RegistryError::NoSuchFile { .. })), "{result:?}");
}

#[test]
fn references_put_together_by_hand_do_not_lead_out_of_the_cache() {
    let (bench, _) = filled();
    let ModelRef::Hub(mut file) = ModelRef::parse("hf://o/r/x.gguf").unwrap() else { panic!() };
    file.owner = "../../..".to_owned();
    let result = bench.registry.rm(&ModelRef::Hub(file));
    assert!(matches!(result, Err(RegistryError::BadReference { .. })), "{result:?}");
    let other = ModelRef::Known { name: "..".to_owned(), tag: "..".to_owned() };
    assert!(bench.registry.rm(&other).is_err());
    assert!(bench.toy_slot().join("toy.gguf").exists());
}

#[test]
fn verify_finds_a_single_changed_bit() {
    let (bench, body) = filled();
    let listener = Listener::default();
    assert_eq!(bench.registry.verify(&toy(), &listener).unwrap().sha256, sha256(&body));
    assert_eq!(listener.position.load(std::sync::atomic::Ordering::SeqCst), 100_000);
    let path = bench.toy_slot().join("toy.gguf");
    let mut bytes = body;
    bytes[77_777] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let result = bench.registry.verify(&toy(), &());
    assert!(matches!(&result, Err(RegistryError::Damaged { found, .. }) if *found == sha256(&bytes)), "{result:?}");
    assert!(result.unwrap_err().to_string().contains("brick rm toy:1m"));
}

#[test]
fn a_file_cut_short_or_without_manifest_is_not_cached_and_pulled_again() {
    let (bench, body) = filled();
    let path = bench.toy_slot().join("toy.gguf");
    fs::write(&path, &body[..500]).unwrap();
    assert_eq!(bench.registry.list().unwrap(), []);
    let pulled = bench.registry.pull(&toy(), &()).unwrap();
    assert!(!pulled.was_cached);
    assert_eq!(fs::read(&path).unwrap(), body);

    fs::write(bench.toy_slot().join("manifest.json"), b"{ half a manif").unwrap();
    assert_eq!(bench.registry.list().unwrap(), []);
    bench.registry.pull(&toy(), &()).unwrap();
    assert_eq!(bench.registry.list().unwrap().len(), 1);
}

#[test]
fn a_table_with_another_hash_means_another_file() {
    let (bench, _) = filled();
    let newer = model_bytes(100_000, 2);
    let served = newer.clone();
    let server = Server::start(move |request| Reply::file(request, &served, "\"v2\""));
    let registry = bench.with(config(&server.address, table(&newer, HUB_SOURCE)));
    let path = registry.resolve(&toy(), &()).unwrap();
    assert_eq!(fs::read(path).unwrap(), newer);
}

#[test]
fn a_file_put_in_place_by_hand_is_checked_and_taken_up() {
    let body = model_bytes(100_000, 1);
    let offline = config("http://127.0.0.1:1", table(&body, HUB_SOURCE));
    let bench = Bench::new(offline);
    fs::create_dir_all(bench.toy_slot()).unwrap();
    let path = bench.toy_slot().join("toy.gguf");
    fs::write(&path, model_bytes(100_000, 2)).unwrap();
    assert!(bench.registry.resolve(&toy(), &()).is_err());
    fs::write(&path, &body).unwrap();
    assert_eq!(bench.registry.resolve(&toy(), &()).unwrap(), path);
    assert_eq!(bench.registry.list().unwrap()[0].source, "found in place");
}

#[test]
fn a_home_that_is_a_file_or_below_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"x").unwrap();
    let result = Registry::open(&file);
    assert!(matches!(result, Err(RegistryError::HomeNotADirectory { .. })), "{result:?}");
    let result = Registry::open(file.join("below"));
    let error = result.unwrap_err();
    assert!(matches!(error, RegistryError::Cache { .. }), "{error:?}");
    assert!(error.to_string().contains("BRICK_HOME"), "{error}");
}

#[test]
fn a_home_that_is_not_there_yet_is_empty_and_opening_it_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path().join("a/b")).unwrap();
    assert_eq!(registry.list().unwrap(), []);
    assert!(matches!(registry.rm(&ModelRef::parse("smollm2").unwrap()), Err(RegistryError::NotCached { .. })));
    assert!(!dir.path().join("a").exists());
}

/// `/proc` takes no directories, from nobody.
#[cfg(target_os = "linux")]
#[test]
fn a_home_that_cannot_be_written_is_an_error_that_names_it() {
    let registry =
        Registry::with_config("/proc/brick", config("http://127.0.0.1:1", table(b"GGUF", HUB_SOURCE))).unwrap();
    let error = registry.pull(&toy(), &()).unwrap_err();
    assert!(matches!(error, RegistryError::Cache { action: "create", .. }), "{error:?}");
    assert!(error.to_string().contains("/proc/brick"), "{error}");
}

#[test]
fn a_model_larger_than_the_disk_is_refused_before_a_byte_is_fetched() {
    let bytes = u64::MAX / 4;
    let server = Server::start(move |_| Reply::new(200, b"").header("Content-Length", &bytes.to_string()));
    let bench = Bench::new(config(&server.address, sized_table(bytes, &sha256(b""), HUB_SOURCE)));
    let error = bench.registry.pull(&toy(), &()).unwrap_err();
    assert!(matches!(error, RegistryError::NoSpace { needed: Some(needed), .. } if needed == bytes), "{error:?}");
    assert!(error.to_string().contains("BRICK_HOME"), "{error}");
}

/// The partial file is replaced by a link to the device that is always full.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up_on_the_way_ends_the_pull_without_a_final_file() {
    let body = model_bytes(100_000, 1);
    let served = body.clone();
    let server = Server::start(move |_| Reply::new(200, &served).header("ETag", "\"v\"").cut(5000));
    let bench = Bench::new(config(&server.address, table(&body, HUB_SOURCE)));
    reason(bench.registry.pull(&toy(), &()));
    let partial = partial(&bench.toy_slot()).unwrap();
    fs::remove_file(&partial).unwrap();
    std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
    let error = bench.registry.pull(&toy(), &()).unwrap_err();
    assert!(matches!(error, RegistryError::NoSpace { .. }), "{error:?}");
    assert!(!bench.toy_slot().join("toy.gguf").exists());
}
