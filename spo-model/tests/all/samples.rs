//! Several answers to one prompt.

use spo_model::generate::{Control, DecodeOptions, GenerateOptions, Generator, Sampling};
use spo_model::{CausalLm, device};
use std::path::Path;

/// The prompt of answers drawn together is computed once, and their tokens are those of answers drawn one by one.
#[test]
fn answers_to_one_prompt_are_those_drawn_one_by_one() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spo-cli/assets/stories260K");
    let model = CausalLm::from_dir(&dir, None, &device::cpu()).unwrap();
    let long: Vec<u32> = (0..150).map(|n| 260 + n % 200).collect();
    let prompts: Vec<&[u32]> =
        [&long[..], &long, &long, &long[..40], &long[..40], &[1, 300], &[1, 300], &[1, 301], &[], &[1, 300]].to_vec();
    let options = |first_stream| GenerateOptions {
        max_new_tokens: 12,
        sampling: Sampling { temperature: 1.0, ..Sampling::GREEDY },
        seed: 7,
        first_stream,
        stop: vec![],
    };
    let draw = |mut generator: Generator, prompts: &[&[u32]], first: u64| -> Vec<Vec<u32>> {
        let generated = generator.generate(prompts, &options(first), &mut |_, _| Control::Continue);
        generated.into_iter().map(|generation| generation.ids).collect()
    };
    let on_kernels = |batch| Generator::new(model.clone(), &DecodeOptions { batch, drafts: 0, ..Default::default() });
    let alone: Vec<Vec<u32>> = prompts
        .iter()
        .enumerate()
        .map(|(index, prompt)| draw(on_kernels(1), &[prompt], index as u64).remove(0))
        .collect();
    assert_ne!(alone[0], alone[1]);
    for batch in [1, 3, 16] {
        assert_eq!(draw(on_kernels(batch), &prompts, 0), alone, "{batch} at a time");
        assert_eq!(draw(Generator::on_tensors(model.clone(), batch), &prompts, 0), alone, "tensors, {batch} at a time");
    }
}
