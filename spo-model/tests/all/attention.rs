//! The CPU's own attention against burn's operations and their autodiff.

use burn::tensor::{DType, Distribution, Tensor};
use spo_data::{Group, PackedBatch};
use spo_model::decoder::{Attend, PackedInputs};
use spo_model::spec::AttentionSpec;
use spo_model::{ModelSpec, device};

const HEADS: usize = 6;
const KV_HEADS: usize = 2;
const DIM: usize = 8;

fn batch() -> PackedBatch {
    let tokens: Vec<u32> = (0..64).cycle().take(300).collect();
    let group = |prompt: usize, answers: &[usize]| Group {
        prompt: &tokens[..prompt],
        answers: answers.iter().map(|&length| &tokens[..length]).collect(),
    };
    // A pair, one answer, a prompt alone, one token, a list, an answer longer than its prompt, and
    // prompt and answers of several blocks.
    let few = [group(7, &[5, 9]), group(20, &[3]), group(11, &[]), group(1, &[1]), group(4, &[2, 2, 30])];
    PackedBatch::new(&[few.as_slice(), &[group(150, &[140, 9, 300])]].concat())
}

fn inputs(window: Option<usize>) -> PackedInputs {
    let window = window.map_or("null".to_string(), |window| window.to_string());
    let spec = ModelSpec::from_json(&format!(
        r#"{{"model_type": "mistral", "vocab_size": 64, "hidden_size": 48, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": {HEADS}, "num_key_value_heads": {KV_HEADS}, "head_dim": {DIM}, "sliding_window": {window}}}"#
    ))
    .unwrap();
    PackedInputs::new(&batch(), &spec, &device::cpu())
}

fn close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
    for (index, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= 1e-5 * scale, "{what}[{index}]: found {f}, expected {e}");
    }
}

fn floats<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

#[test]
fn forward_and_backward_equal_the_reference_under_autodiff() {
    let plain = AttentionSpec::plain(DIM);
    let windows = [None, Some(1), Some(3), Some(12), Some(200)].map(|window| AttentionSpec { window, ..plain });
    let capped = AttentionSpec { window: Some(5), scale: 0.7, softcap: Some(2.5) };
    for spec in windows.into_iter().chain([capped]) {
        let (inputs, tokens) = (inputs(spec.window), batch().tokens());
        let cpu = device::cpu();
        let random = |heads: usize| Tensor::<3>::random([tokens, heads, DIM], Distribution::Normal(0.0, 2.0), &cpu);
        let (q, k, v) = (random(HEADS), random(KV_HEADS), random(KV_HEADS));
        let d_y = random(HEADS).reshape([tokens, HEADS * DIM]);

        let leaf = |x: &Tensor<3>| x.clone().autodiff().require_grad();
        let (lq, lk, lv) = (leaf(&q), leaf(&k), leaf(&v));
        let expected = inputs.attention().reference(spec, lq.clone(), lk.clone(), lv.clone());
        let mut tape = (expected.clone() * d_y.clone().autodiff()).sum().backward();

        let found = inputs.attention().attend(0, spec, [q.clone(), k.clone(), v.clone()], None);
        close(&floats(found), &floats(expected.inner()), "output");
        let expected = [&lq, &lk, &lv].map(|leaf| floats(leaf.grad_remove(&mut tape).unwrap()));
        let found = inputs.attention().backward(spec, q.clone(), k.clone(), v.clone(), d_y.clone());
        // In f64 the closed form runs in burn's operations, as on every other device.
        let wide = |x: Tensor<3>| x.cast(DType::F64);
        let general = inputs.attention().backward(spec, wide(q), wide(k), wide(v), d_y.cast(DType::F64));
        for (index, name) in ["d_q", "d_k", "d_v"].iter().enumerate() {
            close(&floats(found[index].clone()), &expected[index], name);
            close(&floats(general[index].clone()), &expected[index], name);
        }
    }
}
