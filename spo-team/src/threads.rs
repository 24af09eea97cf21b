//! A team of threads, for tests.

use crate::TeamError;
use crate::transport::{Transport, WORD, Word};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Longest wait for bytes whose word has come.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Thread {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Receiver<Vec<u8>>>,
}

impl Thread {
    /// So many ranks, each to be given to a thread.
    pub fn all(size: usize) -> Vec<Self> {
        let mut ranks: Vec<Self> = (0..size).map(|rank| Self { rank, to: vec![], from: vec![] }).collect();
        for source in 0..size {
            for target in 0..size {
                let (to, from) = channel();
                ranks[source].to.push(to);
                ranks[target].from.push(from);
            }
        }
        ranks
    }

    /// Gives each rank a part and takes one of each.
    fn swap<'p>(
        &self,
        part: impl Fn(usize) -> &'p [u8],
        limit: Duration,
        at: &dyn Fn() -> String,
    ) -> Result<Vec<Vec<u8>>, TeamError> {
        for (rank, to) in self.to.iter().enumerate() {
            // A rank that is gone is missed below.
            let _ = to.send(part(rank).to_vec());
        }
        let taken = self.from.iter().enumerate().map(|(rank, from)| {
            from.recv_timeout(limit).map_err(|error| {
                let seconds = if error == RecvTimeoutError::Timeout { limit.as_secs() } else { 0 };
                TeamError::Silent { ranks: vec![rank], seconds, at: at() }
            })
        });
        taken.collect()
    }
}

impl Transport for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn words(&self, own: Word, limit: Option<Duration>, at: &dyn Fn() -> String) -> Result<Vec<Word>, TeamError> {
        let bytes: &[u8] = bytemuck::cast_slice(&own);
        let all = self.swap(|_| bytes, limit.unwrap_or(Duration::MAX), at)?;
        Ok(all.iter().map(|bytes| bytemuck::pod_read_unaligned(&bytes[..8 * WORD])).collect())
    }

    fn gather(&self, own: &[u8], all: &mut [u8]) -> Result<(), TeamError> {
        let bytes = self.swap(|_| own, LIMIT, &|| "gather".into())?.concat();
        all.copy_from_slice(&bytes);
        Ok(())
    }

    fn exchange(&self, own: &[u8], parts: &mut [u8]) -> Result<(), TeamError> {
        let each = own.len() / self.size();
        let bytes = self.swap(|rank| &own[rank * each..(rank + 1) * each], LIMIT, &|| "exchange".into())?.concat();
        parts.copy_from_slice(&bytes);
        Ok(())
    }

    fn broadcast(&self, bytes: &mut [u8]) -> Result<(), TeamError> {
        let own = bytes.to_vec();
        let all = self.swap(|_| &own, LIMIT, &|| "broadcast".into())?;
        bytes.copy_from_slice(&all[0]);
        Ok(())
    }

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}
