//! Whole runs by losses alone: quantised bases, slopes of pairs, what is reported and what is refused.

use spo_train::config::RunSpec;
use spo_train::events::sink::Memory;
use spo_train::events::{Event, StepFigures};
use spo_train::{prepare, run};
use std::path::Path;
use std::sync::atomic::AtomicBool;

fn spec(dir: &Path, more: &str) -> RunSpec {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spo-cli/assets");
    let text = format!(
        "schema = 1\nseed = 5\nout = \"out\"\n[model]\npath = {:?}\ndevice = \"cpu\"\n\
         [[data]]\npath = {:?}\nlimit = 40\n[[data]]\npath = {:?}\nsplit = \"test\"\nlimit = 20\n\
         [text]\nprompt-format = \"Question: {{prompt}}\\nAnswer:\"\nresponse-format = \" {{response}}\"\n\
         [evaluation]\nbootstrap-resamples = 40\nkl-samples = 0\nsamples = 0\n{more}",
        assets.join("stories260K"),
        assets.join("truthfulqa/pairs.train.jsonl.gz"),
        assets.join("truthfulqa/pairs.test.jsonl.gz"),
    );
    std::fs::write(dir.join("run.toml"), text).unwrap();
    RunSpec::from_file(&dir.join("run.toml")).unwrap()
}

/// The steps of a run, the hashes of what it saved, and its warnings.
fn finish(more: &str) -> (Vec<StepFigures>, Vec<String>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = Memory::default();
    let prepared = prepare(&spec(dir.path(), more), &mut Memory::default()).unwrap();
    run(prepared, &mut seen, &AtomicBool::new(false)).unwrap();
    let (mut steps, mut hashes, mut warnings) = (vec![], vec![], vec![]);
    for record in seen.0 {
        match record.event {
            Event::Step(figures) => steps.push(figures),
            Event::PolicySaved { hash, .. } => hashes.push(hash),
            Event::Warning { text } => warnings.push(text),
            _ => {}
        }
    }
    (steps, hashes, warnings)
}

const ROUND: &str = "[[rounds]]\ndimension = \"honesty\"\nobjective = \"dpo\"\n";

fn training(optimizer: &str, more: &str) -> String {
    format!(
        "[training]\noptimizer = \"{optimizer}\"\nsteps = 3\npairs-per-step = 8\nlearning-rate = 1e-4\nzo-eps = 1e-3\n{more}\n{ROUND}"
    )
}

#[test]
fn quantised_bases_train_and_the_losses_stand_above_rounding() {
    for base in ["8-bit", "4-bit"] {
        for optimizer in ["subzero", "mezo"] {
            let text =
                format!("[lora]\nrank = 4\nquantised-base = \"{base}\"\n{}", training(optimizer, "zo-estimates = 2"));
            let (steps, hashes, warnings) = finish(&text);
            assert_eq!((steps.len(), hashes.len()), (3, 1), "{text}");
            assert!((steps[0].loss - 2f64.ln()).abs() < 0.05, "{base} {optimizer}: {}", steps[0].loss);
            assert!(steps.iter().all(|figures| figures.grad_norm > 0.0 && figures.grad_norm.is_finite()));
            // The noise is measured in the first of a hundred steps.
            let signals: Vec<Option<f64>> = steps.iter().map(|figures| figures.signal_to_noise).collect();
            assert!(signals[0].unwrap() > 10.0 && signals[1..] == [None, None], "{signals:?}");
            assert!(!warnings.iter().any(|text| text.contains("rounding")), "{warnings:?}");
            assert_eq!(finish(&text).1, hashes, "equal seeds give equal bits");
        }
    }
}

#[test]
fn slopes_of_pairs_are_those_of_the_loss_but_for_its_curvature() {
    let of = |slopes: &str| finish(&training("subzero", &format!("zo-slopes = \"{slopes}\""))).0;
    let (loss, pairs) = (of("loss"), of("pairs"));
    assert!(
        (loss[0].grad_norm / pairs[0].grad_norm - 1.0).abs() < 0.02,
        "{} {}",
        loss[0].grad_norm,
        pairs[0].grad_norm
    );
    assert_ne!(loss[0].grad_norm, pairs[0].grad_norm);
    assert!((loss[0].loss - pairs[0].loss).abs() < 1e-2);
    assert_eq!(loss[0].tokens, pairs[0].tokens);
}

#[test]
fn a_step_that_is_lost_in_rounding_is_warned_of() {
    let text = training("subzero", "").replace("zo-eps = 1e-3", "zo-eps = 1e-9");
    let (steps, _, warnings) = finish(&text);
    assert!(steps[0].signal_to_noise.unwrap() < 10.0);
    assert!(warnings.iter().any(|text| text.contains("times the rounding of one")), "{warnings:?}");
}

#[test]
fn rates_and_slopes_that_do_not_fit_are_refused() {
    let rate = "[training]\nsteps = 2\nlearning-rate = 1e-4\n";
    for (more, wanted) in [
        (format!("{rate}{ROUND}optimizer = \"subzero\"\n"), "stands where the optimizer is \"adamw\""),
        (
            training("mezo", "") + "[[rounds.controls]]\nname = \"adamw\"\noptimizer = \"adamw\"\n",
            "stands where the optimizer is \"mezo\"",
        ),
        (
            training("mezo", "zo-slopes = \"pairs\"").replace("\"dpo\"", "\"aot\""),
            "`aot` is no loss on the log-probs of one pair at a time",
        ),
        (format!("{rate}zo-slopes = \"pairs\"\n{ROUND}"), "only `mezo` and `subzero` have it"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let error = prepare(&spec(dir.path(), &more), &mut Memory::default()).unwrap_err();
        assert!(error.to_string().contains(wanted), "{more}: {error}");
    }
    // Beside the optimizer, or of an optimiser of its kind, a rate is a rate.
    for more in [
        format!("{rate}{ROUND}optimizer = \"subzero\"\nlearning-rate = 1e-5\n"),
        training("mezo", "") + "[[rounds.controls]]\nname = \"subzero\"\noptimizer = \"subzero\"\n",
    ] {
        let dir = tempfile::tempdir().unwrap();
        prepare(&spec(dir.path(), &more), &mut Memory::default()).unwrap();
    }
}
