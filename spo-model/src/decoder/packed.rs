//! Packed, prefix-shared batches on a device. Token-wise layers see `[tokens, hidden]` without padding.

use super::{Attend, RopeTables};
use crate::ModelSpec;
use crate::spec::AttentionSpec;
use burn::tensor::{Device, Int, Tensor, TensorData};
use spo_data::PackedBatch;
use spo_kernels::attention::Group;
pub use spo_kernels::attention::PackedAttention;
use std::sync::Arc;

/// The tensors of one [`PackedBatch`].
#[derive(Debug, Clone)]
pub struct PackedInputs {
    /// Token ids, `[tokens]`.
    pub ids: Tensor<1, Int>,
    /// Position of each token in its sequence, `[tokens]`.
    pub positions: Tensor<1, Int>,
    /// Rotary tables of the positions.
    pub rope: RopeTables,
    /// Tokens whose hidden state predicts an answer token, `[rows]`.
    pub score_rows: Tensor<1, Int>,
    /// The tokens they predict, `[rows]`.
    pub targets: Tensor<1, Int>,
    /// The first two and the rows in host memory, for sums over the tokens that share one.
    pub on_host: Arc<HostIndices>,
    attention: PackedAttention,
}

/// What of a batch says where gradients are added.
#[derive(Debug)]
pub struct HostIndices {
    /// [`PackedInputs::ids`]
    pub ids: Vec<i32>,
    /// [`PackedInputs::positions`]
    pub positions: Vec<i32>,
    /// [`PackedInputs::score_rows`]
    pub score_rows: Vec<i32>,
}

impl PackedInputs {
    /// Uploads a batch for a model of this spec.
    pub fn new(batch: &PackedBatch, spec: &ModelSpec, device: &Device) -> Self {
        let ints =
            |values: &[i32]| Tensor::<1, Int>::from_data(TensorData::new(values.to_vec(), [values.len()]), device);
        let groups = batch.groups.iter().map(|group| Group {
            start: group.start,
            prompt_len: group.prompt_len,
            answer_lens: group.answer_lens.clone(),
        });
        Self {
            ids: ints(&batch.input_ids),
            positions: ints(&batch.positions),
            rope: RopeTables::new(&spec.ropes, &batch.positions, device),
            score_rows: ints(&batch.score_rows),
            targets: ints(&batch.targets),
            on_host: Arc::new(HostIndices {
                ids: batch.input_ids.clone(),
                positions: batch.positions.clone(),
                score_rows: batch.score_rows.clone(),
            }),
            attention: PackedAttention::new(groups.collect(), device),
        }
    }

    /// The attention of this batch.
    pub fn attention(&self) -> PackedAttention {
        self.attention.clone()
    }
}

impl Attend for PackedAttention {
    fn attend(
        &mut self,
        _layer: usize,
        spec: AttentionSpec,
        [q, k, v]: [Tensor<3>; 3],
        sinks: Option<Tensor<1>>,
    ) -> Tensor<2> {
        self.clone().with_sinks(sinks).forward(spec, q, k, v)
    }
}
