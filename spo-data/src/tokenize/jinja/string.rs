//! Methods of Python's strings.

use super::braces;
use super::call::{Args, flag, int, optional_int, required, text};
use super::error::{Error, Result, fail};
use super::limit;
use super::text::{capitalized, is_space, lines, title};
use super::value::{Dict, Value};

/// All of them; those that are not written out below are refused when they are called.
pub(crate) const METHODS: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];

pub(super) fn call(of: &str, name: &'static str, args: Args) -> Result<Value> {
    match name {
        "format" => return braces::format(of, &args),
        "format_map" => return format_map(of, args),
        "split" | "rsplit" => return split(of, name, args),
        "splitlines" => {
            let [keep] = args.bind(name, ["keepends"])?;
            return Value::list(lines(of, flag(keep, false)?).into_iter().map(Value::from).collect());
        }
        "replace" => return replace_method(of, args),
        _ => {}
    }
    let [first, second, third] = args.positional(name)?;
    let given = [&first, &second, &third].into_iter().flatten().count();
    let most = match name {
        "startswith" | "endswith" | "find" | "rfind" | "index" | "rindex" | "count" => 3,
        "center" | "ljust" | "rjust" => 2,
        "strip" | "lstrip" | "rstrip" | "removeprefix" | "removesuffix" | "partition" | "rpartition" | "join"
        | "zfill" => 1,
        _ => 0,
    };
    if given > most {
        return fail(format!("{name} takes at most {most} arguments, {given} were given"));
    }
    Ok(match name {
        "capitalize" => capitalized(of)?.into(),
        "lower" => of.to_lowercase().into(),
        "upper" => of.to_uppercase().into(),
        "title" => titled(of)?.into(),
        "strip" | "lstrip" | "rstrip" => strip(of, name, first)?.into(),
        "startswith" | "endswith" => affix(of, name, [first, second, third])?,
        "find" | "rfind" | "index" | "rindex" | "count" => search(of, name, [first, second, third])?,
        "removeprefix" => {
            let prefix = required(first, name, "prefix")?;
            of.strip_prefix(text(&prefix, name)?).unwrap_or(of).into()
        }
        "removesuffix" => {
            let suffix = required(first, name, "suffix")?;
            of.strip_suffix(text(&suffix, name)?).unwrap_or(of).into()
        }
        "partition" | "rpartition" => partition(of, name, first)?,
        "join" => join(of, &required(first, name, "iterable")?)?,
        "center" | "ljust" | "rjust" => justified(of, name, first, second)?.into(),
        "zfill" => {
            let width = limit::width(int(&required(first, name, "width")?, name)?)?;
            let (sign, digits) = of.split_at(usize::from(of.starts_with(['+', '-'])));
            let missing = width.saturating_sub(of.chars().count());
            format!("{sign}{}{digits}", "0".repeat(missing)).into()
        }
        "isspace" => Value::Bool(!of.is_empty() && of.chars().all(is_space)),
        "isascii" => Value::Bool(of.is_ascii()),
        "isalnum" | "isalpha" | "isdigit" | "isdecimal" | "isnumeric" | "islower" | "isupper" => {
            Value::Bool(is_kind(of, name)?)
        }
        "swapcase" if of.is_ascii() => {
            let swap = |c: char| if c.is_ascii_uppercase() { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() };
            of.chars().map(swap).collect::<String>().into()
        }
        _ => return Err(Error::unsupported(format!("the method '{name}' of this string"))),
    })
}

fn format_map(of: &str, args: Args) -> Result<Value> {
    let [map] = args.positional("format_map")?;
    let Value::Dict(map) = required(map, "format_map", "mapping")? else {
        return fail("format_map needs a mapping");
    };
    let named = |(key, value): &(Value, Value)| Some((key.text()?.into(), value.clone()));
    braces::format(of, &Args { positional: Vec::new(), named: map.entries.values().filter_map(named).collect() })
}

/// `islower` and the like, for what is certain: ASCII.
pub(crate) fn is_kind(of: &str, name: &str) -> Result<bool> {
    if !of.is_ascii() {
        return Err(Error::unsupported(format!("'{name}' of text beyond ASCII")));
    }
    let cased = of.chars().any(|c| c.is_ascii_alphabetic());
    Ok(match name {
        "islower" => cased && !of.chars().any(|c| c.is_ascii_uppercase()),
        "isupper" => cased && !of.chars().any(|c| c.is_ascii_lowercase()),
        "isalpha" => !of.is_empty() && of.chars().all(|c| c.is_ascii_alphabetic()),
        "isalnum" => !of.is_empty() && of.chars().all(|c| c.is_ascii_alphanumeric()),
        _ => !of.is_empty() && of.chars().all(|c| c.is_ascii_digit()),
    })
}

fn titled(of: &str) -> Result<String> {
    let mut out = String::with_capacity(of.len());
    let mut within = false;
    for character in of.chars() {
        match within {
            true if character == 'Σ' => return Err(Error::unsupported("the title case of a Greek text")),
            true => out.extend(character.to_lowercase()),
            false => out += &title(character)?,
        }
        within = character.is_lowercase() || character.is_uppercase();
    }
    Ok(out)
}

/// `strip`, `lstrip` and `rstrip`; `characters` are those that go.
pub(crate) fn strip<'a>(of: &'a str, name: &str, characters: Option<Value>) -> Result<&'a str> {
    let given = match &characters {
        None | Some(Value::None) => None,
        Some(characters) => Some(text(characters, name)?),
    };
    let goes = |c: char| given.map_or_else(|| is_space(c), |given| given.contains(c));
    Ok(match name {
        "lstrip" => of.trim_start_matches(goes),
        "rstrip" => of.trim_end_matches(goes),
        _ => of.trim_matches(goes),
    })
}

/// The part of a text between two places, counted in characters as in a slice; `None` where it begins beyond the end.
fn window(of: &str, start: Option<i128>, end: Option<i128>) -> Option<(usize, &str)> {
    if start.is_none() && end.is_none() {
        return Some((0, of));
    }
    let length = of.chars().count() as i128;
    let clip = |at: i128| if at < 0 { (at + length).max(0) } else { at };
    let (start, end) = (clip(start.unwrap_or(0)), clip(end.unwrap_or(length)).min(length));
    if start > end {
        return None;
    }
    let byte = |at: i128| of.char_indices().nth(at as usize).map_or(of.len(), |(byte, _)| byte);
    Some((start as usize, &of[byte(start)..byte(end)]))
}

fn affix(of: &str, name: &str, [affix, start, end]: [Option<Value>; 3]) -> Result<Value> {
    let affix = required(affix, name, "prefix")?;
    let affixes = match &affix {
        Value::Tuple(seq) => &seq.items[..],
        other => std::slice::from_ref(other),
    };
    let window = window(of, optional_int(start, name)?, optional_int(end, name)?);
    let mut found = false;
    for affix in affixes {
        let affix = text(affix, name)?;
        let matches = |of: &str| if name == "startswith" { of.starts_with(affix) } else { of.ends_with(affix) };
        found |= window.is_some_and(|(_, of)| matches(of));
    }
    Ok(Value::Bool(found))
}

fn search(of: &str, name: &str, [part, start, end]: [Option<Value>; 3]) -> Result<Value> {
    let part = required(part, name, "sub")?;
    let part = text(&part, name)?;
    let window = window(of, optional_int(start, name)?, optional_int(end, name)?);
    if name == "count" {
        let count = window.map_or(0, |(_, of)| of.matches(part).count());
        return Ok(Value::Int(count as i128));
    }
    let found = window.and_then(|(skipped, of)| {
        let byte = if name.starts_with('r') { of.rfind(part) } else { of.find(part) };
        byte.map(|byte| skipped + of[..byte].chars().count())
    });
    match found {
        Some(at) => Ok(Value::Int(at as i128)),
        None if name.ends_with("index") => fail("substring not found"),
        None => Ok(Value::Int(-1)),
    }
}

fn partition(of: &str, name: &str, separator: Option<Value>) -> Result<Value> {
    let separator = required(separator, name, "sep")?;
    let separator = text(&separator, name)?;
    if separator.is_empty() {
        return fail("empty separator");
    }
    let (first, middle, last) = match name {
        "partition" => of.split_once(separator).map_or((of, "", ""), |(first, last)| (first, separator, last)),
        _ => of.rsplit_once(separator).map_or(("", "", of), |(first, last)| (first, separator, last)),
    };
    Value::tuple([first, middle, last].map(Value::from).to_vec())
}

fn join(of: &str, parts: &Value) -> Result<Value> {
    let mut out = String::new();
    for (index, part) in parts.items()?.iter().enumerate() {
        let Some(part) = part.text() else {
            return fail(format!("sequence item {index}: expected str instance, {} found", part.type_name()));
        };
        if index > 0 {
            out += of;
        }
        out += part;
        limit::check_bytes(out.len())?;
    }
    Ok(out.into())
}

pub(crate) fn justified(of: &str, name: &str, width: Option<Value>, fill: Option<Value>) -> Result<String> {
    let width = limit::width(int(&required(width, name, "width")?, name)?)?;
    let fill = match &fill {
        Some(fill) => text(fill, name)?,
        None => " ",
    };
    if fill.chars().count() != 1 {
        return fail("the fill character must be exactly one character long");
    }
    let missing = width.saturating_sub(of.chars().count());
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        _ => missing / 2 + (missing & width & 1),
    };
    Ok(format!("{}{of}{}", fill.repeat(left), fill.repeat(missing - left)))
}

fn replace_method(of: &str, args: Args) -> Result<Value> {
    if args.named.iter().any(|(name, _)| &**name != "count") {
        return fail("replace takes no keyword arguments but count");
    }
    let [old, new, count] = args.bind("replace", ["old", "new", "count"])?;
    let (old, new) = (required(old, "replace", "old")?, required(new, "replace", "new")?);
    let count = count.map(|count| int(&count, "replace")).transpose()?;
    replace(of, text(&old, "replace")?, text(&new, "replace")?, count)
}

pub(crate) fn replace(of: &str, old: &str, new: &str, count: Option<i128>) -> Result<Value> {
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let found = of.matches(old).take(count).count();
    limit::check_bytes(of.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(of.replacen(old, new, count).into())
}

fn split(of: &str, name: &str, args: Args) -> Result<Value> {
    let [separator, most] = args.bind(name, ["sep", "maxsplit"])?;
    let most = most.map(|most| int(&most, name)).transpose()?.and_then(|most| usize::try_from(most).ok());
    let back = name == "rsplit";
    let parts: Vec<&str> = match &separator {
        None | Some(Value::None) => words(of, most.unwrap_or(usize::MAX), back),
        Some(separator) => {
            let separator = text(separator, name)?;
            if separator.is_empty() {
                return fail("empty separator");
            }
            let parts = most.unwrap_or(usize::MAX - 1).saturating_add(1);
            let mut cut: Vec<&str> =
                if back { of.rsplitn(parts, separator).collect() } else { of.splitn(parts, separator).collect() };
            if back {
                cut.reverse();
            }
            cut
        }
    };
    limit::check_items(parts.len())?;
    Value::list(parts.into_iter().map(Value::from).collect())
}

/// The words of a text; after `most` cuts the rest stays whole.
fn words(of: &str, most: usize, back: bool) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = if back { of.trim_end_matches(is_space) } else { of.trim_start_matches(is_space) };
    while !rest.is_empty() {
        let cut = if back {
            rest.char_indices().rev().find(|(_, c)| is_space(*c)).map(|(at, c)| (at, at + c.len_utf8()))
        } else {
            rest.char_indices().find(|(_, c)| is_space(*c)).map(|(at, c)| (at, at + c.len_utf8()))
        };
        let Some((start, end)) = cut.filter(|_| words.len() < most) else {
            words.push(rest);
            break;
        };
        if back {
            words.push(&rest[end..]);
            rest = rest[..start].trim_end_matches(is_space);
        } else {
            words.push(&rest[..start]);
            rest = rest[end..].trim_start_matches(is_space);
        }
    }
    if back {
        words.reverse();
    }
    words
}

/// The attributes of a dict by name, for functions that take `**kwargs`.
pub(crate) fn named(dict: &Dict) -> Result<Vec<(std::rc::Rc<str>, Value)>> {
    let named = dict.entries.values().map(|(key, value)| Some((key.text()?.into(), value.clone())));
    named.collect::<Option<_>>().map_or_else(|| fail("keywords must be strings"), Ok)
}
