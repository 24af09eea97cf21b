//! `[track]`: a run in MLflow, on a server of our own.

use crate::server::{Answer, Server};
use crate::support;
use serde_json::{Value, json};

/// As much of MLflow as is asked of it.
fn mlflow() -> Server {
    Server::start(|request, _| match request.path.split_once("/mlflow/").map_or("", |(_, path)| path) {
        path if path.starts_with("experiments/get-by-name?experiment_name=my%20runs") => {
            Answer { status: 404, ..Answer::ok(r#"{"error_code":"RESOURCE_DOES_NOT_EXIST"}"#) }
        }
        "experiments/create" => Answer::ok(r#"{"experiment_id":"7"}"#),
        "runs/create" => Answer::ok(r#"{"run":{"info":{"run_id":"r1"}}}"#),
        _ => Answer::ok("{}"),
    })
}

#[test]
fn a_run_is_told_to_mlflow() {
    let dir = tempfile::tempdir().unwrap();
    let run = support::small_run(dir.path());
    let server = mlflow();
    let sets = [format!("track.mlflow={}/", server.address), "track.experiment=my runs".into()];
    let ended = support::spo(&["train", run.to_str().unwrap(), "--set", &sets[0], "--set", &sets[1]]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let seen = server.seen.lock().unwrap();
    let bodies = |path: &str| -> Vec<Value> {
        let of_path = seen.iter().filter(|request| request.path.ends_with(path));
        of_path.map(|request| serde_json::from_slice(&request.body).unwrap()).collect()
    };
    assert_eq!(bodies("experiments/create"), [json!({ "name": "my runs" })]);
    assert_eq!(bodies("runs/create")[0]["experiment_id"], "7");
    let batches = bodies("runs/log-batch");
    let all = |key: &str| -> Vec<Value> {
        batches.iter().flat_map(|batch| batch[key].as_array().cloned().unwrap_or_default()).collect()
    };
    assert!(all("params").iter().any(|param| param["key"] == "rounds.0.dimension" && param["value"] == "honesty"));
    assert!(batches.iter().all(|batch| batch["run_id"] == "r1"));
    let metrics = all("metrics");
    let events = std::fs::read_to_string(dir.path().join("run/events.jsonl")).unwrap();
    let steps: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|event: &Value| event["event"] == "step")
        .collect();
    let losses: Vec<&Value> = metrics
        .iter()
        .filter(|one| {
            one["key"].as_str().unwrap().starts_with("train/") && one["key"].as_str().unwrap().ends_with("/loss")
        })
        .collect();
    assert_eq!(losses.len(), steps.len());
    for (loss, step) in losses.iter().zip(&steps) {
        assert_eq!((&loss["value"], &loss["step"]), (&step["loss"], &step["step"]));
    }
    assert!(metrics.iter().any(|one| one["key"].as_str().unwrap().ends_with("/honesty/accuracy")));
    assert_eq!(bodies("runs/update").last().unwrap()["status"], "FINISHED");
    assert_eq!(std::fs::read_to_string(dir.path().join("run/mlflow.json")).unwrap().trim(), r#"{"run-id":"r1"}"#);
}

#[test]
fn a_server_that_is_not_there_costs_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let run = support::small_run(dir.path());
    let ended = support::spo(&["train", run.to_str().unwrap(), "--set", "track.mlflow=http://127.0.0.1:9"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(ended.err.matches("MLflow at http://127.0.0.1:9").count(), 1, "{}", ended.err);
    let report = std::fs::read_to_string(dir.path().join("run/report.md")).unwrap();
    assert!(report.contains("MLflow at"), "{report}");
    let refused = support::spo(&["plan", run.to_str().unwrap(), "--set", "track.mlflow=localhost:5000"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
}
