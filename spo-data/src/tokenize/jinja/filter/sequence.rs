//! Filters of lists and other sequences.

use std::cmp::Ordering;
use std::collections::HashSet;

use crate::tokenize::jinja::arithmetic::operate;
use crate::tokenize::jinja::ast::Operator;
use crate::tokenize::jinja::call::{Args, flag, int, required};
use crate::tokenize::jinja::compare::{equal, order, sort};
use crate::tokenize::jinja::error::{Error, Result, fail};
use crate::tokenize::jinja::render::Render;
use crate::tokenize::jinja::value::{Key, Value};
use crate::tokenize::jinja::{access, function, limit, test};

pub(super) const NAMES: [&str; 20] = [
    "first",
    "last",
    "join",
    "list",
    "items",
    "map",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
    "sort",
    "unique",
    "groupby",
    "sum",
    "min",
    "max",
    "reverse",
    "batch",
    "slice",
    "dictsort",
];

pub(super) fn call(render: &Render, name: &str, value: &Value, args: Args) -> Result<Value> {
    match name {
        "map" => map(render, value, args),
        "select" | "reject" | "selectattr" | "rejectattr" => select(name, value, args),
        "sort" => sorted(value, args),
        "unique" => unique(value, args),
        "groupby" => groupby(value, args),
        "sum" => sum(value, args),
        "min" | "max" => extreme(name, value, args),
        "batch" => batch(value, args),
        "slice" => slices(value, args),
        "join" => join(value, args),
        "dictsort" => dictsort(value, args),
        "list" => {
            let [] = args.positional(name)?;
            Value::list(value.items()?)
        }
        "items" => {
            let [] = args.positional(name)?;
            match value {
                Value::Undefined(_) => Value::iterator([]),
                Value::Dict(dict) => {
                    let pair = |(key, value): &(Value, Value)| Value::tuple(vec![key.clone(), value.clone()]);
                    Value::iterator(dict.entries.values().map(pair).collect::<Result<Vec<_>>>()?)
                }
                _ => fail("can only get item pairs from a mapping"),
            }
        }
        "reverse" => {
            let [] = args.positional(name)?;
            reverse(value)
        }
        _ => {
            let [] = args.positional(name)?;
            end(name, value)
        }
    }
}

/// `first` and `last`.
fn end(name: &str, value: &Value) -> Result<Value> {
    let found = match value {
        Value::Iterator(iter) if name == "first" => {
            iter.check()?;
            iter.items.borrow_mut().pop_front()
        }
        Value::Iterator(_) => return fail("'generator' object is not reversible"),
        other if name == "first" => other.items()?.into_iter().next(),
        other => other.items()?.pop(),
    };
    Ok(found.unwrap_or_else(|| Value::undefined(format!("no {name} item, sequence was empty"))))
}

fn reverse(value: &Value) -> Result<Value> {
    if let Value::Str(text) = value {
        return Ok(text.chars().rev().collect::<String>().into());
    }
    let mut items = value.items_later()?;
    items.reverse();
    match value {
        Value::Iterator(_) => Value::list(items),
        _ => Value::iterator(items),
    }
}

/// Follows a path such as `address.city`, or nothing.
fn follow(item: &Value, attribute: Option<&Value>, default: Option<&Value>) -> Result<Value> {
    let step = |of: Value, part: &Value| {
        let found = access::item(&of, part)?;
        Ok(match default {
            Some(default) if found.is_undefined() => default.clone(),
            _ => found,
        })
    };
    match attribute {
        None | Some(Value::None) => Ok(item.clone()),
        Some(Value::Str(path)) => path.split('.').try_fold(item.clone(), |of, part| {
            let number = !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
            let part = match part.parse() {
                Ok(index) if number => Value::Int(index),
                _ => part.into(),
            };
            step(of, &part)
        }),
        Some(other) => step(item.clone(), other),
    }
}

fn lowered(value: Value) -> Value {
    match value {
        Value::Str(text) => text.to_lowercase().into(),
        other => other,
    }
}

/// What items are compared by: an attribute, in small letters unless case counts.
fn key(item: &Value, attribute: Option<&Value>, default: Option<&Value>, case_sensitive: bool) -> Result<Value> {
    let found = follow(item, attribute, default)?;
    Ok(if case_sensitive { found } else { lowered(found) })
}

fn map(render: &Render, value: &Value, mut args: Args) -> Result<Value> {
    if !value.truth()? {
        return Value::iterator([]);
    }
    let items = value.items_later()?;
    if args.positional.is_empty() && args.named.iter().any(|(name, _)| &**name == "attribute") {
        let [attribute, default] = args.bind("map", ["attribute", "default"])?;
        let default = default.filter(|default| !matches!(default, Value::None));
        let found = items.iter().map(|item| follow(item, attribute.as_ref(), default.as_ref()));
        return Value::iterator(found.collect::<Result<Vec<_>>>()?);
    }
    if args.positional.is_empty() {
        return fail("map requires a filter argument");
    }
    let name = args.positional.remove(0);
    let Some(name) = name.text() else { return fail("map's filter must be a string") };
    let apply = |item: &Value| {
        let args = Args { positional: args.positional.clone(), named: args.named.clone() };
        render.spend(1)?;
        super::call(render, name, item, args)
    };
    Value::iterator(items.iter().map(apply).collect::<Result<Vec<_>>>()?)
}

fn select(name: &str, value: &Value, mut args: Args) -> Result<Value> {
    if !value.truth()? {
        return Value::iterator([]);
    }
    let attribute = match name {
        "selectattr" | "rejectattr" if args.positional.is_empty() => {
            return fail("missing parameter for attribute name");
        }
        "selectattr" | "rejectattr" => Some(args.positional.remove(0)),
        _ => None,
    };
    let by = if args.positional.is_empty() { None } else { Some(args.positional.remove(0)) };
    let wanted = name.starts_with("select");
    let mut kept = Vec::new();
    for item in value.items_later()? {
        let found = follow(&item, attribute.as_ref(), None)?;
        let passes = match &by {
            None => found.truth()?,
            Some(by) => {
                let args = Args { positional: args.positional.clone(), named: args.named.clone() };
                let Some(by) = by.text() else { return fail(format!("{name}'s test must be a string")) };
                test::call(by, &found, args)?
            }
        };
        if passes == wanted {
            kept.push(item);
        }
    }
    Value::iterator(kept)
}

fn less(left: &Value, right: &Value) -> Result<bool> {
    Ok(order(left, right, "<")? == Some(Ordering::Less))
}

fn sort_by_key(items: Vec<Value>, keys: Vec<Value>, reverse: bool) -> Result<Vec<Value>> {
    let mut pairs: Vec<(Value, Value)> = keys.into_iter().zip(items).collect();
    if reverse {
        pairs.reverse();
    }
    sort(&mut pairs, &|left, right| less(&left.0, &right.0))?;
    if reverse {
        pairs.reverse();
    }
    Ok(pairs.into_iter().map(|(_, item)| item).collect())
}

fn sorted(value: &Value, args: Args) -> Result<Value> {
    let [reverse, case_sensitive, attribute] = args.bind("sort", ["reverse", "case_sensitive", "attribute"])?;
    let (reverse, case_sensitive) = (flag(reverse, false)?, flag(case_sensitive, false)?);
    let attributes: Vec<Option<Value>> = match attribute {
        Some(Value::Str(paths)) => paths.split(',').map(|path| Some(path.into())).collect(),
        other => vec![other],
    };
    let items = value.items()?;
    let keys = items.iter().map(|item| {
        let keys = attributes.iter().map(|attribute| key(item, attribute.as_ref(), None, case_sensitive));
        Value::list(keys.collect::<Result<_>>()?)
    });
    let keys = keys.collect::<Result<Vec<_>>>()?;
    Value::list(sort_by_key(items, keys, reverse)?)
}

fn dictsort(value: &Value, args: Args) -> Result<Value> {
    let [case_sensitive, by, reverse] = args.bind("dictsort", ["case_sensitive", "by", "reverse"])?;
    let (case_sensitive, reverse) = (flag(case_sensitive, false)?, flag(reverse, false)?);
    let by_value = match by.as_ref().map(|by| by.text()) {
        None | Some(Some("key")) => false,
        Some(Some("value")) => true,
        _ => return fail("you can only sort by either \"key\" or \"value\""),
    };
    let Value::Dict(dict) = value else {
        return fail(format!("dictsort needs a dict, not '{}'", value.type_name()));
    };
    let key = |(key, value): &(Value, Value)| {
        let key = if by_value { value } else { key }.clone();
        if case_sensitive { key } else { lowered(key) }
    };
    let keys = dict.entries.values().map(key).collect();
    let pair = |(key, value): &(Value, Value)| Value::tuple(vec![key.clone(), value.clone()]);
    let pairs = dict.entries.values().map(pair).collect::<Result<_>>()?;
    Value::list(sort_by_key(pairs, keys, reverse)?)
}

fn unique(value: &Value, args: Args) -> Result<Value> {
    let [case_sensitive, attribute] = args.bind("unique", ["case_sensitive", "attribute"])?;
    let case_sensitive = flag(case_sensitive, false)?;
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for item in value.items_later()? {
        if seen.insert(Key::of(&key(&item, attribute.as_ref(), None, case_sensitive)?)?) {
            kept.push(item);
        }
    }
    Value::iterator(kept)
}

fn groupby(value: &Value, args: Args) -> Result<Value> {
    let [attribute, default, case_sensitive] = args.bind("groupby", ["attribute", "default", "case_sensitive"])?;
    let attribute = required(attribute, "groupby", "attribute")?;
    let default = default.filter(|default| !matches!(default, Value::None));
    let case_sensitive = flag(case_sensitive, false)?;
    let key = |item: &Value| key(item, Some(&attribute), default.as_ref(), case_sensitive);
    let items = value.items()?;
    let keys = items.iter().map(&key).collect::<Result<_>>()?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for item in sort_by_key(items, keys, false)? {
        let key = key(&item)?;
        match groups.last_mut() {
            Some((last, items)) if equal(last, &key) => items.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let group = |(key, items): (Value, Vec<Value>)| {
        // The name of a group is spelled as its first item spells it.
        let name = if case_sensitive { key } else { follow(&items[0], Some(&attribute), default.as_ref())? };
        function::group(name, items)
    };
    Value::list(groups.into_iter().map(group).collect::<Result<_>>()?)
}

fn sum(value: &Value, args: Args) -> Result<Value> {
    let [attribute, start] = args.bind("sum", ["attribute", "start"])?;
    let start = start.unwrap_or(Value::Int(0));
    if start.text().is_some() {
        return fail("sum() can't sum strings");
    }
    // Python adds floats with a correction that plain addition lacks.
    let mut total = start;
    for item in value.items()? {
        let item = follow(&item, attribute.as_ref(), None)?;
        if matches!((&total, &item), (Value::Float(_), _) | (_, Value::Float(_))) {
            return Err(Error::unsupported("the sum of floats, whose last digit depends on Python's version"));
        }
        total = operate(Operator::Add, &total, &item)?;
    }
    Ok(total)
}

fn extreme(name: &str, value: &Value, args: Args) -> Result<Value> {
    let [case_sensitive, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
    let case_sensitive = flag(case_sensitive, false)?;
    let mut best: Option<(Value, Value)> = None;
    for item in value.items()? {
        let key = key(&item, attribute.as_ref(), None, case_sensitive)?;
        let better = match &best {
            None => true,
            Some((other, _)) if name == "min" => less(&key, other)?,
            Some((other, _)) => order(&key, other, ">")? == Some(Ordering::Greater),
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or_else(|| Value::undefined("no aggregated item, sequence was empty"), |(_, item)| item))
}

fn batch(value: &Value, args: Args) -> Result<Value> {
    let [count, fill] = args.bind("batch", ["linecount", "fill_with"])?;
    let count = int(&required(count, "batch", "linecount")?, "batch")?;
    let Ok(size @ 1..) = usize::try_from(count) else {
        return Err(Error::unsupported("batches of less than one item"));
    };
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let mut lists = Vec::new();
    for chunk in value.items_later()?.chunks(size) {
        let mut chunk = chunk.to_vec();
        if let Some(fill) = &fill {
            limit::check_items(size)?;
            chunk.resize(size, fill.clone());
        }
        lists.push(Value::list(chunk)?);
    }
    Value::iterator(lists)
}

fn slices(value: &Value, args: Args) -> Result<Value> {
    let [count, fill] = args.bind("slice", ["slices", "fill_with"])?;
    let count = int(&required(count, "slice", "slices")?, "slice")?;
    let Ok(count @ 1..) = usize::try_from(count) else { return fail("slice needs one slice or more") };
    limit::check_items(count)?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let items = value.items_later()?;
    let (size, more) = (items.len() / count, items.len() % count);
    let mut rest = &items[..];
    let mut lists = Vec::new();
    for index in 0..count {
        let (taken, after) = rest.split_at(size + usize::from(index < more));
        rest = after;
        let mut list = taken.to_vec();
        if index >= more {
            list.extend(fill.clone());
        }
        lists.push(Value::list(list)?);
    }
    Value::iterator(lists)
}

fn join(value: &Value, args: Args) -> Result<Value> {
    let [separator, attribute] = args.bind("join", ["d", "attribute"])?;
    let separator = separator.map_or(Ok("".into()), |separator| separator.print())?;
    let attribute = attribute.filter(|attribute| !matches!(attribute, Value::None));
    let mut out = String::new();
    for (index, item) in value.items()?.iter().enumerate() {
        if index > 0 {
            out += &separator;
        }
        out += &follow(item, attribute.as_ref(), None)?.print()?;
        limit::check_bytes(out.len())?;
    }
    Ok(out.into())
}
