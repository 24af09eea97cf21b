//! Tables of pairs.

use burn::tensor::Device;
use serde_json::{Map, Value, json};

use super::mean;
use super::row::{Row, at_line, column, needed_sides, optional, policies, sides};
use crate::pair::SampledLogps;
use crate::{CoreError, Objective, PairNumbers, differentiate};

const EVERY_PAIR: &str = "every pair needs the policy's log-probabilities of both answers";

/// The pairs of `rows`.
fn pairs(objective: &dyn Objective, rows: &[Row]) -> Result<PairNumbers, CoreError> {
    let needs = objective.needs();
    let with = |needed: bool, what: &str, chosen: &'static str, rejected: &'static str| match needed {
        true => needed_sides(rows, chosen, rejected, &format!("`{}` looks at {what}", objective.name())),
        false => sides(rows, chosen, rejected),
    };
    let chosen = column(rows, "chosen_logp", EVERY_PAIR)?;
    let mut pairs = PairNumbers::new(chosen, column(rows, "rejected_logp", EVERY_PAIR)?);
    pairs.earlier = policies(rows, "earlier", false)?;
    let (history, alone) = (needs.history || needs.earlier > 0, pairs.earlier.is_empty());
    let reference = (needs.reference || history) && alone;
    pairs.reference = with(reference, "the reference", "ref_chosen_logp", "ref_rejected_logp")?;
    match (&pairs.reference, pairs.earlier.last()) {
        (None, Some(last)) => pairs.reference = Some(last.clone()),
        (Some(reference), Some(last)) if needs.reference && reference != last => pairs.earlier.push(reference.clone()),
        // Round 1: the reference is where the sequence starts.
        (Some(reference), None) if history => pairs.earlier = vec![reference.clone()],
        _ => {}
    }
    // Further references are those of `mixture`, or else the earlier policies.
    pairs.mixture = policies(rows, "mixture", needs.mixture && alone)?;
    if needs.mixture && pairs.mixture.is_empty() {
        let others = pairs.earlier.iter().filter(|sides| Some(*sides) != pairs.reference.as_ref());
        pairs.mixture = others.cloned().collect();
    }
    pairs.lengths = with(needs.lengths, "answer lengths", "chosen_tokens", "rejected_tokens")?;
    pairs.sequence_kl = with(needs.sequence_kl, "the KL along each answer", "chosen_kl", "rejected_kl")?;
    pairs.safety = with(needs.safety, "whether each answer is safe", "chosen_safe", "rejected_safe")?;
    pairs.on_policy = with(needs.on_policy, "on-policy weights", "chosen_on_policy", "rejected_on_policy")?;
    pairs.strengths = match needs.strengths {
        true => Some(column(rows, "strength", &format!("`{}` looks at the strength of a pair", objective.name()))?),
        false => optional(rows, "strength")?,
    };
    pairs.sampled = with(needs.sampled, "an answer of the reference", "sampled_logp", "ref_sampled_logp")?
        .map(|pair| SampledLogps { policy: pair.chosen, reference: pair.rejected });
    Ok(pairs)
}

/// The table of a paired objective.
pub(super) fn table(objective: &dyn Objective, rows: &[Row], device: &Device) -> Result<Map<String, Value>, CoreError> {
    let pairs = pairs(objective, rows)?;
    let result = differentiate(objective, &pairs, device).map_err(|error| at_line(rows, error))?;
    let margin: Vec<f64> = result.chosen_reward.iter().zip(&result.rejected_reward).map(|(w, l)| w - l).collect();
    let gradient: Vec<Value> = (0..rows.len())
        .map(|row| {
            let mut gradient = json!({
                "chosen_logp": result.d_chosen[row],
                "rejected_logp": result.d_rejected[row],
            });
            if let Some(sampled) = &result.d_sampled {
                gradient["sampled_logp"] = sampled[row].into();
            }
            if let Some((chosen, rejected)) = &result.d_sequence_kl {
                gradient["chosen_kl"] = chosen[row].into();
                gradient["rejected_kl"] = rejected[row].into();
            }
            gradient
        })
        .collect();
    let mut table = Map::new();
    table.insert("loss".into(), mean(&result.losses));
    table.insert("per_pair".into(), result.losses.into());
    table.insert("chosen_reward".into(), result.chosen_reward.into());
    table.insert("rejected_reward".into(), result.rejected_reward.into());
    table.insert("margin".into(), margin.into());
    if let Some(margin_offset) = result.margin_offset {
        table.insert("margin_offset".into(), margin_offset.into());
    }
    table.insert("gradient".into(), gradient.into());
    Ok(table)
}
