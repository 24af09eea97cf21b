//! Loads preference files and prints what they hold: `inspect TOKENIZER_DIR FILE…`
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::Instant;

use spo_data::{DataSpec, TextSpec, Tokenizer, load};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: inspect TOKENIZER_DIR FILE…")?;
    let tokenizer = Tokenizer::from_dir(Path::new(&directory))?;
    let specs: Vec<DataSpec> = arguments.map(DataSpec::new).collect();
    let start = Instant::now();
    let data = load(&specs, &TextSpec::default(), &tokenizer, &mut |_| ())?;
    let seconds = start.elapsed().as_secs_f64();
    for file in &data.report.files {
        println!("{}: {} rows, {} ({})", file.file, file.rows, file.schema, file.why);
    }
    for (reason, count) in data.report.counts() {
        println!("{count} {}", reason.describe());
    }
    let stats = data.stats();
    for (name, dimension) in &stats.dimensions {
        println!("{name}: {} pairs, {} ties", dimension.pairs, dimension.ties);
    }
    for conflict in data.conflicts(0) {
        println!("{} × {}: {} agree, {} conflict", conflict.first, conflict.second, conflict.agree, conflict.conflict);
    }
    let rate = stats.tokens as f64 / seconds;
    println!("{} examples, {} tokens, {seconds:.3} s, {rate:.0} tokens/s", stats.examples, stats.tokens);
    Ok(())
}
