//! What `ptxas` makes of the samples, compared exactly; and programs that are not what they should be.

#![allow(clippy::unwrap_used)]

mod samples;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use brick_ptx::compile;
use brick_ptx::ir::{Arch, Module, Target};
use brick_ptx::ptxas::{PtxasError, Tools};
use brick_ptx::valid::fits_shared;

const ARCHS: [Arch; 5] = [Arch::Sm80, Arch::Sm86, Arch::Sm89, Arch::Sm90, Arch::Sm100];

#[test]
fn samples_take_what_they_took() {
    let Some(tools) = Tools::find_for_tests().unwrap() else { return };
    let mut reports: BTreeMap<String, String> = BTreeMap::new();
    // One text per target: the disassembler takes longer to start than to work.
    for target in Target::ALL {
        let kernels = samples::all().into_iter().filter(|(_, of)| *of == target).map(|(kernel, _)| kernel).collect();
        let module = Module { kernels };
        let text = compile(&module, target).unwrap();
        for arch in ARCHS.into_iter().filter(|arch| arch.runs(target)) {
            module.kernels.iter().for_each(|kernel| fits_shared(kernel, arch).unwrap());
            let assembled = tools.assemble(&text, arch).unwrap();
            let sass = tools.disassemble(&assembled.cubin).unwrap();
            assert_eq!((assembled.resources.len(), sass.len()), (module.kernels.len(), module.kernels.len()));
            for (resources, sass) in assembled.resources.iter().zip(&sass) {
                assert_eq!(resources.kernel, sass.kernel);
                let spills = resources.spill_store_bytes + resources.spill_load_bytes;
                assert_eq!((spills, resources.stack_bytes), (0, 0), "{arch} {resources}");
                let report = reports.entry(sass.kernel.clone()).or_default();
                writeln!(report, "{arch} {resources}").unwrap();
                match sass.hot_loop() {
                    Some(hot) => writeln!(report, "    hot loop of {}: {}", hot.len(), sass.histogram(hot)).unwrap(),
                    None => writeln!(report, "    no loop, {} instructions", sass.instructions.len()).unwrap(),
                }
            }
        }
    }
    for (kernel, report) in reports {
        insta::assert_snapshot!(kernel, report);
    }
}

/// What the validator accepts, the assembler accepts, instruction by instruction.
#[test]
fn every_instruction_assembles() {
    let Some(tools) = Tools::find_for_tests().unwrap() else { return };
    let module = Module { kernels: samples::every_instruction::kernels() };
    for target in Target::ALL {
        let text = compile(&module, target).unwrap();
        for arch in ARCHS.into_iter().filter(|arch| arch.runs(target)) {
            assert_eq!(tools.assemble(&text, arch).unwrap().resources.len(), module.kernels.len());
        }
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
