//! The fuzz target of quantised weights on every committed seed, whole and damaged. `fuzz/` runs it for as long as one likes.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

#[path = "../src/load/header.rs"]
mod header;
#[path = "../src/load/packed.rs"]
mod packed;
#[path = "../src/quant/mod.rs"]
mod quant;
#[path = "common/packed_target.rs"]
mod target;

use std::path::Path;

#[test]
fn quantised_weights_whole_and_damaged_end_in_numbers_or_an_error() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/packed");
    let mut count = 0;
    for seed in std::fs::read_dir(seeds).unwrap() {
        let seed = std::fs::read(seed.unwrap().path()).unwrap();
        count += 1;
        target::packed(&seed);
        for at in (0..seed.len()).step_by((seed.len() / 300).max(1) | 1) {
            target::packed(&seed[..at]);
            for to in [0, b'9', 0xff, seed[at] ^ 1] {
                target::packed(&[&seed[..at], &[to], &seed[at + 1..]].concat());
            }
        }
    }
    assert!(count > 7);
}
