//! What the processes that share a phase spend on each other, and who is waited for.

use crate::TrainError;
use crate::events::Event;
use crate::events::reporter::Reporter;
use crate::phase::PhaseState;
use crate::step::memory;
use spo_eval::{ProcessCost, slow_process};
use spo_team::{Spent, Team, TeamError};
use std::collections::BTreeSet;
use std::time::Duration;

/// Steps between two looks at who waits.
const LOOK_EVERY: u64 = 20;

/// What this process has done in the steps of a phase, since it was started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    /// Tokens of its shards.
    pub tokens: u64,
    /// Time of the steps.
    pub seconds: f64,
    /// What was spent on others in them.
    pub spent: Spent,
}

impl Work {
    /// Adds a step.
    pub(super) fn add(&mut self, tokens: u64, taken: Duration, spent: Spent) {
        self.tokens += tokens;
        self.seconds += taken.as_secs_f64();
        self.spent = self.spent.and(spent);
    }
}

/// What each process did in a phase; nothing of a process by itself.
///
/// # Errors
/// Another process has failed.
pub(crate) fn processes(team: &Team, own: &Work) -> Result<Vec<ProcessCost>, TeamError> {
    if team.is_solo() {
        return Ok(vec![]);
    }
    let Spent { waited, moved, bytes } = own.spent;
    team.share(ProcessCost {
        tokens: own.tokens,
        seconds: own.seconds - waited - moved,
        waited,
        exchanged: moved,
        bytes,
        peak_bytes: memory::peak_resident_bytes(),
    })
}

/// Looks now and then whether the processes wait for one of them.
#[derive(Default)]
pub(super) struct Pace {
    seen: Work,
    told: BTreeSet<usize>,
}

impl Pace {
    /// Looks after a step, where it is time to, and names a slow process once. All processes come here.
    ///
    /// # Errors
    /// Another process has failed, or a sink.
    pub fn look(&mut self, phase: &str, state: &PhaseState, reporter: &mut Reporter) -> Result<(), TrainError> {
        if reporter.team.is_solo() || !state.step.is_multiple_of(LOOK_EVERY) {
            return Ok(());
        }
        let (waited, seconds) =
            (state.own.spent.waited - self.seen.spent.waited, state.own.seconds - self.seen.seconds);
        self.seen = state.own;
        let waited = reporter.team.share(waited)?;
        match slow_process(&waited, seconds).filter(|(process, _)| self.told.insert(*process)) {
            None => Ok(()),
            Some((process, share)) => {
                reporter.emit(Event::SlowProcess { phase: phase.into(), step: state.step, process, share })
            }
        }
    }
}
