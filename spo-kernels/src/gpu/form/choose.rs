//! See [`crate::choose`].

use super::{beside, buffer, take, typed};
use crate::choose::Draws;
use crate::gpu::Buffer;
use crate::gpu::choose::{drawn, most_likely};
use burn::tensor::{DType, Tensor};

/// `None` for logits that are not on a card.
pub(crate) fn choose(logits: &Tensor<2>, draws: Option<&Draws>) -> Option<Vec<u32>> {
    let [rows, vocab] = logits.dims();
    let logits = take(logits)?;
    let (client, tokens) = (logits.client.clone(), beside(&logits, [rows], DType::U32));
    typed!(logits.dtype, E => match draws {
        None => most_likely::<E>(&client, vocab, buffer(&logits), buffer(&tokens)),
        Some(Draws { temperature, uniform }) => {
            let draws = Buffer::from_slice::<f32>(&client, uniform);
            drawn::<E>(&client, vocab, buffer(&logits), *temperature, draws, buffer(&tokens));
        }
    });
    Some(buffer(&tokens).read::<u32>(&client))
}
