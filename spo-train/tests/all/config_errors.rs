//! Wrong run files: each is refused at the right place, in words that say what to do.

use std::fmt::Write;

use proptest::prelude::*;
use serde_json::Value;
use spo_train::config::{ConfigError, Facts, Registries, RunPlan, RunSpec, init, resolve, schema};

fn facts() -> Facts {
    Facts {
        pairs: [("honesty", 640), ("helpfulness", 650), ("unlabelled", 0)]
            .map(|(name, pairs)| (name.to_owned(), pairs))
            .into(),
        context_length: Some(512),
        ..Facts::default()
    }
}

const GOOD: &str = r#"schema = 1
[model]
path = "model"
[[data]]
path = "data.jsonl"
[training]
steps = 10
[[rounds]]
dimension = "honesty"
[[rounds]]
dimension = "helpfulness"
lambda = 1.0
[[rounds.controls]]
name = "sequential"
lambda = 0
"#;

fn read(text: &str, sets: &[&str]) -> Result<RunPlan, ConfigError> {
    let mut spec = RunSpec::from_str("run.toml", text)?;
    for set in sets {
        spec.apply_set(set)?;
    }
    resolve(&spec, &facts())
}

/// The message, the marked text and the hint.
fn render(error: &ConfigError) -> String {
    let mut text = error.to_string();
    if let (Some(place), Some((start, end))) = (error.place(), error.span()) {
        let _ = write!(text, "\n  at: {:?}", &place.text[start..end]);
    }
    if let Some(hint) = error.hint() {
        let _ = write!(text, "\n  hint: {hint}");
    }
    text
}

#[test]
fn good_file_is_good() {
    read(GOOD, &[]).unwrap();
}

#[test]
fn wrong_files() {
    let replaced = [
        ("broken TOML", "steps = 10", "steps = = 10"),
        ("key twice", "steps = 10", "steps = 10\nsteps = 11"),
        ("no schema", "schema = 1\n", ""),
        ("newer schema", "schema = 1", "schema = 2"),
        ("older schema", "schema = 1", "schema = 0"),
        ("schema of a wrong type", "schema = 1", "schema = \"one\""),
        ("typo at the top", "[training]", "[trainnig]"),
        ("typo in a section", "steps = 10", "learing-rate = 1e-4"),
        ("underscores", "steps = 10", "pairs_per_step = 4"),
        ("key of another section", "steps = 10", "rank = 4"),
        ("unheard-of key", "path = \"model\"", "path = \"model\"\nquantise = 4"),
        ("a strategy that is none", "path = \"model\"", "path = \"model\"\nmatmul = \"fast\""),
        ("string for a number", "steps = 10", "steps = \"10\""),
        ("fraction for a count", "steps = 10", "steps = 1.5"),
        ("zero steps", "steps = 10", "steps = 0"),
        ("negative count", "steps = 10", "warmup-steps = -1"),
        ("huge integer", "steps = 10", "steps = 99999999999999999999"),
        ("not a number", "steps = 10", "learning-rate = nan"),
        ("infinite", "steps = 10", "max-grad-norm = inf"),
        ("share above one", "steps = 10", "warmup-ratio = 1.5"),
        ("beta of one", "steps = 10", "adam-betas = [0.9, 1.0]"),
        ("one beta", "steps = 10", "adam-betas = [0.9]"),
        ("unknown schedule", "steps = 10", "schedule = \"cosin\""),
        ("number for a flag", "steps = 10", "shuffle = 1"),
        ("both lengths", "steps = 10", "steps = 10\nepochs = 1"),
        ("beta of an objective with alpha", "lambda = 1.0", "beta = 0.2"),
        (
            "objective of lists",
            "lambda = 1.0\n[[rounds.controls]]\nname = \"sequential\"\nlambda = 0\n",
            "objective = \"opo\"\n",
        ),
        (
            "holding a round without a reward",
            "dimension = \"honesty\"",
            "dimension = \"honesty\"\nobjective = \"orpo\"",
        ),
        ("unknown layout", "path = \"data.jsonl\"", "path = \"data.jsonl\"\nschema = \"ultrafeedbak\""),
        ("no rounds", &GOOD[GOOD.find("[[rounds]]").unwrap()..], ""),
        ("empty list of data", "[[data]]\npath = \"data.jsonl\"\n", ""),
        ("table for a list", "[[data]]", "[data]"),
        ("round without dimension", "dimension = \"honesty\"", "name = \"first\""),
        ("unknown dimension", "dimension = \"honesty\"", "dimension = \"honest\""),
        ("dimension without pairs", "dimension = \"honesty\"", "dimension = \"unlabelled\""),
        ("number for a name", "dimension = \"honesty\"", "dimension = 1"),
        ("unknown objective", "lambda = 1.0", "objective = \"spoo\""),
        ("option of another objective", "dimension = \"honesty\"", "dimension = \"honesty\"\nlambda = 1"),
        ("typo in an option", "lambda = 1.0", "lamda = 1.0"),
        ("option out of range", "lambda = 1.0", "alpha = -0.1"),
        ("option of a wrong type", "lambda = 1.0", "margin = 3"),
        ("unknown margin", "lambda = 1.0", "margin = \"recursiv\""),
        ("computed option", "lambda = 1.0", "earlier = []"),
        ("negative lambda", "lambda = 1.0", "lambda = -1"),
        ("lambda of a later dimension", "lambda = 1.0", "lambda = { helpfulness = 1 }"),
        ("lambda that leaves one out", "lambda = 1.0", "lambda = {}"),
        ("lambda as a list", "lambda = 1.0", "lambda = [1.0]"),
        ("control without a name", "name = \"sequential\"\n", ""),
        ("control called main", "\"sequential\"", "\"main\""),
        ("control with a path for a name", "\"sequential\"", "\"../up\""),
        ("two rounds of one name", "lambda = 1.0", "name = \"round-1-honesty\""),
        (
            "holdout beside test data",
            "path = \"data.jsonl\"",
            "path = \"data.jsonl\"\nsplit = \"test\"\n[evaluation]\n",
        ),
        ("holdout beside a part", "schema = 1", "schema = 1\nholdout-fold = \"1/5\""),
        ("a part that is none", "schema = 1", "schema = 1\nholdout-fold = \"6/5\""),
        ("a part beside test data", "path = \"data.jsonl\"", "path = \"data.jsonl\"\nsplit = \"test\"\n"),
        ("unknown split", "path = \"data.jsonl\"", "path = \"data.jsonl\"\nsplit = \"dev\""),
        ("typo in data", "path = \"data.jsonl\"", "paths = \"data.jsonl\""),
        ("text beyond the context", "[training]", "[text]\nmax-length = 1024\n[training]"),
        ("format without a placeholder", "[training]", "[text]\nprompt-format = \"Q:\"\n[training]"),
        ("layers that are no names", "[training]", "[lora]\ntargets = 3\n[training]"),
        ("rank zero", "[training]", "[lora]\nrank = 0\n[training]"),
        ("dtype", "path = \"model\"", "path = \"model\"\ndtype = \"fp16\""),
        ("warm-up on an unknown dimension", "[training]", "[warmup]\ndimensions = [\"honesty\", \"help\"]\n[training]"),
        ("early stopping without evaluations", "steps = 10", "steps = 10\nearly-stopping = {}"),
        ("KL budget without evaluations", "lambda = 1.0", "max-kl = 5.0"),
        ("updates in the backward pass with a clip", "steps = 10", "update-in-backward = true"),
        (
            "updates in the backward pass of adapters",
            "[training]",
            "[lora]\nrank = 4\n[training]\nupdate-in-backward = true",
        ),
        (
            "updates in the backward pass of f16 weights",
            "path = \"model\"\n[[data]]\npath = \"data.jsonl\"\n[training]",
            "path = \"model\"\ndtype = \"f16\"\n[[data]]\npath = \"data.jsonl\"\n[training]\nupdate-in-backward = true\nmax-grad-norm = 0.0",
        ),
        ("no such optimizer", "steps = 10", "optimizer = \"subzerro\""),
        ("key of an optimizer that is not there", "steps = 10", "zo-rank = 4"),
        ("rank of MeZO", "steps = 10", "optimizer = \"mezo\"\nzo-rank = 4"),
        ("clipping what is not there", "steps = 10", "optimizer = \"subzero\"\nmax-grad-norm = 1.0"),
        ("momentum of one", "steps = 10", "optimizer = \"mezo\"\nzo-momentum = 1.0"),
        ("dropout between two losses", "[training]", "[lora]\ndropout = 0.1\n[training]\noptimizer = \"mezo\""),
        ("magnitudes of SubZero", "[training]", "[lora]\ndora = true\n[training]\noptimizer = \"subzero\""),
        ("typo in early stopping", "steps = 10", "eval-every = 2\nearly-stopping = { patince = 2 }"),
        (
            "early stopping on no round's dimension",
            "steps = 10",
            "eval-every = 2\nearly-stopping = { metric = \"margin\", dimension = \"help\" }",
        ),
        ("loss of another dimension", "lambda = 1.0", "eval-every = 2\nearly-stopping = { dimension = \"honesty\" }"),
        (
            "accuracy in a warm-up",
            "[training]",
            "[warmup]\neval-every = 2\nearly-stopping = { metric = \"accuracy\" }\n[training]",
        ),
        ("condition without a sign", "lambda = 1.0", "gate.honesty.accuracy = \"0.6\""),
        ("condition as a number", "lambda = 1.0", "gate.honesty.accuracy = 0.6"),
        ("condition on an unknown dimension", "lambda = 1.0", "gate.honest.accuracy = \">= 0.6\""),
        ("condition on an unknown metric", "lambda = 1.0", "gate.honesty.acuracy = \">= 0.6\""),
        ("typo in a gate", "lambda = 1.0", "gate.max-forgeting = 0.02"),
        ("forgetting above one", "lambda = 1.0", "gate.max-forgetting = 2"),
        ("roll-back without evaluations", "lambda = 1.0", "gate = { max-forgetting = 0.02, on-miss = \"roll-back\" }"),
        ("gate of a control", "lambda = 0", "gate.max-forgetting = 0.02"),
        ("typo in a watchdog", "[training]", "[watchdog]\noverfiting = 3\n[training]"),
        ("empty warm-up", "[training]", "[warmup]\ndimensions = []\n[training]"),
    ];
    let mut shown = String::new();
    for (case, from, to) in replaced {
        assert!(GOOD.contains(from), "{case}");
        let mut text = GOOD.replacen(from, to, 1);
        if case.starts_with("holdout") {
            text.insert_str(0, "holdout = 0.2\n");
        }
        if case == "a part beside test data" {
            text.insert_str(0, "holdout-fold = \"1/5\"\n");
        }
        let error = read(&text, &[]).expect_err(case);
        let _ = write!(shown, "# {case}\n{}\n\n", render(&error));
    }
    insta::assert_snapshot!("wrong_files", shown);
}

#[test]
fn wrong_sets() {
    let mut shown = String::new();
    for set in [
        "rounds.1.lambda",
        "rounds.5.lambda=1",
        "rounds.first.lambda=1",
        "rounds.1.lambda.honesty.x=1",
        "training.steps=ten",
        "training.stpes=10",
        "model.dtype=f64",
        "=3",
        "rounds..lambda=3",
        "training=3",
        "rounds.1.dimension=harmlessness",
        "rounds.1.lambda={honesty=1",
        "schema=3",
    ] {
        let error = read(GOOD, &[set]).expect_err(set);
        let _ = write!(shown, "# {set}\n{}\n\n", render(&error));
    }
    insta::assert_snapshot!("wrong_sets", shown);
}

#[test]
fn missing_file_and_not_utf8() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.toml");
    let error = RunSpec::from_file(&path).unwrap_err();
    assert!(error.to_string().contains("run.toml"), "{error}");
    assert!(error.hint().unwrap().contains("spo init"));
    std::fs::write(&path, [0xff, 0xfe, b'=']).unwrap();
    let error = RunSpec::from_file(&path).unwrap_err();
    assert!(error.to_string().contains("UTF-8"), "{error}");
}

#[test]
fn column_counts_characters() {
    let error = read(&GOOD.replace("path = \"model\"", "path = \"mö\" x"), &[]).unwrap_err();
    let place = error.place().unwrap();
    assert_eq!((place.line, place.column), (Some(3), Some(13)));
}

/// Every key of the schema with values of every kind: a plan or a fault, never a panic.
#[test]
fn every_key_takes_or_refuses_every_kind_of_value() {
    let schema = schema::json_schema(&Registries::default());
    let keys = |prefix: &str, table: &Value| -> Vec<String> {
        let keys = table["properties"].as_object().unwrap().keys();
        keys.map(|key| format!("{prefix}{key}")).collect()
    };
    let section = |name: &str| &schema["properties"][name];
    let round = &section("rounds")["items"];
    let mut paths = keys("", &schema);
    for name in ["model", "lora", "text", "warmup", "training", "evaluation", "watchdog"] {
        paths.extend(keys(&format!("{name}."), section(name)));
    }
    paths.extend(keys("data.0.", &section("data")["items"]));
    paths.extend(keys("rounds.1.", round));
    paths.extend(keys("rounds.1.controls.0.", &round["properties"]["controls"]["items"]));
    let values = "0 1 -1 7 0.5 1e308 9223372036854775807 nan -inf true word \"\" [] [1] [0.5,0.5] [\"a\"] {} {honesty=2} 2026-01-01 / rules:ends=1";
    let mut accepted = 0;
    for path in &paths {
        for value in values.split(' ') {
            // These go with an optimizer that is not the default.
            let table = path.rsplit_once('.').filter(|(_, key)| key.starts_with("zo-")).map(|(table, _)| table);
            let optimizer = table.map(|table| format!("{table}.optimizer=\"subzero\""));
            let set = format!("{path}={value}");
            let sets: Vec<&str> = optimizer.iter().chain([&set]).map(String::as_str).collect();
            accepted += usize::from(read(GOOD, &sets).is_ok());
        }
    }
    // Most options are those of an objective that the round does not have.
    assert!(accepted > paths.len(), "{accepted} of {}", paths.len());
}

proptest! {
    /// Whatever is cut out of, or put into, a run file: an answer, never a panic, and a span inside the text.
    #[test]
    fn mangled_files_never_panic(at in 0usize..3000, cut in 0usize..12, put in "[a-z0-9=.\"\\[\\]{}#\n -]{0,6}") {
        let template = init::template();
        let boundary = |index: usize| (0..=index.min(template.len())).rev().find(|i| template.is_char_boundary(*i)).unwrap();
        let (start, end) = (boundary(at), boundary(at + cut));
        let text = format!("{}{put}{}", &template[..start], &template[end..]);
        if let Err(error) = read(&text, &[])
            && let (Some(place), Some((start, end))) = (error.place(), error.span())
        {
            prop_assert!(place.text.get(start..end).is_some());
        }
    }

    #[test]
    fn any_text_never_panics(text in "\\PC{0,60}", set in "\\PC{0,30}") {
        let _ = read(&text, &[]);
        let _ = read(GOOD, &[&set]);
        let _ = read(GOOD, &[&format!("rounds.1.{set}")]);
    }
}
