//! PTX text of a [`Module`].
//!
//! The text says `.version 8.0` and one of the [targets](Target). Registers are named by class and numbered in the order
//! in which they were made; labels by the statement that they belong to. Branches whose condition is the same in a whole
//! warp are marked `.uni`. Emission does not check, but it does not trust either: what it cannot write is an
//! [`EmitError`].

mod inst;
mod memory;
mod names;

use std::fmt::Write as _;

use crate::ir::{
    Access, Block, Class, Kernel, MAX_DEPTH, Module, Param, ParamKind, RegId, SharedSize, Stmt, StmtKind, Target,
    Threads,
};
use crate::valid::{Facts, Uniformity};
use names::Names;

/// An IR that has no text. Never for a module that [`validate`](crate::valid::validate) accepts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernel `{kernel}`: {kind}")]
pub struct EmitError {
    /// Name of the kernel.
    pub kernel: String,
    /// Why.
    pub kind: EmitErrorKind,
}

/// Why an IR has no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // fields are the operands of the message
pub enum EmitErrorKind {
    /// A register that is not declared.
    #[error("`{opcode}` names register {}, which does not exist", reg.0)]
    Register { opcode: &'static str, reg: RegId },
    /// A parameter that is not declared.
    #[error("`{opcode}` names parameter {index}, which does not exist")]
    Param { opcode: &'static str, index: u32 },
    /// A shared allocation that is not declared.
    #[error("`{opcode}` names shared allocation {index}, which does not exist")]
    Shared { opcode: &'static str, index: u32 },
    /// A vector that is empty.
    #[error("`{opcode}` has a vector without elements")]
    EmptyVector { opcode: &'static str },
    /// Statements nested too deep.
    #[error("statements are nested more than {MAX_DEPTH} deep")]
    TooDeep,
}

/// Writes a module for a target.
///
/// # Errors
/// [`EmitError`] names what has no text; never for a module that [`validate`](crate::valid::validate) accepts.
pub fn emit(module: &Module, target: Target) -> Result<String, EmitError> {
    let mut text = format!(".version 8.0\n.target {target}\n.address_size 64\n");
    for kernel in &module.kernels {
        // Dynamic shared memory cannot be declared inside of an entry.
        for shared in kernel.shared.iter().filter(|s| matches!(s.size, SharedSize::Dynamic { .. })) {
            let name = names::dynamic_shared(kernel, shared);
            let _ = write!(text, "\n.extern .shared .align {} .b8 {name}[];\n", shared.align);
        }
    }
    for kernel in &module.kernels {
        let writer = Writer::new(kernel).and_then(Writer::kernel);
        text += &writer.map_err(|kind| EmitError { kernel: kernel.name.clone(), kind })?;
    }
    Ok(text)
}

type Emitted = Result<(), EmitErrorKind>;

/// Writes one kernel.
struct Writer<'a> {
    kernel: &'a Kernel,
    names: Names,
    facts: Facts,
    text: String,
    depth: usize,
    /// Statements that need labels, so far.
    labels: usize,
}

impl<'a> Writer<'a> {
    fn new(kernel: &'a Kernel) -> Result<Self, EmitErrorKind> {
        let facts = Facts::of(kernel).ok_or(EmitErrorKind::TooDeep)?;
        Ok(Self { kernel, names: Names::of(kernel), facts, text: String::new(), depth: 1, labels: 0 })
    }

    fn kernel(mut self) -> Result<String, EmitErrorKind> {
        self.text.push('\n');
        self.comment_at("", &self.kernel.about.clone());
        let _ = write!(self.text, ".visible .entry {}(", self.kernel.name);
        let params: Vec<String> = self.kernel.params.iter().map(declaration).collect();
        if !params.is_empty() {
            let _ = write!(self.text, "\n    {}\n", params.join(",\n    "));
        }
        self.text += ")\n";
        match self.kernel.threads {
            Threads::Any => {}
            Threads::UpTo(n) => drop(writeln!(self.text, ".maxntid {n}, 1, 1")),
            Threads::Exactly([x, y, z]) => drop(writeln!(self.text, ".reqntid {x}, {y}, {z}")),
        }
        if let Some(blocks) = self.kernel.min_blocks {
            let _ = writeln!(self.text, ".minnctapersm {blocks}");
        }
        self.text += "{\n";
        for class in Class::ALL {
            let count = self.kernel.registers.iter().filter(|&&c| c == class).count();
            if count > 0 {
                let _ = writeln!(self.text, "    .reg {class} %{}<{}>;", class.prefix(), count + 1);
            }
        }
        for shared in &self.kernel.shared {
            if let SharedSize::Static { bytes } = shared.size {
                let _ = writeln!(self.text, "    .shared .align {} .b8 {}[{bytes}];", shared.align, shared.name);
            }
        }
        self.text.push('\n');
        self.block(&self.kernel.body)?;
        if !matches!(self.kernel.body.last(), Some(Stmt { kind: StmtKind::Return, .. })) {
            self.line("ret;");
        }
        self.text += "}\n";
        Ok(self.text)
    }

    fn block(&mut self, block: &Block) -> Emitted {
        block.iter().try_for_each(|stmt| self.statement(&stmt.kind))
    }

    fn nested(&mut self, block: &Block) -> Emitted {
        self.depth += 1;
        let done = self.block(block);
        self.depth -= 1;
        done
    }

    fn statement(&mut self, stmt: &StmtKind) -> Emitted {
        match stmt {
            StmtKind::Inst(inst) => self.inst(inst),
            StmtKind::Comment(text) => {
                let indent = "    ".repeat(self.depth);
                self.comment_at(&indent, text);
                Ok(())
            }
            StmtKind::Return => {
                self.line("ret;");
                Ok(())
            }
            StmtKind::If { cond, then, otherwise } => self.branch(*cond, then, otherwise),
            StmtKind::While { head, cond, body, rolled } => {
                let number = self.label();
                let p = self.names.register("while", *cond)?;
                self.line_at(0, &format!("$while_{number}:"));
                if *rolled {
                    self.line(".pragma \"nounroll\";");
                }
                self.nested(head)?;
                let bra = self.bra(*cond);
                self.line(&format!("    @!{p} {bra} $done_{number};"));
                self.nested(body)?;
                self.line(&format!("    bra.uni $while_{number};"));
                self.line_at(0, &format!("$done_{number}:"));
                Ok(())
            }
        }
    }

    fn branch(&mut self, cond: RegId, then: &Block, otherwise: &Block) -> Emitted {
        let p = self.names.register("if", cond)?;
        let returns = |block: &Block| matches!(block.as_slice(), [Stmt { kind: StmtKind::Return, .. }]);
        if otherwise.is_empty() && returns(then) {
            self.line(&format!("@{p} ret;"));
            return Ok(());
        }
        let number = self.label();
        let bra = self.bra(cond);
        let skip = if otherwise.is_empty() { "endif" } else { "else" };
        self.line(&format!("@!{p} {bra} ${skip}_{number};"));
        self.nested(then)?;
        if !otherwise.is_empty() {
            self.line(&format!("    bra.uni $endif_{number};"));
            self.line_at(0, &format!("$else_{number}:"));
            self.nested(otherwise)?;
        }
        self.line_at(0, &format!("$endif_{number}:"));
        Ok(())
    }

    fn bra(&self, cond: RegId) -> &'static str {
        if self.facts.uniformity(cond) <= Uniformity::Warp { "bra.uni" } else { "bra" }
    }

    fn label(&mut self) -> usize {
        self.labels += 1;
        self.labels
    }

    fn line(&mut self, line: &str) {
        self.line_at(self.depth, line);
    }

    fn line_at(&mut self, depth: usize, line: &str) {
        self.text += &"    ".repeat(depth);
        self.text += line;
        self.text.push('\n');
    }

    /// PTX is ASCII, and a control character could end the comment.
    fn comment_at(&mut self, indent: &str, text: &str) {
        for line in text.lines() {
            let clean: String =
                line.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).collect();
            // A backslash at the end would join the next line to the comment.
            let _ = writeln!(self.text, "{indent}// {}", clean.trim_end_matches(['\\', ' ']));
        }
    }
}

fn declaration(param: &Param) -> String {
    match param.kind {
        ParamKind::Pointer { access, align } => {
            let note = match access {
                Access::Read => "read",
                Access::Write => "write",
                Access::ReadWrite => "read, write",
            };
            format!(".param .u64 .ptr .global .align {align} {} /* {note} */", param.name)
        }
        ParamKind::U32 { .. } => format!(".param .u32 {}", param.name),
        ParamKind::U64 { .. } => format!(".param .u64 {}", param.name),
        ParamKind::F32 => format!(".param .f32 {}", param.name),
    }
}
