//! Whole files to examples, against TRL's tokenisation and the counts of real data.

use crate::common::{fixture, ids, json, plain, root, rows, stories, tiny};
use serde_json::{Value, json};
use spo_data::{
    DataError, DataSpec, Dataset, Overflow, Part, Preference, Reason, TemplateKind, TextSpec, Tokenizer, load,
    load_bytes,
};

/// Expected (chosen, rejected) per dimension.
type Pairs = Vec<(&'static str, (usize, usize))>;

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
    let format = spo_data::Registry::builtin().format("a.jsonl.gz", None).unwrap();
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
fn rows_say_which_answers_are_safe_and_how_strong_a_preference_is() {
    let tokenizer = tiny("llama");
    let pair = |more: Value| {
        let mut row = json!({"prompt": "q", "chosen": "a", "rejected": "b"});
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let pku = json!({"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 0,
        "safer_response_id": 1, "is_response_0_safe": false, "is_response_1_safe": true});
    for (row, safe) in [
        (pair(json!({})), vec![]),
        (pair(json!({"safe": [true, false]})), vec![true, false]),
        (pair(json!({"chosen_safe": 0, "rejected_safe": "True"})), vec![false, true]),
        (pku, vec![false, true]),
        (json!({"prompt": "q", "completion": "a", "label": true, "safe": true}), vec![true]),
        (
            json!({"prompt": "q", "responses": ["a", "b", "c"], "scores": [1, 2, 3], "safe": [1, 1, 0]}),
            vec![true, true, false],
        ),
    ] {
        assert_eq!(rows(json!([row]), &plain(), &tokenizer).unwrap().examples[0].safe, safe, "{row}");
    }
    let wrong = rows(json!([pair(json!({"safe": [true]}))]), &plain(), &tokenizer).unwrap_err();
    assert!(wrong.to_string().contains("\"safe\""), "{wrong}");
    let scored =
        json!({"prompt": "q", "response_a": "a", "response_b": "b", "prefs": {"x": -1}, "scores": {"x": [1.5, 4]}});
    let data = rows(json!([scored]), &plain(), &tokenizer).unwrap();
    assert_eq!(data.examples[0].score_difference("x", 1, 0), Some(2.5));
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
    assert!(
        error.to_string().starts_with(
            "a.jsonl:1: no known layout has the keys prompt, choosen, rejected; the nearest, trl, also needs chosen"
        ),
        "{error}"
    );
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
    assert_eq!(*data.examples[0].tags, [("source".to_string(), "web".to_string())].into());
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
fn directories_of_the_hub_and_of_datasets_are_read_by_split() {
    let directory = tempfile::tempdir().unwrap();
    let row = |prompt: &str| format!("{{\"prompt\":\"{prompt}\",\"chosen\":\"a\",\"rejected\":\"b\"}}\n");
    for (name, prompt) in [
        ("data/train-00000-of-00002.jsonl", "one"),
        ("data/train-00001-of-00002.jsonl", "two"),
        ("data/test-00000-of-00001.jsonl", "three"),
        ("data/validation-00000-of-00001.jsonl", "four"),
    ] {
        std::fs::create_dir_all(directory.path().join("data")).unwrap();
        std::fs::write(directory.path().join(name), row(prompt)).unwrap();
    }
    for name in ["dataset_info.json", "dataset_dict.json", "data/state.json"] {
        std::fs::write(directory.path().join(name), "{\"splits\": 1}").unwrap();
    }
    let base = directory.path().to_string_lossy().into_owned();
    assert!(spo_data::has_splits(&base).unwrap());
    assert!(!spo_data::has_splits(&format!("{base}/data/test-00000-of-00001.jsonl")).unwrap());
    let read = |path: &str, part| {
        let spec = DataSpec { part, ..DataSpec::new(path) };
        let data = load(&[spec], &plain(), &tiny("llama"), &mut |_| ()).unwrap();
        let ids: Vec<String> = data.examples.into_iter().map(|example| example.id).collect();
        (ids, data.report.left_out.len())
    };
    let train = ["train-00000-of-00002.jsonl:1", "train-00001-of-00002.jsonl:1"].map(String::from).to_vec();
    assert_eq!(read(&base, Part::Train), (train, 2));
    assert_eq!(read(&base, Part::Test), (vec!["test-00000-of-00001.jsonl:1".into()], 3));
    assert_eq!(read(&base, Part::All).0.len(), 4);
    assert_eq!(read(&format!("{base}/data/test*"), Part::Train), (vec!["test-00000-of-00001.jsonl:1".into()], 0));
    std::fs::remove_file(directory.path().join("data/test-00000-of-00001.jsonl")).unwrap();
    assert_eq!(read(&base, Part::Test).0, ["validation-00000-of-00001.jsonl:1"]);
}

#[test]
fn tools_come_as_a_list_or_as_text() {
    let tokenizer = tiny("llama");
    let files: std::collections::BTreeMap<_, _> = tokenizer.files().collect();
    let template = "{{ tools | length }}{{ style }}{% for m in messages %}{{ m.content }}{% endfor %}";
    let chat = Tokenizer::from_bytes(files["tokenizer.json"], files["tokenizer_config.json"], Some(template)).unwrap();
    let row = |tools: Value| {
        json!([{"prompt": "q", "chosen": "a", "rejected": "b", "tools": tools,
            "chat_template_kwargs": {"style": "terse "}}])
    };
    for tools in [json!([{"name": "now"}]), json!("[{\"name\": \"now\"}]")] {
        let data = rows(row(tools), &TextSpec::default(), &chat).unwrap();
        assert_eq!(chat.decode(&data.examples[0].prompt).unwrap(), "1terse q");
    }
}

#[test]
fn a_row_that_lacks_a_key_names_the_nearest_layout() {
    for (row, expected) in [
        (json!({"prompt": "q", "chosen": "a"}), "the nearest, trl, also needs rejected"),
        (json!({"prompt": "q", "chosen": "a", "rejected": null}), "the nearest, trl, also needs rejected"),
        (json!({"prompt": "q", "response_a": "a", "prefs": {}}), "the nearest, prefs, also needs response_b"),
        (json!({"prompt": "q"}), "the nearest, sft, also needs completion"),
    ] {
        let error = rows(json!([row]), &plain(), &tiny("llama")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn rows_that_something_happened_to_are_named_in_a_file() {
    let data = rows(
        json!([{"prompt": "q", "chosen": "", "rejected": "b"}, {"prompt": "q", "chosen": "b", "rejected": "b"}]),
        &plain(),
        &tiny("llama"),
    );
    let mut lines = Vec::new();
    data.unwrap().report.write_incidents(&mut lines).unwrap();
    let expected = "{\"id\":\"rows:1\",\"reason\":\"empty-answer\",\"dropped\":true}\n\
                    {\"id\":\"rows:2\",\"reason\":\"identical-answers\",\"dropped\":false}\n";
    assert_eq!(String::from_utf8(lines).unwrap(), expected);
}
