//! Responses that grow or shrink.

use super::{Watchdog, exceeds};
use crate::config::WatchdogPlan;
use crate::events::Event;

/// Sampled responses much longer or shorter than the starting policy's.
#[derive(Debug, Default)]
pub(super) struct LengthDrift {
    /// Mean tokens of the first policy that was sampled.
    start: Option<(String, f64)>,
    /// Policies that a warning was given for.
    warned: Vec<String>,
}

impl Watchdog for LengthDrift {
    fn look(&mut self, event: &Event, limits: &WatchdogPlan) -> Option<String> {
        let Event::ResponsesSampled { policy, step, mean_tokens, cut, .. } = event else { return None };
        let Some((start, before)) = &self.start else {
            self.start = Some((policy.clone(), *mean_tokens));
            return None;
        };
        let factor = (mean_tokens / before).max(before / mean_tokens);
        if !exceeds(factor, limits.length_factor) || self.warned.contains(policy) {
            return None;
        }
        self.warned.push(policy.clone());
        let direction = if mean_tokens > before { "longer" } else { "shorter" };
        let limited = match cut {
            0.0 => String::new(),
            cut => format!(" ({:.0} % of them cut at the limit)", 100.0 * cut),
        };
        Some(format!(
            "{policy} step {step}: sampled responses have {mean_tokens:.1} tokens{limited}, {factor:.1} times {direction} than those \
             of {start} ({before:.1}). Preferences often favour length: look at the samples before trusting the accuracy, and \
             compare answers of like length."
        ))
    }
}
