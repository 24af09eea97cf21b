//! docs/run-file.md, made from the types and their texts.

use std::fmt::Write;

use serde_json::{Map, Value};
use spo_core::objective::Registry;

use super::schema::checked_schema;
use super::validate::names;
use super::words::expected;
use super::{init, objective};

const INTRODUCTION: &str = "\
# The run file

TOML, keys in kebab-case. An unknown key is an error. Paths are relative to the run file; paths given with `--set`
are relative to the current directory. `spo plan run.toml` prints every resolved value and where it came from.

`--set PATH=VALUE` changes one value, e.g. `--set rounds.1.lambda=0.5` (numbers count from 0, so this is the second
round) or `--set model.device=cuda:0`. Of two keys that exclude each other, the more specific table wins: `steps` in a
round over `epochs` in `[training]`; in one table, `--set` wins over the file.

For editors, `docs/run.schema.json` is the same as a JSON Schema; with Taplo, write
`#:schema docs/run.schema.json` as the first line of the run file.
";

/// The reference of the run file.
pub fn markdown() -> String {
    let schema = checked_schema();
    let training = own_keys(&schema["properties"]["training"]);
    let rounds = &schema["properties"]["rounds"]["items"];
    let mut text = INTRODUCTION.to_owned();
    section(&mut text, "The top of the file", schema, |_, property| {
        !(property["type"] == "object" || property["items"]["type"] == "object")
    });
    for (name, property) in own_keys(schema) {
        let (title, table) = match property["type"].as_str() {
            Some("object") => (format!("`[{name}]`"), &property),
            Some("array") => (format!("`[[{name}]]`"), &property["items"]),
            _ => continue,
        };
        let options = objective::properties(&Registry::builtin());
        section(&mut text, &title, table, |key, _| {
            let flattened = training.contains_key(key) && matches!(name.as_str(), "warmup" | "rounds");
            !flattened && key != "controls" && !(name == "rounds" && options.contains_key(key))
        });
        if name == "data" {
            section(&mut text, "`[data.meta-prompts]`", &table["properties"]["meta-prompts"], |_, _| true);
        }
        if name == "training" {
            section(&mut text, "`[training.early-stopping]`", &table["properties"]["early-stopping"], |_, _| true);
        }
        if name == "rounds" {
            text.push_str(OPTIONS);
            let gate = &table["properties"]["gate"];
            section(&mut text, "`[rounds.gate]`", gate, |_, _| true);
            rows(&mut text, &gate["additionalProperties"], "DIMENSION.", |_, _| true);
            let hold = &table["properties"]["hold"];
            section(&mut text, "`[rounds.hold]`", hold, |_, _| true);
            rows(&mut text, &hold["additionalProperties"], "DIMENSION.", |_, _| true);
            text.push_str(HOLD);
            section(&mut text, "`[[rounds.controls]]`", &rounds["properties"]["controls"]["items"], |key, _| {
                !training.contains_key(key) && !options.contains_key(key)
            });
        }
    }
    let _ = write!(text, "\n## A whole run file\n\n`spo init` writes this one.\n\n```toml\n{}```\n", init::template());
    text
}

const OPTIONS: &str = "
The options of the objective stand beside these keys; docs/objectives.md lists them. The usual ones are `beta` of `dpo`
and `alpha`, `lambda` and `margin` of `spo`. `lambda` is one number for all earlier rounds, or a table that names every
earlier dimension: `lambda = { honesty = 1.0, brevity = 0.5 }`.
";

const HOLD: &str = "
A bound is a change from the policy that the round starts from, with its sign (`\"-0.02\"`), or a value to keep (`\">= 0.60\"`).
Of a dimension with a bound there is no `lambda`; the other earlier dimensions have theirs as ever. docs/theory.md says how λ
is found, and what its price is. With `on = \"samples\"` a bound is on the policy's own answers: `reward = \"-0.5\"` gives up half a nat of
the implicit reward that the dimension's round learnt.
";

fn section(text: &mut String, title: &str, table: &Value, shown: impl Fn(&str, &Value) -> bool) {
    let _ = write!(text, "\n## {title}\n\n");
    if title.starts_with('`') {
        let _ = write!(text, "{}\n\n", cell(table["description"].as_str().unwrap_or_default()));
    }
    text.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    rows(text, table, "", shown);
}

fn rows(text: &mut String, table: &Value, prefix: &str, shown: impl Fn(&str, &Value) -> bool) {
    let required = table["required"].as_array().map_or(&[][..], Vec::as_slice);
    for (key, property) in own_keys(table) {
        if !shown(&key, &property) {
            continue;
        }
        let default = if required.iter().any(|name| *name == *key) {
            "required".to_owned()
        } else {
            property.get("default").map_or_else(|| "–".to_owned(), |value| format!("`{value}`"))
        };
        let meaning = property["description"].as_str().unwrap_or_default();
        let meaning = meaning.strip_prefix("Required. ").unwrap_or(meaning);
        let accepted = match names(&property).len() {
            0..8 => expected(&property),
            _ => "a name".to_owned(),
        };
        let _ = writeln!(text, "| `{prefix}{key}` | {} | {default} | {} |", cell(&accepted), cell(meaning));
    }
}

fn own_keys(table: &Value) -> Map<String, Value> {
    table["properties"].as_object().cloned().unwrap_or_default()
}

/// Text that stays in one cell of a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}
