//! Reward servers in both dialects, and their failures.

use std::thread::JoinHandle;

use serde_json::{Value, json};
use spo_data::PromptText;
use spo_score::{Item, NoModels, Opening, Registry, ScoreError, Scorer};
use tiny_http::{Response, Server};

/// A server that gives these answers, one to a request, and returns the requests.
fn server(answers: Vec<(u16, Value)>) -> (String, JoinHandle<Vec<Value>>) {
    let server = Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}/get_reward", server.server_addr());
    let thread = std::thread::spawn(move || {
        let mut asked = vec![];
        for (status, body) in answers {
            let mut request = server.recv().unwrap();
            asked.push(serde_json::from_reader(request.as_reader()).unwrap());
            request.respond(Response::from_string(body.to_string()).with_status_code(status)).unwrap();
        }
        asked
    });
    (url, thread)
}

fn open(options: &Value) -> Result<Box<dyn Scorer>, ScoreError> {
    let spec = serde_json::from_value(options.clone()).unwrap();
    Registry::builtin().open(&spec, &Opening { models: &NoModels, log: None, directory: None })
}

fn items() -> Vec<Item> {
    let item = |index: usize| Item {
        id: format!("row {index}"),
        prompt: PromptText::Text(format!("Q{index} ")),
        response: format!("A{index}"),
        dimension: (index == 0).then(|| "honesty".into()),
        ..Item::default()
    };
    (0..3).map(item).collect()
}

fn scores(options: &Value) -> Result<Vec<Option<f64>>, ScoreError> {
    let found = open(options)?.score(&items(), &mut |_| true)?;
    Ok(found.into_iter().map(|scores| scores.and_then(|scores| scores.of(None))).collect())
}

#[test]
fn both_dialects_are_spoken_in_batches_and_failed_requests_are_tried_again() {
    let answers = vec![
        (500, json!({})),
        (200, json!({ "rewards": [0.5, [1.5]], "scores": [9, 9], "extra_logs": {} })),
        (200, json!({ "rewards": [null] })),
    ];
    let (url, thread) = server(answers);
    let found = scores(&json!({ "kind": "http", "url": url, "batch": 2 })).unwrap();
    assert_eq!(found, [Some(0.5), Some(1.5), None]);
    let asked = thread.join().unwrap();
    assert_eq!(asked[0], asked[1]);
    let first = json!({ "query": ["Q0 A0", "Q1 A1"], "prompts": ["Q0 ", "Q1 "], "labels": ["honesty", ""] });
    assert_eq!(asked[1], first);

    let (url, thread) = server(vec![(200, json!({ "scores": [1, 2, 3] }))]);
    let found = scores(&json!({ "kind": "http", "url": url, "dialect": "llama-factory" })).unwrap();
    assert_eq!(found, [Some(1.0), Some(2.0), Some(3.0)]);
    assert_eq!(thread.join().unwrap(), [json!({ "model": "model", "messages": ["Q0 A0", "Q1 A1", "Q2 A2"] })]);
}

#[test]
fn what_a_server_must_not_say_is_an_error() {
    for (answer, said) in [
        (json!({ "rewards": [1, 2] }), "2 of them"),
        (json!({ "rewards": [1, 2, "x"] }), "\"x\" in `rewards`"),
        (json!({ "scores": [1, 2, 3] }), "with 3 numbers or nulls"),
    ] {
        let (url, thread) = server(vec![(200, answer)]);
        let error = scores(&json!({ "kind": "http", "url": url })).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        thread.join().unwrap();
    }
    let nobody = json!({ "kind": "http", "url": "http://127.0.0.1:9/", "tries": 2 });
    let error = scores(&nobody).unwrap_err();
    assert!(error.to_string().contains("failed 2 times") && error.hint().is_some(), "{error}");
}

#[test]
fn other_machines_are_asked_only_with_leave() {
    for url in ["http://10.0.0.1:5000/", "http://example.com/", "http://127.0.0.1.example.com/"] {
        let error = open(&json!({ "kind": "http", "url": url })).err().unwrap().to_string();
        assert!(error.contains("another machine"), "{error}");
        assert!(open(&json!({ "kind": "http", "url": url, "remote": true })).is_ok());
    }
    for url in ["http://localhost:1/", "http://[::1]:1/", "http://127.0.0.2:1/"] {
        assert!(open(&json!({ "kind": "http", "url": url })).is_ok(), "{url}");
    }
    for url in ["https://127.0.0.1/", "127.0.0.1:5000", "http://"] {
        assert!(open(&json!({ "kind": "http", "url": url })).is_err(), "{url}");
    }
}
