//! A policy for many users: what the frozen model makes of the rows, and how the policy does for each user by a few of the
//! user's pairs.

use crate::TrainError;
use crate::evaluate::steered::{Asked, SteeredSet};
use crate::events::Event;
use crate::persist::directory::{self, START};
use crate::policy::embeddings::Embeddings;
use crate::run::place::Place;
use crate::run::reuse::rows_hash;
use crate::run::stages::Driver;
use crate::step::gradients::Trainable;
use crate::task::build::Embedded;
use spo_eval::SteeredScores;
use std::sync::Arc;

impl Driver<'_> {
    /// What a phase trains. A warm-up leaves alone what steers, so that the first reference is the same for every user.
    pub(super) fn trainable(&self, place: &Place) -> Trainable {
        match (self.resident.policies.trainable(), place.arm) {
            (Trainable::AdaptersAndSteering(saved), None) => Trainable::AdaptersAnd(saved),
            (trainable, _) => trainable,
        }
    }

    /// Embeds every answer, or reads what was embedded before.
    pub(super) fn embed(&mut self, name: &str) -> Result<(), TrainError> {
        let sets = [&*self.prepared.train.dataset, &*self.prepared.held_out.dataset];
        let (width, budget) = (self.prepared.model.hidden_size, self.prepared.scored_at_once());
        let own = self.reporter.out.join(directory::CACHE);
        let dir = self.plan.token_cache.as_deref().unwrap_or(&own);
        let model = self.resident.get(START)?;
        let path = Embeddings::path(dir, model, &rows_hash(&sets));
        let embeddings = match Embeddings::read(&path, width)? {
            Some(embeddings) => embeddings,
            None => {
                let embeddings = Embeddings::compute(model, &sets, budget, &self.reporter)?;
                self.reporter.team.root(|| embeddings.write(&path))?;
                embeddings
            }
        };
        let answers = embeddings.len();
        self.embedded = Some(Embedded { embeddings: Arc::new(embeddings), width, seed: self.plan.seed });
        self.stage(name, &[], |run| run.reporter.emit(Event::Embedded { answers }))
    }

    /// Scores an arm's policy on the held-out rows of every user, steered by other rows of the user.
    pub(super) fn steer(&mut self, name: &str, place: &Place) -> Result<(), TrainError> {
        self.stage(name, &[], |run| {
            let plan = run.plan.steering.as_ref().expect("a stage of a run with steering");
            let (arm, policy) = (place.arm.expect("a warm-up knows no user"), &place.policy);
            let embedded = run.embedded.clone().expect("rows are embedded before anything is trained");
            let set = &run.prepared.held_out;
            let start = run.history(place).first().copied();
            let set = SteeredSet::new(&set.dataset, &arm.round.dimension, plan, &embedded, start)?;
            let (model, budget) = (run.resident.get(policy)?, run.prepared.scored_at_once());
            for asked in Asked::all(&plan.evaluate) {
                let margins = set.margins(policy, model, asked, budget, &run.reporter)?;
                let scores = set.scores(policy, &margins, &run.bootstrap)?;
                run.reporter.emit(Event::SteeredScores(SteeredScores {
                    policy: policy.clone(),
                    setting: asked.setting(),
                    scores,
                }))?;
                for found in set.steer(policy, asked, &margins, &run.bootstrap)? {
                    run.reporter.emit(Event::Steered(found))?;
                }
            }
            Ok(())
        })
    }
}
