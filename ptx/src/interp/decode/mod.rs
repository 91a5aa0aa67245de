//! From statements to kernels: every instruction is decoded once, into [`Op`]s over dense register indexes.

mod arith;
mod bits;
mod convert;
mod cursor;
mod float;
mod memory;
mod moves;
mod names;
mod warp;

use std::collections::HashMap;

use self::cursor::{Cursor, Decoded, Variables};
use self::names::Names;
pub(crate) use self::names::{Files, Key, Presets, Special};
use super::flow;
use super::op::{Instr, NEVER, Op};
use super::text::{ParseError, ParseErrorKind, RawInstr, RawKernel, RawModule, RawShared, RawStatement};
use super::ty::Ty;
use super::unset::{self, Watch};

/// Bytes left unmapped around every shared array, so that an overrun of one does not hit the next.
const SHARED_GAP: u32 = 4096;

/// The parameters of a kernel may take this many bytes.
const PARAM_LIMIT: u64 = 4096;

/// Instructions a kernel may have. Real kernels have thousands; the limit bounds the memory that analysis takes.
const CODE_LIMIT: usize = 1 << 16;

/// A kernel, ready to run.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) params: Vec<Param>,
    pub(crate) required_block: Option<[u32; 3]>,
    pub(crate) max_block: Option<[u32; 3]>,
    pub(crate) shared: Vec<SharedArray>,
    pub(crate) code: Vec<Instr>,
    pub(crate) files: Files,
    pub(crate) presets: Presets,
    pub(crate) watch: Watch,
}

/// A parameter and its place in the block of parameters.
#[derive(Debug, Clone)]
pub(crate) struct Param {
    pub(crate) name: String,
    pub(crate) ty: Ty,
    pub(crate) len: u64,
    pub(crate) offset: u32,
}

impl Param {
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.ty.bytes()) * self.len
    }
}

/// A shared array at its address.
#[derive(Debug, Clone)]
pub(crate) struct SharedArray {
    pub(crate) name: String,
    pub(crate) address: u32,
    /// Size, or `None` for the dynamic part of a launch.
    pub(crate) bytes: Option<u32>,
}

/// Decodes every kernel of a module.
pub(crate) fn decode(module: &RawModule<'_>) -> Result<Vec<Kernel>, ParseError> {
    let mut kernels: Vec<Kernel> = Vec::with_capacity(module.kernels.len());
    for raw in &module.kernels {
        if kernels.iter().any(|k| k.name == raw.name) {
            let kind = ParseErrorKind::Duplicate { what: "kernel", name: raw.name.to_owned() };
            return Err(ParseError::new(raw.pos, kind));
        }
        kernels.push(kernel(raw, &module.shared)?);
    }
    Ok(kernels)
}

fn kernel<'a>(raw: &RawKernel<'a>, module_shared: &[RawShared<'a>]) -> Result<Kernel, ParseError> {
    let (params, param_names) = place_params(raw)?;
    let (shared, shared_names) = place_shared(raw, module_shared)?;
    let param_bytes = params.last().map_or(0, |last| u64::from(last.offset) + last.bytes());
    let labels = place_labels(raw)?;
    let variables = Variables { shared: shared_names, params: param_names, param_bytes, labels };

    let mut names = Names::default();
    names.open();
    let mut code = Vec::new();
    let mut uses = Vec::new();
    for statement in &raw.body {
        match statement {
            RawStatement::Reg(reg) => names.declare(reg)?,
            RawStatement::Shared(_) | RawStatement::Label(..) => {}
            RawStatement::Open => names.open(),
            RawStatement::Close => names.close(),
            RawStatement::Instr(instr) => {
                if code.len() >= CODE_LIMIT {
                    let (found, limit) = (code.len() as u64 + 1, CODE_LIMIT as u64);
                    let kind = ParseErrorKind::TooLarge { what: "the number of instructions", found, limit };
                    return Err(ParseError::new(instr.pos, kind));
                }
                let mut cursor = Cursor::new(instr, &mut names, &variables);
                let guard = match instr.guard {
                    Some((name, negated)) => Some(cursor.pred_by_name(name, negated, 0)?),
                    None => None,
                };
                let op = instruction(instr, &mut cursor)?;
                uses.push((std::mem::take(&mut cursor.reads), std::mem::take(&mut cursor.writes)));
                code.push(Instr { guard, op, line: instr.pos.line, reconverge: NEVER });
            }
        }
    }
    // A kernel that falls off its end returns; labels may stand there.
    code.push(Instr { guard: None, op: Op::Exit, line: raw.end.line, reconverge: NEVER });
    uses.push((Vec::new(), Vec::new()));

    flow::set_reconvergence(&mut code);
    let (files, presets, used) = names.into_presets();
    let watch = unset::watch(&code, &uses, &used);
    Ok(Kernel {
        name: raw.name.to_owned(),
        params,
        required_block: raw.required_block,
        max_block: raw.max_block,
        shared,
        code,
        files,
        presets,
        watch,
    })
}

type Placed<'a, T, N> = Result<(Vec<T>, HashMap<&'a str, N>), ParseError>;

fn place_params<'a>(raw: &RawKernel<'a>) -> Placed<'a, Param, (u32, Ty)> {
    let mut params = Vec::with_capacity(raw.params.len());
    let mut by_name = HashMap::new();
    let mut end = 0_u64;
    for param in &raw.params {
        let start = end.next_multiple_of(param.align.max(1));
        let size = u64::from(param.ty.bytes()).checked_mul(param.len);
        end = size.and_then(|size| start.checked_add(size)).filter(|&end| end <= PARAM_LIMIT).ok_or_else(|| {
            let found = size.unwrap_or(u64::MAX);
            ParseError::new(param.pos, ParseErrorKind::TooLarge { what: "a parameter", found, limit: PARAM_LIMIT })
        })?;
        if param.ty == Ty::Pred || by_name.insert(param.name, (start as u32, param.ty)).is_some() {
            let kind = ParseErrorKind::Duplicate { what: "parameter", name: param.name.to_owned() };
            return Err(ParseError::new(param.pos, kind));
        }
        params.push(Param { name: param.name.to_owned(), ty: param.ty, len: param.len, offset: start as u32 });
    }
    Ok((params, by_name))
}

/// Places the arrays one after the other, the dynamic one last.
fn place_shared<'a>(raw: &RawKernel<'a>, module: &[RawShared<'a>]) -> Placed<'a, SharedArray, u32> {
    let in_body = raw.body.iter().filter_map(|statement| match statement {
        RawStatement::Shared(shared) => Some(shared),
        _ => None,
    });
    let all: Vec<&RawShared<'a>> = module.iter().chain(in_body).collect();
    let mut arrays = Vec::with_capacity(all.len());
    let mut by_name = HashMap::new();
    let mut end = 0_u32;
    for dynamic in [false, true] {
        for shared in all.iter().filter(|shared| shared.bytes.is_none() == dynamic) {
            let too_large = || {
                let (found, limit) = (shared.bytes.unwrap_or(0), u64::from(u32::MAX));
                ParseError::new(shared.pos, ParseErrorKind::TooLarge { what: "shared memory", found, limit })
            };
            // A multiple of the alignment that is declared and of no larger one, so that code which relies on more than
            // it declares is found out. Bank conflicts do not change when an array moves by whole words.
            let align = shared.align as u32;
            let address = end
                .checked_add(SHARED_GAP)
                .and_then(|at| at.checked_next_multiple_of(2 * align))
                .and_then(|at| at.checked_add(align))
                .ok_or_else(too_large)?;
            let bytes = shared.bytes.map(u32::try_from).transpose().map_err(|_| too_large())?;
            // All dynamic arrays are the same memory, so they share one address.
            if !dynamic {
                end = address.checked_add(bytes.unwrap_or(0)).ok_or_else(too_large)?;
            }
            if by_name.insert(shared.name, address).is_some() {
                let kind = ParseErrorKind::Duplicate { what: "shared variable", name: shared.name.to_owned() };
                return Err(ParseError::new(shared.pos, kind));
            }
            arrays.push(SharedArray { name: shared.name.to_owned(), address, bytes });
        }
    }
    Ok((arrays, by_name))
}

fn place_labels<'a>(raw: &RawKernel<'a>) -> Result<HashMap<&'a str, u32>, ParseError> {
    let mut labels = HashMap::new();
    let mut at = 0_u32;
    for statement in &raw.body {
        match *statement {
            RawStatement::Instr(_) => at += 1,
            RawStatement::Label(name, pos) if labels.insert(name, at).is_some() => {
                let kind = ParseErrorKind::Duplicate { what: "label", name: name.to_owned() };
                return Err(ParseError::new(pos, kind));
            }
            _ => {}
        }
    }
    Ok(labels)
}

fn instruction(instr: &RawInstr<'_>, c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let op = match instr.name {
        "mov" => moves::mov(c)?,
        "cvta" => moves::cvta(c)?,
        "selp" => moves::selp(c)?,
        "slct" => moves::slct(c)?,
        "add" | "sub" | "mul" | "mad" | "div" | "rem" | "min" | "max" | "abs" | "neg" | "fma" => arith::decode(c)?,
        "ex2" | "lg2" | "rcp" | "rsqrt" | "sqrt" | "sin" | "cos" | "tanh" => float::unary(c)?,
        "dp4a" => arith::dp4a(c)?,
        "and" | "or" | "xor" | "not" => bits::logic(c)?,
        "shl" | "shr" => bits::shift(c)?,
        "shf" => bits::funnel(c)?,
        "bfe" | "bfi" => bits::field(c)?,
        "prmt" => bits::prmt(c)?,
        "lop3" => bits::lop3(c)?,
        "popc" | "clz" | "brev" => bits::count(c)?,
        "setp" => convert::setp(c)?,
        "cvt" => convert::cvt(c)?,
        "ld" | "ldu" | "st" => memory::access(c)?,
        "atom" | "red" => memory::atom(c)?,
        "membar" | "fence" => memory::fence(c)?,
        "prefetch" => memory::prefetch(c)?,
        "cp" => memory::cp_async(c)?,
        "createpolicy" => memory::create_policy(c)?,
        "ldmatrix" => memory::ldmatrix(c)?,
        "mma" => warp::mma(c)?,
        "shfl" => warp::shfl(c)?,
        "vote" => warp::vote(c)?,
        "match" => warp::matching(c)?,
        "redux" => warp::redux(c)?,
        "activemask" => warp::activemask(c)?,
        "bar" | "barrier" => warp::bar(c)?,
        "bra" => {
            let uniform = c.has("uni");
            c.count(1)?;
            Op::Bra { target: c.label(0)?, uniform }
        }
        "ret" | "exit" => {
            c.has("uni");
            c.count(0)?;
            Op::Exit
        }
        "trap" => {
            c.count(0)?;
            Op::Trap
        }
        "nanosleep" => {
            c.ty()?;
            c.count(1)?;
            c.src32(0, Ty::U32)?;
            Op::Nanosleep
        }
        "griddepcontrol" => {
            if !c.has("wait") && !c.has("launch_dependents") {
                return c.missing("`.wait` or `.launch_dependents`");
            }
            c.count(0)?;
            Op::Nop
        }
        _ => return c.fail(ParseErrorKind::Instruction(instr.name.to_owned())),
    };
    c.finish()?;
    Ok(op)
}
