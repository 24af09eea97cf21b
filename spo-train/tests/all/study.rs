//! Studies: what is run, what is read off, what is refused.

use crate::built_in::tables;
use spo_train::events::Sink;
use spo_train::events::sink::Memory;
use spo_train::prepare;
use spo_train::sweep::{Progress, Study, Variant};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

const STUDY: &str = r#"schema = 1
name = "demo"
run = "run.toml"
seeds = [1, 2]
baseline = "plain"
kl = [0.05]
margin = 0.05

[[arms]]
name = "plain"
method = "dpo"
set = ["rounds.1.lambda=0"]

[[arms]]
name = "held"
method = "spo"
set = ["rounds.1.lambda=1"]
"#;

fn write(dir: &Path, study: &str) -> std::path::PathBuf {
    let run = format!(
        r#"schema = 1
name = "demo"
{tables}[warmup]
steps = 2
[training]
steps = 4
pairs-per-step = 8
learning-rate = 3e-3
warmup-steps = 0
[[rounds]]
dimension = "honesty"
[[rounds]]
dimension = "helpfulness"
eval-every = 1
[evaluation]
bootstrap-resamples = 100
kl-samples = 2
kl-max-new-tokens = 4
kl-path = true
samples = 0
"#,
        tables = tables("cpu", 60, 40),
    );
    std::fs::write(dir.join("run.toml"), run).unwrap();
    let path = dir.join("study.toml");
    std::fs::write(&path, study).unwrap();
    path
}

#[test]
fn every_arm_is_run_with_every_seed_and_read_off_at_equal_kl() {
    let dir = tempfile::tempdir().unwrap();
    let study = Study::from_file(&write(dir.path(), STUDY), &[]).unwrap();
    let names: Vec<&str> = study.variants.iter().map(|run| run.name.as_str()).collect();
    let expected = ["plain", "held"].map(|arm| [1, 2].map(|seed| format!("as-written_seed={seed}_{arm}")));
    assert_eq!(names, [&expected[0][0], &expected[1][0], &expected[0][1], &expected[1][1]].map(String::as_str));
    let out = dir.path().join("out");
    let run = |expected: Progress| {
        let mut told = vec![];
        let mut sink = || -> Box<dyn Sink> { Box::new(Memory::default()) };
        let summary = study.run(&out, &mut sink, &mut |_, _, progress| told.push(progress), &AtomicBool::new(false));
        assert_eq!(told, [expected; 4]);
        summary.unwrap()
    };
    std::fs::create_dir_all(&out).unwrap();
    let first = run(Progress::Begins);
    let ends = first.points.iter().filter(|point| point.at_kl.is_none()).count();
    assert_eq!((ends, first.dimensions.len()), (4, 2), "{:?}", first.points);
    // Every running policy of a round was read off: KL grows from a policy that is near the start.
    let summary = std::fs::read_to_string(out.join("as-written_seed=1_held/summary.json")).unwrap();
    let summary = spo_eval::report::from_json(&summary).unwrap();
    let looks = &summary.rounds[1].evaluations;
    assert!(looks.len() == 4 && looks.iter().all(|look| look.kl.is_some_and(|(kl, _)| kl > 0.0)), "{looks:?}");
    let last = summary.kl("round-2-helpfulness", "warmup").unwrap();
    assert!((looks[3].kl.unwrap().0 - last.mean).abs() < 1e-6 * last.mean, "the last look is at the round's policy");
    // Two arms, two dimensions and the hypervolume at the end at least.
    assert!(first.comparisons.len() >= 3, "{:?}", first.comparisons);
    assert_eq!(run(Progress::Found), first);
    for file in ["study.md", "study.html", "study.json", "study.csv", "study.svg"] {
        assert!(!std::fs::read_to_string(out.join(file)).unwrap().is_empty(), "{file}");
    }
    // λ alone differs: the warm-up and the first round are the same.
    let policy = |run: &str| std::fs::read(out.join(run).join("policies/round-1-honesty/model.safetensors")).unwrap();
    assert_eq!(policy("as-written_seed=1_plain"), policy("as-written_seed=1_held"));
}

#[test]
fn all_orders_are_arms_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let study = Study::from_file(&write(dir.path(), &STUDY.replace("seeds", "orders = \"all\"\nseeds")), &[]).unwrap();
    let orders: Vec<&str> = study.variants.iter().map(|run| run.settings[0].1.as_str()).collect();
    assert_eq!(orders.len(), 8);
    assert_eq!((orders[0], orders[4]), ("honesty-helpfulness", "helpfulness-honesty"));

    let sets = ["training.steps=3", "rounds.1.lambda=9"].map(String::from);
    let study = Study::from_file(&write(dir.path(), STUDY), &sets).unwrap();
    let main = prepare(&study.variants[1].spec, &mut Memory::default()).unwrap().plan.rounds[1].main().clone();
    assert_eq!((main.training.steps, &main.options["lambda"]), (3, &serde_json::json!([1.0])), "arms come last");
}

#[test]
fn what_is_no_study_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let faults = [
        ("schema = 1", "schema = 2", "study.toml:1:10", "expected 1"),
        ("seeds = [1, 2]", "seeds = []", "study.toml:4:9", "one seed or more"),
        ("seeds = [1, 2]", "seeds = [3, 3]", "study.toml:4:9", "none of them twice"),
        ("baseline = \"plain\"", "baseline = \"plane\"", "study.toml:5:12", "plain, held"),
        ("kl = [0.05]", "kl = [-1.0]", "study.toml:6:6", "nats above 0"),
        ("margin = 0.05", "folds = 1", "study.toml:7:9", "found 1 with 2 seeds"),
        ("margin = 0.05", "folds = 3", "study.toml:7:9", "as many seeds as folds"),
        ("margin = 0.05", "margin = 2.0", "study.toml:7:10", "between 0 and 1"),
        ("margin = 0.05", "margins = 0.05", "study.toml:7:1", "unknown field `margins`"),
        ("name = \"held\"", "name = \"plain\"", "study.toml:15:8", "there twice"),
        ("method = \"spo\"", "against = \"plane\"", "study.toml:16:11", "plain, held"),
        ("name = \"held\"", "name = \"a/b\"", "study.toml:15:8", "letters, digits"),
        ("rounds.1.lambda=1", "rounds.1.lamda=1", "--set", "lamda"),
    ];
    for (from, to, place, words) in faults {
        let error = Study::from_file(&write(dir.path(), &STUDY.replace(from, to)), &[]).unwrap_err().to_string();
        assert!(error.contains(place) && error.contains(words), "{to}: {error}");
    }
}

/// The run file without test data of its own.
fn folded(dir: &Path) -> std::path::PathBuf {
    let path = write(dir, &STUDY.replace("seeds", "folds = 2\nseeds"));
    let run = std::fs::read_to_string(dir.join("run.toml")).unwrap();
    std::fs::write(dir.join("run.toml"), run.replace("split = \"test\"\n", "")).unwrap();
    path
}

#[test]
fn with_folds_the_seeds_hold_out_every_prompt_once() {
    let dir = tempfile::tempdir().unwrap();
    let study = Study::from_file(&folded(dir.path()), &[]).unwrap();
    let prompts = |examples: &[spo_data::Example]| -> BTreeSet<u64> {
        examples.iter().map(spo_data::Example::prompt_key).collect()
    };
    let sides = |run: &Variant| {
        let prepared = prepare(&run.spec, &mut Memory::default()).unwrap();
        [&prepared.train, &prepared.held_out].map(|set| prompts(&set.dataset.examples))
    };
    // Seed 1 with both arms, then seed 2.
    let found: Vec<[BTreeSet<u64>; 2]> = study.variants.iter().map(sides).collect();
    assert!(found[0] == found[1] && found[2] == found[3], "arms of a seed share it");
    for [train, held_out] in &found {
        assert!(train.is_disjoint(held_out) && !held_out.is_empty());
    }
    assert!(found[0][1].is_disjoint(&found[2][1]));
    assert_eq!(&found[0][0] | &found[0][1], &found[0][1] | &found[2][1], "and together all");

    let out = dir.path().join("out");
    std::fs::create_dir_all(&out).unwrap();
    let mut sink = || -> Box<dyn Sink> { Box::new(Memory::default()) };
    let summary = study.run(&out, &mut sink, &mut |_, _, _| (), &AtomicBool::new(false)).unwrap();
    assert_eq!(summary.design.folds, Some(2));
    // Over all pairs of all prompts: the runs' own accuracies, by their pairs.
    let tally = |run: &str, dimension: &str| {
        let text = std::fs::read_to_string(out.join(run).join("summary.json")).unwrap();
        let summary = spo_eval::report::from_json(&text).unwrap();
        let score = spo_eval::find_score(&summary.matrix, "round-2-helpfulness", dimension).unwrap().clone();
        let tally = score.tally(spo_eval::Subset::All).unwrap().clone();
        (tally.accuracy, tally.pairs as f64)
    };
    for dimension in ["honesty", "helpfulness"] {
        let one = summary.comparisons.iter().find(|one| one.measure == dimension && one.at_kl.is_none()).unwrap();
        let over = one.over_prompts.clone().unwrap();
        let (mut right, mut pairs) = (0.0, 0.0);
        for seed in [1, 2] {
            let (held, count) = tally(&format!("as-written_seed={seed}_held"), dimension);
            let (plain, same) = tally(&format!("as-written_seed={seed}_plain"), dimension);
            assert_eq!(count, same);
            (right, pairs) = (right + (held - plain) * count, pairs + count);
        }
        assert!((over.mean - right / pairs).abs() < 1e-12, "{over:?}");
        assert!(over.prompts <= found[0][1].len() + found[2][1].len() && over.prompts > 2, "{over:?}");
        assert!(over.interval.0 <= over.mean && over.mean <= over.interval.1, "{over:?}");
    }
    let rows = std::fs::read_to_string(out.join("study-prompts.csv")).unwrap();
    assert!(rows.starts_with("order,arm,seed,dimension,prompt,pairs,right\n"), "{rows}");
    let page = std::fs::read_to_string(out.join("study.md")).unwrap();
    assert!(page.contains("over prompts") && page.contains("Each seed holds out another part"), "{page}");

    // The tables come anew from the summary alone.
    let again = dir.path().join("again");
    assert_eq!(Study::again(&out.join("study.json"), &again).unwrap(), summary);
    for file in ["study.md", "study.html", "study.json", "study.csv", "study.svg"] {
        let of = |dir: &Path| std::fs::read(dir.join(file)).unwrap();
        assert!(of(&out) == of(&again), "{file}");
    }

    // Two machines with a seed each: together the same.
    let parts = [1, 2].map(|seed| {
        let (mut part, dir) = (study.clone(), dir.path().join(format!("part-{seed}")));
        part.keep_seeds(&[seed]);
        assert_eq!((part.seeds.len(), part.variants.len()), (1, 2));
        for run in &part.variants {
            copy_records(&out.join(&run.name), &dir.join(&run.name));
        }
        let mut found = vec![];
        part.run(&dir, &mut sink, &mut |_, _, progress| found.push(progress), &AtomicBool::new(false)).unwrap();
        assert_eq!(found, [Progress::Found; 2]);
        dir.join("study.json")
    });
    let whole = dir.path().join("whole");
    assert_eq!(Study::joined(&parts, &whole).unwrap(), summary);
    for file in ["study.md", "study.json", "study.csv", "study.svg", "study-prompts.csv"] {
        let of = |dir: &Path| std::fs::read_to_string(dir.join(file)).unwrap();
        assert!(of(&out) == of(&whole), "{file}");
    }
    let twice = Study::joined(&[parts[0].clone(), parts[0].clone()], &whole).unwrap_err().to_string();
    assert!(twice.contains("two of them have plain with seed 1"), "{twice}");
    let json = std::fs::read_to_string(&parts[1]).unwrap().replace("\"margin\": 0.05", "\"margin\": 0.06");
    std::fs::write(again.join("study.json"), json).unwrap();
    let unread = Study::joined(&[parts[0].clone(), again.join("study.json")], &whole).unwrap_err().to_string();
    assert!(unread.contains("study-prompts.csv"), "{unread}");
    std::fs::write(again.join("study-prompts.csv"), "order,arm\nas-written,plain\n").unwrap();
    let cut = Study::joined(&[parts[0].clone(), again.join("study.json")], &whole).unwrap_err().to_string();
    assert!(cut.contains("study-prompts.csv: damaged: row 2 is not of a study"), "{cut}");
    std::fs::copy(out.join("study-prompts.csv"), again.join("study-prompts.csv")).unwrap();
    let other = Study::joined(&[parts[0].clone(), again.join("study.json")], &whole).unwrap_err().to_string();
    assert!(other.contains("`demo` and `demo` do not compare the same"), "{other}");

    std::fs::write(again.join("study.json"), "{\"design\": 3}").unwrap();
    let damaged = Study::again(&again.join("study.json"), &again).unwrap_err().to_string();
    assert!(damaged.contains("study.json: damaged"), "{damaged}");
}

/// What says that a run is over, without its policies.
fn copy_records(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in ["plan.json", "events.jsonl", "summary.json"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
}
