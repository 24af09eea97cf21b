//! Filters of texts.

use crate::tokenize::jinja::call::{Args, flag, int, optional_int, required};
use crate::tokenize::jinja::error::{Result, fail};
use crate::tokenize::jinja::limit;
use crate::tokenize::jinja::percent;
use crate::tokenize::jinja::string::{justified, replace, strip};
use crate::tokenize::jinja::text::{capitalized, is_space, lines};
use crate::tokenize::jinja::value::Value;

/// Applies a filter that works on what the value prints; `None` for others.
pub(super) fn call(name: &str, value: &Value, args: &Args) -> Option<Result<Value>> {
    let filter: fn(&Value, Args) -> Result<Value> = match name {
        "upper" => |value, args| plain("upper", value, args, |text| Ok(text.to_uppercase())),
        "lower" => |value, args| plain("lower", value, args, |text| Ok(text.to_lowercase())),
        "capitalize" => |value, args| plain("capitalize", value, args, capitalized),
        "title" => |value, args| plain("title", value, args, titled),
        "trim" => trim,
        "replace" => replaced,
        "indent" => indent,
        "center" => center,
        "format" => format,
        "wordcount" => wordcount,
        "truncate" => truncate,
        _ => return None,
    };
    let args = Args { positional: args.positional.clone(), named: args.named.clone() };
    Some(filter(value, args))
}

fn plain(name: &str, value: &Value, args: Args, change: impl Fn(&str) -> Result<String>) -> Result<Value> {
    let [] = args.positional(name)?;
    change(&value.print()?).map(Value::from)
}

/// Words begin after white space, hyphens and opening brackets.
fn titled(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let begins = |c: char| is_space(c) || "-({[<".contains(c);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let separator = begins(first);
        let end = rest.find(|c| begins(c) != separator).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        out.extend(first.to_uppercase());
        out += &word[first.len_utf8()..].to_lowercase();
        rest = after;
    }
    Ok(out)
}

fn trim(value: &Value, args: Args) -> Result<Value> {
    let [characters] = args.bind("trim", ["chars"])?;
    Ok(strip(&value.print()?, "strip", characters)?.into())
}

fn replaced(value: &Value, args: Args) -> Result<Value> {
    let [old, new, count] = args.bind("replace", ["old", "new", "count"])?;
    let (old, new) = (required(old, "replace", "old")?, required(new, "replace", "new")?);
    replace(&value.print()?, &old.print()?, &new.print()?, optional_int(count, "replace")?)
}

fn indent(value: &Value, args: Args) -> Result<Value> {
    let [width, first, blank] = args.bind("indent", ["width", "first", "blank"])?;
    let Some(text) = value.text() else {
        return match value {
            Value::Undefined(message) => fail(&**message),
            _ => fail(format!("indent needs a string, not '{}'", value.type_name())),
        };
    };
    let with = match width {
        Some(Value::Str(with)) => {
            limit::indent(with.len() as i128)?;
            with.to_string()
        }
        Some(width) => " ".repeat(limit::indent(int(&width, "indent")?)?),
        None => " ".repeat(4),
    };
    let (first, blank) = (flag(first, false)?, flag(blank, false)?);
    // Jinja appends a line break, so that a last empty line counts.
    let text = format!("{text}\n");
    let mut out = String::new();
    for (index, line) in lines(&text, false).into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let indented = if index == 0 { first } else { blank || !line.is_empty() };
        if indented {
            out += &with;
        }
        out += line;
    }
    limit::check_bytes(out.len())?;
    Ok(out.into())
}

fn center(value: &Value, args: Args) -> Result<Value> {
    let [width] = args.bind("center", ["width"])?;
    let width = width.unwrap_or(Value::Int(80));
    justified(&value.print()?, "center", Some(width), None).map(Value::from)
}

/// Printf-style formatting: values by place or by name.
fn format(value: &Value, args: Args) -> Result<Value> {
    if !args.positional.is_empty() && !args.named.is_empty() {
        return fail("can't handle positional and keyword arguments at the same time");
    }
    let values = if args.named.is_empty() {
        Value::tuple(args.positional)?
    } else {
        Value::dict(args.named.into_iter().map(|(name, value)| (Value::Str(name), value)))?
    };
    percent::format(&value.print()?, &values).map(Value::from)
}

fn wordcount(value: &Value, args: Args) -> Result<Value> {
    let [] = args.positional("wordcount")?;
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let text = value.print()?;
    if !text.is_ascii() {
        return Err(crate::tokenize::jinja::error::Error::unsupported("'wordcount' of text beyond ASCII"));
    }
    Ok(Value::Int(text.split(|c| !word(c)).filter(|part| !part.is_empty()).count() as i128))
}

fn truncate(value: &Value, args: Args) -> Result<Value> {
    let [length, kill, end, leeway] = args.bind("truncate", ["length", "killwords", "end", "leeway"])?;
    let Some(text) = value.text() else { return fail("truncate needs a string") };
    let length = optional_int(length, "truncate")?.unwrap_or(255);
    let end = end.map_or(Ok("...".into()), |end| end.print())?;
    let leeway = optional_int(leeway, "truncate")?.unwrap_or(5);
    let room = length - end.chars().count() as i128;
    if room < 0 || leeway < 0 {
        return fail("truncate's length must be that of its end or more, and its leeway not negative");
    }
    if text.chars().count() as i128 <= length + leeway {
        return Ok(text.into());
    }
    let cut: String = text.chars().take(room as usize).collect();
    let cut = if flag(kill, false)? { &cut[..] } else { cut.rsplit_once(' ').map_or(&cut[..], |(words, _)| words) };
    Ok(format!("{cut}{end}").into())
}
