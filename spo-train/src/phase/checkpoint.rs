//! Snapshots of a phase between two optimiser steps.
//!
//! A checkpoint is one safetensors file: the trained weights, the optimiser's state (of AdamW the moments, and f32
//! masters of 16-bit weights), and in its metadata where the phase was. Its name ends with the
//! blake3 of its bytes, so a damaged or cut file is noticed. `NNNNNN-PHASE-step-N-HASH.safetensors`,
//! numbered in the order of writing. The best policy of a phase is kept as a policy, not here.

use crate::TrainError;
use crate::config::CheckpointPlan;
use crate::config::spec::Best;
use crate::persist::durable::{Mark, files, hash_start, seal_fault, sync, sync_parent};
use crate::persist::float;
use crate::persist::{directory, disk_space};
use crate::phase::hold::HoldState;
use crate::phase::pace::Work;
use crate::phase::state::{Evaluations, PhaseState};
use crate::phase::stored::{Fault, Parts, Stored, moments, safetensors_error};
use crate::policy;
use crate::step::optimizer::Optimizer;
use crate::step::row_sparse::RowSparse;
use burn::tensor::{DType, Device, Element, Tensor, TensorData, bf16, f16};
use safetensors::tensor::View;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use spo_model::CausalLm;
use spo_model::parameters::{for_each, replace};
use spo_team::Team;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Key of the header in the file's metadata.
const HEADER: &str = "spo";
const ENDING: &str = ".safetensors";

/// Where a phase was when it was saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The phase.
    pub phase: String,
    /// Optimiser steps done.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Time taken, milliseconds.
    pub milliseconds: u64,
    /// The step after which the running policy was evaluated last.
    pub evaluated: u64,
    /// The best held-out value so far.
    #[serde(deserialize_with = "float::option")]
    pub best: Option<f64>,
    /// What the evaluations of the running policy found.
    #[serde(alias = "looks")]
    pub evaluations: Evaluations,
    /// λ, where it follows bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldState>,
    /// How far `events.jsonl` was; absent in a loop that writes none.
    pub events: Option<Mark>,
    /// Bytes of it when the stage before the phase was finished.
    pub stage: u64,
}

/// A checkpoint on disk whose bytes are those that were written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Saved {
    /// The file.
    pub path: PathBuf,
    /// Where the phase was.
    pub header: Header,
}

/// The checkpoints of a run: when the next is due, and which are kept.
#[derive(Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    plan: CheckpointPlan,
    /// When and at which step of which phase the last one was written or read.
    last: Instant,
    at: Option<(String, u64)>,
    next: u64,
    /// What an interrupted phase goes on from.
    resume: Option<Saved>,
    /// Bytes of `events.jsonl` when the last stage was finished.
    stage: u64,
    /// Rank 0 of these writes.
    team: Rc<Team>,
}

impl Checkpoints {
    /// The checkpoints of a run directory. `resume` is what its interrupted phase goes on from, `stage` is how many bytes
    /// `events.jsonl` had when the last stage was finished.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(out: &Path, plan: &CheckpointPlan, resume: Option<Saved>, stage: u64) -> Result<Self, TrainError> {
        let dir = out.join(directory::CHECKPOINTS);
        std::fs::create_dir_all(&dir).map_err(|e| TrainError::io(&dir, e))?;
        let next = listed(&dir)?.last().map_or(0, |(number, _)| number + 1);
        Ok(Self { dir, plan: plan.clone(), last: Instant::now(), at: None, next, resume, stage, team: Rc::default() })
    }

    /// Those of a run that several processes share.
    #[must_use]
    pub fn with_team(self, team: Rc<Team>) -> Self {
        Self { team, ..self }
    }

    /// Says that a stage is finished, and how many bytes `events.jsonl` has then.
    pub fn stage_finished(&mut self, bytes: u64) {
        self.stage = bytes;
    }

    /// What this phase goes on from, once.
    pub fn take(&mut self, phase: &str) -> Option<Saved> {
        let saved = self.resume.take_if(|saved| saved.header.phase == phase)?;
        self.at = Some((phase.into(), saved.header.step));
        Some(saved)
    }

    /// Whether a checkpoint is due after this many steps of a phase.
    pub fn due(&self, phase: &str, step: u64) -> bool {
        let steps = self.plan.every_steps > 0 && step.is_multiple_of(self.plan.every_steps);
        let minutes = self.plan.every_minutes > 0.0
            && self.last.elapsed() >= Duration::from_secs_f64(60.0 * self.plan.every_minutes);
        step > 0 && (steps || minutes) && !self.is_at(phase, step)
    }

    /// Whether the last checkpoint is of this step.
    pub fn is_at(&self, phase: &str, step: u64) -> bool {
        self.at.as_ref().is_some_and(|(last, at)| last == phase && *at == step)
    }

    /// Writes a checkpoint and removes those that are too many.
    ///
    /// # Errors
    /// It cannot be written; the ones before it are untouched then.
    pub fn save(&mut self, phase: &str, state: &PhaseState, events: Option<Mark>) -> Result<(), TrainError> {
        let name = format!("{:06}-{phase}-step-{}", self.next, state.step);
        let parts = Parts::write(&self.dir, &name, state, &self.team)?;
        self.team.root(|| {
            write(&self.dir, &name, phase, state, &parts, events, self.stage)?;
            let all = listed(&self.dir)?;
            all[..all.len().saturating_sub(self.plan.keep_last)].iter().try_for_each(|(_, path)| remove(path))
        })?;
        self.next += 1;
        (self.last, self.at) = (Instant::now(), Some((phase.into(), state.step)));
        Ok(())
    }

    /// By what the best policy of a phase is kept.
    pub fn best_by(&self) -> Best {
        self.plan.keep_best
    }
}

/// The newest whole checkpoint of the phase that follows the last finished stage, which ended at byte `finished` of
/// `events.jsonl`; and what is wrong with newer ones, which are removed. So are leftovers of an
/// interrupted save.
pub(crate) fn latest(out: &Path, finished: u64) -> Result<(Option<Saved>, Vec<String>), TrainError> {
    let dir = out.join(directory::CHECKPOINTS);
    let mut faults = vec![];
    if !dir.exists() {
        return Ok((None, faults));
    }
    for path in files(&dir)? {
        if hash_in_name(&path).is_none() {
            remove(&path)?;
        }
    }
    for (_, path) in listed(&dir)?.into_iter().rev() {
        let saved = match Saved::open(&path) {
            Ok(saved) => saved,
            Err(TrainError::Damaged { path, reason }) => {
                faults.push(format!("{}: {reason}", path.display()));
                remove(&path)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        // Those of finished stages are not needed any more; those after a stage that was lost cannot be used.
        let Some(events) = saved.header.events.as_ref().filter(|_| saved.header.stage == finished) else { continue };
        match events.fault(out)?.map_or_else(|| saved.policies_fault(out), |fault| Ok(Some(fault)))? {
            None => return Ok((Some(saved), faults)),
            Some(fault) => {
                faults.push(format!("{}: {fault}", path.display()));
                remove(&path)?;
            }
        }
    }
    Ok((None, faults))
}

/// Numbered checkpoints, oldest first.
fn listed(dir: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let entries = std::fs::read_dir(dir).map_err(|e| TrainError::io(dir, e))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let numbered = paths.filter(|path| hash_in_name(path).is_some()).filter_map(|path| {
        let number = path.file_name()?.to_str()?.split_once('-')?.0.parse().ok()?;
        Some((number, path))
    });
    let mut numbered: Vec<_> = numbered.collect();
    numbered.sort();
    Ok(numbered)
}

fn hash_in_name(path: &Path) -> Option<&str> {
    let (_, hash) = path.file_name()?.to_str()?.strip_suffix(ENDING)?.rsplit_once('-')?;
    (hash.len() == 32).then_some(hash)
}

fn remove(path: &Path) -> Result<(), TrainError> {
    std::fs::remove_file(path).map_err(|e| TrainError::io(path, e))
}

fn write(
    dir: &Path,
    name: &str,
    phase: &str,
    state: &PhaseState,
    parts: &Parts,
    events: Option<Mark>,
    stage: u64,
) -> Result<PathBuf, TrainError> {
    let header = Header {
        phase: phase.into(),
        step: state.step,
        tokens: state.tokens,
        milliseconds: state.time.as_millis() as u64,
        evaluated: state.evaluated,
        best: state.best,
        evaluations: state.evaluations.clone(),
        hold: state.hold.clone(),
        events,
        stage,
    };
    let header = serde_json::to_string(&header).expect("a header is plain data");
    let fault = Fault::default();
    let mut tensors = parts.tensors(&fault)?;
    tensors.extend(moments(state));
    let trained: BTreeSet<String> =
        tensors.iter().filter_map(|(name, _)| Some(name.strip_prefix("first.")?.to_owned())).collect();
    for_each(&state.model, "", |parameter| {
        if state.optimizer.trains(&parameter.path) || trained.contains(&parameter.path) {
            tensors.push((format!("weight.{}", parameter.path), Stored::new(RowSparse::Whole(parameter.value))));
        }
    });
    disk_space::require(dir, tensors.iter().map(|(_, tensor)| tensor.data_len() as u64).sum(), true)?;
    let aside = dir.join(format!("{name}.part"));
    let finish = || {
        safetensors::serialize_to_file(tensors, Some(HashMap::from([(HEADER.to_string(), header)])), &aside)
            .map_err(|error| safetensors_error(&aside, error))?;
        fault.check()?;
        sync(&aside)?;
        let (_, hasher) = hash_start(&aside, u64::MAX).map_err(|e| TrainError::io(&aside, e))?;
        let path = dir.join(format!("{name}-{}{ENDING}", &hasher.finalize().to_hex()[..32]));
        std::fs::rename(&aside, &path).map_err(|e| TrainError::io(&path, e))?;
        sync_parent(&path)?;
        Ok(path)
    };
    finish().inspect_err(|_| {
        let _ = std::fs::remove_file(&aside);
    })
}

impl Saved {
    /// Opens a checkpoint and compares its bytes with the hash in its name.
    ///
    /// # Errors
    /// [`TrainError::Damaged`], or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let damaged = |reason: String| TrainError::Damaged { path: path.into(), reason };
        let bytes = std::fs::read(path).map_err(|e| TrainError::io(path, e))?;
        if hash_in_name(path) != Some(&blake3::hash(&bytes).to_hex()[..32]) {
            return Err(damaged("its bytes do not have the hash in its name".into()));
        }
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(e.to_string()))?;
        let text = metadata.metadata().as_ref().and_then(|metadata| metadata.get(HEADER));
        let text = text.ok_or_else(|| damaged("it is not a checkpoint".into()))?;
        let header = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
        Ok(Self { path: path.into(), header })
    }

    /// What is wrong with the policies that the phase kept until then, if anything is.
    fn policies_fault(&self, out: &Path) -> Result<Option<String>, TrainError> {
        let (policies, Header { phase, best, evaluations, .. }) = (out.join(directory::POLICIES), &self.header);
        let kept = evaluations.kept().map(|step| directory::kept_path(&policies, phase, step));
        if best.is_some() {
            policy::settle_best(&policies, phase)?;
        }
        let best = best.map(|_| directory::best_path(&policies, phase));
        for dir in kept.into_iter().chain(best) {
            if let Some(fault) = seal_fault(&dir)? {
                return Ok(Some(fault));
            }
        }
        Ok(None)
    }

    /// The phase as it was. `model` is any policy of the run: its trained weights are replaced. `optimizer` has the
    /// settings that the phase goes on with, and its state is replaced.
    ///
    /// # Errors
    /// The file cannot be read, or its tensors do not fit the model.
    pub fn restore(&self, model: CausalLm, mut optimizer: Box<dyn Optimizer>) -> Result<PhaseState, TrainError> {
        let damaged = |reason: String| TrainError::Damaged { path: self.path.clone(), reason };
        let bytes = std::fs::read(&self.path).map_err(|e| TrainError::io(&self.path, e))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
        let device = model.device();
        let mut tensors = BTreeMap::new();
        let owners = optimizer.owners();
        let of_others = |name: &str| {
            let moment = name.split_once('.').filter(|(part, _)| *part != "weight");
            moment.zip(owners).is_some_and(|((_, path), owners)| !owners.is_own(path))
        };
        for (name, view) in file.iter().filter(|(name, _)| !of_others(name)) {
            tensors.insert(name.to_string(), read(&view, &device).map_err(damaged)?);
        }
        let mut misfit = None;
        let model = replace(model, "", |parameter| match tensors.remove(&format!("weight.{}", parameter.path)) {
            Some(value) if value.dims() == parameter.value.dims() && value.dtype() == parameter.value.dtype() => value,
            Some(_) => {
                misfit = Some(parameter.path);
                parameter.value
            }
            None => parameter.value,
        });
        let rest = tensors.keys().find(|name| name.starts_with("weight.")).cloned();
        if let Some(name) = misfit.or(rest) {
            return Err(damaged(format!("{name} does not fit the model of this run")));
        }
        let header = &self.header;
        optimizer.restore(header.step, tensors).map_err(damaged)?;
        Ok(PhaseState {
            model,
            optimizer,
            step: header.step,
            tokens: header.tokens,
            time: Duration::from_millis(header.milliseconds),
            own: Work::default(),
            evaluated: header.evaluated,
            best: header.best,
            evaluations: header.evaluations.clone(),
            hold: header.hold.clone(),
            rolled_back: false,
        })
    }
}

fn read(view: &safetensors::tensor::TensorView, device: &Device) -> Result<Tensor<1>, String> {
    let (data, dtype) = match view.dtype() {
        Dtype::F64 => (values(view.data(), f64::from_le_bytes), DType::F64),
        Dtype::F32 => (values(view.data(), f32::from_le_bytes), DType::F32),
        Dtype::F16 => (values(view.data(), f16::from_le_bytes), DType::F16),
        Dtype::BF16 => (values(view.data(), bf16::from_le_bytes), DType::BF16),
        other => return Err(format!("a tensor of type {other:?}")),
    };
    Ok(Tensor::from_data(data, (device, dtype)))
}

/// Typed values: burn copies a vector of bytes to align it.
fn values<E: Element, const BYTES: usize>(bytes: &[u8], read: fn([u8; BYTES]) -> E) -> TensorData {
    let values: Vec<E> = bytes.as_chunks().0.iter().map(|bytes| read(*bytes)).collect();
    let length = values.len();
    TensorData::new(values, [length])
}
