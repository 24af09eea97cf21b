//! What looks wrong in a run, in plain words.
//!
//! Every watchdog is a function of the events alone, so a run that goes on after a stop has the same warnings as one
//! that was never stopped. [`Silence`] is the exception: it looks at the clock, from outside of the run.

mod held_out;
mod length;
mod saturation;
mod silence;
mod steps;

pub use silence::Silence;

use crate::config::WatchdogPlan;
use crate::events::Event;

/// Something that looks at events and says what is wrong.
trait Watchdog {
    /// Takes the next event; a warning if it is one too many.
    fn look(&mut self, event: &Event, limits: &WatchdogPlan) -> Option<String>;
}

/// All watchdogs of a run.
pub struct Watchdogs {
    limits: WatchdogPlan,
    all: Vec<Box<dyn Watchdog>>,
}

impl Watchdogs {
    /// Watchdogs with these limits, 0 = off.
    pub fn new(limits: WatchdogPlan) -> Self {
        let all: Vec<Box<dyn Watchdog>> = vec![
            Box::<steps::GradientNorm>::default(),
            Box::<steps::ChosenCollapse>::default(),
            Box::<steps::SlowStep>::default(),
            Box::<steps::LossNoise>::default(),
            Box::new(saturation::Saturation),
            Box::<length::LengthDrift>::default(),
            Box::<held_out::Overfitting>::default(),
        ];
        Self { limits, all }
    }

    /// What there is to say after an event.
    pub fn look(&mut self, event: &Event) -> Vec<String> {
        let limits = &self.limits;
        self.all.iter_mut().filter_map(|watchdog| watchdog.look(event, limits)).collect()
    }
}

/// Whether a limit is set and exceeded.
fn exceeds(value: f64, limit: f64) -> bool {
    limit > 0.0 && value > limit
}
