//! How many kernels a micro-batch launches on a graphics card, which `SPO_TEST_DEVICE` names; none on the CPU.
//!
//! cubecl's log names every launch, for a whole process: each count is of a process of its own, this test program once more.

use spo_data::{Group, PackedBatch};
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
