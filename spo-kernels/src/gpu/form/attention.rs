//! See [`crate::attention`].

use super::{beside, buffer, like, matrix_units, take, typed};
use crate::attention::{Group, Heads};
use crate::gpu::attention::{self, DevicePlan, Gradients, Inputs, Outputs, Plan};
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::Client;
use burn_cubecl::tensor::CubeTensor;
use std::sync::Mutex;

/// What the kernels know of a batch: a plan for each window met so far.
#[derive(Debug, Default)]
pub(crate) struct DevicePlans(Mutex<Vec<(Option<usize>, DevicePlan)>>);

impl DevicePlans {
    fn of(&self, client: &Client, groups: &[Group], window: Option<usize>) -> DevicePlan {
        let mut plans = self.0.lock().expect("no thread panics while it makes a plan");
        if let Some((_, plan)) = plans.iter().find(|(of, _)| *of == window) {
            return plan.clone();
        }
        let group = |group: &Group| attention::Group { prompt: group.prompt_len, answers: group.answer_lens.clone() };
        let plan = Plan::new(&groups.iter().map(group).collect::<Vec<_>>(), window).upload(client);
        plans.push((window, plan.clone()));
        plan
    }
}

fn sizes(heads: Heads, q: &CubeTensor) -> Option<attention::Heads> {
    let Heads { heads, kv_heads, dim, scale, softcap, .. } = heads;
    let matrix = matrix_units::chosen(q);
    (dim <= attention::MOST_CHANNELS).then_some(attention::Heads { heads, kv_heads, dim, scale, softcap, matrix })
}

/// One call on the device.
struct Call {
    plan: DevicePlan,
    heads: attention::Heads,
    inputs: [CubeTensor; 3],
    y: CubeTensor,
    log_sums: CubeTensor,
}

impl Call {
    fn new(plans: &DevicePlans, groups: &[Group], heads: Heads, inputs: [&Tensor<3>; 3]) -> Option<Self> {
        let [q, k, v] = inputs.map(take);
        let inputs = [q?, k?, v?];
        let sizes = sizes(heads, &inputs[0])?;
        let plan = plans.of(&inputs[0].client, groups, heads.window);
        let tokens = inputs[0].meta.shape()[0];
        let (y, log_sums) = (like(&inputs[0]), beside(&inputs[0], [tokens, sizes.heads], DType::F32));
        let call = Self { plan, heads: sizes, inputs, y, log_sums };
        let dtype = call.y.dtype;
        typed!(dtype, E => attention::forward::<E>(
            &call.y.client, call.plan.clone(), sizes, call.buffers(), call.outputs()
        ));
        Some(call)
    }

    fn buffers(&self) -> Inputs {
        let [q, k, v] = self.inputs.each_ref().map(buffer);
        Inputs { q, k, v }
    }

    fn outputs(&self) -> Outputs {
        Outputs { y: buffer(&self.y), log_sums: buffer(&self.log_sums) }
    }
}

/// See [`crate::attention::PackedAttention::forward`].
pub(crate) fn forward(
    plans: &DevicePlans,
    groups: &[Group],
    heads: Heads,
    inputs: [&Tensor<3>; 3],
) -> Option<Tensor<2>> {
    let call = Call::new(plans, groups, heads, inputs)?;
    let [tokens, ..] = inputs[0].dims();
    let y = Tensor::<3>::from_primitive::<CubeBackend>(call.y);
    Some(y.reshape([tokens, heads.heads * heads.dim]))
}

/// See [`crate::attention::PackedAttention::backward`]: the forward pass runs again for the logarithms of its sums.
pub(crate) fn backward(
    plans: &DevicePlans,
    groups: &[Group],
    heads: Heads,
    inputs: [&Tensor<3>; 3],
    d_y: &Tensor<2>,
) -> Option<[Tensor<3>; 3]> {
    let d_y = take(d_y)?;
    let call = Call::new(plans, groups, heads, inputs)?;
    let gradients = call.inputs.each_ref().map(like);
    let [q, k, v] = gradients.each_ref().map(buffer);
    let (to, outputs) = (Gradients { q, k, v }, call.outputs());
    typed!(d_y.dtype, E => attention::backward::<E>(
        &d_y.client, call.plan.clone(), call.heads, call.buffers(), outputs, buffer(&d_y), to
    ));
    Some(gradients.map(Tensor::from_primitive::<CubeBackend>))
}
