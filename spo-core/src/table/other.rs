//! Tables of single answers and of lists.

use burn::tensor::Device;
use serde_json::{Map, Value, json};

use super::mean;
use super::row::{Row, column, optional};
use crate::CoreError;
use crate::objective::{
    AnswerNumbers, ListNumbers, ListObjective, UnpairedObjective, differentiate_answers, differentiate_lists,
};

/// The table of an unpaired objective, of labelled answers or of pairs.
pub(super) fn unpaired(
    objective: &dyn UnpairedObjective,
    rows: &[Row],
    device: &Device,
) -> Result<Map<String, Value>, CoreError> {
    let kl = optional(rows, "kl")?.map_or(0.0, |values| values.iter().sum::<f64>() / values.len() as f64);
    let pairs = rows[0].has("chosen_logp");
    let answers = if pairs { both_answers(rows, kl)? } else { labelled(rows, kl)? };
    let result = differentiate_answers(objective, &answers, device)?;
    let mut table = Map::new();
    table.insert("loss".into(), mean(&result.losses));
    table.insert("kl".into(), kl.max(0.0).into());
    if !pairs {
        let slopes: Vec<Value> = result.d_policy.iter().map(|slope| json!({"logp": slope})).collect();
        table.insert("per_answer".into(), result.losses.into());
        table.insert("reward".into(), result.reward.into());
        table.insert("gradient".into(), slopes.into());
        return Ok(table);
    }
    let split = |values: &[f64]| (values[..rows.len()].to_vec(), values[rows.len()..].to_vec());
    let (chosen, rejected) = split(&result.losses);
    let (chosen_reward, rejected_reward) = split(&result.reward);
    let (d_chosen, d_rejected) = split(&result.d_policy);
    let both: Vec<f64> = chosen.iter().zip(&rejected).map(|(w, l)| (w + l) / 2.0).collect();
    let margin: Vec<f64> = chosen_reward.iter().zip(&rejected_reward).map(|(w, l)| w - l).collect();
    // A pair's loss is the mean of its two answers', so that the mean over pairs is the mean over answers.
    let slopes: Vec<Value> = d_chosen
        .iter()
        .zip(&d_rejected)
        .map(|(w, l)| json!({"chosen_logp": w / 2.0, "rejected_logp": l / 2.0}))
        .collect();
    table.insert("per_pair".into(), both.into());
    table.insert("chosen_reward".into(), chosen_reward.into());
    table.insert("rejected_reward".into(), rejected_reward.into());
    table.insert("margin".into(), margin.into());
    table.insert("gradient".into(), slopes.into());
    Ok(table)
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

fn labelled(rows: &[Row], kl: f64) -> Result<AnswerNumbers, CoreError> {
    let reason = "an answer needs `logp`, `ref_logp` and `label`";
    Ok(AnswerNumbers {
        policy: column(rows, "logp", reason)?,
        reference: column(rows, "ref_logp", reason)?,
        desirable: column(rows, "label", reason)?,
        kl,
    })
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
    let result = differentiate_lists(objective, &numbers, device)?;
    let slopes: Vec<Value> = result.d_policy.iter().map(|slopes| json!({"logps": slopes})).collect();
    let mut table = Map::new();
    table.insert("loss".into(), mean(&result.losses));
    table.insert("per_list".into(), result.losses.into());
    table.insert("reward".into(), json!(result.reward));
    table.insert("gradient".into(), slopes.into());
    Ok(table)
}
