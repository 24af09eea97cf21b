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
