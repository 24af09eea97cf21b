//! Layouts of public data sets, and what people have made of them: every text where it belongs, or a word about it.

use crate::common::{fixture, plain, rows, tiny};
use serde_json::{Value, json};
use spo_data::{DataError, DataSpec, Dataset, Reason, TextSpec, load, load_bytes};

fn read(name: &str, text: &str) -> Result<Dataset, DataError> {
    load_bytes(name, text.as_bytes(), &DataSpec::default(), &TextSpec::default(), &tiny("llama"))
}

/// The text of a prompt and of an answer, in the chat layout.
fn shown(data: &Dataset, example: usize, answer: usize) -> (String, String) {
    let [prompt, answer] = data.examples[example].preview(&tiny("llama"), answer).unwrap();
    (prompt.text, answer.text)
}

fn asked(turns: &[(&str, &str)]) -> String {
    let turns = turns.iter().map(|(role, text)| format!("<|im_start|>{role}\n{text}<|im_end|>\n"));
    turns.collect::<String>() + "<|im_start|>assistant\n"
}

fn chat(value: Value) -> Dataset {
    rows(value, &TextSpec::default(), &tiny("llama")).unwrap()
}

fn refused(value: Value) -> (String, String) {
    let error = rows(value, &TextSpec::default(), &tiny("llama")).unwrap_err();
    (error.to_string(), error.hint().unwrap_or_default())
}

#[test]
fn one_message_is_an_answer() {
    let data = chat(json!([{"prompt": [{"role": "user", "content": "Who barks?"}],
        "chosen": {"role": "assistant", "content": "The dog."}, "rejected": {"from": "gpt", "value": "The cat."}}]));
    assert_eq!(shown(&data, 0, 0), (asked(&[("user", "Who barks?")]), "The dog.<|im_end|>\n".into()));
    assert_eq!(shown(&data, 0, 1).1, "The cat.<|im_end|>\n");
}

#[test]
fn a_question_is_the_prompt_and_a_system_column_its_system_message() {
    let orca = json!({"system": "Be brief.", "question": "When?", "chosen": "In spring.", "rejected": "In winter."});
    let data = chat(json!([orca, {"system": "", "question": "Why?", "chosen": "So.", "rejected": "No."}]));
    let file = &data.report.files[0];
    assert_eq!((file.schema.as_str(), file.unused.len()), ("trl", 0));
    assert_eq!(file.why, "first layout whose keys fit: prompt (here question), chosen, rejected");
    assert_eq!(
        shown(&data, 0, 0),
        (asked(&[("system", "Be brief."), ("user", "When?")]), "In spring.<|im_end|>\n".into())
    );
    assert_eq!(shown(&data, 1, 1), (asked(&[("user", "Why?")]), "No.<|im_end|>\n".into()));
    let plain = rows(json!([orca]), &plain(), &tiny("llama")).unwrap();
    assert_eq!(tiny("llama").decode(&plain.examples[0].prompt).unwrap(), "Be brief.\n\nWhen?");
    let twice = json!([{"system": "A", "prompt": [{"role": "system", "content": "B"}, {"role": "user", "content": "q"}],
        "chosen": "x", "rejected": "y"}]);
    assert!(refused(twice).0.contains("the system message that the prompt has already"));
}

#[test]
fn every_layout_takes_a_system_message_of_its_own() {
    for row in [
        json!({"prompt": "q", "completion": "x", "label": true}),
        json!({"prompt": "q", "response_a": "x", "response_b": "y", "prefs": {"z": 1}}),
        json!({"prompt": "q", "responses": ["x", "y"], "scores": [1, 2]}),
        json!({"instruction": "q", "output": "x"}),
        json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}]}),
        json!({"chosen": "Human: q\n\nAssistant: x", "rejected": "Human: q\n\nAssistant: y"}),
    ] {
        let mut row = row;
        row["system_prompt"] = json!("S");
        let data = chat(json!([row]));
        assert_eq!(shown(&data, 0, 0), (asked(&[("system", "S"), ("user", "q")]), "x<|im_end|>\n".into()), "{row}");
        assert!(data.report.files[0].unused.is_empty());
    }
}

#[test]
fn instruction_input_and_history_make_a_prompt() {
    let row =
        json!({"instruction": "Add.", "input": "1 + 1", "output": "2", "system": "S", "history": [["Hi", "Hello"]]});
    let data = chat(json!([row]));
    let turns = [("system", "S"), ("user", "Hi"), ("assistant", "Hello"), ("user", "Add.\n1 + 1")];
    assert_eq!(shown(&data, 0, 0), (asked(&turns), "2<|im_end|>\n".into()));
    let pair = chat(json!([{"instruction": "Add.", "input": "", "chosen": "2", "rejected": "3"}]));
    assert_eq!(shown(&pair, 0, 1), (asked(&[("user", "Add.")]), "3<|im_end|>\n".into()));
}

#[test]
fn sharegpt_roles_get_their_names() {
    let said = |from: &str, value: &str| json!({"from": from, "value": value});
    let turns = [said("system", "S"), said("human", "a"), said("gpt", "b"), said("human", "c")];
    let pair = json!({"conversations": turns, "chosen": said("gpt", "d"), "rejected": said("gpt", "e")});
    let expected = asked(&[("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c")]);
    let data = chat(json!([pair]));
    assert_eq!(shown(&data, 0, 1), (expected.clone(), "e<|im_end|>\n".into()));
    let turns = [turns.as_slice(), &[said("chatgpt", "d")]].concat();
    let whole = json!({"conversations": turns});
    assert_eq!(shown(&chat(json!([whole])), 0, 0), (expected, "d<|im_end|>\n".into()));
    let kto = json!({"conversations": [said("human", "a"), said("gpt", "b")], "kto_tag": true});
    assert_eq!(chat(json!([kto])).report.files[0].schema, "kto-messages");
}

#[test]
fn public_preference_sets_are_read_as_they_are() {
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    for (schema, row, pair, answers) in [
        (
            "shp",
            json!({"history": "q", "human_ref_A": "x", "human_ref_B": "y", "labels": 0, "score_A": 3}),
            (1, 0),
            ["x", "y"],
        ),
        (
            "helpsteer2-preference",
            json!({"prompt": "q", "response_1": "x", "response_2": "y", "preference_strength": -2}),
            (0, 1),
            ["x", "y"],
        ),
        (
            "arena",
            json!({"winner": "model_b", "conversation_a": [turn("user", "q"), turn("assistant", "x")],
                "conversation_b": [turn("user", "q"), turn("assistant", "y")]}),
            (1, 0),
            ["x", "y"],
        ),
        (
            "arena-prompts",
            json!({"prompt": "[\"q\"]", "response_a": "[\"x\"]", "response_b": "[\"y\"]", "winner_model_a": 1,
                "winner_model_b": 0, "winner_tie": 0}),
            (0, 1),
            ["x", "y"],
        ),
        (
            "answers",
            json!({"prompt": "\n\nHuman: q\n\nAssistant: ", "answers": [{"answer": "x", "rank": 2.0, "model": "m"},
                {"answer": "y", "rank": 1.0, "model": "n"}]}),
            (1, 0),
            ["x", "y"],
        ),
        (
            "answers",
            json!({"prompt": "q", "responses": [{"text": "x", "score": 3}, {"text": "y", "score": 1}]}),
            (0, 1),
            ["x", "y"],
        ),
        ("ranked-list", json!({"prompt": "q", "responses": ["x", "y"], "ranks": [1, 2]}), (0, 1), ["x", "y"]),
    ] {
        let data = chat(json!([row]));
        assert_eq!(data.report.files[0].schema, schema);
        assert_eq!(data.examples[0].pair("preference"), Some(pair), "{schema}");
        for (index, text) in answers.iter().enumerate() {
            assert_eq!(shown(&data, 0, index), (asked(&[("user", "q")]), format!("{text}<|im_end|>\n")), "{schema}");
        }
    }
}

#[test]
fn a_null_in_the_first_row_decides_nothing() {
    let pair = |prompt: Value| json!({"prompt": prompt, "chosen": "The dog barks.", "rejected": "The cat barks."});
    let (error, hint) = refused(json!([pair(Value::Null), pair(json!("Who?")), pair(json!("What?"))]));
    assert!(error.starts_with("rows:1: schema trl needs the key \"prompt\", which is null here"), "{error}");
    assert!(hint.contains("give it a value"), "{hint}");
    let kto = |label: Value| json!({"prompt": "q", "completion": "a", "label": label});
    let (error, _) = refused(json!([kto(Value::Null), kto(json!(true))]));
    assert!(error.contains("schema kto needs the key \"label\", which is null here"), "{error}");
    let (error, _) =
        refused(json!([{"prompt": "q", "chosen": "a", "rejected": "b"}, {"chosen": "a b", "rejected": "a c"}]));
    assert!(error.starts_with("rows:2: schema trl needs the key \"prompt\"; the row has"), "{error}");
}

#[test]
fn a_layout_that_would_leave_out_text_is_refused_unless_it_is_named() {
    let pair = |more: Value| {
        let mut row = json!({"chosen": "the sky is blue", "rejected": "the sky is red"});
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let (error, hint) = refused(json!([pair(json!({"User Prompt": "Which colour?"}))]));
    assert_eq!(error, "rows:1: layout trl-implicit would leave out the column \"User Prompt\"");
    assert!(hint.contains("--column prompt=User Prompt") && hint.contains("--schema trl-implicit"), "{hint}");
    for row in [
        json!({"prompt": "q", "completion": "a", "context": "c"}),
        json!({"text": "t", "label": 1}),
        json!({"text": "t", "system": "s"}),
        json!({"instruction": "i", "context": "c", "response": "r"}),
        json!({"prompt": "q", "chosen": "a", "rejected": "b", "messages": [{"role": "user", "content": "other"}]}),
        json!({"prompt": "q", "chosen": "a", "rejected": "b", "label": 0}),
        json!({"prompt": "other", "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}),
    ] {
        assert!(refused(json!([row])).0.contains("would leave out the column"), "{row}");
    }
    // One such row far behind the sample is refused too.
    let mut many = vec![pair(json!({})); 2000];
    many[1999] = pair(json!({"question": "Which colour?"}));
    assert!(refused(Value::Array(many)).0.starts_with("rows:2000: layout trl-implicit would leave out"));
    let spec = DataSpec { schema: Some("trl-implicit".into()), ..DataSpec::default() };
    let line = "{\"question\":\"q\",\"chosen\":\"a b\",\"rejected\":\"a c\"}";
    let data = load_bytes("a.jsonl", line.as_bytes(), &spec, &TextSpec::default(), &tiny("llama")).unwrap();
    assert_eq!(data.report.unused().collect::<Vec<_>>(), ["a.jsonl: columns not used: question"]);
}

#[test]
fn columns_that_nobody_read_are_named_with_their_rows() {
    let pair = |more: Value| {
        let mut row = json!({"prompt": "q", "chosen": "a", "rejected": "b", "id": "x", "empty": "", "none": null});
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let data = chat(json!([pair(json!({"source": "web"})), pair(json!({"source": "web", "margin": 2}))]));
    let unused: Vec<_> = data.report.files[0].unused.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
    assert_eq!(unused, [("margin", 1), ("source", 2)]);
    let spec = DataSpec { columns: [("prompt".to_string(), "q".to_string())].into(), ..DataSpec::default() };
    let line = "{\"q\":\"new\",\"prompt\":\"old\",\"chosen\":\"a\",\"rejected\":\"b\"}";
    let data = load_bytes("a.jsonl", line.as_bytes(), &spec, &TextSpec::default(), &tiny("llama")).unwrap();
    assert_eq!(data.report.unused().collect::<Vec<_>>(), ["a.jsonl: columns not used: prompt (the file's own)"]);
    let swapped = [("chosen".to_string(), "rejected".to_string()), ("rejected".to_string(), "chosen".to_string())];
    let spec = DataSpec { columns: swapped.into(), ..DataSpec::default() };
    let line = "{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\"}";
    let data = load_bytes("a.jsonl", line.as_bytes(), &spec, &TextSpec::default(), &tiny("llama")).unwrap();
    assert_eq!((shown(&data, 0, 0).1, shown(&data, 0, 1).1), ("b<|im_end|>\n".into(), "a<|im_end|>\n".into()));
}

#[test]
fn transcripts_with_and_without_blank_lines_before_them() {
    let pair = |start: &str, a: &str, b: &str| json!({"chosen": format!("{start}\n\nAssistant: {a}"), "rejected": format!("{start}\n\nAssistant: {b}")});
    let stripped = pair("Human: Hi", "Hello there", "Hello you");
    let whole = pair("\n\nHuman: Bye", "See you", "Seldom");
    for order in [json!([stripped, whole]), json!([whole, stripped])] {
        let data = chat(order);
        assert_eq!(data.report.files[0].schema, "hh");
        for example in 0..2 {
            let (prompt, answer) = shown(&data, example, 0);
            let (user, text) = if prompt.contains("Hi") { ("Hi", "Hello there") } else { ("Bye", "See you") };
            assert_eq!((prompt, answer), (asked(&[("user", user)]), format!("{text}<|im_end|>\n")));
        }
    }
    let texts = json!({"chosen": "the sky is blue", "rejected": "the sky is red"});
    assert!(refused(json!([texts, texts, texts, stripped])).0.starts_with("rows:4: key \"chosen\""));
}

#[test]
fn turns_that_are_not_the_assistants_are_named() {
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    let (user, said) = (turn("user", "q"), turn("assistant", "a"));
    let data = chat(json!([
        {"messages": [user, said, turn("user", "more")]},
        {"messages": [user]},
        {"messages": [user, said]},
    ]));
    let told: Vec<_> = data.report.incidents.iter().map(|incident| (incident.id.as_str(), incident.reason)).collect();
    assert_eq!(told, [("rows:1", Reason::TurnsAfterAnswer), ("rows:2", Reason::NoAssistantTurn)]);
    assert_eq!(shown(&data, 0, 0), shown(&data, 1, 0));
    let long = |text: &str| json!([user, turn("assistant", text), user, turn("assistant", "end"), user]);
    let data = chat(json!([{"chosen": long("x"), "rejected": long("y")}]));
    let reasons: Vec<_> = data.report.counts().into_keys().collect();
    assert_eq!(reasons, [Reason::TurnsAfterAnswer, Reason::OtherTurnsScored]);
}

#[test]
fn lists_of_messages_in_text_are_read_or_refused() {
    let answer = |text: &str| {
        format!("[{{'content': 'Name a bird.', 'role': 'user'}}, {{'content': '{text}', 'role': 'assistant'}}]")
    };
    let numpy = |text: &str| answer(text).replace("}, {", "}\n {");
    for write in [&answer as &dyn Fn(&str) -> String, &numpy, &|text| answer(text).replace('\'', "\"\"")] {
        let csv = format!("prompt,chosen,rejected\nName a bird.,\"{}\",\"{}\"\n", write("A robin."), write("A trout."));
        let data = read("a.csv", &csv).unwrap();
        assert_eq!(shown(&data, 0, 0), (asked(&[("user", "Name a bird.")]), "A robin.<|im_end|>\n".into()), "{csv}");
    }
    let in_json = json!([{"prompt": "Name a bird.", "chosen": answer("A robin."), "rejected": answer("A trout.")}]);
    assert_eq!(shown(&chat(in_json), 0, 0).1, "A robin.<|im_end|>\n");
    let (error, _) =
        refused(json!([{"prompt": "q", "chosen": "[{'role': 'user', 'content': oops}]", "rejected": "b"}]));
    assert!(error.contains("looks like messages"), "{error}");
    let code = chat(json!([{"prompt": "q", "chosen": "{'a': 1}", "rejected": "[1, 2]"}]));
    assert_eq!(shown(&code, 0, 0).1, "{'a': 1}<|im_end|>\n");
    let list = "prompt,responses,scores\nq,\"['x', 'y']\",\"[1, 2]\"\n";
    assert_eq!(read("a.csv", list).unwrap().examples[0].answers.len(), 2);
}

#[test]
fn arrays_and_wrapped_rows_are_read_under_any_name() {
    let (a, b) =
        (r#"{"prompt": "Q?", "chosen": "a", "rejected": "b"}"#, r#"{"prompt": "R?", "chosen": "a", "rejected": "b"}"#);
    for text in [
        format!("[\n {a},\n {b}\n]"),
        format!("{{\"data\": [{a}, {b}]}}"),
        format!("\u{feff}{{ \"rows\" :\n[{a}, {b}] }}\n"),
        format!("{a}\n{b}\n"),
    ] {
        for name in ["a.jsonl", "a.json"] {
            assert_eq!(read(name, &text).unwrap().examples.len(), 2, "{name} {text}");
        }
    }
    let error = read("a.json", &format!("{{\"data\": [{a}], \"more\": 1}}")).unwrap_err();
    assert!(error.to_string().contains("there is more beside the list of rows"), "{error}");
    let error = read("a.json", &format!("{{\"version\": 1, \"pairs\": [{a}]}}")).unwrap_err();
    assert!(error.hint().unwrap().contains("under \"pairs\""), "{:?}", error.hint());
    let error = read("a.jsonl", "{\n\"prompt\": 1\n}").unwrap_err();
    assert!(error.to_string().contains("format = \"json\" reads those"), "{error}");
}

#[test]
fn state_json_decides_which_arrow_files_are_data() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(fixture("formats/saved/train/data-00000-of-00001.arrow")).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).unwrap();
    write("data-00000-of-00001.arrow", &bytes);
    let base = directory.path().to_string_lossy().into_owned();
    let count = |path: &str| {
        let data = load(&[DataSpec::new(path)], &plain(), &tiny("llama"), &mut |_| ());
        data.map(|data| (data.report.rows(), data.report.cached.len()))
    };
    let (rows, _) = count(&base).unwrap();
    write("cache-0123456789abcdef.arrow", &bytes);
    write("state.json", br#"{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}"#);
    assert_eq!(count(&base).unwrap(), (rows, 1));
    assert_eq!(count(&format!("{base}/*.arrow")).unwrap(), (rows, 1));
    assert_eq!(count(&format!("{base}/cache-0123456789abcdef.arrow")).unwrap(), (rows, 0));
    write("state.json", br#"{"_data_files": [{"filename": "data-00001-of-00002.arrow"}]}"#);
    assert!(count(&base).unwrap_err().to_string().contains("data-00001-of-00002.arrow"));
    std::fs::remove_file(directory.path().join("state.json")).unwrap();
    write("dataset_info.json", b"{}");
    assert_eq!(count(&base).unwrap(), (rows, 1));
}

#[test]
fn files_of_another_kind_say_what_they_are() {
    for (bytes, what, hint) in [
        (&b"\xfd7zXZ\0\0\0"[..], "packed with xz", "unpack"),
        (b"PK\x03\x04rest", "a zip archive", "unpack"),
        (b"BZh9rest", "packed with bzip2", "unpack"),
        (b"\xff\xfe{\0", "UTF-16", "UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS", "git lfs pull"),
        (b"<!DOCTYPE html>", "a web page", "download"),
    ] {
        for name in ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.arrow"] {
            let spec = DataSpec::default();
            let error = load_bytes(name, bytes, &spec, &plain(), &tiny("llama")).unwrap_err();
            assert!(error.to_string().contains(what), "{name} {error}");
            assert!(error.hint().unwrap().contains(hint), "{name} {:?}", error.hint());
        }
    }
    let spec = DataSpec::new(fixture("formats/pairs.brotli.parquet").to_string_lossy());
    let error = load(&[spec], &plain(), &tiny("llama"), &mut |_| ()).unwrap_err();
    assert!(error.hint().unwrap().contains("another compression"), "{error} {:?}", error.hint());
    assert!(read("a.csv", "prompt,prompt\na,b\n").unwrap_err().to_string().contains("two columns"));
}

#[test]
fn null_fields_of_messages_are_dropped_alike_from_all_formats() {
    let turn = |role: &str, text: &str| json!({"role": role, "content": text, "tool_calls": null, "name": null});
    let row = json!({"chosen": [turn("user", "q"), turn("assistant", "")], "rejected": [turn("user", "q"), turn("assistant", "b")]});
    let data = rows(json!([row]), &plain(), &tiny("llama")).unwrap();
    assert_eq!(data.report.incidents[0].reason, Reason::EmptyAnswer, "a null field is no tool call");
    let tools = json!({"prompt": "q", "chosen": "a", "rejected": "b", "tools": [{"name": "now"}]});
    let data = rows(json!([tools]), &plain(), &tiny("llama")).unwrap();
    assert_eq!(data.report.incidents[0].reason, Reason::NotLaidOut);
    let mut wrong = tools;
    wrong["tools"] = json!("not a list");
    assert!(refused(json!([wrong])).0.contains("a list of tools"));
}
