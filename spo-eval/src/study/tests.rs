#![allow(clippy::unwrap_used)]
use super::*;
use crate::{Bootstrap, Evaluation, KlEstimate, PairScore, RoundSummary, RunSummary, estimate_kl, score_dimension};

/// A policy that gets so many of ten pairs right.
fn scored(policy: &str, dimension: &str, right: usize) -> crate::DimensionScore {
    let pair = |example: usize| PairScore {
        example,
        margin: if example < right { 1.0 } else { -1.0 },
        ..PairScore::default()
    };
    let pairs: Vec<PairScore> = (0..10).map(pair).collect();
    score_dimension(policy, dimension, &pairs, &Bootstrap { resamples: 40, seed: 1 }).unwrap()
}

fn far(policy: &str, kl: f64) -> KlEstimate {
    estimate_kl(policy, "start", &[kl, kl], &[kl, kl], &[4, 4]).unwrap()
}

/// A run whose last round goes from KL 2 to 6 in four looks while it gains `slope` of `b` and loses `cost` of `a` per nat.
fn run(arm: &str, seed: u64, slope: f64, cost: f64) -> StudyRun {
    let round = |policy: &str, reference: &str, evaluations: Vec<Evaluation>| RoundSummary {
        policy: policy.into(),
        reference: reference.into(),
        evaluations,
        ..RoundSummary::default()
    };
    let look = |index: u64| {
        let far = 3.0 + index as f64;
        let dimensions =
            vec![("a".to_owned(), 0.8 - cost * (far - 2.0), 0.0), ("b".to_owned(), 0.4 + slope * (far - 2.0), 0.0)];
        Evaluation { step: 10 * index, loss: 0.5, dimensions, kl: Some((far, 0.1)), ..Evaluation::default() }
    };
    let summary = RunSummary {
        seed,
        start: "start".into(),
        rounds: vec![round("one", "start", vec![]), round("two", "one", (0..4).map(look).collect())],
        matrix: vec![scored("one", "a", 8), scored("one", "b", 4), scored("two", "a", 6), scored("two", "b", 9)],
        kl: vec![far("one", 2.0), far("two", 6.0)],
        ..RunSummary::default()
    };
    StudyRun { order: "a-b".into(), arm: arm.into(), summary }
}

fn arm(name: &str, method: &str, against: Option<&str>) -> StudyArm {
    StudyArm { name: name.into(), method: method.into(), against: against.map(str::to_owned) }
}

fn design() -> StudyDesign {
    StudyDesign {
        name: "study".into(),
        arms: vec![arm("plain", "dpo", None), arm("held", "spo", Some("plain"))],
        baseline: "dpo".into(),
        kl: vec![4.5, 9.0],
        margin: 0.02,
        folds: None,
    }
}

#[test]
fn policies_are_read_off_at_equal_kl_between_two_looks() {
    let found = StudySummary::of(&design(), &[run("plain", 1, 0.1, 0.05)]).unwrap();
    assert_eq!(found.dimensions, ["a", "b"]);
    let [end, matched] = &found.points[..] else { panic!("{:?}", found.points) };
    assert_eq!((end.at_kl, end.kl, &end.accuracies[..]), (None, Some(6.0), &[0.6, 0.9][..]));
    assert_eq!(matched.at_kl, Some(4.5), "nothing was at 9 nats");
    for (found, expected) in matched.accuracies.iter().zip([0.8 - 0.05 * 2.5, 0.4 + 0.1 * 2.5]) {
        assert!((found - expected).abs() < 1e-12, "{matched:?}");
    }
}

#[test]
fn the_first_stretch_begins_at_the_policy_that_the_round_started_from() {
    let design = StudyDesign { kl: vec![2.5], ..design() };
    let found = StudySummary::of(&design, &[run("plain", 1, 0.1, 0.05)]).unwrap();
    let matched = found.points.iter().find(|point| point.at_kl.is_some()).unwrap();
    assert!((matched.accuracies[0] - (0.8 + 0.75) / 2.0).abs() < 1e-12, "{matched:?}");
}

#[test]
fn a_difference_is_claimed_only_where_it_is_shown() {
    let spread = [0.0, 0.002, -0.002];
    let runs: Vec<StudyRun> = (0..3)
        .flat_map(|seed| {
            let more = spread[seed as usize];
            [run("plain", seed, 0.1, 0.05), run("held", seed, 0.1 + more / 10.0, 0.02 + more)]
        })
        .collect();
    let found = StudySummary::of(&design(), &runs).unwrap();
    let at =
        |measure: &str| found.comparisons.iter().find(|one| one.measure == measure && one.at_kl == Some(4.5)).unwrap();
    // 0.03 of accuracy per nat, over 2.5 nats.
    assert!((at("a").test.mean - 0.075).abs() < 1e-12);
    assert_eq!((at("a").claim(), at("a").test.seeds), (Claim::Better, 3));
    assert_eq!(at("b").claim(), Claim::Equivalent, "{:?}", at("b"));
    assert_eq!(at(HYPERVOLUME).arm, "spo");
    let volume = |a: f64, b: f64| (a - 0.5) * (b - 0.5);
    let first = volume(0.8 - 0.02 * 2.5, 0.65) - volume(0.8 - 0.05 * 2.5, 0.65);
    assert!((at(HYPERVOLUME).test.mean - first).abs() < 1e-3);
    // At the end all runs are alike here: nothing differs.
    let end = found.comparisons.iter().find(|one| one.measure == "a" && one.at_kl.is_none()).unwrap();
    assert_eq!((end.test.mean, end.claim()), (0.0, Claim::Equivalent));
    assert!(found.comparisons.iter().all(|one| one.p_difference >= one.test.p_difference));
}

#[test]
fn one_seed_tests_nothing() {
    let found = StudySummary::of(&design(), &[run("plain", 1, 0.1, 0.05), run("held", 1, 0.1, 0.02)]).unwrap();
    assert_eq!((found.points.len(), found.comparisons.len()), (4, 0));
}

/// A run whose final policy gets so many of each prompt's pairs of `a` right.
fn of_prompts(arm: &str, seed: u64, prompts: &[(&str, usize, f64)]) -> StudyRun {
    let mut run = run(arm, seed, 0.1, 0.05);
    let tally = |(prompt, pairs, right): &(&str, usize, f64)| crate::PromptTally {
        policy: "two".into(),
        dimension: "a".into(),
        prompt: (*prompt).into(),
        pairs: *pairs,
        right: *right,
    };
    run.summary.prompts = prompts.iter().map(tally).collect();
    // Of an earlier policy there may be some too.
    run.summary.prompts.push(crate::PromptTally { policy: "one".into(), ..tally(&("x", 9, 9.0)) });
    run
}

#[test]
fn prompts_of_all_seeds_are_resampled_with_both_arms() {
    let runs = [
        of_prompts("plain", 1, &[("x", 4, 1.0), ("y", 2, 1.0)]),
        of_prompts("held", 1, &[("x", 4, 3.0), ("y", 2, 2.0)]),
        of_prompts("plain", 2, &[("z", 2, 0.5), ("x", 4, 2.0)]),
        of_prompts("held", 2, &[("z", 2, 1.5), ("x", 4, 4.0)]),
    ];
    let found = StudySummary::of(&design(), &runs).unwrap();
    let of = |measure: &str, at_kl| {
        let mut all = found.comparisons.iter().filter(|one| one.measure == measure && one.at_kl == at_kl);
        all.next().unwrap().over_prompts.clone()
    };
    // Every prompt gains half of its pairs, in whichever seed.
    let half = OverPrompts { prompts: 3, mean: 0.5, interval: (0.5, 0.5) };
    assert_eq!((of("a", None), of("b", None), of("a", Some(4.5))), (Some(half), None, None));
    assert_eq!(of(HYPERVOLUME, None), None);
    let rows = StudySummary::prompts(&design(), &runs);
    assert_eq!(rows.len(), 8);
    assert_eq!(found.again().unwrap(), found, "what is known of prompts stays");

    let mut uneven = runs.clone();
    uneven[1].summary.prompts[0].right = 1.0;
    let found = StudySummary::of(&design(), &uneven).unwrap();
    let over = found.comparisons.iter().find_map(|one| one.over_prompts.clone()).unwrap();
    assert!((over.mean - (0.0 + 1.0 + 1.0 + 2.0) / 12.0).abs() < 1e-12, "{over:?}");
    // x stands with both of its seeds, 2 of 8 pairs: no draw is outside of what single prompts have.
    assert!((over.interval.0 - 0.25).abs() < 1e-12 && over.interval.1 <= 0.5, "{over:?}");
}

#[test]
fn bounds_of_the_last_round_are_told_by_run() {
    let hold = |round: &str| crate::HoldSummary {
        round: round.into(),
        dimension: "a".into(),
        on: "pairs".into(),
        measure: "accuracy".into(),
        relative: true,
        asked: -0.05,
        reached: -0.1,
        interval: (-0.15, -0.05),
        lambda: 0.5,
        met: true,
        at_limit: false,
        driven: -0.05,
        pairs: 10,
        driving: 5,
    };
    let mut run = run("held", 7, 0.1, 0.05);
    run.summary.holds = vec![hold("two"), hold("two.control")];
    let found = StudySummary::of(&design(), &[run]).unwrap();
    let [told] = &found.holds[..] else { panic!("{:?}", found.holds) };
    assert_eq!((told.arm.as_str(), told.seed, &told.hold), ("held", 7, &hold("two")));
    let text = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<StudySummary>(&text).unwrap(), found);
    // Before bounds and prompts were kept.
    let older = text.replace(&serde_json::to_string(&found.holds).unwrap(), "[]").replace("\"holds\":[],", "");
    assert!(serde_json::from_str::<StudySummary>(&older).unwrap().holds.is_empty());
}
