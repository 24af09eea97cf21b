//! Numbers of other implementations: transformers, TRL and PEFT.

use serde_json::Value;
use spo_data::{Group, PackedBatch};
use spo_model::decoder::PackedInputs;
use spo_model::generate::{Control, DecodeOptions, GenerateOptions, Generator, Path as Way, Sampling};
use spo_model::lora::load_adapter;
use spo_model::{CausalLm, device};
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

fn load(dir: &Path) -> CausalLm {
    CausalLm::from_dir(dir, None, &device::cpu()).unwrap()
}

/// Logits after `tokens`, from the packed path.
fn logits(model: &CausalLm, tokens: &[u32]) -> Vec<f64> {
    let batch = PackedBatch::new(&[Group { prompt: tokens, answers: vec![&[0]] }]);
    let inputs = PackedInputs::new(&batch, model.spec(), &model.device());
    model.logits(model.hidden(&inputs)).into_data().iter::<f64>().collect()
}

fn next_logps(model: &CausalLm, tokens: &[u32]) -> Vec<f64> {
    let batch = PackedBatch::new(&[Group { prompt: &tokens[..1], answers: vec![&tokens[1..]] }]);
    model.token_logps(&batch, &Default::default()).into_iter().map(f64::from).collect()
}

/// Greedy tokens after each prompt: by the CPU kernels, which know all families but these, with and
/// without drafts, and by the model's tensors; all must agree.
fn greedy_all(model: &CausalLm, prompts: &[&[u32]], count: usize) -> Vec<Vec<u32>> {
    let options =
        GenerateOptions { max_new_tokens: count, sampling: Sampling::GREEDY, seed: 0, first_stream: 0, stop: vec![] };
    let tokens = |mut generator: Generator| -> Vec<Vec<u32>> {
        let generated = generator.generate(prompts, &options, &mut |_, _| Control::Continue);
        generated.into_iter().map(|generation| generation.ids).collect()
    };
    let kernels = |drafts| {
        let generator = Generator::new(model.clone(), &DecodeOptions { drafts, ..DecodeOptions::default() });
        let by_tensors = ["gpt2", "gpt_neox", "cohere2", "apertus", "gemma4_text"].contains(&model.spec().family);
        assert_eq!(matches!(generator.path(), Way::Kernels { .. }), !by_tensors, "{}", generator.path());
        tokens(generator)
    };
    let expected = tokens(Generator::on_tensors(model.clone(), prompts.len()));
    assert_eq!(kernels(0), expected);
    assert_eq!(kernels(8), expected);
    expected
}

fn greedy(model: &CausalLm, prompt: &[u32], count: usize) -> Vec<u32> {
    greedy_all(model, &[prompt], count).remove(0)
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance, "{what}[{index}]: found {f}, expected {e}");
    }
}

#[test]
fn families_give_the_logits_of_transformers() {
    let families = std::fs::read_dir(fixtures().join("families")).unwrap();
    let mut seen = 0;
    for dir in families.map(|entry| entry.unwrap().path()) {
        let model = load(&dir);
        for case in json(&dir.join("golden.json"))["cases"].as_array().unwrap() {
            let what = format!("{} {}", dir.display(), case["ids"].as_array().unwrap().len());
            let tokens = ids(&case["ids"]);
            assert_close(&logits(&model, &tokens), &floats(&case["logits_last"]), 2e-4, &what);
            assert_close(&logits(&model, &tokens[..1]), &floats(&case["logits_first"]), 2e-4, &what);
            assert_close(&next_logps(&model, &tokens), &floats(&case["token_logps"]), 1e-4, &what);
            let expected = ids(&case["greedy"]);
            assert_eq!(greedy(&model, &tokens, expected.len()), expected, "{what}");
            seen += 1;
        }
    }
    assert_eq!(seen, 3 * std::fs::read_dir(fixtures().join("families")).unwrap().count());
}

#[test]
fn the_built_in_model_gives_its_golden_logits() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spo-cli/assets/stories260K");
    let (model, golden) = (load(&dir), json(&dir.join("golden.json")));
    let tokens = ids(&golden["ids"]);
    assert_close(&logits(&model, &tokens)[..8], &floats(&golden["logits_last_first8"]), 1e-5, "logits");
    let sum: f64 = next_logps(&model, &tokens).iter().sum();
    assert!((sum - golden["sum_logprob_next"].as_f64().unwrap()).abs() < 1e-5, "{sum}");
    for (end, argmax) in ids(&golden["argmax"]).into_iter().enumerate() {
        assert_eq!(greedy(&model, &tokens[..=end], 1), [argmax]);
    }
}

/// The pairs of the TRL batch: prompt, chosen, rejected, cut to the 96 tokens TRL kept.
fn trl_rows(golden: &Value) -> Vec<[Vec<u32>; 3]> {
    let limit = golden["max_length"].as_u64().unwrap() as usize;
    let rows = golden["tokenised"].as_array().unwrap().iter().map(|row| {
        let prompt = ids(&row["prompt_ids"]);
        let cut = |key: &str| {
            let mut answer = ids(&row[key]);
            answer.truncate(limit - prompt.len());
            answer
        };
        let (chosen, rejected) = (cut("chosen_ids"), cut("rejected_ids"));
        [prompt, chosen, rejected]
    });
    rows.collect()
}

/// Sequence log-probs in TRL's order: all chosen, then all rejected.
fn trl_logps(model: &CausalLm, rows: &[[Vec<u32>; 3]], token_budget: usize) -> Vec<f64> {
    let groups: Vec<Group> =
        rows.iter().map(|[prompt, chosen, rejected]| Group { prompt, answers: vec![chosen, rejected] }).collect();
    let scored = model.score(&groups, token_budget, &Default::default(), &mut |_| ());
    let sum = |answer: usize| scored.iter().map(move |answers| answers[answer].iter().map(|l| f64::from(*l)).sum());
    sum(0).chain(sum(1)).collect()
}

#[test]
fn sequence_log_probs_equal_trl() {
    for arch in ["llama", "qwen3"] {
        let golden = json(&fixtures().join(format!("trl/{arch}-tiny.json")));
        let rows = trl_rows(&golden);
        for which in ["policy", "ref"] {
            let model = load(&fixtures().join(format!("trl/{arch}-tiny-{which}")));
            let expected = floats(&golden[which]["seq_logps"]);
            // All pairs in one padded call, and each pair alone.
            for budget in [100_000, 1] {
                assert_close(&trl_logps(&model, &rows, budget), &expected, 1e-4, arch);
            }
        }
    }
}

#[test]
fn adapters_and_their_merge_equal_peft() {
    for arch in ["llama", "qwen3"] {
        let golden = json(&fixtures().join(format!("trl/{arch}-tiny.json")));
        let rows = trl_rows(&golden);
        let base = load(&fixtures().join(format!("trl/{arch}-tiny-policy")));
        let (adapted, spec) = load_adapter(base, &fixtures().join(format!("trl/{arch}-tiny-lora"))).unwrap();
        assert_eq!((spec.rank, spec.alpha), (4, 8.0));
        let expected = floats(&golden["lora"]["policy_seq_logps"]);
        assert_close(&trl_logps(&adapted, &rows, 100_000), &expected, 2e-4, arch);
        let merged = floats(&golden["lora"]["merged_seq_logps"]);
        assert_close(&trl_logps(&adapted.merged(), &rows, 100_000), &merged, 2e-4, arch);
    }
}

#[test]
fn llama_3_rope_equals_transformers() {
    let golden = json(&fixtures().join("trl/llama3rope-tiny.json"));
    let model = load(&fixtures().join("trl/llama3rope-tiny"));
    for (tokens, expected) in
        golden["input_ids"].as_array().unwrap().iter().zip(golden["token_logps"].as_array().unwrap())
    {
        assert_close(&next_logps(&model, &ids(tokens)), &floats(expected), 1e-4, "token log-probs");
    }
}

#[test]
fn greedy_tokens_equal_transformers_alone_and_batched() {
    for arch in ["llama", "qwen3"] {
        let golden = json(&fixtures().join(format!("trl/{arch}-tiny.json")));
        let model = load(&fixtures().join(format!("trl/{arch}-tiny-policy")));
        let rows = trl_rows(&golden);
        let expected = ids(&golden["greedy_32_from_row0_prompt"]);
        assert_eq!(greedy(&model, &rows[0][0], 32), expected, "{arch}");
        let prompts: Vec<&[u32]> = rows.iter().map(|row| row[0].as_slice()).collect();
        let batched = greedy_all(&model, &prompts, 32);
        assert_eq!(batched[0], expected, "{arch}");
        for (tokens, prompt) in batched.iter().zip(&prompts) {
            assert_eq!(*tokens, greedy(&model, prompt, 32), "{arch}");
        }
    }
}
