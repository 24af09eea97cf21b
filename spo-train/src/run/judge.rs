//! What scorers say in a run: of the answers of online rounds, and of responses to held-out prompts.

use crate::TrainError;
use crate::config::RunPlan;
use crate::events::Event;
use crate::persist::directory;
use crate::policy::Policies;
use crate::policy::adapters::policy_options;
use crate::policy::sampling::Drawing;
use crate::run::prepare::Prepared;
use crate::run::schedule::Training;
use crate::run::stages::Driver;
use crate::task::Judged;
use serde::{Deserialize, Serialize};
use spo_eval::{AnswerScores, Duel, win_rate};
use spo_model::CausalLm;
use spo_model::load::LoadOptions;
use spo_model::lora::load_adapter;
use spo_score::pairing::by_dimension;
use spo_score::{Item, LoadedPolicy, Models, Opening, ScoreError, Scorer, ScorerSpec, Scores};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Where a scorer's standard error goes, in the run directory.
const LOG: &str = "scorer.log";

/// What a scorer says of a policy's responses, by dimension: index of the response and its score.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Opinion {
    scores: BTreeMap<String, Vec<(usize, f64)>>,
    tokens: Vec<usize>,
}

impl Driver<'_> {
    /// One entry per item. Rank 0 asks the scorer, which may be anything, and tells the others.
    pub(super) fn judge(
        &mut self,
        spec: &ScorerSpec,
        items: &[Item],
        policy: &str,
    ) -> Result<Vec<Option<Scores>>, TrainError> {
        let team = self.reporter.team.clone();
        team.root_unhurried(|| self.ask(spec, items, policy))
    }

    fn ask(&mut self, spec: &ScorerSpec, items: &[Item], policy: &str) -> Result<Vec<Option<Scores>>, TrainError> {
        let total = items.len();
        let mut scorer = self.scorer(spec)?;
        let mut told = Ok(());
        let reporter = &mut self.reporter;
        let found = scorer.score(items, &mut |done| {
            let event = Event::Judging { policy: policy.into(), done, total };
            told = reporter.emit(event).and_then(|()| reporter.check_own_stop());
            told.is_ok()
        });
        told?;
        Ok(found?)
    }

    /// Who scores what the policy of a phase writes, where the loss is of that, and how it draws.
    pub(super) fn judged_by(&self, training: &Training) -> Result<Option<Judged>, TrainError> {
        let online = training.place.arm.and_then(|arm| arm.round.online.as_ref());
        let Some(online) = online.filter(|_| training.data.train.is_written()) else { return Ok(None) };
        // The others hear of its scores from rank 0.
        let opened = self.reporter.team.is_root().then(|| self.scorer(&online.scorer)).transpose()?;
        let scorer = opened.map(|scorer| Arc::new(Mutex::new(scorer)));
        let tokenizer = Arc::new(self.prepared.tokenizer.clone());
        let seed = self.plan.seed.wrapping_add(training.place.round());
        Ok(Some(Judged { scorer, tokenizer, drawing: Drawing::of(online, self.stop.clone(), seed) }))
    }

    fn scorer(&self, spec: &ScorerSpec) -> Result<Box<dyn Scorer>, TrainError> {
        let file = self.prepared.source.path.as_deref();
        let directory = file.and_then(Path::parent).map(Path::to_owned);
        let models = RunModels { prepared: self.prepared, out: &self.reporter.out, directory: directory.as_deref() };
        let log = Some(self.reporter.out.join(LOG));
        let opening = Opening { models: &models, log, directory: directory.clone() };
        Ok(self.prepared.scorers.open(spec, &opening)?)
    }

    /// Scores a policy's responses to held-out prompts, and holds them against those of the start.
    pub(super) fn judge_responses(&mut self, name: &str, policy: &str) -> Result<(), TrainError> {
        let Some(spec) = self.plan.evaluation.scorer.clone() else { return Ok(()) };
        let start = self.opinions.first().cloned();
        let opinion = self.stage(name, &[], |run| {
            let items = run.items(policy)?;
            let scores = run.judge(&spec, &items, policy)?;
            let tokens = items.iter().map(|item| item.response_ids.len()).collect();
            let opinion = Opinion { scores: by_dimension(&scores, "score"), tokens };
            run.report_opinion(policy, &opinion, start.as_ref())?;
            Ok(opinion)
        })?;
        self.opinions.push((policy.into(), opinion));
        Ok(())
    }

    /// The policy's responses as a scorer reads them.
    fn items(&self, policy: &str) -> Result<Vec<Item>, TrainError> {
        let drawn = self.responses.iter().find(|responses| responses.policy == policy);
        let (texts, tokenizer) = (&self.prepared.texts, &self.prepared.tokenizer);
        let item = |(prompt_ids, ids): (&[u32], &[u32])| {
            let prompt = texts.prompt("a held-out prompt", prompt_ids, tokenizer)?;
            Ok(Item {
                id: prompt.id,
                prompt: prompt.text,
                response: tokenizer.decode(ids)?.trim().to_string(),
                prompt_ids: prompt_ids.to_vec(),
                response_ids: ids.to_vec(),
                dimension: None,
            })
        };
        drawn.into_iter().flat_map(|drawn| drawn.iter()).map(item).collect()
    }

    fn report_opinion(
        &mut self,
        policy: &str,
        opinion: &Opinion,
        start: Option<&(String, Opinion)>,
    ) -> Result<(), TrainError> {
        let bootstrap = self.bootstrap.clone();
        for (dimension, scored) in &opinion.scores {
            let (values, tokens): (Vec<f64>, Vec<usize>) =
                scored.iter().map(|(index, score)| (*score, opinion.tokens[*index])).unzip();
            let scores = AnswerScores::of(policy, dimension, &values, &tokens, &bootstrap)?;
            self.reporter.emit(Event::AnswersScored(scores))?;
            let Some((name, first)) = start else { continue };
            let theirs = first.scores.get(dimension).map_or(&[][..], Vec::as_slice);
            let duel = |(index, a): &(usize, f64)| {
                let (_, b) = theirs.iter().find(|(theirs, _)| theirs == index)?;
                let (a_tokens, b_tokens) = (opinion.tokens[*index], first.tokens[*index]);
                Some(Duel { prompt: *index, a: *a, b: *b, a_tokens, b_tokens })
            };
            let duels: Vec<Duel> = scored.iter().filter_map(duel).collect();
            if !duels.is_empty() {
                let found = win_rate((policy, name), dimension, &duels, &bootstrap)?;
                self.reporter.emit(Event::WinRate(found))?;
            }
        }
        Ok(())
    }
}

/// Models that a run's scorers name: its own policies, policies of other runs, model directories.
struct RunModels<'a> {
    prepared: &'a Prepared,
    out: &'a Path,
    directory: Option<&'a Path>,
}

impl Models for RunModels<'_> {
    fn open(&self, name: &str) -> Result<LoadedPolicy, ScoreError> {
        self.load(name).map_err(|error| ScoreError::Model { name: name.into(), source: error.into() })
    }
}

impl RunModels<'_> {
    fn load(&self, name: &str) -> Result<LoadedPolicy, TrainError> {
        let Prepared { plan, model, device, tokenizer, .. } = self.prepared;
        let policies = self.out.join(directory::POLICIES);
        if name == directory::START || policies.join(name).is_dir() {
            let options = policy_options(plan, model, device)?;
            let model = Policies::new(options, &policies, self.prepared.probes())?.load(name)?;
            return Ok(LoadedPolicy { model, tokenizer: tokenizer.clone(), text: plan.text.clone() });
        }
        let place = |path: &str| self.directory.map_or_else(|| Path::new(path).to_owned(), |dir| dir.join(path));
        match name.rsplit_once(':').map(|(run, policy)| (place(run), policy)) {
            Some((run, policy)) if run.join(directory::PLAN).is_file() => {
                let plan = RunPlan::read(&run)?;
                let dir = run.join(directory::POLICIES).join(policy);
                let adapter = dir.join("adapter_config.json").is_file().then_some(dir.as_path());
                let base = if adapter.is_some() || policy == directory::START { &plan.model.path } else { &dir };
                self.open_files(base, adapter, plan.text.clone())
            }
            _ => {
                let path = place(name);
                let text = spo_model::export::Manifest::text_of(&path)?.unwrap_or_default();
                self.open_files(&path, None, text)
            }
        }
    }

    fn open_files(
        &self,
        base: &Path,
        adapter: Option<&Path>,
        text: spo_data::TextSpec,
    ) -> Result<LoadedPolicy, TrainError> {
        let mut model = CausalLm::open(base, LoadOptions::default(), &self.prepared.device)?;
        if let Some(adapter) = adapter {
            (model, _) = load_adapter(model, adapter)?;
        }
        Ok(LoadedPolicy { model, tokenizer: spo_data::Tokenizer::from_path(base)?, text })
    }
}
