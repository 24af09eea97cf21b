//! Every key of the run file, set to a value that is not its default, reaches the plan.

use serde_json::{Value, json};
use spo_core::objective::{self, Build};
use spo_train::config::spec::Argument;
use spo_train::config::{ConfigError, Facts, Origin, Registries, RunPlan, RunSpec, resolve, schema};
use std::collections::BTreeSet;

const BASE: &str = r#"
schema = 1
model = { path = "model" }
data = [{ path = "data.jsonl" }]

[[rounds]]
dimension = "honesty"
controls = [{ name = "control" }]

[[rounds]]
dimension = "helpfulness"
controls = [{ name = "control" }]
"#;

/// Without its second round: some rounds are alone.
fn alone() -> &'static str {
    BASE.split("\n[[rounds]]\ndimension = \"helpfulness\"").next().unwrap()
}
/// A round that weighs both dimensions, in the place of the others.
const WEIGHED: &str = "rounds=[{ dimension = [\"honesty\", \"helpfulness\"] }]";

/// The same with a control.
const JOINT: &str = "rounds=[{ dimension = [\"honesty\", \"helpfulness\"], controls = [{ name = \"control\" }] }]";

fn plan(sets: &[String]) -> Result<RunPlan, ConfigError> {
    let steered = sets.iter().any(|set| set.starts_with("steering"));
    plan_of(if steered { alone() } else { BASE }, sets)
}

fn plan_of(text: &str, sets: &[String]) -> Result<RunPlan, ConfigError> {
    let counts = || [("honesty", 640), ("helpfulness", 650)].map(|(name, rows)| (name.to_owned(), rows)).into();
    let facts = Facts {
        pairs: counts(),
        answers: counts(),
        desirable: counts(),
        lists: counts(),
        prompts: 9,
        ..Facts::default()
    };
    let mut spec = RunSpec::from_str("run.toml", text)?;
    // Paths stay as they are written.
    sets.iter().try_for_each(|text| spec.apply(&Argument { text: text.clone(), directory: None }))?;
    resolve(&spec, &facts)
}

/// The keys below a table of the schema that hold a value, with what the schema says of them.
fn keys(table: &Value, prefix: &str, found: &mut Vec<(String, Value)>) {
    // Conditions of a gate stand below a dimension.
    let further = table.get("additionalProperties").filter(|more| more.is_object());
    let own = table["properties"].as_object().unwrap().iter().map(|(name, property)| (name.as_str(), property));
    for (name, property) in own.chain(further.map(|more| ("honesty", more))) {
        let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        match property {
            table if table["properties"].is_object() => keys(table, &key, found),
            list if list["items"]["properties"].is_object() => keys(&list["items"], &format!("{key}.0"), found),
            value => found.push((key, value.clone())),
        }
    }
}

/// A value that the schema allows and that is not the default.
fn another(key: &str, property: &Value) -> Value {
    let name = key.rsplit('.').next().unwrap();
    match name {
        "dimension" => return json!("helpfulness"),
        "dimensions" => return json!(["helpfulness"]),
        "holdout-fold" => return json!("2/5"),
        "replay" => return json!({ "honesty": 0.25 }),
        "device" => return json!("cpu"),
        "matmul" => return json!("simple-unit"),
        "objective" => return json!("ipo"),
        "mlflow" => return json!("http://127.0.0.1:5000"),
        "scorer" => return json!("rules:length=3"),
        // A file that is there.
        "prompts" => return json!("Cargo.toml"),
        "targets" => return json!(["q_proj"]),
        "adam-betas" => return json!([0.5, 0.25]),
        "users" => return json!(["honesty", "helpfulness"]),
        "texts" => return json!({ "honesty": ["Be honest."], "helpfulness": ["Be helpful."] }),
        "held-out" => return json!({ "honesty": ["The truth."] }),
        "priority" => return json!(["helpfulness"]),
        "combined" => return json!(["{first} before {second}"]),
        "evaluate" => return json!([0, 2]),
        "heads" => return json!(2),
        "shards" => return json!(8),
        "width" if key.starts_with("steering") => return json!(8),
        "template-kwargs" => return json!({ "enable_thinking": false }),
        "columns" => return json!({ "prompt": "question" }),
        "prompt-format" => return json!("Q: {prompt}"),
        "response-format" => return json!(" {response}!"),
        "accuracy" | "margin" | "reward" if key.contains(".hold.") => return json!("-0.25"),
        "accuracy" | "margin" if key.contains(".gate.") => return json!(">= 0.5"),
        _ => {}
    }
    let names = |schema: &Value| -> Vec<Value> {
        let list = |word: &str| schema[word].as_array().cloned().unwrap_or_default();
        let constants = list("oneOf").into_iter().filter_map(|one| one.get("const").cloned());
        // The first one is the default, if any is.
        constants.chain(list("enum")).rev().collect()
    };
    let candidates = match names(property) {
        names if !names.is_empty() => names,
        _ => vec![json!(true), json!(false), json!(47), json!(0.25), json!(0.75), json!("other"), json!(["other"])],
    };
    let base = plan(&companions(key)).unwrap();
    let fits = |value: &Value| {
        let mut sets = companions(key);
        sets.push(set(key, value));
        Some(value) != property.get("default") && plan(&sets).is_ok_and(|plan| at(&plan, key) != at(&base, key))
    };
    let refused = |value: &Value| {
        let mut sets = companions(key);
        sets.push(set(key, value));
        plan(&sets).map_or_else(|error| error.to_string(), |plan| format!("{:?}", at(&plan, key)))
    };
    candidates.iter().find(|value| fits(value)).cloned().unwrap_or_else(|| {
        panic!("no value for {key}: {property}, of {:?}", candidates.iter().map(refused).collect::<Vec<_>>())
    })
}

/// What else must be set.
fn companions(key: &str) -> Vec<String> {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut sets: Vec<String> = match key.split('.').next().unwrap() {
        section @ ("lora" | "warmup") => vec![format!("{section}={{}}")],
        "steering" => vec!["lora={}".into(), "steering={}".into()],
        _ => vec![],
    };
    if ["lora.shared-rank", "lora.concentration"].contains(&key) {
        sets.extend([WEIGHED.to_owned(), "lora.condition=\"weights\"".to_owned()]);
    }
    if ["lora.components", "steering.films"].contains(&key) {
        sets.extend(["steering={}".to_owned(), "lora.condition=\"contexts\"".to_owned()]);
    }
    if key.ends_with("controls.0.contexts") {
        sets.extend(["steering={}".to_owned(), "lora={}".to_owned()]);
    }
    if key.contains("meta-prompts") {
        let meta = "{ texts = { honesty = [\"True.\"], helpfulness = [\"Of use.\"] } }";
        sets.push(format!(
            "data=[{{ path = \"a.jsonl\", meta-prompts = {meta} }}, {{ path = \"b.jsonl\", split = \"test\" }}]"
        ));
    }
    if ["combine", "cagrad-c"].contains(&name) {
        sets.push(JOINT.to_owned());
    }
    if name == "cagrad-c" {
        sets.push(format!("{table}.combine=\"cagrad\""));
    }
    if name.starts_with("zo-") {
        sets.push(format!("{table}.optimizer=\"subzero\""));
    }
    // Bounds are on earlier dimensions.
    match key.split_once(".hold.") {
        Some((_, bound)) if bound.contains("accuracy") || bound.contains("margin") || bound.contains("reward") => {}
        Some((round, "on")) => sets.push(format!("{round}.hold.honesty.reward=\"-0.5\"")),
        Some((round, "samples" | "sample-prompts" | "max-new-tokens" | "temperature")) => {
            sets.push(format!("{round}.hold.honesty.reward=\"-0.5\""));
            sets.push(format!("{round}.hold.on=\"samples\""));
        }
        Some((round, _)) => sets.push(format!("{round}.hold.honesty.accuracy=\"-0.5\"")),
        None if key == "hold-share" => sets.push("rounds.1.hold.honesty.accuracy=\"-0.5\"".into()),
        None => {}
    }
    let within = table.strip_suffix(".early-stopping");
    match name {
        "update-in-backward" => sets.push(format!("{table}.max-grad-norm=0")),
        "max-kl" => sets.push(format!("{table}.eval-every=7")),
        "on-miss" | "admit-after" => {
            sets.extend([format!("{table}.max-forgetting=0.5"), "training.eval-every=7".to_owned()])
        }
        "dimension" if within.is_some() => sets.push(format!("{table}.metric=\"accuracy\"")),
        _ => {}
    }
    if table.ends_with(".online") && name != "scorer" {
        sets.push(format!("{table}.scorer=\"rules:ends=1\""));
    }
    sets.extend(within.map(|table| format!("{table}.eval-every=7")));
    sets
}

fn set(key: &str, value: &Value) -> String {
    format!("{key}={}", toml::Value::try_from(value).unwrap())
}

/// Where the plan has what a key of the run file says.
fn place(key: &str) -> String {
    let parts: Vec<&str> = key.split('.').collect();
    match parts.as_slice() {
        ["training", rest @ ..] => format!("rounds.0.arms.0.{}", rest.join(".")),
        ["rounds", round, "controls", _, rest @ ..] => format!("rounds.{round}.arms.1.{}", rest.join(".")),
        ["rounds", _, "name" | "dimension" | "gate" | "online", ..] => key.to_owned(),
        ["rounds", round, rest @ ..] => format!("rounds.{round}.arms.0.{}", rest.join(".")),
        _ => key.to_owned(),
    }
}

fn at(plan: &RunPlan, key: &str) -> Option<Value> {
    let plan = serde_json::to_value(plan).unwrap();
    plan.pointer(&format!("/{}", place(key).replace('.', "/"))).filter(|value| !value.is_null()).cloned()
}

/// Numbers are equal whether they are written with a point or without.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b,
    }
}

fn options() -> BTreeSet<&'static str> {
    objective::registry().iter().flat_map(|entry| entry.all_options().map(|option| option.key)).collect()
}

#[test]
fn every_key_reaches_the_plan() {
    let mut found = vec![];
    let second = |(key, property): (String, Value)| match key.strip_prefix("rounds.0.") {
        // There is nothing to hold or to replay before the second round.
        Some(rest) if rest.contains("hold.") || rest.ends_with("replay") => (format!("rounds.1.{rest}"), property),
        _ => (key, property),
    };
    keys(&schema::json_schema(&Registries::default()), "", &mut found);
    let found: Vec<(String, Value)> = found.into_iter().map(second).collect();
    let options = options();
    let is_option = |key: &str| {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        options.contains(name) && (table == "rounds.0" || table == "rounds.0.controls.0")
    };
    // The schema has one value, and a warm-up has nothing but its loss to stop at. The condition and the weights ask for
    // each other's absence and a list of dimensions: below.
    let fixed = [
        "schema",
        "warmup.early-stopping.metric",
        "warmup.early-stopping.dimension",
        "lora.condition",
        "rounds.0.dimension-weights",
        "rounds.0.cumulative",
    ];
    let own = found.iter().filter(|(key, _)| !is_option(key) && !fixed.contains(&key.as_str()));
    let own: Vec<&(String, Value)> = own.collect();
    assert!(own.len() > 100, "{}", own.len());
    for (key, property) in own {
        if key.ends_with("warmup-ratio") {
            // The plan has the steps that it comes to.
            let argument = format!("{key}=0.5");
            let sets = [companions(key), vec![argument.clone()]].concat();
            let (plan, steps) = (plan(&sets).unwrap(), key.replace("warmup-ratio", "warmup-steps"));
            let of = |key: &str| at(&plan, key).unwrap().as_u64().unwrap();
            assert_eq!(of(&steps), of(&key.replace("warmup-ratio", "steps")).div_ceil(2), "{key}");
            assert!(plan.origins[&place(&steps)].to_string().contains(&argument), "{key}");
            continue;
        }
        let value = another(key, property);
        let argument = set(key, &value);
        let sets = [companions(key), vec![argument.clone()]].concat();
        let plan = plan(&sets).unwrap_or_else(|error| panic!("{argument}: {error}"));
        let there = at(&plan, key).unwrap_or_else(|| panic!("{argument} is not in the plan"));
        assert!(same(&there, &value), "{argument}: the plan has {there}");
        let of_key = |name: &&String| **name == place(key) || name.starts_with(&format!("{}.", place(key)));
        let origin = plan.origins.keys().find(of_key).map(|name| plan.origins[name].clone());
        assert_eq!(origin, Some(Origin::Set { argument: argument.clone() }), "{argument}");
    }
}

#[test]
fn several_dimensions_their_condition_and_their_weights_reach_the_plan() {
    let sets = |more: &[&str]| more.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>();
    let drawn = plan(&sets(&[WEIGHED, "lora={}", "lora.condition=\"weights\""])).unwrap();
    let plan_of = |key: &str| at(&drawn, key).unwrap();
    assert_eq!(plan_of("lora.condition"), "weights");
    assert_eq!((plan_of("lora.rank"), plan_of("lora.alpha")), (json!(4), json!(8.0)));
    assert_eq!((plan_of("lora.shared-rank"), plan_of("lora.concentration")), (json!(4), json!(0.5)));
    assert_eq!(drawn.rounds[0].front, ["honesty", "helpfulness"]);
    assert_eq!(
        (drawn.rounds[0].name.as_str(), drawn.rounds[0].dimension.as_str()),
        ("round-1-honesty-helpfulness", "honesty + helpfulness")
    );
    // An epoch is all pairs of both.
    assert_eq!(drawn.rounds[0].main().training.steps, 1290_u64.div_ceil(32));
    let fixed = plan(&sets(&[WEIGHED, "rounds.0.dimension-weights={ honesty = 0.25, helpfulness = 0.75 }"])).unwrap();
    assert_eq!(fixed.rounds[0].dimension_weights["helpfulness"], 0.75);
    assert!(fixed.origins.contains_key("rounds.0.dimension-weights.honesty"), "{:?}", fixed.origins);
    let cumulative = plan(&sets(&["rounds.1.cumulative=true"])).unwrap();
    let round = &cumulative.rounds[1];
    assert_eq!((round.front.join(" "), round.main().objective.as_str()), ("honesty helpfulness".into(), "dpo"));
    assert_eq!(round.name, "round-2-honesty-helpfulness");
    assert_eq!(round.dimension_weights["honesty"], 0.5);
}

#[test]
fn every_option_of_every_objective_reaches_the_plan() {
    let mut reached = BTreeSet::new();
    for entry in objective::registry() {
        let sequential = entry.all_options().any(|option| option.key == "earlier");
        // Before the second round there is one to hold.
        let round = usize::from(sequential);
        // A round that makes a reward model is alone.
        let single = matches!(entry.build, Build::Reward(_));
        let base = if single { alone() } else { BASE };
        for option in entry.all_options() {
            let default = option.default_value();
            let mut candidates: Vec<Value> = option.choices.iter().map(|name| json!(name)).collect();
            candidates.extend([json!(true), json!(false), json!(0.25), json!(47), json!([0.25])]);
            candidates.extend([json!(["honesty"]), json!([{ "name": "ipo", "weight": 0.5 }])]);
            for value in candidates.into_iter().filter(|value| !same(value, &default)) {
                let key = format!("rounds.{round}.{}", option.key);
                let argument = set(&key, &value);
                let sets = [format!("rounds.{round}.objective=\"{}\"", entry.name), argument.clone()];
                let Ok(plan) = plan_of(base, &sets) else {
                    continue;
                };
                let options = &plan.rounds[round].main().options;
                // One λ for each round before.
                let expected = if sequential && option.key == "lambda" { json!([value]) } else { value };
                let there = options.get(option.key);
                assert!(there.is_some_and(|there| same(there, &expected)), "{}: {argument}: {options:?}", entry.name);
                reached.insert(option.key);
            }
        }
    }
    // The resolver works these out.
    let mut wanted = options();
    wanted.remove("earlier");
    assert_eq!(reached, wanted);
}
