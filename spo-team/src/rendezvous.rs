//! What torchrun and its like tell a process of the others.

use crate::TeamError;

/// The variables of the environment.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A process among those that such a launcher has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendezvous {
    /// This process's number, from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// Number among those of this machine, and how many these are.
    pub local: (usize, usize),
    /// This process's card, among those that it sees.
    pub card: usize,
    /// Where rank 0 is reached, `HOST:PORT`.
    pub address: String,
}

impl Rendezvous {
    /// What torchrun and its like set: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT. On that port
    /// is the launcher's own store, so rank 0 takes the next one, or SPO_PORT; or all is as NCCL_COMM_ID says.
    pub fn new(variable: Variables) -> Result<Self, TeamError> {
        let hint = "start with `torchrun --no-python --nproc-per-node 4 spo train …`, or set RANK, WORLD_SIZE, LOCAL_RANK, \
                    MASTER_ADDR and MASTER_PORT for each process";
        let refused = |reason: String| TeamError::NotConnected {
            found: "the processes are to be connected by NCCL".into(),
            reason,
            hint: hint.into(),
        };
        let text = |name: &str| variable(name).ok_or_else(|| refused(format!("{name} is not set")));
        let number = |name: &str| {
            let text = text(name)?;
            text.parse::<usize>().map_err(|_| refused(format!("{name} = {text:?} is no number")))
        };
        let (rank, size, local_rank) = (number("RANK")?, number("WORLD_SIZE")?, number("LOCAL_RANK")?);
        if rank >= size {
            let (left, right) = (format!("RANK = {rank}"), format!("WORLD_SIZE = {size}"));
            return Err(TeamError::Contradiction { left, right, hint: "ranks are numbered from 0".into() });
        }
        let address = match variable("NCCL_COMM_ID") {
            Some(address) => address,
            None => {
                let port = match variable("SPO_PORT") {
                    Some(_) => number("SPO_PORT")?,
                    None => number("MASTER_PORT")? + 1,
                };
                format!("{}:{port}", text("MASTER_ADDR")?)
            }
        };
        let local_size = variable("LOCAL_WORLD_SIZE").map_or(Ok(size), |_| number("LOCAL_WORLD_SIZE"))?;
        let card = card_of(local_rank, variable).unwrap_or(0);
        Ok(Self { rank, size, local: (local_rank, local_size), card, address })
    }
}

/// The card of a process by its number on the machine; `None` where it sees a single one.
pub(crate) fn card_of(local_rank: usize, variable: Variables) -> Option<usize> {
    let visible = variable("CUDA_VISIBLE_DEVICES");
    let one = visible.is_some_and(|list| !list.is_empty() && !list.contains(','));
    (!one).then_some(local_rank)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn with<'a>(set: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
    }

    const TORCHRUN: [(&str, &str); 6] = [
        ("RANK", "5"),
        ("WORLD_SIZE", "8"),
        ("LOCAL_RANK", "1"),
        ("LOCAL_WORLD_SIZE", "4"),
        ("MASTER_ADDR", "node0"),
        ("MASTER_PORT", "29500"),
    ];

    #[test]
    fn it_is_what_torchrun_sets() {
        let read = |set: &[(&str, &str)]| Rendezvous::new(&with(set));
        let address = "node0:29501".into();
        let expected = Rendezvous { rank: 5, size: 8, local: (1, 4), card: 1, address };
        assert_eq!(read(&TORCHRUN), Ok(expected));
        let changed = |name: &'static str, value: &'static str| {
            let mut set: Vec<_> = TORCHRUN.into_iter().filter(|(key, _)| *key != name).collect();
            if !value.is_empty() {
                set.push((name, value));
            }
            read(&set)
        };
        let found = |read: Result<Rendezvous, _>| read.map(|at| (at.card, at.address)).unwrap();
        assert_eq!(found(changed("SPO_PORT", "7000")), (1, "node0:7000".into()));
        assert_eq!(found(changed("NCCL_COMM_ID", "10.0.0.1:7")), (1, "10.0.0.1:7".into()));
        assert_eq!(found(changed("CUDA_VISIBLE_DEVICES", "3")).0, 0, "it sees one card");
        assert_eq!(found(changed("CUDA_VISIBLE_DEVICES", "2,3")).0, 1);
        for (name, value, said) in [
            ("RANK", "", "RANK is not set"),
            ("RANK", "8", "RANK = 8, but WORLD_SIZE = 8"),
            ("WORLD_SIZE", "many", "WORLD_SIZE = \"many\" is no number"),
            ("MASTER_ADDR", "", "MASTER_ADDR is not set"),
        ] {
            assert!(changed(name, value).unwrap_err().to_string().contains(said), "{name} = {value}");
        }
    }
}
