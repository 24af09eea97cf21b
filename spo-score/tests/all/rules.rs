//! Rules and sums of scorers.

use spo_score::{Item, NoModels, Opening, Registry, ScorerSpec};

fn score(spec: &str, response: &str, ids: &[u32]) -> f64 {
    let mut scorer = Registry::builtin()
        .open(&spec.parse().unwrap(), &Opening { models: &NoModels, log: None, directory: None })
        .unwrap();
    let item = Item { response: response.into(), response_ids: ids.to_vec(), ..Item::default() };
    scorer.score(&[item], &mut |_| true).unwrap()[0].as_ref().unwrap().of(None).unwrap()
}

#[test]
fn each_rule_is_what_its_page_says() {
    assert_eq!(score("rules:length=4", "one two", &[]), -0.5);
    assert_eq!(score("rules:length=4", "one two three four five six", &[]), -0.5);
    assert_eq!(score("rules:refusal=2", "I’m sorry, I cannot.", &[]), -2.0);
    assert_eq!(score("rules:refusal=2", "Yes.", &[]), 0.0);
    let keywords = r#"{ kind = "rules", keywords = ["Moon", "sun"], coverage = 3 }"#;
    assert_eq!(score(keywords, "the moon", &[]), 1.5);
    // 1 2 1 2 1 2: (121) (212) (121) (212).
    assert_eq!(score("rules:repetition=1", "", &[1, 2, 1, 2, 1, 2]), -0.5);
    assert_eq!(score("rules:repetition=1", "a b a b a b", &[]), -0.5);
    assert_eq!(score("rules:repetition=1", "a b", &[]), 0.0);
    assert_eq!(score("rules:ends=1", "He said “no.”", &[]), 1.0);
    assert_eq!(score("rules:ends=1", "and then", &[]), -1.0);
    assert_eq!(score("rules:length=2,ends=1", "A b.", &[]), 1.0);
}

#[test]
fn wrong_options_are_refused() {
    for (spec, said) in [
        ("rules", "no rule"),
        ("rules:length=0", "above 0"),
        ("rules:lenght=3", "unknown field `lenght`"),
        ("rules:length", "not OPTION=VALUE"),
        ("rules:length=x", "invalid type"),
        ("rules:coverage=1", "needs keywords"),
        ("rule:length=3", "no scorer `rule`"),
    ] {
        let opened = Registry::builtin()
            .open(&spec.parse().unwrap(), &Opening { models: &NoModels, log: None, directory: None });
        let error = opened.err().unwrap();
        assert!(error.to_string().contains(said), "{spec}: {error}");
        assert!(error.hint().is_some(), "{spec}");
    }
}

#[test]
fn parts_are_summed_by_dimension() {
    let spec = r#"{ kind = "weighted", parts = [
        { scorer = "rules:length=2", weight = 2, dimension = "brevity" },
        { scorer = "rules:ends=1", dimension = "style" },
        { scorer = "rules:ends=1", weight = 0.5 } ] }"#;
    let spec: ScorerSpec = spec.replace('\n', " ").parse().unwrap();
    let mut scorer =
        Registry::builtin().open(&spec, &Opening { models: &NoModels, log: None, directory: None }).unwrap();
    let item = Item { response: "one two three".into(), ..Item::default() };
    let found = scorer.score(&[item], &mut |_| true).unwrap().remove(0).unwrap();
    assert_eq!(found.by_dimension, [("brevity".to_string(), -1.0), ("style".to_string(), -1.0)].into());
    assert_eq!((found.score, found.of(Some("brevity")), found.of(Some("other"))), (Some(-0.5), Some(-1.0), Some(-0.5)));
}

#[test]
fn wrong_parts_are_refused() {
    for (spec, said) in [
        (r#"{ kind = "weighted", parts = [] }"#, "no parts"),
        (r#"{ kind = "weighted", parts = [{ scorer = "nobody" }] }"#, "no scorer `nobody`"),
        (r#"{ kind = "weighted", parts = [{ scorer = "rules:ends=1", weight = inf }] }"#, "expected f64"),
        (r#"{ kind = "weighted", parts = [{ scorer = "rules:ends=1", wait = 1 }] }"#, "unknown field `wait`"),
    ] {
        let opened = Registry::builtin()
            .open(&spec.parse().unwrap(), &Opening { models: &NoModels, log: None, directory: None });
        let error = opened.err().unwrap().to_string();
        assert!(error.contains(said), "{spec}: {error}");
    }
}
