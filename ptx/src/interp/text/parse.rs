//! The parser: tokens to the statements of each kernel.

use super::error::{ParseError, ParseErrorKind};
use super::lex::{Lexer, Token};
use super::raw::{Pos, RawInstr, RawKernel, RawModule, RawOperand, RawParam, RawReg, RawShared, RawStatement};
use crate::interp::ty::Ty;

/// Parses a whole module.
pub(crate) fn parse(text: &str) -> Result<RawModule<'_>, ParseError> {
    let tokens = Lexer::new(text).tokens()?;
    Parser { tokens, at: 0 }.module()
}

struct Parser<'a> {
    tokens: Vec<(Token<'a>, Pos)>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens[self.at].0
    }

    fn pos(&self) -> Pos {
        self.tokens[self.at].1
    }

    /// Takes the next token; the end is never passed.
    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        if token != Token::End {
            self.at += 1;
        }
        token
    }

    fn accept(&mut self, punct: char) -> bool {
        let found = self.peek() == Token::Punct(punct);
        if found {
            self.at += 1;
        }
        found
    }

    fn unexpected<T>(&self, expected: &'static str) -> Result<T, ParseError> {
        let kind = ParseErrorKind::Expected { expected, found: self.peek().describe() };
        Err(ParseError::new(self.pos(), kind))
    }

    fn punct(&mut self, punct: char, expected: &'static str) -> Result<(), ParseError> {
        if self.accept(punct) { Ok(()) } else { self.unexpected(expected) }
    }

    fn semicolon(&mut self) -> Result<(), ParseError> {
        self.punct(';', "`;`")
    }

    fn dotted(&mut self, name: &str, expected: &'static str) -> Result<(), ParseError> {
        match self.peek() {
            Token::Dotted(found) if found == name => {
                self.at += 1;
                Ok(())
            }
            _ => self.unexpected(expected),
        }
    }

    fn word(&mut self, expected: &'static str) -> Result<&'a str, ParseError> {
        match self.peek() {
            Token::Word(word) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.unexpected(expected),
        }
    }

    fn int(&mut self, expected: &'static str) -> Result<u64, ParseError> {
        match self.peek() {
            Token::Int(value) => {
                self.at += 1;
                Ok(value)
            }
            _ => self.unexpected(expected),
        }
    }

    fn int32(&mut self, what: &'static str) -> Result<u32, ParseError> {
        let pos = self.pos();
        let found = self.int(what)?;
        u32::try_from(found)
            .map_err(|_| ParseError::new(pos, ParseErrorKind::TooLarge { what, found, limit: u32::MAX.into() }))
    }

    fn ty(&mut self) -> Result<Ty, ParseError> {
        match self.peek() {
            Token::Dotted(name) if Ty::parse(name).is_some() => {
                self.at += 1;
                Ok(Ty::parse(name).unwrap_or(Ty::B32))
            }
            _ => self.unexpected("a type"),
        }
    }

    fn module(mut self) -> Result<RawModule<'a>, ParseError> {
        let mut module = RawModule { version: (0, 0), target: "", kernels: Vec::new(), shared: Vec::new() };
        loop {
            let pos = self.pos();
            let token = self.next();
            match token {
                Token::End => break,
                Token::Dotted("version") => module.version = self.version()?,
                Token::Dotted("target") => {
                    module.target = self.word("a target such as `sm_80`")?;
                    while self.accept(',') {
                        self.word("a target option")?;
                    }
                }
                Token::Dotted("address_size") => match self.int("64")? {
                    64 => {}
                    _ => {
                        return Err(ParseError::new(
                            pos,
                            ParseErrorKind::Directive("address_size other than 64".into()),
                        ));
                    }
                },
                Token::Dotted("pragma") => self.pragma()?,
                Token::Dotted("file") => self.skip_file(),
                Token::Dotted("visible" | "weak") => {
                    if self.peek() != Token::Dotted("entry") {
                        return self.unexpected("`.entry`");
                    }
                }
                Token::Dotted("entry") => module.kernels.push(self.kernel()?),
                Token::Dotted("extern") => {
                    self.dotted("shared", "`.shared`")?;
                    module.shared.push(self.shared(true)?);
                }
                Token::Dotted("shared") => module.shared.push(self.shared(false)?),
                Token::Dotted(name) => {
                    return Err(ParseError::new(pos, ParseErrorKind::Directive(name.to_owned())));
                }
                _ => {
                    let kind = ParseErrorKind::Expected { expected: "a directive", found: token.describe() };
                    return Err(ParseError::new(pos, kind));
                }
            }
        }
        if module.version == (0, 0) || module.target.is_empty() {
            return self.unexpected("`.version` and `.target` somewhere before this");
        }
        Ok(module)
    }

    fn version(&mut self) -> Result<(u32, u32), ParseError> {
        match self.peek() {
            Token::F64(value, fraction) if value < 100.0 => {
                self.at += 1;
                Ok((value as u32, fraction.parse().unwrap_or(0)))
            }
            _ => self.unexpected("a version such as 8.0"),
        }
    }

    fn pragma(&mut self) -> Result<(), ParseError> {
        match self.peek() {
            Token::Str(_) => {
                self.at += 1;
                self.semicolon()
            }
            _ => self.unexpected("a string"),
        }
    }

    /// `.file 1 "name"` and its optional numbers: debug information, not followed by `;`.
    fn skip_file(&mut self) {
        while matches!(self.peek(), Token::Int(_) | Token::Str(_) | Token::Punct(',')) {
            self.at += 1;
        }
    }

    fn dims(&mut self) -> Result<[u32; 3], ParseError> {
        let mut dims = [1; 3];
        for (i, dim) in dims.iter_mut().enumerate() {
            if i > 0 && !self.accept(',') {
                break;
            }
            *dim = self.int32("a number of threads")?;
        }
        Ok(dims)
    }

    fn kernel(&mut self) -> Result<RawKernel<'a>, ParseError> {
        let pos = self.pos();
        let name = self.word("the name of the kernel")?;
        let mut params = Vec::new();
        if self.accept('(') && !self.accept(')') {
            loop {
                params.push(self.param()?);
                if !self.accept(',') {
                    break;
                }
            }
            self.punct(')', "`,` or `)`")?;
        }
        let (mut required_block, mut max_block) = (None, None);
        while let Token::Dotted(name) = self.peek() {
            let at = self.pos();
            self.at += 1;
            match name {
                "maxntid" => max_block = Some(self.dims()?),
                "reqntid" => required_block = Some(self.dims()?),
                "minnctapersm" | "maxnctapersm" | "maxnreg" => {
                    self.int32("a number")?;
                }
                "pragma" => self.pragma()?,
                _ => return Err(ParseError::new(at, ParseErrorKind::Directive(name.to_owned()))),
            }
        }
        self.punct('{', "`{`")?;
        let (body, end) = self.body()?;
        Ok(RawKernel { name, pos, params, required_block, max_block, body, end })
    }

    fn param(&mut self) -> Result<RawParam<'a>, ParseError> {
        self.dotted("param", "`.param`")?;
        let mut align = None;
        if self.peek() == Token::Dotted("align") {
            self.at += 1;
            align = Some(self.align()?);
        }
        let ty = self.ty()?;
        // What a pointer points to: `.ptr .global .align 16`. The host's buffers are checked, not these promises.
        if self.peek() == Token::Dotted("ptr") {
            self.at += 1;
            while let Token::Dotted(word) = self.peek() {
                match word {
                    "global" | "shared" | "const" | "local" => self.at += 1,
                    "align" => {
                        self.at += 1;
                        self.align()?;
                    }
                    _ => return self.unexpected("a state space or `.align`"),
                }
            }
        }
        let pos = self.pos();
        let name = self.word("the name of the parameter")?;
        let mut len = 1;
        if self.accept('[') {
            len = self.int("a length")?;
            self.punct(']', "`]`")?;
        }
        Ok(RawParam { name, ty, len, align: align.unwrap_or_else(|| ty.bytes().into()), pos })
    }

    fn align(&mut self) -> Result<u64, ParseError> {
        let pos = self.pos();
        let align = self.int("an alignment in bytes")?;
        if align.is_power_of_two() && align <= 4096 {
            Ok(align)
        } else {
            Err(ParseError::new(pos, ParseErrorKind::Alignment(align)))
        }
    }

    /// After `.shared`: `.align 16 .b8 name[64];`.
    fn shared(&mut self, dynamic: bool) -> Result<RawShared<'a>, ParseError> {
        let mut align = None;
        if self.peek() == Token::Dotted("align") {
            self.at += 1;
            align = Some(self.align()?);
        }
        let ty = self.ty()?;
        let pos = self.pos();
        let name = self.word("the name of the variable")?;
        let mut bytes = Some(u64::from(ty.bytes()));
        while self.accept('[') {
            if self.accept(']') {
                bytes = None;
                break;
            }
            let len = self.int("a length")?;
            bytes = bytes.and_then(|b| b.checked_mul(len));
            if bytes.is_none_or(|b| b > u32::MAX.into()) {
                let kind = ParseErrorKind::TooLarge { what: "a shared array", found: len, limit: u64::from(u32::MAX) };
                return Err(ParseError::new(pos, kind));
            }
            self.punct(']', "`]`")?;
        }
        if dynamic != bytes.is_none() {
            let kind = ParseErrorKind::Expected {
                expected: "a length exactly where the array is not `.extern`",
                found: format!("`{name}`"),
            };
            return Err(ParseError::new(pos, kind));
        }
        self.semicolon()?;
        Ok(RawShared { name, align: align.unwrap_or_else(|| ty.bytes().into()), bytes, pos })
    }

    /// Statements up to the brace that closes the kernel, and the place of that brace.
    fn body(&mut self) -> Result<(Vec<RawStatement<'a>>, Pos), ParseError> {
        let mut out = Vec::new();
        let mut depth = 0_usize;
        loop {
            let pos = self.pos();
            match self.peek() {
                Token::Punct('{') => {
                    self.at += 1;
                    depth += 1;
                    out.push(RawStatement::Open);
                }
                Token::Punct('}') => {
                    self.at += 1;
                    if depth == 0 {
                        return Ok((out, pos));
                    }
                    depth -= 1;
                    out.push(RawStatement::Close);
                }
                Token::Dotted(name) => {
                    self.at += 1;
                    match name {
                        "reg" => self.regs(&mut out)?,
                        "shared" => out.push(RawStatement::Shared(self.shared(false)?)),
                        "pragma" => self.pragma()?,
                        "loc" => self.skip_file(),
                        _ => return Err(ParseError::new(pos, ParseErrorKind::Directive(name.to_owned()))),
                    }
                }
                Token::Word(name) if self.tokens[self.at + 1].0 == Token::Punct(':') => {
                    self.at += 2;
                    out.push(RawStatement::Label(name, pos));
                }
                Token::Word(_) | Token::Punct('@') => out.push(RawStatement::Instr(self.instruction()?)),
                _ => return self.unexpected("an instruction, a label, a directive or `}`"),
            }
        }
    }

    fn regs(&mut self, out: &mut Vec<RawStatement<'a>>) -> Result<(), ParseError> {
        let ty = self.ty()?;
        loop {
            let pos = self.pos();
            let name = self.word("the name of a register")?;
            let mut count = None;
            if self.accept('<') {
                count = Some(self.int32("a number of registers")?);
                self.punct('>', "`>`")?;
            }
            out.push(RawStatement::Reg(RawReg { name, count, ty, pos }));
            if !self.accept(',') {
                return self.semicolon();
            }
        }
    }

    fn instruction(&mut self) -> Result<RawInstr<'a>, ParseError> {
        let mut guard = None;
        if self.accept('@') {
            let negated = self.accept('!');
            guard = Some((self.word("a predicate")?, negated));
        }
        let pos = self.pos();
        let name = self.word("an instruction")?;
        let mut modifiers = Vec::new();
        while let Token::Dotted(modifier) = self.peek() {
            self.at += 1;
            modifiers.push(modifier);
        }
        let mut operands = Vec::new();
        if !self.accept(';') {
            loop {
                operands.push(self.operand(true)?);
                if !self.accept(',') {
                    break;
                }
            }
            self.semicolon()?;
        }
        Ok(RawInstr { guard, name, modifiers, operands, pos })
    }

    /// One operand; `nested` says whether vectors and addresses may stand here, so that depth is bounded.
    fn operand(&mut self, nested: bool) -> Result<RawOperand<'a>, ParseError> {
        match self.peek() {
            Token::Punct('{') if nested => {
                self.at += 1;
                let mut parts = Vec::new();
                loop {
                    parts.push(self.operand(false)?);
                    if !self.accept(',') {
                        break;
                    }
                }
                self.punct('}', "`,` or `}`")?;
                Ok(RawOperand::Vector(parts))
            }
            Token::Punct('[') if nested => {
                self.at += 1;
                let base = self.operand(false)?;
                let mut offset = 0_i64;
                if self.accept('+') {
                    let negative = self.accept('-');
                    let value = self.int("an offset")? as i64;
                    offset = if negative { value.wrapping_neg() } else { value };
                } else if self.accept('-') {
                    offset = (self.int("an offset")? as i64).wrapping_neg();
                }
                self.punct(']', "`]`")?;
                Ok(RawOperand::Address(Box::new(base), offset))
            }
            Token::Punct('!') => {
                self.at += 1;
                Ok(RawOperand::Not(self.word("a predicate")?))
            }
            Token::Punct('-') => {
                self.at += 1;
                match self.peek() {
                    Token::Int(_) | Token::F64(..) => {}
                    _ => return self.unexpected("a number"),
                }
                match self.operand(false)? {
                    RawOperand::Int(value) => Ok(RawOperand::Int(value.wrapping_neg())),
                    RawOperand::F64(value) => Ok(RawOperand::F64(-value)),
                    other => Ok(other),
                }
            }
            Token::Int(value) => {
                self.at += 1;
                Ok(RawOperand::Int(value))
            }
            Token::F32(bits) => {
                self.at += 1;
                Ok(RawOperand::F32(bits))
            }
            Token::F64(value, _) => {
                self.at += 1;
                Ok(RawOperand::F64(value))
            }
            Token::Word(name) => {
                self.at += 1;
                match self.peek() {
                    Token::Dotted(part) => {
                        self.at += 1;
                        Ok(RawOperand::Component(name, part))
                    }
                    Token::Punct('|') => {
                        self.at += 1;
                        Ok(RawOperand::Pair(name, self.word("a predicate")?))
                    }
                    _ => Ok(RawOperand::Name(name)),
                }
            }
            _ => self.unexpected("an operand"),
        }
    }
}
