//! What a run leaves, comparable: what a clock says is left out.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Keys and columns that differ from run to run of the same run file; `processes` has times alone.
const TIMED: [&str; 9] =
    ["at", "seconds", "peak-bytes", "peak_bytes", "memory-bytes", "path", "model", "report", "processes"];

/// Bytes of weights, optimiser states and log-probs, texts without times, by their names in the run directory.
pub fn left(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut left = BTreeMap::new();
    let mut open = vec![out.to_path_buf()];
    while let Some(dir) = open.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(out).unwrap().to_str().unwrap();
                let (name, bytes) = comparable(name, std::fs::read(&path).unwrap());
                left.insert(name, bytes);
            }
        }
    }
    left
}

fn comparable(name: &str, bytes: Vec<u8>) -> (String, Vec<u8>) {
    let text = || std::str::from_utf8(&bytes).unwrap();
    let lines = |of: fn(&str) -> String| text().lines().map(of).collect::<Vec<_>>().join("\n").into_bytes();
    let (top, rest) = name.split_once('/').unwrap_or((name, ""));
    match (top, rest) {
        ("events.jsonl", _) => (name.into(), lines(json)),
        ("summary.json", _) => (name.into(), json(text()).into()),
        (_, "") if name.ends_with(".csv") => (name.into(), table(text()).into()),
        // Named by the time, and full of times; as many records as the other.
        ("tensorboard", _) => (rest_of_path(name), bytes.len().to_string().into()),
        // The name begins with a number, which counts damaged ones too, and ends with a hash, and the header has times;
        // the tensors count.
        ("checkpoints", _) => {
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let rest = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
            let name = format!("{top}/{}", &rest[..rest.len() - "-.safetensors".len() - 32]);
            (name, bytes[8 + header..].to_vec())
        }
        ("policies" | "model" | "cache", _) => (name.into(), bytes),
        _ => (name.into(), vec![]),
    }
}

fn rest_of_path(name: &str) -> String {
    name.rsplit_once('/').unwrap().0.into()
}

fn json(text: &str) -> String {
    let mut value: Value = serde_json::from_str(text).unwrap();
    timeless(&mut value);
    value.to_string()
}

fn timeless(value: &mut Value) {
    match value {
        Value::Object(table) => {
            TIMED.iter().for_each(|key| drop(table.remove(*key)));
            table.values_mut().for_each(timeless);
        }
        Value::Array(items) => items.iter_mut().for_each(timeless),
        _ => {}
    }
}

/// Rows without the columns of times; no cell of these tables has a comma in it.
fn table(text: &str) -> String {
    let header: Vec<&str> = text.lines().next().unwrap().split(',').collect();
    let row = |line: &str| {
        let cells = line.split(',').zip(&header).filter(|(_, column)| !TIMED.contains(column));
        cells.map(|(cell, _)| cell).collect::<Vec<_>>().join(",")
    };
    text.lines().map(row).collect::<Vec<_>>().join("\n")
}

/// Fails where two runs did not leave the same, and shows the first lines that differ.
#[track_caller]
pub fn assert_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>, what: &str) {
    assert!(found.keys().eq(expected.keys()), "{what}: {:?}\n{:?}", found.keys(), expected.keys());
    for (name, bytes) in expected {
        if &found[name] != bytes {
            let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(String::from).collect::<Vec<_>>();
            let (found, expected) = (lines(&found[name]), lines(bytes));
            let differ = found.iter().zip(&expected).find(|(found, expected)| found != expected);
            let differ = differ.map(|(found, expected)| {
                let same = found.chars().zip(expected.chars()).take_while(|(a, b)| a == b).count().saturating_sub(80);
                [found, expected].map(|line| line.chars().skip(same).take(200).collect::<String>())
            });
            panic!("{what}: {name} differs ({} and {} lines): {differ:#?}", found.len(), expected.len());
        }
    }
}
