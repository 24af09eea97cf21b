//! Conversations with tools, reasoning and lists of parts: renders as transformers makes them, and what rows of them become.

use crate::common::{self, fixture, objects, rows, tiny};
use serde_json::{Map, Value, json};
use spo_data::{
    ChatTemplate, DataSpec, Dataset, EmptyThink, Message, PromptText, Reason, RenderOptions, TemplateKind, TextSpec,
    TokenShare, Tokenizer, ToolArguments, encode_prompt, load, load_rows,
};
use std::collections::BTreeMap;

/// Templates with the constructs of those in use on sixteen conversations, with and without the opening of an answer, as
/// transformers 5.23 renders or refuses them.
#[test]
fn conversations_render_as_in_transformers() {
    let golden = common::json(&fixture("jinja/chats.json"));
    let special: BTreeMap<String, String> = serde_json::from_value(golden["special"].clone()).unwrap();
    let (mut texts, mut errors, mut wrong) = (0, 0, vec![]);
    for (file, cases) in golden["rendered"].as_object().unwrap() {
        let source = std::fs::read_to_string(fixture("jinja/chats").join(file)).unwrap();
        let template = ChatTemplate::new(&source, special.clone()).unwrap();
        for (case, expected) in cases.as_object().unwrap() {
            let name = case.strip_suffix(", opened");
            let given = &golden["cases"][name.unwrap_or(case)];
            let messages: Vec<Message> = serde_json::from_value(given["messages"].clone()).unwrap();
            let variables: Map<String, Value> = given["chat_template_kwargs"].as_object().cloned().unwrap_or_default();
            let options = RenderOptions {
                add_generation_prompt: name.is_some(),
                tools: given.get("tools"),
                variables: Some(&variables),
            };
            match (template.render(&messages, &options), expected["text"].as_str()) {
                (Ok(found), Some(text)) if found == text => texts += 1,
                (Err(_), None) => errors += 1,
                (found, _) => wrong.push(format!("{file} {case}:\n  found {found:?}\n  right {expected}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(texts > 150 && errors < 40, "{texts} {errors}");
}

/// The tiny vocabulary with a template.
fn with_template(template: &str) -> Tokenizer {
    let tokenizer = tiny("llama");
    let files: BTreeMap<_, _> = tokenizer.files().collect();
    Tokenizer::from_bytes(files["tokenizer.json"], files["tokenizer_config.json"], Some(template)).unwrap()
}

fn of_file(name: &str) -> Tokenizer {
    with_template(&std::fs::read_to_string(fixture("jinja/chats").join(name)).unwrap())
}

/// Prompt and answers of the first example as text.
fn texts(data: &Dataset, tokenizer: &Tokenizer) -> Vec<String> {
    let example = &data.examples[0];
    let text = |ids: &[u32]| tokenizer.decode(ids).unwrap();
    std::iter::once(text(&example.prompt)).chain(example.answers.iter().map(|answer| text(answer))).collect()
}

fn turn(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

/// Ends of turns are no tokens of the tiny vocabulary.
fn reasons(data: &Dataset) -> Vec<Reason> {
    data.report.counts().into_keys().filter(|reason| *reason != Reason::NoTerminator).collect()
}

const LINES: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% for c in m.tool_calls or [] %}{{ c.function.name }} {{ c.function.arguments | tojson }}\n{% endfor %}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

#[test]
fn arguments_are_text_or_objects_and_a_text_that_is_quoted_twice_is_named() {
    let tokenizer = with_template(LINES);
    let row = |arguments: Value| {
        let call = json!([{"id": "c1", "type": "function", "function": {"name": "now", "arguments": arguments}}]);
        let called = json!({"role": "assistant", "content": "", "tool_calls": call});
        json!([{"messages": [turn("user", "Hi"), called, turn("tool", "noon"), turn("assistant", "It is noon.")]}])
    };
    let (object, text) = (json!({"zone": "CET"}), json!("{\"zone\": \"CET\"}"));
    let read = |arguments: &Value, form: ToolArguments| {
        let spec = TextSpec { tool_arguments: form, append_eos: false, ..TextSpec::default() };
        rows(row(arguments.clone()), &spec, &tokenizer).unwrap()
    };
    let prompt = |data: &Dataset| texts(data, &tokenizer)[0].clone();
    let (plain, quoted) = ("now {\"zone\": \"CET\"}\n", "now \"{\\\"zone\\\": \\\"CET\\\"}\"\n");
    for (arguments, form, expected) in [
        (&object, ToolArguments::AsWritten, plain),
        (&object, ToolArguments::Object, plain),
        (&text, ToolArguments::Object, plain),
        (&text, ToolArguments::AsWritten, quoted),
        (&text, ToolArguments::Text, quoted),
        (&object, ToolArguments::Text, "now \"{\\\"zone\\\":\\\"CET\\\"}\"\n"),
    ] {
        let data = read(arguments, form);
        assert!(prompt(&data).contains(expected), "{form:?}: {}", prompt(&data));
        let named = reasons(&data).contains(&Reason::ArgumentsQuoted);
        assert_eq!(named, expected == quoted && arguments.is_string(), "{form:?} {arguments}");
        // Kinds and the ids between call and result are no text.
        assert!(data.report.unrendered.is_empty(), "{:?}", data.report.unrendered);
    }
    // Calls that a table holds as a text are calls; a text that is no object stays one.
    let mut written = row(object.clone());
    let calls = written[0]["messages"][1]["tool_calls"].to_string();
    written[0]["messages"][1]["tool_calls"] = json!(calls);
    let data = rows(written, &TextSpec::default(), &tokenizer).unwrap();
    assert!(prompt(&data).contains(plain));
    assert!(prompt(&read(&json!("noon"), ToolArguments::Object)).contains("now \"noon\"\n"));
}

#[test]
fn parts_are_text_and_other_parts_are_refused_by_name() {
    let part = |text: &str| json!({"type": "text", "text": text});
    let row = |content: Value| json!([{"prompt": [{"role": "user", "content": content}], "completion": "Yes."}]);
    // A template that knows lists gets them; one that does not gets their text.
    let known = of_file("parts.jinja");
    let data = rows(row(json!([part(" Is "), part("it?")])), &TextSpec::default(), &known).unwrap();
    assert!(texts(&data, &known)[0].contains("<user>Isit?</>"), "{:?}", texts(&data, &known));
    for template in
        [LINES.to_owned(), LINES.replace("{{ m.content }}", "{{ m.content if m.content is string else '' }}")]
    {
        let unknown = with_template(&template);
        let data = rows(row(json!([part("Is "), part("it?")])), &TextSpec::default(), &unknown).unwrap();
        assert!(texts(&data, &unknown)[0].contains("user: Is it?\n"), "{:?}", texts(&data, &unknown));
        assert!(data.report.incidents.iter().all(|incident| incident.reason != Reason::NotLaidOut));
    }
    for other in [
        json!({"type": "image_url", "image_url": {"url": "a.png"}}),
        json!({"type": "image", "text": "of a cat"}),
        json!({"type": "input_audio", "input_audio": {}}),
        json!("bare"),
    ] {
        let error = rows(row(json!([part("Is it?"), other])), &TextSpec::default(), &known).unwrap_err().to_string();
        let name = other["type"].as_str().unwrap_or("bare");
        assert!(error.contains(name) && error.contains("images, sound and files are not read"), "{error}");
    }
}

#[test]
fn what_a_template_drops_is_named() {
    let tokenizer = of_file("thinks.jinja");
    let thought = |text: &str| json!({"role": "assistant", "content": "Warm.", "reasoning_content": text});
    let read = |messages: Value| rows(json!([{"messages": messages}]), &TextSpec::default(), &tokenizer).unwrap();
    // Of earlier turns this template leaves the reasoning out, as the public ones do.
    let data =
        read(json!([turn("user", "How?"), thought("It may be."), turn("user", "Why?"), thought("So it seems.")]));
    assert_eq!(
        (data.report.unrendered.clone(), reasons(&data)),
        ([("reasoning_content".into(), 1)].into(), vec![Reason::NotLaidOut])
    );
    assert!(data.report.unused().any(|line| line.contains("reasoning_content (1 rows)")));
    let data = read(json!([turn("user", "How?"), thought("It may\n be.")]));
    assert!(data.report.unrendered.is_empty() && reasons(&data).is_empty(), "{:?}", data.report);
    let text = texts(&data, &tokenizer);
    assert!(text[1].starts_with("<think>\nIt may\n be.\n</think>\n\nWarm."), "{text:?}");
    // Reasoning in the text of an earlier turn is dropped too; fields that say something else are only counted.
    let said = turn("assistant", "<think>\nHm.\n</think>\n\nCold.");
    let mut last = turn("assistant", "Warm.");
    last["mood"] = json!("calm");
    last["stamp"] = json!(17);
    let data = read(json!([turn("user", "How?"), said, turn("user", "Why?"), last]));
    assert_eq!(data.report.unrendered, [("content".into(), 1), ("mood".into(), 1)].into());
    // Tools of which nothing is written, and a system message.
    let blind = with_template(
        "{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}{# tools #}",
    );
    let row = json!([{"prompt": "Hi", "completion": "Yes.", "system": "Be kind.", "tools": [{"type": "function", "function": {"name": "now"}}]}]);
    let data = rows(row, &TextSpec::default(), &blind).unwrap();
    assert_eq!(data.report.unrendered, [("system".into(), 1), ("tools".into(), 1)].into());
    assert!(reasons(&data).contains(&Reason::NotLaidOut));
}

#[test]
fn an_empty_think_block_is_trained_or_not() {
    let tokenizer = of_file("modes.jinja");
    let read = |empty_think: EmptyThink, row: Value| {
        let kwargs = Map::from_iter([("enable_thinking".to_string(), json!(false))]);
        let text = TextSpec { empty_think, template_kwargs: kwargs, ..TextSpec::default() };
        rows(row, &text, &tokenizer).unwrap()
    };
    let pair = json!([{"prompt": "Hi", "chosen": "Yes.", "rejected": "No."}]);
    // The template opens an answer with the block itself: it is in the prompt either way.
    let (kept, ignored) = (read(EmptyThink::Keep, pair.clone()), read(EmptyThink::Ignore, pair.clone()));
    assert_eq!(texts(&kept, &tokenizer), texts(&ignored, &tokenizer));
    let thinks = of_file("thinks.jinja");
    let read = |empty_think: EmptyThink, row: &Value| {
        rows(row.clone(), &TextSpec { empty_think, ..TextSpec::default() }, &thinks).unwrap()
    };
    let (kept, ignored) = (read(EmptyThink::Keep, &pair), read(EmptyThink::Ignore, &pair));
    let [before, after] = [&kept, &ignored].map(|data| texts(data, &thinks));
    assert!(before[0].ends_with("<s:assistant>") && before[1].starts_with("<think>\n\n</think>\n\nYes."), "{before:?}");
    // The line breaks behind it merge with the answer in this vocabulary.
    assert!(
        after[0].ends_with("<s:assistant><think>\n\n</think>") && after[1].trim_start().starts_with("Yes."),
        "{after:?}"
    );
    assert_eq!(before[0].clone() + &before[2], after[0].clone() + &after[2]);
    assert!(ignored.report.incidents.iter().all(|incident| incident.reason != Reason::EmptyThinkScored));
    // Of a pair in which one answer thinks the block cannot be in the prompt of both.
    let thought = json!({"role": "assistant", "content": "Yes.", "reasoning_content": "It may be."});
    let mixed = json!([{"prompt": [turn("user", "Hi")], "chosen": [thought], "rejected": [turn("assistant", "No.")]}]);
    let data = read(EmptyThink::Ignore, &mixed);
    assert!(reasons(&data).contains(&Reason::EmptyThinkScored), "{:?}", data.report.incidents);
    assert_eq!(texts(&data, &thinks), texts(&read(EmptyThink::Keep, &mixed), &thinks));
}

#[test]
fn variables_of_rows_come_before_those_of_files_and_of_all_texts() {
    let tokenizer = of_file("channels.jinja");
    let kwargs = |effort: &str| Map::from_iter([("reasoning_effort".to_string(), json!(effort))]);
    let row = |own: bool| {
        let mut row = json!({"prompt": "Hi", "completion": "Yes."});
        if own {
            row["chat_template_kwargs"] = json!({"reasoning_effort": "of the row"});
        }
        objects(&json!([row]))
    };
    let read = |own: bool, file: bool, all: bool| {
        let spec =
            DataSpec { template_kwargs: if file { kwargs("of the file") } else { Map::new() }, ..DataSpec::default() };
        let text = TextSpec { template_kwargs: if all { kwargs("of all") } else { Map::new() }, ..TextSpec::default() };
        let data = load_rows("rows", row(own), &spec, &text, &tokenizer).unwrap();
        texts(&data, &tokenizer)[0].split([' ', ';']).skip(2).take(3).collect::<Vec<_>>().join(" ")
    };
    assert!(read(false, false, false).starts_with("medium"));
    assert!(read(false, false, true).starts_with("of all"));
    assert_eq!(read(false, true, true), "of the file");
    assert_eq!(read(true, true, true), "of the row");
    // A prompt alone has those of all texts.
    let text = TextSpec { template_kwargs: kwargs("low"), ..TextSpec::default() };
    let prompt = encode_prompt(&tokenizer, &text, &PromptText::Text("Hi".into())).unwrap();
    assert!(tokenizer.decode(&prompt).unwrap().contains("effort low"));
    // A name that the template does not mention does nothing: refused for all texts, named for rows.
    let unknown = Map::from_iter([("enable_thinking".to_string(), json!(false))]);
    let text = TextSpec { template_kwargs: unknown.clone(), ..TextSpec::default() };
    let error = load_rows("rows", row(false), &DataSpec::default(), &text, &tokenizer).unwrap_err().to_string();
    assert!(error.contains("template-kwargs") && error.contains("enable_thinking"), "{error}");
    let plain = TextSpec { template: TemplateKind::Plain, ..text };
    assert!(load_rows("rows", row(false), &DataSpec::default(), &plain, &tokenizer).is_err());
    let spec = DataSpec { template_kwargs: unknown, ..DataSpec::default() };
    let data = load_rows("rows", row(false), &spec, &TextSpec::default(), &tokenizer).unwrap();
    assert_eq!(reasons(&data), [Reason::NotLaidOut]);
}

#[test]
fn entries_are_mixed_by_their_share_of_the_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, rows: usize, words: usize| {
        let row =
            |index: usize| format!("{}\n", json!({"prompt": format!("q{index}"), "completion": "word ".repeat(words)}));
        let path = dir.path().join(name);
        std::fs::write(&path, (0..rows).map(row).collect::<String>()).unwrap();
        path.display().to_string()
    };
    let paths = [file("long.jsonl", 60, 40), file("short.jsonl", 60, 5), file("rest.jsonl", 4, 3)];
    let spec =
        |index: usize, share: Option<f64>| DataSpec { token_share: share, ..DataSpec::new(paths[index].clone()) };
    let plain = TextSpec { template: TemplateKind::Plain, append_eos: false, ..TextSpec::default() };
    let tokenizer = tiny("llama");
    let read = |specs: &[DataSpec]| load(specs, &plain, &tokenizer, &mut |_| ());
    let tokens = |data: &Dataset, name: &str| -> usize {
        data.examples.iter().filter(|example| example.id.starts_with(name)).map(|example| example.tokens()).sum()
    };
    let before = read(&[spec(0, None), spec(1, None)]).unwrap();
    let all = tokens(&before, "long") + tokens(&before, "short");
    let data = read(&[spec(0, Some(1.0)), spec(1, Some(3.0)), spec(2, None)]).unwrap();
    let (long, short) = (tokens(&data, "long"), tokens(&data, "short"));
    let share = short as f64 / (long + short) as f64;
    assert!((share - 0.75).abs() < 0.01, "{share}");
    assert!(((long + short) as f64 / all as f64 - 1.0).abs() < 0.02, "{long} {short} {all}");
    // Entries without a share are as they were, at their place, and so is the order; copies have names of their own.
    assert_eq!(data.examples.iter().filter(|example| example.id.starts_with("rest")).count(), 4);
    assert!(data.examples.iter().rev().take(4).all(|example| example.id.starts_with("rest")));
    let ids: std::collections::BTreeSet<&String> = data.examples.iter().map(|example| &example.id).collect();
    assert_eq!(ids.len(), data.examples.len());
    let told: Vec<&TokenShare> = data.report.mix.iter().collect();
    assert_eq!((told.len(), told[1].wanted), (2, 0.75));
    assert!((told[1].share - share).abs() < 1e-12 && told[1].weight > 1.0 && told[0].weight < 1.0, "{told:?}");
    assert!(told[1].line().contains("75.0 % wanted"));
    // Rows that come later change nothing before them but how often all rows count.
    assert_eq!(
        read(&[spec(0, Some(1.0)), spec(1, Some(3.0)), spec(2, None)]).unwrap().examples.len(),
        data.examples.len()
    );
    for wrong in [DataSpec { weight: Some(2.0), ..spec(0, Some(1.0)) }, spec(0, Some(0.0)), spec(0, Some(f64::NAN))] {
        assert!(read(&[wrong]).unwrap_err().to_string().contains("token-share"));
    }
    // The cache keeps what was told.
    let cached =
        |specs: &[DataSpec]| spo_data::load_cached(specs, &plain, &tokenizer, dir.path(), &mut |_| ()).unwrap();
    let specs = [spec(0, Some(1.0)), spec(1, Some(3.0))];
    let (first, again) = (cached(&specs), cached(&specs));
    assert!(!first.1 && again.1 && first.0.report.mix == again.0.report.mix && first.0.examples == again.0.examples);
}
