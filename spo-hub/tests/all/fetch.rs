//! Fetching from a server of our own, with what goes wrong on the way.

use std::path::Path;

use crate::support::{Answer, COMMIT, Server, listing, of_repository};
use spo_hub::{Fetched, HubError, Name, Progress, Settings, Want, fetch};

fn name(text: &str) -> Name {
    Name::parse(text, Path::new("/nonexistent")).unwrap().unwrap()
}

fn model(settings: &Settings) -> Result<Fetched, HubError> {
    fetch(&name("org/tiny"), &Want::Model, settings, &mut |_| ())
}

fn weights() -> Vec<u8> {
    (0..300_000u32).map(|index| (index * 7919 % 251) as u8).collect()
}

fn files() -> Vec<(String, Vec<u8>)> {
    let own = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    vec![own("config.json", b"{}"), own("model.safetensors", &weights()), own("pytorch_model.bin", b"pickle")]
}

#[test]
fn a_model_comes_into_the_cache_as_python_lays_it_out() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| of_repository(&files(), request));
    let settings = server.settings(dir.path());
    let mut heard = vec![];
    let fetched = fetch(&name("org/tiny"), &Want::Model, &settings, &mut |progress| heard.push(progress)).unwrap();
    assert_eq!((fetched.name.as_str(), fetched.commit.as_str()), ("hf://org/tiny", COMMIT));
    let repository = dir.path().join("models--org--tiny");
    assert_eq!(fetched.path, repository.join("snapshots").join(COMMIT));
    assert_eq!(std::fs::read(fetched.path.join("model.safetensors")).unwrap(), weights());
    assert_eq!(std::fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(std::fs::read_dir(repository.join("blobs")).unwrap().count(), 2);
    assert!(!fetched.path.join("pytorch_model.bin").exists());
    #[cfg(unix)]
    assert!(std::fs::read_link(fetched.path.join("config.json")).unwrap().starts_with("../../blobs"));
    let total = weights().len() as u64 + 2;
    let last = Progress::Bytes { name: "hf://org/tiny".into(), done: total, total };
    assert_eq!(heard.last(), Some(&last));

    // A second time only the commit is asked for.
    let before = server.paths().len();
    model(&settings).unwrap();
    assert_eq!(server.paths()[before..], ["/api/models/org/tiny/revision/main?blobs=true"]);
}

#[test]
fn a_cut_download_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|request, before| {
        let answer = of_repository(&files(), request);
        let weights = request.path.ends_with("model.safetensors");
        Answer { cut: (weights && before == 0).then_some(100_000), ..answer }
    });
    let fetched = model(&server.settings(dir.path())).unwrap();
    assert_eq!(std::fs::read(fetched.path.join("model.safetensors")).unwrap(), weights());
    let seen = server.seen.lock().unwrap();
    let ranges: Vec<_> =
        seen.iter().filter(|one| one.path.ends_with(".safetensors")).map(|one| one.headers.get("range")).collect();
    assert_eq!(ranges, [None, Some(&"bytes=100000-".to_owned())]);
}

#[test]
fn another_process_goes_on_too() {
    let dir = tempfile::tempdir().unwrap();
    let dead = Server::start(|request, _| match request.path.ends_with("safetensors") {
        true => Answer { cut: Some(50_000), ..of_repository(&files(), request) },
        false => of_repository(&files(), request),
    });
    // It gives the same first bytes again and again: what it sends to a range is not its continuation.
    let error = model(&Settings { tries: 1, ..dead.settings(dir.path()) }).unwrap_err();
    assert!(error.to_string().contains("cut after 50000 of 300000 bytes"), "{error}");
    assert!(error.hint().unwrap().contains("goes on from there"));
    let server = Server::start(|request, _| of_repository(&files(), request));
    model(&server.settings(dir.path())).unwrap();
    let seen = server.seen.lock().unwrap();
    let weights = seen.iter().find(|one| one.path.ends_with(".safetensors")).unwrap();
    assert_eq!(weights.headers["range"], "bytes=50000-");
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|request, before| {
        let mut request = request.clone();
        request.headers.remove("range");
        let cut = (request.path.ends_with("safetensors") && before == 0).then_some(10);
        Answer { cut, ..of_repository(&files(), &request) }
    });
    let fetched = model(&server.settings(dir.path())).unwrap();
    assert_eq!(std::fs::read(fetched.path.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn wrong_bytes_are_never_kept() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = |change: fn(&mut Vec<u8>)| {
        Server::start(move |request, _| {
            let mut answer = of_repository(&files(), request);
            if request.path.ends_with("safetensors") {
                change(&mut answer.body);
            }
            answer
        })
    };
    let error = model(&wrong(|body| body[5] ^= 1).settings(dir.path())).unwrap_err();
    assert!(matches!(&error, HubError::Corrupt { what: "hash", .. }), "{error}");
    let error = model(&wrong(|body| body.push(0)).settings(dir.path())).unwrap_err();
    assert!(matches!(&error, HubError::Corrupt { what: "length", .. }), "{error}");
    let repository = dir.path().join("models--org--tiny");
    assert!(!repository.join("snapshots").join(COMMIT).join("model.safetensors").exists());
    let left = std::fs::read_dir(repository.join("blobs")).unwrap().count();
    assert_eq!(left, 1, "config.json alone");
}

#[test]
fn refusals_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let answering = |status: u16, code: &'static str, token: Option<&str>| {
        let server = Server::start(move |_, _| Answer::status(status, &[("x-error-code", code)]));
        model(&Settings { token: token.map(Into::into), ..server.settings(dir.path()) }).unwrap_err()
    };
    let error = answering(404, "RepoNotFound", None);
    assert!(error.to_string().contains("hf://org/tiny: the Hub has no such model, or it is private (404"), "{error}");
    assert!(error.hint().unwrap().contains("HF_TOKEN"));
    assert!(matches!(answering(401, "RepoNotFound", None), HubError::NoRepository { .. }));
    assert!(matches!(answering(401, "", Some("hf_x")), HubError::Token { status: 401, .. }));
    assert!(matches!(answering(404, "RevisionNotFound", None), HubError::NoRevision { .. }));
    let error = answering(403, "GatedRepo", Some("hf_x"));
    assert!(error.hint().unwrap().contains("/org/tiny, then set HF_TOKEN"), "{error}");
    assert!(!format!("{error:?} {error}").contains("hf_x"));
}

#[test]
fn gated_files_of_a_visible_repository_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| match request.path.starts_with("/api/") {
        true => Answer::ok(listing(&files())),
        false => Answer::status(401, &[("x-error-code", "GatedRepo"), ("x-error-message", "Access is restricted.")]),
    });
    let error = model(&server.settings(dir.path())).unwrap_err();
    assert!(matches!(&error, HubError::Gated { message, .. } if message == "Access is restricted."), "{error}");
}

#[test]
fn limits_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|request, before| match before {
        0 if request.path.starts_with("/api/") => Answer::status(429, &[("retry-after", "0")]),
        1 if request.path.starts_with("/api/") => Answer::status(503, &[]),
        _ => of_repository(&files(), request),
    });
    model(&server.settings(dir.path())).unwrap();
    let server = Server::start(|_, _| Answer::status(429, &[("retry-after", "3600")]));
    let error = model(&server.settings(dir.path())).unwrap_err();
    assert!(matches!(error, HubError::Limited { seconds: 3600, .. }), "{error}");
    assert_eq!(server.paths().len(), 1);
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Server::with_files(&[("config.json", b"{}"), ("model.safetensors", &weights())]);
    let elsewhere = storage.address.replace("127.0.0.1", "localhost");
    let server = Server::start(move |request, _| match request.path.starts_with("/api/") {
        true => Answer::ok(listing(&files())),
        false => Answer::status(302, &[("location", &format!("{elsewhere}{}", request.path))]),
    });
    model(&Settings { token: Some("hf_x".into()), ..server.settings(dir.path()) }).unwrap();
    assert!(server.seen.lock().unwrap().iter().all(|request| request.headers["authorization"] == "Bearer hf_x"));
    let stored = storage.seen.lock().unwrap();
    assert!(!stored.is_empty() && stored.iter().all(|request| !request.headers.contains_key("authorization")));
}

#[test]
fn offline_the_cache_is_used_or_it_is_said_that_it_lacks_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| of_repository(&files(), request));
    let offline = Settings { offline: true, ..server.settings(dir.path()) };
    let error = model(&offline).unwrap_err();
    assert!(error.hint().unwrap().contains("spo fetch hf://org/tiny"), "{error}");
    model(&server.settings(dir.path())).unwrap();
    let asked = server.paths().len();
    assert_eq!(model(&offline).unwrap().commit, COMMIT);
    let pinned = name(&format!("org/tiny@{COMMIT}"));
    assert_eq!(fetch(&pinned, &Want::Model, &offline, &mut |_| ()).unwrap().commit, COMMIT);
    assert_eq!(server.paths().len(), asked);
    // A blob that is gone is noticed.
    std::fs::remove_dir_all(dir.path().join("models--org--tiny/blobs")).unwrap();
    assert!(matches!(model(&offline), Err(HubError::Offline { .. })));
}

#[test]
fn without_a_network_the_cache_is_used_and_it_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| of_repository(&files(), request));
    // Nothing listens there.
    let gone = Settings { endpoint: "http://127.0.0.1:9".into(), tries: 1, ..server.settings(dir.path()) };
    assert!(matches!(model(&gone), Err(HubError::Unreachable { .. })));
    model(&server.settings(dir.path())).unwrap();
    let mut notes = vec![];
    let fetched = fetch(&name("org/tiny"), &Want::Model, &gone, &mut |progress| notes.push(progress)).unwrap();
    assert_eq!(fetched.commit, COMMIT);
    assert!(matches!(&notes[..], [Progress::Note(note)] if note.contains(COMMIT)), "{notes:?}");
}

/// Linux has a file that is always full.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| of_repository(&[("model.safetensors".into(), weights())], request));
    let blobs = dir.path().join("models--org--tiny/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let info: serde_json::Value = serde_json::from_str(&listing(&[("model.safetensors".into(), weights())])).unwrap();
    let hash = info["siblings"][0]["lfs"]["sha256"].as_str().unwrap();
    std::os::unix::fs::symlink("/dev/full", blobs.join(format!("{hash}.incomplete"))).unwrap();
    let error = model(&server.settings(dir.path())).unwrap_err();
    assert!(error.hint().unwrap().contains("the disk is full"), "{error}");
    assert!(!blobs.join(hash).exists());
}

#[test]
fn rows_come_from_the_conversion_or_as_they_were_uploaded() {
    let dir = tempfile::tempdir().unwrap();
    let own = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    let converted = vec![own("default/train/0000.parquet", b"PAR1"), own("default/test/0000.parquet", b"PAR2")];
    let uploaded = vec![own("README.md", b"x"), own("data/a.jsonl", b"{}\n")];
    let server = Server::start(move |request, _| {
        let conversion = request.path.contains("refs%2Fconvert%2Fparquet") || request.path.ends_with(".parquet");
        match (conversion, request.path.contains("org/plain")) {
            (true, true) => Answer::status(404, &[("x-error-code", "RevisionNotFound")]),
            (true, false) => of_repository(&converted, request),
            _ => of_repository(&uploaded, request),
        }
    });
    let rows = |test| Want::Rows { config: None, split: None, test };
    let settings = server.settings(dir.path());
    let bring = |text: &str, want: &Want, settings: &Settings| fetch(&name(text), want, settings, &mut |_| ());
    let fetched = bring("hf://datasets/org/pairs", &rows(true), &settings).unwrap();
    assert_eq!(fetched.name, "hf://datasets/org/pairs@refs/convert/parquet");
    assert_eq!(std::fs::read(&fetched.files[0]).unwrap(), b"PAR2");
    let offline = Settings { offline: true, ..settings.clone() };
    assert_eq!(bring("hf://datasets/org/pairs", &rows(true), &offline).unwrap(), fetched);
    let fetched = bring("hf://datasets/org/plain", &rows(false), &settings).unwrap();
    assert_eq!(fetched.files.len(), 1);
    assert!(fetched.files[0].ends_with("data/a.jsonl"));
    let chosen = Want::Rows { config: None, split: Some("x".into()), test: false };
    let error = bring("hf://datasets/org/plain", &chosen, &settings).unwrap_err();
    assert!(error.to_string().contains("no Parquet conversion"), "{error}");
    let fetched = bring("hf://datasets/org/plain/data/*.jsonl", &rows(false), &settings).unwrap();
    assert_eq!(fetched.files.len(), 1);
}

#[test]
fn answers_that_lead_out_of_the_cache_or_lack_hashes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |body: String| {
        let server = Server::start(move |_, _| Answer::ok(body.clone()));
        model(&server.settings(dir.path())).unwrap_err()
    };
    let outside = vec![("../../evil.json".to_owned(), b"{}".to_vec())];
    let bodies = [
        listing(&outside),
        "[]".into(),
        "<html>".into(),
        r#"{"sha":"../..","siblings":[]}"#.into(),
        format!(r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"a.json"}}]}}"#),
    ];
    for body in bodies {
        let error = refused(body.clone());
        assert!(matches!(error, HubError::Malformed { .. }), "{body}: {error}");
    }
}
