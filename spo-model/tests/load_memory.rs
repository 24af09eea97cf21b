//! Peak memory of loading: the tensor in its final type and a small part of the file. Alone in its process, because the
//! peak is the process's.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use spo_model::device;
use spo_model::load::{Checkpoint, Storage};
use std::fs;
use std::io::Write;
use std::path::Path;

const SHAPE: [usize; 2] = [4096, 8192];
const MIB: usize = 1 << 20;
/// Parts of the file, their converted values, pages that the system reads ahead, and what else a process does.
const SLACK: usize = 16 * MIB;

/// A file with one matrix; its data is a hole, which the system reads as zeros.
fn write(path: &Path, dtype: &str, size: usize) {
    let bytes = SHAPE[0] * SHAPE[1] * size;
    let header = format!(r#"{{"x":{{"dtype":"{dtype}","shape":{SHAPE:?},"data_offsets":[0,{bytes}]}}}}"#);
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + bytes) as u64).unwrap();
}

fn status(key: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() * 1024
}

#[test]
fn loading_takes_the_final_size_and_a_small_part() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    for (dtype, from, to) in [("F32", 4, Storage::F32), ("BF16", 2, Storage::F32), ("F32", 4, Storage::F16)] {
        write(&path, dtype, from);
        let checkpoint = Checkpoint::open_file(&path).unwrap();
        let before = status("VmRSS:");
        // Sets the largest resident memory back to that of now.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let tensor = checkpoint.read::<2>("x", SHAPE, Some(to), &device::cpu()).unwrap().unwrap();
        let (taken, size) = (status("VmHWM:") - before, SHAPE[0] * SHAPE[1] * to.bytes());
        assert_eq!(tensor.dims(), SHAPE);
        assert!(taken >= size, "{taken} bytes are fewer than the tensor has");
        assert!(taken <= size + SLACK, "{dtype} to {to:?}: {} MiB for {} MiB", taken / MIB, size / MIB);
    }
}
