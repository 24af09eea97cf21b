//! The order of a run: warm-up, rounds with their controls, evaluation, export.

use crate::adapters::policy_options;
use crate::arm::{ArmData, Frozen, row};
use crate::cache::{LogpCache, PolicyLogps};
use crate::config::{ArmPlan, RoundPlan, RunPlan};
use crate::event::Event;
use crate::gate::Gate;
use crate::held_out::{Rewards, log_ratio_margins, reward_scores};
use crate::held_out_tasks::{HeldOutMargins, HeldOutTasks};
use crate::phase::{Phase, PhaseState};
use crate::policy::Policies;
use crate::run::Prepared;
use crate::sampling::{Drawn, Samples, Shown, show, shown_prompts};
use crate::session::Session;
use crate::shared::{Shared, rows_hash};
use crate::stopping::{Keeper, Stopping};
use crate::task::{SupervisedTask, Task};
use crate::{TrainError, memory};
use burn::tensor::Device;
use spo_data::{Dataset, Example};
use spo_eval::{
    Artefact, Bootstrap, DimensionScore, Distribution, GateOutcome, GateSummary, Sample, ScoreKind, Subset,
    paired_difference, score_dimension,
};
use spo_model::{CausalLm, device, parameters};
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

/// Name of π_0 where there is no warm-up.
pub(crate) const START: &str = "start";
/// The artefact that names a run's settings.
pub(crate) const PLAN: &str = "plan";
/// Name of the warm-up and of the policy it makes.
pub(crate) const WARMUP: &str = "warmup";

/// A run that goes through its plan.
pub(crate) struct Driver<'a> {
    plan: &'a RunPlan,
    prepared: &'a Prepared,
    session: Session<'a>,
    policies: Policies,
    cache: LogpCache,
    bootstrap: Bootstrap,
    /// Tokens that end a response.
    stop: Vec<u32>,
    shown: Vec<Shown>,
    /// Earlier runs that policies may be taken from.
    shared: Shared,
    /// Scores of the policies so far, in the scale of the main table.
    matrix: Vec<DimensionScore>,
    /// Steps that a policy comes from, where its phase ended early; and whether its round's gate sent it back.
    ended: BTreeMap<String, (u64, bool)>,
    drawn: Vec<(Drawn, Vec<String>)>,
}

impl<'a> Driver<'a> {
    pub fn new(prepared: &'a Prepared, session: Session<'a>) -> Result<Self, TrainError> {
        let plan = &prepared.plan;
        let mut stop = prepared.model.eos.clone();
        stop.extend(prepared.tokenizer.terminators());
        let dir = session.out.join("policies");
        Ok(Self {
            plan,
            prepared,
            policies: Policies::new(
                policy_options(plan, &prepared.model, &prepared.device)?,
                &dir,
                &prepared.held_out.dataset,
            )?,
            cache: LogpCache::open(&session.out.join("cache"))?,
            bootstrap: Bootstrap { resamples: plan.evaluation.bootstrap_resamples, seed: plan.seed },
            stop,
            shown: shown_prompts(&prepared.held_out, &plan.evaluation, &plan.text, &prepared.tokenizer)?,
            shared: Shared::default(),
            matrix: vec![],
            ended: BTreeMap::new(),
            drawn: vec![],
            session,
        })
    }

    /// Runs all of it.
    pub fn run(mut self) -> Result<(), TrainError> {
        let model = self.policies.start(START)?;
        self.announce(&model)?;
        let (start, model) = match (&self.plan.warmup, self.reuse_warmup()?) {
            (Some(_), Some(model)) => (WARMUP.to_string(), model),
            (Some(warmup), None) => {
                let task = SupervisedTask::new(&self.prepared.train.dataset, &warmup.dimensions);
                let label = warmup.dimensions.join(" + ");
                self.begin(WARMUP, &label, "sft", false, START, task.len(), warmup.training.steps, None)?;
                let phase = Phase {
                    name: WARMUP,
                    round: 0,
                    training: &warmup.training,
                    trainable: self.policies.trainable(),
                    seed: self.plan.seed,
                };
                let held_out = HeldOutTasks {
                    own: Box::new(SupervisedTask::new(&self.prepared.held_out.dataset, &warmup.dimensions)),
                    dimensions: vec![],
                };
                (WARMUP.to_string(), self.train(phase, model, &task, Some(&held_out), START, None)?)
            }
            (None, _) => (START.to_string(), model),
        };
        let mut history = vec![self.freeze(&start, &model, 0)?];
        self.show(&start, &model)?;
        self.draw(&start, &model, &[])?;
        let mut current = Some((start.clone(), model));
        let mut names = vec![start.clone()];
        for (index, round) in self.plan.rounds.iter().enumerate() {
            let mut scores = vec![];
            let mut carried = None;
            for (place, arm) in round.arms.iter().enumerate() {
                let name = policy_name(round, arm);
                let parent = &names[index];
                // Another policy is dropped before this one is loaded: one at a time in memory.
                let loaded = current.take().filter(|(loaded, _)| loaded == parent).map(|(_, model)| model);
                let gate = round.gate.as_ref().filter(|_| carried.is_none());
                let gate = gate.map(|plan| Gate::new(plan, &self.matrix, &names));
                let model = match (self.reuse(&name, Some((index, place)))?, loaded) {
                    (Some(model), _) => model,
                    (None, loaded) => {
                        let model = loaded.map_or_else(|| self.policies.load(parent), Ok)?;
                        self.round(index, round, arm, &name, &names[..=index], model, &history, gate.as_ref())?
                    }
                };
                let later = if carried.is_none() { index + 1 } else { self.plan.rounds.len() };
                let logps = self.freeze(&name, &model, later)?;
                scores.push((name.clone(), self.evaluate(&name, arm, &logps, &history)?));
                self.show(&name, &model)?;
                self.draw(&name, &model, &[start.clone(), parent.clone()])?;
                if let Some(gate) = &gate {
                    self.check_gate(gate, &name)?;
                }
                if carried.is_none() {
                    carried = Some((name.clone(), logps));
                }
                current = Some((name, model));
            }
            self.compare(&scores)?;
            let (name, logps) = carried.expect("resolve gives every round a main arm");
            names.push(name);
            history.push(logps);
        }
        self.estimate_kl(&mut current)?;
        self.finish(&names[names.len() - 1], current)
    }

    fn announce(&mut self, model: &CausalLm) -> Result<(), TrainError> {
        let trainable = self.policies.trainable();
        let mut phases: Vec<(String, u64)> = vec![];
        phases.extend(self.plan.warmup.as_ref().map(|warmup| (WARMUP.to_string(), warmup.training.steps)));
        for round in &self.plan.rounds {
            phases.extend(round.arms.iter().map(|arm| (policy_name(round, arm), arm.training.steps)));
        }
        self.session.emit(Event::RunStarted {
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
        self.session.emit(Event::DataLoaded { sets, conflicts })?;
        let plan = serde_json::to_vec(self.plan).expect("a plan holds only strings and numbers");
        let hash = |name: &str, hash: &str| Artefact { name: name.into(), hash: format!("blake3:{hash}") };
        let artefacts = vec![
            hash(PLAN, &blake3::hash(&plan).to_hex()[..32]),
            hash("starting weights", self.policies.hash(START)),
            hash("training rows, as tokens with their labels", &rows_hash(&self.prepared.train.dataset)),
            hash("held-out rows, as tokens with their labels", &rows_hash(&self.prepared.held_out.dataset)),
        ];
        self.shared = Shared::new(&self.prepared.donors, self.plan, &artefacts)?;
        self.session.emit(Event::Lineage { artefacts })?;
        let start = self.policies.hash(START).to_string();
        self.share_cache(&start)
    }

    /// Takes the log-probs of a policy over that an earlier run has computed.
    fn share_cache(&self, hash: &str) -> Result<(), TrainError> {
        for dir in self.shared.dirs() {
            if self.cache.adopt(&dir.join("cache"), hash)? {
                break;
            }
        }
        Ok(())
    }

    fn reuse_warmup(&mut self) -> Result<Option<CausalLm>, TrainError> {
        if self.plan.warmup.is_some() { self.reuse(WARMUP, None) } else { Ok(None) }
    }

    /// A policy of an earlier run that is the one to be made, if there is one.
    fn reuse(&mut self, name: &str, place: Option<(usize, usize)>) -> Result<Option<CausalLm>, TrainError> {
        let Some(found) = self.shared.find(self.plan, name, place) else { return Ok(None) };
        let model = self.policies.adopt(name, &found.dir.join("policies"), found.hash)?;
        self.cache.adopt(&found.dir.join("cache"), found.hash)?;
        self.session.emit(Event::Reused { policy: name.into(), from: found.dir.into() })?;
        for mut event in found.events {
            match &mut event {
                Event::PhaseEnded { step, steps, policy_of, .. } => {
                    self.ended.insert(name.into(), (*policy_of, step == steps));
                }
                Event::PolicySaved { path, .. } => *path = self.policies.path(name),
                _ => {}
            }
            self.session.emit(event)?;
        }
        Ok(Some(model))
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
        carry: Option<Distribution>,
    ) -> Result<(), TrainError> {
        self.session.emit(Event::PhaseStarted {
            phase: phase.into(),
            dimension: dimension.into(),
            objective: objective.into(),
            control,
            start: start.into(),
            pairs,
            steps,
            carry,
        })
    }

    /// Runs a phase and saves the policy it makes.
    fn train(
        &mut self,
        phase: Phase,
        model: CausalLm,
        task: &dyn Task,
        held_out: Option<&HeldOutTasks>,
        parent: &str,
        gate: Option<&Gate>,
    ) -> Result<CausalLm, TrainError> {
        let started = Instant::now();
        let token_budget = self.budget();
        let stopping = Stopping::new(Keeper {
            policies: &mut self.policies,
            phase: phase.name,
            training: phase.training,
            parent,
            gate: gate.filter(|gate| gate.rolls_back()),
            held_out: &self.prepared.held_out,
            evaluation: &self.plan.evaluation,
            stop: &self.stop,
            seed: self.plan.seed,
            token_budget,
        });
        let state = phase.run(PhaseState::new(model), task, held_out, stopping, &mut self.session)?;
        if state.step < phase.training.steps {
            self.ended.insert(phase.name.into(), (state.step, state.rolled_back));
        }
        self.session.emit(Event::PhaseFinished {
            phase: phase.name.into(),
            seconds: started.elapsed().as_secs_f64(),
            tokens: state.tokens,
            peak_bytes: memory::peak_resident_bytes(),
        })?;
        self.policies.save(phase.name, state.model, &mut self.session)
    }

    /// One arm of a round, from its parent policy.
    #[allow(clippy::too_many_arguments)]
    fn round(
        &mut self,
        index: usize,
        round: &RoundPlan,
        arm: &ArmPlan,
        name: &str,
        names: &[String],
        model: CausalLm,
        history: &[PolicyLogps],
        gate: Option<&Gate>,
    ) -> Result<CausalLm, TrainError> {
        let parent = &names[index];
        let data = ArmData::new(&self.prepared.train.dataset, &round.dimension, arm)?;
        let phase = self.phase(index, arm, name);
        let (visits, order) = (phase.visits(data.len()), phase.epoch(data.len()));
        let samples = self.samples(&data, &visits, parent, index, None)?;
        let reference = data.needs_reference_model().then(|| self.policies.load(parent)).transpose()?;
        let limit = self.prepared.model.context;
        let frozen = Frozen { names, history, samples, reference: reference.clone(), order, limit };
        let (task, carry) = data.task(frozen, &visits, self.numbers_device())?;
        let carry = carry.map(|carry| Distribution::of("c", &carry)).transpose()?;
        let control = arm.name != round.main().name;
        self.begin(name, &round.dimension, &arm.objective, control, parent, task.len(), arm.training.steps, carry)?;
        let held_out = match arm.training.eval_every {
            0 => None,
            _ => Some(self.held_out(index, round, arm, names, history, reference)?),
        };
        let model = self.policies.begin_round(parent, model, phase.round)?;
        self.train(phase, model, task.as_ref(), held_out.as_ref(), parent, gate)
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
            let start = history[0].judged(&set.dataset, &rows)?;
            Ok(HeldOutMargins { dimension: dimension.clone(), dataset: &set.dataset, rows, start })
        };
        let dimensions = set.dimensions.iter().map(of_dimension).collect::<Result<_, TrainError>>()?;
        Ok(HeldOutTasks { own, dimensions })
    }

    /// The answers that an arm needs of its reference; drawn by `model` if they are not on disk yet.
    fn samples(
        &self,
        data: &ArmData,
        visits: &[bool],
        parent: &str,
        index: usize,
        model: Option<&CausalLm>,
    ) -> Result<Option<Samples>, TrainError> {
        let Some(tokens) = data.sampled_tokens() else { return Ok(None) };
        let (prompts, seed) = (data.prompts(visits), self.plan.seed.wrapping_add(index as u64 + 1));
        let cache = self.session.out.join("cache");
        let path = Samples::path(&cache, self.policies.hash(parent), &prompts, tokens, seed);
        match (Samples::read(&path)?, model) {
            (None, Some(model)) => {
                Samples::draw(model, &prompts, tokens, &self.stop, seed, &path, &self.session).map(Some)
            }
            (samples, _) => Ok(samples),
        }
    }

    /// The phase of an arm of the round with this index.
    fn phase<'p>(&self, index: usize, arm: &'p ArmPlan, name: &'p str) -> Phase<'p> {
        Phase {
            name,
            round: index as u64 + 1,
            training: &arm.training,
            trainable: self.policies.trainable(),
            seed: self.plan.seed,
        }
    }

    /// Stores a policy's log-probs of the held-out pairs and of the pairs that the rounds from
    /// `from` on will visit: from then on nothing else of it is needed.
    fn freeze(&mut self, name: &str, model: &CausalLm, from: usize) -> Result<PolicyLogps, TrainError> {
        let train = &self.prepared.train.dataset;
        let mut wanted = vec![false; train.examples.len()];
        let mut more = vec![];
        for (index, round) in self.plan.rounds.iter().enumerate().skip(from) {
            for arm in &round.arms {
                let data = ArmData::new(train, &round.dimension, arm)?;
                let phase = self.phase(index, arm, "");
                let (visits, order) = (phase.visits(data.len()), phase.epoch(data.len()));
                (0..data.len()).filter(|&row| visits[row]).for_each(|row| wanted[data.example(row)] = true);
                // The next round's reference is this policy.
                let reference = (index == from).then_some((name, model));
                more.extend(self.more_rows(&data, &visits, &order, index, reference)?);
                if arm.training.eval_every > 0 {
                    let data = ArmData::new(&self.prepared.held_out.dataset, &round.dimension, arm)?;
                    let (visits, order) = (vec![true; data.len()], (0..data.len()).collect::<Vec<_>>());
                    more.extend(self.more_rows(&data, &visits, &order, index, reference)?);
                }
            }
        }
        let examples = train.examples.iter().zip(wanted).filter(|(_, wanted)| *wanted);
        let mut examples: Vec<Example> = examples.map(|(example, _)| example.clone()).collect();
        let mut seen = HashSet::new();
        examples.extend(more.into_iter().filter(|example| seen.insert(example.answer_hash(0))));
        let later = Dataset { examples, report: Default::default() };
        let hash = self.policies.hash(name).to_string();
        let sets = [&later, &self.prepared.held_out.dataset];
        self.cache.fill(name, &hash, model, &sets, self.budget(), &mut self.session)
    }

    /// Prompts and answers beside the data's own that a frozen policy must score for an arm; `reference` is the policy
    /// that the arm starts from, if it is this one.
    fn more_rows(
        &self,
        data: &ArmData,
        visits: &[bool],
        order: &[usize],
        index: usize,
        reference: Option<(&str, &CausalLm)>,
    ) -> Result<Vec<Example>, TrainError> {
        let mut rows = data.shortened(visits);
        if let Some((name, model)) = reference {
            rows.extend(data.mismatched(visits, order, self.prepared.model.context));
            if let Some(samples) = self.samples(data, visits, name, index, Some(model))? {
                let drawn = samples.iter().filter(|(_, answer)| !answer.is_empty());
                rows.extend(drawn.map(|(prompt, answer)| row("a sampled answer", prompt, answer)));
            }
        }
        Ok(rows)
    }

    /// Scores a policy on the held-out pairs of every dimension. Returns its margins.
    fn evaluate(
        &mut self,
        name: &str,
        arm: &ArmPlan,
        logps: &PolicyLogps,
        history: &[PolicyLogps],
    ) -> Result<BTreeMap<String, Vec<f64>>, TrainError> {
        let set = &self.prepared.held_out;
        let rewards = Rewards::of(self.plan, arm)?;
        let (mut scores, mut distributions, mut all) = (vec![], vec![], BTreeMap::new());
        for dimension in &set.dimensions {
            let rows = set.judged(dimension);
            let margins =
                log_ratio_margins(&logps.judged(&set.dataset, &rows)?, &history[0].judged(&set.dataset, &rows)?);
            scores.push(score_dimension(name, dimension, &set.pair_scores(dimension, &margins), &self.bootstrap)?);
            scores.extend(reward_scores(
                set,
                name,
                dimension,
                logps,
                history,
                &rewards,
                &self.bootstrap,
                &self.numbers_device(),
            )?);
            distributions.push(Distribution::of(&format!("{name}: {dimension}"), &margins)?);
            all.insert(dimension.clone(), margins);
        }
        self.matrix.extend(scores.iter().filter(|score| score.kind == ScoreKind::LogRatio).cloned());
        self.session.emit(Event::Evaluated {
            policy: name.into(),
            step: self.ended.get(name).map_or(arm.training.steps, |(step, _)| *step),
            scores,
            margins: distributions,
        })?;
        Ok(all)
    }

    /// Compares the main arm with each control on the same pairs.
    fn compare(&mut self, scores: &[(String, BTreeMap<String, Vec<f64>>)]) -> Result<(), TrainError> {
        let set = &self.prepared.held_out;
        let Some(((main, of_main), controls)) = scores.split_first() else { return Ok(()) };
        for (control, of_control) in controls {
            for dimension in &set.dimensions {
                let a = set.pair_scores(dimension, &of_main[dimension]);
                let b = set.pair_scores(dimension, &of_control[dimension]);
                for subset in [Subset::All, Subset::Conflicting] {
                    if let Some(difference) =
                        paired_difference(dimension, (main, &a), (control, &b), subset, &self.bootstrap)?
                    {
                        self.session.emit(Event::Compared(difference))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn show(&mut self, name: &str, model: &CausalLm) -> Result<(), TrainError> {
        let answers =
            show(model, &self.shown, &self.plan.evaluation, &self.stop, &self.prepared.tokenizer, &self.session)?;
        for (shown, answer) in self.shown.iter().zip(answers) {
            let by_policy = vec![(name.to_owned(), answer)];
            self.session.emit(Event::Sampled(Sample { prompt: shown.text.clone(), by_policy }))?;
        }
        Ok(())
    }

    /// Holds a round's policy against its gate.
    fn check_gate(&mut self, gate: &Gate, name: &str) -> Result<(), TrainError> {
        let checks = gate.check(name, &self.matrix);
        let passed = checks.iter().all(|check| check.passed);
        let rolled_back = self.ended.get(name).is_some_and(|(_, rolled_back)| *rolled_back);
        let outcome = match (passed, rolled_back) {
            (true, false) => GateOutcome::Passed,
            (true, true) => GateOutcome::RolledBack,
            (false, _) => GateOutcome::Stopped,
        };
        let summary = GateSummary { policy: name.into(), checks, outcome };
        let missed = summary.missed().join("; ");
        self.session.emit(Event::GateChecked(summary))?;
        if passed { Ok(()) } else { Err(TrainError::GateMissed { policy: name.into(), missed }) }
    }

    fn draw(&mut self, name: &str, model: &CausalLm, references: &[String]) -> Result<(), TrainError> {
        if self.plan.evaluation.kl_samples > 0 {
            let (set, plan, budget) = (&self.prepared.held_out, &self.plan.evaluation, self.budget());
            let drawn = Drawn::draw(name, model, set, plan, &self.stop, self.plan.seed, budget, &self.session)?;
            let mut references = references.to_vec();
            references.dedup();
            let step = self.ended.get(name).map(|(step, _)| *step);
            let step = step.or_else(|| self.steps_of(name)).unwrap_or(0);
            self.session.emit(drawn.event(step))?;
            self.drawn.push((drawn, references));
        }
        Ok(())
    }

    /// Scores every policy's drawn responses under the policies it is measured from, each of which
    /// is loaded once.
    fn estimate_kl(&mut self, current: &mut Option<(String, CausalLm)>) -> Result<(), TrainError> {
        let mut references: Vec<String> = vec![];
        for reference in self.drawn.iter().flat_map(|(_, references)| references) {
            if !references.contains(reference) {
                references.push(reference.clone());
            }
        }
        for reference in references {
            *current = None;
            let model = self.policies.load(&reference)?;
            for (drawn, wanted) in &self.drawn {
                self.session.check_stop()?;
                if wanted.contains(&reference) {
                    let estimate = drawn.kl(&reference, &model, self.budget())?;
                    self.session.emit(Event::KlEstimated(estimate))?;
                }
            }
        }
        Ok(())
    }

    fn finish(mut self, last: &str, current: Option<(String, CausalLm)>) -> Result<(), TrainError> {
        let model = match current.filter(|(name, _)| name == last) {
            Some((_, model)) => model,
            None => self.policies.load(last)?,
        };
        let dir = self.session.out.join("model");
        self.policies.export(last, model, &dir, &mut self.session)?;
        let (seconds, report) = (self.session.seconds(), self.session.out.join("report.md"));
        self.session.emit(Event::RunFinished { seconds, model: dir, report })
    }

    /// Steps of the phase that makes a policy.
    fn steps_of(&self, name: &str) -> Option<u64> {
        let warmup = self.plan.warmup.iter().map(|warmup| (WARMUP.to_owned(), warmup.training.steps));
        let arms = self.plan.rounds.iter().flat_map(|round| round.arms.iter().map(move |arm| (round, arm)));
        let mut all = warmup.chain(arms.map(|(round, arm)| (policy_name(round, arm), arm.training.steps)));
        all.find_map(|(policy, steps)| (policy == name).then_some(steps))
    }

    fn numbers_device(&self) -> Device {
        device::cpu()
    }

    /// Tokens scored at once: without a tape twice as many fit as in training.
    fn budget(&self) -> usize {
        let arms = self.plan.rounds.iter().flat_map(|round| &round.arms);
        2 * arms.map(|arm| arm.training.micro_batch_tokens(&self.prepared.device)).max().unwrap_or(512)
    }
}

/// The policy that an arm makes: the round's name, with the control's name behind it.
fn policy_name(round: &RoundPlan, arm: &ArmPlan) -> String {
    if arm.name == round.main().name { round.name.clone() } else { format!("{}.{}", round.name, arm.name) }
}
