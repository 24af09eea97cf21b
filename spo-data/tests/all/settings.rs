//! What stands beside a vocabulary, and what it means: BOS, EOS, ends of turns, templates by use.

use crate::common::{fixture, json, plain, rows, tiny};
use serde_json::{Value, json};
use spo_data::{DataError, PromptText, Reason, TextSpec, Tokenizer, TokenizerSettings, encode_prompt, load_bytes};
use std::collections::BTreeMap;

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The tiny vocabulary, whose tokens 0 to 3 are `<|endoftext|>`, `<|im_start|>`, `<|im_end|>` and `<|pad|>`, with these
/// files beside it. `around` are the ids that its post-processor writes before and after a text.
fn files(config: Value, around: [&[u32]; 2], more: &[(&str, String)]) -> BTreeMap<String, Vec<u8>> {
    let mut tokenizer = json(&fixture("trl/llama-tiny-policy/tokenizer.json"));
    let names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"];
    let token = |id: &u32| json!({"SpecialToken": {"id": names[*id as usize], "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let [mut single, after] = around.map(|ids| ids.iter().map(token).collect::<Vec<_>>());
    let special: serde_json::Map<String, Value> = (0..4)
        .map(|id| (names[id].to_string(), json!({"id": names[id], "ids": [id], "tokens": [names[id]]})))
        .collect();
    single.push(text.clone());
    single.extend(after);
    tokenizer["post_processor"] = json!({"type": "TemplateProcessing", "special_tokens": special,
        "single": single, "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}]});
    let own = [("tokenizer.json", tokenizer.to_string()), ("tokenizer_config.json", config.to_string())];
    own.into_iter().chain(more.iter().cloned()).map(|(name, text)| (name.to_string(), text.into_bytes())).collect()
}

fn tokenizer(config: Value, around: [&[u32]; 2], more: &[(&str, String)]) -> Tokenizer {
    Tokenizer::from_files(files(config, around, more)).unwrap()
}

fn refused(config: Value, more: &[(&str, String)]) -> DataError {
    Tokenizer::from_files(files(config, [&[], &[]], more)).unwrap_err()
}

/// As transformers 5 does: where one of the keys is there, the post-processor is made anew from both.
#[test]
fn keys_of_the_configuration_overrule_the_post_processor() {
    let special = json!({"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"});
    let with = |keys: Value| {
        let mut config = special.clone();
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        config
    };
    let inner = tiny("llama").encode("The cat", false).unwrap();
    let writes: [&[u32]; 2] = [&[0], &[2]];
    for (keys, around, before, after) in [
        (json!({}), [&[][..], &[]], &[][..], &[][..]),
        (json!({}), writes, &[0], &[2]),
        (json!({"add_bos_token": true}), [&[], &[]], &[0], &[]),
        (json!({"add_bos_token": true}), writes, &[0], &[]),
        (json!({"add_bos_token": false, "add_eos_token": false}), writes, &[], &[]),
        (json!({"add_eos_token": true}), writes, &[], &[2]),
        (json!({"add_bos_token": null}), writes, &[0], &[2]),
    ] {
        let tokenizer = tokenizer(with(keys.clone()), around, &[]);
        let whole = [before, &inner, after].concat();
        assert_eq!(tokenizer.encode("The cat", true).unwrap(), whole, "{keys}");
        assert_eq!(tokenizer.encode("The cat", false).unwrap(), inner, "{keys}");
        let spans = tokenizer.encode_spans("The cat", true).unwrap();
        assert_eq!(spans.iter().map(|span| span.id).collect::<Vec<_>>(), whole, "{keys}");
        let prompt = encode_prompt(&tokenizer, &plain(), &PromptText::Text("The cat".into())).unwrap();
        assert_eq!(prompt, [before, &inner].concat(), "a prompt goes on: {keys}");
        let pair = json!([{"prompt": "The cat", "chosen": " sat", "rejected": " ran"}]);
        let data = rows(pair, &plain(), &tokenizer).unwrap();
        assert_eq!(data.examples[0].prompt.to_vec(), prompt, "{keys}");
        assert!(data.examples[0].answers.iter().all(|answer| answer.iter().filter(|id| **id == 2).count() == 1));
        assert!(data.report.incidents.is_empty(), "{keys}: {:?}", data.report.counts());
    }
    let error = refused(json!({"eos_token": "<|im_end|>", "add_bos_token": true}), &[]);
    assert!(error.to_string().contains("add_bos_token = true"), "{error}");
}

#[test]
fn an_end_or_a_beginning_must_be_a_token() {
    for (config, more, words) in [
        (json!({"eos_token": "</end>"}), vec![], "eos_token is \"</end>\""),
        (json!({"eos_token": {"content": "</end>"}}), vec![], "eos_token is \"</end>\""),
        (json!({"bos_token": "<begin>", "eos_token": "<|im_end|>"}), vec![], "bos_token is \"<begin>\""),
        (json!({}), vec![("special_tokens_map.json", json!({"eos_token": "</end>"}).to_string())], "\"</end>\""),
        (json!({}), vec![("generation_config.json", json!({"eos_token_id": [2, 99_999]}).to_string())], "99999"),
        (json!({}), vec![("config.json", json!({"eos_token_id": 99_999}).to_string())], "99999"),
        (json!({}), vec![("generation_config.json", json!({"eos_token_id": "two"}).to_string())], "found \"two\""),
    ] {
        let error = refused(config.clone(), &more);
        assert!(error.to_string().contains(words), "{config} {more:?}: {error}");
        let is_token = matches!(error, DataError::NoSuchToken { .. });
        assert_eq!(error.hint().is_some_and(|hint| hint.contains("mend")), is_token);
    }
    // A pad token that nobody needs here may be missing.
    let tokenizer = tokenizer(json!({"eos_token": "<|im_end|>", "pad_token": "[PAD]"}), [&[], &[]], &[]);
    assert_eq!((tokenizer.special().pad, tokenizer.eos()), (None, Some(2)));
}

/// Qwen's base models: ChatML ends a turn with a token that is not their EOS.
#[test]
fn the_end_that_the_template_writes_ends_an_answer() {
    let config = json!({"eos_token": "<|endoftext|>"});
    let chat = tokenizer(config.clone(), [&[], &[]], &[("chat_template.jinja", CHATML.into())]);
    assert_eq!((chat.eos(), chat.special().turn_end, chat.terminators()), (Some(0), Some(2), &[0, 2][..]));
    let pair = json!([{"prompt": "q", "chosen": "good", "rejected": "bad"}]);
    let data = rows(pair.clone(), &TextSpec::default(), &chat).unwrap();
    assert!(data.report.incidents.is_empty(), "{:?}", data.report.counts());
    // A template that may only be rendered with a system message.
    let strict = format!("{{% if messages[0].role != 'system' %}}{{{{ raise_exception('no') }}}}{{% endif %}}{CHATML}");
    let strict = tokenizer(config.clone(), [&[], &[]], &[("chat_template.jinja", strict)]);
    assert_eq!(strict.terminators(), [0, 2]);
    // No token ends an answer of this one, and every row says so.
    let open = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    for config in [config, json!({})] {
        let open = tokenizer(config, [&[], &[]], &[("chat_template.jinja", open.into())]);
        assert_eq!(open.special().turn_end, None);
        let data = rows(pair.clone(), &TextSpec::default(), &open).unwrap();
        assert_eq!(data.report.counts(), [(Reason::NoTerminator, 1)].into());
    }
}

#[test]
fn rows_with_tools_take_the_template_for_tools() {
    let list = |names: &[&str]| {
        let entry = |name: &&str| json!({"name": name, "template": format!("{name} {{{{ (tools or []) | length }}}} {CHATML}")});
        json!({"eos_token": "<|im_end|>", "chat_template": names.iter().map(entry).collect::<Vec<_>>()})
    };
    let text = |tokenizer: &Tokenizer, tools: Value| {
        let row = json!([{"prompt": "q", "chosen": "a", "rejected": "b", "tools": tools}]);
        let data = rows(row, &TextSpec::default(), tokenizer)?;
        Ok::<_, DataError>(tokenizer.decode_with_special(&data.examples[0].prompt).unwrap())
    };
    let tools = json!([{"type": "function", "function": {"name": "now"}}]);
    let both = tokenizer(list(&["default", "tool_use"]), [&[], &[]], &[]);
    let folder: Vec<(&str, String)> = vec![
        ("chat_template.jinja", format!("default {CHATML}")),
        ("additional_chat_templates/tool_use.jinja", format!("tool_use {{{{ tools | length }}}} {CHATML}")),
    ];
    let folder = tokenizer(list(&["rag"]), [&[], &[]], &folder);
    for tokenizer in [&both, &folder] {
        assert!(text(tokenizer, tools.clone()).unwrap().starts_with("tool_use 1 "));
        assert!(text(tokenizer, Value::Null).unwrap().starts_with("default "));
    }
    assert_eq!(folder.settings().templates.len(), 2, "templates in files count alone");
    let single = tokenizer(list(&["default"]), [&[], &[]], &[]);
    assert!(text(&single, tools.clone()).unwrap().starts_with("default 1 "));

    let none = tokenizer(list(&["rag", "tool_use"]), [&[], &[]], &[]);
    assert!(text(&none, tools.clone()).unwrap().starts_with("tool_use 1 "));
    let error = text(&none, Value::Null).unwrap_err();
    assert!(error.to_string().contains("called rag, tool_use, and none is called default"), "{error}");
    assert!(error.hint().unwrap().contains("plain"));
    let row = json!([{"prompt": "q", "chosen": "a", "rejected": "b"}]);
    assert_eq!(rows(row, &plain(), &none).unwrap().examples.len(), 1, "a plain layout needs no template");
    assert!(refused(json!({"chat_template": 7}), &[]).to_string().contains("chat_template: found 7"));
}

#[test]
fn a_tokenizer_is_made_of_plain_values_too() {
    let given = files(
        json!({"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "add_bos_token": true}),
        [&[], &[]],
        &[("chat_template.jinja", CHATML.into())],
    );
    let of_files = Tokenizer::from_files(given.clone()).unwrap();
    let vocabulary = tokenizers::Tokenizer::from_bytes(&given["tokenizer.json"]).unwrap();
    let named =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
    let settings = TokenizerSettings {
        special: named(&[("bos_token", "<|endoftext|>"), ("eos_token", "<|im_end|>")]),
        add_bos: Some(true),
        add_eos: None,
        ends: vec![],
        templates: named(&[("default", CHATML)]),
    };
    let of_values = Tokenizer::new(vocabulary.clone(), settings.clone(), BTreeMap::new()).unwrap();
    assert_eq!(of_values.special(), of_files.special());
    assert_eq!(of_values.settings(), of_files.settings());
    let pair = json!([{"prompt": "q", "chosen": "good", "rejected": "bad"}]);
    let load = |tokenizer: &Tokenizer| rows(pair.clone(), &TextSpec::default(), tokenizer).unwrap().examples;
    assert_eq!(load(&of_values), load(&of_files));
    let more = TokenizerSettings { ends: vec![3], ..settings };
    let more = Tokenizer::new(vocabulary, more, BTreeMap::new()).unwrap();
    assert_eq!(more.terminators(), [2, 3]);
    assert_ne!(more.fingerprint(), of_values.fingerprint());
}

#[test]
fn a_pointer_of_git_is_not_the_file() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 7\n";
    let directory = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "pairs.jsonl", "pairs.parquet", "pairs.csv"] {
        std::fs::write(directory.path().join(name), pointer).unwrap();
    }
    let error = Tokenizer::from_dir(directory.path()).unwrap_err();
    assert!(error.to_string().ends_with("tokenizer.json is a Git LFS pointer, not the file itself"), "{error}");
    for name in ["pairs.jsonl", "pairs.parquet", "pairs.csv"] {
        let spec = spo_data::DataSpec::new(directory.path().join(name).to_string_lossy());
        let error = spo_data::load(&[spec], &plain(), &tiny("llama"), &mut |_| ()).unwrap_err();
        assert!(matches!(&error, DataError::LfsPointer { path } if path.ends_with(name)), "{error}");
        assert!(error.hint().unwrap().contains("git lfs pull"));
    }
    // What only begins alike is a file.
    let row = b"{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\"}";
    assert!(load_bytes("pairs.jsonl", row, &Default::default(), &plain(), &tiny("llama")).is_ok());
}
