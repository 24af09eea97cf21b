//! A run's summary from its plan and its events alone: what reports are made of.

use crate::config::spec::Dtype;
use crate::config::{LoraPlan, RunPlan};
use crate::events::sink::Record;
use crate::events::{Event, HeldDimension, HeldOut, HeldOutDimension};
use crate::persist::directory::{START, WARMUP};
use spo_eval::{
    Artefact, CurvePoint, Evaluation, GradientGram, HoldPoint, ModelSummary, Phase, RoundSummary, RunSummary, Setting,
};

/// Points of a training curve that are kept.
const CURVE_POINTS: u64 = 100;

/// The summary of a run.
pub fn summarize(plan: &RunPlan, records: &[Record]) -> RunSummary {
    let mut summary = RunSummary { name: plan.name.clone(), seed: plan.seed, start: start(plan), ..Default::default() };
    for record in records {
        add(&mut summary, plan, &record.event);
    }
    summary
}

fn start(plan: &RunPlan) -> String {
    if plan.warmup.is_some() { WARMUP } else { START }.into()
}

fn add(summary: &mut RunSummary, plan: &RunPlan, event: &Event) {
    match event {
        Event::RunStarted { version, device, family, parameters, trainable, .. } => {
            summary.versions = vec![("spo".into(), version.clone())];
            summary.model = ModelSummary {
                name: plan.model.path.display().to_string(),
                family: family.clone(),
                parameters: *parameters,
                trainable: *trainable,
                method: match &plan.lora {
                    Some(LoraPlan { rank, shared_rank: Some(shared), .. }) => {
                        format!("conditional LoRA rank {shared} + {rank}")
                    }
                    Some(lora) => format!("LoRA rank {}", lora.rank),
                    None => "full".into(),
                },
                precision: match plan.model.dtype {
                    Dtype::F32 => "f32",
                    Dtype::Bf16 => "bf16",
                    Dtype::F16 => "f16",
                }
                .into(),
                device: device.clone(),
            };
        }
        Event::DataLoaded { sets, conflicts } => {
            summary.data = sets.clone();
            summary.conflict = conflicts.clone();
        }
        Event::PhaseStarted { phase, dimension, objective, control, start, margin_offset, .. }
            if objective != "sft" =>
        {
            summary.rounds.push(RoundSummary {
                policy: phase.clone(),
                reference: start.clone(),
                dimension: dimension.clone(),
                objective: objective.clone(),
                control: *control,
                lambda: lambdas(plan, phase),
                settings: settings(plan, phase),
                curve: vec![],
                evaluations: vec![],
                ended: None,
                margin_offset: margin_offset.clone(),
                held: vec![],
            });
        }
        Event::Step(figures) => {
            let every = figures.steps.div_ceil(CURVE_POINTS).max(1);
            let round = summary.rounds.iter_mut().find(|round| round.policy == figures.phase);
            if let Some(round) = round.filter(|_| figures.step % every == 1 % every || figures.step == figures.steps) {
                round.curve.push(CurvePoint {
                    step: figures.step - 1,
                    loss: figures.loss,
                    accuracy: figures.accuracy,
                    margin: figures.margin,
                    score: figures.score,
                    replayed: figures.replayed.iter().map(|of| (of.dimension.clone(), of.loss)).collect(),
                });
            }
        }
        Event::HeldOut(found) => {
            let round = summary.rounds.iter_mut().find(|round| round.policy == found.phase);
            if let Some(round) = round {
                round.evaluations.push(look(found));
            }
        }
        Event::RunningKl { phase, step, estimate } if estimate.reference == summary.start => {
            let round = summary.rounds.iter_mut().find(|round| round.policy == *phase);
            let looks = round.into_iter().flat_map(|round| &mut round.evaluations);
            looks
                .filter(|look| look.step + 1 == *step)
                .for_each(|look| look.kl = Some((estimate.mean, estimate.stderr)));
        }
        Event::Evaluated { scores, margins, prompts, .. } => {
            let (matrix, rest): (Vec<_>, Vec<_>) = scores.iter().cloned().partition(|score| score.kind.is_main());
            summary.matrix.extend(matrix);
            summary.scores.extend(rest);
            summary.margins.extend(margins.iter().cloned());
            summary.prompts.extend(prompts.iter().cloned());
        }
        Event::Compared(difference) => summary.differences.push(difference.clone()),
        Event::Front(front) => summary.fronts.push(front.clone()),
        Event::PairsMade(pairs) => summary.online.push(pairs.clone()),
        Event::DegreesClassified(score) => summary.degrees.push(score.clone()),
        Event::AnswersScored(scores) => summary.answers.push(scores.clone()),
        Event::Benchmarked(found) => summary.benchmarks.push(found.clone()),
        Event::WinRate(found) => summary.win_rates.push(found.clone()),
        Event::Steered(found) => summary.steer.push(found.clone()),
        Event::SteeredScores(found) => summary.steered.push(found.clone()),
        Event::KlEstimated(estimate) => summary.kl.push(estimate.clone()),
        Event::Sampled(sample) => match summary.samples.iter_mut().find(|known| known.prompt == sample.prompt) {
            Some(known) => known.by_policy.extend(sample.by_policy.iter().cloned()),
            None => summary.samples.push(sample.clone()),
        },
        Event::Held(held) => {
            if let Some(round) = summary.rounds.iter_mut().find(|round| round.policy == held.phase) {
                round.held.extend(held.dimensions.iter().map(|of| point(held.step, of)));
            }
        }
        Event::HoldJudged(hold) => {
            if let Some(round) = summary.rounds.iter_mut().find(|round| round.policy == hold.round) {
                for (name, lambda) in &mut round.lambda {
                    let earlier = plan.rounds.iter().find(|earlier| earlier.dimension == *name);
                    if earlier.is_some_and(|earlier| earlier.dimensions().contains(&hold.dimension)) {
                        // One of several held dimensions of a round adds its own; the plan has 0 of all of them.
                        *lambda += hold.lambda;
                    }
                }
            }
            summary.holds.push(hold.clone());
        }
        Event::Gradients(gram) => thinned(&mut summary.gradients, gram),
        Event::GateChecked(gate) => summary.gates.push(gate.clone()),
        Event::PhaseEnded { phase, step, steps, policy_of, reason } => {
            let text = format!("ended after {step} of {steps} steps with the policy of step {policy_of}: {reason}");
            if let Some(round) = summary.rounds.iter_mut().find(|round| round.policy == *phase) {
                round.ended = Some(text);
            }
        }
        Event::RunStopped { reason } => summary.warnings.insert(0, format!("The run was stopped: {reason}")),
        Event::Lineage { artefacts } => summary.lineage.extend(artefacts.iter().cloned()),
        Event::PolicySaved { policy, hash, .. } => {
            summary.lineage.push(Artefact { name: format!("policy {policy}"), hash: format!("blake3:{hash}") });
        }
        Event::Scored { policy, tokens, seconds, .. } => {
            summary.timing.push(Phase {
                name: format!("scoring {policy}"),
                seconds: *seconds,
                tokens: Some(*tokens),
                ..Phase::default()
            });
        }
        Event::PhaseFinished { phase, seconds, tokens, peak_bytes, processes } => summary.timing.push(Phase {
            name: phase.clone(),
            seconds: *seconds,
            tokens: Some(*tokens),
            peak_bytes: Some(*peak_bytes).filter(|bytes| *bytes > 0),
            processes: processes.clone(),
        }),
        Event::Warning { text } => summary.warnings.push(text.clone()),
        _ => {}
    }
}

/// Keeps a look at gradients; where every step has one, each tenth of them, the means of which are as good.
fn thinned(kept: &mut Vec<GradientGram>, gram: &GradientGram) {
    if gram.coefficients.is_empty() || gram.step.is_multiple_of(10) {
        kept.push(gram.clone());
    }
}

fn point(step: u64, of: &HeldDimension) -> HoldPoint {
    let HeldDimension { dimension, measure, reached, bound, lambda, .. } = of.clone();
    HoldPoint { step, dimension, measure, reached, bound, lambda }
}

fn look(found: &HeldOut) -> Evaluation {
    let of_dimension = |of: &HeldOutDimension| (of.dimension.clone(), of.accuracy, of.margin);
    Evaluation {
        step: found.step - 1,
        loss: found.loss,
        score: found.score,
        dimensions: found.dimensions.iter().map(of_dimension).collect(),
        kl: None,
    }
}

/// The place of a phase in the plan: round and arm.
fn place(plan: &RunPlan, phase: &str) -> Option<(usize, usize)> {
    plan.rounds.iter().enumerate().find_map(|(index, round)| match phase.strip_prefix(round.name.as_str())? {
        "" => Some((index, 0)),
        rest => {
            let arm = rest.strip_prefix('.')?;
            Some((index, round.arms.iter().position(|candidate| candidate.name == arm)?))
        }
    })
}

/// Each earlier dimension with its λ.
fn lambdas(plan: &RunPlan, phase: &str) -> Vec<(String, f64)> {
    let Some((round, arm)) = place(plan, phase) else { return vec![] };
    let lambda = plan.rounds[round].arms[arm].options.get("lambda").and_then(|value| value.as_array());
    let values = lambda.into_iter().flatten().filter_map(|value| value.as_f64());
    plan.rounds.iter().map(|round| round.dimension.clone()).zip(values).collect()
}

fn settings(plan: &RunPlan, phase: &str) -> Vec<Setting> {
    let Some((round, arm)) = place(plan, phase) else { return vec![] };
    let prefix = format!("rounds.{round}.arms.{arm}.");
    let lines = plan.lines().into_iter().filter_map(|line| {
        let key = line.key.strip_prefix(&prefix)?.to_string();
        let value = match &line.value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some(Setting { key, value, origin: line.origin.to_string() })
    });
    lines.collect()
}
