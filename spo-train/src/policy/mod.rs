//! Policies as named artefacts on disk: the whole weights, or an adapter on the starting model.

pub mod adapters;
pub(crate) mod dealt;
pub mod embeddings;
pub mod logps;
pub mod sampling;

use crate::TrainError;
use crate::events::Event;
use crate::events::reporter::Reporter;
use crate::persist::directory::{best_aside, best_path, kept_path};
use crate::persist::disk_space;
use crate::persist::durable::{link_files, replace_dir, seal, seal_fault};
use crate::step::gradients::Trainable;
use burn::tensor::{DType, Device};
use spo_data::meta::MetaPrompts;
use spo_data::{Dataset, TextSpec, Tokenizer};
use spo_model::device::on_cpu;
use spo_model::export::{self, Base, Manifest, ModelFiles, Parity, Probe, rounding};
use spo_model::family;
use spo_model::load::{LoadOptions, Storage};
use spo_model::lora::{self, LoraSpec, is_adapter};
use spo_model::reward::{Critic, Pooling, RewardModel, is_reward_model};
use spo_model::steering::{SteeringSpec, is_steering};
use spo_model::{CausalLm, ModelError, parameters};
use spo_team::Team;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Finishes what was interrupted while one best policy took the place of another.
pub(crate) fn settle_best(policies: &Path, phase: &str) -> Result<(), TrainError> {
    let (dir, aside) = (best_path(policies, phase), best_aside(policies, phase));
    let interrupted = seal_fault(&dir)?.is_some() && seal_fault(&aside)?.is_none();
    if interrupted { replace_dir(&aside, &dir) } else { Ok(()) }
}

/// What the policies of a run have in common.
#[derive(Debug)]
pub struct PolicyOptions {
    /// The model directory that the run starts from.
    pub base: PathBuf,
    /// The families that it may be of.
    pub families: family::Registry,
    /// In which form its weights are kept in memory.
    pub load: LoadOptions,
    /// Adapters, where they are trained and not the weights.
    pub lora: Option<LoraSpec>,
    /// The adapter that the run starts from, where it is not a fresh one.
    pub start: Option<PathBuf>,
    /// What makes them policies for many users.
    pub steering: Option<SteeringSpec>,
    /// What is asked of a score head, where reward models are made.
    pub reward: Option<RewardHead>,
    /// Whether a round leaves the adapter it starts from as it is and trains a fresh one on top.
    pub stack: bool,
    /// Seed of fresh adapters.
    pub seed: u64,
    /// How text is laid out for them.
    pub text: TextSpec,
    /// The meta-prompts that they are trained with, if they are.
    pub meta_prompts: Option<MetaPrompts>,
    /// Where the model is.
    pub device: Device,
}

/// What reward models do beside scoring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RewardHead {
    /// Most tokens of a critique, where they write any first: that takes the head for tokens.
    pub critique_tokens: Option<usize>,
}

/// The policies of a run. At most one of them is in memory.
#[derive(Debug)]
pub struct Policies {
    options: PolicyOptions,
    files: ModelFiles,
    /// Which token a fresh score head reads.
    pooling: Pooling,
    /// How critiques are asked for.
    critic: Option<Critic>,
    dir: PathBuf,
    probe: Probe,
    hashes: BTreeMap<String, String>,
    /// Rank 0 of these writes; all read.
    team: Rc<Team>,
}

impl Policies {
    /// The policies of a run, kept in `dir`, and compared on the first of `probes` when they were saved.
    ///
    /// # Errors
    /// A file beside the weights cannot be read.
    pub fn new(options: PolicyOptions, dir: &Path, probes: &Dataset) -> Result<Self, TrainError> {
        let files = ModelFiles::from_path(&options.base)?.with_ends()?;
        let pooling = if options.reward.is_some() { files.pooling()? } else { Pooling::Last };
        let critic = match options.reward.and_then(|reward| reward.critique_tokens) {
            Some(tokens) => Some(Critic::new(&Tokenizer::from_files(files.by_name())?, tokens)?),
            None => None,
        };
        let probe = Probe::new(probes.examples.iter());
        Ok(Self {
            options,
            files,
            pooling,
            critic,
            dir: dir.into(),
            probe,
            hashes: BTreeMap::new(),
            team: Rc::default(),
        })
    }

    /// Those of a run that several processes share, who all see the directory.
    #[must_use]
    pub fn with_team(self, team: Rc<Team>) -> Self {
        Self { team, ..self }
    }

    /// What is trained.
    pub fn trainable(&self) -> Trainable {
        match &self.options.lora {
            None => Trainable::All,
            Some(lora) if self.options.steering.is_some() => Trainable::AdaptersAndSteering(lora.saved),
            Some(lora) if lora.saved.is_empty() => Trainable::Adapters,
            Some(lora) => Trainable::AdaptersAnd(lora.saved),
        }
    }

    /// The starting model, with fresh adapters or those that the run starts from where it trains adapters.
    ///
    /// # Errors
    /// The model cannot be loaded, or the adapters do not fit it.
    pub fn start(&mut self, name: &str) -> Result<CausalLm, TrainError> {
        let model = self.open_base()?;
        let model = match (&self.options.lora, &self.options.start) {
            (Some(lora), Some(dir)) => lora::load_adapter_as(model, dir, lora)?,
            (Some(lora), None) => model.with_lora(lora, self.options.seed)?,
            (None, _) => model,
        };
        let model = match &self.options.steering {
            Some(steering) => model.with_steering(steering, lora::mix(!self.options.seed)),
            None => model,
        };
        self.hashes.insert(name.into(), hash(&model));
        Ok(model)
    }

    /// A saved policy.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub fn load(&mut self, name: &str) -> Result<CausalLm, TrainError> {
        let dir = self.path(name);
        if !dir.exists() {
            return self.start(name);
        }
        self.read(&dir)
    }

    /// The policy `parent` made ready to be trained in the round of this number.
    ///
    /// # Errors
    /// The adapters do not fit.
    pub fn begin_round(&self, parent: &str, model: CausalLm, round: u64) -> Result<CausalLm, TrainError> {
        match &self.options.lora {
            Some(lora) if self.options.stack && self.adapter(parent).is_some() => {
                Ok(model.stacked(lora, self.options.seed ^ lora::mix(round))?)
            }
            _ => Ok(model),
        }
    }

    /// Where a policy is kept.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where a policy's adapter is kept: nowhere if it has none, or a fresh one.
    fn adapter(&self, name: &str) -> Option<PathBuf> {
        self.options.lora.as_ref()?;
        let saved = Some(self.path(name)).filter(|dir| dir.exists());
        saved.or_else(|| self.options.start.clone())
    }

    /// Hash of a policy's weights: what its log-probs are stored under.
    pub fn hash(&self, name: &str) -> &str {
        self.hashes.get(name).expect("a policy is hashed when it is loaded or saved")
    }

    /// Notes the hash of a policy that is not in memory.
    pub fn register(&mut self, name: &str, hash: String) {
        self.hashes.insert(name.into(), hash);
    }

    /// Saves a policy, reads it back and compares it on a few rows. The model that was read back is
    /// returned: what goes on is what is on disk.
    ///
    /// # Errors
    /// It cannot be written or read, or comes back with other log-probs.
    pub fn save(&mut self, name: &str, model: CausalLm, reporter: &mut Reporter) -> Result<CausalLm, TrainError> {
        let dir = self.path(name);
        let aside = self.dir.join(format!(".{name}.part"));
        let model = self.kept_parts(model.joined().at_equal_weights().unsteered());
        self.team.root(|| {
            remove(&aside)?;
            self.write(&model, &aside)?;
            replace_dir(&aside, &dir)
        })?;
        let before = self.probe.score(&model);
        self.hashes.insert(name.into(), hash(&model));
        drop(model);
        let model = self.load(name)?;
        let parity = Parity::check(&self.probe, &before, &self.probe.score(&model), self.noise(&before), &dir)?;
        let drift = parity.largest_difference;
        let format = if self.options.lora.is_some() { "peft" } else { "hf" };
        let mut manifest = Manifest::new(format, dtype_name(&model), parity);
        manifest.policy = Some(name.into());
        manifest.hash = Some(self.hash(name).into());
        self.tell_layout(&mut manifest);
        manifest.base = self.options.lora.is_some().then(|| self.base());
        self.team.root(|| manifest.write(&dir).map_err(TrainError::from))?;
        reporter.emit(Event::PolicySaved { policy: name.into(), path: dir, hash: self.hash(name).into(), drift })?;
        Ok(model)
    }

    /// Takes a policy over from another run's directory of policies.
    ///
    /// # Errors
    /// It cannot be linked, copied or loaded, or is not the one that was saved there.
    pub fn adopt(&mut self, name: &str, from: &Path, wanted: &str) -> Result<CausalLm, TrainError> {
        let (dir, aside) = (self.path(name), self.dir.join(format!(".{name}.part")));
        remove(&aside)?;
        link_files(&from.join(name), &aside)?;
        replace_dir(&aside, &dir)?;
        let model = self.load(name)?;
        let found = hash(&model);
        if found != wanted {
            let reason = format!("its weights have the hash {found}, but {wanted} when they were saved");
            return Err(TrainError::Damaged { path: from.join(name), reason });
        }
        self.hashes.insert(name.into(), found);
        Ok(model)
    }

    /// Takes the best policy of a phase over from another run's directory of policies, if one is kept there.
    ///
    /// # Errors
    /// It cannot be linked or copied.
    pub fn adopt_best(&self, phase: &str, from: &Path) -> Result<(), TrainError> {
        let (theirs, aside) = (best_path(from, phase), best_aside(&self.dir, phase));
        if !theirs.exists() {
            return Ok(());
        }
        remove(&aside)?;
        link_files(&theirs, &aside)?;
        replace_dir(&aside, &best_path(&self.dir, phase))
    }

    /// Keeps a running policy aside, beside those kept before: a checkpoint may still need one of them.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, phase: &str, step: u64, model: &CausalLm) -> Result<(), TrainError> {
        self.write_sealed(model, &self.dir.join(format!(".{phase}.part")), &kept_path(&self.dir, phase, step))
    }

    /// Keeps a running policy as the best of its phase, in the place of the one before.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_best(&self, phase: &str, model: &CausalLm) -> Result<(), TrainError> {
        self.write_sealed(model, &best_aside(&self.dir, phase), &best_path(&self.dir, phase))
    }

    fn write_sealed(&self, model: &CausalLm, aside: &Path, dir: &Path) -> Result<(), TrainError> {
        self.team.root(|| {
            remove(aside)?;
            self.write(model, aside)?;
            seal(aside)?;
            replace_dir(aside, dir)
        })
    }

    /// The running policy that was kept after this many steps.
    ///
    /// # Errors
    /// It is damaged, or cannot be loaded.
    pub fn kept(&self, phase: &str, step: u64) -> Result<CausalLm, TrainError> {
        let dir = kept_path(&self.dir, phase, step);
        match seal_fault(&dir)? {
            None => self.read(&dir),
            Some(reason) => Err(TrainError::Damaged { path: dir, reason }),
        }
    }

    /// Removes all that were kept but one.
    ///
    /// # Errors
    /// One cannot be removed.
    pub fn forget_kept(&self, phase: &str, but: Option<u64>) -> Result<(), TrainError> {
        let but = but.map(|step| kept_path(&self.dir, phase, step));
        self.team.root(|| self.forget(&format!(".{phase}.kept-"), but.as_deref()))
    }

    /// Removes the directories whose names start so, but one.
    fn forget(&self, start: &str, but: Option<&Path>) -> Result<(), TrainError> {
        for entry in std::fs::read_dir(&self.dir).map_err(|e| TrainError::io(&self.dir, e))? {
            let path = entry.map_err(|e| TrainError::io(&self.dir, e))?.path();
            let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start));
            if named && but != Some(path.as_path()) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn write(&self, model: &CausalLm, dir: &Path) -> Result<(), TrainError> {
        let values = match &self.options.lora {
            Some(lora) => {
                parameters::count(model, |path| is_adapter(path) || is_steering(path) || lora.saved.contains(path))
            }
            None => parameters::count(model, |path| !is_adapter(path)),
        };
        disk_space::require(dir, (values * model.dtype().size()) as u64, true)?;
        let model = &self.kept_parts(model.clone());
        match &self.options.lora {
            Some(spec) => lora::save_adapter(model, spec, &self.options.base.display().to_string(), dir)?,
            // What an optimiser keeps beside the weights goes into them.
            None => export::save(&model.clone().merged(), &self.files, dir, export::SHARD_BYTES)?,
        }
        Ok(())
    }

    fn read(&self, dir: &Path) -> Result<CausalLm, TrainError> {
        match &self.options.lora {
            Some(_) => Ok(lora::load_adapter(self.open_base()?, dir)?.0),
            None => self.open(dir, self.options.load),
        }
    }

    /// Writes the policy called `name`, which is `model`, as a Hugging Face directory. Adapters are
    /// merged into the weights of the base's file, whatever type they were trained on.
    ///
    /// # Errors
    /// It cannot be written or read back, or differs by more than rounding explains.
    pub fn export(&self, name: &str, model: CausalLm, dir: &Path, reporter: &mut Reporter) -> Result<(), TrainError> {
        let in_memory = self.probe.score(&model);
        let LoadOptions { storage, blocks } = self.options.load;
        let whole = LoadOptions { storage, blocks: None };
        let adapter = self.adapter(name);
        let adapted = adapter.is_some();
        let (merged, before) = match &adapter {
            None if blocks.is_some() => {
                let before = self.probe.score(&self.open(&self.options.base, whole)?);
                (self.open(&self.options.base, LoadOptions::default())?, before)
            }
            None => (model.without_lora(), in_memory.clone()),
            Some(adapter) => {
                drop(model);
                let before = match blocks {
                    None => in_memory.clone(),
                    Some(_) => {
                        let base = self.open(&self.options.base, whole)?;
                        self.probe.score(&lora::load_adapter(base, adapter)?.0)
                    }
                };
                let base = self.open(&self.options.base, LoadOptions::default())?;
                (lora::merge_adapter(base, adapter)?, before)
            }
        };
        let written = merged.dtype();
        disk_space::require(dir, (parameters::count(&merged, |_| true) * written.size()) as u64, true)?;
        let aside = dir.with_added_extension("part");
        remove(&aside)?;
        export::save(&merged, &self.files, &aside, export::SHARD_BYTES)?;
        replace_dir(&aside, dir)?;
        drop(merged);
        let saved = self.open(dir, whole)?;
        let allowed = match adapted {
            false => self.noise(&before),
            true => rounding(written, &before).max(rounding(saved.dtype(), &before)),
        };
        let parity = Parity::check(&self.probe, &before, &self.probe.score(&saved), allowed, dir)?;
        let merge_drift = parity.largest_difference;
        let quantisation_drift = blocks.filter(|_| adapted).map(|_| export::largest_difference(&in_memory, &before));
        let mut manifest = Manifest::new("hf", format!("{written:?}").to_lowercase(), parity);
        manifest.policy = Some(name.into());
        self.tell_layout(&mut manifest);
        manifest.base = adapted.then(|| self.base());
        manifest.merged_adapter = adapter.map(|adapter| adapter.display().to_string());
        manifest.quantisation_difference = quantisation_drift;
        manifest.write(dir)?;
        let path = dir.into();
        reporter.emit(Event::ModelExported { policy: name.into(), path, drift: merge_drift, quantisation_drift })
    }

    /// How text and meta-prompts are laid out for the policies.
    fn tell_layout(&self, manifest: &mut Manifest) {
        manifest.text = Some(self.options.text.clone());
        manifest.meta_prompts.clone_from(&self.options.meta_prompts);
    }

    /// The model without a head that only helped to train it.
    fn kept_parts(&self, model: CausalLm) -> CausalLm {
        if self.options.reward.is_some() { model } else { model.without_score_head() }
    }

    fn open_base(&self) -> Result<CausalLm, TrainError> {
        self.open(&self.options.base, self.options.load)
    }

    /// A model directory, with a score head where reward models are made: its own, or a fresh one.
    fn open(&self, dir: &Path, load: LoadOptions) -> Result<CausalLm, TrainError> {
        let PolicyOptions { families, device, reward, seed, .. } = &self.options;
        let Some(RewardHead { critique_tokens }) = *reward else { return Ok(families.open(dir, load, device)?) };
        let (mut model, writes) = match is_reward_model(dir)? {
            true => {
                let RewardModel { model, writes, .. } = families.open_reward(dir, load, device)?;
                (model, writes)
            }
            false => (families.open(dir, load, device)?.with_score_head(lora::mix(*seed), self.pooling), true),
        };
        let refuse = |reason: &str| {
            let reason = format!("{reason}: start from the language model");
            Err(ModelError::Reward { dir: dir.into(), reason }.into())
        };
        match critique_tokens {
            None => model = model.without_lm_head(),
            Some(_) if !writes => return refuse("it has no head for tokens, and cannot learn to write critiques"),
            Some(_) => {}
        }
        match &mut model.score {
            Some(head) if head.labels() == 1 && head.bias.is_none() => head.critic.clone_from(&self.critic),
            _ => return refuse("training goes on from a score head of one label without bias only"),
        }
        Ok(model)
    }

    /// What a policy's adapter is for.
    fn base(&self) -> Base {
        let quantised = self.options.load.blocks.map(|bits| bits.name());
        Base { path: self.options.base.display().to_string(), quantised }
    }

    /// How far log-probs of the same weights may differ: not at all on the CPU; a GPU may choose
    /// other kernels the second time.
    fn noise(&self, logps: &[f64]) -> f64 {
        let storage = self.options.load.storage.map_or(DType::F32, Storage::dtype);
        if on_cpu(&self.options.device) { 0.0 } else { rounding(storage, logps) }
    }
}

fn dtype_name(model: &CausalLm) -> String {
    format!("{:?}", model.dtype()).to_lowercase()
}

/// Removes a directory, if it is there.
fn remove(dir: &Path) -> Result<(), TrainError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(TrainError::io(dir, e)),
        _ => Ok(()),
    }
}

/// Hash of what makes the model's log-probs: its weights and adapters, their type, and the way of
/// scoring them. Conditional adapters count with what they are at equal weights.
pub(crate) fn hash(model: &CausalLm) -> String {
    let base = parameters::hash(model, |path| !is_adapter(path));
    let adapters = parameters::hash(model, is_adapter);
    let text = format!("packed-v1 {:?} {base} {adapters}", model.dtype());
    blake3::hash(text.as_bytes()).to_hex()[..32].to_string()
}
