//! A run seen from another process: its event file and nothing else.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use spo_train::TrainError;
use spo_train::events::sink::follow::Follower;
use spo_train::events::watchdog::Silence;

use super::board::Board;
use super::words;

/// What the event file of a run tells.
pub(crate) struct Attached {
    path: PathBuf,
    follower: Follower,
    silence: Silence,
    pub board: Board,
}

impl Attached {
    pub fn new(events: &Path) -> Self {
        let follower = Follower::new(events);
        Self { path: events.into(), follower, silence: Silence::default(), board: Board::default() }
    }

    /// Reads what was added.
    pub fn update(&mut self) -> Result<(), TrainError> {
        let (records, restarted) = self.follower.poll()?;
        if restarted {
            (self.board, self.silence) = (Board::default(), Silence::default());
        }
        for record in &records {
            self.board.add(record.at, &record.event);
            self.silence.add(&record.event);
        }
        Ok(())
    }

    /// Whether no more events will come.
    pub fn over(&self) -> bool {
        self.board.finished || self.board.stopped.is_some()
    }

    /// What to say if the run has been silent for longer than its steps take.
    pub fn silence(&self) -> Option<String> {
        if self.over() { None } else { self.silence.check(self.quiet()) }
    }

    /// The run's state in words.
    pub fn state(&self) -> String {
        match (&self.board.stopped, self.silence()) {
            _ if self.board.finished => "finished".into(),
            (Some(reason), _) => format!("stopped: {reason}"),
            (None, Some(silence)) => silence,
            (None, None) => format!("last event {} ago", words::duration(self.quiet().as_secs_f64())),
        }
    }

    fn quiet(&self) -> Duration {
        let changed = self.path.metadata().and_then(|metadata| metadata.modified());
        changed.ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default()
    }
}
