//! Programs that score, and all the ways in which they fail.
#![cfg(unix)]

use serde_json::{Map, Value, json};
use spo_data::PromptText;
use spo_score::{Item, NoModels, Opening, Registry, ScoreError, Scorer, ScorerSpec};

/// Answers one request with `$1` in the place of a score.
const ANSWER: &str = r#"answer() { id=${1#*\"id\":}; id=${id%%,*}; printf '{"id":%s,"score":%s}\n' "$id" "$2"; }"#;

/// A scorer that is a shell script, which has `answer LINE SCORE`.
fn scorer(script: &str, more: Value) -> Box<dyn Scorer> {
    let mut options = json!({ "command": ["sh", "-c", format!("{ANSWER}\n{script}")], "timeout": 0.5 });
    let Value::Object(more) = more else { panic!("options are a table") };
    options.as_object_mut().unwrap().extend(more);
    open(options).unwrap()
}

fn open(options: Value) -> Result<Box<dyn Scorer>, ScoreError> {
    let Value::Object(options) = options else { panic!("options are a table") };
    let spec = ScorerSpec { kind: "command".into(), argument: None, options };
    Registry::builtin().open(&spec, &Opening { models: &NoModels, log: None, directory: None })
}

fn items(count: usize) -> Vec<Item> {
    let item = |index: usize| Item {
        id: format!("row {index}"),
        prompt: PromptText::Text(format!("prompt {index}")),
        response: "x".repeat(index),
        ..Item::default()
    };
    (0..count).map(item).collect()
}

/// The one number of each item.
fn scores(scorer: &mut dyn Scorer, count: usize) -> Result<Vec<Option<f64>>, ScoreError> {
    let found = scorer.score(&items(count), &mut |_| true)?;
    Ok(found.into_iter().map(|scores| scores.and_then(|scores| scores.of(None))).collect())
}

/// What a script's failure says, with its hint.
fn fault(script: &str) -> String {
    let error = scores(scorer(script, json!({ "restarts": 1 })).as_mut(), 3).unwrap_err();
    format!("{error}; {}", error.hint().unwrap_or_default())
}

#[test]
fn answers_come_in_any_order_and_may_be_null() {
    let script = r#"while read -r a; do
        case $a in *prompt\ 2*) answer "$a" null; continue;; esac
        if read -r b; then answer "$b" -1.5; fi; answer "$a" 2; done"#;
    let mut scorer = scorer(script, json!({}));
    // Of 0 and 1 the later one is answered first; 2 is null; 3 and 4.
    assert_eq!(scores(scorer.as_mut(), 5).unwrap(), [Some(2.0), Some(-1.5), None, Some(2.0), Some(-1.5)]);
    // The same program goes on with the next call.
    assert_eq!(scores(scorer.as_mut(), 2).unwrap(), [Some(2.0), Some(-1.5)]);
}

#[test]
fn scores_may_be_by_dimension() {
    let script = r#"while read -r a; do id=${a#*\"id\":}; echo "{\"id\":${id%%,*},\"scores\":{\"honesty\":1,\"style\":null}}"; done"#;
    let found = scorer(script, json!({})).score(&items(1), &mut |_| true).unwrap().remove(0).unwrap();
    assert_eq!((found.of(Some("honesty")), found.of(Some("style")), found.of(None)), (Some(1.0), None, None));
}

#[test]
fn requests_have_all_fields() {
    let script = r#"while read -r a; do
        case $a in '{"id":0,"prompt":"prompt 0","response":"","messages":[{"role":"user","content":"prompt 0"},{"role":"assistant","content":""}],"dimension":"honesty"}')
        answer "$a" 1;; *) answer "$a" 0;; esac; done"#;
    let mut item = items(1);
    item[0].dimension = Some("honesty".into());
    let found = scorer(script, json!({})).score(&item, &mut |_| true).unwrap();
    assert_eq!(found[0].as_ref().and_then(|scores| scores.of(None)), Some(1.0));
}

#[test]
fn one_that_dies_or_hangs_is_started_anew_and_what_it_said_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("died").display().to_string();
    // Answers two requests in its first life, then dies or hangs; answers all in its second one, with another score.
    for end in ["exit 3", "exec sleep 60"] {
        let _ = std::fs::remove_file(&marker);
        let script = format!(
            r#"if [ -e {marker} ]; then while read -r a; do answer "$a" 2; done; fi
            touch {marker}; read -r a; answer "$a" 1; read -r a; answer "$a" 1; {end}"#
        );
        let found = scores(scorer(&script, json!({})).as_mut(), 4).unwrap();
        assert_eq!(found, [Some(1.0), Some(1.0), Some(2.0), Some(2.0)], "{end}");
    }
}

#[test]
fn one_that_keeps_failing_is_an_error() {
    let died = fault("exit 3");
    assert!(died.contains("ended before it had answered everything, also after 1 new starts"), "{died}");
    assert!(died.contains("standard error"), "{died}");
    let hangs = fault("exec sleep 60");
    assert!(hangs.contains("gave no answer for 0.5 seconds"), "{hangs}");
}

#[test]
fn garbage_is_an_error_that_shows_it() {
    for (script, said) in [
        ("echo loading weights", "loading weights"),
        (r#"read -r a; answer "$a" NaN"#, "NaN"),
        (r#"read -r a; answer "$a" '"high"'"#, "score is \"high\", not a number or null"),
        (r#"echo '{"score": 1}'"#, "without an id"),
        (r#"echo '{"id": 99, "score": 1}'"#, "the id of a request that has no answer yet"),
        (r#"read -r a; answer "$a" 1; answer "$a" 1"#, "the id of a request that has no answer yet"),
        (r#"echo '{"id": 0}'"#, "neither score nor scores"),
        (r#"echo '{"id": 0, "scores": [1]}'"#, "not an object by dimension"),
    ] {
        let error = fault(script);
        assert!(
            error.contains(said) && error.contains("print what is no answer to standard error"),
            "{script}: {error}"
        );
    }
}

#[test]
fn standard_error_goes_to_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("scorer.log");
    let command = format!("{ANSWER}; while read -r a; do echo one more >&2; answer \"$a\" 1; done");
    let options = Map::from_iter([("command".to_string(), json!(["sh", "-c", command]))]);
    let spec = ScorerSpec { kind: "command".into(), argument: None, options };
    let opening = Opening { models: &NoModels, log: Some(log.clone()), directory: None };
    let mut scorer = Registry::builtin().open(&spec, &opening).unwrap();
    scores(scorer.as_mut(), 2).unwrap();
    assert_eq!(std::fs::read_to_string(log).unwrap(), "one more\none more\n");
}

#[test]
fn the_user_may_interrupt_one_that_hangs() {
    let mut scorer = scorer("exec sleep 60", json!({ "timeout": 60 }));
    let mut looks = 0;
    let found = scorer.score(&items(1), &mut |_| {
        looks += 1;
        looks < 3
    });
    assert!(matches!(found, Err(ScoreError::Interrupted)));
}

#[test]
fn a_program_that_is_not_there_is_told_of_at_once() {
    let error = open(json!({ "command": "no-such-program-here --x" })).err().unwrap();
    assert!(error.to_string().contains("cannot be started"), "{error}");
    let error = open(json!({ "command": "python3 'a" })).err().unwrap();
    assert!(error.to_string().contains("quote"), "{error}");
}
