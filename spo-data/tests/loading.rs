//! Whole files to examples, against TRL's tokenisation and the counts of real data.
#![allow(clippy::unwrap_used)]

mod common;

use common::{fixture, ids, json, root, stories, tiny};
use serde_json::{Map, Value, json};
use spo_data::{
    AnswerText, DataError, DataSpec, Dataset, Message, Overflow, Preference, PromptText, Reason, Supervise,
    TemplateKind, TextSpec, Tokenizer, encode_prompt, load, load_bytes, load_rows,
};

/// Expected (chosen, rejected) per dimension.
type Pairs = Vec<(&'static str, (usize, usize))>;

fn objects(value: &Value) -> Vec<Map<String, Value>> {
    value.as_array().unwrap().iter().map(|row| row.as_object().unwrap().clone()).collect()
}

fn plain() -> TextSpec {
    TextSpec { template: TemplateKind::Plain, ..TextSpec::default() }
}

fn rows(rows: Value, text: &TextSpec, tokenizer: &Tokenizer) -> Result<Dataset, DataError> {
    load_rows("rows", objects(&rows), &DataSpec::default(), text, tokenizer)
}

#[test]
fn trl_tokenisation_is_equal() {
    for family in ["llama", "qwen3"] {
        let golden = json(&fixture(&format!("trl/{family}-tiny.json")));
        let tokenizer = tiny(family);
        let data = rows(golden["rows"].clone(), &TextSpec::default(), &tokenizer).unwrap();
        let expected = golden["tokenised"].as_array().unwrap();
        assert_eq!(data.examples.len(), expected.len());
        for (example, expected) in data.examples.iter().zip(expected) {
            assert_eq!(example.prompt, ids(&expected["prompt_ids"]));
            assert_eq!(example.answers[0], ids(&expected["chosen_ids"]));
            assert_eq!(example.answers[1], ids(&expected["rejected_ids"]));
        }
        let kto: Vec<Value> = golden["rows"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|row| {
                [("chosen", true), ("rejected", false)]
                    .map(|(side, label)| json!({"prompt": row["prompt"], "completion": row[side], "label": label}))
            })
            .collect();
        let kto = rows(Value::Array(kto), &TextSpec::default(), &tokenizer).unwrap();
        let by_label = |label: bool| {
            let golden = golden["kto_rows_tokenised"].as_array().unwrap();
            golden.iter().filter(|row| row["label"] == label).map(|row| ids(&row["completion_ids"])).collect::<Vec<_>>()
        };
        let found = |label| {
            let wanted = kto.examples.iter().filter(|example| example.labels["preference"] == label);
            wanted.map(|example| example.answers[0].clone()).collect::<Vec<_>>()
        };
        assert_eq!(found(Preference::First), by_label(true));
        assert_eq!(found(Preference::Second), by_label(false));
    }
}

#[test]
fn trl_truncated_batch_is_equal() {
    for family in ["llama", "qwen3"] {
        let golden = json(&fixture(&format!("trl/{family}-tiny.json")));
        let text = TextSpec {
            max_length: Some(golden["max_length"].as_u64().unwrap() as usize),
            overflow: Overflow::KeepStart,
            ..TextSpec::default()
        };
        let data = rows(golden["rows"].clone(), &text, &tiny(family)).unwrap();
        let batch = &golden["batch"];
        for (index, example) in data.examples.iter().enumerate() {
            for answer in 0..2 {
                let row = index + answer * data.examples.len();
                let length = ids(&batch["attention_mask"][row]).iter().sum::<u32>() as usize;
                let expected = &ids(&batch["input_ids"][row])[..length];
                assert_eq!([&example.prompt[..], &example.answers[answer]].concat(), expected);
                let scored = ids(&batch["completion_mask"][row]).iter().sum::<u32>() as usize;
                assert_eq!(example.answers[answer].len(), scored);
            }
        }
        assert_eq!(data.report.counts()[&Reason::AnswerCut], 2);
    }
}

#[test]
fn truthfulqa_counts() {
    let path = root().join("spo-cli/assets/truthfulqa/pairs.train.jsonl.gz");
    let text = text_spec();
    let tokenizer = stories();
    let mut seen = 0;
    let spec = DataSpec::new(path.to_string_lossy());
    let data = load(std::slice::from_ref(&spec), &text, &tokenizer, &mut |rows| seen = rows).unwrap();
    assert_eq!((seen, data.report.rows()), (9634, 9634));
    assert_eq!(data.report.files[0].schema, "prefs");
    let dropped = data.report.incidents.iter().filter(|incident| incident.reason.dropped()).count();
    assert_eq!(data.examples.len() + dropped, 9634);
    assert!(data.report.counts().keys().all(|reason| !matches!(reason, Reason::NoTerminator)));
    let first = &data.examples[0];
    assert_eq!(first.id, "pairs.train.jsonl.gz:1");
    assert_eq!(first.prompt[0], 1, "BOS by the tokenizer");
    let text = tokenizer.decode(&[&first.prompt[..], &first.answers[0]].concat()).unwrap();
    assert!(text.starts_with("Question: ") && text.contains("\nAnswer: "), "{text}");
    let conflicts = data.conflicts(3);
    assert_eq!((conflicts[0].first.as_str(), conflicts[0].second.as_str()), ("helpfulness", "honesty"));
    assert_eq!((conflicts[0].agree, conflicts[0].conflict), (859, 2913));
    assert!(conflicts[0].kappa.unwrap().high < 0.0);
    let bytes = std::fs::read(path).unwrap();
    let few = DataSpec { limit: Some(100), ..spec };
    let plain = TextSpec { template: TemplateKind::Plain, ..text_spec() };
    let same = load_bytes("pairs.train.jsonl.gz", &bytes, &few, &plain, &tokenizer).unwrap();
    assert_eq!(same.examples, data.examples[..100]);
}

fn text_spec() -> TextSpec {
    TextSpec {
        prompt_format: Some("Question: {prompt}\nAnswer:".into()),
        response_format: Some(" {response}".into()),
        max_length: Some(512),
        ..TextSpec::default()
    }
}

#[test]
fn hh_transcripts_are_verbatim_in_the_plain_layout() {
    let spec = DataSpec::new(fixture("hh_harmless/test.jsonl.gz").to_string_lossy());
    let tokenizer = tiny("llama");
    let data = load(std::slice::from_ref(&spec), &plain(), &tokenizer, &mut |_| ()).unwrap();
    assert_eq!(data.report.files[0].schema, "hh");
    assert_eq!(data.report.rows(), 2312);
    let dropped: usize =
        data.report.counts().iter().filter(|(reason, _)| reason.dropped()).map(|(_, count)| count).sum();
    assert_eq!(data.examples.len() + dropped, 2312);
    let path = fixture("hh_harmless/test.jsonl.gz");
    let format = spo_data::format::find("a.jsonl.gz", None).unwrap();
    let source = std::fs::File::open(path).unwrap();
    let rows = (format.open)(spo_data::format::Input::File(source), "hh").unwrap();
    let by_id: std::collections::HashMap<_, _> =
        data.examples.iter().map(|example| (example.id.clone(), example)).collect();
    let mut verbatim = 0;
    for row in rows {
        let row = row.unwrap();
        let id = format!("test.jsonl.gz:{}", row.line);
        let Some(example) = by_id.get(&id) else {
            continue;
        };
        let text = tokenizer.decode(&[&example.prompt[..], &example.answers[0]].concat()).unwrap();
        verbatim += usize::from(text == row.fields["chosen"].as_str().unwrap());
    }
    assert!(verbatim * 100 >= data.examples.len() * 99, "{verbatim} of {}", data.examples.len());
    let few = DataSpec { limit: Some(3), ..spec };
    let chat = load(&[few], &TextSpec::default(), &tokenizer, &mut |_| ()).unwrap();
    let text = tokenizer.decode_with_special(&chat.examples[0].prompt).unwrap();
    assert!(text.starts_with("<|im_start|>user\n") && text.ends_with("<|im_start|>assistant\n"));
}

#[test]
fn every_layout_is_recognised() {
    let message = |role: &str, text: &str| json!({"role": role, "content": text});
    let (user, good, bad) = (message("user", "q"), message("assistant", "good"), message("assistant", "bad"));
    let pair: Pairs = vec![("preference", (0, 1))];
    let cases: Vec<(&str, Value, Pairs)> = vec![
        ("token-ids", json!({"prompt_ids": [1, 5], "chosen_ids": [6, 2], "rejected_ids": [7]}), pair.clone()),
        ("completion-ids", json!({"prompt_ids": [1, 5], "completion_ids": [6, 2]}), vec![]),
        (
            "prefs",
            json!({"prompt": "q", "response_a": "a", "response_b": "b", "prefs": {"x": -1, "y": 1, "z": 0, "w": null}}),
            vec![("x", (1, 0)), ("y", (0, 1))],
        ),
        (
            "pku-safe-rlhf",
            json!({"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 1, "is_response_0_safe": true}),
            vec![("harmlessness", (1, 0)), ("helpfulness", (0, 1))],
        ),
        (
            "ultrafeedback",
            json!({"instruction": "q", "completions": [
            {"response": "a", "annotations": {"honesty": {"Rating": "3"}, "helpfulness": {"Rating": "N/A"}}},
            {"response": "b", "annotations": {"honesty": {"Rating": "5"}, "helpfulness": {"Rating": "4"}}},
            {"response": "c", "annotations": {"honesty": {"Rating": 1}, "helpfulness": {"Rating": "4"}}}]}),
            vec![("honesty", (1, 2))],
        ),
        (
            "helpsteer3",
            json!({"context": [user], "response1": "a", "response2": "b", "overall_preference": 2}),
            vec![("preference", (1, 0))],
        ),
        (
            "scored-list",
            json!({"prompt": "q", "responses": ["a", "b", "c"], "scores": {"x": [1, 3, 2]}}),
            vec![("x", (1, 0))],
        ),
        (
            "scored-list",
            json!({"prompt": "q", "responses": ["a", "b", "c"], "scores": [0.5, 1, 2]}),
            vec![("preference", (2, 0))],
        ),
        (
            "hh",
            json!({"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"}),
            pair.clone(),
        ),
        ("trl", json!({"prompt": "q", "chosen": "good", "rejected": "bad"}), pair.clone()),
        ("trl", json!({"prompt": [user], "chosen": [good], "rejected": [bad]}), pair.clone()),
        (
            "trl",
            json!({"prompt": "q", "prompt_id": "x", "chosen": [user, good], "rejected": [user, bad], "score_chosen": 8.0, "score_rejected": 3.5}),
            pair.clone(),
        ),
        ("trl-implicit", json!({"chosen": [user, good], "rejected": [user, bad]}), pair.clone()),
        ("trl-implicit", json!({"chosen": "the sky is blue", "rejected": "the sky is green"}), pair.clone()),
        ("kto", json!({"prompt": "q", "completion": "good", "label": false}), vec![]),
        ("sft", json!({"prompt": "q", "completion": "good"}), vec![]),
        ("messages", json!({"messages": [user, good]}), vec![]),
    ];
    let tokenizer = tiny("llama");
    for text in [TextSpec::default(), plain()] {
        for (schema, row, pairs) in &cases {
            let data = rows(json!([row]), &text, &tokenizer).unwrap();
            assert_eq!(data.report.files[0].schema, *schema);
            let example = data.examples.first().unwrap_or_else(|| panic!("{schema}: {:?}", data.report));
            for (dimension, pair) in pairs {
                assert_eq!(example.pair(dimension), Some(*pair), "{schema} {dimension}");
            }
            let labelled = example.dimensions().filter(|name| example.pair(name).is_some()).count();
            assert_eq!(labelled, pairs.len(), "{schema}");
        }
    }
    let registered = spo_data::schema::SCHEMAS.iter().map(|schema| schema.name);
    for name in registered.filter(|name| !["text", "helpsteer2"].contains(name)) {
        assert!(cases.iter().any(|case| case.0 == name), "{name} has no case");
    }
    let text = rows(json!([{"text": "Once upon a time"}]), &TextSpec::default(), &stories()).unwrap();
    assert_eq!((text.report.files[0].schema.as_str(), text.examples[0].prompt.as_slice()), ("text", &[1][..]));
}

#[test]
fn helpsteer2_rows_merge_into_pairs() {
    let row = |prompt: &str, response: &str, helpfulness: u32| {
        json!({"prompt": prompt, "response": response, "helpfulness": helpfulness, "correctness": 2,
            "coherence": 4, "complexity": 1, "verbosity": 5 - helpfulness})
    };
    let data = json!([
        row("a?\n", "x", 1),
        row("a?\n", "y", 4),
        row("b?\n", "x", 3),
        row("c?\n", "x", 2),
        row("c?\n", "y", 2)
    ]);
    let data = rows(data, &plain(), &tiny("llama")).unwrap();
    assert_eq!(data.examples.len(), 3);
    assert_eq!(data.examples[0].pair("helpfulness"), Some((1, 0)));
    assert_eq!(data.examples[0].pair("verbosity"), Some((0, 1)));
    assert_eq!(data.examples[1].pair("helpfulness"), None);
    let counts = data.dimensions()["helpfulness"];
    assert_eq!((counts.pairs, counts.ties), (1, 1));
}

#[test]
fn merged_rows_stay_together_across_chunks() {
    let row = |prompt: usize, response: &str| {
        json!({"prompt": format!("p{prompt}"), "response": response, "helpfulness": 1, "correctness": 2,
            "coherence": 4, "complexity": 1, "verbosity": 1})
    };
    let data: Vec<Value> = (0..1500).flat_map(|prompt| [row(prompt, "x"), row(prompt, "y")]).collect();
    let data = rows(Value::Array(data), &plain(), &tiny("llama")).unwrap();
    assert_eq!(data.examples.len(), 1500);
    assert!(data.examples.iter().all(|example| example.answers.len() == 2));
}

#[test]
fn errors_name_file_line_keys_and_spelling() {
    let tokenizer = tiny("llama");
    let read = |text: &str, spec: DataSpec| {
        load_bytes("a.jsonl", text.as_bytes(), &spec, &TextSpec::default(), &tokenizer).unwrap_err()
    };
    let good = "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\"}\n";
    let error =
        read(&format!("{good}\n{{\"prompt\":\"q\",\"choosen\":\"a\",\"rejected\":\"b\"}}\n"), DataSpec::default());
    let message = error.to_string();
    assert!(
        message.starts_with("a.jsonl:3: schema trl needs the key \"chosen\"; the row has prompt, choosen"),
        "{message}"
    );
    assert!(error.hint().unwrap().contains("columns.chosen = \"choosen\""), "{:?}", error.hint());
    let error = read("{\"prompt\":\"q\",\"choosen\":\"a\",\"rejected\":\"b\"}\n", DataSpec::default());
    assert!(error.to_string().starts_with("a.jsonl:1: no known layout has the keys prompt, choosen"), "{error}");
    assert!(error.hint().unwrap().contains("columns.chosen = \"choosen\""), "{:?}", error.hint());
    let error = read("{\"prompt\":\"q\",\"chosen\":5,\"rejected\":\"b\"}\n", DataSpec::default());
    assert_eq!(error.to_string(), "a.jsonl:1: key \"chosen\" of schema trl: expected text or messages, found 5");
    let spec = DataSpec { schema: Some("tlr".into()), ..DataSpec::default() };
    assert_eq!(read(good, spec).hint().unwrap(), "did you mean \"trl\"?");
    let prefs = "{\"prompt\":\"q\",\"response_a\":\"a\",\"response_b\":\"b\",\"prefs\":{\"honesty\":2}}";
    assert!(
        read(prefs, DataSpec::default())
            .to_string()
            .contains("\"prefs.honesty\" of schema prefs: expected 1, -1 or 0, found 2")
    );
    let spec = DataSpec { dimension: Some("tone".into()), ..DataSpec::default() };
    assert!(matches!(read(prefs, spec), DataError::BadSetting { key: "dimension", .. }));
    let absent = load(&[DataSpec::new("absent/*.jsonl")], &plain(), &tokenizer, &mut |_| ()).unwrap_err();
    assert!(absent.to_string().contains("absent/*.jsonl"));
    for ids in ["[-1]", "[4294967296]", "[1.5]", "\"x\""] {
        let row = format!("{{\"prompt_ids\":{ids},\"chosen_ids\":[1],\"rejected_ids\":[2]}}");
        assert!(read(&row, DataSpec::default()).to_string().contains("a list of token ids"));
    }
}

#[test]
fn columns_dimension_limit_and_ids() {
    let bytes = b"question,chosen,rejected,id,source\nq,a,b,row-7,web\nq2,a,b,,web\n";
    let spec = DataSpec {
        columns: [("prompt".to_string(), "question".to_string())].into(),
        dimension: Some("tone".into()),
        ..DataSpec::default()
    };
    let data = load_bytes("a.csv", bytes, &spec, &plain(), &tiny("llama")).unwrap();
    assert_eq!(data.examples[0].id, "row-7");
    assert_eq!(data.examples[1].id, "a.csv:3");
    assert_eq!(data.examples[0].labels["tone"], Preference::First);
    assert_eq!(data.examples[0].tags, [("source".to_string(), "web".to_string())].into());
    let one = DataSpec { limit: Some(1), ..spec.clone() };
    assert_eq!(load_bytes("a.csv", bytes, &one, &plain(), &tiny("llama")).unwrap().examples.len(), 1);
    let wrong = DataSpec { columns: [("prompt".to_string(), "qestion".to_string())].into(), ..spec };
    let error = load_bytes("a.csv", bytes, &wrong, &plain(), &tiny("llama")).unwrap_err();
    assert!(error.to_string().starts_with("a.csv:2:"), "{error}");
}

#[test]
fn directories_and_patterns_are_read_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let row = |answer: &str| format!("{{\"prompt\":\"q\",\"completion\":\"{answer}\"}}\n");
    std::fs::create_dir(directory.path().join("data")).unwrap();
    std::fs::write(directory.path().join("data/b.jsonl"), row("two")).unwrap();
    std::fs::write(directory.path().join("a.jsonl.zst"), zstd::encode_all(row("one").as_bytes(), 1).unwrap()).unwrap();
    std::fs::write(directory.path().join("README.md"), "no data").unwrap();
    let tokenizer = tiny("llama");
    let read = |path: String| load(&[DataSpec::new(path)], &plain(), &tokenizer, &mut |_| ()).unwrap();
    let base = directory.path().to_string_lossy().into_owned();
    let ids = |data: Dataset| data.examples.into_iter().map(|example| example.id).collect::<Vec<_>>();
    assert_eq!(ids(read(base.clone())), ["a.jsonl.zst:1", "b.jsonl:1"]);
    assert_eq!(ids(read(format!("{base}/*.zst"))), ["a.jsonl.zst:1"]);
}

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
    let longest = example.answers.iter().map(Vec::len).max().unwrap();
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
    let moved = tokenizer.encode("Hel", true).unwrap() != example.prompt;
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
        assert_eq!((data.examples.len(), data.report.counts()), (1, [(Reason::EmptyPrompt, 2)].into()));
    }
}
