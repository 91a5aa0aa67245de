//! What `ptxas` makes of the samples, compared exactly; and programs that are not what they should be.

#![allow(clippy::unwrap_used)]

mod nonsense;
mod samples;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use brick_ptx::compile;
use brick_ptx::emit::emit;
use brick_ptx::ir::{
    Access, Arch, Class, Cmp, Imm, Inst, Kernel, Module, Operand, Param, ParamId, ParamKind, RegId, Shared, SharedSize,
    Stmt, StmtKind, Target, Threads, Type,
};
use brick_ptx::ptxas::{PtxasError, Tools};
use brick_ptx::valid::{fits_shared, validate_kernel};
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

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

/// Arbitrary instructions, each in a kernel of its own: those that the validator accepts, the assembler accepts.
#[test]
fn what_is_valid_assembles() {
    let Some(tools) = Tools::find_for_tests().unwrap() else { return };
    for target in Target::ALL {
        let mut module = Module::default();
        let mut seen = HashSet::new();
        let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        for _ in 0..60_000 {
            let mut bytes = [0; 48];
            random.fill_bytes(&mut bytes);
            let mut kernel = with_every_register();
            let inst = nonsense::Nonsense::new(&bytes).inst_over(kernel.registers.len() as u32);
            let opcode = inst.opcode();
            kernel.body.push(Stmt { kind: StmtKind::Inst(inst), source: None });
            let text = emit(&Module { kernels: vec![kernel.clone()] }, target);
            if validate_kernel(&kernel, target).is_ok() && seen.insert(text.unwrap()) {
                kernel.name = format!("k{}_{}", module.kernels.len(), opcode.replace(['.', ' '], "_"));
                module.kernels.push(kernel);
            }
        }
        assert!(module.kernels.len() > 500, "only {} are valid", module.kernels.len());
        let text = compile(&module, target).unwrap();
        let arch = if target == Target::Sm80 { Arch::Sm80 } else { Arch::Sm90 };
        if let Err(e) = tools.assemble(&text, arch) {
            let PtxasError::Rejected { log, .. } = e else { panic!("{e}") };
            let lines: Vec<&str> = text.lines().collect();
            let number =
                |at: &str| at.split_once("line ").and_then(|(_, n)| n.split(';').next()?.parse::<usize>().ok());
            let said = log.lines().map(|l| format!("{l}\n    {}\n", number(l).map_or("", |n| lines[n - 1])));
            panic!("{}", said.collect::<String>());
        }
    }
}

/// A kernel with two registers of each class, all of them set, the 64-bit ones pointing to memory.
fn with_every_register() -> Kernel {
    let param =
        |name: &str| Param { name: name.to_owned(), kind: ParamKind::Pointer { access: Access::ReadWrite, align: 16 } };
    let shared = Shared { name: "tile".into(), align: 16, size: SharedSize::Static { bytes: 16384 } };
    let mut kernel = Kernel {
        name: "k".into(),
        threads: Threads::Exactly([64, 1, 1]),
        params: vec![param("a"), param("b")],
        shared: vec![shared],
        ..Kernel::default()
    };
    for class in Class::ALL {
        for i in 0..2 {
            let dst = RegId(kernel.registers.len() as u32);
            kernel.registers.push(class);
            let inst = match class {
                Class::Pred => {
                    Inst::Compare { cmp: Cmp::Eq, ty: Type::U32, dst, a: Operand::int(1), b: Operand::int(2) }
                }
                Class::B64 => Inst::LoadParam { dst, param: ParamId(i) },
                Class::F32 => Inst::Mov { ty: Type::F32, dst, src: Operand::Imm(Imm::F32(0)) },
                Class::F64 => Inst::Mov { ty: Type::F64, dst, src: Operand::Imm(Imm::F64(0)) },
                Class::B16 | Class::B32 => Inst::Mov { ty: class.declared(), dst, src: Operand::int(16) },
            };
            kernel.body.push(Stmt { kind: StmtKind::Inst(inst), source: None });
        }
    }
    kernel
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
