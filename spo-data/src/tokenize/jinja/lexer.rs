//! From the text of a template to tokens, with Jinja's rules of white space: `trim_blocks` and `lstrip_blocks` are on.

use super::error::{Error, Result};
use super::text::is_space;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Text(String),
    BlockBegin,
    BlockEnd,
    PrintBegin,
    PrintEnd,
    Name(String),
    Str(String),
    Int(i128),
    Float(f64),
    Op(&'static str),
    End,
}

#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) token: Token,
    pub(crate) line: u32,
}

/// Longest first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    tokens: Vec<Placed>,
    line: u32,
    /// Whether the text before `at` ends a line, or is empty.
    line_starts: bool,
}

pub(crate) fn tokenize(source: &str) -> Result<Vec<Placed>> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer = Lexer { source: &source, at: 0, tokens: Vec::new(), line: 1, line_starts: true };
    lexer.template()?;
    lexer.push(Token::End);
    Ok(lexer.tokens)
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn push(&mut self, token: Token) {
        self.tokens.push(Placed { token, line: self.line });
    }

    /// Goes on by `bytes`, counting lines.
    fn advance(&mut self, bytes: usize) {
        let passed = &self.source[self.at..self.at + bytes];
        self.line += passed.bytes().filter(|byte| *byte == b'\n').count() as u32;
        self.line_starts = passed.ends_with('\n');
        self.at += bytes;
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.advance(rest.len() - rest.trim_start_matches(is_space).len());
    }

    fn template(&mut self) -> Result<()> {
        while self.at < self.source.len() {
            let rest = self.rest();
            let opening =
                rest.match_indices('{').find(|(at, _)| matches!(rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')));
            let Some((length, _)) = opening else {
                self.push(Token::Text(rest.to_string()));
                self.advance(rest.len());
                break;
            };
            let kind = rest.as_bytes()[length + 1];
            let sign = rest.as_bytes().get(length + 2).copied().filter(|sign| matches!(sign, b'-' | b'+'));
            self.text(length, sign, kind == b'{');
            self.advance(2 + usize::from(sign.is_some()));
            match kind {
                b'#' => self.comment()?,
                b'{' => self.inside(Token::PrintBegin)?,
                _ if self.raw()? => {}
                _ => self.inside(Token::BlockBegin)?,
            }
        }
        Ok(())
    }

    /// The text before a tag, without the white space that the tag takes away.
    fn text(&mut self, length: usize, sign: Option<u8>, print: bool) {
        let text = &self.rest()[..length];
        let kept = match sign {
            Some(b'-') => text.trim_end_matches(is_space),
            None if !print => {
                let line = text.rfind('\n').map_or(0, |at| at + 1);
                let blank = line < text.len() && text[line..].chars().all(is_space);
                if blank && (line > 0 || self.line_starts) { &text[..line] } else { text }
            }
            _ => text,
        };
        if !kept.is_empty() {
            self.push(Token::Text(kept.to_string()));
        }
        self.advance(length);
    }

    /// Passes the end of a tag: `-` takes all white space after it, a block or comment without a sign one line break.
    fn close(&mut self, end: &str, trim: bool) {
        let rest = self.rest();
        let signed = rest.starts_with('-') || (trim && rest.starts_with('+'));
        if signed && rest[1..].starts_with(end) {
            self.advance(1 + end.len());
            if rest.starts_with('-') {
                self.skip_space();
            }
        } else if rest.starts_with(end) {
            self.advance(end.len());
            if trim && self.rest().starts_with('\n') {
                self.advance(1);
            }
        }
    }

    fn comment(&mut self) -> Result<()> {
        let line = self.line;
        let Some(end) = self.rest().find("#}") else {
            return Err(Error::at(line, "missing end of comment tag"));
        };
        let signed = end > 0 && matches!(self.rest().as_bytes()[end - 1], b'-' | b'+');
        self.advance(end - usize::from(signed));
        self.close("#}", true);
        Ok(())
    }

    /// A `raw` block, if here is one: its text is not looked at.
    fn raw(&mut self) -> Result<bool> {
        let rest = self.rest();
        let Some(after) = rest.trim_start_matches(is_space).strip_prefix("raw") else {
            return Ok(false);
        };
        let after = after.trim_start_matches(is_space);
        let minus = after.starts_with("-%}");
        if !minus && !after.starts_with("%}") {
            return Ok(false);
        }
        let line = self.line;
        self.advance(rest.len() - after.len() + 2 + usize::from(minus));
        if minus {
            self.skip_space();
        }
        let rest = self.rest();
        for (at, _) in rest.match_indices("{%") {
            let sign = rest.as_bytes().get(at + 2).copied().filter(|sign| matches!(sign, b'-' | b'+'));
            let name = rest[at + 2 + usize::from(sign.is_some())..].trim_start_matches(is_space);
            let Some(after) = name.strip_prefix("endraw") else { continue };
            let after = after.trim_start_matches(is_space);
            if ["%}", "-%}", "+%}"].iter().any(|end| after.starts_with(end)) {
                self.text(at, sign, false);
                self.advance(rest.len() - at - after.len());
                self.close("%}", true);
                return Ok(true);
            }
        }
        Err(Error::at(line, "missing end of raw directive"))
    }

    /// The tokens of a tag up to its end.
    fn inside(&mut self, begin: Token) -> Result<()> {
        let print = begin == Token::PrintBegin;
        self.push(begin);
        let mut open = Vec::new();
        loop {
            if open.is_empty() && self.tag_ends(print) {
                self.push(if print { Token::PrintEnd } else { Token::BlockEnd });
                self.close(if print { "}}" } else { "%}" }, !print);
                return Ok(());
            }
            let Some(character) = self.rest().chars().next() else {
                return Ok(()); // the parser names what is missing
            };
            if is_space(character) {
                self.skip_space();
            } else {
                self.token(character, &mut open)?;
            }
        }
    }

    fn tag_ends(&self, print: bool) -> bool {
        let ends: &[&str] = if print { &["}}", "-}}"] } else { &["%}", "-%}", "+%}"] };
        ends.iter().any(|end| self.rest().starts_with(end))
    }

    fn token(&mut self, character: char, open: &mut Vec<&'static str>) -> Result<()> {
        let rest = self.rest();
        if let Some((length, token)) = self.number()? {
            self.push(token);
            self.advance(length);
        } else if character.is_alphanumeric() || character == '_' {
            let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            if !character.is_ascii_alphabetic() && character != '_' || !rest[..length].is_ascii() {
                return Err(Error::at(self.line, format!("invalid character in identifier {:?}", &rest[..length])));
            }
            self.push(Token::Name(rest[..length].to_string()));
            self.advance(length);
        } else if matches!(character, '"' | '\'') {
            let length = string_length(rest).ok_or_else(|| Error::at(self.line, "a string does not end"))?;
            let text = unescape(&rest[1..length - 1]).map_err(|error| error.on_line(self.line))?;
            self.push(Token::Str(text));
            self.advance(length);
        } else {
            let operator = OPERATORS.into_iter().find(|operator| rest.starts_with(operator));
            let operator =
                operator.ok_or_else(|| Error::at(self.line, format!("unexpected character {character:?}")))?;
            match operator {
                "(" => open.push(")"),
                "[" => open.push("]"),
                "{" => open.push("}"),
                ")" | "]" | "}" if open.pop() != Some(operator) => {
                    return Err(Error::at(self.line, format!("unexpected '{operator}'")));
                }
                _ => {}
            }
            self.push(Token::Op(operator));
            self.advance(operator.len());
        }
        Ok(())
    }

    /// A number with its length: `1_000`, `0xff`, `1.5e-3`.
    fn number(&self) -> Result<Option<(usize, Token)>> {
        let rest = self.rest();
        if !rest.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(None);
        }
        let whole = digits(rest, 10);
        let after_dot = self.at > 0 && self.source.as_bytes()[self.at - 1] == b'.';
        if !after_dot && let Some(length) = float_length(rest, whole) {
            let text = rest[..length].replace('_', "");
            let value = text.parse().map_err(|_| Error::at(self.line, format!("bad number {text}")))?;
            return Ok(Some((length, Token::Float(value))));
        }
        let (length, radix) = match rest.as_bytes() {
            [b'0', b'x' | b'X', ..] => (2 + digits_after_prefix(rest, 16), 16),
            [b'0', b'o' | b'O', ..] => (2 + digits_after_prefix(rest, 8), 8),
            [b'0', b'b' | b'B', ..] => (2 + digits_after_prefix(rest, 2), 2),
            [b'0', ..] => (rest[..whole].find(|c| c != '0' && c != '_').unwrap_or(whole), 10),
            _ => (whole, 10),
        };
        let (length, radix) = if radix != 10 && length == 2 { (1, 10) } else { (length, radix) };
        let text = rest[if radix == 10 { 0 } else { 2 }..length].replace('_', "");
        let value = i128::from_str_radix(&text, radix);
        let value = value.map_err(|_| Error::unsupported(format!("the integer {text}")).on_line(self.line))?;
        Ok(Some((length, Token::Int(value))))
    }
}

/// Digits with single underscores between them.
fn digits(text: &str, radix: u32) -> usize {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(|byte| (*byte as char).is_digit(radix));
    let mut length = 0;
    while digit(length) || (length > 0 && bytes.get(length) == Some(&b'_') && digit(length + 1)) {
        length += 1;
    }
    length
}

fn digits_after_prefix(text: &str, radix: u32) -> usize {
    let text = &text[2..];
    match text.strip_prefix('_') {
        Some(after) => match digits(after, radix) {
            0 => 0,
            length => 1 + length,
        },
        None => digits(text, radix),
    }
}

fn float_length(rest: &str, whole: usize) -> Option<usize> {
    let fraction = rest[whole..].strip_prefix('.').map_or(0, |after| digits(after, 10));
    let mantissa = if fraction > 0 { whole + 1 + fraction } else { whole };
    let exponent = rest[mantissa..].strip_prefix(['e', 'E']).map_or(0, |after| {
        let sign = usize::from(after.starts_with(['+', '-']));
        match digits(&after[sign..], 10) {
            0 => 0,
            length => 1 + sign + length,
        }
    });
    (fraction > 0 || exponent > 0).then_some(mantissa + exponent)
}

/// Bytes of a string with its quotes.
fn string_length(rest: &str) -> Option<usize> {
    let quote = rest.chars().next()?;
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Python's escapes in a string.
fn unescape(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        let escape = rest.next().ok_or_else(|| Error::new("a string ends with a backslash"))?;
        match escape {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(escape),
            'a' => out.push('\x07'),
            'b' => out.push('\x08'),
            'f' => out.push('\x0c'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\x0b'),
            '0'..='7' => {
                let mut code = escape.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let Some(digit) = rest.as_str().chars().next().and_then(|c| c.to_digit(8)) else { break };
                    code = code * 8 + digit;
                    rest.next();
                }
                out.push(code_point(code)?);
            }
            'x' => out.push(hexadecimal(&mut rest, 2)?),
            'u' => out.push(hexadecimal(&mut rest, 4)?),
            'U' => out.push(hexadecimal(&mut rest, 8)?),
            'N' => return Err(Error::unsupported("a character by name (\\N{…})")),
            other if other.is_ascii() => out.extend(['\\', other]),
            other => return Err(Error::unsupported(format!("a backslash before {other:?}"))),
        }
    }
    Ok(out)
}

fn hexadecimal(rest: &mut std::str::Chars, length: usize) -> Result<char> {
    let mut code = 0;
    for _ in 0..length {
        let digit =
            rest.next().and_then(|c| c.to_digit(16)).ok_or_else(|| Error::new("truncated escape in a string"))?;
        code = code * 16 + digit;
    }
    code_point(code)
}

fn code_point(code: u32) -> Result<char> {
    char::from_u32(code).ok_or_else(|| Error::unsupported(format!("the character U+{code:X} in a string")))
}
