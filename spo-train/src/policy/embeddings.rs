//! What the frozen model makes of every answer of a run's pairs: what contexts are made of. Computed once, and kept by
//! content: one file for the hashes of weights and rows.
//!
//! A record is `answer hash (16 bytes) · numbers (f32)`; a crc32 of all of them ends the file.

use crate::TrainError;
use crate::events::reporter::Reporter;
use crate::persist::durable;
use crate::policy::dealt;
use spo_data::{Dataset, Group, RowHash, row_hash};
use spo_model::CausalLm;
use spo_model::lora::is_adapter;
use spo_model::parameters;
use spo_model::steering::is_steering;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Examples embedded between two checks of the stop flag.
const CHUNK: usize = 256;

/// The embedding of every answer, by its hash.
#[derive(Debug, Clone, Default)]
pub struct Embeddings {
    values: HashMap<RowHash, Vec<f32>>,
}

impl Embeddings {
    /// The file of a model's embeddings of rows with this hash. Adapters and what steers count for nothing.
    pub fn path(dir: &Path, model: &CausalLm, rows: &str) -> PathBuf {
        let weights = parameters::hash(model, |path| !is_adapter(path) && !is_steering(path));
        dir.join(format!("{}-{}.embeddings", &weights[..16], &rows[..16]))
    }

    /// Embeds every answer of the sets.
    ///
    /// # Errors
    /// A row that does not fit the model, a number that is not finite, or the user's interruption.
    pub fn compute(
        model: &CausalLm,
        sets: &[&Dataset],
        token_budget: usize,
        reporter: &Reporter,
    ) -> Result<Self, TrainError> {
        let examples: Vec<_> = sets.iter().flat_map(|set| &set.examples).collect();
        let mut values = HashMap::new();
        for chunk in examples.chunks(CHUNK) {
            reporter.check_stop()?;
            let groups: Vec<Group> = chunk
                .iter()
                .map(|example| Group {
                    prompt: &example.prompt,
                    answers: example.answers.iter().map(|answer| answer.as_slice()).collect(),
                })
                .collect();
            for (example, group) in chunk.iter().zip(&groups) {
                model.spec().check_row(&example.id, group.prompt, &group.answers)?;
            }
            let embedded =
                dealt::scored(&reporter.team, &groups, token_budget, |groups| model.embeddings(groups, token_budget))?;
            for (example, answers) in chunk.iter().zip(embedded) {
                for (answer, embedding) in answers.into_iter().enumerate() {
                    let found = embedding.iter().find(|value| !value.is_finite()).copied();
                    let found = f64::from(found.unwrap_or(0.0));
                    reporter.check_finite("start", 0, &[("an embedding", found)], || vec![example.id.clone()])?;
                    values.insert(example.answer_hash(answer), embedding);
                }
            }
        }
        Ok(Self { values })
    }

    /// Those in a file of `width` numbers each; `None` where there is none, or a damaged one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(path: &Path, width: usize) -> Result<Option<Self>, TrainError> {
        let bytes = match std::fs::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(|e| TrainError::io(path, e))?,
        };
        let Some((records, crc)) = bytes.split_last_chunk::<4>() else { return Ok(None) };
        let record = 16 + 4 * width;
        if *crc != crc32fast::hash(records).to_le_bytes() || !records.len().is_multiple_of(record) {
            return Ok(None);
        }
        let decode = |record: &[u8]| {
            let (key, numbers) = record.split_first_chunk::<16>().expect("a record begins with a hash");
            (*key, numbers.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
        };
        Ok(Some(Self { values: records.chunks(record).map(decode).collect() }))
    }

    /// Writes them all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), TrainError> {
        let mut bytes = vec![];
        for (key, embedding) in self.values.iter().collect::<BTreeMap<_, _>>() {
            bytes.extend(key);
            embedding.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        }
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|e| TrainError::io(dir, e))?;
        }
        durable::write(path, &bytes)
    }

    /// Embeddings that were computed elsewhere, by prompt and answer.
    pub fn of<'a>(all: impl IntoIterator<Item = ((&'a [u32], &'a [u32]), Vec<f32>)>) -> Self {
        Self { values: all.into_iter().map(|((prompt, answer), value)| (row_hash(prompt, answer), value)).collect() }
    }

    /// Number of answers.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The embedding of an answer to a prompt.
    pub fn get(&self, prompt: &[u32], answer: &[u32]) -> Option<&[f32]> {
        self.values.get(&row_hash(prompt, answer)).map(Vec::as_slice)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_back_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/a.embeddings");
        let values = [(row_hash(&[1], &[2]), vec![1.5, -2.0]), (row_hash(&[1], &[3]), vec![0.0, f32::MIN_POSITIVE])];
        let all = Embeddings { values: values.into() };
        assert!(Embeddings::read(&path, 2).unwrap().is_none());
        all.write(&path).unwrap();
        let read = Embeddings::read(&path, 2).unwrap().unwrap();
        assert_eq!(read.values, all.values);
        assert_eq!(read.get(&[1], &[2]), Some([1.5, -2.0].as_slice()));
        assert!(Embeddings::read(&path, 3).unwrap().is_none(), "another model's width");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(Embeddings::read(&path, 2).unwrap().is_none());
    }
}
