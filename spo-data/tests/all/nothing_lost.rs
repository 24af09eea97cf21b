//! For rows of every layout with extra, renamed, null or missing columns: all text is in the example, or the report or an
//! error says what is not. Texts are marks that are searched for, so that not one character can go unseen.
//!
//! `PROPTEST_CASES=1000000` makes it a long run.

use crate::common;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use spo_data::{DataSpec, Dataset, Registry, TemplateKind, TextSpec, Tokenizer, load_rows};
use std::collections::BTreeMap;
use std::sync::LazyLock;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| common::tiny("llama"));
static NAMES: LazyLock<Vec<&str>> =
    LazyLock::new(|| Registry::builtin().schemas().iter().map(|schema| schema.name).collect());

/// Texts that occur nowhere else.
struct Marks(usize);

impl Marks {
    fn next(&mut self) -> String {
        self.0 += 1;
        format!("zq{}qz", self.0)
    }

    fn turn(&mut self, role: &str) -> Value {
        json!({ "role": role, "content": self.next() })
    }

    fn parts(&mut self, role: &str) -> Value {
        json!({ "role": role, "content": [{"type": "text", "text": self.next()}, {"type": "text", "text": self.next()}] })
    }

    fn thinking(&mut self) -> Value {
        json!({ "role": "assistant", "content": self.next(), "reasoning_content": self.next(), "mood": self.next() })
    }

    fn calling(&mut self) -> Value {
        let function = json!({"name": self.next(), "arguments": {"a": self.next(), "b": [self.next()]}});
        json!({ "role": "assistant", "content": self.next(), "tool_calls": [{"type": "function", "function": function}] })
    }

    fn called(&mut self) -> Value {
        json!({ "role": "tool", "content": self.next(), "name": self.next() })
    }

    fn said(&mut self, role: &str) -> Value {
        json!({ "from": role, "value": self.next() })
    }

    fn transcript(&mut self, start: &str) -> String {
        format!("{start}\n\nAssistant: {}", self.next())
    }
}

/// A row of a layout; `form` chooses among those that a layout takes.
fn row(schema: &str, form: usize, m: &mut Marks) -> Map<String, Value> {
    let pick = |forms: &[fn(&mut Marks) -> Value], m: &mut Marks| forms[form % forms.len()](m);
    let value = match schema {
        "token-ids" => json!({"prompt_ids": [1, 5], "chosen_ids": [6, 2], "rejected_ids": [7]}),
        "completion-ids" => json!({"prompt_ids": [1, 5], "completion_ids": [6, 2]}),
        "prefs" => json!({"prompt": m.next(), "response_a": m.next(), "response_b": m.next(), "prefs": {"x": -1}}),
        "pku-safe-rlhf" => json!({"prompt": m.next(), "response_0": m.next(), "response_1": m.next(),
            "better_response_id": 0, "safer_response_id": 1}),
        "ultrafeedback" => json!({"instruction": m.next(), "completions": [
            {"response": m.next(), "annotations": {"honesty": {"Rating": "3"}}},
            {"response": m.next(), "annotations": {"honesty": {"Rating": "5"}}}]}),
        "helpsteer3" => json!({"context": [m.turn("user")], "response1": m.next(), "response2": m.next(),
            "overall_preference": 2}),
        "helpsteer2-preference" => json!({"prompt": m.next(), "response_1": m.next(), "response_2": m.next(),
            "preference_strength": -1}),
        "helpsteer2" => json!({"prompt": m.next(), "response": m.next(), "helpfulness": 1, "correctness": 2,
            "coherence": 3, "complexity": 1, "verbosity": 0}),
        "shp" => json!({"history": m.next(), "human_ref_A": m.next(), "human_ref_B": m.next(), "labels": 1}),
        "arena" => {
            let user = m.turn("user");
            json!({"conversation_a": [user, m.turn("assistant")], "conversation_b": [user, m.turn("assistant")],
                "winner": "model_b"})
        }
        "arena-prompts" => json!({"prompt": [m.next()], "response_a": [m.next()], "response_b": [m.next()],
            "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}),
        "scored-list" => json!({"prompt": m.next(), "responses": [m.next(), m.next()], "scores": [1, 2]}),
        "ranked-list" => json!({"prompt": m.next(), "responses": [m.next(), m.next()], "ranks": [1, 2]}),
        "answers" => {
            json!({"prompt": m.next(), "answers": [{"answer": m.next(), "rank": 2}, {"answer": m.next(), "rank": 1}]})
        }
        "responses" => pick(
            &[
                |m| json!({"prompt": m.next(), "responses": [m.next(), m.next(), m.next()]}),
                |m| json!({"question": m.next(), "completions": [m.next(), m.next()], "system": m.next()}),
                |m| json!({"prompt": [m.turn("user")], "responses": [[m.turn("assistant")], [m.turn("assistant")]]}),
            ],
            m,
        ),
        "hh" => {
            let start = format!("{}Human: {}", if form.is_multiple_of(2) { "\n\n" } else { "" }, m.next());
            json!({"chosen": m.transcript(&start), "rejected": m.transcript(&start)})
        }
        "trl" => pick(
            &[
                |m| json!({"prompt": m.next(), "chosen": m.next(), "rejected": m.next()}),
                |m| json!({"question": m.next(), "system": m.next(), "chosen": m.next(), "rejected": m.next()}),
                |m| json!({"instruction": m.next(), "input": m.next(), "chosen": m.next(), "rejected": m.next()}),
                |m| json!({"prompt": [m.turn("user")], "chosen": m.turn("assistant"), "rejected": [m.turn("assistant")]}),
                |m| json!({"conversations": [m.said("human")], "chosen": m.said("gpt"), "rejected": m.said("gpt")}),
            ],
            m,
        ),
        "trl-implicit" => {
            let user = m.turn("user");
            json!({"chosen": [user, m.turn("assistant")], "rejected": [user, m.turn("assistant")]})
        }
        "kto" => json!({"prompt": m.next(), "completion": m.next(), "label": true}),
        "kto-messages" => json!({"messages": [m.turn("user"), m.turn("assistant")], "label": false}),
        "sft" => pick(
            &[
                |m| json!({"prompt": m.next(), "completion": m.next()}),
                |m| json!({"instruction": m.next(), "input": m.next(), "output": m.next(), "system": m.next()}),
                |m| json!({"instruction": m.next(), "input": "", "output": m.next(), "history": [[m.next(), m.next()]]}),
                |m| json!({"question": m.next(), "answer": m.next()}),
            ],
            m,
        ),
        "messages" => pick(
            &[
                |m| json!({"messages": [m.turn("system"), m.turn("user"), m.turn("assistant")]}),
                |m| json!({"conversations": [m.said("system"), m.said("human"), m.said("gpt")]}),
                |m| json!({"messages": [m.turn("user"), m.turn("assistant"), m.turn("user")], "system": m.next()}),
                |m| {
                    json!({"messages": [m.turn("user"), m.calling(), m.called(), m.thinking()],
                        "tools": [{"type": "function", "function": {"name": m.next(), "description": m.next()}}]})
                },
                |m| json!({"messages": [m.parts("user"), m.thinking(), m.parts("user"), m.parts("assistant")]}),
            ],
            m,
        ),
        "text" => json!({"text": m.next()}),
        other => panic!("{other} has no rows here"),
    };
    let Value::Object(fields) = value else { unreachable!() };
    fields
}

const COLUMNS: &[&str] = &[
    "prompt",
    "question",
    "instruction",
    "input",
    "query",
    "messages",
    "conversations",
    "system",
    "system_prompt",
    "context",
    "history",
    "label",
    "chosen",
    "rejected",
    "completion",
    "output",
    "answer",
    "response",
    "text",
    "source",
    "kind",
    "id",
    "note",
    "tools",
    "responses",
    "scores",
    "answers",
    "chat_template_kwargs",
    "score_chosen",
    "Prompt",
    "user_prompt",
    "critique",
    "",
];

#[derive(Debug, Clone)]
enum Change {
    Extra(&'static str, usize),
    Rename(prop::sample::Index, &'static str),
    Null(prop::sample::Index),
    Missing(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let column = || prop::sample::select(COLUMNS);
    prop_oneof![
        3 => (column(), 0usize..6).prop_map(|(name, form)| Change::Extra(name, form)),
        1 => (any::<prop::sample::Index>(), column()).prop_map(|(at, name)| Change::Rename(at, name)),
        1 => any::<prop::sample::Index>().prop_map(Change::Null),
        1 => any::<prop::sample::Index>().prop_map(Change::Missing),
    ]
}

fn apply(row: &mut Map<String, Value>, change: &Change, m: &mut Marks) {
    let name = |at: &prop::sample::Index, row: &Map<String, Value>| row.keys().nth(at.index(row.len())).cloned();
    match change {
        Change::Extra(name, form) => {
            let value = match form {
                0 => json!(m.next()),
                1 => json!([m.turn("user")]),
                2 => m.turn("system"),
                3 => json!([m.next()]),
                4 => json!({"inner": {"text": m.next()}}),
                _ => json!([m.said("human"), m.said("gpt")]),
            };
            row.entry(*name).or_insert(value);
        }
        Change::Rename(at, to) if !row.is_empty() && !row.contains_key(*to) => {
            let value = name(at, row).and_then(|name| row.shift_remove(&name)).unwrap();
            row.insert(to.to_string(), value);
        }
        Change::Null(at) if !row.is_empty() => drop(row.insert(name(at, row).unwrap(), Value::Null)),
        Change::Missing(at) if !row.is_empty() => drop(row.shift_remove(&name(at, row).unwrap())),
        _ => {}
    }
}

/// Every mark in a value, but for fields of these names.
fn marks(value: &Value, named: &BTreeMap<String, usize>, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let marks = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.starts_with("zq"));
            found.extend(marks.map(str::to_string));
        }
        Value::Array(items) => items.iter().for_each(|item| marks(item, named, found)),
        Value::Object(fields) => {
            let unnamed = fields.iter().filter(|(name, _)| !named.contains_key(*name));
            unnamed.for_each(|(_, item)| marks(item, named, found));
        }
        _ => {}
    }
}

/// Characters of a row that are neither in its examples nor in a column or row that the report names.
fn lost(line: usize, row: &Map<String, Value>, data: &Dataset) -> Vec<String> {
    let named = row.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
    let own = named.map_or_else(|| format!("rows:{line}"), str::to_string);
    if data
        .report
        .incidents
        .iter()
        .any(|incident| incident.id == own && incident.reason.describe().contains("left out"))
        || data.report.incidents.iter().any(|incident| incident.id == own && incident.reason.dropped())
    {
        return vec![];
    }
    let mut kept = own;
    for example in &data.examples {
        kept += &TOKENIZER.decode(&example.prompt).unwrap();
        for answer in &example.answers {
            let whole = TOKENIZER.decode(&[&example.prompt[..], answer].concat()).unwrap();
            // A prompt that is cut from two texts may end inside a mark.
            kept += &whole.replace("\nassistant\n", "");
            kept += &whole;
        }
        // The layout of this project reads the kind of a row into its tags.
        kept += example.tags.get("kind").filter(|_| data.report.files[0].schema == "prefs").map_or("", String::as_str);
    }
    let unused = &data.report.files[0].unused;
    let mut missing = Vec::new();
    // Variables are the template's: the report names those that it does not mention.
    let given = |name: &str| name == "chat_template_kwargs";
    for (_, value) in row.iter().filter(|(name, _)| !unused.contains_key(*name) && !given(name)) {
        marks(value, &data.report.unrendered, &mut missing);
    }
    missing.retain(|mark| !kept.contains(mark.as_str()));
    missing
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(3000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_character_is_lost_in_silence(
        schema in 0..NAMES.len(), forms in prop::collection::vec(0usize..20, 1..4), plain in any::<bool>(),
        named in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), change()), 0..4),
    ) {
        let mut m = Marks(0);
        let mut rows: Vec<_> = forms.iter().map(|form| row(NAMES[schema], *form, &mut m)).collect();
        for (at, change) in &changes {
            let at = at.index(rows.len());
            apply(&mut rows[at], change, &mut m);
        }
        let template = if plain { TemplateKind::Plain } else { TemplateKind::Auto };
        let text = TextSpec { template, ..TextSpec::default() };
        let spec = DataSpec { schema: named.then(|| NAMES[schema].to_string()), ..DataSpec::default() };
        match load_rows("rows", rows.clone(), &spec, &text, &TOKENIZER) {
            Ok(data) => for (index, row) in rows.iter().enumerate() {
                let missing = lost(index + 1, row, &data);
                let characters: usize = missing.iter().map(String::len).sum();
                prop_assert_eq!(characters, 0, "{:?} of {:?}\n{:?}", missing, row, data.report);
            },
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

#[test]
fn rows_of_every_layout_are_read_as_that_layout() {
    for name in NAMES.iter() {
        for form in 0..10 {
            let rows = vec![row(name, form, &mut Marks(0))];
            let data = load_rows("rows", rows.clone(), &DataSpec::default(), &TextSpec::default(), &TOKENIZER);
            let data = data.unwrap_or_else(|error| panic!("{name}: {error} {:?}", error.hint()));
            assert_eq!(data.report.files[0].schema, *name, "{rows:?}");
            assert_eq!(data.report.files[0].unused.len(), 0, "{name} {:?}", data.report.files[0].unused);
            assert_eq!(data.examples.len(), 1, "{name}");
        }
    }
}
