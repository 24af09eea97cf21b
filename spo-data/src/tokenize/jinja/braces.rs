//! Python's `str.format`.

use super::access;
use super::arithmetic;
use super::call::Args;
use super::error::{Error, Result, fail};
use super::limit;
use super::number::{self, Layout};
use super::print;
use super::value::Value;

/// `format.format(…)`
pub(crate) fn format(format: &str, args: &Args) -> Result<Value> {
    let mut out = String::with_capacity(format.len());
    let mut rest = format.chars().peekable();
    let mut automatic = 0;
    while let Some(character) = rest.next() {
        match character {
            '{' if rest.next_if_eq(&'{').is_some() => out.push('{'),
            '}' if rest.next_if_eq(&'}').is_some() => out.push('}'),
            '}' => return fail("Single '}' encountered in format string"),
            '{' => {
                let mut field = String::new();
                loop {
                    match rest.next() {
                        Some('}') => break,
                        Some('{') => return Err(Error::unsupported("a field within a field of str.format")),
                        Some(other) => field.push(other),
                        None => return fail("expected '}' before end of string"),
                    }
                }
                out += &one(&field, args, &mut automatic)?;
            }
            other => out.push(other),
        }
        limit::check_bytes(out.len())?;
    }
    Ok(out.into())
}

fn one(field: &str, args: &Args, automatic: &mut usize) -> Result<String> {
    let at = field.find(['!', ':']).unwrap_or(field.len());
    let (name, rest) = field.split_at(at);
    let (conversion, spec) = match rest.strip_prefix('!') {
        Some(rest) => match rest.split_once(':') {
            Some((conversion, spec)) => (Some(conversion), spec),
            None => (Some(rest), ""),
        },
        None => (None, rest.strip_prefix(':').unwrap_or("")),
    };
    let value = lookup(name, args, automatic)?;
    let value = match conversion {
        None => value,
        Some("s") => Value::Str(value.print()?),
        Some("r") => print::repr(&value)?.into(),
        Some(other) => return Err(Error::unsupported(format!("the conversion !{other} of str.format"))),
    };
    lay_out(&value, spec)
}

fn lookup(name: &str, args: &Args, automatic: &mut usize) -> Result<Value> {
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut path) = name.split_at(end);
    let index = if first.is_empty() {
        *automatic += 1;
        Some(*automatic - 1)
    } else {
        first.parse().ok()
    };
    let found = match index {
        Some(index) => args.positional.get(index),
        None => args.named.iter().find(|(known, _)| **known == *first).map(|(_, value)| value),
    };
    let mut value = found.cloned().map_or_else(|| fail(format!("str.format has no argument for {{{name}}}")), Ok)?;
    while !path.is_empty() {
        if let Some(rest) = path.strip_prefix('.') {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            value = access::attribute(&value, &rest[..end])?;
            path = &rest[end..];
        } else {
            let rest = path.trim_start_matches('[');
            let Some((key, rest)) = rest.split_once(']') else { return fail("missing ']' in format string") };
            let key = key.parse().map_or_else(|_| Value::from(key), Value::Int);
            value = access::item(&value, &key)?;
            path = rest;
        }
    }
    Ok(value)
}

struct Spec {
    fill: char,
    align: Option<char>,
    sign: char,
    alternate: bool,
    width: usize,
    group: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl Spec {
    fn parse(text: &str) -> Result<Self> {
        let characters: Vec<char> = text.chars().collect();
        let is_align = |at: usize| characters.get(at).is_some_and(|c| "<>=^".contains(*c));
        let (mut fill, mut align, mut at) = match (is_align(1), is_align(0)) {
            (true, _) => (characters[0], Some(characters[1]), 2),
            (false, true) => (' ', Some(characters[0]), 1),
            _ => (' ', None, 0),
        };
        let mut take = |allowed: &str| {
            let found = characters.get(at).copied().filter(|c| allowed.contains(*c));
            at += usize::from(found.is_some());
            found
        };
        let sign = take("+- ").unwrap_or('-');
        let alternate = take("#").is_some();
        if take("0").is_some() && align.is_none() {
            (fill, align) = ('0', Some('='));
        }
        let number = |take: &mut dyn FnMut(&str) -> Option<char>| {
            let digits: String = std::iter::from_fn(|| take("0123456789")).collect();
            if digits.is_empty() { Ok(None) } else { limit::width(digits.parse().unwrap_or(i128::MAX)).map(Some) }
        };
        let width = number(&mut take)?.unwrap_or(0);
        let group = take(",_");
        let precision = if take(".").is_some() { number(&mut take)? } else { None };
        let kind = characters.get(at).copied();
        if at + usize::from(kind.is_some()) < characters.len() {
            return fail(format!("invalid format specifier '{text}'"));
        }
        Ok(Self { fill, align, sign, alternate, width, group, precision, kind })
    }

    fn pad(&self, prefix: &str, text: &str, align: char) -> String {
        let missing = self.width.saturating_sub(prefix.chars().count() + text.chars().count());
        let fill = |count: usize| self.fill.to_string().repeat(count);
        match self.align.unwrap_or(align) {
            '<' => format!("{prefix}{text}{}", fill(missing)),
            '^' => format!("{}{prefix}{text}{}", fill(missing / 2), fill(missing - missing / 2)),
            '=' => format!("{prefix}{}{text}", fill(missing)),
            _ => format!("{}{prefix}{text}", fill(missing)),
        }
    }

    fn sign(&self, negative: bool) -> &'static str {
        match self.sign {
            _ if negative => "-",
            '+' => "+",
            ' ' => " ",
            _ => "",
        }
    }
}

/// `format(value, spec)`
fn lay_out(value: &Value, text: &str) -> Result<String> {
    if text.is_empty() {
        return value.print().map(|text| text.to_string());
    }
    let spec = Spec::parse(text)?;
    match value {
        Value::Str(text) => {
            let odd = spec.sign != '-' || spec.alternate || spec.group.is_some() || spec.align == Some('=');
            if odd || spec.kind.is_some_and(|kind| kind != 's') {
                return fail("this format does not go with a string");
            }
            let cut: String = text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
            Ok(spec.pad("", &cut, '<'))
        }
        Value::Int(number) => int(*number, &spec),
        Value::Bool(flag) => int((*flag).into(), &spec),
        Value::Float(number) => float(*number, &spec),
        other => fail(format!("unsupported format string passed to {}.__format__", other.type_name())),
    }
}

fn int(number: i128, spec: &Spec) -> Result<String> {
    let kind = spec.kind.unwrap_or('d');
    if "eEfFgG%".contains(kind) {
        return match arithmetic::float(&Value::Int(number)) {
            Some(number) if number.abs() < 9e15 => float(number, spec),
            _ => Err(Error::unsupported("a large integer with a format of floats")),
        };
    }
    if !"dxXob".contains(kind) || spec.precision.is_some() {
        return fail(format!("the format '{kind}' does not go with an integer"));
    }
    let mut digits = number::int(number, kind);
    if let Some(group) = spec.group {
        check_group(spec)?;
        digits = number::grouped(&digits, group, if kind == 'd' { 3 } else { 4 });
    }
    let base = if spec.alternate && kind != 'd' { format!("0{kind}") } else { String::new() };
    Ok(spec.pad(&(spec.sign(number < 0).to_string() + &base), &digits, '>'))
}

/// Zeros that fill a width are grouped as well.
fn check_group(spec: &Spec) -> Result<()> {
    if spec.align == Some('=') && spec.fill == '0' {
        return Err(Error::unsupported("grouped digits filled with zeros"));
    }
    Ok(())
}

fn float(number: f64, spec: &Spec) -> Result<String> {
    let layout = Layout { precision: spec.precision, alternate: spec.alternate };
    let mut digits = match spec.kind {
        None if spec.precision.is_none() => print::float(number.abs()),
        None => return Err(Error::unsupported("the precision of a float without the letter of its format")),
        Some('%') => number::float(number * 100.0, 'f', layout)? + "%",
        Some(kind @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G')) => number::float(number, kind, layout)?,
        Some(kind) => return fail(format!("the format '{kind}' does not go with a float")),
    };
    if let Some(group) = spec.group {
        check_group(spec)?;
        digits = number::grouped(&digits, group, 3);
    }
    Ok(spec.pad(spec.sign(number.is_sign_negative() && !number.is_nan()), &digits, '>'))
}
