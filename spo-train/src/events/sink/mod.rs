//! Where events go: files, and several places at once.

pub mod csv;
pub mod follow;
pub mod mlflow;
pub mod tensorboard;

use crate::TrainError;
use crate::events::{Event, Sink};
use crate::persist::durable::{Mark, hash_start};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Seconds since the start of the run.
    pub at: f64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Appends events to a file, one JSON object a line, each written out at once.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl EventFile {
    /// A new file.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(path: &Path) -> Result<Self, TrainError> {
        Self::reopen(path, 0)
    }

    /// A file that is cut to its first `bytes` and goes on there.
    ///
    /// # Errors
    /// It cannot be opened or cut.
    pub fn reopen(path: &Path, bytes: u64) -> Result<Self, TrainError> {
        let open = || {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            file.set_len(bytes)?;
            let (_, hasher) = hash_start(path, bytes)?;
            Ok(Self { path: path.into(), file, bytes, hasher })
        };
        open().map_err(|e| TrainError::io(path, e))
    }

    /// Makes what was written last, and says what it is.
    ///
    /// # Errors
    /// It cannot be synced.
    pub fn mark(&self) -> Result<Mark, TrainError> {
        self.file.sync_data().map_err(|e| TrainError::io(&self.path, e))?;
        let name = self.path.file_name().unwrap_or_default();
        Ok(Mark { path: name.into(), bytes: self.bytes, blake3: self.hasher.finalize().to_hex().to_string() })
    }
}

impl Sink for EventFile {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        // These are for the eye: the file says what was scored, and does not tell how often a run was interrupted.
        let passing = matches!(
            event,
            Event::Scoring { .. }
                | Event::Resumed { .. }
                | Event::Reading { .. }
                | Event::Downloading { .. }
                | Event::Answering { .. }
                | Event::Judging { .. }
                | Event::SlowProcess { .. }
        );
        if passing {
            return Ok(());
        }
        let record = Record { at: seconds, event: event.clone() };
        let line = serde_json::to_string(&record).expect("events hold only strings and numbers") + "\n";
        self.file.write_all(line.as_bytes()).map_err(|e| {
            // Not half a line, as of a full disk.
            let _ = self.file.set_len(self.bytes);
            TrainError::io(&self.path, e)
        })?;
        self.hasher.update(line.as_bytes());
        self.bytes += line.len() as u64;
        Ok(())
    }
}

/// Reads an event file. A last line without its end is one that was being written when a process was killed: it does
/// not count.
///
/// # Errors
/// It cannot be read, or a line is not an event.
pub fn read_events(path: &Path) -> Result<Vec<Record>, TrainError> {
    let damaged = |reason: String| TrainError::Damaged { path: path.into(), reason };
    let bytes = std::fs::read(path).map_err(|e| TrainError::io(path, e))?;
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")).enumerate();
    let parse = |(index, line)| serde_json::from_slice(line).map_err(|e| damaged(format!("line {}: {e}", index + 1)));
    lines.map(parse).collect()
}

/// Keeps all events in memory.
#[derive(Debug, Default)]
pub struct Memory(pub Vec<Record>);

impl Sink for Memory {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        self.0.push(Record { at: seconds, event: event.clone() });
        Ok(())
    }
}

/// Keeps no event: of a process that is not the one that tells.
#[derive(Debug)]
pub struct Nowhere;

impl Sink for Nowhere {
    fn event(&mut self, _: f64, _: &Event) -> Result<(), TrainError> {
        Ok(())
    }
}

/// Hands events to several sinks, in their order.
pub struct All<'a>(pub Vec<&'a mut dyn Sink>);

impl Sink for All<'_> {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        self.0.iter_mut().try_for_each(|sink| sink.event(seconds, event))
    }

    fn earlier(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        self.0.iter_mut().try_for_each(|sink| sink.earlier(seconds, event))
    }

    fn warnings(&mut self) -> Vec<String> {
        self.0.iter_mut().flat_map(|sink| sink.warnings()).collect()
    }
}
