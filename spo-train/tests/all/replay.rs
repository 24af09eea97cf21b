//! Pairs of earlier dimensions in a later round: their share and loss, resumption to the bit, the forecast, what is refused.

use crate::broken_off::goes_on_bit_for_bit;
use crate::built_in::{self, start, steps};
use spo_core::logprob::HeadOptions;
use spo_data::Group;
use spo_model::{CausalLm, device};
use spo_train::config::{Facts, RunSpec, resolve};
use spo_train::events::Event;
use spo_train::events::sink::Memory;
use spo_train::forecast::Forecast;
use spo_train::prepare;
use std::path::Path;

const HONEST: &str = "round-1-honesty";
const HELPFUL: &str = "round-2-helpfulness";

fn text(round: &str, more: &str) -> String {
    format!(
        r#"schema = 1
seed = 5
out = "out"
{}{}[training]
steps = 5
pairs-per-step = 10
learning-rate = 1e-3
warmup-steps = 0
schedule = "constant"
max-grad-norm = 0
[[rounds]]
dimension = "honesty"
beta = 0.2
[[rounds]]
dimension = "helpfulness"
{round}
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

fn spec(dir: &Path, round: &str, more: &str) -> RunSpec {
    built_in::written(dir, &text(round, more))
}

/// The loss of a round of DPO on all of its training pairs, from the policies themselves, in f64.
fn loss(of: &Path, reference: &Path, pairs: &[(Vec<u32>, [Vec<u32>; 2])], beta: f64) -> f64 {
    let groups: Vec<Group> = pairs
        .iter()
        .map(|(prompt, answers)| Group { prompt, answers: answers.iter().map(Vec::as_slice).collect() })
        .collect();
    let margins = |model: &Path| -> Vec<f64> {
        let model = CausalLm::open(model, Default::default(), &device::cpu()).unwrap();
        let scored = model.score(&groups, 512, &HeadOptions::default(), &mut |_| ());
        let sum = |logps: &[f32]| logps.iter().map(|logp| f64::from(*logp)).sum::<f64>();
        scored.iter().map(|answers| sum(&answers[0]) - sum(&answers[1])).collect()
    };
    let both = margins(of).into_iter().zip(margins(reference));
    let losses = both.map(|(policy, reference)| (-beta * (policy - reference)).exp().ln_1p());
    losses.sum::<f64>() / pairs.len() as f64
}

/// The honest pairs that the run trains on.
fn honest(spec: &RunSpec) -> Vec<(Vec<u32>, [Vec<u32>; 2])> {
    let prepared = prepare(spec, &mut Memory::default()).unwrap();
    let data = &prepared.train.dataset;
    let pair = |pair: &spo_data::PairRef| {
        let example = &data.examples[pair.example];
        let answer = |index: usize| example.answers[index].to_vec();
        (example.prompt.to_vec(), [answer(pair.chosen), answer(pair.rejected)])
    };
    data.pairs("honesty").iter().map(pair).collect()
}

#[test]
fn the_replayed_loss_is_that_of_the_earlier_round() {
    let dir = tempfile::tempdir().unwrap();
    let plain = spec(dir.path(), "", "");
    let pairs = honest(&plain);
    // So many that a step replays each of them once, beside twelve of its own.
    let (all, per_step) = (pairs.len(), pairs.len() + 12);
    let share = all as f64 / per_step as f64;
    let round = format!("pairs-per-step = {per_step}\nreplay = {{ honesty = {share} }}\n");
    let mut seen = Memory::default();
    let summary = start(&spec(dir.path(), &round, ""), &mut seen).unwrap();
    let of_round = steps(&seen, HELPFUL);
    for figures in &of_round {
        let [replayed] = &figures.replayed[..] else { panic!("{figures:?}") };
        assert_eq!((replayed.dimension.as_str(), replayed.pairs), ("honesty", all));
    }
    let model = built_in::assets().join("stories260K");
    let expected = loss(&dir.path().join("out/policies").join(HONEST), &model, &pairs, 0.2);
    let found = of_round[0].replayed[0].loss;
    assert!((found - expected).abs() < 1e-5 * expected, "{found}, expected {expected}");
    assert!(steps(&seen, HONEST).iter().all(|figures| figures.replayed.is_empty()));

    // The loss of the round's own pairs stands apart: in the first step it is what theory says.
    let report = std::fs::read_to_string(dir.path().join("out/report.html")).unwrap();
    assert!(report.contains("Loss on replayed pairs of honesty"), "{report}");
    let csv = std::fs::read_to_string(dir.path().join("out/replayed.csv")).unwrap();
    assert_eq!(csv.lines().count(), 6, "{csv}");
    std::fs::remove_dir_all(dir.path().join("out")).unwrap();
    let own = spec(dir.path(), "pairs-per-step = 12\n", "");
    let mut alone = Memory::default();
    start(&own, &mut alone).unwrap();
    let (first, without) = (of_round[0], steps(&alone, HELPFUL)[0]);
    assert!((first.loss - without.loss).abs() < 1e-6 && first.epoch == without.epoch, "{first:?}\n{without:?}");
    assert_eq!(first.accuracy, without.accuracy);
    assert!(first.tokens > without.tokens);

    let curve = &summary.round(HELPFUL).unwrap().curve;
    assert_eq!(curve[0].replayed, [("honesty".to_owned(), found)]);
    assert!(!dir.path().join("out/replayed.csv").exists(), "the second run has none");
}

/// With so large a share that nearly every pair is the earlier round's, its loss stays a fraction of what it becomes without.
#[test]
fn replay_keeps_the_loss_of_the_earlier_round_down() {
    let dir = tempfile::tempdir().unwrap();
    let round = "steps = 12\npairs-per-step = 16\nreplay = { honesty = 0.75 }\n[[rounds.controls]]\nname = \"none\"\nreplay = {}\n";
    let mut seen = Memory::default();
    let spec = spec(dir.path(), round, "");
    start(&spec, &mut seen).unwrap();
    assert!(steps(&seen, &format!("{HELPFUL}.none")).iter().all(|figures| figures.replayed.is_empty()));
    let pairs = honest(&spec);
    let (policies, model) = (dir.path().join("out/policies"), built_in::assets().join("stories260K"));
    let [before, with, without] =
        [HONEST, HELPFUL, &format!("{HELPFUL}.none")].map(|policy| loss(&policies.join(policy), &model, &pairs, 0.2));
    assert!(before < with && 4.0 * with < without, "{before} {with} {without}");
}

#[test]
fn a_run_with_replay_that_breaks_off_goes_on_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let round = "replay = { honesty = 0.3 }\n[[rounds]]\ndimension = \"honesty\"\nreplay = { helpfulness = 0.2, honesty = 0.2 }\n";
    let (spec, out) = (spec(dir.path(), round, "gradient-pairs = 6\ngradient-every = 2\n"), dir.path().join("out"));
    let mut seen = Memory::default();
    start(&spec, &mut seen).unwrap();
    let third = steps(&seen, "round-3-honesty");
    let names: Vec<&str> = third[0].replayed.iter().map(|of| of.dimension.as_str()).collect();
    assert_eq!(names, ["helpfulness", "honesty"]);
    let of_interest = |at: &usize| match &seen.0[at - 1].event {
        Event::Step(figures) => !figures.replayed.is_empty() && figures.step % 2 == 0,
        Event::Gradients(gram) => gram.step > 0,
        _ => false,
    };
    let places: Vec<usize> = (1..=seen.0.len()).filter(of_interest).map(|at| at + 1).collect();
    assert!(places.len() > 4);
    goes_on_bit_for_bit(&spec, &out, places);
}

#[test]
fn the_forecast_tells_what_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let forecast = |round: &str| {
        let prepared = prepare(&spec(dir.path(), round, ""), &mut Memory::default()).unwrap();
        Forecast::of(&prepared).unwrap()
    };
    let (with, without) = (forecast("epochs = 1\nreplay = { honesty = 0.2 }\n"), forecast("epochs = 1\n"));
    let [phase, plain] = [&with, &without].map(|of| of.phases.iter().find(|phase| phase.phase == HELPFUL).unwrap());
    let [replay] = &phase.replayed[..] else { panic!("{phase:?}") };
    assert_eq!((replay.dimension.as_str(), replay.pairs_per_step), ("honesty", 2));
    // An epoch is one of the round's own pairs: eight of them in a step.
    assert_eq!(phase.steps, (phase.rows as u64).div_ceil(8));
    assert_eq!(plain.steps, (plain.rows as u64).div_ceil(10));
    assert!(phase.tokens > plain.tokens && plain.replayed.is_empty());
}

fn refused(first: &str, round: &str) -> String {
    let text = text(round, "").replace("beta = 0.2", first);
    let counts = || [("honesty".to_owned(), 64), ("helpfulness".to_owned(), 65)].into();
    let facts = Facts { pairs: counts(), answers: counts(), lists: counts(), desirable: counts(), ..Facts::default() };
    let error = RunSpec::from_str("run.toml", &text).and_then(|spec| resolve(&spec, &facts)).unwrap_err();
    format!("{error}; {:?}", error.hint())
}

#[test]
fn what_cannot_be_replayed_is_refused_with_its_key() {
    for (first, round, expected) in [
        ("replay = { helpfulness = 0.2 }", "", "no dimension of an earlier round"),
        ("replay = { brevity = 0.2 }", "", "there is no earlier round"),
        ("", "replay = { helpfulness = 0.2 }", "no dimension of an earlier round"),
        ("", "replay = { brevity = 0.2 }", "(honesty)"),
        ("", "replay = { honesty = 1.0 }", "from 0 to below 1"),
        ("", "replay = { honesty = -0.1 }", "from 0 to below 1"),
        ("", "replay = { honesty = 0.04 }", "less than half a pair"),
        ("", "replay = { honesty = 0.97 }", "none of its 10 pairs"),
        ("", "replay = { honesty = 0.2 }\nobjective = \"aot\"", "compares all pairs"),
        ("", "replay = { honesty = 0.2 }\nobjective = \"kto\"", "no pairs for a policy"),
        ("objective = \"aot\"", "replay = { honesty = 0.2 }\nobjective = \"dpo\"", "compares all pairs"),
        ("objective = \"tdpo-1\"", "replay = { honesty = 0.2 }\nobjective = \"dpo\"", "more than the log-probs"),
        ("", "replay = { honesty = \"much\" }", "replay"),
        ("", "combine = \"cagrad\"", "one gradient"),
    ] {
        let found = refused(first, round);
        assert!(found.contains(expected), "{first} {round}: {found}");
        assert!(found.contains("rounds.0") || found.contains("rounds.1"), "{found}");
    }
}
