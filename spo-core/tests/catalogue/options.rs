//! Names, options, needs: what a user gets wrong, and what the registry promises.

use burn::tensor::{DType, Device};
use serde_json::json;
use spo_core::objective::{self, Build, Entry, ObjectiveSpec, Ratios, Registry, pair};
use spo_core::{CoreError, Needs, Objective, PairLogps, PairLosses, PairNumbers, Sides, differentiate};

use crate::batch::{batch, build, default, paired, run};

fn error(name: &str, options: serde_json::Value) -> CoreError {
    objective::build(name, options.as_object().unwrap()).unwrap_err()
}

#[test]
fn names() {
    let unknown = error("sopo", json!({}));
    assert_eq!(unknown.to_string(), "no objective is called `sopo`");
    assert_eq!(unknown.hint().unwrap(), "did you mean `spo`?");
    assert!(error("zzzz", json!({})).hint().unwrap().contains("spo list objectives"));
    assert_eq!(objective::entry("sppo_hard").unwrap().name, "sppo-hard");
    assert_eq!(objective::entry("sigmoid").unwrap().name, "dpo");
    let mut names: Vec<_> =
        objective::registry().iter().flat_map(|e| e.aliases.iter().chain([&e.name]).copied()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}

#[test]
fn option_errors_name_the_key() {
    let typo = error("dpo", json!({"bta": 0.1}));
    assert!(typo.to_string().starts_with("objective `dpo` has no option `bta` (it has: beta, label-smoothing"));
    assert_eq!(typo.hint().unwrap(), "did you mean `beta`?");
    assert_eq!(
        error("dpo", json!({"beta": -1})).to_string(),
        "option `beta` of objective `dpo`: found -1, expected a number > 0"
    );
    assert_eq!(
        error("cdpo", json!({"label-smoothing": 0.5})).to_string(),
        "option `label-smoothing` of objective `cdpo`: found 0.5, expected a number ≥ 0 and < 0.5"
    );
    assert!(error("dpo", json!({"beta": "big"})).to_string().contains("found \"big\", expected a number"));
    assert!(error("spo", json!({"margin": "sideways"})).to_string().contains("recursive"));
    assert!(error("apo-zero", json!({"divergence": "js"})).to_string().contains("expected reverse-kl"));
    assert!(error("weighted-sum", json!({"terms": [{"name": "dppo", "weight": 1}]})).to_string().contains("`dppo`"));
    assert!(error("weighted-sum", json!({"terms": []})).to_string().contains("at least one term"));
}

#[test]
fn spo_histories_must_fit() {
    let rounds = |n: usize| (0..n).map(|k| json!({"alpha": 0.1, "lambda": vec![1.0; k]})).collect::<Vec<_>>();
    assert!(error("spo", json!({"lambda": [1.0], "earlier": rounds(2)})).to_string().contains("`lambda`"));
    assert!(error("spo", json!({"earlier": [{"alpha": 0.1, "lambda": [1.0]}]})).to_string().contains("`earlier`"));
    assert!(error("spo", json!({"lambda": [-1.0]})).to_string().contains("≥ 0"));
    let pairs = batch(1, 4, 40.0, 2.0); // two earlier policies
    let three = build("spo", json!({"lambda": [1.0, 1.0], "earlier": rounds(2)}));
    let found = differentiate(three.as_ref(), &pairs, &Device::flex()).unwrap_err();
    assert_eq!(found.to_string(), "earlier policies of objective `spo`: found 2 entries, expected 3");
    let constant = build("spo", json!({"lambda": 0.5}));
    let listed = build("spo", json!({"lambda": [0.5], "earlier": rounds(1)}));
    assert_eq!(run(constant.as_ref(), &pairs), run(listed.as_ref(), &pairs));
    assert_eq!(
        run(build("spo", json!({"lambda": [0.5]})).as_ref(), &pairs).margin_offset,
        run(listed.as_ref(), &pairs).margin_offset
    );
}

#[test]
fn specs_decode_and_complete() {
    let spec: ObjectiveSpec = serde_json::from_value(json!({"name": "spo", "alpha": 0.2, "lambda": [0.5]})).unwrap();
    assert_eq!(spec.build().unwrap().name(), "spo");
    assert_eq!(serde_json::to_value(&spec).unwrap(), json!({"name": "spo", "alpha": 0.2, "lambda": [0.5]}));
    let complete = objective::entry("spo").unwrap().resolve(&spec.options).unwrap();
    assert_eq!((&complete["alpha"], &complete["margin"]), (&json!(0.2), &json!("recursive")));
    assert_eq!(ObjectiveSpec::named("dpo").build().unwrap().name(), "dpo");
}

#[test]
fn every_entry_is_complete_and_tells_what_is_missing() {
    for entry in objective::registry() {
        for text in [entry.name, entry.formula, entry.gradient, entry.when, entry.limits, entry.paper] {
            assert!(!text.is_empty(), "{}", entry.name);
        }
        let keys: Vec<_> = entry.all_options().map(|option| option.key).collect();
        assert!(keys.iter().enumerate().all(|(i, key)| !keys[..i].contains(key)), "{}: {keys:?}", entry.name);
        for option in entry.all_options() {
            assert!(!option.meaning.is_empty() && !option.source.is_empty() && !option.expected().is_empty());
            option.default_value();
        }
    }
    for entry in paired() {
        let objective = default(entry);
        assert_eq!(objective.name(), entry.name);
        let bare = PairNumbers::new(vec![-1.0], vec![-2.0]);
        let words = objective.needs().words();
        match differentiate(objective.as_ref(), &bare, &Device::flex()) {
            Ok(_) => assert!(words.iter().all(|word| word.contains("batch")), "{} {words:?}", entry.name),
            Err(CoreError::MissingInput { input, .. }) => assert!(words.contains(&input.as_str()), "{}", entry.name),
            Err(other) => panic!("{}: {other}", entry.name),
        }
    }
}

#[test]
fn known_losses_at_step_zero_hold() {
    let mut pairs = batch(8, 16, 40.0, 3.0);
    let reference = pairs.reference.clone().unwrap();
    (pairs.policy_chosen, pairs.policy_rejected) = (reference.chosen.clone(), reference.rejected.clone());
    pairs.earlier.truncate(1);
    pairs.earlier[0] = reference; // round 1: the reference is the start
    pairs.sequence_kl = Some(Sides { chosen: vec![0.0; 16], rejected: vec![0.0; 16] });
    let tensors = pairs.to_tensors(&Device::flex(), DType::F64);
    for entry in paired() {
        let objective = default(entry);
        if let Some(known) = objective.step_zero(&tensors).unwrap() {
            let known = known.into_scalar::<f64>();
            let mean = run(objective.as_ref(), &pairs).losses.iter().sum::<f64>() / 16.0;
            assert!((known - mean).abs() < 1e-12 * known, "{}: {known} {mean}", entry.name);
        }
    }
    assert!(build("dpo", json!({"nll-weight": 1.0})).step_zero(&tensors).unwrap().is_none());
}

#[test]
fn sums_must_be_weighted_as_the_objective_wants() {
    let (plain, weighted) = (build("dpo", json!({})), build("dpo", json!({"ld-alpha": 0.5})));
    let mut pairs = batch(1, 3, 40.0, 2.0);
    let fails = |objective: &dyn spo_core::Objective, pairs: &PairNumbers| {
        differentiate(objective, pairs, &Device::flex()).unwrap_err().to_string()
    };
    assert!(fails(weighted.as_ref(), &pairs).contains("token log-probabilities summed with ld-alpha = 0.5"));
    pairs.length_desensitised = Some(0.5);
    assert!(fails(plain.as_ref(), &pairs).contains("sum all tokens in full"));
    assert_eq!(run(weighted.as_ref(), &pairs).losses.len(), 3);
}

#[test]
fn bad_numbers_are_refused() {
    let dpo = build("dpo", json!({}));
    let mut pairs = batch(1, 3, 40.0, 2.0);
    pairs.policy_chosen[1] = f64::NAN;
    let error = differentiate(dpo.as_ref(), &pairs, &Device::flex()).unwrap_err();
    assert_eq!(error.to_string(), "policy log-probabilities, row 1: found NaN, expected a finite number");
    let mut pairs = batch(1, 3, 40.0, 2.0);
    pairs.strengths.as_mut().unwrap().pop();
    let error = differentiate(dpo.as_ref(), &pairs, &Device::flex()).unwrap_err();
    assert_eq!(error.to_string(), "strengths: found 2 entries, expected 3");
    assert!(differentiate(dpo.as_ref(), &PairNumbers::new(vec![], vec![]), &Device::flex()).is_err());
}

static OUTSIDE: Entry = Entry { name: "outside", needs: Needs::REFERENCE, ..Entry::new(Build::Pair(pair::<Outside>)) };

#[derive(Debug, serde::Deserialize)]
struct Outside {}

impl Objective for Outside {
    fn name(&self) -> &'static str {
        OUTSIDE.name
    }

    fn needs(&self) -> Needs {
        OUTSIDE.needs
    }

    fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
        let ratios = Ratios::new(self.name(), logps)?;
        Ok(ratios.clone().losses(ratios.delta(), 1.0))
    }
}

/// An objective of another crate is built by its registry, as a term of a sum too; the builtin registry does not know it.
#[test]
fn an_objective_from_outside() {
    let registry = Registry::builtin().add(&OUTSIDE);
    let none = serde_json::Map::new();
    let pairs = batch(7, 6, 20.0, 4.0);
    let alone = run(registry.build("outside", &none).unwrap().as_ref(), &pairs);
    let terms = json!({"terms": [{"name": "outside", "weight": 2.0}]});
    let sum = run(registry.build("weighted-sum", terms.as_object().unwrap()).unwrap().as_ref(), &pairs);
    assert_eq!(sum.losses, alone.losses.iter().map(|loss| 2.0 * loss).collect::<Vec<_>>());
    assert!(matches!(objective::build("outside", &none), Err(CoreError::UnknownObjective { .. })));
    assert!(error("weighted-sum", terms).to_string().contains("outside"));
}
