//! What every part of a run shares: the clock, the sinks, the stop flag, the run directory.

use crate::TrainError;
use crate::checkpoint::{Checkpoints, Saved};
use crate::config::spec::Best;
use crate::durable::Mark;
use crate::event::{Event, Sink};
use crate::phase::PhaseState;
use crate::sink::EventFile;
use crate::watchdog::Watchdogs;
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The surroundings of a run.
pub struct Session<'a> {
    /// The run directory.
    pub out: PathBuf,
    sink: &'a mut dyn Sink,
    stop: &'a AtomicBool,
    started: Instant,
    watchdogs: Option<Watchdogs>,
    /// Time that earlier processes of the run took.
    before: Duration,
    file: Option<EventFile>,
    checkpoints: Option<Checkpoints>,
}

impl<'a> Session<'a> {
    /// A session that starts now.
    pub fn new(out: PathBuf, sink: &'a mut dyn Sink, stop: &'a AtomicBool) -> Self {
        let before = Duration::ZERO;
        let (file, checkpoints, watchdogs) = (None, None, None);
        Self { out, sink, stop, started: Instant::now(), watchdogs, before, file, checkpoints }
    }

    /// Watches the events, and warns.
    #[must_use]
    pub fn with_watchdogs(self, watchdogs: Watchdogs) -> Self {
        Self { watchdogs: Some(watchdogs), ..self }
    }

    /// Also keeps events in a file, before the sink has them. `before` is the time that earlier
    /// processes of the run took.
    #[must_use]
    pub fn with_events(self, file: EventFile, before: Duration) -> Self {
        Self { file: Some(file), before, ..self }
    }

    /// Also writes checkpoints.
    #[must_use]
    pub fn with_checkpoints(self, checkpoints: Checkpoints) -> Self {
        Self { checkpoints: Some(checkpoints), ..self }
    }

    /// How far the event file is, for a checkpoint; `None` without one.
    ///
    /// # Errors
    /// It cannot be synced.
    pub fn mark(&self) -> Result<Option<Mark>, TrainError> {
        self.file.as_ref().map(EventFile::mark).transpose()
    }

    /// Says that a stage of the run is finished, at this place of the event file.
    pub fn stage_finished(&mut self, events: &Mark) {
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.stage_finished(events.bytes);
        }
    }

    /// What an interrupted phase goes on from, once.
    pub fn take_saved(&mut self, phase: &str) -> Option<Saved> {
        self.checkpoints.as_mut()?.take(phase)
    }

    /// Writes a checkpoint if one is due; whether it was.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn checkpoint(&mut self, phase: &str, state: &PhaseState) -> Result<bool, TrainError> {
        let file = self.file.as_ref();
        let due = self.checkpoints.as_mut().filter(|checkpoints| checkpoints.due(phase, state.step));
        let Some(checkpoints) = due else { return Ok(false) };
        checkpoints.save(phase, state, file.map(EventFile::mark).transpose()?)?;
        Ok(true)
    }

    /// The error that ends an interrupted run, after a checkpoint of the phase. `events` is how far
    /// the event file counts.
    pub fn interrupt(&mut self, phase: &str, state: &PhaseState, events: Option<Mark>) -> TrainError {
        let missing = self.checkpoints.as_mut().filter(|checkpoints| !checkpoints.is_at(phase, state.step));
        let saved = missing.map_or(Ok(()), |checkpoints| checkpoints.save(phase, state, events));
        saved.err().unwrap_or_else(|| TrainError::Interrupted { out: self.out.clone() })
    }

    /// By what the best policy of a phase is kept.
    pub fn best_by(&self) -> Best {
        self.checkpoints.as_ref().map_or(Best::None, Checkpoints::best_by)
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        (self.before + self.started.elapsed()).as_secs_f64()
    }

    /// Hands an event to the sinks.
    ///
    /// # Errors
    /// A sink could not keep it.
    pub fn emit(&mut self, event: Event) -> Result<(), TrainError> {
        let seconds = self.seconds();
        self.tell(seconds, &event)?;
        let warnings = self.watchdogs.as_mut().map(|watchdogs| watchdogs.look(&event)).unwrap_or_default();
        warnings.into_iter().try_for_each(|text| self.tell(seconds, &Event::Warning { text }))
    }

    fn tell(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        if let Some(file) = &mut self.file {
            file.event(seconds, event)?;
        }
        self.sink.event(seconds, event)
    }

    /// Whether the user asked to stop.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Ends the run if the user asked for it.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`]
    pub fn check_stop(&self) -> Result<(), TrainError> {
        match self.stopping() {
            true => Err(TrainError::Interrupted { out: self.out.clone() }),
            false => Ok(()),
        }
    }

    /// Stops the run at the first value that is not finite, with the rows at hand saved in
    /// `not-finite.json`.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`], or the file could not be written.
    pub fn check_finite(
        &self,
        phase: &str,
        step: u64,
        values: &[(&'static str, f64)],
        ids: impl Fn() -> Vec<String>,
    ) -> Result<(), TrainError> {
        let Some(&(quantity, found)) = values.iter().find(|(_, value)| !value.is_finite()) else { return Ok(()) };
        let saved = self.out.join("not-finite.json");
        let text = json!({ "phase": phase, "step": step, "quantity": quantity, "ids": ids() });
        std::fs::write(&saved, format!("{text:#}\n")).map_err(|e| TrainError::io(&saved, e))?;
        Err(TrainError::NotFinite { phase: phase.into(), step, quantity, found, saved })
    }
}
