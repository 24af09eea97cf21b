//! Uploading to a server of our own.

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::support::{Answer, Request, Server};
use serde_json::{Value, json};
use spo_hub::{HubError, Name, Settings, push};

fn name() -> Name {
    Name::parse("org/mine", Path::new("/nonexistent")).unwrap().unwrap()
}

fn json_of(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

#[test]
fn small_files_are_committed_and_large_ones_stored_first() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("README.md"), "card").unwrap();
    std::fs::write(dir.path().join("model.safetensors"), [7u8; 25]).unwrap();
    std::fs::write(dir.path().join(".hidden"), "no").unwrap();
    let address = Arc::new(Mutex::new(String::new()));
    let own = address.clone();
    let server = Server::start(move |request, _| {
        let address = own.lock().unwrap().clone();
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/api/repos/create") => Answer::status(409, &[]),
            ("POST", "/api/models/org/mine/preupload/main") => {
                let files = json_of(request)["files"].as_array().unwrap().clone();
                let mode = |file: &Value| if file["path"] == "README.md" { "regular" } else { "lfs" };
                let files = files.iter().map(|file| json!({ "path": file["path"], "uploadMode": mode(file) }));
                Answer::ok(json!({ "files": files.collect::<Vec<_>>() }).to_string())
            }
            ("POST", "/org/mine.git/info/lfs/objects/batch") => {
                let parts = json!({ "chunk_size": "10", "00001": format!("{address}/put/1"),
                    "00002": format!("{address}/put/2"), "00003": format!("{address}/put/3") });
                let upload = json!({ "href": format!("{address}/complete"), "header": parts });
                Answer::ok(json!({ "objects": [{ "actions": { "upload": upload } }] }).to_string())
            }
            ("PUT", path) => Answer::status(200, &[("etag", &format!("\"{path}\""))]),
            ("POST", "/complete") => Answer::ok("{}"),
            ("POST", "/api/models/org/mine/commit/main") => Answer::ok(r#"{"commitOid":"abc"}"#),
            _ => Answer::status(404, &[]),
        }
    });
    *address.lock().unwrap() = server.address.clone();
    let settings = Settings { token: Some("hf_w".into()), ..server.settings(dir.path()) };
    let pushed = push(&name(), dir.path(), "Upload", true, &settings, &mut |_| ()).unwrap();
    assert_eq!((pushed.page, pushed.commit), (format!("{}/org/mine", server.address), Some("abc".into())));
    let seen = server.seen.lock().unwrap();
    assert_eq!(json_of(&seen[0])["private"], true);
    let put: Vec<(usize, bool)> = seen
        .iter()
        .filter(|one| one.method == "PUT")
        .map(|one| (one.body.len(), one.headers.contains_key("transfer-encoding")))
        .collect();
    assert_eq!(put, [(10, false), (10, false), (5, false)]);
    let complete = json_of(seen.iter().find(|one| one.path == "/complete").unwrap());
    assert_eq!(complete["parts"][2], json!({ "partNumber": 3, "etag": "\"/put/3\"" }));
    let commit = String::from_utf8(seen.last().unwrap().body.clone()).unwrap();
    let lines: Vec<Value> = commit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], json!({ "key": "header", "value": { "summary": "Upload", "description": "" } }));
    assert_eq!(lines[1]["value"]["content"], "Y2FyZA==");
    assert_eq!((&lines[2]["key"], &lines[2]["value"]["size"]), (&json!("lfsFile"), &json!(25)));
    assert_eq!(lines.len(), 3);
}

#[test]
fn without_a_token_nothing_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| Answer::ok("{}"));
    let error = push(&name(), dir.path(), "", false, &server.settings(dir.path()), &mut |_| ()).unwrap_err();
    assert!(matches!(error, HubError::Token { .. }) && error.hint().unwrap().contains("HF_TOKEN"));
    assert!(server.paths().is_empty());
}
