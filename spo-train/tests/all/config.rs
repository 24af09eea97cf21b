//! The run file: reading, changing, resolving.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use spo_train::config::spec::{Argument, Schedule};
use spo_train::config::{ConfigError, Facts, Origin, RunPlan, RunSpec, init, reference, resolve, schema};

fn facts() -> Facts {
    Facts {
        pairs: [("honesty", 640), ("helpfulness", 650), ("brevity", 33)]
            .map(|(name, pairs)| (name.to_owned(), pairs))
            .into(),
        context_length: Some(512),
        ..Facts::default()
    }
}

fn plan(text: &str) -> Result<RunPlan, ConfigError> {
    resolve(&RunSpec::from_str("run.toml", text)?, &facts())
}

fn plan_with(text: &str, sets: &[&str]) -> Result<RunPlan, ConfigError> {
    let mut spec = RunSpec::from_str("run.toml", text)?;
    for set in sets {
        spec.apply_set(set)?;
    }
    resolve(&spec, &facts())
}

fn value(plan: &RunPlan, key: &str) -> (Value, String) {
    let lines = plan.lines();
    let line = lines.iter().find(|line| line.key == key);
    let line = line.unwrap_or_else(|| panic!("no {key}"));
    (line.value.clone(), line.origin.to_string())
}

const SMALL: &str = r#"
schema = 1
[model]
path = "model"
[[data]]
path = "data.jsonl"
[[rounds]]
dimension = "honesty"
"#;

#[test]
fn template_resolves_and_its_plan_shows_every_origin() {
    let plan = plan(&init::template()).unwrap();
    assert_eq!(plan.rounds.len(), 2);
    assert_eq!(plan.rounds[1].controls()[0].name, "sequential-dpo");
    let lines: Vec<String> = plan
        .lines()
        .iter()
        // Which options objectives and text have, and their defaults, is tested where they live.
        .filter(|line| {
            !(line.key.contains(".options.") || line.key.starts_with("text.")) || line.origin != Origin::Default
        })
        .map(|line| format!("{} = {}  ({})", line.key, line.value, line.origin))
        .collect();
    insta::assert_snapshot!("template_plan", lines.join("\n"));
}

/// What the template says the defaults are, they are.
#[test]
fn commented_values_of_the_template_are_the_defaults() {
    let template = init::template();
    let explicit = plan(&live_lines(&template).join("\n")).unwrap();
    assert_eq!(bare(explicit), bare(plan(&template).unwrap()));
}

fn bare(plan: RunPlan) -> RunPlan {
    RunPlan { origins: Default::default(), ..plan }
}

/// The template with commented keys switched on, except in commented-out sections.
fn live_lines(template: &str) -> Vec<String> {
    let mut in_comment = false;
    let mut lines = Vec::new();
    for line in template.lines() {
        let section = line.trim_start_matches("# ").starts_with('[');
        if section {
            in_comment = line.starts_with('#');
        }
        let key = line.strip_prefix("# ").filter(|rest| {
            let name = rest.split(" = ").next().unwrap_or_default();
            rest.contains(" = ") && name.chars().all(|c| c.is_ascii_lowercase() || c == '-')
        });
        // The name that `dimension` shows is an example, not a default.
        let example = key.is_some_and(|key| key.starts_with("dimension"));
        lines.push(match key {
            Some(key) if !in_comment && !example => key.to_owned(),
            _ => line.to_owned(),
        });
    }
    assert!(lines.iter().filter(|line| !line.starts_with('#')).count() > 40);
    lines
}

#[test]
fn commented_sections_of_the_template_are_the_defaults() {
    let template = init::template();
    let on = |section: &str| {
        let start = template.find(&format!("# [{section}]\n")).unwrap();
        let end = start + template[start..].find("\n\n").unwrap();
        let body = template[start..end].replace("\n# ", "\n");
        format!("{}{}{}", &template[..start], &body[2..], &template[end..])
    };
    for section in ["lora", "warmup"] {
        let explicit = plan(&on(section)).unwrap();
        let short = plan_with(&template, &[&format!("{section}={{}}")]).unwrap();
        assert_eq!(bare(explicit), bare(short));
    }
}

#[test]
fn smallest_file_has_the_documented_defaults() {
    let plan = plan(SMALL).unwrap();
    assert_eq!(plan.name, "run");
    assert_eq!(plan.out, Path::new("runs/run"));
    assert_eq!(plan.holdout, Some(0.1));
    let arm = plan.rounds[0].main();
    assert_eq!((arm.objective.as_str(), &arm.options["beta"]), ("dpo", &json!(0.1)));
    assert_eq!((arm.training.steps, arm.training.warmup_steps), (20, 2));
    assert_eq!((arm.training.adam_eps, arm.training.weight_decay), (1e-8, 0.0));
    assert_eq!(plan.text.max_length, Some(512));
    assert_eq!(value(&plan, "text.max-length").1, "computed from the model's context length");
}

#[test]
fn nearer_tables_win_and_say_so() {
    let text = format!(
        "{SMALL}learning-rate = 1e-4\nepochs = 2.5\n\
         [[rounds.controls]]\nname = \"slow\"\nlearning-rate = 1e-5\nbeta = 0.2\n\
         [training]\nlearning-rate = 1\nsteps = 7\npairs-per-step = 100\nwarmup-steps = 3\n"
    );
    let plan = plan(&text).unwrap();
    let [main, slow] = &plan.rounds[0].arms[..] else { panic!("two arms") };
    assert_eq!((main.training.learning_rate, slow.training.learning_rate), (1e-4, 1e-5));
    assert_eq!((&main.options["beta"], &slow.options["beta"]), (&json!(0.1), &json!(0.2)));
    // 640 pairs are 7 batches of 100; 2.5 epochs of them are 18 steps.
    assert_eq!((main.training.steps, slow.training.steps), (18, 18));
    let origin = |key: &str| value(&plan, key).1;
    assert_eq!(origin("rounds.0.arms.0.learning-rate"), "run.toml:9");
    assert_eq!(origin("rounds.0.arms.1.learning-rate"), "run.toml:13");
    assert_eq!(origin("rounds.0.arms.1.options.beta"), "run.toml:14");
    assert_eq!(origin("rounds.0.arms.0.pairs-per-step"), "run.toml:18");
    assert_eq!(origin("rounds.0.arms.0.warmup-steps"), "run.toml:19");
    assert_eq!(origin("rounds.0.arms.0.schedule"), "default");
    assert_eq!(origin("rounds.0.arms.0.steps"), "computed from epochs, 640 pairs, 100 a step");
}

#[test]
fn an_optimiser_without_keys_has_the_defaults_of_the_library() {
    let training = plan(SMALL).unwrap().rounds[0].main().training.clone();
    assert_eq!(training.adamw(), spo_train::step::optimizer::AdamWConfig::default());
    let rates = training.learning_rates();
    assert_eq!((rates.peak, rates.steps), (training.learning_rate, training.steps));
}

#[test]
fn a_zeroth_order_optimiser_has_the_defaults_of_its_paper() {
    let training = |text: &str| plan(&format!("{SMALL}{text}")).unwrap().rounds[0].main().training.clone();
    let subzero = training("[training]\noptimizer = \"subzero\"\n");
    let settings = subzero.zeroth_order.unwrap();
    assert_eq!((settings.zo_rank, settings.zo_refresh), (Some(8), Some(1000)));
    assert_eq!((settings.zo_eps, settings.zo_estimates, settings.zo_momentum), (1e-3, 1, 0.0));
    assert_eq!((subzero.learning_rate, subzero.schedule, subzero.warmup_steps), (1e-6, Schedule::Constant, 0));
    assert_eq!((subzero.max_grad_norm, subzero.weight_decay), (0.0, 0.0));
    let mezo = training("[lora]\n[training]\noptimizer = \"mezo\"\nschedule = \"linear\"\n");
    let settings = mezo.zeroth_order.unwrap();
    assert_eq!((settings.zo_rank, settings.zo_eps, mezo.learning_rate), (None, 1e-2, 1e-4));
    assert_eq!(mezo.schedule, Schedule::Linear);
    assert_eq!(training("").zeroth_order, None);
}

#[test]
fn what_training_says_for_adamw_does_not_bind_a_round_of_another_optimiser() {
    let plan =
        plan(&format!("{SMALL}optimizer = \"mezo\"\n[training]\nmax-grad-norm = 0.5\nadam-eps = 1e-6\n")).unwrap();
    let training = &plan.rounds[0].main().training;
    assert_eq!((training.max_grad_norm, training.adam_eps), (0.0, 1e-8));
    let plan = plan_with(
        &SMALL.replace("[model]", "[training]\noptimizer = \"subzero\"\nzo-rank = 3\n[model]"),
        &["rounds.0.optimizer=\"adamw\""],
    );
    assert_eq!(plan.unwrap().rounds[0].main().training.zeroth_order, None);
}

#[test]
fn warmup_takes_training_settings_but_not_length_or_rate() {
    let text = format!(
        "{SMALL}[training]\nlearning-rate = 1\nsteps = 7\nadam-eps = 1e-6\n\
         [warmup]\ndimensions = [\"honesty\", \"brevity\"]\npairs-per-step = 10\n"
    );
    let warmup = plan(&text).unwrap().warmup.unwrap();
    assert_eq!(warmup.dimensions, ["honesty", "brevity"]);
    assert_eq!(warmup.training.learning_rate, 2e-5);
    assert_eq!((warmup.training.adam_eps, warmup.training.steps), (1e-6, 68));
    let all = plan_with(&text, &["warmup={}", "lora={}"]).unwrap().warmup.unwrap();
    assert_eq!(all.dimensions, ["honesty"]);
    assert_eq!(all.training.learning_rate, 2e-4);
}

const THREE: &str = r#"
schema = 1
[model]
path = "model"
[[data]]
path = "data.jsonl"
[[rounds]]
dimension = "honesty"
beta = 0.3
[[rounds]]
dimension = "helpfulness"
alpha = 0.2
lambda = 0.5
[[rounds]]
dimension = "brevity"
lambda = { honesty = 0.25, helpfulness = 2 }
margin = "raw"
[[rounds.controls]]
name = "sequential"
lambda = 0
[[rounds.controls]]
name = "ignore"
objective = "dpo"
beta = 0.1
"#;

#[test]
fn later_rounds_know_the_coefficients_of_earlier_ones() {
    let plan = plan(THREE).unwrap();
    let options = |round: usize, arm: usize, keys: &[&str]| -> Vec<Value> {
        let options = &plan.rounds[round].arms[arm].options;
        keys.iter().map(|key| options[*key].clone()).collect()
    };
    assert_eq!(options(0, 0, &["beta"]), [json!(0.3)]);
    let keys = ["alpha", "lambda", "earlier", "margin"];
    let first = json!({ "alpha": 0.3, "lambda": [] });
    assert_eq!(options(1, 0, &keys), [json!(0.2), json!([0.5]), json!([first]), json!("recursive")]);
    let earlier = json!([first, { "alpha": 0.2, "lambda": [0.5] }]);
    assert_eq!(options(2, 0, &keys), [json!(0.1), json!([0.25, 2.0]), earlier.clone(), json!("raw")]);
    assert_eq!(options(2, 1, &keys), [json!(0.1), json!([0.0, 0.0]), earlier, json!("raw")]);
    assert_eq!(options(2, 2, &["beta"]), [json!(0.1)]);
    assert!(!plan.rounds[2].arms[2].options.contains_key("lambda"));
    for round in &plan.rounds {
        for arm in &round.arms {
            spo_core::objective::build(&arm.objective, &arm.options).unwrap();
        }
    }
    let (_, origin) = value(&plan, "rounds.2.arms.0.options.lambda");
    assert_eq!(origin, "run.toml:16");
    let (_, origin) = value(&plan, "rounds.2.arms.0.options.earlier.1.alpha");
    assert_eq!(origin, "computed from rounds.1");
}

/// A round after a plain one holds it with that round's own λ = 0 over the rounds before it.
#[test]
fn a_plain_round_in_the_middle_held_nothing() {
    let plan = plan_with(THREE, &["rounds.1={dimension=\"helpfulness\", objective=\"dpo\", beta=0.4}"]).unwrap();
    let options = &plan.rounds[2].main().options;
    assert_eq!(options["earlier"], json!([{ "alpha": 0.3, "lambda": [] }, { "alpha": 0.4, "lambda": [0.0] }]));
}

#[test]
fn names_of_other_trainers_are_understood() {
    let plan = plan_with(SMALL, &["rounds.0.objective=sigmoid"]).unwrap();
    assert_eq!(plan.rounds[0].main().objective, "dpo");
}

#[test]
fn set_writes_anywhere_with_its_own_origin() {
    let plan = plan_with(
        THREE,
        &[
            "rounds.1.lambda=0.75",
            "rounds.2.controls.0.lambda={honesty=1, helpfulness=0}",
            "model.device=cuda:0",
            "lora.targets=[\"q_proj\"]",
            "training.steps=12",
            "name=other",
            "text.response-format= {response}",
        ],
    )
    .unwrap();
    assert_eq!(plan.rounds[1].main().options["lambda"], json!([0.75]));
    assert_eq!(plan.rounds[2].arms[1].options["lambda"], json!([1.0, 0.0]));
    assert_eq!(plan.model.device, "cuda:0");
    assert_eq!(plan.lora.as_ref().unwrap().rank, 16);
    assert_eq!(plan.rounds[2].main().training.steps, 12);
    assert_eq!(plan.out, Path::new("runs/other"));
    assert_eq!(
        plan.origins["rounds.1.arms.0.options.lambda"],
        Origin::Set { argument: "rounds.1.lambda=0.75".to_owned() }
    );
}

#[test]
fn set_wins_over_an_excluding_key_of_the_file() {
    let text = format!("{SMALL}[training]\nepochs = 3\n");
    let plan = plan_with(&text, &["training.steps=5"]).unwrap();
    let training = &plan.rounds[0].main().training;
    assert_eq!((training.steps, training.epochs), (5, None));
}

#[test]
fn a_refused_set_changes_nothing() {
    let mut spec = RunSpec::from_str("run.toml", SMALL).unwrap();
    spec.apply_set("training.stepps=5").unwrap_err();
    spec.apply_set("rounds.7.beta=5").unwrap_err();
    assert_eq!(resolve(&spec, &facts()).unwrap(), plan(SMALL).unwrap());
}

#[test]
fn plan_survives_its_json() {
    let held = THREE.replace("lambda = 0.5", "hold = { honesty = { reward = \"-0.5\" }, on = \"samples\" }");
    for text in [SMALL, THREE, &held, &init::template()] {
        let plan = plan(text).unwrap();
        let stored = serde_json::to_string_pretty(&plan).unwrap();
        assert_eq!(serde_json::from_str::<RunPlan>(&stored).unwrap(), plan);
    }
}

#[test]
fn paths_of_a_file_are_relative_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine.toml");
    let text = SMALL.replace("\"data.jsonl\"", "[\"a/*.jsonl\", \"/b.jsonl\"]");
    fs::write(&path, format!("out = \"here\"\n{text}")).unwrap();
    let mut spec = RunSpec::from_file(&path).unwrap();
    spec.apply_set("model.path=elsewhere").unwrap();
    let plan = resolve(&spec, &facts()).unwrap();
    assert_eq!(plan.name, "mine");
    assert_eq!(plan.out, directory.path().join("here"));
    assert_eq!(plan.model.path, std::env::current_dir().unwrap().join("elsewhere"));
    let paths = serde_json::to_value(&plan.data[0].source.path).unwrap();
    let first = directory.path().join("a/*.jsonl");
    assert_eq!(paths, json!([first, "/b.jsonl"]));
}

#[test]
fn a_plan_of_an_older_version_is_read_or_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("plan.json");
    let text = "schema = 1\nholdout = 0.1\n[model]\npath = \"m\"\n[lora]\nrank = 4\n[[data]]\npath = \"d\"\n[[rounds]]\ndimension = \"honesty\"\n";
    let now = plan(text).unwrap();
    let write = |without: &[(&str, &str)]| {
        let mut older = serde_json::to_value(&now).unwrap();
        for (table, key) in without {
            older[*table].as_object_mut().unwrap().remove(*key).unwrap();
        }
        fs::write(&file, older.to_string()).unwrap();
    };
    let of_lora = ["dora", "dropout", "modules-to-save", "rounds", "quantised-base"].map(|key| ("lora", key));
    write(&[&of_lora[..], &[("model", "matmul")]].concat());
    assert_eq!(RunPlan::read(directory.path()).unwrap(), now);
    write(&[("evaluation", "samples")]);
    let error = RunPlan::read(directory.path()).unwrap_err();
    assert!(
        error.to_string().contains("missing field `samples`") && error.to_string().contains("another version"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("spo train --resume"), "{:?}", error.hint());
}

#[test]
fn arguments_keep_the_directory_they_were_given_in() {
    let mut spec = RunSpec::from_str("run.toml", "schema = 1\nholdout = 0.1\nmodel = { path = \"m\" }\ndata = [{ path = \"d\" }]\nrounds = [{ dimension = \"a\" }]").unwrap();
    let directory = Some(std::path::PathBuf::from("/first/start"));
    for text in ["model.path=m", "data.0.path=[\"a.jsonl\", \"/b.jsonl\"]", "token-cache=../t", "out=here"] {
        spec.apply(&Argument { text: text.into(), directory: directory.clone() }).unwrap();
    }
    let written = serde_json::to_string(spec.source()).unwrap();
    let source: spo_train::config::spec::Source = serde_json::from_str(&written).unwrap();
    assert_eq!(&source, spec.source());
    let sections = spec.sections();
    assert_eq!(sections.model.path, Path::new("/first/start/m"));
    assert_eq!(sections.token_cache.as_deref(), Some(Path::new("/first/start/../t")));
    assert_eq!(sections.out.as_deref(), Some(Path::new("here")), "the run directory is named again on resuming");
    assert_eq!(json!(sections.data[0].source.path), json!(["/first/start/a.jsonl", "/b.jsonl"]));
    let older = r#"{"name":"run.toml","path":null,"text":"","arguments":["seed=2"]}"#;
    let source: spo_train::config::spec::Source = serde_json::from_str(older).unwrap();
    assert_eq!(source.arguments, [Argument { text: "seed=2".into(), directory: None }]);
}

/// `SPO_BLESS=1 cargo test --release -p spo-train --test all config::` writes the files anew.
#[test]
fn committed_reference_and_schema_are_the_generated_ones() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    for (name, generated) in [("run-file.md", reference::markdown()), ("run.schema.json", schema::text())] {
        let path = docs.join(name);
        if std::env::var_os("SPO_BLESS").is_some() {
            fs::write(&path, &generated).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == generated,
            "docs/{name} is out of date: SPO_BLESS=1 cargo test --release --workspace --test all config::"
        );
    }
}
