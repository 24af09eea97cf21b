//! `spo merge`: a policy at weight 1 is that policy, a sweep's ends are its policies, and what does not fit is refused.

use std::path::{Path, PathBuf};

use crate::support::{good, path, refused};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets")
}

/// A run of two rounds of four steps; its directory.
fn trained(lora: &str) -> (TempDir, String) {
    let dir = tempdir().unwrap();
    let (file, out) = (dir.path().join("run.toml"), path(&dir.path().join("out")));
    let text = format!(
        r#"schema = 1
[model]
path = {model:?}
device = "cpu"
{lora}
[[data]]
path = {data:?}
limit = 60
[text]
prompt-format = "Question: {{prompt}}\nAnswer:"
response-format = " {{response}}"
[training]
steps = 4
pairs-per-step = 8
learning-rate = 2e-3
warmup-steps = 0
[[rounds]]
name = "honest"
dimension = "honesty"
[[rounds]]
name = "helpful"
dimension = "helpfulness"
[evaluation]
bootstrap-resamples = 40
kl-samples = 0
samples = 0
"#,
        model = assets().join("stories260K"),
        data = assets().join("truthfulqa/pairs.test.jsonl.gz"),
    );
    std::fs::write(&file, text).unwrap();
    good(&["train", &path(&file), "--out", &out]);
    (dir, out)
}

fn weights(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join("model.safetensors")).unwrap()
}

#[test]
fn a_policy_of_weight_one_is_that_policy() {
    let (dir, run) = trained("");
    let (honest, helpful) = (format!("{run}:honest"), format!("{run}:helpful"));
    let policy = |name: &str| weights(&Path::new(&run).join("policies").join(name));
    for method in ["linear", "slerp", "task-arithmetic", "ties", "dare"] {
        for (index, name) in ["honest", "helpful"].iter().enumerate() {
            let out = dir.path().join(format!("{method}-{name}"));
            let own = if index == 0 { "1,0" } else { "0,1" };
            let arguments =
                ["merge", &honest, &helpful, "--method", method, "--density", "1", "--weights", own, "--out"];
            let found: Value = serde_json::from_str(&good(&[&arguments[..], &[&path(&out)]].concat())).unwrap();
            assert!(found["manifest"]["policy"].as_str().unwrap().starts_with(&format!("{method}: ")), "{found}");
            assert!(weights(&out) == policy(name), "{method} {name}");
        }
    }
    let halfway = path(&dir.path().join("halfway"));
    good(&["merge", &honest, &helpful, "--out", &halfway]);
    assert!(weights(Path::new(&halfway)) != policy("honest"));
    // What is merged can be merged, scored and refused to be written over.
    let again = path(&dir.path().join("again"));
    good(&["merge", &halfway, &honest, &helpful, "--weights", "0,0,1", "--out", &again]);
    assert!(weights(Path::new(&again)) == policy("helpful"));
    assert!(refused(&["merge", &honest, &helpful, "--out", &again]).contains("exists"));
}

#[test]
fn adapters_are_merged_into_their_model_first() {
    let (dir, run) = trained("[lora]\nrank = 4");
    let (honest, helpful) = (format!("{run}:honest"), format!("{run}:helpful"));
    let [merged, exported] = ["merged", "exported"].map(|name| path(&dir.path().join(name)));
    good(&["merge", &honest, &helpful, "--weights", "0,1", "--out", &merged]);
    good(&["export", "--model", &helpful, "--format", "hf", "--out", &exported]);
    assert!(weights(Path::new(&merged)) == weights(Path::new(&exported)));
    // The adapter of one policy, and a whole model that has nothing below it.
    let found = refused(&["merge", &honest, &merged, "--out", &path(&dir.path().join("other"))]);
    assert!(found.contains("an adapter on the weights below"), "{found}");
}

#[test]
fn a_sweep_goes_from_one_policy_to_the_other() {
    let (_dir, run) = trained("");
    let (honest, helpful, data) =
        (format!("{run}:honest"), format!("{run}:helpful"), path(&assets().join("truthfulqa/pairs.test.jsonl.gz")));
    let rows = ["--data", &data, "--limit", "40", "--json"];
    let found = good(&[&["merge", &honest, &helpful, "--sweep", "11"], &rows[..]].concat());
    let found: Value = serde_json::from_str(&found).unwrap();
    let points = found["points"].as_array().unwrap();
    assert_eq!(points.len(), 11);
    assert_eq!((&points[0]["weights"], &points[10]["weights"]), (&[1.0, 0.0].into(), &[0.0, 1.0].into()));
    let start = format!("{run}:start");
    for (point, policy) in [(&points[0], &honest), (&points[10], &helpful)] {
        let own = good(&[&["eval", "--model", policy, "--reference", &start], &rows[..]].concat());
        let own: Value = serde_json::from_str(&own).unwrap();
        for (found, expected) in point["scores"].as_array().unwrap().iter().zip(own["scores"].as_array().unwrap()) {
            let all = |score: &Value| score["subsets"]["all"].clone();
            for key in ["pairs", "accuracy", "mean_margin"] {
                let [found, expected] = [all(found), all(expected)].map(|score| score[key].as_f64().unwrap());
                assert!((found - expected).abs() < 1e-4, "{key}: {found} {expected}");
            }
        }
    }
    let table = good(&["merge", &honest, &helpful, "--sweep", "3", "--data", &data, "--limit", "40"]);
    assert!(table.contains("0.500, 0.500") && table.contains("honesty"), "{table}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let dir = tempdir().unwrap();
    let (model, out) = (path(&assets().join("stories260K")), path(&dir.path().join("out")));
    let other = path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/trl/llama-tiny-policy"));
    let found = refused(&["merge", &model, &other, "--out", &out]);
    assert!(found.contains("tensor embed_tokens.weight has the shape"), "{found}");
    let with = |more: &[&str]| refused(&[&["merge", &model, &model, "--out", &out], more].concat());
    assert!(with(&["--weights", "0.5,0.6"]).contains("sum to 1"));
    assert!(with(&["--weights", "1"]).contains("1 weights for 2 models"));
    assert!(with(&["--method", "ties"]).contains("--base"));
    assert!(with(&["--base", &model]).contains("looks at no base"));
    assert!(with(&["--method", "dare", "--base", &model, "--density", "0"]).contains("above 0"));
    assert!(with(&["--method", "mean"]).contains("linear"));
    assert!(refused(&["merge", &model, &model, &model, "--method", "slerp", "--out", &out]).contains("expected two"));
    assert!(refused(&["merge", &model, &model]).contains("--out"));
    let found = refused(&["merge", "slerp", &model, "--out", &out]);
    assert!(found.contains("the method is an option: --method slerp"), "{found}");
    assert!(refused(&["merge", &model, &model, "--sweep", "3"]).contains("--data"));
}
