//! How many megabytes of each file format become rows in a second?

use std::io::Write;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::Value;
use spo_benches::ASSETS;
use spo_data::Registry;
use spo_data::format::Input;

fn rows(name: &str, bytes: Vec<u8>) -> usize {
    let format = Registry::builtin().format(name, None).expect("the format is known");
    let rows = (format.open)(Input::Memory(bytes), name).expect("the file is whole");
    rows.map(|row| row.expect("the row is whole").fields.len()).sum()
}

/// The rows of a JSONL file as CSV.
fn csv(jsonl: &[u8]) -> Vec<u8> {
    let quoted = |value: &Value| {
        format!("\"{}\"", value.as_str().map_or_else(|| value.to_string(), str::to_string).replace('"', "\"\""))
    };
    let mut text = String::from("prompt,response_a,response_b,prefs\n");
    for line in jsonl.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let row: Value = serde_json::from_slice(line).expect("the line is JSON");
        let cells = ["prompt", "response_a", "response_b", "prefs"].map(|key| quoted(&row[key]));
        text += &(cells.join(",") + "\n");
    }
    text.into_bytes()
}

fn read(criterion: &mut Criterion) {
    let path = format!("{ASSETS}/truthfulqa/pairs.train.jsonl.gz");
    let gz = std::fs::read(&path).expect("the built-in pairs");
    let mut jsonl = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(gz.as_slice()), &mut jsonl)
        .expect("the built-in pairs");
    let mut zst = zstd::Encoder::new(Vec::new(), 3).expect("a compressor");
    zst.write_all(&jsonl).expect("memory");
    let zst = zst.finish().expect("memory");
    let files = [
        ("a.jsonl", jsonl.clone()),
        ("a.jsonl.gz", gz),
        ("a.jsonl.zst", zst),
        ("a.json", jsonl.clone()),
        ("a.csv", csv(&jsonl)),
    ];
    measure(criterion, "read, TruthfulQA pairs", jsonl.len(), files.map(|(name, bytes)| (name.to_string(), bytes)));

    let fixture = |name: &str| {
        let path = format!("{}/../fixtures/formats/{name}", env!("CARGO_MANIFEST_DIR"));
        (name.to_string(), std::fs::read(path).expect("a fixture"))
    };
    let same = ["pairs.jsonl", "pairs.none.parquet", "pairs.snappy.parquet", "pairs.zstd.parquet", "pairs.feather"];
    let same = same.map(fixture);
    measure(criterion, "read, 700 pairs", same[0].1.len(), same);
}

/// Files with the same rows count as the bytes that these have as JSONL, whatever they are packed to.
fn measure(criterion: &mut Criterion, name: &str, bytes: usize, files: impl IntoIterator<Item = (String, Vec<u8>)>) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20).throughput(Throughput::Bytes(bytes as u64));
    for (name, bytes) in files {
        let prepared = || bytes.clone();
        group.bench_function(&name, |bencher| {
            bencher.iter_batched(prepared, |bytes| rows(&name, bytes), BatchSize::LargeInput)
        });
    }
    group.finish();
}

criterion_group!(benches, read);
criterion_main!(benches);
