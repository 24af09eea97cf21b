//! The fuzz targets on every committed seed, on damaged seeds, and on files too large to commit.
//!
//! `fuzz/` runs the same targets for as long as one likes.

use std::io::{BufReader, Read};
use std::path::Path;

use crate::targets::TARGETS;
use spo_data::format::Input;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let files = std::fs::read_dir(directory).unwrap();
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn targets_survive_their_seeds_whole_and_damaged() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(seeds.len() > 3, "{name}");
        for seed in &seeds {
            target(seed);
            // Large enough to reach every part of a file, small enough for a test: a prime steps over alignments.
            for at in (0..seed.len()).step_by((seed.len() / 24).max(1) | 1) {
                target(&seed[..at]);
                let mut damaged = seed.clone();
                damaged[at] = damaged[at].wrapping_add(1 + (at % 251) as u8);
                target(&damaged);
            }
        }
    }
}

/// Bytes that repeat without being in memory.
fn endless(start: &'static [u8], byte: u8, len: u64) -> impl Read {
    start.chain(std::io::repeat(byte).take(len))
}

/// Largest resident memory of this process in MiB, where the system tells.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

#[test]
fn a_line_of_a_gigabyte_and_bombs_end_in_errors_with_little_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large");
    for name in ["jsonl", "json", "csv"] {
        let starts: &[&'static [u8]] = match name {
            "csv" => &[b"a,b\n\"", b""],
            _ => &[b"{\"a\":\"", b"{\"a\":["],
        };
        for start in starts {
            for byte in [b'x', b'[', 0, 0xff, b'\\'] {
                let mut file = std::fs::File::create(&path).unwrap();
                let mut source = BufReader::new(endless(start, byte, 1 << 30));
                // Kilobytes of zstd, or a megabyte of gzip, become a gigabyte.
                if byte == b'x' {
                    let mut zip = flate2::write::GzEncoder::new(&mut file, flate2::Compression::fast());
                    std::io::copy(&mut source, &mut zip).unwrap();
                    zip.finish().unwrap();
                } else {
                    let mut zip = zstd::Encoder::new(&mut file, 1).unwrap();
                    std::io::copy(&mut source, &mut zip).unwrap();
                    zip.finish().unwrap();
                }
                let format = spo_data::Registry::builtin().format("large", Some(name)).unwrap();
                let rows = (format.open)(Input::File(std::fs::File::open(&path).unwrap()), "large");
                let failed = rows.is_err() || rows.unwrap().any(|row| row.is_err());
                assert!(failed, "{name} {start:?} {byte}");
            }
        }
    }
    if let Some(peak) = peak_mib() {
        assert!(peak < 1024, "{peak} MiB");
    }
}
