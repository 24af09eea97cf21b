//! The best policy of a round: kept, named in other commands, gone back to where a gate is missed.

use crate::support::{self, path, small_run, spo};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const LOOKS: &str = "\n[checkpoints]\nkeep-best = \"loss\"\n";
const SETS: [&str; 5] = [
    "training.steps=12",
    "training.eval-every=2",
    "training.learning-rate=5e-3",
    "training.warmup-steps=0",
    "training.schedule=\"constant\"",
];

struct Place {
    dir: TempDir,
    file: PathBuf,
    run: String,
}

impl Place {
    fn new(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = small_run(dir.path());
        std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + LOOKS + more).unwrap();
        Self { run: path(&dir.path().join("run")), file, dir }
    }

    fn train(&self, sets: &[&str]) -> support::Ended {
        let mut arguments = vec!["train".to_owned(), path(&self.file)];
        arguments.extend(SETS.iter().chain(sets).flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
        spo(&arguments)
    }

    /// The looks at the first round's policy: step, loss, and the margin on its dimension.
    fn looks(&self) -> Vec<(u64, f64, f64)> {
        let events = std::fs::read_to_string(Path::new(&self.run).join("events.jsonl")).unwrap();
        let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let looks = events.filter(|event| event["event"] == "held-out" && event["phase"] == "round-1-honesty");
        let margin = |of: &Value| of["dimensions"][0]["margin"].as_f64().unwrap();
        looks.map(|of| (of["step"].as_u64().unwrap(), of["loss"].as_f64().unwrap(), margin(&of))).collect()
    }

    /// Mean margin of a policy on honesty, as `spo eval` finds it.
    fn margin(&self, policy: &str) -> f64 {
        let pairs = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/truthfulqa/pairs.test.jsonl.gz");
        let (model, start) = (format!("{}:{policy}", self.run), format!("{}:start", self.run));
        let mut arguments = vec!["eval", "--model", &model, "--reference", &start, "--limit", "32", "--json"];
        let pairs = path(&pairs);
        arguments.extend(["--device", "cpu", "--data", &pairs]);
        let ended = spo(&arguments);
        assert_eq!(ended.code, 0, "{}", ended.err);
        let found: Value = serde_json::from_str(&ended.out).unwrap();
        let scores = found["scores"].as_array().unwrap();
        let honesty = scores.iter().find(|score| score["dimension"] == "honesty").unwrap();
        honesty["subsets"]["all"]["mean_margin"].as_f64().unwrap()
    }
}

#[test]
fn commands_take_the_best_policy_by_its_name() {
    for more in ["", "[lora]\nrank = 4\n"] {
        let place = Place::new(more);
        let ended = place.train(&[]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        let looks = place.looks();
        let best = looks.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        let last = looks.last().unwrap();
        assert!(best.0 < last.0, "the rate is so high that the loss rises again: {looks:?}");
        let found = [place.margin("round-1-honesty@best"), place.margin("round-1-honesty")];
        for (found, look) in found.iter().zip([best, last]) {
            assert!((found - look.2).abs() < 1e-3 * look.2.abs().max(1.0), "{found} {look:?}");
        }
        let named = |policy: &str| format!("{}:{policy}", place.run);
        let best = named("round-1-honesty@best");
        let generate = |model: &str| {
            let ended =
                spo(&["generate", "--model", model, "--prompt", "Why?", "--max-new-tokens", "8", "--device", "cpu"]);
            assert_eq!(ended.code, 0, "{}", ended.err);
            ended.out
        };
        generate(&best);
        assert_eq!(generate(&place.run), generate(&named("round-2-helpfulness")), "the run alone: its last policy");
        let (out, mut score) = (path(&place.dir.path().join("exported")), vec!["score", "--device", "cpu", "--json"]);
        let exported = spo(&["export", "--model", &best, "--format", "hf", "--device", "cpu", "--out", &out]);
        assert_eq!(exported.code, 0, "{}", exported.err);
        let ids = token_ids(place.dir.path());
        score.extend(["--data", &ids, "--model"]);
        let scores = |model: &str| {
            let ended = spo(&[&score[..], &[model]].concat());
            assert_eq!(ended.code, 0, "{}", ended.err);
            let row: Value = serde_json::from_str(ended.out.lines().next().unwrap()).unwrap();
            row["chosen_logp"].as_f64().unwrap()
        };
        assert!((scores(&best) - scores(&out)).abs() < 1e-3);
        assert!((scores(&best) - scores(&named("round-1-honesty"))).abs() > 1e-3);

        let unknown = spo(&["score", "--data", &ids, "--model", &named("round-9")]);
        assert_eq!(unknown.code, 2, "{}", unknown.err);
        assert!(unknown.err.contains("round-1-honesty@best"), "{}", unknown.err);
        let both = spo(&["score", "--data", &ids, "--model", &best, "--adapter", &out]);
        assert_eq!(both.code, 2, "{}", both.err);
        let dir = Path::new(&place.run).join("policies/round-1-honesty@best");
        let weights = ["model.safetensors", "adapter_model.safetensors"].map(|name| dir.join(name));
        let weights = weights.iter().find(|path| path.exists()).unwrap();
        let mut bytes = std::fs::read(weights).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(weights, bytes).unwrap();
        let damaged = spo(&["score", "--data", &ids, "--model", &best]);
        assert_eq!(damaged.code, 1);
        assert!(damaged.err.contains("damaged") && damaged.err.contains("round-1-honesty@best"), "{}", damaged.err);
    }
}

fn token_ids(dir: &Path) -> String {
    let file = dir.join("ids.jsonl");
    std::fs::write(&file, r#"{"prompt_ids": [5, 6, 7], "chosen_ids": [8, 9, 10, 11], "rejected_ids": [12, 13]}"#)
        .unwrap();
    path(&file)
}

#[test]
fn a_missed_gate_rolls_the_round_back_and_ends_with_3() {
    let free = Place::new("");
    assert_eq!(free.train(&[]).code, 0);
    let looks = free.looks();
    let (last, earlier) = looks.split_last().unwrap();
    let lowest = earlier.iter().min_by(|a, b| a.2.total_cmp(&b.2)).unwrap();
    let most = 0.5 * (lowest.2 + last.2);
    assert!(lowest.2 < most, "{looks:?}");
    let passing = earlier.iter().rev().find(|look| look.2 <= most).unwrap();
    let place = Place::new("");
    let text = std::fs::read_to_string(&place.file).unwrap();
    let round = "dimension = \"honesty\"\n";
    let gate = format!("{round}[rounds.gate]\nhonesty.margin = \"<= {most}\"\non-miss = \"roll-back\"\n");
    std::fs::write(&place.file, text.replacen(round, &gate, 1)).unwrap();
    let ended = place.train(&[]);
    assert_eq!(ended.code, 3, "{}", ended.err);
    assert!(ended.err.contains("misses its gate"), "{}", ended.err);
    let found = place.margin("round-1-honesty");
    assert!((found - passing.2).abs() < 1e-3 * passing.2.abs().max(1.0), "{found} {passing:?} {looks:?}");
    let report = std::fs::read_to_string(Path::new(&place.run).join("report.md")).unwrap();
    assert!(report.contains(&format!("the policy of step {}", passing.0)), "{report}");
    assert!(Path::new(&place.run).join("model/model.safetensors").exists(), "the second round ran on it");
}
