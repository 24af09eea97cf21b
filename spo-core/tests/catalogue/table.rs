//! The loss table and the reference page.

use burn::tensor::Device;
use serde_json::{Map, Value, json};
use spo_core::{CoreError, docs, loss_table, objective};

use crate::batch::{batch, build, run};

fn table(name: &str, options: Value, rows: &[Value]) -> Result<Value, CoreError> {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    loss_table(name, options.as_object().unwrap(), &lines.join("\n\n"), &Device::flex())
}

fn rows(pairs: &spo_core::PairNumbers, with_reference_in_earlier: bool) -> Vec<Value> {
    let (reference, lengths) = (pairs.reference.as_ref().unwrap(), pairs.lengths.as_ref().unwrap());
    let policies = if with_reference_in_earlier { 2 } else { 1 };
    let row = |i: usize| {
        let earlier: Vec<_> = pairs.earlier[..policies].iter().map(|s| json!([s.chosen[i], s.rejected[i]])).collect();
        json!({
            "id": format!("row {i}"),
            "chosen_logp": pairs.policy_chosen[i], "rejected_logp": pairs.policy_rejected[i],
            "ref_chosen_logp": reference.chosen[i], "ref_rejected_logp": reference.rejected[i],
            "chosen_tokens": lengths.chosen[i], "rejected_tokens": lengths.rejected[i],
            "strength": pairs.strengths.as_ref().unwrap()[i], "earlier": earlier,
        })
    };
    (0..pairs.len()).map(row).collect()
}

/// Equal but for the last digit, which reading decimal numbers may change.
#[track_caller]
fn same(found: &Value, expected: &[f64]) {
    let found: Vec<f64> = found.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-13 * b.abs()), "{found:?} {expected:?}");
}

#[test]
fn tables_are_what_differentiate_says() {
    let pairs = batch(31, 5, 50.0, 3.0);
    for name in ["dpo", "ipo", "simpo", "mm-dpo", "spo", "sft"] {
        let result = run(build(name, json!({})).as_ref(), &pairs);
        for complete in [true, false] {
            let table = table(name, json!({}), &rows(&pairs, complete)).unwrap();
            same(&table["per_pair"], &result.losses);
            same(&table["chosen_reward"], &result.chosen_reward);
            same(&json!([table["gradient"][3]["rejected_logp"]]), &result.d_rejected[3..4]);
            assert_eq!(table["margin_offset"].is_array(), name == "spo");
            let mean = result.losses.iter().sum::<f64>() / 5.0;
            same(&json!([table["loss"]]), &[mean]);
            assert_eq!((table["rows"].as_u64(), table["objective"].as_str()), (Some(5), Some(name)));
        }
    }
    let half = table("dpo", json!({"beta": 0.5}), &rows(&pairs, true)).unwrap();
    assert_eq!(half["options"]["beta"].as_f64(), Some(0.5));
}

#[test]
fn tables_of_other_shapes() {
    let pairs = rows(&batch(32, 3, 50.0, 3.0), true);
    let kto = table("kto", json!({}), &pairs).unwrap();
    let answers: Vec<Value> = pairs
        .iter()
        .flat_map(|row| {
            let answer = |side: &str, label: bool| {
                json!({"logp": row[format!("{side}_logp")], "ref_logp": row[format!("ref_{side}_logp")], "label": label})
            };
            [answer("chosen", true), answer("rejected", false)]
        })
        .collect();
    let labelled = table("kto", json!({}), &answers).unwrap();
    assert!((kto["loss"].as_f64().unwrap() - labelled["loss"].as_f64().unwrap()).abs() < 1e-15);
    assert_eq!(labelled["per_pair"].as_array().unwrap().len(), 6);
    assert!(labelled["chosen_reward"][0].is_number() && labelled["chosen_reward"][1].is_null());
    // A label picks the answer of a pair; the gradient is named after it.
    let picked: Vec<Value> = pairs
        .iter()
        .flat_map(|row| {
            [true, false].map(|label| {
                let mut row = row.clone();
                row["label"] = label.into();
                row
            })
        })
        .collect();
    let of_pairs = table("kto", json!({}), &picked).unwrap();
    assert_eq!(of_pairs["per_pair"], labelled["per_pair"]);
    assert_eq!(of_pairs["gradient"][1]["rejected_logp"], labelled["gradient"][1]["logp"]);
    // bco is a loss on pairs and on single answers.
    let bco = |rows: &[Value]| table("bco", json!({}), rows).unwrap()["loss"].as_f64().unwrap();
    assert!((bco(&pairs) - 2.0 * bco(&answers)).abs() < 1e-12);
    let lists = [json!({"logps": [-3.0, -4.0, -5.0], "ref_logps": [-3.5, -4.0, -4.0], "gains": [2, 0, 1]})];
    let opo = table("opo", json!({}), &lists).unwrap();
    assert_eq!(opo["gradient"][0]["logps"].as_array().unwrap().len(), 3);
    assert_eq!((&opo["chosen_reward"][0], &opo["rejected_reward"][0]), (&opo["reward"][0][0], &opo["reward"][0][1]));
}

#[test]
fn the_reference_starts_the_sequence_and_earlier_policies_make_a_mixture() {
    let pairs = batch(33, 4, 50.0, 3.0);
    let mut rows = rows(&pairs, false);
    let mrpo = table("mrpo", json!({}), &rows).unwrap();
    rows.iter_mut().for_each(|row| row["mixture"] = row["earlier"].clone());
    assert_eq!(table("mrpo", json!({}), &rows).unwrap()["per_pair"], mrpo["per_pair"]);
    rows.iter_mut().for_each(|row| drop(row.as_object_mut().unwrap().remove("earlier")));
    let (spo, dpo) = (table("spo", json!({}), &rows).unwrap(), table("dpo", json!({}), &rows).unwrap());
    assert_eq!((&spo["per_pair"], &spo["gradient"]), (&dpo["per_pair"], &dpo["gradient"]));
}

#[test]
fn faults_name_the_line() {
    let complete = json!({"chosen_logp": -1, "rejected_logp": -2, "ref_chosen_logp": -1, "ref_rejected_logp": -1});
    let fails = |name: &str, rows: &[Value]| table(name, json!({}), rows).unwrap_err();
    let missing = fails("dpo", &[complete.clone(), json!({"chosen_logp": -1, "rejectd_logp": -2})]);
    assert_eq!(missing.to_string(), "line 3: no `rejected_logp` (it has: chosen_logp, rejectd_logp)");
    let text = fails("dpo", &[json!({"chosen_logp": "x", "rejected_logp": -2})]);
    assert_eq!(text.to_string(), "line 1: `chosen_logp` is a string, expected a number");
    let reference = fails("dpo", &[json!({"chosen_logp": -1, "rejected_logp": -2})]);
    assert_eq!(reference.to_string(), "line 1: no `ref_chosen_logp` (it has: chosen_logp, rejected_logp)");
    assert_eq!(reference.hint().unwrap(), "`dpo` looks at the reference");
    for (name, key) in [
        ("ipo", "chosen_tokens"),
        ("mm-dpo", "strength"),
        ("mrpo", "mixture"),
        ("bfpo", "chosen_safe"),
        ("tdpo-1", "chosen_kl"),
        ("selm", "sampled_logp"),
        ("kto", "label"),
        ("opo", "logps"),
    ] {
        let mut row = complete.clone();
        if name == "kto" {
            row["logp"] = json!(-1);
        }
        let found = fails(name, &[row]).to_string();
        assert!(found.starts_with(&format!("line 1: no `{key}` (it has: ")), "{name}: {found}");
    }
    let label = fails("kto", &[json!({"logp": -1, "ref_logp": -1, "label": 2})]);
    assert_eq!(label.to_string(), "line 1: `label` is 2, expected true (desirable) or false");
    let negative = fails("opo", &[json!({"logps": [-1, -2], "ref_logps": [-1, -2], "gains": [1, -1]})]);
    assert_eq!(negative.to_string(), "line 1: gains: -1, expected a number ≥ 0");
    let uneven = fails("dpo", &[complete.clone(), json!({"chosen_logp": -1, "rejected_logp": -2})]);
    assert!(uneven.to_string().starts_with("line 3: no `ref_chosen_logp`"));
    assert!(fails("dpo", &[]).to_string().contains("rows: found 0"));
    let broken = loss_table("dpo", &Map::new(), "{", &Device::flex()).unwrap_err();
    assert!(broken.to_string().starts_with("line 1: not JSON"), "{broken}");
    let tokens = table("dpo", json!({"ld-alpha": 0.5}), std::slice::from_ref(&complete)).unwrap_err();
    assert!(tokens.to_string().contains("token log-probabilities"));
}

/// Write the page anew with `SPO_WRITE_DOCS=1`.
#[test]
fn the_reference_page_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/objectives.md");
    let page = docs::markdown();
    if std::env::var_os("SPO_WRITE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap();
    assert!(there == page, "docs/objectives.md is old: run with SPO_WRITE_DOCS=1");
    assert_eq!(docs::catalogue().as_array().unwrap().len(), objective::registry().len());
}
