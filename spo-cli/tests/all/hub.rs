//! Models and data by their names on the Hub, from a server of our own.

use crate::server::{Answer, COMMIT, Request, Server, listing_at, of_repository};
use crate::support;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

type Files = Vec<(String, Vec<u8>)>;

/// The built-in model with the ballast that such repositories have.
fn model() -> Files {
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())
    };
    let mut files: Files = std::fs::read_dir(support::stories()).unwrap().map(read).collect();
    files.push(("pytorch_model.bin".into(), vec![0; 1000]));
    files
}

fn pairs() -> Files {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/truthfulqa/pairs.train.jsonl.gz");
    vec![("data/pairs.jsonl.gz".into(), std::fs::read(file).unwrap())]
}

/// `org/tiny` and the data set `org/pairs`; `moved` says whether the branch of the model has moved on.
fn start(moved: Arc<AtomicBool>) -> Server {
    let (model, pairs) = (model(), pairs());
    Server::start(move |request: &Request, _| {
        let path = &request.path;
        let pinned = path.contains(COMMIT);
        if path.contains("refs%2Fconvert") {
            return Answer::status(404, &[("x-error-code", "RevisionNotFound")]);
        }
        if path.contains("datasets/org/pairs") {
            return of_repository(&pairs, request);
        }
        if !path.contains("org/tiny") {
            return Answer::status(404, &[("x-error-code", "RepoNotFound")]);
        }
        match moved.load(Ordering::SeqCst) && !pinned && path.starts_with("/api/") {
            true => Answer::ok(listing_at(&"f".repeat(40), &[("config.json".into(), b"{}".to_vec())])),
            false => of_repository(&model, request),
        }
    })
}

/// `spo` with this Hub and a cache of its own.
fn spo(server: &Server, home: &Path, arguments: &[&str]) -> support::Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spo"));
    command.args(arguments).current_dir(home).env("HF_ENDPOINT", &server.address).env("HF_HOME", home.join("hf"));
    for name in ["HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"] {
        command.env_remove(name);
    }
    support::ended(&mut command)
}

#[test]
fn a_run_takes_model_and_rows_by_name_and_resumes_at_their_commits() {
    let dir = tempfile::tempdir().unwrap();
    let moved = Arc::new(AtomicBool::new(false));
    let server = start(moved.clone());
    let home = dir.path();
    let run = r#"
schema = 1
out = "run"
holdout = 0.3
model = { path = "org/tiny", device = "cpu" }
data = [{ path = "hf://datasets/org/pairs", limit = 60 }]
text = { prompt-format = "Question: {prompt}\nAnswer:", response-format = " {response}" }
training = { steps = 2, pairs-per-step = 4 }
rounds = [{ dimension = "honesty" }]

[evaluation]
bootstrap-resamples = 100
kl-samples = 0
samples = 0
command = "sh measure.sh {name} {policy}"
"#;
    std::fs::write(home.join("run.toml"), run).unwrap();
    let script = "echo $1 >> calls; test -f $2/config.json || exit 4; test $1 = start || test ! -f broken || exit 3; echo '{\"acc\": 0.25}'";
    std::fs::write(home.join("measure.sh"), script).unwrap();

    let plan = spo(&server, home, &["plan", "run.toml"]);
    assert_eq!(plan.code, 0, "{}", plan.err);
    assert!(plan.out.contains(COMMIT) && plan.out.contains("hf://org/tiny"), "{}", plan.out);

    // The program fails after the round: the error says so, and the run goes on from there.
    std::fs::write(home.join("broken"), "").unwrap();
    let failed = spo(&server, home, &["train", "run.toml"]);
    assert_eq!(failed.code, 1);
    assert!(failed.err.contains("evaluation.command on") && failed.err.contains("exit status: 3"), "{}", failed.err);
    assert!(failed.err.contains("command.log") && failed.err.contains("--resume"), "{}", failed.err);
    std::fs::remove_file(home.join("broken")).unwrap();
    moved.store(true, Ordering::SeqCst);
    let resumed = spo(&server, home, &["train", "--resume", "run"]);
    assert_eq!(resumed.code, 0, "{}", resumed.err);
    let again = spo(&server, home, &["train", "run.toml", "--resume", "run"]);
    assert_eq!(again.code, 0, "{}", again.err);
    let calls = std::fs::read_to_string(home.join("calls")).unwrap();
    let calls: Vec<&str> = calls.lines().collect();
    assert_eq!(calls.iter().filter(|call| **call == "start").count(), 1, "{calls:?}");
    assert_eq!(calls.len(), 3, "the start, the round that failed, and the round: {calls:?}");

    let read = |name: &str| std::fs::read_to_string(home.join("run").join(name)).unwrap();
    let manifest: Value = serde_json::from_str(&read("manifest.json")).unwrap();
    assert_eq!(manifest["manifest"]["hub"][0]["commit"], COMMIT);
    assert_eq!(manifest["manifest"]["hub"][1]["name"], "hf://datasets/org/pairs");
    let summary: Value = serde_json::from_str(&read("summary.json")).unwrap();
    assert_eq!(summary["benchmarks"].as_array().unwrap().len(), 2);
    assert_eq!(summary["benchmarks"][1]["results"], json!({ "acc": 0.25 }));
    assert!(read("report.md").contains("| acc"), "{}", read("report.md"));
    assert!(read("report.html").contains("Measured by evaluation.command"));
    assert!(!home.join("hf/hub/models--org--tiny/snapshots").join(COMMIT).join("pytorch_model.bin").exists());
}

#[test]
fn a_command_that_hangs_or_says_nothing_useful_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let run = support::small_run(dir.path());
    let ended = |command: &str, out: &str| {
        support::spo(&[
            "train",
            run.to_str().unwrap(),
            "--set",
            &format!("evaluation.command={command}"),
            "--set",
            "evaluation.command-timeout=0.5",
            "--out",
            dir.path().join(out).to_str().unwrap(),
        ])
    };
    let hangs = ended("sleep 60", "a");
    assert!(hangs.err.contains("took longer than command-timeout, 0.5 seconds"), "{}", hangs.err);
    let text = ended("echo fine", "b");
    assert!(text.err.contains("found `fine`, expected a JSON object"), "{}", text.err);
    let absent = ended("no-such-program-here", "c");
    assert!(absent.err.contains("cannot be started"), "{}", absent.err);
    let open = ended("'\"open'", "d");
    assert_eq!(open.code, 2, "{}", open.err);
}

#[test]
fn commands_take_names_too() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(Arc::default());
    let fetched = spo(&server, dir.path(), &["fetch", "org/tiny", "--json"]);
    assert_eq!(fetched.code, 0, "{}", fetched.err);
    let fetched: Value = serde_json::from_str(&fetched.out).unwrap();
    assert_eq!(fetched["commit"], COMMIT);
    assert!(Path::new(fetched["path"].as_str().unwrap()).join("model.safetensors").exists());
    let tokens = spo(&server, dir.path(), &["tokenize", "--tokenizer", "org/tiny", "--text", "once"]);
    assert_eq!(tokens.code, 0, "{}", tokens.err);
    let checked = spo(&server, dir.path(), &["data", "check", "hf://datasets/org/pairs"]);
    assert_eq!(checked.code, 0, "{}", checked.err);
    let missing = spo(&server, dir.path(), &["fetch", "org/absent"]);
    assert_eq!(missing.code, 1);
    assert!(
        missing.err.contains("no such model, or it is private") && missing.err.contains("HF_TOKEN"),
        "{}",
        missing.err
    );
    let mixed = spo(&server, dir.path(), &["data", "check", "hf://org/tiny"]);
    assert_eq!(mixed.code, 2);
    // A directory of that name wins, and its content is what is wrong.
    std::fs::create_dir_all(dir.path().join("org/tiny")).unwrap();
    let local = spo(&server, dir.path(), &["tokenize", "--tokenizer", "org/tiny", "--text", "once"]);
    assert_eq!(local.code, 1);
    assert!(local.err.contains("org/tiny"), "{}", local.err);
}

#[test]
fn keys_of_the_hub_are_refused_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let run = support::small_run(dir.path());
    let refused = |set: &str| support::spo(&["plan", run.to_str().unwrap(), "--set", set]);
    let ended = refused("data.0.hub-split=train");
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("no data set of the Hub"), "{}", ended.err);
    let ended = refused("model.path=hf://datasets/org/pairs");
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("expected a model"), "{}", ended.err);
    let ended = refused("data.0.path=hf://org/pairs");
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("write hf://datasets/org/pairs"), "{}", ended.err);
    assert_eq!(refused("model.path=hf://org/../x").code, 2);
}

#[test]
fn an_export_is_uploaded_with_a_card() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| {
        let modes = |body: &[u8]| {
            let asked: Value = serde_json::from_slice(body).unwrap();
            let files = asked["files"].as_array().unwrap().iter();
            let files = files.map(|file| json!({ "path": file["path"], "uploadMode": "regular" }));
            json!({ "files": files.collect::<Vec<_>>() }).to_string()
        };
        match request.path.as_str() {
            path if path.contains("/preupload/") => Answer::ok(modes(&request.body)),
            path if path.contains("/commit/") => Answer::ok(r#"{"commitOid":"abc"}"#),
            _ => Answer::ok("{}"),
        }
    });
    let stories = support::stories();
    let arguments =
        ["export", "--model", &stories, "--format", "hf", "--device", "cpu", "--out", "out", "--push", "me/mine"];
    let refused = spo(&server, dir.path(), &arguments);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("HF_TOKEN") && !dir.path().join("out").exists(), "{}", refused.err);
    let mut command = Command::new(env!("CARGO_BIN_EXE_spo"));
    command.args(arguments).current_dir(dir.path()).env("HF_ENDPOINT", &server.address).env("HF_TOKEN", "hf_w");
    let ended = support::ended(command.env("HF_HOME", dir.path()));
    assert_eq!(ended.code, 0, "{}", ended.err);
    let result: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(result["pushed"]["commit"], "abc");
    let card = std::fs::read_to_string(dir.path().join("out/README.md")).unwrap();
    assert!(card.starts_with("---\nlibrary_name: transformers\n") && card.contains("# mine"), "{card}");
    let seen = server.seen.lock().unwrap();
    let commit = String::from_utf8(seen.last().unwrap().body.clone()).unwrap();
    assert!(commit.contains("model.safetensors") && commit.contains("README.md"));
}

#[test]
fn completions_pages_and_the_doctor() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let ended = support::spo(&["completions", shell]);
        assert!(ended.code == 0 && ended.out.contains("quickstart"), "{shell}");
    }
    assert!(support::spo(&["man"]).out.contains(".TH spo 1"));
    let out = support::path(&dir.path().join("man1"));
    assert_eq!(support::spo(&["man", "--out", &out]).code, 0);
    assert!(dir.path().join("man1/spo-train.1").exists());
    let mut command = Command::new(env!("CARGO_BIN_EXE_spo"));
    command.args(["doctor", "--json"]).env("HF_TOKEN", "hf_secret");
    let ended = support::ended(&mut command);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(!ended.out.contains("hf_secret"));
    let facts: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(facts["hub"]["token"], "set");
    assert!(facts["devices"]["cpu"].as_str().unwrap().starts_with("works, "), "{facts}");
    let text = support::spo(&["doctor"]);
    assert!(text.out.lines().count() < 40, "one screen: {}", text.out);
}
