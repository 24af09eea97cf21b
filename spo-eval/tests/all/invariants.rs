//! Properties that hold for any numbers.

use proptest::collection::vec;
use proptest::prelude::*;
use spo_eval::pareto::{front, hypervolume};
use spo_eval::{Bootstrap, EvalError, PairScore, Subset, forgetting, paired_difference, score_dimension};

const BOOTSTRAP: Bootstrap = Bootstrap { resamples: 60, seed: 1 };

fn pair_scores() -> impl Strategy<Value = Vec<PairScore>> {
    let pair = (-5i32..=5, any::<Option<bool>>(), any::<bool>(), proptest::option::of(0u64..6));
    vec(pair, 1..60).prop_map(|pairs| {
        let score = |(example, (margin, agreeing, boilerplate, prompt))| PairScore {
            example,
            margin: f64::from(margin) / 2.0,
            agreeing,
            boilerplate,
            prompt,
        };
        pairs.into_iter().enumerate().map(score).collect()
    })
}

proptest! {
    #[test]
    fn the_parts_of_a_dimension_add_up_to_the_whole(pairs in pair_scores()) {
        let score = score_dimension("p", "d", &pairs, &BOOTSTRAP).unwrap();
        for (whole, parts) in [
            (Subset::All, [Subset::Agreeing, Subset::Conflicting, Subset::Single]),
            (Subset::AllSubstantive, [Subset::AgreeingSubstantive, Subset::ConflictingSubstantive, Subset::SingleSubstantive]),
        ] {
            let total = |read: &dyn Fn(&spo_eval::Tally) -> f64| -> (f64, f64) {
                let parts = parts.iter().filter_map(|part| score.tally(*part)).map(read).sum();
                (score.tally(whole).map_or(0.0, read), parts)
            };
            let (all, sum) = total(&|tally| tally.pairs as f64);
            prop_assert_eq!(all, sum);
            let (all, sum) = total(&|tally| tally.correct);
            prop_assert_eq!(all, sum);
            let (all, sum) = total(&|tally| tally.mean_margin * tally.pairs as f64);
            prop_assert!((all - sum).abs() < 1e-9);
        }
    }

    #[test]
    fn a_tally_is_sound_and_ignores_the_order(pairs in pair_scores()) {
        let score = score_dimension("p", "d", &pairs, &BOOTSTRAP).unwrap();
        for tally in score.subsets.values() {
            prop_assert!(0.0 <= tally.interval.0 && tally.interval.0 <= tally.interval.1 && tally.interval.1 <= 1.0);
            prop_assert!(tally.margin_stderr >= 0.0 && tally.prompts <= tally.pairs);
            prop_assert!((tally.accuracy * tally.pairs as f64 - tally.correct).abs() < 1e-9);
        }
        let reversed: Vec<_> = pairs.into_iter().rev().collect();
        prop_assert_eq!(score_dimension("p", "d", &reversed, &BOOTSTRAP).unwrap(), score);
    }

    #[test]
    fn flipping_every_margin_mirrors_the_accuracy(pairs in pair_scores()) {
        let flipped: Vec<_> = pairs.iter().map(|pair| PairScore { margin: -pair.margin, ..pair.clone() }).collect();
        let accuracy = |pairs: &[PairScore]| {
            score_dimension("p", "d", pairs, &BOOTSTRAP).unwrap().tally(Subset::All).unwrap().accuracy
        };
        prop_assert!((accuracy(&pairs) + accuracy(&flipped) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn forgetting_is_never_negative_and_zero_at_the_best(policies in vec(pair_scores(), 1..5)) {
        let names: Vec<String> = (0..policies.len()).map(|index| format!("p{index}")).collect();
        let scores: Vec<_> = names.iter().zip(&policies)
            .map(|(name, pairs)| score_dimension(name, "d", pairs, &BOOTSTRAP).unwrap()).collect();
        let path: Vec<&str> = names.iter().map(String::as_str).collect();
        let entries = forgetting(&scores, &path);
        prop_assert_eq!(entries.len(), names.len());
        for entry in &entries {
            prop_assert!(entry.forgotten >= 0.0);
            prop_assert!((entry.best - entry.now - entry.forgotten).abs() < 1e-15);
        }
        prop_assert_eq!(entries[0].forgotten, 0.0);
    }

    #[test]
    fn a_difference_is_antisymmetric_and_zero_to_itself(pairs in pair_scores(), shift in -3i32..=3) {
        let moved: Vec<_> = pairs.iter()
            .map(|pair| PairScore { margin: pair.margin + f64::from(shift), ..pair.clone() }).collect();
        let compare = |a: &[PairScore], b: &[PairScore]| {
            paired_difference("d", ("a", a), ("b", b), Subset::All, &BOOTSTRAP)
        };
        match compare(&pairs, &moved) {
            Ok(None) => {
                let one = |pair: &PairScore| pair.prompt.is_some() && pair.prompt == pairs[0].prompt;
                prop_assert!(pairs.len() == 1 || pairs.iter().all(one));
            }
            result => {
                let forth = result.unwrap().unwrap();
                let back = compare(&moved, &pairs).unwrap().unwrap();
                prop_assert_eq!(forth.accuracy_difference, -back.accuracy_difference);
                prop_assert!((forth.margin_difference + f64::from(shift)).abs() < 1e-12);
                let same = compare(&pairs, &pairs).unwrap().unwrap();
                prop_assert_eq!((same.accuracy_difference, same.interval), (0.0, (0.0, 0.0)));
                prop_assert!(same.within_noise());
            }
        }
    }

    #[test]
    fn hypervolume_grows_with_points_and_is_that_of_the_front(
        points in vec(vec(0.0..4.0f64, 3), 1..9),
        extra in vec(0.0..4.0f64, 3),
    ) {
        let reference = [0.5, 0.0, 0.2];
        let before = hypervolume(&points, &reference).unwrap();
        let kept: Vec<_> = front(&points).unwrap().into_iter().map(|index| points[index].clone()).collect();
        prop_assert!((hypervolume(&kept, &reference).unwrap() - before).abs() < 1e-9);
        let mut more = points;
        more.push(extra);
        prop_assert!(hypervolume(&more, &reference).unwrap() >= before - 1e-12);
        more.reverse();
        prop_assert!(hypervolume(&more, &reference).unwrap() >= before - 1e-12);
    }
}

#[test]
fn closed_forms_of_a_tally() {
    let pair = |example, margin| PairScore { example, margin, ..PairScore::default() };
    let all =
        |pairs: &[PairScore]| score_dimension("p", "d", pairs, &BOOTSTRAP).unwrap().tally(Subset::All).unwrap().clone();
    // Independent pairs: the usual standard error s/√n.
    let tally = all(&[pair(0, 1.0), pair(1, 2.0), pair(2, 0.0), pair(3, -1.0)]);
    assert_eq!((tally.pairs, tally.prompts, tally.correct, tally.accuracy), (4, 4, 2.5, 0.625));
    assert!((tally.margin_stderr - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-15);
    // Ten times the same prompt is one observation: exact binomial bound with one trial.
    let same: Vec<_> = (0..10).map(|example| PairScore { prompt: Some(3), ..pair(example, 1.0) }).collect();
    let tally = all(&same);
    assert_eq!((tally.prompts, tally.interval, tally.margin_stderr), (1, (0.025, 1.0), 0.0));
    // One prompt with mixed results bounds nothing.
    let mixed = [pair(0, 1.0), pair(1, 1.0), pair(2, -1.0)].map(|pair| PairScore { prompt: Some(3), ..pair });
    assert_eq!(all(&mixed).interval, (0.0, 1.0));
    // Every pair wrong: Clopper–Pearson for 0 of 2.
    let tally = all(&[pair(0, -1.0), pair(1, -2.0)]);
    assert!((tally.interval.1 - (1.0 - 0.025f64.sqrt())).abs() < 1e-15);
    assert!(all(&[pair(0, 0.0), pair(1, 0.0)]).all_tied());
}

#[test]
fn bad_pairs_are_errors() {
    let pair = |example, margin| PairScore { example, margin, ..PairScore::default() };
    let score = |pairs: &[PairScore]| score_dimension("p", "d", pairs, &BOOTSTRAP).unwrap_err();
    assert!(matches!(score(&[]), EvalError::NoPairs { .. }));
    assert!(matches!(score(&[pair(4, f64::NAN)]), EvalError::NonFiniteMargin { example: 4, .. }));
    assert!(matches!(score(&[pair(4, 1.0), pair(4, 2.0)]), EvalError::DuplicateExample { example: 4, .. }));
    let difference = |a: &[PairScore], b: &[PairScore]| {
        paired_difference("d", ("a", a), ("b", b), Subset::All, &BOOTSTRAP).unwrap_err()
    };
    let three = [pair(0, 1.0), pair(1, 1.0), pair(2, 1.0)];
    assert!(matches!(difference(&three, &three[..2]), EvalError::UnpairedExample { example: 2, .. }));
    assert!(matches!(difference(&three[1..], &three[..2]), EvalError::UnpairedExample { example: 0, .. }));
    let one = paired_difference("d", ("a", &three[..1]), ("b", &three[..1]), Subset::All, &BOOTSTRAP);
    assert_eq!(one.unwrap(), None, "one prompt gives no interval");
}
