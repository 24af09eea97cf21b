//! The fuzz target of the Hub's answers on every committed seed, whole and damaged. `fuzz/` runs it for as long as one likes.

use crate::targets;
use spo_hub::{HubError, Name, Want, listed};
use std::path::Path;

#[test]
fn answers_whole_and_damaged_end_in_files_or_an_error() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/hub");
    let mut count = 0;
    for seed in std::fs::read_dir(seeds).unwrap() {
        let seed = std::fs::read(seed.unwrap().path()).unwrap();
        count += 1;
        targets::hub(&seed);
        for at in 0..seed.len() {
            targets::hub(&seed[..at]);
            for to in [0, b'"', b'9', 0xff, seed[at] ^ 1] {
                targets::hub(&[&seed[..at], &[to], &seed[at + 1..]].concat());
            }
        }
    }
    assert!(count > 7);
}

#[test]
fn answers_are_told_apart() {
    let name = Name::parse("org/name", Path::new("/nonexistent")).unwrap().unwrap();
    let of = |answer: &str| listed(&name, &Want::Model, answer.as_bytes());
    let (sha, hash) = ("c".repeat(40), "a".repeat(64));
    let file = |path: &str, size: u64| {
        format!(r#"{{"rfilename": "{path}", "size": {size}, "lfs": {{"sha256": "{hash}", "size": {size}}}}}"#)
    };
    let with = |files: &[String]| of(&format!(r#"{{"sha": "{sha}", "siblings": [{}]}}"#, files.join(",")));
    let (commit, files) = with(&[file("model.safetensors", 5), file("x.bin", 5)]).unwrap();
    assert_eq!((commit, files), (sha.clone(), vec!["model.safetensors".to_owned()]));
    let malformed = |answer: Result<(String, Vec<String>), HubError>| match answer {
        Err(HubError::Malformed { found, .. }) => found,
        other => panic!("{other:?}"),
    };
    assert!(malformed(with(&[file("a.safetensors", u64::MAX), file("b.safetensors", 1)])).contains("can be counted"));
    assert!(malformed(with(&[file("../a.safetensors", 1)])).contains("file name"));
    assert!(malformed(of("<html>no</html>")).contains("<html>"));
    assert!(malformed(of(r#"{"sha": "main", "siblings": []}"#)).contains("the commit `main`"));
    assert!(malformed(of(&format!(r#"{{"sha": "{sha}", "siblings": [{{"rfilename": "a"}}]}}"#))).contains("hash"));
    assert!(matches!(with(&[]), Err(HubError::Nothing { .. })));
}
