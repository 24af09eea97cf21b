//! Losses, rewards and gradients of rows of log-probabilities: a check of any objective without a model.
//!
//! Rows are JSON objects, one per line. Keys of a pair: `chosen_logp`, `rejected_logp`, `ref_chosen_logp`,
//! `ref_rejected_logp`, `chosen_tokens`, `rejected_tokens`, `strength`, `earlier` (`[[chosen, rejected], …]` of π_0, π_1,
//! …; the last one may be left out where it is the reference; without it the reference is π_0), `mixture` (as `earlier`,
//! which stands for it where it is absent), `chosen_kl`, `rejected_kl` (sequence KL), `sampled_logp`, `ref_sampled_logp`,
//! `chosen_safe`, `rejected_safe`, `chosen_on_policy`, `rejected_on_policy`. Unpaired objectives take `logp`, `ref_logp`
//! and `label` (true for a desirable answer); a pair with a `label` counts as its chosen answer if that is true, else as
//! the rejected one; pairs without labels count as one desirable and one undesirable answer each. `kl` is the estimate
//! from mismatched answers, 0 where it is absent. List-wise objectives take `logps`, `ref_logps` and `gains`. Those
//! on rewards take `chosen_reward`, `rejected_reward` and, where the row says so, `strength` and `tie`. Other keys are
//! ignored.

mod other;
mod paired;
mod row;

use burn::tensor::Device;
use serde_json::{Map, Value};

use crate::CoreError;
use crate::objective::{self, Build};

/// The objective `name` with `options` over its defaults, on the rows of `jsonl`; one JSON object.
///
/// Its keys: `objective`, `options` (all of them), `rows`, `loss` (mean), `per_pair` (the loss of each row, be it a pair, an
/// answer or a list), `chosen_reward`, `rejected_reward` (of single answers null in one of the two, of lists those of the
/// best and the worst answer, with all of them in `reward`), `margin` of pairs, `margin_offset` for spo, `gradient`: per row the
/// derivatives of that row's loss, named like the inputs. Where a row's loss also depends on other rows, the derivatives
/// are of the sum.
///
/// # Errors
/// Unknown names and options; an objective that is no loss on numbers; lines that are no objects or lack a key (with their number); results that are not finite.
///
/// ```
/// # use burn::tensor::Device;
/// let rows = r#"{"chosen_logp": -10, "rejected_logp": -12, "ref_chosen_logp": -11, "ref_rejected_logp": -11}"#;
/// let table = spo_core::loss_table("dpo", &serde_json::Map::new(), rows, &Device::flex())?;
/// assert_eq!(table["chosen_reward"][0].as_f64(), Some(0.1));
/// # Ok::<(), spo_core::CoreError>(())
/// ```
pub fn loss_table(name: &str, options: &Map<String, Value>, jsonl: &str, device: &Device) -> Result<Value, CoreError> {
    let entry = objective::entry(name)?;
    let rows = row::parse(jsonl)?;
    let mut table = Map::new();
    table.insert("objective".into(), entry.name.into());
    table.insert("options".into(), entry.resolve(options)?.into());
    table.insert("rows".into(), rows.len().into());
    table.extend(match entry.build {
        Build::Pair(_) => paired::table(objective::build(name, options)?.as_ref(), &rows, device)?,
        Build::Either(..) if !other::is_labelled(&rows) => {
            paired::table(objective::build(name, options)?.as_ref(), &rows, device)?
        }
        Build::Unpaired(_) | Build::Either(..) => {
            other::unpaired(objective::build_unpaired(name, options)?.as_ref(), &rows, device)?
        }
        Build::List(_) => other::lists(objective::build_list(name, options)?.as_ref(), &rows, device)?,
        Build::Reward(_) => other::rewards(objective::build_reward(name, options)?.as_ref(), &rows, device)?,
        Build::Score => return Err(entry.wrong_shape("log-probability")),
    });
    Ok(table.into())
}

/// The mean of `values`.
fn mean(values: &[f64]) -> Value {
    (values.iter().sum::<f64>() / values.len() as f64).into()
}
