//! Bounds on what the policy writes itself: the estimate is that of an enumeration, λ follows it, fresh answers judge, a run
//! that breaks off goes on with the same bits, and what makes no sense is refused.

use crate::broken_off::goes_on_bit_for_bit;
use crate::built_in::{self, held, start};
use spo_core::logprob::HeadOptions;
use spo_data::{Dataset, Group};
use spo_model::{CausalLm, device};
use spo_team::Team;
use spo_train::config::{Facts, RunSpec, resolve};
use spo_train::events::Event;
use spo_train::events::sink::Memory;
use spo_train::{prepare, run_together};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;

const BETA: f64 = 0.2;

fn text(second: &str, more: &str) -> String {
    format!(
        r#"schema = 1
seed = 5
out = "out"
hold-share = 0.3
{}{}{more}
[warmup]
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
beta = {BETA}
[[rounds]]
dimension = "helpfulness"
{second}
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

/// A gain that five steps cannot make; a control that takes the bound of its round, and one whose bound is loose.
const ROUND: &str = r#"hold = { honesty = { reward = "+50" }, on = "samples", every = 2, max-lambda = 2.0, sample-prompts = 5, samples = 2, max-new-tokens = 6 }
[[rounds.controls]]
name = "same"
[[rounds.controls]]
name = "loose"
hold = { honesty = { reward = "-50" }, on = "samples", every = 2, sample-prompts = 5, max-new-tokens = 6 }
[[rounds.controls]]
name = "free"
lambda = 0.0
"#;

#[test]
fn lambda_follows_samples_and_a_run_that_breaks_off_goes_on_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let (spec, out) = (built_in::written(dir.path(), &text(ROUND, "")), dir.path().join("out"));
    let mut seen = Memory::default();
    let summary = start(&spec, &mut seen).unwrap();
    let path = held(&seen, "round-2-helpfulness");
    assert_eq!(path.iter().map(|held| held.step).collect::<Vec<_>>(), [0, 2, 4]);
    let lambda: Vec<f64> = path.iter().map(|held| held.dimensions[0].lambda).collect();
    assert!(lambda.windows(2).all(|two| two[0] <= two[1]) && lambda[2] == 2.0, "{lambda:?}");
    let same: Vec<_> = held(&seen, "round-2-helpfulness.same").into_iter().map(|held| held.dimensions).collect();
    assert_eq!(same, path.iter().map(|held| held.dimensions.clone()).collect::<Vec<_>>());
    let loose = held(&seen, "round-2-helpfulness.loose");
    assert_eq!(loose.last().unwrap().dimensions[0].lambda, 0.0);
    assert!(held(&seen, "round-2-helpfulness.free").is_empty(), "a control with a λ holds nothing");

    let [missed, _, met] = &summary.holds[..] else { panic!("{:?}", summary.holds) };
    assert!(!missed.met && missed.at_limit && missed.relative && missed.asked == 50.0, "{missed:?}");
    assert!(met.met && met.interval.0 <= met.reached && met.reached <= met.interval.1, "{met:?}");
    for hold in &summary.holds {
        assert_eq!((hold.on.as_str(), hold.measure.as_str(), hold.driving, hold.pairs), ("samples", "reward", 5, 5));
    }
    assert!(summary.warnings.iter().any(|text| text.contains("feasible is about")), "{:?}", summary.warnings);
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("reward on its own samples, change"), "{report}");

    let of_round =
        |at: &usize| matches!(&seen.0[at - 1].event, Event::Held(held) if held.phase == "round-2-helpfulness");
    goes_on_bit_for_bit(&spec, &out, (1..=seen.0.len()).filter(of_round).map(|at| at + 1));
}

const PROMPTS: usize = 6;

fn distinct(data: &Dataset) -> Vec<&[u32]> {
    let mut prompts: Vec<&[u32]> = vec![];
    for example in &data.examples {
        if !prompts.contains(&&example.prompt[..]) {
            prompts.push(&example.prompt);
        }
    }
    prompts.truncate(PROMPTS);
    prompts
}

/// The log-prob of every token as the first of an answer, `[prompts][tokens]`.
fn first_tokens(policy: &Path, prompts: &[&[u32]]) -> Vec<Vec<f64>> {
    let model = CausalLm::from_dir(policy, None, &device::cpu()).unwrap();
    let tokens: Vec<[u32; 1]> = (0..model.spec().vocab_size as u32).map(|token| [token]).collect();
    let answers: Vec<&[u32]> = tokens.iter().map(|token| &token[..]).collect();
    let groups: Vec<Group> = prompts.iter().map(|prompt| Group { prompt, answers: answers.clone() }).collect();
    let scored = model.score(&groups, 4096, &HeadOptions::default(), &mut |_| ());
    scored.into_iter().map(|answers| answers.into_iter().map(|logps| f64::from(logps[0])).collect()).collect()
}

/// `E_π[r̂]` over the prompts, and the variance of its estimate from so many answers to each.
fn expected(policy: &[Vec<f64>], reward: &[Vec<f64>], samples: usize) -> (f64, f64) {
    let (mut mean, mut variance) = (0.0, 0.0);
    for (logps, rewards) in policy.iter().zip(reward) {
        let of = |f: &dyn Fn(f64) -> f64| logps.iter().zip(rewards).map(|(p, r)| p.exp() * f(*r)).sum::<f64>();
        assert!((of(&|_| 1.0) - 1.0).abs() < 1e-3);
        let own = of(&|r| r);
        mean += own / PROMPTS as f64;
        variance += of(&|r| (r - own).powi(2)) / (PROMPTS * PROMPTS * samples) as f64;
    }
    (mean, variance)
}

#[test]
fn the_estimate_is_what_an_enumeration_of_all_answers_says() {
    let samples = 64;
    let dir = tempfile::tempdir().unwrap();
    let hold = format!(
        "hold = {{ honesty = {{ reward = \"-1\" }}, on = \"samples\", every = 4, sample-prompts = {PROMPTS}, samples = {samples}, \
         max-new-tokens = 1 }}"
    );
    let text = text(&hold, "").replace("learning-rate = 1e-3\nwarmup-steps", "learning-rate = 1e-2\nwarmup-steps");
    let (spec, policies) = (built_in::written(dir.path(), &text), dir.path().join("out/policies"));
    let mut seen = Memory::default();
    let summary = start(&spec, &mut seen).unwrap();
    let prepared = prepare(&spec, &mut Memory::default()).unwrap();
    let expected_of = |policy: &str, set: &Dataset| {
        let prompts = distinct(set);
        let logps = |policy: &str| first_tokens(&policies.join(policy), &prompts);
        let (own, learnt, start) = (logps(policy), logps("round-1-honesty"), logps("warmup"));
        let reward = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| BETA * (a - b)).collect();
        expected(&own, &learnt.iter().zip(&start).map(reward).collect::<Vec<_>>(), samples)
    };
    let (before, variance) = expected_of("round-1-honesty", &prepared.driving.dataset);
    let found = held(&seen, "round-2-helpfulness")[0].dimensions[0].reached;
    assert!((found - before).abs() < 4.0 * variance.sqrt(), "{found} {before} ± {}", variance.sqrt());

    let [own, before] =
        ["round-2-helpfulness", "round-1-honesty"].map(|of| expected_of(of, &prepared.held_out.dataset));
    let (change, error) = (own.0 - before.0, (own.1 + before.1).sqrt());
    let found = summary.holds[0].reached;
    assert!((found - change).abs() < 4.0 * error, "{found} {change} ± {error}");
    assert!(change.abs() > error, "the change shows: {change} ± {error}");
}

#[test]
fn two_processes_come_to_the_bounds_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let (spec, out) = (built_in::written(dir.path(), &text(ROUND, "[parallel]\nshards = 2\n")), dir.path().join("out"));
    let run = |processes: usize| {
        std::thread::scope(|scope| {
            for rank in Team::threads(processes) {
                let spec = &spec;
                scope.spawn(move || {
                    let prepared = prepare(spec, &mut Memory::default()).unwrap();
                    let team = Rc::new(rank.team());
                    run_together(prepared, team, &mut Memory::default(), &AtomicBool::new(false)).unwrap();
                });
            }
        });
        let told =
            built_in::events(&out).into_iter().filter(|event| matches!(event, Event::Held(_) | Event::HoldJudged(_)));
        let told: Vec<String> = told.map(|event| format!("{event:?}")).collect();
        std::fs::remove_dir_all(&out).unwrap();
        told
    };
    let alone = run(1);
    assert_eq!(alone.len(), 3 * (3 + 1));
    assert_eq!(run(2), alone);
}

fn refused(text: &str) -> String {
    let facts = Facts { pairs: [("honesty".into(), 64), ("helpfulness".into(), 65)].into(), ..Facts::default() };
    let found = RunSpec::from_str("run.toml", text).and_then(|spec| resolve(&spec, &facts));
    found.expect_err(text).to_string()
}

#[test]
fn bounds_on_samples_that_make_no_sense_are_refused() {
    let on = |bound: &str| format!("hold = {{ honesty = {{ {bound} }}, on = \"samples\" }}");
    let reward = on("reward = \"-0.5\"");
    let joint = text(&reward, "").replace("dimension = \"honesty\"\n", "dimension = [\"honesty\", \"helpfulness\"]\n");
    for (text, expected) in [
        (text(&on("accuracy = \"-0.1\""), ""), "have no labels, and so no accuracy"),
        (text(&on("margin = \"-1\""), ""), "have no labels, and so no margin"),
        (text(&on("reward = \">= 0.5\""), ""), "only a change of it says something"),
        (text("hold = { honesty = { reward = \"-1\" }, samples = 3 }", ""), "bounds on pairs sample nothing"),
        (text("hold = { honesty = { reward = \"-1\" }, on = \"answers\" }", ""), "samples"),
        (text("hold = { honesty = { reward = \"-1\" }, on = \"samples\", temperature = 0.0 }", ""), "temperature"),
        (text("hold = { honesty = { reward = \"-1\" }, on = \"samples\", top-p = 0.9 }", ""), "top-p"),
        (text(&reward, "[lora]\ncondition = \"weights\""), "for many users or weights"),
        (text(&reward, "[lora]\n[steering]"), "for many users or weights"),
        (text(&format!("{reward}\nobjective = \"dpo\""), ""), "has no λ to find"),
        (text(&reward, "").replace("beta = 0.2", "objective = \"orpo\""), "it defines no reward"),
        (joint, "its reward was learnt together with others"),
    ] {
        let error = refused(&text);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
