//! The loss table and the reference page.

use burn::tensor::Device;
use serde_json::{Map, Value, json};
use spo_core::{CoreError, docs, loss_table, objective};

use crate::window::{build, run, window};

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
    let pairs = window(31, 5, 50.0, 3.0);
    for name in ["dpo", "ipo", "simpo", "mm-dpo", "spo", "sft"] {
        let result = run(build(name, json!({})).as_ref(), &pairs);
        for complete in [true, false] {
            let table = table(name, json!({}), &rows(&pairs, complete)).unwrap();
            same(&table["per_pair"], &result.losses);
            same(&table["chosen_reward"], &result.chosen_reward);
            same(&json!([table["gradient"][3]["rejected_logp"]]), &result.d_rejected[3..4]);
            assert_eq!(table["carry"].is_array(), name == "spo");
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
    let pairs = rows(&window(32, 3, 50.0, 3.0), true);
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
    assert_eq!(labelled["per_answer"].as_array().unwrap().len(), 6);
    let lists = [json!({"logps": [-3.0, -4.0, -5.0], "ref_logps": [-3.5, -4.0, -4.0], "gains": [2, 0, 1]})];
    let opo = table("opo", json!({}), &lists).unwrap();
    assert_eq!(opo["gradient"][0]["logps"].as_array().unwrap().len(), 3);
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
    assert_eq!(reference.to_string(), "objective `dpo` needs reference log-probabilities, which the data do not have");
    assert!(fails("ipo", std::slice::from_ref(&complete)).to_string().contains("answer lengths"));
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
