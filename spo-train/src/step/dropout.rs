//! Dropout's keys: they depend on the token's place in the step's batch, not on micro-batches.

use spo_data::PackedBatch;
use spo_model::CausalLm;
use spo_model::lora::mix;
use std::sync::Arc;

/// The model with dropout switched on for a micro-batch of a step, if its adapters have any: `members`
/// are the places in the batch of the batch's groups. A token's key depends on seed, round, step and
/// its place in the batch only, so neither micro-batches nor a resumed run change what is dropped.
///
/// # Shapes
/// `members`: one for each of `batch.groups`; `step`: seed, round, and steps done before this one.
pub fn with_dropout(model: &CausalLm, batch: &PackedBatch, members: &[usize], step: [u64; 3]) -> Option<CausalLm> {
    if !model.has_dropout() {
        return None;
    }
    let [seed, round, step] = step;
    let key = mix(seed ^ mix(round ^ mix(step)));
    let keys = batch.groups.iter().zip(members).flat_map(|(group, &member)| {
        let group_key = mix(key ^ member as u64);
        (0..group.tokens() as u64).map(move |token| mix(group_key ^ token))
    });
    Some(model.clone().with_dropout(&Arc::from(keys.collect::<Vec<_>>())))
}
