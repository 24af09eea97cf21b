//! Rounds that make their own pairs.

use crate::left::{assert_same, left};
use serde_json::Value;
use spo_data::{DataSpec, Paths, Registry, TextSpec, Tokenizer};
use spo_train::config::RunSpec;
use spo_train::events::sink::Memory;
use spo_train::events::{Event, Sink};
use spo_train::{TrainError, prepare, resume, run};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spo-cli/assets")
}

/// A round that samples twice, after a warm-up that teaches the model to end its answers.
fn spec(dir: &Path, round: &str, more: &str) -> RunSpec {
    written(dir, round, more).unwrap()
}

fn written(dir: &Path, round: &str, more: &str) -> Result<RunSpec, TrainError> {
    let text = format!(
        r#"schema = 1
seed = 3
out = "out"
[model]
path = {model:?}
device = "cpu"
[[data]]
path = {data:?}
limit = 24
[[data]]
path = {test:?}
split = "test"
limit = 12
[text]
prompt-format = "Question: {{prompt}}\nAnswer:"
response-format = " {{response}}"
[warmup]
dimensions = ["honesty"]
steps = 3
learning-rate = 1e-3
[training]
steps = 4
pairs-per-step = 4
learning-rate = 5e-4
{round}
[evaluation]
bootstrap-resamples = 40
kl-samples = 4
kl-max-new-tokens = 6
samples = 0
{more}"#,
        model = assets().join("stories260K"),
        data = assets().join("truthfulqa/pairs.train.jsonl.gz"),
        test = assets().join("truthfulqa/pairs.test.jsonl.gz"),
    );
    std::fs::write(dir.join("run.toml"), text).unwrap();
    Ok(RunSpec::from_file(&dir.join("run.toml"))?)
}

const ROUND: &str = r#"
[[rounds]]
dimension = "style"
[rounds.online]
scorer = "rules:length=3,ends=0.5"
samples = 3
max-new-tokens = 8
refresh = 2
"#;
const SCORER: &str = r#"scorer = "rules:length=3,ends=0.5""#;

fn events(spec: &RunSpec) -> (Vec<Event>, spo_eval::RunSummary) {
    let mut seen = Memory::default();
    let prepared = prepare(spec, &mut seen).unwrap();
    let summary = run(prepared, &mut seen, &AtomicBool::new(false)).unwrap();
    (seen.0.into_iter().map(|record| record.event).collect(), summary)
}

#[test]
fn a_round_answers_scores_pairs_and_trains_and_does_so_again() {
    let dir = tempfile::tempdir().unwrap();
    let (_, summary) = events(&spec(dir.path(), ROUND, SCORER));
    let names: Vec<&str> = summary.rounds.iter().map(|round| round.policy.as_str()).collect();
    assert_eq!(names, ["round-1-style-1", "round-1-style-2"]);
    let made: Vec<(&str, &str)> =
        summary.online.iter().map(|made| (made.round.as_str(), made.policy.as_str())).collect();
    assert_eq!(made, [("round-1-style-1", "warmup"), ("round-1-style-2", "round-1-style-1")]);
    // The pairs are an ordinary file of preferences, and say what the figures say.
    let online = dir.path().join("out/online");
    let file = online.join("round-1-style-1.pairs.jsonl");
    let tokenizer = Tokenizer::from_path(&assets().join("stories260K")).unwrap();
    let data = DataSpec { path: Paths::Many(vec![file.display().to_string()]), ..DataSpec::default() };
    let pairs = Registry::builtin().load(&[data], &TextSpec::default(), &tokenizer, &mut |_| ()).unwrap();
    assert_eq!(pairs.pairs("style").len() + pairs.report.dropped().len(), summary.online[0].pairs);
    let answers = std::fs::read_to_string(online.join("round-1-style-1.answers.jsonl")).unwrap();
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((answers.len(), summary.online[0].prompts), (summary.online[0].prompts, answers.len()));
    assert!(answers.iter().all(|row| row["responses"].as_array().unwrap().len() == 3));
    // Every policy's responses were scored, and held against the start's.
    let scored: Vec<&str> = summary.answers.iter().map(|scores| scores.policy.as_str()).collect();
    assert_eq!(scored, ["warmup", "round-1-style-1", "round-1-style-2"]);
    let rates: Vec<(&str, &str)> = summary.win_rates.iter().map(|rate| (rate.a.as_str(), rate.b.as_str())).collect();
    assert_eq!(rates, [("round-1-style-1", "warmup"), ("round-1-style-2", "warmup")]);
    let table = |name: &str| std::fs::read_to_string(dir.path().join("out").join(name)).unwrap();
    assert_eq!((table("answers.csv").lines().count(), table("win-rates.csv").lines().count()), (4, 3));
    let report = std::fs::read_to_string(dir.path().join("out/report.md")).unwrap();
    assert!(report.contains("Answers in a scorer's eyes") && report.contains("round-1-style-2"), "{report}");
}

/// Fails at the `at`-th event of a kind, as a process that is killed there.
struct Dies<'a> {
    of: &'a dyn Fn(&Event) -> bool,
    left: usize,
}

impl Sink for Dies<'_> {
    fn event(&mut self, _: f64, event: &Event) -> Result<(), TrainError> {
        if (self.of)(event) {
            if self.left == 0 {
                return Err(TrainError::sink("killed"));
            }
            self.left -= 1;
        }
        Ok(())
    }
}

#[test]
fn a_run_that_is_killed_while_it_samples_scores_or_pairs_ends_as_one_that_was_not() {
    // In one place, as the hash of a plan is also that of its directory.
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let spec = spec(dir.path(), ROUND, SCORER);
    events(&spec);
    let expected = left(&out);
    let kinds: [&dyn Fn(&Event) -> bool; 4] = [
        &|event| matches!(event, Event::Answering { .. }),
        &|event| matches!(event, Event::Judging { .. }),
        &|event| matches!(event, Event::PairsMade(_)),
        &|event| matches!(event, Event::AnswersScored(_)),
    ];
    for (number, of) in kinds.into_iter().enumerate() {
        for after in [0, 1] {
            std::fs::remove_dir_all(&out).unwrap();
            let prepared = prepare(&spec, &mut Memory::default()).unwrap();
            let never = AtomicBool::new(false);
            let killed = run(prepared, &mut Dies { of, left: after }, &never);
            assert!(killed.is_err(), "kind {number}");
            let again = prepare(&spec, &mut Memory::default()).unwrap();
            resume(again, &out, &[], &mut Memory::default(), &never).unwrap();
            assert_same(&left(&out), &expected, &format!("kind {number}, {after}"));
        }
    }
}

#[test]
fn answers_of_the_data_take_part_and_earlier_rounds_are_held() {
    let dir = tempfile::tempdir().unwrap();
    let round = r#"
[[rounds]]
dimension = "honesty"
[[rounds]]
dimension = "brevity"
steps = 2
[rounds.online]
scorer = "rules:length=4"
samples = 1
temperature = 0
include-data = true
max-new-tokens = 8
pair = "all"
prompts-at-once = 5
[[rounds.controls]]
name = "free"
lambda = 0.0
"#;
    let (events, summary) = events(&spec(dir.path(), round, ""));
    let made = &summary.online[0];
    assert_eq!((made.prompts, made.answers), (5, 5));
    assert!(made.data_wins.is_some_and(|wins| (0.0..=1.0).contains(&wins)));
    // Round 2 is SPO by default: it has a margin offset of round 1 on pairs that nobody knew before.
    let offset = summary.rounds[1].margin_offset.as_ref().unwrap();
    assert_eq!(offset.count, made.pairs.min(8));
    assert!(offset.deviation > 0.0);
    let started = events.iter().filter_map(|event| match event {
        Event::PhaseStarted { phase, pairs, .. } => Some((phase.as_str(), *pairs)),
        _ => None,
    });
    let started: Vec<_> = started.collect();
    assert_eq!(started[2], ("round-2-brevity", made.pairs));
    assert_eq!(started[3], ("round-2-brevity.free", made.pairs));
}

#[test]
fn prompts_come_from_a_file_and_a_program_scores() {
    if cfg!(windows) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("prompts.txt"), "Once upon a time\nThe dog\nA cat\n").unwrap();
    // The longer the better, and a line to standard error for each.
    let script = r#"while read -r a; do id=${a#*\"id\":}; id=${id%%,*}; echo seen >&2; echo "{\"id\":$id,\"score\":${#a}}"; done"#;
    std::fs::write(dir.path().join("scorer.sh"), script).unwrap();
    let round = r#"
[[rounds]]
dimension = "length"
objective = "dpo"
[rounds.online]
scorer = "command:sh scorer.sh"
prompts = "prompts.txt"
samples = 4
max-new-tokens = 8
"#;
    let (_, summary) = events(&spec(dir.path(), round, ""));
    assert_eq!((summary.online[0].prompts, summary.online[0].answers), (3, 12));
    let log = std::fs::read_to_string(dir.path().join("out/scorer.log")).unwrap();
    assert_eq!(log.lines().count(), 12);
}

#[test]
fn what_cannot_be_made_is_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let online =
        |keys: &str| format!("[[rounds]]\ndimension = \"style\"\nobjective = \"dpo\"\n[rounds.online]\n{keys}");
    let scored = |keys: &str| online(&format!("scorer = \"rules:length=3\"\n{keys}"));
    for (round, said) in [
        (online(""), "scorer"),
        (online("scorer = \"rulez:length=3\""), "did you mean"),
        (online("scorer = \"rules:lenght=3\""), "unknown field"),
        (scored("samples = 1"), "makes no pair"),
        (scored("temperature = 0"), "all the same"),
        (scored("prompts = \"nowhere.txt\""), "nowhere.txt"),
        (scored("refresh = -1"), "refresh"),
        (scored("sample = 3"), "sample"),
        (scored("").replace("dpo", "kto"), "learns from labelled answers"),
    ] {
        let found = written(dir.path(), &round, "").and_then(|spec| prepare(&spec, &mut Memory::default()));
        let error = found.err().map(|error| format!("{error}; {}", error.hint().unwrap_or_default()));
        let error = error.unwrap_or_else(|| panic!("{round} was accepted"));
        assert!(error.contains(said), "{round}\n{error}");
    }
}

#[test]
fn a_round_without_pairs_ends_the_run_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let round = ROUND.replace("max-new-tokens = 8", "max-new-tokens = 1\nunfinished = \"drop\"");
    let spec = spec(dir.path(), &round, "");
    let prepared = prepare(&spec, &mut Memory::default()).unwrap();
    let error = run(prepared, &mut Memory::default(), &AtomicBool::new(false)).unwrap_err();
    assert!(error.to_string().contains("were cut at max-new-tokens = 1"), "{error}");
    assert!(error.hint().is_some());
}
