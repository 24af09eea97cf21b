//! Log-probabilities of a frozen policy, as they get into the cache.

use std::sync::atomic::AtomicBool;

use spo_train::events::reporter::Reporter;
use spo_train::policy::logps::LogpCache;
use spo_train::{Event, Sink, TrainError};

use super::figures::{Details, Figures};
use super::setting::{Setting, repeat};
use crate::error::CliError;

/// Calls back when something has been scored.
struct AtFirst<'a>(&'a mut dyn FnMut());

impl Sink for AtFirst<'_> {
    fn event(&mut self, _: f64, event: &Event) -> Result<(), TrainError> {
        if matches!(event, Event::Scoring { .. }) {
            (self.0)();
        }
        Ok(())
    }
}

pub(super) fn measure(setting: &Setting) -> Result<Figures, CliError> {
    let (cache, stop) = (LogpCache::open(setting.place.path())?, AtomicBool::new(false));
    let (model, budget) = (setting.model()?, setting.budget(&setting.plan()?));
    let mut mean = 0.0;
    let times = repeat(setting, |epoch, first| {
        let mut sink = AtFirst(first);
        let mut reporter = Reporter::new(setting.place.path().into(), &mut sink, &stop);
        // Every epoch under another name: nothing is there yet.
        let scored = cache.fill("the model", &epoch.to_string(), 0, &model, &[&setting.data], budget, &mut reporter)?;
        let sides = scored.sides(&setting.data, &setting.data.pairs(&setting.dimension), |_| true)?;
        let sum: f64 = sides.chosen.iter().chain(&sides.rejected).sum();
        mean = sum / (2 * sides.chosen.len()) as f64;
        Ok(())
    })?;
    let mut figures = setting.figures("score", times, setting.work());
    figures.details = Details { mean_logp: Some(mean), ..Details::default() };
    Ok(figures)
}
