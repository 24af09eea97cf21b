//! See [`crate::adamw`].

use super::{buffer, own, take};
use crate::Home;
use crate::adamw::AdamW;
use crate::gpu::Buffer;
use crate::gpu::optimizer::{State, Step, step};
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeBackend;

impl AdamW {
    #[allow(clippy::result_large_err, reason = "the state comes back to be stepped otherwise")]
    /// The step, in place where nobody else holds the state; the state itself where it is not f32 on a card.
    pub(crate) fn on_card(self, state: [Tensor<1>; 3], gradient: &Tensor<1>) -> Result<[Tensor<1>; 3], [Tensor<1>; 3]> {
        let single = |x: &Tensor<1>| x.dtype() == DType::F32;
        let taken = take(gradient).filter(|_| single(gradient) && state.iter().all(single));
        let Some(gradient) = taken else { return Err(state) };
        let state = state.map(|x| own(CubeBackend::plain(x).expect("on the gradient's device")));
        let Self { beta1, beta2, epsilon, scale, keep, rate, correction } = self;
        let [weight, first, second] = state.each_ref().map(buffer);
        let client = &gradient.client;
        let scale = Buffer::from_slice(client, &[scale as f32]);
        let numbers = Step { beta1, beta2, epsilon, keep, rate, correction };
        step(client, numbers, State { weight, first, second }, buffer(&gradient), scale);
        Ok(state.map(Tensor::from_primitive::<CubeBackend>))
    }
}
