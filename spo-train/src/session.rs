//! What every part of a run shares: the clock, the sinks, the stop flag, the run directory.

use crate::TrainError;
use crate::event::{Event, Sink};
use crate::watchdog::Watchdogs;
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The surroundings of a run.
pub struct Session<'a> {
    /// The run directory.
    pub out: PathBuf,
    sink: &'a mut dyn Sink,
    stop: &'a AtomicBool,
    started: Instant,
    watchdogs: Option<Watchdogs>,
}

impl<'a> Session<'a> {
    /// A session that starts now.
    pub fn new(out: PathBuf, sink: &'a mut dyn Sink, stop: &'a AtomicBool) -> Self {
        Self { out, sink, stop, started: Instant::now(), watchdogs: None }
    }

    /// Watches the events, and warns.
    #[must_use]
    pub fn with_watchdogs(self, watchdogs: Watchdogs) -> Self {
        Self { watchdogs: Some(watchdogs), ..self }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Hands an event to the sinks.
    ///
    /// # Errors
    /// A sink could not keep it.
    pub fn emit(&mut self, event: Event) -> Result<(), TrainError> {
        let seconds = self.seconds();
        self.sink.event(seconds, &event)?;
        let warnings = self.watchdogs.as_mut().map(|watchdogs| watchdogs.look(&event)).unwrap_or_default();
        warnings.into_iter().try_for_each(|text| self.sink.event(seconds, &Event::Warning { text }))
    }

    /// Ends the run if the user asked for it.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`]
    pub fn check_stop(&self) -> Result<(), TrainError> {
        match self.stop.load(Ordering::Relaxed) {
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
