//! What ends a job, and with what message and exit code.

use crate::{Place, ended_with, job, mpirun, one_job, started};
use std::process::Command;

const FOUR: &str = "[parallel]\nshards = 4\n";

#[test]
fn a_silent_process_is_named() {
    let _one = one_job();
    let place = Place::new(|text| text.replace("steps = 2\n", "steps = 500\n") + "[parallel]\ntimeout = 4.0\n");
    let file = place.file();
    let job = job(2, &["train", &file]);
    place.wait_for_steps(3);
    crate::signal(job.rank(1), "STOP");
    let words = ["no answer from rank 1 in 1 seconds", "all end after 4 seconds", "no answer from rank 1 in 4 seconds"];
    ended_with(&job.end(), 75, &[&words[..], &["step", "[parallel] timeout"]].concat());
}

#[test]
fn a_killed_process_ends_all() {
    let _one = one_job();
    let place = Place::new(|text| text.replace("steps = 2\n", "steps = 500\n"));
    let file = place.file();
    let job = job(2, &["train", &file]);
    place.wait_for_steps(3);
    crate::signal(job.rank(0), "KILL");
    ended_with(&job.end(), 137, &[]);
}

#[test]
fn processes_that_cannot_share_the_run_say_why() {
    let _one = one_job();
    let place = Place::new(|text| text + FOUR);
    for processes in [3, 8] {
        let words = [&format!("{processes} processes share the run") as &str, "shared by 1, 2, 4 only"];
        ended_with(&place.train(processes, &[]), 2, &words);
        assert!(!place.out().exists());
    }
    // Without the key there are as many shards as processes: here more than pairs.
    let place = Place::new(|text| text);
    ended_with(&place.train(5, &[]), 2, &["4 pairs per step, which cannot be cut into 5 shards"]);
    let place = Place::new(|text| {
        text.replace("pairs-per-step = 4", "pairs-per-step = 4\nmax-grad-norm = 0\nupdate-in-backward = true")
    });
    ended_with(&place.train(2, &[]), 2, &["update-in-backward"]);
    // What a number of processes comes to shows without training.
    let place = Place::new(|text| text);
    ended_with(&place.train(2, &["--dry-run"]), 0, &["shards 2 computed from the number of processes"]);
    assert!(!place.out().exists());
}

#[test]
fn an_error_of_all_is_said_once() {
    let _one = one_job();
    let place = Place::new(|text| text + FOUR);
    let ended = place.train(2, &["--set", "rounds.0.dimension=\"courage\""]);
    ended_with(&ended, 2, &["courage"]);
    assert_eq!(ended.text.matches("but the training data has only").count(), 1, "{}", ended.text);
    // A learning rate that blows up is found by all at once.
    let ended = place.train(2, &["--set", "training.learning-rate=1e30"]);
    ended_with(&ended, 1, &["not-finite.json"]);
    assert_eq!(ended.text.matches("the ids of the batch are in").count(), 1, "{}", ended.text);
}

#[test]
fn processes_with_another_run_file_are_refused() {
    let _one = one_job();
    let (place, spo) = (Place::new(|text| text + FOUR), env!("CARGO_BIN_EXE_spo"));
    let file = place.file();
    let other = ["-np", "1", spo, "train", &file, ":", "-np", "1", spo, "train", &file, "--set", "seed=5"];
    let ended = started(mpirun().args(other)).end();
    ended_with(&ended, 2, &["rank 1 does not have what rank 0 has", "seed = 5"]);
    assert!(!place.out().exists());
}

#[test]
fn several_processes_without_mpi_are_refused() {
    let place = Place::new(|text| text);
    let alone = |how: &str, variable: (&str, &str)| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spo"));
        started(command.args(["train", &place.file(), "--dry-run", "--distributed", how]).envs([variable])).end()
    };
    let refused = ["no MPI launcher has started this process", "mpirun"];
    ended_with(&alone("auto", ("WORLD_SIZE", "2")), 2, &[&["WORLD_SIZE = 2"], &refused[..]].concat());
    ended_with(&alone("auto", ("SLURM_STEP_NUM_TASKS", "4")), 2, &refused);
    ended_with(&alone("none", ("WORLD_SIZE", "2")), 0, &["parallel shards 1 default"]);
    ended_with(&alone("nccl", ("RANK", "0")), 2, &["WORLD_SIZE is not set", "torchrun"]);
    let _one = one_job();
    ended_with(&alone("mpi", ("WORLD_SIZE", "2")), 2, &["WORLD_SIZE = 2, but MPI sees 1"]);
}

#[test]
fn what_fails_on_one_process_ends_all_with_its_message() {
    let _one = one_job();
    let child = |fault: &str| {
        let test = std::env::current_exe().unwrap();
        let arguments = ["--exact", "faulty::child", "--nocapture", "--test-threads=1"];
        started(mpirun().args(["-np", "2"]).arg(test).args(arguments).env("SPO_FAULT", fault)).end()
    };
    ended_with(&child("none"), 0, &["rank 0 is done"]);
    ended_with(&child("slow"), 0, &["step 20: process 1 is slow", "rank 0 is done"]);
    ended_with(&child("panic"), 75, &["rank 1: the computation failed: a device failed"]);
    ended_with(&child("nan"), 1, &["rank 1: objective `faulty`, row 0: the loss is NaN"]);
    ended_with(&child("length"), 75, &["the processes are out of step: rank 1 is at", "of 32 bytes", "of 28 bytes"]);
}
