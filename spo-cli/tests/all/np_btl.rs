//! A reward model for many users: trained, and asked by a few labelled pairs whose reward is wanted.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{good, path, spo};
use serde_json::{Value, json};
use tempfile::tempdir;

/// What two users prefer, one of them this and the other the opposite.
const SAYS: [&str; 2] = ["Yes, it is so.", "No, it is not."];

#[track_caller]
fn refused(arguments: &[&str], words: &[&str]) {
    let ended = spo(arguments);
    assert_ne!(ended.code, 0, "{arguments:?}: {}", ended.out);
    assert!(words.iter().all(|word| ended.err.contains(word)), "{arguments:?}: {}", ended.err);
}

fn write(file: PathBuf, rows: impl Iterator<Item = Value>) -> String {
    fs::write(&file, rows.map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    path(&file)
}

/// A question with both answers, the first of them this one.
fn question(number: usize, first: usize) -> Value {
    let number = number * 7 + 3;
    json!({"prompt": format!("Is it {number}?"), "response_a": SAYS[first], "response_b": SAYS[1 - first]})
}

/// Pairs of the user who prefers `liked`; of those numbers that `but` names the label is the other one.
fn pairs_of(file: PathBuf, numbers: std::ops::Range<usize>, liked: usize, but: fn(usize) -> bool) -> String {
    let row = |number: usize| {
        let mut row = question(number, number % 2);
        let chosen = if but(number) { 1 - liked } else { liked };
        row["prefs"] = json!({"mine": if chosen == number % 2 { 1 } else { -1 }});
        row
    };
    write(file, numbers.map(row))
}

fn run_file(dir: &Path, more: &str) -> String {
    let rows = |name: &str, numbers: std::ops::Range<usize>| {
        let row = |number: usize| {
            let (mut row, sign) = (question(number, number % 2), if number.is_multiple_of(2) { 1 } else { -1 });
            row["prefs"] = json!({"yes": sign, "no": -sign});
            row
        };
        write(dir.join(name), numbers.map(row))
    };
    let text = format!(
        r#"schema = 1
seed = 2
[model]
path = {model:?}
device = "cpu"
[lora]
rank = 4
[[data]]
path = {train:?}
[[data]]
path = {test:?}
split = "test"
[text]
prompt-format = "Question: {{prompt}}\nAnswer:"
response-format = " {{response}}"
[training]
steps = 60
pairs-per-step = 16
learning-rate = 1e-2
warmup-steps = 0
[[rounds]]
dimension = "yes"
objective = "reward"
[evaluation]
bootstrap-resamples = 200
kl-samples = 0
samples = 0
{more}"#,
        model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260K"),
        train = rows("train.jsonl", 0..60),
        test = rows("test.jsonl", 60..84),
    );
    let file = dir.join("run.toml");
    fs::write(&file, text).unwrap();
    path(&file)
}

const STEERING: &str =
    "[steering]\nusers = [\"yes\", \"no\"]\nwidth = 16\nheads = 2\ncontexts = 4\nevaluate = [0, 4]\n";

/// STEER at a setting of the run's summary.
fn steer(out: &str, setting: &str) -> f64 {
    let summary: Value = serde_json::from_slice(&fs::read(format!("{out}/summary.json")).unwrap()).unwrap();
    let found = summary["steer"].as_array().unwrap().iter().find(|found| found["setting"] == setting);
    found.unwrap_or_else(|| panic!("{setting}: {}", summary["steer"]))["steer"].as_f64().unwrap()
}

/// By how much a scorer prefers yes to no, for each of a few new questions.
fn margins(dir: &Path, scorer: &str) -> Vec<f64> {
    let rows = (100..108).map(|number| json!({"id": number, "prompt": format!("Is it {number}?"), "responses": SAYS}));
    let rows = write(dir.join("rows.jsonl"), rows);
    let out = good(&["score", "--scorer", scorer, "--data", &rows, "--json"]);
    let margin = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        row["scores"][0].as_f64().unwrap() - row["scores"][1].as_f64().unwrap()
    };
    out.lines().map(margin).collect()
}

#[test]
fn a_few_labelled_pairs_say_whose_reward_it_is() {
    let (directory, other) = (tempdir().unwrap(), tempdir().unwrap());
    let dir = directory.path();
    let out = path(&dir.join("out"));
    good(&["train", &run_file(dir, STEERING), "--out", &out]);

    // As the run measures it: exactly nothing without contexts, the sign turns with the labels, shuffled ones leave little.
    let [none, own, shuffled, swapped] =
        ["0 contexts", "4 contexts", "4 contexts, shuffled labels", "4 contexts, swapped labels"]
            .map(|s| steer(&out, s));
    assert!(none == 0.0 && own > 80.0 && swapped < -80.0 && shuffled.abs() < 60.0, "{none} {own} {shuffled} {swapped}");
    assert!(!Path::new(&out).join("model").exists());

    // As a scorer, on questions that nobody was asked before.
    let policy = format!("{out}/policies/round-1-yes");
    let scorer = |more: &str| format!("{{ kind = \"np-btl\", path = {policy:?}, device = \"cpu\"{more} }}");
    let examples = |name: &str, liked: usize, but: fn(usize) -> bool| {
        let file = pairs_of(dir.join(name), 200..204, liked, but);
        (scorer(&format!(", examples = {file:?}")), file)
    };
    let (yes, no) = (examples("yes.jsonl", 0, |_| false), examples("no.jsonl", 1, |_| false));
    let mixed = examples("mixed.jsonl", 0, |number| number < 202);
    let [for_yes, for_no, for_mixed, unknown] = [&yes.0, &no.0, &mixed.0, &scorer("")].map(|who| margins(dir, who));
    assert!(for_yes.iter().all(|margin| *margin > 0.0) && for_no.iter().all(|margin| *margin < 0.0));
    let mean = |margins: &[f64]| margins.iter().sum::<f64>() / margins.len() as f64;
    let apart = mean(&for_yes) - mean(&for_no);
    for between in [&for_mixed, &unknown] {
        let share = (mean(between) - mean(&for_no)) / apart;
        assert!((0.1..0.9).contains(&share), "{share}: {for_yes:?} {for_no:?} {between:?}");
    }

    // A saved vector is the same user, for its own model alone.
    let vector = path(&dir.join("yes.safetensors"));
    let named = format!("{out}:round-1-yes");
    good(&["steer", "--model", &named, "--examples", &yes.1, "--out", &vector]);
    let by_vector = margins(dir, &scorer(&format!(", steer = {vector:?}")));
    assert!(by_vector.iter().zip(&for_yes).all(|(a, b)| (a - b).abs() < 1e-4), "{by_vector:?} {for_yes:?}");

    // Wherever scorers are taken.
    let (prompts, model) =
        (path(&dir.join("prompts.txt")), path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260K")));
    fs::write(&prompts, "Is it 5?\nIs it 6?\n").unwrap();
    let short = ["--max-new-tokens", "4", "--resamples", "40"];
    good(&[&["compare", &model, &model, "--prompts", &prompts, "--scorer", &yes.0], &short[..]].concat());
    let labelled = path(&dir.join("labelled.jsonl"));
    let rows = path(&dir.join("rows.jsonl"));
    good(&["data", "label", &rows, "--scorer", &no.0, "--out", &labelled]);
    let online = format!(
        "[[rounds]]\ndimension = \"style\"\nsteps = 2\n[rounds.online]\nscorer = {}\nsamples = 2\nmax-new-tokens = 4\n",
        yes.0
    );
    let file = run_file(other.path(), "");
    let text = fs::read_to_string(&file)
        .unwrap()
        .replace("[[rounds]]\ndimension = \"yes\"\nobjective = \"reward\"\n", &online);
    fs::write(&file, text.replace("pairs-per-step = 16", "pairs-per-step = 4")).unwrap();
    good(&["train", &file, "--out", &path(&other.path().join("online"))]);
    assert!(good(&["list", "scorers"]).contains("np-btl"));

    let wrong = |who: &str, words: &[&str]| refused(&["score", "--scorer", who, "--data", &rows], words);
    wrong(&scorer(&format!(", examples = {:?}, steer = {vector:?}", yes.1)), &["both", "np-btl"]);
    wrong(&scorer(", user = \"mine\""), &["`user`", "examples"]);
    wrong(&scorer(&format!(", examples = {:?}, user = \"theirs\"", yes.1)), &["\"theirs\"", "one of mine"]);
    wrong(
        &scorer(&format!(", examples = {:?}", pairs_of(dir.join("many.jsonl"), 0..5, 0, |_| false))),
        &["5", "at most 4"],
    );
    wrong(&scorer(", exampels = \"a\""), &["exampels"]);
    wrong(&format!("np-btl:{model}"), &["base = DIR"]);
    let elsewhere = scorer(", base = \"nowhere\"");
    wrong(&elsewhere, &["nowhere"]);
    let bytes = fs::read(&vector).unwrap();
    let foreign = path(&dir.join("foreign.safetensors"));
    let hash = spo_model::steering::SavedZ::policy_of(Path::new(&policy)).unwrap().unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.contains(&hash));
    let at = bytes.windows(hash.len()).position(|window| window == hash.as_bytes()).unwrap();
    let mut changed = bytes.clone();
    changed[at..at + 4].copy_from_slice(b"0000");
    fs::write(&foreign, changed).unwrap();
    wrong(&scorer(&format!(", steer = {foreign:?}")), &["foreign.safetensors", "another policy"]);
}

#[test]
fn what_a_reward_run_of_several_users_cannot_have_is_refused() {
    let directory = tempdir().unwrap();
    let file = run_file(directory.path(), STEERING);
    for (change, words) in [
        ("lora.condition=contexts", &["lora.condition", "score head"][..]),
        ("rounds.0.critique=true", &["reward", "critiques"]),
        ("rounds.0.tie-weight=0.5", &["reward", "ties"]),
        ("rounds.0.margin=true", &["reward", "scores"]),
    ] {
        refused(&["train", &file, "--set", change, "--out", &path(&directory.path().join("x"))], words);
    }
    // A policy's adapter holds no score head.
    let policy = path(&directory.path().join("policy"));
    let steps = ["--set", "training.steps=1", "--set", "rounds.0.objective=dpo", "--out", &policy];
    good(&[&["train", &file], &steps[..]].concat());
    let rows = path(&directory.path().join("train.jsonl"));
    let who = format!("np-btl:{policy}/policies/round-1-yes");
    refused(&["score", "--scorer", &who, "--data", &rows], &["no score head"]);
}
