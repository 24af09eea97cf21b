//! From the gradient of z, which every film and every adapter that goes by it adds to, to the encoder's.

use super::lifted::{collect, lift};
use crate::step::gradients::{Gradients, Trainable};
use spo_model::CausalLm;
use spo_model::decoder::pull;

/// Under which name their sum is kept until the last block is done.
pub(super) const STEERED_BY: &str = "z";
/// The encoder's path.
const ENCODER: &str = "steering.encoder.";

/// Takes the gradient of z out and adds those of the encoder that made it.
pub(super) fn backward(model: &CausalLm, trainable: Trainable, gradients: &mut Gradients) {
    let Some(d_z) = gradients.remove(STEERED_BY) else { return };
    let contexts = model.steering.as_ref().and_then(|steering| Some((steering, steering.contexts()?)));
    let Some((steering, contexts)) = contexts.filter(|_| trainable.contains(ENCODER)) else {
        return;
    };
    let encoder = lift(steering.encoder.clone(), ENCODER, trainable);
    let z = encoder.forward(contexts);
    let d_z = d_z.into_whole().reshape(z.dims());
    let mut tape = pull([(&z, &d_z)]).backward();
    collect(&encoder, ENCODER, trainable, &mut tape, gradients);
}
