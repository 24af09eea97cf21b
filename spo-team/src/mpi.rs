//! A team of MPI processes. Nothing else names MPI.
//!
//! Calls do not block: they are asked again and again whether they are done, so that a rank that does not answer ends the
//! job and not the user's patience. MPI is used from the thread that started it alone.

use crate::TeamError;
use crate::transport::{Transport, Voice, WORD, Word};
use crate::waiting::{GAVE_UP, LAST_WORDS, PATIENCE, limit_of, pause};
use ferrompi::{Communicator, Mpi, Request, ThreadLevel, scope};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// What words are sent as.
const TAG: i32 = 1;
/// This process among those of the job.
pub(crate) struct Process {
    world: Communicator,
    /// Number among the processes of this machine, and how many these are.
    local: (usize, usize),
    voice: Voice,
    /// How long the last words were waited for.
    limit: Cell<Option<Duration>>,
    // Last: MPI ends when it is dropped.
    _mpi: Mpi,
}

fn library(call: &'static str) -> impl Fn(ferrompi::Error) -> TeamError {
    move |error| TeamError::Library { call, text: error.to_string() }
}

impl Process {
    /// Connects with the other processes of the job.
    pub fn start(voice: Voice) -> Result<Self, TeamError> {
        let mpi = Mpi::init_thread(ThreadLevel::Funneled).map_err(library("MPI_Init_thread"))?;
        let world = mpi.world();
        let here = world.split_shared().map_err(library("MPI_Comm_split_type"))?;
        let local = (here.rank() as usize, here.size() as usize);
        Ok(Self { world, local, voice, limit: Cell::default(), _mpi: mpi })
    }

    pub fn local(&self) -> (usize, usize) {
        self.local
    }

    /// Waits for a request of all ranks that moves so many bytes. Of two ranks the silent one is the other.
    fn wait(&self, mut request: Request, bytes: usize, at: &'static str) -> Result<(), ferrompi::Error> {
        let (begun, limit) = (Instant::now(), limit_of(bytes, self.limit.get()));
        while request.test()?.is_none() {
            if begun.elapsed() > limit {
                let silent = if self.size() == 2 { vec![1 - self.rank()] } else { vec![] };
                self.give_up(silent, limit, at.into());
            }
            pause(begun);
        }
        Ok(())
    }

    fn give_up(&self, ranks: Vec<usize>, limit: Duration, at: String) -> ! {
        (self.voice.ends)(&TeamError::Silent { ranks, seconds: limit.as_secs(), at });
        std::thread::sleep(LAST_WORDS);
        self.world.abort(GAVE_UP)
    }

    /// Says who is waited for: one of those that wait does.
    fn say_waiting(&self, ranks: &[usize], waited: Duration, limit: Duration, at: String) {
        let speaker = (0..self.size()).find(|rank| !ranks.contains(rank));
        if speaker == Some(self.rank()) {
            let error = TeamError::Silent { ranks: ranks.to_vec(), seconds: waited.as_secs(), at };
            (self.voice.waits)(&format!("{error}; all end after {} seconds", limit.as_secs()));
        }
    }
}

impl Transport for Process {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn words(&self, own: Word, limit: Option<Duration>, at: &dyn Fn() -> String) -> Result<Vec<Word>, TeamError> {
        let mut all = vec![[0; WORD]; self.size()];
        self.limit.set(limit);
        let begun = Instant::now();
        let mut patience = limit.map(|limit| PATIENCE.min(limit / 4));
        scope(|scope| {
            let mut awaited = vec![];
            for (rank, word) in all.iter_mut().enumerate() {
                awaited.push((rank, self.world.irecv(scope, word.as_mut_slice(), rank as i32, TAG)?));
            }
            let mut sent = vec![];
            for rank in 0..self.size() {
                sent.push(self.world.isend(scope, own.as_slice(), rank as i32, TAG)?);
            }
            while !awaited.is_empty() {
                let mut missing = vec![];
                for (rank, mut request) in awaited {
                    if request.test()?.is_none() {
                        missing.push((rank, request));
                    }
                }
                awaited = missing;
                let silent = || awaited.iter().map(|(rank, _)| *rank).collect::<Vec<_>>();
                if let Some(limit) = limit.filter(|limit| !awaited.is_empty() && begun.elapsed() > *limit) {
                    self.give_up(silent(), limit, at());
                }
                if let Some((limit, waited)) = limit.zip(patience).filter(|(_, waited)| begun.elapsed() > *waited)
                    && !awaited.is_empty()
                {
                    self.say_waiting(&silent(), waited, limit, at());
                    patience = None;
                }
                pause(begun);
            }
            sent.into_iter().try_for_each(|request| request.wait().map(|_| ()))
        })
        .map_err(library("MPI_Irecv"))?;
        Ok(all)
    }

    fn gather(&self, own: &[u8], all: &mut [u8]) -> Result<(), TeamError> {
        let bytes = all.len();
        scope(|scope| self.wait(self.world.iallgather(scope, own, all)?, bytes, "MPI_Iallgather"))
            .map_err(library("MPI_Iallgather"))
    }

    fn exchange(&self, own: &[u8], parts: &mut [u8]) -> Result<(), TeamError> {
        let bytes = parts.len();
        scope(|scope| self.wait(self.world.ialltoall(scope, own, parts)?, bytes, "MPI_Ialltoall"))
            .map_err(library("MPI_Ialltoall"))
    }

    fn broadcast(&self, bytes: &mut [u8]) -> Result<(), TeamError> {
        let count = bytes.len();
        scope(|scope| self.wait(self.world.ibroadcast(scope, bytes, 0)?, count, "MPI_Ibcast"))
            .map_err(library("MPI_Ibcast"))
    }

    fn abort(&self, code: i32) -> ! {
        self.world.abort(code)
    }
}

impl Drop for Process {
    /// A panic that nobody has caught ends the job: the others would wait for ever.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.world.abort(GAVE_UP);
        }
    }
}
