//! Executes the stages of a run.
//!
//! What a finished stage made is on disk and its result in the journal, so a run that goes on walks the same list and
//! reads instead of computing until it comes to the stage that was interrupted.

use crate::TrainError;
use crate::config::{GatePlan, RunPlan};
use crate::evaluate::labelled_set::Rewards;
use crate::events::reporter::Reporter;
use crate::events::{Event, HeldDimension};
use crate::persist::directory::{self, PLAN_ARTEFACT, START};
use crate::persist::journal::{DETAIL, Journal};
use crate::phase::checkpoint::{Checkpoints, Saved};
use crate::phase::gate::Gate;
use crate::phase::hold::HoldState;
use crate::phase::pace::processes;
use crate::phase::stopping::{Keeper, Stopping};
use crate::phase::{Phase, PhaseState};
use crate::policy::Policies;
use crate::policy::adapters::policy_options;
use crate::policy::logps::{LogpCache, PolicyLogps};
use crate::policy::sampling::{DisplayedPrompt, SampledResponses, Samples, displayed_prompts, show};
use crate::run::evaluation::{self, Judged, Margins};
use crate::run::hold;
use crate::run::judge::Opinion;
use crate::run::optimizer::optimizer;
use crate::run::parts::{Given, Parts};
use crate::run::place::{Place, places};
use crate::run::prepare::{Prepared, loaded};
use crate::run::reference::{Draw, Scoring};
use crate::run::resident::Resident;
use crate::run::reuse::{SourceRuns, rows_hash};
use crate::run::schedule::{Stage, Training};
use crate::step::memory;
use crate::task::build::{Embedded, Lambdas};
use crate::task::data::answered;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use spo_data::Example;
use spo_eval::{Artefact, Bootstrap, DimensionScore, GateOutcome, Sample, ScoreKind};
use spo_model::{device, parameters};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What became of a phase.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Trained {
    hash: String,
    /// Steps that the policy comes from: fewer than planned where the phase ended early.
    step: u64,
    /// Whether the round's gate sent it back.
    rolled_back: bool,
    /// Its held dimensions when λ was moved last.
    #[serde(default)]
    pub(super) held: Vec<HeldDimension>,
}

/// A run that goes through its stages.
pub(crate) struct Driver<'a> {
    pub(super) plan: &'a RunPlan,
    pub(super) prepared: &'a Prepared,
    pub(super) reporter: Reporter<'a>,
    /// Of rank 0 alone.
    pub(super) journal: Option<Journal>,
    pub(super) checkpoints: Checkpoints,
    pub(super) resident: Resident,
    pub(super) cache: LogpCache,
    pub(super) bootstrap: Bootstrap,
    /// Where numbers of rows are computed.
    numbers: Device,
    /// Tokens that end a response.
    pub(super) stop: Vec<u32>,
    displayed: Vec<DisplayedPrompt>,
    /// Earlier runs that policies may be taken from.
    source_runs: SourceRuns,
    /// What became of the phases so far, by policy.
    pub(super) trained: BTreeMap<String, Trained>,
    /// Log-probs of the policies so far.
    pub(super) logps: BTreeMap<String, PolicyLogps>,
    /// What the frozen model makes of the rows, in a run of several users.
    pub(super) embedded: Option<Embedded>,
    /// Held-out margins of the policies so far.
    pub(super) margins: BTreeMap<String, Margins>,
    /// Scores of the policies so far, in the scale of the main table.
    matrix: Vec<DimensionScore>,
    /// What the policies so far answered, for their distances.
    pub(super) responses: Vec<SampledResponses>,
    /// What a scorer says of that, the start first.
    pub(super) opinions: Vec<(String, Opinion)>,
}

impl<'a> Driver<'a> {
    pub fn new(
        prepared: &'a Prepared,
        reporter: Reporter<'a>,
        journal: Option<Journal>,
        checkpoints: Checkpoints,
    ) -> Result<Self, TrainError> {
        let (plan, held_out) = (&prepared.plan, &prepared.held_out.dataset);
        let dir = reporter.out.join(directory::POLICIES);
        let options = policy_options(plan, &prepared.model, &prepared.device)?;
        Ok(Self {
            plan,
            prepared,
            resident: Resident::new(Policies::new(options, &dir, prepared.probes())?.with_team(reporter.team.clone())),
            cache: LogpCache::open(&reporter.out.join(directory::CACHE))?,
            bootstrap: Bootstrap { resamples: plan.evaluation.bootstrap_resamples, seed: plan.seed },
            numbers: device::cpu(),
            stop: prepared.tokenizer.terminators().to_vec(),
            displayed: displayed_prompts(held_out, &plan.evaluation, &plan.text, &prepared.tokenizer)?,
            source_runs: SourceRuns::default(),
            trained: BTreeMap::new(),
            logps: BTreeMap::new(),
            embedded: None,
            margins: BTreeMap::new(),
            matrix: vec![],
            responses: vec![],
            opinions: vec![],
            journal,
            checkpoints,
            reporter,
        })
    }

    /// Runs all of it, or what is left of it.
    pub fn run(&mut self) -> Result<(), TrainError> {
        self.prepared.stages().iter().try_for_each(|stage| self.execute(stage))
    }

    fn execute(&mut self, stage: &Stage<'a>) -> Result<(), TrainError> {
        let name = stage.name();
        match stage {
            Stage::Start => self.start(&name),
            Stage::Train(training) => self.train(&name, training),
            Stage::Sample { policy, draws } => self.sample(&name, policy, draws),
            Stage::Score(scoring) => self.score(&name, scoring),
            Stage::Evaluate { place, .. } => self.evaluate(&name, place),
            Stage::Embed { .. } => self.embed(&name),
            Stage::Steer { place, .. } => self.steer(&name, place),
            Stage::Front { place, .. } => self.evaluate_front(&name, place),
            Stage::Show { policy, .. } => self.stage(&name, &[], |run| run.show(policy)),
            Stage::Respond { policy, .. } => {
                let responses = self.stage(&name, &[], |run| run.respond(policy))?;
                self.responses.push(responses);
                Ok(())
            }
            Stage::Judge { policy, .. } => self.judge_responses(&name, policy),
            Stage::Benchmark { policy } => self.stage(&name, &[], |run| run.benchmark(policy)),
            Stage::Make(making) => self.make_pairs(&name, making),
            Stage::Gate { policy, path, plan, .. } => self.stage(&name, &[], |run| run.check_gate(policy, path, plan)),
            Stage::Compare { policies, .. } => self.stage(&name, &[], |run| run.compare(policies)),
            Stage::Distance { reference, policies } => self.stage(&name, &[], |run| run.distances(reference, policies)),
            Stage::Export { policy } => self.stage(&name, &[directory::MODEL.into()], |run| run.export(policy)),
        }
    }

    fn start(&mut self, name: &str) -> Result<(), TrainError> {
        let hash = self.stage(name, &[], |run| run.announce())?;
        self.resident.policies.register(START, hash);
        self.source_runs = SourceRuns::new(&self.prepared.source_runs, self.plan, &self.artefacts())?;
        Ok(())
    }

    /// Loads the starting model and says what it is. Returns its hash.
    fn announce(&mut self) -> Result<String, TrainError> {
        let (prepared, policies) = (self.prepared, &mut self.resident.policies);
        let model = policies.start(START)?;
        let trainable = policies.trainable();
        let phases = places(self.plan).into_iter().map(|place| (place.policy, place.training.steps));
        self.reporter.emit(Event::RunStarted {
            name: self.plan.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            device: device::describe(&prepared.device),
            dtype: format!("{:?}", model.dtype()).to_lowercase(),
            family: prepared.model.family.into(),
            parameters: parameters::count(&model, |_| true) as u64,
            trainable: parameters::count(&model, |path| trainable.contains(path)) as u64,
            phases: phases.collect(),
        })?;
        self.reporter.emit(loaded([&prepared.train, &prepared.held_out, &prepared.driving]))?;
        let artefacts = self.artefacts();
        self.source_runs = SourceRuns::new(&prepared.source_runs, self.plan, &artefacts)?;
        let of_hub = self
            .plan
            .hub
            .iter()
            .map(|of_hub| Artefact { name: of_hub.name.clone(), hash: format!("commit:{}", of_hub.commit) });
        let artefacts = artefacts.into_iter().chain(of_hub).collect();
        self.reporter.emit(Event::Lineage { artefacts })?;
        self.resident.put(START, model);
        let start = self.resident.policies.hash(START).to_string();
        self.share_cache(&start)?;
        Ok(start)
    }

    /// Hashes of what goes into the run.
    fn artefacts(&self) -> Vec<Artefact> {
        let plan = serde_json::to_vec(self.plan).expect("a plan holds only strings and numbers");
        let hash = |name: &str, hash: &str| Artefact { name: name.into(), hash: format!("blake3:{hash}") };
        vec![
            hash(PLAN_ARTEFACT, &blake3::hash(&plan).to_hex()[..32]),
            hash("starting weights", self.resident.policies.hash(START)),
            hash("training rows, as tokens with their labels", &rows_hash(&[&self.prepared.train.dataset])),
            hash("held-out rows, as tokens with their labels", &rows_hash(&[&self.prepared.held_out.dataset])),
        ]
    }

    /// Takes the log-probs of a policy over that an earlier run has computed.
    fn share_cache(&self, hash: &str) -> Result<(), TrainError> {
        self.cache.adopt(self.source_runs.dirs().map(|dir| dir.join(directory::CACHE)), hash)
    }

    /// Makes and saves the policy of a phase.
    fn train(&mut self, name: &str, training: &Training<'a>) -> Result<(), TrainError> {
        let (policy, policies) = (&training.place.policy, Path::new(directory::POLICIES));
        let files = [policies.join(policy), directory::best_path(policies, policy)];
        let trained = self.stage(name, &files, |run| {
            let saved = run.checkpoints.take(policy);
            let reused = if saved.is_none() { run.reuse(&training.place)? } else { None };
            reused.map_or_else(|| run.optimise(training, saved), Ok)
        })?;
        // Not before the policy itself is finished: until then resuming may need it.
        self.resident.policies.forget_kept(policy, None)?;
        self.resident.policies.register(policy, trained.hash.clone());
        self.trained.insert(policy.clone(), trained);
        Ok(())
    }

    /// Takes a policy over from an earlier run in which it is the same, if there is one.
    fn reuse(&mut self, place: &Place) -> Result<Option<Trained>, TrainError> {
        let (name, arm) = (place.policy.as_str(), place.arm.map(|arm| (arm.index, arm.number)));
        let Some(found) = self.source_runs.find(self.plan, name, arm) else { return Ok(None) };
        let theirs = found.dir.join(directory::POLICIES);
        let model = self.resident.policies.adopt(name, &theirs, found.hash)?;
        self.resident.policies.adopt_best(name, &theirs)?;
        self.share_cache(found.hash)?;
        let held = hold::told(&found.events);
        let mut trained = Trained { hash: found.hash.into(), step: place.training.steps, rolled_back: false, held };
        self.reporter.emit(Event::Reused { policy: name.into(), from: found.dir.into() })?;
        for mut event in found.events {
            match &mut event {
                Event::PhaseEnded { step, steps, policy_of, .. } => {
                    (trained.step, trained.rolled_back) = (*policy_of, step == steps);
                }
                Event::PolicySaved { path, .. } => *path = self.resident.policies.path(name),
                _ => {}
            }
            self.reporter.emit(event)?;
        }
        self.resident.put(name, model);
        Ok(Some(trained))
    }

    /// Runs the steps of a phase that are left and saves its policy.
    fn optimise(&mut self, stage: &Training<'a>, saved: Option<Saved>) -> Result<Trained, TrainError> {
        let (place, plan) = (&stage.place, self.plan);
        let (name, parent) = (place.policy.as_str(), place.parent());
        let parts = self.parts(stage)?;
        if saved.is_none() {
            self.reporter.emit(parts.started(stage)?)?;
        }
        let trainable = self.trainable(place);
        let trainable = stage.data.rows().trainable(trainable);
        let (training, seed, hold, probes) = (place.training, plan.seed, parts.hold.as_ref(), parts.probes.as_ref());
        let shards = plan.parallel.shards;
        let phase = Phase { name, round: place.round(), training, trainable, seed, hold, shards, probes };
        let model = self.resident.take(parent)?;
        let model = self.resident.policies.begin_round(parent, model, phase.round)?;
        let model = stage.data.rows().with_head(model);
        let optimizer = optimizer(plan, &phase, &model, &self.reporter.team);
        let state = match saved {
            Some(saved) => saved.restore(model, optimizer)?,
            None => PhaseState::new(model, optimizer),
        };
        let gate = stage.gate.map(|gate| Gate::new(gate, &self.matrix, &place.path));
        let stopping = Stopping::new(Keeper {
            policies: &mut self.resident.policies,
            phase: name,
            training: phase.training,
            parent,
            path_from: Some(place.path[0].as_str()).filter(|_| place.arm.is_some() && plan.evaluation.kl_path),
            gate: gate.as_ref().filter(|gate| gate.rolls_back() || gate.admits_after().is_some()),
            held_out: &self.prepared.held_out,
            evaluation: &plan.evaluation,
            stop: &self.stop,
            seed: plan.seed,
            token_budget: self.prepared.scored_at_once(),
        });
        let (task, held_out) = (parts.task.as_ref(), parts.held_out.as_ref());
        let checkpoints = Some(&mut self.checkpoints);
        let state = phase.run(state, task, held_out, stopping, checkpoints, &mut self.reporter)?;
        if let Some(event) = parts.degrees(stage, &state.model, &self.reporter)? {
            self.reporter.emit(event)?;
        }
        self.save(name, state)
    }

    /// What a phase is made of.
    fn parts(&mut self, training: &Training<'a>) -> Result<Parts<'a>, TrainError> {
        let (place, data) = (&training.place, training.data);
        let draw = |rows| Draw::of(rows, self.plan.seed, place.round());
        let read = |draw: Option<Draw>| draw.map_or(Ok(None), |draw| self.samples(place.parent(), &draw));
        let samples = [read(draw(data.rows()))?, read(data.held_out.as_ref().and_then(draw))?];
        let wanted = data.rows().needs_reference_model();
        let reference = wanted.then(|| self.resident.policies.load(place.parent())).transpose()?;
        let contexts = self.embedded.clone();
        let lambdas = place.arm.map_or_else(Lambdas::default, |arm| self.lambdas(arm, &place.policy));
        let judged = self.judged_by(training)?;
        let rewarding = self.frozen(place)?;
        let given = Given { history: self.history(place), samples, reference, contexts, lambdas, judged, rewarding };
        Parts::new(self.prepared, training, given, &self.numbers)
    }

    /// Log-probs of the policies that an arm's policy comes from; a warm-up's or a reward model's comes from none that has
    /// any.
    pub(super) fn history(&self, place: &Place) -> Vec<&PolicyLogps> {
        let arm = place.arm.filter(|arm| !arm.plan.gives_rewards());
        arm.map_or(vec![], |_| place.path.iter().map(|policy| &self.logps[policy]).collect())
    }

    /// Saves what a phase has come to as its policy.
    fn save(&mut self, name: &str, state: PhaseState) -> Result<Trained, TrainError> {
        let (step, rolled_back) = (state.step, state.rolled_back);
        let held = state.hold.as_ref().map_or_else(Vec::new, |hold| HoldState::told(hold).to_vec());
        self.reporter.emit(Event::PhaseFinished {
            phase: name.into(),
            seconds: state.time.as_secs_f64(),
            tokens: state.tokens,
            peak_bytes: memory::peak_resident_bytes(),
            processes: processes(&self.reporter.team, &state.own)?,
        })?;
        // The optimiser's moments go before the saved policy is read back.
        drop(state.optimizer);
        let model = self.resident.policies.save(name, state.model, &mut self.reporter)?;
        self.resident.put(name, model);
        Ok(Trained { hash: self.resident.policies.hash(name).to_string(), step, rolled_back, held })
    }

    /// Draws the answers that the next round needs of a policy, as far as they are not on disk yet.
    pub(super) fn sample(&mut self, name: &str, policy: &str, draws: &[Draw]) -> Result<(), TrainError> {
        let paths: Vec<PathBuf> = draws.iter().map(|draw| self.samples_path(policy, draw)).collect();
        let relative = |path: &PathBuf| path.strip_prefix(&self.reporter.out).unwrap_or(path).to_path_buf();
        let files: Vec<PathBuf> = paths.iter().map(relative).collect();
        self.stage(name, &files, |run| {
            let model = run.resident.get(policy)?;
            for (draw, path) in draws.iter().zip(&paths) {
                if Samples::read(path)?.is_none() {
                    let Draw { prompts, max_new_tokens, seed } = draw;
                    Samples::draw(model, prompts, *max_new_tokens, &run.stop, *seed, path, &run.reporter)?;
                }
            }
            Ok(())
        })
    }

    /// The file of answers that a policy drew.
    fn samples_path(&self, policy: &str, draw: &Draw) -> PathBuf {
        let (cache, hash) = (self.reporter.out.join(directory::CACHE), self.resident.policies.hash(policy));
        Samples::path(&cache, hash, &draw.prompts, draw.max_new_tokens, draw.seed)
    }

    fn samples(&self, policy: &str, draw: &Draw) -> Result<Option<Samples>, TrainError> {
        Samples::read(&self.samples_path(policy, draw))
    }

    /// Stores a policy's log-probs: from then on nothing else of it is needed.
    pub(super) fn score(&mut self, name: &str, scoring: &Scoring) -> Result<(), TrainError> {
        let policy = &scoring.policy;
        let later = scoring.rows(|draw| {
            let samples = self.samples(policy, draw)?.unwrap_or_default();
            let written = samples.iter().filter(|(_, answer)| !answer.is_empty());
            let row = |(prompt, answer): (&[u32], &[u32])| answered("a sampled answer", prompt, answer);
            Ok::<Vec<Example>, TrainError>(written.map(row).collect())
        })?;
        let sets = [&later, &*self.prepared.held_out.dataset];
        let hash = self.resident.policies.hash(policy).to_string();
        // Other rows, as of a changed run file, are other stages.
        let detail = format!("{DETAIL}{}", &rows_hash(&sets)[..8]);
        let stored = self.stage(&format!("cache {policy}{detail}"), &[], |run| run.cache.stored(&hash))?;
        let file = Path::new(directory::CACHE).join(LogpCache::file_name(&hash));
        self.stage(&format!("{name}{detail}"), &[file], |run| {
            let (model, budget) = (run.resident.get(policy)?, run.prepared.scored_at_once());
            run.cache.fill(policy, &hash, stored, model, &sets, budget, &mut run.reporter).map(|_| ())
        })?;
        self.logps.insert(policy.clone(), self.cache.read(policy, &hash)?);
        Ok(())
    }

    /// Scores an arm's policy on the held-out rows of every dimension.
    fn evaluate(&mut self, name: &str, place: &Place) -> Result<(), TrainError> {
        let (policy, set) = (&place.policy, &self.prepared.held_out);
        let margins = self.judged(place).margins(set)?;
        let kind = if self.plan.gives_rewards() { ScoreKind::Reward } else { ScoreKind::LogRatio };
        let of_margins = evaluation::margin_scores(set, policy, kind, &margins, &self.bootstrap)?;
        self.stage(name, &[], |run| {
            if set.dimensions.is_empty() {
                return Ok(());
            }
            let arm = place.arm.expect("a warm-up is not evaluated");
            let rewards = Rewards::of(run.plan, arm.plan, &run.lambdas(arm, policy))?;
            let scores = run.judged(place).scores(set, &rewards, &of_margins, &run.bootstrap, &run.numbers)?;
            let distributions = evaluation::distributions(set, policy, &margins)?;
            let prompts =
                if run.plan.evaluation.by_prompt { evaluation::by_prompt(set, policy, &margins) } else { vec![] };
            run.reporter.emit(Event::Evaluated {
                policy: policy.clone(),
                step: run.trained[policy].step,
                scores,
                margins: distributions,
                prompts,
            })?;
            run.evaluate_asked(place)?;
            run.judge_hold(place, &margins)
        })?;
        self.matrix.extend(of_margins);
        self.margins.insert(policy.clone(), margins);
        if place.arm.is_some_and(|arm| arm.is_control()) {
            // Nothing starts from a control.
            self.logps.remove(policy);
        }
        Ok(())
    }

    pub(super) fn judged<'s>(&'s self, place: &'s Place) -> Judged<'s> {
        Judged { name: &place.policy, logps: &self.logps[&place.policy], history: self.history(place) }
    }

    /// Shows the most likely answers of a policy.
    fn show(&mut self, policy: &str) -> Result<(), TrainError> {
        let (prompts, plan, tokenizer) = (&self.displayed, &self.plan.evaluation, &self.prepared.tokenizer);
        let answers = show(self.resident.get(policy)?, prompts, plan, &self.stop, tokenizer, &self.reporter)?;
        for (displayed, answer) in prompts.iter().zip(answers) {
            let by_policy = vec![(policy.to_owned(), answer)];
            self.reporter.emit(Event::Sampled(Sample { prompt: displayed.text.clone(), by_policy }))?;
        }
        Ok(())
    }

    /// Samples answers of a policy to held-out prompts.
    fn respond(&mut self, policy: &str) -> Result<SampledResponses, TrainError> {
        let responses = SampledResponses::sample(
            policy,
            self.resident.get(policy)?,
            &self.prepared.held_out.dataset,
            &self.plan.evaluation,
            &self.stop,
            self.plan.seed,
            self.prepared.scored_at_once(),
            &self.reporter,
        )?;
        let step = self.trained.get(policy).map_or(0, |trained| trained.step);
        self.reporter.emit(responses.event(step))?;
        Ok(responses)
    }

    /// Holds a round's policy against its gate.
    fn check_gate(&mut self, policy: &str, path: &[String], plan: &GatePlan) -> Result<(), TrainError> {
        let gate = Gate::new(plan, &self.matrix, path);
        let summary = evaluation::gate_summary(&gate, policy, &self.matrix, self.trained[policy].rolled_back);
        let (missed, ends) = (summary.missed().join("; "), summary.outcome == GateOutcome::Stopped);
        self.reporter.emit(Event::GateChecked(summary))?;
        if !ends { Ok(()) } else { Err(TrainError::GateMissed { policy: policy.into(), missed }) }
    }

    /// Compares the main policy of a round with its controls.
    fn compare(&mut self, policies: &[String]) -> Result<(), TrainError> {
        let events = evaluation::comparisons(&self.prepared.held_out, policies, &self.margins, &self.bootstrap)?;
        events.into_iter().try_for_each(|event| self.reporter.emit(event))
    }

    /// Distances of policies from a reference, which scores what they answered.
    fn distances(&mut self, reference: &str, policies: &[String]) -> Result<(), TrainError> {
        let budget = self.prepared.scored_at_once();
        for responses in self.responses.iter().filter(|responses| policies.contains(&responses.policy)) {
            self.reporter.check_stop()?;
            let team = self.reporter.team.clone();
            let said = responses.predictions(&team, self.resident.get(&responses.policy)?, budget);
            let estimate = responses.kl(&team, &said, (reference, self.resident.get(reference)?), budget)?;
            self.reporter.emit(Event::KlEstimated(estimate))?;
        }
        Ok(())
    }

    /// Says that the run ends before its end.
    pub fn stopped(&mut self, error: &TrainError) -> Result<(), TrainError> {
        self.reporter.emit(Event::RunStopped { reason: error.to_string() })
    }
}
