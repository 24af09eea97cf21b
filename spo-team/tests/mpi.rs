//! Processes of whatever MPI this was built with: every exchange, and what happens where they are out of step. The test
//! starts itself under `$SPO_MPIRUN` (default `mpirun`), which must be that MPI's launcher.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

use spo_team::{Mode, Team, TeamError, Voice, tree};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How a job ended, and all that was printed.
fn job(processes: usize, what: &str) -> (i32, String) {
    let launcher = std::env::var("SPO_MPIRUN").unwrap_or_else(|_| "mpirun".into());
    let mut command = Command::new(&launcher);
    if !launcher.ends_with("mpich") {
        command.args(["--oversubscribe", "--bind-to", "none"]);
        command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
        command.env("OMPI_MCA_btl_vader_single_copy_mechanism", "none");
    }
    let arguments = ["--exact", "child", "--nocapture", "--test-threads=1"];
    command.args(["-np", &processes.to_string()]).arg(std::env::current_exe().unwrap()).args(arguments);
    let command = command.env("SPO_TEAM_CHILD", what).stdin(Stdio::null());
    let output = command.output().unwrap();
    let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap());
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (code, text)
}

/// Numbers without a pattern, other ones on each rank.
fn numbers(rank: usize, length: usize) -> Vec<f32> {
    (0..length).map(|index| ((index * 7 + rank * 13) as f32 * 0.37).sin() * 1e3).collect()
}

fn sums(team: &Team) -> Result<(), TeamError> {
    for length in [0, 1, 5, 1000, 100_003] {
        let mut values = numbers(team.rank(), length);
        team.sum(length as u64, &mut values)?;
        let all: Vec<Vec<f32>> = (0..team.size()).map(|rank| numbers(rank, length)).collect();
        for (index, value) in values.iter().enumerate() {
            let expected = tree::sum(all.iter().map(|of_rank| of_rank[index]), |a, b| a + b).unwrap();
            assert_eq!(value.to_bits(), expected.to_bits(), "{length}: {index}");
        }
    }
    assert_eq!(team.agree(team.rank() as u64)?, (0..team.size() as u64).collect::<Vec<_>>());
    let dealt = team.deal(33, |piece| Ok::<_, TeamError>((piece, 0.1 * piece as f64)))?;
    assert_eq!(dealt, (0..33).map(|piece| (piece, 0.1 * piece as f64)).collect::<Vec<_>>());
    assert_eq!(team.root(|| Ok::<_, TeamError>(team.rank()))?, 0);
    Ok(())
}

fn work(team: &Team, what: &str) -> Result<(), TeamError> {
    sums(team)?;
    match (what, team.rank()) {
        ("length", rank) => team.sum(0, &mut vec![1.0; 8 - rank % 2]),
        ("layout", rank) => team.sum(rank as u64, &mut [1.0]),
        ("kind", 0) => team.agree(0).map(drop),
        ("kind", _) => team.gather(b"x").map(drop),
        ("fails", 1) => Err(TeamError::Library { call: "write", text: "no room".into() }),
        ("silent", 1) => {
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        ("panics", 1) => panic!("a device failed"),
        _ => team.agree(0).map(drop),
    }
}

#[test]
fn child() {
    let Ok(what) = std::env::var("SPO_TEAM_CHILD") else { return };
    let voice = Voice { waits: |text| eprintln!("waiting: {text}"), ends: |error| eprintln!("ends: {error}") };
    let team = spo_team::start(Mode::Mpi, voice).unwrap().team;
    team.wait_at_most(Some(Duration::from_secs(if what == "silent" { 2 } else { 60 })));
    let done = work(&team, &what);
    let code = match &done {
        Ok(()) => 0,
        Err(TeamError::Elsewhere { code, .. }) => *code,
        Err(_) => 75,
    };
    match &done {
        Ok(()) => println!("rank {} of {} is done", team.rank(), team.size()),
        Err(error) => {
            println!("rank {}: {error}", team.rank());
            team.fail(&error.to_string(), code);
        }
    }
    drop(team);
    std::process::exit(code.into());
}

#[test]
fn exchanges_are_right_for_any_number_of_processes() {
    for processes in [2, 3, 4, 16] {
        let (code, text) = job(processes, "sums");
        assert_eq!(code, 0, "{text}");
        for rank in 0..processes {
            assert!(text.contains(&format!("rank {rank} of {processes} is done")), "{text}");
        }
    }
}

/// MPI itself adds up what does not fit, or spoils memory; nothing is exchanged here.
#[test]
fn processes_out_of_step_are_refused() {
    for (what, words) in [
        ("length", ["of 32 bytes", "of 28 bytes"]),
        ("layout", ["a sum of 4 bytes laid out as", "the processes are out of step"]),
        ("kind", ["an agreement", "a gathering"]),
    ] {
        let (code, text) = job(2, what);
        assert_ne!(code, 0, "{what}: {text}");
        assert!(
            text.contains("the processes are out of step") && words.iter().all(|word| text.contains(word)),
            "{what}: {text}"
        );
        assert!(!text.contains("is done"), "{what}: {text}");
    }
}

#[test]
fn one_that_fails_or_hangs_ends_all() {
    let (code, text) = job(3, "fails");
    assert_ne!(code, 0, "{text}");
    for rank in [0, 2] {
        assert!(text.contains(&format!("rank {rank}: rank 1: write: no room")), "{text}");
    }
    let (begun, (code, text)) = (Instant::now(), job(2, "silent"));
    assert_ne!(code, 0, "{text}");
    assert!(
        text.contains("waiting: no answer from rank 1 in 0 seconds") && text.contains("all end after 2 seconds"),
        "{text}"
    );
    assert!(text.contains("ends: no answer from rank 1 in 2 seconds"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(50), "it did not end before the silent one spoke");
    let (code, text) = job(2, "panics");
    assert_ne!(code, 0, "{text}");
    assert!(text.contains("a device failed") && !text.contains("is done"), "{text}");
}
