//! Rounds with bounds: what drives their λ, and what λ came to.

use crate::TrainError;
use crate::config::{HeldPlan, RoundPlan, RunPlan};
use crate::evaluate::held_out_loss::HeldOutMargins;
use crate::evaluate::labelled_set::{LabelledSet, Rewards, log_ratio_margins};
use crate::evaluate::own_rewards::{OwnAnswers, OwnRewards};
use crate::events::{Event, Held, HeldDimension};
use crate::phase::hold::{Before, Driving, Hold, of_round};
use crate::policy::logps::PolicyLogps;
use crate::policy::sampling::distinct_prompts;
use crate::run::place::{ArmPlace, Place};
use crate::run::prepare::Prepared;
use crate::run::stages::Driver;
use crate::task::Task;
use crate::task::build::Lambdas;
use serde_json::Value;
use spo_core::dual::reward_weights;
use spo_model::{CausalLm, device};

/// The frozen policies that the rewards of held dimensions are made of, with what the log-prob of each counts for each of
/// them; none where bounds are on pairs.
pub(super) type Frozen = Vec<(CausalLm, Vec<f64>)>;

/// The bounds of an arm, whose task visits these rows; the task has the start value of λ from here on.
pub(super) fn hold<'a>(
    prepared: &'a Prepared,
    place: &Place<'a>,
    (history, frozen): (&[&PolicyLogps], Frozen),
    task: &dyn Task,
    visited: &[usize],
) -> Result<Option<Hold<'a>>, TrainError> {
    let Some((arm, hold)) = place.arm.and_then(|arm| Some((arm, arm.plan.hold.as_ref()?))) else { return Ok(None) };
    let plan = &prepared.plan;
    let driving = match &hold.sampled {
        Some(sampled) => {
            let prompts = distinct_prompts(&prepared.driving.dataset, sampled.sample_prompts);
            let stop = prepared.tokenizer.terminators();
            let answers = OwnAnswers { plan: sampled, prompts, stop, seed: plan.seed, round: place.round() };
            Driving::Samples(OwnRewards { answers, frozen })
        }
        None => {
            let of =
                |(dimension, plan): (&String, &HeldPlan)| driving_pairs(&prepared.driving, dimension, plan, history);
            Driving::Pairs(hold.dimensions.iter().map(of).collect::<Result<_, _>>()?)
        }
    };
    let rounds = fixed(arm).into_iter().zip(plan.rounds.iter().map(RoundPlan::dimensions)).collect();
    Hold::new(hold, driving, rounds, task, visited).map(Some)
}

/// The pairs of a held dimension, and what is bounded on them before the phase.
fn driving_pairs<'a>(
    driving: &'a LabelledSet,
    dimension: &str,
    plan: &HeldPlan,
    history: &[&PolicyLogps],
) -> Result<(HeldOutMargins<'a>, Before), TrainError> {
    let (start, parent) = (history[0], history[history.len() - 1]);
    let rows = driving.judged(dimension);
    let start = driving.logps(start, &rows)?;
    let before = log_ratio_margins(&driving.logps(parent, &rows)?, &start);
    let before: Vec<f64> = before.into_iter().map(|margin| plan.of(margin)).collect();
    let margins = HeldOutMargins { dimension: dimension.into(), dataset: &driving.dataset, rows, start: Some(start) };
    Ok((margins, Before::of(&before)))
}

/// λ of each earlier round as the plan has it.
fn fixed(arm: ArmPlace) -> Vec<f64> {
    let lambda = arm.plan.options.get("lambda").and_then(Value::as_array);
    lambda.into_iter().flatten().filter_map(Value::as_f64).collect()
}

/// λ of each earlier round, where bounds have found it.
fn of_arm(plan: &RunPlan, arm: ArmPlace, told: &[HeldDimension]) -> Vec<f64> {
    let found: Vec<(&str, f64)> = told.iter().map(|of| (of.dimension.as_str(), of.mean_lambda)).collect();
    let rounds = fixed(arm).into_iter().zip(&plan.rounds);
    rounds.map(|(fixed, round)| of_round(round.dimensions(), &found).unwrap_or(fixed)).collect()
}

/// The λ that the plan does not have: of the rounds before an arm, and of the arm itself where its policy is finished.
fn lambdas<'t>(
    plan: &RunPlan,
    arm: ArmPlace,
    own: &str,
    told: impl Fn(&str) -> Option<&'t [HeldDimension]>,
) -> Lambdas {
    let before = plan.rounds[..arm.index]
        .iter()
        .enumerate()
        .map(|(index, round)| (ArmPlace { index, number: 0, round, plan: round.main() }, round.name.as_str()));
    let all = before.chain([(arm, own)]).filter(|(arm, _)| arm.plan.hold.is_some());
    Lambdas(all.filter_map(|(arm, name)| Some((arm.index, of_arm(plan, arm, told(name)?)))).collect())
}

/// The held dimensions of a phase of an earlier run when λ was moved last, from its events.
pub(super) fn told(events: &[Event]) -> Vec<HeldDimension> {
    let last = events.iter().rev().find_map(|event| match event {
        Event::Held(Held { dimensions, .. }) => Some(dimensions.clone()),
        _ => None,
    });
    last.unwrap_or_default()
}

impl Driver<'_> {
    /// λ of earlier rounds, and of the arm's own policy if that is finished, where it was found in training.
    pub(super) fn lambdas(&self, arm: ArmPlace, policy: &str) -> Lambdas {
        lambdas(self.plan, arm, policy, |name| Some(&self.trained.get(name)?.held))
    }

    /// Names of the frozen policies that the rewards of an arm's held dimensions are made of, the last one first, with what
    /// the log-prob of each counts for each of them; none where bounds are on pairs.
    ///
    /// # Errors
    /// Options that the objective refuses.
    pub(super) fn rewarding(&self, place: &Place) -> Result<Vec<(String, Vec<f64>)>, TrainError> {
        let held = place.arm.and_then(|arm| Some((arm, arm.plan.hold.as_ref().filter(|hold| hold.sampled.is_some())?)));
        let Some((arm, hold)) = held else { return Ok(vec![]) };
        let lambdas = self.lambdas(arm, &place.policy);
        let objective =
            Rewards::of(self.plan, arm.plan, &lambdas)?.sequential.expect("only such an objective has bounds");
        let mut of_policies = vec![vec![]; place.path.len()];
        for name in hold.dimensions.keys() {
            let rounds = self.plan.rounds[..arm.index].iter();
            let learnt: Vec<f64> = rounds.map(|round| f64::from(u8::from(round.dimensions().contains(name)))).collect();
            let weights =
                reward_weights(objective.as_ref(), &learnt, &device::cpu())?.expect("it holds earlier rounds");
            of_policies.iter_mut().zip(weights).for_each(|(of_policy, weight)| of_policy.push(weight));
        }
        let all = place.path.iter().cloned().zip(of_policies).rev();
        Ok(all.filter(|(_, weights)| weights.iter().any(|weight| *weight != 0.0)).collect())
    }

    /// The same policies in memory.
    ///
    /// # Errors
    /// One cannot be loaded.
    pub(super) fn frozen(&mut self, place: &Place) -> Result<Frozen, TrainError> {
        let (rewarding, policies) = (self.rewarding(place)?, &mut self.resident.policies);
        rewarding.into_iter().map(|(name, weights)| Ok((policies.load(&name)?, weights))).collect()
    }
}
