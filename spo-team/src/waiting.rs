//! How long the other processes are waited for, and how.

use std::time::{Duration, Instant};

/// The exit code of processes that a silent one has ended, `EX_TEMPFAIL`: they can go on later.
pub(crate) const GAVE_UP: i32 = 75;
/// Longest wait for a word before it is said who has not spoken; a quarter of the time that is waited in all, where that is
/// less.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for the first exchange, and for others where no limit is set.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);
/// How long a launcher gets to pass on what a process said last: of a job that ends it drops what it has not read.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(200);
/// Bytes a second of a slow network.
const SLOW: f64 = 1e6;

/// Longest wait for bytes whose word has come: as long as for a word, and what they take on a slow network.
pub(crate) fn limit_of(bytes: usize, of_words: Option<Duration>) -> Duration {
    of_words.unwrap_or(LIMIT).saturating_add(Duration::from_secs_f64(bytes as f64 / SLOW))
}

/// Lets another process have the core; a long wait takes none of it.
pub(crate) fn pause(since: Instant) {
    match since.elapsed() < Duration::from_millis(2) {
        true => std::thread::yield_now(),
        false => std::thread::sleep(Duration::from_micros(200)),
    }
}
