//! What becomes of a row's text: limits, boundaries, special tokens, turns and templates.

use crate::common::{objects, plain, rows, stories, tiny};
use serde_json::json;
use spo_data::{
    AnswerText, DataError, DataSpec, Message, Overflow, PromptText, Reason, Supervise, TemplateKind, TextSpec,
    Tokenizer, encode_prompt, load_bytes, load_rows,
};

#[test]
fn empty_long_and_unterminated_rows_are_counted() {
    let tokenizer = tiny("llama");
    let pair = |chosen: &str| json!({"prompt": "q", "chosen": chosen, "rejected": "bad"});
    let data = rows(json!([pair("good"), pair(""), pair(" \n"), pair("bad")]), &plain(), &tokenizer).unwrap();
    assert_eq!(data.examples.len(), 2);
    assert_eq!(data.report.counts(), [(Reason::EmptyAnswer, 2), (Reason::IdenticalAnswers, 1)].into());
    assert_eq!(data.report.incidents[0].id, "rows:2");
    assert!(data.examples.iter().all(|example| { example.answers.iter().all(|answer| answer.last() == Some(&2)) }));
    let open = TextSpec { append_eos: false, ..plain() };
    let data = rows(json!([pair("good")]), &open, &tokenizer).unwrap();
    assert_eq!(data.report.counts(), [(Reason::NoTerminator, 1)].into());
    let long = json!([{"prompt": "q ".repeat(50).trim(), "chosen": "a", "rejected": "b c"}]);
    let cut = TextSpec { max_length: Some(20), ..plain() };
    let data = rows(long.clone(), &cut, &tokenizer).unwrap();
    assert_eq!(data.report.counts(), [(Reason::PromptCut, 1)].into());
    let example = &data.examples[0];
    let longest = example.answers.iter().map(|answer| answer.len()).max().unwrap();
    assert_eq!(example.prompt.len() + longest, 20);
    assert!(example.answers.iter().all(|answer| answer.last() == Some(&2)));
    let drop = TextSpec { overflow: Overflow::Drop, ..cut };
    let data = rows(long, &drop, &tokenizer).unwrap();
    assert_eq!((data.examples.len(), data.report.counts()), (0, [(Reason::TooLong, 1)].into()));
    let no_prompt = rows(json!([{"prompt": "", "completion": "a"}]), &plain(), &tokenizer).unwrap();
    assert_eq!(no_prompt.report.counts(), [(Reason::EmptyPrompt, 1)].into());
}

#[test]
fn tokens_that_merge_across_the_boundary_count_as_answer() {
    let tokenizer = tiny("llama");
    let row = json!([{"prompt": "Hel", "chosen": "lo world", "rejected": "p me"}]);
    let data = rows(row, &plain(), &tokenizer).unwrap();
    let example = &data.examples[0];
    for (answer, text) in [(0, "Hello world"), (1, "Help me")] {
        let ids = [&example.prompt[..], &example.answers[answer]].concat();
        assert_eq!(ids[..ids.len() - 1], tokenizer.encode(text, true).unwrap());
    }
    let moved = example.prompt != tokenizer.encode("Hel", true).unwrap();
    assert_eq!(moved, data.report.counts().contains_key(&Reason::BoundaryMoved));
}

#[test]
fn special_tokens_come_once() {
    let tokenizer = stories();
    let ids = encode_prompt(&tokenizer, &plain(), &PromptText::Text("Once upon".into())).unwrap();
    assert_eq!(ids.iter().filter(|id| **id == 1).count(), 1);
    let template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}";
    let files: std::collections::BTreeMap<_, _> = tokenizer.files().collect();
    let chat = Tokenizer::from_bytes(files["tokenizer.json"], files["tokenizer_config.json"], Some(template)).unwrap();
    let prompt = PromptText::Messages(vec![Message::new("user", "Once upon")]);
    let ids = encode_prompt(&chat, &TextSpec::default(), &prompt).unwrap();
    assert_eq!((ids[0], ids.iter().filter(|id| **id == 1).count(), *ids.last().unwrap()), (1, 1, 2));
    let pair =
        json!([{"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}]);
    let data = rows(pair, &TextSpec::default(), &chat).unwrap();
    assert_eq!(data.examples[0].answers[0].iter().filter(|id| **id == 2).count(), 1);
}

#[test]
fn settings_that_contradict_are_refused() {
    let tokenizer = tiny("llama");
    let check = |text: TextSpec, tokenizer: &Tokenizer| {
        encode_prompt(tokenizer, &text, &PromptText::Text("q".into())).map(|_| ()).unwrap_err()
    };
    let format = TextSpec { prompt_format: Some("no place".into()), ..TextSpec::default() };
    assert!(check(format, &tokenizer).to_string().contains("{prompt}"));
    let both = TextSpec { template: TemplateKind::Chat, prompt_format: Some("{prompt}".into()), ..TextSpec::default() };
    assert!(matches!(check(both, &tokenizer), DataError::BadSetting { .. }));
    let chat = TextSpec { template: TemplateKind::Chat, ..TextSpec::default() };
    assert!(check(chat, &stories()).hint().unwrap().contains("plain"));
    let short = TextSpec { max_length: Some(1), ..TextSpec::default() };
    assert!(check(short, &tokenizer).to_string().contains("max-length"));
    assert!(AnswerText::Text(" ".into()).is_empty());
}

#[test]
fn multi_turn_plain_prompts_are_transcripts() {
    let tokenizer = tiny("llama");
    let turns = vec![
        Message::new("system", "Be brief."),
        Message::new("user", "a"),
        Message::new("assistant", "b"),
        Message::new("user", "c"),
    ];
    let text = |spec: &TextSpec, turns: &[Message]| {
        let ids = encode_prompt(&tokenizer, spec, &PromptText::Messages(turns.to_vec())).unwrap();
        tokenizer.decode(&ids).unwrap()
    };
    let transcript = "Be brief.\n\n\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:";
    assert_eq!(text(&plain(), &turns), transcript);
    let format = TextSpec { prompt_format: Some("Q: {prompt}\nA:".into()), ..plain() };
    assert_eq!(text(&format, &turns[1..2]), "Q: a\nA:");
    let system = TextSpec { system: Some("Short.".into()), ..TextSpec::default() };
    let ids = encode_prompt(&tokenizer, &system, &PromptText::Text("a".into())).unwrap();
    let chat = tokenizer.decode_with_special(&ids).unwrap();
    assert_eq!(chat, "<|im_start|>system\nShort.<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n");
}

#[test]
fn a_preview_shows_what_is_trained() {
    let row = json!([{"prompt": "Once upon", "chosen": " a time", "rejected": " the hill"}]);
    let tokenizer = stories();
    let data = rows(row, &plain(), &tokenizer).unwrap();
    let [prompt, answer] = data.examples[0].preview(&tokenizer, 0).unwrap();
    assert!(prompt.text.ends_with("Once upon") && !prompt.supervised, "{prompt:?}");
    assert_eq!((answer.text.as_str(), answer.supervised), (" a time</s>", true));
}

#[test]
fn weights_and_turns_multiply_rows() {
    let tokenizer = tiny("llama");
    let row = |answer: &str| json!({"prompt": "q?", "completion": answer});
    let data = objects(&json!([row("a"), row("b"), row("c"), row("d")]));
    let read = |weight: f64| {
        let spec = DataSpec { weight: Some(weight), ..DataSpec::default() };
        load_rows("rows", data.clone(), &spec, &plain(), &tokenizer)
    };
    let ids = |weight| {
        let examples = read(weight).unwrap().examples;
        examples.into_iter().map(|example| example.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(0.5), ["rows:2", "rows:4"]);
    assert_eq!(ids(1.5), ["rows:1", "rows:2", "rows:2#2", "rows:3", "rows:4", "rows:4#2"]);
    assert!(matches!(read(f64::NAN), Err(DataError::BadSetting { key: "weight", .. })));
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    let chat =
        json!([{"messages": [turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d")]}]);
    let every = TextSpec { supervise: Supervise::EveryTurn, ..TextSpec::default() };
    let data = rows(chat, &every, &tokenizer).unwrap();
    assert_eq!(data.examples.len(), 2);
    assert!(data.examples[1].prompt.starts_with(&data.examples[0].prompt));
    let empty = load_bytes("a.jsonl", b"\n", &DataSpec::default(), &plain(), &tokenizer);
    assert_eq!(empty.unwrap_err().to_string(), "a.jsonl: the file has no rows");
}

#[test]
fn rows_that_the_template_refuses_are_named() {
    let tokenizer = tiny("llama");
    let files: std::collections::BTreeMap<_, _> = tokenizer.files().collect();
    let template = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}{{ m.content }}{% endfor %}";
    let strict =
        Tokenizer::from_bytes(files["tokenizer.json"], files["tokenizer_config.json"], Some(template)).unwrap();
    let row = |role: &str| json!({"prompt": [{"role": role, "content": "q "}], "completion": "a"});
    let error = rows(json!([row("user"), row("tool")]), &TextSpec::default(), &strict).unwrap_err();
    assert!(error.to_string().starts_with("row rows:2: chat template: "), "{error}");
    assert!(error.to_string().contains("no tools"), "{error}");
}

#[test]
fn transcripts_that_part_at_once_are_counted() {
    let row = |text: &str| format!("\n\nHuman: {text}\n\nAssistant: b");
    let data = json!([
        {"chosen": row("q"), "rejected": row("other")},
        {"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b"},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b\n\nHuman: r\n\nAssistant: c"},
    ]);
    for text in [TextSpec::default(), plain()] {
        let data = rows(data.clone(), &text, &tiny("llama")).unwrap();
        let counts = [(Reason::EmptyPrompt, 2), (Reason::OtherTurnsScored, 1)].into();
        assert_eq!((data.examples.len(), data.report.counts()), (1, counts));
    }
}
