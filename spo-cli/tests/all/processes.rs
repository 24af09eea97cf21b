//! Several processes and a build without MPI.
#![cfg(not(feature = "mpi"))]

use crate::support::{ended, path, small_run};

/// Several processes that this build cannot connect are refused, instead of N runs side by side.
#[test]
fn several_processes_are_refused_without_mpi() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(&small_run(dir.path()));
    let asked = |how: &str, variable: &str| {
        let arguments = ["train", &file, "--dry-run", "--distributed", how];
        ended(std::process::Command::new(env!("CARGO_BIN_EXE_spo")).args(arguments).env(variable, "2"))
    };
    for (how, variable, words) in [
        ("auto", "OMPI_COMM_WORLD_SIZE", "this build of spo has no MPI"),
        ("auto", "WORLD_SIZE", "no MPI launcher has started this process"),
        ("mpi", "SPO_NOTHING", "MPI is asked for"),
        ("nccl", "SPO_NOTHING", "RANK is not set"),
    ] {
        let found = asked(how, variable);
        let text = found.err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(found.code == 2 && text.contains(words), "{how} {variable}: {} {}", found.code, found.err);
    }
    let alone = asked("none", "OMPI_COMM_WORLD_SIZE");
    assert_eq!(alone.code, 0, "{}", alone.err);
}
