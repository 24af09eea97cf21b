//! `tojson` as transformers sets it up: Python's `json.dumps(…, ensure_ascii=False)`.

use super::call::{Args, flag};
use super::compare;
use super::error::{Error, Result, fail};
use super::limit;
use super::print;
use super::value::Value;

struct Style {
    ascii: bool,
    /// What one level is indented with.
    indent: Option<String>,
    between_items: String,
    after_key: String,
    sorted: bool,
}

/// The filter with its arguments.
pub(crate) fn filter(value: &Value, args: Args) -> Result<Value> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sorted] = args.bind("tojson", names)?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => {
            limit::indent(text.len() as i128)?;
            Some(text.to_string())
        }
        Some(other) => match other.int() {
            Some(width) => Some(" ".repeat(limit::indent(width)?)),
            None => {
                return fail(format!("tojson's indent must be an integer or a string, not '{}'", other.type_name()));
            }
        },
    };
    let (between_items, after_key) = match separators {
        None | Some(Value::None) => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
        Some(pair) => match &pair.items()?[..] {
            [Value::Str(first), Value::Str(second)] => (first.to_string(), second.to_string()),
            _ => return fail("tojson's separators must be two strings"),
        },
    };
    let (ascii, sorted) = (flag(ascii, false)?, flag(sorted, false)?);
    let style = Style { ascii, indent, between_items, after_key, sorted };
    let mut out = String::new();
    style.write(value, 0, &mut out)?;
    Ok(out.into())
}

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<()> {
        limit::check_bytes(out.len())?;
        match value {
            Value::None => out.push_str("null"),
            Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Value::Int(number) => out.push_str(&number.to_string()),
            Value::Float(number) => out.push_str(&float(*number)),
            Value::Str(text) | Value::Markup(text) => self.string(text, out),
            Value::List(seq) | Value::Tuple(seq) if seq.items.is_empty() => out.push_str("[]"),
            Value::List(seq) | Value::Tuple(seq) => {
                out.push('[');
                for (index, item) in seq.items.iter().enumerate() {
                    self.separate(index, depth + 1, out);
                    self.write(item, depth + 1, out)?;
                }
                self.new_line(depth, out);
                out.push(']');
            }
            Value::Dict(dict) if dict.entries.is_empty() => out.push_str("{}"),
            Value::Dict(dict) => {
                let mut entries: Vec<&(Value, Value)> = dict.entries.values().collect();
                if self.sorted {
                    compare::sort(&mut entries, &|left, right| {
                        Ok(compare::order(&left.0, &right.0, "<")? == Some(std::cmp::Ordering::Less))
                    })?;
                }
                out.push('{');
                for (index, (key, item)) in entries.into_iter().enumerate() {
                    self.separate(index, depth + 1, out);
                    self.string(&key_text(key)?, out);
                    out.push_str(&self.after_key);
                    self.write(item, depth + 1, out)?;
                }
                self.new_line(depth, out);
                out.push('}');
            }
            other => return fail(format!("Object of type {} is not JSON serializable", other.type_name())),
        }
        Ok(())
    }

    fn separate(&self, index: usize, depth: usize, out: &mut String) {
        if index > 0 {
            out.push_str(&self.between_items);
        }
        self.new_line(depth, out);
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x08' => out.push_str("\\b"),
                '\x0c' => out.push_str("\\f"),
                '\0'..='\x1f' => out.push_str(&format!("\\u{:04x}", character as u32)),
                '\x7f'.. if self.ascii => {
                    let mut units = [0; 2];
                    let units = character.encode_utf16(&mut units);
                    units.iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
                }
                other => out.push(other),
            }
        }
        out.push('"');
    }
}

fn float(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        _ => print::float(number),
    }
}

fn key_text(key: &Value) -> Result<String> {
    Ok(match key {
        Value::Str(text) | Value::Markup(text) => text.to_string(),
        Value::None => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => float(*number),
        other => {
            return Err(Error::new(format!("keys must be str, int, float, bool or None, not {}", other.type_name())));
        }
    })
}
