//! Rounds with bounds: λ follows them, what was reached is judged apart, and a run that breaks off goes on with the same bits.

use crate::broken_off::goes_on_bit_for_bit;
use crate::built_in::{self, held, start};
use spo_train::config::{ConfigError, Facts, RunSpec, resolve};
use spo_train::events::Event;
use spo_train::events::sink::Memory;
use std::path::Path;

fn text(hold: &str) -> String {
    format!(
        r#"schema = 1
seed = 5
out = "out"
hold-share = 0.3
{}{}[warmup]
dimensions = ["honesty", "helpfulness"]
steps = 2
learning-rate = 1e-3
[training]
steps = 5
pairs-per-step = 4
learning-rate = 1e-3
warmup-steps = 0
[[rounds]]
dimension = "honesty"
[[rounds]]
dimension = "helpfulness"
{hold}
[[rounds.controls]]
name = "free"
lambda = 0.0
[[rounds]]
dimension = "honesty"
hold = {{ helpfulness = {{ reward = ">= -50" }}, every = 2 }}
lambda = {{ honesty = 0.5 }}
[evaluation]
bootstrap-resamples = 40
kl-samples = 0
samples = 0
[checkpoints]
every-steps = 1
"#,
        built_in::tables("cpu", 80, 24),
        built_in::TEXT,
    )
}

fn spec(dir: &Path, hold: &str) -> RunSpec {
    built_in::written(dir, &text(hold))
}

/// A gain that five steps cannot make.
const OUT_OF_REACH: &str = r#"hold = { honesty = { margin = "+500" }, every = 1, max-lambda = 2.0 }"#;

#[test]
fn lambda_follows_its_bound_and_a_run_that_breaks_off_goes_on_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let (spec, out) = (spec(dir.path(), OUT_OF_REACH), dir.path().join("out"));
    let mut seen = Memory::default();
    let summary = start(&spec, &mut seen).unwrap();
    let path = held(&seen, "round-2-helpfulness");
    assert_eq!(path.iter().map(|held| held.step).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let lambda: Vec<f64> = path.iter().map(|held| held.dimensions[0].lambda).collect();
    assert!(lambda.windows(2).all(|two| two[0] <= two[1]) && lambda[4] == 2.0, "{lambda:?}");
    assert!(held(&seen, "round-2-helpfulness.free").is_empty(), "a control with a λ holds nothing");
    assert_eq!(held(&seen, "round-3-honesty").iter().map(|held| held.step).collect::<Vec<_>>(), [0, 2, 4]);

    let [missed, met] = &summary.holds[..] else { panic!("{:?}", summary.holds) };
    assert!(!missed.met && missed.at_limit && missed.relative && missed.asked == 500.0, "{missed:?}");
    assert_eq!((missed.round.as_str(), missed.dimension.as_str()), ("round-2-helpfulness", "honesty"));
    assert!(met.met && !met.relative && met.interval.0 <= met.reached && met.reached <= met.interval.1, "{met:?}");
    assert!(missed.driving > 0 && missed.pairs > 0);
    assert!(summary.warnings.iter().any(|text| text.contains("feasible is about")), "{:?}", summary.warnings);
    let round = summary.round("round-2-helpfulness").unwrap();
    assert_eq!((round.held.len(), &round.lambda), (5, &vec![("honesty".to_owned(), missed.lambda)]));
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("Held dimensions") && report.contains("λ, the price"), "{report}");

    let events = seen.0.len();
    let is_update = |at: &usize| matches!(&seen.0[at - 1].event, Event::Held(held) if held.step > 1);
    goes_on_bit_for_bit(&spec, &out, (1..=events).filter(is_update).map(|at| at + 1));
}

fn refused(hold: &str) -> String {
    let facts = Facts { pairs: [("honesty".into(), 64), ("helpfulness".into(), 65)].into(), ..Facts::default() };
    let found = RunSpec::from_str("run.toml", &text(hold)).and_then(|spec| resolve(&spec, &facts));
    match found {
        Err(error @ (ConfigError::WrongValue { .. } | ConfigError::Refused { .. } | ConfigError::Exclusive { .. })) => {
            error.to_string()
        }
        other => panic!("{hold}: {other:?}"),
    }
}

#[test]
fn bounds_that_make_no_sense_are_refused() {
    for (hold, expected) in [
        ("hold = { honesty = { accuracy = \"-0.1\" } }\nlambda = 1.0", "exclude each other"),
        ("hold = { honesty = { accuracy = \"-0.1\" } }\nlambda = { honesty = 1.0 }", "exclude each other"),
        ("hold = { honesty = { accuracy = \"0.1\" } }", "a change from the policy before"),
        ("hold = { honesty = { accuracy = \"-10\" } }", "two points are 0.02"),
        ("hold = { honesty = { accuracy = \"-0.1\", margin = \"-1\" } }", "one λ, and so one bound"),
        ("hold = { honesty = {} }", "one λ, and so one bound"),
        ("hold = { every = 3 }", "a bound, such as"),
        ("hold = { helpfulness = { accuracy = \"-0.1\" } }", "no dimension of an earlier round"),
        ("hold = { honesty = { accuracy = \"-0.1\" } }\nobjective = \"dpo\"", "has no λ to find"),
    ] {
        let error = refused(hold);
        assert!(error.contains(expected), "{hold}: {error}");
    }
}
