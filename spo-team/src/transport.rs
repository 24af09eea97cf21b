//! What moves bytes between ranks.

use crate::TeamError;
use std::time::Duration;

/// Who hears what a process must say while it waits for others, which is no time for events.
#[derive(Debug, Clone, Copy)]
pub struct Voice {
    /// Others have not answered for a while, in words.
    pub waits: fn(&str),
    /// What ends all processes from here, before it does; nothing can be said afterwards.
    pub ends: fn(&TeamError),
}

/// The exit code of processes that a silent one has ended, `EX_TEMPFAIL`: they can go on later.
#[cfg(any(feature = "mpi", feature = "nccl"))]
pub(crate) const GAVE_UP: i32 = 75;
/// Longest wait for a word before it is said who has not spoken; a quarter of the time that is waited in all, where that is
/// less.
#[cfg(any(feature = "mpi", feature = "nccl"))]
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for the first exchange, and for others where no limit is set.
#[cfg(any(feature = "mpi", feature = "nccl"))]
pub(crate) const LIMIT: Duration = Duration::from_secs(600);
/// Bytes a second of a slow network.
#[cfg(any(feature = "mpi", feature = "nccl"))]
const SLOW: f64 = 1e6;

/// Longest wait for bytes whose word has come: as long as for a word, and what they take on a slow network.
#[cfg(any(feature = "mpi", feature = "nccl"))]
pub(crate) fn limit_of(bytes: usize, of_words: Option<Duration>) -> Duration {
    of_words.unwrap_or(LIMIT).saturating_add(Duration::from_secs_f64(bytes as f64 / SLOW))
}

/// Lets another process have the core; a long wait takes none of it.
#[cfg(any(feature = "mpi", feature = "nccl"))]
pub(crate) fn pause(since: std::time::Instant) {
    match since.elapsed() < Duration::from_millis(2) {
        true => std::thread::yield_now(),
        false => std::thread::sleep(Duration::from_micros(200)),
    }
}

/// Numbers of a word.
pub(crate) const WORD: usize = 6;
/// What a rank says before an exchange.
pub(crate) type Word = [u64; WORD];

/// Moves bytes between ranks. Every rank makes the same calls in the same order.
pub(crate) trait Transport {
    fn rank(&self) -> usize;
    fn size(&self) -> usize;

    /// The word of each rank, which is waited for this long; `at` names the exchange where one is silent.
    fn words(&self, own: Word, limit: Option<Duration>, at: &dyn Fn() -> String) -> Result<Vec<Word>, TeamError>;

    /// What each rank brings, all of the same length, one behind the other.
    fn gather(&self, own: &[u8], all: &mut [u8]) -> Result<(), TeamError>;

    /// Part `k` of what each rank brings, one behind the other, for rank `k`. All parts have the same length.
    fn exchange(&self, own: &[u8], parts: &mut [u8]) -> Result<(), TeamError>;

    /// What rank 0 brings, to all; buffers have the same length.
    fn broadcast(&self, bytes: &mut [u8]) -> Result<(), TeamError>;

    /// Ends all processes of the team.
    fn abort(&self, code: i32) -> !;
}
