//! Meta-prompts: what runs make of them, and what they refuse.

use crate::broken_off::Stops;
use crate::built_in::{TEXT, assets, tables};
use crate::left::{assert_same, left};
use spo_core::logprob::HeadOptions;
use spo_data::meta::{MetaPlace, TAG_ASKED, TAG_ASKED_BY};
use spo_data::{Dataset, Group, Order, PackedBatch, UnitOrder};
use spo_eval::{DimensionScore, Steer, SteerArm, SteeredScores, Subset};
use spo_model::lora::load_adapter;
use spo_model::{CausalLm, device};
use spo_train::config::{ConfigError, RunSpec};
use spo_train::events::Event;
use spo_train::events::sink::Memory;
use spo_train::{Prepared, TrainError, prepare, resume, run};
use std::path::Path;
use std::sync::atomic::AtomicBool;

const META: &str = r#"texts = { honesty = ["Be honest.", "No lies."], helpfulness = ["Be helpful."] }, held-out = { honesty = ["The truth."] }"#;
const CONTROLS: &str =
    r#"controls = [{ name = "shuffled", meta-prompts = "shuffled" }, { name = "plain", meta-prompts = "none" }]"#;

/// A run whose training data have these meta-prompts.
fn spec(out: &Path, meta: &str, round: &str) -> RunSpec {
    read(out, meta, round).unwrap()
}

fn read(out: &Path, meta: &str, round: &str) -> Result<RunSpec, ConfigError> {
    let data = tables("cpu", 60, 40).replacen("limit = 60\n", &format!("limit = 60\nmeta-prompts = {{ {meta} }}\n"), 1);
    let text = format!(
        r#"schema = 1
seed = 3
out = {out:?}
{data}{TEXT}[training]
steps = 4
pairs-per-step = 6
learning-rate = 1e-2
warmup-steps = 0
[warmup]
steps = 2
learning-rate = 1e-2
[[rounds]]
dimension = "asked"
beta = 0.1
{round}
[evaluation]
bootstrap-resamples = 40
kl-samples = 2
kl-max-new-tokens = 4
samples = 1
[checkpoints]
every-steps = 1
[lora]
rank = 2
"#
    );
    RunSpec::from_str("run.toml", &text)
}

fn prepared(spec: &RunSpec) -> Result<Prepared, TrainError> {
    prepare(spec, &mut Memory::default())
}

fn finished(spec: &RunSpec) -> Vec<Event> {
    let mut seen = Memory::default();
    run(prepared(spec).unwrap(), &mut seen, &AtomicBool::new(false)).unwrap();
    seen.0.into_iter().map(|record| record.event).collect()
}

fn matrix(events: &[Event]) -> Vec<&SteeredScores> {
    events.iter().filter_map(|event| if let Event::SteeredScores(found) = event { Some(found) } else { None }).collect()
}

fn steers(events: &[Event]) -> Vec<&Steer> {
    events.iter().filter_map(|event| if let Event::Steered(found) = event { Some(found) } else { None }).collect()
}

fn accuracy(score: &DimensionScore) -> f64 {
    score.tally(Subset::All).unwrap().accuracy
}

#[test]
fn a_run_measures_every_way_to_ask_and_an_interrupted_one_ends_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("out"));
    let spec = spec(&broken, META, CONTROLS);
    let events = finished(&spec);
    std::fs::rename(&broken, &whole).unwrap();
    let asked = ["helpfulness, trained texts", "honesty, trained texts", "honesty, held-out texts", "no text"];
    for policy in ["round-1-asked", "round-1-asked.shuffled", "round-1-asked.plain"] {
        let own: Vec<&SteeredScores> = matrix(&events).into_iter().filter(|found| found.policy == policy).collect();
        assert_eq!(own.iter().map(|found| found.setting.as_str()).collect::<Vec<_>>(), asked, "{policy}");
        for found in own {
            let names: Vec<_> = found.scores.iter().map(|score| score.dimension.as_str()).collect();
            assert_eq!(names, ["helpfulness", "honesty"], "{policy}");
        }
        let own: Vec<&Steer> = steers(&events).into_iter().filter(|found| found.policy == policy).collect();
        let told: Vec<_> = own.iter().map(|found| (found.setting.as_str(), found.arm)).collect();
        assert_eq!(
            told,
            [
                ("trained texts", SteerArm::Conditioned),
                ("trained texts, shuffled", SteerArm::ShuffledLabels),
                ("held-out texts", SteerArm::Conditioned),
                ("no text", SteerArm::Unconditioned),
            ]
        );
        assert_eq!((own[3].steer, own[3].interval), (0.0, (0.0, 0.0)));
        assert!(own.iter().all(|found| found.pairs == own[0].pairs && found.prompts <= found.pairs));
    }
    let report = std::fs::read_to_string(whole.join("report.md")).unwrap();
    assert!(report.contains("STEER") && report.contains("honesty, held-out texts"), "{report}");
    let page = std::fs::read_to_string(whole.join("report.html")).unwrap();
    assert!(page.contains("honesty, held-out texts"));
    let json = std::fs::read_to_string(whole.join("summary.json")).unwrap();
    assert!(json.contains("\"trained texts, shuffled\""));

    for stop_at in [8, 14, 22] {
        let _ = std::fs::remove_dir_all(&broken);
        let stop = AtomicBool::new(false);
        let error = run(prepared(&spec).unwrap(), &mut Stops(stop_at, &stop), &stop).unwrap_err();
        assert!(matches!(error, TrainError::Interrupted { .. }), "{error}");
        let again = prepared(&spec).unwrap();
        resume(again, &broken, &[], &mut Memory::default(), &AtomicBool::new(false)).unwrap();
        assert_same(&left(&broken), &left(&whole), &format!("event {stop_at}"));
    }
}

/// The sum of an answer's token log-probs behind a prompt.
fn logp(model: &CausalLm, prompt: &[u32], answer: &[u32]) -> f64 {
    let batch = PackedBatch::new(&[Group { prompt, answers: vec![answer] }]);
    let logps = model.token_logps(&batch, &HeadOptions::default());
    logps[batch.sequences[0].clone()].iter().map(|logp| f64::from(*logp)).sum()
}

#[test]
fn the_figures_are_those_of_the_saved_policies_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(&dir.path().join("out"), META, "");
    let set = prepared(&spec).unwrap().held_out.dataset;
    let events = finished(&spec);
    let base = || CausalLm::from_dir(&assets().join("stories260K"), None, &device::cpu()).unwrap();
    let policy = |name: &str| load_adapter(base(), &dir.path().join("out/policies").join(name)).unwrap().0;
    let (start, end) = (policy("warmup"), policy("round-1-asked"));
    // The reference is the policy of stage 1, behind the same text.
    let margin = |example: &spo_data::Example, (chosen, rejected): (usize, usize)| {
        let ratio = |answer: usize| {
            let answer = &example.answers[answer];
            logp(&end, &example.prompt, answer) - logp(&start, &example.prompt, answer)
        };
        ratio(chosen) - ratio(rejected)
    };
    let under = |dimension: &'static str| {
        let asks = move |example: &&spo_data::Example| {
            example.tags.get(TAG_ASKED).is_some_and(|name| name == dimension)
                && example.tags[TAG_ASKED_BY] == "trained texts"
        };
        set.examples.iter().filter(asks)
    };
    for asked in ["honesty", "helpfulness"] {
        let setting = format!("{asked}, trained texts");
        let found = matrix(&events).into_iter().find(|found| found.setting == setting).unwrap();
        for score in &found.scores {
            let pairs = under(asked).filter_map(|example| Some(margin(example, example.pair(&score.dimension)?)));
            let signs: Vec<f64> = pairs.map(|margin| f64::from(margin > 0.0)).collect();
            let expected = signs.iter().sum::<f64>() / signs.len() as f64;
            assert!((accuracy(score) - expected).abs() < 1e-9, "{setting}, {}: {expected}", score.dimension);
        }
    }
    let right = |asked: &'static str| {
        let opposed = under(asked).filter_map(|example| {
            let (own, other) =
                (example.pair(asked)?, example.pair(if asked == "honesty" { "helpfulness" } else { "honesty" })?);
            (own != other).then(|| f64::from(margin(example, own) > 0.0))
        });
        let signs: Vec<f64> = opposed.collect();
        signs.iter().sum::<f64>() / signs.len() as f64
    };
    let steer = steers(&events)[0];
    let expected = 100.0 * (right("honesty") + right("helpfulness") - 1.0);
    assert!((steer.steer - expected).abs() < 1e-9, "{steer:?} {expected}");
}

#[test]
fn both_directions_of_a_contrast_are_in_one_step() {
    let set = prepared(&spec(Path::new("out"), META, CONTROLS)).unwrap().train.dataset;
    for dimension in ["asked", "asked (shuffled)", "asked (nothing)"] {
        let pairs = set.pairs(dimension);
        let units = set.units(pairs.iter().map(|pair| pair.example));
        assert!(units.count() < pairs.len(), "{dimension}");
        let order = UnitOrder::new(units, Order { n: 0, batch: 6, seed: 3, round: 1, shuffle: true });
        let row = |pair: usize| set.examples[pairs[pair].example].source.unwrap().row;
        for step in 0..order.steps_per_epoch() {
            let batch = order.batch(step);
            let inside = |pair: usize| {
                (0..pairs.len()).filter(|other| row(*other) == row(pair)).all(|other| batch.contains(&other))
            };
            assert!(batch.iter().all(|pair| inside(*pair)), "{dimension} {step}");
        }
    }
}

#[test]
fn the_token_cache_tells_seeds_controls_and_splits_apart() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("tokens");
    let sets = |seed: u64, round: &str, cached: bool| {
        let mut spec = spec(Path::new("out"), META, round);
        spec.apply_set(&format!("seed={seed}")).unwrap();
        if cached {
            spec.apply_set(&format!("token-cache={cache:?}")).unwrap();
        }
        let prepared = prepared(&spec).unwrap();
        [prepared.train.dataset.fingerprint(), prepared.held_out.dataset.fingerprint()]
    };
    let variants = [(1, CONTROLS), (2, CONTROLS), (1, ""), (1, CONTROLS)];
    let found = variants.map(|(seed, round)| sets(seed, round, true));
    assert_eq!(found, variants.map(|(seed, round)| sets(seed, round, false)));
    assert_eq!(found[0], found[3]);
    assert!(found[0][0] != found[1][0] && found[0][1] != found[1][1] && found[0][0] != found[2][0]);
    assert_eq!(found[0][1], found[2][1], "held-out rows know no controls");
}

#[test]
fn rows_of_one_row_fall_on_the_same_side_of_a_split() {
    let set = prepared(&spec(Path::new("out"), META, CONTROLS)).unwrap().train.dataset;
    let dataset = Dataset { examples: set.examples.clone(), ..Dataset::default() };
    let (train, held_out) = spo_data::split_by_prompt(dataset, 0.3, 7);
    let prompts = |set: &Dataset| {
        set.examples.iter().map(spo_data::Example::prompt_key).collect::<std::collections::BTreeSet<_>>()
    };
    assert!(!train.examples.is_empty() && !held_out.examples.is_empty());
    assert!(prompts(&train).is_disjoint(&prompts(&held_out)));
}

#[test]
fn a_text_may_stand_in_the_users_turn_and_the_arms_learn_what_they_are_named_for() {
    let user = format!("{META}, place = \"user\", neutral = 0.5, priority = [\"honesty\"]");
    let prepared = prepared(&spec(Path::new("out"), &user, CONTROLS)).unwrap();
    let meta = prepared.plan.meta_prompts().unwrap();
    assert_eq!((meta.place, meta.neutral, meta.priority), (MetaPlace::User, 0.5, vec!["honesty".to_owned()]));
    let texts = |dimension: &str| -> Vec<String> {
        let set = &prepared.train.dataset;
        let of = |pair: &spo_data::PairRef| prepared.tokenizer.decode(&set.examples[pair.example].prompt).unwrap();
        set.pairs(dimension).iter().map(of).collect()
    };
    let share = |dimension: &str| {
        let texts = texts(dimension);
        let asks = texts.iter().filter(|text| text.contains("Question: Be ") || text.contains("Question: No lies."));
        asks.count() as f64 / texts.len() as f64
    };
    assert!((0.6..0.9).contains(&share("asked")), "{}", share("asked"));
    assert_eq!((share("asked (shuffled)"), share("asked (nothing)")), (share("asked"), 0.0));
    assert_eq!(texts("asked").len(), texts("asked (nothing)").len());
}

#[test]
fn a_dimension_that_is_never_trained_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let rows: String = (0..12)
        .map(|row| {
            let side = if row % 2 == 0 { 1 } else { -1 };
            format!(
                "{{\"prompt\": \"Why {row}?\", \"response_a\": \"So {row}.\", \"response_b\": \"No.\", \"prefs\": {{\"honesty\": {side}, \"helpfulness\": {}, \"brevity\": -1}}}}\n",
                -side
            )
        })
        .collect();
    std::fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
    let meta = r#"texts = { honesty = ["Be honest."], helpfulness = ["Be helpful."] }, held-out = { brevity = ["Be brief."] }, combined = ["{first} before {second}."]"#;
    let mut spec = spec(&dir.path().join("out"), meta, "");
    for entry in [0, 1] {
        spec.apply_set(&format!("data.{entry}.path={:?}", dir.path().join("rows.jsonl"))).unwrap();
    }
    let set = prepared(&spec).unwrap().train.dataset;
    assert!(set.pairs("brevity").is_empty() && set.pairs("asked").len() >= 24);
    let events = finished(&spec);
    let zero = matrix(&events).into_iter().find(|found| found.setting == "brevity, held-out texts").unwrap();
    assert!(
        zero.scores.iter().any(|score| score.dimension == "brevity" && score.tally(Subset::All).unwrap().pairs == 12)
    );
    let of = |first: &str, second: &str| -> Vec<&str> {
        let own = steers(&events)
            .into_iter()
            .filter(|found| (found.first.as_str(), found.second.as_str()) == (first, second));
        own.map(|found| found.setting.as_str()).collect()
    };
    assert_eq!(of("brevity", "honesty"), ["held-out texts", "no text"]);
    assert_eq!(of("helpfulness", "honesty"), ["trained texts", "trained texts, shuffled", "combined texts", "no text"]);
}

#[test]
fn what_does_not_go_with_meta_prompts_is_refused() {
    let refused = |meta: &str, changes: &[&str], words: &[&str]| {
        let changed = read(Path::new("out"), meta, "").and_then(|mut spec| {
            changes.iter().try_for_each(|change| spec.apply_set(change))?;
            Ok(spec)
        });
        let error = changed.map_or_else(TrainError::from, |spec| prepared(&spec).unwrap_err());
        let text = format!("{error} {}", error.hint().unwrap_or_default());
        assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
    };
    let with = |more: &str| format!("{META}, {more}");
    // A dimension that no row has, in training or held out; a misspelt one.
    refused(META, &["data.0.meta-prompts.texts.honestly=[\"x\"]"], &["honestly", "did you mean \"honesty\"?"]);
    refused(META, &["data.0.meta-prompts.held-out.brevity=[\"x\"]"], &["held-out", "brevity", "label rows along it"]);
    // One dimension only.
    refused(
        "texts = { honesty = [\"Be honest.\"] }",
        &[],
        &["data.0.meta-prompts.texts", "two dimensions", "add another"],
    );
    refused("texts = { honesty = [], helpfulness = [\"x\"] }", &[], &["texts.honesty", "one text or more"]);
    refused("texts = { honesty = [\" \"], helpfulness = [\"x\"] }", &[], &["texts.honesty", "an empty one"]);
    refused("texts = { honesty = [\"x\"], helpfulness = [\"x\"] }", &[], &["\"x\"", "texts.helpfulness", "once"]);
    refused(META, &["data.0.meta-prompts.held-out.honesty=[\"No lies.\"]"], &["No lies.", "texts.honesty"]);
    refused("held-out = { honesty = [\"x\"] }", &[], &["texts"]);
    refused(META, &["data.0.meta-prompts.text={}"], &["text", "texts"]);
    refused(&with("place = \"top\""), &[], &["place", "\"system\", \"user\""]);
    refused(&with("neutral = 1.5"), &[], &["neutral", "1"]);
    refused(&with("priority = [\"brevity\"]"), &[], &["priority", "brevity"]);
    refused(&with("combined = [\"{first}!\"]"), &[], &["combined", "{second}"]);
    // What a run must have and may not have beside it.
    refused(META, &["rounds.0.dimension=\"honesty\""], &["honesty", "asked"]);
    refused(META, &["data.1.split=\"train\""], &["data.1", "meta-prompts"]);
    refused(
        META,
        &["data.1.split=\"train\"", "data.1.meta-prompts.texts={honesty=[\"x\"],helpfulness=[\"y\"]}"],
        &["split = \"test\""],
    );
    refused(
        META,
        &["data.1.meta-prompts.texts={honesty=[\"x\"],helpfulness=[\"y\"]}"],
        &["data.1.meta-prompts", "held-out"],
    );
    refused(META, &["steering.users=[\"honesty\",\"helpfulness\"]"], &["steering", "not both"]);
    refused(META, &["lora.condition=\"weights\""], &["lora.condition", "not both"]);
    refused(META, &["rounds.0.online.scorer=\"rules:length=3\""], &["rounds.0.online", "take `online`"]);
    refused(
        META,
        &["rounds.0.controls=[{name=\"x\", meta-prompts=\"none\"}]", "rounds.0.controls.0.meta-prompts=\"all\""],
        &["controls.0.meta-prompts", "\"shuffled\""],
    );
    // Rows that say nothing of what is asked for are counted; where none is left the run says so.
    let mut plain = RunSpec::from_str("run.toml", &format!("schema = 1\nout = \"out\"\n{}{TEXT}[[rounds]]\ndimension = \"honesty\"\ncontrols = [{{ name = \"x\", meta-prompts = \"none\" }}]", tables("cpu", 20, 20))).unwrap();
    let error = prepared(&plain).unwrap_err().to_string();
    assert!(error.contains("rounds.0.controls.0.meta-prompts"), "{error}");
    plain.apply_set("rounds.0.controls=[]").unwrap();
    prepared(&plain).unwrap();
}

#[test]
fn prompts_of_token_ids_and_rows_without_an_asked_label_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let with_rows = |rows: &str| {
        let file = dir.path().join("rows.jsonl");
        std::fs::write(&file, rows).unwrap();
        let mut spec = spec(Path::new("out"), "texts = { honesty = [\"Be honest.\"], helpfulness = [\"Help.\"] }", "");
        for entry in [0, 1] {
            spec.apply_set(&format!("data.{entry}.path={file:?}")).unwrap();
        }
        prepared(&spec)
    };
    let ids = "{\"prompt_ids\": [1, 2], \"chosen_ids\": [3], \"rejected_ids\": [4]}\n";
    let error = with_rows(ids).unwrap_err();
    assert!(error.to_string().contains("token ids"), "{error}");
    let row = |label: &str| {
        format!("{{\"prompt\": \"Why?\", \"response_a\": \"So.\", \"response_b\": \"No.\", \"prefs\": {{{label}}}}}\n")
    };
    let rows =
        [row("\"honesty\": 1, \"helpfulness\": -1"), row("\"tone\": 1"), row("\"honesty\": 0, \"helpfulness\": 1")];
    let found = with_rows(&rows.concat()).unwrap();
    let told = found.train.dataset.report.counts();
    assert_eq!(told[&spo_data::Reason::NotAsked], 1, "{told:?}");
}
