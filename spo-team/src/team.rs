//! A rank's place among the others, and what they do together.

use crate::TeamError;
use crate::threads::Thread;
use crate::transport::{Transport, Word};
use crate::tree;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::{Duration, Instant};

/// Most numbers that are added up at once: 64 MB of f32.
const BUCKET: usize = 16 << 20;

/// Where each number of a word stands: the exchange's number, its kind, its layout, its bytes, the rank's state, its flags.
const STEP: usize = 0;
const KIND: usize = 1;
const LAYOUT: usize = 2;
const BYTES: usize = 3;
const STATE: usize = 4;
const FLAGS: usize = 5;

/// The state of a rank that has failed; its exit code is in the flags.
const FAILED: u64 = 1;

/// What an exchange is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Agree,
    RootBegins,
    RootIsDone,
    Gather,
    Sum,
    End,
}

const KINDS: [Kind; 6] = [Kind::Agree, Kind::RootBegins, Kind::RootIsDone, Kind::Gather, Kind::Sum, Kind::End];

impl Kind {
    fn name(code: u64) -> &'static str {
        match KINDS.get(code as usize) {
            Some(Self::Agree) => "an agreement",
            Some(Self::RootBegins) => "the beginning of rank 0's work",
            Some(Self::RootIsDone) => "the result of rank 0's work",
            Some(Self::Gather) => "a gathering",
            Some(Self::Sum) => "a sum",
            Some(Self::End) | None => "its end",
        }
    }
}

fn place(word: &Word) -> String {
    let (step, kind, layout) = (word[STEP], Kind::name(word[KIND]), word[LAYOUT]);
    match layout {
        0 => format!("exchange {step}, {kind}"),
        layout => format!("exchange {step}, {kind} of {} bytes laid out as {layout:016x}", word[BYTES]),
    }
}

/// What a rank has spent on the others so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, serde::Deserialize)]
pub struct Spent {
    /// Seconds that it waited for another one.
    pub waited: f64,
    /// Seconds that bytes took.
    pub moved: f64,
    /// Bytes that it gave to others.
    pub bytes: u64,
}

impl Spent {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { waited: self.waited + other.waited, moved: self.moved + other.moved, bytes: self.bytes + other.bytes }
    }

    /// What was spent after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            waited: self.waited - earlier.waited,
            moved: self.moved - earlier.moved,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

/// The processes that share a run, as one of them sees them. A single process is a team too; it exchanges nothing.
pub struct Team {
    transport: Option<Box<dyn Transport>>,
    step: Cell<u64>,
    over: Cell<bool>,
    limit: Cell<Option<Duration>>,
    spent: Cell<Spent>,
    at: RefCell<String>,
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.size())
    }
}

impl Default for Team {
    fn default() -> Self {
        Self::solo()
    }
}

impl Team {
    /// A process by itself.
    pub fn solo() -> Self {
        Self::of(None)
    }

    /// So many ranks, each for a thread of this process.
    pub fn threads(size: usize) -> Vec<ThreadTeam> {
        Thread::all(size).into_iter().map(ThreadTeam).collect()
    }

    #[cfg(any(feature = "mpi", feature = "nccl"))]
    pub(crate) fn connected(transport: Box<dyn Transport>) -> Self {
        Self::of(Some(transport))
    }

    fn of(transport: Option<Box<dyn Transport>>) -> Self {
        let transport = transport.filter(|transport| transport.size() > 1);
        let (step, over, at) = (Cell::new(0), Cell::new(false), RefCell::default());
        Self { transport, step, over, limit: Cell::default(), spent: Cell::default(), at }
    }

    /// This process's number, from 0.
    pub fn rank(&self) -> usize {
        self.transport.as_ref().map_or(0, |transport| transport.rank())
    }

    /// How many processes there are.
    pub fn size(&self) -> usize {
        self.transport.as_ref().map_or(1, |transport| transport.size())
    }

    /// Whether this is the process that writes.
    pub fn is_root(&self) -> bool {
        self.rank() == 0
    }

    /// Whether it is by itself.
    pub fn is_solo(&self) -> bool {
        self.transport.is_none()
    }

    /// How long a rank is waited for; `None`: for ever.
    pub fn wait_at_most(&self, limit: Option<Duration>) {
        self.limit.set(limit);
    }

    /// Where the run is, for messages.
    pub fn is_at(&self, place: impl FnOnce() -> String) {
        if !self.is_solo() {
            self.at.replace(place());
        }
    }

    /// What was spent on the others so far.
    pub fn spent(&self) -> Spent {
        self.spent.get()
    }

    /// Each rank's flags, in the order of the ranks. Returns when all have come here.
    ///
    /// # Errors
    /// A rank has failed, is out of step or silent.
    pub fn agree(&self, flags: u64) -> Result<Vec<u64>, TeamError> {
        Ok(self.meet(Kind::Agree, 0, 0, flags)?.iter().map(|word| word[FLAGS]).collect())
    }

    /// Rank 0's work, whose result all get. It begins when all ranks have come here, and none goes on before it is done.
    /// Where it fails, rank 0 has the error, and the others hear of it when rank 0 says so by [`fail`](Self::fail).
    ///
    /// # Errors
    /// Those of the work, or as [`agree`](Self::agree).
    pub fn root<T: Serialize + DeserializeOwned, E: From<TeamError>>(
        &self,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(transport) = &self.transport else { return work() };
        self.meet(Kind::RootBegins, 0, 0, 0)?;
        let own = if self.is_root() { Some(work()?) } else { None };
        let mut bytes = own.as_ref().map(encoded).transpose()?.unwrap_or_default();
        let words = self.meet(Kind::RootIsDone, 0, bytes.len(), 0)?;
        bytes.resize(words[0][BYTES] as usize, 0);
        self.timed(bytes.len(), || transport.broadcast(&mut bytes))?;
        Ok(match own {
            Some(own) => own,
            None => decoded(&bytes)?,
        })
    }

    /// The same for work of any length, as of a program of the user's: the others wait however long it takes.
    ///
    /// # Errors
    /// As [`root`](Self::root).
    pub fn root_unhurried<T: Serialize + DeserializeOwned, E: From<TeamError>>(
        &self,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let limit = self.limit.take();
        let done = self.root(work);
        self.limit.set(limit);
        done
    }

    /// What each rank brings, in the order of the ranks; of any length.
    ///
    /// # Errors
    /// As [`agree`](Self::agree).
    pub fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, TeamError> {
        let words = self.meet(Kind::Gather, 0, own.len(), 0)?;
        self.gathered(own, &words)
    }

    /// What each rank has made, in the order of the ranks.
    ///
    /// # Errors
    /// As [`agree`](Self::agree).
    pub fn share<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<Vec<T>, TeamError> {
        if self.is_solo() {
            return Ok(vec![own]);
        }
        self.gather(&encoded(&own)?)?.iter().map(|bytes| decoded(bytes)).collect()
    }

    /// Work that is in so many pieces: each rank does every N-th of them, and all get what became of every piece, in the
    /// order of the pieces. What a piece comes to must not depend on who does it.
    ///
    /// # Errors
    /// Those of the work, or as [`agree`](Self::agree).
    pub fn deal<T: Serialize + DeserializeOwned, E: From<TeamError>>(
        &self,
        pieces: usize,
        work: impl FnMut(usize) -> Result<T, E>,
    ) -> Result<Vec<T>, E> {
        let own = (self.rank()..pieces).step_by(self.size()).map(work).collect::<Result<Vec<T>, E>>()?;
        let mut of_ranks: Vec<_> = self.share(own)?.into_iter().map(Vec::into_iter).collect();
        let ranks = of_ranks.len();
        let missing =
            |piece: usize| TeamError::Library { call: "work that was dealt", text: format!("no piece {piece}") };
        (0..pieces).map(|piece| Ok(of_ranks[piece % ranks].next().ok_or_else(|| missing(piece))?)).collect()
    }

    /// The sum over the ranks in a balanced tree, in the place of each one's own. `layout` says what the numbers are: ranks
    /// with another layout or length are refused before anything is added.
    ///
    /// # Shapes
    /// `values`: `[any]`, the same on every rank
    ///
    /// # Errors
    /// As [`agree`](Self::agree).
    pub fn sum(&self, layout: u64, values: &mut [f32]) -> Result<(), TeamError> {
        let Some(transport) = &self.transport else { return Ok(()) };
        // So that lengths are compared even where a caller has no layout to tell.
        self.meet(Kind::Sum, layout_of([layout, values.len() as u64]), 4 * values.len(), 0)?;
        values.chunks_mut(BUCKET).try_for_each(|bucket| {
            let given = 8 * bucket.len() / self.size() * (self.size() - 1);
            self.timed(given, || sum_bucket(transport.as_ref(), bucket))
        })
    }

    /// Says that this rank has failed, to ranks that are on their way to the next exchange; all of them fail there. `code`
    /// is the exit code of the program.
    pub fn fail(&self, text: &str, code: u8) {
        // The others know, or it was one of them that failed: there is nothing to add.
        if self.over.replace(true) {
            return;
        }
        let Some(transport) = &self.transport else { return };
        let mut own = self.word(Kind::End, 0, text.len(), u64::from(code));
        own[STATE] = FAILED;
        if let Ok(words) = transport.words(own, self.limit.get(), &|| place(&own)) {
            // Whether or not the others could take it in.
            let _ = self.gathered(text.as_bytes(), &words);
        }
    }

    /// Ends all processes at once.
    pub fn abort(&self, code: i32) -> ! {
        match &self.transport {
            Some(transport) => transport.abort(code),
            None => std::process::exit(code),
        }
    }

    fn place(&self, word: &Word) -> String {
        match self.at.borrow().as_str() {
            "" => place(word),
            at => format!("{at}: {}", place(word)),
        }
    }

    fn word(&self, kind: Kind, layout: u64, bytes: usize, flags: u64) -> Word {
        let step = self.step.get() + 1;
        self.step.set(step);
        let mut word = [0; _];
        (word[STEP], word[KIND], word[LAYOUT]) = (step, kind as u64, layout);
        (word[BYTES], word[FLAGS]) = (bytes as u64, flags);
        word
    }

    /// The words of all ranks, which are at the same place.
    fn meet(&self, kind: Kind, layout: u64, bytes: usize, flags: u64) -> Result<Vec<Word>, TeamError> {
        let own = self.word(kind, layout, bytes, flags);
        let Some(transport) = &self.transport else { return Ok(vec![own]) };
        if self.over.get() {
            return Err(TeamError::Over);
        }
        let started = Instant::now();
        let words =
            transport.words(own, self.limit.get(), &|| self.place(&own)).inspect_err(|_| self.over.set(true))?;
        let mut spent = self.spent.get();
        spent.waited += started.elapsed().as_secs_f64();
        self.spent.set(spent);
        if let Some(rank) = words.iter().position(|word| word[STATE] == FAILED) {
            self.over.set(true);
            let text = self.gathered(&[], &words)?.swap_remove(rank);
            let text = String::from_utf8_lossy(&text).into_owned();
            return Err(TeamError::Elsewhere { rank, text, code: words[rank][FLAGS] as u8 });
        }
        match words.iter().position(|word| word[..=LAYOUT] != own[..=LAYOUT]) {
            None => Ok(words),
            Some(rank) => {
                self.over.set(true);
                let (theirs, own) = (place(&words[rank]), place(&own));
                Err(TeamError::OutOfStep { rank, theirs, own_rank: self.rank(), own })
            }
        }
    }

    /// What each rank brings, as long as its word says; of a rank that has not failed, where another one has, nothing.
    fn gathered(&self, own: &[u8], words: &[Word]) -> Result<Vec<Vec<u8>>, TeamError> {
        let Some(transport) = &self.transport else { return Ok(vec![own.to_vec()]) };
        let failed = words.iter().any(|word| word[STATE] == FAILED);
        let length = |word: &Word| if failed && word[STATE] != FAILED { 0 } else { word[BYTES] as usize };
        let longest = words.iter().map(length).max().unwrap_or(0);
        let (mut padded, mut all) = (own.to_vec(), vec![0; longest * words.len()]);
        padded.resize(longest, 0);
        self.timed(longest * (words.len() - 1), || transport.gather(&padded, &mut all))?;
        let of = |(rank, word): (usize, &Word)| all[rank * longest..][..length(word)].to_vec();
        Ok(words.iter().enumerate().map(of).collect())
    }

    fn timed<T>(&self, bytes: usize, work: impl FnOnce() -> Result<T, TeamError>) -> Result<T, TeamError> {
        let started = Instant::now();
        let done = work().inspect_err(|_| self.over.set(true));
        let mut spent = self.spent.get();
        spent.moved += started.elapsed().as_secs_f64();
        spent.bytes += bytes as u64;
        self.spent.set(spent);
        done
    }
}

/// A rank of a team of threads, before it is in its thread.
pub struct ThreadTeam(Thread);

impl ThreadTeam {
    /// The rank, for the thread that it is used in.
    pub fn team(self) -> Team {
        Team::of(Some(Box::new(self.0)))
    }
}

/// Part `k` of the numbers is added up by rank `k`, in a tree over the ranks, and given to all: the traffic of a ring.
fn sum_bucket(transport: &dyn Transport, values: &mut [f32]) -> Result<(), TeamError> {
    let (size, length) = (transport.size(), values.len());
    let chunk = length.div_ceil(size);
    let mut padded = values.to_vec();
    padded.resize(chunk * size, 0.0);
    let mut parts = vec![0f32; chunk * size];
    transport.exchange(bytemuck::cast_slice(&padded), bytemuck::cast_slice_mut(&mut parts))?;
    let add = |a: &mut [f32], b: &[f32]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    let leaves = parts.chunks_exact_mut(chunk.max(1));
    let sum = tree::sum(leaves, |a, b| {
        add(a, b);
        a
    });
    let own = sum.map_or_else(Vec::new, |sum| sum.to_vec());
    transport.gather(bytemuck::cast_slice(&own), bytemuck::cast_slice_mut(&mut padded))?;
    values.copy_from_slice(&padded[..length]);
    Ok(())
}

/// One number for several, to compare them by; never 0.
pub fn layout_of(numbers: impl IntoIterator<Item = u64>) -> u64 {
    let mut hasher = blake3::Hasher::new();
    numbers.into_iter().for_each(|number| {
        hasher.update(&number.to_le_bytes());
    });
    let mut start = [0; 8];
    hasher.finalize_xof().fill(&mut start);
    u64::from_le_bytes(start).max(1)
}

/// As CBOR: JSON knows no infinity.
fn encoded(value: &impl Serialize) -> Result<Vec<u8>, TeamError> {
    let mut bytes = vec![];
    ciborium::into_writer(value, &mut bytes).map_err(|error| unreadable(&error))?;
    Ok(bytes)
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, TeamError> {
    ciborium::from_reader(bytes).map_err(|error| unreadable(&error))
}

fn unreadable(error: &dyn fmt::Display) -> TeamError {
    TeamError::Library { call: "what ranks give each other", text: error.to_string() }
}
