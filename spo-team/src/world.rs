//! Which processes belong to a run: what the program was started by says it.

#[cfg(any(feature = "mpi", feature = "nccl"))]
use crate::rendezvous::card_of;
use crate::rendezvous::{Rendezvous, Variables};
use crate::transport::Voice;
use crate::{Team, TeamError};

/// How processes find each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// By MPI where an MPI launcher has started the program; by NCCL where a build that has it was started by torchrun or its
    /// like; else it is by itself.
    #[default]
    Auto,
    /// The process is by itself, whatever has started it.
    None,
    /// By MPI.
    Mpi,
    /// By NCCL.
    Nccl,
}

/// A team with what is known of its processes.
#[derive(Debug, Default)]
pub struct Started {
    /// The processes.
    pub team: Team,
    /// This process's number among those of its machine, and how many these are.
    pub local: Option<(usize, usize)>,
    /// The card of this process, where there are several processes and all of them see all cards.
    pub card: Option<usize>,
}

/// By what processes are connected.
#[derive(Debug, Clone, PartialEq, Eq)]
enum By {
    Nothing,
    Mpi,
    Nccl(Rendezvous),
}

/// Variables that an MPI launcher sets: Open MPI's, that of MPICH and Intel MPI, that of PMIx.
const OF_MPI: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"];
/// Variables with the number of processes, of launchers that say nothing of MPI: torchrun and its like, and Slurm.
const OTHERS: [&str; 2] = ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"];

/// The team that this process belongs to. It must be called by the program's main thread, before others are there.
///
/// # Errors
/// Several processes that this build cannot connect, or launchers that contradict each other.
pub fn start(mode: Mode, voice: Voice) -> Result<Started, TeamError> {
    let variable = |name: &str| std::env::var(name).ok();
    match wanted(mode, cfg!(feature = "nccl"), &variable)? {
        By::Nothing => Ok(Started::default()),
        By::Mpi => connect(voice, &variable),
        By::Nccl(at) => connect_by_nccl(&at, voice),
    }
}

/// What is to be asked for the other processes.
fn wanted(mode: Mode, has_nccl: bool, variable: Variables) -> Result<By, TeamError> {
    match mode {
        Mode::None => Ok(By::Nothing),
        Mode::Mpi => Ok(By::Mpi),
        Mode::Nccl => Rendezvous::new(variable).map(By::Nccl),
        Mode::Auto if OF_MPI.iter().any(|name| variable(name).is_some()) => Ok(By::Mpi),
        Mode::Auto => match several(variable) {
            None => Ok(By::Nothing),
            Some(_) if has_nccl && variable("RANK").is_some() => Rendezvous::new(variable).map(By::Nccl),
            Some(found) => Err(TeamError::NotConnected {
                found,
                reason: "no MPI launcher has started this process: every one of them would be a run of its own".into(),
                hint: "start with mpirun, mpiexec or `srun --mpi=pmix`; `--distributed none` means it".into(),
            }),
        },
    }
}

/// What says that there are several processes, and how many.
fn several(variable: Variables) -> Option<String> {
    let count = |name: &'static str| Some((name, variable(name)?.parse::<usize>().ok()?));
    let (name, count) = OTHERS.into_iter().filter_map(count).find(|(_, count)| *count > 1)?;
    Some(format!("{name} = {count}"))
}

#[cfg(not(feature = "nccl"))]
fn connect_by_nccl(at: &Rendezvous, _: Voice) -> Result<Started, TeamError> {
    Err(TeamError::NotConnected {
        found: format!("{} processes are to be connected by NCCL", at.size),
        reason: "this build of spo has no NCCL".into(),
        hint: "the build in `cuda/` has it; or start with mpirun: over MPI processes may compute on CUDA as well"
            .into(),
    })
}

#[cfg(feature = "nccl")]
fn connect_by_nccl(at: &Rendezvous, voice: Voice) -> Result<Started, TeamError> {
    let variable = |name: &str| std::env::var(name).ok();
    let process = crate::nccl::Process::start(at, voice)?;
    let (local, card) = (Some(at.local), card_of(at.local.0, &variable));
    Ok(Started { team: Team::connected(Box::new(process)), local, card })
}

#[cfg(not(feature = "mpi"))]
fn connect(_: Voice, variable: Variables) -> Result<Started, TeamError> {
    let set = OF_MPI.iter().find_map(|name| Some(format!("{name} = {}", variable(name)?)));
    Err(TeamError::NotConnected {
        found: set.unwrap_or_else(|| "MPI is asked for".into()),
        reason: "this build of spo has no MPI".into(),
        hint: "build it where MPI is installed, with `--features mpi`; `--distributed none` is a process by itself"
            .into(),
    })
}

#[cfg(feature = "mpi")]
fn connect(voice: Voice, variable: Variables) -> Result<Started, TeamError> {
    use crate::transport::Transport;
    let process = crate::mpi::Process::start(voice)?;
    let (size, local) = (process.size(), process.local());
    check(size, variable)?;
    let card = card_of(local.0, variable).filter(|_| size > 1);
    Ok(Started { team: Team::connected(Box::new(process)), local: Some(local), card })
}

/// Compares what MPI says with what others say.
#[cfg_attr(not(feature = "mpi"), allow(dead_code, reason = "its tests need no MPI"))]
fn check(size: usize, variable: Variables) -> Result<(), TeamError> {
    for name in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"].iter().chain(&OTHERS) {
        let count = variable(name).and_then(|text| text.parse::<usize>().ok());
        if let Some(count) = count.filter(|count| *count != size) {
            return Err(TeamError::Contradiction {
                left: format!("{name} = {count}"),
                right: format!("MPI sees {size}"),
                hint: "start with the launcher of the MPI that spo was built with, and with one launcher only".into(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn with<'a>(set: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
    }

    #[test]
    fn the_launcher_says_who_belongs_together() {
        let asked = |mode, set: &[(&str, &str)]| wanted(mode, false, &with(set));
        assert_eq!(asked(Mode::Auto, &[]), Ok(By::Nothing));
        assert_eq!(asked(Mode::Auto, &[("WORLD_SIZE", "1"), ("RANK", "0")]), Ok(By::Nothing));
        assert_eq!(asked(Mode::Auto, &[("OMPI_COMM_WORLD_SIZE", "2")]), Ok(By::Mpi));
        assert_eq!(asked(Mode::Auto, &[("PMI_SIZE", "1"), ("WORLD_SIZE", "4")]), Ok(By::Mpi), "and compared then");
        assert_eq!(asked(Mode::Mpi, &[]), Ok(By::Mpi));
        for name in OTHERS {
            assert_eq!(asked(Mode::None, &[(name, "2")]), Ok(By::Nothing));
            let error = asked(Mode::Auto, &[(name, "2")]).unwrap_err();
            assert!(error.to_string().contains(&format!("{name} = 2")) && error.hint().unwrap().contains("mpirun"));
        }
    }

    #[test]
    fn torchrun_is_for_nccl() {
        let set = [("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("NCCL_COMM_ID", "node0:7")];
        let expected = Ok(By::Nccl(Rendezvous::new(&with(&set)).unwrap()));
        assert_eq!(wanted(Mode::Auto, true, &with(&set)), expected);
        assert_eq!(wanted(Mode::Nccl, false, &with(&set)), expected, "and refused then");
        assert!(wanted(Mode::Auto, false, &with(&set)).is_err(), "a build without NCCL asks for mpirun");
    }

    #[test]
    fn sizes_must_fit() {
        assert_eq!(check(4, &with(&[("WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_SIZE", "4")])), Ok(()));
        let error = check(1, &with(&[("PMI_SIZE", "2")])).unwrap_err();
        assert_eq!(error.to_string(), "PMI_SIZE = 2, but MPI sees 1");
    }
}
