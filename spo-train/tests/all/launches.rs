//! How many kernels a micro-batch launches on a graphics card, which `SPO_TEST_DEVICE` names, and how much memory it takes there;
//! none on the CPU.
//!
//! cubecl's log names every launch, for a whole process: each count is of a process of its own, this test program once more.

use spo_data::{Group, PackedBatch};
use spo_kernels::host::reads;
use spo_kernels::memory::taken;
use spo_model::{CausalLm, ModelSpec, device};
use spo_train::step::gradients::{Gradients, Trainable};
use spo_train::step::tape::{TapeOptions, differentiate, observe};
use std::convert::Infallible;
use std::process::Command;
use std::time::Duration;

/// What the process that is counted does: `score` or `train`, and the number of blocks.
const WORK: &str = "SPO_COUNTED_WORK";
const LOG: &str = "launches.log";

fn device_name() -> String {
    std::env::var("SPO_TEST_DEVICE").unwrap_or_else(|_| "cpu".into())
}

fn work(what: &str, blocks: usize) {
    let spec = format!(
        r#"{{"model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": {blocks},
            "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true}}"#
    );
    let device = device::open(&device_name()).unwrap();
    let model = CausalLm::random(&ModelSpec::from_json(&spec).unwrap(), 7, &device);
    let batch = PackedBatch::new(&[
        Group { prompt: &[1, 2, 3], answers: vec![&[4, 5, 6], &[7]] },
        Group { prompt: &[8], answers: vec![&[9, 10], &[11, 12]] },
    ]);
    let options = TapeOptions { trainable: Trainable::All, ..TapeOptions::default() };
    match what {
        "score" => observe(&model, &batch, &options.head, |scored| assert_eq!(scored.logps.len(), 8)),
        _ => {
            let mut gradients = Gradients::default();
            let loss = |logps: &[f32]| Ok::<_, Infallible>(vec![1.0; logps.len()]);
            differentiate(&model, &batch, &options, &mut gradients, loss).unwrap();
            assert!(gradients.norm() > 0.0);
        }
    }
    // The log is written by a thread of its own.
    std::thread::sleep(Duration::from_secs(1));
}

/// The kernels that such a process launches, by name.
fn launched(what: &str, blocks: usize) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("[profiling]\nlogger = {{ level = \"minimal\", file = \"{LOG}\" }}\n");
    std::fs::write(dir.path().join("cubecl.toml"), config).unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "launches::a_block_launches_few_kernels"])
        .env(WORK, format!("{what} {blocks}"))
        .current_dir(dir.path())
        .status();
    assert!(status.unwrap().success());
    let log = std::fs::read_to_string(dir.path().join(LOG)).unwrap_or_default();
    log.lines().filter(|line| !line.trim().is_empty()).map(String::from).collect()
}

#[test]
fn a_block_launches_few_kernels() {
    if let Ok(given) = std::env::var(WORK) {
        let (what, blocks) = given.split_once(' ').unwrap();
        return work(what, blocks.parse().unwrap());
    }
    let on_card = device_name() != "cpu";
    for (what, most) in [("score", 20), ("train", 70)] {
        let [fewer, more] = [2, 3].map(|blocks| launched(what, blocks));
        let of_a_block = more.len() - fewer.len();
        assert_eq!(on_card, of_a_block > 0, "what is counted: {fewer:#?}");
        let of_all = format!("{} with 3 blocks, {} with 2", more.len(), fewer.len());
        assert!(of_a_block <= most, "{what}: {of_a_block} kernels a block, at most {most} ({of_all}): {more:#?}");
    }
}

/// Memory that such a process takes of the card for one answer of so many tokens, bytes, and how often the host reads from it.
fn taken_for(tokens: usize) -> (Option<u64>, u64) {
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "launches::two_reads_and_memory_that_grows_with_the_tokens"])
        .env(WORK, tokens.to_string())
        .current_dir(dir.path())
        .status();
    assert!(status.unwrap().success());
    let found = std::fs::read_to_string(dir.path().join(LOG)).unwrap();
    let (bytes, reads) = found.split_once(' ').unwrap();
    (bytes.parse().ok(), reads.parse().unwrap())
}

fn one_answer(tokens: usize) {
    let spec = r#"{"model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192, "tie_word_embeddings": true}"#;
    let device = device::open(&device_name()).unwrap();
    let model = CausalLm::random(&ModelSpec::from_json(spec).unwrap(), 7, &device);
    let answer: Vec<u32> = (1..tokens as u32).map(|token| token % 64).collect();
    let batch = PackedBatch::new(&[Group { prompt: &[1], answers: vec![&answer] }]);
    let options = TapeOptions { trainable: Trainable::All, ..TapeOptions::default() };
    let mut gradients = Gradients::default();
    let loss = |logps: &[f32]| Ok::<_, Infallible>(vec![1.0; logps.len()]);
    differentiate(&model, &batch, &options, &mut gradients, loss).unwrap();
    assert!(gradients.norm() > 0.0);
    let bytes = taken(&device).map_or_else(String::new, |bytes| bytes.to_string());
    std::fs::write(LOG, format!("{bytes} {}", reads())).unwrap();
}

#[test]
fn two_reads_and_memory_that_grows_with_the_tokens() {
    if let Ok(tokens) = std::env::var(WORK) {
        return one_answer(tokens.parse().unwrap());
    }
    let [(short, _), (long, reads)] = [512, 2048].map(taken_for);
    let on_card = device_name() != "cpu";
    // The log-probabilities, and on a card the norm of the gradients.
    assert_eq!(reads, if on_card { 2 } else { 1 });
    assert_eq!(on_card, long.is_some());
    if let (Some(short), Some(long)) = (short, long) {
        // Scores would make it sixteen times as much.
        assert!(long > short && long < 5 * short, "{short} bytes for 512 tokens, {long} for 2,048");
    }
}
