//! Python's `%` on strings.

use super::arithmetic;
use super::error::{Error, Result, fail};
use super::limit;
use super::number::{self, Layout};
use super::print;
use super::value::Value;

#[derive(Default)]
struct Spec {
    left: bool,
    plus: bool,
    space: bool,
    zero: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
}

struct Values<'a> {
    of: &'a Value,
    next: usize,
    mapped: bool,
}

impl Values<'_> {
    fn take(&mut self) -> Result<Value> {
        let items = match self.of {
            Value::Tuple(seq) => &seq.items[..],
            other => std::slice::from_ref(other),
        };
        let value = items.get(self.next).cloned();
        self.next += 1;
        value.map_or_else(|| fail("not enough arguments for format string"), Ok)
    }

    fn all_used(&self) -> bool {
        match self.of {
            Value::Tuple(seq) => self.next >= seq.items.len(),
            // Python lets a dict, a list or whatever else has items go unused; a string or a number it does not.
            Value::Dict(_) | Value::List(_) | Value::Range(..) | Value::Undefined(_) => true,
            _ => self.next >= 1 || self.mapped,
        }
    }
}

/// `format % of`
pub(crate) fn format(format: &str, of: &Value) -> Result<String> {
    let mut values = Values { of, next: 0, mapped: false };
    let mut out = String::with_capacity(format.len());
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out += &rest[..at];
        rest = &rest[at + 1..];
        directive(&mut rest, &mut values, &mut out)?;
        limit::check_bytes(out.len())?;
    }
    out += rest;
    if !values.all_used() {
        return fail("not all arguments converted during string formatting");
    }
    Ok(out)
}

fn directive(rest: &mut &str, values: &mut Values, out: &mut String) -> Result<()> {
    let mut key = None;
    if let Some(after) = rest.strip_prefix('(') {
        // Parentheses may be nested within a key.
        let mut open = 1;
        let end = after.char_indices().find(|(_, c)| {
            open += i32::from(*c == '(') - i32::from(*c == ')');
            open == 0
        });
        let Some((end, _)) = end else { return fail("incomplete format key") };
        key = Some(&after[..end]);
        *rest = &after[end + 1..];
    }
    let mut spec = Spec::default();
    while let Some(flag) = rest.chars().next().filter(|c| "-+ 0#".contains(*c)) {
        match flag {
            '-' => spec.left = true,
            '+' => spec.plus = true,
            ' ' => spec.space = true,
            '0' => spec.zero = true,
            _ => spec.alternate = true,
        }
        *rest = &rest[1..];
    }
    if let Some(width) = size(rest, values)? {
        spec.left |= width < 0;
        spec.width = limit::width(width.saturating_abs())?;
    }
    if let Some(after) = rest.strip_prefix('.') {
        *rest = after;
        spec.precision = Some(limit::width(size(rest, values)?.unwrap_or(0))?);
    }
    *rest = rest.trim_start_matches(['h', 'l', 'L']);
    let Some(kind) = rest.chars().next() else { return fail("incomplete format") };
    *rest = &rest[kind.len_utf8()..];
    if kind == '%' {
        out.push('%');
        return Ok(());
    }
    let value = match key {
        Some(key) => {
            values.mapped = true;
            let Value::Dict(dict) = values.of else { return fail("format requires a mapping") };
            dict.get_str(key).cloned().map_or_else(|| fail(format!("KeyError: {}", print::quoted(key))), Ok)?
        }
        None => values.take()?,
    };
    *out += &spec.lay_out(kind, &value)?;
    Ok(())
}

/// A number, or `*` for one among the values.
fn size(rest: &mut &str, values: &mut Values) -> Result<Option<i128>> {
    if let Some(after) = rest.strip_prefix('*') {
        *rest = after;
        return match values.take()?.int() {
            Some(size) => Ok(Some(size)),
            None => fail("* wants int"),
        };
    }
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, after) = rest.split_at(digits);
    *rest = after;
    if number.is_empty() { Ok(None) } else { Ok(Some(number.parse().unwrap_or(i128::MAX))) }
}

impl Spec {
    fn lay_out(&self, kind: char, value: &Value) -> Result<String> {
        let cut = |text: &str| match self.precision {
            Some(length) => text.chars().take(length).collect(),
            None => text.to_string(),
        };
        match kind {
            's' => Ok(self.pad("", &cut(&value.print()?), false)),
            'r' => Ok(self.pad("", &cut(&print::repr(value)?), false)),
            'a' => {
                let printed = print::repr(value)?;
                let ascii: String =
                    printed.chars().map(|c| if c.is_ascii() { c.to_string() } else { print::escaped(c) }).collect();
                Ok(self.pad("", &cut(&ascii), false))
            }
            'c' => match value {
                Value::Str(text) if text.chars().count() == 1 => Ok(self.pad("", text, false)),
                _ => match value.int().and_then(|code| u32::try_from(code).ok()).and_then(char::from_u32) {
                    Some(character) => Ok(self.pad("", &character.to_string(), false)),
                    None => fail("%c requires int or char"),
                },
            },
            'd' | 'i' | 'u' => match value {
                Value::Float(number) if number.abs() < 1e38 => Ok(self.int(*number as i128, 'd')),
                _ => self.integer(value, kind),
            },
            'x' | 'X' | 'o' => self.integer(value, kind),
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                let Some(number) = arithmetic::float(value) else {
                    return match value {
                        Value::Undefined(message) => fail(&**message),
                        _ => fail(format!("must be real number, not {}", value.type_name())),
                    };
                };
                let layout = Layout { precision: self.precision, alternate: self.alternate };
                let digits = number::float(number, kind, layout)?;
                Ok(self.pad(self.sign(number.is_sign_negative() && !number.is_nan()), &digits, self.zero))
            }
            other => fail(format!("unsupported format character {other:?}")),
        }
    }

    fn integer(&self, value: &Value, kind: char) -> Result<String> {
        match value {
            Value::Undefined(message) => fail(&**message),
            _ => match value.int() {
                Some(number) => Ok(self.int(number, kind)),
                None if matches!(value, Value::Float(_)) && kind == 'd' => {
                    Err(Error::unsupported("%d of a large float"))
                }
                None => fail(format!("%{kind} format: a number is required, not {}", value.type_name())),
            },
        }
    }

    fn int(&self, number: i128, kind: char) -> String {
        let digits = number::int(number, kind);
        let digits = format!("{digits:0>width$}", width = self.precision.unwrap_or(0));
        let prefix = match kind {
            'x' | 'X' | 'o' if self.alternate => format!("0{kind}"),
            _ => String::new(),
        };
        self.pad(&(self.sign(number < 0).to_string() + &prefix), &digits, self.zero)
    }

    fn sign(&self, negative: bool) -> &'static str {
        match () {
            () if negative => "-",
            () if self.plus => "+",
            () if self.space => " ",
            () => "",
        }
    }

    fn pad(&self, prefix: &str, text: &str, zeros: bool) -> String {
        let missing = self.width.saturating_sub(prefix.len() + text.chars().count());
        match () {
            () if self.left => format!("{prefix}{text}{}", " ".repeat(missing)),
            () if zeros => format!("{prefix}{}{text}", "0".repeat(missing)),
            () => format!("{}{prefix}{text}", " ".repeat(missing)),
        }
    }
}
