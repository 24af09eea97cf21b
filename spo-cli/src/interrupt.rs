//! Ctrl-C, termination signals and, for launchers that leave no time after those, SIGUSR1.

use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::allocator;
use spo_train::{Event, Sink, TrainError};

use crate::error::CliError;
use crate::output::note;

/// How far the user's wish to stop has come. The first one lets a run that works finish its step; the second one ends the
/// process, and so does the first one while data and model are read, when there is nothing to finish.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    /// What a run looks at.
    pub stop: AtomicBool,
    working: AtomicBool,
    at_once: AtomicBool,
}

impl Interrupt {
    /// Listens to signals. With `screen` the process is ended by whoever has taken the terminal over; without `says` it
    /// leaves it to another process to tell what happens.
    pub fn listen(screen: bool, says: bool) -> Result<Arc<Self>, CliError> {
        let interrupt = Arc::new(Self::default());
        let own = interrupt.clone();
        let say = move |text: &str| {
            if says {
                note(text)
            }
        };
        let handler = move || {
            own.ask();
            match own.at_once() {
                true if screen => {}
                true => {
                    if !own.is_working() {
                        say(NOTHING_TO_FINISH);
                    }
                    exit(130)
                }
                false => say("stopping after this step, with a checkpoint; once more stops at once"),
            }
        };
        on_user_signal(handler.clone()).map_err(|error| CliError::Signal { reason: error.to_string() })?;
        ctrlc::set_handler(handler).map_err(|error| CliError::Signal { reason: error.to_string() })?;
        Ok(interrupt)
    }

    /// Says that a run begins to work of which no event is heard here.
    pub fn works(&self) {
        self.working.store(true, Ordering::Relaxed);
    }

    /// The user wants to stop.
    pub fn ask(&self) {
        if self.stop.swap(true, Ordering::Relaxed) || !self.is_working() {
            self.at_once.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the process is to end at once.
    pub fn at_once(&self) -> bool {
        self.at_once.load(Ordering::Relaxed)
    }

    fn is_working(&self) -> bool {
        self.working.load(Ordering::Relaxed)
    }

    /// Says that data and model of a run are read next.
    pub fn reading(&self) {
        self.working.store(false, Ordering::Relaxed);
    }

    /// A listener that also hears from when on the run works.
    pub fn hearing(self: &Arc<Self>, sink: Box<dyn Sink>) -> Box<dyn Sink> {
        Box::new(Hearing { interrupt: self.clone(), sink })
    }
}

#[cfg(unix)]
fn on_user_signal(handler: impl Fn() + Send + 'static) -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGUSR1])?;
    std::thread::spawn(move || signals.forever().for_each(|_| handler()));
    Ok(())
}

#[cfg(not(unix))]
fn on_user_signal(_: impl Fn() + Send + 'static) -> std::io::Result<()> {
    Ok(())
}

const NOTHING_TO_FINISH: &str =
    "interrupted while data and model were read; `spo train --resume` goes on with a run that has begun";

/// Hands events on, notes when a run begins to work, and lets the allocator know of steps.
struct Hearing {
    interrupt: Arc<Interrupt>,
    sink: Box<dyn Sink>,
}

impl Sink for Hearing {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        let before = matches!(
            event,
            Event::Reading { .. }
                | Event::DataLoaded { .. }
                | Event::RunStarted { .. }
                | Event::Lineage { .. }
                | Event::Resumed { .. }
                | Event::Warning { .. }
        );
        if !before {
            self.interrupt.working.store(true, Ordering::Relaxed);
        }
        allocator::hear(event);
        self.sink.event(seconds, event)
    }

    fn earlier(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        self.sink.earlier(seconds, event)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use spo_train::events::sink::Memory;

    #[test]
    fn the_first_wish_ends_what_only_reads_and_waits_for_what_works() {
        let hears = |event: Event| {
            let interrupt = Arc::new(Interrupt::default());
            interrupt.hearing(Box::new(Memory::default())).event(0.0, &event).unwrap();
            interrupt.ask();
            interrupt
        };
        let reading = hears(Event::Reading { split: "train".into(), rows: 1024 });
        assert!(reading.at_once());
        let working = hears(Event::Scoring { policy: "start".into(), done: 0, total: 9 });
        assert!(working.stop.load(Ordering::Relaxed) && !working.at_once());
        working.ask();
        assert!(working.at_once());
    }
}
