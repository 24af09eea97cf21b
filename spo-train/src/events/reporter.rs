//! What every part of a run tells: the clock, the sinks, the watchdogs; and what may end it: the stop flag, a value that
//! is not finite.

use crate::TrainError;
use crate::events::sink::EventFile;
use crate::events::watchdog::Watchdogs;
use crate::events::{Event, Sink};
use crate::persist::durable::Mark;
use serde_json::json;
use spo_team::Team;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Reports what happens in a run, and ends it where that must be.
pub struct Reporter<'a> {
    /// The run directory.
    pub out: PathBuf,
    /// The processes that share the run; rank 0 is the one that tells.
    pub team: Rc<Team>,
    sink: &'a mut dyn Sink,
    stop: &'a AtomicBool,
    started: Instant,
    watchdogs: Option<Watchdogs>,
    /// Time that earlier processes of the run took.
    before: Duration,
    file: Option<EventFile>,
}

impl<'a> Reporter<'a> {
    /// One whose clock starts now.
    pub fn new(out: PathBuf, sink: &'a mut dyn Sink, stop: &'a AtomicBool) -> Self {
        let before = Duration::ZERO;
        let (file, watchdogs, team) = (None, None, Rc::default());
        Self { out, team, sink, stop, started: Instant::now(), watchdogs, before, file }
    }

    /// Of a run that several processes share.
    #[must_use]
    pub fn with_team(self, team: Rc<Team>) -> Self {
        Self { team, ..self }
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

    /// How far the event file is, for a checkpoint; `None` without one.
    ///
    /// # Errors
    /// It cannot be synced.
    pub fn mark(&self) -> Result<Option<Mark>, TrainError> {
        self.file.as_ref().map(EventFile::mark).transpose()
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
        let of_sinks = self.sink.warnings();
        warnings.into_iter().chain(of_sinks).try_for_each(|text| self.tell(seconds, &Event::Warning { text }))
    }

    fn tell(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        if let Some(file) = &mut self.file {
            file.event(seconds, event)?;
        }
        self.sink.event(seconds, event)
    }

    fn asked(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn ended(&self, stop: bool) -> Result<(), TrainError> {
        if stop { Err(TrainError::Interrupted { out: self.out.clone() }) } else { Ok(()) }
    }

    /// Whether a checkpoint is due, which rank 0 says, and whether the user asked any rank to stop. All ranks meet here.
    ///
    /// # Errors
    /// Another rank has failed.
    pub fn due_or_stopping(&self, due: bool) -> Result<(bool, bool), TrainError> {
        let all = self.team.agree(u64::from(due) | u64::from(self.asked()) << 1)?;
        Ok((all[0] & 1 == 1, all.iter().any(|flags| flags & 2 == 2)))
    }

    /// Ends the run if the user asked any rank for it. All ranks meet here.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`], or another rank has failed.
    pub fn check_stop(&self) -> Result<(), TrainError> {
        self.ended(self.due_or_stopping(false)?.1)
    }

    /// The same in the middle of work that ranks are at different points of: several ranks stop where they meet next.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`]
    pub fn check_stop_within(&self) -> Result<(), TrainError> {
        self.ended(self.team.is_solo() && self.asked())
    }

    /// The same in work of rank 0 alone, which the others wait for.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`]
    pub fn check_own_stop(&self) -> Result<(), TrainError> {
        self.ended(self.asked())
    }

    /// Stops the run at the first value that is not finite.
    ///
    /// # Errors
    /// [`not_finite`](Self::not_finite)
    pub fn check_finite(
        &self,
        phase: &str,
        step: u64,
        values: &[(&'static str, f64)],
        ids: impl Fn() -> Vec<String>,
    ) -> Result<(), TrainError> {
        match values.iter().find(|(_, value)| !value.is_finite()) {
            Some((quantity, found)) => Err(self.not_finite(phase, step, quantity, *found, &ids())),
            None => Ok(()),
        }
    }

    /// What ends the run at a value that is not finite, with the ids of the rows at hand saved in `not-finite.json`:
    /// [`TrainError::NotFinite`], or that the file could not be written.
    pub fn not_finite(&self, phase: &str, step: u64, quantity: &'static str, found: f64, ids: &[String]) -> TrainError {
        let saved = self.out.join("not-finite.json");
        let text = json!({ "phase": phase, "step": step, "quantity": quantity, "ids": ids });
        match std::fs::write(&saved, format!("{text:#}\n")) {
            Ok(()) => TrainError::NotFinite { phase: phase.into(), step, quantity, found, saved },
            Err(error) => TrainError::io(&saved, error),
        }
    }
}
