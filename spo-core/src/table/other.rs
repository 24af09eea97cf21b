//! Tables of single answers and of lists.

use burn::tensor::Device;
use serde_json::{Map, Value, json};

use super::mean;
use super::row::{Row, at_line, column, optional};
use crate::CoreError;
use crate::objective::{
    AnswerNumbers, ListNumbers, ListObjective, RewardNumbers, RewardObjective, UnpairedObjective,
    differentiate_answers, differentiate_lists, differentiate_rewards,
};

/// The table of an unpaired objective, of labelled answers or of pairs.
pub(super) fn unpaired(
    objective: &dyn UnpairedObjective,
    rows: &[Row],
    device: &Device,
) -> Result<Map<String, Value>, CoreError> {
    let kl = optional(rows, "kl")?.map_or(0.0, |values| values.iter().sum::<f64>() / values.len() as f64);
    let mut table = Map::new();
    if objective.needs_kl() {
        table.insert("kl".into(), kl.max(0.0).into());
    }
    if is_labelled(rows) {
        let (answers, keys) = labelled(rows, kl)?;
        let result = differentiate_answers(objective, &answers, device).map_err(|error| at_line(rows, error))?;
        let of = |label: f64| -> Value {
            let rewards = result.reward.iter().zip(&answers.desirable);
            rewards.map(|(reward, desirable)| (*desirable == label).then_some(*reward)).collect()
        };
        let gradient: Vec<Value> =
            keys.iter().zip(&result.d_policy).map(|(key, gradient)| json!({ *key: gradient })).collect();
        table.insert("loss".into(), mean(&result.losses));
        table.insert("chosen_reward".into(), of(1.0));
        table.insert("rejected_reward".into(), of(0.0));
        table.insert("per_pair".into(), result.losses.into());
        table.insert("gradient".into(), gradient.into());
        return Ok(table);
    }
    let result = differentiate_answers(objective, &both_answers(rows, kl)?, device)?;
    let split = |values: &[f64]| (values[..rows.len()].to_vec(), values[rows.len()..].to_vec());
    let (chosen, rejected) = split(&result.losses);
    let (chosen_reward, rejected_reward) = split(&result.reward);
    let (d_chosen, d_rejected) = split(&result.d_policy);
    let both: Vec<f64> = chosen.iter().zip(&rejected).map(|(w, l)| (w + l) / 2.0).collect();
    let margin: Vec<f64> = chosen_reward.iter().zip(&rejected_reward).map(|(w, l)| w - l).collect();
    // A pair's loss is the mean of its two answers', so that the mean over pairs is the mean over answers.
    let gradient: Vec<Value> = d_chosen
        .iter()
        .zip(&d_rejected)
        .map(|(w, l)| json!({"chosen_logp": w / 2.0, "rejected_logp": l / 2.0}))
        .collect();
    table.insert("loss".into(), mean(&result.losses));
    table.insert("per_pair".into(), both.into());
    table.insert("chosen_reward".into(), chosen_reward.into());
    table.insert("rejected_reward".into(), rejected_reward.into());
    table.insert("margin".into(), margin.into());
    table.insert("gradient".into(), gradient.into());
    Ok(table)
}

/// Whether the rows are single answers: they have a label, or no second answer.
pub(super) fn is_labelled(rows: &[Row]) -> bool {
    rows.iter().any(|row| row.has("label") || row.has("logp"))
}

fn both_answers(rows: &[Row], kl: f64) -> Result<AnswerNumbers, CoreError> {
    let reason = "a pair needs both answers under the policy and the reference";
    let both = |chosen, rejected| Ok([column(rows, chosen, reason)?, column(rows, rejected, reason)?].concat());
    Ok(AnswerNumbers {
        policy: both("chosen_logp", "rejected_logp")?,
        reference: both("ref_chosen_logp", "ref_rejected_logp")?,
        desirable: [vec![1.0; rows.len()], vec![0.0; rows.len()]].concat(),
        kl,
    })
}

/// Answers of rows with a `label`: `logp` and `ref_logp`, or those of the chosen answer (a desirable one) or the rejected
/// answer (an undesirable one), or of the only answer that there is. With the key of each one's log-probability.
fn labelled(rows: &[Row], kl: f64) -> Result<(AnswerNumbers, Vec<&'static str>), CoreError> {
    let reason = "an answer needs `logp`, `ref_logp` and `label`";
    let mut answers = AnswerNumbers { policy: vec![], reference: vec![], desirable: vec![], kl };
    let mut keys = Vec::new();
    for row in rows {
        let label = row.number("label", reason)?;
        if label != 0.0 && label != 1.0 {
            let found = format!("`label` is {label}");
            return Err(CoreError::Row { line: row.line, found, expected: "true (desirable) or false".into() });
        }
        const CHOSEN: [&str; 2] = ["chosen_logp", "ref_chosen_logp"];
        const REJECTED: [&str; 2] = ["rejected_logp", "ref_rejected_logp"];
        let (own, other) = if label == 1.0 { (CHOSEN, REJECTED) } else { (REJECTED, CHOSEN) };
        let [policy, reference] = match (row.has("logp"), row.has(own[0]), row.has(other[0])) {
            (false, true, _) => own,
            (false, false, true) => other,
            _ => ["logp", "ref_logp"],
        };
        answers.policy.push(row.number(policy, reason)?);
        answers.reference.push(row.number(reference, reason)?);
        answers.desirable.push(label);
        keys.push(policy);
    }
    Ok((answers, keys))
}

/// The table of a list-wise objective.
pub(super) fn lists(
    objective: &dyn ListObjective,
    rows: &[Row],
    device: &Device,
) -> Result<Map<String, Value>, CoreError> {
    let reason = "a list needs `logps`, `ref_logps` and `gains`";
    let lists = |key| rows.iter().map(|row| row.numbers(key, reason)).collect::<Result<Vec<_>, _>>();
    let numbers = ListNumbers { policy: lists("logps")?, reference: lists("ref_logps")?, gains: lists("gains")? };
    let result = differentiate_lists(objective, &numbers, device).map_err(|error| at_line(rows, error))?;
    let gradient: Vec<Value> = result.d_policy.iter().map(|gradient| json!({"logps": gradient})).collect();
    let reward_at = |better: fn(f64, f64) -> bool| -> Vec<f64> {
        let of = |(gains, rewards): (&Vec<f64>, &Vec<f64>)| {
            let place =
                (1..gains.len()).fold(0, |best, next| if better(gains[next], gains[best]) { next } else { best });
            rewards[place]
        };
        numbers.gains.iter().zip(&result.reward).map(of).collect()
    };
    let mut table = Map::new();
    table.insert("loss".into(), mean(&result.losses));
    table.insert("chosen_reward".into(), reward_at(|a, b| a > b).into());
    table.insert("rejected_reward".into(), reward_at(|a, b| a < b).into());
    table.insert("per_pair".into(), result.losses.into());
    table.insert("reward".into(), json!(result.reward));
    table.insert("gradient".into(), gradient.into());
    Ok(table)
}

/// The table of an objective on rewards.
pub(super) fn rewards(
    objective: &dyn RewardObjective,
    rows: &[Row],
    device: &Device,
) -> Result<Map<String, Value>, CoreError> {
    let reason = "a pair needs the rewards of both answers";
    let pairs = RewardNumbers {
        chosen: column(rows, "chosen_reward", reason)?,
        rejected: column(rows, "rejected_reward", reason)?,
        strengths: optional(rows, "strength")?,
        ties: optional(rows, "tie")?.unwrap_or_else(|| vec![0.0; rows.len()]),
    };
    let result = differentiate_rewards(objective, &pairs, device).map_err(|error| at_line(rows, error))?;
    let margin: Vec<f64> = pairs.chosen.iter().zip(&pairs.rejected).map(|(w, l)| w - l).collect();
    let gradient: Vec<Value> = result
        .d_chosen
        .iter()
        .zip(&result.d_rejected)
        .map(|(w, l)| json!({"chosen_reward": w, "rejected_reward": l}))
        .collect();
    let columns = [
        ("loss", mean(&result.losses)),
        ("per_pair", result.losses.into()),
        ("chosen_reward", pairs.chosen.into()),
        ("rejected_reward", pairs.rejected.into()),
        ("margin", margin.into()),
        ("gradient", gradient.into()),
    ];
    Ok(columns.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}
