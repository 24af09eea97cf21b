//! Carried margins so large that a round can hardly change their pairs.

use super::{Watchdog, exceeds};
use crate::config::WatchdogPlan;
use crate::events::Event;
use spo_eval::SATURATION;

/// `|c| ≫ 1` on many pairs at the start of a round.
#[derive(Debug, Default)]
pub(super) struct Saturation;

impl Watchdog for Saturation {
    fn look(&mut self, event: &Event, limits: &WatchdogPlan) -> Option<String> {
        let Event::PhaseStarted { phase, margin_offset: Some(margin_offset), .. } = event else { return None };
        exceeds(margin_offset.saturated, limits.saturated_share).then(|| {
            format!(
                "{phase}: |c| is above {SATURATION} on {:.0} % of the pairs (5 % to 95 %: {:+.1} to {:+.1}). There the loss is \
                 saturated: where c is very negative the pair hardly trains, where it is very positive it trains at full weight \
                 whatever the policy does. Lower lambda, or the scale of the earlier rounds (alpha, beta).",
                100.0 * margin_offset.saturated,
                margin_offset.quantiles[1],
                margin_offset.quantiles[5]
            )
        })
    }
}
