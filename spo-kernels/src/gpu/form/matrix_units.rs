//! Whether attention of 16-bit types multiplies by matrix units: once they were seen to give what plain arithmetic gives.

use super::attention::{DevicePlans, backward, forward};
use super::typed;
use crate::attention::{AttentionSpec, Group, Heads};
use crate::gpu::attention::has_matrix_units;
use crate::memory::probe;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;
use std::sync::atomic::{AtomicBool, Ordering};

static CHOSEN: AtomicBool = AtomicBool::new(false);

/// Query heads, heads of keys and values, and channels of what is tried.
const TRIED: [usize; 3] = [4, 2, 64];
/// Share of the largest value by which both ways may differ: weights are rounded to 8 bits.
const ALLOWED: f32 = 0.03;

/// Whether a call with this input does so.
pub(super) fn chosen(q: &CubeTensor) -> bool {
    CHOSEN.load(Ordering::Relaxed) && typed!(q.dtype, E => has_matrix_units::<E>(&q.client))
}

/// Lets attention multiply by matrix units from now on, if that is wanted, the device has them for the type, and a small
/// pack has the outputs and gradients that it has in plain arithmetic; says whether it does.
pub fn choose(device: &Device, dtype: DType, wanted: bool) -> bool {
    CHOSEN.store(false, Ordering::Relaxed);
    let Some(plain) = wanted.then(|| tried(device, dtype)).flatten() else { return false };
    CHOSEN.store(true, Ordering::Relaxed);
    let same = tried(device, dtype).is_some_and(|units| units.iter().zip(&plain).all(|(a, b)| close(a, b)));
    CHOSEN.store(same, Ordering::Relaxed);
    same
}

/// Outputs and gradients of a small pack, where the device has matrix units for the type.
fn tried(device: &Device, dtype: DType) -> Option<Vec<Vec<f32>>> {
    // Before any tensor: the device may not know the type at all.
    let known = probe(device)?;
    if !typed!(dtype, E => has_matrix_units::<E>(&known.client)) {
        return None;
    }
    let groups = [
        Group { start: 0, prompt_len: 37, answer_lens: vec![20, 1] },
        Group { start: 58, prompt_len: 0, answer_lens: vec![45] },
    ];
    let [heads, kv_heads, dim] = TRIED;
    let tokens: usize = groups.iter().map(Group::tokens).sum();
    let numbers = |heads: usize, turn: u32| {
        let number = |i: usize| ((i as u32 + turn).wrapping_mul(2_654_435_761) >> 16) as f32 / 32768.0 - 1.0;
        let numbers: Vec<f32> = (0..tokens * heads * dim).map(number).collect();
        Tensor::<3>::from_data(TensorData::new(numbers, [tokens, heads, dim]), (device, DType::F32)).cast(dtype)
    };
    let [q, d_y] = [1, 2].map(|turn| numbers(heads, turn << 20));
    let [k, v] = [3, 4].map(|turn| numbers(kv_heads, turn << 20));
    let (plans, heads) = (DevicePlans::default(), Heads::new(TRIED, AttentionSpec::plain(dim)));
    let y = forward(&plans, &groups, heads, [&q, &k, &v])?;
    let gradients = backward(&plans, &groups, heads, [&q, &k, &v], &d_y.reshape([tokens, TRIED[0] * dim]))?;
    let values = |data: TensorData| data.iter::<f32>().collect::<Vec<f32>>();
    let mut found = vec![values(y.cast(DType::F32).try_into_data().ok()?)];
    for gradient in gradients {
        found.push(values(gradient.cast(DType::F32).try_into_data().ok()?));
    }
    Some(found)
}

fn close(units: &[f32], plain: &[f32]) -> bool {
    let most = plain.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    // Not `>`: what is not a number is not close.
    units.iter().zip(plain).all(|(a, b)| (a - b).abs() <= ALLOWED * most)
}
