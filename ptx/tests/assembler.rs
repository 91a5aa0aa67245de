//! What `ptxas` makes of the samples, compared exactly; and programs that are not what they should be.

#![allow(clippy::unwrap_used)]

mod samples;

use std::fmt::Write as _;

use brick_ptx::emit::emit;
use brick_ptx::ir::{Arch, Module};
use brick_ptx::ptxas::{PtxasError, Tools};
use brick_ptx::valid::{fits_shared, validate};

const ARCHS: [Arch; 5] = [Arch::Sm80, Arch::Sm86, Arch::Sm89, Arch::Sm90, Arch::Sm100];

#[test]
fn samples_take_what_they_took() {
    let Some(tools) = Tools::find_for_tests().unwrap() else { return };
    for (kernel, target) in samples::all() {
        let name = kernel.name.clone();
        let module = Module { kernels: vec![kernel] };
        validate(&module, target).unwrap();
        let text = emit(&module, target).unwrap();
        let mut report = String::new();
        for arch in ARCHS.into_iter().filter(|arch| arch.runs(target)) {
            fits_shared(&module.kernels[0], arch).unwrap();
            let assembled = tools.assemble(&text, arch).unwrap();
            let [resources] = assembled.resources.as_slice() else { panic!("{:?}", assembled.resources) };
            let spills = resources.spill_store_bytes + resources.spill_load_bytes;
            assert_eq!((spills, resources.stack_bytes), (0, 0), "{arch} {resources}");
            let sass = tools.disassemble(&assembled.cubin).unwrap();
            writeln!(report, "{arch} {resources}").unwrap();
            match sass[0].hot_loop() {
                Some(hot) => {
                    writeln!(report, "    hot loop of {}: {}", hot.len(), sass[0].histogram(hot)).unwrap();
                }
                None => writeln!(report, "    no loop, {} instructions", sass[0].instructions.len()).unwrap(),
            }
        }
        insta::assert_snapshot!(name, report);
    }
}

#[test]
fn a_wrong_text_is_rejected_with_the_words_of_the_assembler() {
    let Some(tools) = Tools::find_for_tests().unwrap() else { return };
    let text = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() { nonsense; }\n";
    let Err(PtxasError::Rejected { log, .. }) = tools.assemble(text, Arch::Sm80) else { panic!("accepted") };
    assert!(log.contains("kernel.ptx, line 4"), "{log}");
}

#[cfg(unix)]
mod search {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    use brick_ptx::ptxas::{PtxasError, Search};

    fn program(dir: &Path, name: &str, script: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    const GOOD: &str = "echo 'Cuda compilation tools, release 13.4, V13.4.1'";

    #[test]
    fn the_cache_is_the_last_resort() {
        let dir = tempfile::tempdir().unwrap();
        let cached = |tool: &str, version: &str| {
            let dir = dir.path().join(format!("{tool}-{version}"));
            fs::create_dir(&dir).unwrap();
            program(&dir, tool, GOOD)
        };
        let search = Search { cache: Some(dir.path().to_owned()), ..Search::default() };
        let Err(PtxasError::NotFound { tool: "ptxas", .. }) = search.find() else { panic!("found") };
        cached("ptxas", "13.0.88");
        let Err(PtxasError::NotFound { tool: "nvdisasm", .. }) = search.find() else { panic!("found") };
        cached("nvdisasm", "13.2.51");
        search.find().unwrap();

        // One that is named is not passed over for it.
        let named = program(dir.path(), "old", "echo 'Cuda compilation tools, release 12.0, V12.0.140'");
        let found = Search { ptxas: Some(named), ..search }.find();
        let Err(PtxasError::Version { found, .. }) = found else { panic!("{found:?}") };
        assert!(found.contains("release 12.0"), "{found}");
    }

    #[test]
    fn programs_that_crash_are_said_to() {
        let dir = tempfile::tempdir().unwrap();
        let search = |script| Search {
            ptxas: Some(program(dir.path(), "ptxas", script)),
            nvdisasm: Some(program(dir.path(), "nvdisasm", GOOD)),
            ..Search::default()
        };
        assert!(matches!(search("kill -SEGV $$").find(), Err(PtxasError::Crashed { .. })));
        // Says its version, and dies of the text.
        let tools = search(&format!("[ \"$1\" = --version ] && {GOOD} && exit 0; kill -SEGV $$")).find().unwrap();
        let crashed = tools.assemble("", brick_ptx::ir::Arch::Sm80);
        assert!(matches!(crashed, Err(PtxasError::Crashed { .. })), "{crashed:?}");
    }
}
