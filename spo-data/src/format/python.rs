//! Lists and dictionaries as Python prints them: what pandas writes into the cells of a CSV file.

use serde_json::{Map, Number, Value};

/// How deep lists may lie in each other.
const MAX_DEPTH: usize = 64;

/// The value of a Python literal; `None` where the text is none. Between items of a list the comma may be missing, as in
/// numpy's way to print arrays.
pub(crate) fn parse(text: &str) -> Option<Value> {
    let mut literal = Literal { rest: text, depth: 0 };
    let value = literal.value()?;
    literal.space();
    literal.rest.is_empty().then_some(value)
}

struct Literal<'a> {
    rest: &'a str,
    depth: usize,
}

impl Literal<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Goes past a token, if it comes next.
    fn takes(&mut self, token: &str) -> bool {
        self.space();
        let after = self.rest.strip_prefix(token);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn value(&mut self) -> Option<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.space();
        let value = match self.rest.chars().next()? {
            '\'' | '"' => self.text().map(Value::String),
            '[' => self.list("[", "]"),
            '(' => self.list("(", ")"),
            '{' => self.dictionary(),
            _ if self.takes("array(") => self.array(),
            _ => self.word(),
        };
        self.depth -= 1;
        value
    }

    fn list(&mut self, open: &str, close: &str) -> Option<Value> {
        self.takes(open);
        let mut items = Vec::new();
        while !self.takes(close) {
            items.push(self.value()?);
            self.takes(",");
        }
        Some(Value::Array(items))
    }

    fn dictionary(&mut self) -> Option<Value> {
        self.takes("{");
        let mut fields = Map::new();
        while !self.takes("}") {
            self.space();
            let key = self.text()?;
            if !self.takes(":") {
                return None;
            }
            let value = self.value()?;
            fields.insert(key, value);
            if !self.takes(",") && !self.rest.trim_start().starts_with('}') {
                return None;
            }
        }
        Some(Value::Object(fields))
    }

    /// What follows `array(`: a list, perhaps with its type.
    fn array(&mut self) -> Option<Value> {
        let value = self.value()?;
        if self.takes(",") {
            let (kind, rest) = self.rest.split_once(')')?;
            self.rest = rest;
            return kind.trim().starts_with("dtype=").then_some(value);
        }
        self.takes(")").then_some(value)
    }

    fn word(&mut self) -> Option<Value> {
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || "+-._".contains(c))).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "None" | "nan" => Some(Value::Null),
            "True" => Some(true.into()),
            "False" => Some(false.into()),
            word => match word.parse::<i64>() {
                Ok(number) => Some(number.into()),
                Err(_) => word.parse().ok().and_then(Number::from_f64).map(Value::Number),
            },
        }
    }

    fn text(&mut self) -> Option<String> {
        let quote = self.rest.chars().next().filter(|c| ['\'', '"'].contains(c))?;
        let mut chars = self.rest[1..].char_indices();
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.rest = &self.rest[1 + at + 1..];
                    return Some(text);
                }
                '\\' => match chars.next()?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    c @ ('\\' | '\'' | '"') => text.push(c),
                    c @ ('x' | 'u' | 'U') => {
                        let digits = [('x', 2), ('u', 4), ('U', 8)].into_iter().find(|(name, _)| *name == c)?.1;
                        let code: String = chars.by_ref().take(digits).map(|(_, digit)| digit).collect();
                        text.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
                    }
                    _ => return None,
                },
                c => text.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn literals_of_python_and_numpy() {
        let cases = [
            ("[{'role': 'user', 'content': \"It's\"}]", json!([{"role": "user", "content": "It's"}])),
            ("[{'a': 'x\\n\\u00e9\\x41\\''}\n {'a': None}]", json!([{"a": "x\né\u{41}'"}, {"a": null}])),
            ("array([{'a': True}, {'a': -1.5}],\n      dtype=object)", json!([{"a": true}, {"a": -1.5}])),
            ("(1, 2,)", json!([1, 2])),
            ("{'a': [], 'b': {}}", json!({"a": [], "b": {}})),
        ];
        for (text, value) in cases {
            assert_eq!(parse(text), Some(value), "{text}");
        }
        for text in ["[", "{'a' 1}", "['a'", "{'a': 1 'b': 2}", "[...]", "x", "[1] x", "['\\q']", "['\\U00110000']"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&"[".repeat(100_000)), None);
    }
}
