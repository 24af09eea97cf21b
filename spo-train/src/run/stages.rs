//! The order of a run: warm-up, rounds with their controls, evaluation, export.
//!
//! It is a list of stages. What a finished stage made is on disk and its result in the journal, so a
//! run that goes on walks the same list and reads instead of computing until it comes to the stage
//! that was interrupted.

use crate::TrainError;
use crate::config::{ArmPlan, RoundPlan, RunPlan};
use crate::evaluate::held_out_loss::{HeldOutMargins, HeldOutTasks};
use crate::events::Event;
use crate::events::reporter::Reporter;
use crate::persist::directory::{self, PLAN_ARTEFACT, START, WARMUP, policy_name};
use crate::persist::durable::Mark;
use crate::persist::journal::Journal;
use crate::phase::checkpoint::Checkpoints;
use crate::phase::gate::Gate;
use crate::phase::stopping::{Keeper, Stopping};
use crate::phase::{Phase, PhaseState};
use crate::policy::Policies;
use crate::policy::adapters::policy_options;
use crate::policy::logps::{LogpCache, PolicyLogps};
use crate::policy::sampling::{DisplayedPrompt, SampledResponses, displayed_prompts};
use crate::run::prepare::Prepared;
use crate::run::reuse::{SourceRuns, rows_hash};
use crate::step::memory;
use crate::task::build::{ArmData, Frozen};
use crate::task::{SupervisedTask, Task};
use burn::tensor::Device;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use spo_eval::{Artefact, Bootstrap, DimensionScore, Distribution};
use spo_model::{CausalLm, device, parameters};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A phase, what it learns, and what it is evaluated on.
type PhaseParts<'p> = (Phase<'p>, Box<dyn Task + 'p>, Option<HeldOutTasks<'p>>);

/// What became of a phase.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Trained {
    pub(super) hash: String,
    /// Steps that the policy comes from: fewer than planned where the phase ended early.
    pub(super) step: u64,
    /// Whether the round's gate sent it back.
    pub(super) rolled_back: bool,
}

/// Where a policy stands in the plan: its name, that of the policy it starts from, and round and arm, if it is not
/// the warm-up's.
#[derive(Clone, Copy)]
struct Place<'p> {
    name: &'p str,
    parent: &'p str,
    arm: Option<(usize, usize)>,
}

/// A run that goes through its plan.
pub(crate) struct Driver<'a> {
    pub(super) plan: &'a RunPlan,
    pub(super) prepared: &'a Prepared,
    pub(super) reporter: Reporter<'a>,
    pub(super) journal: Journal,
    pub(super) checkpoints: Checkpoints,
    pub(super) policies: Policies,
    /// The policy in memory, if one is.
    pub(super) current: Option<(String, CausalLm)>,
    pub(super) cache: LogpCache,
    pub(super) bootstrap: Bootstrap,
    /// Tokens that end a response.
    pub(super) stop: Vec<u32>,
    pub(super) shown: Vec<DisplayedPrompt>,
    /// Earlier runs that policies may be taken from.
    pub(super) source_runs: SourceRuns,
    /// Scores of the policies so far, in the scale of the main table.
    pub(super) matrix: Vec<DimensionScore>,
    /// The policies so far that a phase made.
    pub(super) trained: BTreeMap<String, Trained>,
    pub(super) drawn: Vec<(SampledResponses, Vec<String>)>,
}

impl<'a> Driver<'a> {
    pub fn new(
        prepared: &'a Prepared,
        reporter: Reporter<'a>,
        journal: Journal,
        checkpoints: Checkpoints,
    ) -> Result<Self, TrainError> {
        let plan = &prepared.plan;
        let mut stop = prepared.model.eos.clone();
        stop.extend(prepared.tokenizer.terminators());
        let dir = reporter.out.join(directory::POLICIES);
        Ok(Self {
            plan,
            prepared,
            policies: Policies::new(
                policy_options(plan, &prepared.model, &prepared.device)?,
                &dir,
                &prepared.held_out.dataset,
            )?,
            cache: LogpCache::open(&reporter.out.join(directory::CACHE))?,
            bootstrap: Bootstrap { resamples: plan.evaluation.bootstrap_resamples, seed: plan.seed },
            stop,
            shown: displayed_prompts(&prepared.held_out.dataset, &plan.evaluation, &plan.text, &prepared.tokenizer)?,
            source_runs: SourceRuns::default(),
            matrix: vec![],
            trained: BTreeMap::new(),
            drawn: vec![],
            current: None,
            journal,
            checkpoints,
            reporter,
        })
    }

    /// Runs all of it, or what is left of it.
    pub fn run(&mut self) -> Result<(), TrainError> {
        let start_hash = self.stage("start", &[], |run| run.announce())?;
        self.policies.register(START, start_hash);
        self.source_runs = SourceRuns::new(&self.prepared.source_runs, self.plan, &self.artefacts())?;
        let start = self.warm_up()?;
        let mut history = vec![self.freeze(start, 0)?];
        self.show(start)?;
        self.draw(start, &[])?;
        let mut names = vec![start.to_string()];
        for (index, round) in self.plan.rounds.iter().enumerate() {
            let mut scores = vec![];
            let mut carried = None;
            for (number, arm) in round.arms.iter().enumerate() {
                let name = policy_name(round, arm);
                let gate = round.gate.as_ref().filter(|_| carried.is_none());
                let gate = gate.map(|plan| Gate::new(plan, &self.matrix, &names));
                let place = Place { name: &name, parent: &names[index], arm: Some((index, number)) };
                let parts = |run: &mut Self, begin| run.round(index, round, arm, (&name, &names), begin, &history);
                self.train(place, gate.as_ref(), parts)?;
                let later = if carried.is_none() { index + 1 } else { self.plan.rounds.len() };
                let logps = self.freeze(&name, later)?;
                scores.push((name.clone(), self.evaluate(&name, arm, &logps, &history)?));
                self.show(&name)?;
                self.draw(&name, &[start.to_string(), names[index].clone()])?;
                if let Some(gate) = &gate {
                    self.stage(&format!("gate {}", round.name), &[], |run| run.check_gate(gate, &name))?;
                }
                if carried.is_none() {
                    carried = Some((name, logps));
                }
            }
            self.stage(&format!("compare {}", round.name), &[], |run| run.compare(&scores))?;
            let (name, logps) = carried.expect("resolve gives every round a main arm");
            names.push(name);
            history.push(logps);
        }
        self.estimate_kl()?;
        let last = names.pop().expect("there is one for the start");
        self.stage("export", &[directory::MODEL.into()], |run| run.finish(&last))
    }

    /// Does the work of a stage, or takes its result from the journal if it is finished. `files` are
    /// what it writes, or may write, relative to the run directory.
    pub(super) fn stage<T: Serialize + DeserializeOwned>(
        &mut self,
        name: &str,
        files: &[PathBuf],
        work: impl FnOnce(&mut Self) -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        if let Some(result) = self.journal.finished(name)? {
            return Ok(result);
        }
        let result = work(self)?;
        let written = files.iter().filter(|path| self.reporter.out.join(path).exists());
        let marks = written.map(|path| Mark::all(&self.reporter.out, path));
        let marks = marks.collect::<Result<Vec<_>, _>>()?.concat();
        if let Some(events) = self.reporter.mark()? {
            self.checkpoints.stage_finished(events.bytes);
            self.journal.finish(name, events, marks, &result)?;
        }
        self.reporter.check_stop()?;
        Ok(result)
    }

    /// Brings a policy into memory. Another one is dropped before: one at a time.
    pub(super) fn load(&mut self, name: &str) -> Result<(), TrainError> {
        if self.current.as_ref().is_none_or(|(loaded, _)| loaded != name) {
            self.current = None;
            self.current = Some((name.into(), self.policies.load(name)?));
        }
        Ok(())
    }

    /// Takes a policy out of memory.
    fn take(&mut self, name: &str) -> Result<CausalLm, TrainError> {
        self.load(name)?;
        Ok(self.current.take().expect("it was just loaded").1)
    }

    /// The supervised warm-up, if there is one. Returns the name of π_0.
    fn warm_up(&mut self) -> Result<&'static str, TrainError> {
        let plan = self.plan;
        let Some(warmup) = &plan.warmup else { return Ok(START) };
        self.train(Place { name: WARMUP, parent: START, arm: None }, None, |run, begin| {
            let task = SupervisedTask::new(&run.prepared.train.dataset, &warmup.dimensions);
            if begin {
                let label = warmup.dimensions.join(" + ");
                run.begin(WARMUP, &label, "sft", false, START, task.len(), warmup.training.steps, None)?;
            }
            let phase = Phase {
                name: WARMUP,
                round: 0,
                training: &warmup.training,
                trainable: run.policies.trainable(),
                seed: plan.seed,
            };
            let held_out = HeldOutTasks {
                own: Box::new(SupervisedTask::new(&run.prepared.held_out.dataset, &warmup.dimensions)),
                dimension: None,
                dimensions: vec![],
            };
            Ok((phase, Box::new(task), Some(held_out)))
        })?;
        Ok(WARMUP)
    }

    /// Loads the starting model and says what it is. Returns its hash.
    fn announce(&mut self) -> Result<String, TrainError> {
        let model = &self.policies.start(START)?;
        let trainable = self.policies.trainable();
        let mut phases: Vec<(String, u64)> = vec![];
        phases.extend(self.plan.warmup.as_ref().map(|warmup| (WARMUP.to_string(), warmup.training.steps)));
        for round in &self.plan.rounds {
            phases.extend(round.arms.iter().map(|arm| (policy_name(round, arm), arm.training.steps)));
        }
        self.reporter.emit(Event::RunStarted {
            name: self.plan.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            device: device::describe(&self.prepared.device),
            dtype: format!("{:?}", model.dtype()).to_lowercase(),
            family: self.prepared.model.family.into(),
            parameters: parameters::count(model, |_| true) as u64,
            trainable: parameters::count(model, |path| trainable.contains(path)) as u64,
            phases,
        })?;
        let sets = [self.prepared.train.summaries(), self.prepared.held_out.summaries()].concat();
        let conflicts = [self.prepared.train.conflicts(), self.prepared.held_out.conflicts()].concat();
        self.reporter.emit(Event::DataLoaded { sets, conflicts })?;
        let artefacts = self.artefacts();
        self.source_runs = SourceRuns::new(&self.prepared.source_runs, self.plan, &artefacts)?;
        self.reporter.emit(Event::Lineage { artefacts })?;
        self.current = Some((START.into(), model.clone()));
        let start = self.policies.hash(START).to_string();
        self.share_cache(&start)?;
        Ok(start)
    }

    /// Hashes of what goes into the run.
    fn artefacts(&self) -> Vec<Artefact> {
        let plan = serde_json::to_vec(self.plan).expect("a plan holds only strings and numbers");
        let hash = |name: &str, hash: &str| Artefact { name: name.into(), hash: format!("blake3:{hash}") };
        vec![
            hash(PLAN_ARTEFACT, &blake3::hash(&plan).to_hex()[..32]),
            hash("starting weights", self.policies.hash(START)),
            hash("training rows, as tokens with their labels", &rows_hash(&[&self.prepared.train.dataset])),
            hash("held-out rows, as tokens with their labels", &rows_hash(&[&self.prepared.held_out.dataset])),
        ]
    }

    /// Takes the log-probs of a policy over that an earlier run has computed.
    fn share_cache(&self, hash: &str) -> Result<(), TrainError> {
        self.cache.adopt(self.source_runs.dirs().map(|dir| dir.join(directory::CACHE)), hash)
    }

    /// Takes a policy over from an earlier run in which it is the same, if there is one.
    fn reuse(&mut self, place: Place) -> Result<Option<Trained>, TrainError> {
        let Some(found) = self.source_runs.find(self.plan, place.name, place.arm) else { return Ok(None) };
        let model = self.policies.adopt(place.name, &found.dir.join(directory::POLICIES), found.hash)?;
        self.policies.adopt_best(place.name, &found.dir.join(directory::POLICIES))?;
        self.share_cache(found.hash)?;
        let step = self.steps_of(place.name);
        let mut trained = Trained { hash: found.hash.into(), step, rolled_back: false };
        self.reporter.emit(Event::Reused { policy: place.name.into(), from: found.dir.into() })?;
        for mut event in found.events {
            match &mut event {
                Event::PhaseEnded { step, steps, policy_of, .. } => {
                    (trained.step, trained.rolled_back) = (*policy_of, step == steps);
                }
                Event::PolicySaved { path, .. } => *path = self.policies.path(place.name),
                _ => {}
            }
            self.reporter.emit(event)?;
        }
        self.current = Some((place.name.into(), model));
        Ok(Some(trained))
    }

    #[allow(clippy::too_many_arguments)]
    fn begin(
        &mut self,
        phase: &str,
        dimension: &str,
        objective: &str,
        control: bool,
        start: &str,
        pairs: usize,
        steps: u64,
        margin_offset: Option<Distribution>,
    ) -> Result<(), TrainError> {
        self.reporter.emit(Event::PhaseStarted {
            phase: phase.into(),
            dimension: dimension.into(),
            objective: objective.into(),
            control,
            start: start.into(),
            pairs,
            steps,
            margin_offset,
        })
    }

    /// Runs a phase and saves the policy it makes. `prepare` gives its parts; its second argument
    /// says whether the phase begins now, rather than going on from a checkpoint.
    fn train<'p>(
        &mut self,
        place: Place,
        gate: Option<&Gate>,
        prepare: impl FnOnce(&mut Self, bool) -> Result<PhaseParts<'p>, TrainError>,
    ) -> Result<(), TrainError> {
        let name = place.name;
        let policies = Path::new(directory::POLICIES);
        let files = [policies.join(name), directory::best_path(policies, name)];
        let trained = self.stage(&format!("train {name}"), &files, |run| {
            let saved = run.checkpoints.take(name);
            if saved.is_none()
                && let Some(trained) = run.reuse(place)?
            {
                return Ok(trained);
            }
            let (phase, task, held_out) = prepare(run, saved.is_none())?;
            let model = run.take(place.parent)?;
            let model = run.policies.begin_round(place.parent, model, phase.round)?;
            let state = match saved {
                Some(saved) => saved.restore(model)?,
                None => PhaseState::new(model),
            };
            let token_budget = run.budget();
            let stopping = Stopping::new(Keeper {
                policies: &mut run.policies,
                phase: name,
                training: phase.training,
                parent: place.parent,
                gate: gate.filter(|gate| gate.rolls_back()),
                held_out: &run.prepared.held_out,
                evaluation: &run.plan.evaluation,
                stop: &run.stop,
                seed: run.plan.seed,
                token_budget,
            });
            let state = phase.run(
                state,
                task.as_ref(),
                held_out.as_ref(),
                stopping,
                Some(&mut run.checkpoints),
                &mut run.reporter,
            )?;
            let (step, rolled_back) = (state.step, state.rolled_back);
            run.reporter.emit(Event::PhaseFinished {
                phase: name.into(),
                seconds: state.time.as_secs_f64(),
                tokens: state.tokens,
                peak_bytes: memory::peak_resident_bytes(),
            })?;
            // The optimiser's moments go before the saved policy is read back.
            drop(state.optimizer);
            let model = run.policies.save(name, state.model, &mut run.reporter)?;
            run.current = Some((name.into(), model));
            Ok(Trained { hash: run.policies.hash(name).to_string(), step, rolled_back })
        })?;
        // Not before the policy itself is finished: until then resuming may need it.
        self.policies.forget_kept(name, None)?;
        self.policies.register(name, trained.hash.clone());
        self.trained.insert(name.into(), trained);
        Ok(())
    }

    /// The parts of one arm of a round.
    fn round<'p>(
        &mut self,
        index: usize,
        round: &RoundPlan,
        arm: &'p ArmPlan,
        (name, names): (&'p str, &[String]),
        begin: bool,
        history: &[PolicyLogps],
    ) -> Result<PhaseParts<'p>, TrainError>
    where
        'a: 'p,
    {
        let parent = &names[index];
        let data = ArmData::new(&self.prepared.train.dataset, &round.dimension, arm)?;
        let phase = self.phase(index, arm, name);
        let (visits, order) = (phase.visits(data.len()), phase.epoch(data.len()));
        let samples = self.samples(&data, &visits, parent, index, None)?;
        let reference = data.needs_reference_model().then(|| self.policies.load(parent)).transpose()?;
        let limit = self.prepared.model.context;
        let frozen = Frozen { names, history, samples, reference: reference.clone(), order, limit };
        let (task, margin_offset) = data.task(frozen, &visits, self.numbers_device())?;
        if begin {
            let margin_offset = margin_offset.map(|c| Distribution::of("c", &c)).transpose()?;
            let (control, steps) = (arm.name != round.main().name, arm.training.steps);
            self.begin(name, &round.dimension, &arm.objective, control, parent, task.len(), steps, margin_offset)?;
        }
        let held_out = match arm.training.eval_every {
            0 => None,
            _ => Some(self.held_out(index, round, arm, names, history, reference)?),
        };
        Ok((phase, task, held_out))
    }

    /// The arm's own loss and every dimension's margins, on held-out rows.
    fn held_out(
        &self,
        index: usize,
        round: &RoundPlan,
        arm: &ArmPlan,
        names: &[String],
        history: &[PolicyLogps],
        reference: Option<CausalLm>,
    ) -> Result<HeldOutTasks<'a>, TrainError> {
        let set = &self.prepared.held_out;
        let data = ArmData::new(&set.dataset, &round.dimension, arm)?;
        let visits = vec![true; data.len()];
        let samples = self.samples(&data, &visits, &names[index], index, None)?;
        let (order, limit) = ((0..data.len()).collect(), self.prepared.model.context);
        let frozen = Frozen { names, history, samples, reference, order, limit };
        let (own, _) = data.task(frozen, &visits, self.numbers_device())?;
        let of_dimension = |dimension: &String| {
            let rows = set.judged(dimension);
            let start = set.logps(&history[0], &rows)?;
            Ok(HeldOutMargins { dimension: dimension.clone(), dataset: &set.dataset, rows, start })
        };
        let dimensions = set.dimensions.iter().map(of_dimension).collect::<Result<_, TrainError>>()?;
        Ok(HeldOutTasks { own, dimension: Some(round.dimension.clone()), dimensions })
    }

    /// The phase of an arm of the round with this index.
    pub(super) fn phase<'p>(&self, index: usize, arm: &'p ArmPlan, name: &'p str) -> Phase<'p> {
        Phase {
            name,
            round: index as u64 + 1,
            training: &arm.training,
            trainable: self.policies.trainable(),
            seed: self.plan.seed,
        }
    }

    fn finish(&mut self, last: &str) -> Result<(), TrainError> {
        let model = self.take(last)?;
        let dir = self.reporter.out.join(directory::MODEL);
        self.policies.export(last, model, &dir, &mut self.reporter)?;
        let (seconds, report) = (self.reporter.seconds(), self.reporter.out.join(directory::REPORT));
        self.reporter.emit(Event::RunFinished { seconds, model: dir, report })
    }

    /// Says that the run ends before its end.
    pub fn stopped(&mut self, error: &TrainError) -> Result<(), TrainError> {
        self.reporter.emit(Event::RunStopped { reason: error.to_string() })
    }

    /// Steps of the phase that makes a policy.
    fn steps_of(&self, name: &str) -> u64 {
        let warmup = self.plan.warmup.iter().map(|warmup| (WARMUP.to_owned(), warmup.training.steps));
        let arms = self.plan.rounds.iter().flat_map(|round| round.arms.iter().map(move |arm| (round, arm)));
        let mut all = warmup.chain(arms.map(|(round, arm)| (policy_name(round, arm), arm.training.steps)));
        all.find_map(|(policy, steps)| (policy == name).then_some(steps)).expect("every policy is in the plan")
    }

    pub(super) fn numbers_device(&self) -> Device {
        device::cpu()
    }

    /// Tokens scored at once: without a tape twice as many fit as in training.
    pub(super) fn budget(&self) -> usize {
        let arms = self.plan.rounds.iter().flat_map(|round| &round.arms);
        2 * arms.map(|arm| arm.training.micro_batch_tokens(&self.prepared.device)).max().unwrap_or(512)
    }
}
