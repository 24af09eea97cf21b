//! Tensors on their way into a checkpoint: from the device, or from the files in which other processes have put theirs.

use crate::TrainError;
use crate::persist::disk_space;
use crate::persist::durable::sync;
use crate::phase::PhaseState;
use crate::step::row_sparse::RowSparse;
use burn::tensor::DType;
use safetensors::tensor::{Metadata, TensorInfo, View};
use safetensors::{Dtype, SafeTensorError};
use spo_team::Team;
use std::borrow::Cow;
use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a file that another process has written is looked for: a network's file system shows it late.
const LATE: Duration = Duration::from_secs(60);

/// What went wrong while a tensor was read from a file: where it is read nothing can be said.
#[derive(Debug, Clone, Default)]
pub(super) struct Fault(Rc<RefCell<Option<TrainError>>>);

impl Fault {
    /// # Errors
    /// The first that went wrong.
    pub fn check(&self) -> Result<(), TrainError> {
        self.0.borrow_mut().take().map_or(Ok(()), Err)
    }
}

/// A flat tensor, read when its turn comes.
pub(super) struct Stored {
    values: Values,
    shape: [usize; 1],
}

#[allow(clippy::large_enum_variant, reason = "one for each tensor, whose values are far larger")]
enum Values {
    /// On the device.
    Here(RowSparse),
    /// In a file, from this byte on.
    Of { path: PathBuf, start: u64, dtype: Dtype, fault: Fault },
}

impl Stored {
    pub fn new(values: RowSparse) -> Self {
        Self { shape: [values.elements()], values: Values::Here(values) }
    }
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        match &self.values {
            Values::Of { dtype, .. } => *dtype,
            Values::Here(values) => match values.dtype() {
                DType::F64 => Dtype::F64,
                DType::F16 => Dtype::F16,
                DType::BF16 => Dtype::BF16,
                _ => Dtype::F32,
            },
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.values {
            Values::Here(values) => Cow::Owned(values.clone().into_whole().into_data().as_bytes().to_vec()),
            Values::Of { path, start, fault, .. } => {
                let mut bytes = vec![0; self.data_len()];
                if let Err(error) = read_at(path, *start, &mut bytes) {
                    fault.0.borrow_mut().get_or_insert(TrainError::io(path, error));
                }
                Cow::Owned(bytes)
            }
        }
    }

    fn data_len(&self) -> usize {
        let size = match &self.values {
            Values::Here(values) => values.dtype().size(),
            Values::Of { dtype, .. } => dtype.bitsize() / 8,
        };
        self.shape[0] * size
    }
}

fn read_at(path: &Path, start: u64, bytes: &mut [u8]) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(bytes)
}

/// What a process remembers from step to step.
pub(super) fn moments(state: &PhaseState) -> impl Iterator<Item = (String, Stored)> {
    state.optimizer.state().map(|(name, values)| (name, Stored::new(values)))
}

/// The files of the processes whose moments rank 0 does not have, which go away with this.
#[derive(Debug)]
pub(super) struct Parts(Vec<(PathBuf, u64)>);

impl Parts {
    /// Writes what rank 0 does not have of a phase's state, each process its own. All of them call it.
    ///
    /// # Errors
    /// A file cannot be written, or another process has failed.
    pub fn write(dir: &Path, name: &str, state: &PhaseState, team: &Team) -> Result<Self, TrainError> {
        if team.is_solo() || state.optimizer.owners().is_none() {
            return Ok(Self(vec![]));
        }
        let path = |rank: usize| dir.join(format!("{name}.rank-{rank}.part"));
        let own = if team.is_root() { 0 } else { write_part(dir, &path(team.rank()), state)? };
        let lengths = team.agree(own)?;
        let of_others = if team.is_root() { 1..team.size() } else { 0..0 };
        Ok(Self(of_others.map(|rank| (path(rank), lengths[rank])).collect()))
    }

    /// Their tensors.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn tensors(&self, fault: &Fault) -> Result<Vec<(String, Stored)>, TrainError> {
        let mut all = vec![];
        for (path, length) in &self.0 {
            await_length(path, *length)?;
            all.extend(tensors_of(path, fault)?);
        }
        Ok(all)
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // One that stays is removed when the run goes on.
        self.0.iter().for_each(|(path, _)| drop(std::fs::remove_file(path)));
    }
}

/// Bytes of the file.
fn write_part(dir: &Path, path: &Path, state: &PhaseState) -> Result<u64, TrainError> {
    let tensors: Vec<(String, Stored)> = moments(state).collect();
    disk_space::require(dir, tensors.iter().map(|(_, tensor)| tensor.data_len() as u64).sum(), true)?;
    safetensors::serialize_to_file(tensors, None, path).map_err(|error| safetensors_error(path, error))?;
    sync(path)?;
    Ok(path.metadata().map_err(|e| TrainError::io(path, e))?.len())
}

/// What is wrong with a file of tensors.
pub(super) fn safetensors_error(path: &Path, error: SafeTensorError) -> TrainError {
    match error {
        SafeTensorError::IoError(e) => TrainError::io(path, e),
        other => TrainError::Damaged { path: path.into(), reason: other.to_string() },
    }
}

/// Waits until a file is seen as a whole.
fn await_length(path: &Path, length: u64) -> Result<(), TrainError> {
    let begun = Instant::now();
    loop {
        match path.metadata() {
            Ok(found) if found.len() == length => return Ok(()),
            _ if begun.elapsed() < LATE => std::thread::sleep(Duration::from_millis(20)),
            Ok(found) => {
                let reason = format!("it has {} bytes, and another process has written {length}", found.len());
                return Err(TrainError::Damaged { path: path.into(), reason });
            }
            Err(error) => return Err(TrainError::io(path, error)),
        }
    }
}

fn tensors_of(path: &Path, fault: &Fault) -> Result<Vec<(String, Stored)>, TrainError> {
    let failed = |error| TrainError::io(path, error);
    let mut file = File::open(path).map_err(failed)?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(failed)?;
    let mut header = vec![0; u64::from_le_bytes(length) as usize];
    file.read_exact(&mut header).map_err(failed)?;
    let damaged = |error: serde_json::Error| TrainError::Damaged { path: path.into(), reason: error.to_string() };
    let metadata: Metadata = serde_json::from_slice(&header).map_err(damaged)?;
    let first = length.len() + header.len();
    let stored = |(name, info): (String, &TensorInfo)| {
        let (start, dtype) = ((first + info.data_offsets.0) as u64, info.dtype);
        let values = Values::Of { path: path.into(), start, dtype, fault: fault.clone() };
        (name, Stored { values, shape: [info.shape.iter().product()] })
    };
    Ok(metadata.tensors().into_iter().map(stored).collect())
}
