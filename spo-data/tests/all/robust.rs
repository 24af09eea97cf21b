//! Whatever a file holds, loading ends in a dataset or in an error, never in a panic.
//!
//! Each property runs a bounded number of cases; `PROPTEST_CASES=1000000` makes it a long run.

use crate::common;
use proptest::prelude::*;
use serde_json::{Map, Value};
use spo_data::{
    ChatTemplate, DataError, DataSpec, Message, Registry, RenderOptions, TemplateKind, TextSpec, Tokenizer, load_bytes,
    load_rows,
};
use std::collections::BTreeMap;
use std::sync::LazyLock;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| common::tiny("llama"));
static SCHEMAS: LazyLock<Registry> = LazyLock::new(Registry::builtin);

fn keys() -> Vec<&'static str> {
    let mut keys: Vec<&str> = SCHEMAS.schemas().iter().flat_map(|schema| schema.keys).copied().collect();
    keys.extend(["id", "tools", "chat_template_kwargs", "score_chosen", "score_rejected", "role"]);
    keys.extend(["content", "response", "annotations", "Rating", "honesty"]);
    keys
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0u32..1024).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(Value::from("\n\nHuman: a\n\nAssistant: b")),
        prop::sample::select(vec!["user", "assistant", "system"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let object = prop::collection::vec((prop::sample::select(keys()), inner.clone()), 0..5);
        let object = object
            .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(key, value)| (key.to_string(), value)).collect()));
        prop_oneof![prop::collection::vec(inner, 0..4).prop_map(Value::from), object]
    })
}

fn row() -> impl Strategy<Value = (usize, Map<String, Value>)> {
    let schema = 0..SCHEMAS.schemas().len();
    let extra = prop::collection::vec((prop::sample::select(keys()), value()), 0..3);
    (schema, prop::collection::vec(value(), 8), extra).prop_map(|(schema, values, extra)| {
        let keys = SCHEMAS.schemas()[schema].keys.iter().copied().zip(values).chain(extra);
        (schema, keys.map(|(key, value)| (key.to_string(), value)).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_row_of_any_layout((schema, row) in row(), plain: bool, limit in prop::option::of(2usize..20)) {
        let template = if plain { TemplateKind::Plain } else { TemplateKind::Auto };
        let text = TextSpec { template, max_length: limit, ..TextSpec::default() };
        for name in [None, Some(SCHEMAS.schemas()[schema].name.to_string())] {
            let spec = DataSpec { schema: name, ..DataSpec::default() };
            match load_rows("rows", vec![row.clone()], &spec, &text, &TOKENIZER) {
                Ok(data) => for example in &data.examples {
                    prop_assert!(!example.prompt.is_empty());
                    prop_assert!(example.answers.iter().all(|answer| !answer.is_empty()));
                    for dimension in example.dimensions() {
                        if let Some((chosen, rejected)) = example.pair(dimension) {
                            prop_assert!(chosen != rejected && chosen.max(rejected) < example.answers.len());
                        }
                    }
                },
                Err(error) => { let _ = (error.to_string(), error.hint()); }
            }
        }
    }

    #[test]
    fn any_bytes_in_any_format(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for name in ["a.jsonl", "a.json", "a.csv", "a.tsv"] {
            let _ = load_bytes(name, &bytes, &DataSpec::default(), &TextSpec::default(), &TOKENIZER);
        }
    }

    #[test]
    fn a_damaged_file(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut: prop::sample::Index) {
        let good = b"{\"prompt\":[{\"role\":\"user\",\"content\":\"q\"}],\"chosen\":\"\\u00e9\",\"rejected\":\"b\"}\n{\"chosen\":\"a b\",\"rejected\":\"a c\",\"id\":7}\n";
        let mut bytes = good.to_vec();
        for (place, byte) in flips {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        for name in ["a.jsonl", "a.json", "a.csv"] {
            let _ = load_bytes(name, &bytes, &DataSpec::default(), &TextSpec::default(), &TOKENIZER);
        }
    }

    #[test]
    fn any_template(source in "(\\{\\{|\\}\\}|\\{%|%\\}|-|for |in |if |end|generation|messages|m|\\.content|\\[|\\]|range\\(9\\)| |\n|\"|'|tojson|\\||\\(|\\)|[a-z]){0,24}") {
        if let Ok(template) = ChatTemplate::new(&source, BTreeMap::new()) {
            let _ = template.render(&[Message::new("user", "é")], &RenderOptions::default());
        }
    }
}

#[test]
fn text_without_a_tokenizer_is_refused_and_ids_are_not() {
    let tokenizer = Tokenizer::ids_only(vec![]);
    let ids = br#"{"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4]}"#;
    let load = |bytes| load_bytes("a.jsonl", bytes, &DataSpec::default(), &TextSpec::default(), &tokenizer);
    let data = load(&ids[..]).unwrap();
    assert_eq!((data.examples.len(), data.report.incidents.len()), (1, 0));
    let text = br#"{"prompt": "q", "chosen": "a", "rejected": "b"}"#;
    assert!(matches!(load(&text[..]), Err(DataError::IdsOnly)));
}
