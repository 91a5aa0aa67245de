//! The lexer: words, dotted modifiers, numbers, strings and punctuation, each with its place.

use super::error::{ParseError, ParseErrorKind};
use super::raw::Pos;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    /// An identifier; `%` and `$` may start one.
    Word(&'a str),
    /// `.name`, without the dot; `L2::256B` is one.
    Dotted(&'a str),
    Int(u64),
    F32(u32),
    /// The value and the text, which `.version` needs.
    F64(f64, &'a str),
    Str(&'a str),
    Punct(char),
    End,
}

impl Token<'_> {
    pub(super) fn describe(self) -> String {
        match self {
            Token::Word(w) => format!("`{w}`"),
            Token::Dotted(w) => format!("`.{w}`"),
            Token::Int(v) => format!("the number {v}"),
            Token::F32(bits) => format!("the float 0f{bits:08X}"),
            Token::F64(_, text) => format!("the number {text}"),
            Token::Str(s) => format!("the string {s:?}"),
            Token::Punct(c) => format!("`{c}`"),
            Token::End => "the end of the text".to_owned(),
        }
    }
}

pub(super) struct Lexer<'a> {
    rest: &'a str,
    pos: Pos,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, pos: Pos { line: 1, column: 1 } }
    }

    /// All tokens of the text; the last one is [`Token::End`].
    pub(super) fn tokens(mut self) -> Result<Vec<(Token<'a>, Pos)>, ParseError> {
        let mut out = Vec::with_capacity(self.rest.len() / 4);
        loop {
            self.skip_blank()?;
            let pos = self.pos;
            let token = self.token()?;
            out.push((token, pos));
            if token == Token::End {
                return Ok(out);
            }
        }
    }

    /// Takes `bytes` of the text and keeps count of the place. `bytes` must end at a character border.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        for c in taken.chars() {
            if c == '\n' {
                self.pos = Pos { line: self.pos.line.saturating_add(1), column: 1 };
            } else {
                self.pos.column = self.pos.column.saturating_add(1);
            }
        }
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !accept(c)).unwrap_or(self.rest.len());
        self.take(end)
    }

    fn error(&self, kind: ParseErrorKind) -> ParseError {
        ParseError::new(self.pos, kind)
    }

    fn skip_blank(&mut self) -> Result<(), ParseError> {
        loop {
            self.take_while(char::is_whitespace);
            if self.rest.starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if self.rest.starts_with("/*") {
                let end = self.rest.find("*/").ok_or_else(|| self.error(ParseErrorKind::Unterminated("comment")))?;
                self.take(end + 2);
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<Token<'a>, ParseError> {
        let Some(first) = self.rest.chars().next() else { return Ok(Token::End) };
        if first.is_ascii_digit() {
            return self.number();
        }
        if first.is_ascii_alphabetic() || matches!(first, '_' | '$' | '%') {
            let end = self.rest[1..].find(|c| !is_word(c)).map_or(self.rest.len(), |i| i + 1);
            return Ok(Token::Word(self.take(end)));
        }
        match first {
            '.' => {
                self.take(1);
                let mut end = 0;
                // `::` joins the parts of one modifier: `L1::no_allocate`.
                loop {
                    let tail = &self.rest[end..];
                    end += tail.find(|c| !is_word(c)).unwrap_or(tail.len());
                    if end == 0 || !self.rest[end..].starts_with("::") {
                        break;
                    }
                    end += 2;
                }
                if end == 0 {
                    return Err(self.error(ParseErrorKind::Expected {
                        expected: "a name after `.`",
                        found: self.rest.chars().next().map_or("the end of the text".to_owned(), |c| format!("{c:?}")),
                    }));
                }
                Ok(Token::Dotted(self.take(end)))
            }
            '"' => {
                let end = self.rest[1..].find('"').ok_or_else(|| self.error(ParseErrorKind::Unterminated("string")))?;
                let text = self.take(end + 2);
                Ok(Token::Str(&text[1..=end]))
            }
            ',' | ';' | ':' | '{' | '}' | '[' | ']' | '(' | ')' | '<' | '>' | '+' | '-' | '@' | '!' | '|' | '=' => {
                self.take(1);
                Ok(Token::Punct(first))
            }
            _ => Err(self.error(ParseErrorKind::Character(first))),
        }
    }

    fn number(&mut self) -> Result<Token<'a>, ParseError> {
        let pos = self.pos;
        let word = self.take_while(is_word);
        let bad = |text: &str| ParseError::new(pos, ParseErrorKind::Number(text.to_owned()));
        let lower = word.to_ascii_lowercase();
        if let Some(hex) = lower.strip_prefix("0f") {
            return match (hex.len(), u32::from_str_radix(hex, 16)) {
                (8, Ok(bits)) => Ok(Token::F32(bits)),
                _ => Err(bad(word)),
            };
        }
        if let Some(hex) = lower.strip_prefix("0d") {
            return match (hex.len(), u64::from_str_radix(hex, 16)) {
                (16, Ok(bits)) => Ok(Token::F64(f64::from_bits(bits), word)),
                _ => Err(bad(word)),
            };
        }
        let digits = lower.strip_suffix('u').unwrap_or(&lower);
        for (prefix, radix) in [("0x", 16), ("0b", 2)] {
            if let Some(digits) = digits.strip_prefix(prefix) {
                return u64::from_str_radix(digits, radix).map(Token::Int).map_err(|_| bad(word));
            }
        }
        // A decimal point makes a double, unless what follows is a name (`0.x` occurs nowhere in PTX).
        if self.rest.starts_with('.') && self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            self.take(1);
            let fraction = self.take_while(is_word);
            let text = format!("{word}.{fraction}");
            let value: f64 = text.parse().map_err(|_| bad(&text))?;
            // The text is needed for `.version` alone, where the fraction says it all.
            return Ok(Token::F64(value, fraction));
        }
        let (digits, radix) = match digits.strip_prefix('0') {
            Some(octal) if !octal.is_empty() => (octal, 8),
            _ => (digits, 10),
        };
        u64::from_str_radix(digits, radix).map(Token::Int).map_err(|_| bad(word))
    }
}
