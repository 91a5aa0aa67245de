//! Machine code as text: which instructions a kernel and its hot loop are made of.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::ops::Range;

use super::locate::{crashed, run, said};
use super::{PtxasError, Tools};

/// Machine code of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sass {
    /// Name of the kernel.
    pub kernel: String,
    /// Its instructions, in the order of their addresses.
    pub instructions: Vec<SassInst>,
}

/// An instruction of the hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SassInst {
    /// With its modifiers, without predicate and operands: `LDG.E.128.CONSTANT`.
    pub opcode: String,
    /// Index of the instruction that it branches to.
    pub target: Option<usize>,
}

/// How often each opcode occurs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram(pub BTreeMap<String, usize>);

impl Histogram {
    /// How many instructions have an opcode that begins with `prefix`.
    pub fn count(&self, prefix: &str) -> usize {
        self.0.iter().filter(|(opcode, _)| opcode.starts_with(prefix)).map(|(_, n)| n).sum()
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (opcode, n) in &self.0 {
            write!(f, "{comma}{n} {opcode}")?;
            comma = ", ";
        }
        Ok(())
    }
}

impl Sass {
    /// The loops, as ranges of instructions: from the target of a branch backwards to the last branch to it. A branch to
    /// itself is no loop: the assembler pads code with one.
    pub fn loops(&self) -> Vec<Range<usize>> {
        let mut by_header = BTreeMap::new();
        for (index, inst) in self.instructions.iter().enumerate() {
            if let Some(header) = inst.target
                && header < index
            {
                by_header.insert(header, index + 1);
            }
        }
        by_header.into_iter().map(|(header, end)| header..end).collect()
    }

    /// The hot loop: of the loops in which no other begins, the longest, and the first of several. Where the assembler
    /// unrolled a loop, that is the unrolled one and not the one for the remainder.
    pub fn hot_loop(&self) -> Option<Range<usize>> {
        let loops = self.loops();
        let innermost = |l: &&Range<usize>| !loops.iter().any(|m| m.start > l.start && m.start < l.end);
        // `max_by_key` gives the last of several; the first has the larger negative start.
        loops.iter().filter(innermost).max_by_key(|l| (l.len(), std::cmp::Reverse(l.start))).cloned()
    }

    /// How often each opcode occurs in a range of instructions.
    pub fn histogram(&self, range: Range<usize>) -> Histogram {
        let mut histogram = Histogram::default();
        for inst in self.instructions.get(range).unwrap_or_default() {
            *histogram.0.entry(inst.opcode.clone()).or_default() += 1;
        }
        histogram
    }
}

impl Tools {
    /// Disassembles machine code: one [`Sass`] per kernel, by name.
    ///
    /// # Errors
    /// [`PtxasError`] if the program crashes or its text has no kernel.
    pub fn disassemble(&self, cubin: &[u8]) -> Result<Vec<Sass>, PtxasError> {
        let scratch = tempfile::tempdir().map_err(PtxasError::io("create a directory in", std::env::temp_dir()))?;
        let path = scratch.path().join("kernel.cubin");
        fs::write(&path, cubin).map_err(PtxasError::io("write", &path))?;
        let output = run(&self.nvdisasm, ["-c".as_ref(), path.as_os_str()])?;
        if !output.status.success() {
            return Err(crashed(&self.nvdisasm, &output));
        }
        let kernels = parse(&String::from_utf8_lossy(&output.stdout));
        if kernels.is_empty() {
            return Err(PtxasError::Report { tool: "nvdisasm", expected: "any kernel".into(), output: said(&output) });
        }
        Ok(kernels)
    }
}

/// Reads the text of `nvdisasm -c`.
fn parse(text: &str) -> Vec<Sass> {
    let mut kernels: Vec<Sass> = Vec::new();
    let mut labels: BTreeMap<&str, usize> = BTreeMap::new();
    let mut branches: Vec<(usize, &str)> = Vec::new();
    let finish = |kernels: &mut Vec<Sass>, labels: &mut BTreeMap<&str, usize>, branches: &mut Vec<(usize, &str)>| {
        if let Some(kernel) = kernels.last_mut() {
            for (index, label) in branches.drain(..) {
                kernel.instructions[index].target = labels.get(label).copied();
            }
        }
        labels.clear();
    };
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix(".text.").and_then(|rest| rest.strip_suffix(':')) {
            finish(&mut kernels, &mut labels, &mut branches);
            kernels.push(Sass { kernel: name.to_owned(), instructions: Vec::new() });
            continue;
        }
        let Some(kernel) = kernels.last_mut() else { continue };
        let here = kernel.instructions.len();
        if let Some(label) = line.strip_suffix(':') {
            labels.insert(label, here);
        } else if let Some((_, code)) = line.strip_prefix("/*").and_then(|rest| rest.split_once("*/")) {
            let mut words = code.trim().trim_end_matches(';').split_whitespace();
            let first = words.next().unwrap_or_default();
            let opcode = if first.starts_with('@') { words.next().unwrap_or_default() } else { first };
            if opcode.starts_with("BRA")
                && let Some((_, label)) = code.split_once("`(")
                && let Some((label, _)) = label.split_once(')')
            {
                branches.push((here, label));
            }
            kernel.instructions.push(SassInst { opcode: opcode.to_owned(), target: None });
        }
    }
    finish(&mut kernels, &mut labels, &mut branches);
    kernels.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    kernels
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TEXT: &str = "
	.section	.text.k,\"ax\",@progbits
k:
.text.k:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   IADD3 R4, R4, 0x1, RZ ;
.L_x_1:
        /*0020*/                   LDG.E.128.CONSTANT R8, desc[UR4][R8.64] ;
        /*0030*/                   FFMA R18, R5, R4, R18 ;
        /*0040*/              @!P0 BRA `(.L_x_1) ;
.L_x_2:
        /*0050*/                   FFMA R18, R5, R4, R18 ;
        /*0060*/               @P1 BRA `(.L_x_2) ;
        /*0070*/               @P2 BRA P3, `(.L_x_0) ;
        /*0080*/                   EXIT ;
.L_x_3:
        /*0090*/                   BRA `(.L_x_3);
        /*00a0*/                   NOP;
.L_x_4:
";

    #[test]
    fn the_hot_loop_is_the_longest_innermost() {
        let [kernel] = parse(TEXT).try_into().unwrap();
        assert_eq!(kernel.kernel, "k");
        assert_eq!(kernel.loops(), [1..8, 2..5, 5..7]);
        let hot = kernel.histogram(kernel.hot_loop().unwrap());
        assert_eq!(hot.to_string(), "1 BRA, 1 FFMA, 1 LDG.E.128.CONSTANT");
        assert_eq!(hot.count("LDG"), 1);
    }

    #[test]
    fn straight_code_has_no_hot_loop() {
        let [kernel] = parse(".text.s:\n/*0000*/ EXIT ;\n.L_x_3:\n/*0010*/ BRA `(.L_x_3);\n").try_into().unwrap();
        assert_eq!(kernel.hot_loop(), None);
    }
}
