//! Which stages of a run are finished, and what came out of them.
//!
//! `progress.jsonl` has one line per finished stage: `blake3 of the rest, a blank, JSON`. A line is
//! written when everything the stage made is on disk; it says how far `events.jsonl` was then and
//! what the stage's files hold. Stages follow each other, so a line counts only if all before it do.

use crate::TrainError;
use crate::persist::directory;
use crate::persist::durable::{Mark, sync_parent};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Between a stage's name and what it is told apart by, which no message shows.
pub(crate) const DETAIL: char = '#';
/// Letters of a line's checksum.
const CHECKSUM: usize = 32;

/// A finished stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    stage: String,
    /// `events.jsonl` when it was finished.
    events: Mark,
    /// What it wrote.
    files: Vec<Mark>,
    /// What the run goes on with.
    result: Value,
}

impl Entry {
    fn name(&self) -> &str {
        self.stage.split(DETAIL).next().unwrap_or(&self.stage)
    }
}

/// The journal of a run.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Stages that an earlier process finished and this one has not come to yet.
    finished: VecDeque<Entry>,
    /// How far `events.jsonl` counts for the finished stages.
    pub events: Option<Mark>,
}

impl Journal {
    /// The journal of a new run.
    pub fn create(out: &Path) -> Result<Self, TrainError> {
        let path = out.join(directory::JOURNAL);
        let file = File::create(&path).map_err(|e| TrainError::io(&path, e))?;
        sync_parent(&path)?;
        Ok(Self { path, file, finished: VecDeque::new(), events: None })
    }

    /// The journal of a run that goes on, cut behind the last line that counts; and why it was cut,
    /// if anything was lost.
    pub fn reopen(out: &Path) -> Result<(Self, Option<String>), TrainError> {
        let path = out.join(directory::JOURNAL);
        let failed = |e| TrainError::io(&path, e);
        let file = OpenOptions::new().create(true).truncate(false).read(true).append(true).open(&path);
        let file = file.map_err(failed)?;
        let bytes = std::fs::read(&path).map_err(failed)?;
        let (mut finished, mut length, mut fault) = (VecDeque::<Entry>::new(), 0, None);
        for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let Some(entry) = decode(line) else {
                // A last line without its end is one that was being written.
                if line.ends_with(b"\n") {
                    fault = Some(format!("{}: line {} is damaged", path.display(), index + 1));
                }
                break;
            };
            for mark in entry.files.iter().chain([&entry.events]) {
                fault = fault.or(mark.fault(out)?);
            }
            if fault.is_some() {
                break;
            }
            length += line.len() as u64;
            finished.push_back(entry);
        }
        file.set_len(length).and_then(|()| file.sync_all()).map_err(failed)?;
        let events = finished.back().map(|entry| entry.events.clone());
        let after = finished.back().map_or("the start".to_string(), |entry| format!("`{}`", entry.name()));
        let fault = fault.map(|fault| format!("{fault}; what follows {after} is done again"));
        Ok((Self { path, file, finished, events }, fault))
    }

    /// Names of the stages that an earlier process finished.
    pub fn stages(&self) -> impl Iterator<Item = &str> {
        self.finished.iter().map(Entry::name)
    }

    /// The result of a stage that is finished.
    pub fn finished<T: DeserializeOwned>(&mut self, stage: &str) -> Result<Option<T>, TrainError> {
        let Some(index) = self.finished.iter().position(|entry| entry.stage == stage) else { return Ok(None) };
        // Not those before it: with another run file, stages may come between those of the first one.
        let entry = self.finished.remove(index).expect("it is there");
        let damaged = |e: serde_json::Error| TrainError::Damaged {
            path: self.path.clone(),
            reason: format!("the result of `{stage}`: {e}"),
        };
        serde_json::from_value(entry.result).map(Some).map_err(damaged)
    }

    /// Writes that a stage is finished. Its files and events must be on disk.
    pub fn finish<T: Serialize>(
        &mut self,
        stage: &str,
        events: Mark,
        files: Vec<Mark>,
        result: &T,
    ) -> Result<(), TrainError> {
        let result = serde_json::to_value(result).expect("results are plain data");
        let line = encode(&Entry { stage: stage.into(), events, files, result });
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(|e| TrainError::io(&self.path, e))
    }
}

fn encode(entry: &Entry) -> Vec<u8> {
    let text = serde_json::to_string(entry).expect("entries are plain data");
    format!("{} {text}\n", checksum(text.as_bytes())).into_bytes()
}

fn decode(line: &[u8]) -> Option<Entry> {
    let (sum, rest) = line.strip_suffix(b"\n")?.split_at_checked(CHECKSUM)?;
    let text = rest.strip_prefix(b" ")?;
    if sum != checksum(text).as_bytes() {
        return None;
    }
    serde_json::from_slice(text).ok()
}

/// The start of the blake3 of some bytes, in hex.
pub(crate) fn checksum(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..CHECKSUM].to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mark(out: &Path) -> Mark {
        Mark::of(out, Path::new("events.jsonl")).unwrap()
    }

    fn two_stages() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        std::fs::write(out.join("events.jsonl"), "{}\n").unwrap();
        std::fs::write(out.join("made"), "by the second").unwrap();
        let mut journal = Journal::create(out).unwrap();
        journal.finish("one", mark(out), vec![], &"first").unwrap();
        std::fs::write(out.join("events.jsonl"), "{}\n{}\n").unwrap();
        journal.finish("two", mark(out), vec![Mark::of(out, Path::new("made")).unwrap()], &2).unwrap();
        dir
    }

    #[test]
    fn finished_stages_give_their_results() {
        let dir = two_stages();
        let (mut journal, fault) = Journal::reopen(dir.path()).unwrap();
        assert_eq!((fault, journal.stages().collect::<Vec<_>>()), (None, vec!["one", "two"]));
        assert_eq!(journal.finished::<String>("one").unwrap().as_deref(), Some("first"));
        assert_eq!(journal.finished::<u64>("two").unwrap(), Some(2));
        assert_eq!(journal.finished::<u64>("three").unwrap(), None);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let whole = std::fs::read(two_stages().path().join(directory::JOURNAL)).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for index in 0..whole.len() {
            let kept = if index < first { 0 } else { 1 };
            let dir = two_stages();
            let mut bytes = whole.clone();
            bytes[index] ^= 1;
            std::fs::write(dir.path().join(directory::JOURNAL), &bytes).unwrap();
            let (journal, _) = Journal::reopen(dir.path()).unwrap();
            assert_eq!(journal.stages().count(), kept, "byte {index}");
            std::fs::write(dir.path().join(directory::JOURNAL), &whole[..index]).unwrap();
            let (journal, fault) = Journal::reopen(dir.path()).unwrap();
            assert_eq!((journal.stages().count(), fault), (kept, None), "cut at {index}");
        }
    }

    #[test]
    fn a_stage_counts_only_while_its_files_are_whole() {
        for (file, word) in [("made", "damaged"), ("events.jsonl", "were written")] {
            let dir = two_stages();
            std::fs::write(dir.path().join(file), if file == "made" { "by the sedond" } else { "{}\n" }).unwrap();
            let (journal, fault) = Journal::reopen(dir.path()).unwrap();
            assert_eq!(journal.stages().collect::<Vec<_>>(), ["one"]);
            let fault = fault.unwrap();
            assert!(fault.contains(file) && fault.contains(word) && fault.contains("`one`"), "{fault}");
        }
    }
}
