//! Rounds of several dimensions beside others: their losses and implicit rewards from the policies themselves, in f64; gates
//! that admit the next round; resumption to the bit; what is refused.

use crate::broken_off::goes_on_bit_for_bit;
use crate::built_in::{self, start, steps};
use spo_core::logprob::HeadOptions;
use spo_data::Group;
use spo_eval::GateOutcome;
use spo_model::{CausalLm, device};
use spo_train::config::{Facts, RunSpec, resolve};
use spo_train::events::sink::Memory;
use spo_train::events::{Event, HeldOut};
use spo_train::sweep::variants;
use spo_train::{TrainError, prepare};
use std::path::Path;

/// More pairs than there are: a step takes all of them.
const ALL: &str = "pairs-per-step = 1000\n";

fn text(rounds: &str, more: &str) -> String {
    format!(
        r#"schema = 1
seed = 3
out = "out"
{more}
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
[checkpoints]
every-steps = 1
"#,
        built_in::tables("cpu", 60, 24),
        built_in::TEXT,
    )
}

/// `Δ log π` of all pairs that a run trains on along a dimension.
fn margins(spec: &RunSpec, dimension: &str, model: &Path) -> Vec<f64> {
    let prepared = prepare(spec, &mut Memory::default()).unwrap();
    let data = &prepared.train.dataset;
    let pairs = data.pairs(dimension);
    let group = |pair: &spo_data::PairRef| {
        let example = &data.examples[pair.example];
        let answers = [pair.chosen, pair.rejected].map(|index| example.answers[index].as_slice());
        Group { prompt: &example.prompt, answers: answers.to_vec() }
    };
    let groups: Vec<Group> = pairs.iter().map(group).collect();
    let model = CausalLm::open(model, Default::default(), &device::cpu()).unwrap();
    let scored = model.score(&groups, 512, &HeadOptions::default(), &mut |_| ());
    let sum = |logps: &[f32]| logps.iter().map(|logp| f64::from(*logp)).sum::<f64>();
    scored.iter().map(|answers| sum(&answers[0]) - sum(&answers[1])).collect()
}

/// `mean softplus(c − α·Δ log(π/π_1))` over a dimension's pairs, `c = λβ·Δ log(π_1/π_0)`.
fn loss(spec: &RunSpec, dimension: &str, [policy, first, start]: [&Path; 3], [alpha, carried]: [f64; 2]) -> f64 {
    let [policy, first, start] = [policy, first, start].map(|model| margins(spec, dimension, model));
    let of = |pair: usize| (carried * (first[pair] - start[pair]) - alpha * (policy[pair] - first[pair])).exp().ln_1p();
    (0..policy.len()).map(of).sum::<f64>() / policy.len() as f64
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 2e-5 * expected.abs().max(0.1), "{found}, expected {expected}");
}

#[test]
fn the_reward_of_a_joint_round_is_held_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let rounds = format!(
        "[[rounds]]\nname = \"both\"\ndimension = [\"honesty\", \"helpfulness\"]\nbeta = 0.2\n\
         dimension-weights = {{ honesty = 0.7, helpfulness = 0.3 }}\n\
         [[rounds]]\nname = \"last\"\ndimension = \"helpfulness\"\nlambda = 0.7\nsteps = 1\n{ALL}\
         [[rounds.controls]]\nname = \"named\"\nlambda = {{ \"honesty + helpfulness\" = 0.7 }}\n\
         [[rounds.controls]]\nname = \"held\"\nsteps = 4\n\
         hold = {{ honesty = {{ margin = \"+500\" }}, helpfulness = {{ reward = \"+500\" }}, every = 1, max-lambda = 2.0 }}\n"
    );
    let (spec, out) = (built_in::written(dir.path(), &text(&rounds, "hold-share = 0.3")), dir.path().join("out"));
    let mut seen = Memory::default();
    let summary = start(&spec, &mut seen).unwrap();
    let (both, model) = (out.join("policies/both"), built_in::assets().join("stories260K"));
    let expected = loss(&spec, "helpfulness", [&both, &both, &model], [0.1, 0.7 * 0.2]);
    near(steps(&seen, "last")[0].loss, expected);
    assert!((expected - std::f64::consts::LN_2).abs() > 1e-4, "the offset shows: {expected}");
    assert_eq!(steps(&seen, "last")[0].loss, steps(&seen, "last.named")[0].loss);
    // Both bounds are out of reach, and both multipliers go to the one reward that there is.
    let [honest, helpful] = &summary.holds[..] else { panic!("{:?}", summary.holds) };
    assert!(honest.lambda > 0.0 && helpful.lambda > 0.0);
    let told = &summary.round("last.held").unwrap().lambda;
    assert_eq!(told, &[("honesty + helpfulness".to_owned(), honest.lambda + helpful.lambda)]);
}

#[test]
fn a_cumulative_round_descends_the_weighted_losses_of_all_dimensions_so_far() {
    let dir = tempfile::tempdir().unwrap();
    let rounds = format!(
        "[[rounds]]\ndimension = \"honesty\"\nbeta = 0.2\n\
         [[rounds]]\nname = \"all\"\ndimension = \"helpfulness\"\ncumulative = true\nobjective = \"spo\"\nlambda = 0.7\n\
         dimension-weights = {{ honesty = 0.25, helpfulness = 0.75 }}\nsteps = 2\n{ALL}\
         [[rounds.controls]]\nname = \"one-step\"\nsteps = 1\n\
         [[rounds.controls]]\nname = \"dpo\"\nobjective = \"dpo\"\nbeta = 0.1\n"
    );
    let (spec, out) = (built_in::written(dir.path(), &text(&rounds, "")), dir.path().join("out"));
    let mut seen = Memory::default();
    start(&spec, &mut seen).unwrap();
    let (policies, model) = (out.join("policies"), built_in::assets().join("stories260K"));
    let (first, one) = (policies.join("round-1-honesty"), policies.join("all.one-step"));
    let weighted = |policy: &Path, carried: f64| {
        let of = |dimension: &str| loss(&spec, dimension, [policy, &first, &model], [0.1, carried]);
        0.25 * of("honesty") + 0.75 * of("helpfulness")
    };
    let found: Vec<f64> = steps(&seen, "all").iter().map(|figures| figures.loss).collect();
    near(found[0], weighted(&first, 0.7 * 0.2));
    near(found[1], weighted(&one, 0.7 * 0.2));
    near(steps(&seen, "all.dpo")[0].loss, std::f64::consts::LN_2);
    let summary = std::fs::read_to_string(out.join("summary.json")).unwrap();
    assert!(summary.contains("honesty + helpfulness"));
}

fn looks(seen: &Memory, phase: &str) -> Vec<HeldOut> {
    let look = |event: &Event| if let Event::HeldOut(found) = event { Some(found.clone()) } else { None };
    seen.0.iter().filter_map(|record| look(&record.event)).filter(|found| found.phase == phase).collect()
}

/// A round of honesty with a gate on its margin, then both dimensions.
fn gated(gate: &str, steps: u64) -> String {
    format!(
        "[[rounds]]\nname = \"first\"\ndimension = \"honesty\"\nsteps = {steps}\neval-every = 1\n{gate}\n\
         [[rounds]]\nname = \"second\"\ndimension = \"helpfulness\"\ncumulative = true\n"
    )
}

#[test]
fn a_gate_admits_the_next_dimension_as_soon_as_it_is_passed_often_enough() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let run_with = |gate: &str, steps: u64| {
        let _ = std::fs::remove_dir_all(&out);
        let (mut seen, spec) = (Memory::default(), built_in::written(dir.path(), &text(&gated(gate, steps), "")));
        let summary = start(&spec, &mut seen);
        let policy = std::fs::read(out.join("policies/first/model.safetensors")).unwrap();
        (seen, summary, policy, spec)
    };
    let (free, ..) = run_with("", 8);
    let margins: Vec<f64> = looks(&free, "first").iter().map(|look| look.dimensions[0].margin).collect();
    let floor = (margins[3] + margins[2]) / 2.0;
    let passes: Vec<bool> = margins.iter().map(|margin| *margin >= floor).collect();
    let twice = passes.windows(2).position(|two| two == [true, true]).unwrap() as u64 + 2;
    assert!(twice < 8, "{margins:?}");

    let gate = format!("gate = {{ honesty.margin = \">= {floor:.9}\", admit-after = 2 }}");
    let (seen, summary, admitted, spec) = run_with(&gate, 8);
    let summary = summary.unwrap();
    let ended = summary.round("first").unwrap().ended.clone().unwrap();
    assert!(ended.starts_with(&format!("ended after {twice} of 8 steps with the policy of step {twice}")), "{ended}");
    assert!(ended.contains("passes its gate at 2 evaluations in a row"), "{ended}");
    assert_eq!((looks(&seen, "first").len() as u64, summary.gates[0].outcome), (twice, GateOutcome::Passed));
    assert_eq!(steps(&seen, "second").len(), 4);
    let is_look = |at: &usize| matches!(&seen.0[at - 1].event, Event::HeldOut(found) if found.phase == "first");
    let broken: Vec<usize> = (1..=seen.0.len()).filter(is_look).map(|at| at + 1).collect();
    goes_on_bit_for_bit(&spec, &out, broken);
    let (.., plain, _) = run_with("", twice);
    assert!(plain == admitted, "it is the policy after so many steps");

    // What is never passed: the run ends, or goes on and says so.
    let never = |more: &str| format!("gate = {{ honesty.margin = \">= 1000\", admit-after = 1{more} }}");
    let (_, missed, ..) = run_with(&never(""), 3);
    assert!(matches!(missed, Err(TrainError::GateMissed { .. })), "{missed:?}");
    let (seen, summary, ..) = run_with(&never(", on-miss = \"go-on\""), 3);
    assert_eq!((summary.unwrap().gates[0].outcome, steps(&seen, "second").len()), (GateOutcome::WentOn, 4));
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("first missed its gate, and the run went on."), "{report}");
}

#[test]
fn what_does_not_stand_beside_others_is_refused() {
    let counts = || [("honesty".to_owned(), 64), ("helpfulness".to_owned(), 65), ("brevity".to_owned(), 9)].into();
    let facts = Facts { pairs: counts(), answers: counts(), ..Facts::default() };
    let both = "dimension = [\"honesty\", \"helpfulness\"]";
    let read = |rounds: &str| RunSpec::from_str("run.toml", &text(rounds, ""));
    for (first, second, expected) in [
        ("dimension = \"honesty\"\ncumulative = true", "dimension = \"brevity\"", "no earlier round"),
        ("dimension = \"honesty\"", &format!("{both}\ncumulative = true"), "all that its round learns"),
        ("dimension = \"honesty\"", "dimension = \"honesty\"\ncumulative = true", "no earlier round"),
        (both, "dimension = \"brevity\"\nreplay = { honesty = 0.2 }", "weighs several dimensions"),
        (both, "dimension = \"brevity\"\nlambda = { honesty = 1.0 }", "honesty + helpfulness"),
        (
            both,
            "dimension = \"brevity\"\nhold = { \"honesty + helpfulness\" = { reward = \"-1\" } }",
            "(honesty, helpfulness)",
        ),
        ("dimension = \"honesty\"", &format!("{both}\nreplay = {{ honesty = 0.2 }}"), "earlier ones among them"),
        ("dimension = \"honesty\"", &format!("{both}\nhold = {{ honesty = {{ margin = \"-1\" }} }}"), "no λ to find"),
        ("dimension = \"honesty\"", &format!("{both}\ndimension-weights = {{ honesty = 1.0 }}"), "has no weight"),
        ("dimension = \"honesty\"\ngate = { honesty.margin = \"> 0\", admit-after = 2 }", both, "eval-every"),
        ("dimension = \"honesty\"\ngate = { honesty.margin = \"> 0\", admit-after = 0 }", both, "at least 1"),
    ] {
        let found =
            read(&format!("[[rounds]]\n{first}\n[[rounds]]\n{second}\n")).and_then(|spec| resolve(&spec, &facts));
        let error = found.expect_err(second);
        let words = format!("{error}; {:?}", error.hint());
        assert!(words.contains(expected) && words.contains("rounds."), "{first} {second}: {words}");
    }
    let listed = read(&format!("[[rounds]]\n{both}\n[[rounds]]\ndimension = \"brevity\"\n")).unwrap();
    assert!(variants(&listed, &[], true).unwrap_err().to_string().contains("no place in an order"));
    let cumulative = "[[rounds]]\ndimension = \"honesty\"\n[[rounds]]\ndimension = \"brevity\"\ncumulative = true\n";
    let orders = variants(&read(cumulative).unwrap(), &[], true).unwrap();
    let fronts: Vec<Vec<String>> =
        orders.iter().map(|order| resolve(&order.spec, &facts).unwrap().rounds[1].front.clone()).collect();
    assert_eq!(fronts, [["honesty", "brevity"], ["brevity", "honesty"]]);
}
