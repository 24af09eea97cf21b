//! A run that says nothing any more: a loader, a disk or a device that hangs.

use crate::events::Event;
use std::collections::VecDeque;
use std::time::Duration;

/// Steps that are remembered.
const REMEMBERED: usize = 20;
/// How many times the usual step a silence between two steps may last.
const FACTOR: f64 = 20.0;
/// Silences up to this are never strange.
const LEAST: Duration = Duration::from_secs(60);
/// Between other events, such as while a cache is filled or responses are sampled.
const ELSEWHERE: Duration = Duration::from_secs(30 * 60);

/// Knows how long a run may be silent.
#[derive(Debug, Clone, Default)]
pub struct Silence {
    steps: VecDeque<f64>,
    /// The phase and step that were last heard of, while their phase goes on.
    last: Option<(String, u64)>,
}

impl Silence {
    /// Takes the next event.
    pub fn add(&mut self, event: &Event) {
        self.last = match event {
            Event::Step(figures) => {
                self.steps.push_back(figures.seconds);
                if self.steps.len() > REMEMBERED {
                    self.steps.pop_front();
                }
                (figures.step < figures.steps).then(|| (figures.phase.clone(), figures.step))
            }
            _ => None,
        };
    }

    /// What to say after a silence, if it is a strange one.
    pub fn check(&self, quiet: Duration) -> Option<String> {
        let usual = median(self.steps.iter().copied()).unwrap_or(0.0);
        let allowed = match self.last {
            Some(_) => LEAST.max(Duration::from_secs_f64(FACTOR * usual)),
            None => ELSEWHERE,
        };
        (quiet > allowed).then(|| {
            let seconds = quiet.as_secs();
            match &self.last {
                Some((phase, step)) => format!(
                    "no event for {seconds} s after {phase} step {step}, where a step takes {usual:.1} s: the loader, the disk or \
                     the device hangs, or the process is gone"
                ),
                None => format!("no event for {seconds} s: the process hangs or is gone"),
            }
        })
    }
}

/// Middle of some values.
pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
