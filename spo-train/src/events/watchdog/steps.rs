//! Watchdogs that look at optimiser steps.

use super::silence::median;
use super::{Watchdog, exceeds};
use crate::config::WatchdogPlan;
use crate::events::{Event, StepFigures};
use std::collections::VecDeque;

/// Steps that a gradient norm or a duration is compared with.
const REMEMBERED: usize = 50;
/// Fewest steps that make a comparison.
const LEAST: usize = 10;
/// Steps that a mean log-ratio is taken over.
const MEAN_OF: usize = 10;
/// A difference of two losses that is less than this many times the rounding of one is not to be trusted.
const LEAST_SIGNAL: f64 = 10.0;
/// A step below this many seconds is never slow.
const SLOW_SECONDS: f64 = 60.0;

/// The last values of the phase that runs.
#[derive(Debug, Default)]
struct Recent {
    phase: String,
    values: VecDeque<f64>,
    /// The step of the last warning.
    warned: Option<u64>,
}

impl Recent {
    /// Begins anew with a phase.
    fn enter(&mut self, figures: &StepFigures) {
        if self.phase != figures.phase {
            *self = Self { phase: figures.phase.clone(), ..Self::default() };
        }
    }

    fn push(&mut self, value: f64, length: usize) {
        self.values.push_back(value);
        if self.values.len() > length {
            self.values.pop_front();
        }
    }

    /// Median of the values so far, if there are enough.
    fn usual(&self) -> Option<f64> {
        median(self.values.iter().copied()).filter(|_| self.values.len() >= LEAST)
    }

    /// One warning per so many steps says enough.
    fn due(&mut self, step: u64) -> bool {
        let due = self.warned.is_none_or(|warned| step > warned + REMEMBERED as u64);
        if due {
            self.warned = Some(step);
        }
        due
    }
}

/// A gradient norm far above those before it.
#[derive(Debug, Default)]
pub(super) struct GradientNorm(Recent);

impl Watchdog for GradientNorm {
    fn look(&mut self, event: &Event, limits: &WatchdogPlan) -> Option<String> {
        let Event::Step(figures) = event else { return None };
        self.0.enter(figures);
        let usual = self.0.usual();
        self.0.push(figures.grad_norm, REMEMBERED);
        let usual = usual.filter(|usual| exceeds(figures.grad_norm / usual, limits.gradient_norm_factor))?;
        self.0.due(figures.step).then(|| {
            format!(
                "{} step {}: the gradient norm is {:.3}, {:.0} times that of the steps before it ({usual:.3}). One batch may be \
                 odd; if it stays, the run diverges: lower learning-rate, or set max-grad-norm.",
                figures.phase,
                figures.step,
                figures.grad_norm,
                figures.grad_norm / usual
            )
        })
    }
}

/// Chosen answers that become ever less likely: the margin then grows only because the rejected ones fall faster.
#[derive(Debug, Default)]
pub(super) struct ChosenCollapse(Recent);

impl Watchdog for ChosenCollapse {
    fn look(&mut self, event: &Event, limits: &WatchdogPlan) -> Option<String> {
        let Event::Step(figures) = event else { return None };
        let per_token = figures.chosen_log_ratio? / figures.chosen_tokens.filter(|tokens| *tokens > 0.0)?;
        self.0.enter(figures);
        self.0.push(per_token, MEAN_OF);
        let mean = self.0.values.iter().sum::<f64>() / self.0.values.len() as f64;
        let collapsed = self.0.values.len() == MEAN_OF && exceeds(-mean, limits.chosen_drop);
        (collapsed && self.0.warned.is_none() && self.0.due(figures.step)).then(|| {
            format!(
                "{} step {}: the chosen answers became less likely, by {:.2} nats per token on average over {MEAN_OF} steps. The \
                 margin grows only because the rejected ones fall faster: lower learning-rate, raise the anchor (alpha or beta), \
                 or anchor the chosen answers with nll-weight.",
                figures.phase, figures.step, -mean
            )
        })
    }
}

/// A step that took far longer than those before it.
#[derive(Debug, Default)]
pub(super) struct SlowStep(Recent);

impl Watchdog for SlowStep {
    fn look(&mut self, event: &Event, limits: &WatchdogPlan) -> Option<String> {
        let Event::Step(figures) = event else { return None };
        self.0.enter(figures);
        let usual = self.0.usual();
        self.0.push(figures.seconds, REMEMBERED);
        let slow =
            |usual: &f64| figures.seconds > SLOW_SECONDS && exceeds(figures.seconds / usual, limits.slow_step_factor);
        let usual = usual.filter(slow)?;
        self.0.due(figures.step).then(|| {
            format!(
                "{} step {} took {:.0} s where a step takes {usual:.1} s: the loader, the disk or the device hung, or the machine \
                 slept or swapped.",
                figures.phase, figures.step, figures.seconds
            )
        })
    }
}

/// Two losses whose difference is hardly more than rounding: an optimiser that goes by it walks at random.
#[derive(Debug, Default)]
pub(super) struct LossNoise(Recent);

impl Watchdog for LossNoise {
    fn look(&mut self, event: &Event, _: &WatchdogPlan) -> Option<String> {
        let Event::Step(figures) = event else { return None };
        self.0.enter(figures);
        let signal = figures.signal_to_noise.filter(|signal| *signal < LEAST_SIGNAL)?;
        self.0.due(figures.step).then(|| {
            format!(
                "{} step {}: the two losses that the step goes by differ by {signal:.1} times the rounding of one; below \
                 {LEAST_SIGNAL:.0} they say little. Raise zo-eps or pairs-per-step, or take a wider dtype.",
                figures.phase, figures.step
            )
        })
    }
}
