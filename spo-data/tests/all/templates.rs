//! Constructs of templates against the texts that Jinja2 makes of them, and what is refused by name.

use std::collections::BTreeMap;

use crate::common::{fixture, json};
use serde_json::{Map, Value};
use spo_data::{ChatTemplate, Message, RenderOptions};

fn special() -> BTreeMap<String, String> {
    let names = [("bos_token", "<s>"), ("eos_token", "<|im_end|>"), ("pad_token", "<|pad|>")];
    names.map(|(name, text)| (name.to_string(), text.to_string())).into()
}

fn render(source: &str, variables: &Map<String, Value>) -> Result<String, String> {
    let mut variables = variables.clone();
    let messages = variables.remove("messages").unwrap_or_else(|| Value::Array(Vec::new()));
    let messages: Vec<Message> = serde_json::from_value(messages).unwrap();
    let tools = variables.remove("tools");
    let options = RenderOptions { tools: tools.as_ref(), variables: Some(&variables), ..RenderOptions::default() };
    let template = ChatTemplate::new(source, special()).map_err(|error| error.to_string())?;
    template.render(&messages, &options).map_err(|error| error.to_string())
}

fn plain(source: &str) -> Result<String, String> {
    render(source, &Map::new())
}

#[test]
fn constructs_render_as_in_jinja2() {
    let golden = json(&fixture("jinja/constructs.json"));
    let variables = golden["variables"].as_object().unwrap();
    let cases = golden["cases"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let source = case["template"].as_str().unwrap();
        let found = render(source, variables);
        let right = match (&found, case["text"].as_str()) {
            (Ok(found), Some(text)) => found == text,
            (Err(_), None) => case["error"].is_string(),
            _ => false,
        };
        if !right {
            wrong.push(format!("{source:?}\n  found {found:?}\n  right {:?} {:?}", case["text"], case["error"]));
        }
    }
    assert!(cases.len() > 200);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// What Jinja renders and this program does not is an error that names it and its line.
#[test]
fn what_cannot_be_rendered_is_refused_by_name() {
    let refused = [
        ("a\n{% include 'b' %}", "'include'", 2),
        ("{% import 'b' as c %}", "'import'", 1),
        ("\n\n{% extends 'b' %}", "'extends'", 3),
        ("{% block b %}{% endblock %}", "'block'", 1),
        ("{% autoescape true %}{% endautoescape %}", "'autoescape'", 1),
        ("{{ [1] | random }}", "'random'", 1),
        ("a\n{{ 'a b' | urlencode }}", "'urlencode'", 2),
        ("{{ {'a': 1} | pprint }}", "'pprint'", 1),
        ("{{ [1, 2] | map('upper') }}", "printing a generator", 1),
        ("{{ namespace() }}", "printing a Namespace", 1),
        ("{{ 'a'.encode() }}", "'encode'", 1),
        ("{{ 'é'.isalpha() }}", "'isalpha'", 1),
        ("{{ ('<' | safe).upper() }}", "marked safe", 1),
        ("{{ 10 ** 40 }}", "127 bits", 1),
        ("{{ strftime_now('%Q') }}", "%Q", 1),
        ("{{ lipsum() }}", "'lipsum'", 1),
        ("{{ [0.1, 0.2] | sum }}", "sum of floats", 1),
    ];
    for (source, name, line) in refused {
        let error = plain(source).unwrap_err();
        assert!(error.contains(name) && error.contains("not supported"), "{source}: {error}");
        assert!(error.contains(&format!("(line {line})")), "{source}: {error}");
    }
}

#[test]
fn endless_and_huge_templates_end_in_errors() {
    let hostile = [
        "{{ 'a' * 99999999999 }}",
        "{% for i in range(99999) %}{{ 'a' * 1000000 }}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] | map('list') %}{% endfor %}",
        "{% set ns = namespace() %}{% for i in range(9999) %}{% set ns.x = namespace(y=ns.x) %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
        "{{ 'x'.replace('', 'y' * 1000000).replace('', 'z' * 1000000) }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '{:999999999}'.format(1) }}",
    ];
    for source in hostile {
        assert!(plain(source).is_err(), "{source}");
    }
    assert!(plain("{{ ").is_err());
    assert!(plain(&format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000))).is_err());
    assert!(plain(&format!("{{{{ {}1 }}}}", "not ".repeat(5000))).is_err());
    assert!(plain(&format!("{{{{ a{} }}}}", ".b".repeat(5000))).is_err());
    let deep = "{% if true %}".repeat(5000) + &"{% endif %}".repeat(5000);
    assert!(plain(&deep).is_err());
}

fn messages(value: Value) -> Map<String, Value> {
    Map::from_iter([("messages".to_string(), value)])
}

#[test]
fn documents_and_tools_are_none_unless_given() {
    assert_eq!(plain("{{ documents is defined }}{{ documents }}{{ tools }}").unwrap(), "TrueNoneNone");
    let given = serde_json::json!({"documents": [{"title": "T"}], "enable_thinking": false, "bos_token": "<b>"});
    let source = "{{ documents[0].title }}{{ enable_thinking }}{{ bos_token }}";
    assert_eq!(render(source, given.as_object().unwrap()).unwrap(), "TFalse<b>");
}

#[test]
fn a_message_without_content_has_none() {
    let source = "{% for m in messages %}[{{ m.content }}]{{ m.content is defined }}{{ 'content' in m }};{% endfor %}";
    let given =
        messages(serde_json::json!([{"role": "assistant", "tool_calls": []}, {"role": "user", "content": null}]));
    assert_eq!(render(source, &given).unwrap(), "[]FalseFalse;[None]TrueTrue;");
}

#[test]
fn a_whole_message_is_printed_in_the_order_of_its_fields() {
    let given = messages(serde_json::json!([{"name": "A", "content": "x", "role": "user", "extra": 1.0}]));
    let expected = "{'name': 'A', 'content': 'x', 'role': 'user', 'extra': 1.0}";
    assert_eq!(render("{{ messages[0] }}", &given).unwrap(), expected);
}

#[test]
fn reasoning_has_all_the_names_that_templates_read() {
    let source = "{% for m in messages %}{{ m.reasoning_content }}{{ m.thinking }}{{ m.reasoning }};{% endfor %}";
    let given = messages(serde_json::json!([
        {"role": "assistant", "content": "x", "thinking": "T"},
        {"role": "assistant", "content": "x", "reasoning": "R"},
        {"role": "assistant", "content": "x", "reasoning_content": "C", "thinking": "T"},
    ]));
    assert_eq!(render(source, &given).unwrap(), "TT;RRR;CT;");
}

#[test]
fn lists_and_operators_print_as_in_python() {
    let arguments = serde_json::json!({"tags": ["red", "big"], "opt": {"a": true, "b": null}});
    let call = serde_json::json!([{"function": {"name": "t", "arguments": arguments}}]);
    let given = messages(serde_json::json!([{"role": "assistant", "content": "", "tool_calls": call}]));
    let source =
        "{% for k, v in messages[0].tool_calls[0].function.arguments.items() %}<{{ k }}>{{ v | string }}{% endfor %}";
    assert_eq!(render(source, &given).unwrap(), "<tags>['red', 'big']<opt>{'a': True, 'b': None}");
    let source = "{{ '%s has %d' % ('user', 2) }} {{ 'a.b'.rsplit('.', 1)[0] }} {{ 'xyz'.removeprefix('x') }} {{ (none and 'x') is none }}";
    assert_eq!(plain(source).unwrap(), "user has 2 a yz True");
    assert_eq!(plain("{%- if tools is iterable and tools | length > 0 %}TOOLS {% endif %}x").unwrap(), "x");
    let given = messages(serde_json::json!([{"role": "user", "content": "Hi"}]));
    let source = "{% for m in messages %}{% if m.tool_calls | length > 0 %}CALL {% endif %}{{ m.content }}{% endfor %}";
    assert_eq!(render(source, &given).unwrap(), "Hi");
}

#[test]
fn dates_are_those_of_the_local_clock() {
    let date = plain("{{ strftime_now('%-d %B %Y') }}|{{ strftime_now('%j') }}|{{ strftime_now('%F') }}").unwrap();
    let (day, month) = date.split_once(' ').unwrap();
    assert!(day.parse::<u32>().is_ok_and(|day| (1..=31).contains(&day)) && !day.starts_with('0'), "{date}");
    assert!(month.starts_with(|c: char| c.is_ascii_uppercase()), "{date}");
    assert!(!date.contains('%'), "{date}");
}
