//! Token ids and chat renders against those of transformers.

use crate::common::{fixture, ids, json, root, stories, tiny, unpacked};
use spo_data::{ChatTemplate, DataError, Message, RenderOptions, Tokenizer};
use std::collections::BTreeMap;

const CONFIG: &str = "tokenizer_config.json";

fn golden_messages() -> Vec<Message> {
    let golden = json(&fixture("tokenizers/golden_chat_render.json"));
    serde_json::from_value(golden["messages"].clone()).unwrap()
}

#[test]
fn golden_ids_of_real_tokenizers() {
    let golden = json(&fixture("tokenizers/golden_ids.json"));
    let pairs = ["vocab.json.gz", "merges.txt.gz", "special_tokens_map.json", CONFIG];
    let cases: [(&str, &[&str]); 4] = [
        ("gpt2", &["tokenizer.json.gz", CONFIG]),
        ("gpt2", &pairs),
        ("phi-3-mini", &["tokenizer.json.gz", CONFIG]),
        ("qwen3", &["vocab.json.gz", "merges.txt.gz", "special_tokens_map.json", "added_tokens.json", CONFIG]),
    ];
    for (name, files) in cases {
        let directory = unpacked(name, files);
        let tokenizer = Tokenizer::from_dir(directory.path()).unwrap();
        for (text, expected) in [("text", "ids"), ("text2", "ids2")] {
            let text = golden[name][text].as_str().unwrap();
            let found = tokenizer.encode(text, true).unwrap();
            assert_eq!(found, ids(&golden[name][expected]), "{name} {files:?}");
            assert_eq!(tokenizer.decode(&found).unwrap(), text, "{name}");
        }
        assert!(tokenizer.eos().is_some(), "{name}");
    }
    let qwen = unpacked("qwen3", &["vocab.json.gz", "merges.txt.gz", "added_tokens.json", CONFIG]);
    let tokenizer = Tokenizer::from_dir(qwen.path()).unwrap();
    assert_eq!(tokenizer.encode("<|im_end|>", true).unwrap(), [151_645]);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, Some(151_645)));
}

#[test]
fn golden_ids_of_tiny_and_built_in_tokenizers() {
    for family in ["llama", "qwen3"] {
        let tokenizer = tiny(family);
        let golden = json(&fixture(&format!("trl/tokenizer-{family}.golden.json")));
        for case in golden.as_array().unwrap() {
            let found = tokenizer.encode(case["text"].as_str().unwrap(), true).unwrap();
            assert_eq!(found, ids(&case["ids"]));
            assert_eq!(tokenizer.decode_with_special(&found).unwrap(), case["decoded"].as_str().unwrap());
        }
    }
    let tokenizer = stories();
    let golden = json(&root().join("spo-cli/assets/stories260K/golden.json"));
    for case in golden["tokenize"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let found = tokenizer.encode(text, true).unwrap();
        assert_eq!(found, ids(&case["ids"]), "{text}");
        assert_eq!(tokenizer.decode(&found).unwrap(), text);
    }
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
}

#[test]
fn golden_renders_of_chat_templates() {
    let golden = json(&fixture("tokenizers/golden_chat_render.json"));
    let messages = golden_messages();
    let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    let special =
        BTreeMap::from([("bos_token".to_string(), "<s>".to_string()), ("eos_token".to_string(), "</s>".to_string())]);
    let mut checked = 0;
    for (name, expected) in golden["rendered"].as_object().unwrap() {
        let found = if let Some(file) = name.strip_prefix("cz/") {
            let source = std::fs::read_to_string(fixture("tokenizers/chat_templates").join(file)).unwrap();
            ChatTemplate::new(&source, special.clone()).unwrap().render(&messages, &options)
        } else if name == "phi-3-mini" {
            let directory = unpacked(name, &["tokenizer.json.gz", CONFIG]);
            let tokenizer = Tokenizer::from_dir(directory.path()).unwrap();
            tokenizer.template().unwrap().render(&messages, &options)
        } else {
            continue;
        };
        assert_eq!(found.unwrap(), expected.as_str().unwrap(), "{name}");
        checked += 1;
    }
    assert_eq!(checked, 9);
}

/// All 16 templates on seven conversations, as transformers 5.23 renders or refuses them.
#[test]
fn every_template_renders_every_conversation_as_transformers_does() {
    let golden = json(&fixture("tokenizers/golden_templates.json"));
    let special: BTreeMap<String, String> = serde_json::from_value(golden["special"].clone()).unwrap();
    let templates = golden["rendered"].as_object().unwrap();
    assert_eq!(templates.len(), 16);
    for (file, cases) in templates {
        let source = std::fs::read_to_string(fixture("tokenizers/chat_templates").join(file)).unwrap();
        let template = ChatTemplate::new(&source, special.clone()).unwrap();
        for (case, expected) in cases.as_object().unwrap() {
            let mut variables = golden["cases"][case].as_object().unwrap().clone();
            let messages: Vec<Message> = serde_json::from_value(variables.remove("messages").unwrap()).unwrap();
            let tools = variables.remove("tools");
            let options = RenderOptions {
                add_generation_prompt: variables.remove("add_generation_prompt").unwrap() == true,
                tools: tools.as_ref(),
                variables: Some(&variables),
            };
            match (template.render(&messages, &options), expected["text"].as_str()) {
                (Ok(found), Some(text)) => assert_eq!(found, text, "{file} {case}"),
                (Err(error), None) => {
                    let error = error.to_string();
                    assert!(error.contains(expected["error"].as_str().unwrap()), "{file} {case}: {error}");
                }
                (found, expected) => panic!("{file} {case}: {found:?} against {expected:?}"),
            }
        }
    }
}

#[test]
fn qwen3_renders_tools_and_thinking() {
    let qwen = unpacked("qwen3", &["vocab.json.gz", "merges.txt.gz", "added_tokens.json", CONFIG]);
    let tokenizer = Tokenizer::from_dir(qwen.path()).unwrap();
    let template = tokenizer.template().unwrap();
    let variables = serde_json::json!({"enable_thinking": false});
    let tools = serde_json::json!([{"type": "function", "function": {"name": "now", "a": [1, true, null]}}]);
    let options = RenderOptions { add_generation_prompt: true, tools: Some(&tools), variables: variables.as_object() };
    let text = template.render(&[Message::new("user", "Hi <you> & 'me'")], &options).unwrap();
    let tool = r#"{"type": "function", "function": {"name": "now", "a": [1, true, null]}}"#;
    assert!(text.contains(&format!("<tools>\n{tool}\n</tools>")), "{text}");
    let end = "<|im_start|>user\nHi <you> & 'me'<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
    assert!(text.ends_with(end), "{text}");
}

#[test]
fn templates_have_the_extensions_of_transformers() {
    let render = |source: &str| {
        let template = ChatTemplate::new(source, BTreeMap::new())?;
        template.render(&golden_messages(), &RenderOptions::default())
    };
    let error = render("{{ raise_exception('only two turns') }}").unwrap_err().to_string();
    assert!(error.contains("only two turns"), "{error}");
    assert_eq!(render("{{ strftime_now('%Y') | length }}").unwrap(), "4");
    assert_eq!(
        render("{{ {'b': ['é', 1.5], 'a': {}} | tojson(indent=2) }}").unwrap(),
        "{\n  \"b\": [\n    \"é\",\n    1.5\n  ],\n  \"a\": {}\n}"
    );
    assert_eq!(
        render("{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}")
            .unwrap(),
        "Hi"
    );
    assert_eq!(render("{{ ' a '.strip() + 'b'.upper() + messages[0]['content'].lower() }}").unwrap(), "aBhi");
    assert_eq!(render("{{ messages[-1]['content'] }}{{ messages[1:] | length }}").unwrap(), "Bye2");
    assert!(render("{{").is_err());
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}";
    assert!(render(endless).unwrap_err().to_string().contains("fuel"));
    let clocks = "{% for a in range(99999) %}{{ strftime_now('%Y') }}{% endfor %}";
    assert!(render(clocks).unwrap_err().to_string().contains("fuel"));
    assert_eq!(
        render("{{ 'a\nb' | indent(2, true) }}{{ '%02d' | format(7) }}{{ '{}-{:>3}'.format(1, 2) }}").unwrap(),
        "  a\n  b071-  2"
    );
    for hostile in [
        "{{ 'a' | indent(99999999999) }}",
        "{{ [1] | tojson(indent=99999999999) }}",
        "{{ '%99999999999d' | format(1) }}",
        "{{ '{:99999999999}'.format(1) }}",
        "{{ 'a' * 99999999999 }}",
        "{% for i in range(99999) %}{{ 'a' * 1000000 }}{% endfor %}",
    ] {
        assert!(render(hostile).is_err(), "{hostile}");
    }
    // Recursion and huge repeats must not take the process down either.
    assert!(render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").is_err());
}

#[test]
fn generation_blocks_give_spans() {
    let source = "{% for m in messages %}{% if m.role == 'assistant' %}\nA:{% generation %}\n{{ m.content }}<e>{% endgeneration %}\n{% else %}U:{{ m.content }}{% endif %}{% endfor %}";
    let template = ChatTemplate::new(source, BTreeMap::new()).unwrap();
    let (text, spans) = template.render_spans(&golden_messages(), &RenderOptions::default()).unwrap();
    assert_eq!(text, "U:HiA:Yo<e>U:Bye");
    assert_eq!(spans.iter().map(|span| &text[span.clone()]).collect::<Vec<_>>(), ["Yo<e>"]);
}

#[test]
fn broken_directories_say_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Tokenizer::from_dir(directory.path()).unwrap_err();
    assert!(open().to_string().contains("no tokenizer.json"));
    std::fs::write(directory.path().join("tokenizer.model"), b"x").unwrap();
    assert!(open().to_string().contains("save_pretrained"));
    std::fs::write(directory.path().join("tokenizer.json"), b"{\"model\":").unwrap();
    assert!(matches!(open(), DataError::BadTokenizer { file, .. } if file == "tokenizer.json"));
    let absent = Tokenizer::from_dir(&directory.path().join("absent")).unwrap_err();
    assert!(absent.to_string().contains("no such directory"));
}

#[test]
fn exported_files_rebuild_the_tokenizer() {
    let tokenizer = tiny("llama");
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in tokenizer.files() {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let again = Tokenizer::from_dir(directory.path()).unwrap();
    assert_eq!(again.fingerprint(), tokenizer.fingerprint());
    assert_ne!(again.fingerprint(), stories().fingerprint());
    let spans = tokenizer.encode_spans("Hello café", false).unwrap();
    assert_eq!(spans[0].offsets, (0, 1));
    assert_eq!(spans.last().unwrap().offsets.1, "Hello café".len());
}

#[test]
fn chat_prompts_encoded_in_parts_equal_the_whole_text() {
    use spo_data::{AnswerText, PromptText, TextSpec};
    let record = |prompt: &str, answer: &str| spo_data::Record {
        id: "a".into(),
        system: None,
        prompt: PromptText::Messages(vec![
            Message::new("user", prompt),
            Message::new("assistant", " \n<|im_end|> x"),
            Message::new("user", "é <|im_start|>"),
        ]),
        answers: vec![AnswerText::Text(answer.into()), AnswerText::Text("<|im_start|>".into())],
        labels: BTreeMap::new(),
        scores: BTreeMap::new(),
        safe: vec![],
        tags: BTreeMap::new(),
        tools: None,
        variables: serde_json::Map::new(),
        source: None,
    };
    for family in ["llama", "qwen3"] {
        let tokenizer = tiny(family);
        let template = tokenizer.template().unwrap();
        for (prompt, answer) in [("Hi", "Yo"), ("  ", " 12 "), ("<|im_", "start|>"), ("日本 🙂", "\u{301}a")] {
            let record = record(prompt, answer);
            let PromptText::Messages(mut messages) = record.prompt.clone() else { unreachable!() };
            messages.push(Message::new("assistant", answer));
            let text = template.render(&messages, &RenderOptions::default()).unwrap();
            let (example, _) = spo_data::encode_record(&tokenizer, &TextSpec::default(), record).unwrap();
            let example = example.unwrap();
            let found = [&example.prompt[..], &example.answers[0]].concat();
            assert_eq!(found, tokenizer.encode(&text, false).unwrap(), "{text:?}");
        }
    }
}
