//! Tables of pairs.

use burn::tensor::Device;
use serde_json::{Map, Value, json};

use super::mean;
use super::row::{Row, column, optional, policies, sides};
use crate::pair::SampledLogps;
use crate::{CoreError, Objective, PairNumbers, differentiate};

const EVERY_PAIR: &str = "every pair needs the policy's log-probabilities of both answers";

/// The pairs of `rows`.
fn pairs(objective: &dyn Objective, rows: &[Row]) -> Result<PairNumbers, CoreError> {
    let chosen = column(rows, "chosen_logp", EVERY_PAIR)?;
    let mut pairs = PairNumbers::new(chosen, column(rows, "rejected_logp", EVERY_PAIR)?);
    pairs.reference = sides(rows, "ref_chosen_logp", "ref_rejected_logp")?;
    pairs.earlier = policies(rows, "earlier")?;
    if objective.needs().reference {
        match (&pairs.reference, pairs.earlier.last()) {
            (None, Some(last)) => pairs.reference = Some(last.clone()),
            (Some(reference), Some(last)) if reference != last => pairs.earlier.push(reference.clone()),
            _ => {}
        }
    }
    pairs.mixture = policies(rows, "mixture")?;
    pairs.lengths = sides(rows, "chosen_tokens", "rejected_tokens")?;
    pairs.sequence_kl = sides(rows, "chosen_kl", "rejected_kl")?;
    pairs.safety = sides(rows, "chosen_safe", "rejected_safe")?;
    pairs.on_policy = sides(rows, "chosen_on_policy", "rejected_on_policy")?;
    pairs.strengths = optional(rows, "strength")?;
    pairs.sampled = sides(rows, "sampled_logp", "ref_sampled_logp")?
        .map(|pair| SampledLogps { policy: pair.chosen, reference: pair.rejected });
    Ok(pairs)
}

/// The table of a paired objective.
pub(super) fn table(objective: &dyn Objective, rows: &[Row], device: &Device) -> Result<Map<String, Value>, CoreError> {
    let pairs = pairs(objective, rows)?;
    let result = differentiate(objective, &pairs, device)?;
    let margin: Vec<f64> = result.chosen_reward.iter().zip(&result.rejected_reward).map(|(w, l)| w - l).collect();
    let gradient: Vec<Value> = (0..rows.len())
        .map(|row| {
            let mut slopes = json!({
                "chosen_logp": result.d_chosen[row],
                "rejected_logp": result.d_rejected[row],
            });
            if let Some(sampled) = &result.d_sampled {
                slopes["sampled_logp"] = sampled[row].into();
            }
            if let Some((chosen, rejected)) = &result.d_sequence_kl {
                slopes["chosen_kl"] = chosen[row].into();
                slopes["rejected_kl"] = rejected[row].into();
            }
            slopes
        })
        .collect();
    let mut table = Map::new();
    table.insert("loss".into(), mean(&result.losses));
    table.insert("per_pair".into(), result.losses.into());
    table.insert("chosen_reward".into(), result.chosen_reward.into());
    table.insert("rejected_reward".into(), result.rejected_reward.into());
    table.insert("margin".into(), margin.into());
    if let Some(carry) = result.carry {
        table.insert("carry".into(), carry.into());
    }
    table.insert("gradient".into(), gradient.into());
    Ok(table)
}
