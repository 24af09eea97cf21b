//! What storing a model in 16 bits changes in its log-probs, family by family; docs/performance.md has the table.

use spo_data::{Group, PackedBatch};
use spo_model::load::Storage;
use spo_model::{CausalLm, device};
use std::path::Path;

/// Token log-probs of a few rows of made-up tokens.
fn logps(model: &CausalLm) -> Vec<f32> {
    let tokens = |from: u32, count: u32| (from..from + count).map(|i| (i * 37 + 11) % 160).collect::<Vec<u32>>();
    let rows: Vec<[Vec<u32>; 3]> =
        (0..6).map(|i| [tokens(31 * i, 8 + i), tokens(17 * i + 5, 20), tokens(11 * i + 90, 14)]).collect();
    let groups: Vec<Group> = rows.iter().map(|[p, c, r]| Group { prompt: p, answers: vec![c, r] }).collect();
    model.token_logps(&PackedBatch::new(&groups), &Default::default())
}

#[test]
fn sixteen_bits_change_log_probs_little() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/families");
    let mut dirs: Vec<_> = std::fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    println!("| model | bf16 mean | bf16 most | f16 mean | f16 most |");
    println!("|---|--:|--:|--:|--:|");
    for dir in dirs {
        let load = |storage| CausalLm::from_dir(&dir, Some(storage), &device::cpu()).unwrap();
        let model = load(Storage::F32);
        let exact = logps(&model);
        // A rounded score may send a token to other experts. Scores of normed queries and keys without a factor are larger by
        // the root of a head's width than with the usual one, and so are their errors.
        let (mean_wider, most_wider) = match (model.spec().experts.is_some(), model.spec().layers[0].attention.scale) {
            (true, _) => (2.0, 20.0),
            (false, 1.0) => (2.0, 2.0),
            (false, _) => (1.0, 1.0),
        };
        let name = dir.file_name().unwrap().to_str().unwrap().to_string();
        let mut line = format!("| {name}");
        // Eight bits of a bf16 number against eleven of an f16 one.
        for (storage, mean_allowed, most_allowed) in [(Storage::Bf16, 0.015, 0.08), (Storage::F16, 0.002, 0.012)] {
            let found = logps(&load(storage));
            let errors = || exact.iter().zip(&found).map(|(a, b)| f64::from((a - b).abs()));
            let (mean, most) = (errors().sum::<f64>() / exact.len() as f64, errors().fold(0.0, f64::max));
            assert!(mean > 0.0, "{name}: {storage:?} has no effect");
            let fits = mean <= mean_wider * mean_allowed && most <= most_wider * most_allowed;
            assert!(fits, "{name}: {storage:?}: mean {mean}, most {most}");
            line += &format!(" | {mean:.1e} | {most:.1e}");
        }
        println!("{line} |");
    }
}
