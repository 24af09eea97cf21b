//! What is fuzzed: any bytes must end in rows, text or an error. `fuzz/` and the smoke test both run these.
#![allow(dead_code, missing_docs)]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use spo_data::format::Input;
use spo_data::gguf::{Gguf, tokenizer_files};
use spo_data::{ChatTemplate, DataSpec, Message, RenderOptions, TemplateKind, TextSpec, Tokenizer, load_bytes};

const TOKENIZER_JSON: &[u8] = br#"{"version": "1.0", "model": {"type": "WordLevel", "unk_token": "<unk>",
    "vocab": {"<unk>": 0, "</s>": 1, "q": 2, "a": 3, "b": 4}},
    "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": []}"#;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let config = br#"{"eos_token": "</s>", "chat_template": "{% for m in messages %}{{ m.role }} {{ m.content }}</s>{% endfor %}"}"#;
    Tokenizer::from_bytes(TOKENIZER_JSON, config, None).expect("the tokenizer is valid")
});

/// Reads all rows of a format.
pub fn read(name: &str, bytes: &[u8]) {
    let format = spo_data::Registry::builtin().format("fuzz", Some(name)).expect("the format is registered");
    if let Ok(rows) = (format.open)(Input::Memory(bytes.to_vec()), "fuzz") {
        rows.for_each(|row| drop(row.map(|row| row.fields.len())));
    }
}

/// Loads rows of any layout: the first byte chooses the text settings, the rest is JSONL.
pub fn load(bytes: &[u8]) {
    let Some((choice, file)) = bytes.split_first() else { return };
    let text = TextSpec {
        template: if choice & 1 == 0 { TemplateKind::Plain } else { TemplateKind::Chat },
        max_length: (choice & 2 != 0).then_some(8),
        ..TextSpec::default()
    };
    match load_bytes("fuzz.jsonl", file, &DataSpec::default(), &text, &TOKENIZER) {
        Ok(data) => {
            assert!(data.examples.iter().all(|example| !example.prompt.is_empty() && !example.answers.is_empty()));
            let _ = (data.stats(), data.conflicts(1), data.fingerprint());
        }
        Err(error) => drop((error.to_string(), error.hint())),
    }
}

/// Compiles and renders a template.
pub fn template(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    let special = BTreeMap::from([("bos_token".to_string(), "<s>".to_string())]);
    let Ok(template) = ChatTemplate::new(source, special) else { return };
    let tools = serde_json::json!([{"type": "function", "function": {"name": "now"}}]);
    let options = RenderOptions { add_generation_prompt: true, tools: Some(&tools), variables: None };
    let messages = [Message::new("user", "Hi é"), Message::new("assistant", "Yo"), Message::new("user", "Bye")];
    if let Ok((text, spans)) = template.render_spans(&messages, &options) {
        assert!(spans.iter().all(|span| text.get(span.clone()).is_some()));
    }
}

/// Opens a GGUF file and builds its tokenizer.
pub fn gguf(bytes: &[u8]) {
    let Ok(file) = Gguf::from_bytes("fuzz.gguf".as_ref(), bytes) else { return };
    for key in file.keys() {
        drop((file.text(key), file.count(key), file.flag(key), file.texts(key), file.numbers(key)));
    }
    for name in file.tensors() {
        drop(file.bytes(name, 64).map(|stored| stored.bytes.len()));
    }
    let Ok(files) = tokenizer_files(&file) else { return };
    let (Some(tokenizer), Some(config)) = (files.get("tokenizer.json"), files.get("tokenizer_config.json")) else {
        return;
    };
    if let Ok(tokenizer) = Tokenizer::from_bytes(tokenizer, config, None) {
        drop(tokenizer.encode("It's 12 tests é", true));
    }
}

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("jsonl", |bytes| read("jsonl", bytes)),
    ("json", |bytes| read("json", bytes)),
    ("csv", |bytes| read("csv", bytes)),
    ("tsv", |bytes| read("tsv", bytes)),
    ("parquet", |bytes| read("parquet", bytes)),
    ("arrow", |bytes| read("arrow", bytes)),
    ("load", load),
    ("template", template),
    ("gguf", gguf),
];
