//! Rounds of several dimensions at once: the weighted sum, CAGrad, and looks at the gradients of the dimensions.

use crate::broken_off::goes_on_bit_for_bit;
use crate::built_in::{self, start, steps};
use spo_eval::GradientGram;
use spo_train::config::{Facts, RunSpec, resolve};
use spo_train::events::Event;
use spo_train::events::sink::Memory;
use std::path::Path;

const ROUND: &str = "round-1-honesty-helpfulness";

fn text(rounds: &str, more: &str) -> String {
    format!(
        r#"schema = 1
seed = 3
out = "out"
{}{}[training]
steps = 4
pairs-per-step = 8
learning-rate = 1e-3
warmup-steps = 0
schedule = "constant"
max-grad-norm = 0
{rounds}
[evaluation]
bootstrap-resamples = 40
kl-samples = 0
samples = 0
{more}
[checkpoints]
every-steps = 1
"#,
        built_in::tables("cpu", 60, 24),
        built_in::TEXT,
    )
}

fn joint(more: &str) -> String {
    format!("[[rounds]]\ndimension = [\"honesty\", \"helpfulness\"]\n{more}")
}

fn grams<'m>(seen: &'m Memory, phase: &str) -> Vec<&'m GradientGram> {
    let gram = |event: &'m Event| if let Event::Gradients(gram) = event { Some(gram) } else { None };
    seen.0.iter().filter_map(|record| gram(&record.event)).filter(|gram| gram.phase == phase).collect()
}

/// The bytes of a policy's weights.
fn weights(out: &Path, policy: &str) -> Vec<u8> {
    let dir = out.join("policies").join(policy);
    std::fs::read(dir.join("model.safetensors")).unwrap()
}

const ARMS: &str = r#"
[[rounds.controls]]
name = "equal"
combine = "sum"
[[rounds.controls]]
name = "none"
combine = "cagrad"
cagrad-c = 0
[[rounds.controls]]
name = "hardly"
combine = "cagrad"
cagrad-c = 1e-9
[[rounds.controls]]
name = "cagrad"
combine = "cagrad"
"#;

#[test]
fn conflict_averse_gradients_begin_at_the_weighted_sum() {
    let dir = tempfile::tempdir().unwrap();
    let (spec, out) = (built_in::written(dir.path(), &text(&joint(ARMS), "")), dir.path().join("out"));
    let mut seen = Memory::default();
    let summary = start(&spec, &mut seen).unwrap();
    let plan = std::fs::read_to_string(out.join("plan.json")).unwrap();
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["rounds"][0]["dimension-weights"], serde_json::json!({"helpfulness": 0.5, "honesty": 0.5}));
    let combined =
        |arm: usize| (&plan["rounds"][0]["arms"][arm]["combine"], &plan["rounds"][0]["arms"][arm]["cagrad-c"]);
    assert_eq!(combined(0), (&"sum".into(), &serde_json::Value::Null));
    assert_eq!(combined(4), (&"cagrad".into(), &0.4.into()));

    let arm = |name: &str| format!("{ROUND}.{name}");
    let main = weights(&out, ROUND);
    assert!(
        main == weights(&out, &arm("equal")) && main == weights(&out, &arm("none")),
        "c = 0 is the sum, bit for bit"
    );
    assert!(main != weights(&out, &arm("cagrad")));
    // A pass for each dimension gives the same sum but for rounding.
    for (one, other) in steps(&seen, ROUND).iter().zip(steps(&seen, &arm("hardly"))) {
        let near = |a: f64, b: f64, within: f64| assert!((a - b).abs() <= within * a.abs(), "{one:?}\n{other:?}");
        near(one.loss, other.loss, 1e-4);
        near(one.grad_norm, other.grad_norm, 1e-3);
        assert_eq!(one.tokens, other.tokens);
    }
    assert!(grams(&seen, ROUND).is_empty() && grams(&seen, &arm("none")).is_empty());
    let told = grams(&seen, &arm("cagrad"));
    assert_eq!(told.iter().map(|gram| gram.step).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for (gram, figures) in told.iter().zip(steps(&seen, &arm("cagrad"))) {
        assert_eq!(gram.dimensions, ["honesty", "helpfulness"]);
        assert!(gram.coefficients.iter().all(|of| *of >= 0.5) && gram.gram[0][1] == gram.gram[1][0], "{gram:?}");
        // The norm of the combined gradient, by the inner products alone.
        let [[a, b], [_, d]] = [&gram.gram[0], &gram.gram[1]].map(|row| [row[0], row[1]]);
        let [x, y] = [gram.coefficients[0], gram.coefficients[1]];
        let norm = (x * x * a + 2.0 * x * y * b + y * y * d).sqrt();
        assert!((norm - figures.grad_norm).abs() < 1e-4 * norm, "{norm} {}", figures.grad_norm);
        let longest = 1.4 * (0.25 * (a + 2.0 * b + d)).sqrt();
        assert!(norm <= longest * (1.0 + 1e-9), "it stays within c of the weighted sum: {norm} {longest}");
    }
    assert!(!summary.gradients.is_empty());
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("mean cosine") && report.contains("honesty"), "{report}");
}

#[test]
fn a_conflict_averse_run_that_breaks_off_goes_on_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let round = joint("combine = \"cagrad\"\ndimension-weights = { honesty = 0.7, helpfulness = 0.3 }\n");
    let (spec, out) = (built_in::written(dir.path(), &text(&round, "")), dir.path().join("out"));
    let mut seen = Memory::default();
    start(&spec, &mut seen).unwrap();
    let of_interest = |at: &usize| matches!(seen.0[at - 1].event, Event::Step(_) | Event::Gradients(_));
    goes_on_bit_for_bit(&spec, &out, (1..=seen.0.len()).filter(of_interest));
}

/// Two rounds, each of one step on all pairs.
fn sequential(all: usize) -> String {
    format!(
        "[[rounds]]\ndimension = \"honesty\"\n[[rounds]]\ndimension = \"helpfulness\"\nsteps = 3\npairs-per-step = {all}\n"
    )
}

#[test]
fn gradients_are_looked_at_without_a_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (rounds, out) = (sequential(1000), dir.path().join("out"));
    let run_with = |more: &str| {
        let mut seen = Memory::default();
        let spec = built_in::written(dir.path(), &text(&rounds, more));
        let _ = std::fs::remove_dir_all(&out);
        start(&spec, &mut seen).unwrap();
        (seen, weights(&out, "round-2-helpfulness"))
    };
    let (plain, expected) = run_with("");
    let (seen, found) = run_with("gradient-pairs = 1000\ngradient-every = 2\n");
    assert!(found == expected, "nothing is changed by a look");
    assert!(grams(&plain, "round-2-helpfulness").is_empty());
    assert!(grams(&seen, "round-1-honesty").is_empty(), "there is nothing to compare with");
    let told = grams(&seen, "round-2-helpfulness");
    assert_eq!(told.iter().map(|gram| gram.step).collect::<Vec<_>>(), [0, 2]);
    for gram in &told {
        assert_eq!(gram.dimensions, ["helpfulness", "honesty"]);
        assert!(gram.coefficients.is_empty() && gram.cosine(0, 1).is_some_and(|cosine| cosine.abs() <= 1.0));
        // All pairs: the gradient that the step itself has.
        let norm = steps(&seen, "round-2-helpfulness")[gram.step as usize].grad_norm;
        assert!((gram.gram[0][0].sqrt() - norm).abs() < 1e-4 * norm, "{gram:?} {norm}");
    }
    let csv = std::fs::read_to_string(out.join("gradients.csv")).unwrap();
    assert_eq!(csv.lines().count(), 3, "{csv}");
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("Cosine of gradients in round-2-helpfulness"));
}

#[test]
fn weighed_dimensions_are_looked_at_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let more = "gradient-pairs = 6\ngradient-every = 3\n";
    let spec = built_in::written(dir.path(), &text(&joint(""), more));
    let mut seen = Memory::default();
    start(&spec, &mut seen).unwrap();
    let told = grams(&seen, ROUND);
    assert_eq!(told.iter().map(|gram| gram.step).collect::<Vec<_>>(), [0, 3]);
    assert_eq!(told[0].dimensions, ["honesty", "helpfulness"]);
    assert!(told[0].gram[0][0] > 0.0 && told[0].gram[1][1] > 0.0);
}

#[test]
fn what_does_not_combine_is_refused() {
    let refused = |round: &str| {
        let counts = || [("honesty".to_owned(), 64), ("helpfulness".to_owned(), 65)].into();
        let facts = Facts { pairs: counts(), answers: counts(), ..Facts::default() };
        let found = RunSpec::from_str("run.toml", &text(round, "")).and_then(|spec| resolve(&spec, &facts));
        let error = found.unwrap_err();
        format!("{error}; {:?}", error.hint())
    };
    for (round, expected) in [
        (joint("cagrad-c = 0.5"), "only `combine = \"cagrad\"`"),
        (joint("combine = \"cagrad\"\ncagrad-c = -1"), "cagrad-c"),
        (joint("combine = \"best\""), "combine"),
        (joint("combine = \"cagrad\"\noptimizer = \"mezo\"\nlearning-rate = 1e-6"), "the whole gradient"),
        (joint("combine = \"cagrad\"\nupdate-in-backward = true"), "the whole gradient"),
        (joint("replay = { honesty = 0.2 }"), "there is no earlier round"),
        ("[[rounds]]\ndimension = \"honesty\"\ncombine = \"sum\"".to_owned(), "one gradient"),
    ] {
        let found = refused(&round);
        assert!(found.contains(expected), "{round}: {found}");
    }
}
