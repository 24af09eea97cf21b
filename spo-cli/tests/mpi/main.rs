//! Several processes under Open MPI share a run: the bytes of one process, resuming with another number of them, and every
//! way in which one of them fails. Needs `mpirun`; `.ci/mpi` installs it and builds with the feature `mpi`. With `SPO_MPIRUN`
//! = `mpirun.mpich` and a build with MPICH the `bytes` hold too; how a launcher ends a job is another matter there.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

mod bytes;
mod faults;
mod faulty;
#[path = "../../../spo-train/tests/left/mod.rs"]
mod left;
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One job at a time: the machine may have two cores.
static JOB: Mutex<()> = Mutex::new(());

fn one_job() -> MutexGuard<'static, ()> {
    JOB.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory with a run file, and runs of it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// The small run with a checkpoint after every step; `change` makes it another one.
    fn new(change: impl FnOnce(String) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = support::small_run(dir.path());
        let text = fs::read_to_string(&file).unwrap() + "[checkpoints]\nevery-steps = 1\nkeep-last = 100\n";
        fs::write(&file, change(text)).unwrap();
        Self { dir }
    }

    fn file(&self) -> String {
        support::path(&self.dir.path().join("run.toml"))
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// What a run has left, which goes away.
    fn taken(&self) -> std::collections::BTreeMap<String, Vec<u8>> {
        let left = left::left(&self.out());
        fs::remove_dir_all(self.out()).unwrap();
        left
    }

    /// Trains with so many processes; one is started without MPI.
    fn train(&self, processes: usize, more: &[&str]) -> Ended {
        let file = self.file();
        let arguments: Vec<&str> = ["train", &file].into_iter().chain(more.iter().copied()).collect();
        job(processes, &arguments).end()
    }

    fn resume(&self, processes: usize) -> Ended {
        let out = support::path(&self.out());
        job(processes, &["train", "--resume", &out]).end()
    }

    /// Waits until the run has taken so many steps of all its phases.
    fn wait_for_steps(&self, steps: usize) {
        let begun = Instant::now();
        let seen = || fs::read_to_string(self.out().join("events.jsonl")).unwrap_or_default();
        while seen().matches("\"grad_norm\"").count() + seen().matches("\"grad-norm\"").count() < steps {
            assert!(begun.elapsed() < Duration::from_secs(60), "no steps:\n{}", seen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// How a job ended.
struct Ended {
    code: i32,
    text: String,
}

/// A job that runs.
struct Job(Child, PathBuf, #[allow(dead_code, reason = "it is there as long as the job")] tempfile::TempDir);

impl Job {
    fn end(mut self) -> Ended {
        let begun = Instant::now();
        let status = loop {
            match self.0.try_wait().unwrap() {
                Some(status) => break status,
                None if begun.elapsed() > Duration::from_secs(120) => {
                    self.0.kill().unwrap();
                    panic!("the job hangs:\n{}", fs::read_to_string(&self.1).unwrap());
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
        Ended { code, text: fs::read_to_string(&self.1).unwrap() }
    }

    /// Sends a signal to mpirun.
    fn signal(&self, name: &str) {
        signal(self.0.id(), name);
    }

    /// Process ids of a rank of this job.
    fn rank(&self, rank: usize) -> u32 {
        let wanted = format!("OMPI_COMM_WORLD_RANK={rank}");
        let of_job = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
            parent == Some(self.0.id())
        };
        let has = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        };
        let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        all.filter(of_job).find(has).unwrap()
    }
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// The launcher, with what Open MPI's needs for more processes than cores, and as root.
fn mpirun() -> Command {
    let launcher = std::env::var("SPO_MPIRUN").unwrap_or_else(|_| "mpirun".into());
    let mut command = Command::new(&launcher);
    if launcher.ends_with("mpich") {
        return command;
    }
    command.args(["--oversubscribe", "--bind-to", "none"]);
    command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
    command.env("OMPI_MCA_btl_vader_single_copy_mechanism", "none");
    command
}

/// Starts `spo` with these arguments in so many processes.
fn job(processes: usize, arguments: &[&str]) -> Job {
    let spo = env!("CARGO_BIN_EXE_spo");
    match processes {
        1 => started(Command::new(spo).args(arguments)),
        _ => started(mpirun().args(["-np", &processes.to_string(), spo]).args(arguments)),
    }
}

fn started(command: &mut Command) -> Job {
    let log = tempfile::tempdir().unwrap();
    let path = log.path().join("log");
    let file = fs::File::create(&path).unwrap();
    command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    Job(command.spawn().unwrap(), path, log)
}

#[track_caller]
fn ended_with(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, code, "{}", ended.text);
    let one_line = ended.text.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(one_line.contains(word), "no {word:?} in:\n{}", ended.text);
    }
}

/// Copies a directory.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}
