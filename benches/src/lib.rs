//! Criterion benches, one question per file. Here is what several of them start from.

/// Where the built-in model and pairs are.
pub const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../spo-cli/assets");
