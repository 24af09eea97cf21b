//! What is fuzzed: any bytes of an answer must end in files or an error. `fuzz/` and the smoke test both run this.

use spo_hub::{Name, Settings, Want, listed, refusal};
use std::path::Path;
use std::time::Duration;

/// Reads an answer: the first byte chooses what was asked for, or that it is a refusal, whose status and headers are the
/// lines before the body.
pub fn hub(bytes: &[u8]) {
    let Some((choice, answer)) = bytes.split_first() else { return };
    let rows = |test| Want::Rows { config: (choice & 16 != 0).then(|| "default".into()), split: None, test };
    let (text, want) = match choice & 7 {
        0 => ("org/name", Want::Model),
        1 => ("org/name", Want::Tokenizer),
        2 => ("hf://org/name/part-00001-of-00002.gguf", Want::Model),
        3 => ("hf://datasets/org/name@refs/convert/parquet", rows(false)),
        4 => ("hf://datasets/org/name", rows(true)),
        5 => ("hf://datasets/org/name/data/**/train-*.parquet", rows(false)),
        _ => return refused(choice & 8 != 0, answer),
    };
    let name = Name::parse(text, Path::new("/nonexistent")).expect("it is well formed").expect("it is of the Hub");
    match listed(&name, &want, answer) {
        Ok((commit, files)) => {
            assert!(commit.len() == 40 && !files.is_empty());
            // Nothing that is written may lie outside the cache.
            let inside = |path: &String| !path.starts_with('/') && !path.split(['/', '\\']).any(|part| part == "..");
            assert!(files.iter().all(inside), "{files:?}");
        }
        Err(error) => drop((error.to_string(), error.hint())),
    }
}

fn refused(token: bool, answer: &[u8]) {
    let mut lines = answer.splitn(5, |byte| *byte == b'\n');
    let mut line = || String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (status, headers) = (line().trim().parse().unwrap_or(500), [line(), line(), line()]);
    let settings = Settings {
        endpoint: "https://hub".into(),
        token: token.then(|| "hf_secret".into()),
        cache: "/nonexistent".into(),
        offline: true,
        tries: 1,
        pause: Duration::ZERO,
    };
    let name = Name::parse("org/name", Path::new("/nonexistent")).expect("well formed").expect("of the Hub");
    let body = lines.next().unwrap_or_default();
    let error = refusal(&settings, (&name, "https://hub/api"), status, headers.each_ref().map(String::as_str), body);
    let said = (error.to_string(), error.hint());
    // A token is in no message, unless the Hub itself says it.
    assert!(answer.windows(9).any(|part| part == b"hf_secret") || !format!("{said:?}").contains("hf_secret"));
}
