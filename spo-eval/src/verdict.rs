//! One sentence about what holding earlier dimensions bought and cost, computed from the numbers.

use crate::number::{interval_points, percent, plus_minus, signed};
use crate::{PairedDifference, RoundSummary, RunSummary, ScoreKind, Subset, find_score};

/// Settings whose change between a round and its control would make the comparison unfair.
const MUST_MATCH: [&str; 7] = ["alpha", "beta", "learning-rate", "steps", "epochs", "pairs-per-step", "schedule"];

/// The last round that holds an earlier dimension, against its control: the same round with λ = 0, which is sequential DPO.
///
/// Says so when a difference is within noise (the 95 % interval contains 0), when there is no control, and when nothing was held.
/// It never speaks of a better trade-off: that would need several seeds, matched divergence from the start and a re-tuned control.
#[must_use]
pub fn verdict(summary: &RunSummary) -> String {
    if makes_rewards(summary) {
        return "The run made a reward model: its accuracy on held-out pairs stands above, and nothing was held."
            .to_owned();
    }
    let Some(round) = summary.rounds.iter().rev().find(|round| !round.control && !held(round).is_empty()) else {
        return "No round held an earlier dimension (every λ is 0), so there is no holding to judge.".to_owned();
    };
    let dimensions: Vec<&str> = held(round).iter().map(|(dimension, _)| dimension.as_str()).collect();
    let subject = format!(
        "Holding {}",
        join(held(round).iter().map(|(dimension, lambda)| format!("{dimension} (λ = {lambda})")))
    );
    let same = |other: &&RoundSummary| {
        other.control && other.reference == round.reference && other.dimension == round.dimension
    };
    let Some(control) = summary.rounds.iter().rev().find(same) else {
        return format!("{subject} cannot be judged: no control with λ = 0 (sequential DPO) was run.");
    };
    let mut clauses = Vec::new();
    for dimension in dimensions.iter().copied().chain([round.dimension.as_str()]) {
        let Some(difference) = summary.differences.iter().find(|difference| {
            difference.dimension == dimension
                && difference.subset == Subset::All
                && difference.a == round.policy
                && difference.b == control.policy
        }) else {
            return format!(
                "{subject} cannot be judged: '{}' and '{}' were not compared on the same pairs of {dimension}.",
                round.policy, control.policy
            );
        };
        clauses.push(clause(summary, difference, dimension != round.dimension));
    }
    let divergence = match (summary.kl(&round.policy, &summary.start), summary.kl(&control.policy, &summary.start)) {
        (Some(a), Some(b)) => format!(
            ", at a KL to the start of {} against {} nats per response",
            plus_minus(a.mean, a.stderr),
            plus_minus(b.mean, b.stderr)
        ),
        _ => ", with the KL to the start not measured".to_owned(),
    };
    let unequal = unequal_settings(round, control);
    let unfair = if unequal.is_empty() {
        String::new()
    } else {
        format!("; but the control also differs in {}", join(unequal.into_iter()))
    };
    format!(
        "{subject}, compared with the control (sequential DPO, λ = 0), {}{divergence}{unfair} (one run, one seed; the \
         intervals cover the choice of held-out prompts only).",
        join(clauses.into_iter())
    )
}

/// Whether what the run made gives rewards and no log-probabilities.
pub(crate) fn makes_rewards(summary: &RunSummary) -> bool {
    summary.matrix.iter().any(|score| score.kind == ScoreKind::Reward)
}

/// Earlier dimensions with a λ other than zero.
fn held(round: &RoundSummary) -> Vec<&(String, f64)> {
    round.lambda.iter().filter(|(_, lambda)| *lambda != 0.0).collect()
}

/// What happened to one dimension.
fn clause(summary: &RunSummary, difference: &PairedDifference, earlier: bool) -> String {
    let dimension = &difference.dimension;
    let points = 100.0 * difference.accuracy_difference;
    let size = percent(difference.accuracy_difference.abs());
    let what = if difference.within_noise() {
        format!("changed {dimension} by {} points, which is within noise", signed(points))
    } else if points > 0.0 {
        format!("{} {size} points of {dimension} accuracy", if earlier { "bought" } else { "also gained" })
    } else if earlier {
        format!("lost {size} points of {dimension} accuracy instead of keeping it")
    } else {
        format!("cost {size} points of {dimension} accuracy")
    };
    let accuracy = |policy: &str| {
        find_score(&summary.matrix, policy, dimension).and_then(|score| score.tally(Subset::All)).map(|t| t.accuracy)
    };
    let levels = match (accuracy(&difference.a), accuracy(&difference.b)) {
        (Some(a), Some(b)) => format!("{} % against {} %, ", percent(a), percent(b)),
        _ => String::new(),
    };
    format!("{what} ({levels}95 % interval of the difference {})", interval_points(difference.interval))
}

/// Names of the settings in [`MUST_MATCH`] that both rounds have with different values.
fn unequal_settings(round: &RoundSummary, control: &RoundSummary) -> Vec<String> {
    let name = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let differs = |key: &&str| {
        let value = |round: &RoundSummary| {
            round.settings.iter().find(|setting| name(&setting.key) == *key).map(|setting| setting.value.clone())
        };
        matches!((value(round), value(control)), (Some(a), Some(b)) if a != b)
    };
    MUST_MATCH.into_iter().filter(differs).map(str::to_owned).collect()
}

/// "a", "a and b", "a, b and c".
fn join(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    match parts.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}
