//! A policy that is asked for one preference or another by a text, on held-out rows.

use crate::TrainError;
use crate::evaluate::asked::Asked;
use crate::events::Event;
use crate::run::place::Place;
use crate::run::stages::Driver;

impl Driver<'_> {
    /// Scores an arm's policy on every dimension under each way to ask, where the data have meta-prompts. All log-probs are
    /// there: held-out rows have been scored in every way that they are asked.
    pub(super) fn evaluate_asked(&mut self, place: &Place) -> Result<(), TrainError> {
        let Some(meta) = self.plan.meta_prompts() else { return Ok(()) };
        let judged = self.judged(place);
        let asked = Asked {
            dataset: &self.prepared.held_out.dataset,
            meta: &meta,
            policy: &place.policy,
            logps: judged.logps,
            start: judged.history.first().copied(),
            bootstrap: &self.bootstrap,
        };
        let scores = asked.scores()?.into_iter().map(Event::SteeredScores);
        let events: Vec<Event> = scores.chain(asked.steer()?.into_iter().map(Event::Steered)).collect();
        events.into_iter().try_for_each(|event| self.reporter.emit(event))
    }
}
