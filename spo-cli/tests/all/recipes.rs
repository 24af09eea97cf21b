//! Every recipe, in a short form: the run file as it stands, or the script that makes its rows.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{ended, good, path};
use tempfile::{TempDir, tempdir};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// A recipe in a directory of its own, whose way to the built-in files is the same.
fn copied(name: &str) -> (TempDir, PathBuf) {
    let directory = tempdir().unwrap();
    let recipe = directory.path().join("recipes").join(name);
    fs::create_dir_all(&recipe).unwrap();
    for file in fs::read_dir(repository().join("recipes").join(name)).unwrap().map(Result::unwrap) {
        if file.path().is_file() {
            fs::copy(file.path(), recipe.join(file.file_name())).unwrap();
        }
    }
    fs::create_dir(directory.path().join("spo-cli")).unwrap();
    std::os::unix::fs::symlink(repository().join("spo-cli/assets"), directory.path().join("spo-cli/assets")).unwrap();
    (directory, recipe)
}

/// The first rows of the built-in pairs.
fn few(recipe: &Path, split: &str, rows: usize, name: &str) -> String {
    let file = path(&recipe.join("../../spo-cli/assets/truthfulqa").join(format!("pairs.{split}.jsonl.gz")));
    let out = path(&recipe.join(name));
    let unpacked = Command::new("gzip").args(["-dc", &file]).output().unwrap().stdout;
    let text: String = String::from_utf8(unpacked).unwrap().lines().take(rows).map(|row| format!("{row}\n")).collect();
    fs::write(&out, text).unwrap();
    out
}

/// Changes that make a run short.
fn short(text: &str) -> Vec<String> {
    let mut sets: Vec<String> =
        ["training.steps=2", "evaluation.kl-samples=2", "evaluation.kl-max-new-tokens=4", "evaluation.samples=1"]
            .map(String::from)
            .to_vec();
    sets.extend(text.contains("[warmup]").then(|| "warmup.steps=2".into()));
    let data = text.matches("[[data]]").count();
    sets.extend((0..data).map(|index| format!("data.{index}.limit=40")));
    let rounds = text.split("[[rounds]]").skip(1);
    for (index, round) in rounds.enumerate() {
        sets.extend(round.contains("\nsteps").then(|| format!("rounds.{index}.steps=2")));
        if round.contains("[rounds.online]") {
            let online = ["refresh=1", "prompts-at-once=4", "max-new-tokens=6"];
            sets.extend(online.map(|set| format!("rounds.{index}.online.{set}")));
        }
    }
    sets
}

#[test]
fn every_recipe_runs_and_says_what_came_out() {
    let recipes = fs::read_dir(repository().join("recipes")).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> =
        recipes.filter(|path| path.is_dir()).map(|path| path.file_name().unwrap().to_str().unwrap().into()).collect();
    names.sort();
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        let readme = fs::read_to_string(repository().join("recipes").join(&name).join("README.md")).unwrap();
        assert!(readme.lines().count() >= 5, "{name}");
        // Its own test runs all of its stages.
        if ["ric", "mm-rlhf", "opo"].contains(&name.as_str()) {
            continue;
        }
        let (_directory, recipe) = copied(&name);
        // The run, and controls in files of their own.
        for file in ["run.toml", "weighted.toml", "joint.toml", "stage.toml", "adapters.toml", "reward.toml"]
            .map(|file| recipe.join(file))
            .iter()
            .filter(|file| file.is_file())
        {
            let (text, out) = (fs::read_to_string(file).unwrap(), path(&file.with_extension("out")));
            let file = path(file);
            let mut arguments = vec!["train", &file, "--out", &out];
            let sets = short(&text);
            sets.iter().for_each(|set| arguments.extend(["--set", set]));
            good(&arguments);
            let report = fs::read_to_string(Path::new(&out).join("report.md")).unwrap();
            assert!(!report.contains("was stopped"), "{name}: {report}");
        }
    }
}

#[test]
fn every_arm_of_the_study_runs() {
    let (_directory, recipe) = copied("study");
    let changes = [("steps = 120", "steps = 2"), ("steps = 200", "steps = 2"), ("kl-samples = 64", "kl-samples = 2")];
    let limit = ("split = ", "limit = 40\nsplit = ");
    let file = |name: &str, changes: &[(&str, &str)]| {
        let text = fs::read_to_string(recipe.join(name)).unwrap();
        fs::write(recipe.join(name), changes.iter().fold(text, |text, (from, to)| text.replace(from, to))).unwrap();
    };
    file("run.toml", &[&changes[..], &[limit]].concat());
    file("study.toml", &[("seeds = [1, 2, 3, 4, 5]", "seeds = [1]")]);
    let (study, out) = (path(&recipe.join("study.toml")), path(&recipe.join("out")));
    let named = good(&["study", &study, "--dry-run"]);
    let report = good(&["study", &study, "--out", &out]);
    assert_eq!(named.lines().count(), report.lines().filter(|line| line.contains("| the end |")).count(), "{report}");
    assert!(report.contains("a comparison takes two seeds"), "{report}");
}

/// The cells of a Markdown row.
fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn the_evidence_comes_anew_from_its_summary() {
    let (results, out) = (repository().join("recipes/study/results"), tempdir().unwrap());
    let json = path(&results.join("study.json"));
    good(&["study", "--from", &json, "--out", &path(out.path())]);
    for file in ["study.json", "study.md", "study.csv", "study.svg"] {
        let of = |dir: &Path| fs::read(dir.join(file)).unwrap();
        assert!(of(&results) == of(out.path()), "{file} is not what `spo study --from {json}` writes");
    }
    // The tables of the page are rows of the report.
    let report = fs::read_to_string(results.join("study.md")).unwrap();
    let known: Vec<String> =
        report.lines().filter(|row| row.starts_with('|')).map(|row| cells(row).join("|")).collect();
    let page = fs::read_to_string(repository().join("docs/evidence.md")).unwrap();
    let found = page.split("## What came out").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<Vec<&str>> = found.lines().filter(|row| row.starts_with("| ")).map(cells).collect();
    let numbers = |row: &&Vec<&str>| row[1..].iter().any(|cell| cell.contains(|letter: char| letter.is_ascii_digit()));
    assert!(rows.iter().filter(numbers).count() >= 15, "{rows:?}");
    for row in rows.iter().filter(numbers) {
        let own = format!("|{}", row[1..].join("|"));
        assert!(
            known.iter().any(|known| known.contains(&own)),
            "docs/evidence.md has {own}, which no row of study.md has"
        );
    }
}

/// A recipe that is a script, with a few rows in the place of all of them; what it wrote, and where it lies.
fn script(name: &str, changes: &[(&str, &str)], settings: &[(&str, &str)]) -> (TempDir, PathBuf, String) {
    let (directory, recipe) = copied(name);
    for split in ["train", "test"] {
        let rows = few(&recipe, split, 30, &format!("pairs.{split}.jsonl"));
        assert!(Command::new("gzip").arg(&rows).status().unwrap().success());
    }
    let scripts = fs::read_dir(&recipe).unwrap().map(|entry| entry.unwrap().path());
    for file in scripts.filter(|path| path.extension().is_some_and(|ext| ext == "sh" || ext == "toml")) {
        let text = fs::read_to_string(&file).unwrap().replace("../../spo-cli/assets/truthfulqa", ".");
        fs::write(&file, changes.iter().fold(text, |text, (from, to)| text.replace(from, to))).unwrap();
    }
    let mut command = Command::new("sh");
    command.arg(format!("{name}.sh")).current_dir(&recipe).env("SPO", env!("CARGO_BIN_EXE_spo"));
    let found = ended(command.envs(settings.iter().copied()));
    assert_eq!(found.code, 0, "{}", found.err);
    (directory, recipe, found.out)
}

#[test]
fn rewards_in_context_go_through_all_stages() {
    let settings = [("STEPS", "2"), ("ONLINE_STEPS", "2"), ("DRAWS", "6"), ("ITERATIONS", "1")];
    let (_directory, recipe, out) = script("ric", &[("--draw 60", "--draw 2")], &settings);
    let points: Vec<&str> = out.lines().filter(|line| line.starts_with("brevity=")).collect();
    assert_eq!(points.len(), 11, "{out}");
    assert!(points.iter().all(|line| line.contains("\"mean\"")), "{points:?}");
    assert!(fs::read_to_string(recipe.join("work/online-1/events.jsonl")).unwrap().contains("run-finished"));
}

#[test]
fn strengths_of_a_reward_model_are_trained_on() {
    let changes = [("kl-samples = 80", "kl-samples = 2"), ("kl-max-new-tokens = 40", "kl-max-new-tokens = 4")];
    let (_directory, recipe, _) = script("mm-rlhf", &changes, &[("STEPS", "2"), ("WARMUP", "2")]);
    let rows = fs::read_to_string(recipe.join("work/train.jsonl")).unwrap();
    assert!(rows.contains("\"scores\":{\"helpful\":["), "{rows}");
    let report = fs::read_to_string(recipe.join("work/mm-dpo/report.md")).unwrap();
    assert!(report.contains("mm-dpo") && report.contains("win/tie/loss"), "{report}");
}

#[test]
fn lists_of_own_answers_are_trained_on() {
    let changes = [("kl-samples = 80", "kl-samples = 2"), ("max-new-tokens 40", "max-new-tokens 12")];
    // An untrained model's answers have letters rather than words.
    let changes = [&changes[..], &[(r#""is", "are", "the""#, r#""a", "e", "i""#)]].concat();
    let (_directory, recipe, _) = script("opo", &changes, &[("STEPS", "2"), ("WARMUP", "2")]);
    let report = fs::read_to_string(recipe.join("work/opo/report.md")).unwrap();
    assert!(report.contains("opo.plackett-luce"), "{report}");
}
