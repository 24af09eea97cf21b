//! The processes that share a run, where a launcher has started several.

use std::rc::Rc;
use std::thread::available_parallelism;

use clap::ValueEnum;
use spo_team::{Mode, Spent, Team, TeamError, Voice};
use spo_train::TrainError;

use crate::diagnostic;
use crate::error::CliError;
use crate::output::note;

/// How processes find each other.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Distributed {
    /// By MPI, where mpirun, mpiexec or srun has started them; by NCCL, where torchrun has and this build has it; else the
    /// process is by itself
    #[default]
    Auto,
    /// Each process is by itself, whatever has started it
    None,
    /// By MPI
    Mpi,
    /// By NCCL, a card of NVIDIA's for each; torchrun or its like has started them
    Nccl,
}

impl Distributed {
    fn mode(self) -> Mode {
        match self {
            Self::Auto => Mode::Auto,
            Self::None => Mode::None,
            Self::Mpi => Mode::Mpi,
            Self::Nccl => Mode::Nccl,
        }
    }
}

/// The processes that share a run, as this one sees them.
pub(crate) struct Processes {
    pub team: Rc<Team>,
    /// The card of this process, where there are several processes and all of them see all cards.
    pub card: Option<usize>,
}

impl Processes {
    /// Finds the other processes, and shares the machine's cores with those that are on it.
    ///
    /// # Errors
    /// Several processes that cannot be connected, or what contradicts itself.
    pub fn start(how: Distributed) -> Result<Self, CliError> {
        let started = spo_team::start(how.mode(), Voice { waits, ends: last_words }).map_err(TrainError::from)?;
        let local = started.local.filter(|_| !started.team.is_solo());
        if let Some((rank, processes)) = local {
            share_cores(rank, processes);
        }
        Ok(Self { team: Rc::new(started.team), card: started.card })
    }

    /// Does a command's work. What goes wrong on any process ends all of them, and one says it.
    ///
    /// # Errors
    /// Those of the work; with several processes what is left of them is the exit code.
    pub fn together<T>(self, work: impl FnOnce(&Self) -> Result<T, CliError>) -> Result<T, CliError> {
        let error = match work(&self) {
            Err(error) if !self.team.is_solo() => error,
            result => return result,
        };
        let failed = matches!(&error, CliError::Train(TrainError::Failed { .. }));
        let code = if failed { CliError::FAILED_TOGETHER } else { error.exit_code() };
        self.team.fail(&error.to_string(), code);
        if self.team.is_root() {
            diagnostic::show(&error);
        }
        // Only now MPI ends: what a process with an exit code leaves behind, mpirun kills.
        Err(CliError::Told { code })
    }

    /// Says what the processes have spent on each other.
    pub fn tell_spent(&self) -> Result<(), CliError> {
        if self.team.is_solo() {
            return Ok(());
        }
        let own = serde_json::to_vec(&self.team.spent()).expect("numbers");
        let all = self.team.gather(&own).map_err(TrainError::from)?;
        if self.team.is_root() {
            let all: Vec<Spent> = all.iter().filter_map(|bytes| serde_json::from_slice(bytes).ok()).collect();
            let waited = all.iter().map(|spent| format!("{:.1}", spent.waited)).collect::<Vec<_>>().join(", ");
            let (bytes, moved) = (all[0].bytes as f64 / 1e6, all[0].moved);
            let count = all.len();
            note(format_args!(
                "{count} processes: they waited {waited} s for each other; rank 0 gave the others {bytes:.1} MB, in {moved:.1} s"
            ));
        }
        Ok(())
    }
}

/// Who is waited for.
fn waits(text: &str) {
    note(format_args!("warning: {text}"));
}

/// What ends all processes from inside of the library.
fn last_words(error: &TeamError) {
    diagnostic::show(&CliError::Train(error.clone().into()));
}

/// Takes as many threads as are this process's share of the machine, and says where a launcher leaves it fewer.
fn share_cores(rank: usize, processes: usize) {
    let Ok(allowed) = available_parallelism().map(usize::from) else { return };
    let cores = std::fs::read_to_string("/sys/devices/system/cpu/online").ok().and_then(|text| count(text.trim()));
    let share = (cores.unwrap_or(allowed) / processes).max(1);
    if allowed < share && rank == 0 {
        note(format_args!(
            "warning: of {} cores for {processes} processes this one may use {allowed}: the launcher has bound it; \
             `mpirun --bind-to none`, or `--map-by slot:PE={share}`",
            cores.unwrap_or(allowed)
        ));
    }
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        // There is a pool already only where a library has made one: then it has what it has.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(share.min(allowed)).build_global();
    }
}

/// How many numbers a list like `0-3,8` has.
fn count(list: &str) -> Option<usize> {
    let of = |part: &str| match part.split_once('-') {
        None => part.parse::<usize>().ok().map(|_| 1),
        Some((first, last)) => last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?).map(|between| between + 1),
    };
    list.split(',').map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn lists_of_cores_are_counted() {
        let found = ["0-3,8", "0", "0-1", "", "3-1", "a"].map(count);
        assert_eq!(found, [Some(5), Some(1), Some(2), None, None, None]);
    }
}
