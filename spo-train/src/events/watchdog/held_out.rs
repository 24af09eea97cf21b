//! Held-out loss that rises while the training goes on.

use super::Watchdog;
use crate::config::WatchdogPlan;
use crate::events::Event;

/// Held-out loss up several evaluations in a row.
#[derive(Debug, Default)]
pub(super) struct Overfitting {
    phase: String,
    /// Losses since the last one that did not rise.
    rising: Vec<f64>,
}

impl Watchdog for Overfitting {
    fn look(&mut self, event: &Event, limits: &WatchdogPlan) -> Option<String> {
        let Event::HeldOut(found) = event else { return None };
        if self.phase != found.phase || self.rising.last().is_none_or(|last| found.loss <= *last) {
            (self.phase, self.rising) = (found.phase.clone(), vec![]);
        }
        self.rising.push(found.loss);
        // Once per rise: when it has lasted for exactly so many evaluations.
        (limits.overfitting > 0 && self.rising.len() == limits.overfitting + 1).then(|| {
            let losses: Vec<String> = self.rising.iter().map(|loss| format!("{loss:.4}")).collect();
            format!(
                "{} step {}: the held-out loss rose {} evaluations in a row ({}): the round learns its training pairs by heart. \
                 `early-stopping` ends a round there and goes back to its best policy; fewer epochs or a lower learning-rate help \
                 too.",
                found.phase,
                found.step,
                limits.overfitting,
                losses.join(" → ")
            )
        })
    }
}
