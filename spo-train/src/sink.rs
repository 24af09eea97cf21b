//! Where events go: files, and several places at once.

pub mod csv;
pub mod follow;
pub mod tensorboard;

use crate::TrainError;
use crate::event::{Event, Sink};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, LineWriter, Write};
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
    file: LineWriter<File>,
}

impl EventFile {
    /// A new file.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(path: &Path) -> Result<Self, TrainError> {
        let file = File::create(path).map_err(|e| TrainError::io(path, e))?;
        Ok(Self { path: path.into(), file: LineWriter::new(file) })
    }
}

impl Sink for EventFile {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        // Scoring progress is for the eye; the file keeps what was scored.
        if matches!(event, Event::Scoring { .. }) {
            return Ok(());
        }
        let record = Record { at: seconds, event: event.clone() };
        let line = serde_json::to_string(&record).expect("events hold only strings and numbers");
        writeln!(self.file, "{line}").map_err(|e| TrainError::io(&self.path, e))
    }
}

/// Reads an event file.
///
/// # Errors
/// It cannot be read, or a line is not an event.
pub fn read_events(path: &Path) -> Result<Vec<Record>, TrainError> {
    let file = File::open(path).map_err(|e| TrainError::io(path, e))?;
    let lines = BufReader::new(file).lines().enumerate();
    let parse = |(index, line): (usize, std::io::Result<String>)| {
        let line = line.map_err(|e| TrainError::io(path, e))?;
        serde_json::from_str(&line)
            .map_err(|e| TrainError::Damaged { path: path.into(), reason: format!("line {}: {e}", index + 1) })
    };
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

/// Hands events to several sinks, in their order.
pub struct All<'a>(pub Vec<&'a mut dyn Sink>);

impl Sink for All<'_> {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        self.0.iter_mut().try_for_each(|sink| sink.event(seconds, event))
    }
}
