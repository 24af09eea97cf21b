//! Policies as named artefacts on disk: the whole weights, or an adapter on the starting model.

use crate::TrainError;
use crate::durable::replace_dir;
use crate::event::Event;
use crate::gradients::Trainable;
use crate::session::Session;
use crate::shared::link_files;
use burn::tensor::Device;
use spo_core::logprob::HeadOptions;
use spo_data::{Dataset, Group};
use spo_model::device::on_cpu;
use spo_model::export::{self, ModelFiles};
use spo_model::load::Storage;
use spo_model::lora::{self, LoraSpec, is_adapter};
use spo_model::{CausalLm, ModelError, parameters};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Pairs that a saved policy is compared on.
const PROBES: usize = 8;

/// The policies of a run. At most one of them is in memory.
#[derive(Debug)]
pub struct Policies {
    base: PathBuf,
    files: ModelFiles,
    storage: Storage,
    lora: Option<LoraSpec>,
    seed: u64,
    device: Device,
    dir: PathBuf,
    hashes: BTreeMap<String, String>,
}

impl Policies {
    /// The policies of a run that starts from the model directory `base` and keeps its own in `dir`.
    ///
    /// # Errors
    /// A file beside the weights cannot be read.
    pub fn new(
        base: &Path,
        storage: Storage,
        lora: Option<LoraSpec>,
        seed: u64,
        device: &Device,
        dir: &Path,
    ) -> Result<Self, TrainError> {
        let files = ModelFiles::from_dir(base)?;
        Ok(Self {
            base: base.into(),
            files,
            storage,
            lora,
            seed,
            device: device.clone(),
            dir: dir.into(),
            hashes: BTreeMap::new(),
        })
    }

    /// What is trained.
    pub fn trainable(&self) -> Trainable {
        if self.lora.is_some() { Trainable::Adapters } else { Trainable::All }
    }

    /// The starting model, with fresh adapters where the run trains adapters.
    ///
    /// # Errors
    /// The model cannot be loaded, or the adapters do not fit it.
    pub fn start(&mut self, name: &str) -> Result<CausalLm, TrainError> {
        let model = CausalLm::from_dir(&self.base, Some(self.storage), &self.device)?;
        let model = match &self.lora {
            Some(lora) => model.with_lora(lora, self.seed)?,
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

    /// Where a policy is kept.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Hash of a policy's weights: what its log-probs are stored under.
    pub fn hash(&self, name: &str) -> &str {
        self.hashes.get(name).expect("a policy is hashed when it is loaded or saved")
    }

    /// Notes the hash of a policy that is not in memory.
    pub fn know(&mut self, name: &str, hash: String) {
        self.hashes.insert(name.into(), hash);
    }

    /// Saves a policy, reads it back and compares it on a few rows. The model that was read back is
    /// returned: what goes on is what is on disk.
    ///
    /// # Errors
    /// It cannot be written or read, or comes back with other log-probs.
    pub fn save(
        &mut self,
        name: &str,
        model: CausalLm,
        probes: &Dataset,
        session: &mut Session,
    ) -> Result<CausalLm, TrainError> {
        let dir = self.path(name);
        let aside = self.dir.join(format!(".{name}.part"));
        remove(&aside)?;
        self.write(&model, &aside)?;
        replace_dir(&aside, &dir)?;
        let before = probe(&model, probes);
        self.hashes.insert(name.into(), hash(&model));
        drop(model);
        let model = self.load(name)?;
        let drift = largest_difference(&before, &probe(&model, probes));
        let allowed = self.noise(&before);
        if drift > allowed {
            return Err(ModelError::Parity { path: dir, drift, allowed }.into());
        }
        session.emit(Event::PolicySaved { policy: name.into(), path: dir, hash: self.hash(name).into(), drift })?;
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

    /// Keeps a running policy aside, in the place of the one kept before.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, phase: &str, model: &CausalLm) -> Result<(), TrainError> {
        let (kept, aside) = (self.kept_path(phase), self.dir.join(format!(".{phase}.part")));
        remove(&aside)?;
        self.write(model, &aside)?;
        replace_dir(&aside, &kept)
    }

    /// The running policy that was kept.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub fn kept(&self, phase: &str) -> Result<CausalLm, TrainError> {
        self.read(&self.kept_path(phase))
    }

    /// Removes it.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget_kept(&self, phase: &str) -> Result<(), TrainError> {
        remove(&self.kept_path(phase))
    }

    fn kept_path(&self, phase: &str) -> PathBuf {
        self.dir.join(format!(".{phase}.kept"))
    }

    fn write(&self, model: &CausalLm, dir: &Path) -> Result<(), TrainError> {
        match &self.lora {
            Some(spec) => lora::save_adapter(model, spec, &self.base.display().to_string(), dir)?,
            None => export::save(model, &self.files, dir)?,
        }
        Ok(())
    }

    fn read(&self, dir: &Path) -> Result<CausalLm, TrainError> {
        match &self.lora {
            Some(_) => {
                let base = CausalLm::from_dir(&self.base, Some(self.storage), &self.device)?;
                Ok(lora::load_adapter(base, dir)?.0)
            }
            None => Ok(CausalLm::from_dir(dir, Some(self.storage), &self.device)?),
        }
    }

    /// Writes the final model as a Hugging Face directory: merged where adapters were trained.
    /// Returns the largest change of a probe's log-prob that merging made.
    ///
    /// # Errors
    /// It cannot be written or read back, or differs by more than rounding explains.
    pub fn export(&self, model: CausalLm, probes: &Dataset, dir: &Path) -> Result<f64, TrainError> {
        let before = probe(&model, probes);
        let aside = dir.with_added_extension("part");
        let _ = std::fs::remove_dir_all(&aside);
        export::save(&model.merged(), &self.files, &aside)?;
        replace_dir(&aside, dir)?;
        let saved = CausalLm::from_dir(dir, Some(self.storage), &self.device)?;
        let drift = largest_difference(&before, &probe(&saved, probes));
        let allowed = match self.lora {
            None => self.noise(&before),
            Some(_) => self.rounding(&before),
        };
        if drift > allowed {
            return Err(ModelError::Parity { path: dir.into(), drift, allowed }.into());
        }
        Ok(drift)
    }

    /// How far log-probs of the same weights may differ: not at all on the CPU; a GPU may choose
    /// other kernels the second time.
    fn noise(&self, logps: &[f64]) -> f64 {
        if on_cpu(&self.device) { 0.0 } else { self.rounding(logps) }
    }

    /// What another order of the same sums may change in these log-probs, in nats.
    fn rounding(&self, logps: &[f64]) -> f64 {
        let scale = logps.iter().fold(1.0, |scale, logp: &f64| logp.abs().max(scale));
        match self.storage {
            Storage::F32 => 1e-4 * scale,
            _ => 2e-2 * scale,
        }
    }
}

/// Removes a directory, if it is there.
fn remove(dir: &Path) -> Result<(), TrainError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(TrainError::io(dir, e)),
        _ => Ok(()),
    }
}

/// Hash of what makes the model's log-probs: its weights and adapters, their type, and the way of
/// scoring them.
fn hash(model: &CausalLm) -> String {
    let base = parameters::hash(model, |path| !is_adapter(path));
    let adapters = parameters::hash(model, is_adapter);
    let text = format!("packed-v1 {:?} {base} {adapters}", model.dtype());
    blake3::hash(text.as_bytes()).to_hex()[..32].to_string()
}

/// Sequence log-probs of the answers of the first few examples.
fn probe(model: &CausalLm, probes: &Dataset) -> Vec<f64> {
    let groups: Vec<Group> = probes
        .examples
        .iter()
        .take(PROBES)
        .map(|example| Group {
            prompt: &example.prompt,
            answers: example.answers.iter().map(|answer| answer.as_slice()).collect(),
        })
        .collect();
    let scored = model.score(&groups, 4096, &HeadOptions::default(), &mut |_| ());
    scored.iter().flatten().map(|logps| logps.iter().map(|logp| f64::from(*logp)).sum()).collect()
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
